"""What a station makes of its gauges over time: days, maintenance, blocked gauges, warnings."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.compiled import Compiled, Station
from gateway.core.engine import Core
from gateway.events import (
    MICRO,
    NS,
    Event,
    Hazard,
    Health,
    Level,
    LevelChange,
    Measured,
    OfficialWarning,
    Quality,
    RainDay,
    Reading,
    iso,
    parse_iso,
)
from tests.core.station import gauge
from tests.detect.test_scale import shipped

MINUTE, HOUR = 60 * NS, 3600 * NS
UTC = parse_iso("2026-07-01T00:00:00Z")
"""UTC when the core's clock stands at 0: 08:00 in Beijing."""


def site(*names: str, scales: Iterable[str] = ("rainstorm-national",)) -> Core:
    config = Compiled(
        Station("cn-test-001", "x", "test"),
        sensors=tuple(gauge(name, silent_after_s=1e6, name=name) for name in names),
        scales=tuple(shipped(scale) for scale in scales),
    )
    core = Core(config)
    core.set_utc_offset(UTC)
    return core


def read(core: Core, sensor: str, t: int, value: float | None, quantity: str = "rain_mm") -> None:
    micro = None if value is None else round(value * MICRO)
    core.readings(sensor, [Reading(sensor, t, quantity, micro)], t)
    core.tick(t)


def said(core: Core, kind: type[Event]) -> list[Any]:
    return [event for event, _ in core.published() if isinstance(event, kind)]


def saved(core: Core, t: int) -> Any:
    return json.loads(json.dumps(core.state(t)))


# --- days ---------------------------------------------------------------------------------------


def test_each_day_is_published_when_it_is_over_and_kept_for_reports() -> None:
    core = site("rain1")
    for i in range(1, 37 * 60):
        read(core, "rain1", i * MINUTE, 0.1)
    told = said(core, RainDay)
    assert [(d.kind, d.day, iso(d.time_ns + UTC)[11:16], d.complete) for d in told] == [
        ("meteorological", "2026-07-01", "12:00", False),
        ("hydrological", "2026-07-01", "00:00", False),
        ("meteorological", "2026-07-02", "12:00", True),
    ]
    assert told[2].mm == pytest.approx(144)
    assert (told[2].first_half_mm, told[2].second_half_mm) == pytest.approx((72, 72))
    status = core.status(37 * HOUR)["sensors"]["rain1"]
    assert [day["day"] for day in status["days"]] == ["2026-07-01", "2026-07-01", "2026-07-02"]
    assert status["rain_day20_mm"] == pytest.approx(5.9)
    assert status["rain_day08_mm"] == pytest.approx(77.9)


def test_a_day_ends_without_a_reading_and_a_restart_goes_on_with_it() -> None:
    core = site("rain1")
    for i in range(1, 600):
        read(core, "rain1", i * MINUTE, 0.2 if i % 2 else 0)
    again = site("rain1")
    again.restore(saved(core, 10 * HOUR), 10 * HOUR, same_boot=True)
    assert said(again, RainDay) == []
    due = again.next_deadline()
    assert due is not None
    while due is not None and due <= 13 * HOUR:
        again.tick(due)
        due = again.next_deadline()
    (day,) = said(again, RainDay)
    assert (day.day, day.mm, day.complete) == ("2026-07-01", pytest.approx(60), False)


def test_a_clock_that_lost_a_day_over_a_restart_loses_no_gauge() -> None:
    core = site("rain1")
    for i in range(1, 6):
        read(core, "rain1", i * MINUTE, i * 0.2, "rain_total_mm")
    again = site("rain1")
    again.set_utc_offset(UTC - 24 * HOUR)
    again.restore(saved(core, 5 * MINUTE), 10 * NS, same_boot=False)
    for i in range(1, 6):
        read(again, "rain1", i * MINUTE, 1 + i * 0.2, "rain_total_mm")
    assert again.status(5 * MINUTE)["sensors"]["rain1"]["rain_1h_mm"] == pytest.approx(0.8)


def test_a_clock_that_was_years_wrong_makes_no_years_of_days() -> None:
    core = site("rain1")
    core.set_utc_offset(0)
    for i in range(1, 60):
        read(core, "rain1", i * MINUTE, 0.1)
    core.set_utc_offset(UTC)
    for i in range(60, 14 * 60):
        read(core, "rain1", i * MINUTE, 0.1)
    (day,) = said(core, RainDay)
    assert (day.day, day.complete) == ("2026-07-01", False)


def test_what_is_measured_is_told_once_a_minute() -> None:
    core = site("rain1")
    for i in range(1, 121):
        read(core, "rain1", i * NS, 0.01)
    told = [item for item in core.data() if isinstance(item, Measured)]
    assert [item.time_ns // NS for item in told] == [1, 60, 120]
    assert told[-1].values["rain_1h_mm"] == pytest.approx(1.2)


# --- maintenance --------------------------------------------------------------------------------


def test_a_gauge_that_is_worked_on_counts_nothing_says_so_and_ends_by_itself() -> None:
    core = site("rain1")
    read(core, "rain1", MINUTE, 0)
    core.maintain("rain1", 1800, 2 * MINUTE, "uid 0")
    (begun,) = [h for h in said(core, Health) if h.kind == "maintenance"]
    assert begun.state == "degraded"
    for i in range(3, 30):
        read(core, "rain1", i * MINUTE, 10)
    assert said(core, LevelChange) == []
    status = core.status(30 * MINUTE)["sensors"]["rain1"]
    assert (status["rain_1h_mm"], status["rain_day20_mm"]) == (0, 0)
    assert status["rain_day20_missing"] == 27
    assert status["maintenance_s"] == 120
    core.tick(32 * MINUTE)
    (over,) = [h for h in said(core, Health) if h.kind == "maintenance"]
    assert (over.state, over.detail) == ("ok", "ended by time over")
    read(core, "rain1", 33 * MINUTE, 1)
    assert core.status(33 * MINUTE)["sensors"]["rain1"]["rain_1h_mm"] == 1


def test_maintenance_goes_on_over_a_power_cut_with_the_time_that_was_left() -> None:
    core = site("rain1")
    core.maintain("rain1", 1800, 0, "uid 0")
    again = site("rain1")
    again.restore(saved(core, 10 * MINUTE), 0, same_boot=False)
    assert again.status(0)["sensors"]["rain1"]["maintenance_s"] == 1200
    assert [h["kind"] for h in again.status(0)["health"]] == ["maintenance"]


@pytest.mark.parametrize(
    ("sensor", "seconds", "says"),
    [("rain2", 60, "there are rain1"), ("rain1", 9 * 3600, "up to 8 h"), ("rain1", 0, "up to 8 h")],
)
def test_maintenance_of_what_is_not_there_or_for_too_long_is_refused(
    sensor: str, seconds: float, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        site("rain1").maintain(sensor, seconds, 0, "uid 0")


# --- faults that take a second gauge or scale to see --------------------------------------------


def test_a_gauge_that_stays_dry_beside_one_that_catches_rain_is_told_as_blocked() -> None:
    core = site("dry", "wet")
    for i in range(4 * 60):
        read(core, "wet", i * MINUTE, 0.2)
        read(core, "dry", i * MINUTE, 0)
    blocked = [q for q in said(core, Quality) if q.kind == "blocked"]
    assert [(q.channel, q.time_ns // MINUTE) for q in blocked] == [("dry", 180)]


def test_two_scales_over_one_gauge_tell_a_fault_once() -> None:
    core = site("rain1", scales=("rainstorm-national", "flash-flood-jianghua"))
    read(core, "rain1", MINUTE, 0)
    read(core, "rain1", 2 * MINUTE, -1)
    assert [q.kind for q in said(core, Quality)] == ["invalid"]


# --- warnings of the authorities ----------------------------------------------------------------


def windy() -> Core:
    return site("wind1", scales=("gale", "typhoon"))


def blow(core: Core, start: int, mps: float) -> list[tuple[str, str]]:
    """Ten minutes of wind; (scale, level) of what was said."""
    for i in range(600):
        read(core, "wind1", start + i * NS, mps, "wind_mps")
    return [(change.scale, change.level.name) for change in said(core, LevelChange)]


def test_the_typhoon_scale_is_in_force_only_while_a_warning_is() -> None:
    core = windy()
    assert blow(core, 0, 20) == [("gale", "blue"), ("gale", "yellow")]
    core.warn(Hazard.typhoon, Level.orange, UTC + 6 * HOUR, HOUR, "c-1", "key hub")
    (warning,) = said(core, OfficialWarning)
    assert (warning.state, iso(warning.expires_ns + UTC)) == (
        "in_force",
        "2026-07-01T06:00:00.000000Z",
    )
    assert ("typhoon", "yellow") in blow(core, HOUR, 21)
    assert core.status(2 * HOUR)["warnings"][0]["level"] == "orange"
    core.tick(6 * HOUR)
    assert [(w.state, w.reason) for w in said(core, OfficialWarning)] == [
        ("ended", "its time is over")
    ]
    assert {scale for scale, _ in blow(core, 7 * HOUR, 25)} == {"gale"}


def test_a_typhoon_scale_that_ends_leaves_the_alert_to_the_gale() -> None:
    core = windy()
    core.warn(Hazard.typhoon, Level.blue, UTC + HOUR, 0, "c-1", "key hub")
    blow(core, 0, 20)
    core.warn(Hazard.typhoon, Level.none, 0, 700 * NS, "c-2", "key hub")
    ended = said(core, LevelChange)
    assert [(c.scale, c.level.name) for c in ended] == [("typhoon", "none")]
    assert core.status(700 * NS)["sensors"]["wind1"]["levels"] == {"gale": "yellow"}


@pytest.mark.parametrize(("later", "held"), [(5 * HOUR, True), (7 * HOUR, False)])
@pytest.mark.parametrize("same_boot", [True, False])
def test_a_restart_takes_a_warning_up_within_its_validity(
    later: int, held: bool, same_boot: bool
) -> None:
    core = windy()
    core.warn(Hazard.typhoon, Level.blue, UTC + 6 * HOUR, 0, "c-1", "key hub")
    again = windy()
    again.restore(saved(core, HOUR), later, same_boot=same_boot)
    assert [w.reason for w in said(again, OfficialWarning)] == ["restored"] * held
    assert ("typhoon", "blue") in blow(again, later + HOUR // 2, 12) or not held


def test_a_wrong_clock_holds_no_warning_for_ever() -> None:
    core = windy()
    core.warn(Hazard.typhoon, Level.blue, UTC + 6 * HOUR, 0, "c-1", "key hub")
    again = windy()
    again.set_utc_offset(0)  # 1970
    again.restore(saved(core, HOUR), 0, same_boot=False)
    again.tick(48 * HOUR)
    assert [w.state for w in said(again, OfficialWarning)] == ["in_force", "ended"]


@pytest.mark.parametrize(
    ("hazard", "expires", "says"),
    [
        (Hazard.earthquake, UTC + HOUR, "no scale here waits for a warning of earthquake"),
        (Hazard.typhoon, UTC - 1, "expected at most 48 h"),
        (Hazard.typhoon, UTC + 49 * HOUR, "expected at most 48 h"),
    ],
)
def test_a_warning_that_means_nothing_here_is_refused(
    hazard: Hazard, expires: int, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        windy().warn(hazard, Level.blue, expires, 0, "c-1", "key hub")


def test_a_counter_that_wraps_loses_no_rain() -> None:
    sensor = replace(
        gauge("rain1", silent_after_s=1e6, name="rain1"), counter_wrap_micro=6_553_600_000
    )
    config = Compiled(
        Station("cn-test-001", "x", "test"),
        sensors=(sensor,),
        scales=(shipped("rainstorm-national"),),
    )
    core = Core(config)
    for i, value in enumerate([6550.0, 6553.5, 2.4, 2.4, 0.0, 0.1]):
        read(core, "rain1", (i + 1) * 5 * MINUTE, value, "rain_total_mm")
    values = core.status(HOUR)["sensors"]["rain1"]
    # 3.5, then 2.5 over the wrap; from 2.4 to 0 is no wrap of 6551 mm but a reset.
    assert values["rain_1h_mm"] == pytest.approx(6.1)
    assert values["faults"] == {"reset": 1}
