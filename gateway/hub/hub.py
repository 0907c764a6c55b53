"""A small hub: hears every station, stores, acknowledges, tells whoever asked.

A message counts as received once it is in the record on disk; only then is it acknowledged on the
station's ``hub/ack``, together with all others of the same moment. A repeat is acknowledged again
and told to nobody. Messages are told as they arrive, since a warning can't wait for order;
:meth:`Hub.messages` gives a station's in the order of ``sequence``.

What is no CloudEvent is refused, and so is what a station says about another: the topic, which the
broker's access list guards, and the event's source must name the same station. A record that does
not match its schema is passed on, for a warning with a misspelt detail is still a warning;
:meth:`Hub.faults` says what is wrong with it.

Telemetry and waveforms come by a session of their own: a broker has one queue for a session, and
an alert must not wait in it behind what a whole city makes up for after an outage. In each turn
what is urgent comes first, and of the rest no more than takes a moment.

When it comes back, it sends each station that it finds an empty acknowledgement, upon which the
station sends at once whatever is not acknowledged.
"""

import json
import re
import selectors
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

from jsonschema import Draft202012Validator

from gateway.events import NS
from gateway.uplink import schemas
from gateway.uplink.config import MqttConfig
from gateway.uplink.messages import RETAINED, SEQUENCE_DIGITS, Kind
from gateway.uplink.mqtt import Connection, Down, Received, State, Subscribed, Up

URGENT = (*(kind.name for kind in Kind if not kind.bulk), *sorted(RETAINED))
BULK = tuple(kind.name for kind in Kind if kind.bulk)
"""Last parts of the topics of the two sessions."""
BULK_PACKETS = 50
"""Of one turn; storing one takes a fraction of a millisecond."""
MAX_FAULTS = 5
MAX_TEXT = 256
_SEQUENCE = re.compile(f"[0-9]{{{SEQUENCE_DIGITS}}}")
_TABLES = """
CREATE TABLE IF NOT EXISTS message (
    source TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, type TEXT NOT NULL,
    time TEXT NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (source, id)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS message_in_order ON message (source, sequence);
"""


@dataclass(frozen=True, slots=True)
class Message:
    """What a station said. ``kind`` is the topic's last part, ``data`` the record.

    ``late`` says that a message of a higher sequence has been told before.
    """

    city: str
    station: str
    kind: str
    id: str
    sequence: int
    type: str
    time: str
    data: Mapping[str, Any]
    late: bool


class Hub:
    """Listens at a broker. ``t`` is monotonic time in ns; drive it with :meth:`turn`.

    ``record`` is the database of what was received; without one it is kept in memory.
    """

    def __init__(
        self,
        config: MqttConfig,
        tell: Callable[[Message], None],
        selector: selectors.BaseSelector,
        record: Path | None = None,
        *,
        acknowledge: bool = True,
    ) -> None:
        self._tell = tell
        self._acknowledge = acknowledge
        self._selector = selector
        self._db = sqlite3.connect(record or ":memory:", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_TABLES)
        name = config.client_id or "hub"
        self._urgent = Connection(config, name, None, selector)
        self._bulk = Connection(config, f"{name}-bulk", None, selector, read_packets=BULK_PACKETS)
        self._validators = {
            name: Draft202012Validator(schema) for name, schema in schemas.schemas().items()
        }
        self._latest: dict[str, int] = {}
        self._unacknowledged: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()
        """Messages received, repeated, refused, and conflicting: repeated with other content."""
        self.troubles: dict[str, str] = {}
        """By client id: why a session is not up or may not listen. One that is well is not here."""
        self.refused = ""
        """The latest message that was refused, or conflicts with what is stored, and why."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Whether both sessions are up."""
        return self._urgent.state is self._bulk.state is State.up

    def turn(self, t: int) -> None:
        """Do what there is to do at ``t``."""
        received = self._take(self._urgent, URGENT, t)
        if self._urgent.state is not State.up:
            self._unacknowledged.clear()
        self._pass_on(received, t)
        for item in received:
            if item.retained and item.topic.endswith("/status"):
                self._greet(item.topic, t)
        self._pass_on(self._take(self._bulk, BULK, t), t)

    def next_deadline(self, t: int) -> int:
        """When :meth:`turn` is next wanted, sockets apart."""
        return min(self._urgent.next_deadline(t), self._bulk.next_deadline(t))

    def run(self, until: Callable[[], bool]) -> None:
        """Listen until ``until`` says to stop, which is asked at least once a second."""
        while not until():
            t = time.monotonic_ns()
            self.turn(t)
            wait_s = min(1.0, max(0, self.next_deadline(t) - time.monotonic_ns()) / NS)
            ready = self._selector.select(wait_s)
            t = time.monotonic_ns()
            for key, mask in ready:
                key.data(mask, t)

    def command(self, city: str, station: str, envelope: bytes) -> None:
        """Send a signed command to a station.

        Raises:
            ConnectionError: the broker is not reached.
        """
        topic = f"eew/v1/{city}/{station}/hub/command"
        self._urgent.publish(topic, envelope, time.monotonic_ns(), expiry_s=60)

    def request(
        self, city: str, station: str, identity: str, name: str, arguments: Mapping[str, Any]
    ) -> None:
        """Ask a station for something; its reply names ``identity``.

        Raises:
            ConnectionError: the broker is not reached.
        """
        topic = f"eew/v1/{city}/{station}/hub/request"
        wanted = {"id": identity, "request": name, "arguments": arguments}
        payload = json.dumps(wanted, ensure_ascii=False, separators=(",", ":")).encode()
        self._urgent.publish(topic, payload, time.monotonic_ns(), expiry_s=3600)

    def messages(self, source: str) -> Iterator[dict[str, Any]]:
        """The CloudEvents of a station (``/eew/{city}/{station}``) in the order of ``sequence``."""
        rows = self._db.execute(
            "SELECT payload FROM message WHERE source = ? ORDER BY sequence", (source,)
        )
        for (payload,) in rows:
            yield json.loads(payload)

    def faults(self, message: Message) -> list[str]:
        """Where a message does not match its schema; the first few."""
        validator = self._validators.get(message.type)
        if validator is None:
            return [f"no schema for {message.type!r}"]
        errors = islice(validator.iter_errors(message.data), MAX_FAULTS)
        return [f"{error.json_path}: {error.message}" for error in errors]

    def close(self) -> None:
        """Leave the broker."""
        self._urgent.close()
        self._bulk.close()
        self._db.close()

    # --- inside -----------------------------------------------------------------------------------

    def _take(self, connection: Connection, kinds: tuple[str, ...], t: int) -> list[Received]:
        """What has come by a session, which is kept up and subscribed."""
        connection.tick(t)
        session = connection.client_id
        received: list[Received] = []
        for happening in connection.happened(t):
            match happening:
                case Up():
                    self.troubles.pop(session, None)
                    for kind in kinds:
                        connection.subscribe(f"eew/v1/+/+/{kind}")
                case Down():
                    self.troubles[session] = f"{session} at {happening.url}: {happening.reason}"
                case Subscribed() if happening.refused:
                    self.troubles[session] = (
                        f"{session} at {connection.url} may not listen to all of "
                        f"{', '.join(kinds)}: {happening.refused}; let it at the broker"
                    )
                case Received():
                    received.append(happening)
        return received

    def _pass_on(self, received: list[Received], t: int) -> None:
        """Store, acknowledge and tell."""
        told = self._store(received) if received else []
        self._acknowledge_all(t)
        for message in told:
            self._tell(message)

    def _store(self, received: list[Received]) -> list[Message]:
        """Keep what was received; gives what is new."""
        told = []
        self._db.execute("BEGIN IMMEDIATE")
        for item in received:
            try:
                message, event = self._read(item)
            except (ValueError, RecursionError) as error:
                self.counts["refused"] += 1
                self.refused = f"{item.topic}: {error}"
                continue
            source = event["source"]
            if message.kind not in RETAINED and not Kind[message.kind].bulk:
                self._unacknowledged.setdefault(source, []).append(message.id)
            if self._repeated(message, source):
                continue
            self._db.execute(
                "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)",
                (source, message.id, message.sequence, message.type, message.time, item.payload),
            )
            self.counts["received"] += 1
            self._latest[source] = max(message.sequence, self._latest.get(source, 0))
            told.append(message)
        self._db.execute("COMMIT")
        return told

    def _repeated(self, message: Message, source: str) -> bool:
        """Whether it is here already; of two sequences of a repeat the higher one holds.

        A station that was killed numbers anew what it had not stored, in the old order.
        """
        known = self._db.execute(
            "SELECT payload FROM message WHERE source = ? AND id = ?", (source, message.id)
        ).fetchone()
        if known is None:
            return False
        self.counts["repeated"] += 1
        if json.loads(known[0])["data"] != message.data:
            self.counts["conflicting"] += 1
            self.refused = f"{source} {message.id}: came again with other content; the first holds"
        self._db.execute(
            "UPDATE message SET sequence = max(sequence, ?) WHERE source = ? AND id = ?",
            (message.sequence, source, message.id),
        )
        return True

    def _greet(self, topic: str, t: int) -> None:
        """Tell a station whose status lay at the broker that someone acknowledges again."""
        if self._acknowledge and self._urgent.room:
            self._urgent.publish(topic.replace("/status", "/hub/ack"), b'{"ids":[]}', t)

    def _read(self, item: Received) -> tuple[Message, dict[str, Any]]:
        """The message in a packet.

        Raises:
            ValueError: it can't be used: no event, or not of the station whose topic it is.
        """
        _, _, city, station, kind = item.topic.split("/", 4)
        if kind not in Kind.__members__ and kind not in RETAINED:
            raise ValueError("no topic of a station")
        event = _cloud_event(item.payload)
        source, sequence = event["source"], int(event["sequence"])
        if source != f"/eew/{city}/{station}":
            raise ValueError(f"speaks for {source}")
        name = event["type"].removeprefix("eew.").removesuffix(".v1")
        message = Message(
            city=city,
            station=station,
            kind=kind,
            id=event["id"],
            sequence=sequence,
            type=name,
            time=event["time"],
            data=event["data"],
            late=sequence < self._latest.get(source, 0),
        )
        return message, event

    def _acknowledge_all(self, t: int) -> None:
        for source in list(self._unacknowledged):
            if not self._acknowledge or not self._urgent.room:
                return
            ids = self._unacknowledged.pop(source)
            topic = f"eew/v1{source.removeprefix('/eew')}/hub/ack"
            payload = json.dumps({"ids": ids}, separators=(",", ":")).encode()
            self._urgent.publish(topic, payload, t)


def _cloud_event(payload: bytes) -> dict[str, Any]:
    """The event in a payload; what schemas.cloud_event_schema() says, at a tenth of the cost.

    Raises:
        ValueError: it is none of ours.
    """
    event = json.loads(payload)
    if not isinstance(event, dict) or event.get("specversion") != "1.0":
        raise ValueError("no CloudEvent 1.0")
    for key in ("id", "source", "type", "time"):
        value = event.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
            raise ValueError(f"{key} is {value!r}")
    sequence = event.get("sequence")
    if not isinstance(sequence, str) or not _SEQUENCE.fullmatch(sequence):
        raise ValueError(f"sequence is {sequence!r}")
    if not isinstance(event.get("data"), dict):
        raise ValueError("data is no object")  # noqa: TRY004  one error for whatever is wrong
    return event
