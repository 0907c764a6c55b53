"""``gateway plan``: the emergency plans, as they hold here, as files, and tried on data."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output
from gateway.cli.options import CONFIG, AsJson, ConfigFile, InventoryFile, SensitivityText

if TYPE_CHECKING:
    from gateway.config.faults import Fault
    from gateway.config.plans import Found
    from gateway.config.source import Source
    from gateway.core.compiled import Compiled
    from gateway.drill.recording import Series
    from gateway.events import Hazard
    from gateway.plan.files import Limits
    from gateway.plan.rules import LevelRule, Pattern, Plan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Show, check, compare and try the emergency plans.",
)

HazardName = Annotated[str, typer.Argument(metavar="HAZARD", help="As `gateway plan list` shows.")]


@app.callback()
def _plan() -> None:
    """Emergency plans: which conditions make which level, and what the level does."""


@dataclass(frozen=True, slots=True)
class Here:
    """What holds at this station; ``sirens`` is None where no configuration says which."""

    plans: "dict[Hazard, Plan]"
    patterns: "dict[str, Pattern]"
    sirens: "dict[str, Limits] | None" = None
    compiled: "Compiled | None" = None
    faults: "list[Fault]" = field(default_factory=list)


def _here(config: Path) -> Here:
    """The plans that a configuration puts in force; the shipped ones where there is none."""
    from gateway import config as configuration
    from gateway.config.plans import read_plans
    from gateway.plan.files import Limits

    if not config.is_file():
        print(f"gateway: no {config}; these are the shipped plans", file=sys.stderr)  # noqa: T201  the command's own output
        found = read_plans()
        return Here(found.plans, found.patterns, faults=found.faults)
    checked = configuration.check(config)
    if (compiled := checked.compiled) is None:
        print(*checked.errors, sep="\n", file=sys.stderr)  # noqa: T201  the command's own output
        output.fail(f"{config} can't be used as it is; gateway plan check FILE looks at one plan")
    return Here(
        {plan.hazard: plan for plan in compiled.plans},
        {pattern.name: pattern for pattern in compiled.patterns},
        {siren.name: Limits(siren.max_on_s, siren.max_hour_s) for siren in compiled.sirens},
        compiled,
        list(checked.warnings),
    )


def _of(here: Here, name: str) -> "Plan":
    """The plan for a hazard, or leave."""
    from gateway.events import Hazard

    if name not in list(Hazard):
        output.fail(f"no hazard {name!r}; there are {', '.join(Hazard)}", output.WRONG_USE)
    if (plan := here.plans.get(Hazard(name))) is None:
        output.fail(f"no plan for {name}; there are plans for {', '.join(here.plans)}")
    return plan


# --- list, show -----------------------------------------------------------------------------------


@app.command("list")
def listing(config: ConfigFile = CONFIG, as_json: AsJson = False) -> None:
    """List the plans in force, one a hazard, with what each level sounds."""
    rows = [
        {
            "hazard": plan.hazard.value,
            "version": plan.version,
            "levels": "; ".join(
                f"{rule.level.name}: {rule.pattern or 'no siren'}" for rule in plan.levels
            ),
            "next_revision": plan.next_revision,
            "overdue": plan.overdue(time.time_ns()),
            "file": plan.file,
        }
        for plan in _here(config).plans.values()
    ]
    columns = ["hazard", "version", "levels", "next_revision", "overdue", "file"]
    output.show(rows, columns, as_json=as_json)


@app.command()
def show(hazard: HazardName, config: ConfigFile = CONFIG, as_json: AsJson = False) -> None:
    """Show one plan whole: conditions, sirens, texts, how it ends."""
    here = _here(config)
    plan = _of(here, hazard)
    if as_json:
        output.say_json(_plain(plan))
        return
    output.say(f"{plan.title_en or plan.hazard}  {plan.title_zh}")
    output.say(f"version {plan.version} by {plan.author}, next revision {plan.next_revision}")
    output.say(f"file {plan.file}")
    for rule in plan.levels:
        output.say(f"\n{rule.level.name}")
        for clause in rule.when:
            output.say(f"  when  {clause}")
        output.say(f"  siren {_siren(rule, here.patterns)}")
        output.say(f"  tells {', '.join(rule.audiences or plan.audiences)}")
        if (often := rule.escalation) is not None:
            besides = f", telling {', '.join(often.audiences)} besides" if often.audiences else ""
            more = f", {often.times} times {_span(often.every_s)} apart" if often.times > 1 else ""
            output.say(f"  again {_span(often.after_s)} later unless switched off{more}{besides}")
        output.say(f"  zh    {rule.text_zh}{rule.action_zh}")
        output.say(f"  en    {rule.text_en} {rule.action_en}".rstrip())
    held = f"{_span(plan.hold_s)} after its conditions" if plan.hold_s else "with its conditions"
    output.say(f"\nends {held}; a new alert no sooner than {_span(plan.rearm_s)} later")
    output.say(f"said again every {_span(plan.valid_s / 2)}; lasts {_span(plan.longest_s)} at most")
    for name, text in (
        ("lowered", plan.lowered_zh),
        ("lowered", plan.lowered_en),
        ("end", plan.ended_zh),
        ("end", plan.ended_en),
    ):
        if text:
            output.say(f"  {name:7} {text}")
    output.say(f"event code {plan.cap_event or 'none'}")
    if plan.quiet_hours:
        begin, end = plan.quiet_hours
        output.say(f"no siren below {plan.quiet_below.name} from {begin:g} to {end:g} h local time")


def _span(seconds: float) -> str:
    """A length of time in the largest unit that leaves it whole."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def _siren(rule: "LevelRule", patterns: "Mapping[str, Pattern]") -> str:
    if not rule.pattern:
        return "none"
    pattern = patterns.get(rule.pattern)
    length = f" ({pattern.length_s:g} s)" if pattern else ""
    return f"{rule.pattern}{length} on {', '.join(rule.sirens) or 'all'}"


def _plain(plan: "Plan") -> dict[str, Any]:
    """The plan as plain JSON types, its levels by name and its conditions as they are written."""
    levels = {
        rule.level.name: {
            "when": [str(clause) for clause in rule.when],
            "siren": rule.pattern,
            "sirens": list(rule.sirens),
            "text_zh": rule.text_zh,
            "text_en": rule.text_en,
        }
        for rule in plan.levels
    }
    return {**asdict(plan), "quiet_below": plan.quiet_below.name, "levels": levels}


# --- check ----------------------------------------------------------------------------------------


@app.command()
def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE|DIR]…", help="Plan files; else the plans in force."),
    ] = None,
    config: ConfigFile = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Check plan files. Each fault is named with file, line, key and what would be right.

    Sirens that a plan names are looked for in the configuration, where there is one.
    Exits 1 if there is an error; warnings alone exit 0.
    """
    faults, looked_at = _check_all(files, config)
    faults.sort(key=lambda fault: (fault.file, fault.line or 0))
    errors = sum(fault.severity == "error" for fault in faults)
    for fault in faults:
        if as_json:
            output.say_json(asdict(fault))
        else:
            output.say(str(fault))
    if not as_json:
        output.say(f"{looked_at} looked at; {errors} errors, {len(faults) - errors} warnings")
    if errors:
        raise typer.Exit(output.FAULT)


def _check_all(files: list[Path] | None, config: Path) -> "tuple[list[Fault], str]":
    if not files:
        here = _here(config)
        return here.faults, f"{len(here.plans)} plans in force"
    here = _here(config) if config.is_file() else Here({}, {})
    faults: list[Fault] = []
    count = 0
    for path in files:
        paths = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not paths:
            output.fail(f"{path}: no .toml file in it", output.WRONG_USE)
        count += len(paths)
        faults += [fault for each in paths for fault in _check_file(each, here)]
        if path.is_dir():
            faults += _twice(paths)
    return faults, f"{count} files"


def _check_file(path: Path, here: Here) -> "Iterator[Fault]":
    from gateway.config import shipped
    from gateway.config.plans import PATTERNS, Found, check_plans, check_reach, faulty, read_plans
    from gateway.plan.files import Limits, PlanError, read_patterns, read_plan
    from gateway.plan.rules import Plan

    source, faults = _source(path)
    if source is None:
        yield from faults
        return
    try:
        if path.name == PATTERNS:
            read_patterns(source.data, str(path))
            return
        plan = read_plan(source.data, str(path))
    except PlanError as error:
        yield from (faulty(source, key, text) for key, text in error.faults)
        if not isinstance(error.rest, Plan):
            return
        plan = error.rest
    # Patterns are the shipped ones and those beside the file, as where it will be in force.
    patterns = _patterns_beside(path, read_plans())
    sirens = here.sirens
    if sirens is None:
        sirens = {name: Limits() for rule in plan.levels for name in rule.sirens}
    found = Found({plan.hazard: plan}, patterns, sources={plan.hazard: source})
    yield from check_plans(found, sirens, datetime.now(UTC).date())
    yield from check_reach(found, here.compiled.scales if here.compiled else shipped.scales())


def _source(path: Path) -> "tuple[Source | None, Sequence[Fault]]":
    """The file as read, or None and why."""
    from gateway.config.faults import ConfigError
    from gateway.config.source import read

    try:
        return read(path), ()
    except ConfigError as error:
        return None, error.faults


def _patterns_beside(path: Path, shipped: "Found") -> "dict[str, Pattern]":
    from gateway.config.plans import PATTERNS
    from gateway.plan.files import PlanError, read_patterns

    beside = path.parent / PATTERNS
    source = _source(beside)[0] if beside.is_file() else None
    if source is None:
        return shipped.patterns
    try:
        own = read_patterns(source.data, str(beside))
    except PlanError as error:  # told when that file itself is checked
        own = error.rest if isinstance(error.rest, tuple) else ()
    return shipped.patterns | {pattern.name: pattern for pattern in own}


def _twice(paths: Iterable[Path]) -> "Iterator[Fault]":
    """Two plans of one folder for the same hazard: only one can be in force."""
    from gateway.config.plans import PATTERNS, faulty

    first: dict[Any, Path] = {}
    for path in paths:
        source = _source(path)[0] if path.name != PATTERNS else None
        if source is None:
            continue
        head = source.data.get("plan")
        hazard = head.get("hazard") if isinstance(head, dict) else None
        if isinstance(hazard, str) and first.setdefault(hazard, path) != path:
            text = f"{hazard}; expected one plan a hazard, {first[hazard]} is another"
            yield faulty(source, "plan.hazard", text)


def _read(path: Path) -> "Plan":
    """The plan in a file, or leave with its faults."""
    from gateway.config.plans import faulty
    from gateway.plan.files import PlanError, read_plan

    source, faults = _source(path)
    if source is not None:
        try:
            return read_plan(source.data, str(path))
        except PlanError as error:
            faults = [faulty(source, key, text) for key, text in error.faults]
    print(*faults, sep="\n", file=sys.stderr)  # noqa: T201  the command's own output
    raise typer.Exit(output.FAULT)


# --- diff -----------------------------------------------------------------------------------------


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="The plan file that is.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The plan file that is to be.")],
    as_json: AsJson = False,
) -> None:
    """Compare two plan files level by level: what - goes, what + comes.

    Order and layout of the files do not matter; what the plans do does.
    """
    old, new = (_plain(_read(path)) for path in (a, b))
    changes = list(_changes(old, new))
    for where, key, gone, come in changes:
        if as_json:
            output.say_json({"where": where, "key": key, "from": gone, "to": come})
            continue
        output.say(f"{where} {key}")
        for sign, values in (("-", gone), ("+", come)):
            for value in values if isinstance(values, list) else [values]:
                if value not in (None, ""):
                    output.say(f"  {sign} {value}")
    if not as_json and not changes:
        output.say("the same plan")


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Any]]:
    """Where, key, what goes, what comes; of lists only what is not in both."""
    for key in old:
        if key not in ("levels", "file") and old[key] != new[key]:
            yield "plan", key, old[key], new[key]
    for level in ("red", "orange", "yellow", "blue"):
        was, is_now = old["levels"].get(level, {}), new["levels"].get(level, {})
        for key in was or is_now:
            gone, come = was.get(key), is_now.get(key)
            if gone == come:
                continue
            if key in ("when", "sirens") and sorted(gone or []) != sorted(come or []):
                gone, come = (
                    [x for x in gone or [] if x not in (come or [])],
                    [x for x in come or [] if x not in (gone or [])],
                )
            yield f"level {level}", key, gone, come


# --- try ------------------------------------------------------------------------------------------


EVERY_S = 60
"""How far apart typed readings are that last from one time to another."""


@app.command("try")
def attempt(  # noqa: PLR0913  each is an option of the command
    hazard: HazardName,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]…", help="Recordings, as for `gateway replay`."),
    ] = None,
    *,
    readings: Annotated[
        list[str] | None,
        typer.Option(
            "--reading",
            metavar="QUANTITY=VALUE@TIME[/TIME]",
            help="A reading at a time, or steady ones from one time to another: "
            "wind_mps=25.1@2026-08-01T10:00Z/2026-08-01T10:10Z. They go through the scales.",
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="What the plan's conditions compare, at one moment: intensity=5.2, scale=red.",
        ),
    ] = None,
    every_s: Annotated[
        float, typer.Option("--every", metavar="S", min=0.1, help="Spacing of steady readings.")
    ] = EVERY_S,
    file: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Try this plan instead of the one in force."),
    ] = None,
    config: ConfigFile = CONFIG,
    inventory: InventoryFile = None,
    sensitivity: SensitivityText = None,
    as_json: AsJson = False,
) -> None:
    """Say what a plan would do on recordings or readings, and why. Nothing sounds.

    Exits 1 where a recording can't be read, whatever the plan makes of the rest.
    """
    here = _here(config)
    plan = _of(here, hazard) if file is None else _read(file)
    if plan.hazard != hazard:
        output.fail(f"{file} is a plan for {plan.hazard}, not for {hazard}", output.WRONG_USE)
    given = [
        name for name, x in (("files", files), ("--reading", readings), ("--set", values)) if x
    ]
    if len(given) != 1:
        what = " and ".join(given) or "nothing to try"
        output.fail(f"{what}; give files, or --reading, or --set", output.WRONG_USE)
    if values:
        _try_values(plan, here, values, as_json=as_json)
        return
    series = _typed(readings or (), every_s, here)
    sensitivities = _sensitivities(inventory, sensitivity)
    _try_run(plan, here, files or (), series, sensitivities, as_json=as_json)


def _inputs(plan: "Plan", values: Iterable[str]) -> dict[str, float | str | None]:
    from gateway.events import Level
    from gateway.plan.rules import QUANTITIES

    known = QUANTITIES[plan.hazard]
    inputs: dict[str, float | str | None] = {}
    for text in values:
        name, _, value = text.partition("=")
        if name not in known:
            there = "".join(f"\n  {key}: {quantity.meaning}" for key, quantity in known.items())
            output.fail(f"no quantity {name!r}; there are{there}", output.WRONG_USE)
        if name == "scale":
            if value not in Level.__members__:
                wanted = "blue, yellow, orange or red"
                output.fail(f"{text!r}; expected scale= and {wanted}", output.WRONG_USE)
            inputs[name] = float(Level[value])
            continue
        try:
            inputs[name] = float(value)
        except ValueError:
            output.fail(f"{text!r}; expected {name}= and a number", output.WRONG_USE)
    return inputs


def _try_values(plan: "Plan", here: Here, values: Iterable[str], *, as_json: bool) -> None:
    """The plan's conditions on quantities of one moment."""
    from gateway.events import NS, Alert, Level, Phase, Status
    from gateway.plan.texts import worded

    inputs = _inputs(plan, values)
    found = plan.match(inputs)
    rule, clause = found or (None, None)
    if rule is not None and clause is not None:
        inputs["basis"] = "predicted" if clause.predicted else "observed"
        grade = "predicted_intensity" if clause.predicted else "intensity"
        inputs["grade"] = inputs.get(grade, inputs.get("value"))
    station = here.compiled.station.name if here.compiled else "station"
    level = rule.level if rule else Level.none
    alert = Alert("", "", plan.hazard, level, Phase.alert, Status.actual, NS, "", inputs=inputs)
    zh, en = worded(alert, plan, station) if rule else ("", "")
    clauses = [(rule, clause) for rule in plan.levels for clause in rule.when]
    if as_json:
        output.say_json(
            {
                "hazard": plan.hazard.value,
                "plan": f"{plan.hazard} {plan.version}",
                "level": level.name,
                "reason": str(clause) if clause else "",
                "siren": rule.pattern if rule else "",
                "conditions": [
                    {"level": r.level.name, "when": str(c), "holds": c.holds(inputs)}
                    for r, c in clauses
                ],
                "text_zh": zh,
                "text_en": en,
            }
        )
        return
    output.say(f"{plan.hazard} {plan.version} ({plan.file})")
    for r, c in clauses:
        output.say(f"  {r.level.name:6} {'holds' if c.holds(inputs) else 'no   '}  {c}")
    if rule is None:
        output.say("no level: nothing is alerted and no siren sounds")
        return
    output.say(f"{level.name}, because {clause}")
    output.say(f"  siren  {_siren(rule, here.patterns)}")
    output.say(f"  tells  {', '.join(rule.audiences or plan.audiences)}")
    output.say(f"  {zh}\n  {en}")


def _typed(texts: Iterable[str], every_s: float, here: Here) -> "list[Series]":
    """Readings that were typed, as one sensor's series."""
    from gateway.drill.recording import QUANTITIES, Series
    from gateway.events import NS, Reading, parse_iso, parse_micro

    name = here.compiled.station.name if here.compiled else "typed"
    readings = []
    for text in texts:
        what, at, when = text.partition("@")
        quantity, _, value = what.partition("=")
        if quantity not in QUANTITIES:
            there = ", ".join(QUANTITIES)
            output.fail(
                f"no quantity {quantity!r} in {text!r}; there are {there}", output.WRONG_USE
            )
        try:
            micro = parse_micro(value)
            begin, *end = [parse_iso(part) for part in when.split("/", 1)]
        except ValueError as error:
            form = f"{quantity}=VALUE@TIME or @TIME/TIME, such as @2026-08-01T10:00:00Z"
            said = f": {error}" if at else ""
            output.fail(f"{text!r}{said}; expected {form}", output.WRONG_USE)
        last = end[0] if end else begin
        if last < begin:
            output.fail(f"{text!r} ends before it begins", output.WRONG_USE)
        step = round(every_s * NS)
        readings += [Reading(name, t, quantity, micro) for t in range(begin, last + 1, step)]
    readings.sort(key=lambda reading: reading.time_ns)
    return [Series(name, tuple(readings))] if readings else []


def _sensitivities(inventory: Path | None, text: str | None) -> dict[str, Any]:
    from gateway.detect.settings import Sensitivity
    from gateway.drill.recording import RecordingError, read_inventory

    try:
        known = read_inventory(inventory) if inventory else None
        rest = Sensitivity.parse(text) if text else None
    except (RecordingError, ValueError) as error:
        output.fail(str(error), output.WRONG_USE)
    return {"inventory": known, "sensitivity": rest}


def _try_run(
    plan: "Plan",
    here: Here,
    paths: Sequence[Path],
    series: "Sequence[Series]",
    sensitivities: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """The data through the core with this plan alone, so that no other hazard sounds."""
    from gateway.drill.replay import Replay, default_base

    base = here.compiled or default_base()
    run = Replay(
        replace(base, plans=(plan,), patterns=tuple(here.patterns.values())), **sensitivities
    )
    alerts = 0
    standing: dict[str, str] = {}
    if not as_json:
        output.say(f"{plan.hazard} {plan.version} ({plan.file})")
    for record in run.run(paths, series):
        if record["type"] not in ("quality", "level", "alert", "siren"):
            continue
        if record["type"] == "alert":
            alerts += record["phase"] == "alert"
            standing[record["id"]] = record["level"]
        if as_json:
            output.say_json(record)
        else:
            output.say(_step(record))
    for fault in run.summary.faults:
        print(f"gateway: {fault}", file=sys.stderr)  # noqa: T201  the command's own output
    if not as_json:
        for line in _outcome(plan, alerts, standing, run.summary.alerts_disabled):
            output.say(line)
    if run.summary.faults:
        raise typer.Exit(output.FAULT)


def _outcome(
    plan: "Plan", alerts: int, standing: Mapping[str, str], disabled: str
) -> Iterator[str]:
    """What is left where the data end. ``standing`` is the last level of each alert."""
    for alert, level in standing.items():
        if level != "none":
            yield f"{alert} is still {level} where the data end"
    why = f": {disabled}" if disabled and not alerts else ""
    yield f"{alerts} alerts by {plan.hazard} {plan.version}{why}"


def _step(record: Mapping[str, Any]) -> str:
    """What happened, with why: one record for people."""
    at = record["time"]
    if record["type"] == "siren":
        why = f": {record['reason']}" if record["reason"] else ""
        what = f"{record['siren']} {record['action']} {record['pattern']}{why}"
        return f"{at}  siren  {what}"
    if record["type"] == "quality":
        return f"{at}  data   {record['channel']} {record['kind']}: {record['detail']}"
    if record["type"] == "level":
        window_h = record["window_h"] or 0
        window = f" in {window_h:g} h" if window_h >= 1 else f" in {window_h * 60:g} min"
        window = window if window_h else ""
        seen = f"{record['value']:g} {record['unit']}{window} by {record['scale']}"
        return f"{at}  scale  {record['level']}: {record['sensor']} has {seen}"
    numbers = (
        f"{key} {value:g}"
        for key, value in record["inputs"].items()
        if isinstance(value, float)
        and key not in ("scale", "grade", "value", "window_h", "reminder")
    )
    lines = [f"{at}  {record['phase']:6} {record['level']}, because {record['reason']}"]
    if shown := ", ".join(numbers):
        lines.append(f"  with   {shown}")
    lines.append(f"  tells  {', '.join(record['audiences'])}")
    lines += [f"  {record['text_zh']}", f"  {record['text_en']}"]
    return "\n".join(lines)
