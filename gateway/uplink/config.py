"""What the uplink needs of the configuration, as plain frozen data.

The tables under ``[uplink]`` of gateway.toml are explained in docs/configuration.md. They are
checked by ``gateway.config`` in a process of its own (``python -m gateway.uplink.config FILE``),
so that what checking needs in memory is not kept for as long as the uplink runs.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from gateway.core.compiled import decode


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """``[uplink.mqtt]``: ``urls`` are tried in order; files are paths.

    ``daily_bytes`` is the budget of a metered link; None: it is not metered.
    """

    urls: tuple[str, ...]
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    client_id: str = ""
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    keepalive_s: int = 8
    session_expiry_s: int = 604_800
    acknowledgement: Literal["hub", "broker"] = "hub"
    daily_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class InfluxConfig:
    """``[uplink.influx]``."""

    url: str
    organisation: str = "gateway"
    bucket: str = "gateway"
    token_file: str = ""
    quota_mb: int = 256


@dataclass(frozen=True, slots=True)
class CapConfig:
    """``[uplink.cap]``, and what of ``[station]`` goes into a message.

    ``polygon`` holds latitude and longitude of its corners, the first again at the end.
    """

    sender: str
    station_name: str
    latitude: float
    longitude: float
    scope: Literal["Restricted", "Private"] = "Restricted"
    restriction: str = ""
    addresses: tuple[str, ...] = ()
    area: str = ""
    radius_km: float = 1.0
    polygon: tuple[tuple[float, float], ...] = ()
    geocodes: dict[str, str] = field(default_factory=dict)
    contact: str = ""


@dataclass(frozen=True, slots=True)
class Sl651Config:
    """``[uplink.sl651]``. Identifiers are SL 651 element codes."""

    centre: str
    station_address: str
    centre_address: int = 1
    password_file: str = ""
    station_class: Literal["river", "reservoir", "rain"] = "river"
    rain_sensor: str | None = None
    level_sensor: str | None = None
    timed_min: int = 360
    hourly: bool = True
    extra: bool = True
    five_minute_rain: bool = False
    answer_s: float = 20.0
    rain_identifier: int = 0x20
    total_identifier: int = 0x26
    level_identifier: int = 0x39
    five_minute_identifier: int = 0xF4


@dataclass(frozen=True, slots=True)
class ArchiveConfig:
    """``[uplink.archive]``. ``days`` 0: by size alone. ``station_xml`` is the text of the file."""

    path: str
    quota_mb: int = 4096
    days: int = 0
    record_age_s: float = 300.0
    sync_s: float = 300.0
    reserve_mb: int = 64
    station_xml: str = ""


@dataclass(frozen=True, slots=True)
class WaveformsConfig:
    """``[uplink.waveforms]``."""

    continuous: bool = False
    events: tuple[str, ...] = ("alert",)
    pre_s: float = 30.0
    post_s: float = 60.0
    event_kb: int = 512
    requests: int = 4
    request_kb: int = 2048
    hour_kb: int = 16_384


@dataclass(frozen=True, slots=True)
class SeedLinkConfig:
    """``[uplink.seedlink]``."""

    listen: str = "0.0.0.0:18000"
    allow: tuple[str, ...] = ()
    clients: int = 16
    organisation: str = ""


@dataclass(frozen=True, slots=True)
class UplinkConfig:
    """Everything that the uplink needs. ``keys`` are public keys in hexadecimal, by key id."""

    station: str
    city: str
    mqtt: MqttConfig | None = None
    influx: InfluxConfig | None = None
    cap: CapConfig | None = None
    sl651: Sl651Config | None = None
    archive: ArchiveConfig | None = None
    waveforms: WaveformsConfig = WaveformsConfig()
    seedlink: SeedLinkConfig | None = None
    outbox_quota_mb: int = 256
    telemetry_interval_s: float = 1.0
    noise_interval_s: float = 3600.0
    groups: tuple[str, ...] = ()
    keys: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> UplinkConfig:
    """The uplink's part of a gateway.toml, or of a ``.json`` file that :func:`main` wrote.

    Raises:
        ValueError: the configuration has faults; the message is theirs, one a line.
        OSError: a ``.json`` file can't be read.
    """
    if path.suffix == ".json":
        text = path.read_text()
    else:
        checked = subprocess.run(  # noqa: S603  our own module, no shell
            [sys.executable, "-m", "gateway.uplink.config", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if checked.returncode:
            raise ValueError(checked.stderr.strip())
        text = checked.stdout
    return decode(UplinkConfig, json.loads(text))


def write(config: UplinkConfig) -> str:
    """The JSON that :func:`read` takes."""
    return json.dumps(asdict(config), ensure_ascii=False)


def main() -> int:
    """Check the gateway.toml that the command line names and print the uplink's part of it."""
    from gateway.config import ConfigError  # noqa: PLC0415  not in the uplink's own process
    from gateway.config.uplink import uplink_config  # noqa: PLC0415  likewise

    try:
        print(write(uplink_config(Path(sys.argv[1]))))  # noqa: T201  read by :func:`read`
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  passed on by :func:`read`
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
