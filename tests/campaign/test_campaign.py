"""The campaign finds what it looks for; twelve of its faults are run here (all: make campaign)."""

import pytest

from gateway.events import NS
from tests.campaign.__main__ import campaign, table
from tests.campaign.script import DEATHS, LAST, Kind, Round, rounds
from tests.campaign.verdict import Outage, Span, closed, judge, minus, resumed_after, silent_after

WANTED = [(10 * NS, 20 * NS), (25 * NS, 30 * NS)]


def s(*spans: tuple[float, float]) -> list[Span]:
    return [(round(a * NS), round(b * NS)) for a, b in spans]


def death(at_s: float) -> Outage:
    at, until = round(at_s * NS), round((at_s + 3) * NS)
    return Outage("death", "", at, until, until, at)


def line_down(siren: str, start_s: float, end_s: float) -> Outage:
    start, end = round(start_s * NS), round((end_s + 3) * NS)
    return Outage("unplug", siren, start, end, end)


def test_the_same_seed_is_the_same_campaign_and_another_is_another() -> None:
    assert list(rounds(1, 100)) == list(rounds(1, 100))
    assert list(rounds(1, 100)) != list(rounds(2, 100))


def test_a_campaign_has_as_many_faults_as_asked_and_of_every_kind() -> None:
    made = list(rounds(1, 1000))
    assert sum(len(r.faults) for r in made) == 1000
    assert {fault.kind for r in made for fault in r.faults} == set(Kind)


def test_an_alert_is_only_dropped_by_a_third_death_and_then_nothing_else_kills() -> None:
    for made in rounds(3, 1000):
        deaths = [fault.kind for fault in made.faults if fault.kind in DEATHS]
        if LAST & set(deaths):
            assert len(deaths) == 1
        else:
            assert sum(DEATHS[kind] for kind in deaths) <= 2


def test_the_stretches_of_a_pattern_are_its_sound() -> None:
    made = Round("x", (3.0, 2.0, 1.0, 2.0), 2, "yes", "yes", ())
    assert made.stretches_s == [(0, 3), (5, 6), (8, 11), (13, 14)]
    assert Round("x", (4.0,), 3, "yes", "yes", ()).stretches_s == [(0, 12)]


def test_spans_without_others() -> None:
    assert minus([(0, 10)], [(2, 3)], [(5, 20)]) == [(0, 2), (3, 5)]
    assert minus([(0, 10)], [(0, 10)]) == []
    assert closed([(1, True), (4, False), (6, True)], 9) == [(1, 4), (6, 9)]


@pytest.mark.parametrize(
    ("sounded", "outages", "found"),
    [
        (s((10, 20), (25, 30)), [], []),
        (s((10.2, 20.3), (25, 30.1)), [], []),
        (s((10, 21), (25, 30)), [], ["stuck"]),
        (s((10, 20), (22, 22.1), (25, 30)), [], ["stuck"]),
        (s((10, 20), (25, 30), (40, 40.2)), [], ["stuck"]),
        (s((10, 20)), [], ["silent"]),
        (s((10, 15), (17, 20), (25, 30)), [], ["silent"]),
        (s((10, 15), (17, 20), (25, 30)), [death(15)], []),
        (s((10, 15), (18.6, 20), (25, 30)), [death(15)], ["silent"]),
        (s((10, 22.5), (25, 30)), [death(19.9)], []),
        (s((10, 23.5), (25, 30)), [death(19.9)], ["stuck"]),
        (s((10, 15), (18, 20), (25, 30)), [line_down("main", 15, 17)], []),
        (s((10, 15), (18, 20), (25, 30)), [line_down("horn", 15, 17)], ["silent"]),
    ],
)
def test_the_verdict_finds_a_siren_that_is_stuck_or_silent(
    sounded: list[Span], outages: list[Outage], found: list[str]
) -> None:
    assert [wrong.claim for wrong in judge("main", WANTED, sounded, outages, None)] == found


def test_after_a_stop_nothing_is_to_sound() -> None:
    quiet = (15 * NS, round(16.5 * NS))
    assert judge("main", WANTED, s((10, 15.5)), [], quiet) == []
    wrong = judge("main", WANTED, s((10, 17), (25, 30)), [], quiet)
    assert [w.claim for w in wrong] == ["stuck", "stuck"]


def test_times_after_a_death() -> None:
    sounded = s((10, 15.4), (16.6, 20))
    assert silent_after(15 * NS, sounded) == pytest.approx(0.4 * NS)
    assert silent_after(22 * NS, sounded) is None
    assert resumed_after(15 * NS, WANTED, sounded) == pytest.approx(1.6 * NS)
    assert resumed_after(22 * NS, WANTED, sounded) is None


def test_twelve_faults_leave_no_siren_stuck_or_silent() -> None:
    outcomes = campaign(seed=5, faults=12, stations=2, keep=None, quiet=True)
    assert [(o["seed"], o["kinds"], o["wrong"]) for o in outcomes if o["wrong"]] == []
    assert "| all | 12 | 0 |" in table(outcomes)
