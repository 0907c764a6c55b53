"""What a simulated sensor measures: quiet noise, no rain, or a recording.

A recording is played as it is. Another rate or another unit than the device's is an error until
the caller asks for resampling or a scale, for both change what a detector sees.
"""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.drill import recording
from gateway.drill.recording import Waveform
from gateway.events import NS, Reading

NOISE_COUNTS = 20.0
"""Standard deviation of quiet noise."""
NOISE_BLOCK = 4096
SETTLE_S = 1.0
"""What follows a recording is noise about the mean of its last second, for a step would trigger."""

COMPONENTS = {"1": "N", "2": "E", "3": "Z"}
"""Orientation codes of unaligned sensors, as the components that they stand for."""


class SourceError(ValueError):
    """A recording that this device can't play; says why and what to do."""


class Quiet:
    """White noise that depends only on seed and sample number; no rain."""

    def __init__(self, rate_hz: float, channels: int = 1, seed: int = 0) -> None:
        self.rate_hz = rate_hz
        self.channels = channels
        self._seed = seed
        self._blocks: dict[int, NDArray[np.int32]] = {}

    def samples(self, first: int, count: int) -> NDArray[np.int32]:
        """Counts, shape (channels, count)."""
        low, high = first // NOISE_BLOCK, (first + count - 1) // NOISE_BLOCK
        blocks = [self._block(number) for number in range(low, high + 1)]
        start = first - low * NOISE_BLOCK
        return np.concatenate(blocks, axis=1)[:, start : start + count]

    def _block(self, number: int) -> NDArray[np.int32]:
        if number not in self._blocks:
            random = np.random.default_rng((self._seed, number))
            noise = random.normal(0.0, NOISE_COUNTS, (self.channels, NOISE_BLOCK))
            self._blocks = {number: noise.round().astype(np.int32)}
        return self._blocks[number]

    def total_micro(self, t: int) -> int:
        """No rain."""
        del t
        return 0


class Recorded:
    """Counts of a recording, then quiet noise about its last second.

    Args:
        counts: int32, shape (channels, n).
        rate_hz: their rate, which is the device's.
        channels: what each row was recorded as; an empty name plays noise instead.
        seed: of the noise.
    """

    def __init__(
        self,
        counts: NDArray[np.int32],
        rate_hz: float,
        channels: Sequence[str],
        seed: int = 0,
    ) -> None:
        self.rate_hz = rate_hz
        self.channels = tuple(channels)
        self._counts = counts
        self._noise = Quiet(rate_hz, counts.shape[0], seed)
        tail = counts[:, -max(1, round(SETTLE_S * rate_hz)) :]
        self._level = tail.mean(axis=1).round().astype(np.int32)[:, np.newaxis]
        self._blank = [i for i, name in enumerate(channels) if not name]

    def samples(self, first: int, count: int) -> NDArray[np.int32]:
        """Counts, shape (channels, count)."""
        played = self._counts[:, first : first + count]
        noise = self._noise.samples(first, count)
        found = np.concatenate((played, (noise + self._level)[:, played.shape[1] :]), axis=1)
        found[self._blank] = noise[self._blank]
        return found

    def total_micro(self, t: int) -> int:
        """No rain."""
        del t
        return 0


class Rain:
    """A running total from readings ``(ns after the start, total so far in millionths)``.

    ``speed`` plays it faster: a minute of it lasts 60/speed seconds.
    """

    rate_hz = 1.0

    def __init__(self, totals: Sequence[tuple[int, int]], speed: float = 1.0) -> None:
        self._times = [at for at, _ in totals]
        self._totals = [0, *(total for _, total in totals)]
        self._speed = Fraction(speed)

    def samples(self, first: int, count: int) -> NDArray[np.int32]:
        """A gauge has no waveform."""
        del first
        return np.zeros((1, count), np.int32)

    def total_micro(self, t: int) -> int:
        """What has fallen ``t`` ns after the start."""
        return self._totals[bisect_right(self._times, int(t * self._speed))]


def rain(path: Path, speed: float = 1.0) -> Rain:
    """The rain of a CSV of readings with ``rain_mm`` or ``rain_total_mm``.

    Raises:
        SourceError: it holds neither.
        RecordingError: it can't be read.
    """
    series = recording.read(path).series
    for quantity in ("rain_mm", "rain_total_mm"):
        readings = [r for s in series for r in s.readings if r.quantity == quantity]
        if readings:
            return Rain(_totals(readings), speed)
    raise SourceError(f"{path}: no rain; a gauge plays a CSV with rain_mm or rain_total_mm")


def _totals(readings: Sequence[Reading]) -> list[tuple[int, int]]:
    """Totals since the first interval began; a falling counter was reset."""
    known = [(r.time_ns, r.micro) for r in readings if r.micro is not None]
    known.sort()
    if not known:
        return []
    interval_ns = readings[1].time_ns - readings[0].time_ns if len(readings) > 1 else 0
    start_ns = readings[0].time_ns - interval_ns
    times = [time_ns - start_ns for time_ns, _ in known]
    values = [micro for _, micro in known]
    if readings[0].quantity == "rain_total_mm":
        rises = [now - before if now >= before else now for before, now in pairwise(values)]
        values = [0, *rises]
    return list(zip(times, accumulate(values), strict=True))


def waveform(
    path: Path,
    codes: Sequence[str],
    rate_hz: float,
    *,
    station: str | None = None,
    resample: bool = False,
    scale: float | None = None,
    seed: int = 0,
) -> Recorded:
    """The recording of one station, component by component on the device's channels.

    Args:
        path: a file that obspy reads.
        codes: channel codes of the device, in its order; their last letter is the component.
        rate_hz: the device's.
        station: NET.STA; by default that with most of the device's components at its rate.
        resample: bring the recording to the device's rate (polyphase, zero phase).
        scale: counts for one unit of the recording.
        seed: of the noise on components that the recording lacks and after its end.

    Raises:
        SourceError: the device can't play it as it is.
        RecordingError: it can't be read.
    """
    chosen = _station(path, codes, rate_hz, station, resample=resample)
    values = _grid(chosen)
    if chosen.rate_hz != rate_hz:
        values = _resampled(values, Fraction(rate_hz / chosen.rate_hz).limit_denominator(1000))
    if scale is not None:
        values = values * scale
    elif not resample and bool((values != values.round()).any()):
        raise SourceError(f"{path}: its samples are no whole counts; give --scale COUNTS")
    counts = values.round().clip(-(2**31), 2**31 - 1).astype(np.int32)
    rows = _rows(chosen, codes)
    channels = tuple("" if row is None else chosen.channels[row] for row in rows)
    return Recorded(counts[[row or 0 for row in rows]], rate_hz, channels, seed)


def _station(
    path: Path, codes: Sequence[str], rate_hz: float, station: str | None, *, resample: bool
) -> Waveform:
    """The station asked for, else the one with most of the device's components at its rate."""
    found = recording.read(path).waveforms
    if not found:
        raise SourceError(f"{path}: holds no waveform; a seismometer plays waveforms")
    named = [w for w in found if station in (None, w.station)]
    if not named:
        there = ", ".join(sorted({w.station for w in found}))
        raise SourceError(f"{path}: no station {station}; there are {there}")
    fitting = [w for w in named if resample or w.rate_hz == rate_hz]
    if not fitting:
        rates = ", ".join(sorted({f"{w.rate_hz:g}" for w in named}))
        raise SourceError(
            f"{path}: {rates} Hz where the device has {rate_hz:g} Hz; set the device to that "
            "rate with --option rate_hz=… and so in gateway.toml, or ask for --resample"
        )
    return max(fitting, key=lambda w: len(codes) - _rows(w, codes).count(None))


def _grid(chosen: Waveform) -> NDArray[np.float64]:
    """All of it on one grid, shape (channels, n); a gap holds the last value."""
    packets = list(chosen.packets(1 << 20))
    start_ns = packets[0].start_ns
    firsts = [round((p.start_ns - start_ns) * chosen.rate_hz / NS) for p in packets]
    end = firsts[-1] + packets[-1].samples.shape[1]
    values = np.full((len(chosen.channels), end), np.nan)
    for first, packet in zip(firsts, packets, strict=True):
        values[:, first : first + packet.samples.shape[1]] = packet.samples
    for row in values:
        known = np.flatnonzero(~np.isnan(row))
        row[:] = row[known[np.maximum(np.searchsorted(known, np.arange(end), "right") - 1, 0)]]
    return values


def _resampled(values: NDArray[np.float64], ratio: Fraction) -> NDArray[np.float64]:
    from scipy.signal import resample_poly  # noqa: PLC0415  heavy, and seldom asked for

    level = values.mean(axis=1, keepdims=True)
    resampled: Any = resample_poly(values - level, ratio.numerator, ratio.denominator, axis=1)
    return np.asarray(resampled + level, np.float64)


def _rows(chosen: Waveform, codes: Sequence[str]) -> list[int | None]:
    """For each channel of the device the row of the recording that it plays."""
    sensors: dict[str, dict[str, int]] = {}
    for row, name in enumerate(chosen.channels):
        component = COMPONENTS.get(name[-1], name[-1])
        sensors.setdefault(name[:-1], {}).setdefault(component, row)
    components = max(sensors.values(), key=len)
    if not components.keys() & {code[-1] for code in codes}:
        return [row if row < len(chosen.channels) else None for row in range(len(codes))]
    return [components.get(code[-1]) for code in codes]
