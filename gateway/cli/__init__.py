"""The ``gateway`` command: what a technician types over SSH.

Each command lives in the module of its name beside this one and is imported only when it runs, so
that ``gateway --help`` is quick and a library that one command misses stops that command alone.
A module holds either a function of the command's name or, for a command with sub-commands, a
``typer.Typer`` called ``app``.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from gateway.cli import output

COMMANDS = {
    "check": "Check the configuration and say what it means; every fault at once.",
    "apply": "Check the configuration and install it for the core.",
    "run": "Run core and uplink together, for a desk or a demo.",
    "core": "Run the core: sensors, detection, plan, sirens.",
    "uplink": "Run the uplink: outbox, MQTT, telemetry, archive.",
    "bridge": "Run the bridge: ports on a network, served to the core.",
    "status": "Say how the running gateway does.",
    "monitor": "Watch readings and events as they come.",
    "ports": "List serial ports and what they look like.",
    "doctor": "Look for what would keep this station from working.",
    "device": "Set a device by its profile, and prove by read-back that it took.",
    "simulate": "Be a device on a pseudo-terminal.",
    "replay": "Run recordings through the core, as fast as it goes.",
    "capture": "Record a device's raw bytes, to replay them at a desk.",
    "tune": "Look at a station's noise: bands, models, false triggers, settings that fit.",
    "stationxml": "Write the station's StationXML: channels, coordinates, responses.",
    "plot": "Draw a recording with its onsets.",
    "explain": "Say why an alert was raised: inputs, rule, clock.",
    "siren": "Sound, silence or test a siren.",
    "plan": "Show, check, compare and try the emergency plans.",
    "arm": "Arm the sirens.",
    "disarm": "Disarm the sirens for a stated time.",
    "maintain": "Say that a gauge is worked on: what it says is no measurement.",
    "demo": "A recorded earthquake and rainstorm through the whole gateway.",
    "hub": "The city's side: watch stations.",
}
"""Every command with its one line of help, in the order in which ``--help`` shows them."""

_HERE = Path(__file__).parent


def _module(name: str) -> str:
    return f"gateway.cli.{name}"


def _present(name: str) -> bool:
    return (_HERE / f"{name}.py").is_file()


def _load(name: str) -> Any:
    """The command itself, its module imported now."""
    try:
        module = import_module(_module(name))
    except ImportError as error:
        output.fail(f"{name}: {error}; install what is missing, other commands are not affected")
    if not isinstance(app := getattr(module, "app", None), typer.Typer):
        app = _typer()
        app.command(name, help=None)(getattr(module, name))
    loaded = get_command(app)
    loaded.name = name
    return loaded


class _Commands(TyperGroup):
    """Names come from the table above; the code behind a name is imported when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  the signature is the base's
        return [name for name in COMMANDS if _present(name)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What ``--help`` needs to list a command: its name and its one line."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return TyperCommand(cmd_name, short_help=COMMANDS[cmd_name], rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and name and _load(name), rest


def _typer(**settings: Any) -> typer.Typer:
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


app = _typer(cls=_Commands, no_args_is_help=True)


def _version(asked: bool) -> None:
    if asked:
        from gateway import __version__

        output.say(f"gateway {__version__}")
        raise typer.Exit


@app.callback()
def _gateway(
    _asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Edge gateway of a city's early-warning network.

    Exit codes: 0 fine, 1 found a fault, 2 wrong use.
    """


def main() -> None:
    """Entry point of the ``gateway`` script: a user's mistake gives a line, never a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(output.FAULT)
    except OSError as error:
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201  the command's own output
        sys.exit(output.FAULT)
    except ValueError as error:
        # Only a command that reads the configuration has imported what this one would be.
        config = sys.modules.get("gateway.config")
        if config is None or not isinstance(error, config.ConfigError):
            raise
        print(error, file=sys.stderr)  # noqa: T201  the command's own output
        sys.exit(output.FAULT)
