"""The form of an emergency plan: one TOML file a hazard, and the siren patterns that it may name.

A plan file reads::

    [plan]
    hazard = "earthquake"
    version = "1.0.0"
    author = "…"
    next_revision = 2027-11-01
    title = { zh = "…", en = "…" }

    [level.red]
    when = ["intensity >= 7", "predicted_intensity >= 7 and pd_cm >= 0.5 and tau_c_s >= 1.0"]
    siren = "disaster"
    text = { zh = "…", en = "…" }

    [end]
    hold_s = 60
    rearm_s = 30

The strings of ``when`` are alternatives; within one, conditions are joined by ``and``. A
condition compares one quantity of the hazard with a number (or, for ``scale``, with a level). The
quantities carry their units in their names, so that there is nothing to guess. :func:`read_plan`
checks everything and names every fault; the result is a tree of frozen dataclasses that the core
evaluates without parsing anything (``gateway.plan.rules``).
"""

import re
import string
from collections.abc import Mapping
from datetime import date
from typing import Any

from gateway.events import Hazard, Level
from gateway.plan.rules import (
    OPERATORS,
    Clause,
    Condition,
    LevelRule,
    Pattern,
    Plan,
    Step,
    quantities,
)

TEXT_KEYS = {"level", "basis", "grade", "station", "value", "unit", "window_h"}
"""Placeholders in texts besides the hazard's quantities."""


PREDICTED_RED = Clause((Condition("pd_cm", ">=", 0.5), Condition("tau_c_s", ">=", 1.0)))
"""What a prediction must show besides before it may go beyond yellow."""


class PlanError(ValueError):
    """A plan or pattern file is wrong. ``faults`` holds (key, what is wrong and what is right)."""

    def __init__(self, where: str, faults: list[tuple[str, str]]) -> None:
        self.where = where
        self.faults = faults
        super().__init__("; ".join(f"{where}: {key}: {text}" for key, text in faults))


_CONDITION = re.compile(r"^\s*(\w+)\s*(>=|<=|>|<|==)\s*(\S+)\s*$")


def _condition(text: str, known: Mapping[str, str]) -> Condition:
    found = _CONDITION.match(text)
    if not found:
        raise ValueError(f"{text.strip()!r} is no comparison; write for example 'intensity >= 5'")
    quantity, op, value = found.groups()
    if quantity not in known:
        raise ValueError(f"unknown quantity {quantity!r}; there are {', '.join(known)}")
    if quantity == "scale":
        if op != ">=" or value not in Level.__members__ or value == "none":
            raise ValueError(f"{text.strip()!r}: write 'scale >= ' blue, yellow, orange or red")
        return Condition(quantity, ">=", float(Level[value]))
    if op == "==":
        raise ValueError(f"{text.strip()!r}: measured values are compared with >=, >, <= or <")
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{value!r} in {text.strip()!r} is no number") from None
    if not abs(number) < float("inf"):
        raise ValueError(f"{value!r} in {text.strip()!r} is not finite")
    return Condition(quantity, op, number)  # type: ignore[arg-type]  # the pattern allows no other


def _clause(text: str, known: Mapping[str, str]) -> Clause:
    return Clause(tuple(_condition(part, known) for part in re.split(r"\s+and\s+", text)))


def _impossible(clause: Clause) -> str:
    """Why no input can satisfy the clause; empty if one can."""
    for a in clause.conditions:
        for b in clause.conditions:
            if a.quantity == b.quantity and a.op[0] == ">" and b.op[0] == "<":
                strict = a.op == ">" or b.op == "<"
                if a.value > b.value or (strict and a.value == b.value):
                    return f"{a} and {b} can't both hold"
        if a.quantity.endswith("intensity") and a.op[0] == ">" and a.value > 12:
            return f"{a}: intensity ends at 12"
    return ""


def _implies(strong: Clause, weak: Clause) -> bool:
    """Whether ``strong`` holding means that ``weak`` holds, by comparing bound with bound."""
    return all(
        any(
            s.quantity == w.quantity
            and s.op[0] == w.op[0]
            and (
                OPERATORS[">" if w.op[0] == ">" else "<"](s.value, w.value)
                or (s.value == w.value and (w.op.endswith("=") or not s.op.endswith("=")))
            )
            for s in strong.conditions
        )
        for w in weak.conditions
    )


class _Table:
    """A TOML table that is taken apart key by key; what stays over is unknown."""

    def __init__(self, data: Any, key: str, faults: list[tuple[str, str]]) -> None:
        self.key, self.faults = key, faults
        if not isinstance(data, Mapping):
            self.fault("", f"is {data!r}; expected a table")
            data = {}
        self.data = dict(data)

    def fault(self, key: str, text: str) -> None:
        self.faults.append((".".join(filter(None, (self.key, key))), text))

    def take(self, key: str, kind: type | tuple[type, ...], default: Any, what: str) -> Any:
        value = self.data.pop(key, None)
        if value is None:
            if default is ...:
                self.fault(key, f"missing; expected {what}")
                return None
            return default
        wrong_bool = isinstance(value, bool) and kind is not bool
        if not isinstance(value, kind) or wrong_bool:
            self.fault(key, f"is {value!r}; expected {what}")
            return None if default is ... else default
        return value

    def number(self, key: str, default: float, low: float, high: float, unit: str) -> float:
        value = self.take(key, (int, float), default, f"a number of {unit}")
        if not low <= value <= high:
            self.fault(key, f"is {value!r}; expected {low:g} to {high:g} {unit}")
            return default
        return float(value)

    def pair(self, key: str) -> tuple[str, str]:
        value = self.take(key, Mapping, {}, 'a table { zh = "…", en = "…" }')
        for language in value:
            if language not in ("zh", "en"):
                self.fault(f"{key}.{language}", "unknown language; expected zh and en")
        return str(value.get("zh", "")), str(value.get("en", ""))

    def done(self, known: str) -> None:
        for key in self.data:
            self.fault(key, f"unknown key; there are {known}")


def _text_fault(text: str, allowed: set[str]) -> str:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        return f"{error}"
    unknown = names - allowed
    if not unknown:
        return ""
    return f"unknown placeholder {{{min(unknown)}}}; there are {', '.join(sorted(allowed))}"


def _read_level(name: str, data: Any, known: Mapping[str, str], faults: list[Any]) -> LevelRule:
    table = _Table(data, f"level.{name}", faults)
    clauses = []
    when = table.take("when", list, ..., "a list of conditions")
    for i, text in enumerate(when or []):
        try:
            clause = _clause(str(text), known)
        except ValueError as error:
            table.fault(f"when[{i}]", str(error))
            continue
        if why := _impossible(clause):
            table.fault(f"when[{i}]", why)
        clauses.append(clause)
    if when is not None and not when:
        table.fault("when", "is empty; expected at least one condition")
    pattern = table.take("siren", str, "", "the name of a pattern")
    sirens = table.take("sirens", list, [], "a list of siren names")
    zh, en = table.pair("text")
    for language, text in (("zh", zh), ("en", en)):
        if not text:
            table.fault(f"text.{language}", "missing; people read both languages")
        elif why := _text_fault(text, TEXT_KEYS | set(known)):
            table.fault(f"text.{language}", why)
    table.done("when, siren, sirens, text")
    return LevelRule(Level[name], tuple(clauses), pattern, tuple(map(str, sirens)), zh, en)


def _order_faults(levels: list[LevelRule], faults: list[tuple[str, str]]) -> None:
    """Levels that hide each other, and predictions that reach further than they may."""
    for i, high in enumerate(levels):
        key = f"level.{high.level.name}"
        for clause in high.when:
            if (
                clause.predicted
                and high.level > Level.yellow
                and not _implies(clause, PREDICTED_RED)
            ):
                text = f"'{clause}': a prediction above yellow also needs '{PREDICTED_RED}'"
                faults.append((key, text))
            for low in levels[i + 1 :]:
                hidden = next((c for c in low.when if _implies(c, clause)), None)
                if hidden is not None:
                    text = f"'{clause}' holds whenever '{hidden}' of level {low.level.name} does"
                    faults.append((key, f"{text}, which is then never seen; raise its limit"))


def read_plan(data: Mapping[str, Any], where: str = "plan") -> Plan:
    """A plan from the tables of its TOML file.

    Raises:
        PlanError: with every fault: key, what is wrong, what would be right.
    """
    faults: list[tuple[str, str]] = []
    root = _Table(data, "", faults)
    head = _Table(root.take("plan", Mapping, {}, "a table [plan]"), "plan", faults)
    hazard_name = head.take("hazard", str, ..., f"one of {', '.join(Hazard)}")
    if hazard_name is not None and hazard_name not in list(Hazard):
        head.fault("hazard", f"is {hazard_name!r}; expected one of {', '.join(Hazard)}")
        hazard_name = None
    hazard = Hazard(hazard_name or "earthquake")
    version = head.take("version", str, ..., 'a version such as "1.0.0"')
    author = head.take("author", str, ..., "who answers for the plan")
    revision = head.take("next_revision", date, ..., "a date such as 2027-11-01")
    cap_event = head.take("cap_event", str, "", "an event code")
    audiences = head.take("audiences", list, ["site", "hub"], "a list of audiences")
    reference = head.take("civil_defence_reference", str, "", "the number of the authorisation")
    authorised = head.take("civil_defence_authorised", bool, False, "true or false")
    title = head.pair("title")
    head.done(
        "hazard, version, author, next_revision, title, cap_event, audiences, "
        "civil_defence_authorised, civil_defence_reference"
    )
    if authorised and not reference:
        head.fault("civil_defence_reference", "missing; air-raid signals need its number")

    levels = []
    level_tables = root.take("level", Mapping, ..., "tables [level.blue] … [level.red]")
    for name, table in (level_tables or {}).items():
        if name not in Level.__members__ or name == "none":
            faults.append((f"level.{name}", "unknown level; expected blue, yellow, orange or red"))
        else:
            levels.append(_read_level(name, table, quantities(hazard), faults))
    levels.sort(key=lambda rule: -rule.level)
    _order_faults(levels, faults)

    end = _Table(root.take("end", Mapping, {}, "a table [end]"), "end", faults)
    hold_s = end.number("hold_s", 60.0, 0.0, 86_400.0, "seconds")
    rearm_s = end.number("rearm_s", 30.0, 0.0, 86_400.0, "seconds")
    end.done("hold_s, rearm_s")

    quiet = _Table(root.take("quiet", Mapping, {}, "a table [quiet]"), "quiet", faults)
    hours = quiet.take("hours", list, [], "a list of two local hours, such as [22, 6]")
    below = quiet.take("below", str, "none", "a level")
    quiet.done("hours, below")
    if hours and (len(hours) != 2 or not all(0 <= float(h) <= 24 for h in hours)):
        quiet.fault("hours", f"is {hours!r}; expected two hours from 0 to 24")
    if below not in Level.__members__:
        quiet.fault("below", f"is {below!r}; expected blue, yellow, orange or red")
    elif Level[below] > Level.orange:
        quiet.fault("below", "red is never silenced by quiet hours; expected orange at most")
    root.done("plan, level, end, quiet")
    if faults:
        raise PlanError(where, faults)
    return Plan(
        hazard=hazard,
        version=version,
        levels=tuple(levels),
        title_zh=title[0],
        title_en=title[1],
        author=author,
        next_revision=revision.isoformat(),
        cap_event=cap_event,
        audiences=tuple(map(str, audiences)),
        hold_s=hold_s,
        rearm_s=rearm_s,
        quiet_hours=(float(hours[0]), float(hours[1])) if hours else None,
        quiet_below=Level[below],
        civil_defence_reference=reference if authorised else "",
        file=where,
    )


def read_patterns(data: Mapping[str, Any], where: str = "patterns") -> tuple[Pattern, ...]:
    """Patterns from the tables of a pattern file, ``[pattern.NAME]`` with ``steps`` and ``repeat``.

    ``steps`` is a list of seconds, sound first: ``[15, 10, 5, 10]``.

    Raises:
        PlanError: with every fault: key, what is wrong, what would be right.
    """
    faults: list[tuple[str, str]] = []
    patterns = []
    root = _Table(data, "", faults)
    for name, table_data in root.take("pattern", Mapping, {}, "tables [pattern.NAME]").items():
        table = _Table(table_data, f"pattern.{name}", faults)
        seconds = table.take("steps", list, ..., "a list of seconds, sound first")
        repeat = table.take("repeat", int, 1, "how often the steps run")
        if not 1 <= repeat <= 100:
            table.fault("repeat", f"is {repeat}; expected 1 to 100")
        civil = table.take("civil_defence", bool, False, "true or false")
        source = table.take("source", str, "", "where the pattern comes from")
        table.done("steps, repeat, civil_defence, source")
        numbers = [s for s in seconds or [] if isinstance(s, int | float) and 0.1 <= s <= 600]
        if seconds is not None and (not seconds or len(numbers) != len(seconds)):
            table.fault("steps", f"is {seconds!r}; expected seconds from 0.1 to 600, sound first")
        steps = tuple(Step(i % 2 == 0, float(s)) for i, s in enumerate(numbers))
        patterns.append(Pattern(name, steps, repeat, civil, source))
    root.done("pattern")
    if faults:
        raise PlanError(where, faults)
    return tuple(patterns)


def check_plan(
    plan: Plan, patterns: tuple[Pattern, ...], sirens: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Faults of a plan against the patterns there are and the sirens (name → longest time, s)."""
    known = {pattern.name: pattern for pattern in patterns}
    faults: list[tuple[str, str]] = []
    for rule in plan.levels:
        if not rule.pattern:
            continue
        key = f"level.{rule.level.name}.siren"
        pattern = known.get(rule.pattern)
        if pattern is None:
            faults.append((key, f"no pattern {rule.pattern!r}; there are {', '.join(known)}"))
            continue
        if pattern.civil_defence and not plan.civil_defence_reference:
            needs = "civil_defence_authorised = true and civil_defence_reference in [plan]"
            faults.append((key, f"{rule.pattern!r} is an air-raid signal; it needs {needs}"))
        for siren in rule.sirens or sirens:
            if siren not in sirens:
                there = ", ".join(sirens) or "none"
                faults.append((f"{key}s", f"no siren {siren!r}; there are {there}"))
            elif pattern.length_s > sirens[siren]:
                lasts = f"lasts {pattern.length_s:g} s, siren {siren!r} may sound"
                faults.append((key, f"{rule.pattern!r} {lasts} {sirens[siren]:g} s at most"))
    return faults
