"""Which serial ports there are, which profile fits each, and who uses it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.cli.ports import found, recognised, stable_names, users
from gateway.config import compile_config
from tests.cli.running_core import CONFIGURATION, gateway


def port(device: Path | str, usb: tuple[int, int] | None = None) -> Any:
    vid, pid = usb or (None, None)
    return SimpleNamespace(device=str(device), vid=vid, pid=pid, description="n/a")


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """A /dev with one adapter, known by its serial number and by its socket."""
    (tmp_path / "ttyUSB0").touch()
    for kind, name in (("by-path", "pci-0"), ("by-id", "usb-1a86-0")):
        (tmp_path / "serial" / kind).mkdir(parents=True)
        (tmp_path / "serial" / kind / name).symlink_to("../../ttyUSB0")
    return tmp_path


def test_a_port_is_known_by_its_stable_name_whatever_name_is_configured(dev: Path) -> None:
    by_id, by_path = dev / "serial" / "by-id" / "usb-1a86-0", dev / "serial" / "by-path" / "pci-0"
    for configured in (dev / "ttyUSB0", by_id, by_path):
        (row,) = found(
            [port(dev / "ttyUSB0", (0x1A86, 0x7523))],
            stable_names(dev / "serial"),
            {"1a86:7523": ["lcus-usb-relay"]},
            {str(configured): ["main"]},
        )
        assert row["usb"] == "1a86:7523"
        assert row["profiles"] == ["lcus-usb-relay"]
        assert row["used_by"] == ["main"]
        assert row["stable_name"] == str(by_id)


def test_without_a_serial_number_the_socket_gives_the_stable_name(dev: Path) -> None:
    (dev / "serial" / "by-id" / "usb-1a86-0").unlink()
    names = stable_names(dev / "serial")
    assert list(names.values()) == [str(dev / "serial" / "by-path" / "pci-0")]


def test_configured_ports_that_are_not_there_are_listed_too(dev: Path) -> None:
    rows = found([port(dev / "ttyUSB0")], {}, {}, {"/dev/not-there": ["seis1"]})
    assert [(row["device"], row["used_by"]) for row in rows] == [
        (str(dev / "ttyUSB0"), []),
        ("/dev/not-there", ["seis1"]),
    ]
    assert rows[1]["what"] == "not there"


def test_shipped_profiles_are_recognised_by_their_usb_numbers(tmp_path: Path) -> None:
    assert recognised(tmp_path / "gateway.toml")["1a86:7523"] == ["lcus-usb-relay"]


def test_sirens_that_share_a_port_are_both_its_users(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    second = (
        '[[siren]]\nname = "{}"\nprofile = "waveshare-modbus-relay"\n'
        'port = "/dev/relay"\nrelay = {}\n'
    )
    config.write_text(CONFIGURATION + second.format("a", 1) + second.format("b", 2))
    assert users(compile_config(config)) == {"/dev/relay": ["a", "b"]}


def test_the_command_needs_neither_ports_nor_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serial.tools.list_ports.comports", list)
    done = gateway("ports", "--config", str(tmp_path / "gateway.toml"))
    assert done.exit_code == 0
    assert "no serial port: plug a device in" in done.stdout


def test_a_faulty_configuration_is_said_and_the_ports_are_listed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: [port("/dev/ttyUSB9")])
    config = tmp_path / "gateway.toml"
    config.write_text("[station]\n")
    done = gateway("ports", "--config", str(config))
    assert done.exit_code == 0
    assert "/dev/ttyUSB9" in done.stdout
    assert f"{config} has errors" in done.stdout
