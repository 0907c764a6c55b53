"""Causal Butterworth filters over many channels at once, with state carried between packets.

A cascade of second-order sections is folded into one linear state space

    x[k+1] = A x[k] + B u[k],    y[k] = C x[k] + D u[k]

so that a packet of L samples of every channel costs one matrix product instead of a loop over
samples (block state-space form). The result does not depend on how a stream is cut into packets;
against sample-by-sample arithmetic it differs by rounding alone.

The designs are the bilinear transform with pre-warped corners of the analogue Butterworth
prototype (Oppenheim & Schafer, *Discrete-Time Signal Processing*, §7.1), made here because
scipy would cost the core 60 MiB. They equal ``scipy.signal.butter(..., output="sos")``.
"""

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Section = tuple[float, float, float, float, float]
"""b0, b1, b2, a1, a2 of (b0 + b1/z + b2/z²) / (1 + a1/z + a2/z²)."""

NYQUIST_SHARE = 0.45
"""Upper corners stay below this share of the sampling rate; anti-alias filters begin there."""

MAX_RUN = 32
"""Longest run of samples in one product: its work grows with the square, its overhead does not."""

_TILE = 16
"""BLAS works on tiles of so many columns or less, and takes longer for a part of one."""

_CACHED_LENGTHS = 8


def butterworth(
    order: int, low_hz: float | None, high_hz: float | None, rate_hz: float
) -> tuple[Section, ...]:
    """Sections of a Butterworth filter: band-pass, or high- or low-pass where one corner is None.

    ``order`` is the order of the prototype; a band-pass has twice as many poles. The gain is 1
    in the middle of the band (at 0 Hz for a low-pass, at the Nyquist frequency for a high-pass).

    Raises:
        ValueError: a corner is not between 0 and half the rate, or the band is empty.
    """
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise ValueError(f"sampling rate {rate_hz!r}: expected a positive number of Hz")
    for corner in (low_hz, high_hz):
        if corner is not None and not 0 < corner < rate_hz / 2:
            raise ValueError(f"corner {corner} Hz: expected between 0 and {rate_hz / 2} Hz")
    prototype = [cmath.exp(1j * math.pi * (2 * k + order + 1) / (2 * order)) for k in range(order)]
    low, high = (None if f is None else math.tan(math.pi * f / rate_hz) for f in (low_hz, high_hz))
    if low is not None and high is not None:
        if low >= high:
            raise ValueError(f"band {low_hz}-{high_hz} Hz: the lower corner comes first")
        half = [p * (high - low) / 2 for p in prototype]
        roots = [cmath.sqrt(h * h - low * high) for h in half]
        poles = [h + r for h, r in zip(half, roots, strict=True)]
        poles += [h - r for h, r in zip(half, roots, strict=True)]
        zeros, unity = [1.0] * order + [-1.0] * order, 2 * math.atan(math.sqrt(low * high))
    elif low is not None:
        poles, zeros, unity = [low / p for p in prototype], [1.0] * order, math.pi
    elif high is not None:
        poles, zeros, unity = [high * p for p in prototype], [-1.0] * order, 0.0
    else:
        raise ValueError("a filter needs at least one corner")
    return _sections([(1 + p) / (1 - p) for p in poles], zeros, cmath.exp(1j * unity))


def _sections(poles: list[complex], zeros: list[float], unity: complex) -> tuple[Section, ...]:
    """Pair conjugate poles and spread the gain so that each section is 1 at ``unity``."""
    upper = [p for p in poles if p.imag > 1e-14]
    real = sorted(p.real for p in poles if abs(p.imag) <= 1e-14)
    pairs = [(-2 * p.real, abs(p) ** 2) for p in upper]
    pairs += [(-(p + q), p * q) for p, q in zip(real[::2], real[1::2], strict=False)]
    if len(real) % 2:
        pairs.append((-real[-1], 0.0))
    ones, minus = zeros.count(1.0), zeros.count(-1.0)
    sections = []
    for a1, a2 in pairs:
        numerator = [1.0]
        for _ in range(2 if a2 else 1):
            take_one = ones > 0 and (ones >= minus)
            ones, minus = ones - take_one, minus - (not take_one)
            root = 1.0 if take_one else -1.0
            numerator = [*numerator, 0.0]
            numerator = [v - root * w for v, w in zip(numerator, [0.0, *numerator], strict=False)]
        b0, b1, b2 = [*numerator, 0.0, 0.0][:3]
        gain = abs((1 + a1 / unity + a2 / unity**2) / (b0 + b1 / unity + b2 / unity**2))
        sections.append((gain * b0, gain * b1, gain * b2, a1, a2))
    return tuple(sections)


@dataclass(frozen=True, slots=True)
class StateSpace:
    """A linear system of s states and one input.

    ``a`` is (s, s), ``b`` (s,), ``c`` (outputs, s) and ``d`` (outputs,).
    """

    a: Float
    b: Float
    c: Float
    d: Float

    @classmethod
    def of(cls, *cascades: Sequence[Section]) -> "StateSpace":
        """Several cascades beside one another on the same input, one output each."""
        size = 2 * sum(len(cascade) for cascade in cascades)
        system = cls(
            np.zeros((size, size)),
            np.zeros(size),
            np.zeros((len(cascades), size)),
            np.zeros(len(cascades)),
        )
        at = 0
        for output, cascade in enumerate(cascades):
            # row and gain say how the section's input depends on the state and on u
            row, gain = np.zeros(size), 1.0
            for b0, b1, b2, a1, a2 in cascade:
                # transposed direct form II:
                # y = b0 v + s1, s1' = b1 v - a1 y + s2, s2' = b2 v - a2 y
                for k, (b, a) in enumerate(((b1, a1), (b2, a2))):
                    system.a[at + k] = (b - a * b0) * row
                    system.b[at + k] = (b - a * b0) * gain
                    system.a[at + k, at] -= a
                system.a[at, at + 1] += 1.0
                row, gain = b0 * row, b0 * gain
                row[at] += 1.0
                at += 2
            system.c[output], system.d[output] = row, gain
        return system


class _Prepared(NamedTuple):
    """What a :class:`BlockFilter` keeps for runs of one length.

    Every array that takes part in a run is whole and written in place: on parts of arrays, and
    with room to be had anew each time, numpy takes twice as long.
    """

    matrix: Float
    """Takes (state, samples) of a row to (each output, next state)."""
    before: Float
    """Room for the former, and its two parts."""
    state: Float
    samples: Float
    offset: Float
    """The baseline under each sample, nothing under the state."""
    after: Float
    """Room for what the matrix gives, and the state in it."""
    next_state: Float


class BlockFilter:
    """A state space run over every row of a stream of packets.

    ``process`` takes (rows, n) of any n ≥ 1 and gives (outputs, rows, n). Each row begins with
    its own first sample taken as its baseline, so that neither a DC offset nor the start itself
    rings, and so that large offsets cost no precision.
    """

    def __init__(self, system: StateSpace, rows: int) -> None:
        self._system = system
        self._state_size = len(system.b)
        self._state = np.zeros((rows, self._state_size))
        self._baseline = np.zeros((rows, 1))
        self._fresh = np.ones(rows, dtype=bool)
        self._any_fresh = True
        self._prepared: dict[int, _Prepared] = {}

    def _prepare(self, n: int) -> _Prepared:
        if len(self._prepared) >= _CACHED_LENGTHS:
            del self._prepared[next(iter(self._prepared))]
        system, size, outputs = self._system, self._state_size, len(self._system.d)
        powers = np.empty((n + 1, size, size))
        powers[0] = np.eye(size)
        for k in range(n):
            powers[k + 1] = system.a @ powers[k]
        observed = system.c @ powers[:n]
        impulse = np.empty((outputs, n))
        impulse[:, 0] = system.d
        impulse[:, 1:] = (observed[:-1] @ system.b).T
        state = slice(outputs * n, outputs * n + size)
        matrix = np.zeros((size + n, math.ceil(state.stop / _TILE) * _TILE))
        for output in range(outputs):
            columns = slice(output * n, (output + 1) * n)
            matrix[:size, columns] = observed[:, output].T
            for k in range(n):
                matrix[size + k, columns][k:] = impulse[output, : n - k]
        matrix[:size, state] = powers[n].T
        for k in range(n):
            matrix[size + k, state] = powers[n - 1 - k] @ system.b
        before, offset = np.zeros((2, len(self._state), size + n))
        after = np.empty((len(self._state), matrix.shape[1]))
        offset[:, size:] = self._baseline
        self._prepared[n] = _Prepared(
            matrix, before, before[:, :size], before[:, size:], offset, after, after[:, state]
        )
        return self._prepared[n]

    @property
    def baseline(self) -> Float:
        """What is subtracted from each row, (rows,)."""
        return self._baseline[:, 0]

    @property
    def state(self) -> Float:
        """The state of each row, (rows, s): two of each section, one cascade after another."""
        return self._state

    @state.setter
    def state(self, state: Float) -> None:
        self._state = state

    @property
    def fresh(self) -> bool:
        """Whether a row's next sample becomes its baseline."""
        return self._any_fresh

    def restart(self, row: int) -> None:
        """Begin a row anew: its next sample becomes its baseline."""
        self._fresh[row] = self._any_fresh = True

    def _begin(self, first: Float) -> None:
        self._baseline[self._fresh, 0] = first[self._fresh]
        self._state[self._fresh] = 0.0
        self._fresh[:] = self._any_fresh = False
        for prepared in self._prepared.values():
            prepared.offset[:, self._state_size :] = self._baseline

    def process(self, samples: Float | NDArray[np.int32]) -> Float:
        """Filter (rows, n) samples; gives (outputs, rows, n)."""
        rows, n = samples.shape
        outputs = len(self._system.d)
        filtered = np.empty((outputs, rows, n))
        for start in range(0, n, MAX_RUN):
            part = filtered[:, :, start : start + MAX_RUN]
            run = self.run(samples[:, start : start + MAX_RUN])[:, : outputs * part.shape[2]]
            part[...] = run.reshape(rows, outputs, -1).swapaxes(0, 1)
        return filtered

    def run(self, samples: Float | NDArray[np.int32]) -> Float:
        """Filter at most ``MAX_RUN`` samples, as :meth:`process` does, in the shape of the product.

        Gives (rows, at least outputs · n + s): the samples of one output after another, then the
        state after them, then nothing of meaning. The next run of this length is written over it.
        """
        if self._any_fresh:
            self._begin(np.asarray(samples[:, 0], dtype=np.float64))
        n = samples.shape[1]
        prepared = self._prepared.get(n) or self._prepare(n)
        matrix, before, state, relative, offset, after, next_state = prepared
        state[...] = self._state
        relative[...] = samples
        before -= offset
        self._state = next_state
        return before.dot(matrix, after)
