"""The seismic detector of one digitiser: packets in, decisions out.

Every packet takes one pass over all channels: band-pass filters, energies, averages, one
comparison. Only where that shows something does a row's own :class:`_Watch` go on from there, at
the very sample, so that nothing depends on how the stream is cut.

A watch settles for 4 s, listens, and on a trigger (its LTA frozen) examines the samples until it
can say onset or not, at most half a second later. While shaking lasts, it can be triggered anew by
what stands out from the coda: in the upper band, where a coda is weak (the earthquake's own high
frequencies are attenuated first), or by growing far beyond what has been judged before.

The three components of one sensor speak for one arrival. The vertical declares it, because that
is where a P wave is strongest; horizontals do so together, or alone where there is no vertical.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from gateway.detect import discriminate, onset
from gateway.detect.filters import (
    MAX_RUN,
    NYQUIST_SHARE,
    BlockFilter,
    Float,
    Section,
    StateSpace,
    butterworth,
)
from gateway.detect.ground_motion import LOWEST_RATE_HZ, GroundMotionMeter
from gateway.detect.quality import ChannelHealth, ChannelHours, Intake, Run, StationNoise
from gateway.detect.settings import SeismicSettings, Sensitivity
from gateway.detect.sta_lta import StaLta, Tracks, Windows
from gateway.events import NS, Candidate, Decision, Onset, Quality, Rejected

_DETECTION, _CANDIDATE = 0, 1

_ARM_S = 4.0
_CANDIDATE_WINDOWS = Windows(sta_s=0.3, lta_s=10.0)
_CANDIDATE_OFF = 0.5
"""Share of ``candidate_on`` below which a candidate has ended."""

_CALM = 0.5
"""Share of ``trigger_on`` below which the ratio must have been before it can trigger."""
_BUFFER_S = 5.0
_LOOK_EVERY_S = 0.1
_DEAD_S = 2.0
_ESCALATION = 4.0
"""Growth of the ratio, 6 dB of amplitude, that has a rejected trigger looked at again."""

_FEW_ROWS = 6
"""With more rows a product of matrices is faster than plain arithmetic even for one sample."""

_YOUNG_S = 0.1
"""Of an arrival that is younger nothing can be said. If it comes at the end of a look, it is not
what has triggered, and is examined for itself."""

_BRIEF = frozenset({"spike", "step", "short"})
"""Rejections that say that it is over."""

_SURPASSED = 10.0
"""Growth of the ratio, 10 dB, beyond which an onset was that of something lesser: a knock or a
foreshock seconds before must not hide an earthquake."""

_TOGETHER_S = 0.5
"""Components whose onsets are within this time of one another see the same arrival."""

_COMPANY = 3.0
"""Ratio on another component that says that the ground has moved, and not one channel alone. The
mean of half a second of noise exceeds three times its average once in some thousand."""


class _State(Enum):
    SETTLING = auto()
    LISTENING = auto()
    EXAMINING = auto()
    SHAKING = auto()


@dataclass(slots=True)
class _Watch:
    """Where one row's detection stands; all numbers are indices of columns."""

    row: int
    live: bool = False
    born: int = 0
    state: _State = _State.SETTLING
    armed: int = 0
    trigger: int = 0
    look: int = 0
    frozen_since: int = 0
    again: int = 0
    judged: float = math.inf
    moved: bool = False
    over: int = 0
    """What lies before this has ended, and is no part of a later arrival."""
    high: bool = False
    candidate: bool = False

    def begin(self, armed: int) -> None:
        self.state, self.armed, self.candidate = _State.SETTLING, armed, False


class _History:
    """The last seconds of every row: raw, and in both bands."""

    def __init__(self, rows: int, length: int) -> None:
        self._rows, self._length = rows, length
        self._data = np.zeros((rows, 3, length + length // 4 + 2 * MAX_RUN))
        self._at = length
        self._end = 0
        self._single: list[list[float]] = []

    def append(self, raw: NDArray[np.int32] | Float, filtered: Float) -> None:
        """Raw samples (rows, n), and the filter's run of them: (rows, ≥ 2 · n)."""
        if self._single:
            self._gather()
        n = raw.shape[1]
        self._put(raw, filtered[:, : 2 * n].reshape(self._rows, 2, n))

    def append_single(self, sample: list[float]) -> None:
        """One sample: the raw values of all rows, then those of one band after the other."""
        if len(self._single) == 2 * MAX_RUN:
            self._gather()
        self._single.append(sample)

    def tidy(self) -> None:
        """Put single samples in their place where they have become many."""
        if len(self._single) >= MAX_RUN:
            self._gather()

    def _gather(self) -> None:
        block = np.array(self._single).T.reshape(3, self._rows, -1)
        self._single.clear()
        self._put(block[0], block[1:].swapaxes(0, 1))

    def _put(self, raw: NDArray[np.int32] | Float, filtered: Float) -> None:
        n = raw.shape[1]
        if self._at + n > self._data.shape[2]:
            self._data[:, :, : self._length] = self._data[:, :, self._at - self._length : self._at]
            self._at = self._length
        end = self._at + n
        self._data[:, 0, self._at : end] = raw
        self._data[:, 1:, self._at : end] = filtered
        self._at = end
        self._end += n

    def raw(self, first: int, end: int) -> Float:
        """Raw samples of every row in columns [first, end)."""
        raw: Float = self._columns(first, end)[:, 0]
        return raw

    def bands(self, first: int, end: int) -> Float:
        """Samples of both bands of every row in columns [first, end), (rows, 2, n)."""
        shift = self._at - self._end
        return self._data[:, 1:, first + shift : end + shift]

    def row(self, row: int, first: int, end: int) -> Float:
        """Raw samples and those of both bands in columns [first, end), (3, n)."""
        every: Float = self._columns(first, end)[row]
        return every

    def _columns(self, first: int, end: int) -> Float:
        if self._single:
            self._gather()
        shift = self._at - self._end
        return self._data[:, :, first + shift : end + shift]


@dataclass(slots=True)
class _Sensor:
    """Channels that differ in orientation alone."""

    rows: list[int]
    verticals: list[int]
    meter: GroundMotionMeter | None = None
    meter_rows: list[int] = field(default_factory=list)
    spoken: "_Found | None" = None
    """The onset that was declared last."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A decision with the index of its deciding sample and its row."""

    index: int
    row: int
    decision: Decision


class SeismicDetector:
    """Detects P arrivals, and measures the shaking that follows where sensitivities are known.

    Args:
        channels: NET.STA.LOC.CHA of each row.
        sampling_rate_hz: nominal rate of all rows.
        settings: defaults follow the rate where they must.
        sensitivities: one a channel, None where unknown.

    Raises:
        ValueError: no channels, a rate that is no positive finite number or too low for the band,
            settings out of range, or as many sensitivities as there are not channels.
    """

    def __init__(
        self,
        channels: Sequence[str],
        sampling_rate_hz: float,
        settings: SeismicSettings | None = None,
        *,
        sensitivities: Sequence[Sensitivity | None] | None = None,
    ) -> None:
        self._settings = settings or SeismicSettings()
        self._channels = tuple(channels)
        self._rate = rate = _checked_rate(sampling_rate_hz)
        rows = len(self._channels)
        if not rows:
            raise ValueError("a detector needs at least one channel")
        if sensitivities is not None and len(sensitivities) != rows:
            raise ValueError(f"{len(sensitivities)} sensitivities for {rows} channels")
        self._intake = Intake(self._channels, rate)
        self._filter = BlockFilter(StateSpace.of(*_bands(self._settings, rate)), rows)
        self._step_response = _step_response(
            _bands(self._settings, rate)[_DETECTION], math.ceil((_BUFFER_S + 1) * rate)
        )
        windows = Windows(self._settings.sta_s, self._settings.lta_s)
        self._averages = StaLta(
            (windows, _CANDIDATE_WINDOWS),
            rows,
            rate,
            (self._settings.trigger_on, self._settings.candidate_on),
        )
        self._on = np.empty((rows, 2, 1))
        self._on[:, _DETECTION] = self._settings.trigger_on
        self._on[:, _CANDIDATE] = self._settings.candidate_on
        self._tracks: Tracks | None = None
        """Where single samples go on; only while every row has begun and no LTA is held."""
        self._few = rows <= _FEW_ROWS
        self._history = _History(
            rows, math.ceil((_BUFFER_S + self._settings.min_duration_s) * rate)
        )
        self._watches = [_Watch(row) for row in range(rows)]
        self._second = max(1, round(rate))
        self._health = ChannelHealth(self._channels)
        self._noise = StationNoise(self._channels, self._settings.trigger_on)
        bands = (self._settings.band_hz, self._settings.candidate_band_hz)
        self._hours = ChannelHours(self._channels, [f"{low:g}-{high:g} Hz" for low, high in bands])
        self._busy = True
        self._sensors = _sensors(self._channels, sensitivities or [None] * rows, rate)
        self._metered = [sensor for sensor in self._sensors if sensor.meter]
        self._sensor_of = {row: sensor for sensor in self._sensors for row in sensor.rows}
        self._found: list[_Found] = []
        self._at = (0, 0)
        self._over: int | None = None
        """The column with which a second was over that has not been looked at yet."""

    def process(
        self, samples: NDArray[np.int32] | NDArray[np.float64], start_ns: int
    ) -> list[Decision]:
        """Take samples of shape (channels, n), NaN missing, the first column at ``start_ns``.

        Gives what these samples decide, ordered by time of decision, then channel.
        """
        out = self.decide(samples, start_ns)
        if said := self.look():
            out += said
            out.sort(key=_order)
        return out

    def look(self) -> list[Decision]:
        """Look at the second that the last samples have ended, if they did: its noise and health.

        What this does and gives, no siren waits for: the other half of :meth:`process`.
        """
        if self._over is None:
            self._history.tidy()
            return []
        self._look_back()
        out: list[Decision] = []
        self._agree(out)
        out.sort(key=_order)
        return out

    def decide(
        self, samples: NDArray[np.int32] | NDArray[np.float64], start_ns: int
    ) -> list[Decision]:
        """Take samples as :meth:`process` does, and leave the second that they end to :meth:`look`.

        Where nobody calls that, it is looked at with the next samples.
        """
        out: list[Decision] = []
        pieces: list[tuple[Run, list[bool]]] = []
        if self._over is not None:
            self._look_back()
        if self._tracks and (scan := self._intake.scan(samples, start_ns)):
            first, at_ns, values = scan
            self._at = first, at_ns
            if self._step(self._tracks, values):
                self._watch(first)
            if (first + 1) % self._second == 0:
                self._over = first + 1
            if self._metered:
                pieces.append((Run(first, at_ns, samples), self._live()))
        else:
            runs, said = self._intake.take(samples, start_ns)
            out += said
            for run in runs:
                self._take(run)
                if self._metered:
                    pieces.append((run, self._live()))
        begun = self._agree(out) if self._found else []
        for sensor in self._metered:
            for run, live in pieces:
                out += self._measure(sensor, run, live, begun)
        out.sort(key=_order)
        return out

    def _live(self) -> list[bool]:
        return [watch.live for watch in self._watches]

    def _take(self, run: Run) -> None:
        self._look_back()
        self._at = run.first, run.start_ns
        for row in run.lost:
            self._lose(self._watches[row], run.first)
        for row in run.fresh:
            self._begin(row, run.first)
        columns = run.columns
        start = 0
        while start < columns.shape[1]:
            self._look_back()
            first = run.first + start
            raw = columns[:, start : start + min(MAX_RUN, self._second - first % self._second)]
            n = raw.shape[1]
            if self._excited(raw):
                self._watch(first)
            start += n
            if (first + n) % self._second == 0:
                self._over = first + n

    def _watch(self, first: int) -> None:
        """Have every watch follow the columns that were averaged last, from ``first`` on."""
        over = self._averages.sta > self._on * self._averages.lta
        self._busy = False
        for watch in self._watches:
            if watch.live:
                self._watch_candidate(watch, first, over)
        self._watch_onsets(first, over)

    def _excited(self, raw: NDArray[np.int32] | Float) -> bool:
        """Filter, average and keep a run; whether the watches have to look at it."""
        n = raw.shape[1]
        if self._few and n == 1 and not (self._averages.held or self._filter.fresh):
            self._tracks = self._tracks or self._begin_tracks()
            return self._step(self._tracks, raw[:, 0].tolist())
        if self._tracks:
            self._leave_tracks(self._tracks)
        filtered = self._filter.run(raw)
        self._history.append(raw, filtered)
        excited = self._averages.process(filtered, n)
        return excited or self._busy

    def _step(self, tracks: Tracks, sample: list[float]) -> bool:
        """The same for a single sample, in plain arithmetic."""
        excited = tracks.step(sample) or self._busy
        self._history.append_single(sample)
        if excited:
            self._averages.adopt(tracks)
        return excited

    def _leave_tracks(self, tracks: Tracks) -> None:
        """Go on from the tracks by products of matrices."""
        self._averages.adopt(tracks)
        self._filter.state = tracks.state
        self._tracks = None

    def _begin_tracks(self) -> Tracks:
        """Tracks of every row that go on from the filters and averages as they are."""
        detection, candidate = _bands(self._settings, self._rate)
        windows = Windows(self._settings.sta_s, self._settings.lta_s)
        return Tracks(
            [
                (detection, windows, self._settings.trigger_on),
                (candidate, _CANDIDATE_WINDOWS, self._settings.candidate_on),
            ],
            self._rate,
            baseline=self._filter.baseline,
            state=self._filter.state,
            averages=self._averages.last,
            counts=self._averages.counts,
        )

    def _begin(self, row: int, index: int) -> None:
        """A row begins, or begins anew, at column ``index``."""
        if self._tracks:
            self._leave_tracks(self._tracks)
        self._filter.restart(row)
        self._averages.restart(row)
        watch = self._watches[row]
        watch.live, watch.born = True, index
        watch.begin(index + round(_ARM_S * self._rate))
        self._busy = True

    def _time_ns(self, index: int) -> int:
        """Time of a column of the present run, or of one before it without a gap between."""
        first, start_ns = self._at
        return start_ns + round((index - first) * NS / self._rate)

    def _lose(self, watch: _Watch, first: int) -> None:
        """A row's data have ended; what was being examined can't be decided any more."""
        watch.live = False
        self._hours.gap(watch.row)
        if watch.state is _State.EXAMINING:
            when = self._time_ns(watch.trigger)
            declared = self._time_ns(first)
            self._find(first, watch.row, Rejected(self._channels[watch.row], when, declared, "gap"))

    def _look_back(self) -> None:
        """Look at the second of columns that is over."""
        if self._over is None:
            return
        end, self._over = self._over, None
        live = np.array(
            [watch.live and watch.born <= end - self._second for watch in self._watches]
        )
        raw = self._history.raw(end - self._second, end)
        when = self._time_ns(end - 1)
        mute = [self._health.mute(row) for row in range(len(self._channels))]
        for row, quality in self._health.second(raw, live, when):
            self._find(end - 1, row, quality)
            if live[row] and mute[row] and not self._health.mute(row):
                self._begin(row, end)
        if self._tracks:
            self._averages.adopt(self._tracks)
        last = self._averages.last
        sta, lta = last[:, _DETECTION], last[:, 2 + _DETECTION]
        quiet = np.array(
            [watch.live and watch.state is _State.LISTENING for watch in self._watches]
        )
        for row, quality in self._noise.second(sta / np.where(lta > 0.0, lta, np.inf), quiet, when):
            self._on[row, _DETECTION] = self._noise.thresholds[row]
            self._find(end - 1, row, quality)
        bands = self._history.bands(end - self._second, end)
        power = (bands * bands).sum(axis=2) / self._second
        for row, report in self._hours.second(
            power, live, quiet, self._health.faults, when, self._noise.thresholds
        ):
            self._find(end - 1, row, report)

    def _ratio(self, band: int, row: int, column: int) -> float:
        lta = float(self._averages.lta[row, band, column])
        return float(self._averages.sta[row, band, column]) / max(lta, np.finfo(float).tiny)

    def _watch_candidate(self, watch: _Watch, first: int, over: NDArray[np.bool_]) -> None:
        n = over.shape[2]
        row, column = watch.row, max(0, watch.armed - first)
        while column < n:
            if watch.candidate:
                off = _CANDIDATE_OFF * self._on[row, _CANDIDATE, 0]
                ended = (
                    self._averages.sta[row, _CANDIDATE] < off * self._averages.lta[row, _CANDIDATE]
                )
                column = _next(ended, column)
                watch.candidate = column == n
            else:
                column = _next(over[row, _CANDIDATE], column)
                if column < n:
                    watch.candidate = True
                    when = self._time_ns(first + column)
                    ratio = self._ratio(_CANDIDATE, row, column)
                    self._find(first + column, row, Candidate(self._channels[row], when, ratio))
            column += 1
        self._busy |= watch.candidate

    def _find(self, index: int, row: int, decision: Decision) -> None:
        self._found.append(_Found(index, row, decision))

    def _alone(self, row: int, now: int, column: int, *, last: bool) -> bool:
        """Whether a horizontal shakes with no other component, though the vertical hears.

        Until the last look it also lets the vertical speak first.
        """
        sensor = self._sensor_of[row]
        hearing = [at for at in sensor.rows if at != row and self._hears(at, now)]
        verticals = [at for at in hearing if at in sensor.verticals]
        if row in sensor.verticals or not verticals:
            return False
        if not last and any(self._watches[at].state is _State.EXAMINING for at in verticals):
            return True
        least = _COMPANY if last else float(self._on[row, _DETECTION, 0])
        return not any(self._ratio(_DETECTION, at, column) > least for at in hearing)

    def _hears(self, row: int, index: int) -> bool:
        """Whether a row is in a state to see an arrival at column ``index``."""
        watch = self._watches[row]
        settled = index >= watch.born + round(_ARM_S * self._rate)
        return watch.live and settled and not self._health.mute(row)

    def _watch_onsets(self, first: int, over: NDArray[np.bool_]) -> None:
        """Follow every row through the columns of this run.

        A look at one row sees the others, so all have come as far as that when it is taken.
        """
        n = over.shape[2]
        looks = [
            (column, watch.row)
            for watch in self._watches
            if watch.live and (column := self._to_look(watch, first, 0, over)) < n
        ]
        while looks:
            look = min(looks)
            looks.remove(look)
            column, row = look
            watch = self._watches[row]
            self._look(watch, first + column, column)
            if (column := self._to_look(watch, first, column + 1, over)) < n:
                looks.append((column, row))

    def _to_look(self, watch: _Watch, first: int, column: int, over: NDArray[np.bool_]) -> int:
        """Follow one row from ``column`` on; gives that of its next look, or the run's end."""
        row, n = watch.row, int(over.shape[2])
        while column < n:
            if watch.state is _State.SETTLING:
                calm = self._averages.sta[row, _DETECTION] < (
                    _CALM * self._on[row, _DETECTION] * self._averages.lta[row, _DETECTION]
                )
                column = _next(calm, max(column, watch.armed - first))
                if column < n:
                    watch.state = _State.LISTENING
            elif watch.state is _State.LISTENING:
                column = _next(over[row, _DETECTION], column)
                if column < n:
                    if self._tracks:
                        self._leave_tracks(self._tracks)
                    self._averages.hold(row, _DETECTION, column)
                    watch.frozen_since = first + column
                    self._trigger(watch, first + column)
                    column += 1
            elif watch.state is _State.EXAMINING:
                if (column := watch.look - first) < n:
                    return column
            else:
                column = self._shake(watch, first, column)
        self._busy |= watch.state is not _State.LISTENING
        return n

    def _trigger(self, watch: _Watch, index: int, *, moved: bool = False) -> None:
        watch.state, watch.trigger, watch.high, watch.moved = _State.EXAMINING, index, True, moved
        watch.look = index + max(1, round(self._settings.min_duration_s * self._rate))

    def _shake(self, watch: _Watch, first: int, column: int) -> int:
        """From ``column`` on: the end of the shaking, or a trigger in it. Gives the next column."""
        row = watch.row
        sta, lta = self._averages.sta[row], self._averages.lta[row]
        n = int(sta.shape[1])
        quiet = _next(sta[_DETECTION] < self._settings.trigger_off * lta[_DETECTION], column)
        limit: int = (
            watch.frozen_since + round(self._settings.lta_freeze_max_s * self._rate) - first
        )
        anew = min(
            self._rise(watch, max(column, watch.again - first)),
            _next(sta[_DETECTION] > watch.judged * lta[_DETECTION], column),
        )
        end = min(quiet, max(limit, column), anew)
        if end >= n:
            return n
        if end == anew and anew < quiet:
            self._trigger(watch, first + end)
        else:
            self._averages.release(row, _DETECTION, end)
            watch.begin(first + end + 1)
        return end + 1

    def _rise(self, watch: _Watch, column: int) -> int:
        """Where the upper band rises above the threshold, having been below half of it."""
        sta, lta = (
            self._averages.sta[watch.row, _CANDIDATE],
            self._averages.lta[watch.row, _CANDIDATE],
        )
        on = self._settings.trigger_on
        if watch.high:
            column = _next(sta < on / 2 * lta, column)
            watch.high = column == len(sta)
        column = _next(sta > on * lta, column)
        watch.high |= column < len(sta)
        return column

    def _look(self, watch: _Watch, now: int, column: int) -> None:
        """Judge a trigger by what has been seen up to column ``now``, or look again a bit later."""
        row, rate = watch.row, self._rate
        ratio = self._ratio(_DETECTION, row, column)
        first = max(
            watch.trigger - round(onset.LOOK_BACK_S * rate), watch.armed - round(rate), watch.over
        )
        raw, filtered, upper = self._history.row(row, first, now + 1)
        pick = onset.refine(filtered, rate)
        evidence = discriminate.Evidence(
            raw,
            filtered,
            upper,
            pick.index,
            watch.trigger - first,
            rate,
            self._step_response,
            in_coda=watch.trigger > watch.frozen_since,
        )
        since = now - first - pick.index
        young = since < round(_YOUNG_S * rate) and not watch.moved
        reason = "young" if young else discriminate.doubt(evidence)
        last = watch.trigger + round(discriminate.LAST_LOOK_S * rate)
        if reason is None and self._alone(row, now, column, last=now >= last):
            reason = "horizontal"
        when, declared = self._time_ns(first + pick.index), self._time_ns(now)
        if reason and now < last:
            watch.look = min(last, now + max(1, round(_LOOK_EVERY_S * rate)))
            return
        if young:
            self._trigger(watch, now - since, moved=True)
            return
        watch.state = _State.SHAKING
        channel = self._channels[row]
        if reason:
            watch.again, watch.judged = now + 1, _ESCALATION * ratio
            if reason in _BRIEF:
                watch.over = min(now, watch.trigger)
            self._find(now, row, Rejected(channel, when, declared, reason))
            if reason == "spike":
                self._hours.spike(row)
                self._find(now, row, Quality(channel, "spike", when, decided=declared))
            return
        watch.again, watch.judged = now + round(_DEAD_S * rate), _SURPASSED * ratio
        polarity = pick.polarity if channel[-1:] == "Z" else "unknown"
        self._find(
            now, row, Onset(channel, when, declared, ratio, pick.snr_db, polarity, pick.quality)
        )

    def _agree(self, out: list[Decision]) -> list[tuple[_Sensor, int, Onset]]:
        """What the sensors make of the decisions of their rows; gives the onsets with columns."""
        begun = []
        self._found.sort(key=lambda found: (found.index, self._channels[found.row]))
        for found in self._found:
            decision = found.decision
            if not isinstance(decision, Onset):
                out.append(decision)
                continue
            sensor = self._sensor_of[found.row]
            if sensor.spoken is None or self._is_another(sensor.spoken, found, decision):
                sensor.spoken = found
                out.append(decision)
                begun.append((sensor, found.index, decision))
        self._found = []
        return begun

    def _is_another(self, spoken: _Found, found: _Found, onset: Onset) -> bool:
        """Whether this is another arrival than the one that its sensor has spoken of."""
        earlier = spoken.decision
        if not isinstance(earlier, Onset) or onset.time_ns - earlier.time_ns <= _TOGETHER_S * NS:
            return False
        return (
            found.row == spoken.row
            or found.index - spoken.index >= self._settings.lta_freeze_max_s * self._rate
            or onset.ratio > _SURPASSED * earlier.ratio
        )

    def _measure(
        self,
        sensor: _Sensor,
        run: Run,
        live: list[bool],
        begun: list[tuple[_Sensor, int, Onset]],
    ) -> list[Decision]:
        """Run a sensor's meter over a run, cut where an onset was declared."""
        meter = sensor.meter
        if meter is None:
            return []
        columns = run.columns
        if len(sensor.meter_rows) < len(columns) or not all(live):
            columns = columns[sensor.meter_rows].astype(np.float64)
            columns[[not live[row] for row in sensor.meter_rows]] = np.nan
        out: list[Decision] = []
        at = 0
        for of, index, decision in begun:
            column = index - run.first
            if of is sensor and at <= column < columns.shape[1]:
                out += meter.process(
                    columns[:, at : column + 1], run.start_ns + round(at * NS / self._rate)
                )
                out += meter.begin(decision.time_ns, decision.declared_ns)
                at = column + 1
        out += meter.process(columns[:, at:], run.start_ns + round(at * NS / self._rate))
        return out


def _checked_rate(rate_hz: float) -> float:
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise ValueError(f"sampling rate {rate_hz!r}: expected a positive number of Hz")
    return float(rate_hz)


def _bands(settings: SeismicSettings, rate_hz: float) -> tuple[tuple[Section, ...], ...]:
    """Both bands, their upper corners below the anti-alias filter of this rate."""
    top = NYQUIST_SHARE * rate_hz
    low, high = settings.band_hz
    candidate_high = min(settings.candidate_band_hz[1], top)
    candidate_low = min(settings.candidate_band_hz[0], candidate_high / 2)
    return (
        butterworth(2, low, min(high, top), rate_hz),
        butterworth(2, candidate_low, candidate_high, rate_hz),
    )


def _step_response(band: Sequence[Section], n: int) -> Float:
    """What a filter makes of a unit step, (n,)."""
    step = np.ones((1, n + 1))
    step[0, 0] = 0.0
    return BlockFilter(StateSpace.of(band), 1).process(step)[0, 0, 1:]


def _sensors(
    channels: Sequence[str], sensitivities: Sequence[Sensitivity | None], rate_hz: float
) -> list[_Sensor]:
    """Channels by NET.STA.LOC and band and instrument code."""
    groups: dict[str, list[int]] = {}
    for row, channel in enumerate(channels):
        groups.setdefault(channel[:-1], []).append(row)
    sensors = []
    for rows in groups.values():
        sensor = _Sensor(rows, [row for row in rows if channels[row][-1:] == "Z"])
        known = {row: s for row in rows if (s := sensitivities[row]) is not None}
        if known and rate_hz >= LOWEST_RATE_HZ:
            sensor.meter_rows = list(known)
            sensor.meter = GroundMotionMeter(
                [channels[row] for row in known], list(known.values()), rate_hz
            )
        sensors.append(sensor)
    return sensors


def _next(mask: NDArray[np.bool_], start: int) -> int:
    """Index of the first True from ``start`` on, or the length of the mask."""
    if start >= len(mask):
        return len(mask)
    at = start + int(np.argmax(mask[start:]))
    return at if mask[at] else len(mask)


def _order(decision: Decision) -> tuple[int, str]:
    return decision.decided_ns, str(getattr(decision, "channel", getattr(decision, "station", "")))
