"""``gateway check`` and ``gateway apply``: for people, for programs, and for exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway import cli
from gateway.core import compiled

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("GATEWAY_"):
            monkeypatch.delenv(name)
    path = tmp_path / "gateway.toml"
    path.write_text((EXAMPLES / "station.toml").read_text())
    return path


@pytest.fixture
def wrong(config: Path) -> Path:
    text = config.read_text().replace("31.0", "91.0").replace('"rpi-seism"', '"rpi-seis"')
    config.write_text(text)
    return config


def test_a_sound_configuration_is_told_in_full(config: Path) -> None:
    result = CliRunner().invoke(cli.app, ["check", "--config", str(config)])
    assert result.exit_code == 0
    for word in ("cn-demo-001", "seis1", "rain1", "XX.DEMO..EHZ", "main", "earthquake"):
        assert word in result.stdout
    assert "can be applied; 0 errors, 0 warnings" in result.stdout
    assert result.stderr == ""


def test_every_fault_goes_to_standard_error(wrong: Path) -> None:
    result = CliRunner().invoke(cli.app, ["check", "--config", str(wrong)])
    assert result.exit_code == 1
    assert [line.removeprefix(f"{wrong}:") for line in result.stderr.splitlines()] == [
        "9: station.latitude: 91.0; expected a number from -90 to 90 (°)",
        "15: sensor[0].profile: no profile 'rpi-seis'; did you mean 'rpi-seism'?",
    ]
    assert "can not be applied; 2 errors, 0 warnings" in result.stdout


def test_programs_get_one_json_object(config: Path) -> None:
    result = CliRunner().invoke(cli.app, ["check", "--json", "--config", str(config)])
    report = json.loads(result.stdout)
    assert report["errors"] == report["warnings"] == []
    assert set(report["disabled"]) == {"air_pollution", "fire", "flood", "typhoon"}
    assert [sensor["name"] for sensor in report["sensors"]] == ["seis1", "rain1"]
    assert [siren["name"] for siren in report["sirens"]] == ["main"]


def test_programs_get_faults_in_parts(wrong: Path) -> None:
    result = CliRunner().invoke(cli.app, ["check", "--json", "--config", str(wrong)])
    assert result.exit_code == 1
    first, second = json.loads(result.stdout)["errors"]
    assert (first["line"], first["key"], first["file"]) == (9, "station.latitude", str(wrong))
    assert (second["line"], second["key"]) == (15, "sensor[0].profile")


def test_without_a_sensitivity_or_siren_it_says_what_is_missing(config: Path) -> None:
    text = config.read_text().partition("[[siren]]")[0].replace("sensitivity", "# sensitivity")
    config.write_text(text)
    result = CliRunner().invoke(cli.app, ["check", "--config", str(config)])
    assert result.exit_code == 0
    assert "earthquake alerts are disabled" in result.stdout
    assert "nothing sounds" in result.stdout


def test_the_place_may_come_from_the_environment(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG", str(config))
    assert CliRunner().invoke(cli.app, ["check"]).exit_code == 0


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["check", "--config", str(tmp_path / "none.toml")])
    assert result.exit_code == 1
    assert "there is no such file" in result.stderr


def _apply(config: Path, state: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway.cli", "apply"]
    return subprocess.run(
        [*command, "--config", str(config), "--state", str(state), *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_is_applied_is_what_the_core_loads(config: Path, tmp_path: Path) -> None:
    done = _apply(config, tmp_path / "state")
    assert done.returncode == 0, done.stderr
    assert "systemctl restart gateway-core" in done.stdout
    loaded = compiled.load(tmp_path / "state" / "compiled" / "current.json")
    assert loaded.station.id == "cn-demo-001"
    assert loaded.source == str(config)


def test_applying_twice_changes_nothing(config: Path, tmp_path: Path) -> None:
    first = _apply(config, tmp_path / "state", "--json")
    second = _apply(config, tmp_path / "state", "--json")
    assert json.loads(first.stdout)["changed"] is True
    assert json.loads(second.stdout)["changed"] is False


def test_a_wrong_configuration_is_never_installed(config: Path, tmp_path: Path) -> None:
    _apply(config, tmp_path / "state")
    current = tmp_path / "state" / "compiled" / "current.json"
    before = current.read_bytes()
    config.write_text(config.read_text().replace("31.0", "91.0"))
    done = _apply(config, tmp_path / "state")
    assert done.returncode == 1
    assert "station.latitude" in done.stderr
    assert "Traceback" not in done.stderr
    assert current.read_bytes() == before


def test_a_state_that_can_not_be_written_is_said_plainly(config: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    done = _apply(config, tmp_path / "state")
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
