"""What would keep a station from working is found, with what to do; nothing else is a fault."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import doctor
from gateway.cli.doctor import Finding, broker, certificates, port, uplink
from gateway.uplink.config import MqttConfig
from tests.cli.running_core import CONFIGURATION, Station, applied, gateway, running


@pytest.fixture
def stopped() -> Iterator[Station]:
    with applied() as station:
        yield station


def examined(station: Station) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in doctor.examine(station.config, station.state, station.run):
        found.setdefault(finding.part, []).append(finding)
    return found


def test_a_running_core_is_seen_and_its_own_complaints_are_passed_on() -> None:
    with running() as station:
        found = examined(station)
    assert {f.state for part in ("configuration", "compiled") for f in found[part]} == {"ok"}
    assert [f.state for f in found["socket"]] == ["ok", "ok"]
    (core,) = found["core"]
    assert core.text.startswith("runs, pid ")
    assert core.state != "fault"


def test_a_station_that_does_not_run_is_a_fault(stopped: Station) -> None:
    places = ["--config", str(stopped.config), "--state", str(stopped.state)]
    done = gateway("doctor", *places, "--run", str(stopped.run), "--json")
    assert done.exit_code == 1
    found = [json.loads(line) for line in done.stdout.splitlines()]
    faults = {f["part"] for f in found if f["state"] == "fault"}
    assert faults == {"socket", "core", "uplink"}


def test_faults_of_the_configuration_are_in_the_list(stopped: Station) -> None:
    stopped.config.write_text(CONFIGURATION.replace("30.0", "300.0"))
    found = examined(stopped)
    (fault,) = found["configuration"]
    assert fault.state == "fault"
    assert f"{stopped.config}:5: station.latitude" in fault.text
    assert found["compiled"][0].state == "warning"


@pytest.mark.parametrize(
    ("damage", "state", "said"),
    [
        (lambda path: path.unlink(), "fault", "is not there: run gateway apply"),
        (lambda path: path.write_text("{"), "fault", "run gateway apply"),
        (
            lambda path: path.write_text(path.read_text().replace('"demo"', '"other"')),
            "warning",
            "run gateway apply, then restart the core",
        ),
    ],
)
def test_a_compiled_file_that_is_not_what_is_written(
    stopped: Station, damage: Any, state: str, said: str
) -> None:
    damage(stopped.state / "compiled" / "current.json")
    (finding,) = examined(stopped)["compiled"]
    assert finding.state == state
    assert said in finding.text


def test_a_configured_port_that_is_not_there(stopped: Station) -> None:
    siren = '[[siren]]\nname = "relay"\nprofile = "lcus-usb-relay"\nport = "/dev/not-there"\n'
    stopped.config.write_text(CONFIGURATION + siren)
    (finding,) = examined(stopped)["port"]
    assert finding.state == "fault"
    assert "/dev/not-there of relay is not there: plug it in" in finding.text


def test_what_is_no_device_is_no_port(tmp_path: Path) -> None:
    path = tmp_path / "seis"
    path.touch()
    assert "is no device" in port(path, "seis1", tmp_path).text
    assert port(Path("/dev/null"), "seis1", tmp_path).state == "ok"


def test_a_bridged_port_is_the_bridge_s(tmp_path: Path) -> None:
    finding = port(tmp_path / "ports" / "far", "seis1", tmp_path)
    assert "start gateway-bridge" in finding.text


def test_paths_of_sockets_that_are_too_long_are_told(tmp_path: Path) -> None:
    station = Station(tmp_path / ("long" * 30))
    assert "choose a shorter --run" in examined(station)["socket"][0].text


def process(folder: Path, pid: int, *words: str) -> None:
    (folder / str(pid)).mkdir()
    (folder / str(pid) / "cmdline").write_bytes("\0".join([*words, ""]).encode())


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (("python", "-m", "gateway.uplink", "--run", "/run/here"), "ok"),
        (("python", "-m", "gateway.uplink", "--run", "/run/elsewhere"), "fault"),
        (("python", "-m", "gateway.uplink"), "fault"),
        (("python", "-m", "gateway.core", "--run", "/run/here"), "fault"),
        (("vi", "gateway.uplink.txt"), "fault"),
    ],
)
def test_the_uplink_of_this_station_is_told_from_others(
    tmp_path: Path, words: tuple[str, ...], state: str
) -> None:
    process(tmp_path, 12, *words)
    assert uplink(Path("/run/here"), tmp_path).state == state


def test_a_broker_is_reached_or_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        assert broker(url) == Finding("broker", "ok", f"{url} takes connections")
    finding = broker(url)
    assert finding.state == "fault"
    assert "look at the network" in finding.text


def test_certificates_that_are_missing_or_none_at_all(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    mqtt = MqttConfig(urls=("mqtts://hub",), ca_file=str(ca))
    (missing,) = certificates(mqtt)
    assert (missing.part, missing.state) == ("ca_file", "fault")
    ca.write_text("nothing of the kind\n")
    (broken,) = certificates(mqtt)
    assert broken.state == "fault"
    assert "expected PEM" in broken.text
    assert not list(certificates(MqttConfig(urls=("mqtt://hub",))))


@pytest.mark.parametrize(("free", "state"), [(50e6, "fault"), (500e6, "warning"), (5000e6, "ok")])
def test_a_disk_that_fills_is_told_in_time(
    stopped: Station, monkeypatch: pytest.MonkeyPatch, free: float, state: str
) -> None:
    class Usage:
        def __init__(self, _path: Path) -> None:
            self.free = free

    monkeypatch.setattr("shutil.disk_usage", Usage)
    assert examined(stopped)["disk"][0].state == state
