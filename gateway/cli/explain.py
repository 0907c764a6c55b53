"""``gateway explain``: why an alert was raised and what it did, from the core's journal alone.

The journal is only read, running core or not. What it has on an alert: each step with its inputs,
the condition of the plan that held, the clock's state, whom it tells and the texts; each start and
end of a siren, and when it went on and off in between; and around them what was decided (onsets,
coincidences, ground motion, levels), how the site was armed, and what was wrong.
"""

import json
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output
from gateway.cli.options import STATE, AsJson, StateDir

if TYPE_CHECKING:
    from gateway.plan.rules import Pattern, Plan

LAST_ALERTS = 10
"""How many are listed where none, or an unknown one, is asked for."""
BEFORE_S = 60.0
"""How long before the first step decisions belong to an alert."""

Found = dict[str, Any]
"""A record of the journal, as it was published."""

_ALWAYS = {"arming", "health", "reply"}
_EVIDENCE = {"earthquake": {"onset", "rejected", "coincidence", "ground_motion", "quality"}}
"""What is decided on the way to an alert; of other hazards it is levels."""


@dataclass(frozen=True, slots=True)
class Story:
    """All that the journal has on one alert, each list in order of time.

    ``steps`` are the alert's own records, ``sirens`` their starts and ends, ``evidence`` what was
    decided from ``BEFORE_S`` before the first of them to the last.
    """

    id: str
    steps: Sequence[Found]
    sirens: Sequence[Found]
    evidence: Sequence[Found]


def explain(
    alert: Annotated[
        str | None,
        typer.Argument(metavar="[ALERT]", help="The id of an alert; without, the last are listed."),
    ] = None,
    state: StateDir = STATE,
    as_json: AsJson = False,
) -> None:
    """Say why an alert was raised and all that followed: inputs, rule, plan, clock, sirens.

    Exits 1 if there is no such alert in the journal, or the journal can't be read.
    """
    journal = _journal(state / "core")
    if alert is None:
        _list(journal, as_json=as_json)
        return
    story = tell(alert, journal)
    if story is None:
        print(f"gateway: no alert {alert!r} in {state / 'core'}; the last are:", file=sys.stderr)  # noqa: T201  the command's own output
        _list(journal, as_json=as_json)
        raise typer.Exit(output.FAULT)
    plan, patterns = _in_force(story, state)
    story = replace(story, sirens=_with_edges(story, patterns))
    if as_json:
        conditions = [_conditions(step, plan) for step in story.steps]
        output.say_json(
            {
                "id": story.id,
                "steps": [
                    {**step, "conditions": held}
                    for step, held in zip(story.steps, conditions, strict=True)
                ],
                "sirens": list(story.sirens),
                "evidence": list(story.evidence),
            }
        )
        return
    for line in lines(story, plan):
        output.say(line)


def _journal(directory: Path) -> list[bytes]:
    """Every record that the journal holds, oldest first; leaves with 1 where it can't be read."""
    from gateway.core.segments import Kind, Segments, unpack_record

    records: dict[tuple[str, int], bytes] = {}
    try:
        next(directory.iterdir(), None)  # globbing passes over a folder that can't be read
        segments = Segments(directory)
        for segment in segments.in_order():
            for entry in segment.read():
                if entry.kind is Kind.record:
                    record = unpack_record(entry.body)
                    records[record.run_id, record.seq] = record.line
        unreadable = segments.unreadable
        segments.close()
    except FileNotFoundError:
        output.fail(f"{directory}: there is no journal; is --state right?")
    except OSError as error:
        output.fail(f"{directory}: {error.strerror}; be root or the gateway's user")
    if unreadable:
        print(f"gateway: {directory}: {unreadable} segments can't be read", file=sys.stderr)  # noqa: T201  the command's own output
    return list(records.values())


def _select(journal: Iterable[bytes], types: Iterable[str]) -> list[Found]:
    """The records of some types in order of time; only these are parsed."""
    beginnings = tuple(f'{{"type":"{name}"'.encode() for name in types)
    return _sorted(json.loads(line) for line in journal if line.startswith(beginnings))


def tell(alert: str, journal: Sequence[bytes]) -> Story | None:
    """What the journal says of one alert, or of a siren sounded by hand; None if nothing."""
    steps = [r for r in _select(journal, ["alert"]) if r["id"] == alert]
    sirens = [r for r in _select(journal, ["siren"]) if r["alert"] == alert]
    if not steps and not sirens:
        return None
    own = _sorted([*steps, *sirens])
    begin, end = _seconds(own[0]) - BEFORE_S, _seconds(own[-1])
    hazard = steps[0]["hazard"] if steps else ""
    evidence = [
        record
        for record in _select(journal, _ALWAYS | _EVIDENCE.get(hazard, {"level"}))
        if begin <= _seconds(record) <= end and record.get("hazard", hazard) == hazard
    ]
    # The order in force when the story begins; without one the site was always armed.
    arming = [record for record in _select(journal, ["arming"]) if _seconds(record) < begin]
    return Story(alert, steps, sirens, _thinned([*arming[-1:], *evidence], steps))


def _thinned(evidence: Sequence[Found], steps: Sequence[Found]) -> list[Found]:
    """Of the ground motion of every second only the last before each step, and the last of all."""
    motions = [r for r in evidence if r["type"] == "ground_motion"]
    times = [_seconds(r) for r in motions]
    at = {bisect_right(times, _seconds(step)) - 1 for step in steps} | {len(motions) - 1}
    kept = {id(motions[index]) for index in at if index >= 0}
    return [r for r in evidence if r["type"] != "ground_motion" or id(r) in kept]


def _seconds(record: Found) -> float:
    """When it was decided, which of an onset is not its time, the arrival."""
    from gateway.events import parse_iso

    return parse_iso(record.get("declared") or record["time"]) / 1e9


def _sorted(records: Iterable[Found]) -> list[Found]:
    return sorted(records, key=_seconds)


def _in_force(story: Story, state: Path) -> "tuple[Plan | None, dict[str, Pattern]]":
    """The plan that decided, where the compiled configuration still holds that version.

    And the patterns of that configuration.
    """
    from gateway.core.__main__ import load_compiled

    named = {step["plan"] for step in story.steps}
    compiled, _ = load_compiled(state)
    plan = next((p for p in compiled.plans if f"{p.hazard} {p.version}" in named), None)
    return plan, {pattern.name: pattern for pattern in compiled.patterns}


def _with_edges(story: Story, patterns: "Mapping[str, Pattern]") -> list[Found]:
    """Each start of a siren with the edges that followed, until it ended.

    A pattern that was interrupted goes on at the point that it would have reached, so that its
    edges count from its first start; a step of the alert that sounds begins it anew.
    """
    sirens = [dict(record) for record in story.sirens]
    begun: dict[tuple[str, str], int] = {}
    for record in sirens:
        pattern = patterns.get(record["pattern"])
        if record["action"] != "on" or pattern is None:
            continue
        own = [r for r in sirens if r["siren"] == record["siren"]]
        after = own[own.index(record) + 1 :]
        start_ns = _ns(record)
        key = record["siren"], record["pattern"]
        anew = max((_ns(step) for step in story.steps if _ns(step) <= start_ns), default=start_ns)
        began_ns = begun.get(key, start_ns)
        if began_ns < anew or start_ns >= began_ns + round(pattern.length_s * 1e9):
            began_ns = start_ns
        begun[key] = began_ns
        end_ns = _ns(after[0]) if after else None
        record["edges"] = list(_edges(pattern, began_ns, start_ns, end_ns))
    return sirens


def _edges(pattern: "Pattern", began_ns: int, start_ns: int, end_ns: int | None) -> Iterator[Found]:
    """When the siren went on and off between two times."""
    from gateway.core.arbiter import edge
    from gateway.events import iso

    last_ns = began_ns + round(pattern.length_s * 1e9)
    end_ns = last_ns if end_ns is None else min(end_ns, last_ns)
    at_ns, was = start_ns, False
    while at_ns < end_ns:
        on, change_ns = edge(pattern, at_ns - began_ns)
        if on is not was:
            yield {"time": iso(at_ns), "on": on}
            was = on
        at_ns = began_ns + change_ns
    if was:
        yield {"time": iso(end_ns), "on": False}


def _ns(record: Found) -> int:
    from gateway.events import parse_iso

    return parse_iso(record["time"])


def _conditions(step: Found, plan: "Plan | None") -> list[Found]:
    """Every condition of the plan with whether the step's inputs met it."""
    if plan is None or step["phase"] in ("cancel", "expire"):
        return []
    inputs = {k: v for k, v in step["inputs"].items() if not isinstance(v, str)}
    return [
        {"level": rule.level.name, "when": str(clause), "holds": clause.holds(inputs)}
        for rule in plan.levels
        for clause in rule.when
    ]


def lines(story: Story, plan: "Plan | None") -> Iterator[str]:
    """The story for people: the alert, then everything in order of time."""
    if story.steps:
        first = story.steps[0]
        yield f"{story.id}: {first['hazard']}, {first['status']}, station {first['station']}"
        in_force = "" if plan else ", which is no longer in force here"
        yield f"plan {first['plan']}{in_force}"
    else:
        yield f"{story.id}: sounded by hand"
    everything = [*story.evidence, *story.steps, *story.sirens]
    for record in sorted(everything, key=lambda r: (_seconds(r), _ORDER.index(r["type"]))):
        yield f"{record.get('declared') or record['time']}  {_words(record)}"
        if record["type"] == "alert":
            yield from (f"    {line}" for line in _reasons(record, plan))
        if edges := record.get("edges"):
            sounded = zip(edges[::2], edges[1::2], strict=True)
            spans = (f"{on['time'][11:23]}–{off['time'][11:23]}" for on, off in sounded)
            yield f"    sounds {', '.join(spans)}"


_ORDER = [
    "arming",
    "quality",
    "rejected",
    "onset",
    "coincidence",
    "ground_motion",
    "level",
    "alert",
    "siren",
    "reply",
    "health",
]
"""Cause before effect at the same time."""


def _words(record: Found) -> str:
    match record["type"]:
        case "alert":
            return f"{record['phase'].upper()} {record['level']}: {record['reason']}"
        case "siren":
            why = f": {record['reason']}" if record["reason"] else ""
            return f"siren {record['siren']} {record['action']}, {record['pattern']}{why}"
        case "arming":
            left = "" if record["left_s"] is None else f" for {record['left_s']:.0f} s"
            return f"arming {record['mode']}{left} by {record['by'] or 'nobody'}"
        case "health":
            what = f"{record['component']} {record['kind']} {record['state']}"
            return f"health {what}: {record['detail']}"
    rest = {k: v for k, v in record.items() if k not in ("type", "time", "declared")}
    shown = " ".join(f"{k}={_value(v)}" for k, v in rest.items() if v not in (None, "", [], {}))
    return f"{record['type']} {shown}"


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _reasons(step: Found, plan: "Plan | None") -> Iterator[str]:
    if step["inputs"]:
        yield "inputs " + ", ".join(f"{k} {v}" for k, v in step["inputs"].items() if v is not None)
    for condition in _conditions(step, plan):
        holds = "holds" if condition["holds"] else "no   "
        yield f"{condition['level']:6} {holds}  {condition['when']}"
    if clock := step.get("clock"):
        yield f"clock {_clock(clock)}"
    if audiences := step.get("audiences"):
        yield f"tells {', '.join(audiences)}"
    for key in ("text_zh", "text_en"):
        if step[key]:
            yield step[key]


def _clock(clock: Mapping[str, Any]) -> str:
    error_s = clock["uncertainty_s"]
    known = "error unknown" if error_s is None else f"±{error_s * 1000:.3g} ms"
    return f"{clock['state']}, {known}, {clock['steps']} steps since start"


def _list(journal: Iterable[bytes], *, as_json: bool) -> None:
    """The last alerts, newest first."""
    from gateway.events import Level

    alerts: dict[str, list[Found]] = {}
    for record in _select(journal, ["alert"]):
        alerts.setdefault(record["id"], []).append(record)
    rows = [
        {
            "id": name,
            "hazard": steps[0]["hazard"],
            "highest": max(Level[step["level"]] for step in steps).name,
            "last_step": steps[-1]["phase"],
            "status": steps[0]["status"],
            "began": steps[0]["time"],
        }
        for name, steps in reversed(list(alerts.items())[-LAST_ALERTS:])
    ]
    if rows or as_json:
        columns = ["id", "hazard", "highest", "last_step", "status", "began"]
        output.show(rows, columns, as_json=as_json)
    else:
        output.say("no alert in the journal")
