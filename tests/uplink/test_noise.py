"""What the uplink tells of a channel's noise, from packets as the core's feed has them."""

import json
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from gateway.core.feed import packet_body
from gateway.events import NS, Packet, parse_iso
from gateway.uplink import schemas
from gateway.uplink.noise import Noise

RATE = 20
CHANNELS = ("XX.A..HNZ", "XX.A..HNN")
START = parse_iso("2026-07-01T00:20:00Z")


def item(second: int, sensitivities: tuple[str | None, ...]) -> dict[str, Any]:
    samples = np.random.default_rng(second).normal(0, 30, (2, RATE)).astype(np.int32)
    packet = Packet("seis1", START + second * NS, RATE, samples)
    found: dict[str, Any] = json.loads(packet_body(packet, CHANNELS, 0, sensitivities))
    return found


def told(sink: Noise, seconds: range, *sensitivities: str | None) -> list[dict[str, Any]]:
    for second in seconds:
        sink.work([item(second, sensitivities)])
    return [dict(publication.record) for publication in sink.published()]


def test_each_channel_is_told_once_an_hour_and_matches_its_schema() -> None:
    sink = Noise(3600)
    records = told(sink, range(2 * 3600), "1e6:m/s**2", None)
    assert [(r["time"][11:16], r["channel"]) for r in records] == [
        ("01:00", CHANNELS[0]),
        ("01:00", CHANNELS[1]),
        ("02:00", CHANNELS[0]),
        ("02:00", CHANNELS[1]),
    ]
    validator = Draft202012Validator(schemas.schemas()["noise"])
    for record in records:
        assert list(validator.iter_errors(record)) == []
    assert [r["segments"] for r in records] == [4, 4, 10, 10]
    assert [r["completeness"] for r in records] == [1.0] * 4
    assert records[0]["above_high_db"] is not None
    assert records[1]["verdict"] == "no sensitivity, compared with nothing"


def test_another_sensitivity_begins_anew() -> None:
    sink = Noise(3600)
    told(sink, range(700), "1e6:m/s**2", None)
    (record,) = told(sink, range(700, 3000), "2e6:m/s**2", None)[:1]
    assert record["segments"] == 2


@pytest.mark.parametrize("what", ["reading", "record", "measured", "stream"])
def test_it_wants_nothing_but_packets(what: str) -> None:
    assert not Noise(3600).wants({what: {}})
