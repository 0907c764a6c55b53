"""Sensors and sirens: their profiles, ports, drivers and channels, checked and compiled."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway import drivers, siren
from gateway.config import core_imports, models, profiles
from gateway.config.faults import ConfigError, Fault, Key, key_text, nearest
from gateway.config.findings import Findings
from gateway.config.profiles import Profile
from gateway.config.sensing import MEASURES, misnamed
from gateway.config.source import Source
from gateway.core.compiled import Channel, Port, Sensor, Siren
from gateway.detect.settings import Sensitivity
from gateway.events import MICRO

MISSED = 2.5
"""So many times a gauge's own spacing it may say nothing before it is lost."""


class Devices:
    """Compiles the ``[[sensor]]`` and ``[[siren]]`` tables that are sound by themselves.

    Args:
        findings: takes what is wrong.
        folders: where profiles are, first found first.
        run: where bridged ports are served.
    """

    def __init__(self, findings: Findings, folders: Sequence[Path], run: Path) -> None:
        self._findings = findings
        self._folders = folders
        self._run = run
        self._drivers: dict[str | int, dict[str, str]] = {
            "sensor": drivers.paths(),
            "siren": siren.paths(),
        }
        self._profiles: dict[str, tuple[Profile, Source] | None] = {}
        self._ports: dict[str, tuple[Key, Port, Any]] = {}
        """By device: the first sensor on it, its port and its driver."""
        self._asked: dict[tuple[str, Any], Key] = {}
        self._channels: dict[str, Key] = {}
        self.gauged: set[str] = set()
        """Quantities that sensors other than seismometers give."""
        self._modules: dict[str, Key] = {}

    def sensors(
        self, given: Iterable[tuple[int, models.Sensor]], station: models.Station | None
    ) -> list[Sensor]:
        """The compiled sensors. ``station`` gives the codes of their channels."""
        given = list(given)
        self._names("sensor", given)
        made = [self._sensor(("sensor", index), sensor, station) for index, sensor in given]
        return [sensor for sensor in made if sensor is not None]

    def sirens(self, given: Iterable[tuple[int, models.Siren]]) -> list[Siren]:
        """The compiled sirens. Those on one port share a driver."""
        given = list(given)
        self._names("siren", given)
        made = [(("siren", index), self._siren(("siren", index), siren)) for index, siren in given]
        sirens = [(key, siren) for key, siren in made if siren is not None]
        self._shared_ports(sirens)
        return [siren for _, siren in sirens]

    def check_core_imports(self) -> None:
        """Refuse drivers that the core process must not import."""
        for module, text in core_imports.check(self._modules).items():
            self._findings.error((*self._modules[module], "profile"), f"its driver {text}")

    def _names(self, table: str, given: Iterable[tuple[int, Any]]) -> None:
        first: dict[str, int] = {}
        for index, device in given:
            if (other := first.setdefault(device.name, index)) != index:
                where = key_text((table, other))
                self._findings.error(
                    (table, index, "name"), f"{device.name!r} is also the name of {where}"
                )

    # -- profiles, drivers, ports ----------------------------------------------------------------

    def _profile(self, key: Key, name: str) -> tuple[Profile, Source] | None:
        if name not in (known := profiles.names(self._folders)):
            self._findings.error((*key, "profile"), f"no profile {name!r}; {nearest(name, known)}")
            return None
        if name not in self._profiles:
            try:
                self._profiles[name] = profiles.load(name, self._folders)
            except ConfigError as error:
                self._profiles[name] = None
                self._findings.add(error.faults)
        found = self._profiles[name]
        if found is not None and (found[0].profile.kind == "siren") != (key[0] == "siren"):
            text = f"{name!r} is a {found[0].profile.kind} profile; expected one of a {key[0]}"
            self._findings.error((*key, "profile"), text)
            return None
        return found

    def _driver(self, key: Key, profile: Profile, source: Source) -> tuple[str, Any] | None:
        """A driver's ``module:Class`` and its class; None where it can't be had."""
        name = profile.profile.driver
        known = self._drivers[key[0]]
        try:
            path = known[name]
            driver = drivers.load_object(path)
        except KeyError:
            text = f"no driver {name!r}; {nearest(name, sorted(known))}"
        except (ImportError, AttributeError) as error:
            text = f"driver {name!r} can't be loaded: {error}"
        else:
            self._modules.setdefault(path.partition(":")[0], key)
            return path, driver
        self._findings.add([Findings(source).at(("profile", "driver"), text)])
        return None

    def _port(self, key: Key, name: str, profile: Profile) -> Port:
        if "://" in name:
            text = (
                f"{name!r} is on a network, which the core has no access to; expected a device "
                "or the name of a [[bridge]] that has this url"
            )
            self._findings.error((*key, "port"), text)
        path = name if "/" in name else str(self._run / "ports" / name)
        return Port(path, **profile.port.model_dump() if profile.port else {})

    def _refused(self, key: Key, name: str, source: Source, message: str) -> None:
        """Put a driver's refusal, which begins with the option's key, where the option stands."""
        option, _, text = message.partition(": ")
        option = option.removeprefix(f"{name}.")
        for at in ((*key, "options", option), (*key, option)):
            if at in self._findings.source.lines:
                self._findings.error(at, text)
                return
        for at in (("driver", option), ("siren", option)):
            if at in source.lines:
                self._findings.add([Findings(source).at(at, text)])
                return
        self._findings.error(key, message)

    def _plain(self, key: Key, table: str, values: Mapping[str, Any]) -> bool:
        """Whether values can stand in the compiled file; drivers see nothing that can't."""
        try:
            json.dumps(values, allow_nan=False)
        except (TypeError, ValueError):
            text = "expected text, finite numbers, true or false, or lists and tables of these"
            self._findings.error((*key, table) if table else key, text)
            return False
        return True

    # -- sensors ---------------------------------------------------------------------------------

    def _sensor(
        self, key: Key, sensor: models.Sensor, station: models.Station | None
    ) -> Sensor | None:
        found = self._profile(key, sensor.profile)
        if found is None:
            return None
        profile, source = found
        port = self._port(key, sensor.port, profile)
        channels = self._sensor_channels(key, sensor, found, station)
        found_driver = self._driver(key, profile, source)
        if found_driver is None:
            return None
        path, made = found_driver
        options = {**profile.driver, **sensor.options}
        if not self._plain(key, "options", options):
            return None
        try:
            driver = made(options, sensor.name)
        except ValueError as error:
            self._refused(key, sensor.name, source, str(error))
            return None
        self._one_port(key, port, driver)
        if made.kind != profile.profile.kind:
            text = f"{profile.profile.kind!r}; expected {made.kind!r}, which its driver is"
            self._findings.add([Findings(source).at(("profile", "kind"), text)])
        rate_hz = float(getattr(driver, "rate_hz", 0.0))
        if made.kind == "seismic":
            given = getattr(driver, "channels", len(channels))
            if given != len(channels):
                text = (
                    f"{len(channels)} [[channel]] in the profile; expected {given}, as the driver"
                )
                self._findings.error((*key, "profile"), f"{text} gives with these options")
            if not rate_hz > 0:
                self._findings.error((*key, "profile"), "its driver states no sampling rate")
        return Sensor(
            name=sensor.name,
            port=port,
            driver=path,
            kind=made.kind,
            options=options,
            channels=channels,
            rate_hz=rate_hz,
            silent_after_s=max(
                profile.limits.silent_after_s, MISSED * float(getattr(driver, "spacing_s", 0.0))
            ),
            counter_wrap_micro=next(
                (round(c.wrap_mm * MICRO) for c in profile.channel if c.wrap_mm is not None), None
            ),
        )

    def _one_port(self, key: Key, port: Port, driver: Any) -> None:
        """A port has one sensor, or several that take turns on a bus with an address each."""
        device, request = _device(port), getattr(driver, "request", None)
        place = self._asked.setdefault((device, request), key) if request else key
        if request is not None and place != key:
            text = f"asks unit {request.address} for the same as {key_text(place)}"
            self._findings.error(key, f"{text}; expected another address, register or input")
        first_key, first_port, first = self._ports.setdefault(device, (key, port, driver))
        if first_key == key:
            return
        other = key_text(first_key)
        bus = getattr(driver, "bus", None)
        if bus is None or getattr(first, "bus", None) is not bus:
            text = f"is also the port of {other}; expected one of its own"
            why = "only sensors with an address on one bus (Modbus) share a port"
            self._findings.error((*key, "port"), f"{text}, for {why}")
        elif first_port != port:
            text = f"is also the port of {other}, which has {_line_of(first_port)}"
            self._findings.error((*key, "port"), f"{text}; this has {_line_of(port)}")

    def _sensor_channels(
        self,
        key: Key,
        sensor: models.Sensor,
        found: tuple[Profile, Source],
        station: models.Station | None,
    ) -> tuple[Channel, ...]:
        profile, source = found
        if profile.profile.kind != "seismic":
            for name in ("location", "sensitivity"):
                if name in sensor.model_fields_set:
                    text = f"{sensor.profile!r} is no seismometer; expected no such key"
                    self._findings.error((*key, name), text)
            self.gauged |= {c.quantity for c in profile.channel if c.quantity is not None}
            return ()
        codes = [channel.code or "" for channel in profile.channel]
        for code in sensor.sensitivity:
            if code and code not in codes:
                text = f"no such channel; {nearest(code, codes)}"
                self._findings.error((*key, "sensitivity", code), text)
        network, site = (station.network, station.code) if station else ("XX", "STA")
        channels = []
        for index, channel in enumerate(profile.channel):
            code = channel.code or ""
            own = sensor.sensitivity.get(code, sensor.sensitivity.get(""))
            if own is not None:
                at = (*key, "sensitivity", *([code] if code in sensor.sensitivity else []))
                self._findings.add(_unit_faults(self._findings, at, code, own, channel.sensitivity))
            elif channel.sensitivity is not None:
                at = ("channel", index, "sensitivity")
                self._findings.add(_unit_faults(Findings(source), at, code, channel.sensitivity))
            location = channel.location if sensor.location is None else sensor.location
            name = f"{network}.{site}.{location}.{code}"
            channels.append(Channel(name, own or channel.sensitivity))
        self._once(key, channels)
        return tuple(channels)

    def _once(self, key: Key, channels: Iterable[Channel]) -> None:
        taken = [c.id for c in channels if self._channels.setdefault(c.id, key) != key]
        if taken:
            other = key_text(self._channels[taken[0]])
            text = f"{taken[0]} is also a channel of {other}; expected a location of its own"
            self._findings.error((*key, "location"), text)

    # -- sirens ----------------------------------------------------------------------------------

    def _siren(self, key: Key, given: models.Siren) -> Siren | None:
        found = self._profile(key, given.profile)
        if found is None or found[0].siren is None:
            return None
        (profile, source), limits = found, found[0].siren
        for name in given.unit:
            if name not in limits.unit:
                there = [*limits.unit, *models.Siren.model_fields]
                self._findings.error((*key, name), f"unknown key; {nearest(name, there)}")
        if profile.port is None and given.port is not None:
            text = f"{given.profile!r} is no device on a port; expected no such key"
            self._findings.error((*key, "port"), text)
        elif profile.port is not None and given.port is None:
            self._findings.error((*key, "port"), "missing; expected the device that switches it")
        found_driver = self._driver(key, profile, source)
        if found_driver is None:
            return None
        path, made = found_driver
        options = {**profile.driver, **given.options}
        unit = {name: given.unit.get(name, default) for name, default in limits.unit.items()}
        if not all([self._plain(key, "options", options), self._plain(key, "", unit)]):
            return None
        try:
            made(options, {given.name: unit})
        except ValueError as error:
            self._refused(key, given.name, source, str(error))
            return None
        return Siren(
            name=given.name,
            port=self._port(key, given.port, profile) if given.port is not None else None,
            driver=path,
            options=options,
            unit=unit,
            max_on_s=given.max_on_s or limits.max_on_s,
            max_hour_s=given.max_hour_s or limits.max_hour_s,
        )

    def _shared_ports(self, sirens: Iterable[tuple[Key, Siren]]) -> None:
        first: dict[str, tuple[Key, Siren]] = {}
        units: dict[tuple[str, str], Key] = {}
        for key, one in sirens:
            if one.port is None:
                continue
            device = _device(one.port)
            if device in self._ports:
                text = f"is also the port of {key_text(self._ports[device][0])}"
                self._findings.error((*key, "port"), f"{text}; expected one of its own")
            other_key, other = first.setdefault(device, (key, one))
            if (other.driver, other.port, other.options) != (one.driver, one.port, one.options):
                text = f"is also the port of {key_text(other_key)}; expected the same profile"
                self._findings.error((*key, "port"), f"{text}, path and options there")
            unit = json.dumps(one.unit, sort_keys=True)
            if (twin := units.setdefault((device, unit), key)) != key:
                what = ", ".join(f"{name} {value}" for name, value in one.unit.items()) or "port"
                text = f"{what} is also that of {key_text(twin)}; expected another"
                self._findings.error(key, text)


def _unit_faults(
    findings: Findings,
    key: Key,
    code: str,
    given: Sensitivity,
    device: Sensitivity | None = None,
) -> list[Fault]:
    """A sensitivity in another unit than the device's own, or than its channel's code names."""
    if device is not None and device.unit != given.unit:
        text = (
            f"counts per {given.unit}; expected counts per {device.unit}, "
            f"for the device measures {MEASURES[device.unit]}"
        )
        return [findings.at(key, text)]
    text = misnamed(code, given.unit)
    return [findings.at(key, text, warning=True)] if text else []


def _line_of(port: Port) -> str:
    """How a port is set, in words."""
    form = f"{port.baud} baud {port.bytesize}{port.parity}{port.stopbits}"
    return f"{form} at {port.path}"


def _device(port: Port) -> str:
    """One name for a device, which may have several paths."""
    return os.path.realpath(port.path)
