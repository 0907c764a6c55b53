"""Minute values: the mean absolute amplitude of each channel, whatever the packets."""

import base64
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.events import NS, iso
from gateway.uplink.minutes import MINUTE_NS, Minutes, MinuteValue

RATE_HZ = 20.0
CHANNELS = ["XX.A..HHZ", "XX.A..HHN"]
START_NS = 1_700_000_040 * NS  # a whole minute


def packets(samples: np.ndarray[Any, Any], cuts: list[int], start_ns: int) -> list[dict[str, Any]]:
    edges = [0, *sorted(set(cuts)), samples.shape[1]]
    return [
        {
            "sensor": "seis1",
            "start": iso(start_ns + round(a * NS / RATE_HZ)),
            "rate_hz": RATE_HZ,
            "channels": CHANNELS,
            "encoding": "int32le",
            "samples": base64.b64encode(samples[:, a:b].astype("<i4").tobytes()).decode(),
        }
        for a, b in pairwise(edges)
        if b > a
    ]


def values(found: Minutes, items: list[dict[str, Any]]) -> list[MinuteValue]:
    return [value for item in items for value in found.take(item)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 4799), max_size=30), st.integers(0, 59_999))
def test_a_minute_is_the_mean_absolute_amplitude_however_it_is_cut(
    cuts: list[int], shift_ms: int
) -> None:
    samples = np.random.default_rng(1).integers(-5000, 9000, (2, 4800))
    start_ns = START_NS + shift_ms * 1_000_000
    got = values(Minutes({}), packets(samples, cuts, start_ns))
    times = start_ns + np.round(np.arange(4800) * NS / RATE_HZ).astype(np.int64)
    minutes = times // MINUTE_NS
    whole = sorted(set(minutes))[:-1]
    assert [(v.channel, v.end_ns) for v in got] == [
        (name, (m + 1) * MINUTE_NS) for m in whole for name in CHANNELS
    ]
    for value in got:
        row = samples[CHANNELS.index(value.channel), (minutes + 1) * MINUTE_NS == value.end_ns]
        assert value.samples == row.size
        assert value.mean_absolute == pytest.approx(np.abs(row - row.mean()).mean())


def test_a_constant_offset_is_no_motion() -> None:
    samples = np.full((2, 2400), 123_456)
    assert {v.mean_absolute for v in values(Minutes({}), packets(samples, [], START_NS))} == {0.0}


def test_what_is_written_already_is_left_out() -> None:
    samples = np.ones((2, 3700))
    known = Minutes({CHANNELS[0]: START_NS + MINUTE_NS})
    got = values(known, packets(samples, [1000], START_NS))
    assert (CHANNELS[0], START_NS + MINUTE_NS) not in [(v.channel, v.end_ns) for v in got]
    assert (CHANNELS[1], START_NS + MINUTE_NS) in [(v.channel, v.end_ns) for v in got]
    assert (CHANNELS[0], START_NS + 2 * MINUTE_NS) in [(v.channel, v.end_ns) for v in got]


def test_a_gap_makes_a_minute_incomplete_and_says_so() -> None:
    samples = np.ones((2, 1200))
    first = packets(samples[:, :300], [], START_NS)
    later = packets(samples, [], START_NS + 50 * NS)
    got = values(Minutes({}), first + later)
    assert [v.samples for v in got] == [500, 500]
