"""Day files of miniSEED records in SDS folders: written, repaired, looked up, given up.

SDS (SeisComP Data Structure 1.0), one file a channel and UTC day::

    ROOT/2026/XX/DEMO/EHZ.D/XX.DEMO..EHZ.D.2026.330
    ROOT/overlap/2026/XX/DEMO/EHZ.D/…      samples of a time that was there already
    ROOT/quality/2026/2026.330.jsonl       what was wrong that day

What the last two hold is told in ``gateway.uplink.archive``.

In a file records of 512 bytes follow each other in time without overlap, so that a time or a
sequence number is found by bisection. A record is one sector of the disk: after a power cut it is
there or not, and what is not a record any more is cut out when the archive is opened.

Records are appended as they come and never rewritten, which costs a flash disk least; the disk is
told to store them for good (fdatasync) once in a while. Whoever reads does so on descriptors of
its own, at any time and from any thread.
"""

import calendar
import errno
import os
import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from gateway.uplink.mseed import (
    RECORD_BYTES,
    Header,
    day_of,
    day_text,
    following,
    read_header,
    record_sequence,
    start_ns,
)

_NAME = re.compile(
    r"(?P<channel>[A-Z0-9]{1,2}\.[A-Z0-9]{1,5}\.[A-Z0-9]{0,2}\.[A-Z0-9]{3})\.D"
    r"\.(?P<year>\d{4})\.(?P<doy>\d{3})"
)
_LOG_NAME = re.compile(r"(?P<year>\d{4})\.(?P<doy>\d{3})\.jsonl")
QUALITY, OVERLAP = "quality", "overlap"
READ_RECORDS = 64


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a file was no record: ``bytes`` of it, at its ``end`` or within it."""

    path: Path
    bytes: int
    at_end: bool


class DayFile:
    """One file to be read. Close it, or use it as a context."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def __len__(self) -> int:
        """Records that there are now."""
        return os.fstat(self._fd).st_size // RECORD_BYTES

    def record(self, index: int) -> bytes:
        return os.pread(self._fd, RECORD_BYTES, index * RECORD_BYTES)

    def records(self, first: int) -> Iterator[bytes]:
        """Records from that one on, to the end as it is when it is reached."""
        while data := os.pread(self._fd, READ_RECORDS * RECORD_BYTES, first * RECORD_BYTES):
            whole = len(data) // RECORD_BYTES
            for index in range(whole):
                yield data[index * RECORD_BYTES : (index + 1) * RECORD_BYTES]
            if not whole:
                return
            first += whole

    def at_time(self, time_ns: int) -> int:
        """The first record that ends after a time."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if read_header(self.record(middle)).end_ns > time_ns:
                high = middle
            else:
                low = middle + 1
        return low

    def after(self, sequence: int) -> int:
        """The first record whose number is behind ``sequence``."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if following(record_sequence(self.record(middle)), sequence) > 0:
                high = middle
            else:
                low = middle + 1
        return low


class Sds:
    """The folders under ``root``. One thread writes; ``sync_s`` is its longest time unsynced.

    Nothing is touched before :meth:`open`. What the disk refuses is raised as ``OSError``; the same
    call may be made again later.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root_length = len(str(root)) + 1
        self.opened = False
        self._sizes: dict[tuple[int, str], int] = {}
        """Bytes by day and path within the root."""
        self._open: dict[str, tuple[Path, int]] = {}
        """By folder and channel: the file that is written and its descriptor."""
        self._unsynced: set[str] = set()

    # --- what there is ----------------------------------------------------------------------------

    def open(self) -> list[Cut]:
        """Look through the folders; cut what is no record out of the newest files.

        Raises:
            OSError: the root can't be made, read or written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self._sizes.clear()
        for path in self.root.rglob("*"):
            found = _NAME.fullmatch(path.name) or _LOG_NAME.fullmatch(path.name)
            if found:
                day = _day(found["year"], found["doy"])
                self._sizes[day, str(path.relative_to(self.root))] = path.stat().st_size
        cuts = []
        newest: dict[tuple[str, str], tuple[int, str]] = {}
        for day, name in sorted(self._sizes):
            if found := _NAME.fullmatch(Path(name).name):
                newest[_tree(name), found["channel"]] = day, name
        for (_, channel), (day, name) in newest.items():
            path = self.root / name
            if cut := repair(path, channel):
                cuts.append(cut)
                self._sizes[day, name] = path.stat().st_size
        self.opened = True
        return cuts

    def last(self, tree: str = "") -> dict[str, Header]:
        """The header of each channel's last record."""
        found: dict[str, Header] = {}
        for _, name in sorted(self._sizes, reverse=True):
            match = _NAME.fullmatch(Path(name).name)
            if match is None or _tree(name) != tree or match["channel"] in found:
                continue
            with suppress(OSError, ValueError), DayFile(self.root / name) as file:
                if count := len(file):
                    found[match["channel"]] = read_header(file.record(count - 1))
        return found

    def span(self, channel: str) -> tuple[Header, Header] | None:
        """The headers of a channel's first and last record.

        Raises:
            OSError, ValueError: a file can't be read, or holds something else.
        """
        ends: list[Header] = []
        for days in (self.days, list(reversed(self.days))):
            for day in days:
                if (file := self._day_file(channel, day)) is None:
                    continue
                with file:
                    if count := len(file):
                        ends.append(read_header(file.record(count - 1 if ends else 0)))
                        break
        return (ends[0], ends[1]) if len(ends) == 2 else None

    @property
    def used_bytes(self) -> int:
        """What all files together hold."""
        return sum(self._sizes.values())

    @property
    def days(self) -> list[int]:
        """Days of which there is something, the oldest first."""
        return sorted({day for day, _ in list(self._sizes)})

    @property
    def channels(self) -> list[str]:
        """Channels of which there is something."""
        names = (_NAME.fullmatch(Path(name).name) for _, name in list(self._sizes))
        return sorted({found["channel"] for found in names if found})

    def path(self, channel: str, day: int, tree: str = "") -> Path:
        """The file of a channel's day."""
        network, station, _, code = channel.split(".")
        year, doy = day_text(day)
        name = f"{channel}.D.{year}.{doy}"
        return self.root.joinpath(tree, year, network, station, f"{code}.D", name)

    def log_path(self, day: int) -> Path:
        """The file of a day's quality log."""
        year, doy = day_text(day)
        return self.root / QUALITY / year / f"{year}.{doy}.jsonl"

    # --- writing ----------------------------------------------------------------------------------

    def append(self, path: Path, day: int, data: bytes, writer: str) -> None:
        """Put whole records, or lines, at the end of a file. ``writer`` keeps its file open.

        Raises:
            OSError: they are not, or not all, on the disk; the file is as it was before.
        """
        try:
            descriptor = self._descriptor(path, writer)
            key = day, str(path)[self._root_length :]
            size = self._sizes.get(key, 0)
            _write_whole(descriptor, data, path)
        except OSError:
            self.close()
            raise
        self._sizes[key] = size + len(data)
        self._unsynced.add(writer)

    @property
    def unsynced(self) -> bool:
        """Whether something was appended that the disk may not have stored for good."""
        return bool(self._unsynced)

    def sync(self) -> None:
        """Have the disk store for good what was appended.

        Raises:
            OSError: it can't.
        """
        for writer in list(self._unsynced):
            if writer in self._open:
                os.fdatasync(self._open[writer][1])
            self._unsynced.discard(writer)

    def close(self) -> None:
        """Close the files; they are opened again when they are needed."""
        for _, descriptor in self._open.values():
            with suppress(OSError):
                os.close(descriptor)
        self._open.clear()

    def remove_day(self, day: int) -> int:
        """Give up everything of a day; how many bytes that were.

        Raises:
            OSError: the disk refuses.
        """
        freed = 0
        for key in [key for key in self._sizes if key[0] == day]:
            path = self.root / key[1]
            for writer in [w for w, (open_path, _) in self._open.items() if open_path == path]:
                os.close(self._open.pop(writer)[1])
            path.unlink(missing_ok=True)
            freed += self._sizes.pop(key)
            for folder in list(path.parents)[: -len(self.root.parents) - 1]:
                with suppress(OSError):  # not empty
                    folder.rmdir()
        return freed

    def _descriptor(self, path: Path, writer: str) -> int:
        known = self._open.get(writer)
        if known is not None:
            if known[0] == path:
                return known[1]
            os.fdatasync(known[1])
            os.close(self._open.pop(writer)[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o640)
        self._open[writer] = path, descriptor
        return descriptor

    # --- reading ----------------------------------------------------------------------------------

    def window(self, channel: str, begin_ns: int, end_ns: int) -> Generator[bytes]:
        """Records of a channel that hold anything of [begin, end), in order of time."""
        first, last = day_of(begin_ns) - 1, day_of(max(begin_ns, end_ns - 1))
        for day in [day for day in self.days if first <= day <= last]:
            if (file := self._day_file(channel, day)) is None:
                continue
            with file:
                for record in file.records(file.at_time(begin_ns)):
                    if start_ns(record) >= end_ns:
                        break
                    yield record

    def after(self, channel: str, sequence: int) -> Generator[bytes]:
        """Records of a channel that were numbered after ``sequence``, in that order."""
        for day in self._days_after(channel, sequence):
            if (file := self._day_file(channel, day)) is None:
                continue
            with file:
                for record in file.records(file.after(sequence)):
                    if following(record_sequence(record), sequence) > 0:
                        yield record

    def _days_after(self, channel: str, sequence: int) -> list[int]:
        """Days whose files hold numbers after ``sequence``; not those of a turn before."""
        found: list[int] = []
        newer: int | None = None
        for day in reversed(self.days):
            if (file := self._day_file(channel, day)) is None:
                continue
            with file:
                if not len(file):
                    continue
                first = record_sequence(file.record(0))
            if newer is not None and following(first, newer) > 0:
                break
            found.insert(0, day)
            newer = first
            if following(first, sequence) <= 0:
                break
        return found

    def _day_file(self, channel: str, day: int) -> DayFile | None:
        try:
            return DayFile(self.path(channel, day))
        except FileNotFoundError:
            return None

    def free_bytes(self) -> int:
        """What the disk has left for us.

        Raises:
            OSError: the disk does not say.
        """
        state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize


def repair(path: Path, channel: str) -> Cut | None:
    """Cut out of a file what is no record of its channel, or does not follow the one before.

    Raises:
        OSError: the file can't be read or written.
    """
    size = path.stat().st_size
    count = size // RECORD_BYTES
    good = _good(path, count, channel)
    if len(good) == count and not size % RECORD_BYTES:
        return None
    kept = len(good)
    if kept == 0 or good[-1] == kept - 1:  # all that is wrong is at the end
        with path.open("r+b") as file:
            file.truncate(kept * RECORD_BYTES)
            os.fsync(file.fileno())
        return Cut(path, size - kept * RECORD_BYTES, at_end=True)
    mended = path.with_name(path.name + ".mended")
    with path.open("rb") as old, mended.open("wb") as new:
        for index in good:
            old.seek(index * RECORD_BYTES)
            new.write(old.read(RECORD_BYTES))
        new.flush()
        os.fsync(new.fileno())
    mended.chmod(path.stat().st_mode & 0o777)
    mended.replace(path)
    return Cut(path, size - kept * RECORD_BYTES, at_end=False)


def _good(path: Path, count: int, channel: str) -> list[int]:
    """The records of a file that are sound, by their place in it."""
    network, station, location, code = (x.encode() for x in channel.split("."))
    name = b"%-5b%-2b%-3b%-2b" % (station, location, code, network)
    good: list[int] = []
    if not count:
        return good
    records = np.memmap(path, np.uint8, mode="r", shape=(count, RECORD_BYTES))
    named = (records[:, 8:20] == np.frombuffer(name, np.uint8)).all(axis=1)
    heads = records[:, :128].copy()
    del records
    end_ns = None
    for index in np.flatnonzero(named):
        try:
            header = read_header(heads[index].tobytes())
        except ValueError:
            continue
        half_ns = round(0.5e9 / header.rate_hz)
        if end_ns is None or header.start_ns >= end_ns - half_ns:
            good.append(int(index))
            end_ns = header.end_ns
    return good


def _write_whole(descriptor: int, data: bytes, path: Path) -> None:
    """Append all of the data or, where the disk takes only a part, nothing."""
    if (written := os.write(descriptor, data)) < len(data):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _tree(name: str) -> str:
    first = name.split("/", 1)[0]
    return "" if first.isdigit() else first


def _day(year: str, doy: str) -> int:
    return calendar.timegm((int(year), 1, 1, 0, 0, 0)) // 86_400 + int(doy) - 1
