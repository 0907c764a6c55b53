"""``gateway device`` on simulated devices behind pseudo-terminals."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.config import profiles
from gateway.core.compiled import Port
from gateway.core.transport import Line
from gateway.drill import devices
from gateway.drill.stage import Stage
from gateway.drivers import Simulator
from gateway.drivers.dfrobot_sen0676 import RANGE_M, DfrobotSen0676Simulator
from gateway.drivers.nova_sds011 import MODE, PERIOD, NovaSds011Simulator
from tests.staged import playing

Staged = Callable[..., tuple[Path, Simulator]]


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Staged]:
    """Drives the device of a profile in a thread of this process; gives its link and itself."""
    with ExitStack() as stack:

        def start(profile: str, **options: Any) -> tuple[Path, Simulator]:
            chosen, _ = profiles.load(profile)
            device = devices.simulator(chosen, devices.Play(options=options))
            baud = chosen.port.baud if chosen.port else 9600
            stack.enter_context(playing(Stage(device, tmp_path / "tty", baud=baud)))
            return tmp_path / "tty", device

        yield start


def device(*arguments: str) -> tuple[int, dict[str, dict[str, str]], str]:
    """Exit code, rows by setting, and what went wrong."""
    done = CliRunner().invoke(app, ["device", *arguments, "--json"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return done.exit_code, {row["setting"]: row for row in rows}, done.stderr


def test_a_setting_is_pushed_and_proven_by_read_back(staged: Staged) -> None:
    port, sensor = staged("dfrobot-sen0676")
    assert isinstance(sensor, DfrobotSen0676Simulator)
    arguments = ("dfrobot-sen0676", str(port), "--option", "range_m=12")
    code, rows, _ = device("diff", *arguments)
    assert (code, rows["range_m"]["device"]) == (1, "20")
    code, rows, stderr = device("verify", *arguments)
    assert code == 1
    assert "range_m differs" in stderr
    code, rows, _ = device("push", *arguments)
    assert (code, rows["range_m"]["device"], rows["range_m"]["proof"]) == (0, "12", "read back")
    assert sensor.registers[RANGE_M] == 12
    assert device("verify", *arguments)[0] == 0
    assert device("diff", *arguments)[:2] == (0, {})


def test_settings_are_read_back_amid_the_device_s_own_data(staged: Staged) -> None:
    port, sensor = staged("nova-sds011")
    assert isinstance(sensor, NovaSds011Simulator)
    sensor.settings[MODE] = 1
    code, rows, _ = device("show", "nova-sds011", str(port))
    assert (code, rows["report_mode"]["device"]) == (0, "1")
    code, rows, _ = device("push", "nova-sds011", str(port), "--option", "period_min=3")
    assert code == 0
    assert {row["proof"] for row in rows.values()} == {"read back"}
    assert (sensor.settings[MODE], sensor.settings[PERIOD]) == (0, 3)


def test_a_device_without_read_back_says_so(staged: Staged) -> None:
    port, _ = staged("hydreon-rg15")
    code, rows, stderr = device("verify", "hydreon-rg15", str(port))
    assert code == 1
    assert rows["unit"]["proof"] == "read back"
    assert rows["mode"]["proof"].startswith("none: the device has no read-back")
    assert "mode is not known" in stderr
    code, rows, _ = device("push", "hydreon-rg15", str(port))
    assert code == 0
    assert rows["mode"]["proof"].startswith("echo only")


@pytest.mark.parametrize("profile", ["rpi-seism", "plantower-pms5003"])
def test_an_echo_is_called_an_echo(staged: Staged, profile: str) -> None:
    port, _ = staged(profile)
    code, rows, _ = device("push", profile, str(port))
    assert code == 0
    assert all(row["proof"].startswith("echo only") for row in rows.values())


def test_a_device_that_does_not_answer_is_a_fault(staged: Staged) -> None:
    port, _ = staged("dfrobot-sen0676", address=7)
    code, rows, stderr = device("verify", "dfrobot-sen0676", str(port))
    assert code == 1
    assert rows["range_m"]["proof"] == "no answer"
    assert "range_m is not known (no answer)" in stderr


def test_a_port_that_the_core_has_is_refused_with_what_to_do(staged: Staged) -> None:
    port, _ = staged("dfrobot-sen0676")
    line = Line(Port(str(port)))
    line.tick(0)
    try:
        code, _, stderr = device("show", "dfrobot-sen0676", str(port))
    finally:
        line.close()
    assert code == 1
    assert "in use by another program" in stderr
    assert "systemctl stop gateway-core" in stderr


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ("gill-windsonic", "nothing of this device can be set from here"),
        ("waveshare-modbus-relay", "is a siren"),
        ("rpi-seis", "no profile"),
    ],
)
def test_what_can_not_be_set_is_said(profile: str, reason: str) -> None:
    code, _, stderr = device("push", profile, "/dev/null")
    assert code == 2
    assert reason in stderr
