"""``gateway siren``: list, sound, silence and test the sirens by hand."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output
from gateway.cli.arm import tell
from gateway.cli.check import siren_row
from gateway.cli.options import RUN, STATE, AsJson, RunDir, StateDir

if TYPE_CHECKING:
    from gateway.core.compiled import Compiled, Siren
    from gateway.plan.rules import Pattern

_OFF_TIMEOUT_S = 1.0
"""A core that has not answered by then hangs, and a siren waits for nobody."""

_SELF_TEST_S = 10.0

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
            **siren_row(siren),
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
    """Silence what sounds now. No alert ends by it, and one that rises sounds again.

    Where the core does not answer within a second, the sirens' own ports are opened, all at once,
    and each is silenced and read back, which takes 1.5 s at most; with --all that is done besides.
    Opening ports needs root, asking the core only membership of gateway-admin.
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
def try_out(
    *,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="These sirens. Else all.")
    ] = None,
    silent: Annotated[
        bool, typer.Option("--silent", help="Only the self-test that nobody hears.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    state: StateDir = STATE,
    run: RunDir = RUN,
) -> None:
    """Test sirens: unheard, then by a chirp.

    First each is told to be silent and read back.

    With a running core each then chirps: proof that it sounds, too short to be taken for an alarm.

    Without one this is the bench: after asking, a relay board is sounded for up to six seconds to
    find out whether a timed pulse that is sent again restarts its timer, and the setting that is
    right for it is printed.
    """
    from gateway.core.control import ControlError, call

    compiled = _compiled(state)
    chosen = _chosen(compiled, names)
    try:
        call(run / "control.sock", {"do": "status"})
    except ControlError as error:
        if "not running" not in str(error):
            output.fail(str(error))
        _bench(compiled, chosen, silent=silent, yes=yes)
        return
    _self_test(run, chosen)
    if not silent:
        _must_be_able(run, chosen)
        _sound(run, "chirp", chosen)


def _self_test(run: Path, names: list[str]) -> None:
    """The core's own self-test, now; leaves with 1 where one fails."""
    tell(run, {"do": "siren_self_test", "sirens": names})
    end = time.monotonic() + _SELF_TEST_S
    while True:
        found = {
            name: test
            for name, siren in tell(run, {"do": "status"})["sirens"].items()
            if name in names and (test := siren["self_test"])
        }
        if all(test["result"] != "running" for test in found.values()):
            break
        if time.monotonic() > end:
            output.fail("the core does not end its self-test; see its log")
        time.sleep(0.05)  # between two looks at the core
    for name, test in found.items():
        output.say(f"{name}: silent self-test {test['result']}: {test['detail']}")
    if any(test["result"] == "failed" for test in found.values()):
        raise typer.Exit(output.FAULT)


def _bench(compiled: "Compiled", names: list[str], *, silent: bool, yes: bool) -> None:
    """Tests on the sirens' own ports; leaves with 1 where one fails or can't be made."""
    from gateway.siren.on_the_bench import BenchError, silent_test

    fine = True
    for siren in (siren for siren in compiled.sirens if siren.name in names):
        try:
            passed, text = silent_test(siren)
            output.say(f"{siren.name}: silent self-test {'passed' if passed else 'FAILED'}: {text}")
            fine &= passed
            if passed and not silent:
                fine &= _measure(siren, yes=yes)
        except BenchError as error:
            output.say(f"{siren.name}: not tested: {error}")
            fine = False
    if not fine:
        raise typer.Exit(output.FAULT)


def _measure(siren: "Siren", *, yes: bool) -> bool:
    """What the board does with a pulse that is sent again; whether the settings fit it."""
    from gateway.siren.on_the_bench import pulse_test
    from gateway.siren.pulse_test import PulseTest

    if not siren.driver.endswith("modbus_relay:ModbusRelay"):
        output.say(f"{siren.name}: nothing to measure; start the core to let it chirp")
        return True
    longest_s = 2 * PulseTest(siren.options, siren.unit).pulse_s
    text = f"{siren.name} will SOUND for up to {longest_s:g} s to measure its timer; go on?"
    if not yes and not typer.confirm(text):
        output.fail("nothing was sounded")
    finding = pulse_test(siren)
    if finding is None or not finding.known:
        why = finding.text if finding else "the board stopped answering"
        output.say(f'{siren.name}: not known: {why}; leave pulse_restarts = "unknown"')
        return False
    output.say(f"{siren.name}: {finding.text}")
    key, _, value = finding.settings.partition(" = ")
    now = siren.options.get(key, "unknown" if key == "pulse_restarts" else 3.0)
    if str(now) == value.strip('"'):
        output.say(f"{siren.name}: its profile already says so: {finding.settings}")
    else:
        output.say(
            f"{siren.name}: the right setting is  options = {{ {finding.settings} }}  in its "
            f"[[siren]] (now {key} = {now!r}); then gateway apply"
        )
    return True


def _compiled(state: Path) -> "Compiled":
    """What the core runs on; why it could not be had in full goes to standard error."""
    from gateway.core.__main__ import load_compiled

    compiled, problem = load_compiled(state)
    if not os.access(state, os.X_OK) and state.exists():
        output.fail(f"{state}: permission denied; be root")
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
