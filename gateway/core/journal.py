"""The journal: what the core must not forget, kept by a child process of its own.

The core never touches the disk. It hands its records over a pipe to a child
(:mod:`gateway.core.journal_child`), which is the only writer of the state directory (its files:
:mod:`gateway.core.segments`) and outlives the core until everything in the pipe is written.

====================  ========================================================================
what dies             what is lost
====================  ========================================================================
the core              nothing that :meth:`Journal.flush` has put into the pipe
the child             nothing: what it has not acknowledged is sent again after a restart
both, or the machine  what came after the last fdatasync, which is at most a second old
the disk              nothing that fits in memory until it works again; the rest is counted
====================  ========================================================================
"""

import contextlib
import fcntl
import json
import os
import select
import selectors
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.core import journal_child
from gateway.core.journal_child import (
    MAX_DEATHS,
    PIPE_BYTES,
    FrameKind,
    boot_id,
    boottime_ns,
    control,
    frame,
    lock,
    take_frames,
)
from gateway.core.recovery import Recovered, recover
from gateway.core.segments import (
    QUOTA_BYTES,
    SEGMENT_BYTES,
    Death,
    Mark,
    Position,
    Record,
    pack_record,
    unpack_record,
)

__all__ = [
    "Batch",
    "Committed",
    "Death",
    "Failed",
    "Healed",
    "Item",
    "Journal",
    "Lost",
    "Position",
    "Record",
    "Recovered",
    "boot_id",
    "boottime_ns",
]

ORDINARY_BYTES = 2 << 20
"""Ordinary records are dropped while this much waits for the disk …"""
IMPORTANT_BYTES = 8 << 20
"""… and alerts and siren actions only from here on."""
MAX_COMMITS = 64
"""Commits that may wait at a time."""
RESTART_S = (1.0, 60.0)
"""Shortest and longest wait before the child is restarted."""

_REPLY_BYTES = 256 << 10
_FRAMES_A_WRITE = 64


@dataclass(frozen=True, slots=True)
class Committed:
    """Everything before :meth:`Journal.commit` with this token is on the medium."""

    token: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Something can't be kept. With a token: that commit failed; without: said once until healed.

    ``kind`` is ``disk`` (writing fails), ``space`` (fewer segments than the quota asks for fit),
    ``state`` (too long for its slot), ``queue`` (records are being dropped), ``child`` (it died:
    call :meth:`Journal.restart` after ``restart_delay_s``) or ``recovery`` (not all that an earlier
    run left could be read; never healed).
    """

    kind: str
    reason: str
    token: int | None = None


@dataclass(frozen=True, slots=True)
class Healed:
    """A failure of that kind is over."""

    kind: str


@dataclass(frozen=True, slots=True)
class Lost:
    """``count`` records are gone.

    ``kind`` is ``queue`` (dropped because the disk was too slow or failing), ``too_long`` (longer
    than an entry may be), ``overwritten`` (the quota's oldest, not yet stored by the uplink) or
    ``damage`` (on disk, but not readable).
    """

    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Records after ``after``, in order. ``done`` when there were no more when it was asked.

    Not ``complete``: the journal could not be read throughout, so that some may be missing.
    """

    after: Position
    records: tuple[Record, ...]
    done: bool
    complete: bool = True


Item = Committed | Failed | Healed | Lost | Batch


class Journal:
    """The core's end. Nothing here but :meth:`start` and :meth:`close` waits for disk or child.

    The shell calls :meth:`flush` at the end of each turn of its loop, after the sirens' bytes are
    out, and then :meth:`poll`, which is cheap when there is nothing.
    """

    def __init__(
        self,
        directory: Path,
        quota_bytes: int,
        segment_bytes: int,
        recovered: Recovered,
        start: Mark,
    ) -> None:
        self.recovered = recovered
        self.pid = 0
        """The child's process id; 0 while there is none."""
        self.restart_delay_s = RESTART_S[0]
        """How long to wait before :meth:`restart`; doubles until a record has become durable."""
        self._directory = directory
        self._quota_bytes = quota_bytes
        self._segment_bytes = segment_bytes
        self._start = control({"start": start.pack().decode()})
        self._selector: selectors.BaseSelector | None = None
        self._watched: set[int] = set()
        self._readable = False
        self._dead = 0
        self._requests = self._replies = -1
        self._received = bytearray()
        self._queue: deque[bytes] = deque()
        self._sent_of_first = 0
        self._unacknowledged: deque[bytes] = deque()
        self._unacknowledged_bytes = 0
        self._durable = 0
        self._last: Position = None
        self._latest: dict[str, bytes] = {}
        self._commits: dict[int, None] = {}
        self._reads: deque[Position] = deque()
        self._batch: list[Record] = []
        self._dropped = 0
        self._items: list[Item] = []

    @classmethod
    def start(
        cls,
        directory: Path,
        quota_bytes: int = QUOTA_BYTES,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        wait_s: float = 2.0,
    ) -> "Journal":
        """Recover what an earlier run left in ``directory`` and fork the child.

        Called once, before the core has threads or real-time priority. While the child of a core
        that died is still writing, it is waited for, ``wait_s`` at most. Never raises because of
        the disk: what is wrong with it, :meth:`poll` says.
        """
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        locked = _wait_for_lock(directory, wait_s)
        recovered, mark = recover(directory)
        start = Mark(boot_id(), boottime_ns(), deaths=recovered.deaths[-MAX_DEATHS:])
        if mark:
            start = replace(start, stored=mark.stored, stored_number=mark.stored_number)
        journal = cls(directory, quota_bytes, segment_bytes, recovered, start)
        if recovered.problem:
            journal._items.append(Failed("recovery", recovered.problem))
        if recovered.skipped:
            journal._items.append(Lost("damage", recovered.skipped))
        journal._fork(locked)
        return journal

    # --- what is to be kept

    def append(self, run_id: str, seq: int, line: bytes, *, important: bool = False) -> bool:
        """Keep a record; ``line`` is its JSON without a line feed, ``seq`` rises within a run.

        ``important`` ones (alerts, siren actions) are the last to be dropped when the disk does
        not keep up. False when it was dropped; :meth:`poll` then says so.
        """
        try:
            body = pack_record(Record(run_id, seq, line))
        except ValueError:
            self._items.append(Lost("too_long", 1))
            return False
        self._last = (run_id, seq)
        limit = IMPORTANT_BYTES if important else ORDINARY_BYTES
        if self._unacknowledged_bytes + len(body) > limit:
            if not self._dropped:
                reason = f"{self._directory}: too slow or failing; records are dropped"
                self._items.append(Failed("queue", reason))
            self._dropped += 1
            return False
        data = frame(FrameKind.record, body)
        self._unacknowledged.append(data)
        self._unacknowledged_bytes += len(data)
        self._queue.append(data)
        return True

    def save_state(self, state: dict[str, Any]) -> None:
        """Store the state, which includes every record appended so far; the newest one wins."""
        text = json.dumps({"after": self._last, "state": state}, separators=(",", ":"))
        self._put_latest("state", frame(FrameKind.state, text.encode()))

    def stored(self, run_id: str, seq: int) -> None:
        """The uplink has stored every record up to this one."""
        self._put_latest("stored", control({"stored": (run_id, seq)}))

    def commit(self, token: int) -> None:
        """Make everything before this durable: answered by Committed, or Failed with the token."""
        if not self.pid:
            self._items.append(Failed("child", "the journal child is dead", token))
        elif len(self._commits) >= MAX_COMMITS:
            self._items.append(Failed("queue", f"{MAX_COMMITS} commits are waiting", token))
        else:
            self._commits[token] = None
            self._queue.append(control({"commit": token}))

    def read_after(self, after: Position, limit: int = 500) -> None:
        """Ask for the records after ``after``: answered by one Batch, in the order asked.

        A position that the journal does not know (any more) means from its oldest record on.
        """
        if self.pid:
            self._reads.append(after)
            self._queue.append(control({"read": after, "limit": limit}))
        else:
            self._items.append(Batch(after, (), done=True, complete=False))

    def clean_exit(self) -> None:
        """This run ends on purpose and is no death."""
        self._put_latest("clean", control({"clean": True}))

    # --- moving it

    def fileno(self) -> int:
        """The descriptor that is readable when there is something to :meth:`poll`."""
        return self._replies

    @property
    def wants_write(self) -> bool:
        """Whether the pipe was full at the last :meth:`flush`."""
        return self.pid != 0 and bool(self._queue)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Keep both pipes registered in ``selector``, restarts included.

        ``key.data`` is a callable that takes the event mask and notes at most that there is
        something to :meth:`poll`: for the rest it is enough that the loop turns.
        """
        self._selector = selector
        self._watch()

    def flush(self) -> None:
        """Hand over as much as the pipe takes without blocking."""
        while self.wants_write:
            chunk = [self._queue[i] for i in range(min(len(self._queue), _FRAMES_A_WRITE))]
            chunk[0] = chunk[0][self._sent_of_first :]
            try:
                count = os.writev(self._requests, chunk)
            except (BlockingIOError, BrokenPipeError):  # full; dead, which poll() will find
                break
            count += self._sent_of_first
            while self._queue and count >= len(self._queue[0]):
                count -= len(self._queue.popleft())
            self._sent_of_first = count
        self._watch()

    def poll(self) -> list[Item]:
        """What the child says, and what became of what was asked of it."""
        if self.pid and (self._readable or self._selector is None):
            self._readable = False
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._replies, _REPLY_BYTES)
                self._received += data
                for kind, payload in take_frames(self._received):
                    if kind == FrameKind.record:
                        self._batch.append(unpack_record(payload))
                    else:
                        self._heard(json.loads(payload))
                if not data:
                    self._child_died()
        items, self._items = self._items, []
        return items

    def restart(self) -> None:
        """Fork another child for one that died, and send again what that one left undone."""
        if self.pid:
            return
        self._reap()
        self.restart_delay_s = min(2 * self.restart_delay_s, RESTART_S[1])
        self._queue = deque([*self._unacknowledged, *self._latest.values()])
        self._sent_of_first = self._durable = 0
        self._items.append(Healed("child"))
        self._fork(None)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Let the child finish; False if not everything was written within the time.

        For the end of an orderly exit, when the sirens are off and waiting does no harm.
        """
        if not self.pid:
            return False
        deadline = time.monotonic() + timeout_s
        self.flush()
        while self.wants_write and time.monotonic() < deadline:
            select.select([], [self._requests], [], 0.1)
            self.flush()
        handed_over = not self._queue
        pid, self.pid = self.pid, 0
        self._watch()
        os.close(self._requests)
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._replies], [], [], left)[0] and not os.read(
                self._replies, _REPLY_BYTES
            ):
                os.close(self._replies)
                return handed_over and os.waitpid(pid, 0)[1] == 0
        return False

    def _put_latest(self, what: str, data: bytes) -> None:
        """Queue a message of which only the newest matters, in the place of one that waits."""
        before, self._latest[what] = self._latest.get(what), data
        for index, waiting in enumerate(self._queue):
            if waiting is before and (index or not self._sent_of_first):
                self._queue[index] = data
                return
        if self.pid:
            self._queue.append(data)

    def _heard(self, message: dict[str, Any]) -> None:
        match message:
            case {"durable": count}:
                self._acknowledge(count)
            case {"committed": token}:
                self._commits.pop(token, None)
                self._items.append(Committed(token))
            case {"failed": kind, "reason": reason, "token": token}:
                self._commits.pop(token, None)
                self._items.append(Failed(kind, reason, token))
            case {"healed": kind}:
                self._items.append(Healed(kind))
            case {"lost": kind, "count": count}:
                self._items.append(Lost(kind, count))
            case {"batch": _, "done": done, "complete": complete}:
                records, self._batch = tuple(self._batch), []
                self._items.append(Batch(self._reads.popleft(), records, done, complete))

    def _acknowledge(self, count: int) -> None:
        while self._durable < count:
            self._unacknowledged_bytes -= len(self._unacknowledged.popleft())
            self._durable += 1
        self.restart_delay_s = RESTART_S[0]
        if self._dropped and self._unacknowledged_bytes < ORDINARY_BYTES // 2:
            self._items += [Lost("queue", self._dropped), Healed("queue")]
            self._dropped = 0

    def _child_died(self) -> None:
        self._dead, self.pid = self.pid, 0
        self._reap()
        self._watch()
        os.close(self._requests)
        os.close(self._replies)
        self._requests = self._replies = -1
        self._received.clear()
        self._batch.clear()
        reason = "the journal child died; nothing is kept until it is restarted"
        self._items.append(Failed("child", reason))
        self._items += [Failed("child", reason, token) for token in self._commits]
        self._items += [Batch(after, (), done=True, complete=False) for after in self._reads]
        self._commits.clear()
        self._reads.clear()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            if self._dead and os.waitpid(self._dead, os.WNOHANG)[0]:
                self._dead = 0

    def _watch(self) -> None:
        """Bring the selector up to date with what is open and what is to be written."""
        if self._selector is None:
            return
        wanted = {self._replies: selectors.EVENT_READ} if self.pid else {}
        if self.wants_write:
            wanted[self._requests] = selectors.EVENT_WRITE
        for fd in self._watched - wanted.keys():
            self._selector.unregister(fd)
        for fd in wanted.keys() - self._watched:
            self._selector.register(fd, wanted[fd], self._ready)
        self._watched = set(wanted)

    def _ready(self, mask: int) -> None:
        self._readable |= bool(mask & selectors.EVENT_READ)

    def _fork(self, locked: int | None) -> None:
        child_requests, self._requests = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._replies, child_replies = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.suppress(PermissionError):  # more than this user may: then the usual size
            fcntl.fcntl(self._requests, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._queue.appendleft(self._start)
        self.pid = os.fork()
        if self.pid == 0:
            journal_child.run(
                self._directory,
                self._quota_bytes,
                self._segment_bytes,
                child_requests,
                child_replies,
                locked,
            )
        os.close(child_requests)
        os.close(child_replies)
        if locked is not None:
            os.close(locked)
        self.flush()


def _wait_for_lock(directory: Path, wait_s: float) -> int | None:
    """The lock of the directory, held from before recovery until the child ends.

    None when it can't be had in time: then the child goes on trying.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return lock(directory)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return None
            select.select([], [], [], 0.005)
        except OSError:
            return None
