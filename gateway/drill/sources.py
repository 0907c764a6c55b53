"""What a simulated sensor measures: quiet noise, nothing, or a recording.

A recording is played as it is. Another rate or another unit than the device's is an error until
the caller asks for resampling or a scale, for both change what a detector sees.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
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

RAIN_TOTAL = "rain_total_mm"

COMPONENTS = {"1": "N", "2": "E", "3": "Z"}
"""Orientation codes of unaligned sensors, as the components that they stand for."""


class SourceError(ValueError):
    """A recording that this device can't play; says why and what to do."""


class Quiet:
    """White noise that depends only on seed and sample number; every other quantity is 0."""

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

    def micro(self, quantity: str, t: int) -> int | None:
        """No rain, calm, clean air, an open contact."""
        del quantity, t
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

    def micro(self, quantity: str, t: int) -> int | None:
        """A waveform has nothing else."""
        del quantity, t
        return 0


class Readings:
    """Quantities from readings ``(ns after the start, millionths or None)``, in order of time.

    Each holds from its time on until the next; before the first, a quantity is what the first says.
    A quantity of which there is none is 0. ``speed`` plays it faster: a minute of it lasts 60/speed
    seconds.
    """

    rate_hz = 1.0

    def __init__(
        self, series: Mapping[str, Sequence[tuple[int, int | None]]], speed: float = 1.0
    ) -> None:
        self._times = {name: [at for at, _ in rows] for name, rows in series.items()}
        self._values = {
            name: [rows[0][1], *(value for _, value in rows)] for name, rows in series.items()
        }
        self._speed = Fraction(speed)

    def samples(self, first: int, count: int) -> NDArray[np.int32]:
        """A gauge has no waveform."""
        del first
        return np.zeros((1, count), np.int32)

    def micro(self, quantity: str, t: int) -> int | None:
        """What is measured ``t`` ns after the start."""
        if quantity not in self._values:
            return 0
        return self._values[quantity][bisect_right(self._times[quantity], int(t * self._speed))]


def readings(path: Path, quantities: Collection[str], speed: float = 1.0) -> Readings:
    """The readings of a CSV that a device with these quantities plays.

    It begins with the file's first reading, or with the beginning of the interval that this one
    ended where it is of rain. ``rain_total_mm`` is also made from ``rain_mm``.

    Raises:
        SourceError: it holds none of the quantities.
        RecordingError: it can't be read.
    """
    found: dict[str, list[Reading]] = {}
    for series in recording.read(path).series:
        for reading in series.readings:
            found.setdefault(reading.quantity, []).append(reading)
    if RAIN_TOTAL in quantities:
        rain = found.get("rain_mm") or found.get(RAIN_TOTAL)
        found = {**found, RAIN_TOTAL: rain} if rain else found
    chosen = {name: sorted(found[name], key=_time) for name in quantities if found.get(name)}
    if not chosen:
        wanted = " or ".join(quantities)
        alike = " (or rain_mm)" if RAIN_TOTAL in quantities else ""
        raise SourceError(f"{path}: this device plays a CSV with {wanted}{alike}")
    start_ns = min(_start(rows) for rows in chosen.values())
    return Readings(
        {
            name: _totals(rows, start_ns)
            if name == RAIN_TOTAL
            else [(row.time_ns - start_ns, row.micro) for row in rows]
            for name, rows in chosen.items()
        },
        speed,
    )


def _time(reading: Reading) -> int:
    return reading.time_ns


def _start(rows: Sequence[Reading]) -> int:
    """When the first reading's interval began, for rain; else when it was made."""
    first = rows[0].time_ns
    if not rows[0].quantity.startswith("rain") or len(rows) < 2:
        return first
    return first - (rows[1].time_ns - first)


def _totals(rows: Sequence[Reading], start_ns: int) -> list[tuple[int, int | None]]:
    """Running totals from zero; a falling counter was reset."""
    known = [(row.time_ns - start_ns, row.micro) for row in rows if row.micro is not None]
    values = [micro for _, micro in known]
    if rows[0].quantity == RAIN_TOTAL:
        rises = [now - before if now >= before else now for before, now in pairwise(values)]
        values = [0, *rises]
    totals = accumulate(values)
    return [(0, 0), *zip((at for at, _ in known), totals, strict=True)]


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
