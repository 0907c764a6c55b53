"""What comes before detection: columns put in order, holes bridged or stated, bad channels named.

:class:`Intake` turns packets as they come (late, doubled, with missing samples) into runs of
columns that follow one another and hold numbers alone. :class:`ChannelHealth` looks at each whole
second of raw samples for what a broken channel looks like.

================  ==============================================================================
``gap``           more than 0.1 s missing; that row's detection begins anew afterwards
``overlap``       columns that were seen before; dropped
``invalid``       a sample that is no possible reading; taken as missing
``flat``          the same value for 5 s
``clipped``       three or more samples in a row at one end of the range
``dead``          missing or flat for a minute
``threshold``     the channel's threshold follows its noise of the past hour, at most twofold
``noise``         even twice the threshold is exceeded by that noise
``recovered``     the channel is good again
================  ==============================================================================

Each is stated once when it begins. What cannot end, an overlap say, is stated at most once a minute
with what has been counted since. :class:`ChannelHours` sums up each hour.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from gateway.detect.filters import Float
from gateway.events import NS, ChannelReport, Quality

BRIDGE_S = 0.1
_IMPOSSIBLE = 1e15
"""No digitiser has 50 bits; beyond this an energy would soon overflow."""
_COUNTS, _NUMBERS = np.dtype(np.int32), np.dtype(np.float64)
_REPEAT_S = 60.0
_JITTER_NS = 1_000

_FLAT_S = 5
_DEAD_S = 60
_UNCLIPPED_S = 10
"""Seconds without clipping after which a channel has recovered."""
_PLATEAU = 3
_ABRUPT = 10.0
"""Steps into and out of a plateau, in units of the least step in that second."""

_ADAPT_S = 3600
_RARE = 4 / 3600
_MOST = 2.0
_NOTABLE = 0.1
_RATIO_BINS = tuple(2.0 ** (eighth / 8) for eighth in range(-16, 48))


class Run(NamedTuple):
    """Columns without a hole, the first of them at ``start_ns`` and ``first`` since the beginning.

    ``fresh`` and ``lost`` are the rows that begin and end before it.
    """

    first: int
    start_ns: int
    columns: NDArray[np.int32] | Float
    fresh: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()


class Intake:
    """Order and completeness of one digitiser's packets.

    Runs of missing samples of at most 0.1 s are bridged by a straight line. All rows wait for the
    sample that ends such a hole: at most 0.1 s, and only while a row has one.
    """

    def __init__(self, channels: Sequence[str], rate_hz: float) -> None:
        self._channels = tuple(channels)
        self._rate_hz = rate_hz
        self._step_ns = NS / rate_hz
        self._bridge = int(BRIDGE_S * rate_hz + 1e-6)
        rows = len(self._channels)
        self.live: NDArray[np.bool_] = np.zeros(rows, dtype=bool)
        self._seen = np.zeros(rows, dtype=bool)
        self._value = [0.0] * rows
        self._missing_since_ns = [0] * rows
        self._invalid = [False] * rows
        self._whole = False
        """Every row is there, nothing waits, and the last samples were possible ones."""
        self._scan = rows, 1
        self._pending: Float = np.empty((rows, 0))
        self._passed = 0
        self._anchor_ns: int | None = None
        self._anchor = 0
        self._overlap_ns = 0
        self._overlap_count = 0
        self._refused = False

    def time_ns(self, index: int) -> int:
        """Time of a column, counted from the detector's first."""
        return (self._anchor_ns or 0) + round((index - self._anchor) * self._step_ns)

    def scan(self, samples: object, start_ns: object) -> tuple[int, int, list[float]] | None:
        """A single scan of counts of every row that comes when it should, as nearly all do.

        Gives its column, its time and its values, to which the caller may add; None where it is
        anything else, for :meth:`take`.
        """
        if not (
            self._whole
            and type(samples) is np.ndarray
            and samples.shape == self._scan
            and samples.dtype is _COUNTS
            and type(start_ns) is int
        ):
            return None
        column = self._passed
        due_ns = (self._anchor_ns or 0) + round((column - self._anchor) * self._step_ns)
        if not -_JITTER_NS <= start_ns - due_ns <= _JITTER_NS:
            return None
        values: list[float] = samples.ravel().tolist()
        self._passed, self._value, self._refused = column + 1, values, False
        return column, due_ns, values

    def take(self, samples: object, start_ns: object) -> tuple[list[Run], list[Quality]]:
        """The runs that ``samples`` completes, and what is to be said of them."""
        if self._follows(samples, start_ns):
            self._refused = False
            return [self._run(samples)], []
        array = self._checked(samples)
        if not isinstance(start_ns, int | np.integer):
            return [], self._refuse(f"start time {start_ns!r}", self.time_ns(self._passed))
        start_ns = int(start_ns)
        if isinstance(array, str):
            return [], self._refuse(array, start_ns)
        self._refused = False
        said: list[Quality] = []
        arrived = self._passed + self._pending.shape[1]
        if self._anchor_ns is None:
            self._anchor_ns, self._anchor = start_ns, arrived
        ahead = round((start_ns - self.time_ns(arrived)) / self._step_ns)
        if ahead < 0:
            said += self._overlap(min(-ahead, array.shape[1]), start_ns)
            start_ns += round(-ahead * self._step_ns)
            array = array[:, -ahead:]
            if not array.shape[1]:
                return [], said
            ahead = 0
        runs: list[Run] = []
        if ahead > 0:
            hole = min(ahead, self._bridge + 1)
            missing = np.full((len(array), hole), np.nan)
            more, words = self._complete(missing)
            runs += more
            said += words
            arrived += hole
        if ahead > self._bridge or abs(start_ns - self.time_ns(arrived)) > _JITTER_NS:
            self._anchor_ns, self._anchor = start_ns, arrived
        if self._whole and (array.dtype == _COUNTS or abs(float(array.sum())) < _IMPOSSIBLE):
            return [*runs, self._run(array)], said
        more, words = self._complete(self._possible(array, arrived, said))
        return runs + more, said + words

    def _follows(self, samples: object, start_ns: object) -> TypeGuard[NDArray[np.int32]]:
        """Whether these are counts of every row that come when they should, as nearly all do."""
        return (
            self._whole
            and type(samples) is np.ndarray
            and samples.dtype == _COUNTS
            and samples.ndim == 2
            and len(samples) == len(self._channels)
            and samples.shape[1] > 0
            and type(start_ns) is int
            and -_JITTER_NS <= start_ns - self.time_ns(self._passed) <= _JITTER_NS
        )

    def _run(self, array: NDArray[np.int32] | Float) -> Run:
        """All of it, where nothing is missing and nothing waits."""
        run = Run(self._passed, self.time_ns(self._passed), array)
        self._passed += array.shape[1]
        self._value = array[:, -1].tolist()
        return run

    def _checked(self, samples: object) -> NDArray[np.int32] | Float | str:
        """The samples as an array to work on, or what is wrong with them."""
        try:
            array = np.asarray(samples)
        except (TypeError, ValueError) as error:
            return f"samples that are no array: {error}"
        if array.dtype not in (_COUNTS, _NUMBERS):
            if array.dtype.kind not in "iuf":
                return f"samples of type {array.dtype}"
            array = array.astype(np.float64)
        if array.ndim != 2 or array.shape[0] != len(self._channels) or not array.shape[1]:
            return f"samples of shape {array.shape}, expected ({len(self._channels)}, n)"
        return array

    def _refuse(self, detail: str, start_ns: int) -> list[Quality]:
        if self._refused:
            return []
        self._refused = True
        return [Quality(channel, "invalid", start_ns, detail) for channel in self._channels]

    def _overlap(self, columns: int, start_ns: int) -> list[Quality]:
        self._overlap_count += columns
        now_ns = self.time_ns(self._passed + self._pending.shape[1])
        if self._overlap_ns and now_ns - self._overlap_ns < _REPEAT_S * NS:
            return []
        detail = f"{self._overlap_count} samples seen before were dropped"
        self._overlap_ns, self._overlap_count = now_ns, 0
        return [Quality(c, "overlap", start_ns, detail, now_ns) for c in self._channels]

    def _possible(self, array: NDArray[np.int32] | Float, first: int, said: list[Quality]) -> Float:
        """Infinite and absurd samples become missing ones."""
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(array) < _IMPOSSIBLE) & ~np.isnan(array)
        for row, channel in enumerate(self._channels):
            bad = np.flatnonzero(wrong[row])
            if len(bad) and not self._invalid[row]:
                when = self.time_ns(first + int(bad[0]))
                said.append(Quality(channel, "invalid", when, f"sample {array[row, bad[0]]}", when))
            self._invalid[row] = bool(len(bad))
        return np.where(wrong, np.nan, array) if wrong.any() else array.astype(np.float64)

    def _complete(self, array: Float) -> tuple[list[Run], list[Quality]]:
        """Hold back from the first hole that may yet be bridged; mend and cut what is before it."""
        columns = np.concatenate([self._pending, array], axis=1)
        holes = [_runs(missing) for missing in np.isnan(columns)]
        n = keep = columns.shape[1]
        for row, found in enumerate(holes):
            if found and found[-1][1] == n and n - found[-1][0] <= self._bridge:
                start = found[-1][0]
                spoke = found[-2][1] < start if len(found) > 1 else start > 0
                if spoke or self.live[row]:
                    keep = min(keep, start)
        said: list[Quality] = []
        cuts: dict[int, tuple[list[int], list[int]]] = {0: ([], [])}
        for row, found in enumerate(holes):
            said += self._mend(row, columns[row], found, keep, cuts)
        self._pending = columns[:, keep:]
        runs = []
        edges = [*sorted(cuts), keep]
        for start, end in pairwise(edges):
            if end > start:
                fresh, lost = cuts[start]
                part = columns[:, start:end]
                runs.append(
                    Run(
                        self._passed,
                        self.time_ns(self._passed),
                        part,
                        tuple(fresh),
                        tuple(lost),
                    )
                )
                self._passed += end - start
        if keep:
            self._value = columns[:, keep - 1].tolist()
        self._whole = bool(self.live.all()) and not any(self._invalid) and keep == n
        return runs, said

    def _mend(
        self,
        row: int,
        values: Float,
        holes: list[tuple[int, int]],
        keep: int,
        cuts: dict[int, tuple[list[int], list[int]]],
    ) -> list[Quality]:
        """Fill a row's holes that begin before ``keep``; note where the row is lost and returns."""
        said = []
        channel, first, n = self._channels[row], self._passed, len(values)
        if not self.live[row] and keep and not (holes and holes[0][0] == 0):
            said += self._returns(row, 0, cuts)
        for start, end in holes:
            if start >= keep:
                break
            before = float(values[start - 1]) if start else self._value[row]
            if self.live[row] and end < n and end - start <= self._bridge:
                share = np.arange(1, end - start + 1) / (end - start + 1)
                values[start:end] = before + share * (values[end] - before)
                continue
            if self.live[row]:
                self.live[row] = False
                self._missing_since_ns[row] = self.time_ns(first + start)
                cuts.setdefault(start, ([], []))[1].append(row)
                decided = self.time_ns(first + start + self._bridge)
                when = self.time_ns(first + start)
                said.append(Quality(channel, "gap", when, "detection begins anew", decided))
            values[start : min(end, keep)] = before
            if end < keep:
                said += self._returns(row, end, cuts)
        return said

    def _returns(
        self, row: int, at: int, cuts: dict[int, tuple[list[int], list[int]]]
    ) -> list[Quality]:
        self.live[row] = True
        cuts.setdefault(at, ([], []))[0].append(row)
        if not self._seen[row]:
            self._seen[row] = True
            return []
        now_ns = self.time_ns(self._passed + at)
        gone_s = (now_ns - self._missing_since_ns[row]) / NS
        detail = f"gap of {gone_s:.2f} s"
        return [Quality(self._channels[row], "recovered", now_ns, detail, ended="gap")]


class _Fault(Enum):
    NONE = ""
    FLAT = "flat"
    CLIPPED = "clipped"
    DEAD = "dead"


@dataclass(slots=True)
class _Health:
    fault: _Fault = _Fault.NONE
    flat_s: int = 0
    missing_s: int = 0
    unclipped_s: int = 0


class ChannelHealth:
    """Looks at each whole second of every channel's raw samples."""

    def __init__(self, channels: Sequence[str]) -> None:
        self._channels = tuple(channels)
        self._health = [_Health() for _ in channels]

    @property
    def faults(self) -> list[str]:
        """What is wrong with each channel now; empty where nothing is."""
        return [health.fault.value for health in self._health]

    def mute(self, row: int) -> bool:
        """Whether a channel has nothing to say, its data notwithstanding."""
        return self._health[row].fault in (_Fault.FLAT, _Fault.DEAD)

    def second(self, raw: Float, live: NDArray[np.bool_], end_ns: int) -> list[tuple[int, Quality]]:
        """Take a second of (rows, n) that ends at ``end_ns``; rows not ``live`` have no samples.

        Gives what has changed, with its row.
        """
        least, most = raw.min(axis=1), raw.max(axis=1)
        still = least == most
        # one count over all rows costs a quarter of one by rows, and mostly says enough
        at_ends = [raw == most[:, None], raw == least[:, None]]
        suspect = live & ~still
        if max(np.count_nonzero(at_end) for at_end in at_ends) < len(raw) + _PLATEAU - 1:
            suspect[:] = False
        else:
            suspect &= np.max([at_end.sum(axis=1) for at_end in at_ends], axis=0) >= _PLATEAU
        said = []
        for row, health in enumerate(self._health):
            if not live[row]:
                health.missing_s += 1
                health.flat_s = 0
            elif still[row]:
                health.flat_s += 1
                health.missing_s = 0
            else:
                health.flat_s = health.missing_s = 0
            health.unclipped_s += 1
            if suspect[row] and clipped(raw[row]):
                health.unclipped_s = 0
            fault = _fault(health)
            if fault is health.fault:
                continue
            kind = fault.value or "recovered"
            ended = health.fault.value if fault is _Fault.NONE else ""
            health.fault = fault
            said.append((row, Quality(self._channels[row], kind, end_ns, ended, ended=ended)))
        return said


def _fault(health: _Health) -> _Fault:
    if max(health.flat_s, health.missing_s) >= _DEAD_S:
        return _Fault.DEAD
    if health.flat_s >= _FLAT_S:
        return _Fault.FLAT
    if health.unclipped_s < _UNCLIPPED_S and (
        health.unclipped_s == 0 or health.fault is _Fault.CLIPPED
    ):
        return _Fault.CLIPPED
    return _Fault.NONE


def clipped(raw: Float) -> bool:
    """Whether a trace (n,) stands still at an end of its range, entered and left abruptly.

    The crest of a slow wave stands still as well, but is reached by steps of a count or two.
    """
    for trace in (raw, -raw):
        for start, end in _runs(trace == trace.max()):
            if end - start >= _PLATEAU and start > 0 and end < len(trace):
                least = np.abs(np.diff(trace))
                step = min(abs(trace[start] - trace[start - 1]), abs(trace[end - 1] - trace[end]))
                if step >= _ABRUPT * least[least > 0].min():
                    return True
    return False


class StationNoise:
    """How far the trigger threshold of each channel is raised for the noise of the past hour.

    What a channel's energy ratio exceeds for four seconds an hour, earthquakes aside, is its
    ordinary noise; a threshold below that would call it an earthquake every hour. Where even
    twice the threshold is below that, the channel is too noisy to be believed.
    """

    def __init__(self, channels: Sequence[str], trigger_on: float) -> None:
        self._channels = tuple(channels)
        self._on = trigger_on
        rows = len(self._channels)
        self._counts = np.zeros((rows, len(_RATIO_BINS) + 1), dtype=np.int64)
        self._seconds = 0
        self._noisy = np.zeros(rows, dtype=bool)
        self.thresholds: Float = np.full(rows, trigger_on)

    def second(
        self, ratios: Float, quiet: NDArray[np.bool_], end_ns: int
    ) -> list[tuple[int, Quality]]:
        """Count the ratio of each ``quiet`` row; gives what an hour of them changes, by row."""
        for row in np.flatnonzero(quiet):
            self._counts[row, bisect_left(_RATIO_BINS, ratios[row])] += 1
        self._seconds += 1
        if self._seconds < _ADAPT_S:
            return []
        self._seconds = 0
        total = self._counts.sum(axis=1, keepdims=True)
        above = total - np.cumsum(self._counts, axis=1)
        rare = np.array([*_RATIO_BINS, np.inf])[np.argmax(above <= _RARE * total, axis=1)]
        self._counts[:] = 0
        noisy = rare > _MOST * self._on
        now = np.clip(rare, self._on, _MOST * self._on)
        said = []
        for row in np.flatnonzero(np.abs(now - self.thresholds) > _NOTABLE * self.thresholds):
            self.thresholds[row] = now[row]
            detail = f"trigger_on {now[row]:.1f} for the noise of the past hour"
            said.append((int(row), self._say(int(row), "threshold", end_ns, detail)))
        for row in np.flatnonzero(noisy != self._noisy):
            kind, ended = ("noise", "") if noisy[row] else ("recovered", "noise")
            detail = (
                ended or f"{_MOST * self._on:g} times its own noise at least every quarter hour"
            )
            said.append((int(row), self._say(int(row), kind, end_ns, detail, ended)))
        self._noisy = noisy
        return said

    def _say(self, row: int, kind: str, end_ns: int, detail: str, ended: str = "") -> Quality:
        return Quality(self._channels[row], kind, end_ns, detail, ended=ended)


class ChannelHours:
    """Sums up each hour of every channel, to the second."""

    def __init__(self, channels: Sequence[str], bands: Sequence[str]) -> None:
        self._channels, self._bands = tuple(channels), tuple(bands)
        rows = len(self._channels)
        self._seconds = 0
        self._since_ns: int | None = None
        self._power = np.zeros((rows, len(self._bands)))
        self._quiet, self._whole, self._flat, self._clipped, self._gaps, self._spikes = (
            np.zeros(rows, dtype=np.int64) for _ in range(6)
        )

    def gap(self, row: int) -> None:
        """Count a hole that was too long to be bridged."""
        self._gaps[row] += 1

    def spike(self, row: int) -> None:
        """Count a spike."""
        self._spikes[row] += 1

    def second(
        self,
        power: Float,
        live: NDArray[np.bool_],
        quiet: NDArray[np.bool_],
        faults: Sequence[str],
        end_ns: int,
        thresholds: Float,
    ) -> list[tuple[int, ChannelReport]]:
        """Take a second's mean squares (rows, bands); gives the reports that an hour completes.

        ``live`` rows had all samples, ``quiet`` ones no trigger; ``faults`` are those that last.
        """
        if self._since_ns is None:
            self._since_ns = end_ns - NS
        heard = live & quiet
        self._whole += live
        self._quiet += heard
        self._power += power * heard[:, None]
        if any(faults):
            self._flat += [fault in ("flat", "dead") for fault in faults] & live
            self._clipped += [fault == "clipped" for fault in faults] & live
        self._seconds += 1
        if self._seconds < _ADAPT_S:
            return []
        reports = [
            (row, self._report(row, end_ns, float(thresholds[row])))
            for row in range(len(self._channels))
        ]
        self._seconds, self._since_ns = 0, end_ns
        for counter in (self._power, self._quiet, self._whole, self._flat, self._clipped):
            counter[:] = 0
        self._gaps[:] = self._spikes[:] = 0
        return reports

    def _report(self, row: int, end_ns: int, trigger_on: float) -> ChannelReport:
        since_ns, quiet = self._since_ns or 0, int(self._quiet[row])
        rms = [
            float(f"{(power / quiet) ** 0.5:.4g}") if quiet else None
            for power in self._power[row].tolist()
        ]
        return ChannelReport(
            channel=self._channels[row],
            since_ns=since_ns,
            time_ns=end_ns,
            completeness=round(min(1.0, int(self._whole[row]) * NS / (end_ns - since_ns)), 4),
            rms=dict(zip(self._bands, rms, strict=True)),
            gaps=int(self._gaps[row]),
            spikes=int(self._spikes[row]),
            flat_s=int(self._flat[row]),
            clipped_s=int(self._clipped[row]),
            trigger_on=round(trigger_on, 2),
        )


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and end of each run of True."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
