"""Made-up decisions, led from scale to siren driver at the start, and thrown away.

What Python runs for the first time it runs slowly: bytecode has not been adapted to what it meets,
and since the journal child was forked, each page is copied at its first change. The first alert may
come after months of quiet and must not be the slow one. So alerts of both sorts, one that a scale
makes and one that shaking makes, are raised on a core of its own: the station's siren drivers, made
anew, with a plan for the purpose. Its bytes go nowhere; sirens without a port, which a driver might
reach by itself, have no part in it.
"""

from dataclasses import replace

from gateway.core.compiled import Compiled, Port, Sensor, Station
from gateway.core.engine import Core
from gateway.detect.scale import Condition, Measure, Scale, Step
from gateway.events import MICRO, NS, GroundMotion, Hazard, Level, Reading, SirenAction
from gateway.plan.rules import Clause, LevelRule, Pattern, Plan
from gateway.plan.rules import Condition as PlanCondition
from gateway.plan.rules import Step as Sound

ROUNDS = 10
"""Python 3.11 adapts a function's bytecode after eight calls."""

_NAME = "rehearsal"
_ROUND_NS = 60 * NS
_CLOSED = Scale(
    _NAME,
    Hazard.fire,
    "closed",
    (Step(Level.red, (Condition(Measure.value, "contact", 0, MICRO, MICRO),)),),
    hold_s=0,
    reach_s=0,
)


def rehearse(config: Compiled) -> bool:
    """Whether every made-up alert has told every siren that takes part."""
    sirens = tuple(siren for siren in config.sirens if siren.port is not None)
    core = Core(
        Compiled(
            Station(_NAME, "", ""),
            (Sensor(_NAME, Port(""), "", "scalar"),),
            tuple(replace(siren, max_on_s=3600.0, max_hour_s=3600.0) for siren in sirens),
            scales=(_CLOSED,),
            plans=(
                _plan(Hazard.fire, PlanCondition("scale", ">=", float(Level.red))),
                _plan(Hazard.earthquake, PlanCondition("intensity", ">=", 7.0)),
            ),
            patterns=(Pattern(_NAME, (Sound(on=True, seconds=1.0),)),),
        )
    )
    told = 0
    for at in range(1, ROUNDS + 1):
        t = at * _ROUND_NS
        for path in {siren.port.path for siren in sirens if siren.port}:
            core.opened(path, t)
        core.readings(_NAME, [Reading(_NAME, t, "contact", MICRO)], t)
        core.readings(_NAME, [Reading(_NAME, t + NS, "contact", 0)], t + NS)
        core.shaken(_shaking(t + 2 * NS), t + 2 * NS)
        core.tick(t + 10 * NS)
        told += sum(
            isinstance(event, SirenAction) and event.action == "on" for event, _ in core.published()
        )
        core.data()
    return told == 2 * ROUNDS * len(sirens)


def _plan(hazard: Hazard, condition: PlanCondition) -> Plan:
    rule = LevelRule(Level.red, (Clause((condition,)),), _NAME)
    return Plan(hazard, _NAME, (rule,), hold_s=1.0, rearm_s=0.0)


def _shaking(t: int) -> GroundMotion:
    return GroundMotion(
        station=_NAME,
        time_ns=t,
        since_ns=t - NS,
        pga=3.0,
        pgv=0.3,
        pgd=0.1,
        pd=0.02,
        pd_max=0.02,
        tau_c=1.5,
        cav=1.0,
        intensity=8.0,
        predicted=8.0,
        components=3,
        standard=True,
        sustained=True,
    )
