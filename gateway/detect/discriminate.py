"""Is a trigger an earthquake's P wave? What one component shows within half a second.

==========  ====================================================================================
reason      what speaks against a P wave
==========  ====================================================================================
spike       the whole disturbance is in a few samples of the raw trace, which then is as before
step        the same, and the trace then stays elsewhere: a range switch, a recentring, a
            calibration pulse
short       the motion is over within half a second: a footstep, a knock, a door; even the
            smallest earthquakes that are recorded at all shake for longer
emergent    it rises slowly and yet holds nothing but high frequencies: a vehicle, a machine.
            An earthquake's P is emergent when it comes from afar, and from afar the high
            frequencies don't come (attenuation: t* of 0.05 s and more)
==========  ====================================================================================

A distant earthquake's P passes: it is an onset. That it sounds no siren is the doing of the local
band in which shaking is measured.
"""

from dataclasses import dataclass

import numpy as np

from gateway.detect.filters import Float

LAST_LOOK_S = 0.5
"""By then it is decided, for good or ill."""

_CLUSTER_S = 0.015
"""Half-width of a spike after a digitiser's anti-alias filter, beyond the sample itself."""
_OUTLIER_SIGMA = 10.0
_FEW = 0.5
_ALONE = 10.0
_AFTER = 2
_BEFORE_S = 0.1
_CALM_SIGMA = 2.0

_TAIL_S = 0.1
_STILL_SHAKING = 0.1
_FADED = 2.0

_EMERGENT_S = 0.5
_VEHICLE_HZ = 7.5
"""Vehicles shake the ground at their axle hop, 8-16 Hz (Hunaidi & Tremblay 1997)."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One row's samples up to now. ``raw`` and ``filtered`` are (n,), ``noise`` the held LTA."""

    raw: Float
    filtered: Float
    onset: int
    trigger: int
    noise: float
    rate_hz: float

    @property
    def since_trigger_s(self) -> float:
        return (len(self.raw) - 1 - self.trigger) / self.rate_hz


def artefact(e: Evidence) -> str | None:
    """``spike`` or ``step`` if a few raw samples carry the whole disturbance.

    Judged on the differences of successive samples. Either one change stands ten times above all
    others, which nothing does that has passed an anti-alias filter; or those few that stand out
    from the noise before are set aside with their neighbours, and the rest is as calm as before.
    """
    change = np.abs(np.diff(e.raw))
    start = max(1, e.onset - max(2, round(_BEFORE_S * e.rate_hz)))
    sigma = max(float(np.sqrt(np.mean(change[:start] ** 2))), np.finfo(float).tiny)
    change = change[start:]
    half = 1 + int(_CLUSTER_S * e.rate_hz)
    outliers = np.flatnonzero(change > _OUTLIER_SIGMA * sigma)
    if not len(outliers):
        return None
    peak = int(np.argmax(change))
    after = change[peak + half + 1 :]
    alone = (
        len(after) >= _AFTER
        and _ALONE * max(change[: max(0, peak - half)].max(initial=0.0), after.max(initial=0.0))
        < change[peak]
    )
    if alone:
        outliers = np.array([peak - 1, peak, peak + 1])
    near = np.zeros(len(change), dtype=bool)
    for at in outliers:
        near[max(0, at - half) : at + half + 1] = True
    calm = near.mean() <= _FEW and np.sqrt(np.mean(change[~near] ** 2)) <= _CALM_SIGMA * sigma
    if not (alone or calm):
        return None
    raw = e.raw[start:]
    before, later = raw[: max(1, outliers[0])], raw[outliers[-1] + 1 :]
    moved = abs(float(np.median(later) - np.median(before)))
    return "step" if moved > change[peak] / 2 else "spike"


def doubt(e: Evidence) -> str | None:
    """A reason to wait for more samples, and at the last look to reject; None: a P wave."""
    if found := artefact(e):
        return found
    energy = e.filtered**2
    tail = max(2, round(_TAIL_S * e.rate_hz))
    event = energy[e.onset :]
    smooth = np.convolve(event, np.full(tail, 1.0 / tail), mode="valid")
    if len(smooth) < 2 or smooth[-1] < _STILL_SHAKING * smooth.max():
        longer = event[-3 * tail :]
        if e.since_trigger_s < LAST_LOOK_S or float(np.mean(longer)) < _FADED * e.noise:
            return "short"
    if (e.trigger - e.onset) / e.rate_hz > _EMERGENT_S:
        signal = e.filtered[e.onset :]
        speed = float(np.mean(np.diff(signal) ** 2)) / max(float(np.mean(signal**2)), 1e-300)
        if e.rate_hz * speed**0.5 / (2 * np.pi) > _VEHICLE_HZ:
            return "emergent"
    return None
