"""What a benchmark reports: a ratio or a count against its goal, measured in one run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

INSTALLED = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
"""Environment of measured processes: modules are compiled once, as pip leaves them, and BLAS has no
threads, as in the units."""
INSTALLED["OPENBLAS_NUM_THREADS"] = "1"


@dataclass(frozen=True, slots=True)
class Result:
    """One measured figure. ``goal`` is the bound; ``at_least`` says on which side is good."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def reached(self) -> bool:
        if self.goal is None:
            return True
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def table(results: Sequence[Result]) -> str:
    """A Markdown table, one row a result."""
    rows = ["| what | measured | goal | reached | note |", "|---|---|---|---|---|"]
    for r in results:
        goal = "" if r.goal is None else f"{'≥' if r.at_least else '≤'} {r.goal:g}"
        rows.append(
            f"| {r.name} | {r.value:.3g} {r.unit} | {goal} | "
            f"{'yes' if r.reached else 'no'} | {r.note} |"
        )
    return "\n".join(rows)
