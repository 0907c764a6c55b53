"""Packets reach the feed in half-second pieces, none lost and none joined over a gap."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.batch import GATHER_NS, Batcher, Item
from gateway.events import NS, Packet, Reading

RATE_HZ = 100.0
PERIOD = NS // 100


def packet(first: int, columns: int, sensor: str = "a", shift_ns: int = 0) -> Packet:
    samples = np.arange(first, first + columns, dtype=np.int32)[None, :]
    return Packet(sensor, first * PERIOD + shift_ns, RATE_HZ, samples)


def test_single_samples_become_one_packet_of_half_a_second() -> None:
    batcher = Batcher()
    found = [p for i in range(100) for p in batcher.take([packet(i, 1)])]
    assert [p.start_ns for p in found if isinstance(p, Packet)] == [0, GATHER_NS]
    assert all(isinstance(p, Packet) and p.samples.shape == (1, 50) for p in found)


def test_a_gap_parts_packets_and_jitter_below_half_a_sample_does_not() -> None:
    batcher = Batcher()
    assert batcher.take([packet(0, 10), packet(10, 10, shift_ns=PERIOD // 2 - 1)]) == []
    [before] = batcher.take([packet(21, 10)])
    assert isinstance(before, Packet)
    assert before.samples.tolist() == [list(range(20))]


def test_readings_pass_and_sensors_are_apart() -> None:
    batcher, reading = Batcher(), Reading("rain", 1, "rain_mm", 5)
    found = batcher.take([packet(0, 30), reading, packet(0, 50, "b"), packet(30, 20)])
    assert found[0] == reading
    assert [p.sensor for p in found[1:]] == ["b", "a"]


@given(st.lists(st.tuples(st.integers(1, 70), st.integers(0, 2)), max_size=30))
def test_every_sample_comes_out_once_at_its_own_time(pieces: list[tuple[int, int]]) -> None:
    batcher, at = Batcher(), 0
    out: list[Item] = []
    said: list[int] = []
    for columns, gap in pieces:
        at += gap
        said += range(at, at + columns)
        out += batcher.take([packet(at, columns)])
        at += columns
    out += batcher.take([packet(at + 1000, 1)])
    heard = []
    for piece in out:
        assert isinstance(piece, Packet)
        first = piece.start_ns // PERIOD
        assert piece.samples.tolist() == [list(range(first, first + piece.samples.shape[1]))]
        heard += piece.samples[0].tolist()
    assert heard == said
