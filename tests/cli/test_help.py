"""The command says what there is, quickly, and one broken command stops no other."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway import __version__, cli

PRESENT = [name for name in cli.COMMANDS if (Path(cli.__file__).parent / f"{name}.py").is_file()]

HEAVY = ("pydantic", "numpy", "rich", "obspy", "paho", "asyncio", "ssl")


def test_help_lists_every_command_with_one_line() -> None:
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    for name in PRESENT:
        assert f"  {name} " in result.stdout
        assert cli.COMMANDS[name][:40] in result.stdout


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = (
        "import sys; from gateway.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
        "print([m for m in sys.modules if m.startswith('gateway.cli.')], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.splitlines() == ["[]", "['gateway.cli.output']"]


@pytest.mark.parametrize("name", PRESENT)
def test_each_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.stdout
    assert len(result.stdout.splitlines()) > 4


def test_every_command_module_can_be_reached() -> None:
    shared = {"__init__", "__main__", "options", "output"}
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")} - shared
    assert modules <= set(cli.COMMANDS)


def test_a_library_that_one_command_misses_stops_that_command_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gateway.cli.apply", None)
    runner = CliRunner()
    broken = runner.invoke(cli.app, ["apply"])
    assert broken.exit_code == 1
    assert broken.stderr.startswith("gateway: apply: ")
    assert "other commands are not affected" in broken.stderr
    assert runner.invoke(cli.app, ["check", "--help"]).exit_code == 0
    assert runner.invoke(cli.app, ["--help"]).exit_code == 0


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["check", "--no-such-option"], ["check", "--config"]]
)
def test_wrong_use_exits_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_the_version_is_the_package_s() -> None:
    result = CliRunner().invoke(cli.app, ["--version"])
    assert result.stdout == f"gateway {__version__}\n"


def test_it_runs_as_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"gateway {__version__}\n"
