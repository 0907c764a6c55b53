"""miniSEED 2 records of 512 bytes: packing samples as they come, and reading headers.

FDSN *SEED Reference Manual* 2.4, chapter 8 (fixed section of data header, blockettes 1000 and
1001). Compression (Steim-2, or plain floats) is libmseed's, through pymseed; what concerns time and
quality is written here, at fixed places:

======  =====  =====================================================================================
offset  bytes
======  =====  =====================================================================================
0       6      sequence number, decimal digits: rises by one with each record of the station, from
               999999 on to 000000. It is the SeedLink number of the record too
6       2      quality ``D``, space
8       12     station (5), location (2), channel (3), network (2), each padded with spaces
20      10     start: year, day of year, hour, minute, second, 0, 1/10000 s (big endian)
30      2      number of samples
32      4      rate factor and multiplier
36      1      activity: bit 6 (0x40) an event is in progress
37      1      input, output, clock: bit 3 (0x08) a series starts here (after a gap), bit 4 (0x10)
               one ends here, bit 5 (0x20) the clock is locked
38      1      data quality: bit 1 (0x02) clipped, bit 2 (0x04) spikes, bit 4 (0x10) samples missing
               just before, bit 7 (0x80) the time is questionable
44      2      where the data begin
46      2      first blockette; each begins with its type and where the next one is
..      8      blockette 1000: encoding (+4): 11 Steim-2, 3 int32, 4 float32, 5 float64
..      8      blockette 1001: timing quality in percent (+4), microseconds (+5, signed)
..      12     blockette 100, only where factor and multiplier can't give the rate: rate (+4)
======  =====  =====================================================================================

Timing quality says how sure the station was of UTC, by the core's own statement:

=======================  ==========  ===============  ==========
UTC known to             timing %    clock locked     questionable
=======================  ==========  ===============  ==========
1 ms                     100         if synchronised  no
10 ms                    90          if synchronised  no
100 ms                   70          if synchronised  no
1 s                      40          if synchronised  yes
worse                    10          if synchronised  yes
never synchronised       0           no               yes
=======================  ==========  ===============  ==========

The limits are this project's: SEED leaves the percent to the recorder. 0.1 s is 0.6 km of P wave.
"""

import calendar
import struct
import time
from bisect import bisect_left, bisect_right
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pymseed import DataEncoding, MiniSEEDError, MS3Record

from gateway.events import NS

RECORD_BYTES = 512
SEQUENCES = 1_000_000
DAY_NS = 86_400 * NS
STAMP_NS = 100_000
"""Time stamps may differ by this and are taken as one: a tenth of the finest stated error."""

EVENT = 0x40
"""Activity flag."""
SERIES_STARTS, SERIES_ENDS, CLOCK_LOCKED = 0x08, 0x10, 0x20
"""Flags of input, output and clock."""
CLIPPED, SPIKES, MISSING, QUESTIONABLE = 0x02, 0x04, 0x10, 0x80
"""Data quality flags."""

MAX_SHIFT = 0.25
"""Part of a period by which times may have moved within one record."""

_HEAD = struct.Struct(">6s2s5s2s3s2sHHBBBxHHhhBBBBiHH")
_QUALITY_S = ((0.001, 100), (0.01, 90), (0.1, 70), (1.0, 40))
_FLAT = {"i": DataEncoding.INT32, "f": DataEncoding.FLOAT32, "d": DataEncoding.FLOAT64}

Samples = NDArray[np.int32] | NDArray[np.float32] | NDArray[np.float64]


class Timing(NamedTuple):
    """How sure the time is: percent, flags of input/output/clock, flags of data quality."""

    percent: int
    clock: int
    quality: int


UNSURE = Timing(0, 0, QUESTIONABLE)


def timing(state: str, uncertainty_s: float | None) -> Timing:
    """Header values for the core's statement about its clock, see the module's table."""
    if uncertainty_s is None or state == "never":
        return UNSURE
    percent = next((p for limit, p in _QUALITY_S if uncertainty_s <= limit), 10)
    locked = CLOCK_LOCKED if state == "synchronised" else 0
    return Timing(percent, locked, QUESTIONABLE if percent < 70 else 0)


@dataclass(frozen=True, slots=True)
class Header:
    """What is read of a record. ``end_ns`` is one period behind the last sample."""

    channel: str
    sequence: int
    start_ns: int
    samples: int
    rate_hz: float
    activity: int
    clock: int
    quality: int
    timing_percent: int | None

    @property
    def end_ns(self) -> int:
        return self.start_ns + round(self.samples * NS / self.rate_hz)


def read_header(record: bytes) -> Header:
    """The header of one of our records.

    Raises:
        ValueError: it is none: no header, no rate, no samples, blockettes that lead nowhere.
    """
    try:
        (digits, kind, station, location, channel, network, year, day, hour, minute, second, part,
         samples, factor, multiplier, activity, clock, quality, blockettes, _, _, at,
         ) = _HEAD.unpack_from(record)  # fmt: skip
        if not digits.isdigit() or kind not in (b"D ", b"R ", b"Q ", b"M ") or not samples:
            raise ValueError("no header of a data record")
        day_s = calendar.timegm((year, 1, 1, 0, 0, 0)) + (day - 1) * 86_400
        start_ns = (day_s + hour * 3600 + minute * 60 + second) * NS + part * 100_000
        rate_hz, percent = _nominal(factor, multiplier), None
        for _ in range(blockettes):
            number, following = struct.unpack_from(">HH", record, at)
            if number == 1001:
                percent, micro = struct.unpack_from(">Bb", record, at + 4)
                start_ns += micro * 1000
            elif number == 100:
                (rate_hz,) = struct.unpack_from(">f", record, at + 4)
            at = following
    except struct.error as error:
        raise ValueError("shorter than its header says") from error
    if not 0 < rate_hz < 1e6 or not 1 <= day <= 366 or hour > 23 or minute > 59 or second > 60:
        raise ValueError("impossible rate or time")
    name = b".".join(x.strip() for x in (network, station, location, channel)).decode("ascii")
    return Header(name, int(digits), start_ns, samples, rate_hz, activity, clock, quality, percent)


def _nominal(factor: int, multiplier: int) -> float:
    """The rate that factor and multiplier stand for, Hz; 0 where there is none."""
    if not factor or not multiplier:
        return 0.0
    rate = float(factor) if factor > 0 else -1.0 / factor
    return rate * multiplier if multiplier > 0 else -rate / multiplier


def start_ns(record: bytes) -> int:
    """When a record starts."""
    return read_header(record).start_ns


def record_sequence(record: bytes) -> int:
    """The sequence number of a record."""
    return int(record[:6])


def following(sequence: int, reference: int) -> int:
    """How far ``sequence`` is ahead of ``reference``, round the turn; negative: behind it."""
    return (sequence - reference + SEQUENCES // 2) % SEQUENCES - SEQUENCES // 2


def day_of(time_ns: int) -> int:
    """The UTC day of a time, in days since 1970."""
    return time_ns // DAY_NS


def day_text(day: int) -> tuple[str, str]:
    """Year and day of year of a day, as file names have them."""
    moment = time.gmtime(day * 86_400)
    return f"{moment.tm_year:04d}", f"{moment.tm_yday:03d}"


class Packed(NamedTuple):
    """A record that is complete but for its sequence number, which :func:`numbered` puts in."""

    channel: str
    start_ns: int
    end_ns: int
    data: bytes


def numbered(data: bytes, sequence: int) -> bytes:
    """A record with its sequence number."""
    return b"%06dD " % sequence + data[8:]


class Mark(NamedTuple):
    """From sample ``at`` of the buffer on: its time, how sure that is, further flags."""

    at: int
    start_ns: int
    timing: Timing
    quality: int


class Packer:
    """Packs the samples of one channel. They come in order; where they don't is the caller's care.

    :meth:`add` takes samples that follow the last ones; :meth:`full` gives records as they fill,
    :meth:`rest` what does not fill one. No record reaches over midnight UTC.

    Args:
        channel: NET.STA.LOC.CHA.
        rate_hz: nominal rate.
        kind: ``i`` (int32, Steim-2), ``f`` (float32), ``d`` (float64).
    """

    def __init__(self, channel: str, rate_hz: float, kind: str) -> None:
        self.channel = channel
        self.rate_hz = rate_hz
        self.kind = kind
        self._period = NS / rate_hz
        self._buffer: Samples = np.empty(1024, dtype=np.dtype(kind))
        self._count = 0
        self._first_ns = self._midnight_ns = 0
        self._marks: list[Mark] = []
        self._target = 64
        self._starts_series = True
        self._missing = False
        network, station, location, code = channel.split(".")
        self._record = MS3Record(
            reclen=RECORD_BYTES,
            encoding=DataEncoding.STEIM2 if kind == "i" else _FLAT[kind],
        )
        self._record.sourceid = f"FDSN:{network}_{station}_{location}_{'_'.join(code)}"
        self._record.formatversion = 2
        self._record.samprate = rate_hz
        self._record.extra = '{"FDSN":{"Time":{"Quality":0}}}'  # so that there is a blockette 1001

    @property
    def waiting(self) -> int:
        """Samples that are in no record yet."""
        return self._count

    @property
    def start_ns(self) -> int:
        """Time of the first of them."""
        return self._first_ns

    def series_starts(self, *, missing: bool) -> None:
        """What is added next does not follow what was before; ``missing``: samples are lost."""
        self._starts_series, self._missing = True, missing

    def add(self, start_ns: int, samples: Samples, sure: Timing, quality: int = 0) -> list[Packed]:
        """Take samples; give the records that they fill.

        ``quality`` are flags of data quality that hold for them.
        """
        given: list[Packed] = []
        if self._count:
            moved = start_ns - self._first_ns - self._count * self._period
            if abs(moved) > MAX_SHIFT * self._period:
                given = self.rest()
        if self._count + len(samples) > len(self._buffer):
            grown = np.empty(2 * (self._count + len(samples)), dtype=self._buffer.dtype)
            grown[: self._count] = self._buffer[: self._count]
            self._buffer = grown
        self._buffer[self._count : self._count + len(samples)] = samples
        last = self._marks[-1] if self._marks else None
        if (
            last is None
            or (last.timing, last.quality) != (sure, quality)
            or abs(start_ns - last.start_ns - (self._count - last.at) * self._period) > STAMP_NS
        ):
            self._marks.append(Mark(self._count, start_ns, sure, quality))
        if not self._count:
            self._begins(start_ns)
        self._count += len(samples)
        last_ns = start_ns + (len(samples) - 1) * self._period
        if self._count >= self._target or last_ns >= self._midnight_ns:
            given += self._full()
        return given

    def rest(self, *, ends_series: bool = False) -> list[Packed]:
        """Pack everything; the last record may not be full."""
        given = self._full()
        while self._count:
            given.append(self._cut(self._count, ends_series=ends_series))
        return given

    def preview(self) -> list[Packed]:
        """What :meth:`rest` would give; everything stays as it is."""
        kept = self._buffer[: self._count].copy(), list(self._marks), self._target
        starts, missing = self._starts_series, self._missing
        given = self.rest()
        self._count = len(kept[0])
        self._buffer[: self._count] = kept[0]
        _, self._marks, self._target = kept
        if self._count:
            self._begins(self._time(0))
        self._starts_series, self._missing = starts, missing
        return given

    # --- inside -----------------------------------------------------------------------------------

    def _time(self, index: int) -> int:
        """When the sample at ``index`` of the buffer was taken."""
        mark = self._marks[bisect_right(self._marks, index, key=lambda m: m.at) - 1]
        return mark.start_ns + round((index - mark.at) * self._period)

    def _begins(self, first_ns: int) -> None:
        """The buffer begins with a sample of this time."""
        self._first_ns = first_ns
        self._midnight_ns = (day_of(first_ns) + 1) * DAY_NS

    def _until_midnight(self) -> int:
        """Samples of the buffer that belong to the day of its first one."""
        if self._time(self._count - 1) < self._midnight_ns:
            return self._count
        return bisect_left(range(self._count), self._midnight_ns, lo=1, key=self._time)

    def _full(self) -> list[Packed]:
        """Records that are full, or end at midnight."""
        given = []
        while self._count:
            today = self._until_midnight()
            if today == self._count and self._count < self._target:
                break
            data, taken = self._pack(today)
            if taken == today == self._count:  # there may be room for more
                self._target = self._count + max(16, self._count // 8)
                break
            if taken < today:
                self._target = taken
            given.append(self._take(data, taken))
        return given

    def _cut(self, most: int, *, ends_series: bool) -> Packed:
        data, taken = self._pack(self._until_midnight())
        return self._take(data, taken, ends_series=ends_series and taken == most)

    def _pack(self, count: int) -> tuple[bytes, int]:
        """One record of the first ``count`` samples at most, and how many it holds."""
        self._record.starttime = self._first_ns
        try:
            data = self._first(count)
        except MiniSEEDError:  # a difference of more than 30 bits
            if self.kind != "i":
                raise
            self._record.encoding = DataEncoding.INT32
            data = self._first(count)
            self._record.encoding = DataEncoding.STEIM2
        return data, int.from_bytes(data[30:32], "big")

    def _first(self, count: int) -> bytes:
        records = self._record.generate(self._buffer[:count], self.kind)
        with closing(cast("Generator[bytes]", records)):  # closing frees the packer
            return next(records)

    def _take(self, data: bytes, count: int, *, ends_series: bool = False) -> Packed:
        """Finish a record's header and take its samples out of the buffer."""
        start_ns = self._first_ns
        end_ns = self._time(count - 1) + round(self._period)
        beyond = bisect_right(self._marks, count - 1, key=lambda m: m.at)
        within = self._marks[:beyond]
        percent = min(mark.timing.percent for mark in within)
        clock, quality = CLOCK_LOCKED, 0
        for mark in within:
            clock &= mark.timing.clock
            quality |= mark.timing.quality | mark.quality
        if self._starts_series:
            clock |= SERIES_STARTS
            quality |= MISSING if self._missing else 0
        if ends_series:
            clock |= SERIES_ENDS
        self._starts_series = self._missing = False
        finished = bytearray(data)
        finished[37], finished[38] = clock, quality
        finished[_timing_at(data)] = percent
        self._count -= count
        self._buffer[: self._count] = self._buffer[count : count + self._count].copy()
        last = within[-1]
        self._marks = [mark._replace(at=mark.at - count) for mark in self._marks[beyond:]]
        if self._count and (not self._marks or self._marks[0].at > 0):
            moved_ns = last.start_ns + round((count - last.at) * self._period)
            self._marks.insert(0, Mark(0, moved_ns, last.timing, last.quality))
        if self._count:
            self._begins(self._marks[0].start_ns)
        return Packed(self.channel, start_ns, end_ns, bytes(finished))


def with_flags(packed: Packed, *, activity: int = 0, quality: int = 0) -> Packed:
    """The record with further flags."""
    if not activity and not quality:
        return packed
    data = bytearray(packed.data)
    data[36] |= activity
    data[38] |= quality
    return packed._replace(data=bytes(data))


def _timing_at(record: bytes) -> int:
    """Where the timing quality of blockette 1001 is."""
    at = int.from_bytes(record[46:48], "big")
    while at and record[at : at + 2] != b"\x03\xe9":
        at = int.from_bytes(record[at + 2 : at + 4], "big")
    return at + 4


def samples_of(record: bytes) -> Any:
    """The samples of a record, for tests and for whoever checks an archive."""
    parsed = MS3Record.parse(record, unpack_data=True)
    return np.array(parsed.np_datasamples)
