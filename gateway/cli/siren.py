"""``gateway siren``: list, sound, silence and test the sirens by hand."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output
from gateway.cli.arm import tell
from gateway.cli.options import RUN, STATE, AsJson, RunDir, StateDir

if TYPE_CHECKING:
    from gateway.core.compiled import Compiled
    from gateway.plan.rules import Pattern

_OFF_TIMEOUT_S = 1.0
"""A core that has not answered by then hangs, and a siren waits for nobody."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Sound, silence or test a siren.",
)

Names = Annotated[
    list[str] | None,
    typer.Option("--siren", metavar="NAME", help="This siren; may be repeated. Else all."),
]


@app.callback()
def _siren() -> None:
    """Sirens by hand. Exit codes: 0 done, 1 not done or not confirmed, 2 wrong use."""


@app.command("list")
def show(state: StateDir = STATE, run: RunDir = RUN, as_json: AsJson = False) -> None:
    """List the sirens, their limits, and what each does now."""
    from gateway.core.control import ControlError, call

    compiled = _compiled(state)
    try:
        now: dict[str, Any] = call(run / "control.sock", {"do": "status"})["sirens"]
        unknown = "not known to the running core: restart it"
    except ControlError as error:
        now, unknown = {}, "unknown"
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201  the command's own output
    rows = [
        {
            "name": siren.name,
            "now": _doing(now[siren.name]) if siren.name in now else unknown,
            "port": siren.port and siren.port.path,
            "driver": siren.driver.rpartition(":")[2],
            "unit": ", ".join(f"{key} {value}" for key, value in siren.unit.items()),
            "max_on_s": siren.max_on_s,
            "max_hour_s": siren.max_hour_s,
        }
        for siren in compiled.sirens
    ]
    output.show(rows, list(rows[0]) if rows else ["name"], as_json=as_json)
    if not as_json:
        output.say("patterns: " + ", ".join(_pattern_text(p) for p in compiled.patterns))


@app.command()
def off(
    *,
    names: Names = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Every siren, by the core and past it: nothing needs to run for this."
        ),
    ] = False,
    state: StateDir = STATE,
    run: RunDir = RUN,
) -> None:
    """Silence what sounds now; no alert ends by it, and one that rises sounds again.

    Where the core does not answer, the sirens' own ports are opened and each is silenced and read
    back, within 3 s; so it is with --all in any case.
    """
    if everything and names:
        output.fail("--all is every siren; leave out --siren", output.WRONG_USE)
    from gateway.core.control import ControlError, call

    try:
        call(run / "control.sock", {"do": "siren_off", "sirens": names or []}, _OFF_TIMEOUT_S)
    except ControlError as error:
        if names:
            advice = "gateway siren off --all silences every siren without the core"
            output.fail(f"{error}; {advice}")
        print(f"gateway: {error}; silencing without it", file=sys.stderr)  # noqa: T201  the command's own output
    else:
        output.say("the core was told: " + (", ".join(names) if names else "every siren") + " off")
        if not everything:
            return
    from gateway.core.sirens_off import sirens_off

    compiled = _compiled(state)
    _chosen(compiled, None)
    raise typer.Exit(sirens_off(compiled))


@app.command()
def on(
    pattern: Annotated[str, typer.Argument(help="What to sound; `gateway siren list` names them.")],
    *,
    names: Names = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    state: StateDir = STATE,
    run: RunDir = RUN,
) -> None:
    """Sound a pattern, marked Test, after asking.

    Any real alert comes before it. Air-raid signals are not sounded by hand.
    """
    compiled = _compiled(state)
    known = {p.name: p for p in compiled.patterns}
    if pattern not in known:
        output.fail(f"no pattern {pattern!r}; there are {', '.join(known)}", output.WRONG_USE)
    if known[pattern].civil_defence:
        output.fail(f"{pattern!r} is an air-raid signal; it is never sounded by hand")
    chosen = _chosen(compiled, names)
    _must_be_able(run, chosen)
    text = f"sound {_pattern_text(known[pattern])} on {', '.join(chosen)}, marked Test?"
    if not yes and not typer.confirm(text):
        output.fail("nothing was sounded")
    _sound(run, pattern, chosen)


@app.command("test")
def chirp(names: Names = None, state: StateDir = STATE, run: RunDir = RUN) -> None:
    """Let each siren chirp: proof that it sounds, too short to be taken for an alarm."""
    chosen = _chosen(_compiled(state), names)
    _must_be_able(run, chosen)
    _sound(run, "chirp", chosen)


def _compiled(state: Path) -> "Compiled":
    """What the core runs on; why it could not be had in full goes to standard error."""
    from gateway.core.__main__ import load_compiled

    compiled, problem = load_compiled(state)
    if problem:
        print(f"gateway: {problem}", file=sys.stderr)  # noqa: T201  the command's own output
    return compiled


def _chosen(compiled: "Compiled", names: list[str] | None) -> list[str]:
    there = [siren.name for siren in compiled.sirens]
    if not there:
        output.fail("no siren is configured; add [[siren]] to gateway.toml, then gateway apply")
    for name in names or []:
        if name not in there:
            output.fail(f"no siren {name!r}; there are {', '.join(there)}", output.WRONG_USE)
    return names or there


def _must_be_able(run: Path, names: list[str]) -> None:
    """Leave where the order would be taken and nothing be heard, or be heard later."""
    found = tell(run, {"do": "status"})
    mode, sound = found["arming"]["mode"], found["arming"]["sound"]
    if mode in ("disarmed", "silent") or (mode == "exercise" and sound == "silent"):
        words = "a silent exercise is on" if mode == "exercise" else f"the sirens are {mode}"
        output.fail(f"{words}, nothing would be heard; gateway arm ends it")
    for name in names:
        alert = found["sirens"].get(name, {}).get("alert")
        if alert is not None:
            output.fail(f"{name} is busy with {alert}; gateway siren off silences it")


def _sound(run: Path, pattern: str, names: list[str]) -> None:
    tell(run, {"do": "siren_on", "pattern": pattern, "sirens": names, "status": "Test"})
    output.say(f"{pattern} on {', '.join(names)}; gateway siren off ends it")


def _doing(siren: dict[str, Any]) -> str:
    if siren["on"]:
        return f"sounds {siren['pattern']} for {siren['alert']}"
    return f"pause in {siren['pattern']} for {siren['alert']}" if siren["pattern"] else "silent"


def _pattern_text(pattern: "Pattern") -> str:
    mark = ", by authorised plans only" if pattern.civil_defence else ""
    return f"{pattern.name} ({pattern.length_s:g} s{mark})"
