"""What a place is like for the detector: noise, models, false triggers, settings that would fit.

For a technician who has just installed a station, from a recording or from an hour of the running
core. The recording is taken to hold no earthquake: whatever triggers is false, and its time is
given, so that one who knows better can look. The detector is the daemon's own, run once for each
combination of a band and a threshold.

What is suggested is the least change from the settings in force that keeps false onsets below
``TOLERABLE`` an hour, an order that physics gives: first a higher threshold, which costs distant
events their weakest arrivals and nothing else; then a lower corner of 2 Hz, against microseism and
wind; last an upper corner of 8 Hz, against machines, which costs small near events most. Nothing is
suggested on less than ``ENOUGH_H``, nor for a difference that so few onsets do not show.

RMS is that of ten-second windows in each band, median and 95th percentile, so that a passing lorry
does not pass for the noise.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.detect import SeismicDetector
from gateway.detect.filters import (
    NYQUIST_SHARE,
    BlockFilter,
    Float,
    StateSpace,
    butterworth,
)
from gateway.detect.noise import (
    MIN_SEGMENT_S,
    SEGMENT_S,
    density,
    spectrum_db,
    summary,
    window_samples,
)
from gateway.detect.settings import SeismicSettings, Sensitivity
from gateway.events import NS, Onset, Quality, iso

TOLERABLE = 1.0
"""False onsets an hour: each is looked at by a person sooner or later."""
ENOUGH_H = 1.0
MAX_TIMES = 10
"""Times of onsets that are listed."""
RMS_WINDOW_S = 10.0
SETTLE_S = 2.0
"""A filter's beginning, left out of the RMS."""
RISE_DB = 20.0
"""A narrow frequency that stands out so far from the octave around it is a machine's: ground noise
and the resonance of a building are broader."""
LINE_SEGMENT_S = 60.0
MAX_LINE_SEGMENTS = 120
LOWEST_LINE_HZ = 0.5
MAX_LINES = 5

RMS_BANDS_HZ = ((0.1, 1.0), (1.0, 10.0), (2.0, 8.0), (5.0, 25.0), (10.0, 40.0))
THRESHOLDS = (5.5, 8.0, 11.0, 16.0)
BANDS_HZ = ((1.0, 10.0), (2.0, 10.0), (2.0, 8.0))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Samples of one digitiser without a long gap: (channels, n), NaN missing."""

    start_ns: int
    samples: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Source:
    """What is looked at: the stretches of one digitiser in order of time."""

    name: str
    channels: tuple[str, ...]
    rate_hz: float
    sensitivities: tuple[Sensitivity | None, ...]
    stretches: tuple[Stretch, ...]

    @property
    def hours(self) -> float:
        """Hours of samples, gaps apart."""
        columns: int = sum(s.samples.shape[1] for s in self.stretches)
        return columns / self.rate_hz / 3600


@dataclass(slots=True)
class Found:
    """One source: a row a channel, false onsets by setting, and what to make of them."""

    name: str
    hours: float
    channels: list[dict[str, Any]] = field(default_factory=list)
    triggers: list[dict[str, Any]] = field(default_factory=list)
    onset_times: list[str] = field(default_factory=list)
    suggestion: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """All of it, as plain JSON types."""
        return {
            "type": "tune",
            "source": self.name,
            "hours": round(self.hours, 3),
            "channels": self.channels,
            "triggers": self.triggers,
            "onsets_in_force": self.onset_times,
            "suggestion": self.suggestion,
        }


def tune(source: Source, settings: SeismicSettings | None = None) -> Found:
    """Look at one digitiser's samples.

    Args:
        source: samples; at least ``MIN_SEGMENT_S`` of them.
        settings: those in force.

    Raises:
        ValueError: too short to say anything.
    """
    if source.hours * 3600 < MIN_SEGMENT_S:
        raise ValueError(
            f"{source.name}: {source.hours * 3600:.1f} s of samples; expected at least "
            f"{MIN_SEGMENT_S:g} s, better an hour or a day"
        )
    now = settings or SeismicSettings()
    found = Found(source.name, source.hours)
    quality = _look(source, now, found)
    found.channels = [
        _channel(source, row, quality.get(channel, Counter()), now)
        for row, channel in enumerate(source.channels)
    ]
    for band in dict.fromkeys((now.band_hz, *BANDS_HZ)):
        for threshold in sorted({now.trigger_on, *THRESHOLDS}):
            if _usable(band, source.rate_hz):
                tried = replace(now, band_hz=band, trigger_on=threshold)
                found.triggers.append(_count(source, tried, found.hours))
    found.suggestion = _suggest(found, now)
    return found


def _usable(band: tuple[float, float], rate_hz: float) -> bool:
    return band[0] < min(band[1], NYQUIST_SHARE * rate_hz) / 2


# --- the detector ---------------------------------------------------------------------------------


def _events(source: Source, settings: SeismicSettings) -> Iterator[Any]:
    # Without sensitivities: onsets need none, and ground motion is not asked for.
    detector = SeismicDetector(source.channels, source.rate_hz, settings)
    for stretch in source.stretches:
        columns = stretch.samples.shape[1]
        for first in range(0, columns, 1000):
            part = stretch.samples[:, first : first + 1000]
            start_ns = stretch.start_ns + round(first * NS / source.rate_hz)
            yield from detector.process(part, start_ns)


def _count(source: Source, settings: SeismicSettings, hours: float) -> dict[str, Any]:
    onsets = sum(isinstance(event, Onset) for event in _events(source, settings))
    return {
        "band_hz": list(settings.band_hz),
        "trigger_on": settings.trigger_on,
        "onsets": onsets,
        "per_hour": round(onsets / hours, 2),
    }


def _look(source: Source, now: SeismicSettings, found: Found) -> dict[str, Counter[str]]:
    """Run the settings in force once: when it triggers, and what is wrong with the data."""
    quality: dict[str, Counter[str]] = {}
    for event in _events(source, now):
        if isinstance(event, Onset) and len(found.onset_times) < MAX_TIMES:
            found.onset_times.append(f"{iso(event.time_ns)} {event.channel}")
        elif isinstance(event, Quality) and event.kind != "recovered":
            quality.setdefault(event.channel, Counter())[event.kind] += 1
    return quality


# --- one channel ----------------------------------------------------------------------------------


def _channel(
    source: Source, row: int, quality: Counter[str], now: SeismicSettings
) -> dict[str, Any]:
    sensitivity = source.sensitivities[row]
    pieces = [p for s in source.stretches for p in _whole(s.samples[row])]
    wanted = sum(s.samples.shape[1] for s in source.stretches)
    spectra = list(_spectra(pieces, source.rate_hz, sensitivity))
    found: dict[str, Any] = {
        "channel": source.channels[row],
        "rate_hz": source.rate_hz,
        "unit": sensitivity.unit.replace("**2", "²") if sensitivity else "counts",
        "completeness": round(sum(map(len, pieces)) / wanted, 4) if wanted else 0.0,
        "quality": dict(quality),
        "rms": (rms := _rms(pieces, source.rate_hz, sensitivity)),
        "least_p": _least(rms, now),
        "noise": None,
        "lines_hz": [],
    }
    if spectra:
        frequencies = spectra[0][0]
        alike = np.array(
            [levels for centres, levels in spectra if len(centres) == len(frequencies)]
        )
        found["noise"] = summary(frequencies, alike, sensitivity)
        found["lines_hz"] = _lines(pieces, source.rate_hz)
    return found


def _whole(samples: NDArray[Any]) -> list[Float]:
    """Stretches of a row without a missing sample."""
    values = np.asarray(samples, np.float64)
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return []
    return [values[part] for part in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)]


def _spectra(
    pieces: Iterable[Float], rate_hz: float, sensitivity: Sensitivity | None
) -> Iterator[tuple[Float, Float]]:
    """Spectra of segments of equal length, the longest that all that is there allows."""
    pieces = [p for p in pieces if len(p) >= MIN_SEGMENT_S * rate_hz]
    if not pieces:
        return
    longest = max(len(piece) for piece in pieces)
    length = min(round(SEGMENT_S * rate_hz), 4 * window_samples(longest))
    for piece in pieces:
        for first in range(0, len(piece) - length + 1, length):
            yield spectrum_db(piece[first : first + length], rate_hz, sensitivity)


def _rms(
    pieces: Sequence[Float], rate_hz: float, sensitivity: Sensitivity | None
) -> list[dict[str, Any]]:
    scale = sensitivity.counts_per_unit if sensitivity else 1.0
    found = []
    for low, high in RMS_BANDS_HZ:
        top = min(high, NYQUIST_SHARE * rate_hz)
        if low >= top / 2:
            continue
        windows = np.concatenate(
            [_windows(_filtered(piece, low, top, rate_hz), rate_hz) for piece in pieces]
            or [np.zeros(0)]
        )
        if len(windows):
            median, high_end = np.percentile(windows, (50, 95)) / scale
            found.append(
                {
                    "band_hz": [low, round(top, 3)],
                    "median": float(f"{median:.3g}"),
                    "p95": float(f"{high_end:.3g}"),
                }
            )
    return found


def _least(rms: list[dict[str, Any]], now: SeismicSettings) -> float | None:
    """RMS of the weakest P wave that triggers: its energy is ``trigger_on`` times the noise's."""
    noise = [b["median"] for b in rms if b["band_hz"][0] == now.band_hz[0]]
    return float(f"{noise[0] * now.trigger_on**0.5:.2g}") if noise else None


def _filtered(samples: Float, low: float, high: float, rate_hz: float) -> Float:
    band = BlockFilter(StateSpace.of(butterworth(2, low, high, rate_hz)), 1)
    return band.process(samples[np.newaxis])[0, 0, round(SETTLE_S * rate_hz) :]


def _windows(filtered: Float, rate_hz: float) -> Float:
    """RMS of each window; of what there is where it is shorter than one."""
    size = min(round(RMS_WINDOW_S * rate_hz), len(filtered))
    if not size:
        return np.zeros(0)
    whole = filtered[: len(filtered) // size * size].reshape(-1, size)
    return np.asarray(np.sqrt((whole**2).mean(axis=1)), np.float64)


def _lines(pieces: Iterable[Float], rate_hz: float) -> list[float]:
    """Frequencies of machines and mains: narrow, and far above what is around them."""
    length = round(LINE_SEGMENT_S * rate_hz)
    powers = []
    frequencies = np.zeros(0)
    for piece in pieces:
        for first in range(0, len(piece) - length + 1, length):
            frequencies, power = density(piece[first : first + length], rate_hz)
            powers.append(power)
            if len(powers) == MAX_LINE_SEGMENTS:
                break
    if not powers:
        return []
    median = np.median(powers, axis=0)
    found: list[float] = []
    for k in np.argsort(-median):
        f = float(frequencies[k])
        around = median[(frequencies > f / 2**0.5) & (frequencies < f * 2**0.5)]
        stands_out = median[k] >= 10 ** (RISE_DB / 10) * np.median(around)
        apart = all(abs(f - other) > 0.1 * other for other in found)
        if f >= LOWEST_LINE_HZ and f < NYQUIST_SHARE * rate_hz and stands_out and apart:
            found.append(round(f, 1))
        if len(found) == MAX_LINES:
            break
    return sorted(found)


# --- what to make of it ---------------------------------------------------------------------------


def _suggest(found: Found, now: SeismicSettings) -> dict[str, Any]:
    """The least change that is enough, and why; ``toml`` is empty where nothing is to be done."""
    rate = {(tuple(t["band_hz"]), t["trigger_on"]): t for t in found.triggers}
    here = rate.get((now.band_hz, now.trigger_on))
    base = {"toml": "", "band_hz": list(now.band_hz), "trigger_on": now.trigger_on}
    if here is None:
        why = f"the band {list(now.band_hz)} Hz does not fit the rate; see [detect.seismic]"
        return {**base, "why": why}
    if found.hours < ENOUGH_H:
        return {
            **base,
            "why": f"{found.hours * 60:.1f} min are too short to judge by ({here['onsets']} "
            "onsets); record an hour at least, better a working day with its traffic",
        }
    if here["per_hour"] <= TOLERABLE:
        return {
            **base,
            "why": f"{here['per_hour']:g} onsets an hour with what is in force: keep it",
        }
    order = [(now.band_hz, t) for t in THRESHOLDS if t > now.trigger_on]
    order += [(band, t) for band in BANDS_HZ for t in THRESHOLDS if t >= now.trigger_on]
    for key in order:
        tried = rate.get(key)
        # Half as many, so that it is no chance; of few onsets none may be left.
        if tried and tried["per_hour"] <= TOLERABLE and 2 * tried["onsets"] <= here["onsets"]:
            return _change(found, now, here, tried)
    best = min(found.triggers, key=lambda t: (t["per_hour"], t["trigger_on"]))
    return {
        **base,
        "why": f"no setting tried keeps it below {TOLERABLE:g} onsets an hour "
        f"({here['per_hour']:g} now, {best['per_hour']:g} at best): move the sensor away from "
        "what shakes it, fix it to the ground, or give the site a second sensor, so that two must "
        "agree",
    }


def _change(
    found: Found, now: SeismicSettings, here: dict[str, Any], tried: dict[str, Any]
) -> dict[str, Any]:
    lines = ["[detect.seismic]"]
    reasons = [f"{here['per_hour']:g} onsets an hour now, {tried['per_hour']:g} with this"]
    if tried["band_hz"] != list(now.band_hz):
        lines.append(f"band_hz = {tried['band_hz']}")
        reasons.append(_band_reason(found, now.band_hz, tuple(tried["band_hz"])))
    if tried["trigger_on"] != now.trigger_on:
        lines.append(f"trigger_on = {tried['trigger_on']}")
        ratio_db = 10 * np.log10(tried["trigger_on"] / now.trigger_on)
        reasons.append(f"a P wave must then be {ratio_db:.1f} dB stronger to be seen")
    return {
        "band_hz": tried["band_hz"],
        "trigger_on": tried["trigger_on"],
        "why": "; ".join(reasons),
        "toml": "\n".join(lines) + "\n",
    }


def _band_reason(found: Found, old: tuple[float, float], new: tuple[float, ...]) -> str:
    lines = sorted({f for channel in found.channels for f in channel["lines_hz"]})
    cut = [f for f in lines if old[0] <= f < new[0] or new[1] < f <= old[1]]
    if cut:
        return f"it leaves out a machine at {', '.join(f'{f:g}' for f in cut)} Hz"
    if new[0] > old[0]:
        return "it leaves out microseism and wind, and with them the weakest of distant events"
    return "it leaves out what is high, and with that the smallest of near events"
