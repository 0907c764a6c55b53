"""Stamps of a made-up digitiser: known sampling times, known delays, then the errors."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import SampleClock
from gateway.events import NS, Scans

MS = 1_000_000
START = 5_000_000 * NS

Arrival = tuple[int, int]
"""Scan number and the time at which it was read."""


def scans(index: int, count: int, t: int, rate_hz: float) -> Scans:
    numbered = np.arange(index, index + count, dtype=np.int32)
    return Scans(t, index, rate_hz, numbered[np.newaxis, :])


def stamps(
    clock: SampleClock, reads: Sequence[tuple[int, int, int]], rate_hz: float
) -> dict[int, int]:
    """Time of every scan, from reads of (first scan, count, time)."""
    times: dict[int, int] = {}
    for index, count, t in reads:
        for start_ns, samples in clock.stamp(scans(index, count, t, rate_hz)):
            for column, number in enumerate(samples[0].tolist()):
                times[number] = start_ns + round(column * NS / rate_hz)
    return times


def usb(
    rate_hz: float, seconds: int, *, drift_ppm: float = 0.0, jitter_ms: float = 1.0, seed: int = 1
) -> Iterator[tuple[int, int, int, int]]:
    """(scan, count 1, read at, taken at): delays of an exponential law above a constant 0."""
    random = Random(seed)
    period = NS / rate_hz * (1 + drift_ppm * 1e-6)
    read_at = 0
    for n in range(round(seconds * rate_hz)):
        taken = START + round(n * period)
        read_at = max(read_at, taken + round(random.expovariate(1 / jitter_ms) * MS))
        yield n, 1, read_at, taken


@pytest.mark.parametrize("drift_ppm", [-200, -20, 0, 20, 200])
@pytest.mark.parametrize("rate_hz", [10.0, 31.25, 100.0])
def test_stamps_follow_the_devices_own_rate(rate_hz: float, drift_ppm: float) -> None:
    line = list(usb(rate_hz, 300, drift_ppm=drift_ppm))
    clock = SampleClock(rate_hz)
    times = stamps(clock, [read[:3] for read in line], rate_hz)
    error_ms = np.array([(times[n] - taken) / MS for n, _, _, taken in line])
    assert len(error_ms) == len(line)
    settled = error_ms[len(line) // 2 :]
    assert np.abs(settled).max() < 0.6
    assert clock.drift_ppm == pytest.approx(drift_ppm, abs=15)
    assert clock.gaps == 0


@pytest.mark.parametrize("jitter_ms", [0.0, 1.0, 8.0])
def test_a_continuous_stream_moves_by_less_than_a_quarter_of_a_period(jitter_ms: float) -> None:
    line = list(usb(100.0, 300, drift_ppm=100, jitter_ms=max(jitter_ms, 1e-9), seed=4))
    times = stamps(SampleClock(100.0), [read[:3] for read in line], 100.0)
    steps = [later - earlier for earlier, later in pairwise(times.values())]
    assert max(abs(step - 10 * MS) for step in steps) <= 2.5 * MS + 1


def test_a_latency_timer_of_16_ms_is_seen_through() -> None:
    reads = []
    for n in range(30_000):
        taken = START + n * 10 * MS
        reads.append((n, 1, (taken // (16 * MS) + 1) * (16 * MS), taken))
    times = stamps(SampleClock(100.0), [read[:3] for read in reads], 100.0)
    spread = [(times[n] - taken) / MS for n, _, _, taken in reads[10_000:]]
    assert max(spread) - min(spread) < 1.0


def test_a_host_that_stalls_for_a_second_changes_nothing() -> None:
    reads = [(n, 1, START + n * 10 * MS) for n in range(1000)]
    reads += [(1000, 100, START + 1099 * 10 * MS)]
    reads += [(n, 1, START + n * 10 * MS) for n in range(1100, 2000)]
    clock = SampleClock(100.0)
    times = stamps(clock, reads, 100.0)
    assert all(times[n] == START + n * 10 * MS for n in range(2000))
    assert clock.gaps == 0


@given(
    st.lists(st.integers(0, 40), min_size=30, max_size=200),
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.integers(0, 1000),
)
@settings(deadline=None)
def test_stamps_do_not_depend_on_how_reads_are_cut(
    delays_ms: list[int], cuts: list[int], first: int
) -> None:
    """Scans that were read at one moment, in one read or in several of any size."""
    whole: list[tuple[int, int, int]] = []
    t = START
    index = first
    for i, delay in enumerate(delays_ms):
        count = 1 + (i * 7 + delay) % 13
        index += count
        t = max(t, START + (index - first) * 10 * MS) + delay * MS
        whole.append((index - count, count, t))
    cut = []
    sizes = 0
    for begin, count, at in whole:
        done = 0
        while done < count:
            take = min(cuts[sizes % len(cuts)], count - done)
            cut.append((begin + done, take, at))
            done += take
            sizes += 1
    one = stamps(SampleClock(100.0), whole, 100.0)
    many = stamps(SampleClock(100.0), cut, 100.0)
    both = one.keys() & many.keys()
    assert one.keys() | many.keys() == both
    assert {n: one[n] for n in both} == {n: many[n] for n in both}


def test_numbers_that_jump_are_a_gap_of_that_length() -> None:
    reads = [(n, 1, START + n * 10 * MS) for n in [*range(1000), *range(1250, 2000)]]
    clock = SampleClock(100.0)
    times = stamps(clock, reads, 100.0)
    assert times[1250] - times[999] == 251 * 10 * MS
    assert clock.gaps == 0


def test_a_long_gap_keeps_the_drift() -> None:
    line = [read for read in usb(100.0, 900, drift_ppm=150) if not 30_000 <= read[0] < 60_000]
    times = stamps(SampleClock(100.0), [read[:3] for read in line], 100.0)
    error_ms = [(times[n] - taken) / MS for n, _, _, taken in line if n >= 60_000]
    assert max(map(abs, error_ms)) < 10


def test_silence_of_a_device_without_numbers_is_a_gap_at_once() -> None:
    reads = [(n, 1, START + n * 10 * MS) for n in range(1000)]
    reads += [(n, 1, START + n * 10 * MS + 7 * NS) for n in range(1000, 2000)]
    clock = SampleClock(100.0)
    times = stamps(clock, reads, 100.0)
    assert times[1000] - times[999] == 7 * NS + 10 * MS
    assert clock.gaps == 1


@pytest.mark.parametrize("lost", [1, 7, 100])
def test_scans_lost_without_a_number_are_a_gap_within_three_seconds(lost: int) -> None:
    reads = [(n, 1, START + n * 10 * MS) for n in range(1000)]
    reads += [(n, 1, START + (n + lost) * 10 * MS) for n in range(1000, 2000)]
    clock = SampleClock(100.0)
    times = stamps(clock, reads, 100.0)
    assert times[1000] == START + 1000 * 10 * MS
    assert all(times[n] == START + (n + lost) * 10 * MS for n in range(1300, 2000))
    assert clock.gaps == 1


def test_lateness_that_passes_is_no_gap() -> None:
    def late(n: int) -> int:
        return 40 * MS if 1000 <= n < 1150 else 0

    reads = [(n, 1, START + n * 10 * MS + late(n)) for n in range(3000)]
    clock = SampleClock(100.0)
    times = stamps(clock, reads, 100.0)
    assert all(abs(times[n] - START - n * 10 * MS) < MS for n in range(3000))
    assert clock.gaps == 0


def test_a_backlog_at_opening_does_not_put_scans_into_the_future() -> None:
    reads = [(0, 100, START), (100, 100, START), (200, 30, START)]
    reads += [(n, 1, START + (n - 229) * 10 * MS) for n in range(230, 1000)]
    times = stamps(SampleClock(100.0), reads, 100.0)
    assert all(times[n] <= START + (n - 229) * 10 * MS for n in range(400, 1000))


def test_the_known_latency_is_taken_off() -> None:
    reads = [(n, 10, START + (n + 9) * 10 * MS + 24 * MS) for n in range(0, 1000, 10)]
    times = stamps(SampleClock(100.0, 24 * MS), reads, 100.0)
    assert all(times[n] == START + n * 10 * MS for n in range(1000))


def test_nothing_is_lost_or_doubled() -> None:
    random = Random(9)
    reads, index, t = [], 0, START
    for _ in range(2000):
        count = random.randint(1, 30)
        index += random.choice([0] * 50 + [5, 400])
        t = max(t + random.randint(0, 5 * MS), START + (index + count) * 10 * MS)
        t += random.choice([0] * 300 + [2 * NS])
        reads.append((index, count, t))
        index += count
    clock = SampleClock(100.0)
    seen = [
        n
        for i, count, t in reads
        for _, samples in clock.stamp(scans(i, count, t, 100.0))
        for n in samples[0].tolist()
    ]
    given_out = [n for i, count, _ in reads for n in range(i, i + count)]
    assert seen == given_out[: len(seen)]
    assert len(given_out) - len(seen) <= 80
