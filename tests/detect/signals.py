"""Made-up ground and made-up trouble: counts of one channel, seeded, at any sampling rate."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gateway.detect import SeismicDetector
from gateway.events import NS, Decision

Trace = NDArray[np.float64]
START_NS = 1_700_000_000 * NS
NOISE = 100.0


def ground(seconds: float, rate_hz: float, seed: int, offset: float = 0.0) -> Trace:
    """White noise of 100 counts on a microseism ten times as large, with an offset."""
    random = np.random.default_rng(seed)
    n = round(seconds * rate_hz)
    swell = 1000.0 * np.sin(2 * np.pi * (0.2 * np.arange(n) / rate_hz + random.random()))
    return np.asarray(offset + swell + random.normal(0.0, NOISE, n))


def shaking(
    rate_hz: float,
    seed: int,
    rise_s: float = 0.03,
    decay_s: float = 2.0,
    band_hz: tuple[float, float] = (1.0, 15.0),
    seconds: float = 8.0,
) -> Trace:
    """Random motion of unit power in a band under an envelope that rises and decays."""
    random = np.random.default_rng(seed)
    n = round(seconds * rate_hz)
    spectrum = np.fft.rfft(random.normal(size=2 * n))
    frequency = np.fft.rfftfreq(2 * n, 1.0 / rate_hz)
    spectrum[(frequency < band_hz[0]) | (frequency > band_hz[1])] = 0.0
    motion = np.fft.irfft(spectrum)[:n]
    t = np.arange(n) / rate_hz
    envelope = (1.0 - np.exp(-t / rise_s)) * np.exp(-t / decay_s)
    return np.asarray(motion / motion.std() * envelope)


def knock(rate_hz: float, frequency_hz: float, decay_s: float) -> Trace:
    """One blow on the ground: a damped oscillation."""
    t = np.arange(round(8 * decay_s * rate_hz)) / rate_hz
    return np.asarray(np.sin(2 * np.pi * frequency_hz * t) * np.exp(-t / decay_s))


def vehicle(rate_hz: float, seed: int, passing_s: float = 1.5) -> Trace:
    """A lorry goes by: vibration at axle hop that swells and fades."""
    motion = shaking(rate_hz, seed, 1e-6, 1e6, (9.0, 13.0), 8 * passing_s)
    t = np.arange(len(motion)) / rate_hz - 4 * passing_s
    return np.asarray(motion * np.exp(-0.5 * (t / passing_s) ** 2))


def add(trace: Trace, at: int, event: Trace) -> Trace:
    """The trace with an event from sample ``at`` on."""
    out = trace.copy()
    out[at : at + len(event)] += event[: len(trace) - at]
    return out


def run(
    detector: SeismicDetector,
    samples: NDArray[np.float64] | NDArray[np.int32],
    rate_hz: float,
    cuts: Sequence[int] = (),
    start_ns: int = START_NS,
) -> list[Decision]:
    """All decisions on samples of (channels, n), cut into packets at the columns given."""
    decisions: list[Decision] = []
    edges = [0, *cuts, samples.shape[1]]
    for first, end in pairwise(edges):
        decisions += detector.process(samples[:, first:end], start_ns + round(first * NS / rate_hz))
    return decisions


def every(n: int, length: int) -> range:
    """Cuts after every ``n`` samples."""
    return range(n, length, n)
