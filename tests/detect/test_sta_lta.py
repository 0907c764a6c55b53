"""The averages are those of the textbook; only a young or a held LTA differs, exactly as stated."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from obspy.signal.filter import bandpass as obspy_bandpass
from obspy.signal.trigger import recursive_sta_lta

from gateway.detect.filters import MAX_RUN, BlockFilter, StateSpace, butterworth
from gateway.detect.sta_lta import SETTLE_S, StaLta, Tracks, Windows

RATE = 20.0
WINDOWS = (Windows(0.5, 10.0), Windows(0.3, 5.0))
ON = (8.0, 5.0)
SETTLE = round(SETTLE_S * RATE)


def filtered(seed: int, rows: int = 2, n: int = 600) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(rows, len(WINDOWS), n)) * 100.0


def a_run(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows, bands, n) as a filter gives them: band after band, then what are its states."""
    states = np.full((len(samples), 4 * len(WINDOWS)), 1e7)
    return np.hstack([samples.reshape(len(samples), -1), states])


def averages(
    samples: NDArray[np.float64], cuts: list[int], tracker: StaLta | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    tracker = tracker or StaLta(WINDOWS, len(samples), RATE, ON)
    sta, lta = [], []
    edges = sorted({0, samples.shape[2], *cuts, *range(0, samples.shape[2], MAX_RUN)})
    for first, end in pairwise(edges):
        tracker.process(a_run(samples[:, :, first:end]), end - first)
        sta.append(tracker.sta.copy())
        lta.append(tracker.lta.copy())
    return np.concatenate(sta, axis=2), np.concatenate(lta, axis=2)


def by_hand(trace: NDArray[np.float64], windows: Windows) -> tuple[list[float], list[float]]:
    """One track, sample by sample."""
    short, long = 1.0 / (windows.sta_s * RATE), 1.0 / (windows.lta_s * RATE)
    sta = lta = 0.0
    out: tuple[list[float], list[float]] = ([], [])
    for k, value in enumerate(trace.tolist()):
        energy = value * value
        sta += (energy - sta) * short
        count = k + 1 - SETTLE
        if count > 0:
            lta += (energy - lta) * max(long, 1.0 / count)
        out[0].append(sta)
        out[1].append(lta)
    return out


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 599), max_size=30))
def test_averages_equal_plain_arithmetic_whatever_the_cuts(seed: int, cuts: list[int]) -> None:
    samples = filtered(seed)
    sta, lta = averages(samples, cuts)
    for row in range(2):
        for band, windows in enumerate(WINDOWS):
            expected = by_hand(samples[row, band], windows)
            assert sta[row, band] == pytest.approx(expected[0], rel=1e-9)
            assert lta[row, band] == pytest.approx(expected[1], rel=1e-9)


def test_ratio_is_obspys_once_warm() -> None:
    samples = filtered(1, rows=1, n=4000)
    sta, lta = averages(samples, [])
    theirs = recursive_sta_lta(samples[0, 0], 10, 200)
    ratio = sta[0, 0, 3000:] / lta[0, 0, 3000:]
    assert ratio == pytest.approx(theirs[3000:], rel=1e-5)


@pytest.mark.parametrize("rate_hz", [20.0, 31.25, 40.0, 100.0, 125.0, 250.0, 500.0, 1000.0])
def test_filter_and_averages_in_packets_are_obspys_over_the_whole(rate_hz: float) -> None:
    """Its band-pass and its C routine, once both are warm; counts on an offset of a million."""
    random = np.random.default_rng(round(rate_hz))
    short, long = round(0.5 * rate_hz), round(2.0 * rate_hz)
    n, corner = 26 * long, min(10.0, 0.45 * rate_hz)
    counts = (1e6 + random.normal(0.0, 50.0, (2, n)).cumsum(axis=1)).astype(np.int32)
    filters = BlockFilter(StateSpace.of(butterworth(2, 1.0, corner, rate_hz)), 2)
    tracker = StaLta((Windows(short / rate_hz, long / rate_hz),), 2, rate_hz)
    ratio = []
    edges = [0, *sorted(set(random.integers(1, n, n // 20).tolist())), n]
    for first, end in pairwise(sorted({*edges, *range(0, n, MAX_RUN)})):
        tracker.process(filters.run(counts[:, first:end]), end - first)
        ratio.append(tracker.sta[:, 0] / np.maximum(tracker.lta[:, 0], 1e-30))
    found = np.concatenate(ratio, axis=1)
    for row in range(2):
        whole = (counts[row] - counts[row, 0]).astype(float)
        trace = obspy_bandpass(whole, 1.0, corner, rate_hz, corners=2)
        theirs = recursive_sta_lta(trace, short, long)
        assert found[row, 24 * long :] == pytest.approx(theirs[24 * long :], rel=1e-8)


def test_a_young_lta_is_the_mean_of_all_since_the_filter_has_settled() -> None:
    samples = filtered(2)
    _, lta = averages(samples, [])
    for n in (SETTLE + 1, SETTLE + 50, SETTLE + 200):
        assert lta[0, 0, n - 1] == pytest.approx(np.mean(samples[0, 0, SETTLE:n] ** 2))


BANDS = (butterworth(2, 1.0, 5.0, RATE), butterworth(2, 2.0, 8.0, RATE))


def tracks(filters: BlockFilter, tracker: StaLta) -> Tracks:
    """Tracks that go on from there."""
    return Tracks(
        list(zip(BANDS, WINDOWS, ON, strict=True)),
        RATE,
        baseline=filters.baseline,
        state=filters.state,
        averages=tracker.last,
        counts=tracker.counts,
    )


@pytest.mark.parametrize("before", [1, 15, 150, 400])
def test_tracks_go_on_from_a_run_and_a_run_from_tracks(before: int) -> None:
    """Filtered samples, averages, excess: as in runs, while an LTA settles, is young, is old."""
    samples = np.random.default_rng(8).normal(1e6, 100.0, (2, 600))
    samples[0, 500] += 1e4
    filters, tracker = BlockFilter(StateSpace.of(*BANDS), 2), StaLta(WINDOWS, 2, RATE, ON)
    others, other = BlockFilter(StateSpace.of(*BANDS), 2), StaLta(WINDOWS, 2, RATE, ON)
    for column in range(before):
        tracker.process(filters.run(samples[:, [column]]), 1)
        other.process(others.run(samples[:, [column]]), 1)
    single = tracks(others, other)
    excesses = 0
    for column in range(before, 550):
        run = filters.run(samples[:, [column]])
        tracker.process(run, 1)
        sample = samples[:, column].tolist()
        exceeded = single.step(sample)
        bands = np.array(sample[2:]).reshape(2, 2).T
        assert bands == pytest.approx(run[:, :2], rel=1e-6, abs=1e-6)
        assert single.averages == pytest.approx(tracker.last, rel=1e-9)
        assert exceeded == (tracker.sta > np.array(ON)[:, None] * tracker.lta).any()
        excesses += exceeded and column >= 500
    assert 1 < excesses < 50
    other.adopt(single)
    others.state = single.state
    for column in range(550, 600):
        tracker.process(filters.run(samples[:, [column]]), 1)
        other.process(others.run(samples[:, [column]]), 1)
        assert other.last == pytest.approx(tracker.last, rel=1e-9)
        assert other.lta == pytest.approx(tracker.lta, rel=1e-9)


def test_tracks_are_of_band_passes_alone() -> None:
    filters, tracker = BlockFilter(StateSpace.of(*BANDS), 2), StaLta(WINDOWS, 2, RATE, ON)
    low = butterworth(4, None, 5.0, RATE)
    with pytest.raises(ValueError, match="band-pass"):
        Tracks(
            list(zip((low, low), WINDOWS, ON, strict=True)),
            RATE,
            baseline=filters.baseline,
            state=filters.state,
            averages=tracker.last,
            counts=tracker.counts,
        )


@pytest.mark.parametrize("cuts", [[], [130], [131], list(range(1, 599))])
def test_a_held_lta_stands_still_from_its_sample_to_its_sample(cuts: list[int]) -> None:
    """Held at 130, released at 170, in packets of any size; the other tracks do not notice."""
    samples = filtered(3)
    free = averages(samples, [])[1]
    tracker = StaLta(WINDOWS, 2, RATE, ON)
    lta = np.empty_like(free)
    edges = sorted({0, 600, *cuts, *range(0, 600, MAX_RUN)})
    for first, end in pairwise(edges):
        tracker.process(a_run(samples[:, :, first:end]), end - first)
        if first <= 130 < end:
            tracker.hold(0, 0, 130 - first)
        if first <= 170 < end:
            tracker.release(0, 0, 170 - first)
        lta[:, :, first:end] = tracker.lta
    assert (lta[0, 0, 130:171] == lta[0, 0, 130]).all()
    count = 131 - SETTLE
    expected = lta[0, 0, 130] + (samples[0, 0, 171] ** 2 - lta[0, 0, 130]) / (count + 1)
    assert lta[0, 0, 171] == pytest.approx(expected)
    others = np.ones((2, 2), dtype=bool)
    others[0, 0] = False
    assert lta[others] == pytest.approx(free[others])


def test_a_restarted_row_is_like_new_and_the_others_go_on() -> None:
    samples = filtered(4)
    tracker = StaLta(WINDOWS, 2, RATE, ON)
    averages(samples[:, :, :300], [], tracker)
    tracker.restart(0)
    sta, lta = averages(samples[:, :, 300:], [], tracker)
    new = averages(samples[:1, :, 300:], [])
    assert sta[0] == pytest.approx(new[0][0])
    assert lta[0] == pytest.approx(new[1][0])
    assert lta[1] == pytest.approx(averages(samples, [])[1][1][:, 300:])


def test_an_excess_is_seen_in_its_run_and_nothing_is_seen_in_quiet() -> None:
    samples = filtered(5, n=1000)
    samples[1, 1, 700] *= 50.0
    tracker = StaLta(WINDOWS, 2, RATE, ON)
    seen = []
    for first in range(0, 1000, 20):
        part = a_run(samples[:, :, first : first + 20])
        if tracker.process(part, 20) and first >= 400:
            seen.append(first)
        exact = (tracker.sta > np.array(ON)[:, None] * tracker.lta).any()
        assert not exact or first < 400 or first in seen
    assert seen[0] == 700


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.floats(1.0, 100.0),
    length=st.integers(1, 200),
    packet=st.integers(1, MAX_RUN),
)
def test_no_excess_is_missed_and_quiet_is_mostly_called_quiet(
    seed: int, size: float, length: int, packet: int
) -> None:
    """A burst of any size and length, in packets of any size."""
    samples = filtered(seed, n=1000)
    samples[0, 0, 700 : 700 + length] *= size
    tracker = StaLta(WINDOWS, 2, RATE, ON)
    needless = 0
    for first in range(0, 1000 - packet, packet):
        seen = tracker.process(a_run(samples[:, :, first : first + packet]), packet)
        exceeded = bool((tracker.sta > np.array(ON)[:, None] * tracker.lta).any())
        assert seen or not exceeded
        needless += seen and not exceeded and 400 <= first < 700 - packet
    assert needless * packet <= 30


def test_a_run_read_later_is_what_it_would_have_been_at_once() -> None:
    samples = filtered(6, n=600)
    free = averages(samples, [])
    tracker = StaLta(WINDOWS, 2, RATE, ON)
    averages(samples[:, :, :500], [], tracker)
    for first in range(500, 600, 20):
        tracker.process(a_run(samples[:, :, first : first + 20]), 20)
    assert tracker.last == pytest.approx(np.hstack([part[:, :, -1] for part in free]))
    assert tracker.lta == pytest.approx(free[1][:, :, 580:])
    assert tracker.sta == pytest.approx(free[0][:, :, 580:])
