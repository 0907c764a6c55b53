"""The journal's child process: the only writer of the state directory.

It reads frames from one pipe, writes them to disk and answers on another; it ends when the core
has ended and everything is written. Both pipes carry frames: length of the payload (4 bytes,
little endian), kind (1 byte), payload.

=======  =========  ===========================================================================
kind     direction  payload
=======  =========  ===========================================================================
record   both       body of a record as in the segments; to the core only before a ``batch``
state    to child   the text of a state slot
control  to child   ``{"start": mark}``, ``{"commit": token}``, ``{"stored": position}``,
                    ``{"read": position, "limit": n}``, ``{"clean": true}``
control  to core    ``{"durable": records so far}``, ``{"committed": token}``,
                    ``{"failed": kind, "reason": …, "token": …}``, ``{"healed": kind}``,
                    ``{"lost": kind, "count": n}``,
                    ``{"batch": position, "done": …, "complete": …}``
=======  =========  ===========================================================================

A disk that fails never ends the child: it says so once, keeps what it has and tries again. Its
memory is bounded by the core's, which holds every record until it is acknowledged as durable.
"""

import contextlib
import errno
import fcntl
import gc
import json
import os
import select
import signal
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from gateway.core.segments import (
    Death,
    Entry,
    Kind,
    Mark,
    Position,
    Record,
    Segment,
    Segments,
    StateFile,
    covered,
    pack_record,
    position,
    unpack_record,
)

PIPE_BYTES = 1 << 20
MAX_DEATHS = 8
BATCH_BYTES = 256 << 10
SYNC_NS = 1_000_000_000
"""What is written becomes durable within this time."""
RETRY_NS = 50_000_000
MAX_RETRY_NS = 2_000_000_000
"""A failing disk is tried again after ``RETRY_NS``, doubling up to ``MAX_RETRY_NS``."""
GIVE_UP_NS = 3_000_000_000
"""So long after the core's end the child goes on trying a failing disk."""
BAD_AFTER = 3
"""A segment that gave this many I/O errors running is left for the next one."""

MAX_PLACES = 8
"""Readers that are being caught up, whose places are remembered from batch to batch."""

_FRAME = struct.Struct("<IB")

_Place = tuple[int, int]
"""First number of a segment, and the number of an entry in it."""


class FrameKind(IntEnum):
    """What a frame on the pipes is."""

    record = 1
    state = 2
    control = 3


def frame(kind: FrameKind, payload: bytes) -> bytes:
    """One frame."""
    return _FRAME.pack(len(payload), kind) + payload


def control(message: dict[str, Any]) -> bytes:
    """A control frame."""
    return frame(FrameKind.control, json.dumps(message).encode())


def take_frames(received: bytearray) -> list[tuple[int, bytes]]:
    """Take the whole frames off the front of ``received``."""
    frames, start = [], 0
    while start + _FRAME.size <= len(received):
        length, kind = _FRAME.unpack_from(received, start)
        end = start + _FRAME.size + length
        if end > len(received):
            break
        frames.append((kind, bytes(received[start + _FRAME.size : end])))
        start = end
    del received[:start]
    return frames


def boot_id() -> str:
    """The kernel's id of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


boottime_ns = partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
"""Time since the machine's boot, suspension included."""


def lock(directory: Path) -> int:
    """Take the lock of the state directory's one writer; the descriptor holds it.

    Raises:
        BlockingIOError: another process has it.
        OSError: there is no such directory, or it can't be written.
    """
    path = directory / "lock"
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        message = "another gateway keeps its journal here"
        raise BlockingIOError(errno.EAGAIN, message, str(path)) from None
    return fd


def run(
    directory: Path,
    quota_bytes: int,
    segment_bytes: int,
    requests: int,
    replies: int,
    locked: int | None,
) -> NoReturn:
    """Become the journal child, right after the fork; never returns.

    ``locked`` is the descriptor of :func:`lock` if the core holds it. The exit status says whether
    everything was written.
    """
    code = 1
    try:
        for number in (
            signal.SIGTERM,
            signal.SIGINT,
            signal.SIGHUP,
            signal.SIGQUIT,
            signal.SIGABRT,  # systemd's watchdog sends it to every process of the unit
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        gc.freeze()  # collecting would copy the pages that are shared with the core
        _become_ordinary()
        _close_others(requests, replies, *([] if locked is None else [locked]))
        count = max(2, quota_bytes // segment_bytes)
        child = JournalChild(directory, count, segment_bytes, requests, replies, locked)
        code = 0 if child.run() else 1
    finally:
        # Not sys.exit: what the core registered for its own end is not this process's to do.
        os._exit(code)


def _become_ordinary() -> None:
    with contextlib.suppress(OSError):  # forbidden: then the core has no other priority either
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("gateway-journal")


def _close_others(*keep: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    first = 3  # standard error stays, for a traceback
    for fd in sorted(keep):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


class JournalChild:
    """The child's loop: receive, write, sync, read back, answer."""

    def __init__(
        self,
        directory: Path,
        count: int,
        segment_bytes: int,
        requests: int,
        replies: int,
        locked: int | None,
    ) -> None:
        self._directory = directory
        self._count = count
        self._segment_bytes = segment_bytes
        self._requests = requests
        self._replies = replies
        self._received = bytearray()
        self._out = bytearray()
        self._ended_ns: int | None = None
        self._clean = False

        self._lock = locked
        self._segments: Segments | None = None
        self._state_file: StateFile | None = None
        self._mark = Mark(boot_id(), boottime_ns())
        self._mark_due = False
        self._state: bytes | None = None
        self._waiting: deque[bytes] = deque()
        self._written: deque[tuple[int, bytes]] = deque()
        self._durable = 0
        self._commits: list[int] = []
        self._sync_at: int | None = None

        self._failing: set[str] = set()
        self._retry_at = 0
        self._retry_ns = RETRY_NS
        self._io_errors = 0

        self._reads: deque[tuple[Position, int]] = deque()
        self._reading: Iterator[None] | None = None
        self._complete = True
        self._places: dict[Position, _Place] = {}
        self._doomed = (0, 0)
        """First number of the segment that is to be overwritten next, and its unstored records."""

    def run(self) -> bool:
        """Until the core has ended and everything is written (True) or a failing disk given up."""
        poll = select.poll()
        poll.register(self._requests, select.POLLIN)
        while not self._finished():
            if self._out:
                poll.register(self._replies, select.POLLOUT)
            ready = poll.poll(self._timeout_ms())
            if self._out:
                poll.unregister(self._replies)
            if any(fd == self._requests for fd, _ in ready):
                self._receive()
                if self._ended_ns is not None:
                    poll.unregister(self._requests)
            self._store()
            self._read_on()
            self._send()
        return not self._left()

    def _left(self) -> bool:
        return bool(self._waiting or self._written or self._state or self._mark_due)

    def _finished(self) -> bool:
        if self._ended_ns is None:
            return False
        return not self._left() or time.monotonic_ns() - self._ended_ns > GIVE_UP_NS

    def _timeout_ms(self) -> float | None:
        if self._reading or (self._reads and not self._out):
            return 0
        due = self._retry_at if "disk" in self._failing else self._sync_at
        return None if due is None else max(0, due - time.monotonic_ns()) / 1e6

    # --- from the core

    def _receive(self) -> None:
        # All that the pipe holds now, so that one fdatasync serves every commit in it.
        ended, room = False, PIPE_BYTES
        with contextlib.suppress(BlockingIOError):
            while room > 0 and not ended:
                data = os.read(self._requests, PIPE_BYTES)
                self._received += data
                room -= len(data)
                ended = not data
        for kind, payload in take_frames(self._received):
            if kind == FrameKind.record:
                self._waiting.append(payload)
            elif kind == FrameKind.state:
                self._state = payload
            else:
                self._obey(json.loads(payload))
        if ended:
            self._core_ended()
        if self._left() and self._sync_at is None:
            self._sync_at = time.monotonic_ns() + SYNC_NS

    def _obey(self, message: dict[str, Any]) -> None:
        match message:
            case {"start": mark}:
                self._mark = Mark.unpack(mark.encode())
                self._mark_due = True
                self._sync_at = time.monotonic_ns()
            case {"commit": token}:
                self._commits.append(token)
            case {"stored": stored}:
                self._mark = replace(self._mark, stored=position(stored))
                self._mark_due = True
            case {"read": after, "limit": limit}:
                self._reads.append((position(after), limit))
            case {"clean": True}:
                self._clean = True

    def _core_ended(self) -> None:
        self._ended_ns = time.monotonic_ns()
        deaths = self._mark.deaths
        if not self._clean:
            deaths = (*deaths, Death(self._mark.boot_id, boottime_ns()))[-MAX_DEATHS:]
        self._mark = replace(self._mark, running=False, deaths=deaths)
        self._mark_due = True

    # --- to disk

    def _store(self) -> None:
        now = time.monotonic_ns()
        if "disk" in self._failing and now < self._retry_at and not self._commits:
            return
        try:
            segments = self._open()
            while self._waiting:
                if segments.write(Kind.record, self._waiting[0]):
                    self._written.append((segments.last, self._waiting.popleft()))
                else:
                    self._rotate(segments)
            if self._state is not None:
                self._save_state(self._state)
            due = self._sync_at is not None and now >= self._sync_at
            if due or self._commits or self._ended_ns is not None:
                self._sync(segments)
        except OSError as error:
            self._disk_failed(error)
        else:
            self._heal("disk")
            self._retry_ns, self._io_errors = RETRY_NS, 0

    def _open(self) -> Segments:
        if self._lock is None:
            self._lock = lock(self._directory)
        if self._state_file is None:
            self._state_file = StateFile(self._directory)
        if self._segments is None:
            self._segments = Segments(self._directory, self._count, self._segment_bytes)
            self._check_space(self._segments)
        return self._segments

    def _check_space(self, segments: Segments) -> None:
        if segments.shortage:
            self._fail("space", f"{self._directory}: not all segments fit: {segments.shortage}")
        else:
            self._heal("space")

    def _rotate(self, segments: Segments) -> None:
        if segments.shortage:
            segments.allocate()
            self._check_space(segments)
        lost = self._unstored(segments)
        segments.rotate(self._mark.pack())
        self._mark_due = False
        self._overwritten(lost)

    def _unstored(self, segments: Segments) -> int:
        """How many records that the uplink has not stored the oldest segment holds."""
        oldest = segments.oldest()
        if not oldest.first:
            return 0
        if oldest.first == self._doomed[0]:
            return self._doomed[1]  # an attempt that failed may have spoilt it already
        if self._mark.stored is not None:
            for segment in reversed(segments.in_order()):
                number = covered(self._entries(segment), self._mark.stored)
                if number is not None:
                    self._mark = replace(self._mark, stored_number=number)
                    break
        count = sum(
            entry.kind is Kind.record and entry.number > self._mark.stored_number
            for entry in self._entries(oldest)
        )
        self._doomed = (oldest.first, count)
        return count

    def _overwritten(self, count: int) -> None:
        if count:
            self._reply({"lost": "overwritten", "count": count})

    def _save_state(self, text: bytes) -> None:
        if self._state_file is None:
            return
        try:
            self._state_file.save(text)
        except ValueError as error:
            self._fail("state", str(error))
        else:
            self._heal("state")
        self._state = None

    def _sync(self, segments: Segments) -> None:
        while self._mark_due:
            if segments.write(Kind.mark, self._mark.pack()):
                self._mark_due = False
            else:
                self._rotate(segments)
        segments.sync()
        self._acknowledge(segments)
        for token in self._commits:
            if "state" in self._failing:
                self._reply({"failed": "state", "reason": "the state is too long", "token": token})
            else:
                self._reply({"committed": token})
        self._commits.clear()
        self._sync_at = None

    def _acknowledge(self, segments: Segments) -> None:
        before = self._durable
        while self._written and self._written[0][0] <= segments.durable:
            self._written.popleft()
            self._durable += 1
        if self._durable != before:
            self._reply({"durable": self._durable})

    def _disk_failed(self, error: OSError) -> None:
        reason = f"{self._directory}: {error}"
        self._fail("disk", reason)
        for token in self._commits:
            self._reply({"failed": "disk", "reason": reason, "token": token})
        self._commits.clear()
        self._sync_at = self._retry_at = time.monotonic_ns() + self._retry_ns
        self._retry_ns = min(2 * self._retry_ns, MAX_RETRY_NS)
        self._places.clear()  # entries that are written again may get other numbers
        if self._segments is not None:
            self._acknowledge(self._segments)
            self._segments.rewind()
            self._waiting.extendleft(body for _, body in reversed(self._written))
            self._written.clear()
            self._mark_due = True
            self._io_errors += error.errno == errno.EIO
            if self._io_errors >= BAD_AFTER:
                self._io_errors, lost = 0, self._unstored(self._segments)
                with contextlib.suppress(OSError):  # no better there; the next retry goes on here
                    self._segments.abandon(self._mark.pack())
                    self._overwritten(lost)

    # --- back to the core

    def _read_on(self) -> None:
        """One step of answering a read; the segments between steps, so that commits never wait."""
        if self._reading is None and self._reads and not self._out:
            self._reading = self._read(*self._reads.popleft())
        if self._reading is not None:
            try:
                next(self._reading)
            except StopIteration:
                self._reading = None

    def _entries(self, segment: Segment) -> list[Entry]:
        try:
            return list(segment.read())
        except OSError:
            self._complete = False
            return []

    def _read(self, after: Position, limit: int) -> Iterator[None]:
        """Answer a read, stopping now and then for other work."""
        records: list[bytes] = []
        size, done, last, self._complete = 0, True, after, True
        place: _Place | None = None
        try:
            for found in self._found_after(after):
                if found is None:
                    yield
                    continue
                record, at = found
                if last and record.run_id == last[0] and record.seq <= last[1]:
                    continue  # written again after a failure
                if len(records) >= limit or size > BATCH_BYTES:
                    done = False
                    break
                last, place = (record.run_id, record.seq), at
                records.append(frame(FrameKind.record, pack_record(record)))
                size += len(records[-1])
        except OSError:
            self._complete = False
        self._out += b"".join(records)
        self._reply({"batch": after, "done": done, "complete": self._complete})
        self._places.pop(after, None)
        if not done and last and place:
            self._places[last] = place
            if len(self._places) > MAX_PLACES:
                del self._places[next(iter(self._places))]

    def _found_after(self, after: Position) -> Iterator[tuple[Record, _Place | None] | None]:
        """Records on disk and then in memory; None where there is a moment for other work.

        With each its place; one in memory has none yet.
        """
        with contextlib.ExitStack() as stack:
            segments = self._segments
            if segments is None:
                segments = stack.enter_context(contextlib.closing(Segments(self._directory)))
            first, number = self._places.get(after, (0, 0))
            if after is not None and not number:
                # Newest first: most readers are hardly behind.
                for segment in reversed(segments.in_order()):
                    known = covered(self._entries(segment), after)
                    if known is not None:
                        first, number = segment.first, known
                        break
                    yield None
            while following := [s for s in segments.in_order() if s.first >= first]:
                start = following[0].first
                for entry in self._entries(following[0]):
                    if entry.kind is Kind.record and entry.number > number:
                        number = entry.number
                        yield unpack_record(entry.body), (start, number)
                first = start + 1
                if len(following) > 1:
                    yield None
            for body in self._waiting:
                yield unpack_record(body), None

    def _fail(self, kind: str, reason: str) -> None:
        if kind not in self._failing:
            self._failing.add(kind)
            self._reply({"failed": kind, "reason": reason, "token": None})

    def _heal(self, kind: str) -> None:
        if kind in self._failing:
            self._failing.remove(kind)
            self._reply({"healed": kind})

    def _reply(self, message: dict[str, Any]) -> None:
        if self._ended_ns is None:
            self._out += control(message)

    def _send(self) -> None:
        if self._ended_ns is not None:
            self._out.clear()
        while self._out:
            try:
                count = os.write(self._replies, self._out)
            except BlockingIOError:
                break
            except BrokenPipeError:  # the core's end is noticed on the other pipe
                self._out.clear()
                break
            del self._out[:count]
