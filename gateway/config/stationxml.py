"""FDSN StationXML of the station: what turns its counts into ground motion, and where it stands.

FDSN StationXML schema 1.2. One channel a digitiser's channel, with one analogue response stage from
ground motion to counts, since a sensitivity states the whole way. Its shape:

=====================  =============================================================================
known                  poles and zeros (rad/s)
=====================  =============================================================================
``response``           a geophone of natural frequency f0 and damping h: velocity, two zeros at 0,
                       poles at −2π f0 (h ± √(h² − 1)) (Havskov and Alguacil, *Instrumentation in
                       Earthquake Seismology*, ch. 2)
a sensitivity alone    none: flat, which for a geophone holds above its natural frequency only
no sensitivity         the channel has no response
=====================  =============================================================================

The sensitivity is that of the flat part. The stage states gain and normalisation at
``REFERENCE_HZ``, or where that is too near the end of the band, at 0.2 × rate.
"""

import cmath
import math
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from gateway import __version__
from gateway.config import models, profiles
from gateway.config.compile import RUN, read_configuration
from gateway.config.devices import Devices
from gateway.config.faults import ConfigError
from gateway.core.compiled import Channel, Sensor

NAMESPACE = "http://www.fdsn.org/xml/station/1"
REFERENCE_HZ = 10.0
_UNITS = {"m/s": ("m/s", "Velocity"), "m/s**2": ("m/s**2", "Acceleration")}


def station_xml(path: Path) -> str:
    """The StationXML of a gateway.toml and the profiles that it names.

    Its ``Created`` is when the newest of them was changed, so that the same files give the same
    text.

    Raises:
        ConfigError: with every fault of station, sensors and profiles.
    """
    config, findings = read_configuration(path)
    if config is None:
        raise ConfigError(findings.faults)
    folders = profiles.folders(path)
    sensors = Devices(findings, folders, RUN).sensors(enumerate(config.sensor), config.station)
    if any(fault.severity == "error" for fault in findings.faults):
        raise ConfigError([x for x in findings.faults if x.severity == "error"])
    changed_s = [path.stat().st_mtime]
    root = ET.Element("FDSNStationXML", {"xmlns": NAMESPACE, "schemaVersion": "1.2"})
    for name, text in (("Source", config.station.id), ("Module", f"gateway {__version__}")):
        ET.SubElement(root, name).text = text
    created = ET.SubElement(root, "Created")
    network = ET.SubElement(root, "Network", code=config.station.network)
    station = ET.SubElement(network, "Station", code=config.station.code)
    _place(station, config.station)
    site = ET.SubElement(station, "Site")
    ET.SubElement(site, "Name").text = config.station.name or config.station.id
    for given, sensor in zip(config.sensor, sensors, strict=True):
        profile, profile_source = profiles.load(given.profile, folders)
        changed_s.append(profile_source.path.stat().st_mtime)
        described = {channel.code: channel for channel in profile.channel}
        for channel in sensor.channels:
            code = channel.id.rpartition(".")[2]
            shape = described[code]
            _channel(station, config.station, given, sensor, channel, shape, profile.profile.title)
    created.text = datetime.fromtimestamp(max(changed_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _place(above: ET.Element, station: models.Station) -> None:
    ET.SubElement(above, "Latitude").text = f"{station.latitude:.6f}"
    ET.SubElement(above, "Longitude").text = f"{station.longitude:.6f}"
    ET.SubElement(above, "Elevation").text = f"{station.elevation_m:.1f}"


def _channel(
    above: ET.Element,
    station: models.Station,
    given: models.Sensor,
    sensor: Sensor,
    channel: Channel,
    shape: profiles.Channel,
    title: str,
) -> None:
    _, _, location, code = channel.id.split(".")
    element = ET.SubElement(above, "Channel", code=code, locationCode=location)
    _place(element, station)
    ET.SubElement(element, "Depth").text = f"{given.depth_m:.1f}"
    azimuth, dip = _direction(code, shape, given.azimuth_deg)
    if azimuth is not None:
        ET.SubElement(element, "Azimuth").text = f"{azimuth:.1f}"
    if dip is not None:
        ET.SubElement(element, "Dip").text = f"{dip:.1f}"
    for kind in ("CONTINUOUS", "GEOPHYSICAL"):
        ET.SubElement(element, "Type").text = kind
    ET.SubElement(element, "SampleRate").text = f"{sensor.rate_hz:g}"
    for name, text in (("Sensor", given.model), ("DataLogger", title)):
        if text:
            ET.SubElement(ET.SubElement(element, name), "Description").text = text
    if channel.sensitivity is not None:
        response = given.response or shape.response
        _response(element, channel, sensor.rate_hz, response)


def _direction(
    code: str, shape: profiles.Channel, azimuth_deg: float
) -> tuple[float | None, float | None]:
    """Azimuth and dip of a channel, degrees as SEED has them: Z is up, that is dip −90."""
    usual = {"Z": (0.0, -90.0), "N": (0.0, 0.0), "E": (90.0, 0.0)}.get(code[2], (None, None))
    azimuth = usual[0] if shape.azimuth_deg is None else shape.azimuth_deg
    dip = usual[1] if shape.dip_deg is None else shape.dip_deg
    if azimuth is not None and (dip is None or abs(dip) < 90):
        azimuth = (azimuth + azimuth_deg) % 360
    return azimuth, dip


def _response(
    above: ET.Element, channel: Channel, rate_hz: float, shape: models.Response | None
) -> None:
    assert channel.sensitivity is not None  # noqa: S101  the caller looked
    at_hz = min(REFERENCE_HZ, 0.2 * rate_hz)
    poles: list[complex] = []
    zeros: list[complex] = []
    if shape is not None:
        omega, h = 2 * math.pi * shape.natural_hz, shape.damping
        root = cmath.sqrt(h * h - 1)
        poles, zeros = [-omega * (h - root), -omega * (h + root)], [0j, 0j]
    s = 2j * math.pi * at_hz
    there = abs(math.prod((s - z) for z in zeros) / math.prod((s - p) for p in poles))
    unit = channel.sensitivity.unit
    gain = channel.sensitivity.counts_per_unit * there
    response = ET.SubElement(above, "Response")
    total = ET.SubElement(response, "InstrumentSensitivity")
    _values(total, Value=gain, Frequency=at_hz)
    _unit(total, unit)
    stage = ET.SubElement(response, "Stage", number="1")
    shaped = ET.SubElement(stage, "PolesZeros")
    _unit(shaped, unit)
    ET.SubElement(shaped, "PzTransferFunctionType").text = "LAPLACE (RADIANS/SECOND)"
    _values(shaped, NormalizationFactor=1 / there, NormalizationFrequency=at_hz)
    for name, values in (("Zero", zeros), ("Pole", poles)):
        for number, value in enumerate(values):
            one = ET.SubElement(shaped, name, number=str(number))
            _values(one, Real=value.real, Imaginary=value.imag)
    _values(ET.SubElement(stage, "StageGain"), Value=gain, Frequency=at_hz)


def _unit(above: ET.Element, unit: str) -> None:
    for name, (text, meaning) in (
        ("Input", _UNITS[unit]),
        ("Output", ("counts", "Digital counts")),
    ):
        units = ET.SubElement(above, f"{name}Units")
        ET.SubElement(units, "Name").text = text
        ET.SubElement(units, "Description").text = meaning


def _values(above: ET.Element, **values: float) -> None:
    for name, value in values.items():
        ET.SubElement(above, name).text = f"{value:.9g}"
