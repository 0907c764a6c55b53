import itertools

import pytest

from gateway.core.arbiter import Arbiter, Request, edge
from gateway.events import NS, Hazard, Level, Status
from gateway.plan.rules import Pattern, Step

DISASTER = Pattern("disaster", (Step(True, 15), Step(False, 10), Step(True, 5), Step(False, 10)), 3)
LONG = Pattern("long", (Step(True, 180),))
SHORT = Pattern("short", (Step(True, 3), Step(False, 2)), 3)
PATTERNS = {p.name: p for p in (DISASTER, LONG, SHORT)}


def arbiter(max_on_s: float = 300, max_hour_s: float = 900) -> Arbiter:
    return Arbiter("st", "main", PATTERNS, max_on_s, max_hour_s)


def request(
    alert: str = "a",
    pattern: str = "disaster",
    began_s: float = 0,
    *,
    status: Status = Status.actual,
    hazard: Hazard | None = Hazard.earthquake,
    level: Level = Level.red,
) -> Request:
    return Request(alert, status, hazard, level, pattern, round(began_s * NS))


def play(subject: Arbiter, until_s: float, from_s: float = 0) -> list[tuple[float, bool]]:
    """Edges (s, on) with the clock driven from deadline to deadline."""
    edges = [(from_s, c.on) for c in subject.commands()]
    while (due := subject.next_deadline()) is not None and due <= until_s * NS:
        subject.tick(due)
        edges += [(due / NS, c.on) for c in subject.commands()]
    return edges


def test_a_pattern_sounds_its_steps_and_ends() -> None:
    subject = arbiter()
    subject.request(request(), 0)
    once = [(0, True), (15, False), (25, True), (30, False)]
    assert play(subject, 1000) == [(t + 40 * i, on) for i in range(3) for t, on in once]
    starts, ends = subject.actions()
    assert (starts.action, starts.time_ns) == ("on", 0)
    assert (ends.action, ends.time_ns, ends.reason) == ("off", 120 * NS, "pattern ended")
    assert subject.next_deadline() is None


def test_a_late_tick_does_every_edge_at_its_own_time() -> None:
    subject = arbiter()
    subject.request(request(), 0)
    subject.tick(500 * NS)
    commands = subject.commands()
    assert [c.on for c in commands] == [True, False] * 6
    assert [a.time_ns for a in subject.actions()] == [0, 120 * NS]


# --- every pair ---------------------------------------------------------------------------------

STATUSES = [Status.test, Status.exercise, Status.actual]
HAZARDS = [
    (None, Hazard.rainstorm, Hazard.typhoon, Hazard.air_pollution),
    (Hazard.flood,),
    (Hazard.fire,),
    (Hazard.earthquake,),
]
"""Groups in rising order; within one all are alike."""
LEVELS = [Level.none, Level.blue, Level.yellow, Level.orange, Level.red]

Kind = tuple[Status, Hazard | None, Level]
KINDS: list[Kind] = [
    (status, hazard, level)
    for status in STATUSES
    for group in HAZARDS
    for hazard in group
    for level in LEVELS
]
PAIRS = list(itertools.product(KINDS, KINDS))


def goes_before(one: Kind, other: Kind) -> bool:
    """The order as the design states it, written down a second time."""

    def place(kind: Kind) -> tuple[int, int, int]:
        group = next(i for i, group in enumerate(HAZARDS) if kind[1] in group)
        return STATUSES.index(kind[0]), group, LEVELS.index(kind[2])

    return place(one) > place(other)


def of(kind: Kind, alert: str, pattern: str, began_s: float) -> Request:
    status, hazard, level = kind
    return request(alert, pattern, began_s, status=status, hazard=hazard, level=level)


def spans(subject: Arbiter) -> list[tuple[str, float, float]]:
    """(alert, from, to) in seconds of every stretch that was served."""
    actions = subject.actions()
    served = []
    for start, end in zip(actions[::2], actions[1::2], strict=True):
        assert (start.action, end.action) == ("on", "off")
        assert start.alert == end.alert
        served.append((start.alert, start.time_ns / NS, end.time_ns / NS))
    return served


def two(older: Request, newer: Request) -> Arbiter:
    """One is asked for at 0 s, the other at 5 s."""
    subject = arbiter()
    subject.request(older, 0)
    play(subject, 5)
    subject.request(newer, 5 * NS)
    return subject


def test_of_every_pair_the_higher_sounds_and_of_two_alike_the_newer() -> None:
    for old, new in PAIRS:
        subject = two(of(old, "old", "long", 0), of(new, "new", "long", 5))
        assert subject.serving is not None
        assert (subject.serving.alert == "old") is goes_before(old, new), (old, new)


def test_of_every_pair_the_lower_goes_on_where_it_would_be() -> None:
    for old, new in PAIRS:
        subject = two(of(old, "old", "long", 0), of(new, "new", "short", 5))
        play(subject, 1000)
        assert spans(subject) == (
            [("old", 0, 180)]
            if goes_before(old, new)
            else [("old", 0, 5), ("new", 5, 20), ("old", 20, 180)]
        ), (old, new)


def test_of_every_pair_the_lower_waits_no_longer_than_its_own_deadline() -> None:
    for old, new in PAIRS:
        subject = two(of(old, "old", "short", 0), of(new, "new", "long", 5))
        play(subject, 1000)
        assert spans(subject) == (
            [("old", 0, 15), ("new", 15, 185)]
            if goes_before(old, new)
            else [("old", 0, 5), ("new", 5, 185)]
        ), (old, new)


def test_of_every_pair_both_are_silenced_until_their_own_level_rises() -> None:
    for old, new in PAIRS:
        subject = two(of(old, "old", "long", 0), of(new, "new", "long", 5))
        subject.silence(6 * NS, "by hand", {})
        for kind, alert in ((old, "old"), (new, "new")):
            subject.request(of(kind, alert, "long", 7), 7 * NS)
        assert subject.serving is None, (old, new)
        risen = [(k, a) for k, a in ((old, "old"), (new, "new")) if k[2] < Level.red]
        for (status, hazard, level), alert in risen:
            subject.request(of((status, hazard, Level(level + 1)), alert, "long", 8), 8 * NS)
        assert (subject.serving is None) is (not risen), (old, new)


def test_an_alert_whose_pattern_is_over_is_silenced_too() -> None:
    subject = arbiter()
    subject.request(request(pattern="short", level=Level.orange), 0)
    play(subject, 100)
    subject.silence(100 * NS, "by hand", {"a": Level.orange})
    subject.request(request(pattern="short", began_s=200, level=Level.orange), 200 * NS)
    assert subject.serving is None
    subject.request(request(pattern="short", began_s=300, level=Level.red), 300 * NS)
    assert subject.serving is not None


# --- one after another --------------------------------------------------------------------------


def test_what_was_pre_empted_resumes_where_it_would_have_been() -> None:
    subject = arbiter()
    subject.request(request("low", "long", hazard=Hazard.rainstorm), 0)
    subject.request(request("high", "short", 10), 10 * NS)
    actions = [(a.alert, a.action, a.time_ns / NS) for a in subject.actions()]
    assert actions == [("low", "on", 0), ("low", "off", 10), ("high", "on", 10)]
    play(subject, 1000)
    actions = [(a.alert, a.action, a.time_ns / NS) for a in subject.actions()]
    assert actions == [("high", "off", 25), ("low", "on", 25), ("low", "off", 180)]


def test_what_was_pre_empted_past_its_own_deadline_stays_silent() -> None:
    subject = arbiter()
    subject.request(request("low", "short", hazard=Hazard.rainstorm), 0)
    subject.request(request("high", "long", 5), 5 * NS)
    play(subject, 1000)
    assert [a.alert for a in subject.actions() if a.action == "on"] == ["low", "high"]


def test_off_silences_until_the_level_rises() -> None:
    subject = arbiter()
    subject.request(request(level=Level.orange), 0)
    subject.silence(5 * NS, "by hand", {})
    subject.request(request(began_s=6, level=Level.orange), 6 * NS)
    assert subject.serving is None
    subject.request(request(began_s=7, level=Level.red), 7 * NS)
    assert subject.commands()[-1].on


def test_off_does_not_silence_a_new_alert() -> None:
    subject = arbiter()
    subject.request(request("one"), 0)
    subject.silence(5 * NS, "by hand", {})
    subject.request(request("two", began_s=6), 6 * NS)
    assert subject.commands()[-1].on


def test_muted_sounds_nothing_and_goes_on_where_it_would_be() -> None:
    subject = arbiter()
    subject.mute(0, "disarmed")
    subject.request(request(pattern="long"), 0)
    assert subject.commands() == []
    subject.mute(20 * NS, "")
    assert play(subject, 1000, 20) == [(20, True), (180, False)]


def test_one_stretch_is_limited_over_all_causes() -> None:
    subject = arbiter(max_on_s=200)
    subject.request(request("one", "long"), 0)
    play(subject, 150)
    subject.request(request("two", "long", 150), 150 * NS)
    assert play(subject, 1000)[-1] == (200, False)
    assert "longest time" in subject.actions()[-1].reason


def test_the_sound_of_an_hour_is_limited_over_all_causes() -> None:
    subject = arbiter(max_on_s=300, max_hour_s=400)
    edges = []
    for at in range(0, 1500, 300):
        subject.request(request(f"alert {at}", "long", at), at * NS)
        edges += play(subject, at + 299, at)
    starts, ends = [t for t, on in edges if on], [t for t, on in edges if not on]
    sounded = sum(ends) - sum(starts)
    assert sounded == pytest.approx(400)
    subject.request(request("later", "long", 3601), 3601 * NS)
    assert subject.on


def test_a_restart_in_the_same_boot_goes_on_where_it_would_be() -> None:
    before = arbiter()
    before.request(request(), 0)
    play(before, 26)
    state = before.state(26 * NS)
    after = arbiter()
    after.restore(state, 28 * NS)
    assert after.on
    assert [c.until_ns for c in after.commands()] == [30 * NS]
    finished = arbiter()
    finished.restore(state, 121 * NS)
    assert not finished.on
    assert finished.next_deadline() is None


def test_neighbouring_steps_of_a_kind_are_one_edge() -> None:
    pattern = Pattern("p", (Step(True, 1), Step(False, 1), Step(True, 2)), 2)
    assert edge(pattern, 0) == (True, NS)
    assert edge(pattern, 2 * NS) == (True, 5 * NS)
    assert edge(pattern, 7 * NS) == (True, 8 * NS)
    assert edge(pattern, 8 * NS)[0] is False


def test_a_recording_from_before_1970_sounds_as_any_other() -> None:
    subject = arbiter()
    began_s = -1e9
    subject.request(request(began_s=began_s), round(began_s * NS))
    assert subject.commands()[-1].on
