"""Rain sums and levels against integer arithmetic done the long way, and a gauge's faults."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.detect import rolling
from gateway.detect.evaluator import Mode, Output
from gateway.detect.level import make
from gateway.detect.rain import RainEvaluator, RainGauge
from gateway.detect.rolling import RollingSum
from gateway.detect.scale import Scale, Step
from gateway.events import (
    MICRO,
    NS,
    Level,
    LevelChange,
    Quality,
    Reading,
    iso,
    parse_iso,
    parse_micro,
)
from tests.detect.test_scale import shipped

NATIONAL = shipped("rainstorm-national")
HOUR = 3600 * NS
MINUTE = 60 * NS

Series = Sequence[tuple[int, int | None]]
"""(end in ns, millionths of a mm or None)"""

HERE = Path(__file__).resolve().parent
CORPUS = Path(os.environ.get("GATEWAY_CORPUS", HERE.parents[2] / "shared" / "corpus"))
ARNA = HERE.parent / "data" / "rain" / "arna_1955-10.csv"


def gauge(scale: Scale = NATIONAL) -> RainEvaluator:
    evaluator = make(scale, "rain1")
    assert isinstance(evaluator, RainEvaluator)
    return evaluator


def rain(t: int, micro: int | None, quantity: str = "rain_mm") -> Reading:
    return Reading("rain1", t, quantity, micro)


def changes(outputs: Iterable[Output]) -> list[LevelChange]:
    return [output for output in outputs if isinstance(output, LevelChange)]


def faults(outputs: Iterable[Output]) -> list[str]:
    return [output.kind for output in outputs if isinstance(output, Quality)]


def run(evaluator: RainEvaluator, series: Series, ticks: Iterable[int] = ()) -> list[Output]:
    """Feed a series, and be told the time at ``ticks`` and two days after the end besides."""
    waiting = sorted(ticks)
    out: list[Output] = []
    for t, micro in series:
        while waiting and waiting[0] <= t:
            out += evaluator.tick(waiting.pop(0))
        out += evaluator.reading(rain(t, micro))
    end = series[-1][0] if series else 0
    return out + evaluator.tick(end + 48 * HOUR)


def levels(outputs: Iterable[Output]) -> list[tuple[str, str, float | None, int]]:
    return [
        (iso(c.time_ns), c.level.name, c.window_h, round(c.value * MICRO)) for c in changes(outputs)
    ]


class LongWay:
    """The levels of a series from its cumulative sum, with nothing of the product's code.

    Each level is followed for itself through every moment at which a sum can change: a reading,
    or one leaving a window.
    """

    def __init__(self, scale: Scale, series: Series) -> None:
        self.scale, self.hold = scale, scale.hold_s * NS
        self.ends = np.array([t for t, _ in series], dtype=np.int64)
        self.running = np.concatenate([[0], np.cumsum([micro or 0 for _, micro in series])])
        wet = self.ends[[bool(micro) for _, micro in series]]
        windows = {c.window_s * NS for c in scale.conditions}
        far = self.ends[-1:] + 10**15
        self.moments = np.unique(np.concatenate([self.ends, *(wet + w for w in windows), far]))
        present = self.ends[[micro is not None for _, micro in series]]
        newest_wet = np.concatenate([[-(10**18)], wet])[np.searchsorted(wet, self.moments, "right")]
        self.may_rise = np.isin(self.moments, present) & (self.moments - newest_wet < 1800 * NS)

    def sum(self, window: int, t: NDArray[np.int64], side: Literal["left", "right"]) -> Any:
        """Rain in (t − window, t], or without what ends at t itself where ``side`` is left."""
        last = np.searchsorted(self.ends, t, side)
        first = np.searchsorted(self.ends, t - window, "right")
        return self.running[np.maximum(first, last)] - self.running[first]

    def spans(self, step: Step) -> Iterator[tuple[int, int, int]]:
        """(begin, end, window that reached it) of each time that the level stood."""
        sums = [self.sum(c.window_s * NS, self.moments, "right") for c in step.conditions]
        reached = np.array(
            [s >= c.at_least_micro for s, c in zip(sums, step.conditions, strict=True)]
        )
        held = np.array([s >= c.below_micro for s, c in zip(sums, step.conditions, strict=True)])
        begin, window, below = None, 0, None
        rows = zip(
            self.moments.tolist(),
            (np.any(reached, axis=0) & self.may_rise).tolist(),
            np.argmax(reached, axis=0).tolist(),
            np.any(held, axis=0).tolist(),
            strict=True,
        )
        for t, up, by, stays in rows:
            if begin is not None and below is not None and below + self.hold <= t:
                yield begin, below + self.hold, window
                begin = None
            if begin is None and up:
                begin, window, below = t, step.conditions[by].window_s * NS, None
            elif stays:
                below = None
            elif below is None:
                below = t

    def levels(self) -> list[tuple[str, str, float | None, int]]:
        turns: dict[tuple[int, bool], list[tuple[Level, int]]] = {}
        for step in self.scale.steps:
            for begin, end, window in self.spans(step):
                turns.setdefault((begin, True), []).append((step.level, window))
                turns.setdefault((end, False), []).append((step.level, window))
        standing: dict[Level, int] = {}
        told: list[tuple[str, str, float | None, int]] = []
        for (t, rises), those in sorted(turns.items()):
            before = max(standing, default=Level.none)
            standing = {k: v for k, v in standing.items() if rises or k not in dict(those)}
            standing |= dict(those) if rises else {}
            level = max(standing, default=Level.none)
            if level is not before:
                window = standing[level] if standing else max(those)[1]
                value = self.sum(window, np.array(t), "right" if rises else "left")
                told.append((iso(t), level.name, window / HOUR, int(value)))
        return told


def the_long_way(scale: Scale, series: Series) -> list[tuple[str, str, float | None, int]]:
    return LongWay(scale, series).levels() if series else []


@cache
def read(path: Path) -> list[tuple[int, int | None]]:
    with path.open(encoding="utf-8") as file:
        rows = csv.reader(file)
        assert next(rows) == ["time", "rain_mm"]
        return [(parse_iso(time), parse_micro(text)) for time, text in rows]


# --- levels on recorded rain --------------------------------------------------------------------


def test_the_storm_of_arna_reaches_blue_once() -> None:
    out = run(gauge(), read(ARNA))
    assert levels(out) == [
        ("1955-10-07T22:15:00.000000Z", "blue", 12.0, 50_300_000),
        ("1955-10-08T07:55:00.000000Z", "none", 12.0, 32_100_000),
    ]
    assert [c.complete for c in changes(out)] == [True, True]


def cases() -> list[Any]:
    found = sorted((CORPUS / "rain").glob("*.csv"))
    if not found:
        skip = pytest.mark.skip(f"no rain series in {CORPUS}; GATEWAY_CORPUS names another place")
        return [pytest.param(None, "", marks=skip)]
    local = [path for path in found if path.stem.endswith(("_1min", "arna_5min_a"))]
    return [pytest.param(path, "rainstorm-national", id=path.stem) for path in found] + [
        pytest.param(path, scale, id=f"{path.stem} {scale}")
        for scale in ("rainstorm-shanghai", "flash-flood-jianghua")
        for path in local
    ]


@pytest.mark.parametrize(("path", "scale"), cases())
def test_levels_of_real_rain_equal_exact_arithmetic_to_the_reading(path: Path, scale: str) -> None:
    series = read(path)
    assert levels(run(gauge(shipped(scale)), series)) == the_long_way(shipped(scale), series)


def test_a_cloudburst_goes_through_all_levels_and_back() -> None:
    series = [(i * MINUTE, 1_000_000 if 60 <= i < 170 else 0) for i in range(16 * 60)]
    out = run(gauge(), series)
    assert levels(out) == the_long_way(NATIONAL, series)
    # 50 mm are over in one stroke for blue, yellow and orange: only the highest is told.
    assert [(iso(c.time_ns)[11:19], c.level.name) for c in changes(out)] == [
        ("01:49:00", "orange"),
        ("02:39:00", "red"),
        ("05:20:00", "orange"),
        ("06:05:00", "yellow"),
        ("09:05:00", "blue"),
        ("15:05:00", "none"),
    ]


# --- levels on any rain -------------------------------------------------------------------------

SCALED = replace(NATIONAL, highest_micro=None)

steps = st.tuples(
    st.sampled_from([10 * NS, MINUTE, 5 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR]) | st.integers(1, HOUR),
    st.none()
    | st.sampled_from([0, 1, 45 * MICRO, 50 * MICRO - 1, 50 * MICRO])
    | st.integers(0, 30 * MICRO),
)
any_series = st.lists(steps, max_size=40).map(
    lambda pairs: [
        (int(t), micro)
        for t, (_, micro) in zip(np.cumsum([dt for dt, _ in pairs]), pairs, strict=True)
    ]
)


def distinct(series: Series) -> Series:
    """Without a contact's bounce, which is no rain: equal tips within 150 ms."""
    close = any(b[0] - a[0] < 150_000_000 for a, b in pairwise(series))
    return [(t, None if close and micro else micro) for t, micro in series]


@given(any_series)
@settings(max_examples=150, deadline=None)
def test_levels_of_any_rain_equal_exact_arithmetic(series: Series) -> None:
    series = distinct(series)
    assert levels(run(gauge(SCALED), series)) == the_long_way(SCALED, series)


@given(any_series, st.lists(st.integers(0, 60 * HOUR), max_size=30))
@settings(max_examples=80, deadline=None)
def test_when_the_clock_is_told_changes_nothing(series: Series, ticks: list[int]) -> None:
    told = run(gauge(SCALED), series, ticks)
    assert told == run(gauge(SCALED), series)


@given(any_series)
@settings(max_examples=60, deadline=None)
def test_being_told_the_time_at_each_deadline_alone_is_enough(series: Series) -> None:
    evaluator, told = gauge(SCALED), []
    for t, micro in [*series, ((series[-1][0] if series else 0) + 60 * HOUR, 0)]:
        while (due := evaluator.next_deadline()) is not None and due <= t:
            told += evaluator.tick(due)
        told += evaluator.reading(rain(t, micro))
    assert changes(told) == changes(run(gauge(SCALED), series))
    assert evaluator.next_deadline() is None


@given(any_series, st.integers(0, 30 * HOUR))
@settings(max_examples=60, deadline=None)
def test_sums_are_those_of_the_readings_that_end_in_the_window(series: Series, later: int) -> None:
    series = distinct(series)
    evaluator = gauge(SCALED)
    for t, micro in series:
        evaluator.reading(rain(t, micro))
    end = (series[-1][0] if series else 0) + later
    evaluator.tick(end)
    for hours in (1, 3, 6, 12, 24):
        expected = sum(micro or 0 for t, micro in series if end - hours * HOUR < t <= end)
        assert evaluator.sum_nm(hours * 3600) == expected


# --- completeness -------------------------------------------------------------------------------


def test_a_missing_reading_adds_nothing_and_marks_its_windows() -> None:
    evaluator = gauge()
    for i in range(13 * 60):
        evaluator.reading(rain(i * MINUTE, None if i == 9 * 60 else 0))
    assert [hours for hours in (1, 3, 6, 12) if evaluator.complete(hours * 3600)] == [1, 3]


def test_a_window_that_began_before_the_record_is_incomplete() -> None:
    evaluator = gauge()
    for i in range(3 * 60):
        evaluator.reading(rain(i * MINUTE, 0))
    assert evaluator.complete(3600)
    assert not evaluator.complete(3 * 3600)


def test_rows_left_out_of_a_regular_record_mark_their_windows() -> None:
    evaluator = gauge()
    for i in (*range(240), 250, 251):
        evaluator.reading(rain(i * MINUTE, 0))
    assert not evaluator.complete(3600)


def test_a_gauge_that_speaks_only_when_it_rains_is_trusted_in_its_silence() -> None:
    evaluator = gauge()
    for minute in (0, 1, 2, 200, 201, 202):
        evaluator.reading(rain(minute * MINUTE, 200_000))
    assert evaluator.complete(3 * 3600)


# --- counters and rates -------------------------------------------------------------------------


def fallen(quantity: str, *readings: tuple[float, float | None]) -> list[float | None]:
    """What each reading (seconds, value) adds, in mm."""
    meter = RainGauge(NATIONAL.highest_micro, NATIONAL.stuck_s)
    found = []
    for seconds, value in readings:
        micro = None if value is None else round(value * MICRO)
        amount = meter.take(rain(round(seconds * NS), micro, quantity))
        assert amount is not None
        found.append(None if amount.nm is None else amount.nm / MICRO)
    return found


@pytest.mark.parametrize(
    ("what", "readings", "mm"),
    [
        ("rise is rain, the first reading is the baseline", [(0, 7), (60, 7.2), (120, 7.2)],
         [None, 0.2, 0]),
        ("a falling counter was reset", [(0, 7), (60, 0.4), (120, 0.6)], [None, 0.4, 0.2]),
        ("a lost telegram loses no rain", [(0, 7), (60, None), (120, 8)], [None, None, 1]),
        ("one wrong value is no rain", [(0, 7), (10, 900), (20, 7.2)], [None, None, 0.2]),
        ("nor is a lasting jump", [(0, 7), (10, 900), (20, 900.2)], [None, None, 0.2]),
        ("nor a fall to a high value", [(0, 900), (10, 500), (20, 500.2)], [None, None, 0.2]),
        ("a negative counter says nothing", [(0, 7), (10, -1), (20, 7.2)], [None, None, 0.2]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_counter(
    what: str, readings: list[tuple[float, float | None]], mm: list[float | None]
) -> None:
    assert fallen("rain_total_mm", *readings) == mm, what


def test_a_rate_is_integrated_without_rounding_away_anything() -> None:
    amounts = fallen("rain_mmph", *((i, 7.123457) for i in range(3600)), (3600, 7.123458))
    assert amounts[0] is None
    assert round(sum(amount or 0 for amount in amounts) * MICRO) == 7_123_457


def test_a_rate_says_nothing_of_a_long_silence() -> None:
    assert fallen("rain_mmph", (0, 60), (60, 60), (7200, 60)) == [None, 1, None]


def test_a_rate_that_never_changes_is_stuck_and_recovers() -> None:
    evaluator = gauge()
    out = [
        o for i in range(90) for o in evaluator.reading(rain(i * MINUTE, 9_000_000, "rain_mmph"))
    ]
    assert faults(out) == ["indicative", "flat"]
    assert evaluator.sum_nm(3 * 3600) == 59 * 150_000
    assert not evaluator.complete(600)
    assert faults(evaluator.reading(rain(90 * MINUTE, 8_000_000, "rain_mmph"))) == ["recovered"]


def test_of_a_gauge_that_reports_several_quantities_only_the_best_counts() -> None:
    evaluator = gauge()
    for i in range(61):
        evaluator.reading(rain(i * MINUTE, 6_000_000, "rain_mmph"))
        evaluator.reading(rain(i * MINUTE, 100_000, "rain_mm"))
        evaluator.reading(rain(i * MINUTE, (70 + i) * 100_000, "rain_total_mm"))
    assert evaluator.sum_nm(3 * 3600) == 61 * 100_000


def test_what_a_counter_gathered_over_an_outage_says_nothing_of_shorter_windows() -> None:
    evaluator = gauge()
    evaluator.reading(rain(0, 0, "rain_total_mm"))
    out = evaluator.reading(rain(5 * HOUR, 120 * MICRO, "rain_total_mm"))
    # 120 mm in 5 h may or may not have been 100 mm in 3 h.
    assert [(c.level, c.window_h) for c in changes(out)] == [(Level.yellow, 6.0)]


# --- faults -------------------------------------------------------------------------------------


def test_rain_beyond_any_on_record_is_a_fault_and_reaches_no_level() -> None:
    evaluator = gauge()
    for i in range(60):
        evaluator.reading(rain(i * MINUTE, 0))
    out = evaluator.reading(rain(60 * MINUTE, 120 * MICRO))
    assert faults(out) == ["spike"]
    assert changes(out) == []
    assert not evaluator.complete(3600)


@pytest.mark.parametrize(
    ("after_s", "mm", "believed"),
    [
        (60, 41.0, True),
        (60, 41.1, False),
        (3600, 423.0, True),
        (3600, 423.1, False),
        (24 * 3600, 999.9, True),
        (None, 100.0, True),
        (None, 999.9, False),
    ],
)
def test_how_much_rain_is_believed(after_s: int | None, mm: float, believed: bool) -> None:
    before = [] if after_s is None else [(0.0, 0.0)]
    amount = fallen("rain_mm", *before, (after_s or 0, mm))[-1]
    assert amount == (mm if believed else None)


def test_a_fault_is_told_once_an_hour_and_counted() -> None:
    evaluator = gauge()
    told = [o for i in range(150) for o in evaluator.reading(rain(i * MINUTE, -1))]
    assert [iso(o.time_ns)[11:16] for o in told if isinstance(o, Quality)] == [
        "00:00",
        "01:00",
        "02:00",
    ]
    assert evaluator.faults == {"invalid": 150}


@pytest.mark.parametrize("back_ns", [0, 1, HOUR])
def test_a_reading_that_is_not_newer_is_left_out_and_told(back_ns: int) -> None:
    evaluator = gauge()
    evaluator.reading(rain(2 * HOUR, MICRO))
    assert faults(evaluator.reading(rain(2 * HOUR - back_ns, MICRO))) == ["overlap"]
    assert evaluator.sum_nm(3600) == MICRO


def test_a_bouncing_contact_counts_once() -> None:
    evaluator = gauge()
    evaluator.reading(rain(HOUR, 200_000))
    assert faults(evaluator.reading(rain(HOUR + 40_000_000, 200_000))) == ["bounce"]
    evaluator.reading(rain(HOUR + 400_000_000, 200_000))
    assert evaluator.sum_nm(3600) == 400_000


def test_a_gauge_that_stays_dry_while_its_neighbour_catches_rain_is_blocked() -> None:
    dry, wet = gauge(), RainEvaluator(NATIONAL, "rain2")
    for i in range(200):
        t = i * MINUTE
        dry.reading(rain(t, 0))
        wet.reading(Reading("rain2", t, "rain_mm", 100_000))
        told = dry.compare(wet, t)
        # 10 mm have come by the 100th reading, 3 h have been watched by the 181st.
        assert faults(told) == (["blocked"] if i == 180 else [])
        assert wet.compare(dry, t) == []


def test_other_sensors_and_quantities_are_left_alone() -> None:
    evaluator = gauge()
    assert evaluator.reading(Reading("rain2", 0, "rain_mm", 60 * MICRO)) == []
    assert evaluator.reading(Reading("rain1", 0, "wind_mps", 60 * MICRO)) == []
    assert evaluator.sum_nm(3600) == 0


def test_maintenance_counts_nothing_and_ends_what_stands() -> None:
    evaluator = gauge()
    for i in range(6):
        evaluator.reading(rain(i * MINUTE, 10 * MICRO))
    assert evaluator.level.name == "orange"
    told = evaluator.set_mode(Mode.maintenance, 6 * MINUTE)
    assert [(c.level, c.time_ns) for c in changes(told)] == [(Level.none, 6 * MINUTE)]
    before = evaluator.sum_nm(3600)
    assert evaluator.reading(rain(7 * MINUTE, 30 * MICRO)) == []
    assert evaluator.sum_nm(3600) == before
    assert not evaluator.complete(600)
    evaluator.set_mode(Mode.live, 8 * MINUTE)
    assert evaluator.level.name == "none"


def test_water_poured_through_a_counting_gauge_in_maintenance_is_no_rain_afterwards() -> None:
    evaluator = gauge()
    evaluator.reading(rain(0, 0, "rain_total_mm"))
    evaluator.set_mode(Mode.maintenance, MINUTE)
    evaluator.reading(rain(2 * MINUTE, 20 * MICRO, "rain_total_mm"))
    evaluator.set_mode(Mode.live, 3 * MINUTE)
    evaluator.reading(rain(4 * MINUTE, 20 * MICRO + 200_000, "rain_total_mm"))
    assert evaluator.sum_nm(3600) == 200_000


# --- continuing rain ----------------------------------------------------------------------------


def test_a_level_is_not_reached_by_a_dry_reading_once_the_rain_is_over() -> None:
    evaluator = gauge()
    evaluator.set_mode(Mode.quiet, 0)
    for i in range(6):
        assert evaluator.reading(rain(i * MINUTE, 10 * MICRO)) == []
    evaluator.set_mode(Mode.live, 10 * MINUTE)
    assert changes(evaluator.reading(rain(35 * MINUTE, 0))) == []
    assert [c.level for c in changes(evaluator.reading(rain(37 * MINUTE, 1)))] == [Level.orange]


# --- restarts -----------------------------------------------------------------------------------


def restart(evaluator: RainEvaluator, t: int, offset: int = 7 * HOUR) -> RainEvaluator:
    """Another process on another stream clock, one that is ``offset`` behind."""
    saved = json.loads(json.dumps(evaluator.state(0)))
    again = gauge(evaluator.scale)
    again.restore(saved, t - offset, offset)
    return again


def test_restored_sums_raise_nothing_until_a_reading_comes() -> None:
    before = gauge()
    for i in range(52):
        before.reading(rain(i * MINUTE, MICRO))
    again = restart(before, 55 * MINUTE)
    assert again.sum_nm(3 * 3600) == 52 * MICRO
    assert again.level is Level.none
    assert again.tick(60 * MINUTE - 7 * HOUR) == []
    told = changes(again.reading(rain(61 * MINUTE - 7 * HOUR, 100_000)))
    assert [(c.level, c.complete) for c in told] == [(Level.orange, False)]


def test_a_level_that_stood_before_a_restart_gets_its_end_told() -> None:
    before = gauge()
    for i in range(52):
        before.reading(rain(i * MINUTE, MICRO))
    again = restart(before, 10 * HOUR)
    told: list[Output] = []
    while (due := again.next_deadline()) is not None:
        told += again.tick(due)
    # The 7th of 52 mm leaves the 12-h window at 12:06, which makes 45; the 8th less than that.
    assert [(c.level, iso(c.time_ns + 7 * HOUR)[11:16]) for c in changes(told)] == [
        (Level.none, "13:07")
    ]


def test_a_counter_goes_on_over_a_restart() -> None:
    before = gauge()
    for i in range(10):
        before.reading(rain(i * MINUTE, i * 100_000, "rain_total_mm"))
    again = restart(before, 12 * MINUTE)
    again.reading(rain(13 * MINUTE - 7 * HOUR, 1_500_000, "rain_total_mm"))
    assert again.sum_nm(3600) == 1_500_000
    assert again.event is not None
    assert again.event.nm == 1_500_000


def test_rain_that_a_wrong_clock_puts_in_the_future_is_left_out() -> None:
    before = gauge()
    for i in range(60):
        before.reading(rain(i * MINUTE, MICRO))
    assert restart(before, 29 * MINUTE).sum_nm(3 * 3600) == 30 * MICRO


@given(any_series, st.integers(0, 39))
@settings(max_examples=40, deadline=None)
def test_a_restart_keeps_each_sum_to_the_minute(series: Series, cut: int) -> None:
    series = distinct(series)
    whole, before = gauge(SCALED), gauge(SCALED)
    for t, micro in series[:cut]:
        before.reading(rain(t, micro))
    now = series[min(cut, len(series)) - 1][0] if series[:cut] else 0
    again = restart(before, now, 0)
    for t, micro in series[:cut]:
        whole.reading(rain(t, micro))
    for hours in (1, 3, 6, 12, 24):
        least, most = whole.sum_nm(hours * 3600), 0
        most = sum(micro or 0 for t, micro in series[:cut] if t > now - hours * HOUR - MINUTE)
        assert least <= again.sum_nm(hours * 3600) <= most


@pytest.mark.parametrize(
    "wrong",
    [
        {"rolling": None},
        {"rolling": {"rain": [[1]]}},
        {"rolling": {"rain": [["x", 1, 2]]}},
        {"rolling": {"rain": 5}},
        {"levels": ["pink"]},
        {"levels": 3},
    ],
)
def test_a_state_of_another_form_is_refused_whole(wrong: dict[str, object]) -> None:
    evaluator = gauge()
    evaluator.reading(rain(0, MICRO))
    again = gauge()
    with pytest.raises(ValueError, match="saved state of rain1"):
        again.restore(evaluator.state(0) | wrong, HOUR, 0)
    assert again.sum_nm(24 * 3600) == 0


def test_the_state_of_another_scale_is_left_alone() -> None:
    evaluator = gauge()
    evaluator.reading(rain(0, MICRO))
    again = gauge(shipped("rainstorm-shanghai"))
    again.restore(evaluator.state(0), MINUTE, 0)
    assert again.sum_nm(24 * 3600) == 0


# --- values, events, memory ---------------------------------------------------------------------


def test_values_are_sums_intensities_and_the_event() -> None:
    evaluator = gauge()
    for i in range(121):
        evaluator.reading(rain(i * MINUTE, 200_000))
    values = evaluator.values(120 * MINUTE)
    assert values["rain_1h_mm"] == pytest.approx(12)
    assert values["rain_3h_mm"] == pytest.approx(24.2)
    assert [values[f"rain_{w}_mmph"] for w in ("1min", "5min", "10min", "1h")] == pytest.approx(
        [12] * 4
    )
    assert values["rain_event_mm"] == pytest.approx(24.2)
    assert values["rain_event_h"] == pytest.approx(2)


def test_an_intensity_is_not_claimed_over_less_time_than_a_reading_covers() -> None:
    evaluator = gauge()
    for i in range(30):
        evaluator.reading(rain(i * 5 * MINUTE, MICRO))
    values = evaluator.values(29 * 5 * MINUTE)
    assert "rain_1min_mmph" not in values
    assert values["rain_5min_mmph"] == pytest.approx(12)


def test_six_dry_hours_part_two_events() -> None:
    evaluator = gauge()
    for hour in (0, 3, 8, 14):
        evaluator.reading(rain(hour * HOUR, MICRO))
    assert evaluator.event is not None
    assert (evaluator.event.start_ns, evaluator.event.nm) == (14 * HOUR, MICRO)


def test_asking_for_values_takes_no_level_change_away() -> None:
    evaluator = gauge()
    for i in range(6):
        evaluator.reading(rain(i * MINUTE, 10 * MICRO))
    evaluator.values(40 * HOUR)
    assert [c.level for c in changes(evaluator.tick(40 * HOUR))] == [
        Level.yellow,
        Level.blue,
        Level.none,
    ]


def test_memory_is_bounded_and_a_full_window_never_shows_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rolling, "LIMIT", 10)
    window = RollingSum(100)
    for t in range(250):
        window.roll(t)
        window.add(t, 1)
        assert len(window.entries) <= 10
        assert window.total >= min(t + 1, 100)
