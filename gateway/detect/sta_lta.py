"""Short- and long-term averages of energy, all tracks at once, state carried between packets.

Both averages are recursive (first-order lags; Withers et al. 1998, BSSA 88):

    sta[k] = sta[k-1] + (e[k] - sta[k-1]) / (sta_s · rate)

and ``lta`` likewise. The LTA of a fresh track is the plain mean of everything since its start
until that mean spans ``lta_s``: a station is armed after seconds, not after minutes. The first
second counts for neither, because a filter that has just begun has not yet seen its own band.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.detect.filters import Float, Section

SETTLE_S = 1.0
_CACHED_LENGTHS = 8
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


class Tracks:
    """Every row in every band, followed sample by sample in plain arithmetic.

    A product of matrices costs numpy five microseconds however small it is, and the memory of all
    its machinery. A track costs one microsecond, so a digitiser that sends scan by scan is followed
    so; from a few samples a packet on, or with many channels, the product wins. While a digitiser
    is silent all this leaves the processor's caches: so a track is a tuple, and the code a loop.

    Args:
        bands: of each its two sections, its averages' windows, and the ratio ``on`` that
            :meth:`step` tells of. The sections are a band-pass's, b · (1 - 1/z²) over their poles.
        rate_hz: of the samples.
        baseline: what is subtracted from each row, (rows,).
        state: of each row's sections, (rows, 4 · bands): one band after another.
        averages: of each row, (rows, 2 · bands): the short ones first.
        counts: samples that each LTA has seen, (rows, bands).

    Raises:
        ValueError: a section is no band-pass.
    """

    __slots__ = ("_bands", "_scale")

    def __init__(
        self,
        bands: Sequence[tuple[Sequence[Section], Windows, float]],
        rate_hz: float,
        *,
        baseline: Float,
        state: Float,
        averages: Float,
        counts: NDArray[np.int64] | Float,
    ) -> None:
        self._scale = np.array([_state_scale(*sections) for sections, _, _ in bands])
        tracks = np.empty((len(bands), len(baseline), 8))
        tracks[:, :, 0] = baseline
        tracks[:, :, 1:5] = self._scale[:, None] * state.reshape(-1, len(bands), 4).swapaxes(0, 1)
        tracks[:, :, 5:7] = averages.reshape(-1, 2, len(bands)).transpose(2, 0, 1)
        tracks[:, :, 7] = counts.T
        self._bands = [
            (_constants(*band, rate_hz), [tuple(track) for track in rows])
            for band, rows in zip(bands, tracks.tolist(), strict=True)
        ]

    def step(self, sample: list[float]) -> bool:
        """Take a sample of every row, and add to the list what the bands make of it, by bands.

        Gives whether an STA exceeds ``on`` times its LTA.
        """
        exceeded = False
        for (gain, a1, a2, b1, b2, short, long, span, on), tracks in self._bands:
            row = 0
            for baseline, p, q, r, t, old_sta, old_lta, seen in tracks:
                driven = gain * (sample[row] - baseline)
                middle = driven - p
                out = middle - r
                energy = out * out
                sta = old_sta + (energy - old_sta) * short
                count, weight = seen, long
                if count < span:  # young: the mean of all since it has settled
                    count = seen + 1.0
                    if count < span:
                        weight = 1.0 / count if count > 0.0 else 0.0
                lta = old_lta + (energy - old_lta) * weight
                if sta > on * lta:
                    exceeded = True
                sample.append(out)
                tracks[row] = (
                    baseline,
                    a1 * middle + q,
                    a2 * middle + driven,
                    b1 * out + t,
                    b2 * out + middle,
                    sta,
                    lta,
                    count,
                )
                row += 1  # noqa: SIM113  enumerate takes as long as half of the filter
        return exceeded

    def _every(self, first: int, end: int) -> Float:
        """Numbers [first, end) of every track, (rows, bands, end - first)."""
        tracks = np.array([tracks for _, tracks in self._bands])
        return tracks[:, :, first:end].swapaxes(0, 1)

    @property
    def state(self) -> Float:
        """States of each row's sections, (rows, 4 · bands): one band after another."""
        state: Float = self._every(1, 5) / self._scale
        return state.reshape(len(state), -1)

    @property
    def averages(self) -> Float:
        """Last averages of each row, (rows, 2 · bands): the short ones first."""
        averages = self._every(5, 7).swapaxes(1, 2)
        return averages.reshape(len(averages), -1)

    @property
    def counts(self) -> Float:
        """Samples that each track's LTA has seen, (rows, bands); no more than make it old."""
        return self._every(7, 8)[:, :, 0]


def _constants(
    sections: Sequence[Section], windows: Windows, on: float, rate_hz: float
) -> tuple[float, ...]:
    """What the tracks of one band share: gain, poles, weights, the LTA's span, ``on``."""
    for b0, b1, b2, _, _ in sections:
        if b1 or b2 != -b0:
            raise ValueError(f"section {b0}, {b1}, {b2}: expected a band-pass's: b, 0, -b")
    (b, _, _, a1, a2), (c, _, _, d1, d2) = sections
    sta, lta = (max(1.0, seconds * rate_hz) for seconds in (windows.sta_s, windows.lta_s))
    return b * c, a1, a2, d1, d2, 1.0 / sta, 1.0 / lta, lta, on


def _state_scale(_first: Section, second: Section) -> tuple[float, float, float, float]:
    """A filter's state as a track has it: its sign turned, and the whole gain at the entrance."""
    gain = second[0]
    return -gain, -gain, -1.0, -1.0


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

    def adopt(self, tracks: Tracks) -> None:
        """Go on from the averages of tracks; they stand as a run of one sample."""
        self._every = self._last = tracks.averages
        self._energy, self._n = np.zeros(self._shape), 1
        self._count[:] = tracks.counts
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
