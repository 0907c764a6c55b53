"""The form of gateway.toml: each key with its type, bounds, default and meaning.

These models are the one place where a key is declared; docs/configuration.md is made from them and
faults quote them. They check one value at a time; what concerns several (two sensors on one port,
a siren that a plan names) is checked in ``gateway.config.check``.
"""

import ipaddress
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.config.environment import EnvironmentSource
from gateway.detect.settings import SeismicSettings, Sensitivity
from gateway.events import Hazard

_DETECTOR = SeismicSettings()


class Table(BaseModel):
    """A table of gateway.toml: unknown keys are refused and nothing is converted by guess."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _sensitivities(value: Any) -> dict[str, Sensitivity]:
    """By channel code; the empty code stands for every channel."""
    by_code = {"": value} if isinstance(value, str) else value
    if not isinstance(by_code, Mapping) or not all(isinstance(v, str) for v in by_code.values()):
        raise ValueError(f"{value!r}; expected {_SENSITIVITY}")
    return {code: Sensitivity.parse(text) for code, text in by_code.items()}


def _url(*schemes: str) -> AfterValidator:
    expected = " or ".join(f"{scheme}://host:port" for scheme in schemes)

    def check(text: str) -> str:
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{text!r} ({error}); expected {expected}") from None
        if parts.password is not None:
            raise ValueError(
                "holds a password; expected the address alone, the password in a file "
                "that password_file or token_file names"
            )
        if parts.scheme not in schemes or not parts.hostname or port == 0:
            raise ValueError(f"{text!r}; expected {expected}")
        return text

    return AfterValidator(check)


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and value else value


def _form(text: str) -> dict[str, Any]:
    return {"form": text}


_SENSITIVITY = 'text such as "6e8:m/s", or a table of such texts by channel code'

Word = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        json_schema_extra=_form("a name of letters, digits and _ . - (64 at most)"),
    ),
]
"""A name that is safe in a topic, a file name and a log line."""

Code2 = Annotated[
    str,
    Field(
        pattern=r"^[A-Z0-9]{1,2}$",
        json_schema_extra=_form("1 or 2 capitals or digits, as FDSN codes are"),
    ),
]
Code5 = Annotated[
    str,
    Field(
        pattern=r"^[A-Z0-9]{1,5}$",
        json_schema_extra=_form("1 to 5 capitals or digits, as FDSN codes are"),
    ),
]
LocationCode = Annotated[
    str,
    Field(
        pattern=r"^[A-Z0-9]{0,2}$",
        json_schema_extra=_form("2 capitals or digits, or nothing, as FDSN codes are"),
    ),
]
FilePath = Annotated[
    Path,
    BeforeValidator(_path),
    WithJsonSchema({"type": "string", "form": "the path of a file"}),
]
FolderPath = Annotated[
    Path,
    BeforeValidator(_path),
    WithJsonSchema({"type": "string", "form": "the path of a folder"}),
]
PortName = Annotated[
    str,
    Field(
        min_length=1,
        json_schema_extra=_form(
            'a device such as "/dev/serial/by-id/…", or a bridged port\'s name'
        ),
    ),
]
Corners = Annotated[tuple[float, float], Field(strict=False)]
Corner = Annotated[tuple[float, float], Field(strict=False)]
ElementCode = Annotated[int, Field(ge=0, le=0xFF)]
HostPort = Annotated[
    str,
    Field(
        pattern=r"^[^\s:]+:[0-9]{1,5}$|^\[[0-9A-Fa-f:]+\]:[0-9]{1,5}$",
        json_schema_extra=_form("an address host:port"),
    ),
]
Weight = Annotated[float, Field(ge=0, le=4)]
HttpUrl = Annotated[
    str, _url("http", "https"), Field(json_schema_extra=_form("an address http(s)://host:port"))
]
BrokerUrl = Annotated[
    str, _url("mqtts", "mqtt"), Field(json_schema_extra=_form("an address mqtts://host:port"))
]
BridgeUrl = Annotated[
    str,
    _url("socket", "rfc2217", "udp"),
    Field(json_schema_extra=_form("an address socket://, rfc2217:// or udp://host:port")),
]


def _ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r}; expected an IP address, as 10.0.0.5") from None


IpAddress = Annotated[
    str, AfterValidator(_ip_address), Field(json_schema_extra=_form("an IP address"))
]
Sensitivities = Annotated[
    dict[str, Sensitivity],
    BeforeValidator(_sensitivities),
    WithJsonSchema({"type": "string", "form": _SENSITIVITY}),
]
Options = Annotated[
    dict[str, Any], Field(json_schema_extra=_form("a table of the driver's options"))
]


class Station(Table):
    """Who and where this station is."""

    id: Word = Field(description="Name of the station in topics and alert ids")
    name: str = Field(default="", max_length=200, description="Name for people; the id if empty")
    city: Word = Field(description="City part of the topics")
    network: Code2 = Field(default="XX", description="FDSN network code; XX is nobody's")
    code: Code5 = Field(default="STA", description="FDSN station code")
    latitude: float = Field(
        ge=-90, le=90, description="North positive", json_schema_extra={"unit": "°"}
    )
    longitude: float = Field(
        ge=-180, le=180, description="East positive", json_schema_extra={"unit": "°"}
    )
    elevation_m: float = Field(default=0.0, ge=-500, le=9000, description="Above sea level")


class Site(Table):
    """When several sensors of the site count as one shaking."""

    votes: int = Field(default=2, ge=2, le=16, description="Sensors that must trigger together")
    window_s: float = Field(default=2.0, gt=0, le=30, description="Time within which they must")
    weights: dict[Word, Weight] = Field(
        default_factory=dict,
        description="Votes of a sensor, or of a channel NET.STA.LOC.CHA; 1 unless given, 0: none",
    )


class Response(Table):
    """How a geophone's output falls off below its natural frequency; for StationXML alone."""

    natural_hz: float = Field(gt=0, le=1000, description="Natural frequency")
    damping: float = Field(
        gt=0, le=2, description="Damping with the resistor that is fitted, as a part of critical"
    )


class Sensor(Table):
    """A sensor on a port of its own."""

    name: Word = Field(description="Name of the sensor in readings, events and commands")
    profile: Word = Field(
        description="Device profile: names the driver, its settings, its channels"
    )
    port: PortName = Field(description="Where the device is")
    location: LocationCode | None = Field(
        default=None,
        description="FDSN location code of all its channels, instead of the profile's",
    )
    sensitivity: Sensitivities = Field(
        default_factory=dict,
        description="Counts per unit of ground motion, instead of the profile's",
    )
    model: str = Field(
        default="", max_length=200, description="Maker and model of the seismometer, for people"
    )
    depth_m: float = Field(default=0.0, ge=-100, le=5000, description="Below the ground")
    azimuth_deg: float = Field(
        default=0.0,
        ge=0,
        lt=360,
        description="Where its north points, from true north over east",
        json_schema_extra={"unit": "°"},
    )
    response: Response | None = Field(
        default=None, description="Of its geophones, instead of the profile's"
    )
    options: Options = Field(
        default_factory=dict, description="Driver options, over those of the profile"
    )


class Seismic(Table):
    """How P waves are found. The defaults work; see docs/detection.md before changing one."""

    band_hz: Corners = Field(
        default=_DETECTOR.band_hz, description="Band-pass; upper corner at most 0.45 × rate"
    )
    sta_s: float = Field(default=_DETECTOR.sta_s, ge=0.05, le=10, description="Short-term average")
    lta_s: float = Field(
        default=_DETECTOR.lta_s,
        ge=2,
        le=600,
        description="Long-term average: all samples so far until this long; armed after 4 s",
    )
    trigger_on: float = Field(
        default=_DETECTOR.trigger_on, gt=1, le=1000, description="Ratio of energies that triggers"
    )
    trigger_off: float = Field(
        default=_DETECTOR.trigger_off, gt=0, le=1000, description="Ratio that ends a trigger"
    )
    min_duration_s: float = Field(
        default=_DETECTOR.min_duration_s, ge=0, le=5, description="Shorter triggers are rejected"
    )
    lta_freeze_max_s: float = Field(
        default=_DETECTOR.lta_freeze_max_s,
        ge=0,
        le=600,
        description="The long-term average stands still during a trigger, this long at most",
    )
    candidate_band_hz: Corners = Field(
        default=_DETECTOR.candidate_band_hz, description="Band-pass of coincidence candidates"
    )
    candidate_on: float = Field(
        default=_DETECTOR.candidate_on,
        gt=1,
        le=1000,
        description="Ratio (0.3/10 s) of a candidate: for coincidence only, never an onset",
    )


class Detect(Table):
    """Detection."""

    seismic: Seismic = Seismic()


class Plans(Table):
    """Emergency plans and siren patterns."""

    directory: FolderPath | None = Field(
        default=None,
        description="Own plan files; one for a hazard takes the place of the shipped one. "
        "`plans` beside gateway.toml if not given",
    )


class Scales(Table):
    """Threshold scales in force here, by hazard; provinces, cities and counties differ."""

    directory: FolderPath | None = Field(
        default=None,
        description="Own scale files; `scales` beside gateway.toml if not given",
    )
    rainstorm: list[Word] = Field(default=["rainstorm-national"], description="Of rain")
    typhoon: list[Word] = Field(
        default=["gale", "typhoon"], description="Of wind; typhoon only while its warning holds"
    )
    flood: list[Word] = Field(
        default=["water-rise"], description="Of water level and its rise, or of rain in a gully"
    )
    air_pollution: list[Word] = Field(default=["pm25"], description="Of particles")
    fire: list[Word] = Field(default=["contact"], description="Of contacts")

    @property
    def in_force(self) -> dict[Hazard, list[str]]:
        """The names of the scales in force for each hazard that has scales."""
        return {hazard: getattr(self, hazard) for hazard in Hazard if hasattr(self, hazard)}


class Siren(Table):
    """A siren. Its other keys (address, relay …) are those that its profile lists."""

    model_config = ConfigDict(extra="allow")

    name: Word = Field(description="Name of the siren in plans, events and commands")
    profile: Word = Field(description="Device profile: names the driver and its settings")
    port: PortName | None = Field(
        default=None, description="Where the device is; sirens of one profile may share a port"
    )
    max_on_s: float | None = Field(
        default=None, gt=0, le=3600, description="Longest sounding at a time; else the profile's"
    )
    max_hour_s: float | None = Field(
        default=None, gt=0, le=3600, description="Longest sounding in an hour; else the profile's"
    )
    options: Options = Field(
        default_factory=dict, description="Driver options, over those of the profile"
    )

    @property
    def unit(self) -> dict[str, Any]:
        """What tells this siren from others on its port."""
        return dict(self.model_extra or {})


class Bridge(Table):
    """A port that is on a network. Sensors and sirens name it as their port."""

    name: Word = Field(description="Name of the port in `sensor.port` and `siren.port`")
    url: BridgeUrl = Field(
        description="Raw TCP, a terminal server's line, or datagrams that come to a port here"
    )
    accept: list[IpAddress] = Field(
        default_factory=list,
        description="Addresses whose datagrams are taken; everybody's if not given",
    )


class Mqtt(Table):
    """The city hub's broker."""

    url: BrokerUrl = Field(description="The broker; mqtts is MQTT over TLS")
    fallback_urls: list[BrokerUrl] = Field(
        default_factory=list, description="Brokers to try in order when the first does not answer"
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        default="auto", description="MQTT version; auto is 5, then 3.1.1 where 5 is refused"
    )
    client_id: Word | None = Field(default=None, description="The station's id if not given")
    username: str | None = Field(default=None, description="User at the broker")
    password_file: FilePath | None = Field(default=None, description="File that holds the password")
    ca_file: FilePath | None = Field(
        default=None,
        description="Certificates that the broker is checked against; else the system's",
    )
    certificate_file: FilePath | None = Field(
        default=None, description="Certificate of this station"
    )
    key_file: FilePath | None = Field(default=None, description="Private key of this station")
    keepalive_s: int = Field(
        default=8,
        ge=2,
        le=300,
        description="A dead link is noticed after 1.7 times this; 50 if not given and metered",
    )
    metered: bool = Field(
        default=False, description="The link is paid by the byte (LTE): fewer pings, and daily_mb"
    )
    daily_mb: float = Field(
        default=50.0,
        gt=0,
        le=1_000_000,
        description="Megabytes a day where metered: from 80 % on telemetry waits, from 100 % on "
        "events; alerts never do",
    )
    session_expiry_s: int = Field(
        default=604_800, ge=0, le=4_294_967_295, description="How long the broker keeps the session"
    )
    acknowledgement: Literal["hub", "broker"] = Field(
        default="hub",
        description="Who confirms alerts and events; broker is weaker: a broker that dies may lose",
    )


class Outbox(Table):
    """What waits for the hub, on disk."""

    quota_mb: int = Field(
        default=256, ge=8, le=1_000_000, description="Oldest telemetry goes first"
    )


class Influx(Table):
    """A time-series database for telemetry."""

    url: HttpUrl = Field(description="Server that takes InfluxDB v2 line protocol")
    organisation: str = Field(default="gateway", description="Organisation at the server")
    bucket: str = Field(default="gateway", description="Bucket at the server")
    token_file: FilePath | None = Field(default=None, description="File that holds the token")
    quota_mb: int = Field(default=256, ge=1, le=1_000_000, description="Spool; oldest goes first")


class Archive(Table):
    """Waveforms on disk: miniSEED in SDS folders."""

    path: FolderPath = Field(description="Root of the SDS folders")
    quota_mb: int = Field(default=4096, ge=16, le=100_000_000, description="Oldest days go first")
    days: int = Field(
        default=0, ge=0, le=100_000, description="Older days go as well; 0: only by quota_mb"
    )
    record_age_s: float = Field(
        default=300.0,
        ge=0.5,
        le=1800,
        description="A record that is not full is written after this; "
        "1 gives SeedLink clients samples sooner and costs four times the disk",
    )
    sync_s: float = Field(
        default=300.0, ge=1, le=3600, description="How often the disk is told to store for good"
    )
    reserve_mb: int = Field(
        default=64, ge=0, le=1_000_000, description="Left free on the disk for everything else"
    )


class Waveforms(Table):
    """Waveforms to the hub, out of the archive: around events, and windows that it asks for."""

    events: list[Literal["alert", "coincidence", "onset"]] = Field(
        default=["alert"],
        description="What waveforms are sent of: earthquake alerts, coincidences, onsets",
    )
    pre_s: float = Field(default=30.0, ge=0, le=600, description="Before the event")
    post_s: float = Field(default=60.0, ge=1, le=600, description="After it")
    event_kb: int = Field(
        default=512, ge=32, le=16_384, description="Most of one event, all channels together"
    )
    requests: int = Field(
        default=4, ge=0, le=64, description="Requests of the hub that may wait; 0: none is served"
    )
    request_kb: int = Field(default=2048, ge=32, le=16_384, description="Most of one request")
    hour_kb: int = Field(
        default=16_384, ge=32, le=1_000_000, description="Most in an hour, events and requests"
    )
    continuous: bool = Field(default=False, description="Send every record over MQTT as well")


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} ({error}); expected a network as 192.168.0.0/16") from None
    return text


Network = Annotated[
    str, AfterValidator(_network), Field(json_schema_extra=_form("a network as 192.168.0.0/16"))
]


class SeedLink(Table):
    """The archive's records to seismologists' own tools on the local network (SeedLink 3.1)."""

    listen: str = Field(
        default="0.0.0.0:18000",
        pattern=r"^([0-9.]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}$",
        description="Address and port; [::]:18000 for IPv6 as well",
        json_schema_extra=_form("an address such as 0.0.0.0:18000"),
    )
    allow: list[Network] = Field(
        default_factory=list,
        description="Networks whose clients are served; this machine and private ones if empty",
    )
    clients: int = Field(default=16, ge=1, le=256, description="Most at a time")
    organisation: str = Field(default="", max_length=100, description="As clients are told")


class Cap(Table):
    """Alerts as CAP 1.2 messages as well, for the hub's own tools. Never for the public."""

    sender: str = Field(
        pattern=r"^[^\s,<&]{1,200}$",
        description="Who sends, unique in the world, such as station1@city.example",
        json_schema_extra=_form(
            "a text without spaces, commas, < and &, such as an e-mail address"
        ),
    )
    scope: Literal["Restricted", "Private"] = Field(
        default="Restricted", description="Restricted states whom it is for; Private names them"
    )
    restriction: str = Field(
        default="", max_length=500, description="Whom it is for; hub and site if not given"
    )
    addresses: list[str] = Field(
        default_factory=list, description="Receivers; needed where the scope is Private"
    )
    area: str = Field(
        default="", max_length=200, description="The place for people; the station's name if empty"
    )
    radius_km: float = Field(
        default=1.0, ge=0, le=100, description="Radius of the circle about the station"
    )
    polygon: list[Corner] = Field(
        default_factory=list,
        description="Corners of the area, [latitude, longitude]; the first again at the end",
    )
    geocodes: dict[Word, str] = Field(
        default_factory=dict, description="Codes of the area by list, such as a GB/T 2260 code"
    )
    contact: str = Field(default="", max_length=200, description="Whom to ask")


class Sl651(Table):
    """Rain and water level to a hydrological centre by SL 651-2014 over TCP."""

    centre: HostPort = Field(description="The centre")
    station_address: str = Field(
        pattern=r"^[0-9]{10}$",
        description="This station's address at the centre",
        json_schema_extra=_form("ten digits"),
    )
    centre_address: int = Field(default=1, ge=0, le=255, description="The centre's own address")
    password_file: FilePath | None = Field(
        default=None, description="File of the password, four hexadecimal digits; 0000 if not given"
    )
    station_class: Literal["river", "reservoir", "rain"] = Field(
        default="river", description="Class of the station; the code of rain needs proving"
    )
    rain_sensor: Word | None = Field(default=None, description="The gauge that is reported")
    level_sensor: Word | None = Field(default=None, description="The water level that is reported")
    timed_min: int = Field(
        default=360,
        ge=0,
        le=1440,
        description="A timed report so often, from 08:00 Beijing; 0: none",
        json_schema_extra={"unit": "min"},
    )
    hourly: bool = Field(default=True, description="A report each full hour")
    extra: bool = Field(
        default=True, description="A report when a scale of rain or water reaches another level"
    )
    five_minute_rain: bool = Field(
        default=False,
        description="Twelve 5-minute rains in the hourly report; their form needs proving",
    )
    answer_s: float = Field(
        default=20.0, ge=0.1, le=300, description="How long the centre may take to answer"
    )
    rain_identifier: ElementCode = Field(
        default=0x20, description="Element: rain since 08:00 Beijing"
    )
    total_identifier: ElementCode = Field(default=0x26, description="Element: accumulated rain")
    level_identifier: ElementCode = Field(default=0x39, description="Element: water level")
    five_minute_identifier: ElementCode = Field(
        default=0xF4, description="Element: twelve 5-minute rains"
    )


class Uplink(Table):
    """What leaves the station. A table that is absent is a service that is off."""

    telemetry_interval_s: float = Field(
        default=1.0, ge=0.1, le=3600, description="How often readings and status are sent"
    )
    noise_interval_s: float = Field(
        default=3600.0,
        ge=0,
        le=86_400,
        description="How often the noise of each channel is told, against Peterson's models; "
        "0: never",
    )
    mqtt: Mqtt | None = None
    outbox: Outbox = Outbox()
    influx: Influx | None = None
    archive: Archive | None = None
    waveforms: Waveforms = Waveforms()
    seedlink: SeedLink | None = None
    cap: Cap | None = None
    sl651: Sl651 | None = None


class Commands(Table):
    """Whose signed commands this station obeys; nobody's without keys."""

    keys: dict[Word, str] = Field(
        default_factory=dict,
        description="Ed25519 public keys by key id: 64 hex digits, or the path of a file of them",
    )
    groups: list[Word] = Field(
        default_factory=list, description="Groups of stations that this one belongs to"
    )


class Configuration(BaseSettings):
    """All of gateway.toml."""

    model_config = SettingsConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    station: Station
    site: Site = Site()
    sensor: list[Sensor] = Field(default_factory=list)
    detect: Detect = Detect()
    plans: Plans = Plans()
    scales: Scales = Scales()
    siren: list[Siren] = Field(default_factory=list)
    bridge: list[Bridge] = Field(default_factory=list)
    uplink: Uplink = Uplink()
    commands: Commands = Commands()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  ours names each variable at fault
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  not used
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  not used
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then the file."""
        return EnvironmentSource(settings_cls), init_settings
