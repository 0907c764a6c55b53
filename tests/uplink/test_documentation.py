"""What docs/uplink.md shows holds: its examples run and match, and its tables leave nothing out."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.core.commands import Action, Clock, Command, Reason, read_keys, verify
from gateway.uplink import schemas
from gateway.uplink.messages import LIFETIME_S, RETAINED, Kind
from gateway.uplink.schemas import DOWN

TEXT = (Path(__file__).parents[2] / "docs/uplink.md").read_text()
LIFETIMES = {"ever": None, "1 day": 86_400, "1 hour": 3600} | {
    f"{days} days": days * 86_400 for days in (7, 30)
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def rows(heading: str) -> list[list[str]]:
    """The table whose first heading this is, without its head."""
    lines = TEXT[TEXT.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip("`") for cell in re.split(r"\s*\|\s*", line.strip("| "))] for line in lines]


def test_the_message_that_is_shown_matches_its_schemas() -> None:
    event = json.loads(blocks("json")[0])
    name = event["dataschema"].split(":")[-1].removesuffix(".v1")
    Draft202012Validator(schemas.cloud_event_schema()).validate(event)
    Draft202012Validator(schemas.schemas()[name]).validate(event["data"])


def test_the_envelope_that_is_shown_matches_its_schema() -> None:
    Draft202012Validator(schemas.schemas()["command"]).validate(json.loads(blocks("json")[1]))


def test_the_signing_that_is_shown_makes_a_command_that_is_obeyed() -> None:
    made: dict[str, Any] = {}
    (code,) = blocks("python")
    exec(code, made)  # noqa: S102  our own documentation
    found = verify(
        made["envelope"],
        read_keys({"hub": made["public"]}),
        clock=Clock(time.time_ns(), 0),
        station="cn-demo-001",
        groups=("schools",),
    )
    assert isinstance(found, Command)
    assert found.action is Action.siren_on


def test_every_topic_is_listed_by_urgency_and_with_its_lifetime() -> None:
    table = rows("topic")
    assert [row[0] for row in table] == [
        *Kind.__members__, *sorted(RETAINED, reverse=True), *(f"hub/{name}" for name in DOWN),
    ]  # fmt: skip
    assert {Kind[row[0]]: LIFETIMES[row[4]] for row in table[: len(Kind)]} == LIFETIME_S
    assert {Kind[row[0]] for row in table[: len(Kind)] if "PUBACK" in row[3]} == {
        kind for kind in Kind if kind.bulk
    }


def test_every_action_is_explained_and_what_it_needs_of_the_clock() -> None:
    table = {row[0]: row[2] for row in rows("action")}
    assert table == {action: "refused" if action.needs_time else "accepted" for action in Action}


@pytest.mark.parametrize("reason", [*Reason])
def test_every_reason_of_a_refusal_is_named(reason: Reason) -> None:
    assert f"`{reason}`" in TEXT or reason is Reason.retained
