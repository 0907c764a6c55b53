"""Samples that are wrong for a moment are no earthquake, whenever they come and whatever they are.

Spikes of one to five samples and displaced levels of up to half a second, thirty times the noise or
more: nearer to the noise a displaced level can't be told from the ground.
"""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.detect import SeismicDetector
from gateway.events import NS, Onset
from tests.detect.signals import NOISE, START_NS, Trace, add, every, ground, run, shaking

SECONDS = 25.0
STATIONS = 12
"""In one detector; each with ground, trouble and time of its own."""
LONG_S = 1.5


def noise(rate_hz: float, seed: int) -> Trace:
    """White on a microseism, falling with frequency, or of two counts."""
    random = np.random.default_rng(seed)
    n = round(SECONDS * rate_hz)
    if seed % 3 == 0:
        return ground(SECONDS, rate_hz, seed, 1e5)
    if seed % 3 == 1:
        return np.asarray(random.normal(0.0, 2.0, n))
    spectrum = np.fft.rfft(random.normal(0.0, NOISE, n))
    spectrum[1:] /= np.maximum(np.fft.rfftfreq(n, 1.0 / rate_hz)[1:], 0.1) ** 0.5
    return np.asarray(np.fft.irfft(spectrum, n))


def trouble(random: np.random.Generator, rate_hz: float) -> Trace:
    """A spike of one to five samples, or a displaced level of up to half a second."""
    size = NOISE * 10.0 ** random.uniform(1.5, 6.0) * random.choice([-1.0, 1.0])
    width = int(random.integers(1, 6))
    if random.random() < 0.5:
        signs = random.choice([-1.0, 1.0], width)
        return np.asarray(size * signs * random.uniform(0.3, 1.0, width))
    if random.random() < 0.5:
        width = max(1, round(random.uniform(0.05, 0.5) * rate_hz))
    return np.full(width, size)


def station(seed: int, rate_hz: float, components: int, hole_s: float) -> Trace:
    """Trouble on all components alike or on one, perhaps where a hole ends."""
    random = np.random.default_rng(seed)
    at = round(random.uniform(0.0, SECONDS - 1.0) * rate_hz)
    if hole_s:
        at = round(random.uniform(LONG_S + 4.5, SECONDS - 5.0) * rate_hz)
    event = trouble(random, rate_hz)
    alone = random.integers(components) if random.random() < 0.3 else None
    rows = []
    for component in range(components):
        row = noise(rate_hz, seed + component)
        if alone in (None, component):
            row = add(row, at, event)
        row = np.round(row)
        if hole_s:
            restart = 0 if hole_s < 1.0 else round(random.uniform(0.0, 5.0) * rate_hz)
            row[max(0, at - restart - round(hole_s * rate_hz)) : max(0, at - restart)] = np.nan
        rows.append(row)
    return np.array(rows)


def onsets(samples: Trace, rate_hz: float, components: int) -> list[Onset]:
    channels = [
        f"XX.S{k}..HH{'ENZ'[3 - components :][component]}"
        for k in range(len(samples) // components)
        for component in range(components)
    ]
    cuts: Sequence[int] = every(round(rate_hz / 4), samples.shape[1])
    found = run(SeismicDetector(channels, rate_hz), samples, rate_hz, cuts)
    return [d for d in found if isinstance(d, Onset)]


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("rate_hz", [50.0, 100.0, 200.0])
@pytest.mark.parametrize("hole_s", [0.0, LONG_S], ids=["after a start", "after a restart"])
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_none_is_an_onset(hole_s: float, rate_hz: float, components: int, seed: int) -> None:
    samples = np.concatenate(
        [station(seed + 10 * k, rate_hz, components, hole_s) for k in range(STATIONS)]
    )
    assert onsets(samples, rate_hz, components) == []


@pytest.mark.parametrize("rate_hz", [50.0, 100.0, 200.0])
@pytest.mark.parametrize("missing", [1, 3, 5])
def test_a_bridged_hole_that_ends_at_wrong_samples_is_no_onset(
    missing: int, rate_hz: float
) -> None:
    rows = []
    for seed in range(STATIONS):
        at = round((6.0 + seed) * rate_hz)
        row = np.round(add(ground(SECONDS, rate_hz, seed), at, np.full(1 + seed % 2, 1e5)))
        row[at - missing : at] = np.nan
        rows.append(row)
    assert onsets(np.array(rows), rate_hz, 1) == []


@pytest.mark.parametrize("rate_hz", [50.0, 100.0, 200.0])
@pytest.mark.parametrize("lead_s", [-0.05, 0.0, 0.3])
def test_they_hide_no_earthquake_that_is_as_large(lead_s: float, rate_hz: float) -> None:
    """Two wrong samples just before, at, or after the onset of a P wave."""
    rows = []
    for seed in range(STATIONS):
        at = round(15.0 * rate_hz)
        row = add(ground(SECONDS, rate_hz, seed), at, 1e5 * shaking(rate_hz, seed))
        rows.append(add(row, at + round(lead_s * rate_hz), np.full(2, 1e5)))
    found = onsets(np.array(rows), rate_hz, 1)
    times = {d.channel: (d.time_ns - START_NS) / NS for d in found}
    assert len(times) == STATIONS
    assert list(times.values()) == pytest.approx([15.0] * STATIONS, abs=0.2)
