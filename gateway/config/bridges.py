"""Ports on a network: ``[[bridge]]`` against the sensors and sirens that name them."""

import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config import models
from gateway.config.faults import Key, key_text, nearest
from gateway.config.findings import Findings
from gateway.core.compiled import Bridge, Port, Sensor, Siren


def bridges(
    findings: Findings,
    given: Iterable[tuple[int, models.Bridge]],
    devices: Sequence[Sensor | Siren],
    run: Path,
) -> list[Bridge]:
    """The compiled bridges, each with the line's settings of the device that is behind it."""
    folder = run / "ports"
    users: dict[str, Port] = {}
    sounding = set()
    for device in devices:
        if device.port is not None and Path(device.port.path).parent == folder:
            name = Path(device.port.path).name
            users.setdefault(name, device.port)
            if isinstance(device, Siren):
                sounding.add(name)
    made: dict[str, Bridge] = {}
    first: dict[str, Key] = {}
    for index, bridge in given:
        key: Key = ("bridge", index)
        if (other := first.setdefault(bridge.name, key)) != key:
            text = f"{bridge.name!r} is also the name of {key_text(other)}"
            findings.error((*key, "name"), text)
        _check_url(findings, key, bridge, sounds=bridge.name in sounding)
        if bridge.name not in users:
            text = f"no sensor and no siren has port = {bridge.name!r}"
            findings.warn((*key, "name"), text)
        port = users.get(bridge.name, Port(""))
        made[bridge.name] = Bridge(bridge.name, bridge.url, port, tuple(bridge.accept))
    for table, index, name in _named(findings):
        if name not in first:
            text = f"no device and no [[bridge]] of that name; {nearest(name, list(first))}"
            findings.error((table, index, "port"), f"{name!r}: {text}")
    return list(made.values())


def _check_url(findings: Findings, key: Key, bridge: models.Bridge, *, sounds: bool) -> None:
    parts = urlsplit(bridge.url)
    if parts.port is None:
        findings.error((*key, "url"), f"{bridge.url!r} names no port; expected …:4000 at its end")
    if parts.scheme != "udp":
        if bridge.accept:
            findings.error((*key, "accept"), "is of use for udp:// alone; expected no such key")
        return
    if sounds:
        findings.error((*key, "url"), "datagrams go one way; a siren needs socket or rfc2217")
    try:
        ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        text = f"{bridge.url!r}: expected an address of this machine, as udp://0.0.0.0:8888"
        findings.error((*key, "url"), text)


def _named(findings: Findings) -> Iterable[tuple[str, int, str]]:
    """Sensors and sirens whose port is a name, by the file: also those with other faults."""
    for table in ("sensor", "siren"):
        rows = findings.source.data.get(table, [])
        for index, row in enumerate(rows if isinstance(rows, list) else []):
            name = row.get("port") if isinstance(row, dict) else None
            if isinstance(name, str) and name and "/" not in name:
                yield table, index, name
