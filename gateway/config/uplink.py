"""The uplink's part of gateway.toml, as the plain data that ``gateway.uplink`` runs on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.config.compile import read_configuration, read_keys
from gateway.config.faults import ConfigError
from gateway.config.models import Mqtt, Table
from gateway.config.stationxml import station_xml
from gateway.uplink.config import (
    ArchiveConfig,
    CapConfig,
    InfluxConfig,
    MqttConfig,
    SeedLinkConfig,
    Sl651Config,
    UplinkConfig,
    WaveformsConfig,
)

METERED_KEEPALIVE_S = 50
"""Where each ping costs money: a dead link is noticed within 85 s."""


def uplink_config(path: Path) -> UplinkConfig:
    """What the uplink needs of a gateway.toml, environment included.

    Paths in it are absolute, for a relative one starts where the file is. Devices, plans and scales
    are not looked at: the uplink runs whatever state they are in.

    Raises:
        ConfigError: with every fault of the file.
    """
    config, findings = read_configuration(path)
    if config is None:
        raise ConfigError(findings.faults)
    keys = read_keys(findings, config.commands.keys)
    if findings.faults:
        raise ConfigError(findings.faults)

    def plain(table: Table, *without: str) -> dict[str, Any]:
        """The keys that were given or have a default, paths made absolute."""
        return {
            name: str(findings.path(value).absolute()) if isinstance(value, Path) else value
            for name, value in table
            if value is not None and name not in without
        }

    given = config.uplink
    mqtt = influx = cap = archive = seedlink = None
    if given.mqtt is not None:
        mqtt = _mqtt(given.mqtt, plain)
    if given.influx is not None:
        influx = InfluxConfig(**plain(given.influx))
    if given.cap is not None:
        cap = CapConfig(
            station_name=config.station.name or config.station.id,
            latitude=config.station.latitude,
            longitude=config.station.longitude,
            addresses=tuple(given.cap.addresses),
            polygon=tuple(given.cap.polygon),
            **plain(given.cap, "addresses", "polygon"),
        )
    if given.archive is not None:
        archive = ArchiveConfig(**plain(given.archive), station_xml=_station_xml(path))
    if given.seedlink is not None:
        allow = tuple(given.seedlink.allow)
        seedlink = SeedLinkConfig(allow=allow, **plain(given.seedlink, "allow"))
    return UplinkConfig(
        station=config.station.id,
        city=config.station.city,
        mqtt=mqtt,
        influx=influx,
        cap=cap,
        sl651=None if given.sl651 is None else Sl651Config(**plain(given.sl651)),
        telemetry_interval_s=given.telemetry_interval_s,
        noise_interval_s=given.noise_interval_s,
        archive=archive,
        waveforms=WaveformsConfig(
            events=tuple(given.waveforms.events), **plain(given.waveforms, "events")
        ),
        seedlink=seedlink,
        outbox_quota_mb=given.outbox.quota_mb,
        groups=tuple(config.commands.groups),
        keys=keys,
    )


def _mqtt(given: Mqtt, plain: Callable[..., dict[str, Any]]) -> MqttConfig:
    urls = (given.url, *given.fallback_urls)
    made = MqttConfig(urls=urls, **plain(given, "url", "fallback_urls", "metered", "daily_mb"))
    if not given.metered:
        return made
    daily_bytes = round(given.daily_mb * 1_000_000)
    own = "keepalive_s" in given.model_fields_set
    keepalive_s = given.keepalive_s if own else METERED_KEEPALIVE_S
    return replace(made, keepalive_s=keepalive_s, daily_bytes=daily_bytes)


def _station_xml(path: Path) -> str:
    """StationXML to lie beside the archive; none while devices or profiles have faults."""
    try:
        return station_xml(path)
    except ConfigError:
        return ""
