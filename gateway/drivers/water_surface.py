"""From the distance that a sensor above the water measures to the level of the water.

The level is the height of the sensor's face above the gauge's zero, which is surveyed once at
installation and stands in the sensor's options, less the distance. One reading is the median of an
interval, so that waves, a bird or a branch under the sensor are outvoted; where more than half of
its echoes failed, the reading is missing.

A target nearer than the sensor can tell is water that has all but reached it: the reading is then
the level of that nearest distance, which is a lower bound, and ``too_near`` says so. No target is
no reading: an empty bed, foam, or a sensor that hangs askew.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.drivers.interval import Interval, median
from gateway.drivers.options import within
from gateway.drivers.streaming import StreamingGauge
from gateway.events import MICRO, Diagnostic, Reading

MM = MICRO // 1000
"""Millionths of a metre in a millimetre."""


@dataclass(frozen=True, slots=True)
class Mounting:
    """Options that every such sensor has.

    ``height_m`` metres of the sensor's face above the gauge's zero, −500 to 9000, to the
    millimetre; 0 gives the level as minus the distance. ``interval_s`` seconds, 1 to 600, of which
    each reading is the median. ``nearest_mm`` and ``farthest_mm``: what the sensor can tell.
    """

    height_m: float = 0.0
    interval_s: float = 10.0
    nearest_mm: int = 0
    farthest_mm: int = 10_000

    def __post_init__(self) -> None:
        within("height_m", self.height_m, -500, 9000, "m")
        within("interval_s", self.interval_s, 1, 600, "s")
        within("nearest_mm", self.nearest_mm, 0, 50_000, "mm")
        within("farthest_mm", self.farthest_mm, self.nearest_mm + 1, 100_000, "mm")


class WaterSurface:
    """Turns distances into ``water_level_m``."""

    def __init__(self, mounting: Mounting, sensor: str) -> None:
        self._mounting = mounting
        self._sensor = sensor
        self._height = round(mounting.height_m * 1000) * MM
        self._interval = Interval(mounting.interval_s, median)

    def clear(self) -> None:
        """Begin anew."""
        self._interval.clear()

    def echo(self, distance_mm: int | None, t: int) -> Iterator[Reading | Diagnostic]:
        """Take one measurement, None where it failed for another reason than the distance."""
        level = None
        if distance_mm is not None:
            if distance_mm >= self._mounting.farthest_mm:
                yield Diagnostic("no_target", 1, f"{distance_mm} mm and more")
            else:
                if distance_mm <= self._mounting.nearest_mm:
                    yield Diagnostic("too_near", 1, f"{distance_mm} mm: the water is at the sensor")
                level = self._height - max(distance_mm, self._mounting.nearest_mm) * MM
        for value in self._interval.add(level, t):
            yield Reading(self._sensor, t, "water_level_m", value)


class Rangefinder(StreamingGauge):
    """A sensor above the water that speaks by itself: ``water_level_m`` each interval."""

    def __init__(self, mounting: Mounting, sensor: str) -> None:
        super().__init__(sensor)
        self.spacing_s = mounting.interval_s
        self._surface = WaterSurface(mounting, sensor)

    def opened(self, t: int) -> None:
        """The port was opened: begin anew."""
        super().opened(t)
        self._surface.clear()


def distance_mm(mounting: Mounting, level_micro: int | None) -> int:
    """The distance that a simulated sensor measures; the farthest where there is no level."""
    if level_micro is None:
        return mounting.farthest_mm
    distance = round(mounting.height_m * 1000) - level_micro // MM
    return min(max(distance, mounting.nearest_mm), mounting.farthest_mm)
