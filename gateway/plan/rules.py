"""Emergency plans and siren patterns as the core knows them: frozen, checked, ready to evaluate.

``gateway.plan.files`` makes them from what people write; nothing here parses a file.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from math import inf
from typing import Literal

from gateway.events import NS, Hazard, Level

Op = Literal[">=", ">", "<=", "<"]

OPERATORS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a plan may compare: its meaning with its unit, and the bounds that it can have."""

    meaning: str
    lowest: float = -inf
    highest: float = inf


SCALE = {
    "scale": Quantity("level that the hazard's scale reports, blue to red"),
    "value": Quantity("the value that decided it, in the scale's unit"),
}
"""Quantities of every plan but that for earthquakes."""

_WIND = (0.0, 120.0)
_RAIN = (0.0, 2000.0)
_PM25 = (0.0, 2000.0)
_IAQI = (0.0, 500.0)
_LEVEL = (-100.0, 9000.0)

_RAINFALL = {
    f"rain_{window}_mm": Quantity(f"rain of the last {text}, mm", *_RAIN)
    for window, text in (
        ("1h", "hour"),
        ("3h", "3 hours"),
        ("6h", "6 hours"),
        ("12h", "12 hours"),
        ("24h", "24 hours"),
    )
}

QUANTITIES: Mapping[Hazard, Mapping[str, Quantity]] = {
    Hazard.earthquake: {
        "intensity": Quantity("instrumental intensity observed so far, GB/T 17742-2020", 1, 12),
        "predicted_intensity": Quantity("instrumental intensity that Pd foretells", 1, 12),
        "pd_cm": Quantity("peak displacement of the P wave, cm", 0),
        "tau_c_s": Quantity("period parameter of the P wave, s", 0),
        "pga_mps2": Quantity("peak ground acceleration, m/s²", 0),
        "pgv_mps": Quantity("peak ground velocity, m/s", 0),
        "cav_mps": Quantity("cumulative absolute velocity, m/s", 0),
        "after_p_s": Quantity("time since the P onset, s", 0, 600),
        "votes": Quantity("sensors of the site that triggered together", 1, 16),
    },
    Hazard.rainstorm: SCALE | _RAINFALL,
    Hazard.typhoon: SCALE
    | {
        "wind_mps": Quantity("wind of the newest reading, m/s", *_WIND),
        "wind_mps_mean_2min": Quantity("mean wind of 2 min, m/s", *_WIND),
        "wind_mps_mean_10min": Quantity("mean wind of 10 min, m/s", *_WIND),
        "gust_mps": Quantity("gust (3-s mean) of the newest reading, m/s", *_WIND),
        "gust_mps_max_10min": Quantity("strongest gust of 10 min, m/s", *_WIND),
    },
    Hazard.flood: SCALE
    | _RAINFALL
    | {
        "water_level_m": Quantity("water level above the gauge's datum, m", *_LEVEL),
        "water_level_m_rise_1h": Quantity("rise of the water in an hour, m", 0, 100),
    },
    Hazard.air_pollution: SCALE
    | {
        "pm25_ugm3": Quantity("PM2.5 of the newest reading, µg/m³", *_PM25),
        "pm25_ugm3_mean_1h": Quantity("mean PM2.5 of an hour, µg/m³", *_PM25),
        "pm25_ugm3_mean_24h": Quantity("mean PM2.5 of 24 hours, µg/m³", *_PM25),
        "iaqi_24h": Quantity("air quality index of PM2.5 by the mean of 24 hours", *_IAQI),
    },
    Hazard.fire: SCALE | {"contact": Quantity("1 closed, 0 open", 0, 1)},
}
"""What the plan for a hazard may compare, by the names that status and telemetry give it too.

Those of the earthquake plan count only while the shaking is confirmed.
"""

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

    def __str__(self) -> str:
        value = Level(int(self.value)).name if self.quantity == "scale" else f"{self.value:g}"
        return f"{self.quantity} {self.op} {value}"


@dataclass(frozen=True)
class Clause:
    """Conditions that must hold together."""

    conditions: tuple[Condition, ...]

    def holds(self, inputs: Mapping[str, float | str | None]) -> bool:
        for condition in self.conditions:
            seen = inputs.get(condition.quantity)
            if seen is None or isinstance(seen, str):
                return False
            if not OPERATORS[condition.op](seen, condition.value):
                return False
        return True

    @cached_property
    def text(self) -> str:
        """It in words, which stand as the reason of what it decides."""
        return " and ".join(map(str, self.conditions))

    @cached_property
    def predicted(self) -> bool:
        return any(c.quantity == "predicted_intensity" for c in self.conditions)

    @property
    def measured(self) -> bool:
        """Whether it compares more than what the scale reports."""
        return any(c.quantity not in SCALE for c in self.conditions)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Escalation:
    """What happens while a level lasts and nobody has switched the sirens off.

    ``after_s`` from its beginning, and ``every_s`` from then on, ``times`` in all, the level's
    pattern sounds again and ``audiences`` are told besides.
    """

    after_s: float
    every_s: float
    times: int = 1
    audiences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LevelRule:
    """What makes a level and what it does.

    ``pattern`` is empty where no siren sounds, ``sirens`` where all of them do. ``text`` says what
    was observed, ``action`` what people should do; ``audiences`` are told of this level, those of
    the plan where there are none.
    """

    level: Level
    when: tuple[Clause, ...]
    pattern: str = ""
    sirens: tuple[str, ...] = ()
    text_zh: str = ""
    text_en: str = ""
    action_zh: str = ""
    action_en: str = ""
    audiences: tuple[str, ...] = ()
    escalation: Escalation | None = None


@dataclass(frozen=True)
class Plan:
    """One emergency plan. ``levels`` run from the highest to the lowest.

    A level ends ``hold_s`` after its conditions last held, the alert with the last of them; the
    same hazard begins a new alert no sooner than ``rearm_s`` later. What is said of an alert is
    valid for ``valid_s`` and said again before that is over; after ``longest_s`` the alert ends
    whatever is measured. ``quiet_hours`` (local hour from, to) silence the sirens of the levels
    below ``quiet_below``. ``cap_event`` is LIST=CODE.
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
    valid_s: float = 86_400.0
    longest_s: float = 604_800.0
    lowered_zh: str = ""
    lowered_en: str = ""
    ended_zh: str = ""
    ended_en: str = ""
    quiet_hours: tuple[float, float] | None = None
    quiet_below: Level = Level.none
    civil_defence_reference: str = ""
    file: str = field(default="", compare=False)

    def match(self, inputs: Mapping[str, float | str | None]) -> tuple[LevelRule, Clause] | None:
        """The highest level whose conditions hold, and the clause that does."""
        for rule in self.levels:
            for clause in rule.when:
                if clause.holds(inputs):
                    return rule, clause
        return None

    @property
    def measured(self) -> bool:
        """Whether it must be judged at every reading, not only when the scale reports a level."""
        return self.hazard is not Hazard.earthquake and any(
            clause.measured for rule in self.levels for clause in rule.when
        )

    def overdue(self, utc_ns: int) -> bool:
        """Whether the day of its next revision is over (China Standard Time, UTC+08:00)."""
        if not self.next_revision:
            return False
        today = date(1970, 1, 1) + timedelta(days=(utc_ns + 8 * 3600 * NS) // (86_400 * NS))
        return today > date.fromisoformat(self.next_revision)

    def rule(self, level: Level) -> LevelRule | None:
        return self._rules.get(level)

    @cached_property
    def _rules(self) -> dict[Level, LevelRule]:
        return {rule.level: rule for rule in self.levels}

    def prepare(self) -> None:
        """Work out what is kept of it, so that its first alert need not."""
        for rule in self._rules.values():
            for clause in rule.when:
                _ = clause.text, clause.predicted

    def quiet(self, level: Level, utc_ns: int) -> bool:
        """Whether quiet hours silence this level at this time (China Standard Time, UTC+08:00)."""
        if self.quiet_hours is None or level >= self.quiet_below:
            return False
        begin, end = self.quiet_hours
        hour = utc_ns / (3600 * NS) % 24 + 8
        hour -= 24 if hour >= 24 else 0
        return begin <= hour < end if begin <= end else hour >= begin or hour < end
