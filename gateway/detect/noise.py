"""How quiet a place is: power spectral density against Peterson's noise models.

The method is that of McNamara & Buland (2004, BSSA 94, 1517–1527), as far as a warning station
needs it: a segment is cut into windows of a quarter of its length (a power of two of samples) that
overlap by three quarters; each is detrended, tapered by a 10 % cosine and transformed; the mean
power, over the frequencies of a full octave around each centre and in dB, is the segment's
spectrum. Many segments give percentiles, in which a passing lorry is a percentile and not a mean.
Segments are ten minutes, not their hour: down to 0.05 Hz, within a thousandth of the memory.

A velocity sensor's spectrum is brought to acceleration by (2πf)². Sensitivities are taken as flat;
outside a sensor's band its own response and its own noise are what is seen, so the comparison says
nothing there. Without a sensitivity the spectrum is in counts and is compared with nothing.

The models are those of Peterson (1993, USGS Open-File Report 93-322), ``A + B lg T`` in dB relative
to (m/s²)²/Hz, each row from its period T in s on. Above 10 Hz they do not exist.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.detect.filters import Float
from gateway.detect.settings import Sensitivity
from gateway.events import NS

SEGMENT_S = 600.0
MIN_SEGMENT_S = 8.0
"""Shorter stretches give no spectrum worth showing."""
PERCENTILES = (10, 50, 90)
MAX_SEGMENTS = 144
"""Segments of a day: what percentiles are taken over."""
LOWEST_HZ = 0.01
CYCLES = 5
"""Periods that a window must hold for a frequency to be believed."""
BRIDGED = 0.5
"""A packet that begins within so much of a sample of its due time continues the segment."""

Rows = Sequence[tuple[float, float, float]]
"""T, A and B of a model."""

NLNM: Rows = (
    (0.10, -162.36, 5.64),
    (0.17, -166.70, 0.00),
    (0.40, -170.00, -8.30),
    (0.80, -166.40, 28.90),
    (1.24, -168.60, 52.48),
    (2.40, -159.98, 29.81),
    (4.30, -141.10, 0.00),
    (5.00, -71.36, -99.77),
    (6.00, -97.26, -66.49),
    (10.00, -132.18, -31.57),
    (12.00, -205.27, 36.16),
    (15.60, -37.65, -104.33),
    (21.90, -114.37, -47.10),
    (31.60, -160.58, -16.28),
    (45.00, -187.50, 0.00),
    (70.00, -216.47, 15.70),
)
NHNM: Rows = (
    (0.10, -108.73, -17.23),
    (0.22, -150.34, -80.50),
    (0.32, -122.31, -23.87),
    (0.80, -116.85, 32.51),
    (3.80, -108.48, 18.08),
    (4.60, -74.66, -32.95),
    (6.30, 0.66, -127.18),
    (7.90, -93.37, -22.42),
    (15.40, 73.54, -162.98),
    (20.00, -151.52, 10.01),
)
HIGHEST_PERIOD_S = 100.0
"""Rows for longer periods are left out: no sensor here hears them."""


def model_db(rows: Rows, frequencies_hz: Float) -> Float:
    """A Peterson model at frequencies, dB relative to (m/s²)²/Hz; NaN where it is not defined."""
    periods = 1.0 / np.asarray(frequencies_hz, np.float64)
    starts = np.array([row[0] for row in rows])
    row = np.searchsorted(starts, periods * (1 + 1e-9), "right") - 1
    a = np.array([row[1] for row in rows])[np.maximum(row, 0)]
    b = np.array([row[2] for row in rows])[np.maximum(row, 0)]
    found: Float = np.where(
        (row < 0) | (periods > HIGHEST_PERIOD_S), np.nan, a + b * np.log10(periods)
    )
    return found


def centres_hz(rate_hz: float, window: int) -> Float:
    """Frequencies half an octave apart, from what a window can resolve to 0.4 of the rate."""
    low = max(LOWEST_HZ, CYCLES * rate_hz / window)
    # Multiples of half an octave from 1 Hz, so that stations of other rates can be compared.
    first, last = np.ceil(2 * np.log2(low)), np.floor(2 * np.log2(0.4 * rate_hz))
    return np.asarray(2.0 ** (np.arange(first, last + 1) / 2), np.float64)


def window_samples(samples: int) -> int:
    """Length of the windows of a segment: the power of two at or below a quarter of it."""
    return 1 << max(int(np.log2(max(samples / 4, 1))), 4)


def density(samples: Float, rate_hz: float) -> tuple[Float, Float]:
    """One-sided power spectral density of a segment.

    Returns:
        Frequencies in Hz without 0, and the density in (unit of ``samples``)²/Hz.
    """
    window = min(window_samples(len(samples)), len(samples))
    step = max(window // 4, 1)
    taper = _taper(window)
    ramp = np.arange(window) - (window - 1) / 2
    total = np.zeros(window // 2 + 1)
    starts = range(0, len(samples) - window + 1, step)
    for start in starts:
        part = samples[start : start + window]
        part = part - part.mean()
        part = part - ramp * (ramp @ part / (ramp @ ramp))
        total += np.abs(np.fft.rfft(part * taper)) ** 2
    total *= 2.0 / (len(starts) * rate_hz * (taper @ taper))
    frequencies = np.asarray(np.fft.rfftfreq(window, 1 / rate_hz), np.float64)
    return frequencies[1:], total[1:]


def _taper(n: int) -> Float:
    """A cosine over 10 % of the window at either end."""
    edge = max(int(0.1 * n), 1)
    rise = 0.5 * (1 - np.cos(np.pi * np.arange(edge) / edge))
    return np.concatenate((rise, np.ones(n - 2 * edge), rise[::-1]))


def spectrum_db(
    samples: Float, rate_hz: float, sensitivity: Sensitivity | None
) -> tuple[Float, Float]:
    """A segment's spectrum at :func:`centres_hz`.

    Args:
        samples: counts, without a hole.
        rate_hz: samples a second.
        sensitivity: what they mean; None: the spectrum is of counts.

    Returns:
        Frequencies in Hz, and dB relative to (m/s²)²/Hz, or to counts²/Hz.
    """
    values = np.asarray(samples, np.float64)
    if sensitivity is not None:
        values = values / sensitivity.counts_per_unit
    frequencies, power = density(values, rate_hz)
    if sensitivity is not None and sensitivity.unit == "m/s":
        power = power * (2 * np.pi * frequencies) ** 2
    levels = 10 * np.log10(np.maximum(power, 1e-300))
    centres = centres_hz(rate_hz, window_samples(len(values)))
    half = 2.0**0.5
    smooth = [levels[(frequencies >= c / half) & (frequencies <= c * half)].mean() for c in centres]
    return centres, np.array(smooth)


@dataclass(slots=True)
class NoiseMonitor:
    """The noise of one channel over the last day, from packets as they come.

    Memory: one segment of samples and ``MAX_SEGMENTS`` short spectra.
    """

    channel: str
    rate_hz: float
    sensitivity: Sensitivity | None = None
    segments: deque[Float] = field(default_factory=lambda: deque(maxlen=MAX_SEGMENTS))
    frequencies_hz: Float = field(default_factory=lambda: np.zeros(0))
    gaps: int = 0
    _parts: list[NDArray[Any]] = field(default_factory=list)
    _held: int = 0
    _next_ns: int | None = None
    _since_ns: int | None = None
    _seen: int = 0

    @property
    def _length(self) -> int:
        return round(SEGMENT_S * self.rate_hz)

    def add(self, samples: NDArray[Any], start_ns: int) -> None:
        """Samples (n,) in counts, NaN missing, that begin at ``start_ns``. A hole begins anew."""
        if self._next_ns is not None:
            late = (start_ns - self._next_ns) * self.rate_hz / NS
            if abs(late) > BRIDGED:
                self._drop()
        if self._since_ns is None:
            self._since_ns = start_ns
        self._next_ns = start_ns + round(len(samples) * NS / self.rate_hz)
        missing = int(np.isnan(samples).sum()) if samples.dtype.kind == "f" else 0
        self._seen += len(samples) - missing
        if missing:
            self._drop()
            return
        self._parts.append(samples)
        self._held += len(samples)
        if self._held >= self._length:
            whole = np.concatenate(self._parts)
            self._parts, self._held = [], 0
            self.frequencies_hz, levels = spectrum_db(
                whole[: self._length], self.rate_hz, self.sensitivity
            )
            self.segments.append(levels)

    def _drop(self) -> None:
        self.gaps += 1
        self._parts, self._held = [], 0

    def report(self) -> dict[str, Any] | None:
        """What is known, as plain JSON types; completeness and gaps since the last report.

        None before the first whole segment.
        """
        if not self.segments or self._next_ns is None or self._since_ns is None:
            return None
        expected = (self._next_ns - self._since_ns) * self.rate_hz / NS
        found = summary(self.frequencies_hz, np.array(self.segments), self.sensitivity)
        found |= {
            "channel": self.channel,
            "segments": len(self.segments),
            "completeness": round(min(1.0, self._seen / expected), 4) if expected else 1.0,
            "gaps": self.gaps,
        }
        self._since_ns, self._seen, self.gaps = self._next_ns, 0, 0
        return found


def summary(
    frequencies_hz: Float, spectra_db: Float, sensitivity: Sensitivity | None
) -> dict[str, Any]:
    """Percentiles of spectra (segments, frequencies) and what they are to the models.

    ``above_high_db`` is how far the median is above NHNM at its worst frequency, ``below_low_db``
    how far below NLNM, where there is no ground so quiet: a dead sensor, or a wrong sensitivity.
    Either is 0 where it is within, and both are None without a sensitivity.
    """
    percentiles = np.percentile(spectra_db, PERCENTILES, axis=0)
    found: dict[str, Any] = {
        "unit": "dB (m/s²)²/Hz" if sensitivity else "dB counts²/Hz",
        "frequencies_hz": [round(float(f), 4) for f in frequencies_hz],
    }
    for name, row in zip(PERCENTILES, percentiles, strict=True):
        found[f"p{name}_db"] = [round(float(x), 1) for x in row]
    high, low = above_below(frequencies_hz, percentiles[1])
    known = sensitivity is not None and bool(np.isfinite(high).any())
    found["above_high_db"] = round(float(max(0.0, np.nanmax(high))), 1) if known else None
    found["below_low_db"] = round(float(max(0.0, np.nanmax(low))), 1) if known else None
    found["verdict"] = _verdict(found, frequencies_hz, high, low)
    return found


def above_below(frequencies_hz: Float, median_db: Float) -> tuple[Float, Float]:
    """How far a median is above NHNM, and below NLNM, dB; NaN where there is no model."""
    return (
        median_db - model_db(NHNM, frequencies_hz),
        model_db(NLNM, frequencies_hz) - median_db,
    )


def _verdict(found: dict[str, Any], frequencies_hz: Float, high: Float, low: Float) -> str:
    if found["above_high_db"] is None:
        return "no sensitivity, compared with nothing"
    if found["below_low_db"] > 0:
        at = frequencies_hz[int(np.nanargmax(low))]
        return (
            f"{found['below_low_db']:g} dB below the low noise model at {at:.2g} Hz: dead, or its "
            "sensitivity is wrong"
        )
    if found["above_high_db"] > 0:
        at = frequencies_hz[int(np.nanargmax(high))]
        return f"{found['above_high_db']:g} dB above the high noise model at {at:.2g} Hz"
    return "between the low and the high noise model"
