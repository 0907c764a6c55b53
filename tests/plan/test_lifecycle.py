import tomllib
from dataclasses import replace
from pathlib import Path

import gateway.plan
from gateway.events import NS, Alert, GroundMotion, Hazard, Level, LevelChange, Phase, Status
from gateway.plan.files import read_plan
from gateway.plan.lifecycle import Lifecycle

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


def rain(subject: Lifecycle, level: Level, at_s: float, sensor: str = "rain1") -> list[Alert]:
    change = LevelChange(
        sensor, Hazard.rainstorm, level, round(at_s * NS), 50.4, "mm", window_h=6.0
    )
    return [subject.worded(alert) for alert in subject.level(change, Status.actual, 0)]


def steps(alerts: list[Alert]) -> list[tuple[Phase, Level]]:
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
    assert "预测地震烈度6.3度" in alert.text_zh
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
