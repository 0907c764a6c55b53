"""A variable overrides one scalar of the file, and one that fits no key is an error."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import check
from tests.config.conftest import GOOD


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("GATEWAY_UPLINK__MQTT__URL", "mqtts://other:8883", "mqtts://other:8883"),
        ("GATEWAY_UPLINK__MQTT__KEEPALIVE_S", "30", 30),
        ("GATEWAY_UPLINK__WAVEFORMS__CONTINUOUS", "true", True),
        ("GATEWAY_STATION__LATITUDE", "-12.5", -12.5),
        ("GATEWAY_STATION__NAME", "示范站", "示范站"),
        ("GATEWAY_DETECT__SEISMIC__TRIGGER_ON", "9", 9.0),
    ],
)
def test_a_variable_overrides_a_scalar(
    config: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: object
) -> None:
    config.write_text(GOOD + '[uplink.mqtt]\nurl = "mqtts://hub:8883"\n')
    monkeypatch.setenv(variable, text)
    found: object = check(config).configuration
    for name in variable.removeprefix("GATEWAY_").lower().split("__"):
        found = getattr(found, name)
    assert found == value


def test_a_variable_alone_turns_a_service_on(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_UPLINK__MQTT__URL", "mqtts://hub:8883")
    found = check(config).configuration
    assert found is not None
    assert found.uplink.mqtt is not None
    assert found.uplink.mqtt.url == "mqtts://hub:8883"


@pytest.mark.parametrize(
    ("variable", "text", "fault"),
    [
        (
            "GATEWAY_SENSOR__0__PORT",
            "/dev/x",
            "sensor.0.port: a list can't be overridden; write it in gateway.toml",
        ),
        (
            "GATEWAY_DETECT__SEISMIC__BAND_HZ",
            "[1, 5]",
            "detect.seismic.band_hz: a list can't be overridden; write it in gateway.toml",
        ),
        (
            "GATEWAY_UPLINK__MQTT",
            '{"url": "mqtts://hub"}',
            "uplink.mqtt: a table can't be overridden whole; name one of its keys",
        ),
        (
            "GATEWAY_UPLINK__MQT__URL",
            "mqtts://hub",
            "uplink.mqt.url: unknown key; did you mean 'mqtt'?",
        ),
        (
            "GATEWAY_STATION__LATITUDE",
            "north",
            "station.latitude: 'north'; expected a number from -90 to 90 (°)",
        ),
        (
            "GATEWAY_STATION__LATITUDE",
            "91",
            "station.latitude: 91.0; expected a number from -90 to 90 (°)",
        ),
        (
            "GATEWAY_UPLINK__WAVEFORMS__CONTINUOUS",
            "yes",
            "uplink.waveforms.continuous: 'yes'; expected true or false",
        ),
    ],
)
def test_a_wrong_variable_is_named(
    faults: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    text: str,
    fault: str,
) -> None:
    monkeypatch.setenv(variable, text)
    assert faults(GOOD) == [f"environment {variable}: {fault}"]


@pytest.mark.parametrize("variable", ["GATEWAY_CONFIG", "GATEWAY_CORPUS", "GATEWAY_RUN"])
def test_variables_of_the_command_line_are_no_keys(
    faults: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "/somewhere")
    assert faults(GOOD) == []
