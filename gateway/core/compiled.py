"""The compiled configuration: what the core loads, and all it knows of what people wrote.

``gateway apply`` writes it as JSON after pydantic has checked everything; the core only turns it
back into these frozen dataclasses. Nothing here imports pydantic or reads TOML.
"""

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gateway.detect.scale import Scale
from gateway.detect.settings import SeismicSettings, Sensitivity
from gateway.plan.rules import Pattern, Plan

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Station:
    """``[station]`` of gateway.toml."""

    id: str
    name: str
    city: str
    network: str = "XX"
    code: str = "STA"
    latitude: float = 0.0
    longitude: float = 0.0
    elevation_m: float = 0.0


@dataclass(frozen=True, slots=True)
class Site:
    """``[site]``: how many sensors must trigger within which time to count as one shaking."""

    votes: int = 2
    window_s: float = 2.0
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Port:
    """One serial line. ``dtr`` ``reset`` pulses it at opening, for boards that reset on DTR."""

    path: str
    baud: int = 9600
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1
    dtr: Literal["high", "low", "reset"] = "high"
    rts: Literal["high", "low"] = "high"


@dataclass(frozen=True, slots=True)
class Bridge:
    """A port on a network, served as a socket. ``port``: how the line at its far end is set.

    ``accept`` are the addresses whose datagrams are taken; everybody's where there is none.
    """

    name: str
    url: str
    port: Port
    accept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of a digitiser: its NET.STA.LOC.CHA and, where known, its sensitivity."""

    id: str
    sensitivity: Sensitivity | None = None


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor on its own port. ``driver`` is ``module:Class``.

    ``counter_wrap_micro`` is where its rain counter begins again at 0, millionths of a mm.
    """

    name: str
    port: Port
    driver: str
    kind: Literal["seismic", "scalar"]
    options: dict[str, Any] = field(default_factory=dict)
    channels: tuple[Channel, ...] = ()
    rate_hz: float = 0.0
    silent_after_s: float = 5.0
    counter_wrap_micro: int | None = None


@dataclass(frozen=True, slots=True)
class Siren:
    """One siren; those with the same port path share a driver. ``unit``: address, relay …."""

    name: str
    port: Port | None
    driver: str
    options: dict[str, Any] = field(default_factory=dict)
    unit: dict[str, Any] = field(default_factory=dict)
    max_on_s: float = 300.0
    max_hour_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Compiled:
    """Everything that the core needs to run."""

    station: Station
    sensors: tuple[Sensor, ...] = ()
    sirens: tuple[Siren, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    site: Site = field(default_factory=Site)
    seismic: SeismicSettings = field(default_factory=SeismicSettings)
    scales: tuple[Scale, ...] = ()
    plans: tuple[Plan, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    keys: dict[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    format: int = FORMAT
    source: str = ""


T = TypeVar("T")


def _decode(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type that ``hint`` names."""
    if hint is Any:
        return value
    decoder = _BY_ORIGIN.get(get_origin(hint))
    if decoder is not None:
        return decoder(get_args(hint), value, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return decode(hint, value, where)
    return _plain(hint, value, where)


def _plain(hint: type, value: Any, where: str) -> Any:
    if issubclass(hint, Enum):
        return hint[value] if isinstance(value, str) and value in hint.__members__ else hint(value)
    if hint is float and type(value) is int:
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where}: {value!r} is no {hint.__name__}")
    return value


def _union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    return _decode(next(a for a in args if a is not type(None)), value, where)


def _literal(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in args:
        raise ValueError(f"{where}: {value!r} is none of {args}")
    return value


def _tuple(args: tuple[Any, ...], value: Any, where: str) -> Any:
    kinds = [args[0]] * len(value) if args[1:] == (Ellipsis,) else args
    if len(kinds) != len(value):
        raise ValueError(f"{where}: {len(value)} values; expected {len(kinds)}")
    return tuple(_decode(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))  # noqa: B905  checked


def _dict(args: tuple[Any, ...], value: Any, where: str) -> Any:
    return {
        _decode(args[0], k, where): _decode(args[1], v, f"{where}.{k}") for k, v in value.items()
    }


_BY_ORIGIN: dict[Any, Callable[[tuple[Any, ...], Any, str], Any]] = {
    Union: _union,
    types.UnionType: _union,
    Literal: _literal,
    tuple: _tuple,
    dict: _dict,
}


def decode(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """A frozen dataclass from plain JSON types, nested ones included.

    Raises:
        ValueError: a key is unknown or missing, or a value is of the wrong type; says which.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where or cls.__name__}: {data!r} is no table")  # noqa: TRY004  one error type
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise ValueError(f"{where}.{key}: unknown; there are {', '.join(known)}")
    values = {}
    for name, spec in known.items():
        if name in data:
            values[name] = _decode(hints[name], data[name], f"{where}.{name}")
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise ValueError(f"{where}.{name}: missing")
    return cls(**values)


def load(path: Path) -> Compiled:
    """Load a compiled configuration.

    Raises:
        OSError: it can't be read.
        ValueError: it is not what this version compiles.
    """
    data = json.loads(path.read_bytes())
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"{path}: not a compiled configuration of format {FORMAT}")
    return decode(Compiled, data)
