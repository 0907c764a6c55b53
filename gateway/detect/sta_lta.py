"""Short- and long-term averages of energy, all tracks at once, state carried between packets.

Both averages are recursive (first-order lags; Withers et al. 1998, BSSA 88):

    sta[k] = sta[k-1] + (e[k] - sta[k-1]) / (sta_s · rate)

and ``lta`` likewise. The LTA of a fresh track is the plain mean of everything since its start
until that mean spans ``lta_s``: a station is armed after seconds, not after minutes. The first
second counts for neither, because a filter that has just begun has not yet seen its own band.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.detect.filters import Float, Section

SETTLE_S = 1.0
_CACHED_LENGTHS = 8
_SETTLED = 1 << 62
"""Samples that no LTA is still young after."""
_NEVER = 1e100
_SAFELY = 1.0 - 1e-9
"""Rounding must not hide a trigger from the quick look that all runs get."""
_STRETCH = 0.5
"""Share of an STA's time constant that has one margin: the STA in it is then taken for at most
two thirds (e½) more than it is."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Time constants of one band's averages."""

    sta_s: float
    lta_s: float


@dataclass(frozen=True, slots=True)
class Track:
    """One row in one band, followed sample by sample in plain arithmetic.

    ``step`` takes a sample and gives the filtered one with ``sta`` and ``lta`` after it; ``state``
    gives the four numbers of the filter's two sections, then those two.
    """

    step: Callable[[float], tuple[float, float, float]]
    state: Callable[[], tuple[float, ...]]


def follow(
    sections: Sequence[Section],
    windows: Windows,
    rate_hz: float,
    baseline: float,
    *state: float,
    count: int = _SETTLED,
) -> Track:
    """A track that goes on from ``state``, with every number in a variable of its own.

    A product of matrices costs numpy five microseconds however small it is, and the memory of all
    its machinery. This costs one microsecond, so a digitiser that sends sample by sample is
    followed so; from a few samples a packet on, or with many channels, the product wins.
    ``count`` says how many samples a young LTA has seen.
    """
    (b0, b1, b2, a1, a2), (c0, c1, c2, d1, d2) = sections
    p, q, r, t, sta, lta = state
    short, long = 1.0 / max(1.0, windows.sta_s * rate_hz), 1.0 / max(1.0, windows.lta_s * rate_hz)
    weight, young = long, count * long < 1.0

    def step(sample: float) -> tuple[float, float, float]:
        nonlocal p, q, r, t, sta, lta, count, weight, young
        value = sample - baseline
        middle = b0 * value + p
        p = b1 * value - a1 * middle + q
        q = b2 * value - a2 * middle
        out = c0 * middle + r
        r = c1 * middle - d1 * out + t
        t = c2 * middle - d2 * out
        energy = out * out
        sta += (energy - sta) * short
        if young:
            count += 1
            weight = max(long, 1.0 / count) if count > 0 else 0.0
            young = count * long < 1.0
        lta += (energy - lta) * weight
        return out, sta, lta

    return Track(step, lambda: (p, q, r, t, sta, lta))


class _Prepared(NamedTuple):
    """What a :class:`StaLta` keeps for runs of one length."""

    matrix: Float
    """Takes (energies, averages before) of a row to (averages after, margins).

    A margin is the least that can be left of on · lta - sta in one stretch of the run.
    """
    before: Float
    """Room for the former, and the averages in it."""
    averages: Float
    after: Float
    """Room for the latter, and the averages in it."""
    next_averages: Float
    every: Float
    """Takes (energies, averages before) to the averages after each sample."""


class StaLta:
    """Both averages of the energy of band-passed rows, each band with its own time constants.

    In quiet all that is asked of a run is where the averages have come to, and whether an STA can
    have exceeded ``on`` (one a band) times its LTA. So that is all that is computed; ``sta`` and
    ``lta`` at every sample of the last run are once they are read.

    A track (one row in one band) can have its LTA held at a sample of the run processed last, and
    followed again from another: a trigger freezes at its own sample however the stream is cut.
    """

    def __init__(
        self,
        bands: Sequence[Windows],
        rows: int,
        rate_hz: float,
        on: Sequence[float] | None = None,
    ) -> None:
        self._short = [1.0 / max(1.0, band.sta_s * rate_hz) for band in bands]
        self._long = [1.0 / max(1.0, band.lta_s * rate_hz) for band in bands]
        self._on = list(on or [_NEVER] * len(bands))
        self._settle = round(SETTLE_S * rate_hz)
        self._shape = shape = (rows, len(bands))
        self._count = np.full(shape, -self._settle, dtype=np.int64)
        self._held = np.zeros(shape, dtype=bool)
        self._plain = self._counted = self._any_held = False
        self._last = np.zeros((rows, 2 * len(bands)))
        self._energy = np.zeros((rows, 0))
        self._every: Float | None = np.zeros((rows, 0))
        self._n = 0
        self._prepared: dict[int, _Prepared] = {}

    @property
    def sta(self) -> Float:
        """Short-term averages of the last run, (rows, bands, n)."""
        return self._averages()[:, : self._shape[1]]

    @property
    def lta(self) -> Float:
        """Long-term averages of the last run, (rows, bands, n)."""
        return self._averages()[:, self._shape[1] :]

    def _averages(self) -> Float:
        """Averages at each sample of the last run, (rows, 2 · bands, n): the short ones first."""
        if self._every is None:
            self._every = self._energy.dot(self._prepared[self._n].every)
        rows, bands = self._shape
        return self._every.reshape(rows, 2 * bands, self._n)

    def _prepare(self, n: int, columns: int) -> _Prepared:
        if len(self._prepared) >= _CACHED_LENGTHS:
            del self._prepared[next(iter(self._prepared))]
        rows, bands = self._shape
        # what each column contributes to each average before the run and after each sample
        course = np.zeros((columns, 2 * bands, n + 1))
        for at, weight in enumerate(self._short + self._long):
            decay = (1.0 - weight) ** np.arange(n + 1)
            course[bands * n + at, at] = decay
            for k in range(n):
                course[at % bands * n + k, at, k + 1 :] = weight * decay[: n - k]
        margins = [
            self._margin(course, band, start, min(start + stretch, n))
            for band, short in enumerate(self._short)
            for stretch in [max(1, int(_STRETCH / short))]
            for start in range(0, n, stretch)
        ]
        matrix = np.column_stack([course[:, :, n], *margins])
        before, after = np.zeros((rows, columns)), np.empty((rows, matrix.shape[1]))
        self._prepared[n] = _Prepared(
            matrix,
            before,
            before[:, bands * n : bands * (n + 2)],
            after,
            after[:, : 2 * bands],
            course[:, :, 1:].reshape(columns, -1),
        )
        return self._prepared[n]

    def _margin(self, course: Float, band: int, start: int, end: int) -> Float:
        """What each column contributes to the margin of a band from sample ``start`` to ``end``.

        No energy is negative. So within the stretch the STA is at most what it was before and
        every energy added in full, and the LTA at least what it was before, decayed.
        """
        bands, n = self._shape[1], course.shape[2] - 1
        most: Float = course[:, band, start].copy()
        most[band * n + start : band * n + end] += self._short[band]
        least = course[:, bands + band, start] * (1.0 - self._long[band]) ** (end - start)
        return self._on[band] * _SAFELY * least - most

    def restart(self, row: int) -> None:
        """Begin a row anew in every band."""
        self._last[row] = 0.0
        self._count[row] = -self._settle
        self._held[row] = self._plain = False
        self._any_held = bool(self._held.any())

    def process(self, filtered: Float, n: int) -> bool:
        """Take a run of ``n`` samples of (rows, at least bands · (n + 2)), band after band.

        What stands after the bands is not read: a filter's states, where the averages find room.
        Gives whether an STA may have exceeded ``on`` times its LTA; where one has, it is True.
        """
        matrix, before, averages, after, next_averages, _ = self._prepared.get(n) or self._prepare(
            n, filtered.shape[1]
        )
        np.multiply(filtered, filtered, before)
        averages[...] = self._last
        before.dot(matrix, after)
        self._n, self._energy, self._every, self._last = n, before, None, next_averages
        self._counted = not self._plain
        if self._counted:
            self._correct(n)
            return True
        return bool(after.item(after.argmin()) < 0.0)  # a margin: averages never are

    @property
    def held(self) -> bool:
        """Whether any track's LTA is held."""
        return self._any_held

    @property
    def last(self) -> Float:
        """Last averages of each row, (rows, 2 · bands): the short ones first."""
        return self._last

    @property
    def counts(self) -> NDArray[np.int64]:
        """Samples that each track's LTA has seen, (rows, bands); of no meaning once it is old."""
        return self._count

    def adopt(self, averages: Float, samples: int) -> None:
        """Take the averages (rows, 2 · bands) after ``samples`` samples followed elsewhere.

        They stand as a run of one sample.
        """
        self._every = self._last = averages
        self._energy, self._n = np.zeros(self._shape), 1
        self._count += samples
        self._counted = False

    def hold(self, row: int, band: int, column: int) -> None:
        """Freeze a track's LTA at ``column`` of the last run until it is released."""
        lta = self.lta[row, band]
        self._set(row, band, column + 1, float(lta[column]))
        if self._counted:
            self._count[row, band] -= self._n - 1 - column
        self._held[row, band] = self._any_held = True
        self._plain = False

    def release(self, row: int, band: int, column: int) -> None:
        """Let a held LTA follow again after ``column`` of the last run."""
        self._held[row, band] = False
        self._any_held = bool(self._held.any())
        self._follow(row, band, column + 1, float(self.lta[row, band, column]))
        self._count[row, band] += self._n - 1 - column

    def _correct(self, n: int) -> None:
        """Put right the tracks that are young or held."""
        self._plain = True
        for row, band in np.ndindex(self._shape):
            before = float(self._energy[row, self._shape[1] * (n + 1) + band])
            if self._held[row, band]:
                self._set(row, band, 0, before)
                self._plain = False
            elif self._count[row, band] * self._long[band] < 1.0:
                self._follow(row, band, 0, before)
                self._plain = False
        self._count += np.where(self._held, 0, n)

    def _follow(self, row: int, band: int, start: int, lta: float) -> None:
        """LTA of one track from column ``start`` on, sample by sample."""
        count, weight = int(self._count[row, band]), self._long[band]
        n = self._n
        out = []
        for energy in self._energy[row, band * n + start : (band + 1) * n].tolist():
            count += 1
            if count > 0:
                lta += (energy - lta) * max(weight, 1.0 / count)
            out.append(lta)
        self._set(row, band, start, out)

    def _set(self, row: int, band: int, start: int, lta: float | Sequence[float]) -> None:
        """Correct a track's LTA from column ``start`` of the last run to its end."""
        of_track = self.lta[row, band]
        of_track[start:] = lta
        self._last[row, self._shape[1] + band] = of_track[-1]
