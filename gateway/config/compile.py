"""From gateway.toml, profiles, plans and scales to what the core loads, or to every fault."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel

from gateway.config import models, profiles
from gateway.config.bridges import bridges
from gateway.config.devices import Devices
from gateway.config.environment import overrides
from gateway.config.faults import ConfigError, Fault, parse_key
from gateway.config.findings import Findings
from gateway.config.models import Configuration
from gateway.config.plans import Found, check_plans, check_reach, read_plans, read_scales
from gateway.config.sensing import Sensing, check_measured
from gateway.config.source import read
from gateway.config.validate import elements, sound, validate
from gateway.core.compiled import Compiled, Sensor, Site, Station
from gateway.detect.scale import Scale
from gateway.detect.settings import SeismicSettings
from gateway.events import Hazard
from gateway.plan.files import Limits

RUN = Path("/run/gateway")

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration that was looked at. ``compiled`` is None where there are errors.

    ``disabled`` says of plans that can never alert with these sensors why.
    """

    path: Path
    configuration: Configuration | None
    compiled: Compiled | None
    faults: tuple[Fault, ...]
    disabled: Mapping[Hazard, str] = field(default_factory=dict)

    @property
    def errors(self) -> list[Fault]:
        """What keeps it from being used."""
        return [fault for fault in self.faults if fault.severity == "error"]

    @property
    def warnings(self) -> list[Fault]:
        """What the gateway can live with."""
        return [fault for fault in self.faults if fault.severity == "warning"]


def read_configuration(path: Path) -> tuple[Configuration | None, Findings]:
    """gateway.toml by itself, environment included, and what is wrong with it; None if it is.

    Raises:
        ConfigError: it can't be read at all.
    """
    source = read(path)
    environment = overrides(Configuration)
    findings = Findings(source, environment.variables)
    configuration, faults = validate(Configuration, source, environment.variables)
    findings.add([*environment.faults, *faults])
    return configuration, findings


def check(path: Path, *, run: Path = RUN, today: date | None = None) -> Checked:
    """Read gateway.toml and everything that it names, and find every fault at once.

    Args:
        path: gateway.toml. The station's own profiles, plans and scales are in the folders
            ``profiles``, ``plans`` and ``scales`` beside it, unless it names others.
        run: where bridged ports are served.
        today: the date by which plans are judged; today (UTC) if None.
    """
    try:
        whole, findings = read_configuration(path)
    except ConfigError as error:
        return Checked(path, None, None, error.faults)
    source = findings.source

    # Each table that is sound by itself is looked at further, so that no fault hides another.
    def table(model: type[_Model], *names: str) -> _Model | None:
        part: Any = whole if whole is not None else source.data
        for name in names:
            part = part.get(name, {}) if isinstance(part, dict) else getattr(part, name, {})
        return part if isinstance(part, model) else sound(model, part)

    devices = Devices(findings, profiles.folders(path), run)
    sensors = devices.sensors(
        elements(models.Sensor, source, "sensor"), table(models.Station, "station")
    )
    sirens = devices.sirens(elements(models.Siren, source, "siren"))
    bridged = bridges(findings, elements(models.Bridge, source, "bridge"), [*sensors, *sirens], run)
    devices.check_core_imports()
    if (seismic := table(models.Seismic, "detect", "seismic")) is not None:
        _check_seismic(findings, seismic, sensors)
    if (site := table(models.Site, "site")) is not None:
        _check_site(findings, site, sensors)
    if (uplink := table(models.Uplink, "uplink")) is not None:
        _check_uplink(findings, uplink)
        if uplink.sl651 is not None:
            _check_sl651(findings, uplink.sl651, sensors)
    commands = table(models.Commands, "commands")
    keys = read_keys(findings, commands.keys) if commands is not None else {}
    plans = table(models.Plans, "plans")
    found = read_plans(findings.folder("plans", plans.directory if plans else None))
    findings.add(found.faults)
    sounding = {siren.name: Limits(siren.max_on_s, siren.max_hour_s) for siren in sirens}
    if len(sirens) == len(source.data.get("siren", [])):
        findings.add(check_plans(found, sounding, today or datetime.now(UTC).date()))
    scales = _scales(findings, table(models.Scales, "scales"))
    findings.add(check_reach(found, scales))
    disabled = _check_sensing(findings, found, Sensing(sensors, devices.gauged, scales), sensors)

    faults = sorted(findings.faults, key=lambda f: (f.file != str(path), f.file, f.line or 0))
    if whole is None or any(fault.severity == "error" for fault in faults):
        return Checked(path, whole, None, tuple(faults))
    station = whole.station.model_dump()
    compiled = Compiled(
        station=Station(**{**station, "name": station["name"] or station["id"]}),
        sensors=tuple(sensors),
        sirens=tuple(sirens),
        bridges=tuple(bridged),
        site=Site(**whole.site.model_dump()),
        seismic=SeismicSettings(**whole.detect.seismic.model_dump()),
        scales=tuple(scales),
        plans=tuple(found.plans.values()),
        patterns=tuple(found.patterns.values()),
        keys=keys,
        groups=tuple(whole.commands.groups),
        source=str(path.absolute()),
    )
    return Checked(path, whole, compiled, tuple(faults), disabled)


def compile_config(path: Path, *, run: Path = RUN) -> Compiled:
    """The compiled form of a gateway.toml.

    Raises:
        ConfigError: with every fault in it.
    """
    checked = check(path, run=run)
    if checked.compiled is None:
        raise ConfigError(checked.errors)
    return checked.compiled


def _check_sensing(
    findings: Findings, found: Found, sensing: Sensing, sensors: Sequence[Sensor]
) -> dict[Hazard, str]:
    """Plans that can never alert, and why; nothing is said while sensors are wrong themselves."""
    if len(sensors) == len(findings.source.data.get("sensor", [])):
        findings.add(check_measured(found, sensing))
    disabled = {hazard: sensing.disabled(plan) for hazard, plan in found.plans.items()}
    return {hazard: why for hazard, why in disabled.items() if why}


def _check_site(findings: Findings, given: models.Site, sensors: Sequence[Sensor]) -> None:
    """A site with one seismometer is in single-sensor mode, whatever the table says."""
    there = sum(sensor.kind == "seismic" for sensor in sensors)
    if 1 < there < given.votes:
        text = f"{given.votes}; expected at most {there}, the seismometers that there are"
        findings.error(("site", "votes"), text)
    known = {s.name for s in sensors if s.kind == "seismic"}
    known |= {channel.id for sensor in sensors for channel in sensor.channels}
    for name in given.weights:
        if name not in known:
            text = f"no such sensor or channel; expected one of {', '.join(sorted(known))}"
            findings.error(("site", "weights", name), text)


def _check_seismic(findings: Findings, given: models.Seismic, sensors: Iterable[Sensor]) -> None:
    """What the detector's keys must be to each other, and to the rates that there are."""
    rates = {s.name: s.rate_hz for s in sensors if s.kind == "seismic" and s.rate_hz > 0}

    def error(name: str, text: str) -> None:
        findings.error(("detect", "seismic", name), text)

    for name in ("band_hz", "candidate_band_hz"):
        low, high = getattr(given, name)
        if not 0 < low < high:
            error(name, f"{[low, high]}; expected 0 < lower corner < upper corner (Hz)")
        if name not in given.model_fields_set:
            continue  # the default follows the rate
        for sensor, rate_hz in rates.items():
            if high > (most := 0.45 * rate_hz):
                text = f"upper corner {high:g} Hz; expected at most {most:g} Hz"
                error(name, f"{text}, 0.45 × the {rate_hz:g} Hz of sensor {sensor!r}")
    if given.trigger_off >= given.trigger_on:
        text = f"{given.trigger_off:g}; expected less than trigger_on, {given.trigger_on:g}"
        error("trigger_off", text)
    if given.sta_s >= given.lta_s:
        error("sta_s", f"{given.sta_s:g}; expected less than lta_s, {given.lta_s:g}")


def _check_uplink(findings: Findings, given: models.Uplink) -> None:
    """What does not stop the core: files of the uplink may come after this check."""
    services = (("mqtt", given.mqtt), ("influx", given.influx), ("sl651", given.sl651))
    for table, service in services:
        for name, value in service or ():
            if not name.endswith("_file") or value is None:
                continue
            path = findings.path(value)
            with suppress(OSError):
                if not path.exists():
                    findings.warn(("uplink", table, name), f"{path} is not there")
                elif name in _PRIVATE and path.stat().st_mode & 0o007:
                    text = f"everybody may read {path}; expected only the service: chmod o= {path}"
                    findings.warn(("uplink", table, name), text)
    if given.cap is not None:
        _check_cap(findings, given.cap)
    for name in ("seedlink", "waveforms"):
        if name in given.model_fields_set and given.archive is None:
            text = "it lives on the archive's records; expected a table [uplink.archive]"
            findings.error(("uplink", name), text)
    if given.mqtt is not None:
        _check_mqtt(findings, given.mqtt)


def _check_mqtt(findings: Findings, mqtt: models.Mqtt) -> None:
    if (mqtt.certificate_file is None) != (mqtt.key_file is None):
        given_one, other = ("certificate_file", "key_file")[:: -1 if mqtt.key_file else 1]
        findings.error(("uplink", "mqtt", given_one), f"given without {other}; expected both")
    clear = [u for u in (mqtt.url, *mqtt.fallback_urls) if u.startswith("mqtt:") and not _here(u)]
    if mqtt.username is not None and clear:
        text = f"{clear[0]!r} is not encrypted, and a password would be seen; expected mqtts://"
        findings.error(("uplink", "mqtt", "username"), text)
    if mqtt.url.startswith("mqtt:"):
        text = f"{mqtt.url!r} is not encrypted; expected mqtts://"
        findings.warn(("uplink", "mqtt", "url"), text)


def _here(url: str) -> bool:
    """Whether a URL leads no further than this machine."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def _check_cap(findings: Findings, given: models.Cap) -> None:
    """What CAP 1.2 asks for beyond its schema."""

    def error(name: str, text: str) -> None:
        findings.error(("uplink", "cap", name), text)

    if given.scope == "Private" and not given.addresses:
        error("addresses", "empty; expected whom the message is for, as the scope is Private")
    corners = given.polygon
    if corners and (len(corners) < 4 or corners[0] != corners[-1]):
        error("polygon", "expected at least 3 corners, and the first again at the end")
    for latitude, longitude in corners:
        if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
            text = f"{[latitude, longitude]}; expected [latitude, longitude] in degrees"
            error("polygon", text)


def _check_sl651(findings: Findings, given: models.Sl651, sensors: Iterable[Sensor]) -> None:
    """What is reported must be measured here."""
    there = [s.name for s in sensors if s.kind != "seismic"]
    if given.rain_sensor is None and given.level_sensor is None:
        text = "neither rain_sensor nor level_sensor; expected what to report"
        findings.error(("uplink", "sl651"), text)
    for key in ("rain_sensor", "level_sensor"):
        name = getattr(given, key)
        if name is not None and name not in there:
            text = f"no gauge {name!r}; there are {', '.join(there) or 'none'}"
            findings.error(("uplink", "sl651", key), text)


_PRIVATE = ("password_file", "key_file", "token_file")


def read_keys(findings: Findings, given: dict[str, str]) -> dict[str, str]:
    """Public keys, 64 hexadecimal digits each, from the table or from the files that it names."""
    expected = "64 hexadecimal digits of an Ed25519 public key, or the path of a file of them"
    keys = {}
    for name, value in given.items():
        digits = value
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
            try:
                digits = findings.path(Path(value)).read_text().strip()
            except (OSError, ValueError):
                digits = ""
        if re.fullmatch(r"[0-9a-fA-F]{64}", digits):
            keys[name] = digits.lower()
        else:
            findings.error(("commands", "keys", name), f"{value!r}; expected {expected}")
    return keys


def _scales(findings: Findings, given: models.Scales | None) -> list[Scale]:
    if given is None:
        return []
    own = findings.folder("scales", given.directory)
    scales, faults = read_scales(
        given.in_force, own, lambda key, text: findings.at(parse_key(key), text)
    )
    findings.add(faults)
    return scales
