"""The profile of one device as a command names it, and its simulator with what it measures."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import drivers, siren
from gateway.config import profiles
from gateway.config.profiles import Profile
from gateway.drill import sources
from gateway.drill.sources import SourceError
from gateway.drivers import Simulator
from gateway.drivers.capture import Capture, Player


def profile_of(name: str, config: Path) -> Profile:
    """A profile by its name, looked for as for the ``config`` file, or by its own file.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return profiles.load(path.stem, [path.parent])[0]
    return profiles.load(name, profiles.folders(config))[0]


def read_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Driver options from ``KEY=VALUE``, values as in TOML; what is no TOML is text.

    Raises:
        ValueError: another form.
    """
    table: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not key or not equals:
            raise ValueError(f"option {text!r}: expected KEY=VALUE, as rate_hz=200")
        try:
            table[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            table[key] = value
    return table


@dataclass(frozen=True, slots=True)
class Play:
    """What a simulated sensor measures; without a file quiet noise, or nothing.

    ``speed`` is for readings alone. ``station``, ``resample`` and ``scale`` are those of
    :func:`gateway.drill.sources.waveform`; ``seed`` is that of the noise. ``options`` go over the
    driver's options of the profile, as those of a sensor in gateway.toml do.
    """

    file: Path | None = None
    speed: float = 1.0
    station: str | None = None
    resample: bool = False
    scale: float | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


def simulator(profile: Profile, play: Play) -> Simulator:
    """The profile's device.

    Raises:
        SourceError: it can't play that.
        RecordingError: the file can't be read.
        ValueError: an option is wrong.
        KeyError: there is no such driver.
        OSError: the file can't be opened.
    """
    head = profile.profile
    options = {**profile.driver, **play.options}
    if head.kind == "siren":
        return _siren(profile, options, play)
    driver = drivers.load(head.driver)
    made = driver(options)
    if play.file is not None and Capture.recognises(play.file):
        return Player(Capture.open(play.file))
    source: drivers.Source
    if head.kind == "scalar":
        quantities = [channel.quantity for channel in profile.channel if channel.quantity]
        source = (
            sources.readings(play.file, quantities, play.speed) if play.file else sources.Quiet(1.0)
        )
    elif play.speed != 1.0:
        raise SourceError("a seismometer plays at its own rate; leave --speed out")
    elif play.file is None:
        source = sources.Quiet(made.rate_hz, made.channels, play.seed)
    else:
        source = sources.waveform(
            play.file,
            [channel.code or "" for channel in profile.channel],
            made.rate_hz,
            station=play.station,
            resample=play.resample,
            scale=play.scale,
            seed=play.seed,
        )
    device: Simulator = driver.simulator(options, source)
    return device


def _siren(profile: Profile, options: Mapping[str, Any], play: Play) -> Simulator:
    name = profile.profile.name
    if play.file is not None:
        raise SourceError(f"{name}: a siren plays no file")
    kind = siren.load(profile.profile.driver).simulator
    if kind is None:
        raise SourceError(f"{name}: has no device that could be simulated")
    unit = profile.siren.unit if profile.siren else {}
    address = {"address": unit["address"]} if "address" in unit else {}
    device: Simulator = kind({**address, **options})
    return device
