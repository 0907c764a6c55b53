"""Sirens on USB relays of the LCUS kind (CH340 and a microcontroller), and the board's simulator.

Facts: sellers' sheets of LCUS-1, -2, -4 and -8; the operations with feedback from drivers that use
them, seen on newer firmware only. 9600 baud 8N1.

=====  =====================================================================================
byte   meaning
=====  =====================================================================================
0      A0
1      relay, the first is 1
2      00 open, 01 close, unanswered; 02 open, 03 close, 04 toggle, 05 ask, answered
3      sum of the three, modulo 256
=====  =====================================================================================

An answer has the same form with 00 or 01, the state, in byte 2.

``feedback`` says whether the firmware answers, and is never found out by trying: on tower lights
with the same header, 02 is "flash" and would sound them. Without it the siren's state stays
unknown, and what is wanted is just sent again: each ``refresh_s`` while sounding and, since an
"open" may have been lost, each ``poll_s`` at rest. With it the same telegrams are answered with
the relay's state; what is not answered is repeated, and a command waits for an answer that is due
for ``timeout_s`` at most.

These boards can't time themselves: when the gateway dies, the siren sounds until someone opens the
relay (``python -m gateway.core --sirens-off`` does) or USB power goes. They carry no serial number:
name the port by /dev/serial/by-path.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from gateway.drivers import Simulator
from gateway.drivers.options import read_options, within
from gateway.events import NS, Diagnostic, SirenState
from gateway.siren import Sirens
from gateway.siren.simulated import SimulatedOutputs

HEADER: Final = 0xA0
OPEN: Final = 0
CLOSE: Final = 1
ANSWERED: Final = 2
"""Added to OPEN and CLOSE where the board answers."""
TOGGLE: Final = 4
ASK: Final = 5
SIZE: Final = 4

_GAP_NS: Final = NS // 50
"""Between two telegrams: what a board does with one while it switches is not documented."""


def telegram(relay: int, operation: int) -> bytes:
    return bytes((HEADER, relay, operation, (HEADER + relay + operation) & 0xFF))


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile."""

    feedback: bool = False
    """The firmware knows the operations that are answered."""
    relays: int = 1
    refresh_s: float = 1.0
    """Time between telegrams while sounding."""
    poll_s: float = 10.0
    """Time between telegrams at rest."""
    timeout_s: float = 0.3
    """How long an answer may take."""
    retries: int = 2
    """How often an unanswered telegram is sent again at once before it is reported and slowed."""

    def __post_init__(self) -> None:
        within("relays", self.relays, 1, 8)
        within("refresh_s", self.refresh_s, 0.2, 10.0, "s")
        within("poll_s", self.poll_s, 1.0, 3600.0, "s")
        within("timeout_s", self.timeout_s, 0.05, 2.0, "s")
        within("retries", self.retries, 0, 10)


@dataclass(frozen=True, slots=True)
class Unit:
    """A siren's own key."""

    relay: int = 1


@dataclass(slots=True)
class _Relay:
    siren: str
    number: int
    until_ns: int = 0
    due_ns: int = 0
    closed: bool | None = None
    unanswered: int = 0

    @property
    def sounding(self) -> bool:
        return self.until_ns > 0


class LcusRelay:
    """All siren relays of one board: :class:`Options`, and a :class:`Unit` each."""

    simulator: ClassVar[type[Simulator] | None]
    pulse_s: float | None = None

    def __init__(
        self, options: Mapping[str, Any] | None = None, sirens: Sirens | None = None
    ) -> None:
        self._options = settings = read_options(Options, options)
        self.reads_back = settings.feedback
        self._refresh_ns = round(settings.refresh_s * NS)
        self._poll_ns = round(settings.poll_s * NS)
        self._timeout_ns = round(settings.timeout_s * NS)
        self._relays: dict[str, _Relay] = {}
        for name, keys in (sirens or {}).items():
            try:
                number = read_options(Unit, keys).relay
                within("relay", number, 1, settings.relays)
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from None
            if any(other.number == number for other in self._relays.values()):
                raise ValueError(f"{name}.relay: saw {number}; each siren needs its own")
            self._relays[name] = _Relay(name, number)
        self._pending: tuple[_Relay, bool] | None = None
        self._free_ns = 0
        self._in = bytearray()
        self._out = bytearray()

    def opened(self, t: int) -> None:
        """Begin anew: what must sound is told to, every other relay is opened."""
        self._pending = None
        self._free_ns = t
        self._in.clear()
        self._out.clear()
        for relay in self._relays.values():
            relay.closed = None
            relay.unanswered = 0
            relay.due_ns = t
        self._pump(t)

    def sound(self, siren: str, until_ns: int, t: int) -> None:
        relay = self._relays[siren]
        if until_ns <= t:
            self.silence(siren, t)
        else:
            if not relay.sounding:
                relay.due_ns = t
            relay.until_ns = until_ns
            self._pump(t)

    def silence(self, siren: str, t: int) -> None:
        relay = self._relays[siren]
        relay.until_ns = 0
        relay.due_ns = t
        self._pump(t)

    def self_test(self, siren: str, t: int) -> None:
        self._relays[siren].closed = None
        self.silence(siren, t)

    def feed(self, data: bytes, t: int) -> list[SirenState | Diagnostic]:
        result: list[SirenState | Diagnostic] = []
        self._in += data
        start = garbage = 0
        while len(self._in) - start >= SIZE:
            frame = bytes(self._in[start : start + SIZE])
            if frame[2] in (OPEN, CLOSE) and frame == telegram(frame[1], frame[2]):
                start += SIZE
                result += self._answered(frame[1], frame[2] == CLOSE, t)
            else:
                start += 1
                garbage += 1
        del self._in[:start]
        if garbage:
            result.append(Diagnostic("garbage", garbage))
        self._pump(t)
        return result

    def tick(self, t: int) -> list[SirenState | Diagnostic]:
        result: list[SirenState | Diagnostic] = []
        if self._pending is not None and t >= self._free_ns:
            result = self._unanswered(self._pending[0], t)
            self._pending = None
            self._in.clear()
        self._pump(t)
        return result

    def next_deadline(self) -> int | None:
        if self._pending is not None:
            return self._free_ns
        times = [max(relay.due_ns, self._free_ns) for relay in self._relays.values()]
        times += [relay.until_ns for relay in self._relays.values() if relay.sounding]
        return min(times, default=None)

    def to_send(self) -> bytes:
        data = bytes(self._out)
        self._out.clear()
        return data

    def off_frames(self) -> bytes:
        return b"".join(telegram(relay.number, OPEN) for relay in self._relays.values())

    def _pump(self, t: int) -> None:
        """Send the most urgent telegram that is due: those that get answers first, then starts."""
        for relay in self._relays.values():
            if relay.sounding and t >= relay.until_ns:
                relay.until_ns = 0
                relay.due_ns = t
        due = [relay for relay in self._relays.values() if relay.due_ns <= t]
        if not due or self._pending is not None or t < self._free_ns:
            return
        relay = min(due, key=lambda r: (r.unanswered, r.closed is r.sounding, not r.sounding))
        operation = CLOSE if relay.sounding else OPEN
        relay.due_ns = t + (self._refresh_ns if relay.sounding else self._poll_ns)
        self._free_ns = t + _GAP_NS
        if self._options.feedback:
            operation += ANSWERED
            self._pending = relay, relay.sounding
            self._free_ns = t + self._timeout_ns
        self._out += telegram(relay.number, operation)

    def _answered(self, number: int, closed: bool, t: int) -> list[SirenState | Diagnostic]:
        if self._pending is None or (self._pending[0].number, self._pending[1]) != (number, closed):
            text = f"relay {number} says {'closed' if closed else 'open'}, which was not asked"
            return [Diagnostic("unsolicited", SIZE, text)]
        relay, self._pending = self._pending[0], None
        self._free_ns = t + _GAP_NS
        relay.unanswered = 0
        if relay.closed is closed or relay.sounding is not closed:
            return []  # nothing new, or told otherwise since
        relay.closed = closed
        return [SirenState(relay.siren, closed)]

    def _unanswered(self, relay: _Relay, t: int) -> list[SirenState | Diagnostic]:
        relay.unanswered += 1
        if relay.unanswered <= self._options.retries:
            relay.due_ns = t
        elif relay.closed is not False or relay.sounding:
            relay.due_ns = min(relay.due_ns, t + self._refresh_ns)
        if relay.unanswered != self._options.retries + 1:
            return []
        detail = (
            f"{relay.siren}: relay {relay.number} does not answer; check the board, and that its "
            "firmware has feedback (else set feedback = false)"
        )
        known, relay.closed = relay.closed, None
        lost = [] if known is None else [SirenState(relay.siren, None)]
        return [*lost, Diagnostic("no_answer", relay.unanswered, detail)]


class LcusRelaySimulator(SimulatedOutputs):
    """The board, with or without feedback; made with ``feedback`` and ``relays``."""

    def __init__(self, options: Mapping[str, Any] | None = None, source: object = None) -> None:
        del source
        settings = read_options(Options, options)
        super().__init__(settings.relays)
        self._feedback = settings.feedback

    def feed(self, data: bytes, t: int) -> None:
        self._in += data
        while len(self._in) >= SIZE:
            frame = bytes(self._in[:SIZE])
            if frame != telegram(frame[1], frame[2]):
                del self._in[0]
                continue
            del self._in[:SIZE]
            if 1 <= frame[1] <= len(self.relays):
                self._obey(frame[1], frame[2], t)

    def tick(self, t: int) -> None:
        """The board does nothing by itself."""

    def next_deadline(self) -> int | None:
        return None

    def _obey(self, number: int, operation: int, t: int) -> None:
        if operation in (OPEN, CLOSE):
            self._set(number, operation == CLOSE, t)
        elif self._feedback and operation <= ASK:
            closed = self.relays[number - 1]
            if operation != ASK:
                closed = not closed if operation == TOGGLE else operation == CLOSE + ANSWERED
            self._set(number, closed, t)
            self._out += telegram(number, CLOSE if closed else OPEN)


LcusRelay.simulator = LcusRelaySimulator
