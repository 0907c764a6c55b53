"""Threshold scales as the core knows them: frozen, checked, ready to evaluate.

``gateway.detect.scale_files`` makes them from what people write; nothing here parses a file.
"""

from dataclasses import dataclass
from enum import StrEnum

from gateway.events import Hazard, Level

RAIN = "rain_mm"


class Measure(StrEnum):
    """What is compared with a threshold."""

    sum = "sum"
    mean = "mean"
    max = "max"
    rise = "rise"
    value = "value"


@dataclass(frozen=True, slots=True)
class Condition:
    """One measure that reaches a threshold.

    ``at_least_micro`` and ``below_micro`` are millionths of the scale's unit: reached at the
    first, no longer held below the second. ``window_s`` is 0 for a plain value; ``valid_s`` is
    how much of the window must be covered for a mean to count.
    """

    measure: Measure
    quantity: str
    window_s: int
    at_least_micro: int
    below_micro: int
    valid_s: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A level and the conditions of which any one reaches it."""

    level: Level
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """A checked scale. ``steps`` run from the lowest level to the highest.

    A level ends when each of its conditions has been below its ``below_micro`` for ``hold_s``.
    ``index`` holds (concentration, index) breakpoints in whole units, lowest first.
    """

    name: str
    hazard: Hazard
    unit: str
    steps: tuple[Step, ...]
    source: str = ""
    published: str = ""
    title_zh: str = ""
    title_en: str = ""
    note: str = ""
    hold_s: int = 3600
    continuing_s: int = 0
    index: tuple[tuple[int, int], ...] = ()
    despike: bool = False
    reach_s: int = 600
    stuck_s: int = 0
    lowest_micro: int | None = None
    highest_micro: int | None = None
    indicative: bool = False
    needs_warning: Hazard | None = None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Every condition of every step."""
        return tuple(condition for step in self.steps for condition in step.conditions)

    @property
    def quantities(self) -> tuple[str, ...]:
        """The quantities that the scale looks at, each once."""
        return tuple(dict.fromkeys(condition.quantity for condition in self.conditions))
