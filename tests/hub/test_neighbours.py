"""A gauge that stays dry while the city is wet is named by the hub; one shower names nobody."""

from typing import Any

from gateway.events import NS, iso, parse_iso
from gateway.hub.neighbours import Blocked, Neighbours

T = parse_iso("2026-07-01T00:00:00Z")


def telemetry(minute: float, mm: float, complete_h: float = 5.0) -> dict[str, Any]:
    values = {"rain_3h_mm": mm, "rain_complete_h": complete_h}
    time = iso(T + round(minute * 60) * NS)
    return {"type": "telemetry", "measured": [{"sensor": "rain1", "time": time, "values": values}]}


def hear(*said: tuple[str, dict[str, Any]]) -> list[Blocked]:
    neighbours = Neighbours()
    return [b for station, record in said for b in neighbours.take("demo", station, record)]


WET = (("a", telemetry(0, 12.5)), ("b", telemetry(0.1, 31.0)))


def test_a_dry_gauge_in_a_wet_city_is_named_once() -> None:
    found = hear(*WET, ("c", telemetry(1, 0)), ("c", telemetry(2, 0)))
    assert [(b.station, b.sensor, b.wet, b.others) for b in found] == [("c", "rain1", 2, 2)]
    assert "2 of 2 other gauges of demo had 10 mm or more; have it cleaned" in str(found[0])


def test_a_shower_over_a_part_of_the_city_names_nobody() -> None:
    dry = [(name, telemetry(0, 0)) for name in "cdef"]
    assert hear(*dry, *WET, ("c", telemetry(1, 0))) == []


def test_one_wet_neighbour_is_no_city() -> None:
    assert hear(WET[0], ("c", telemetry(1, 0))) == []


def test_a_gauge_that_missed_something_is_not_judged_and_judges_nobody() -> None:
    assert hear(*WET, ("c", telemetry(1, 0, complete_h=2.9))) == []
    half = ("b", telemetry(0.1, 31.0, complete_h=1))
    assert hear(WET[0], half, ("c", telemetry(1, 0))) == []


def test_what_was_said_long_ago_does_not_count() -> None:
    assert hear(*WET, ("c", telemetry(11, 0))) == []


def test_cities_are_apart_and_telemetry_without_rain_is_passed_over() -> None:
    neighbours = Neighbours()
    for station, record in WET:
        neighbours.take("other", station, record)
    assert neighbours.take("demo", "c", telemetry(1, 0)) == []
    assert neighbours.take("demo", "c", {"type": "telemetry", "readings": []}) == []
    wind = {"measured": [{"sensor": "w", "time": iso(T), "values": {"wind_mps": 3.0}}]}
    assert neighbours.take("demo", "c", wind) == []
