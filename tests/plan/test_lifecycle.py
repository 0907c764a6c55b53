import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway.plan
from gateway.events import (
    NS,
    Alert,
    GroundMotion,
    Hazard,
    Level,
    LevelChange,
    Observed,
    Phase,
    Status,
    compact,
    iso,
)
from gateway.plan.files import read_plan
from gateway.plan.lifecycle import AlertStep, Lifecycle
from gateway.plan.rules import Clause, Condition, Escalation, LevelRule

PLANS = tuple(
    read_plan(tomllib.loads(path.read_text(encoding="utf-8")), path.name)
    for path in (Path(gateway.plan.__file__).parent / "plans").glob("*.toml")
)
MOTION = GroundMotion(
    station="XX.STA",
    time_ns=0,
    since_ns=0,
    pga=1.0,
    pgv=0.1,
    pgd=0.01,
    pd=None,
    pd_max=None,
    tau_c=None,
    cav=0.0,
    intensity=1.0,
    predicted=None,
    components=3,
    standard=True,
    sustained=True,
)


def lifecycle() -> Lifecycle:
    return Lifecycle("st", "示范站", PLANS)


def shake(
    subject: Lifecycle,
    intensity: float,
    at_s: float,
    since_s: float = 0,
    status: Status = Status.actual,
    predicted: float | None = None,
) -> list[Alert]:
    motion = replace(
        MOTION,
        intensity=intensity,
        predicted=predicted,
        time_ns=round(at_s * NS),
        since_ns=round(since_s * NS),
    )
    return [subject.worded(alert) for alert in subject.shaking(motion, 1, status, 0)]


def rain(
    subject: Lifecycle,
    level: Level,
    at_s: float,
    sensor: str = "rain1",
    status: Status = Status.actual,
) -> list[Alert]:
    change = LevelChange(
        sensor, Hazard.rainstorm, level, round(at_s * NS), 50.4, "mm", window_h=6.0
    )
    return [subject.worded(alert) for alert in subject.level(change, status, 0)]


def wind(subject: Lifecycle, at_s: float, **values: float) -> list[Alert]:
    """What an anemometer's scale knows at a time."""
    seen = Observed("wind1", Hazard.typhoon, "gale", round(at_s * NS), values)
    return [subject.worded(alert) for alert in subject.observed(seen, Status.actual, 0)]


def tick(subject: Lifecycle, at_s: float) -> list[Alert]:
    return [subject.worded(alert) for alert in subject.tick(round(at_s * NS))]


def with_plan(hazard: Hazard, **changes: Any) -> Lifecycle:
    """The shipped plans, one of them changed."""
    plans = tuple(replace(p, **changes) if p.hazard is hazard else p for p in PLANS)
    return Lifecycle("st", "示范站", plans)


GUSTS = {
    "levels": (
        LevelRule(Level.red, (Clause((Condition("gust_mps_max_10min", ">=", 30.0),)),), "disaster"),
        LevelRule(Level.yellow, (Clause((Condition("wind_mps_mean_2min", ">=", 12.0),)),)),
    ),
    "hold_s": 600.0,
}
"""A plan that judges what is measured, whatever the scale says."""


def steps(alerts: Sequence[Alert | AlertStep]) -> list[tuple[Phase, Level]]:
    return [(alert.phase, alert.level) for alert in alerts]


def test_an_alert_begins_rises_and_expires_under_one_id() -> None:
    subject = lifecycle()
    alerts = shake(subject, 3.0, 1) + shake(subject, 3.4, 2) + shake(subject, 7.04, 3)
    alerts += shake(subject, 6.0, 4)
    assert steps(alerts) == [(Phase.alert, Level.blue), (Phase.update, Level.red)]
    assert subject.next_deadline() == 64 * NS
    assert subject.tick(64 * NS - 1) == []
    ended = subject.tick(100 * NS)
    assert steps(ended) == [(Phase.expire, Level.none)]
    assert ended[0].time_ns == 64 * NS
    assert {a.id for a in alerts + ended} == {"st-earthquake-19700101T000001.000000Z"}
    assert subject.next_deadline() is None


def test_the_number_that_is_printed_is_the_number_that_decided() -> None:
    subject = lifecycle()
    assert shake(subject, 6.949, 1)[0].level is Level.orange
    assert shake(subject, 6.951, 2)[0].level is Level.red


def test_another_shaking_that_reaches_the_level_renews_the_alert() -> None:
    subject = lifecycle()
    shake(subject, 7.0, 1)
    assert shake(subject, 5.0, 40, since_s=39) == []
    renewed = shake(subject, 7.0, 41, since_s=39)
    assert steps(renewed) == [(Phase.update, Level.red)]
    assert shake(subject, 7.2, 42, since_s=39) == []


def test_a_new_alert_begins_only_after_the_re_arm_time() -> None:
    subject = Lifecycle("st", "", tuple(replace(plan, rearm_s=30) for plan in PLANS))
    shake(subject, 5.0, 1)
    subject.tick(61 * NS)
    assert shake(subject, 5.0, 90.9, since_s=90) == []
    assert steps(shake(subject, 5.0, 91, since_s=90)) == [(Phase.alert, Level.yellow)]


def test_a_prediction_says_that_it_is_one() -> None:
    alert = shake(lifecycle(), 2.0, 1, predicted=6.3)[0]
    assert alert.text_zh.startswith("示范站：本地按初至波估计地震烈度6.3度，达到黄色标准。")
    assert "predicted shaking here of intensity 6.3" in alert.text_en


def test_an_observation_says_that_it_was_observed_here() -> None:
    alert = shake(lifecycle(), 7.2, 1)[0]
    assert alert.text_zh.startswith("示范站：本地实测地震烈度7.2度，达到红色标准。")
    assert alert.inputs["intensity"] == 7.2
    assert alert.reason == "intensity >= 7"


def test_an_exercise_is_marked_in_both_languages_from_end_to_end() -> None:
    subject = lifecycle()
    alerts = shake(subject, 7.0, 1, status=Status.exercise)
    alerts += [subject.worded(alert) for alert in subject.tick(100 * NS)]
    assert [a.status for a in alerts] == [Status.exercise] * 2
    assert all(a.text_zh.startswith("【演练】") for a in alerts)
    assert all(a.text_en.startswith("[EXERCISE] ") for a in alerts)


def test_rain_rises_falls_and_is_cancelled_when_the_scale_ends() -> None:
    subject = lifecycle()
    alerts = rain(subject, Level.blue, 1) + rain(subject, Level.orange, 2)
    alerts += rain(subject, Level.yellow, 3) + rain(subject, Level.none, 4)
    assert steps(alerts) == [
        (Phase.alert, Level.blue),
        (Phase.update, Level.orange),
        (Phase.update, Level.yellow),
        (Phase.cancel, Level.none),
    ]
    assert "6小时降雨50.4毫米，达到暴雨橙色标准" in alerts[1].text_zh


def test_the_highest_of_several_gauges_makes_the_level() -> None:
    subject = lifecycle()
    alerts = rain(subject, Level.yellow, 1, "a") + rain(subject, Level.blue, 2, "b")
    alerts += rain(subject, Level.none, 3, "a") + rain(subject, Level.none, 4, "b")
    assert steps(alerts) == [
        (Phase.alert, Level.yellow),
        (Phase.update, Level.blue),
        (Phase.cancel, Level.none),
    ]


def test_hazards_have_alerts_of_their_own() -> None:
    subject = lifecycle()
    alerts = shake(subject, 5.0, 1) + rain(subject, Level.blue, 2)
    assert [a.hazard for a in alerts] == [Hazard.earthquake, Hazard.rainstorm]
    assert len({a.id for a in alerts}) == 2


def test_an_order_cancels_an_alert_by_its_id() -> None:
    subject = lifecycle()
    alert = shake(subject, 5.0, 1)[0]
    assert subject.cancel("another", 2 * NS, "by key hub") == []
    assert steps(subject.cancel(alert.id, 2 * NS, "by key hub")) == [(Phase.cancel, Level.none)]
    assert subject.active == {}
    assert shake(subject, 7.0, 3) == []
    assert steps(shake(subject, 5.0, 9, since_s=8)) == [(Phase.alert, Level.yellow)]


def test_a_restart_in_the_same_boot_goes_on() -> None:
    before = lifecycle()
    shake(before, 5.0, 1)
    after = lifecycle()
    after.restore(before.state(), 10 * NS, same_boot=True)
    assert shake(after, 5.4, 2) == []
    assert steps(after.tick(100 * NS)) == [(Phase.expire, Level.none)]


def test_after_a_reboot_an_alert_is_interrupted_until_fresh_data_renew_it() -> None:
    before = lifecycle()
    first = shake(before, 5.0, 1000)[0]
    after = lifecycle()
    after.restore(before.state(), 3 * NS, same_boot=False)
    assert after.active[Hazard.earthquake].interrupted
    fresh = shake(after, 5.0, 4, since_s=3.5)
    assert steps(fresh) == [(Phase.update, Level.yellow)]
    assert fresh[0].id == first.id


# --- down, with hysteresis ------------------------------------------------------------------------


def test_a_level_goes_up_at_once_and_down_after_the_hold_time() -> None:
    subject = with_plan(Hazard.typhoon, **GUSTS)
    alerts = wind(subject, 0, wind_mps_mean_2min=13.0)
    alerts += wind(subject, 60, wind_mps_mean_2min=14.0, gust_mps_max_10min=31.0)
    alerts += wind(subject, 120, wind_mps_mean_2min=14.0, gust_mps_max_10min=29.0)
    assert steps(alerts) == [(Phase.alert, Level.yellow), (Phase.update, Level.red)]
    assert alerts[-1].reason == "gust_mps_max_10min >= 30"
    assert tick(subject, 719.9) == []
    (step,) = subject.tick(720 * NS)
    assert (step.phase, step.level, step.sounds) == (Phase.update, Level.yellow, False)
    lowered = subject.worded(step)
    assert lowered.text_zh.startswith("示范站：本地实测风力已低于大风红色标准，降为黄色标准。")
    assert wind(subject, 800, wind_mps_mean_2min=5.0) == []
    (ended,) = tick(subject, 5000)
    assert (ended.phase, ended.time_ns) == (Phase.cancel, 1400 * NS)
    assert {a.id for a in [*alerts, lowered, ended]} == {alerts[0].id}


def test_a_level_that_is_reached_again_within_the_hold_time_does_not_flicker() -> None:
    subject = with_plan(Hazard.typhoon, **GUSTS)
    wind(subject, 0, gust_mps_max_10min=31.0)
    for at in range(60, 6000, 60):
        assert wind(subject, at, gust_mps_max_10min=29.0 if at % 540 else 31.0) == []
    assert subject.active[Hazard.typhoon].level is Level.red


def test_what_is_no_longer_known_holds_no_level() -> None:
    subject = with_plan(Hazard.typhoon, **GUSTS)
    wind(subject, 0, gust_mps_max_10min=31.0)
    assert wind(subject, 60) == []
    assert steps(tick(subject, 660)) == [(Phase.cancel, Level.none)]


def test_two_scales_of_one_sensor_do_not_end_each_other() -> None:
    subject = lifecycle()
    for scale, level in (("gale", Level.red), ("typhoon", Level.blue), ("typhoon", Level.none)):
        change = LevelChange("w", Hazard.typhoon, level, NS, 1.0, "m/s", scale=scale)
        subject.level(change, Status.actual, 0)
    assert subject.active[Hazard.typhoon].level is Level.red


# --- what happens by itself -----------------------------------------------------------------------


def rainstorm(after_s: float = 600, times: int = 2, **changes: Any) -> Lifecycle:
    """Rain whose red is escalated."""
    plan = next(p for p in PLANS if p.hazard is Hazard.rainstorm)
    often = Escalation(after_s, 300, times, ("emergency",))
    levels = (replace(plan.levels[0], escalation=often), *plan.levels[1:])
    return with_plan(Hazard.rainstorm, levels=levels, **changes)


def test_a_level_that_lasts_is_escalated_until_its_times_are_over() -> None:
    subject = rainstorm()
    (began,) = rain(subject, Level.red, 0)
    taken = subject.tick(5000 * NS)
    assert [(step.time_ns // NS, step.phase, step.level, step.sounds) for step in taken] == [
        (600, Phase.update, Level.red, True),
        (900, Phase.update, Level.red, True),
    ]
    reminded = [subject.worded(step) for step in taken]
    assert "emergency" not in began.audiences
    assert reminded[0].audiences == (*began.audiences, "emergency")
    assert reminded[0].reason == "red for 600 s, not switched off: 1 of 2"
    assert reminded[0].text_zh.startswith("【再次提醒】示范站：本地实测6小时降雨50.4毫米")
    assert reminded[0].text_en.startswith("[REMINDER] 示范站: 50.4 mm")


def test_once_somebody_has_switched_off_nothing_is_escalated_before_the_level_rises() -> None:
    subject = rainstorm()
    rain(subject, Level.red, 0)
    subject.acknowledge()
    assert tick(subject, 5000) == []
    rain(subject, Level.orange, 5001)
    rain(subject, Level.red, 5002)
    assert tick(subject, 9000) == [], "red was switched off and has not risen above it"
    lower = rainstorm()
    rain(lower, Level.orange, 0)
    lower.acknowledge()
    rain(lower, Level.red, 10)
    assert len(tick(lower, 5000)) == 2


def test_a_higher_level_begins_its_own_escalation() -> None:
    subject = rainstorm()
    rain(subject, Level.orange, 0)
    rain(subject, Level.red, 1000)
    assert [a.time_ns // NS for a in tick(subject, 5000)] == [1600, 1900]


def test_what_was_said_is_said_again_before_it_expires_and_does_not_sound() -> None:
    subject = rainstorm(times=1, after_s=80_000, valid_s=7200.0)
    (began,) = rain(subject, Level.yellow, 0)
    assert began.expires_ns == 7200 * NS
    taken = subject.tick(7300 * NS)
    assert [step.sounds for step in taken] == [False, False]
    again = [subject.worded(step) for step in taken]
    assert [(a.time_ns // NS, a.expires_ns // NS) for a in again] == [
        (3600, 10_800),
        (7200, 14_400),
    ]
    assert again[0].text_zh.startswith("【仍在持续】")
    assert again[0].reason == "still yellow: scale >= yellow"


def test_an_alert_ends_at_its_longest_time_and_begins_anew_only_after_a_fall() -> None:
    subject = rainstorm(times=1, after_s=80_000, longest_s=3600.0)
    rain(subject, Level.red, 0)
    (ended,) = tick(subject, 4000)
    assert (ended.phase, ended.time_ns) == (Phase.expire, 3600 * NS)
    assert ended.reason == "longest time of 3600 s is over"
    assert "到期结束" in ended.text_zh
    assert rain(subject, Level.orange, 4100) == []
    assert rain(subject, Level.none, 4200) == []
    assert steps(rain(subject, Level.blue, 4300)) == [(Phase.alert, Level.blue)]


def test_what_was_cancelled_by_order_begins_anew_only_above_what_stands() -> None:
    subject = lifecycle()
    (alert,) = rain(subject, Level.orange, 0)
    subject.cancel(alert.id, 10 * NS, "by key hub")
    assert rain(subject, Level.yellow, 20) == []
    (higher,) = rain(subject, Level.red, 30)
    assert (higher.phase, higher.level) == (Phase.alert, Level.red)
    assert higher.id != alert.id


def test_what_is_reached_during_the_re_arm_time_alerts_when_that_is_over() -> None:
    subject = with_plan(Hazard.rainstorm, rearm_s=600.0)
    rain(subject, Level.blue, 0)
    rain(subject, Level.none, 10)
    assert rain(subject, Level.red, 20) == []
    (late,) = tick(subject, 700)
    assert (late.phase, late.level, late.time_ns) == (Phase.alert, Level.red, 610 * NS)


# --- status ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("low", [Status.exercise, Status.test])
def test_an_exercise_never_hides_what_is_real(low: Status) -> None:
    subject = lifecycle()
    (drill,) = rain(subject, Level.red, 0, status=low)
    over, real = rain(subject, Level.orange, 10)
    assert (over.id, over.phase, over.status) == (drill.id, Phase.cancel, low)
    assert (real.phase, real.level, real.status) == (Phase.alert, Level.orange, Status.actual)
    quake = lifecycle()
    shake(quake, 7.0, 1, status=low)
    over, real = shake(quake, 5.0, 9, since_s=8)[:1] + shake(quake, 7.0, 10, since_s=8)
    assert [over.status, real.status] == [low, Status.actual]


def test_what_is_real_stays_so_when_an_exercise_is_ordered() -> None:
    subject = lifecycle()
    rain(subject, Level.yellow, 0)
    (risen,) = rain(subject, Level.red, 10, status=Status.exercise)
    assert risen.status is Status.actual


# --- restarts -------------------------------------------------------------------------------------


def test_a_restart_in_the_same_boot_keeps_grounds_and_escalation() -> None:
    before = rainstorm()
    rain(before, Level.red, 0)
    tick(before, 700)
    after = rainstorm()
    after.restore(json.loads(json.dumps(before.state())), 800 * NS, same_boot=True)
    (reminded,) = tick(after, 5000)
    assert reminded.time_ns == 900 * NS
    assert "50.4" in reminded.text_zh
    assert steps(rain(after, Level.none, 5001)) == [(Phase.cancel, Level.none)]


def test_after_a_reboot_a_scale_says_whether_an_alert_still_stands() -> None:
    before = lifecycle()
    (alert,) = rain(before, Level.red, 1000)
    state = json.loads(json.dumps(before.state()))
    for level, phase in ((Level.none, Phase.cancel), (Level.orange, Phase.update)):
        after = lifecycle()
        after.restore(state, 3 * NS, same_boot=False)
        assert tick(after, 60) == []
        (step,) = rain(after, level, 70)
        assert (step.id, step.phase, step.level) == (alert.id, phase, level)
    forgotten = lifecycle()
    forgotten.restore(state, 3 * NS, same_boot=False)
    (ended,) = tick(forgotten, 100_000)
    assert (ended.phase, ended.reason) == (
        Phase.expire,
        "interrupted, and not reached again since",
    )


# --- whatever happens -----------------------------------------------------------------------------

WHAT = st.one_of(
    st.tuples(st.just("scale"), st.sampled_from(list(Level)), st.sampled_from("ab")),
    st.tuples(st.just("mode"), st.sampled_from(list(Status))),
    st.tuples(st.just("wait"), st.integers(1, 4000)),
    st.tuples(st.just("off")),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("crash"), st.booleans()),
)


class Story:
    """A station to which things happen, and all that it says."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self.subject = self._fresh()
        self.status = Status.actual
        self.t = 1
        self.said: list[Alert] = []

    def _fresh(self) -> Lifecycle:
        times = {"hold_s": self._hold_s, "rearm_s": 120.0, "longest_s": 20_000.0, "valid_s": 9000.0}
        return rainstorm(**times)  # type: ignore[arg-type]  # fields of the plan

    def happen(self, name: str, *rest: Any) -> None:
        self.t += 1
        self.said += tick(self.subject, self.t)
        getattr(self, name)(*rest)

    def scale(self, level: Level, sensor: str) -> None:
        self.said += rain(self.subject, level, self.t, sensor, self.status)

    def mode(self, status: Status) -> None:
        self.status = status

    def wait(self, seconds: int) -> None:
        self.t += seconds
        self.said += tick(self.subject, self.t)

    def off(self) -> None:
        self.subject.acknowledge()

    def cancel(self) -> None:
        for current in list(self.subject.active.values()):
            ended = self.subject.cancel(current.id, self.t * NS, "by order")
            self.said += [self.subject.worded(alert) for alert in ended]

    def crash(self, same_boot: bool) -> None:
        state = json.loads(json.dumps(self.subject.state()))
        self.subject = self._fresh()
        self.subject.restore(state, self.t * NS, same_boot=same_boot)

    def to_its_end(self) -> None:
        """Nothing stands any more, and time gets on from deadline to deadline."""
        for sensor in "ab":
            self.happen("scale", Level.none, sensor)
        while (due := self.subject.next_deadline()) is not None:
            self.said += tick(self.subject, due / NS)
            following = self.subject.next_deadline()
            assert following is None or following > due


@settings(max_examples=200, deadline=None)
@given(st.lists(WHAT, max_size=40), st.sampled_from([0.0, 90.0, 1000.0]))
def test_whatever_happens_alerts_begin_go_on_and_end(what: list[Any], hold_s: float) -> None:
    """One alert at a time, each with one beginning and one end, all in order of time."""
    story = Story(hold_s)
    for name, *rest in what:
        story.happen(name, *rest)
    story.to_its_end()
    assert story.subject.active == {}
    times = [alert.time_ns for alert in story.said]
    assert times == sorted(times)
    current, ids = "", set()
    for alert in story.said:
        if alert.phase is Phase.alert:
            assert current == ""
            assert alert.id not in ids
            current = alert.id
            ids.add(current)
        assert alert.id == current
        assert alert.text_zh
        ends = alert.phase in (Phase.cancel, Phase.expire)
        assert (alert.level is Level.none) is ends
        current = "" if ends else current
    assert current == ""


@given(st.integers(0, 250 * 365 * 86_400 * NS))
def test_an_id_has_the_time_that_is_published_in_the_basic_format(time_ns: int) -> None:
    assert compact(time_ns) == iso(time_ns).replace("-", "").replace(":", "")
