"""Ground motion of one sensor in physical units, from the P arrival to the end of the shaking.

Every component runs through one linear system with five outputs, whether something shakes or not,
so that the filters are settled when the P wave comes:

===========  ==========================================================================  ======
output       what it is                                                                  unit
===========  ==========================================================================  ======
ACCELERATION band-passed 0.1–10 Hz (GB/T 17742-2020; causal, 2nd order)                  m/s²
VELOCITY     the same, integrated (or the other way round for a velocity sensor)         m/s
RATE         velocity, high-passed 0.075 Hz: the u̇ of τc                                 m/s
DISPLACEMENT RATE integrated and high-passed again: the u of Pd and τc                   m
LOCAL        acceleration in the band of local shaking, 2–10 Hz                          m/s²
===========  ==========================================================================  ======

Integration is the trapezoidal rule and differentiation its inverse. Each is folded into a filter
that has the zero which cancels its pole, so that nothing can drift: an offset, however large, ends
as zero. The mean of a component's first second is taken off first; what is left of a pre-event
mean the filters take off themselves.

The intensities of other scales (JMA, MMI) come from the first two outputs. People read them and
nothing is decided by them, so they are worked out when a value is published, not when it is given.

Pd and τc: Wu & Kanamori (2005), Wu et al. (2007, Geophys. J. Int. 170, 711–717); one-way 2-pole
Butterworth high-pass at 0.075 Hz, vertical component, first 3 s of P.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from gateway.detect import intensity
from gateway.detect.filters import (
    NYQUIST_SHARE,
    BlockFilter,
    Float,
    Section,
    StateSpace,
    butterworth,
)
from gateway.detect.jma import LOWEST_RATE_HZ as LOWEST_JMA_RATE_HZ
from gateway.detect.jma import JmaScale, Shaken
from gateway.detect.settings import Sensitivity
from gateway.events import NS, GroundMotion

ACCELERATION, VELOCITY, RATE, DISPLACEMENT, LOCAL = range(5)

GRID_NS = NS // 10
"""Values are given on this grid, counted from the onset."""

LOWEST_RATE_HZ = 10.0

_GATHER_NS = NS // 4
"""Samples of small packets are gathered for so long while nothing shakes, and from grid time to
grid time while something does: what they cost is the call, and they say nothing before."""

_ROUNDING_NS = 1000
"""What rounding may shift a sample against a grid time by."""

_JUMP_SAMPLES = 0.5
"""A start further than this from where the last packet ended is a jump in time."""

_STANDARD_BAND_HZ = (0.1, 10.0)
_DISPLACEMENT_CORNER_HZ = 0.075

LOCAL_BAND_HZ = (2.0, 10.0)
"""Where shaking that can be felt is told from what only looks like it.

Above 10 Hz are footsteps, doors, and most of the road's vibration (8–25 Hz on common soils); below
2 Hz are microseisms, distant earthquakes, wind and tilt. The lower corner also decides how long a
single jolt rings in the filter: at 2 Hz it has fallen to 1/85 after half a second, so that a spike
or a step can't pass for shaking that lasts, while the shaking of a local earthquake always holds
energy between 2 and 10 Hz.
"""

_LOCAL_SHARE = 0.25
"""Of the rate, at most, for the upper corner: nearer to the Nyquist frequency it would ring on."""

_SUSTAINED_BINS = 6
SUSTAINED_COMPONENTS = 2
_COMPONENT_SHARE = 4.0
"""The felt motion is a vector's; its second component may be this much smaller. P waves rise
at 10–25° from the vertical, so that the horizontals hold a quarter of it or more."""
_EVENNESS = 5.0
"""Largest over smallest 0.1-s peak of shaking that lasts. A sine at the band's lower corner
reaches 1.7, its worst case; one jolt ringing in the filter exceeds 30 within half a second."""
_OVER_NOISE = 4.0
"""Over the pre-event RMS of its component; Gaussian noise has no six such bins in a row."""

_P_WINDOW_BINS = 30
_S_BINS = 5
_S_OVER_P = 4.0
_S_OVER_VERTICAL = 2.0
"""Energies. S has come when over half a second the horizontals together carry twice the amplitude
of the largest P on the vertical (a source radiates S about five times as strongly as P) and twice
the energy of the vertical now, which motion in all directions alike would not exceed."""
_LEAST_PD_M = 0.0005
_LEAST_DISPLACEMENT_SNR = 5.0

_MOST_COUNTS = 2.0**40
"""Beyond any digitiser; what is larger is no sample."""

_LEARN_S = 1.0
_SETTLE_S = 3.0
_BRIDGE_S = 0.1
_NOISE_S = 15.0
_NOISE_GUARD_S = 0.5
_LEAST_NOISE_S = 2.0
_LOOK_BACK_S = 5.0

_QUIET_BINS = 200
"""Shaking is over after 20 s near the pre-event level: the S wave of an earthquake 160 km away
comes 20 s after its P, and must find the measurement that its P began."""
_QUIET_OVER_NOISE = 2.0
_IMPERCEPTIBLE_MPS2 = intensity.FELT_PGA_MPS2 / 10
_LONGEST_BINS = 6000
"""Ten minutes; the longest felt shaking on record, Tohoku 2011, lasted about six."""


def _integrated(cascade: Sequence[Section], rate_hz: float) -> tuple[Section, ...]:
    """The cascade times the trapezoidal integrator, whose pole cancels one of its zeros at 0 Hz."""
    sections = list(cascade)
    for at, (b0, b1, b2, a1, a2) in enumerate(sections):
        if abs(b0 + b1 + b2) <= 1e-12 * abs(b0):
            half = 0.5 / rate_hz
            sections[at] = (half * b0, half * (2 * b0 + b1), half * (b0 + b1), a1, a2)
            return tuple(sections)
    raise ValueError("nothing to cancel the integrator's pole: the cascade passes 0 Hz")


def _differentiated(cascade: Sequence[Section], rate_hz: float) -> tuple[Section, ...]:
    """The inverse: its pole cancels one of the cascade's zeros at the Nyquist frequency."""
    sections = list(cascade)
    for at, (b0, b1, b2, a1, a2) in enumerate(sections):
        if abs(b0 - b1 + b2) <= 1e-12 * abs(b0):
            twice = 2.0 * rate_hz
            sections[at] = (twice * b0, twice * (b1 - 2 * b0), twice * (b0 - b1), a1, a2)
            return tuple(sections)
    raise ValueError("nothing to cancel the differentiator's pole: the cascade passes Nyquist")


def _standard_band(rate_hz: float) -> tuple[Section, ...]:
    low, high = _STANDARD_BAND_HZ
    return butterworth(2, low, min(high, NYQUIST_SHARE * rate_hz), rate_hz)


def motion_system(unit: str, rate_hz: float) -> StateSpace:
    """The five outputs above from acceleration (``m/s**2``) or velocity (``m/s``).

    Raises:
        ValueError: the rate is too low for shaking to be told from noise.
    """
    if not LOWEST_RATE_HZ <= rate_hz < math.inf:
        raise ValueError(f"ground motion at {rate_hz} Hz: expected at least {LOWEST_RATE_HZ:g} Hz")
    standard = _standard_band(rate_hz)
    local = butterworth(2, LOCAL_BAND_HZ[0], min(LOCAL_BAND_HZ[1], _LOCAL_SHARE * rate_hz), rate_hz)
    high_pass = butterworth(2, _DISPLACEMENT_CORNER_HZ, None, rate_hz)
    integrated_high_pass = _integrated(high_pass, rate_hz)
    if unit == "m/s**2":
        return StateSpace.of(
            standard,
            _integrated(standard, rate_hz),
            integrated_high_pass,
            integrated_high_pass + integrated_high_pass,
            local,
        )
    return StateSpace.of(
        _differentiated(standard, rate_hz),
        standard,
        high_pass,
        high_pass + integrated_high_pass,
        _differentiated(local, rate_hz),
    )


class _Stage(Enum):
    learning = auto()
    settling = auto()
    live = auto()


@dataclass(slots=True)
class _Row:
    """One component on its way in: its baseline, and whether it can be relied upon."""

    learn: int
    settle: int
    bridge: int
    stage: _Stage = _Stage.learning
    count: int = 0
    total: float = 0.0
    baseline: float = 0.0
    last: float = 0.0
    missing: int = 0

    def begin(self) -> None:
        self.stage, self.count, self.total, self.last = _Stage.learning, 0, 0.0, 0.0

    def take(self, value: float) -> float:
        """The next sample relative to the baseline; 0 while there is none."""
        if not abs(value) <= _MOST_COUNTS:
            self.missing += 1
            if self.missing > self.bridge:
                self.begin()
            return self.last
        self.missing = 0
        if self.stage is _Stage.learning:
            self.count, self.total = self.count + 1, self.total + value
            if self.count == self.learn:
                self.baseline = self.total / self.count
                self.stage, self.count = _Stage.settling, 0
            return 0.0
        if self.stage is _Stage.settling:
            self.count += 1
            if self.count == self.settle:
                self.stage = _Stage.live
        self.last = value - self.baseline
        return self.last


class _Intake:
    """Counts with holes in, motion relative to the baseline without holes out.

    Up to 0.1 s of missing samples are bridged by the last value. After a longer hole a component
    is out of service until its baseline has been learnt again and the filters have settled, so
    that no gap's edge is ever taken for shaking.
    """

    def __init__(self, counts_per_unit: Float, rate_hz: float) -> None:
        self._scale = 1.0 / counts_per_unit[:, None]
        self._rows = [
            _Row(
                max(1, round(_LEARN_S * rate_hz)),
                round(_SETTLE_S * rate_hz),
                int(_BRIDGE_S * rate_hz),
            )
            for _ in counts_per_unit
        ]
        self._baseline = np.zeros((len(self._rows), 1))
        self._all_live = False

    def restart(self) -> None:
        for row in self._rows:
            row.begin()
        self._all_live = False

    def take(self, samples: Float) -> tuple[Float, NDArray[np.bool_] | None, list[tuple[int, int]]]:
        """Relative motion, which samples count (None: all), and (column, row) of new beginnings."""
        if self._all_live and np.abs(samples).max() <= _MOST_COUNTS:
            relative = samples - self._baseline
            for row, last in zip(self._rows, relative[:, -1].tolist(), strict=True):
                row.last = last
            return relative * self._scale, None, []
        relative = np.empty(samples.shape)
        live = np.zeros(samples.shape, dtype=bool)
        begun = []
        for at, row in enumerate(self._rows):
            for column, value in enumerate(samples[at].tolist()):
                stage = row.stage
                relative[at, column] = row.take(value)
                live[at, column] = row.stage is _Stage.live
                if stage is _Stage.learning and row.stage is _Stage.settling:
                    begun.append((column, at))
            self._baseline[at] = row.baseline
        self._all_live = all(r.stage is _Stage.live and not r.missing for r in self._rows)
        return relative * self._scale, live, sorted(begun)


class _History:
    """The last seconds of everything, oldest first, in one piece."""

    def __init__(self, outputs: int, rows: int, length: int) -> None:
        self._motion = np.zeros((outputs, rows, length + length // 16 + 1))
        self._live = np.zeros(self._motion.shape[1:], dtype=bool)
        self._length, self._end = length, 0

    def clear(self) -> None:
        self._end = 0

    def append(self, motion: Float, live: NDArray[np.bool_]) -> None:
        n = motion.shape[2]
        if n > self._length:
            motion, live, n = motion[:, :, -self._length :], live[:, -self._length :], self._length
        if self._end + n > self._motion.shape[2]:
            keep = min(self._end, self._length - n)
            self._motion[:, :, :keep] = self._motion[:, :, self._end - keep : self._end]
            self._live[:, :keep] = self._live[:, self._end - keep : self._end]
            self._end = keep
        self._motion[:, :, self._end : self._end + n] = motion
        self._live[:, self._end : self._end + n] = live
        self._end += n

    def last(self, n: int, *, before: int = 0) -> tuple[Float, NDArray[np.bool_]]:
        """Up to ``n`` samples that end ``before`` samples ago."""
        stop = max(0, self._end - before)
        start = max(0, stop - n, self._end - self._length)
        return self._motion[:, :, start:stop], self._live[:, start:stop]


@dataclass(frozen=True, slots=True)
class _Noise:
    """RMS before the onset: of each component in the local band, and of vertical displacement."""

    local: Float
    displacement: float


@dataclass(slots=True)
class _Bin:
    """What has been seen since the last grid time."""

    local_peak: Float
    local_peak2: float = 0.0
    local_energy: float = 0.0
    vertical: float = 0.0
    horizontal: float = 0.0
    samples: int = 0


@dataclass(frozen=True, slots=True)
class _Initial:
    """The P wave so far: peak vertical displacement (m), ∫u² and ∫u̇² (sums of samples)."""

    pd: float = 0.0
    displacement2: float = 0.0
    rate2: float = 0.0

    @property
    def tau_c(self) -> float | None:
        if not self.rate2 > 0:
            return None
        return 2 * math.pi * math.sqrt(self.displacement2 / self.rate2)


class _OtherScales:
    """How the components of a sensor are read on other scales than the Chinese."""

    def __init__(self, rows: int, horizontal: Sequence[int], rate_hz: float) -> None:
        self.horizontal = list(horizontal)
        self.jma = (
            JmaScale(_standard_band(rate_hz), rows, rate_hz)
            if rate_hz >= LOWEST_JMA_RATE_HZ
            else None
        )


@dataclass(slots=True, eq=False)
class _Reached:
    """What other scales say up to some time, worked out once somebody asks for it.

    ``motion`` are the samples since ``before``; both are let go when all is worked out.
    """

    scales: _OtherScales
    before: "_Reached | None" = None
    motion: list[Float] = field(default_factory=list)
    shaken: Shaken | None = None
    pgv: float = 0.0
    """Of the larger horizontal component, m/s."""

    def jma(self) -> float | None:
        """JMA intensity; None where the rate is too low for it, or nothing has shaken."""
        self._work_out()
        return None if self.shaken is None else self.shaken.intensity

    def mmi(self) -> float | None:
        """Modified Mercalli intensity; None where there is no horizontal component."""
        self._work_out()
        return intensity.modified_mercalli(self.pgv) if self.scales.horizontal else None

    def _work_out(self) -> None:
        due: list[_Reached] = []
        at: _Reached | None = self
        while at is not None and at.motion:
            due.append(at)
            at = at.before
        for reached in reversed(due):
            reached._follow()  # noqa: SLF001  one of its own kind

    def _follow(self) -> None:
        """Go on from ``before``, which is worked out."""
        scales, before = self.scales, self.before
        motion = np.concatenate([m[: VELOCITY + 1] for m in self.motion], axis=2)
        if scales.jma is not None:
            seen = before.shaken if before is not None else None
            self.shaken = scales.jma.after(seen or scales.jma.still, motion[ACCELERATION])
        if scales.horizontal:
            peak = float(np.abs(motion[VELOCITY, scales.horizontal]).max())
            self.pgv = max(peak, before.pgv if before is not None else 0.0)
        self.motion, self.before = [], None


@dataclass(slots=True)
class _Shaking:
    """The measurement of one event."""

    station: str
    channels: tuple[str, ...]
    onset_ns: int
    vertical: int | None
    horizontal: tuple[int, ...]
    initial: _Initial | None
    noise: _Noise
    rate_hz: float
    whole: NDArray[np.bool_]
    cav: Float
    first_ns: int
    scales: _OtherScales
    grid: int = 0
    acceleration2: float = 0.0
    velocity2: float = 0.0
    displacement2: float = 0.0
    pd_max: float = 0.0
    frozen: bool = False
    lasting: tuple[str, ...] = ()
    sustained: bool = False
    over: bool = False
    bins: deque[_Bin] = field(default_factory=lambda: deque(maxlen=_QUIET_BINS))
    current: _Bin = field(init=False)
    initials: list[_Initial] = field(default_factory=list)
    p_energy: float = 0.0
    reached: _Reached = field(init=False)
    """At the last whole second."""
    since: list[Float] = field(default_factory=list)
    """Samples since then."""

    def __post_init__(self) -> None:
        self.current = self._new_bin()
        self.reached = _Reached(self.scales)

    def _new_bin(self) -> _Bin:
        return _Bin(np.zeros(len(self.cav)))

    def advance(self, motion: Float, live: NDArray[np.bool_], start_ns: int) -> list[GroundMotion]:
        """Take samples in order; gives the values of each grid time that they reach."""
        given: list[GroundMotion] = []
        self._skip(start_ns)
        done, n = 0, motion.shape[2]
        last_ns = start_ns + round((n - 1) * NS / self.rate_hz)
        while not self.over:
            due_ns = self.onset_ns + (self.grid + 1) * GRID_NS
            if due_ns > last_ns + _ROUNDING_NS:
                self._take(motion[:, :, done:], live[:, done:])
                break
            stop = max(done, math.floor((due_ns - start_ns) * self.rate_hz / NS + 1e-3) + 1)
            self._take(motion[:, :, done:stop], live[:, done:stop])
            done = stop
            self.grid += 1
            self._close_bin()
            if due_ns >= self.first_ns:
                given.append(self._value(due_ns))
        return given

    def _skip(self, start_ns: int) -> None:
        """Leave out the grid times that lie in a hole before ``start_ns``."""
        hole_ns = start_ns - round((1 + _JUMP_SAMPLES) * NS / self.rate_hz) - self.onset_ns
        missed = math.ceil(hole_ns / GRID_NS) - 1 - self.grid
        if missed > 0:
            self.grid += missed
            self.bins.append(self.current)
            self.bins.extend(self._new_bin() for _ in range(min(missed, _QUIET_BINS) - 1))
            self.current = self._new_bin()

    def _take(self, motion: Float, live: NDArray[np.bool_]) -> None:
        if not motion.shape[2]:
            return
        self.whole &= live.all(axis=1)
        power = np.square(motion)
        vector = power.sum(axis=1).max(axis=1)
        self.acceleration2 = max(self.acceleration2, float(vector[ACCELERATION]))
        self.velocity2 = max(self.velocity2, float(vector[VELOCITY]))
        self.displacement2 = max(self.displacement2, float(vector[DISPLACEMENT]))
        self.cav += np.abs(motion[ACCELERATION]).sum(axis=1) / self.rate_hz
        now = self.current
        np.maximum(now.local_peak, np.abs(motion[LOCAL]).max(axis=1), out=now.local_peak)
        now.local_peak2 = max(now.local_peak2, float(vector[LOCAL]))
        now.local_energy += float(power[LOCAL].sum())
        now.samples += motion.shape[2]
        self.since.append(motion)
        if self.vertical is None:
            return
        now.vertical += float(power[VELOCITY, self.vertical].sum())
        now.horizontal += float(power[VELOCITY, list(self.horizontal)].sum())
        peak = float(np.abs(motion[DISPLACEMENT, self.vertical]).max())
        self.pd_max = max(self.pd_max, peak)
        if self.initial is not None and not self.frozen:
            self.initial = _Initial(
                max(self.initial.pd, peak),
                self.initial.displacement2 + float(power[DISPLACEMENT, self.vertical].sum()),
                self.initial.rate2 + float(power[RATE, self.vertical].sum()),
            )

    def _close_bin(self) -> None:
        self.bins.append(self.current)
        self.current = self._new_bin()
        self.lasting = self._lasting()
        self.sustained = self.sustained or len(self.lasting) >= SUSTAINED_COMPONENTS
        if self.initial is not None and not self.frozen:
            self.initials.append(self.initial)
            began = self._s_began()
            if began is not None:
                self.initial = self.initials[began]
            self.frozen = began is not None or self.grid >= _P_WINDOW_BINS
        self.over = self.grid >= _LONGEST_BINS or self._is_quiet()

    def _lasting(self) -> tuple[str, ...]:
        """Components on which felt shaking has gone on for half a second, without a jolt."""
        if len(self.bins) < _SUSTAINED_BINS:
            return ()
        window = list(islice(reversed(self.bins), _SUSTAINED_BINS))
        if min(b.local_peak2 for b in window) < intensity.FELT_PGA_MPS2**2:
            return ()
        peaks = np.array([b.local_peak for b in window])
        least = np.maximum(
            intensity.FELT_PGA_MPS2 / _COMPONENT_SHARE, _OVER_NOISE * self.noise.local
        )
        least = np.maximum(least, peaks.max(axis=0) / _EVENNESS)
        lasts = peaks.min(axis=0) >= least
        return tuple(c for c, on in zip(self.channels, lasts.tolist(), strict=True) if on)

    def _s_began(self) -> int | None:
        """The grid time before which the S wave came, once it has come."""
        if len(self.bins) < _S_BINS or self.vertical is None or not self.horizontal:
            return None
        window = list(islice(reversed(self.bins), _S_BINS))
        vertical = sum(b.vertical for b in window)
        horizontal = sum(b.horizontal for b in window)
        self.p_energy = max(self.p_energy, vertical)
        if horizontal < max(_S_OVER_P * self.p_energy, _S_OVER_VERTICAL * vertical):
            return None
        return max(0, len(self.initials) - 1 - _S_BINS)

    def _is_quiet(self) -> bool:
        if len(self.bins) < _QUIET_BINS:
            return False
        samples = sum(b.samples for b in self.bins)
        energy = sum(b.local_energy for b in self.bins)
        level2 = _QUIET_OVER_NOISE**2 * float(np.square(self.noise.local).sum())
        return energy <= samples * max(level2, _IMPERCEPTIBLE_MPS2**2)

    def _value(self, time_ns: int) -> GroundMotion:
        whole_second = self.grid % 10 == 0 or self.over
        if whole_second and self.since:
            self.reached, self.since = _Reached(self.scales, self.reached, self.since), []
        pga, pgv = math.sqrt(self.acceleration2), math.sqrt(self.velocity2)
        components = int(self.whole.sum())
        initial = self.initial
        foretells = initial is not None and initial.pd >= max(
            _LEAST_PD_M, _LEAST_DISPLACEMENT_SNR * self.noise.displacement
        )
        return GroundMotion(
            station=self.station,
            channels=self.channels,
            time_ns=time_ns,
            since_ns=self.onset_ns,
            pga=pga,
            pgv=pgv,
            pgd=math.sqrt(self.displacement2),
            pd=None if initial is None else initial.pd,
            pd_max=self.pd_max if self.vertical is not None else None,
            tau_c=initial.tau_c if initial and foretells else None,
            cav=float(self.cav.max()),
            intensity=intensity.instrumental_intensity(pga, pgv),
            predicted=(intensity.foretold_intensity(initial.pd) if initial and foretells else None),
            components=components,
            standard=components == 3 and self.vertical is not None,
            sustained=self.sustained,
            lasting=self.lasting,
            final=self.over,
            jma=self.reached.jma,
            mmi=self.reached.mmi,
            whole_second=whole_second,
        )


class GroundMotionMeter:
    """Measures the shaking of one sensor.

    ``channels`` are NET.STA.LOC.CHA, whose last letter is the orientation (Z is the vertical,
    without which there is no Pd); ``sensitivities`` stand in the same order and share one unit.

    Raises:
        ValueError: the lists differ in length, units are mixed, or the rate is below 10 Hz.
    """

    def __init__(
        self,
        channels: Sequence[str],
        sensitivities: Sequence[Sensitivity],
        rate_hz: float,
    ) -> None:
        units = {s.unit for s in sensitivities}
        if len(units) != 1 or len(channels) != len(sensitivities):
            raise ValueError(
                f"components {list(channels)} need one sensitivity each, all in the same unit; "
                f"there are {list(sensitivities)}"
            )
        system = motion_system(units.pop(), rate_hz)
        self._channels, self._rate_hz = tuple(channels), rate_hz
        self._station = ".".join(channels[0].split(".")[:2])
        orientations = [channel[-1:] for channel in channels]
        self._vertical = orientations.index("Z") if "Z" in orientations else None
        rows = len(orientations)
        self._horizontal = tuple(k for k in range(rows) if k != self._vertical)
        self._intake = _Intake(np.array([s.counts_per_unit for s in sensitivities]), rate_hz)
        self._scales = _OtherScales(rows, self._horizontal, rate_hz)
        self._filter = BlockFilter(system, rows)
        self._filter.process(np.zeros((rows, 1)))  # a baseline of 0: the intake takes it off
        self._history = _History(5, rows, round((_NOISE_S + _LOOK_BACK_S) * rate_hz))
        self._every_row = np.ones((rows, 0), dtype=bool)
        self._gathered = np.empty((rows, math.ceil(_GATHER_NS * rate_hz / NS)))
        self._columns = 0
        self._start_ns = 0
        self._next_ns: int | None = None
        self._shaking: _Shaking | None = None

    @property
    def active(self) -> bool:
        """A measurement is under way."""
        return self._shaking is not None

    def process(self, samples: NDArray[np.int32] | Float, start_ns: int) -> list[GroundMotion]:
        """Take counts of shape (components, n), NaN missing, the first at ``start_ns``.

        Gives the values of the grid times that these samples reach, while a measurement is under
        way. A jump in ``start_ns`` takes every component out of service until it has settled.
        """
        n = samples.shape[1]
        if n == 0:
            return []
        given: list[GroundMotion] = []
        columns, room = self._columns, self._gathered.shape[1]
        if columns and (columns + n > room or abs(start_ns - (self._next_ns or 0)) > _ROUNDING_NS):
            given = self._take_gathered()
            columns = 0
        self._follow(start_ns)
        self._next_ns = start_ns + round(n * NS / self._rate_hz)
        if n >= room:
            return given + self._take(samples.astype(np.float64, copy=False), start_ns)
        if not columns:
            self._start_ns = start_ns
        self._gathered[:, columns : columns + n] = samples
        self._columns = columns + n
        if self._columns == room or self._reaches_grid():
            given += self._take_gathered()
        return given

    def _reaches_grid(self) -> bool:
        """Whether the last sample reaches the next grid time of what is under way."""
        if self._shaking is None or self._next_ns is None:
            return False
        last_ns = self._next_ns - round(NS / self._rate_hz)
        due_ns = self._shaking.onset_ns + (self._shaking.grid + 1) * GRID_NS
        return last_ns + _ROUNDING_NS >= due_ns

    def _take_gathered(self) -> list[GroundMotion]:
        columns, self._columns = self._columns, 0
        return self._take(self._gathered[:, :columns], self._start_ns) if columns else []

    def _take(self, samples: Float, start_ns: int) -> list[GroundMotion]:
        n = samples.shape[1]
        relative, live, begun = self._intake.take(samples)
        motion = self._filtered(relative, begun)
        if live is None:
            if self._every_row.shape[1] < n:
                self._every_row = np.ones((len(samples), n), dtype=bool)
            live = self._every_row[:, :n]
        else:
            motion = motion * live
        self._history.append(motion, live)
        if self._shaking is None:
            return []
        given = self._shaking.advance(motion, live, start_ns)
        if self._shaking.over:
            self._shaking = None
        return given

    def _follow(self, start_ns: int) -> None:
        """Notice a jump in time."""
        if self._next_ns is None:
            return
        jump_ns = start_ns - self._next_ns
        if abs(jump_ns) * self._rate_hz > _JUMP_SAMPLES * NS:
            self._intake.restart()
            self._history.clear()
            if jump_ns < 0:
                self._shaking = None

    def _filtered(self, relative: Float, begun: list[tuple[int, int]]) -> Float:
        """Filter, beginning a row anew where its baseline has just been learnt."""
        if not begun:
            return self._filter.process(relative)
        cuts = [0, *sorted({column for column, _ in begun}), relative.shape[1]]
        parts = []
        for start, stop in pairwise(cuts):
            for column, row in begun:
                if column == start:
                    self._filter.restart(row)
            if stop > start:
                parts.append(self._filter.process(relative[:, start:stop]))
        return np.concatenate(parts, axis=2)

    def begin(self, onset_ns: int, declared_ns: int) -> list[GroundMotion]:
        """An onset was declared at the last sample that was processed.

        The measurement runs from ``onset_ns`` (at most 5 s back); its first value is that of the
        first grid time from ``declared_ns`` on, and is given at once if it has been reached.

        While a measurement is under way, a further onset belongs to it, unless nothing has been
        felt so far and the onset is no S wave: then what came before was a foreshock or a knock,
        and the measurement begins anew, without a final value.
        """
        if self._next_ns is None:
            return []
        given = self._take_gathered()
        period_ns = NS / self._rate_hz
        ago = math.floor((self._next_ns - onset_ns) / period_ns + 1e-3)
        ago = min(max(ago, 0), round(_LOOK_BACK_S * self._rate_hz))
        motion, live = self._history.last(ago)
        noise = self._noise(ago)
        is_s = self._is_s(motion[LOCAL], noise)
        if self._shaking is not None and (self._shaking.sustained or is_s):
            return given
        shaking = _Shaking(
            station=self._station,
            channels=self._channels,
            onset_ns=onset_ns,
            vertical=self._vertical,
            horizontal=self._horizontal,
            initial=None if self._vertical is None or is_s else _Initial(),
            noise=noise,
            rate_hz=self._rate_hz,
            whole=np.ones(len(live), dtype=bool),
            cav=np.zeros(len(live)),
            first_ns=declared_ns,
            scales=self._scales,
        )
        self._shaking = shaking
        start_ns = self._next_ns - round(motion.shape[2] * period_ns)
        # A copy: what other scales will look at later must not move on with the history.
        return given + shaking.advance(motion.copy(), live, start_ns)

    def _is_s(self, local: Float, noise: _Noise) -> bool:
        """What has come since the onset rises out of the noise on the horizontals, as S does."""
        if self._vertical is None or not local.size:
            return False
        floor = np.square(_OVER_NOISE * noise.local)
        power = np.maximum(np.square(local).mean(axis=1) - floor, 0.0)
        vertical = float(power[self._vertical])
        return float(power.sum()) - vertical > _S_OVER_VERTICAL * vertical

    def _noise(self, ago: int) -> _Noise:
        """RMS of the 15 s that end 0.5 s before the onset; unknown where they were too short."""
        before = ago + round(_NOISE_GUARD_S * self._rate_hz)
        motion, live = self._history.last(round(_NOISE_S * self._rate_hz), before=before)
        counts = live.sum(axis=1)
        known = counts >= _LEAST_NOISE_S * self._rate_hz
        mean2 = np.square(motion).sum(axis=2) / np.maximum(counts, 1)
        local = np.where(known, np.sqrt(mean2[LOCAL]), 0.0)
        if self._vertical is None or not known[self._vertical]:
            return _Noise(local, math.inf)
        return _Noise(local, math.sqrt(mean2[DISPLACEMENT, self._vertical]))
