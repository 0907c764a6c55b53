"""Sirens on the relays of Modbus RTU boards of Waveshare's kind, and the board's simulator.

Facts: Waveshare's wiki pages "Modbus RTU Relay" and "Protocol Manual of Modbus RTU Relay" (protocol
V2, from September 2021); framing in :mod:`gateway.modbus`. 9600 baud 8N1, address 1. LC-Tech
boards know all of it but the timed pulse: ``pulse_s = 0``.

========  ===============  ======================  ==========================================
function  register         value                   effect; a write is answered by its echo
========  ===============  ======================  ==========================================
05        relay − 1        FF00, 0000, 5500        close, open, toggle one relay
05        00FF             FF00, 0000              close, open all relays
05        0200 + relay−1   1…7FFF, × 100 ms        flash-on: close, then open by itself
05        0400 + relay−1   1…7FFF, × 100 ms        flash-off: open, then close by itself
01        0                number of relays        read the relays; relay 1 is bit 0
0F        0                number, bytes, bits     write several relays
========  ===============  ======================  ==========================================

Sounding. A closed relay sounds. It is closed by flash-on and by nothing else, so that it opens by
itself when the gateway dies. No document says whether a flash-on sent to a running one restarts
the board's timer, so ``pulse_restarts`` says what is known of the board:

- ``yes``: pulses of ``pulse_s`` (3 s), sent again each ``refresh_s`` (1 s): one or two may be lost
  before a gap is heard, and the siren is silent within 3 s of the last.
- ``no``: one pulse as long as the stretch that is to be sounded. Short pulses would leave a gap at
  the end of each; opening the relay between them would be heard on an electronic siren (about
  30 ms each time), wear the contact under load and turn one lost frame into a second of silence.
- ``unknown`` (the default): the long pulse and, as soon as that is echoed, the short ones. A board
  that restarts its timer is then held as with ``yes``; one that doesn't, as with ``no``. Neither
  stutters, and either opens at the end of the stretch at the latest with no gateway to tell it.

In all three the end is also sent as a plain "open". Unless ``yes``, a stretch that was prolonged is
opened and closed again once, just before the long pulse ends, since a timer that runs can't be
counted on to be replaced; one pulse reaches 54 min. A board that refuses flash-on is closed
plainly rather than left silent, and this is reported: such a siren depends on the gateway to be
silenced.

Proof. Echo says that the board heard; only the relays read back (01) make a
:class:`~gateway.events.SirenState`, because an RS-485 adapter that echoes its own transmission
would confirm any write. Relays are read after each change, each ``refresh_s``/2 while one sounds
(half of these fall between two pulses, where a relay that opened early shows) and each ``poll_s``
at rest. What differs from what is wanted is a ``mismatch`` and is sent again.

Time on the bus. One exchange takes about 25 ms at 9600 baud, and a command waits for at most the
one that is under way, with the 4 ms of silence after it. At rest that is 25 ms in ``poll_s`` =
10 s: one command in 400 waits, 12 ms on average. An exchange with a board that is dead lasts
``timeout_s`` (0.2 s), which bounds every wait. When several relays want the bus, boards that answer
go before those that don't; then starts, since a late start costs warning time; then stops, whose
lateness of some 25 ms adds to a sound that is already there; then pulses that hold, which have 2 s
to spare; then reading.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Final

from gateway.drivers import Simulator
from gateway.drivers.options import one_of, read_options, within
from gateway.events import NS, Diagnostic, SirenState
from gateway.modbus import (
    BROADCAST,
    MAX_FRAME,
    Answer,
    Function,
    Master,
    NoAnswer,
    Refusal,
    Request,
    crc16,
    seal,
)
from gateway.siren import Sirens
from gateway.siren.simulated import SimulatedOutputs

ON: Final = 0xFF00
OFF: Final = 0x0000
TOGGLE: Final = 0x5500
ALL: Final = 0x00FF
FLASH_ON: Final = 0x0200
FLASH_OFF: Final = 0x0400
TENTH_NS: Final = NS // 10
LONGEST_TENTHS: Final = 0x7FFF

_GAP_NS: Final = 4_000_000
"""3.5 characters at 9600 baud, the silence that ends a frame."""
_LATE_NS: Final = NS
"""How long after a time-out the answer to a read is still reckoned with."""
_ROUNDING_NS: Final = 2 * TENTH_NS
"""A relay found open so close to the end has not disobeyed: clocks differ."""
_RENEW_NS: Final = 3 * TENTH_NS
"""How long before the end of a pulse that is too short another takes its place."""
_NEVER: Final = 1 << 63


class Drive(IntEnum):
    """What a relay is to be told next, the most urgent first."""

    start = 0
    stop = 1
    renew = 2
    """Open, then start: the stretch was prolonged beyond its pulse."""
    hold = 3
    """The start was echoed: pulses that keep it closed."""
    rest = 4
    """The stop was echoed: nothing to tell."""


_START, _STOP, _RENEW, _HOLD, _REST = Drive
"""Python 3.11 looks up a member of an enumeration by several calls, each time."""

_WRITE: Final = Function.write_coil
_SOUNDING: Final = frozenset({_START, _RENEW, _HOLD})


@dataclass(slots=True)
class _Board:
    address: int
    read: Request
    relays: list["_Relay"] = field(default_factory=list)
    unanswered: int = 0
    read_due_ns: int = 0

    @property
    def sounding(self) -> bool:
        return any(relay.drive in _SOUNDING for relay in self.relays)


@dataclass(slots=True)
class _Relay:
    siren: str
    board: _Board
    coil: int
    drive: Drive = _STOP
    due_ns: int | None = 0
    until_ns: int = 0
    timed: bool = True
    pulse_due_ns: int = _NEVER
    covered_ns: int = _NEVER
    """Until when the start's own pulse, or the short ones after it, keep it closed."""
    ends_ns: int = 0
    """When it opens by itself at the latest, whatever was heard of what was sent."""
    closed: bool | None = None
    misfits: int = 0
    order: int = 0
    """Counts what it was told, so that the echo of an older command proves nothing."""
    sent_order: int = 0
    """What of that was last sent, at ``sent_ns``."""
    sent_ns: int = 0

    @property
    def urgency(self) -> tuple[int, int, Drive]:
        """Sorts the relays that wait for the bus."""
        return self.board.unanswered, self.misfits, self.drive

    def tell(self, drive: Drive, due_ns: int) -> None:
        self.drive = drive
        self.due_ns = due_ns
        self.order += 1

    def hold(self) -> None:
        """Next comes a pulse, or a renewal where the stretch is longer than what is covered."""
        renew_ns = self.covered_ns - _RENEW_NS if self.until_ns > self.covered_ns else _NEVER
        self.drive = _HOLD
        self.due_ns = min(self.pulse_due_ns, renew_ns)


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile."""

    pulse_s: float = 3.0
    """Length of a short pulse; 0 for a board that has no flash-on."""
    refresh_s: float = 1.0
    """Time between short pulses."""
    pulse_restarts: str = "unknown"
    """``yes``, ``no`` or ``unknown``: does a flash-on restart the timer of a running one?"""
    poll_s: float = 10.0
    """Time between readings of the relays at rest."""
    timeout_s: float = 0.2
    """How long an answer may take."""
    retries: int = 2
    """How often an unanswered command is sent again at once before it is reported and slowed."""
    coils: int = 8
    """Number of relays of a board."""

    def __post_init__(self) -> None:
        within("refresh_s", self.refresh_s, 0.2, 1.5, "s")
        if self.pulse_s:
            within(
                "pulse_s", self.pulse_s, 2 * self.refresh_s, 3.0, "s (twice refresh_s to 3), or 0"
            )
        one_of("pulse_restarts", self.pulse_restarts, ("yes", "no", "unknown"))
        within("poll_s", self.poll_s, 1.0, 3600.0, "s")
        within("timeout_s", self.timeout_s, 0.02, 1.0, "s")
        within("retries", self.retries, 0, 10)
        within("coils", self.coils, 1, 255)


@dataclass(frozen=True, slots=True)
class Unit:
    """A siren's own keys: its board's address and its relay, the first being 1."""

    address: int = 1
    relay: int = 1

    def __post_init__(self) -> None:
        within("address", self.address, 1, 255)
        within("relay", self.relay, 1, 255)


class ModbusRelay:
    """All siren relays of one serial line: :class:`Options`, and a :class:`Unit` each."""

    simulator: ClassVar[type[Simulator] | None]
    reads_back: bool = True
    pulse_s: float | None

    def __init__(
        self, options: Mapping[str, Any] | None = None, sirens: Sirens | None = None
    ) -> None:
        self._options = settings = read_options(Options, options)
        self._pulse_ns = round(settings.pulse_s * NS)
        self._refresh_ns = round(settings.refresh_s * NS)
        self._poll_ns = round(settings.poll_s * NS)
        self._bus = Master(round(settings.timeout_s * NS), _LATE_NS, _GAP_NS)
        self._boards: dict[int, _Board] = {}
        self._relays: dict[str, _Relay] = {}
        for name, keys in (sirens or {}).items():
            try:
                self._add(name, read_options(Unit, keys))
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from None
        self._writing: _Relay | None = None
        """The relay whose write is under way."""
        self.pulse_s = None
        self._state_pulse()

    def _add(self, name: str, unit: Unit) -> None:
        coils = self._options.coils
        within("relay", unit.relay, 1, coils)
        for other in self._relays.values():
            if (other.board.address, other.coil + 1) == (unit.address, unit.relay):
                raise ValueError(
                    f"relay: saw {unit.relay} of board {unit.address}, which {other.siren} has; "
                    "each siren needs its own"
                )
        read = Request(unit.address, Function.read_coils, 0, coils)
        board = self._boards.setdefault(unit.address, _Board(unit.address, read))
        self._relays[name] = _Relay(name, board, unit.relay - 1, timed=self._pulse_ns > 0)
        board.relays.append(self._relays[name])

    def _state_pulse(self) -> None:
        timed = self._pulse_ns > 0 and all(relay.timed for relay in self._relays.values())
        sure = timed and self._options.pulse_restarts == "yes"
        self.pulse_s = self._options.pulse_s if sure else None

    # --- what the core calls ------------------------------------------------------------------

    def opened(self, t: int) -> None:
        """Begin anew: what must sound sounds, every other relay is opened, all are read."""
        self._bus.reset()
        self._writing = None
        for board in self._boards.values():
            board.unanswered = 0
            board.read_due_ns = t
        for relay in self._relays.values():
            relay.closed = None
            relay.misfits = 0
            relay.timed = self._pulse_ns > 0
            relay.tell(_START if t < relay.until_ns else _STOP, t)
        self._state_pulse()
        self._pump(t)

    def sound(self, siren: str, until_ns: int, t: int) -> None:
        """Close the relay: the frame is in :meth:`to_send` now, or when the bus is free."""
        relay = self._relays[siren]
        if until_ns <= t:
            self.silence(siren, t)
            return
        relay.until_ns = until_ns
        if relay.drive not in _SOUNDING:
            relay.misfits = 0
            relay.tell(_START, t)
        elif relay.drive is _HOLD:
            relay.hold()
        self._pump(t)

    def silence(self, siren: str, t: int) -> None:
        """Open the relay; sent even where it is thought to be open."""
        relay = self._relays[siren]
        relay.until_ns = 0
        relay.misfits = 0
        relay.tell(_STOP, t)
        self._pump(t)

    def self_test(self, siren: str, t: int) -> None:
        """Open the relay once more and read it, as if nothing were known of it."""
        self._relays[siren].closed = None
        self.silence(siren, t)

    def feed(self, data: bytes, t: int) -> list[SirenState | Diagnostic]:
        """Take bytes that were read at ``t``."""
        result: list[SirenState | Diagnostic] = []
        self._expire(t)
        for item in self._bus.feed(data, t):
            if isinstance(item, Diagnostic):
                result.append(item)
                continue
            board = self._boards[item.request.address]
            board.unanswered = 0
            if isinstance(item, Refusal):
                result += self._refused(board, item, t)
            elif item.request.is_read:
                result += self._read(board, item, t)
            else:
                self._echoed(item.request, t)
        self._pump(t)
        return result

    def tick(self, t: int) -> list[SirenState | Diagnostic]:
        """Ends of stretches, time-outs, pulses and polls that are due."""
        self._expire(t)
        lapse = self._bus.tick(t)
        result = self._unanswered(lapse, t) if lapse else []
        self._pump(t)
        return result

    def next_deadline(self) -> int | None:
        if self._bus.pending is not None:
            return self._bus.deadline_ns
        times = [
            max(board.read_due_ns, self._bus.ready_ns(board.read))
            for board in self._boards.values()
        ]
        for relay in self._relays.values():
            if relay.due_ns is not None:
                times.append(max(relay.due_ns, self._bus.free_ns))
            if relay.drive in _SOUNDING:
                times.append(relay.until_ns)
        return min(times, default=None)

    def to_send(self) -> bytes:
        return self._bus.to_send()

    def off_frames(self) -> bytes:
        """One frame, for a line on which nobody waits for answers and two would collide.

        One siren: its own relay. Several: all relays of their board or, by broadcast, of all
        boards, those that are no siren's included, which is right for a last resort only.
        """
        places = {(relay.board.address, relay.coil) for relay in self._relays.values()}
        if not places:
            return b""
        addresses = {address for address, _ in places}
        address = addresses.pop() if len(addresses) == 1 else BROADCAST
        coil = next(iter(places))[1] if len(places) == 1 else ALL
        return Request(address, _WRITE, coil, OFF).frame

    # --- the bus ------------------------------------------------------------------------------

    def _expire(self, t: int) -> None:
        for relay in self._relays.values():
            if relay.drive in _SOUNDING and t >= relay.until_ns:
                relay.tell(_STOP, t)

    def _pump(self, t: int) -> None:
        """Send the most urgent of what is due, if the bus is free."""
        if self._bus.pending is not None or t < self._bus.free_ns:
            return
        relay: _Relay | None = None
        for other in self._relays.values():
            waits = other.due_ns is not None and other.due_ns <= t
            if waits and (relay is None or other.urgency < relay.urgency):
                relay = other
        if relay is not None:
            if relay.drive is _HOLD and t < relay.pulse_due_ns:
                relay.tell(_RENEW, t)
            self._writing, relay.sent_order, relay.sent_ns = relay, relay.order, t
            command = self._command(relay, t)
            if command.value != OFF:
                pulse_ns = command.value * TENTH_NS if relay.timed else _NEVER - t
                relay.ends_ns = max(relay.ends_ns, t + pulse_ns)
            self._bus.send(command, t)
            return
        for board in self._boards.values():
            if board.read_due_ns <= t and self._bus.ready_ns(board.read) <= t:
                self._bus.send(board.read, t)
                return

    def _command(self, relay: _Relay, t: int) -> Request:
        register, value = relay.coil, OFF
        if relay.drive in (_START, _HOLD):
            value = ON
            if relay.timed:
                length_ns = relay.until_ns - t
                if relay.drive is _HOLD or self._options.pulse_restarts == "yes":
                    length_ns = min(length_ns, self._pulse_ns)
                register += FLASH_ON
                value = min(max(1, -(-length_ns // TENTH_NS)), LONGEST_TENTHS)
        return Request(relay.board.address, _WRITE, register, value)

    def _own_write(self) -> _Relay | None:
        """The relay whose write was under way, unless it has been told otherwise since."""
        relay, self._writing = self._writing, None
        return relay if relay is not None and relay.sent_order == relay.order else None

    def _echoed(self, request: Request, t: int) -> None:
        relay = self._own_write()
        if relay is None:
            return
        if relay.drive is _RENEW:
            relay.tell(_START, t)
            return
        if relay.drive is _STOP:
            relay.drive, relay.due_ns, relay.ends_ns = _REST, None, t
            relay.board.read_due_ns = t
            return
        relay.pulse_due_ns = relay.sent_ns + self._refresh_ns
        if relay.drive is _START:
            relay.covered_ns = _NEVER
            if relay.timed and self._options.pulse_restarts != "yes":
                relay.covered_ns = relay.sent_ns + request.value * TENTH_NS
                relay.pulse_due_ns = t if self._options.pulse_restarts == "unknown" else _NEVER
            relay.board.read_due_ns = t
        relay.hold()

    def _read(self, board: _Board, answer: Answer, t: int) -> list[SirenState | Diagnostic]:
        result: list[SirenState | Diagnostic] = []
        for relay in board.relays:
            closed = bool(answer.data[relay.coil // 8] >> relay.coil % 8 & 1)
            wanted = relay.drive is _HOLD
            settled = wanted or relay.drive is _REST
            if not settled and not relay.misfits:
                continue  # told otherwise while it was read: the next reading counts
            if wanted and not closed and relay.until_ns - t <= _ROUNDING_NS:
                continue  # opened by the end of its pulse, a little early
            if closed is not relay.closed:
                relay.closed = closed
                result.append(SirenState(relay.siren, closed))
            if settled and closed is wanted:
                relay.misfits = 0
            elif settled:
                relay.misfits += 1
                if relay.misfits == 1:
                    result.append(Diagnostic("mismatch", 1, _place(relay, closed=closed)))
                again_ns = t + self._pause(relay, relay.misfits, t)
                relay.tell(_START if wanted else _STOP, again_ns)
        board.read_due_ns = t + self._read_every(board)
        return result

    def _read_every(self, board: _Board) -> int:
        return self._refresh_ns // 2 if board.sounding else self._poll_ns

    def _pause(self, relay: _Relay, failures: int, t: int) -> int:
        """How long to wait after so many failures: none, then ``refresh_s``.

        Ever longer, up to ``poll_s``, where nothing sounds and nothing should.
        """
        slow = failures - self._options.retries - 1
        if slow < 0:
            return 0
        if relay.drive in _SOUNDING or t < relay.ends_ns or relay.closed:
            return self._refresh_ns
        return min(self._refresh_ns << min(slow, 16), self._poll_ns)

    def _refused(self, board: _Board, refusal: Refusal, t: int) -> list[SirenState | Diagnostic]:
        if refusal.request.is_read:
            board.read_due_ns = t + self._poll_ns
            detail = f"board {board.address} does not let its relays be read: {refusal.reason}"
            return [*_forget(board), Diagnostic("refused", 1, detail)]
        relay = self._own_write()
        if relay is None:
            return []
        if refusal.request.register >= FLASH_ON and refusal.code <= 3:
            relay.timed = False
            self._state_pulse()
            relay.tell(_START, t)
            what = (
                "refuses timed pulses; it is switched plainly and needs the gateway to fall silent"
            )
        else:
            relay.misfits += 1
            relay.due_ns = t + self._pause(relay, relay.misfits, t)
            what = "refuses a command, which is repeated"
        detail = f"{relay.siren}: relay {relay.coil + 1} of board {board.address} {what}"
        return [Diagnostic("refused", 1, f"{detail}: {refusal.reason}")]

    def _unanswered(self, lapse: NoAnswer, t: int) -> list[SirenState | Diagnostic]:
        board = self._boards[lapse.request.address]
        board.unanswered += 1
        if lapse.request.is_read:
            fast = board.unanswered <= self._options.retries
            board.read_due_ns = t if fast else t + max(self._refresh_ns, self._read_every(board))
        elif relay := self._own_write():
            relay.due_ns = t + self._pause(relay, board.unanswered, t)
        if board.unanswered != self._options.retries + 1:
            return []
        detail = (
            f"board {board.address} does not answer; check its power, the A/B wires and that its "
            "address and baud rate are those of the configuration"
        )
        return [*_forget(board), Diagnostic("no_answer", board.unanswered, detail)]


def _place(relay: _Relay, *, closed: bool) -> str:
    found, wanted = ("closed", "open") if closed else ("open", "closed")
    return (
        f"{relay.siren}: relay {relay.coil + 1} of board {relay.board.address} is {found} and "
        f"should be {wanted}; it is told again"
    )


def _forget(board: _Board) -> list[SirenState | Diagnostic]:
    known = [relay for relay in board.relays if relay.closed is not None]
    for relay in known:
        relay.closed = None
    return [SirenState(relay.siren, None) for relay in known]


class ModbusRelaySimulator(SimulatedOutputs):
    """The board: its relays, flash timers, and answers after the silence that ends a frame.

    Made with ``coils`` and ``pulse_restarts`` of :class:`Options` (``no``: a flash-on to a running
    one is echoed and changes nothing; else it restarts the timer) and ``address`` of :class:`Unit`.
    A plain write ends a running timer. ``tenth_ns`` is a tenth of a second by the board's clock.
    """

    tenth_ns: ClassVar[int] = TENTH_NS

    def __init__(self, options: Mapping[str, Any] | None = None, source: object = None) -> None:
        del source
        table = dict(options or {})
        self._address = read_options(Unit, {"address": table.pop("address", 1)}).address
        settings = read_options(Options, table)
        super().__init__(settings.coils)
        self._restarts = settings.pulse_restarts != "no"
        self._timers: dict[int, tuple[int, bool]] = {}
        self._last_ns = 0

    def powered(self, t: int) -> None:
        """All relays open, no timer runs."""
        self._timers.clear()
        super().powered(t)

    def feed(self, data: bytes, t: int) -> None:
        self.tick(t)
        if data:
            self._in += data[: MAX_FRAME + 1 - len(self._in)]
            self._last_ns = t

    def tick(self, t: int) -> None:
        for coil, (due, closed) in sorted(self._timers.items(), key=lambda item: item[1][0]):
            if due <= t:
                del self._timers[coil]
                self._set(coil + 1, closed, due)
        if self._in and t >= self._last_ns + _GAP_NS:
            frame = bytes(self._in)
            self._in.clear()
            if len(frame) >= 4 and frame[0] in (self._address, BROADCAST) and crc16(frame) == 0:
                answer = self._obey(frame[1], frame[2:-2], t)
                if frame[0] != BROADCAST:
                    self._out += seal(bytes((self._address,)) + answer)

    def next_deadline(self) -> int | None:
        times = [due for due, _ in self._timers.values()]
        if self._in:
            times.append(self._last_ns + _GAP_NS)
        return min(times, default=None)

    def _obey(self, function: int, data: bytes, t: int) -> bytes:
        """Function and data of the answer; a part gives its data or the number of an exception."""
        answer: bytes | int = 1
        if function == Function.read_coils:
            answer = self._read_coils(data)
        elif function == Function.write_coil:
            answer = self._write_coil(data, t)
        elif function == Function.write_coils:
            answer = self._write_coils(data, t)
        if isinstance(answer, int):
            return bytes((function | 0x80, answer))
        return bytes((function,)) + answer

    def _span(self, data: bytes) -> tuple[int, int] | int:
        first, count = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        if len(data) < 4 or count == 0:
            return 3
        return (first, count) if first + count <= len(self.relays) else 2

    def _read_coils(self, data: bytes) -> bytes | int:
        span = self._span(data)
        if isinstance(span, int):
            return span
        first, count = span
        bits = sum(self.relays[first + i] << i for i in range(count))
        size = (count + 7) // 8
        return bytes((size,)) + bits.to_bytes(size, "little")

    def _write_coils(self, data: bytes, t: int) -> bytes | int:
        span = self._span(data)
        if isinstance(span, int):
            return span
        first, count = span
        if len(data) != 5 + (count + 7) // 8 or data[4] != (count + 7) // 8:
            return 3
        bits = int.from_bytes(data[5:], "little")
        for i in range(count):
            self._switch(first + i, bool(bits >> i & 1), t)
        return data[:4]

    def _write_coil(self, data: bytes, t: int) -> bytes | int:
        register, value = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")
        if len(data) != 4:
            return 3
        group, coil = register & 0xFF00, register & 0x00FF
        if register == ALL and value in (ON, OFF):
            for each in range(len(self.relays)):
                self._switch(each, value == ON, t)
        elif group not in (0, FLASH_ON, FLASH_OFF) or coil >= len(self.relays):
            return 2
        elif group == 0:
            if value not in (ON, OFF, TOGGLE):
                return 3
            self._switch(coil, value == ON or (value == TOGGLE and not self.relays[coil]), t)
        elif not 1 <= value <= LONGEST_TENTHS:
            return 3
        elif self._restarts or coil not in self._timers:
            closed = group == FLASH_ON
            self._set(coil + 1, closed, t)
            self._timers[coil] = (t + value * self.tenth_ns, not closed)
        return data

    def _switch(self, coil: int, closed: bool, t: int) -> None:
        self._timers.pop(coil, None)
        self._set(coil + 1, closed, t)


ModbusRelay.simulator = ModbusRelaySimulator
