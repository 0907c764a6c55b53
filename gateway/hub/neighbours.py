"""Rain gauges of a city against each other: which stays dry while most others catch rain.

A station compares the gauges of its own site; most sites have one. The hub hears them all: what
each makes of its readings comes once a minute in ``telemetry`` (``measured``: ``rain_3h_mm``, and
``rain_complete_h``, for how long nothing was missing). A gauge that caught nothing in three
complete hours in which more than half of the others, and at least ``LEAST`` of them, caught 10 mm
each is called blocked. Showers are local; that most of a city is wet and one place dry for three
hours is not. Where the stations are does not enter: their messages do not say it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.events import NS, parse_iso

WINDOW_H = 3.0
WET_MM = 10.0
LEAST = 2
STALE_NS = 600 * NS
"""What a gauge said longer ago is no more than that."""
AGAIN_NS = 6 * 3600 * NS
"""A gauge that stays blocked is named again after this time."""


@dataclass(frozen=True, slots=True)
class _Heard:
    time_ns: int
    mm: float
    complete: bool


@dataclass(frozen=True, slots=True)
class Blocked:
    """A gauge that is dry while ``wet`` of ``others`` are not."""

    city: str
    station: str
    sensor: str
    time: str
    wet: int
    others: int

    def __str__(self) -> str:
        return (
            f"{self.sensor}: no rain in {WINDOW_H:g} h while {self.wet} of {self.others} other "
            f"gauges of {self.city} had {WET_MM:g} mm or more; have it cleaned"
        )


class Neighbours:
    """The gauges of all cities, by what was heard of them last. Pure: time is the messages'."""

    def __init__(self) -> None:
        self._heard: dict[str, dict[tuple[str, str], _Heard]] = {}
        self._named: dict[tuple[str, str, str], int] = {}

    def take(self, city: str, station: str, telemetry: Mapping[str, Any]) -> list[Blocked]:
        """A telemetry record; the gauges that it shows to be blocked.

        Only a gauge's own message can name it, so that it is judged on what is newest.
        """
        found = []
        for item in telemetry.get("measured", ()):
            values = item["values"]
            if "rain_3h_mm" not in values:
                continue
            time_ns = parse_iso(item["time"])
            complete = values.get("rain_complete_h", 0.0) >= WINDOW_H
            gauges = self._heard.setdefault(city, {})
            key = station, item["sensor"]
            gauges[key] = _Heard(time_ns, values["rain_3h_mm"], complete)
            if complete and not gauges[key].mm:
                found += self._judge(city, key, time_ns, item["time"])
        return found

    def _judge(self, city: str, key: tuple[str, str], time_ns: int, time: str) -> list[Blocked]:
        others = [
            heard
            for other, heard in self._heard[city].items()
            if other != key and heard.complete and abs(time_ns - heard.time_ns) <= STALE_NS
        ]
        wet = sum(heard.mm >= WET_MM for heard in others)
        named = self._named.get((city, *key))
        if wet < LEAST or 2 * wet <= len(others):
            return []
        if named is not None and time_ns - named < AGAIN_NS:
            return []
        self._named[(city, *key)] = time_ns
        return [Blocked(city, *key, time, wet, len(others))]
