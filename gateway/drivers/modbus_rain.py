"""Tipping-bucket rain gauges whose counter is a Modbus register.

Facts are from the makers' pages and, for the SEN0575, from DFRobot's library; the profile says
which register of which device:

=====================  ========================  ================================================
device                 request                   counter
=====================  ========================  ================================================
Sonbus XM9505          03, register 0x0000 × 1   0.1 mm each, 16 bits: wraps at 6.5 m of rain
DFRobot SEN0575        04, register 0x0008 × 2   0.0001 mm each, 32 bits, low word first
=====================  ========================  ================================================

The counter is given as it is. ``wrap_mm`` of the profile's channel says where it begins again, so
that a wrap is told from a gauge that lost its power.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.drivers import Source
from gateway.drivers.modbus_unit import ModbusDevice, ModbusUnit, Unit, read_registers
from gateway.drivers.options import one_of, read_options, within
from gateway.events import MICRO, Diagnostic, Reading
from gateway.modbus import Function, Request

FUNCTIONS: Final = {"holding": Function.read_holding, "input": Function.read_input}


@dataclass(frozen=True, slots=True)
class Options(Unit):
    """``[driver]`` of a profile: those of :class:`Unit`, and where the counter is.

    ``registers`` ``holding`` (function 03) or ``input`` (04); ``register`` the first, 0 to 65534;
    ``words`` 1 or 2 registers; ``low_word_first`` of two; ``mm_per_count`` 0.0001 to 10.
    """

    registers: str = "holding"
    register: int = 0
    words: int = 1
    low_word_first: bool = False
    mm_per_count: float = 0.1

    def __post_init__(self) -> None:
        Unit.__post_init__(self)
        one_of("registers", self.registers, tuple(FUNCTIONS))
        within("register", self.register, 0, 65534)
        one_of("words", self.words, (1, 2))
        within("mm_per_count", self.mm_per_count, 0.0001, 10, "mm")

    @property
    def micro_per_count(self) -> int:
        """Millionths of a millimetre in a count."""
        return round(self.mm_per_count * MICRO)


class ModbusRain(ModbusUnit):
    """Driver of the gauge: ``rain_total_mm`` each poll."""

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        self.options = read_options(Options, options)
        asked = self.options
        function = FUNCTIONS[asked.registers]
        self.spacing_s = asked.poll_s
        request = Request(asked.address, function, asked.register, asked.words)
        super().__init__(sensor, asked, request)

    def answered(self, data: bytes, t: int) -> Iterator[Reading | Diagnostic]:
        if self.options.low_word_first:
            data = data[2:] + data[:2]
        count = int.from_bytes(data, "big")
        yield Reading(self.sensor, t, "rain_total_mm", count * self.options.micro_per_count)


class ModbusRainSimulator(ModbusDevice):
    """The gauge: counts what the source has fallen since its power-up."""

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        self._options = read_options(Options, options)
        super().__init__(self._options.address, source)
        self._before = 0

    def powered(self, t: int) -> None:
        """The counter begins anew."""
        super().powered(t)
        if self._play_began is not None:
            self._before = self._micro("rain_total_mm", t) or 0

    def _answer(self, function: int, data: bytes, t: int) -> bytes | int:
        options = self._options
        if function != FUNCTIONS[options.registers]:
            return 1
        fallen = (self._micro("rain_total_mm", t) or 0) - self._before
        count = fallen // options.micro_per_count
        high, low = count >> 16, count & 0xFFFF
        first = options.register
        if options.words == 1:
            return read_registers({first: low}, data)
        pair = (low, high) if options.low_word_first else (high, low)
        return read_registers({first: pair[0], first + 1: pair[1]}, data)


ModbusRain.simulator = ModbusRainSimulator
