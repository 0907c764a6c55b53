"""Is a trigger an earthquake's P wave? What one component shows within half a second.

==========  ====================================================================================
reason      what speaks against a P wave
==========  ====================================================================================
spike       the whole disturbance is in a few samples of the raw trace, which then is as before
step        the same, and the trace then stays elsewhere: a range switch, a recentring, a
            calibration pulse
flat        the trace before had no noise: a digitiser that has just begun to speak
short       the motion is over within half a second: a footstep, a knock, a door; even the
            smallest earthquakes that are recorded at all shake for longer
emergent    it rises slowly and yet holds nothing but high frequencies: a vehicle, a machine.
            An earthquake's P is emergent when it comes from afar, and from afar the high
            frequencies don't come (attenuation: t* of 0.05 s and more)
hum         what the detection band holds has leaked into it from far above: mains, a motor
coda        shaking is under way, and this does not stand out from it
==========  ====================================================================================

A distant earthquake's P passes: it is an onset. That it sounds no siren is the doing of the local
band in which shaking is measured.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.detect.filters import Float

LAST_LOOK_S = 0.5
"""By then it is decided, for good or ill."""

_TINY = float(np.finfo(float).tiny)
_BEFORE_S = 0.1
_OUTLIER_SIGMA = 10.0
_QUIET_SIGMA = 5.0
_ALONE = 10.0
_CLUSTER_S = 0.015
_AFTER = 2
"""Samples that must have come after a change for it to be called alone."""
_RINGING_HZ = 40.0
"""An anti-alias filter that a spike has struck rings above this; the ground of a P wave hardly."""
_CALM_SIGMA = 2.0

_SMOOTH_S = 0.1
_KNOCK_DECAY_S = 0.1
"""The ground under a foot or a door is damped within a few periods of 15-30 Hz."""
_BURST = 100.0
"""Energy over noise, 20 dB, below which neither decay nor end can be told from the noise's own.

At 10 dB weak P waves of the development recordings were kept waiting; at 15 dB no longer."""
_LIKE_KNOCK = 2.0
"""Margin over the decay of a knock. The P waves of nearby microearthquakes, the nearest thing to
one, are just above it 0.2 s on in the development recordings."""
_OVER_NOISE = 2.0

_EMERGENT_S = 0.5
_ABRUPT = 3.0
_ABRUPT_S = 0.3
"""Energy after an onset over the greatest in a like window of the 2 s before. The pulses of a
vehicle are one like the other; a P wave strong enough to be triggered on stands out eightfold from
the mean and fourfold from the loudest moment of steady noise."""
_SWELLING = 6.0
"""The same where it took long to trigger. A vehicle that passes within seconds swells two- to
threefold from one such window to the next (a Gaussian envelope of 1.5 s, 3 to 4.5 s before it is
nearest), and random motion of a few Hz of bandwidth may double that; a slow P wave still begins at
one moment."""
_HUM_HZ = 25.0
"""Mean frequency after the band-pass: 11 Hz for white motion, 17 Hz for one that rises with
frequency up to 30 Hz."""
_VEHICLE_HZ = 7.5
"""Vehicles shake the ground at their axle hop, about 10 Hz. Emergent P waves of the development
recordings have mean frequencies of 6.8 Hz and less, their vehicles 8.4 Hz and more; the corner was
set between the two."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One row's samples (n,) up to now: raw, and in the detection and the upper band.

    ``onset`` and ``trigger`` are indices in them; ``in_coda`` says that shaking was under way.
    """

    raw: Float
    filtered: Float
    upper: Float
    onset: int
    trigger: int
    rate_hz: float
    in_coda: bool = False


def artefact(e: Evidence) -> str | None:
    """``spike`` or ``step`` if a few raw samples carry the whole disturbance, ``flat`` if all do.

    Judged on the changes from sample to sample. One stands ten times above all others, which
    nothing does that has passed an anti-alias filter; or a few stand alone, each of a sample or a
    step, in an otherwise quiet trace; or they are an anti-alias filter's ringing, and then quiet.
    """
    start = max(1, e.onset - max(2, round(_BEFORE_S * e.rate_hz)))
    signed = np.diff(e.raw)
    sigma = float(np.sqrt(np.mean(signed[:start] ** 2)))
    if not sigma:
        return "flat"
    signed = signed[start:]
    change = np.abs(signed)
    outlier = change > _OUTLIER_SIGMA * sigma
    if not outlier.any():
        return None
    near = np.convolve(outlier, np.ones(2 * _half(e.rate_hz) + 1), mode="same") > 0
    if not (
        _alone(change, _half(e.rate_hz))
        or (_widest(outlier) <= 2 and change[~outlier].max(initial=0.0) < _QUIET_SIGMA * sigma)
        or (
            _frequency_hz(signed, e.rate_hz) > _RINGING_HZ
            and not near[-_AFTER:].any()
            and np.sqrt(np.mean(change[~near] ** 2)) < _CALM_SIGMA * sigma
        )
    ):
        return None
    raw, peak = e.raw[start:], int(np.argmax(change))
    before, after = raw[: max(1, peak - 1)], raw[min(peak + 2, len(raw) - 1) :]
    moved = abs(float(np.median(after) - np.median(before)))
    return "step" if moved > change[peak] / 2 else "spike"


def _half(rate_hz: float) -> int:
    """Half-width in samples of a spike that has passed an anti-alias filter."""
    return 1 + int(_CLUSTER_S * rate_hz)


def _alone(change: Float, half: int) -> bool:
    peak = int(np.argmax(change))
    before, after = change[: max(0, peak - half)], change[peak + half + 1 :]
    others = max(before.max(initial=0.0), after.max(initial=0.0))
    return len(after) >= _AFTER and bool(_ALONE * others < change[peak])


def _widest(mask: NDArray[np.bool_]) -> int:
    """Length of the longest run of True."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return int(np.max(edges[1::2] - edges[::2]))


def _frequency_hz(trace: Float, rate_hz: float) -> float:
    """Mean frequency, weighted by energy, of a trace without offset."""
    share = float(np.sum(np.diff(trace) ** 2)) / max(4.0 * float(np.sum(trace**2)), _TINY)
    return rate_hz / np.pi * math.asin(math.sqrt(min(1.0, share)))


def short(e: Evidence) -> bool:
    """Whether the motion fades as a knock does, or has ended, were it before the trigger: steps.

    Told by the upper band where that has anything to tell: the detection band rings for a while
    at its lower corner, whatever struck it.
    """
    width = max(2, round(_SMOOTH_S * e.rate_hz))
    since_s = (len(e.raw) - 1 - e.onset) / e.rate_hz
    knock = _LIKE_KNOCK * math.exp(-2.0 * (since_s - _SMOOTH_S) / _KNOCK_DECAY_S)
    for trace in (e.upper, e.filtered):
        energy = np.convolve(trace**2, np.full(width, 1.0 / width), mode="valid")
        start = max(0, e.onset - width + 1)
        event, before = energy[start:], energy[start : e.trigger - width + 2]
        noise = float(np.mean(trace[: max(1, e.onset - 2)] ** 2))
        most, last = float(event.max()), float(event[-1])
        peak = int(np.argmax(before)) if len(before) else 0
        blow, rest = float(before[peak:].max(initial=0.0)), before[peak:].min(initial=math.inf)
        if blow > _BURST * noise and rest < _OVER_NOISE * noise:
            return True
        if most > _BURST * noise:
            return last < max(knock * most, _OVER_NOISE * noise)
    return False


def contrast(e: Evidence) -> float:
    """How far the energy at the onset stands out from everything in the seconds before it."""
    width = max(2, round(_ABRUPT_S * e.rate_hz))
    before = np.convolve(e.filtered[: e.onset] ** 2, np.full(width, 1.0 / width), mode="valid")
    after = e.filtered[e.onset : e.onset + width]
    return float(np.mean(after**2)) / max(float(before.max(initial=0.0)), _TINY)


def emergent(e: Evidence) -> bool:
    """Whether high-frequency motion has grown gradually."""
    if _frequency_hz(e.filtered[e.onset :], e.rate_hz) < _VEHICLE_HZ:
        return False
    slow = e.trigger - e.onset > _EMERGENT_S * e.rate_hz
    return contrast(e) < (_SWELLING if slow else _ABRUPT)


def doubt(e: Evidence) -> str | None:
    """A reason to wait for more samples, and at the last look to reject; None: a P wave."""
    if found := artefact(e):
        return found
    if short(e):
        return "short"
    if _frequency_hz(e.filtered[e.onset :], e.rate_hz) > _HUM_HZ:
        return "hum"
    if emergent(e):
        return "emergent"
    if e.in_coda and contrast(e) < _ABRUPT:
        return "coda"
    return None
