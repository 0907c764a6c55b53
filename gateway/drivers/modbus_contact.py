"""A contact (fire alarm panel, manual call point, door) on a Modbus RTU input module.

Any module that answers function 02, read discrete inputs, of the MODBUS Application Protocol
V1.1b3; that is all that is used of it:

========  ==========================  =====================================================
function  data of the request         data of the answer
========  ==========================  =====================================================
02        first input, from 0;        bytes that follow; inputs, the first in bit 0: 1 where
          number of inputs, here 1    current flows
========  ==========================  =====================================================

Verified against the standard and against a server of pymodbus. Not verified on a device: input
modules of other makes differ in what is an input's 1 (some invert), which ``normally_closed``
absorbs; ``device show`` and a wire prove it on the bench.

``normally_closed`` is the fail-safe wiring: the panel's relay lets current flow while all is well,
and the alarm, a cut wire and a panel without power all interrupt it and are an alarm. A module
that does not answer is none: it is a sensor that fell silent.

A state counts once every reading has said it for ``debounce_s``. It is given when it changes and
each ``repeat_s``, so that the core knows that the module lives.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.drivers import Source
from gateway.drivers.modbus_unit import ModbusDevice, ModbusUnit, Unit
from gateway.drivers.options import read_options, within
from gateway.events import MICRO, NS, Diagnostic, Reading
from gateway.modbus import Function, Request

INPUTS: Final = 8
"""Of the simulated module."""


@dataclass(frozen=True, slots=True)
class Options(Unit):
    """``[driver]`` of a profile: those of :class:`Unit`, and what is wired where.

    ``input`` which of the module's inputs, from 1 to 2000. ``normally_closed``: current flows
    while all is well. ``debounce_s`` seconds, 0 to 60. ``repeat_s`` seconds, 1 to 600.
    """

    poll_s: float = 0.2
    timeout_s: float = 0.2
    input: int = 1
    normally_closed: bool = False
    debounce_s: float = 0.4
    repeat_s: float = 10.0

    def __post_init__(self) -> None:
        Unit.__post_init__(self)
        within("input", self.input, 1, 2000)
        within("debounce_s", self.debounce_s, 0, 60, "s")
        within("repeat_s", self.repeat_s, 1, 600, "s")


class ModbusContact(ModbusUnit):
    """Driver of one input: ``contact``, 1 for alarm and 0 for none."""

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        self.options = read_options(Options, options)
        address, number = self.options.address, self.options.input - 1
        super().__init__(sensor, self.options, Request(address, Function.read_inputs, number, 1))
        self.spacing_s = max(self.options.repeat_s, self.options.poll_s)
        self._debounce_ns = round(self.options.debounce_s * NS)
        self._repeat_ns = round(self.options.repeat_s * NS)
        self._given: bool | None = None
        self._given_ns = 0
        self._seen: bool | None = None
        self._seen_ns = 0

    def restart(self, t: int) -> None:
        """The port was opened: nothing is known."""
        super().restart(t)
        self._given = self._seen = None

    def answered(self, data: bytes, t: int) -> Iterator[Reading | Diagnostic]:
        alarm = bool(data[0] & 1) is not self.options.normally_closed
        if alarm is not self._seen:
            self._seen, self._seen_ns = alarm, t
        settled = t - self._seen_ns >= self._debounce_ns
        due = self._given is not None and t - self._given_ns >= self._repeat_ns
        if settled and alarm is not self._given:
            self._given = alarm
        elif not due:
            return
        self._given_ns = t
        yield Reading(self.sensor, t, "contact", MICRO if self._given else 0)


class ModbusContactSimulator(ModbusDevice):
    """The module: eight inputs, that of the options wired to the source, the others open."""

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        self._options = read_options(Options, options)
        super().__init__(self._options.address, source)

    def _answer(self, function: int, data: bytes, t: int) -> bytes | int:
        if function != Function.read_inputs:
            return 1
        first, count = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")
        if len(data) != 4 or not 1 <= count <= 2000:
            return 3
        if first + count > max(INPUTS, self._options.input):
            return 2
        alarm = (self._micro("contact", t) or 0) >= MICRO
        flows = alarm is not self._options.normally_closed
        bits = (flows << (self._options.input - 1)) >> first & ((1 << count) - 1)
        size = (count + 7) // 8
        return bytes((size,)) + bits.to_bytes(size, "little")


ModbusContact.simulator = ModbusContactSimulator
