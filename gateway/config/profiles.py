"""Device profiles: one TOML file a device model, sensors and sirens alike.

A profile says which driver speaks to a device, how its port is set, how it is recognised, what
its channels are and what its limits are::

    [profile]
    name = "hydreon-rg15"
    title = "Hydreon RG-15 optical rain gauge"
    kind = "scalar"                     # seismic, scalar or siren
    driver = "hydreon_rg15"
    source = "where the facts come from"

    [port]
    baud = 9600

    [[channel]]
    quantity = "rain_total_mm"

The shipped profiles are the folder ``firmware_configs`` of a checkout, ``gateway/firmware_configs``
where the package is installed. A file of the same name in ``profiles`` beside gateway.toml takes
the place of a shipped one.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

import gateway
from gateway.config.faults import ConfigError, Fault, nearest
from gateway.config.models import LocationCode, Options, Response, Table, Word
from gateway.config.source import Source, read
from gateway.config.validate import validate
from gateway.core.compiled import Port
from gateway.detect.settings import Sensitivity
from gateway.events import Quantity

_PORT = Port("")


def _sensitivity(value: Any) -> Any:
    return Sensitivity.parse(value) if isinstance(value, str) else value


class Head(Table):
    """What the device is."""

    name: Word = Field(description="Name of the profile; that of its file")
    title: str = Field(min_length=1, description="Maker and model, for people")
    kind: Literal["seismic", "scalar", "siren"] = Field(description="What the device does")
    driver: Word = Field(description="Driver that speaks to it")
    source: str = Field(min_length=1, description="Where the facts of this file come from")


class PortSettings(Table):
    """How the serial port is set. A device without a port has no such table."""

    baud: int = Field(default=_PORT.baud, ge=50, le=4_000_000, description="Bits per second")
    bytesize: Literal[5, 6, 7, 8] = Field(default=_PORT.bytesize, description="Data bits")
    parity: Literal["N", "E", "O"] = Field(default=_PORT.parity, description="Parity")
    stopbits: Literal[1, 2] = Field(default=_PORT.stopbits, description="Stop bits")
    dtr: Literal["high", "low", "reset"] = Field(
        default=_PORT.dtr, description="DTR line; reset pulses it at opening"
    )
    rts: Literal["high", "low"] = Field(default=_PORT.rts, description="RTS line")


UsbId = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$",
        json_schema_extra={"form": 'vendor and product in hexadecimal, as "1a86:7523"'},
    ),
]


class Recognise(Table):
    """How the device is told from others."""

    usb: list[UsbId] = Field(default_factory=list, description="USB vendor:product numbers")


class Limits(Table):
    """What is not normal for the device."""

    silent_after_s: float = Field(
        default=5.0,
        gt=0,
        le=86_400,
        description="Without data this long the sensor is lost; at least 2.5 times its own spacing",
    )


class Channel(Table):
    """One channel, in the order in which the driver gives them."""

    code: Annotated[str, Field(pattern=r"^[A-Z0-9]{3}$")] | None = Field(
        default=None,
        description="FDSN channel code of a seismic channel",
        json_schema_extra={"form": "3 capitals or digits, as FDSN channel codes are"},
    )
    location: LocationCode = Field(default="", description="FDSN location code")
    sensitivity: Annotated[
        Sensitivity | None,
        BeforeValidator(_sensitivity),
        WithJsonSchema({"type": "string", "form": 'counts per unit such as "6e8:m/s"'}),
    ] = Field(default=None, description="Counts per unit of ground motion, where known")
    azimuth_deg: float | None = Field(
        default=None,
        ge=0,
        lt=360,
        description="Where it points, from north over east; by the code's last letter if not given",
        json_schema_extra={"unit": "°"},
    )
    dip_deg: float | None = Field(
        default=None,
        ge=-90,
        le=90,
        description="Down from the horizontal: -90 is up; by the code's last letter if not given",
        json_schema_extra={"unit": "°"},
    )
    response: Response | None = Field(default=None, description="Of its geophone, where known")
    quantity: Quantity | None = Field(default=None, description="What a scalar channel measures")
    wrap_mm: float | None = Field(
        default=None,
        gt=0,
        description="Where the counter of rain_total_mm begins again at 0, as 6553.6 of 16 bits "
        "of tenths; a counter that falls without one was reset",
    )


class SirenUnit(Table):
    """What tells one siren on the port from another, with defaults, and how long it may sound."""

    model_config = ConfigDict(extra="allow")

    max_on_s: float = Field(default=300.0, gt=0, le=3600, description="Longest sounding at a time")
    max_hour_s: float = Field(default=900.0, gt=0, le=3600, description="Longest in an hour")

    @property
    def unit(self) -> dict[str, Any]:
        """The device's own keys (address, relay …) and their defaults."""
        return dict(self.model_extra or {})


class Profile(Table):
    """All of a profile file."""

    profile: Head
    port: PortSettings | None = None
    recognise: Recognise = Recognise()
    driver: Options = Field(default_factory=dict, description="Options of the driver")
    limits: Limits = Limits()
    channel: list[Channel] = Field(default_factory=list)
    siren: SirenUnit | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kind = self.profile.kind
        if (kind == "siren") != (self.siren is not None):
            raise ValueError(f"kind is {kind!r}; expected a table [siren] in siren profiles only")
        if (kind == "siren") == bool(self.channel):
            raise ValueError(f"kind is {kind!r}; expected [[channel]] in sensor profiles only")
        wanted, other = ("quantity", "code") if kind == "scalar" else ("code", "quantity")
        for index, channel in enumerate(self.channel):
            if getattr(channel, wanted) is None or getattr(channel, other) is not None:
                raise ValueError(
                    f"channel[{index}] of a {kind} profile; expected {wanted} and no {other}"
                )
            if channel.wrap_mm is not None and channel.quantity != "rain_total_mm":
                raise ValueError(
                    f"channel[{index}].wrap_mm: {channel.wrap_mm:g} for {channel.quantity}; "
                    "expected it of rain_total_mm alone"
                )
        names = Counter((c.location, c.code or c.quantity) for c in self.channel)
        if twice := [name for (_, name), count in names.items() if count > 1]:
            raise ValueError(f"two channels {twice[0]}; expected each once")
        return self


def shipped() -> Path:
    """The folder of the profiles that come with the gateway."""
    package = Path(gateway.__file__).parent
    inside = package / "firmware_configs"
    return inside if inside.is_dir() else package.parent / "firmware_configs"


def folders(beside: Path | None = None) -> list[Path]:
    """Where profiles are looked for, first found first: ``profiles`` beside a file, the shipped."""
    own = [beside.parent / "profiles"] if beside is not None else []
    return [*own, shipped()]


def names(where: Sequence[Path]) -> list[str]:
    """The names of all profiles there are."""
    return sorted({path.stem for folder in where for path in folder.glob("*.toml")})


def load(name: str, where: Sequence[Path] | None = None) -> tuple[Profile, Source]:
    """A profile by its name, with the file that it came from.

    Raises:
        ConfigError: there is none, or its file is wrong; holds every fault.
    """
    where = folders() if where is None else where
    path = next((p for p in (folder / f"{name}.toml" for folder in where) if p.is_file()), None)
    if path is None:
        text = f"no profile {name!r}; {nearest(name, names(where))}"
        raise ConfigError([Fault(", ".join(map(str, where)), None, "", text)])
    source = read(path)
    profile, faults = validate(Profile, source)
    if profile is None:
        raise ConfigError(faults)
    if profile.profile.name != name:
        key = ("profile", "name")
        text = f"{profile.profile.name!r}; expected {name!r}, the name of the file"
        raise ConfigError([Fault(str(path), source.line(key), "profile.name", text)])
    return profile, source
