"""The life of an alert: at most one for a hazard, from first decision to its end.

::

    none ──match──► alert ──higher/lower/renewed──► update … ──conditions ended──► cancel
                                                            ──hold time over────► expire

Shaking (:class:`~gateway.events.GroundMotion`) only raises a level, as its values only grow;
another shaking that reaches the same level again renews the alert, so that it sounds again; the
alert expires ``hold_s`` after the last confirmed shaking. Scales (:class:`LevelChange`) raise and
lower it; the alert is cancelled (解除) when every sensor's scale has ended. Times are those of the
deciding sample or reading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.events import (
    NS,
    Alert,
    GroundMotion,
    Hazard,
    Level,
    LevelChange,
    Phase,
    Status,
    iso,
)
from gateway.plan.rules import Clause, LevelRule, Plan

_LEVEL = {
    Level.none: {"zh": "无", "en": "none"},
    Level.blue: {"zh": "蓝色", "en": "blue"},
    Level.yellow: {"zh": "黄色", "en": "yellow"},
    Level.orange: {"zh": "橙色", "en": "orange"},
    Level.red: {"zh": "红色", "en": "red"},
}
_ENDED = {
    "zh": "{station}：本地实测已不再达到标准，解除。",
    "en": "{station}: the standard is no longer reached here; all clear.",
}
_MARK = {
    Status.actual: {"zh": "", "en": ""},
    Status.exercise: {"zh": "【演练】", "en": "[EXERCISE] "},
    Status.test: {"zh": "【测试】", "en": "[TEST] "},
}
SAID = 20
"""Steps of an alert of which the times are kept, for messages that refer to them."""
_BASIS = {
    "observed": {"zh": "实测", "en": "observed"},
    "predicted": {"zh": "预测", "en": "predicted"},
}


@dataclass(slots=True)
class Active:
    """An alert that has begun and not ended.

    ``sensors`` holds the level of each sensor's scale; ``shaking_since`` which shaking raised it.
    ``interrupted`` marks one that was restored after a reboot: it is known, and nothing sounds
    for it until fresh data come. ``said`` are the UTC times of its steps so far, as text.
    """

    id: str
    hazard: Hazard
    level: Level
    status: Status
    began_ns: int
    held_ns: int
    sensors: dict[str, int] = field(default_factory=dict)
    shaking_since: int | None = None
    interrupted: bool = False
    said: tuple[str, ...] = ()


def shaking_inputs(motion: GroundMotion, votes: int) -> dict[str, float | None]:
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
        "votes": float(votes),
    }


class Lifecycle:
    """All alerts of one station."""

    def __init__(self, station: str, name: str, plans: tuple[Plan, ...]) -> None:
        self._station = station
        self._name = name or station
        self._plans = {plan.hazard: plan for plan in plans}
        self.active: dict[Hazard, Active] = {}
        self._ended: dict[Hazard, int] = {}
        self._cancelled_shaking: int | None = None

    def plan(self, hazard: Hazard) -> Plan | None:
        return self._plans.get(hazard)

    def sounding_rule(self, alert: Alert, utc_offset_ns: int) -> LevelRule | None:
        """The rule whose siren is to sound for this step; None where none is."""
        plan = self._plans.get(alert.hazard)
        if plan is None or alert.phase in (Phase.cancel, Phase.expire):
            return None
        rule = plan.rule(alert.level)
        if (
            rule is None
            or not rule.pattern
            or plan.quiet(alert.level, alert.time_ns + utc_offset_ns)
        ):
            return None
        return rule

    def worded(self, alert: Alert) -> Alert:
        """The alert with its texts, for people; made after the sirens have been told."""
        rule = self._plans[alert.hazard].rule(alert.level)
        zh, en = (rule.text_zh, rule.text_en) if rule else (_ENDED["zh"], _ENDED["en"])
        return replace(
            alert,
            text_zh=self._text("zh", zh, alert),
            text_en=self._text("en", en, alert),
            inputs={k: round(v, 4) if isinstance(v, float) else v for k, v in alert.inputs.items()},
        )

    # -- inputs ----------------------------------------------------------------------------------

    def shaking(
        self, motion: GroundMotion, votes: int, status: Status, utc_offset_ns: int
    ) -> list[Alert]:
        """Confirmed shaking of this site. One that an order has cancelled stays cancelled."""
        plan = self._plans.get(Hazard.earthquake)
        if plan is None or motion.since_ns == self._cancelled_shaking:
            return []
        inputs = shaking_inputs(motion, votes)
        found = plan.match(inputs)
        if found is None:
            return []
        rule, clause = found
        current = self.active.get(Hazard.earthquake)
        phase = Phase.alert if current is None else Phase.update
        if current is not None:
            current.held_ns = motion.time_ns
            renewed = current.interrupted or motion.since_ns != current.shaking_since
            if rule.level < current.level or (rule.level is current.level and not renewed):
                return []
            current.shaking_since = motion.since_ns
            current.interrupted = False
            current.level = rule.level
        else:
            if not self._may_begin(plan, motion.time_ns):
                return []
            current = self._begin(plan, rule.level, status, motion.time_ns, utc_offset_ns)
            current.shaking_since = motion.since_ns
        grade = inputs["predicted_intensity" if clause.predicted else "intensity"]
        words: dict[str, float | str | None] = {**inputs, "grade": grade}
        return [self._alert(current, phase, rule, clause, motion.time_ns, utc_offset_ns, words)]

    def level(self, change: LevelChange, status: Status, utc_offset_ns: int) -> list[Alert]:
        """A scale of this station reached another level."""
        plan = self._plans.get(change.hazard)
        if plan is None:
            return []
        current = self.active.get(change.hazard)
        levels = dict(current.sensors) if current else {}
        levels[change.sensor] = int(change.level)
        scale = max(levels.values())
        inputs: dict[str, float | None] = {"scale": float(scale), "value": change.value}
        found = plan.match(inputs) if scale else None
        if found is None:
            if current is not None:
                current.sensors = levels
                current.held_ns = change.time_ns
            return self.tick(change.time_ns)
        rule, clause = found
        phase = Phase.alert if current is None else Phase.update
        if current is None:
            if not self._may_begin(plan, change.time_ns):
                return []
            current = self._begin(plan, rule.level, status, change.time_ns, utc_offset_ns)
        elif rule.level == current.level and not current.interrupted:
            current.sensors, current.held_ns = levels, change.time_ns
            return []
        current.sensors, current.held_ns = levels, change.time_ns
        current.level, current.interrupted = rule.level, False
        words: dict[str, float | str | None] = {
            **inputs,
            "unit": change.unit,
            "window_h": change.window_h,
            "grade": change.value,
            "sensor": change.sensor,
        }
        return [self._alert(current, phase, rule, clause, change.time_ns, utc_offset_ns, words)]

    def cancel(self, alert_id: str, t: int, reason: str) -> list[Alert]:
        """End an alert on command."""
        for current in list(self.active.values()):
            if current.id == alert_id:
                if current.shaking_since is not None:
                    self._cancelled_shaking = current.shaking_since
                return [self._end(current, t, Phase.cancel, reason)]
        return []

    # -- time ------------------------------------------------------------------------------------

    def _end_time(self, current: Active) -> int | None:
        if any(current.sensors.values()):
            return None
        return current.held_ns + round(self._plans[current.hazard].hold_s * NS)

    def next_deadline(self) -> int | None:
        """When the next alert ends by itself."""
        return min(
            (end for a in self.active.values() if (end := self._end_time(a)) is not None),
            default=None,
        )

    def tick(self, t: int) -> list[Alert]:
        """End the alerts whose time has come, at their own time."""
        ended = []
        for current in list(self.active.values()):
            end = self._end_time(current)
            if end is not None and end <= t:
                by_scale = bool(current.sensors)
                phase = Phase.cancel if by_scale else Phase.expire
                reason = "every scale has ended" if by_scale else "no more confirmed shaking"
                ended.append(self._end(current, end, phase, reason))
        return sorted(ended, key=lambda alert: alert.time_ns)

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
                "held_ns": a.held_ns,
                "sensors": a.sensors,
                "shaking_since": a.shaking_since,
                "interrupted": a.interrupted,
                "said": list(a.said),
            }
            for a in self.active.values()
        ]

    def restore(self, state: Sequence[Mapping[str, Any]], t: int, *, same_boot: bool) -> None:
        """Take up what :meth:`state` gave.

        Within the same boot the times go on. After a reboot they mean nothing: every alert is
        ``interrupted`` and its hold time begins anew.
        """
        for item in state:
            hazard = Hazard(item["hazard"])
            if hazard not in self._plans:
                continue
            self.active[hazard] = Active(
                id=item["id"],
                hazard=hazard,
                level=Level[item["level"]],
                status=Status(item["status"]),
                began_ns=item["began_ns"] if same_boot else t,
                held_ns=item["held_ns"] if same_boot else t,
                sensors=dict(item["sensors"]) if same_boot else {},
                shaking_since=item["shaking_since"] if same_boot else None,
                interrupted=bool(item["interrupted"]) or not same_boot,
                said=tuple(item["said"]),
            )

    # -- parts -----------------------------------------------------------------------------------

    def _may_begin(self, plan: Plan, t: int) -> bool:
        ended = self._ended.get(plan.hazard)
        return ended is None or t - ended >= plan.rearm_s * NS

    def _begin(
        self, plan: Plan, level: Level, status: Status, t: int, utc_offset_ns: int
    ) -> Active:
        stamp = iso(t + utc_offset_ns).replace("-", "").replace(":", "")
        current = Active(
            id=f"{self._station}-{plan.hazard}-{stamp}",
            hazard=plan.hazard,
            level=level,
            status=status,
            began_ns=t,
            held_ns=t,
        )
        self.active[plan.hazard] = current
        return current

    def _alert(
        self,
        current: Active,
        phase: Phase,
        rule: LevelRule,
        clause: Clause,
        t: int,
        utc_offset_ns: int,
        inputs: dict[str, float | str | None],
    ) -> Alert:
        inputs["basis"] = "predicted" if clause.predicted else "observed"
        earlier, current.said = current.said, (*current.said, iso(t + utc_offset_ns))[-SAID:]
        return Alert(
            id=current.id,
            station=self._station,
            hazard=current.hazard,
            level=rule.level,
            phase=phase,
            status=current.status,
            time_ns=t,
            reason=str(clause),
            plan=self._plan_name(current.hazard),
            inputs=inputs,
            earlier=earlier,
        )

    def _end(self, current: Active, t: int, phase: Phase, reason: str) -> Alert:
        del self.active[current.hazard]
        self._ended[current.hazard] = t
        return Alert(
            id=current.id,
            station=self._station,
            hazard=current.hazard,
            level=Level.none,
            phase=phase,
            status=current.status,
            time_ns=t,
            reason=reason,
            plan=self._plan_name(current.hazard),
            earlier=current.said,
        )

    def _plan_name(self, hazard: Hazard) -> str:
        return f"{hazard} {self._plans[hazard].version}"

    def _text(self, language: str, form: str, alert: Alert) -> str:
        words = _Dashes({k: _word(v) for k, v in alert.inputs.items() if v is not None})
        words["station"] = self._name
        words["level"] = _LEVEL[alert.level][language]
        if basis := _BASIS.get(words["basis"]):
            words["basis"] = basis[language]
        return _MARK[alert.status][language] + form.format_map(words)


class _Dashes(dict[str, str]):
    """Words for a text; what is not known reads as a dash."""

    def __missing__(self, key: str) -> str:
        return "—"


def _word(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
