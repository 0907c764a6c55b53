"""Wind, air, water and contacts: when their levels are reached and when they end."""

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.detect.evaluator import Evaluator, Mode, Output
from gateway.detect.level import make
from gateway.detect.rolling import BINS, RollingHigh, RollingLow, RollingMean
from gateway.detect.scale import Scale
from gateway.events import MICRO, NS, Hazard, Level, LevelChange, Quality, Reading
from tests.detect.test_scale import shipped

MINUTE = 60 * NS
HOUR = 3600 * NS


def evaluator(scale: str | Scale) -> Evaluator:
    return make(shipped(scale) if isinstance(scale, str) else scale, "s")


def feed(
    to: Evaluator, quantity: str, values: Iterable[float | None], start: int = 0, step: int = NS
) -> list[Output]:
    out: list[Output] = []
    for i, value in enumerate(values):
        micro = None if value is None else round(value * MICRO)
        out += to.reading(Reading("s", start + i * step, quantity, micro))
    return out


def changes(out: Iterable[Output]) -> list[tuple[str, float]]:
    """(level, time in s)"""
    return [(c.level.name, c.time_ns / NS) for c in out if isinstance(c, LevelChange)]


def faults(out: Iterable[Output]) -> list[str]:
    return [q.kind for q in out if isinstance(q, Quality)]


def gusty(mean: float, count: int) -> list[float]:
    """Wind of that mean that is never twice the same in a row."""
    return [mean + (0.1 if i % 2 else -0.1) for i in range(count)]


# --- wind ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "level"),
    [
        (10.7, "none"),
        (10.8, "blue"),
        (17.2, "yellow"),
        (24.5, "orange"),
        (32.7, "red"),
    ],
)
def test_the_two_minute_mean_decides_the_gale_level(mean: float, level: str) -> None:
    to = evaluator("gale")
    out = feed(to, "wind_mps", [mean] * 300)
    # 3-s gusts of the same wind reach one level less, or none.
    assert [c for c in changes(out) if c[1] > 60] == ([(level, 90.0)] if level != "none" else [])


def test_a_mean_counts_once_three_quarters_of_its_window_are_covered() -> None:
    out = feed(evaluator("gale"), "wind_mps", gusty(12, 200))
    assert changes(out) == [("blue", 90.0)]


def test_a_gust_of_three_seconds_decides_and_one_of_a_second_does_not() -> None:
    calm = gusty(5, 200)
    short, long = evaluator("gale"), evaluator("gale")
    assert changes(feed(short, "wind_mps", [*calm, 30, *calm])) == []
    assert changes(feed(long, "wind_mps", [*calm, 30, 30, 30, *calm])) == [
        ("yellow", 201.0),  # (5.1 + 30 + 30) / 3 m/s
        ("orange", 202.0),
    ]


def test_a_gust_that_the_anemometer_reports_takes_the_place_of_the_made_one() -> None:
    to = evaluator("gale")
    feed(to, "gust_mps", [6] * 10, step=NS)
    out = feed(to, "wind_mps", [*gusty(5, 200), 30, 30, 30], start=10 * NS)
    assert changes(out) == []
    assert changes(feed(to, "gust_mps", [21], start=300 * NS)) == [("yellow", 300.0)]


def test_wind_read_every_ten_minutes_has_means_and_no_gusts() -> None:
    to = evaluator("gale")
    out = feed(to, "wind_mps", [5, 9, 18, 17.5], step=10 * MINUTE)
    assert changes(out) == [("yellow", 1200.0)]
    assert "gust_mps" not in to.values(30 * MINUTE)


def test_a_gale_ends_when_it_was_below_nine_tenths_for_an_hour() -> None:
    to = evaluator("gale")
    out = feed(to, "wind_mps", [*gusty(11, 600), *gusty(5, 4000)])
    # The made gusts stay below 13.9. The mean of 2 min falls below 9.72 some 26 s after the wind.
    assert [level for level, _ in changes(out)] == ["blue", "none"]
    assert changes(out)[1][1] == pytest.approx(600 + 26 + 3600, abs=3)


def test_the_first_reading_after_a_silence_weighs_no_more_than_another() -> None:
    to = evaluator("gale")
    feed(to, "wind_mps", gusty(3, 300))
    out = feed(to, "wind_mps", [13.0, 3, 3.1], start=900 * NS)
    assert changes(out) == []
    assert "wind_mps_mean_2min" not in to.values(902 * NS)


@pytest.mark.parametrize("value", [-0.1, 121.0])
def test_an_impossible_wind_is_told_and_left_out(value: float) -> None:
    to = evaluator("gale")
    assert faults(feed(to, "wind_mps", [5, value, 5.1])) == ["spike"]


def test_an_anemometer_that_sticks_is_told_holds_no_level_and_recovers() -> None:
    to = evaluator("gale")
    out = feed(to, "wind_mps", [12.0] * 9000)
    assert faults(out) == ["flat", "flat"]
    # Two minutes after the sensor was found to stick the mean is unknown, and an hour later over.
    assert [level for level, _ in changes(out)] == ["blue", "none"]
    assert faults(feed(to, "wind_mps", [20.1], start=9000 * NS)) == ["recovered"]


def test_calm_is_no_fault() -> None:
    assert faults(feed(evaluator("gale"), "wind_mps", [0.0] * 8000)) == []


def test_a_sensor_that_falls_silent_holds_no_level_for_ever() -> None:
    to = evaluator("gale")
    feed(to, "wind_mps", gusty(12, 200))
    out = to.tick(10 * HOUR)
    assert [level for level, _ in changes(out)] == ["none"]
    assert to.next_deadline() is None


def test_the_typhoon_scale_rises_only_while_its_warning_is_in_force() -> None:
    to = evaluator("typhoon")
    assert to.scale.needs_warning is Hazard.typhoon
    assert changes(feed(to, "wind_mps", gusty(18, 200))) == []
    assert to.set_mode(Mode.live, 200 * NS) == []
    assert changes(feed(to, "wind_mps", [18.0], start=201 * NS)) == [("yellow", 201.0)]
    assert changes(to.set_mode(Mode.quiet, 300 * NS)) == [("none", 300.0)]


# --- air ----------------------------------------------------------------------------------------


def test_twenty_hours_of_heavy_pollution_are_yellow() -> None:
    out = feed(evaluator("pm25"), "pm25_ugm3", [160 + i % 2 for i in range(30)], step=HOUR)
    assert changes(out) == [("yellow", 20 * 3600.0)]
    assert faults(out) == ["indicative"]
    (change,) = [c for c in out if isinstance(c, LevelChange)]
    assert (change.value, change.unit, change.window_h) == (210, "IAQI", 24.0)
    assert not change.complete


def test_nineteen_hours_are_too_few() -> None:
    readings = [200.0 + i % 2 for i in range(20)]
    assert changes(feed(evaluator("pm25"), "pm25_ugm3", readings, step=HOUR)) == []


def test_air_has_the_running_day_and_the_real_time_hour() -> None:
    to = evaluator("pm25")
    feed(to, "pm25_ugm3", [30.0 + i % 2 for i in range(24)], step=HOUR)
    feed(to, "pm25_ugm3", [150.0], start=24 * HOUR)
    values = to.values(24 * HOUR)
    assert values["iaqi_realtime"] == 200
    assert values["pm25_ugm3_mean_1h"] == pytest.approx(150)
    assert values["pm25_ugm3_mean_24h"] == pytest.approx(35.5)
    assert values["iaqi_24h"] == 52


def test_the_day_of_air_goes_on_over_a_restart() -> None:
    before = evaluator("pm25")
    feed(before, "pm25_ugm3", [160.0 + i % 2 for i in range(30)], step=HOUR)
    saved = json.loads(json.dumps(before.state(5 * HOUR)))
    again = evaluator("pm25")
    again.restore(saved, 0, 34 * HOUR)
    assert again.values(0) == {
        name: value for name, value in before.values(29 * HOUR).items() if name != "pm25_ugm3"
    }
    assert again.level is Level.none
    # The first reading covers nothing yet, but what was restored still holds: it is told anew.
    assert changes(feed(again, "pm25_ugm3", [161.0], start=MINUTE)) == [("yellow", 60.0)]


# --- water --------------------------------------------------------------------------------------


def test_a_stage_is_reached_by_the_water_and_not_by_a_bird() -> None:
    to = evaluator("water-level-example")
    out = feed(to, "water_level_m", [510.0, 510.0, 510.0, 514.0, 510.0, 510.0], step=MINUTE)
    assert changes(out) == []
    out = feed(to, "water_level_m", [512.0, 512.1], start=6 * MINUTE, step=MINUTE)
    assert changes(out) == [("yellow", 7 * 60.0)]


def test_a_stage_ends_below_its_margin_for_the_hold_time() -> None:
    to = evaluator("water-level-example")
    water = [512.3] * 70 + [511.85] * 70 + [511.0] * 200
    out = feed(to, "water_level_m", water, step=MINUTE)
    # The median is one reading behind; yellow's margin ends at 511.8.
    assert changes(out) == [("yellow", 120.0), ("none", (141 + 60) * 60.0)]


def test_a_fast_rise_is_told_before_any_stage() -> None:
    to = evaluator("water-level-example")
    out = feed(to, "water_level_m", [505 + i * 0.02 for i in range(100)], step=MINUTE)
    # Half a metre takes 25 min, and the median is one reading behind.
    assert changes(out)[0] == ("blue", 27 * 60.0)
    assert changes(out)[1] == ("yellow", 52 * 60.0)


def test_water_below_the_bed_is_impossible() -> None:
    assert faults(feed(evaluator("water-level-example"), "water_level_m", [5])) == ["spike"]


# --- contacts -----------------------------------------------------------------------------------


def test_a_contact_sounds_at_the_reading_that_closes_it_and_ends_a_minute_after_it_opens() -> None:
    to = evaluator("contact")
    out = feed(to, "contact", [0, 0, 1, 1, 0], step=10 * NS) + to.tick(HOUR)
    assert changes(out) == [("red", 20.0), ("none", 100.0)]


def test_a_contact_that_is_read_only_when_it_changes_stays_closed() -> None:
    to = evaluator("contact")
    assert changes(feed(to, "contact", [0, 1], step=NS)) == [("red", 1.0)]
    assert to.tick(1000 * HOUR) == []
    assert to.values(1000 * HOUR) == {"contact": 1.0}


# --- what holds for all -------------------------------------------------------------------------


def test_only_the_level_reached_is_told_and_the_highest_that_still_stands() -> None:
    to = evaluator("water-level-example")
    out = feed(to, "water_level_m", [513.7] * 5 + [512.1] * 200, step=MINUTE)
    assert [level for level, _ in changes(out)] == ["red", "yellow"]


def test_a_fresh_level_is_told_below_one_that_a_restart_left_unconfirmed() -> None:
    before = evaluator("water-level-example")
    feed(before, "water_level_m", [513.7] * 5, step=MINUTE)
    again = evaluator("water-level-example")
    again.restore(before.state(0), 10 * MINUTE, 0)
    out = feed(again, "water_level_m", [512.1] * 100, start=11 * MINUTE, step=MINUTE)
    out += feed(again, "water_level_m", [511.0] * 100, start=111 * MINUTE, step=MINUTE)
    assert [level for level, _ in changes(out)] == ["yellow", "none"]


def test_a_missing_reading_is_no_zero() -> None:
    to = evaluator("contact")
    feed(to, "contact", [1], step=NS)
    assert changes(feed(to, "contact", [None] * 200, start=NS)) == []


def test_nothing_rises_in_maintenance() -> None:
    to = evaluator("contact")
    feed(to, "contact", [0])
    to.set_mode(Mode.maintenance, NS)
    assert changes(feed(to, "contact", [1, 1], start=2 * NS)) == []
    to.set_mode(Mode.live, 10 * NS)
    assert changes(feed(to, "contact", [0], start=11 * NS)) == []


WIND = shipped("gale")
winds = st.lists(
    st.tuples(
        st.sampled_from([NS, 2 * NS, MINUTE, 5 * MINUTE, HOUR]) | st.integers(1, 4 * HOUR),
        st.none() | st.integers(-1, 130),
    ),
    max_size=60,
)


@given(winds, st.lists(st.integers(0, 100 * HOUR), max_size=20))
@settings(max_examples=80, deadline=None)
def test_when_the_clock_is_told_changes_nothing(
    rows: list[tuple[int, int | None]], ticks: list[int]
) -> None:
    scale = replace(WIND, stuck_s=60)
    plain, told = make(scale, "s"), make(scale, "s")
    expected: list[Output] = []
    found: list[Output] = []
    t, waiting = 0, sorted(ticks)
    for step, value in rows:
        t += step
        reading = Reading("s", t, "wind_mps", None if value is None else value * MICRO)
        while waiting and waiting[0] <= t:
            found += told.tick(waiting.pop(0))
        found += told.reading(reading)
        expected += plain.reading(reading)
    assert found + told.tick(t + 9 * HOUR) == expected + plain.tick(t + 9 * HOUR)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(-50, 50)), min_size=1, max_size=80))
@settings(deadline=None)
def test_means_and_extremes_of_a_window_equal_those_done_the_long_way(
    rows: list[tuple[int, int]],
) -> None:
    window, t = 100, 0
    mean, high, low = RollingMean(window), RollingHigh(window), RollingLow(window)
    seen: list[tuple[int, int, int]] = []
    for cover, value in rows:
        t += cover
        seen.append((t, cover, value))
        mean.add(t, cover, value)
        high.add(t, value)
        low.add(t, value)
        for rolling in (mean, high, low):
            rolling.roll(t)
        inside = [row for row in seen if row[0] > t - window]
        assert mean.value(0) == sum(c * v for _, c, v in inside) // sum(c for _, c, _ in inside)
        assert mean.value(sum(c for _, c, _ in inside) + 1) is None
        assert high.value == max(v for _, _, v in inside)
        assert low.value == min(v for _, _, v in inside)


def test_a_fast_sensor_does_not_fill_the_memory() -> None:
    window = 10 * BINS
    mean, high = RollingMean(window), RollingHigh(window)
    for t in range(3 * window):
        mean.add(t, 1, t)
        high.add(t, -t)
        for rolling in (mean, high):
            rolling.roll(t)
            assert len(rolling.entries) <= BINS + 1
    assert mean.value(0) == pytest.approx(2.5 * window, rel=0.01)
