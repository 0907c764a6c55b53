"""A Patlite signal tower on its PHE-3FB3 converter as a siren, and the converter's simulator.

Facts: PHE-3FB3 manual, normal mode: RS-232C or USB, 9600 baud 8N1, no flow control.

======  ===========================================================================
bytes   meaning
======  ===========================================================================
0       ``@``
1–2     unit, two characters; ``??`` is any
3       ``S`` set, ``C`` all off
4–9     with ``S``: red, amber, green (0 off, 1 on, 2 and 3 flash, 9 as it is), two
        that are not used, buzzer (0 off, 1…4 its patterns, 9 as it is)
last    ``!``
======  ===========================================================================

The converter answers ACK (06) or NAK (15), and wants the next command after that only. An ACK does
not say what it acknowledges, so one that follows a time-out too closely may be that of the command
before, and proves nothing: the command is repeated until an undoubted ACK is there. The state is
what was last acknowledged; the tower can't be asked by any command whose answer is documented.

The tower can't time itself: when the gateway dies it sounds on until it is told otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from gateway.drivers import Simulator
from gateway.drivers.options import one_of, read_options, within
from gateway.events import NS, Diagnostic, SirenState
from gateway.siren import Sirens
from gateway.siren.simulated import SimulatedOutputs

ACK: Final = 0x06
NAK: Final = 0x15
_LATE_NS: Final = NS
"""How long after a time-out an ACK may still be that of the command before."""
_STALLED_NS: Final = 5 * NS
"""A command that stands still for so long is answered by NAK."""


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile."""

    unit: str = "??"
    red: int = 2
    """Lamps while sounding: 0 off, 1 on, 2 and 3 flash, 9 as they are."""
    amber: int = 0
    green: int = 0
    buzzer: int = 1
    """The buzzer's pattern, 1 to 4."""
    refresh_s: float = 2.0
    """Time between commands while sounding."""
    poll_s: float = 30.0
    """Time between commands at rest."""
    timeout_s: float = 0.5
    """How long an answer may take."""
    retries: int = 2
    """How often an unanswered command is sent again at once before it is reported and slowed."""

    def __post_init__(self) -> None:
        if len(self.unit) != 2 or not self.unit.isascii() or set(self.unit) & set("@!"):
            raise ValueError(f"unit: saw {self.unit!r}; allowed are two characters, as in '??'")
        for lamp in ("red", "amber", "green"):
            one_of(lamp, getattr(self, lamp), (0, 1, 2, 3, 9))
        within("buzzer", self.buzzer, 1, 4)
        within("refresh_s", self.refresh_s, 0.5, 10.0, "s")
        within("poll_s", self.poll_s, 1.0, 3600.0, "s")
        within("timeout_s", self.timeout_s, 0.05, 2.0, "s")
        within("retries", self.retries, 0, 10)

    @property
    def on(self) -> bytes:
        """The command that sounds."""
        return f"@{self.unit}S{self.red}{self.amber}{self.green}00{self.buzzer}!".encode("ascii")

    @property
    def off(self) -> bytes:
        """The command that silences, lamps included."""
        return f"@{self.unit}C!".encode("ascii")


@dataclass(frozen=True, slots=True)
class Unit:
    """A tower has no keys of its own: there is one on a port."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """The command that waits for its answer; ``doubtful``: an older answer may come first."""

    sounding: bool
    due_ns: int
    doubtful: bool


class Patlite:
    """One tower on its port: :class:`Options`."""

    simulator: ClassVar[type[Simulator] | None]
    pulse_s: float | None = None
    reads_back: bool = True

    def __init__(
        self, options: Mapping[str, Any] | None = None, sirens: Sirens | None = None
    ) -> None:
        self._options = settings = read_options(Options, options)
        if len(sirens or {}) > 1:
            raise ValueError(f"port: saw sirens {', '.join(sirens or {})}; allowed is one")
        for name, keys in (sirens or {}).items():
            try:
                read_options(Unit, keys)
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from None
        self._siren = next(iter(sirens or {}), None)
        self._refresh_ns = round(settings.refresh_s * NS)
        self._poll_ns = round(settings.poll_s * NS)
        self._timeout_ns = round(settings.timeout_s * NS)
        self._until_ns = 0
        self._due_ns = 0
        self._doubt_ns = 0
        self._sent: _Sent | None = None
        self._known: bool | None = None
        self._unanswered = 0
        self._out = bytearray()

    def opened(self, t: int) -> None:
        """Begin anew: what must sound is told to, else all is off."""
        self._sent = self._known = None
        self._unanswered = self._doubt_ns = 0
        self._due_ns = t
        self._out.clear()
        self._pump(t)

    def sound(self, siren: str, until_ns: int, t: int) -> None:
        if until_ns <= t:
            self.silence(siren, t)
            return
        if not self._until_ns:
            self._due_ns = t
        self._until_ns = until_ns
        self._pump(t)

    def silence(self, siren: str, t: int) -> None:
        del siren
        self._until_ns = 0
        self._due_ns = t
        self._pump(t)

    def self_test(self, siren: str, t: int) -> None:
        self._known = None
        self.silence(siren, t)

    def feed(self, data: bytes, t: int) -> list[SirenState | Diagnostic]:
        result: list[SirenState | Diagnostic] = []
        garbage = 0
        for byte in data:
            if byte not in (ACK, NAK):
                garbage += 1
            elif self._sent is None:
                result.append(Diagnostic("unsolicited", 1, "no command was pending"))
            else:
                result += self._answered(self._sent, t, refused=byte == NAK)
        if garbage:
            result.append(Diagnostic("garbage", garbage))
        self._pump(t)
        return result

    def tick(self, t: int) -> list[SirenState | Diagnostic]:
        result: list[SirenState | Diagnostic] = []
        if self._sent is not None and t >= self._sent.due_ns:
            self._sent = None
            self._doubt_ns = t + _LATE_NS
            self._unanswered += 1
            if self._unanswered <= self._options.retries:
                self._due_ns = t
            else:
                self._due_ns = min(self._due_ns, t + self._refresh_ns)
            if self._unanswered == self._options.retries + 1:
                detail = f"{self._siren}: the tower does not answer; check its power and its cable"
                result = [*self._state(None), Diagnostic("no_answer", self._unanswered, detail)]
        self._pump(t)
        return result

    def next_deadline(self) -> int | None:
        if self._siren is None:
            return None
        if self._sent is not None:
            return self._sent.due_ns
        return min(self._due_ns, self._until_ns) if self._until_ns else self._due_ns

    def to_send(self) -> bytes:
        data = bytes(self._out)
        self._out.clear()
        return data

    def off_frames(self) -> bytes:
        return self._options.off if self._siren is not None else b""

    def _pump(self, t: int) -> None:
        if self._until_ns and t >= self._until_ns:
            self._until_ns = 0
            self._due_ns = t
        if self._siren is None or self._sent is not None or t < self._due_ns:
            return
        sounding = self._until_ns > 0
        self._sent = _Sent(sounding, t + self._timeout_ns, t < self._doubt_ns)
        self._due_ns = t + (self._refresh_ns if sounding else self._poll_ns)
        self._out += self._options.on if sounding else self._options.off

    def _answered(self, sent: _Sent, t: int, *, refused: bool) -> list[SirenState | Diagnostic]:
        self._sent = None
        self._unanswered = 0
        if refused:
            self._due_ns = min(self._due_ns, t + self._refresh_ns)
            return [Diagnostic("refused", 1, f"{self._siren}: the tower refuses a command (NAK)")]
        if sent.doubtful:
            self._due_ns = min(self._due_ns, max(t, self._doubt_ns))
            return []
        if sent.sounding is not (self._until_ns > 0):
            return []  # told otherwise since
        return self._state(sent.sounding)

    def _state(self, on: bool | None) -> list[SirenState | Diagnostic]:
        if self._siren is None or self._known is on:
            return []
        self._known = on
        return [SirenState(self._siren, on)]


class PatliteSimulator(SimulatedOutputs):
    """The converter and its tower. ``relays`` are red, amber, green and the buzzer: lit or not."""

    def __init__(self, options: Mapping[str, Any] | None = None, source: object = None) -> None:
        del source
        self._unit = read_options(Options, options).unit
        super().__init__(4)
        self._last_ns = 0

    def feed(self, data: bytes, t: int) -> None:
        self.tick(t)
        for byte in data:
            if self._in or byte == ord("@"):
                self._in.append(byte)
                self._last_ns = t
            if byte == ord("!") and self._in:
                self._answer(bytes(self._in), t)
            elif len(self._in) > 16:
                self._refuse()

    def tick(self, t: int) -> None:
        if self._in and t >= self._last_ns + _STALLED_NS:
            self._refuse()

    def next_deadline(self) -> int | None:
        return self._last_ns + _STALLED_NS if self._in else None

    def _refuse(self) -> None:
        self._in.clear()
        self._out.append(NAK)

    def _answer(self, frame: bytes, t: int) -> None:
        self._in.clear()
        unit, command = frame[1:3].decode("latin-1"), frame[3:-1].decode("latin-1")
        if unit != "??" and self._unit not in ("??", unit):
            return
        outputs = command[1:4] + command[6:7]
        set_all = len(command) == 7 and command[0] == "S" and set(outputs[:3]) <= set("01239")
        if command == "C":
            self._show("0000", t)
        elif set_all and outputs[3] in "012349":
            self._show(outputs, t)
        else:
            self._out.append(NAK)
            return
        self._out.append(ACK)

    def _show(self, outputs: str, t: int) -> None:
        for number, code in enumerate(outputs, 1):
            if code != "9":
                self._set(number, code != "0", t)


Patlite.simulator = PatliteSimulator
