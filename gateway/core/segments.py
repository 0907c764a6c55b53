"""What the journal keeps on disk: a ring of preallocated segments, and a state of two slots.

Only plain files, so that a technician can copy them and a power cut cannot corrupt more than it
interrupts. Every file is allocated in full before it is used: once it stands, a disk that others
fill no longer matters. All integers are little endian; CRC-32 is that of zlib (IEEE 802.3).

``journal.000`` … hold entries one after the other:

======  ====  =====================================================================
offset  size  field
======  ====  =====================================================================
0       4     marker FF 45 4A 31; FF occurs in no UTF-8 text, so not inside a line
4       4     CRC-32 of everything after it
8       4     length of the body in bytes
12      4     kind: 1 record, 2 mark
16      8     number of the entry, rising by one over all segments
24      …     body
======  ====  =====================================================================

A record's body:

======  ====  =====================================================================
0       8     seq within the run
8       1     length of the run id
9       …     run id (UTF-8), then the record as one line of JSON
======  ====  =====================================================================

A *mark* is JSON that says what a reader has to know from before it (which core runs, how earlier
ones ended, what the uplink has stored); the newest one holds. Each segment begins with a mark that
is durable before anything follows it. So a segment's age is the number of its first entry, and an
entry with a lower number than the one before it is left over from the file's earlier use.

``state`` holds two slots of 1 MiB, written in turn; the valid one of the higher generation holds:

======  ====  =====================================================================
0       4     marker FF 45 53 31
4       4     CRC-32 of everything after it
8       4     length of the JSON text
12      8     generation
20      …     JSON ``{"after": [run id, seq] or null, "state": {…}}``; ``after`` is the last
              record that the state includes
======  ====  =====================================================================
"""

import contextlib
import errno
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

SEGMENT_BYTES = 1 << 20
QUOTA_BYTES = 64 << 20
SLOT_BYTES = 1 << 20
MAX_BODY_BYTES = 64 << 10
"""Longest body of an entry; whatever claims to be longer is damage."""

_ENTRY = struct.Struct("<4sIIIQ")
_ENTRY_MARKER = b"\xffEJ1"
_RECORD = struct.Struct("<QB")
_SLOT = struct.Struct("<4sIIQ")
_SLOT_MARKER = b"\xffES1"
_CRC_FROM = 8
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Kind(IntEnum):
    """What an entry is."""

    record = 1
    mark = 2


class Entry(NamedTuple):
    """One valid entry; ``end`` is the offset behind it in its segment."""

    number: int
    kind: Kind
    body: bytes
    end: int


class Record(NamedTuple):
    """A published record: run, sequence number within it, and its line of JSON."""

    run_id: str
    seq: int
    line: bytes


Position = tuple[str, int] | None
"""A place in the stream of records: the last one seen, as (run id, seq); None is before all."""


def pack_record(record: Record) -> bytes:
    """The body of a record's entry.

    Raises:
        ValueError: longer than an entry may be.
    """
    run_id = record.run_id.encode()
    body = _RECORD.pack(record.seq, len(run_id)) + run_id + record.line
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(
            f"record {record.run_id}-{record.seq}: {len(body)} bytes, allowed {MAX_BODY_BYTES}"
        )
    return body


def unpack_record(body: bytes) -> Record:
    """The record in an entry's body."""
    seq, length = _RECORD.unpack_from(body)
    start = _RECORD.size + length
    return Record(body[_RECORD.size : start].decode(), seq, body[start:])


def position(value: Any) -> Position:
    """A position from its JSON form."""
    return None if value is None else (str(value[0]), int(value[1]))


class Death(NamedTuple):
    """A core run that did not end on purpose, and when, on the clock of that boot."""

    boot_id: str
    boottime_ns: int


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says: the core that runs or ran last, and what the uplink has stored.

    ``running`` is True until the core ends, in whatever way. ``stored_number`` is the number of
    the entry at ``stored``, as far as it is known.
    """

    boot_id: str
    started_ns: int
    running: bool = True
    deaths: tuple[Death, ...] = ()
    stored: Position = None
    stored_number: int = 0

    def pack(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, body: bytes) -> "Mark":
        """From JSON.

        Raises:
            ValueError, TypeError, KeyError: it is no mark.
        """
        values = json.loads(body)
        values["deaths"] = tuple(Death(str(boot), int(t)) for boot, t in values["deaths"])
        values["stored"] = position(values["stored"])
        return cls(**values)


def encode(kind: Kind, number: int, body: bytes) -> bytes:
    """An entry as it stands on disk."""
    tail = _ENTRY.pack(_ENTRY_MARKER, 0, len(body), kind, number)[_CRC_FROM:] + body
    return _ENTRY_MARKER + zlib.crc32(tail).to_bytes(4, "little") + tail


def scan(data: bytes) -> Iterator[Entry]:
    """The valid entries of a segment, in order; damage is passed over.

    Whatever lies between two good entries is skipped; how many entries that cost shows in their
    numbers. Entries left over from the file's earlier use are not given.
    """
    last, position = 0, data.find(_ENTRY_MARKER)
    while position >= 0 and position + _ENTRY.size <= len(data):
        _, crc, length, kind, number = _ENTRY.unpack_from(data, position)
        end = position + _ENTRY.size + length
        if (
            length <= MAX_BODY_BYTES
            and end <= len(data)
            and kind in (Kind.record, Kind.mark)
            and zlib.crc32(data[position + _CRC_FROM : end]) == crc
        ):
            if number > last:
                yield Entry(number, Kind(kind), data[position + _ENTRY.size : end], end)
                last = number
            position = end
        else:
            position += 1
        position = data.find(_ENTRY_MARKER, position)


def covered(entries: Iterable[Entry], place: tuple[str, int]) -> int | None:
    """The number of the newest record at or before ``place`` in the same run, if there is one."""
    run_id, seq = place
    found = None
    for entry in entries:
        if entry.kind is Kind.record:
            record = unpack_record(entry.body)
            if record.run_id == run_id and record.seq <= seq:
                found = entry.number
    return found


@dataclass(slots=True, eq=False)
class Segment:
    """One file of the ring. ``first`` is the number of its first entry, 0 while it has none."""

    path: Path
    fd: int
    size: int
    first: int = 0

    def read(self) -> Iterator[Entry]:
        """Its entries as they stand on disk (or in the page cache).

        Raises:
            OSError: it can't be read.
        """
        return scan(os.pread(self.fd, self.size, 0))

    def look(self) -> None:
        """Find ``first``: nearly always in the first block."""
        for size in (4096, self.size):
            for entry in scan(os.pread(self.fd, size, 0)):
                self.first = entry.number
                return


class Segments:
    """The ring of segments. Opened without ``count`` it only reads what is there.

    ``count`` segments are allocated; more that are there already go on being used. ``durable`` is
    the number of the last entry known to be on the medium, ``last`` that of the last one written.
    ``shortage`` says why fewer segments than asked for could be allocated, ``unreadable`` how many
    files had to be left aside.

    Raises:
        OSError: the directory or (for writing) fewer than two segments can be had.
    """

    def __init__(
        self, directory: Path, count: int | None = None, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.directory = directory
        self.segment_bytes = segment_bytes
        self.shortage: OSError | None = None
        self.unreadable = 0
        self.last = 0
        self.durable = 0
        self._count = count
        self._highest = 0
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._offset = 0
        self._durable_offset = 0
        try:
            for path in sorted(directory.glob("journal.[0-9][0-9][0-9]")):
                self._open(path)
            if count is not None:
                self.allocate()
            self._find_end()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close all files."""
        for segment in self._segments:
            os.close(segment.fd)
        self._segments.clear()

    def in_order(self) -> list[Segment]:
        """The segments that hold something, oldest first."""
        return sorted((s for s in self._segments if s.first), key=lambda s: s.first)

    def allocate(self) -> None:
        """Make the segments that are still missing; what can't be had is left to a later call.

        Raises:
            OSError: there are fewer than two.
        """
        self.shortage = None
        for index in range(self._count or 0):
            path = self.directory / f"journal.{index:03d}"
            if path.exists() and path.stat().st_size >= self.segment_bytes:
                continue
            try:
                self._make(path)
            except OSError as error:
                if error.errno not in _NO_SPACE:
                    raise
                self.shortage = error
                break
        _sync_directory(self.directory)
        if len(self._segments) < 2:
            message = "fewer than two segments can be read"
            raise self.shortage or OSError(errno.EIO, message, str(self.directory))

    def write(self, kind: Kind, body: bytes) -> bool:
        """Append an entry; it is durable only after :meth:`sync`. False when the segment is full.

        Raises:
            OSError: it could not be written; :meth:`rewind` before the next attempt.
        """
        entry = encode(kind, self.last + 1, body)
        if self._current is None or self._offset + len(entry) > self.segment_bytes:
            return False
        _write_all(self._current.fd, entry, self._offset)
        self._offset += len(entry)
        self.last += 1
        self._highest = max(self._highest, self.last)
        return True

    def sync(self) -> None:
        """Make everything written durable.

        Raises:
            OSError: it may not be; :meth:`rewind` and write it again, since the kernel forgets
                which pages it failed to write.
        """
        if self._current is not None and self.durable != self.last:
            os.fdatasync(self._current.fd)
            self.durable, self._durable_offset = self.last, self._offset

    def rewind(self) -> None:
        """Return to the last durable entry; what came after it is to be written again."""
        self.last, self._offset = self.durable, self._durable_offset

    def oldest(self) -> Segment:
        """The segment that :meth:`rotate` will overwrite: an empty one if there is one."""
        return min((s for s in self._segments if s is not self._current), key=lambda s: s.first)

    def rotate(self, mark: bytes) -> None:
        """Go on in the oldest segment, beginning with ``mark``, which is durable on return.

        Raises:
            OSError: nothing has changed; the old segment goes on being used.
        """
        self.sync()
        self._begin(self.last + 1, mark)

    def abandon(self, mark: bytes) -> None:
        """Go on in the oldest segment after :meth:`rewind`, because the current one seems bad.

        Numbers do not go back with it: some of the entries that are to be written again may yet
        turn out to be on the medium.

        Raises:
            OSError: nothing has changed; the old segment goes on being used.
        """
        self._begin(self._highest + 1, mark)

    def _begin(self, number: int, mark: bytes) -> None:
        segment, entry = self.oldest(), encode(Kind.mark, number, mark)
        _write_all(segment.fd, entry, 0)
        os.fdatasync(segment.fd)
        segment.first = self.last = self.durable = self._highest = number
        self._current = segment
        self._offset = self._durable_offset = len(entry)

    def _make(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(fd, 0, self.segment_bytes)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(fd)
        self._open(path)

    def _open(self, path: Path) -> None:
        fd = os.open(path, (os.O_RDONLY if self._count is None else os.O_RDWR) | os.O_CLOEXEC)
        try:
            segment = Segment(path, fd, os.fstat(fd).st_size)
            segment.look()
        except OSError:
            os.close(fd)
            self.unreadable += 1
            return
        if self._count is not None and segment.size < self.segment_bytes:
            os.close(fd)  # a start was cut short while allocating; allocate() sees to it
        else:
            self._segments.append(segment)

    def _find_end(self) -> None:
        for segment in reversed(self.in_order()):
            try:
                for entry in segment.read():
                    self.last, self._offset = entry.number, entry.end
            except OSError:
                self._segments.remove(segment)
                os.close(segment.fd)
                self.unreadable += 1
            else:
                self._current = segment
                if self._count is not None:
                    os.fdatasync(segment.fd)  # an earlier writer may not have come to it
                break
        if self.unreadable:
            # The numbers in what can't be read now must not be given a second time, and what is
            # written from here on must not stand before it.
            self._current = None
            self.last += self.unreadable * (self.segment_bytes // _ENTRY.size)
        self._highest = self.durable = self.last
        self._durable_offset = self._offset


class StateFile:
    """The two-slot state.

    Raises:
        OSError: the file can't be opened or allocated.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "state"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            if os.fstat(self._fd).st_size < 2 * SLOT_BYTES:
                os.posix_fallocate(self._fd, 0, 2 * SLOT_BYTES)
                _sync_directory(directory)
            self._generation = max(_read_slots(self._fd), default=(0, b""))[0]
        except OSError:
            os.close(self._fd)
            raise

    @staticmethod
    def load(directory: Path) -> bytes | None:
        """The newest valid state's text, or None where there is none; creates nothing.

        Raises:
            OSError: the file is there and can't be read.
        """
        try:
            fd = os.open(directory / "state", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return max(_read_slots(fd), default=(0, None))[1]
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def save(self, text: bytes) -> None:
        """Store a state durably in the slot that the last one is not in.

        Raises:
            OSError: it could not be stored; the one before still stands.
            ValueError: it does not fit.
        """
        if _SLOT.size + len(text) > SLOT_BYTES:
            raise ValueError(f"state of {len(text)} bytes; allowed {SLOT_BYTES - _SLOT.size}")
        generation = self._generation + 1
        tail = _SLOT.pack(_SLOT_MARKER, 0, len(text), generation)[_CRC_FROM:] + text
        slot = _SLOT_MARKER + zlib.crc32(tail).to_bytes(4, "little") + tail
        _write_all(self._fd, slot, generation % 2 * SLOT_BYTES)
        os.fdatasync(self._fd)
        self._generation = generation


def _read_slots(fd: int) -> list[tuple[int, bytes]]:
    """Generation and text of the valid slots."""
    slots = []
    for offset in (0, SLOT_BYTES):
        data = os.pread(fd, SLOT_BYTES, offset)
        if len(data) < _SLOT.size:
            continue
        marker, crc, length, generation = _SLOT.unpack_from(data)
        end = _SLOT.size + length
        if marker == _SLOT_MARKER and end <= len(data) and zlib.crc32(data[_CRC_FROM:end]) == crc:
            slots.append((generation, data[_SLOT.size : end]))
    return slots


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some filesystems don't sync directories
            os.fsync(fd)
    finally:
        os.close(fd)
