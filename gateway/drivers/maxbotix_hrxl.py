"""MaxBotix HRXL-MaxSonar-WR ultrasonic rangefinders, used as water level gauges.

Facts are from MaxBotix' datasheet PD11500. 9600 8N1, the sensor only speaks: 6.7 times a second
``R``, the distance in four digits of millimetres, ``0D``, and no line feed. Parts of the older,
centimetre class say three digits of centimetres. At power-up lines of text come, which count as
garbage.

==================  ===========================  ========================================
models              range (general knowledge)    no target
==================  ===========================  ========================================
5 m (MB7360 …)      300 to 4999 mm               ``R5000``
10 m (MB7363 …)     500 to 9998 mm               ``R9999``
==================  ===========================  ========================================

The parts sold as "RS232" are not at RS-232 levels but at 0 V and supply with inverted sense, which
an RS-232 receiver reads; the "TTL" ones need a TTL adapter.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from gateway.drivers import Source
from gateway.drivers.options import one_of, read_options
from gateway.drivers.streaming import StreamingSimulator
from gateway.drivers.water_surface import Mounting, Rangefinder, distance_mm
from gateway.events import NS, Diagnostic, Reading

DIGITS: Final = {"mm": 4, "cm": 3}
LINES: Final = {unit: re.compile(rb"R(\d{%d})\r" % count) for unit, count in DIGITS.items()}
SCALE_MM: Final = {"mm": 1, "cm": 10}


@dataclass(frozen=True, slots=True)
class Options(Mounting):
    """``[driver]`` of a profile: those of :class:`Mounting`, and ``unit``, ``mm`` or ``cm``."""

    nearest_mm: int = 300
    farthest_mm: int = 5000
    unit: str = "mm"

    def __post_init__(self) -> None:
        Mounting.__post_init__(self)
        one_of("unit", self.unit, tuple(DIGITS))


class MaxbotixHrxl(Rangefinder):
    """Driver of the rangefinder: ``water_level_m`` each interval."""

    BEGIN: ClassVar[bytes] = b"R"

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        self.options = read_options(Options, options)
        super().__init__(self.options, sensor)

    @staticmethod
    def match(data: bytes, at: int) -> int:
        for line in LINES.values():
            if found := line.match(data, at):
                return found.end() - at
        begun = data[at : at + 6]
        open_end = len(data) - at < 6 and re.fullmatch(rb"R\d{0,4}", begun)
        return 0 if open_end else -1

    def _frame(self, frame: bytes, t: int) -> Iterator[Reading | Diagnostic]:
        if len(frame) - 2 != DIGITS[self.options.unit]:
            detail = f"{frame!r} is no distance in {self.options.unit}; correct the option unit"
            yield Diagnostic("mismatch", 1, detail)
            return
        yield from self._surface.echo(int(frame[1:-1]) * SCALE_MM[self.options.unit], t)


class MaxbotixHrxlSimulator(StreamingSimulator):
    """The rangefinder: a line each 150 ms; the source's level, at the height of the options."""

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        self._options = read_options(Options, options)
        super().__init__(source, NS * 15 // 100)

    def powered(self, t: int) -> None:
        """The banner, then data."""
        super().powered(t)
        self._out += b"HRXL-MaxSonar-WR\rPN:MB7360\rCopyright 2011-2013\r"

    def _said(self, t: int) -> bytes:
        distance = distance_mm(self._options, self._source.micro("water_level_m", t))
        unit = self._options.unit
        return b"R%0*d\r" % (DIGITS[unit], min(distance // SCALE_MM[unit], 9999))


MaxbotixHrxl.simulator = MaxbotixHrxlSimulator
