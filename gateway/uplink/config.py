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
    """``[uplink.mqtt]``: ``urls`` are tried in order; files are paths."""

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


@dataclass(frozen=True, slots=True)
class InfluxConfig:
    """``[uplink.influx]``."""

    url: str
    organisation: str = "gateway"
    bucket: str = "gateway"
    token_file: str = ""
    quota_mb: int = 256


@dataclass(frozen=True, slots=True)
class UplinkConfig:
    """Everything that the uplink needs. ``keys`` are public keys in hexadecimal, by key id."""

    station: str
    city: str
    mqtt: MqttConfig | None = None
    influx: InfluxConfig | None = None
    outbox_quota_mb: int = 256
    telemetry_interval_s: float = 1.0
    waveforms: bool = False
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
