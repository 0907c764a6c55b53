"""``gateway simulate``: be a device on a pseudo-terminal, until interrupted."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import options, output
from gateway.cli.interrupt import Interrupt

if TYPE_CHECKING:
    from gateway.config.profiles import Profile


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
            metavar="FILE", help="What the sensor measures: a waveform, a CSV of rain, a capture."
        ),
    ] = None,
    speed: Annotated[
        float, typer.Option(metavar="X", min=0.001, help="Play rain X times as fast.")
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
) -> None:
    """Be the device of PROFILE on a pseudo-terminal, until interrupted.

    Prints `ready PATH` once a host can open PATH. Sensors play FILE from the moment on at which
    they are first asked for data, else quiet noise or no rain.
    """
    from gateway.config.faults import ConfigError
    from gateway.drill.recording import RecordingError
    from gateway.drill.sources import SourceError
    from gateway.drill.stage import Fault, Stage
    from gateway.drill.stage import play as run

    with ExitStack() as stack:
        try:
            chosen = _profile(profile)
            faults = [Fault.parse(text) for text in fault or ()]
            device = _device(chosen, play, speed, station, scale, seed, resample=resample)
            writer = stack.enter_context(log.open("a", encoding="utf-8")) if log else None
            baud = chosen.port.baud if chosen.port else 9600
            stage = Stage(device, link.absolute(), baud=baud, faults=faults, log=writer, seed=seed)
            stop = stack.enter_context(Interrupt())
            stack.callback(stage.end)
            stage.begin(time.monotonic_ns())
        except (ConfigError, RecordingError, SourceError, ValueError) as error:
            output.fail(str(error), output.WRONG_USE)
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            output.fail(reason, output.WRONG_USE)
        output.say(f"ready {link}")
        run([stage], stop.fileno())


def _profile(name: str) -> "Profile":
    from gateway.config import profiles

    path = Path(name)
    if path.suffix == ".toml":
        return profiles.load(path.stem, [path.parent])[0]
    return profiles.load(name, profiles.folders(options.CONFIG))[0]


def _device(
    profile: "Profile",
    play: Path | None,
    speed: float,
    station: str | None,
    scale: float | None,
    seed: int,
    *,
    resample: bool,
) -> Any:
    """The simulator of the profile's device with what it is to measure."""
    from gateway import drivers, siren
    from gateway.drill import sources
    from gateway.drivers.capture import Capture, Player

    head = profile.profile
    if head.kind == "siren":
        simulator = siren.load(head.driver).simulator
        if simulator is None:
            raise sources.SourceError(f"{head.name}: has no device that could be simulated")
        if play is not None:
            raise sources.SourceError(f"{head.name}: a siren plays no FILE")
        unit = profile.siren.unit if profile.siren else {}
        address = {"address": unit["address"]} if "address" in unit else {}
        return simulator({**profile.driver, **address})
    if play is not None and Capture.recognises(play):
        return Player(Capture.open(play))
    driver = drivers.load(head.driver)
    if head.kind == "scalar":
        source: Any = sources.Quiet(1.0) if play is None else sources.rain(play, speed)
        return driver.simulator(profile.driver, source)
    if speed != 1.0:
        raise sources.SourceError("--speed: a seismometer plays at its own rate; leave it out")
    rate_hz = driver(profile.driver).rate_hz
    if play is None:
        source = sources.Quiet(rate_hz, len(profile.channel), seed)
    else:
        source = sources.waveform(
            play,
            [channel.code or "" for channel in profile.channel],
            rate_hz,
            station=station,
            resample=resample,
            scale=scale,
            seed=seed,
        )
        typer.echo(f"plays {', '.join(name or 'noise' for name in source.channels)}", err=True)
    return driver.simulator(profile.driver, source)
