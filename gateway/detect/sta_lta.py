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

from gateway.detect.filters import Float

SETTLE_S = 1.0
_CACHED_LENGTHS = 8


@dataclass(frozen=True, slots=True)
class Windows:
    """Time constants of one band's averages."""

    sta_s: float
    lta_s: float


class StaLta:
    """Both averages of the energy of band-passed rows, each band with its own time constants.

    A track (one row in one band) can have its LTA held at a sample of the run processed last, and
    followed again from another: a trigger freezes at its own sample however the stream is cut.
    ``sta`` and ``lta`` are those of the last run, (rows, bands, n).
    """

    def __init__(self, bands: Sequence[Windows], rows: int, rate_hz: float) -> None:
        self._short = [1.0 / max(1.0, band.sta_s * rate_hz) for band in bands]
        self._long = [1.0 / max(1.0, band.lta_s * rate_hz) for band in bands]
        self._settle = round(SETTLE_S * rate_hz)
        self._shape = shape = (rows, len(bands))
        self._count = np.full(shape, -self._settle, dtype=np.int64)
        self._held = np.zeros(shape, dtype=bool)
        self._plain = self._counted = False
        self._last = np.zeros((rows, 2 * len(bands)))
        self._energy = self.sta = self.lta = np.zeros((*shape, 0))
        self._prepared: dict[int, tuple[Float, Float, Float]] = {}

    def _prepare(self, n: int) -> tuple[Float, Float, Float]:
        """What takes (averages, energies) of a row to the averages after each sample.

        And room for those, and that part of it which is for the energies.
        """
        if len(self._prepared) >= _CACHED_LENGTHS:
            del self._prepared[next(iter(self._prepared))]
        bands = len(self._short)
        matrix = np.zeros((2 * bands + bands * n, 2 * bands * n))
        for at, weight in enumerate(self._short + self._long):
            decay = (1.0 - weight) ** np.arange(n + 1)
            columns = slice(at * n, (at + 1) * n)
            matrix[at, columns] = decay[1:]
            energies = 2 * bands + (at % bands) * n
            for k in range(n):
                matrix[energies + k, columns][k:] = weight * decay[: n - k]
        work = np.empty((self._shape[0], matrix.shape[0]))
        self._prepared[n] = matrix, work, work[:, 2 * bands :]
        return self._prepared[n]

    def restart(self, row: int) -> None:
        """Begin a row anew in every band."""
        self._last[row] = 0.0
        self._count[row] = -self._settle
        self._held[row] = self._plain = False

    def process(self, filtered: Float, n: int) -> None:
        """Take a run of ``n`` samples of (rows, bands · n), one band after another."""
        matrix, work, energy = self._prepared.get(n) or self._prepare(n)
        np.multiply(filtered, filtered, out=energy)
        work[:, : self._last.shape[1]] = self._last
        out = np.dot(work, matrix)
        both = out.reshape(self._shape[0], 2, self._shape[1], n)
        self.sta, self.lta = both[:, 0], both[:, 1]
        self._energy = energy
        self._counted = not self._plain
        if self._counted:
            self._correct(n)
        self._last = out[:, n - 1 :: n]

    def hold(self, row: int, band: int, column: int) -> None:
        """Freeze a track's LTA at ``column`` of the last run until it is released."""
        self.lta[row, band, column + 1 :] = self.lta[row, band, column]
        if self._counted:
            self._count[row, band] -= self.lta.shape[2] - 1 - column
        self._held[row, band] = True
        self._plain = False

    def release(self, row: int, band: int, column: int) -> None:
        """Let a held LTA follow again after ``column`` of the last run."""
        self._held[row, band] = False
        self._follow(row, band, column + 1, float(self.lta[row, band, column]))
        self._count[row, band] += self.lta.shape[2] - 1 - column

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
        n = self.lta.shape[2]
        out = []
        for energy in self._energy[row, band * n + start : (band + 1) * n].tolist():
            count += 1
            if count > 0:
                lta += (energy - lta) * max(weight, 1.0 / count)
            out.append(lta)
        self.lta[row, band, start:] = out
