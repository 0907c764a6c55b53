"""DFRobot A02YYUW, A01NYUB and like ultrasonic rangefinders, used as water level gauges.

Facts are from DFRobot's pages of the sensors. 9600 8N1, 3.3 to 5 V, the sensor only speaks, some
ten times a second (three times where nothing changes), 4 bytes:

======  =====  ==============================================================================
offset  type   meaning
======  =====  ==============================================================================
0       1 B    ``FF``
1       u16    distance in mm, high byte first; ``FFFE`` interference, ``FFFD`` no object
3       u8     sum of the bytes before
======  =====  ==============================================================================

A sum of one byte is little proof: a false frame in 256 of what is tried after damage would pass,
and is outvoted by the median of its interval.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from gateway.drivers import Source
from gateway.drivers.options import read_options
from gateway.drivers.streaming import StreamingSimulator
from gateway.drivers.water_surface import Mounting, Rangefinder, distance_mm
from gateway.events import NS, Diagnostic, Reading

HEAD: Final = 0xFF
SIZE: Final = 4
INTERFERENCE: Final = 0xFFFE
NO_OBJECT: Final = 0xFFFD


@dataclass(frozen=True, slots=True)
class Options(Mounting):
    """``[driver]`` of a profile: those of :class:`Mounting`."""

    nearest_mm: int = 30
    farthest_mm: int = 4500


class DfrobotA02yyuw(Rangefinder):
    """Driver of the rangefinder: ``water_level_m`` each interval."""

    BEGIN: ClassVar[bytes] = b"\xff"

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        self.options = read_options(Options, options)
        super().__init__(self.options, sensor)

    @staticmethod
    def match(data: bytes, at: int) -> int:
        frame = data[at : at + SIZE]
        if frame[0] != HEAD:
            return -1
        if len(frame) < SIZE:
            return 0
        return SIZE if sum(frame[:3]) & 0xFF == frame[3] else -1

    def _frame(self, frame: bytes, t: int) -> Iterator[Reading | Diagnostic]:
        distance = int.from_bytes(frame[1:3], "big")
        if distance == INTERFERENCE:
            yield Diagnostic("interference")
            yield from self._surface.echo(None, t)
        elif distance == NO_OBJECT:
            yield Diagnostic("no_target", 1, "no object")
            yield from self._surface.echo(None, t)
        else:
            yield from self._surface.echo(distance, t)


def frame(distance: int) -> bytes:
    """The frame of a distance in mm."""
    body = bytes((HEAD,)) + distance.to_bytes(2, "big")
    return body + bytes((sum(body) & 0xFF,))


class DfrobotA02yyuwSimulator(StreamingSimulator):
    """The rangefinder: a frame each 100 ms; the source's level, at the height of the options."""

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        self._options = read_options(Options, options)
        super().__init__(source, NS // 10)

    def _said(self, t: int) -> bytes:
        distance = distance_mm(self._options, self._source.micro("water_level_m", t))
        return frame(NO_OBJECT if distance >= self._options.farthest_mm else distance)


DfrobotA02yyuw.simulator = DfrobotA02yyuwSimulator
