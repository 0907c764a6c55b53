"""The filters are scipy's Butterworth filters, whatever the packets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal

from gateway.detect.filters import MAX_RUN, BlockFilter, Section, StateSpace, butterworth

DESIGNS = [
    (2, 1.0, 10.0, 100.0),
    (2, 1.0, 9.0, 20.0),
    (2, 5.0, 14.0, 31.25),
    (2, 1.0, 10.0, 1000.0),
    (4, 0.5, 40.0, 250.0),
    (3, 1.0, 10.0, 100.0),
    (1, 1.0, 10.0, 100.0),
    (2, 0.075, None, 100.0),
    (3, 0.5, None, 50.0),
    (4, None, 10.0, 200.0),
    (1, None, 1.0, 100.0),
]


def walk(rows: int, n: int, seed: int = 0) -> NDArray[np.float64]:
    """Ground with far more power at low frequencies than in the band, and offsets of 1e6."""
    random = np.random.default_rng(seed)
    return np.asarray(
        1e6 * random.normal(size=(rows, 1)) + random.normal(0, 50, (rows, n)).cumsum(axis=1)
    )


def sample_by_sample(sections: tuple[Section, ...], samples: list[float]) -> list[float]:
    """Plain arithmetic, transposed direct form II, from the first sample as baseline."""
    states = [[0.0, 0.0] for _ in sections]
    out = []
    for sample in samples:
        value = sample - samples[0]
        for state, (b0, b1, b2, a1, a2) in zip(states, sections, strict=True):
            result = b0 * value + state[0]
            state[0] = b1 * value - a1 * result + state[1]
            state[1] = b2 * value - a2 * result
            value = result
        out.append(value)
    return out


@pytest.mark.parametrize(("order", "low", "high", "rate"), DESIGNS)
def test_design_has_scipys_response(
    order: int, low: float | None, high: float | None, rate: float
) -> None:
    corners = [c for c in (low, high) if c is not None]
    kind = "band" if len(corners) == 2 else "high" if low else "low"
    theirs = signal.butter(
        order, corners if len(corners) == 2 else corners[0], kind, fs=rate, output="sos"
    )
    ours = np.array(
        [(b0, b1, b2, 1.0, a1, a2) for b0, b1, b2, a1, a2 in butterworth(order, low, high, rate)]
    )
    _, expected = signal.sosfreqz(theirs, 2000)
    _, found = signal.sosfreqz(ours, 2000)
    assert np.abs(found - expected).max() < 1e-10


@pytest.mark.parametrize(("order", "low", "high", "rate"), DESIGNS)
def test_blocks_give_what_scipy_gives_sample_by_sample(
    order: int, low: float | None, high: float | None, rate: float
) -> None:
    sections = butterworth(order, low, high, rate)
    samples = walk(3, 2000)
    sos = [(b0, b1, b2, 1.0, a1, a2) for b0, b1, b2, a1, a2 in sections]
    expected = signal.sosfilt(sos, samples - samples[:, :1], axis=1)
    block = BlockFilter(StateSpace.of(sections), 3)
    found = np.concatenate(
        [block.process(samples[:, k : k + 25])[0] for k in range(0, 2000, 25)], 1
    )
    assert np.abs(found - expected).max() < 1e-9 * np.abs(expected).max()


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 699), max_size=40, unique=True),
    seed=st.integers(0, 1000),
    rate=st.sampled_from([20.0, 31.25, 100.0, 1000.0]),
)
def test_cuts_do_not_matter(cuts: list[int], seed: int, rate: float) -> None:
    sections = butterworth(2, 1.0, min(10.0, 0.45 * rate), rate)
    samples = walk(2, 700, seed)
    block = BlockFilter(StateSpace.of(sections), 2)
    parts = np.split(samples, sorted(cuts), axis=1)
    found = np.concatenate([block.process(part)[0] for part in parts], axis=1)
    expected = np.array([sample_by_sample(sections, row.tolist()) for row in samples])
    assert np.abs(found - expected).max() < 1e-9 * np.abs(expected).max()


def test_several_bands_come_from_one_pass() -> None:
    low, high = butterworth(2, 1.0, 10.0, 100.0), butterworth(3, 5.0, 25.0, 100.0)
    samples = walk(4, 300)
    both = BlockFilter(StateSpace.of(low, high), 4).process(samples)
    assert both.shape == (2, 4, 300)
    for found, sections in zip(both, (low, high), strict=True):
        alone = BlockFilter(StateSpace.of(sections), 4).process(samples)[0]
        assert found == pytest.approx(alone, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e6, -8e6])
def test_an_offset_does_not_ring(offset: float) -> None:
    block = BlockFilter(StateSpace.of(butterworth(2, 1.0, 10.0, 100.0)), 1)
    quiet = block.process(np.full((1, 500), offset))
    assert np.abs(quiet).max() == 0.0


def test_a_restarted_row_begins_anew_and_the_others_go_on() -> None:
    system = StateSpace.of(butterworth(2, 1.0, 10.0, 100.0))
    samples = walk(2, 400)
    block, whole = BlockFilter(system, 2), BlockFilter(system, 2)
    block.process(samples[:, :200])
    block.restart(0)
    after = block.process(samples[:, 200:])[0]
    fresh = BlockFilter(system, 1).process(samples[:1, 200:])[0, 0]
    assert after[0] == pytest.approx(fresh, rel=1e-12, abs=1e-9)
    assert after[1] == pytest.approx(whole.process(samples)[0, 1, 200:], rel=1e-9, abs=1e-6)


def test_counts_may_be_integers() -> None:
    system = StateSpace.of(butterworth(2, 1.0, 10.0, 100.0))
    counts = np.round(walk(2, 3 * MAX_RUN)).astype(np.int32)
    assert np.array_equal(
        BlockFilter(system, 2).process(counts), BlockFilter(system, 2).process(counts.astype(float))
    )


@pytest.mark.parametrize(
    ("low", "high", "rate", "what"),
    [
        (1.0, 10.0, 0.0, "sampling rate"),
        (1.0, 10.0, float("nan"), "sampling rate"),
        (1.0, 10.0, float("inf"), "sampling rate"),
        (1.0, 60.0, 100.0, "corner 60"),
        (0.0, 10.0, 100.0, "corner 0"),
        (10.0, 1.0, 100.0, "band 10"),
        (None, None, 100.0, "at least one corner"),
    ],
)
def test_an_impossible_filter_is_refused(
    low: float | None, high: float | None, rate: float, what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        butterworth(2, low, high, rate)
