"""Short- and long-term averages of energy, all tracks at once, state carried between packets.

Both averages are recursive (first-order lags; Withers et al. 1998, BSSA 88):

    sta[k] = sta[k-1] + (e[k] - sta[k-1]) / (sta_s · rate)

and ``lta`` likewise. The LTA of a fresh track is the plain mean of everything since its start
until that mean spans ``lta_s``: a station is armed after seconds, not after minutes. The first
second counts for neither, because a filter that has just begun has not yet seen its own band.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.detect.filters import Float, Section

SETTLE_S = 1.0
_CACHED_LENGTHS = 8
_SETTLED = 1 << 62
"""Samples that no LTA is still young after."""
_NEVER = 1e100
_ZERO = np.zeros(())
"""An array, because numpy takes a microsecond to make one of a number."""
_SAFELY = 1.0 - 1e-9
"""Rounding must not hide a trigger from the quick look that all runs get."""


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


class StaLta:
    """Both averages of the energy of band-passed rows, each band with its own time constants.

    A track (one row in one band) can have its LTA held at a sample of the run processed last, and
    followed again from another: a trigger freezes at its own sample however the stream is cut.
    ``on`` are the ratios, one a band, that :meth:`process` looks out for.
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
        self._energy = self._averages = np.zeros((rows, 0))
        self._n = 0
        self._prepared: dict[int, tuple[Float, Float, Float, Float]] = {}

    @property
    def sta(self) -> Float:
        """Short-term averages of the last run, (rows, bands, n)."""
        return self._part(0)

    @property
    def lta(self) -> Float:
        """Long-term averages of the last run, (rows, bands, n)."""
        return self._part(1)

    def _part(self, which: int) -> Float:
        rows, bands = self._shape
        width = bands * self._n
        part = self._averages[:, which * width : (which + 1) * width]
        return part.reshape(rows, bands, self._n)

    def _prepare(self, n: int) -> tuple[Float, Float, Float, Float]:
        """What takes (averages, energies) of a row to both averages after each sample.

        And to what is left of sta - on · lta, a hair on the safe side. Then room for the former,
        and the two parts of that room.
        """
        if len(self._prepared) >= _CACHED_LENGTHS:
            del self._prepared[next(iter(self._prepared))]
        bands = len(self._short)
        width = bands * n
        matrix = np.zeros((2 * bands + width, 3 * width))
        for at, weight in enumerate(self._short + self._long):
            decay = (1.0 - weight) ** np.arange(n + 1)
            columns = slice(at * n, (at + 1) * n)
            matrix[at, columns] = decay[1:]
            energies = 2 * bands + (at % bands) * n
            for k in range(n):
                matrix[energies + k, columns][k:] = weight * decay[: n - k]
        on = np.repeat(self._on, n) * _SAFELY
        matrix[:, 2 * width :] = matrix[:, :width] - on * matrix[:, width : 2 * width]
        work = np.empty((self._shape[0], matrix.shape[0]))
        self._prepared[n] = matrix, work, work[:, : 2 * bands], work[:, 2 * bands :]
        return self._prepared[n]

    def restart(self, row: int) -> None:
        """Begin a row anew in every band."""
        self._last[row] = 0.0
        self._count[row] = -self._settle
        self._held[row] = self._plain = False
        self._any_held = bool(self._held.any())

    def process(self, filtered: Float, n: int) -> bool:
        """Take a run of ``n`` samples of (rows, bands · n), one band after another.

        Gives whether an STA may have exceeded ``on`` times its LTA.
        """
        matrix, work, before, energy = self._prepared.get(n) or self._prepare(n)
        before[:] = self._last
        np.multiply(filtered, filtered, out=energy)
        out: Float = np.dot(work, matrix)
        width = self._shape[1] * n
        self._averages, self._energy, self._n = out, energy, n
        self._counted = not self._plain
        if self._counted:
            self._correct(n)
        self._last = out[:, n - 1 : 2 * width : n]
        return self._counted or bool(np.count_nonzero(out[:, 2 * width :] > _ZERO))

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
        self._averages = self._last = averages
        self._energy, self._n = np.zeros(self._shape), 1
        self._count += samples
        self._counted = False

    def hold(self, row: int, band: int, column: int) -> None:
        """Freeze a track's LTA at ``column`` of the last run until it is released."""
        lta = self.lta[row, band]
        lta[column + 1 :] = lta[column]
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
            before = float(self._last[row, self._shape[1] + band])
            if self._held[row, band]:
                self.lta[row, band] = before
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
        self.lta[row, band, start:] = out
