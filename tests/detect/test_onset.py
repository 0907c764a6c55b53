"""An onset is where the motion begins, never where it ends."""

import numpy as np
import pytest
from obspy.signal.trigger import aic_simple

from gateway.detect import onset
from gateway.detect.filters import BlockFilter, StateSpace, butterworth
from tests.detect.signals import Trace, add, shaking

RATE = 100.0
BEGIN = 200


def arrival(seed: int, strength: float, rate_hz: float = RATE) -> Trace:
    """Two seconds of band-passed noise of unit power, then motion."""
    random = np.random.default_rng(seed)
    n = round(2.3 * rate_hz)
    lead = round(5 * rate_hz)
    trace = random.normal(size=n + lead)
    trace = add(trace, lead + round(2.0 * rate_hz), strength * shaking(rate_hz, seed))
    band = butterworth(2, 1.0, min(10.0, 0.45 * rate_hz), rate_hz)
    filtered = BlockFilter(StateSpace.of(band), 1).process(trace[None])[0, 0, lead:]
    return np.asarray(filtered)


@pytest.mark.parametrize("rate_hz", [20.0, 31.25, 100.0, 200.0, 1000.0])
@pytest.mark.parametrize(("strength", "within_s"), [(5.0, 0.1), (15.0, 0.06), (1000.0, 0.05)])
def test_the_onset_is_found(rate_hz: float, strength: float, within_s: float) -> None:
    errors = [
        onset.refine(arrival(seed, strength, rate_hz), rate_hz).index / rate_hz - 2.0
        for seed in range(20)
    ]
    assert np.median(np.abs(errors)) <= max(within_s, 1.0 / rate_hz)


def test_strong_arrivals_weigh_more() -> None:
    weights = [
        np.mean([onset.refine(arrival(seed, strength), RATE).quality for seed in range(10)])
        for strength in (1.0, 3.0, 10.0, 100.0, 1000.0)
    ]
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] == 0.0


@pytest.mark.parametrize(("sign", "polarity"), [(1.0, "up"), (-1.0, "down")])
def test_first_motion_has_a_sign(sign: float, polarity: str) -> None:
    trace = np.random.default_rng(3).normal(size=230)
    t = np.arange(30) / RATE
    trace = add(trace, BEGIN, sign * 100.0 * np.sin(2 * np.pi * 3.0 * t))
    assert onset.refine(trace, RATE).polarity == polarity


def test_no_sign_is_read_from_noise() -> None:
    trace = np.random.default_rng(3).normal(size=230)
    assert onset.refine(trace, RATE).polarity == "unknown"


def test_the_end_of_a_motion_is_no_onset() -> None:
    trace = np.random.default_rng(1).normal(size=230)
    trace[:100] *= 50.0
    trace[200:] *= 5.0
    assert abs(onset.refine(trace, RATE).index - 100) > 20


def test_aic_is_obspys_where_motion_grows() -> None:
    trace = arrival(5, 10.0)
    ours, theirs = onset.aic(trace), aic_simple(trace)
    inside = np.arange(20, len(trace) - 5)
    grows = inside[np.isfinite(ours[inside])]
    best = grows[np.argmin(theirs[grows])]
    assert abs(int(np.argmin(ours[5:-5])) + 5 - int(best)) <= 1


def test_a_dead_trace_gives_numbers_all_the_same() -> None:
    pick = onset.refine(np.zeros(230), RATE)
    assert np.isfinite(pick.snr_db)
    assert pick.quality == 4
