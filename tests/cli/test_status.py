"""What the core says of itself, on a screen of 24 lines and 80 columns."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway import cli
from gateway.cli.status import lines
from gateway.clock import UtcClock
from gateway.config import shipped
from gateway.core.compiled import Compiled, Port, Sensor, Siren, Station
from gateway.core.control import ControlError
from gateway.core.engine import Core
from gateway.core.transport import Line
from gateway.events import MICRO, NS, Hazard, Level, Reading

GAUGE = Sensor("rain1", Port("/dev/rain"), "gateway.drivers.hydreon_rg15:HydreonRg15", "scalar")
SEISMOMETER = Sensor(
    "seis1", Port("/dev/seis"), "gateway.drivers.rpi_seism:RpiSeism", "seismic", rate_hz=100.0
)


def core(*sensors: Sensor) -> Core:
    return Core(
        Compiled(
            Station("cn-demo-001", "示范站", "demo"),
            sensors=sensors or (GAUGE,),
            sirens=(Siren("main", None, "gateway.siren.virtual:Virtual"),),
            scales=shipped.scales(),
            plans=shipped.plans(),
            patterns=shipped.patterns(),
        )
    )


def said_by(made: Core, **changes: Any) -> dict[str, Any]:
    """The answer of the shell, made of the real parts that it puts together."""
    ports = {port: {**Line(Port(port)).status(), "state": "open"} for port in made._by_port}
    return {
        "run_id": "r1",
        "seq": 1,
        **made.status(),
        "clock": UtcClock().status(),
        "ports": ports,
        **changes,
    }


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the gateway's control socket answers; change it as the test needs."""
    found = said_by(core())

    def call(_path: Path, request: dict[str, Any]) -> dict[str, Any]:
        assert request == {"do": "status"}
        return found

    monkeypatch.setattr("gateway.core.control.call", call)
    return found


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["status", *arguments])


FAILED = {"component": "rain1", "kind": "silent", "state": "failed", "detail": "check its power"}
DEGRADED = {"component": "rain1", "kind": "garbage", "state": "degraded", "detail": "12 bytes"}


@pytest.mark.parametrize(
    ("health", "code", "verdict"),
    [
        ([], 0, "all well"),
        ([DEGRADED], 0, "1 degraded"),
        ([DEGRADED, FAILED], 1, "1 failed"),
    ],
)
def test_it_exits_with_1_where_something_has_failed(
    answer: dict[str, Any], health: list[dict[str, Any]], code: int, verdict: str
) -> None:
    answer["health"] = health
    result = run()
    assert result.exit_code == code, result.output
    assert verdict in result.output.splitlines()[0]
    assert run("--json").exit_code == code


def test_failures_come_before_what_is_only_degraded() -> None:
    found = [text for text, _ in lines(said_by(core(), health=[DEGRADED, FAILED]))]
    at = next(k for k, text in enumerate(found) if text.startswith("health"))
    assert "failed rain1 silent: check its power" in found[at]
    assert "degraded rain1 garbage" in found[at + 1]


def test_json_is_the_answer_as_it_is(answer: dict[str, Any]) -> None:
    result = run("--json")
    assert json.loads(result.stdout) == json.loads(json.dumps(answer))


def test_a_gateway_that_does_not_run_is_a_fault_with_advice(tmp_path: Path) -> None:
    result = run("--run", str(tmp_path))
    assert result.exit_code == 1
    assert "is not running; start it first" in result.stderr


def test_a_refusal_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*_: Any) -> Any:
        raise ControlError("join the group gateway-admin")

    monkeypatch.setattr("gateway.core.control.call", call)
    result = run()
    assert result.exit_code == 1
    assert "gateway-admin" in result.stderr


def test_rain_is_shown_by_the_hour() -> None:
    made = core()
    made.opened("/dev/rain", 0)
    for minute, total in enumerate((0, 3, 10)):
        t = minute * 60 * NS
        made.readings("rain1", [Reading("rain1", t, "rain_total_mm", total * MICRO)], t)
    text = "\n".join(text for text, _ in lines(said_by(made)))
    assert "rain in 1 h 10, 6 h 10, 24 h 10, since 20:00 10, since 08:00 10 mm" in text


def test_a_sounding_siren_names_its_alert_and_stands_out() -> None:
    found = said_by(core())
    found["sirens"]["main"] = {"on": True, "alert": "a1", "pattern": "disaster"}
    assert ("sirens   main       SOUNDS disaster for a1", "bold red") in list(lines(found))
    found["sirens"]["main"]["on"] = False
    assert any("pause in disaster for a1" in text for text, _ in lines(found))


@pytest.mark.parametrize(
    ("arming", "words"),
    [
        ({"mode": "armed", "left_ns": None, "by": ""}, "  armed  "),
        ({"mode": "disarmed", "left_ns": 1800 * NS, "by": "uid 0"}, "disarmed for 30 min more by"),
    ],
)
def test_whether_the_sirens_may_sound_is_in_the_first_line(
    arming: dict[str, Any], words: str
) -> None:
    first, _ = next(lines(said_by(core(), arming=arming)))
    assert words in first


def test_a_sensor_whose_port_is_away_says_why() -> None:
    found = said_by(core())
    found["ports"]["/dev/rain"] |= {"state": "waiting", "reason": "no such device; plug it in"}
    assert any("no such device; plug it in" in text for text, _ in lines(found))


def test_everything_at_once_fits_on_a_small_screen() -> None:
    sensors = [Sensor(f"rain{n}", Port(f"/dev/r{n}"), GAUGE.driver, "scalar") for n in range(30)]
    found = said_by(core(*sensors), health=[FAILED] * 40)
    found["alerts"] = [
        {
            "id": f"cn-demo-001-{hazard.value}-20261124T010945.698145Z",
            "hazard": hazard.value,
            "level": Level.red.name,
            "status": "Actual",
            "interrupted": False,
        }
        for hazard in Hazard
    ]
    shown = [text for text, _ in lines(found)]
    assert len(shown) <= 24
    assert max(map(len, shown)) <= 80
    assert any("and 25 more; --json shows all" in text for text in shown)
