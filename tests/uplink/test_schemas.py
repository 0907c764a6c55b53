"""What is said on a topic is what its schema states, and the shipped files are in step."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from nacl.signing import SigningKey

from gateway.clock import UtcClock
from gateway.core.commands import Action, Command, sign
from gateway.events import (
    NS,
    TYPE_NAMES,
    Alert,
    ArmingChange,
    ChannelReport,
    Coincidence,
    Event,
    GroundMotion,
    Hazard,
    Health,
    Level,
    LevelChange,
    OfficialWarning,
    Onset,
    Phase,
    Quality,
    RainDay,
    Rejected,
    Reply,
    SirenAction,
    Status,
    to_record,
)
from gateway.uplink import schemas
from gateway.uplink.messages import cloud_event

T = 1_700_000_000 * NS
SHIPPED = Path(__file__).parents[2] / "docs/schemas"

EXAMPLES: list[Event] = [
    Onset("BW.UH1..SHZ", T, T + NS, 7.123, 18.24, "up", 1),
    Rejected("BW.UH1..SHZ", T, T, "spike"),
    GroundMotion(
        "NP.1765", T, T, 1.5, 0.1, 0.01, 0.002, None, None, 2.0, 7.2, None,
        3, standard=True, sustained=True, jma=lambda: 5.1,
    ),
    Coincidence("site", "XX.DEMO", T, ("a", "b"), 2),
    Quality("BW.UH1..SHZ", "gap", T, "1.5 s"),
    LevelChange("rain1", Hazard.rainstorm, Level.yellow, T, 50.4, "mm", 6),
    Alert(
        "a1", "cn-demo-001", Hazard.earthquake, Level.red, Phase.alert, Status.actual, T,
        "observed", "本地实测", "observed here", "earthquake", {"pga": 1.0, "tau_c": None, "s": ""},
    ),
    SirenAction("cn-demo-001", "main", "a1", "on", "disaster", T),
    Health("rain1", "failed", T, "silent", "nothing for 5 s", 3),
    Reply("c-1", "siren_on", "refused", T, "late", "key hub"),
    ArmingChange("silent", T, "technician", 3600.0),
    RainDay("rain1", "meteorological", "2026-07-01", T, 12.6, 2.6, 10.0, 0, complete=True),
    OfficialWarning(Hazard.typhoon, Level.orange, "in_force", T, T + NS, "c-7", "key hub"),
    ChannelReport("BW.UH1..SHZ", T, T, 0.998, {"1-10 Hz": 12.3, "5-25 Hz": None}, 1, 2, 0, 0, 8.0),
]  # fmt: skip


def faults(name: str, record: Any) -> list[str]:
    validator = Draft202012Validator(
        schemas.schemas()[name], format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    return [error.message for error in validator.iter_errors(record)]


def test_there_is_an_example_of_everything_that_is_published() -> None:
    assert {type(event) for event in EXAMPLES} == set(TYPE_NAMES) == set(get_args(Event))


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_a_record_matches_its_schema_and_a_maimed_one_does_not(event: Event) -> None:
    name = TYPE_NAMES[type(event)]
    record = json.loads(json.dumps(to_record(event)))
    assert faults(name, record) == []
    assert faults(name, record | {"something": "new"}) == [], "further keys are for the future"
    for key in record:
        assert faults(name, {k: v for k, v in record.items() if k != key})
    assert faults(name, record | {"type": "else"})
    assert faults(name, record | {"time": 7})


def test_an_alert_may_say_how_sure_the_station_was_of_the_time() -> None:
    record = json.loads(json.dumps(to_record(EXAMPLES[6])))
    assert faults("alert", record | {"clock": UtcClock().status()}) == []
    assert faults("alert", record | {"clock": {"state": "certain"}})


def test_the_envelope_matches_its_schema() -> None:
    record = to_record(EXAMPLES[6])
    event = json.loads(cloud_event("/eew/demo/cn-demo-001", "run-1", 7, record))
    validator = Draft202012Validator(schemas.cloud_event_schema())
    assert validator.is_valid(event)
    assert event["sequence"] == "00000000000000000007"
    for key in event:
        assert not validator.is_valid({k: v for k, v in event.items() if k != key})


def test_a_signed_command_matches_its_schema() -> None:
    command = Command(
        "c-1", "hub", 1, T, Action.siren_on, {"group": "demo"}, Status.exercise, {"a": 1}
    )
    assert faults("command", json.loads(sign(command, SigningKey(b"k" * 32)))) == []


@pytest.mark.parametrize("name", [*schemas.schemas()])
def test_every_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(schemas.schemas()[name])


def test_the_shipped_files_are_in_step_with_the_code() -> None:
    """Run `python -m gateway.uplink.schemas docs/schemas` when this fails."""
    assert {path.name: path.read_text() for path in SHIPPED.iterdir()} == schemas.files()


def test_the_asyncapi_document_names_every_topic_and_only_files_that_exist() -> None:
    document = schemas.asyncapi()
    assert document["asyncapi"] == "3.0.0"
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == {
        f"eew/v1/{{city}}/{{station}}/{topic}"
        for topic in (
            "alert", "cap", "event", "siren", "health", "telemetry", "waveform", "reply",
            "status", "arming", "hub/ack", "hub/command", "hub/request",
        )
    }  # fmt: skip
    for channel in document["channels"].values():
        for message in channel["messages"].values():
            assert (
                message["$ref"].removeprefix("#/components/messages/")
                in (document["components"]["messages"])
            )
    for reference in _references(document["components"]):
        assert (SHIPPED / reference).is_file()


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [r for item in value.values() for r in _references(item)]
    if isinstance(value, list):
        return [r for item in value for r in _references(item)]
    return []
