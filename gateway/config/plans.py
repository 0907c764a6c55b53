"""Plans, patterns and scales that hold at a station: the shipped ones and its own."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from gateway.config.faults import ConfigError, Fault, nearest, parse_key
from gateway.config.source import Source, read
from gateway.detect import scale_files as scales
from gateway.detect.scale import Scale
from gateway.detect.scale_files import ScaleError, read_scale
from gateway.events import Hazard, Level
from gateway.plan import files
from gateway.plan.files import Limits, PlanError, check_plan, read_patterns, read_plan
from gateway.plan.rules import Pattern, Plan

SHIPPED = Path(files.__file__).parent
"""Folder of ``patterns.toml`` and of the folder ``plans`` that come with the gateway."""

PATTERNS = "patterns.toml"


@dataclass(slots=True)
class Found:
    """What was read, and everything that is wrong with it."""

    plans: dict[Hazard, Plan] = field(default_factory=dict)
    patterns: dict[str, Pattern] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    sources: dict[Hazard, Source] = field(default_factory=dict)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.toml") if path.name != PATTERNS)


def _made(path: Path, make: Callable[[Mapping[str, Any], str], Any], faults: list[Fault]) -> Any:
    """What ``make`` makes of a file, and its source.

    Of a wrong one what could be read nonetheless, good only to find further faults; else None.
    """
    try:
        source = read(path)
    except ConfigError as error:
        faults += error.faults
        return None, None
    try:
        return make(source.data, str(path)), source
    except (PlanError, ScaleError) as error:
        faults += [faulty(source, key, text) for key, text in error.faults]
        return getattr(error, "rest", None), source


def faulty(source: Source, key: str, text: str, *, warning: bool = False) -> Fault:
    """A fault at a key of a file."""
    line = source.line(parse_key(key))
    return Fault(str(source.path), line, key, text, "warning" if warning else "error")


def read_plans(own: Path | None = None) -> Found:
    """The plan of each hazard and the patterns: the shipped ones, those of a folder over them."""
    found = Found()
    for folder in (SHIPPED, own):
        path = folder / PATTERNS if folder is not None else None
        if path is not None and path.is_file():
            patterns, _ = _made(path, read_patterns, found.faults)
            found.patterns |= {pattern.name: pattern for pattern in patterns or ()}
    for folder in (SHIPPED / "plans", own):
        here: dict[Hazard, Path] = {}
        for path in _files(folder) if folder is not None else ():
            plan, source = _made(path, read_plan, found.faults)
            if plan is None:
                continue
            if (first := here.setdefault(plan.hazard, path)) != path:
                text = f"{plan.hazard}; expected one plan a hazard, {first} is another"
                found.faults.append(faulty(source, "plan.hazard", text))
            found.plans[plan.hazard] = plan
            found.sources[plan.hazard] = source
    return found


def check_plans(found: Found, sirens: Mapping[str, Limits], today: date) -> Iterator[Fault]:
    """Faults of plans against patterns, the sirens and the date."""
    patterns = tuple(found.patterns.values())
    for hazard, plan in found.plans.items():
        source = found.sources[hazard]
        for key, text in check_plan(plan, patterns, sirens):
            yield faulty(source, key, text)
        if plan.next_revision and date.fromisoformat(plan.next_revision) < today:
            text = f"{plan.next_revision} is past; expected a revised plan with a later date"
            yield faulty(source, "plan.next_revision", text, warning=True)


def check_reach(found: Found, scales: Iterable[Scale]) -> Iterator[Fault]:
    """Levels that a plan awaits of its hazard's scales and that none of those in force reaches."""
    highest: dict[Hazard, Level] = {}
    for scale in scales:
        top = max((step.level for step in scale.steps), default=Level.none)
        highest[scale.hazard] = max(highest.get(scale.hazard, Level.none), top)
    for hazard, plan in found.plans.items():
        for rule in plan.levels:
            for index, clause in enumerate(rule.when):
                wanted = [c.value for c in clause.conditions if c.quantity == "scale"]
                top = highest.get(hazard, Level.none)
                if wanted and max(wanted) > top:
                    text = f"'{clause}' never holds: the scales in force for {hazard} reach "
                    text += f"{top.name}; expected a scale that goes further, or another condition"
                    key = f"level.{rule.level.name}.when[{index}]"
                    yield faulty(found.sources[hazard], key, text, warning=True)


def read_scales(
    wanted: Mapping[Hazard, list[str]], own: Path | None, where: Callable[[str, str], Fault]
) -> tuple[list[Scale], list[Fault]]:
    """The scales in force by their names, a file of the own folder before a shipped one.

    ``where(key, text)`` makes a fault at a key of the file that names the scales.
    """
    folders = [folder for folder in (own, scales.SHIPPED) if folder is not None]
    there = {path.stem: path for folder in reversed(folders) for path in folder.glob("*.toml")}
    made: list[Scale] = []
    faults: list[Fault] = []
    for hazard, names in wanted.items():
        for index, name in enumerate(names):
            key = f"scales.{hazard}[{index}]"
            if name not in there:
                faults.append(where(key, f"no scale {name!r}; {nearest(name, sorted(there))}"))
                continue
            scale, source = _made(there[name], read_scale, faults)
            if scale is None:
                continue
            if scale.hazard is not hazard:
                faults.append(where(key, f"scale {name!r} is for {scale.hazard}, not {hazard}"))
            if scale.name != name:
                text = f"{scale.name!r}; expected {name!r}, the name of the file"
                faults.append(faulty(source, "scale.name", text))
            made.append(scale)
    return made, faults
