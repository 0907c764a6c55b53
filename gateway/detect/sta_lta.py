"""Short- and long-term averages of energy, all tracks at once, state carried between packets.

Both averages are recursive (first-order lags; Withers et al. 1998, BSSA 88):

    sta[k] = sta[k-1] + (e[k] - sta[k-1]) / (sta_s · rate)

and ``lta`` likewise. The LTA of a fresh track is the plain mean of everything since its start
until that mean spans ``lta_s``: a station is armed after seconds, not after minutes. The first
second counts for neither, because a filter that has just begun has not yet seen its own band.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.detect.filters import MAX_RUN, Float

SETTLE_S = 1.0
_CACHED_LENGTHS = 8


@dataclass(frozen=True, slots=True)
class Windows:
    """Time constants of one band's averages."""

    sta_s: float
    lta_s: float


class StaLta:
    """Both averages of energies of shape (bands, rows, n), each band with its own time constants.

    A track (one row in one band) can have its LTA held at a sample of the run processed last, and
    followed again from another: a trigger freezes at its own sample however the stream is cut.
    """

    def __init__(self, bands: Sequence[Windows], rows: int, rate_hz: float) -> None:
        self._short = [1.0 / max(1.0, band.sta_s * rate_hz) for band in bands]
        self._long = [1.0 / max(1.0, band.lta_s * rate_hz) for band in bands]
        self._settle = round(SETTLE_S * rate_hz)
        shape = (len(bands), rows)
        self._last = np.zeros((*shape, 2))
        self._count = np.full(shape, -self._settle, dtype=np.int64)
        self._held = np.zeros(shape, dtype=bool)
        self._plain = False
        self._counted = False
        self._energy: Float = np.empty((*shape, 0))
        self.sta: Float = np.empty((*shape, 0))
        self.lta: Float = np.empty((*shape, 0))
        self._matrices: dict[int, Float] = {}
        self._work: dict[int, Float] = {}

    def _matrix(self, n: int) -> Float:
        """Per band, what takes (sta, lta, energies) to (sta of each sample, lta of each)."""
        found = self._matrices.get(n)
        if found is None:
            if len(self._matrices) >= _CACHED_LENGTHS:
                oldest = next(iter(self._matrices))
                del self._matrices[oldest], self._work[oldest]
            found = np.zeros((len(self._short), 2 + n, 2 * n))
            for band, weights in enumerate(zip(self._short, self._long, strict=True)):
                for at, weight in enumerate(weights):
                    decay = (1.0 - weight) ** np.arange(n + 1)
                    columns = slice(at * n, (at + 1) * n)
                    found[band, at, columns] = decay[1:]
                    for k in range(n):
                        found[band, 2 + k, columns][k:] = weight * decay[: n - k]
            self._matrices[n] = found
            self._work[n] = np.empty((*self._held.shape, 2 + n))
        return found

    def restart(self, row: int) -> None:
        """Begin a row anew in every band."""
        self._last[:, row] = 0.0
        self._count[:, row] = -self._settle
        self._held[:, row] = self._plain = False

    def process(self, energy: Float) -> tuple[Float, Float]:
        """``sta`` and ``lta`` after each sample of a run of at most ``MAX_RUN`` samples."""
        n = energy.shape[2]
        if n > MAX_RUN:
            raise ValueError(f"run of {n} samples: at most {MAX_RUN}")
        matrix = self._matrix(n)
        work = self._work[n]
        work[:, :, :2] = self._last
        work[:, :, 2:] = energy
        out = work @ matrix
        self.sta, self.lta = out[:, :, :n], out[:, :, n:]
        self._energy = energy
        self._counted = not self._plain
        if self._counted:
            self._correct(n)
        self._last = out[:, :, n - 1 :: n]
        return self.sta, self.lta

    def hold(self, band: int, row: int, column: int) -> None:
        """Freeze a track's LTA at ``column`` of the last run until it is released."""
        self.lta[band, row, column + 1 :] = self.lta[band, row, column]
        if self._counted:
            self._count[band, row] -= self.lta.shape[2] - 1 - column
        self._held[band, row] = True
        self._plain = False

    def release(self, band: int, row: int, column: int) -> None:
        """Let a held LTA follow again after ``column`` of the last run (-1: from its start)."""
        self._held[band, row] = False
        held_at = self.lta[band, row, max(column, 0)]
        self._follow(band, row, column + 1, float(held_at))
        self._count[band, row] += self.lta.shape[2] - 1 - column

    def _correct(self, n: int) -> None:
        """Put right the tracks that are young or held."""
        self._plain = True
        for band, row in np.ndindex(self._held.shape):
            held = float(self._last[band, row, 1])
            if self._held[band, row]:
                self.lta[band, row] = held
                self._plain = False
            elif self._count[band, row] * self._long[band] < 1.0:
                self._follow(band, row, 0, held)
                self._plain = False
        self._count += np.where(self._held, 0, n)

    def _follow(self, band: int, row: int, start: int, lta: float) -> None:
        """LTA of one track from column ``start`` on, sample by sample."""
        count, weight = int(self._count[band, row]), self._long[band]
        out = []
        for energy in self._energy[band, row, start:].tolist():
            count += 1
            if count > 0:
                lta += (energy - lta) * max(weight, 1.0 / count)
            out.append(lta)
        self.lta[band, row, start:] = out
