"""Records: what goes in comes out, by another reader too, and the headers say what is so."""

import io
from itertools import pairwise

import numpy as np
import obspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.events import NS, parse_iso
from gateway.uplink.mseed import (
    CLIPPED,
    CLOCK_LOCKED,
    DAY_NS,
    MISSING,
    QUESTIONABLE,
    SEQUENCES,
    SERIES_ENDS,
    SERIES_STARTS,
    Packed,
    Packer,
    Samples,
    Timing,
    day_of,
    following,
    numbered,
    read_header,
    samples_of,
    timing,
    with_flags,
)
from tests.uplink.recording import BEGIN_NS, noise

SURE = timing("synchronised", 0.0005)


def packed(samples: Samples, kind: str, cuts: list[int], rate_hz: float = 100.0) -> list[Packed]:
    packer = Packer("XX.DEMO.00.EHZ", rate_hz, kind)
    found = []
    first = 0
    for last in [*sorted(set(cuts)), len(samples)]:
        if last > first:
            start_ns = BEGIN_NS + round(first * NS / rate_hz)
            found += packer.add(start_ns, samples[first:last], SURE)
            first = last
    return found + packer.rest()


def read(records: list[Packed]) -> obspy.Stream:
    data = b"".join(numbered(x.data, n) for n, x in enumerate(records))
    return obspy.read(io.BytesIO(data), format="MSEED")


@settings(max_examples=60)
@given(
    values=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=600),
    cuts=st.lists(st.integers(1, 599), max_size=20),
)
def test_any_counts_come_back_however_they_came_in_pieces(
    values: list[int], cuts: list[int]
) -> None:
    samples = np.array(values, dtype=np.int32)
    records = packed(samples, "i", [c for c in cuts if c < len(samples)])
    assert np.concatenate([samples_of(x.data) for x in records]).tolist() == values
    for one, following_one in pairwise(records):
        assert one.end_ns == following_one.start_ns


@pytest.mark.parametrize(("kind", "dtype"), [("f", "float32"), ("d", "float64")])
def test_floats_stay_floats(kind: str, dtype: str) -> None:
    samples = np.random.default_rng(1).normal(0, 1, 700).astype(dtype)
    trace = read(packed(samples, kind, [100, 350]))[0]
    assert trace.data.dtype == dtype
    assert (trace.data == samples).all()


def test_another_reader_sees_one_trace_with_the_time_to_the_microsecond() -> None:
    samples = noise(120)[0]
    stream = read(packed(samples, "i", list(range(50, 12_000, 50))))
    assert len(stream) == 1
    assert stream[0].id == "XX.DEMO.00.EHZ"
    assert stream[0].stats.starttime.ns == BEGIN_NS
    assert (stream[0].data == samples).all()
    assert stream[0].stats.mseed["encoding"] == "STEIM2"
    assert stream[0].stats.mseed["record_length"] == 512


@pytest.mark.parametrize("rate_hz", [0.1, 1.0, 31.25, 99.987, 200.0, 1000 / 3])
def test_any_rate_is_stated(rate_hz: float) -> None:
    records = packed(noise(20)[0], "i", [], rate_hz)
    header = read_header(records[0].data)
    assert header.rate_hz == pytest.approx(rate_hz, rel=1e-6)
    assert header.start_ns == BEGIN_NS // 1000 * 1000
    assert header.timing_percent == 100


def test_a_record_fills_before_it_is_given() -> None:
    packer = Packer("XX.DEMO.00.EHZ", 100.0, "i")
    samples = noise(60)[0]
    given_ones = [
        x
        for first in range(0, len(samples), 50)
        for x in packer.add(BEGIN_NS + first * NS // 100, samples[first : first + 50], SURE)
    ]
    whole = packed(samples, "i", [])[: len(given_ones)]
    assert [x.data for x in given_ones] == [x.data for x in whole]
    assert packer.waiting + sum(read_header(x.data).samples for x in given_ones) == len(samples)


def test_no_record_reaches_over_midnight() -> None:
    begin_ns = parse_iso("2026-12-31T23:59:58.005Z")
    packer = Packer("XX.DEMO..EHZ", 100.0, "i")
    records = packer.add(begin_ns, noise(4)[0], SURE) + packer.rest()
    days = [(day_of(x.start_ns), day_of(x.end_ns - NS // 100)) for x in records]
    assert all(first == last for first, last in days)
    assert len({first for first, _ in days}) == 2
    assert records[0].end_ns // DAY_NS == records[1].start_ns // DAY_NS
    assert sum(read_header(x.data).samples for x in records) == 400


def test_a_clock_that_drifts_moves_the_records_and_nothing_else() -> None:
    packer = Packer("XX.DEMO..EHZ", 100.0, "i")
    samples = noise(60)[0]
    records: list[Packed] = []
    for second in range(60):  # 400 ppm slow
        start_ns = BEGIN_NS + second * (NS + 400_000)
        records += packer.add(start_ns, samples[100 * second : 100 * second + 100], SURE)
    records += packer.rest()
    for one, next_one in pairwise(records):
        assert 0 <= next_one.start_ns - one.end_ns <= NS // 200
    stream = read(records)
    assert len(stream) == 1
    assert (stream[0].data == samples).all()
    assert records[-1].end_ns == pytest.approx(BEGIN_NS + 60 * (NS + 400_000), abs=NS // 100)


@pytest.mark.parametrize(
    ("state", "uncertainty_s", "found"),
    [
        ("synchronised", 0.001, Timing(100, CLOCK_LOCKED, 0)),
        ("synchronised", 0.02, Timing(70, CLOCK_LOCKED, 0)),
        ("synchronised", 0.9, Timing(40, CLOCK_LOCKED, QUESTIONABLE)),
        ("holdover", 0.02, Timing(70, 0, 0)),
        ("holdover", 60.0, Timing(10, 0, QUESTIONABLE)),
        ("never", None, Timing(0, 0, QUESTIONABLE)),
    ],
)
def test_the_header_says_how_sure_the_time_is(
    state: str, uncertainty_s: float | None, found: Timing
) -> None:
    assert timing(state, uncertainty_s) == found
    packer = Packer("XX.DEMO..EHZ", 100.0, "i")
    packer.add(BEGIN_NS, noise(1)[0][:50], SURE)
    packer.add(BEGIN_NS + NS // 2, noise(1)[0][:50], found)
    header = read_header(packer.rest()[0].data)
    assert header.timing_percent == min(100, found.percent), "the worst of the record"
    assert header.clock & CLOCK_LOCKED == found.clock
    assert header.quality & QUESTIONABLE == found.quality


def test_series_and_what_is_wrong_with_samples_are_flagged() -> None:
    packer = Packer("XX.DEMO..EHZ", 100.0, "i")
    packer.add(BEGIN_NS, noise(1)[0], SURE)
    first = packer.rest(ends_series=True)[0]
    packer.series_starts(missing=True)
    packer.add(BEGIN_NS + 9 * NS, noise(1)[0], SURE)
    second = with_flags(packer.rest()[0], quality=CLIPPED)
    assert read_header(first.data).clock == SERIES_STARTS | SERIES_ENDS | CLOCK_LOCKED
    assert read_header(first.data).quality == 0
    assert read_header(second.data).clock == SERIES_STARTS | CLOCK_LOCKED
    assert read_header(second.data).quality == MISSING | CLIPPED
    flags = obspy.io.mseed.util.get_flags(io.BytesIO(second.data), timing_quality=True)
    assert flags["data_quality_flags_counts"]["missing_padded_data"] == 1
    assert flags["data_quality_flags_counts"]["digitizer_clipping"] == 1
    assert flags["timing_quality"]["mean"] == 100.0


def test_looking_ahead_changes_nothing() -> None:
    samples = noise(10)[0]
    looked, plain = (Packer("XX.DEMO..EHZ", 100.0, "i") for _ in range(2))
    seen = []
    for first in range(0, 1000, 50):
        for packer in (looked, plain):
            records = packer.add(BEGIN_NS + first * NS // 100, samples[first : first + 50], SURE)
            seen.append([x.data for x in records])
        ahead = looked.preview()
        assert sum(read_header(x.data).samples for x in ahead) == looked.waiting
    assert seen[::2] == seen[1::2]
    assert [x.data for x in looked.rest()] == [x.data for x in plain.rest()]


def test_numbers_turn_over() -> None:
    assert following(0, SEQUENCES - 1) == 1
    assert following(SEQUENCES - 1, 0) == -1
    assert following(5, 5) == 0
    record = packed(noise(1)[0], "i", [])[0].data
    assert read_header(numbered(record, 999_999)).sequence == 999_999


@settings(max_examples=100)
@given(st.binary(max_size=600))
def test_what_is_no_record_is_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whatever is wrong with it
        read_header(data)
