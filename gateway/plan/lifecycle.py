"""The life of an alert: at most one for a hazard, from first decision to its end.

::

    none ──match──► alert ──higher, renewed──► update … ──lower, reminded, still valid──► update
                                                                                            │
                              cancel ◄── no condition holds, or by order                     │
                              expire ◄── no more shaking, or the longest time is over  ◄─────┘

What a level rests on are *grounds*: what one scale says of one sensor, or a shaking. The level
that the plan makes of the highest of them is the alert's. It goes up at once; it goes down, and the
alert ends, when the plan's hold time has passed since the level was last reached (scales have a
hysteresis of their own besides). Shaking (:class:`~gateway.events.GroundMotion`) only raises, as
its values only grow; another shaking that reaches the same level again renews the alert, so that
it sounds again; the alert expires ``hold_s`` after the last confirmed shaking.

A level that lasts is escalated as its plan says until somebody has switched the sirens off, and
said again before what was said has lost its validity. An alert that was ended by order, or has
lasted its longest time, does not begin anew on the same grounds: they must fall and rise first.

An alert keeps the status (Actual, Exercise, Test) with which it began. Where a decision of a
higher status meets one of a lower, that one is cancelled and a new one begins, so that an exercise
never hides what is real.

Times are those of the deciding sample or reading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.events import (
    NS,
    STATUS_RANK,
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
    parse_iso,
)
from gateway.plan.rules import LevelRule, Plan
from gateway.plan.texts import Ending, worded

_NONE, _ALERT, _EARTHQUAKE = Level.none, Phase.alert, Hazard.earthquake
"""Kept at hand: Python 3.11 takes as long to look up a member as to call a function or two."""

SAID = 20
"""Steps of an alert of which the times are kept, for messages that refer to them."""

Inputs = dict[str, float | str | None]


@dataclass(slots=True)
class _Ground:
    """What one scale says of one sensor, and what the plan makes of it.

    ``scale`` is the level that the scale reports, ``level`` that of the plan by ``rule``, and
    ``reason`` the clause that holds. ``inputs`` are the quantities and what else goes into texts.
    """

    scale: Level = Level.none
    level: Level = Level.none
    rule: LevelRule | None = None
    reason: str = ""
    inputs: Inputs = field(default_factory=dict)


@dataclass(slots=True)
class Active:
    """An alert that has begun and not ended.

    ``since_ns`` is when the level began, or was renewed; ``held_ns`` the last confirmed shaking,
    ``fallen`` since when a level is no longer reached. ``reminded`` counts escalations;
    ``acknowledged`` is the level at which the sirens were switched off. ``interrupted`` marks an
    alert that was restored after a reboot: it is known, and nothing sounds for it until fresh data
    come. ``reason`` and ``inputs`` are those of the last decision, ``said`` the UTC times of its
    steps so far, ns, ``said_ns`` the time of the last one on the core's clock.
    """

    id: str
    hazard: Hazard
    level: Level
    status: Status
    began_ns: int
    since_ns: int
    held_ns: int
    fallen: dict[Level, int] = field(default_factory=dict)
    shaking_since: int | None = None
    reminded: int = 0
    acknowledged: Level = Level.none
    interrupted: bool = False
    reason: str = ""
    inputs: Inputs = field(default_factory=dict)
    said: tuple[int, ...] = ()
    said_ns: int = 0


@dataclass(slots=True)
class AlertStep:
    """A step in the life of an alert, as the sirens need it.

    :meth:`Lifecycle.worded` makes of it what is published, after the sirens have been told.
    ``rule`` is that of the level; ``sounds`` says whether its pattern begins. ``earlier`` are the
    UTC times of the steps before, ns, ``escalated`` whether the alert has been escalated.
    """

    id: str
    plan: Plan
    level: Level
    phase: Phase
    status: Status
    time_ns: int
    reason: str
    inputs: Inputs
    sounds: bool
    rule: LevelRule | None
    earlier: tuple[int, ...]
    escalated: bool

    def sounding_rule(self, utc_offset_ns: int | None) -> LevelRule | None:
        """The rule whose siren is to sound now; None where none is.

        Without ``utc_offset_ns`` (a clock that nobody vouches for) no hour is a quiet one.
        """
        rule = self.rule
        if rule is None or not self.sounds or not rule.pattern:
            return None
        if utc_offset_ns is None or not self.plan.quiet(self.level, self.time_ns + utc_offset_ns):
            return rule
        return None

    @property
    def audiences(self) -> tuple[str, ...]:
        """Whom the plan wants to be told, those of an escalation included."""
        rule = self.rule
        found = (rule.audiences if rule else ()) or self.plan.audiences
        if rule is not None and rule.escalation is not None and self.escalated:
            found += tuple(a for a in rule.escalation.audiences if a not in found)
        return found


def shaking_inputs(motion: GroundMotion, votes: int) -> Inputs:
    """The quantities of the earthquake plan, in its units, rounded as they are published.

    The rounding makes the printed number and the decision agree: an intensity that prints as 7.0
    is red.
    """
    return {
        "intensity": round(motion.intensity, 1),
        "predicted_intensity": None if motion.predicted is None else round(motion.predicted, 1),
        "pd_cm": None if motion.pd is None else motion.pd * 100.0,
        "tau_c_s": motion.tau_c,
        "pga_mps2": motion.pga,
        "pgv_mps": motion.pgv,
        "cav_mps": motion.cav,
        "after_p_s": (motion.time_ns - motion.since_ns) / NS,
        "votes": float(votes),
    }


class Lifecycle:
    """All alerts of one station."""

    def __init__(self, station: str, name: str, plans: tuple[Plan, ...]) -> None:
        self._station = station
        self._name = name or station
        self._plans = {plan.hazard: plan for plan in plans}
        self._grounds: dict[Hazard, dict[str, _Ground]] = {plan.hazard: {} for plan in plans}
        self.active: dict[Hazard, Active] = {}
        self._ended: dict[Hazard, int] = {}
        self._spent: dict[Hazard, Level] = {}
        self._cancelled_shaking: int | None = None
        self._waiting: dict[Hazard, tuple[int, Status]] = {}
        self._utc_offset_ns = 0
        self._next: int | None = None
        self._scheduled = True
        """Whether ``_next`` is worked out: not before somebody asks, after the sirens are told."""
        for plan in plans:
            plan.prepare()

    def plan(self, hazard: Hazard) -> Plan | None:
        return self._plans.get(hazard)

    def worded(self, step: AlertStep) -> Alert:
        """The step as it is published, with its texts for people."""
        plan = step.plan
        over = step.phase in (Phase.cancel, Phase.expire)
        alert = Alert(
            id=step.id,
            station=self._station,
            hazard=plan.hazard,
            level=step.level,
            phase=step.phase,
            status=step.status,
            time_ns=step.time_ns,
            reason=step.reason,
            plan=f"{plan.hazard} {plan.version}",
            inputs=step.inputs,
            audiences=step.audiences,
            event_code=plan.cap_event,
            expires_ns=step.time_ns + (0 if over else round(plan.valid_s * NS)),
            earlier=tuple(map(iso, step.earlier)),
        )
        zh, en = worded(alert, plan, self._name)
        inputs = {k: round(v, 4) if isinstance(v, float) else v for k, v in step.inputs.items()}
        return replace(alert, text_zh=zh, text_en=en, inputs=inputs)

    # -- shaking ---------------------------------------------------------------------------------

    def shaking(
        self, motion: GroundMotion, votes: int, status: Status, utc_offset_ns: int
    ) -> list[AlertStep]:
        """Confirmed shaking of this site. One that an order has cancelled stays cancelled."""
        plan = self._plans.get(_EARTHQUAKE)
        if plan is None or motion.since_ns == self._cancelled_shaking:
            return []
        inputs = shaking_inputs(motion, votes)
        found = plan.match(inputs)
        if found is None:
            return []
        self._utc_offset_ns = utc_offset_ns
        rule, clause = found
        current = self.active.get(_EARTHQUAKE)
        if current is not None:
            current.held_ns = motion.time_ns
            lower = STATUS_RANK[status] > STATUS_RANK[current.status]
            renewed = current.interrupted or lower or motion.since_ns != current.shaking_since
            if rule.level < current.level or (rule.level is current.level and not renewed):
                self._scheduled = False
                return []
        elif _EARTHQUAKE in self._ended and motion.time_ns < self._rearmed_ns(plan):
            return []
        inputs["basis"] = "predicted" if clause.predicted else "observed"
        inputs["grade"] = inputs["predicted_intensity" if clause.predicted else "intensity"]
        ground = _Ground(_NONE, rule.level, rule, clause.text, inputs)
        steps = self._raise(plan, ground, motion.time_ns, status)
        self.active[_EARTHQUAKE].shaking_since = motion.since_ns
        return steps

    # -- scales ----------------------------------------------------------------------------------

    def level(self, change: LevelChange, status: Status, utc_offset_ns: int) -> list[AlertStep]:
        """A scale of this station reached another level."""
        ground = self._ground(change.hazard, change.sensor, change.scale)
        if ground is None:
            return []
        ground.scale = change.level
        ground.inputs = {
            "scale": float(change.level),
            "value": change.value,
            **change.values,
            "unit": change.unit,
            "window_h": change.window_h,
            "grade": change.value,
            "sensor": change.sensor,
            "basis": "observed",
        }
        return self._judge(change.hazard, ground, change.time_ns, status, utc_offset_ns)

    def observed(self, seen: Observed, status: Status, utc_offset_ns: int) -> list[AlertStep]:
        """What a scale knows has changed, and the plan looks at more than its level."""
        ground = self._ground(seen.hazard, seen.sensor, seen.scale)
        if ground is None:
            return []
        kept = ("value", "unit", "window_h", "grade")
        ground.inputs = {
            "scale": float(ground.scale),
            **{key: ground.inputs[key] for key in kept if key in ground.inputs},
            **seen.values,
            "sensor": seen.sensor,
            "basis": "observed",
        }
        return self._judge(seen.hazard, ground, seen.time_ns, status, utc_offset_ns)

    def _ground(self, hazard: Hazard, sensor: str, scale: str) -> _Ground | None:
        grounds = self._grounds.get(hazard)
        if grounds is None:
            return None
        key = f"{sensor} {scale}"
        ground = grounds.get(key)
        if ground is None:
            ground = grounds[key] = _Ground()
        return ground

    def _judge(
        self, hazard: Hazard, ground: _Ground, t: int, status: Status, utc_offset_ns: int
    ) -> list[AlertStep]:
        """What the plan makes of a ground, and what follows for the alert."""
        plan = self._plans[hazard]
        self._utc_offset_ns = utc_offset_ns
        self._scheduled = False
        found = plan.match(ground.inputs)
        if found is None:
            ground.level, ground.rule, ground.reason = _NONE, None, ""
        else:
            ground.rule, clause = found
            ground.level, ground.reason = ground.rule.level, clause.text
        best = ground
        for other in self._grounds[hazard].values():
            if other.level > best.level:
                best = other
        spent = self._spent.get(hazard, _NONE)
        if spent > best.level:
            spent = self._spent[hazard] = best.level
        current = self.active.get(hazard)
        if current is None:
            self._waiting.pop(hazard, None)
            if best.level > spent:
                if hazard not in self._ended or t >= self._rearmed_ns(plan):
                    return self._raise(plan, best, t, status)
                self._waiting[hazard] = (self._rearmed_ns(plan), status)
            return []
        return self._go_on(current, ground, best, t, status)

    def _go_on(
        self, current: Active, ground: _Ground, best: _Ground, t: int, status: Status
    ) -> list[AlertStep]:
        """What follows for an alert that has begun."""
        for level in Level:
            if level <= best.level:
                current.fallen.pop(level, None)
            elif level <= current.level:
                current.fallen.setdefault(level, t)
        again = current.interrupted or STATUS_RANK[status] > STATUS_RANK[current.status]
        if best.level > current.level or (again and best.level and ground.level is best.level):
            return self._raise(self._plans[current.hazard], best, t, status)
        if current.interrupted and not best.level:
            current.interrupted = False  # a scale has spoken: it is not reached any more
        return self.tick(t)

    def _best(self, hazard: Hazard) -> _Ground:
        """The ground with the highest level; of several the first."""
        grounds = self._grounds[hazard].values()
        return max(grounds, key=lambda ground: ground.level, default=_Ground())

    # -- steps -----------------------------------------------------------------------------------

    def _raise(self, plan: Plan, ground: _Ground, t: int, status: Status) -> list[AlertStep]:
        """An alert begins, rises or is renewed."""
        steps = []
        level = ground.level
        self._scheduled = False
        current = self.active.get(plan.hazard)
        if current is not None and STATUS_RANK[status] > STATUS_RANK[current.status]:
            why = f"what follows is {status}"
            steps.append(self._end(current, t, Phase.cancel, why, Ending.real))
            current = None
        if current is None:
            phase = _ALERT
            current = self._begin(plan, level, status, t)
        else:
            phase = Phase.update
            if level > current.acknowledged:
                current.acknowledged = Level.none
            current.fallen = {x: at for x, at in current.fallen.items() if x <= level}
            current.level, current.since_ns, current.held_ns = level, t, t
            current.reminded, current.interrupted = 0, False
        current.reason, current.inputs = ground.reason, ground.inputs
        steps.append(self._say(current, ground.rule, phase, t))
        return steps

    def _lower(self, current: Active, t: int) -> list[AlertStep]:
        """The hold time of the level is over: the next one below that still counts, or the end."""
        plan = self._plans[current.hazard]
        best = self._best(current.hazard)
        held = [
            level
            for level, since in current.fallen.items()
            if level < current.level and t < since + round(plan.hold_s * NS)
        ]
        there = {rule.level for rule in plan.levels}
        level = max([best.level, *(x for x in held if x in there)])
        if level is Level.none:
            reason = "no condition of the plan is met any more"
            return [self._end(current, t, Phase.cancel, reason, Ending.over)]
        was = current.level
        for higher in [x for x in current.fallen if x > level]:
            del current.fallen[higher]
        current.level, current.since_ns, current.reminded = level, t, 0
        reason = best.reason or current.reason
        current.reason, current.inputs = reason, {**best.inputs, "basis": "observed"}
        inputs = {**current.inputs, "from": was.name}
        rule = plan.rule(level)
        return [self._say(current, rule, Phase.update, t, inputs=inputs, sounds=False)]

    def _remind(self, current: Active, t: int) -> list[AlertStep]:
        """The level lasts and nobody has switched the sirens off."""
        rule = self._plans[current.hazard].rule(current.level)
        if rule is None or rule.escalation is None:
            return []
        current.reminded += 1
        lasted = f"{current.level.name} for {(t - current.since_ns) / NS:g} s"
        reason = f"{lasted}, not switched off: {current.reminded} of {rule.escalation.times}"
        inputs = {**current.inputs, "reminder": float(current.reminded)}
        return [self._say(current, rule, Phase.update, t, reason=reason, inputs=inputs)]

    def _renew(self, current: Active, t: int) -> list[AlertStep]:
        """What was said would soon lose its validity, and is still so."""
        inputs = {**current.inputs, "lasting": 1.0}
        reason = f"still {current.level.name}: {current.reason}"
        rule = self._plans[current.hazard].rule(current.level)
        step = self._say(current, rule, Phase.update, t, reason=reason, inputs=inputs, sounds=False)
        return [step]

    def acknowledge(self) -> None:
        """Somebody switched the sirens off: levels that stand are not escalated any more."""
        for current in self.active.values():
            current.acknowledged = max(current.acknowledged, current.level)
        self._scheduled = False

    def cancel(self, alert_id: str, t: int, reason: str) -> list[AlertStep]:
        """End an alert on command."""
        for current in list(self.active.values()):
            if current.id == alert_id:
                if current.shaking_since is not None:
                    self._cancelled_shaking = current.shaking_since
                self._spent[current.hazard] = self._best(current.hazard).level
                return [self._end(current, t, Phase.cancel, reason, Ending.ordered)]
        return []

    # -- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """When :meth:`tick` is next wanted."""
        if not self._scheduled:
            times = [self._due(current)[0] for current in self.active.values()]
            times += [at for at, _ in self._waiting.values()]
            self._next = min(times, default=None)
            self._scheduled = True
        return self._next

    def _due(self, current: Active) -> tuple[int, str]:
        """When an alert's next step by itself is due, and which; the earliest, ends first."""
        plan = self._plans[current.hazard]
        hold_ns = round(plan.hold_s * NS)
        times = [(current.began_ns + round(plan.longest_s * NS), "longest")]
        if current.interrupted:
            scaled = current.hazard is not Hazard.earthquake
            known_ns = max(hold_ns, round(plan.valid_s * NS) // 2) if scaled else hold_ns
            times.append((current.held_ns + known_ns, "forgotten"))
            return min(times)
        if current.shaking_since is not None:
            times.append((current.held_ns + hold_ns, "still"))
        elif current.level in current.fallen:
            times.append((current.fallen[current.level] + hold_ns, "lower"))
        rule = plan.rule(current.level)
        escalation = rule.escalation if rule else None
        if (
            escalation is not None
            and current.reminded < escalation.times
            and current.level > current.acknowledged
        ):
            after_s = escalation.after_s + current.reminded * escalation.every_s
            times.append((current.since_ns + round(after_s * NS), "remind"))
        times.append((current.said_ns + round(plan.valid_s * NS) // 2, "renew"))
        return min(times, key=lambda item: (item[0], _ORDER.index(item[1])))

    def tick(self, t: int) -> list[AlertStep]:
        """Everything that is due by ``t``, each at its own time."""
        steps: list[AlertStep] = []
        while (due := self.next_deadline()) is not None and due <= t:
            for current in list(self.active.values()):
                at, what = self._due(current)
                if at <= due:
                    steps += self._step(current, at, what)
            for hazard, (at, status) in list(self._waiting.items()):
                if at <= due:
                    del self._waiting[hazard]
                    steps += self._raise(self._plans[hazard], self._best(hazard), at, status)
            self._scheduled = False
        return steps

    def _step(self, current: Active, t: int, what: str) -> list[AlertStep]:
        ending = Ending.run_out
        match what:
            case "lower":
                return self._lower(current, t)
            case "remind":
                return self._remind(current, t)
            case "renew":
                return self._renew(current, t)
            case "still":
                reason, ending = "no more confirmed shaking", Ending.over
            case "longest":
                self._spent[current.hazard] = self._best(current.hazard).level
                self._cancelled_shaking = current.shaking_since
                reason = f"longest time of {self._plans[current.hazard].longest_s:g} s is over"
            case _:
                reason = "interrupted, and not reached again since"
        return [self._end(current, t, Phase.expire, reason, ending)]

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> list[dict[str, Any]]:
        """What must survive a restart, as plain JSON types."""
        return [
            {
                "id": a.id,
                "hazard": a.hazard.value,
                "level": a.level.name,
                "status": a.status.value,
                "began_ns": a.began_ns,
                "since_ns": a.since_ns,
                "held_ns": a.held_ns,
                "fallen": {level.name: at for level, at in a.fallen.items()},
                "shaking_since": a.shaking_since,
                "reminded": a.reminded,
                "acknowledged": a.acknowledged.name,
                "interrupted": a.interrupted,
                "reason": a.reason,
                "inputs": a.inputs,
                "said": [iso(at) for at in a.said],
                "said_ns": a.said_ns,
                "grounds": {
                    key: {
                        "scale": g.scale.name,
                        "level": g.level.name,
                        "reason": g.reason,
                        "inputs": g.inputs,
                    }
                    for key, g in self._grounds.get(a.hazard, {}).items()
                },
            }
            for a in self.active.values()
        ]

    def restore(self, state: Sequence[Mapping[str, Any]], t: int, *, same_boot: bool) -> None:
        """Take up what :meth:`state` gave.

        Within the same boot the times go on. After a reboot they mean nothing: every alert is
        ``interrupted`` and its times begin anew.
        """
        for item in state:
            hazard = Hazard(item["hazard"])
            if hazard not in self._plans:
                continue
            current = Active(
                id=item["id"],
                hazard=hazard,
                level=Level[item["level"]],
                status=Status(item["status"]),
                began_ns=t,
                since_ns=t,
                held_ns=t,
                reminded=item["reminded"],
                acknowledged=Level[item["acknowledged"]],
                interrupted=bool(item["interrupted"]) or not same_boot,
                reason=item["reason"],
                inputs=dict(item["inputs"]),
                said=tuple(map(parse_iso, item["said"])),
                said_ns=t,
            )
            if same_boot:
                current.began_ns, current.since_ns = item["began_ns"], item["since_ns"]
                current.held_ns, current.said_ns = item["held_ns"], item["said_ns"]
                current.fallen = {Level[name]: at for name, at in item["fallen"].items()}
                current.shaking_since = item["shaking_since"]
                self._grounds[hazard] = {
                    key: _Ground(
                        Level[g["scale"]],
                        Level[g["level"]],
                        self._plans[hazard].rule(Level[g["level"]]),
                        g["reason"],
                        g["inputs"],
                    )
                    for key, g in item["grounds"].items()
                }
            self.active[hazard] = current
        self._scheduled = False

    def past(self) -> dict[str, dict[str, Any]]:
        """What is to be remembered of alerts that have ended, as plain JSON types."""
        return {
            hazard.value: {"ended_ns": at, "spent": self._spent.get(hazard, Level.none).name}
            for hazard, at in self._ended.items()
        }

    def restore_past(self, past: Mapping[str, Mapping[str, Any]]) -> None:
        """Take up what :meth:`past` gave earlier in the same boot."""
        for name, item in past.items():
            self._ended[Hazard(name)] = item["ended_ns"]
            self._spent[Hazard(name)] = Level[item["spent"]]

    # -- parts -----------------------------------------------------------------------------------

    def _rearmed_ns(self, plan: Plan) -> int:
        """From when on another alert may begin."""
        return self._ended[plan.hazard] + round(plan.rearm_s * NS)

    def _begin(self, plan: Plan, level: Level, status: Status, t: int) -> Active:
        current = Active(
            id=f"{self._station}-{plan.hazard}-{compact(t + self._utc_offset_ns)}",
            hazard=plan.hazard,
            level=level,
            status=status,
            began_ns=t,
            since_ns=t,
            held_ns=t,
        )
        self.active[plan.hazard] = current
        return current

    def _say(
        self,
        current: Active,
        rule: LevelRule | None,
        phase: Phase,
        t: int,
        *,
        reason: str = "",
        inputs: Inputs | None = None,
        sounds: bool = True,
    ) -> AlertStep:
        """The next step of an alert, whose level is that of the rule."""
        earlier = current.said
        current.said = (*earlier, t + self._utc_offset_ns)[-SAID:]
        current.said_ns = t
        return AlertStep(
            current.id,
            self._plans[current.hazard],
            current.level,
            phase,
            current.status,
            t,
            reason or current.reason,
            current.inputs if inputs is None else inputs,
            sounds,
            rule,
            earlier,
            current.reminded > 0,
        )

    def _end(self, current: Active, t: int, phase: Phase, reason: str, ending: Ending) -> AlertStep:
        """The last step of an alert, told to those who were told of its level."""
        self._scheduled = False
        del self.active[current.hazard]
        self._ended[current.hazard] = t
        inputs: Inputs = {"from": current.level.name, "ended": ending.value}
        rule = self._plans[current.hazard].rule(current.level)
        step = self._say(current, rule, phase, t, reason=reason, inputs=inputs, sounds=False)
        step.level = Level.none
        return step


_ORDER = ["longest", "forgotten", "still", "lower", "remind", "renew"]
"""What comes first of several steps that are due at the same time."""
