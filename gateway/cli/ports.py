"""``gateway ports``: the serial ports there are, what hangs on them, and who uses them.

Linux numbers ttyUSB devices in the order in which they are found, so a name that stays the same is
one under /dev/serial: ``by-id`` tells devices apart by their serial number, ``by-path`` by the
socket that they are plugged into, for the many adapters that have none.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli import output
from gateway.cli.options import CONFIG, RUN, AsJson, ConfigFile, RunDir

if TYPE_CHECKING:
    from gateway.core.compiled import Compiled

STABLE = Path("/dev/serial")
COLUMNS = ["device", "usb", "what", "profiles", "used_by", "stable_name"]


def ports(config: ConfigFile = CONFIG, run: RunDir = RUN, as_json: AsJson = False) -> None:
    """List serial ports: what each looks like, which profile fits, who uses it.

    Ports that the configuration names and that are not there are listed too.
    """
    from serial.tools.list_ports import comports

    from gateway.config import check

    compiled = check(config, run=run).compiled if config.is_file() else None
    rows = found(comports(), stable_names(STABLE), recognised(config), users(compiled))
    output.show(rows, COLUMNS, as_json=as_json)
    if not as_json:
        if not rows:
            output.say("no serial port: plug a device in, and look at dmesg if it does not appear")
        if config.is_file() and compiled is None:
            output.say(f"{config} has errors, so that used_by is empty; see gateway check")


def found(
    there: Iterable[Any],
    stable: Mapping[str, str],
    profiles: Mapping[str, list[str]],
    used: Mapping[str, list[str]],
) -> list[dict[str, Any]]:
    """A row for each port that is there, then for each that is used and is not.

    Args:
        there: ports as pyserial lists them.
        stable: names that stay the same, by the device that they stand for.
        profiles: names of profiles by USB vendor:product.
        used: names of sensors and sirens by the port as configured.
    """
    by_device: dict[str, list[str]] = {}
    for path, names in used.items():
        by_device.setdefault(str(Path(path).resolve()), []).extend(names)
    rows = []
    for port in sorted(there, key=lambda port: str(port.device)):
        usb = "" if port.vid is None else f"{port.vid:04x}:{port.pid:04x}"
        device = str(Path(port.device).resolve())
        rows.append(
            {
                "device": port.device,
                "usb": usb,
                "what": "" if port.description in (None, "n/a") else port.description,
                "profiles": profiles.get(usb, []),
                "used_by": by_device.pop(device, []),
                "stable_name": stable.get(device, ""),
            }
        )
    for path, names in used.items():
        if by_device.pop(str(Path(path).resolve()), None) is not None:
            what = "there, and no serial device" if Path(path).exists() else "not there"
            rows.append({"device": path, "what": what, "profiles": [], "used_by": names})
    return rows


def stable_names(folder: Path) -> dict[str, str]:
    """By device, its name in ``by-id``, else in ``by-path``."""
    names: dict[str, str] = {}
    for kind in ("by-path", "by-id"):
        for link in sorted((folder / kind).glob("*")):
            names[str(link.resolve())] = str(link)
    return names


def recognised(config: Path) -> dict[str, list[str]]:
    """Profiles by the USB vendor:product that they recognise; faulty ones are left to `check`."""
    from gateway.config import ConfigError, profiles

    folders = profiles.folders(config)
    known: dict[str, list[str]] = {}
    for name in profiles.names(folders):
        try:
            profile, _ = profiles.load(name, folders)
        except ConfigError:
            continue
        for usb in profile.recognise.usb:
            known.setdefault(usb, []).append(name)
    return known


def users(compiled: "Compiled | None") -> dict[str, list[str]]:
    """Names of sensors and sirens by their port as configured."""
    used: dict[str, list[str]] = {}
    if compiled is not None:
        named = [(sensor.port, sensor.name) for sensor in compiled.sensors]
        for port, name in [*named, *((siren.port, siren.name) for siren in compiled.sirens)]:
            if port is not None:
                used.setdefault(port.path, []).append(name)
    return used
