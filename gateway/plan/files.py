"""The form of an emergency plan: one TOML file a hazard, and the siren patterns that it may name.

A plan file reads (docs/plans.md explains every key)::

    [plan]
    hazard = "earthquake"
    version = "1.0.0"
    author = "…"
    next_revision = 2027-11-01
    title = { zh = "…", en = "…" }
    cap_event = "LIST=CODE"
    audiences = ["site", "hub"]

    [level.red]
    when = ["intensity >= 7", "predicted_intensity >= 7 and pd_cm >= 0.5 and tau_c_s >= 1.0"]
    siren = "disaster"
    text = { zh = "…", en = "…" }       # what was observed, with the numbers
    action = { zh = "…", en = "…" }     # what to do
    escalate = { after_s = 600, every_s = 600, times = 2, audiences = ["community"] }

    [end]
    hold_s = 60
    rearm_s = 30
    valid_s = 86400
    longest_s = 604800
    lowered = { zh = "…", en = "…" }
    text = { zh = "…", en = "…" }

    [quiet]
    hours = [22, 6]
    below = "orange"

The strings of ``when`` are alternatives; within one, conditions are joined by ``and``. A
condition compares one quantity of the hazard with a number (or, for ``scale``, with a level). The
quantities carry their units in their names, so that there is nothing to guess. :func:`read_plan`
checks everything and names every fault; the result is a tree of frozen dataclasses that the core
evaluates without parsing anything (``gateway.plan.rules``).
"""

import difflib
import re
import string
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from math import inf
from typing import Any

from gateway.events import Hazard, Level
from gateway.plan.rules import (
    OPERATORS,
    QUANTITIES,
    Clause,
    Condition,
    Escalation,
    LevelRule,
    Pattern,
    Plan,
    Quantity,
    Step,
)
from gateway.plan.texts import PLACEHOLDERS

PREDICTED_RED = Clause((Condition("pd_cm", ">=", 0.5), Condition("tau_c_s", ">=", 1.0)))
"""What a prediction must show besides before it may go beyond yellow."""


class PlanError(ValueError):
    """A plan or pattern file is wrong. ``faults`` holds (key, what is wrong and what is right).

    ``rest`` is what could be read of it nonetheless, good only to be checked further, so that no
    fault hides another.
    """

    def __init__(
        self,
        where: str,
        faults: list[tuple[str, str]],
        rest: "Plan | tuple[Pattern, ...] | None" = None,
    ) -> None:
        self.where = where
        self.faults = faults
        self.rest = rest
        super().__init__("; ".join(f"{where}: {key}: {text}" for key, text in faults))


_CONDITION = re.compile(r"^\s*(\w+)\s*(>=|<=|>|<|==|=)\s*(\S+)(?:\s+(\S.*))?$")


def _condition(text: str, known: Mapping[str, Quantity]) -> Condition:
    found = _CONDITION.match(text)
    if not found:
        example = next(iter(known))
        raise ValueError(f"{text.strip()!r} is no comparison; write for example '{example} >= 5'")
    quantity, op, value, rest = found.groups()
    if quantity not in known:
        near = difflib.get_close_matches(quantity, known, 1, 0.5)
        hint = f"; did you mean {near[0]} ({known[near[0]].meaning})?" if near else ""
        raise ValueError(f"unknown quantity {quantity!r}{hint}; there are {', '.join(known)}")
    meaning = known[quantity].meaning
    if quantity == "scale":
        if op != ">=" or rest or value not in Level.__members__ or value == "none":
            raise ValueError(f"{text.strip()!r}: write 'scale >= ' blue, yellow, orange or red")
        return Condition(quantity, ">=", float(Level[value]))
    if op in ("==", "="):
        raise ValueError(f"{text.strip()!r}: measured values are compared with >=, >, <= or <")
    try:
        number = float(value)
    except ValueError:
        raise ValueError(
            f"{value!r} in {text.strip()!r} is no number; write the number alone, "
            f"{quantity} is the {meaning}"
        ) from None
    if rest:
        raise ValueError(
            f"{rest!r} after the number in {text.strip()!r}; write the number alone, "
            f"{quantity} is the {meaning}"
        )
    if not abs(number) < float("inf"):
        raise ValueError(f"{value!r} in {text.strip()!r} is not finite")
    return Condition(quantity, op, number)  # type: ignore[arg-type]  # the pattern allows no other


def _clause(text: str, known: Mapping[str, Quantity]) -> Clause:
    return Clause(tuple(_condition(part, known) for part in re.split(r"\s+and\s+", text)))


def _pointless(clause: Clause, known: Mapping[str, Quantity]) -> str:
    """Why no input can satisfy the clause, or why every input does; empty if neither is so."""
    for a in clause.conditions:
        bounds = known[a.quantity]
        if _beyond(a, bounds):
            return f"{a} can't be: {a.quantity} goes from {bounds.lowest:g} to {bounds.highest:g}"
        for b in clause.conditions:
            if a.quantity == b.quantity and a.op[0] == ">" and b.op[0] == "<":
                strict = a.op == ">" or b.op == "<"
                if a.value > b.value or (strict and a.value == b.value):
                    return f"{a} and {b} can't both hold"
    if all(_everywhere(c, known[c.quantity]) for c in clause.conditions):
        return f"{clause} holds whatever is measured; it would alert without end"
    return ""


def _beyond(a: Condition, bounds: Quantity) -> bool:
    """Whether no value within the bounds satisfies the condition."""
    edge = bounds.highest if a.op[0] == ">" else bounds.lowest
    return not OPERATORS[a.op](edge, a.value)


def _everywhere(a: Condition, bounds: Quantity) -> bool:
    """Whether every value within the bounds satisfies the condition."""
    edge = bounds.lowest if a.op[0] == ">" else bounds.highest
    return bool(OPERATORS[a.op](edge, a.value))


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
            self.fault(key, f"is {value!r}; expected {low:.10g} to {high:.10g} {unit}")
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


def _text_fault(text: str, allowed: AbstractSet[str]) -> str:
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        return f"{error}; placeholders are names in braces, such as {{station}}"
    names = {name for _, name, _, _ in parts if name is not None}
    unknown = names - allowed
    if unknown:
        wrong = min(unknown)
        near = difflib.get_close_matches(wrong, allowed, 1)
        hint = f"; did you mean {{{near[0]}}}?" if near else ""
        return f"unknown placeholder {{{wrong}}}{hint}; there are {', '.join(sorted(allowed))}"
    for _, name, form, _ in parts:
        if name is not None and form:
            try:
                format(1.0, form)
            except ValueError:
                return (
                    f"{{{name}:{form}}} is no format of a number; write for example {{{name}:.2f}}"
                )
    return ""


def _texts(table: _Table, key: str, allowed: AbstractSet[str], *, needed: bool) -> tuple[str, str]:
    """A text in both languages, its placeholders checked."""
    zh, en = table.pair(key)
    for language, text in (("zh", zh), ("en", en)):
        if not text and (needed or zh or en):
            table.fault(f"{key}.{language}", "missing; people read both languages")
        elif why := _text_fault(text, allowed):
            table.fault(f"{key}.{language}", why)
        if "预警信号" in text:
            table.fault(f"{key}.{language}", "预警信号 are the authorities' alone; write 达到…标准")
    return zh, en


def _audiences(table: _Table, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    names = table.take("audiences", list, list(default), 'a list such as ["site", "hub"]')
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_-]{1,32}", name):
            what = "a short name of small letters, digits, - and _, which the hub maps to people"
            table.fault("audiences", f"{name!r}; expected {what}")
    return tuple(map(str, names))


def _read_escalation(data: Any, key: str, faults: list[Any]) -> Escalation:
    table = _Table(data, key, faults)
    after_s = table.number("after_s", 600.0, 10.0, 86_400.0, "seconds")
    every_s = table.number("every_s", after_s, 10.0, 86_400.0, "seconds")
    times = table.take("times", int, 1, "how often, 1 to 100")
    if not 1 <= times <= 100:
        table.fault("times", f"is {times}; expected 1 to 100")
    audiences = _audiences(table)
    table.done("after_s, every_s, times, audiences")
    return Escalation(after_s, every_s, times, audiences)


def _read_level(
    name: str, data: Any, known: Mapping[str, Quantity], faults: list[Any]
) -> LevelRule:
    table = _Table(data, f"level.{name}", faults)
    clauses = []
    when = table.take("when", list, ..., "a list of conditions")
    for i, text in enumerate(when or []):
        try:
            clause = _clause(str(text), known)
        except ValueError as error:
            table.fault(f"when[{i}]", str(error))
            continue
        if why := _pointless(clause, known):
            table.fault(f"when[{i}]", why)
        clauses.append(clause)
    if when is not None and not when:
        table.fault("when", "is empty; expected at least one condition")
    pattern = table.take("siren", str, "", "the name of a pattern")
    sirens = table.take("sirens", list, [], "a list of siren names")
    if sirens and not pattern:
        table.fault("sirens", f"is {sirens!r} without a pattern; expected siren = its name besides")
    words = PLACEHOLDERS | set(known)
    text_zh, text_en = _texts(table, "text", words, needed=True)
    action_zh, action_en = _texts(table, "action", words, needed=False)
    audiences = _audiences(table)
    escalate = table.take("escalate", Mapping, None, "a table")
    table.done("when, siren, sirens, text, action, audiences, escalate")
    return LevelRule(
        level=Level[name],
        when=tuple(clauses),
        pattern=pattern,
        sirens=tuple(map(str, sirens)),
        text_zh=text_zh,
        text_en=text_en,
        action_zh=action_zh,
        action_en=action_en,
        audiences=audiences,
        escalation=None
        if escalate is None
        else _read_escalation(escalate, f"level.{name}.escalate", faults),
    )


def _order_faults(levels: list[LevelRule], faults: list[tuple[str, str]]) -> None:
    """Levels that hide each other, and predictions that reach further than they may."""
    for i, high in enumerate(levels):
        for index, clause in enumerate(high.when):
            key = f"level.{high.level.name}.when[{index}]"
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
                    text += f", so that {low.level.name} is never seen; raise the limit of "
                    text += f"{high.level.name} or lower that of {low.level.name}"
                    faults.append((key, text))


def _read_head(head: _Table) -> dict[str, Any]:
    """The table ``[plan]``, as arguments of the plan."""
    hazard = head.take("hazard", str, ..., f"one of {', '.join(Hazard)}")
    if hazard is not None and hazard not in list(Hazard):
        near = difflib.get_close_matches(hazard, map(str, Hazard), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        head.fault("hazard", f"is {hazard!r}{hint}; expected one of {', '.join(Hazard)}")
        hazard = near[0] if near else None
    version = head.take("version", str, ..., 'a version such as "1.0.0"')
    author = head.take("author", str, ..., "who answers for the plan")
    revision = head.take("next_revision", date, ..., "a date such as 2027-11-01")
    cap_event = head.take("cap_event", str, "", "an event code LIST=CODE")
    if cap_event and not re.fullmatch(r"[^\s=]+=[^\s=]+", cap_event):
        head.fault("cap_event", f"is {cap_event!r}; expected LIST=CODE, such as OET:v1.2=OET-081")
    audiences = _audiences(head, ("site", "hub"))
    reference = head.take("civil_defence_reference", str, "", "the number of the authorisation")
    authorised = head.take("civil_defence_authorised", bool, False, "true or false")
    title_zh, title_en = head.pair("title")
    head.done(
        "hazard, version, author, next_revision, title, cap_event, audiences, "
        "civil_defence_authorised, civil_defence_reference"
    )
    if authorised and not reference:
        head.fault("civil_defence_reference", "missing; air-raid signals need its number")
    return {
        "hazard": Hazard(hazard) if hazard else None,
        "version": version,
        "title_zh": title_zh,
        "title_en": title_en,
        "author": author,
        "next_revision": revision.isoformat() if revision else "",
        "cap_event": cap_event,
        "audiences": audiences,
        "civil_defence_reference": reference if authorised else "",
    }


def _read_end(end: _Table, words: AbstractSet[str]) -> dict[str, Any]:
    """The table ``[end]``, as arguments of the plan."""
    found: dict[str, Any] = {
        "hold_s": end.number("hold_s", 60.0, 0.0, 86_400.0, "seconds"),
        "rearm_s": end.number("rearm_s", 30.0, 0.0, 86_400.0, "seconds"),
        "valid_s": end.number("valid_s", 86_400.0, 60.0, 604_800.0, "seconds"),
        "longest_s": end.number("longest_s", 604_800.0, 60.0, 2_592_000.0, "seconds"),
    }
    found["lowered_zh"], found["lowered_en"] = _texts(end, "lowered", words, needed=False)
    found["ended_zh"], found["ended_en"] = _texts(end, "text", PLACEHOLDERS, needed=False)
    end.done("hold_s, rearm_s, valid_s, longest_s, lowered, text")
    if found["hold_s"] > found["longest_s"]:
        text = f"is {found['longest_s']:g}; expected at least hold_s, {found['hold_s']:g}"
        end.fault("longest_s", text)
    return found


def _read_quiet(quiet: _Table) -> dict[str, Any]:
    """The table ``[quiet]``, as arguments of the plan."""
    hours = quiet.take("hours", list, [], "a list of two local hours, such as [22, 6]")
    below = quiet.take("below", str, "none", "a level")
    quiet.done("hours, below")
    numbers = [h for h in hours if isinstance(h, int | float) and 0 <= h <= 24]
    if hours and (len(hours) != 2 or len(numbers) != 2):
        quiet.fault("hours", f"is {hours!r}; expected two hours from 0 to 24")
    if below not in Level.__members__:
        quiet.fault("below", f"is {below!r}; expected blue, yellow, orange or red")
        below = "none"
    elif Level[below] > Level.orange:
        quiet.fault("below", "red is never silenced by quiet hours; expected orange at most")
    elif hours and below == "none":
        quiet.fault("below", "missing; expected the lowest level that sounds at any hour")
    return {
        "quiet_hours": (float(numbers[0]), float(numbers[1])) if len(numbers) == 2 else None,
        "quiet_below": Level[below],
    }


def read_plan(data: Mapping[str, Any], where: str = "plan") -> Plan:
    """A plan from the tables of its TOML file.

    Raises:
        PlanError: with every fault: key, what is wrong, what would be right.
    """
    faults: list[tuple[str, str]] = []
    root = _Table(data, "", faults)

    def table(key: str, what: str) -> _Table:
        return _Table(root.take(key, Mapping, {}, what), key, faults)

    head = _read_head(table("plan", "a table [plan]"))
    level_tables = root.take("level", Mapping, ..., "tables [level.blue] … [level.red]")
    if head["hazard"] is None:  # nothing further can be judged
        raise PlanError(where, faults)
    known = QUANTITIES[head["hazard"]]
    levels = []
    for name, level in (level_tables or {}).items():
        if name not in Level.__members__ or name == "none":
            faults.append((f"level.{name}", "unknown level; expected blue, yellow, orange or red"))
        else:
            levels.append(_read_level(name, level, known, faults))
    if level_tables is not None and not level_tables:
        faults.append(("level", "no level; expected at least one of [level.blue] … [level.red]"))
    levels.sort(key=lambda rule: -rule.level)
    _order_faults(levels, faults)
    end = _read_end(table("end", "a table [end]"), PLACEHOLDERS | set(known))
    quiet = _read_quiet(table("quiet", "a table [quiet]"))
    root.done("plan, level, end, quiet")
    plan = Plan(levels=tuple(levels), file=where, **head, **end, **quiet)
    if faults:
        raise PlanError(where, faults, plan)
    return plan


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
        raise PlanError(where, faults, tuple(patterns))
    return tuple(patterns)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a siren may sound at a time and in an hour, s."""

    max_on_s: float = inf
    max_hour_s: float = inf


def check_plan(
    plan: Plan, patterns: tuple[Pattern, ...], sirens: Mapping[str, Limits]
) -> list[tuple[str, str]]:
    """Faults of a plan against the patterns and the sirens that there are."""
    known = {pattern.name: pattern for pattern in patterns}
    faults: list[tuple[str, str]] = []
    for rule in plan.levels:
        if not rule.pattern:
            continue
        key = f"level.{rule.level.name}"
        there = ", ".join(sirens) or "none"
        missing = [siren for siren in rule.sirens if siren not in sirens]
        faults += [(f"{key}.sirens", f"no siren {x!r}; there are {there}") for x in missing]
        pattern = known.get(rule.pattern)
        if pattern is None:
            near = difflib.get_close_matches(rule.pattern, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            names = ", ".join(known)
            faults.append((f"{key}.siren", f"no pattern {rule.pattern!r}{hint}; there are {names}"))
            continue
        if pattern.civil_defence and not plan.civil_defence_reference:
            needs = "civil_defence_authorised = true and civil_defence_reference in [plan]"
            text = f"{rule.pattern!r} is an air-raid signal; it needs {needs}"
            faults.append((f"{key}.siren", text))
        often = rule.escalation
        if often is not None and min(often.after_s, often.every_s) < pattern.length_s:
            text = f"{rule.pattern!r} lasts {pattern.length_s:g} s and would begin again before "
            faults.append((f"{key}.escalate", f"{text}it is over; expected a longer time"))
        for siren in rule.sirens or sirens:
            if siren in sirens:
                faults += _too_long(rule, pattern, siren, sirens[siren])
    return faults


def _too_long(
    rule: LevelRule, pattern: Pattern, siren: str, limits: Limits
) -> Iterator[tuple[str, str]]:
    """A pattern that the siren's limits would cut short."""
    key = f"level.{rule.level.name}"
    if pattern.length_s > limits.max_on_s:
        lasts = f"{rule.pattern!r} lasts {pattern.length_s:g} s"
        text = f"{lasts}, siren {siren!r} may sound {limits.max_on_s:g} s at most (its max_on_s)"
        yield f"{key}.siren", f"{text}; expected a shorter pattern, or a longer limit"
        return
    often = rule.escalation
    within = 0 if often is None else min(often.times, int(3600 // often.every_s))
    sound_s = pattern.sound_s * (1 + within)
    if sound_s > limits.max_hour_s:
        lasts = f"{rule.pattern!r} sounds {sound_s:g} s in an hour"
        text = f"{lasts}, siren {siren!r} may sound {limits.max_hour_s:g} s (its max_hour_s)"
        where = f"{key}.escalate" if within else f"{key}.siren"
        yield where, f"{text}; expected fewer times, or a longer limit"
