"""Days of rain in UTC+08:00: where an interval belongs, and what a total says of itself."""

from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.detect.days import HOUR_NS, DayKind, DayTotals
from gateway.events import BEIJING, NS, parse_iso

MINUTE = 60 * NS
METEOROLOGICAL, HYDROLOGICAL = DayKind.meteorological, DayKind.hydrological


def beijing(text: str) -> int:
    return parse_iso(f"{text}+08:00")


@pytest.mark.parametrize(
    ("end", "meteorological", "hydrological"),
    [
        ("2026-07-01T07:59:59", "2026-07-01", "2026-06-30"),
        ("2026-07-01T08:00:00", "2026-07-01", "2026-06-30"),
        ("2026-07-01T08:00:01", "2026-07-01", "2026-07-01"),
        ("2026-07-01T20:00:00", "2026-07-01", "2026-07-01"),
        ("2026-07-01T20:00:01", "2026-07-02", "2026-07-01"),
        ("2026-12-31T23:00:00", "2027-01-01", "2026-12-31"),
        ("1969-12-31T20:00:00", "1969-12-31", "1969-12-31"),
    ],
)
def test_the_day_of_an_interval_is_that_of_its_end(
    end: str, meteorological: str, hydrological: str
) -> None:
    assert METEOROLOGICAL.of(beijing(end)) == date.fromisoformat(meteorological)
    assert HYDROLOGICAL.of(beijing(end)) == date.fromisoformat(hydrological)


@given(st.integers(-(10**18), 4 * 10**18), st.sampled_from(DayKind))
def test_each_moment_is_in_the_day_that_it_is_said_to_be_in(end_ns: int, kind: DayKind) -> None:
    start = kind.start_ns(kind.of(end_ns))
    assert start < end_ns <= start + 24 * HOUR_NS
    local = datetime.fromtimestamp(start // NS, BEIJING)
    assert (local.hour, local.minute, local.second) == (kind.hour, 0, 0)


def fill(totals: DayTotals, start: int, hours: int, nm: int) -> list[tuple[date, int, bool]]:
    """Rain of ``nm`` a minute."""
    told = []
    for i in range(1, hours * 60 + 1):
        told += totals.add(start + i * MINUTE, nm)
    return [(total.day, total.nm, total.complete) for total in told]


def test_a_day_that_was_watched_throughout_is_complete() -> None:
    totals = DayTotals(HYDROLOGICAL)
    told = fill(totals, beijing("2026-07-01T06:00:00"), 27, 100)
    assert told == [
        (date(2026, 6, 30), 120 * 100, False),
        (date(2026, 7, 1), 24 * 60 * 100, True),
    ]
    current = totals.current()
    assert current is not None
    assert (current.nm, current.complete) == (60 * 100, False)


def test_halves_part_at_08_and_the_interval_that_ends_then_is_of_the_night() -> None:
    totals = DayTotals(METEOROLOGICAL)
    for text, nm in [
        ("2026-07-01T20:00:00", 1),
        ("2026-07-02T07:59:00", 10),
        ("2026-07-02T08:00:00", 100),
        ("2026-07-02T08:01:00", 1000),
        ("2026-07-02T20:00:00", 10_000),
    ]:
        totals.add(beijing(text), nm)
    (second,) = totals.add(beijing("2026-07-02T20:01:00"), 0)
    assert (second.day, second.nm, second.first_half_nm) == (date(2026, 7, 2), 11_110, 110)


def test_one_missing_reading_makes_its_day_incomplete_and_no_other() -> None:
    totals = DayTotals(HYDROLOGICAL)
    fill(totals, beijing("2026-07-01T07:00:00"), 1, 0)
    fill(totals, beijing("2026-07-01T08:00:00"), 23, 0)
    totals.add(beijing("2026-07-02T07:00:30"), None)
    told = fill(totals, beijing("2026-07-02T07:00:31"), 26, 0)
    assert told == [(date(2026, 7, 1), 0, False), (date(2026, 7, 2), 0, True)]


def test_an_outage_makes_every_day_that_it_touches_incomplete() -> None:
    totals = DayTotals(HYDROLOGICAL)
    fill(totals, beijing("2026-07-01T07:00:00"), 24, 0)
    told = fill(totals, beijing("2026-07-04T10:00:00"), 48, 0)
    assert told == [
        (date(2026, 7, 1), 0, False),
        (date(2026, 7, 2), 0, False),
        (date(2026, 7, 3), 0, False),
        (date(2026, 7, 4), 0, False),
        (date(2026, 7, 5), 0, True),
    ]


def test_a_day_is_over_without_a_reading_once_none_can_complete_it() -> None:
    totals = DayTotals(HYDROLOGICAL)
    fill(totals, beijing("2026-07-01T07:00:00"), 24, 0)
    assert totals.tick(beijing("2026-07-02T08:00:00")) == []
    (over,) = totals.tick(beijing("2026-07-02T08:00:01"))
    assert (over.day, over.missing, over.complete) == (date(2026, 7, 1), 1, False)


def test_a_gauge_that_speaks_only_when_it_rains_is_trusted_in_its_silence() -> None:
    totals = DayTotals(HYDROLOGICAL, longest_ns=None)
    totals.add(beijing("2026-07-01T12:00:00"), 200)
    told = totals.tick(beijing("2026-07-03T09:00:00"))
    assert [(t.day, t.nm, t.complete) for t in told] == [
        (date(2026, 7, 1), 200, False),
        (date(2026, 7, 2), 0, True),
    ]
    assert told[0].mm == pytest.approx(0.0002)
