"""The archive: every sample of every channel on disk, as it comes, for as long as there is room.

Records are written when they are full, and after ``record_age_s`` at the latest; in the worst case
a crash loses what is in no record yet. Files and folders: ``gateway.uplink.sds``; records, their
time quality and flags: ``gateway.uplink.mseed``.

**Nothing overlaps.** Each channel has one end: the time up to which it is archived, read from its
last record when the archive is opened. Samples that begin within half a period of it follow on.
Later ones are a gap: the record is closed and the next begins a series. Earlier ones are of a time
that is archived already, and never get there a second time:

==================================  ==============================================================
why they come again                 what becomes of them
==================================  ==============================================================
the uplink was away and the core    dropped: they are the same samples. That is so as long as a
gives what its ring still holds     channel has had nothing new since the start
the clock was corrected backwards   archived under ``ROOT/overlap``, in folders of the same form,
                                    which does not overlap itself either: what has no place there
                                    is dropped and counted
==================================  ==============================================================

**Room.** The oldest day goes when all days together are over the quota, when it is older than
``days``, or when the disk has less than ``reserve_mb`` left, so that the outbox beside it never
meets a full disk because of the archive. Days are counted back from the newest of which the time
was sure, for a wrong clock must not cost the archive.

**A disk that fails** (full, read-only, gone) is stated. Records then wait in memory, 4 MiB of them,
the oldest go first and are counted; it is tried again every 5 s, and heals by itself.

**Quality log**, JSON lines in ``ROOT/quality/YEAR/YEAR.DOY.jsonl``, each with ``time`` and
``kind``:

=================  ===============================================================================
kind               further keys
=================  ===============================================================================
gap                ``channel``, ``until`` (``time`` is where samples end), ``missing_s``
overlap            ``channel``, ``until``, ``samples``, ``kept``: under ``overlap`` or not at all
clock              ``state``, ``uncertainty_s``, ``timing_percent``: when it changed
lost               ``items``: data that the core no longer had when it was asked
cut                ``file``, ``bytes``: no records, found when the archive was opened
dropped            ``records``: that could not be written
opened, closed     the archive itself
quality events     as the core publishes them: ``spike``, ``clipped``, ``flat``, ``noise`` …
=================  ===============================================================================
"""

import errno
import json
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gateway.core.feed_client import packet_samples
from gateway.events import NS, iso, parse_iso
from gateway.uplink.config import ArchiveConfig, WaveformsConfig
from gateway.uplink.mseed import (
    CLIPPED,
    DAY_NS,
    EVENT,
    RECORD_BYTES,
    SEQUENCES,
    SPIKES,
    STAMP_NS,
    Packed,
    Packer,
    Samples,
    Timing,
    day_of,
    following,
    numbered,
    read_header,
    timing,
    with_flags,
)
from gateway.uplink.sds import OVERLAP, Sds
from gateway.uplink.sink import Item, Request, Sink
from gateway.uplink.waveforms import Allowance, Occasions, Window, piece, pieces, requested

MAX_PENDING = (4 << 20) // RECORD_BYTES
MAX_FLAGS = 100
"""Flags that a channel may have waiting for the records of their time."""
MAX_LINES = 2000
"""Lines of the quality log that may wait for the disk."""
RETRY_S = 5.0
TIDY_S = 10.0
PIECES_A_TURN = 8
PIECES_S = 0.25
SPARE_SEQUENCES = 1000
"""Numbers that are left out at each start: a power cut may have taken records that were sent."""
_FLAGS = {"clipped": CLIPPED, "spike": SPIKES}
_REASONS = {"alert": "alert", "coincidence": "coincidence", "onset": "onset"}

Listener = Callable[[bytes], None]


@dataclass(slots=True)
class Again:
    """Samples of a time that is archived already."""

    start_ns: int
    samples: Samples
    until_ns: int


@dataclass(slots=True)
class Gap:
    """Where samples are missing."""

    begin_ns: int
    until_ns: int


@dataclass(slots=True)
class Block:
    """Packets of one sensor that follow each other."""

    channels: list[str]
    start_ns: int
    rate_hz: float
    samples: list[Any]
    columns: int
    offsets_ns: list[int]
    clock: Mapping[str, Any]

    def goes_on(self, other: "Block") -> bool:
        """Whether another one follows on and differs in nothing else."""
        late_ns = other.start_ns - self.start_ns - self.columns * NS / self.rate_hz
        return (
            abs(late_ns) <= STAMP_NS
            and (self.channels, self.rate_hz, self.offsets_ns)
            == (other.channels, other.rate_hz, other.offsets_ns)
            and _stated(self.clock) == _stated(other.clock)
            and self.samples[0].dtype == other.samples[0].dtype
        )


class Series:
    """One channel in one of the two trees: what follows on, what is a gap, what was there before.

    ``end_ns`` is where it is archived, or packed, up to.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.end_ns: int | None = None
        self.packer: Packer | None = None
        self.since_s = 0.0
        """Since when the oldest sample waits."""

    def take(
        self, start_ns: int, rate_hz: float, samples: Samples, sure: Timing, now_s: float
    ) -> tuple[list[Packed], Gap | None, Again | None]:
        """Take samples: the records that are ready, and what was missing or there before."""
        period = NS / rate_hz
        again = None
        if self.end_ns is not None and start_ns < self.end_ns - period / 2:
            known = min(len(samples), int(np.ceil((self.end_ns - start_ns) / period - 0.5)))
            upto_ns = start_ns + round(known * period)
            again = Again(start_ns, samples[:known], upto_ns)
            start_ns, samples = upto_ns, samples[known:]
            if not len(samples):
                return [], None, again
        packed: list[Packed] = []
        gap = None
        if self.end_ns is not None and start_ns > self.end_ns + period / 2:
            gap = Gap(self.end_ns, start_ns)
        kind = samples.dtype.char if samples.dtype.kind == "f" else "i"
        packer = self.packer
        if packer is None or (packer.rate_hz, packer.kind) != (rate_hz, kind):
            packed += self.close(ends_series=True)
            packer = self.packer = Packer(self.channel, rate_hz, kind)
            packer.series_starts(missing=gap is not None)
        elif gap is not None:
            packed += self.close(ends_series=True)
            packer.series_starts(missing=True)
        packed += packer.add(start_ns, samples, sure)
        self.since_s = now_s - packer.waiting / rate_hz
        self.end_ns = start_ns + round(len(samples) * period)
        return packed, gap, again

    def close(self, *, ends_series: bool = False) -> list[Packed]:
        """Pack what waits."""
        if self.packer is None or not self.packer.waiting:
            return []
        return self.packer.rest(ends_series=ends_series)

    def older(self, than_s: float) -> bool:
        """Whether a sample waits since before that time."""
        waits = self.packer is not None and self.packer.waiting > 0
        return waits and self.since_s <= than_s


class Archive(Sink):
    """The sink that keeps waveforms. ``now_s`` is monotonic time in s, for tests to drive."""

    serves = frozenset({"waveform"})
    gather_s = 2.0
    close_s = 10.0

    def __init__(
        self,
        config: ArchiveConfig,
        waveforms: WaveformsConfig | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("archive")
        self._config = config
        self._waveforms = waveforms or WaveformsConfig()
        self._now_s = now_s
        self.sds = Sds(Path(config.path))
        self._listeners: list[Listener] = []
        self._series: dict[tuple[str, str], Series] = {}
        self._fresh: set[str] = set()
        """Channels of which something new has come since the start."""
        self._sequence = 0
        self._pending: dict[tuple[str, str, int], list[bytes]] = {}
        self._pending_count = 0
        self._pending_since_s = 0.0
        self._lines: deque[tuple[int, str]] = deque()
        self._opened = self._said_open = False
        self._retry_s = 0.0
        self._failing = False
        self._tidy_s = self._sync_s = 0.0
        self._sure_day: int | None = None
        self._flags: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._shaking: dict[str, tuple[int, int]] = {}
        self._clock: tuple[str, int] | None = None
        self._occasions = Occasions(self._waveforms.pre_s, self._waveforms.post_s)
        self._allowance = Allowance(self._waveforms.hour_kb << 10)
        self._requests: deque[tuple[Request, Window]] = deque()
        self._leaving: deque[dict[str, Any]] = deque()
        self._stream: defaultdict[str, list[bytes]] = defaultdict(list)

    def listen(self, listener: Listener) -> None:
        """Have each record as it is made, written or not; before the start."""
        self._listeners.append(listener)

    # --- the thread -------------------------------------------------------------------------------

    def wants(self, item: Item) -> bool:
        """Samples, what concerns them, and requests."""
        return bool(
            "packet" in item
            or "request" in item
            or item.get("stream") == "gap"
            or item.get("record", {}).get("type") in _WANTED
        )

    def work(self, items: Sequence[Item]) -> float | None:
        """Pack, write, tidy up, and send what the hub is to have."""
        now_s = self._now_s()
        if not self._opened and now_s >= self._retry_s:
            self._begin(now_s)
        blocks: dict[str, Block] = {}
        for item in items:
            try:
                if "packet" in item:
                    self._packet(item["packet"], blocks, now_s)
                else:
                    self._take(item, now_s)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                self.incident("garbled", f"{error!r}")
        for block in blocks.values():
            self._block(block, now_s)
        for (tree, _), series in self._series.items():
            if series.older(now_s - self._config.record_age_s):
                self._keep(tree, series.close())
        if self._opened and now_s >= max(self._tidy_s, self._retry_s):
            self._tidy_s = now_s + TIDY_S
            self._tidy(now_s)
        self._write(now_s)
        self._see_to_waveforms(now_s)
        return self._wait_s(now_s)

    def finish(self) -> None:
        """Everything into records, and those on the disk."""
        now_s = self._now_s()
        if not self._opened:
            self._begin(now_s)
        for (tree, _), series in self._series.items():
            self._keep(tree, series.close())
        self._log(self._last_ns(), "closed")
        self._retry_s = now_s
        self._write(now_s)
        try:
            self.sds.sync()
        except OSError as error:
            self.incident("store", str(error))
        self.sds.close()

    def _wait_s(self, now_s: float) -> float | None:
        """How long until there is something to do though nothing comes."""
        waiting = [
            x.since_s + self._config.record_age_s
            for x in self._series.values()
            if x.older(float("inf"))
        ]
        if self._pending or self._lines or not self._opened:
            waiting.append(self._retry_s)
        if self.sds.unsynced:
            waiting.append(self._sync_s)
        if (due_s := self._occasions.next_s()) is not None:
            waiting.append(due_s)
        if self._leaving or self._requests:
            waiting.append(now_s + PIECES_S)
        return max(0.05, min(waiting) - now_s) if waiting else None

    # --- what comes -------------------------------------------------------------------------------

    def _take(self, item: Item, now_s: float) -> None:
        if "request" in item:
            self._request(item["request"])
        elif item.get("stream") == "gap":
            if item.get("of") == "data":
                self._log(self._last_ns(), "lost", items=item["lost"])
        else:
            self._record(item, now_s)

    def _packet(self, packet: Mapping[str, Any], blocks: dict[str, "Block"], now_s: float) -> None:
        """Join a packet to the block of its sensor, or begin another."""
        samples = packet_samples(packet)
        channels = packet["channels"]
        block = blocks.get(packet["sensor"])
        came = Block(
            channels=channels,
            start_ns=parse_iso(packet["start"]),
            rate_hz=float(packet["rate_hz"]),
            samples=[samples],
            columns=samples.shape[1],
            offsets_ns=packet.get("offsets_ns") or [0] * len(channels),
            clock=packet.get("clock") or _NO_CLOCK,
        )
        if block is not None:
            if block.goes_on(came):
                block.samples.append(samples)
                block.columns += came.columns
                return
            self._block(block, now_s)
        blocks[packet["sensor"]] = came

    def _block(self, block: "Block", now_s: float) -> None:
        begin_ns, clock = block.start_ns, block.clock
        sure = timing(clock["state"], clock["uncertainty_s"])
        if self._clock != (clock["state"], sure.percent):
            self._clock = clock["state"], sure.percent
            percent = sure.percent
            self._log(begin_ns, "clock", **_stated(clock), timing_percent=percent)
        if sure.percent:
            self._sure_day = day_of(begin_ns)
        if not self._said_open:
            self._said_open = True
            self._log(begin_ns, "opened")
        samples = block.samples[0]
        if len(block.samples) > 1:
            samples = np.concatenate(block.samples, axis=1)
        for channel, offset_ns, row in zip(block.channels, block.offsets_ns, samples, strict=True):
            for first, run in _runs(row):
                start_ns = begin_ns + offset_ns + round(first * NS / block.rate_hz)
                self._samples("", channel, start_ns, block.rate_hz, run, sure, now_s)

    def _samples(
        self,
        tree: str,
        channel: str,
        start_ns: int,
        rate_hz: float,
        samples: Samples,
        sure: Timing,
        now_s: float,
    ) -> None:
        series = self._series.get((tree, channel))
        if series is None:
            series = self._series[tree, channel] = Series(channel)
        packed, gap, again = series.take(start_ns, rate_hz, samples, sure, now_s)
        if packed:
            self._keep(tree, packed)
        if tree:
            if again is not None:
                self.incident("dropped", f"{channel}: archived twice already", len(again.samples))
            return
        repeated = again is not None and channel not in self._fresh
        if again is None or len(again.samples) < len(samples):
            self._fresh.add(channel)
        if gap is not None:
            missing_s = round((gap.until_ns - gap.begin_ns) / NS, 6)
            self._log(
                gap.begin_ns, "gap", channel=channel, until=iso(gap.until_ns), missing_s=missing_s
            )
        if again is not None and not repeated:
            self._log(
                again.start_ns,
                "overlap",
                channel=channel,
                until=iso(again.until_ns),
                samples=len(again.samples),
            )
            self._samples(OVERLAP, channel, again.start_ns, rate_hz, again.samples, sure, now_s)

    def _record(self, item: Item, now_s: float) -> None:
        record = item["record"]
        match record["type"]:
            case "quality":
                time_ns = parse_iso(record["time"])
                flags = self._flags[record["channel"]]
                if (flag := _FLAGS.get(record["kind"], 0)) and len(flags) < MAX_FLAGS:
                    flags.append((time_ns, flag))
                rest = {k: v for k, v in record.items() if k not in ("type", "time", "kind")}
                self._log(time_ns, record["kind"], **rest)
            case "ground_motion":
                since_ns, upto_ns = parse_iso(record["since"]), parse_iso(record["time"])
                self._shaking[record["station"]] = since_ns, upto_ns
            case "alert" if record["phase"] == "alert" and record["hazard"] == "earthquake":
                self._happened("alert", record, record["id"], now_s)
            case "coincidence" | "onset" as kind:
                self._happened(kind, record, f"{item['run_id']}-{item['seq']}", now_s)

    def _happened(self, kind: str, record: Mapping[str, Any], of: str, now_s: float) -> None:
        if kind in self._waveforms.events:
            self._occasions.happened(parse_iso(record["time"]), of, ("*",), now_s)

    # --- records ----------------------------------------------------------------------------------

    def _keep(self, tree: str, packed: Sequence[Packed]) -> None:
        """Number records, tell who listens, and have them written."""
        for made in packed:
            record = numbered(self._flagged(made).data, self._sequence)
            self._sequence = (self._sequence + 1) % SEQUENCES
            self._pending.setdefault((tree, made.channel, day_of(made.start_ns)), []).append(record)
            self._pending_count += 1
            if tree:
                continue
            if self._waveforms.continuous:
                self._stream[made.channel].append(record)
            for listener in self._listeners:
                listener(record)

    def _flagged(self, made: Packed) -> Packed:
        """The record with what is known of its time."""
        quality = 0
        if flags := self._flags.get(made.channel):
            for time_ns, flag in flags:
                if made.start_ns <= time_ns < made.end_ns:
                    quality |= flag
            self._flags[made.channel] = [x for x in flags if x[0] >= made.end_ns]
        since_ns, upto_ns = self._shaking.get(made.channel.rsplit(".", 2)[0], (0, 0))
        shaken = since_ns < made.end_ns and made.start_ns <= upto_ns
        return with_flags(made, activity=EVENT if shaken else 0, quality=quality)

    def _log(self, time_ns: int, kind: str, **rest: Any) -> None:
        line = {"time": iso(time_ns), "kind": kind, **rest}
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        self._lines.append((day_of(time_ns), text + "\n"))
        if len(self._lines) > MAX_LINES:
            self._lines.popleft()
            self.incident("dropped", "lines of the quality log: the disk does not take them")

    def _last_ns(self) -> int:
        """Up to when there are samples."""
        ends = [x.end_ns for (tree, _), x in self._series.items() if not tree and x.end_ns]
        return max(ends, default=time.time_ns())

    # --- the disk ---------------------------------------------------------------------------------

    def _begin(self, now_s: float) -> None:
        """Find out where the archive ends; what was packed meanwhile and is there already goes."""
        try:
            cuts = self.sds.open()
            self._write_station()
        except OSError as error:
            self._fails(error, now_s)
            return
        self._opened = True
        for cut in cuts:
            what = "at its end" if cut.at_end else "within it"
            self.incident("cut", f"{cut.path}: {cut.bytes} bytes {what} are no record")
            self._log(self._last_ns(), "cut", file=str(cut.path), bytes=cut.bytes)
        numbers = []
        for tree in ("", OVERLAP):
            for channel, header in self.sds.last(tree).items():
                series = self._series.setdefault((tree, channel), Series(channel))
                series.end_ns = max(header.end_ns, series.end_ns or 0)
                numbers.append(header.sequence)
                half_ns = round(NS / header.rate_hz / 2)
                self._forget_before(tree, channel, header.end_ns - half_ns)
        if numbers:
            newest = numbers[0]
            for number in numbers[1:]:
                newest = number if following(number, newest) > 0 else newest
            self._sequence = (newest + SPARE_SEQUENCES) % SEQUENCES

    def _forget_before(self, tree: str, channel: str, end_ns: int) -> None:
        """Drop records that were packed before it was known that their time is archived."""
        for key in [key for key in self._pending if key[:2] == (tree, channel)]:
            kept = [x for x in self._pending[key] if read_header(x).start_ns >= end_ns]
            self._pending_count -= len(self._pending[key]) - len(kept)
            self._pending[key] = kept

    def _write_station(self) -> None:
        """The StationXML beside the archive."""
        path = self.sds.root / "station.xml"
        text = self._config.station_xml
        if text and (not path.exists() or path.read_text() != text):
            new = path.with_suffix(".xml.new")
            new.write_text(text)
            new.replace(path)

    def _write(self, now_s: float) -> None:
        """Append what waits, if it is time to try."""
        if self._opened and now_s >= self._retry_s and (self._pending or self._lines):
            try:
                self._write_all()
            except OSError as error:
                self._fails(error, now_s)
            else:
                self._works()
        if not self._pending_count:
            self._pending_since_s = now_s
        if (over := self._pending_count - MAX_PENDING) > 0:
            self._drop(over)
        self.behind(self._pending_count, now_s - self._pending_since_s)

    def _write_all(self) -> None:
        while self._pending:
            key = next(iter(self._pending))
            tree, channel, day = key
            records = self._pending[key]
            path = self.sds.path(channel, day, tree)
            if records:
                self.sds.append(path, day, b"".join(records), f"{tree}/{channel}")
            self._pending_count -= len(records)
            del self._pending[key]
        while self._lines:
            day, text = self._lines[0]
            self.sds.append(self.sds.log_path(day), day, text.encode(), "quality")
            self._lines.popleft()

    def _drop(self, count: int) -> None:
        """The oldest records that wait go."""
        self.incident("dropped", "records: the disk does not take them", count)
        self._log(self._last_ns(), "dropped", records=count)
        self._pending_count -= count
        for key in list(self._pending):
            records = self._pending[key]
            gone = min(count, len(records))
            del records[:gone]
            count -= gone
            if not records:
                del self._pending[key]
            if not count:
                return

    def _fails(self, error: OSError, now_s: float) -> None:
        self._failing = True
        self._retry_s = now_s + RETRY_S
        self._tidy_s = 0.0
        self.wrong("store", f"{error}; records wait in memory and are written when it is over")
        days = self.sds.days
        if error.errno in _FULL and len(days) > 1:
            try:
                self._remove(days[0], "disk full")
            except OSError as another:
                self.incident("store", str(another))

    def _works(self) -> None:
        if self._failing:
            self._failing = False
            self.right("store")

    def _tidy(self, now_s: float) -> None:
        """Sync where it is time; give up the oldest days where there is no room."""
        try:
            if self.sds.unsynced and now_s >= self._sync_s:
                self.sds.sync()
                self._sync_s = now_s + self._config.sync_s
            self._give_up()
        except OSError as error:
            self._fails(error, now_s)

    def _give_up(self) -> None:
        """Remove days until there is room.

        Raises:
            OSError: there is none though only the newest day is left.
        """
        quota, reserve = self._config.quota_mb << 20, self._config.reserve_mb << 20
        while True:
            days = self.sds.days
            full = self.sds.free_bytes() < reserve
            if days and self._is_too_old(days[0]):
                self._remove(days[0], "older than days")
            elif days and self.sds.used_bytes > quota:
                self._remove(days[0], "over quota_mb")
            elif len(days) > 1 and full:
                self._remove(days[0], "less than reserve_mb left on the disk")
            elif full:
                reason = f"less than {self._config.reserve_mb} MB (reserve_mb) left"
                raise OSError(errno.ENOSPC, reason, str(self.sds.root))
            else:
                return

    def _is_too_old(self, day: int) -> bool:
        limit = self._config.days
        return limit > 0 and self._sure_day is not None and day <= self._sure_day - limit

    def _remove(self, day: int, why: str) -> None:
        freed = self.sds.remove_day(day)
        self.incident("dropped_day", f"{iso(day * DAY_NS)[:10]}, {freed / 1e6:.1f} MB: {why}")

    # --- waveforms for the hub --------------------------------------------------------------------

    def _request(self, request: Request) -> None:
        try:
            window = requested(request.id, request.arguments)
        except ValueError as error:
            self.answer(request, "refused", str(error))
            return
        if len(self._requests) >= self._waveforms.requests:
            self.answer(request, "refused", "busy: earlier requests are not answered yet")
            return
        self._requests.append((request, window))

    def _see_to_waveforms(self, now_s: float) -> None:
        for channel, records in self._stream.items():
            for first in range(0, len(records), 64):
                part = records[first : first + 64]
                self.publish(piece(channel, part, "continuous", "", 1, 1))
        self._stream.clear()
        for window in self._occasions.due(self._complete_ns(), now_s):
            found = self.window(window, self._waveforms.event_kb << 10)
            if self._may_send(found, now_s) > 0:
                detail = f"{window.of}: over {self._waveforms.hour_kb} KiB an hour; ask for it"
                self.incident("not_sent", detail)
                continue
            self._leaving.extend(pieces(window, found))
        if self._requests and not self._leaving:
            self._answer_request(now_s)
        for _ in range(min(PIECES_A_TURN, len(self._leaving))):
            self.publish(self._leaving.popleft())

    def _answer_request(self, now_s: float) -> None:
        request, window = self._requests.popleft()
        limit = self._waveforms.request_kb << 10
        found = self.window(window, limit + 1)
        size = _size(found)
        if not size:
            self.answer(request, "refused", f"out_of_range: {self._has(window)}")
        elif size > limit:
            reason = f"too_large: more than {limit >> 10} KiB; ask for a shorter window"
            self.answer(request, "refused", reason)
        elif (wait_s := self._may_send(found, now_s)) > 0:
            again = f"in {wait_s:.0f} s" if wait_s < float("inf") else "for less"
            reason = f"too_much: {self._waveforms.hour_kb} KiB an hour; ask again {again}"
            self.answer(request, "refused", reason)
        else:
            made = list(pieces(window, found))
            self.answer(request, "accepted", f"{len(made)} pieces, {size} bytes")
            self._leaving.extend(made)

    def _may_send(self, found: Mapping[str, Sequence[bytes]], now_s: float) -> float:
        """0 if it may go now, and is then taken off; else for how many s it may not."""
        size = _size(found)
        wait_s = self._allowance.wait_s(size, now_s)
        if not wait_s:
            self._allowance.spend(size)
        return wait_s

    def _complete_ns(self) -> int:
        """The time up to which every channel that sends has come."""
        ends = [x.end_ns for (tree, _), x in self._series.items() if not tree and x.end_ns]
        return min(ends, default=0)

    def _has(self, window: Window) -> str:
        """What there is, in words."""
        names = [x for x in self.sds.channels if window.wants(x)]
        if not names:
            return f"no such channel; there are {', '.join(self.sds.channels) or 'none'}"
        days = self.sds.days
        first, last = iso(days[0] * DAY_NS)[:10] if days else "now", iso(self._last_ns())
        return f"nothing in this window; the archive holds {first} to {last}, with gaps"

    def window(self, window: Window, most_bytes: int) -> dict[str, list[bytes]]:
        """Records of a window by channel: on disk, waiting for it, and not yet full.

        At most about ``most_bytes``, shared alike by the channels.
        """
        names = {x for x in self.sds.channels if window.wants(x)}
        names |= {x for tree, x in self._series if not tree and window.wants(x)}
        most = most_bytes // RECORD_BYTES // max(1, len(names)) + 1
        found: dict[str, list[bytes]] = {}
        for channel in sorted(names):
            records = []
            try:
                for record in self.sds.window(channel, window.begin_ns, window.end_ns):
                    records.append(record)
                    if len(records) >= most:
                        break
            except (OSError, ValueError) as error:
                self.incident("read", f"{channel}: {error}")
            waiting = [
                record
                for (tree, name, _), pending in self._pending.items()
                if not tree and name == channel
                for record in pending
            ]
            series = self._series.get(("", channel))
            if series is not None and series.packer is not None and series.packer.waiting:
                waiting += [numbered(x.data, self._sequence) for x in series.packer.preview()]
            for record in waiting:
                header = read_header(record)
                if header.end_ns > window.begin_ns and header.start_ns < window.end_ns:
                    records.append(record)
            if records:
                found[channel] = records[:most]
        return found


_FULL = (errno.ENOSPC, errno.EDQUOT)
_WANTED = frozenset({"quality", "ground_motion", "alert", "coincidence", "onset"})


_NO_CLOCK: Mapping[str, Any] = {"state": "never", "uncertainty_s": None}


def _stated(clock: Mapping[str, Any]) -> dict[str, Any]:
    return {"state": clock["state"], "uncertainty_s": clock["uncertainty_s"]}


def _size(found: Mapping[str, Sequence[bytes]]) -> int:
    return sum(len(records) for records in found.values()) * RECORD_BYTES


def _runs(row: Samples) -> list[tuple[int, Samples]]:
    """The runs of a row that have no missing samples, with where each begins."""
    if row.dtype.kind != "f" or not (missing := np.isnan(row)).any():
        return [(0, row)]
    edges = np.flatnonzero(np.diff(np.concatenate(([True], missing, [True])).astype(np.int8)))
    return [(int(a), row[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]
