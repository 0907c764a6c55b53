"""``gateway simulate``: be a device on a pseudo-terminal, until interrupted."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import options, output
from gateway.drill.interrupt import Interrupt


def simulate(  # noqa: PLR0913, PLR0917  one argument for each option of the command
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile's name, or a profile file.")
    ],
    link: Annotated[
        Path, typer.Option(metavar="PATH", help="Becomes a symbolic link to the terminal.")
    ],
    play: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What the sensor measures: waveform, CSV of readings or capture.",
        ),
    ] = None,
    speed: Annotated[
        float, typer.Option(metavar="X", min=0.001, help="Play readings X times as fast.")
    ] = 1.0,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A line of JSON for each relay's change.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND@T[:SECONDS]",
            help="After T seconds: garbage, silence, unplug or power. May be repeated.",
        ),
    ] = None,
    station: Annotated[
        str | None, typer.Option(metavar="NET.STA", help="Which station of FILE to play.")
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring FILE to the device's rate.")
    ] = False,
    scale: Annotated[
        float | None, typer.Option(metavar="COUNTS", help="Counts for one unit of FILE.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of the driver, over the profile's."),
    ] = None,
) -> None:
    """Be the device of PROFILE on a pseudo-terminal, until interrupted.

    Prints `ready PATH` once a host can open PATH. Sensors play FILE from the moment on at which
    they are first asked for data, else quiet noise, no rain, calm.
    """
    from gateway.config.faults import ConfigError
    from gateway.drill import devices
    from gateway.drill.stage import Fault, Stage
    from gateway.drill.stage import play as run

    with ExitStack() as stack:
        try:
            chosen = devices.profile_of(profile, options.CONFIG)
            faults = [Fault.parse(text) for text in fault or ()]
            over = devices.read_assignments(option or ())
            what = devices.Play(play, speed, station, resample, scale, seed, over)
            device = devices.simulator(chosen, what)
            writer = stack.enter_context(log.open("a", encoding="utf-8")) if log else None
            baud = chosen.port.baud if chosen.port else 9600
            stage = Stage(device, link.absolute(), baud=baud, faults=faults, log=writer, seed=seed)
            stop = stack.enter_context(Interrupt())
            stack.callback(stage.end)
            stage.begin(time.monotonic_ns())
        except (ConfigError, ValueError) as error:
            output.fail(str(error), output.WRONG_USE)
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            output.fail(reason, output.WRONG_USE)
        output.say(f"ready {link}")
        run([stage], stop.fileno())
