"""What a plan asks for, the core's sirens do: raising, lowering, escalating, switching off, dates.

The small station of ``tests.core.station``, with plans made for each claim.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.core.compiled import Compiled
from gateway.core.engine import OVERDUE_EVERY_NS, Core
from gateway.events import NS, Alert, Hazard, Health, Level, Phase, SirenAction
from gateway.plan.rules import Clause, Condition, Escalation, LevelRule, Plan
from tests.core.station import fire_plan, gauge, rule, station, virtual_siren
from tests.core.test_engine import close, events, on, those

NIGHT_NS = round(datetime(2026, 7, 1, 16, tzinfo=UTC).timestamp()) * NS
"""Midnight in China."""


def with_fire(plan: Plan, **changes: object) -> Compiled:
    return replace(station(), plans=(plan,), **changes)  # type: ignore[arg-type]  # fields of Compiled


def escalating(after_s: float = 120, times: int = 2) -> Compiled:
    """A closed contact is red; that lasts, and is escalated."""
    plan = fire_plan()
    often = Escalation(after_s, 120, times)
    return with_fire(replace(plan, levels=(replace(plan.levels[0], escalation=often),)))


def starts(core: Core) -> list[float]:
    return [a.time_ns / NS for a in those(events(core), SirenAction) if a.action == "on"]


# --- sounding -----------------------------------------------------------------------------------


def test_a_level_that_lasts_sounds_again_as_the_plan_says() -> None:
    core = Core(escalating())
    close(core, 0)
    assert on(core)
    core.advance(3000 * NS)
    assert starts(core) == [120, 240]


def test_once_switched_off_it_sounds_no_more() -> None:
    core = Core(escalating())
    close(core, 0)
    core.tick(70 * NS)
    assert not on(core), "the pattern has come to its end"
    core.siren_off((), 80 * NS, "by hand")
    for at in range(90, 1000, 10):
        core.tick(at * NS)
    assert starts(core) == []


def test_one_siren_that_is_switched_off_leaves_the_others_to_be_escalated() -> None:
    config = replace(escalating(), sirens=(virtual_siren("main"), virtual_siren("roof")))
    core = Core(config)
    close(core, 0)
    core.siren_off(("roof",), 70 * NS, "by hand")
    for at in range(80, 300, 10):
        core.tick(at * NS)
    heard = [a.siren for a in those(events(core), SirenAction) if a.action == "on"]
    assert heard == ["main", "main"]


def test_a_level_that_falls_starts_no_pattern_and_cuts_none() -> None:
    rules = (
        rule(Condition("scale", ">=", 4.0), "long"),
        rule(Condition("scale", ">=", 1.0), "long", Level.blue),
    )
    core = Core(with_fire(Plan(Hazard.fire, "1", rules, hold_s=0, rearm_s=0)))
    close(core, 0)
    close(core, NS, 0.6)
    core.tick(31 * NS)
    lowered = those(events(core), Alert)[-1]
    assert (lowered.phase, lowered.level) == (Phase.update, Level.blue)
    assert on(core), "what has begun sounds to its end"
    core.tick(61 * NS)
    assert not on(core)
    assert starts(core) == []


@pytest.mark.parametrize(("sure", "sounds"), [(True, False), (False, True)])
def test_quiet_hours_hold_only_by_a_clock_that_is_sure(*, sure: bool, sounds: bool) -> None:
    rules = (rule(Condition("scale", ">=", 1.0), "long", Level.blue),)
    quiet = Plan(Hazard.fire, "1", rules, quiet_hours=(22.0, 6.0), quiet_below=Level.orange)
    core = Core(with_fire(quiet))
    core.set_utc_offset(NIGHT_NS, sure=sure)
    close(core, NS)
    assert on(core) is sounds


def test_what_was_cancelled_stays_so_when_the_core_starts_again() -> None:
    core = Core(station())
    alert = those(close(core, NS), Alert)[0]
    core.cancel(alert.id, 2 * NS, "by hand")
    after = Core(station())
    after.restore(json.loads(json.dumps(core.state())), 3 * NS, same_boot=True)
    assert those(close(after, 4 * NS), Alert) == []
    close(after, 5 * NS, 0.0)
    after.tick(40 * NS)
    assert those(close(after, 50 * NS), Alert)[0].phase is Phase.alert


# --- what is measured ---------------------------------------------------------------------------


def measuring() -> Compiled:
    """The plan looks at the contact itself, whatever the scale makes of it."""
    clause = Clause((Condition("contact", ">=", 0.3),))
    rules = (LevelRule(Level.yellow, (clause,), "long", (), "x", "x"),)
    config = with_fire(Plan(Hazard.fire, "1", rules, hold_s=10, rearm_s=0))
    return replace(config, sensors=(gauge(silent_after_s=60.0),))


def test_a_plan_may_judge_what_is_measured() -> None:
    core = Core(measuring())
    assert those(close(core, NS, 0.2), Alert) == []
    (alert,) = those(close(core, 2 * NS, 0.4), Alert)
    assert (alert.level, alert.inputs["contact"]) == (Level.yellow, 0.4)
    assert those(close(core, 3 * NS, 0.1), Alert) == []
    core.tick(13 * NS)
    assert those(events(core), Alert)[0].phase is Phase.cancel


def test_a_sensor_that_falls_silent_holds_no_measured_level_for_ever() -> None:
    core = Core(measuring())
    close(core, NS, 0.4)
    core.tick(61 * NS)
    core.tick(71 * NS)
    assert those(events(core), Alert)[-1].phase is Phase.cancel


# --- the date of the next revision ----------------------------------------------------------------


def overdue(core: Core) -> list[tuple[str, str]]:
    found = [h for h in those(events(core), Health) if h.kind == "revision"]
    return [(h.component, h.state) for h in found]


def test_a_plan_past_its_revision_is_stated_only_by_a_clock_that_is_sure() -> None:
    plan = replace(fire_plan(), next_revision="2026-06-30")
    core = Core(with_fire(plan))
    core.set_utc_offset(NIGHT_NS, sure=False)
    assert overdue(core) == []
    core.set_utc_offset(NIGHT_NS, sure=True)
    assert overdue(core) == [("fire plan", "degraded")]
    core.tick(OVERDUE_EVERY_NS)
    core.set_utc_offset(NIGHT_NS, sure=True)
    assert overdue(core) == [], "it is said once"


def test_the_day_of_the_revision_itself_is_not_past_it() -> None:
    plan = replace(fire_plan(), next_revision="2026-07-02")
    assert not plan.overdue(NIGHT_NS - NS)
    assert not plan.overdue(NIGHT_NS + 24 * 3600 * NS - 1), "2 July in China ends at 16:00 UTC"
    assert plan.overdue(NIGHT_NS + 24 * 3600 * NS)
