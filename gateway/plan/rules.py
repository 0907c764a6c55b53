"""Emergency plans and siren patterns as the core knows them: frozen, checked, ready to evaluate.

``gateway.plan.files`` makes them from what people write; nothing here parses a file.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.events import NS, Hazard, Level

Op = Literal[">=", ">", "<=", "<"]

OPERATORS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}

SHAKING = {
    "intensity": "instrumental intensity observed so far, GB/T 17742-2020",
    "predicted_intensity": "instrumental intensity that Pd foretells",
    "pd_cm": "peak displacement of the P wave, cm",
    "tau_c_s": "period parameter of the P wave, s",
    "pga_mps2": "peak ground acceleration, m/s²",
    "pgv_mps": "peak ground velocity, m/s",
    "cav_mps": "cumulative absolute velocity, m/s",
    "votes": "sensors of the site that triggered together",
}
"""Quantities of the earthquake plan. They count only while the shaking is confirmed."""

SCALE = {
    "scale": "level that the hazard's scale reports, blue to red",
    "value": "the value that decided it, in the scale's unit",
}
"""Quantities of every other plan."""

HAZARD_RANK = {Hazard.earthquake: 3, Hazard.fire: 2, Hazard.flood: 1}
"""Which hazard a siren serves first; the rest are 0."""


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of sound or silence."""

    on: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a siren does over time. The steps run ``repeat`` times, then it is over."""

    name: str
    steps: tuple[Step, ...]
    repeat: int = 1
    civil_defence: bool = False
    source: str = ""

    @property
    def length_s(self) -> float:
        return self.repeat * sum(step.seconds for step in self.steps)

    @property
    def sound_s(self) -> float:
        return self.repeat * sum(step.seconds for step in self.steps if step.on)


@dataclass(frozen=True, slots=True)
class Condition:
    """``quantity op value``; a missing quantity never holds."""

    quantity: str
    op: Op
    value: float

    def holds(self, inputs: Mapping[str, float | None]) -> bool:
        seen = inputs.get(self.quantity)
        return seen is not None and bool(OPERATORS[self.op](seen, self.value))

    def __str__(self) -> str:
        value = Level(int(self.value)).name if self.quantity == "scale" else f"{self.value:g}"
        return f"{self.quantity} {self.op} {value}"


@dataclass(frozen=True, slots=True)
class Clause:
    """Conditions that must hold together."""

    conditions: tuple[Condition, ...]

    def holds(self, inputs: Mapping[str, float | None]) -> bool:
        return all(condition.holds(inputs) for condition in self.conditions)

    @property
    def predicted(self) -> bool:
        return any(c.quantity == "predicted_intensity" for c in self.conditions)

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))


@dataclass(frozen=True, slots=True)
class LevelRule:
    """What makes a level and what it does. ``pattern`` is empty where no siren sounds."""

    level: Level
    when: tuple[Clause, ...]
    pattern: str = ""
    sirens: tuple[str, ...] = ()
    text_zh: str = ""
    text_en: str = ""

    def sounds(self, siren: str) -> bool:
        """Whether this siren is one of those that sound; all are if none is named."""
        return bool(self.pattern) and (not self.sirens or siren in self.sirens)

    def match(self, inputs: Mapping[str, float | None]) -> Clause | None:
        """The first clause that holds."""
        return next((clause for clause in self.when if clause.holds(inputs)), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """One emergency plan. ``levels`` run from the highest to the lowest.

    An alert of the plan ends ``hold_s`` after its conditions last held; the same hazard begins a
    new alert no sooner than ``rearm_s`` later. ``quiet_hours`` (local hour from, to) silence the
    sirens of the levels below ``quiet_below``.
    """

    hazard: Hazard
    version: str
    levels: tuple[LevelRule, ...]
    title_zh: str = ""
    title_en: str = ""
    author: str = ""
    next_revision: str = ""
    cap_event: str = ""
    audiences: tuple[str, ...] = ("site", "hub")
    hold_s: float = 60.0
    rearm_s: float = 30.0
    quiet_hours: tuple[float, float] | None = None
    quiet_below: Level = Level.none
    civil_defence_reference: str = ""
    file: str = field(default="", compare=False)

    def match(self, inputs: Mapping[str, float | None]) -> tuple[LevelRule, Clause] | None:
        """The highest level whose conditions hold, and the clause that does."""
        for rule in self.levels:
            if (clause := rule.match(inputs)) is not None:
                return rule, clause
        return None

    def rule(self, level: Level) -> LevelRule | None:
        return next((rule for rule in self.levels if rule.level is level), None)

    def quiet(self, level: Level, utc_ns: int) -> bool:
        """Whether quiet hours silence this level at this time (China Standard Time, UTC+08:00)."""
        if self.quiet_hours is None or level >= self.quiet_below:
            return False
        begin, end = self.quiet_hours
        hour = utc_ns / (3600 * NS) % 24 + 8
        hour -= 24 if hour >= 24 else 0
        return begin <= hour < end if begin <= end else hour >= begin or hour < end


def quantities(hazard: Hazard) -> Mapping[str, str]:
    """The quantities that a plan for this hazard may compare, with their meaning."""
    return SHAKING if hazard is Hazard.earthquake else SCALE
