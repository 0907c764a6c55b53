"""What waits for the hub, on disk, so that nothing that was decided is ever lost on the way.

A message lives here until the hub has acknowledged it by id (alerts to health) or the broker has
taken it for somebody (telemetry, waveforms). It is sent from memory the moment it comes and stored
right after, so that a slow disk delays no alert; the core is told that a record is stored only once
it is. What has been acknowledged before its turn to be stored never touches the disk.

One SQLite database in WAL mode with one writer, this process:

=========  ======================================================================================
message    ``sequence`` (order of arrival, never used twice), ``kind``, ``id`` (unique), ``topic``,
           ``payload``, ``powered_s`` (when it came, on the powered-on clock below)
state      ``run_id`` and ``seq`` (the last record stored), ``data_run_id`` and ``data_seq`` (the
           last reading stored), ``powered_s``, ``reserved`` (sequence numbers below this may have
           been used), ``budget_since_s`` and ``budget_used`` (of a metered link)
dropped    ``kind``, ``reason`` (quota, expired, memory, too_large), ``count``
retained   ``topic``, ``payload``: the latest of each retained topic
=========  ======================================================================================

Commits are FULL (synced) whenever they hold anything but telemetry, and take along whatever waits.
Expiry counts time that the station was powered on, so that no step of the clock can expire
anything. When the disk fails, messages wait in memory and are sent from there; :attr:`Outbox.full`
then asks the caller to leave further records with the core. A damaged database is set aside,
readable alerts and events are carried over, and the core is asked for all its records again.
"""

import json
import os
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from gateway.events import NS
from gateway.uplink.messages import LIFETIME_S, Kind

MAX_IN_MEMORY = 4000
WINDOW = 256
"""Messages of one class that may be sent from disk ahead of the hub's acknowledgements."""
RESEND_MIN_NS = 5 * NS
RESEND_MAX_NS = 600 * NS
RESEND_BULK_NS = 60 * NS
STORE_WITHIN_NS = {True: 0, False: NS // 2}
STORE_BULK_WITHIN_NS = 5 * NS
FORGET_AT_ONCE = 200
"""Acknowledged messages that are forgotten without waiting, lest it takes long at once."""
RETRY_DISK_NS = 5 * NS
HOUSEKEEPING_NS = 60 * NS
RESERVE = 1_000_000
_LARGEST = 1 << 62
"""Numbers of damaged rows beyond this would leave no room for what is counted on from them."""
_FAULTS = (sqlite3.Error, UnicodeDecodeError)
"""What the database raises: the second where damage has reached its texts."""
_OF_THE_DISK = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
}
_UNREADABLE = {
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
    sqlite3.SQLITE_IOERR_CORRUPTFS,
}
_TABLES = """
CREATE TABLE IF NOT EXISTS message (
    sequence INTEGER PRIMARY KEY, kind INTEGER NOT NULL, id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL, payload BLOB NOT NULL, powered_s INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS message_by_kind ON message (kind, sequence);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value ANY) STRICT;
CREATE TABLE IF NOT EXISTS dropped (
    kind INTEGER, reason TEXT, count INTEGER NOT NULL, PRIMARY KEY (kind, reason)) STRICT;
CREATE TABLE IF NOT EXISTS retained (topic TEXT PRIMARY KEY, payload BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it is sent. ``powered_s`` is when it came, on the powered-on clock."""

    sequence: int
    kind: Kind
    id: str
    topic: str
    payload: bytes
    powered_s: int


class Position(NamedTuple):
    """The last record of the core that is stored here."""

    run_id: str
    seq: int


@dataclass(slots=True)
class _Lane:
    """What is known of one class without asking the disk."""

    kind: Kind
    unsent: deque[int] = field(default_factory=deque)
    """Came or timed out, and still in memory."""
    sent: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Sent and not acknowledged: sequence to (time, id), oldest first."""
    cursor: int = 0
    """Messages on disk up to here have been sent, or are in ``sent``."""
    more: bool = True
    """Whether the disk may hold messages beyond the cursor."""
    delay_ns: int = RESEND_MIN_NS
    held_until: int = 0
    """Nobody listened: nothing is sent before. 0: somebody may."""

    def __post_init__(self) -> None:
        self.progress()

    def progress(self) -> None:
        self.delay_ns = RESEND_BULK_NS if self.kind.bulk else RESEND_MIN_NS
        self.held_until = 0

    def back(self, sequence: int) -> None:
        """A message on disk is due again."""
        self.cursor = min(self.cursor, sequence - 1)
        self.more = True


class Outbox:
    """The outbox at ``path``. ``t`` is monotonic time in ns and never falls."""

    def __init__(self, path: Path, quota_bytes: int, t: int) -> None:
        self.path = path
        self.failure = ""
        """Why messages can't be stored at the moment; empty while they can."""
        self.damaged = 0
        """How often a damaged database was set aside since the start."""
        self.position: Position | None = None
        """What the core may be told is stored."""
        self.data_position: Position | None = None
        """The last item of data that is in a message that was put."""
        self.budget: tuple[int, int] = (0, 0)
        """Of a metered link: when its day began, on the powered-on clock, and bytes used since."""
        self._reached: Position | None = None
        self._quota_bytes = quota_bytes
        self._fresh: dict[int, Message] = {}
        self._live: dict[str, tuple[Kind, int]] = {}
        self._lanes = {kind: _Lane(kind) for kind in Kind}
        self._done: set[str] = set()
        self._retained: dict[str, bytes] = {}
        self._retained_new: set[str] = set()
        self._unsaid: Counter[tuple[Kind, str]] = Counter()
        self._uncounted: Counter[tuple[Kind, str]] = Counter()
        self._opened_t = t
        self._powered_s = 0
        self._sequence = self._reserved = 0
        self._commit_at: int | None = None
        self._housekeeping_at = t + HOUSEKEEPING_NS
        self._db: sqlite3.Connection | None = None
        self._open(t)

    # --- what comes in ----------------------------------------------------------------------------

    def put(
        self, kind: Kind, identity: str, topic: str, payload: Callable[[int], bytes], t: int
    ) -> None:
        """Take a message; ``payload`` makes its bytes from its sequence number."""
        if identity in self._live:
            return
        sequence = self.next_sequence()
        message = Message(sequence, kind, identity, topic, payload(sequence), self.powered_s(t))
        self._fresh[sequence] = message
        self._live[identity] = (kind, sequence)
        self._lanes[kind].unsent.append(sequence)
        self._commit_by(t + (STORE_BULK_WITHIN_NS if kind.bulk else STORE_WITHIN_NS[kind.urgent]))
        if len(self._fresh) > MAX_IN_MEMORY:
            self._make_room()

    def next_sequence(self) -> int:
        """A number above all that were used before, for a message."""
        self._sequence += 1
        return self._sequence

    def retain(self, topic: str, payload: bytes, t: int) -> None:
        """Keep the latest payload of a retained topic."""
        self._retained[topic] = payload
        self._retained_new.add(topic)
        self._commit_by(t)

    @property
    def retained(self) -> dict[str, bytes]:
        """The latest payload of each retained topic."""
        return dict(self._retained)

    def reached(self, run_id: str, seq: int, t: int) -> None:
        """Everything up to this record has been put."""
        self._reached = Position(run_id, seq)
        self._commit_by(t + STORE_WITHIN_NS[False])

    @property
    def full(self) -> bool:
        """Whether memory is full of messages that can't be stored: leave records with the core."""
        return len(self._fresh) >= MAX_IN_MEMORY

    # --- what goes out ----------------------------------------------------------------------------

    def due(
        self, t: int, room: int, bulk_room: int, held: frozenset[Kind] = frozenset()
    ) -> list[Message]:
        """Messages to send now, the most urgent first and the latest before a backlog.

        ``room`` and ``bulk_room`` say how many, and how many of them may be telemetry; classes
        that are ``held`` wait.
        """
        found: list[Message] = []
        for lane in self._lanes.values():
            free = room - len(found)
            if lane.kind.bulk:
                free = min(free, bulk_room - sum(m.kind.bulk for m in found))
            if free <= 0:
                break
            if lane.kind in held or t < lane.held_until:
                continue
            lane.held_until = 0
            self._time_out(lane, t)
            chosen = self._from_memory(lane, free)
            if lane.more and len(chosen) < free:
                chosen += self._from_disk(lane, free - len(chosen), t)
            for message in chosen:
                lane.sent[message.sequence] = (t, message.id)
                self._live[message.id] = (lane.kind, message.sequence)
            found += chosen
        return found

    def remaining_s(self, message: Message, t: int) -> int | None:
        """For how many seconds more a message is worth sending; None: for ever."""
        lifetime_s = LIFETIME_S[message.kind]
        if lifetime_s is None:
            return None
        return max(1, lifetime_s - (self.powered_s(t) - message.powered_s))

    def too_large(self, message: Message, t: int) -> None:
        """The broker takes no message of this size: it is dropped and counted."""
        self.acknowledged([message.id], t)
        self._drop(message.kind, "too_large", 1)

    def acknowledged(self, ids: Iterable[str], t: int) -> int:
        """Messages with these ids have arrived; says how many of them were waiting in memory."""
        known = 0
        for identity in ids:
            kind, sequence = self._live.pop(identity, (None, 0))
            if kind is not None:
                known += 1
                lane = self._lanes[kind]
                lane.sent.pop(sequence, None)
                lane.progress()
            if self._fresh.pop(sequence, None) is None:
                self._done.add(identity)
                self._commit_by(t + (NS if len(self._done) < FORGET_AT_ONCE else 0))
        return known

    def unheard(self, message: Message, t: int) -> None:
        """The broker took it for nobody: its class waits for someone to come, ever longer."""
        lane = self._lanes[message.kind]
        if lane.sent.pop(message.sequence, None) is not None:
            self._unsend(lane, message.sequence, message.id)
        if not lane.held_until:
            lane.held_until = t + lane.delay_ns
            lane.delay_ns = min(2 * lane.delay_ns, RESEND_MAX_NS)

    def send_again(self) -> None:
        """The connection was lost or the hub is back: what is not acknowledged is due again."""
        for lane in self._lanes.values():
            for sequence, (_, identity) in lane.sent.items():
                self._unsend(lane, sequence, identity)
            lane.sent.clear()
            lane.progress()

    def next_deadline(self) -> int:
        """When :meth:`tick` or :meth:`due` is next wanted."""
        times = [
            next(iter(lane.sent.values()))[0] + lane.delay_ns
            for lane in self._lanes.values()
            if lane.sent
        ]
        times += [lane.held_until for lane in self._lanes.values() if lane.held_until]
        if self._db is not None:
            times.append(self._housekeeping_at)
        if self._commit_at is not None:
            times.append(self._commit_at)
        return min(times)

    # --- what is stored ---------------------------------------------------------------------------

    def tick(self, t: int) -> None:
        """Store what is due, drop what has expired."""
        if self._db is None and self._commit_at is not None and t >= self._commit_at:
            self._open(t)
        due = self._commit_at is not None and t >= self._commit_at
        if due or (self._db is not None and t >= self._housekeeping_at):
            self.commit(t)

    def commit(self, t: int) -> bool:
        """Store everything that waits, in one transaction; False if the disk does not let us."""
        self._commit_at = None
        if self._db is None:
            self._commit_at = t + RETRY_DISK_NS
            return False
        synced = (
            self._reached != self.position
            or bool(self._retained_new)
            or any(not message.kind.bulk for message in self._fresh.values())
        )
        if self._sequence + RESERVE // 2 > self._reserved:
            self._reserved = self._sequence + RESERVE
        try:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            self._write(self._db, t)
            trimmed = self._trim(self._db, t)
            self._db.execute("COMMIT")
        except _FAULTS as error:
            self._failed(error, t)
            return False
        self._unsaid += trimmed
        self._stored()
        return True

    def dropped(self) -> dict[tuple[Kind, str], int]:
        """What was dropped since this was last asked, by class and reason."""
        found, self._unsaid = dict(self._unsaid), Counter()
        return found

    def waiting(self) -> dict[Kind, int]:
        """How many messages of each class wait, in memory and on disk."""
        found = Counter(message.kind for message in self._fresh.values())
        if self._db is not None:
            with suppress(*_FAULTS, ValueError):
                for kind, count in self._db.execute(
                    "SELECT kind, count(*) FROM message GROUP BY kind"
                ):
                    found[Kind(kind)] += count
        return dict(found)

    def queues(self, t: int) -> dict[Kind, tuple[int, int]]:
        """How many messages of each class wait, and the age of the oldest, powered-on seconds."""
        found = dict.fromkeys(Kind, (0, 0))
        oldest: dict[Kind, int] = {}
        for message in self._fresh.values():
            oldest.setdefault(message.kind, message.powered_s)
        if self._db is not None:
            with suppress(*_FAULTS, ValueError):
                for kind, powered_s in self._db.execute(
                    "SELECT kind, powered_s FROM message WHERE sequence IN"
                    " (SELECT min(sequence) FROM message GROUP BY kind)"
                ):
                    oldest[Kind(kind)] = powered_s
        for kind, count in self.waiting().items():
            found[kind] = count, max(0, self.powered_s(t) - oldest.get(kind, self.powered_s(t)))
        return found

    def close(self, t: int) -> None:
        """Store what waits and close the database."""
        self.commit(t)
        self._close()

    # --- inside -----------------------------------------------------------------------------------

    def powered_s(self, t: int) -> int:
        """For how long the station has been powered on, since the outbox was first made."""
        return self._powered_s + (t - self._opened_t) // NS

    def _commit_by(self, t: int) -> None:
        if self._db is not None and (self._commit_at is None or t < self._commit_at):
            self._commit_at = t

    def _drop(self, kind: Kind, reason: str, count: int) -> None:
        self._unsaid[kind, reason] += count
        self._uncounted[kind, reason] += count

    def _make_room(self) -> None:
        """Memory is full: the oldest telemetry goes; records never do, see :attr:`full`."""
        for kind in reversed(Kind):
            if not kind.bulk:
                return
            for sequence, message in self._fresh.items():
                if message.kind is kind:
                    del self._fresh[sequence], self._live[message.id]
                    self._lanes[kind].sent.pop(sequence, None)
                    self._drop(kind, "memory", 1)
                    return

    def _unsend(self, lane: _Lane, sequence: int, identity: str) -> None:
        if sequence in self._fresh:
            lane.unsent.append(sequence)
        else:
            self._live.pop(identity, None)
            lane.back(sequence)

    def _time_out(self, lane: _Lane, t: int) -> None:
        overdue = []
        for sequence, (sent_t, identity) in lane.sent.items():
            if t - sent_t < lane.delay_ns:
                break
            overdue.append((sequence, identity))
        for sequence, identity in overdue:
            del lane.sent[sequence]
            self._unsend(lane, sequence, identity)
        if overdue and not lane.kind.bulk:
            lane.delay_ns = min(2 * lane.delay_ns, RESEND_MAX_NS)

    def _from_memory(self, lane: _Lane, free: int) -> list[Message]:
        chosen: list[Message] = []
        while lane.unsent and len(chosen) < free:
            if message := self._fresh.get(lane.unsent.popleft()):
                chosen.append(message)
        return chosen

    def _from_disk(self, lane: _Lane, free: int, t: int) -> list[Message]:
        chosen: list[Message] = []
        free = min(free, WINDOW - len(lane.sent))
        while self._db is not None and len(chosen) < free:
            try:
                rows = self._db.execute(
                    "SELECT sequence, id, topic, payload, powered_s FROM message"
                    " WHERE kind = ? AND sequence > ? ORDER BY sequence LIMIT ?",
                    (lane.kind, lane.cursor, free),
                ).fetchall()
            except _FAULTS as error:
                self._failed(error, t)
                break
            if not rows:
                lane.more = False
                break
            for sequence, identity, topic, payload, powered_s in rows:
                if len(chosen) == free:
                    break
                lane.cursor = sequence
                if sequence not in lane.sent and identity not in self._done:
                    chosen.append(Message(sequence, lane.kind, identity, topic, payload, powered_s))
        return chosen

    def _write(self, db: sqlite3.Connection, t: int) -> None:
        db.executemany("DELETE FROM message WHERE id = ?", [(i,) for i in self._done])
        db.executemany(
            "INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?, ?)",
            [
                (m.sequence, m.kind, m.id, m.topic, m.payload, m.powered_s)
                for m in self._fresh.values()
            ],
        )
        db.executemany(
            "INSERT OR REPLACE INTO retained VALUES (?, ?)",
            [(topic, self._retained[topic]) for topic in self._retained_new],
        )
        state: dict[str, int | str] = {
            "powered_s": self.powered_s(t),
            "reserved": self._reserved,
            "budget_since_s": self.budget[0],
            "budget_used": self.budget[1],
        }
        if self._reached is not None:
            state |= {"run_id": self._reached.run_id, "seq": self._reached.seq}
        if self.data_position is not None:
            run_id, seq = self.data_position
            state |= {"data_run_id": run_id, "data_seq": seq}
        db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", state.items())

    def _trim(self, db: sqlite3.Connection, t: int) -> Counter[tuple[Kind, str]]:
        """Drop what has expired and what is over the quota, and count it."""
        dropped: Counter[tuple[Kind, str]] = Counter()
        if t >= self._housekeeping_at:
            self._housekeeping_at = t + HOUSEKEEPING_NS
            for kind, lifetime_s in LIFETIME_S.items():
                if lifetime_s is not None:
                    dropped[kind, "expired"] += db.execute(
                        "DELETE FROM message WHERE kind = ? AND powered_s < ?",
                        (kind, self.powered_s(t) - lifetime_s),
                    ).rowcount
        kinds = list(Kind)
        while kinds and used_bytes(db) > self._quota_bytes:
            removed = db.execute(
                "DELETE FROM message WHERE sequence IN"
                " (SELECT sequence FROM message WHERE kind = ? ORDER BY sequence LIMIT 64)",
                (kinds[-1],),
            ).rowcount
            dropped[kinds[-1], "quota"] += removed
            if not removed:
                kinds.pop()
        dropped = +dropped
        db.executemany(
            "INSERT INTO dropped VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [(kind, why, count) for (kind, why), count in (self._uncounted + dropped).items()],
        )
        return dropped

    def _stored(self) -> None:
        for sequence, message in self._fresh.items():
            lane = self._lanes[message.kind]
            if sequence not in lane.sent:
                lane.back(sequence)
                del self._live[message.id]
        for lane in self._lanes.values():
            lane.unsent.clear()
        self._fresh.clear()
        self._done.clear()
        self._retained_new.clear()
        self._uncounted.clear()
        self.position = self._reached
        self.failure = ""

    def _open(self, t: int) -> None:
        try:
            try:
                db, state, retained = self._connect()
            except _FAULTS as error:
                if not _is_damage(error, self.path):
                    raise
                db, state, retained = self._replace()
        except (*_FAULTS, OSError) as error:
            self.failure = f"{self.path}: {error}"
            self._sequence = max(self._sequence, time.time_ns() // 1000)
            self._commit_at = t + RETRY_DISK_NS
            return
        self._db = db
        self._reserved = state.reserved
        self._sequence = max(self._sequence, state.reserved or time.time_ns() // 1000)
        if (missing_s := state.powered_s - self.powered_s(t)) > 0:
            self._powered_s += missing_s
            self._fresh = {
                sequence: replace(message, powered_s=message.powered_s + missing_s)
                for sequence, message in self._fresh.items()
            }
        if self._reached is None:
            self._reached = self.position = state.position
        self.data_position = self.data_position or state.data_position
        self.budget = max(self.budget, state.budget)
        self._retained = retained | self._retained
        for lane in self._lanes.values():
            lane.more = True
        self._commit_at = t

    def _connect(self) -> tuple[sqlite3.Connection, "_State", dict[str, bytes]]:
        """Open the database, made if need be, and read all but the messages.

        Raises:
            sqlite3.Error, UnicodeDecodeError: it is damaged, or the disk fails.
        """
        db = sqlite3.connect(self.path, isolation_level=None, timeout=0.1)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA journal_size_limit = 4194304")
            db.executescript(_TABLES)
            if (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)
            state = _State.of(dict(db.execute("SELECT key, value FROM state")))
            return db, state, dict(db.execute("SELECT topic, payload FROM retained"))
        except _FAULTS:
            db.close()
            raise

    def _replace(self) -> tuple[sqlite3.Connection, "_State", dict[str, bytes]]:
        """Set a damaged database aside and carry over what can be read of it."""
        self.damaged += 1
        self._reached = self.position = None
        aside = self.path.with_name(f"{self.path.name}.damaged")
        for suffix in ("-wal", "-shm", ""):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.replace(aside.with_name(aside.name + suffix))
        with closing(sqlite3.connect(aside)) as old:
            rows = list(_readable(old))
        db, _, retained = self._connect()
        last = max((row[0] for row in rows), default=0)
        powered_s = max((row[5] for row in rows), default=0)
        reserved = max(last + RESERVE, time.time_ns() // 1000)
        state = _State(None, None, powered_s, reserved, (0, 0))
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?, ?)", rows)
        db.execute("COMMIT")
        return db, state, retained

    def _failed(self, error: Exception, t: int) -> None:
        self._close()
        if _is_damage(error, self.path):
            self._open(t)
        else:
            self.failure = f"{self.path}: {error}"
            self._commit_at = t + RETRY_DISK_NS

    def _close(self) -> None:
        if self._db is not None:
            with suppress(*_FAULTS):
                self._db.close()
            self._db = None


class _State(NamedTuple):
    """The table of that name."""

    position: Position | None
    data_position: Position | None
    powered_s: int
    reserved: int
    budget: tuple[int, int]

    @classmethod
    def of(cls, found: Mapping[str, object]) -> Self:
        """From its rows.

        Raises:
            sqlite3.DatabaseError: they are not what was written there.
        """
        powered_s, reserved = found.get("powered_s", 0), found.get("reserved", 0)
        if not isinstance(powered_s, int) or not isinstance(reserved, int) or powered_s < 0:
            raise sqlite3.DatabaseError(f"state is {found}")
        places: list[Position | None] = []
        for prefix in ("", "data_"):
            run_id, seq = found.get(f"{prefix}run_id"), found.get(f"{prefix}seq")
            if isinstance(run_id, str) and isinstance(seq, int):
                places.append(Position(run_id, seq))
            else:
                places.append(None)
        since_s, used = found.get("budget_since_s", 0), found.get("budget_used", 0)
        if not isinstance(since_s, int) or not isinstance(used, int):
            raise sqlite3.DatabaseError(f"state is {found}")
        return cls(places[0], places[1], powered_s, reserved, (since_s, used))


def _is_damage(error: Exception, path: Path) -> bool:
    """Whether the database is at fault, so that another one would work, and not the disk."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code in _UNREADABLE:
        return True
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        return os.access(path, os.W_OK)
    return code & 0xFF not in _OF_THE_DISK


def used_bytes(db: sqlite3.Connection) -> int:
    """What the content of a database takes, free pages apart."""
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _readable(old: sqlite3.Connection) -> Iterator[tuple[int, int, str, str, bytes, int]]:
    """Rows of a damaged database, telemetry apart: from both ends up to where reading fails."""
    seen: set[int] = set()
    for step, last in (
        ("SELECT * FROM message WHERE sequence > ? ORDER BY sequence LIMIT 1", 0),
        ("SELECT * FROM message WHERE sequence < ? ORDER BY sequence DESC LIMIT 1", 2**63 - 1),
    ):
        at = last
        with suppress(*_FAULTS):
            while (row := old.execute(step, (at,)).fetchone()) and row[0] not in seen:
                at = row[0]
                seen.add(at)
                if _is_whole(row) and row[1] <= Kind.health:
                    yield row


def _is_whole(row: Sequence[Any]) -> bool:
    """Whether a row of a damaged database is as it may be written: types are damaged too."""
    if [type(value) for value in row] != [int, int, str, str, bytes, int]:
        return False
    sequence, kind, _, _, payload, powered_s = row
    numbers = 0 < sequence < _LARGEST and kind in list(Kind) and 0 <= powered_s < _LARGEST
    try:
        return numbers and json.loads(payload) is not None
    except (ValueError, RecursionError):
        return False
