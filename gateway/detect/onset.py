"""Refinement of a trigger to the arrival itself: time, strength, first motion, weight.

The arrival is where the Akaike information criterion of "noise before, signal after" is least
(Maeda 1985, Zisin 38):

    AIC(k) = k · ln var x[:k] + (n - k - 1) · ln var x[k:]

taken of the band-passed trace over [trigger - 2 s, declaring sample]; nothing later is used.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gateway.detect.filters import Float

Polarity = Literal["up", "down", "unknown"]

LOOK_BACK_S = 2.0
_NOISE_S, _SIGNAL_S = 0.25, 0.03
"""The least of each that a variance can be had from; noise is the slower."""
_FIRST_MOTION_S = 0.15
"""First motions are looked for within a quarter of the longest period of the band or so."""
_FIRST_MOTION_SIGMA = 4.0
_WEIGHTS_DB = (30.0, 20.0, 14.0, 9.0)
"""From these ratios on weights are 0, 1, 2, 3; a pick of 30 dB is good to a sample or two."""


@dataclass(frozen=True, slots=True)
class Pick:
    """An arrival at ``index`` of the trace given; ``snr_db`` compares the energies beside it."""

    index: int
    snr_db: float
    polarity: Polarity
    quality: int


def aic(trace: Float) -> Float:
    """AIC of each split of ``trace`` (n,); infinite where the second part is not the stronger."""
    n = len(trace)
    k = np.arange(1, n)
    total, square = np.cumsum(trace), np.cumsum(trace * trace)
    before = square[:-1] / k - (total[:-1] / k) ** 2
    after = (square[-1] - square[:-1]) / (n - k) - ((total[-1] - total[:-1]) / (n - k)) ** 2
    floor = max(float(square[-1]) / n * 1e-15, np.finfo(float).tiny)
    value = np.full(n, np.inf)
    value[1:] = np.where(
        after > before,
        k * np.log(np.maximum(before, floor)) + (n - k - 1) * np.log(np.maximum(after, floor)),
        np.inf,
    )
    return value


def refine(trace: Float, rate_hz: float) -> Pick:
    """The arrival in ``trace`` (n ≥ 8,), band-passed, which ends with the declaring sample."""
    first, last = max(2, round(_NOISE_S * rate_hz)), max(2, int(_SIGNAL_S * rate_hz))
    index = first + int(np.argmin(aic(trace)[first:-last]))
    noise, signal = trace[:index], trace[index:]
    noise_power = max(float(np.mean(noise**2)), np.finfo(float).tiny)
    snr_db = 10.0 * float(np.log10(max(float(np.mean(signal**2)) / noise_power, 1e-9)))
    motion = signal[: max(2, round(_FIRST_MOTION_S * rate_hz))]
    over = np.flatnonzero(np.abs(motion) > _FIRST_MOTION_SIGMA * noise_power**0.5)
    polarity: Polarity = "unknown"
    if len(over):
        polarity = "up" if motion[over[0]] > 0 else "down"
    quality = sum(snr_db < bound for bound in _WEIGHTS_DB)
    return Pick(index, snr_db, polarity, quality)
