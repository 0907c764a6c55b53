"""Does a relay board restart its timer when a timed pulse is sent again? Measured, on the bench.

No document says it (:mod:`gateway.siren.modbus_relay`), and the dead man's switch depends on it. So
the board is asked: a pulse of ``P`` seconds, the same again at two thirds of it, and the relay is
read back all the while.

=====================  =========================================================================
the relay is closed    then
=====================  =========================================================================
P seconds              the second pulse changed nothing: ``pulse_restarts = "no"``
P + ⅔ P                it restarted the timer: ``pulse_restarts = "yes"``
not at all, or         the board has no timed pulse: ``pulse_s = 0``
refuses
anything else          not known; leave ``"unknown"``, which is safe with either kind
=====================  =========================================================================

The siren sounds for at most twice ``P``. Sans-IO, in the shape of a siren driver.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from gateway.drivers.options import read_options
from gateway.events import NS, Diagnostic, SirenState
from gateway.modbus import Answer, Function, Master, NoAnswer, Refusal, Request
from gateway.siren.modbus_relay import FLASH_ON, OFF, TENTH_NS, Options, Unit

_READ_NS: Final = 40_000_000
_GAP_NS: Final = 4_000_000
_SPARE_NS: Final = NS
"""A relay that is closed for so much longer than both pulses is opened, and nothing is known."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``settings`` for the profile or the siren's ``options``, as TOML; "" where none is sure."""

    settings: str
    text: str

    @property
    def known(self) -> bool:
        return bool(self.settings)


class _Step(IntEnum):
    """What is to be told next, or has been."""

    open_first = 0
    pulse = 1
    again = 2
    watch = 3
    open_last = 4
    over = 5


class PulseTest:
    """One relay of one board; ``finding`` is there when it is over."""

    def __init__(self, options: Mapping[str, Any], unit: Mapping[str, Any]) -> None:
        settings, place = read_options(Options, options), read_options(Unit, unit)
        self.pulse_s = settings.pulse_s or 3.0
        self._pulse_ns = round(self.pulse_s * NS)
        self._retries = settings.retries
        self._coil = place.relay - 1
        address = place.address
        self._bus = Master(round(settings.timeout_s * NS), NS, _GAP_NS)
        tenths = self._pulse_ns // TENTH_NS
        self._flash = Request(address, Function.write_coil, FLASH_ON + self._coil, tenths)
        self._off = Request(address, Function.write_coil, self._coil, OFF)
        self._read = Request(address, Function.read_coils, 0, settings.coils)
        self._step = _Step.open_first
        self._due_ns = 0
        self._began_ns = self._again_ns = 0
        self._seen_ns: int | None = None
        self._sent_ns = 0
        self._unanswered = 0
        self.finding: Finding | None = None

    @property
    def over(self) -> bool:
        return self._step is _Step.over

    def opened(self, t: int) -> None:
        self._bus.reset()
        self._due_ns = t
        self._pump(t)

    def feed(self, data: bytes, t: int) -> list[SirenState | Diagnostic]:
        for item in self._bus.feed(data, t):
            if isinstance(item, Answer | Refusal):
                self._unanswered = 0
                self._answered(item, t)
        self._pump(t)
        return []

    def tick(self, t: int) -> list[SirenState | Diagnostic]:
        if isinstance(self._bus.tick(t), NoAnswer):
            self._unanswered += 1
            if self._unanswered > self._retries:
                self._end("", "the board does not answer; check its power, wires and address", t)
                if self._step is _Step.open_last and self._unanswered:
                    self._step = _Step.over
        self._pump(t)
        return []

    def next_deadline(self) -> int | None:
        if self.over:
            return None
        if self._bus.pending is not None:
            return self._bus.deadline_ns
        return max(self._due_ns, self._bus.free_ns, self._bus.ready_ns(self._read))

    def to_send(self) -> bytes:
        return self._bus.to_send()

    def _pump(self, t: int) -> None:
        if self.over or self._bus.pending is not None or t < max(self._due_ns, self._bus.free_ns):
            return
        if self._step is _Step.again and t >= self._again_ns:
            request = self._flash
        elif self._step in (_Step.open_first, _Step.open_last):
            request = self._off
        elif self._step is _Step.pulse:
            request = self._flash
        else:
            request = self._read
        if t >= self._bus.ready_ns(request):
            self._sent_ns = t
            self._bus.send(request, t)

    def _answered(self, item: Answer | Refusal, t: int) -> None:
        if isinstance(item, Refusal):
            if item.request == self._flash:
                self._end("pulse_s = 0", f"the board refuses timed pulses: {item.reason}", t)
            else:
                self._end("", f"the board refuses a command: {item.reason}", t)
        elif item.request.is_read:
            self._watched(bool(item.data[self._coil // 8] >> self._coil % 8 & 1), t)
        elif self._step is _Step.open_first:
            self._step = _Step.pulse
        elif self._step is _Step.pulse:
            self._began_ns = self._sent_ns
            self._again_ns = self._began_ns + self._pulse_ns * 2 // 3
            self._step = _Step.again
        elif self._step is _Step.again:
            self._again_ns = self._sent_ns
            self._step = _Step.watch
        elif self._step is _Step.open_last:
            self._step = _Step.over

    def _watched(self, closed: bool, t: int) -> None:
        """The relay was read back while a pulse runs."""
        self._due_ns = t + _READ_NS
        if self._step not in (_Step.again, _Step.watch):
            return
        if closed:
            self._seen_ns = t
            if t > self._began_ns + 2 * self._pulse_ns + _SPARE_NS:
                text = f"the relay stays closed for more than {(t - self._began_ns) / NS:.1f} s"
                self._end("", text, t)
        elif self._seen_ns is None:
            text = "the relay did not close on a timed pulse, though the board echoed it"
            self._end("pulse_s = 0", text, t)
        else:
            self._judge((self._seen_ns + t) / 2 - self._began_ns, t)

    def _judge(self, closed_ns: float, t: int) -> None:
        gap_ns = self._again_ns - self._began_ns
        text = (
            f"closed for {closed_ns / NS:.2f} s on two pulses of {self.pulse_s:g} s, "
            f"{gap_ns / NS:.2f} s apart"
        )
        if self._step is _Step.watch and abs(closed_ns - self._pulse_ns - gap_ns) < gap_ns / 4:
            text += ": a pulse that is sent again restarts the timer"
            self._end('pulse_restarts = "yes"', text, t)
        elif self._step is _Step.watch and abs(closed_ns - self._pulse_ns) < gap_ns / 4:
            text += ": a pulse that is sent again changes nothing"
            self._end('pulse_restarts = "no"', text, t)
        else:
            self._end("", f"{text}, which is neither of the two known behaviours", t)

    def _end(self, settings: str, text: str, t: int) -> None:
        if self.finding is None:
            self.finding = Finding(settings, text)
            self._step, self._due_ns, self._unanswered = _Step.open_last, t, 0
