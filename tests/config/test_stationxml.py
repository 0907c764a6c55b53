"""StationXML: valid, read by obspy, and its response gives ground motion in the right unit."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import obspy.io.stationxml
import pytest
from lxml import etree
from typer.testing import CliRunner

from gateway.config import ConfigError
from gateway.config.stationxml import station_xml
from gateway.config.uplink import uplink_config

STATION = """
[station]
id = "cn-demo-001"
name = "示范站 & <school>"
city = "demo"
network = "XX"
code = "DEMO"
latitude = 31.0
longitude = 103.4
elevation_m = 540.0

[[sensor]]
name = "seis1"
profile = "rpi-seism"
port = "/dev/ttyUSB0"
"""
GEOPHONE = 'model = "GD-4.5"\nresponse = {natural_hz = 4.5, damping = 0.7}\n'


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def made(more: str) -> Path:
        path = tmp_path / "gateway.toml"
        path.write_text(STATION + more)
        return path

    return made


def schema() -> etree.XMLSchema:
    folder = Path(obspy.io.stationxml.__file__).parent / "data"
    return etree.XMLSchema(etree.parse(str(folder / "fdsn-station-1.2.xsd")))


@pytest.mark.parametrize(
    "more",
    [
        "",
        'sensitivity = "6e8:m/s"\n',
        'sensitivity = "4.2e5:m/s**2"\nlocation = "00"\ndepth_m = 1.5\nazimuth_deg = 12.0\n',
        'sensitivity = {EHZ = "6e8:m/s"}\n' + GEOPHONE,
    ],
)
def test_it_is_valid_by_the_schema(write: Callable[[str], Path], more: str) -> None:
    found = schema()
    document = etree.fromstring(station_xml(write(more)).encode())
    assert found.validate(document), found.error_log


def inventory(path: Path) -> Any:
    return obspy.read_inventory(io.BytesIO(station_xml(path).encode()))


def test_obspy_reads_where_the_station_is_and_how_its_sensors_stand(
    write: Callable[[str], Path],
) -> None:
    more = 'sensitivity = "6e8:m/s"\ndepth_m = 1.5\nazimuth_deg = 12.0\nmodel = "GD-4.5"\n'
    station = inventory(write(more))[0][0]
    assert station.site.name == "示范站 & <school>"
    assert (station.latitude, station.longitude, station.elevation) == (31.0, 103.4, 540.0)
    stands = {channel.code: (channel.azimuth, channel.dip) for channel in station}
    assert stands == {"EHZ": (0.0, -90.0), "EHN": (12.0, 0.0), "EHE": (102.0, 0.0)}
    assert {channel.depth for channel in station} == {1.5}
    assert {channel.sample_rate for channel in station} == {100.0}
    assert station[0].sensor.description == "GD-4.5"


@pytest.mark.parametrize(("sensitivity", "output"), [("6e8:m/s", "VEL"), ("4.2e5:m/s**2", "ACC")])
def test_a_flat_response_takes_counts_to_their_unit(
    write: Callable[[str], Path], sensitivity: str, output: str
) -> None:
    path = write(f'sensitivity = "{sensitivity}"\n')
    counts = 1e6 * np.sin(2 * np.pi * 5 * np.arange(6000) / 100)
    trace = obspy.Trace(counts, header={"network": "XX", "station": "DEMO", "channel": "EHZ"})
    trace.stats.sampling_rate = 100.0
    trace.remove_response(inventory(path), output=output, zero_mean=False, taper=False)
    expected = counts / float(sensitivity.partition(":")[0])
    assert np.abs(trace.data - expected)[500:-500].max() < 0.01 * expected.max()


def test_a_geophone_falls_off_below_its_natural_frequency(write: Callable[[str], Path]) -> None:
    path = write('sensitivity = "6e8:m/s"\n' + GEOPHONE)
    response = inventory(path).get_response("XX.DEMO..EHZ", obspy.UTCDateTime(2026, 11, 26))
    frequencies = np.array([0.45, 4.5, 10.0, 40.0])
    found = np.abs(response.get_evalresp_response_for_frequencies(frequencies, output="VEL"))
    ratio = (frequencies / 4.5) ** 2
    flat = ratio / np.sqrt((1 - ratio) ** 2 + (2 * 0.7) ** 2 * ratio)
    assert found == pytest.approx(6e8 * flat, rel=1e-5)
    assert response.instrument_sensitivity.value == pytest.approx(6e8 * flat[2], rel=1e-6)


def test_without_a_sensitivity_nothing_is_claimed(write: Callable[[str], Path]) -> None:
    assert all(channel.response is None for channel in inventory(write(""))[0][0])


def test_a_fault_is_named_and_the_uplink_runs_all_the_same(write: Callable[[str], Path]) -> None:
    path = write('[uplink.archive]\npath = "archive"\n')
    assert uplink_config(path).archive is not None
    path = write('options = {gain = 3}\n[uplink.archive]\npath = "archive"\n')
    with pytest.raises(ConfigError):
        station_xml(path)
    config = uplink_config(path)
    assert config.archive is not None
    assert config.archive.station_xml == ""
    assert config.archive.path == str(path.parent / "archive")


def test_the_command_writes_it(write: Callable[[str], Path], tmp_path: Path) -> None:
    import typer  # noqa: PLC0415  likewise

    from gateway.cli.stationxml import stationxml  # noqa: PLC0415  with its own application

    app = typer.Typer()
    app.command()(stationxml)
    out = tmp_path / "station.xml"
    path = write('sensitivity = "6e8:m/s"\n')
    result = CliRunner().invoke(app, ["--config", str(path), "-o", str(out)])
    assert result.exit_code == 0
    assert out.read_text() == station_xml(path)
    broken = write("profil = 1\n")
    result = CliRunner().invoke(app, ["--config", str(broken)])
    assert result.exit_code == 1


@pytest.mark.parametrize("table", ["seedlink", "waveforms"])
def test_what_lives_on_the_archive_needs_it(write: Callable[[str], Path], table: str) -> None:
    from gateway.config import check  # noqa: PLC0415  one test's

    faults = check(write(f"[uplink.{table}]\n")).errors
    assert any("[uplink.archive]" in str(fault) for fault in faults)
    with_archive = f'[uplink.archive]\npath = "a"\n[uplink.{table}]\n'
    assert not any("[uplink.archive]" in str(x) for x in check(write(with_archive)).errors)
