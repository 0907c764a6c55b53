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
_ABRUPT_SIGMA = 4.0
"""A change beyond this, in units of the noise's own, is abrupt; one of 16,000 Gaussian ones is."""
_OUTLIER_SIGMA = 10.0
"""The greatest of a group is beyond this: noise and weak P waves have no such change."""
_USUAL, _USUAL_SIGMA = 0.9, 0.789
"""The least nine tenths of Gaussian changes have this standard deviation; earlier trouble is in the
rest."""
_WRONG_S = 0.1
"""Abrupt changes within this time are one group: samples that are wrong for as long as missing ones
would be bridged. A P wave, which is abrupt everywhere, makes a group of its whole length."""
_MOST_GROUPS = 2
"""A level is left and come back to."""
_STRAIGHT = 1e-6
_EXPLAINED = 4.0
"""Energy of what a few wrong samples leave unexplained, over that of half a second of noise, which
exceeds it once in 25,000; that of a P wave that triggers is eightfold."""
_LEVEL_S = 0.25
"""Noise that is seen before the first wrong sample."""
_ALONE = 10.0
_CLUSTER_S = 0.015
"""Half-width of a spike that has passed an anti-alias filter."""
_AFTER = 2
"""Samples that must have come after a change for it to be called over."""
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
    step_response: Float
    """Of the detection band, at least n long: what it makes of a unit step."""
    in_coda: bool = False


def artefact(e: Evidence) -> str | None:
    """``spike`` or ``step`` if a few raw samples carry the whole disturbance, ``flat`` if all do.

    Judged on the changes from sample to sample: either wrong samples and displaced levels explain
    all that the band-pass shows, or it is an anti-alias filter's ringing, and then quiet.
    """
    start = max(1, e.onset - max(2, round(_BEFORE_S * e.rate_hz)))
    change = np.diff(e.raw)
    if not change[:start].any():
        return "flat"
    recent = change[start:]
    half = 1 + int(_CLUSTER_S * e.rate_hz)
    if not (
        _alone(np.abs(recent), half)
        or _explained(e, change, start)
        or _rings(e, change, start, half)
    ):
        return None
    raw, peak = e.raw[start:], int(np.argmax(np.abs(recent)))
    before, after = raw[: max(1, peak - 1)], raw[min(peak + 2, len(raw) - 1) :]
    moved = abs(float(np.median(after) - np.median(before)))
    return "step" if moved > abs(recent[peak]) / 2 else "spike"


def _alone(size: Float, half: int) -> bool:
    """Whether one change is ten times any other."""
    peak = int(np.argmax(size))
    before, after = size[: max(0, peak - half)], size[peak + half + 1 :]
    others = max(before.max(initial=0.0), after.max(initial=0.0))
    return len(after) >= _AFTER and bool(_ALONE * others < size[peak])


def _explained(e: Evidence, change: Float, start: int) -> bool:
    """Whether nothing is left of the disturbance once abrupt changes are taken out.

    A band-pass answers a change that lasts with its step response. So the changes of a group of
    wrong samples are taken out of the filtered trace, and the level after them, which they no
    longer tell, is chosen so that the least is left.
    """
    quiet = np.sort(np.abs(change[:start]))
    usual = quiet[: math.ceil(_USUAL * start)]
    sigma = float(np.sqrt(np.mean(usual**2))) / _USUAL_SIGMA or float(np.sqrt(np.mean(quiet**2)))
    size = np.abs(change)
    abrupt = size > _ABRUPT_SIGMA * sigma
    abrupt[: round(_LEVEL_S * e.rate_hz)] = False
    groups = [
        (at, end)
        for at, end in _groups(change, abrupt, _WRONG_S * e.rate_hz)
        if size[at : end + 1].max() > _OUTLIER_SIGMA * sigma
    ]
    if not 0 < len(groups) <= _MOST_GROUPS or groups[0][1] + _AFTER >= len(change):
        return False
    first, n = groups[0][0], len(change)
    wrong = np.zeros(n)
    for at, end in groups:
        wrong[at : end + 1] = change[at : end + 1]
    seen, answer = e.filtered[first + 1 :], e.step_response[: n - first]
    left = seen - np.convolve(wrong[first:], answer)[: n - first]
    edges = sorted({at for group in groups for at in group})
    levels = np.zeros((n - first, len(edges)))
    for level, edge in zip(levels.T, edges, strict=True):
        level[edge - first :] = answer[: n - edge]
    left -= levels @ np.linalg.lstsq(levels, left, rcond=None)[0]
    left = left[max(0, start - first) :]
    noise = float(np.mean(e.filtered[: first + 1] ** 2))
    return float(np.sum(left**2)) < _EXPLAINED * noise * max(len(left), LAST_LOOK_S * e.rate_hz)


def _groups(change: Float, abrupt: NDArray[np.bool_], width: float) -> list[tuple[int, int]]:
    """First and last of each group of abrupt changes; none if one is wider than ``width``.

    Changes no further apart than ``width`` belong together. A straight line counts as one change:
    so a hole has been bridged that ended at a wrong sample.
    """
    straight = np.abs(np.diff(change, prepend=0.0)) < _STRAIGHT * np.abs(change)
    indices, clock = np.flatnonzero(abrupt), np.cumsum(~(straight & abrupt))
    apart = np.flatnonzero(np.diff(clock[indices]) > width)
    groups = [(int(g[0]), int(g[-1])) for g in np.split(indices, apart + 1) if len(g)]
    return [] if any(clock[end] - clock[at] > width for at, end in groups) else groups


def _rings(e: Evidence, change: Float, start: int, half: int) -> bool:
    """Whether a spike has struck an anti-alias filter, and all is quiet since."""
    sigma = float(np.sqrt(np.mean(change[:start] ** 2)))
    recent = change[start:]
    size = np.abs(recent)
    outlier = size > _OUTLIER_SIGMA * sigma
    if not outlier.any():
        return False
    near = np.convolve(outlier, np.ones(2 * half + 1), mode="same") > 0
    return bool(
        _frequency_hz(recent, e.rate_hz) > _RINGING_HZ
        and not near[-_AFTER:].any()
        and np.sqrt(np.mean(size[~near] ** 2)) < _CALM_SIGMA * sigma
    )


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
