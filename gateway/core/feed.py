"""The feed: what the core tells the uplink and monitors, over ``feed.sock``.

Lines of JSON both ways. *Records* (alerts, siren actions, events, health) are never left out: a
client says the last one it has and gets all that follow, from memory where that reaches back far
enough and else from the journal, then live. *Data* (packets, readings) comes from a ring in
memory; what a slow client missed is stated.

From the client, the greeting first:

=====================================================  =========================================
``{"hello": {"have": …, "data": true}}``               ``have``: ``{"run_id": …, "seq": …}``; null
                                                       for all that the journal has; ``"now"``
                                                       for new records only. ``data``: true for
                                                       new data; ``"memory"`` for what memory has
                                                       too, which then goes on filling while no
                                                       client is there
``{"stored": {"run_id": …, "seq": …}}``                everything up to there is stored durably
``{"command": {…}}``                                   a signed envelope of at most 4 KiB
=====================================================  =========================================

To the client:

=====================================================  =========================================
``{"stream": "record", "run_id", "seq", "record"}``    in order; ``record`` as ``to_record`` gives
``{"stream": "data", "run_id", "seq", "packet"}``      see :func:`packet_body`; ``seq`` counts
``{"stream": "data", "run_id", "seq", "reading"}``     data items and is not the records'
``{"stream": "data", "run_id", "seq", "measured"}``    once a minute of each sensor of readings
``{"stream": "gap", "of": "data", "lost": n}``         data that the ring no longer had
``{"stream": "gap", "of": "record", "lost": n}``       records that neither memory nor the journal
                                                       had; null where the number is not known
``{"error": …}``                                       why the connection is closed
=====================================================  =========================================
"""

import json
import re
import selectors
import socket
from binascii import b2a_base64
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.core.journal import Batch, Position
from gateway.core.local_socket import LineConnection, LineTooLongError, Listener
from gateway.events import Measured, Packet, Reading, iso

MAX_CLIENTS = 4
MAX_COMMAND_BYTES = 4096
MAX_LINE_BYTES = MAX_COMMAND_BYTES + 64
"""A command with its wrapping."""
MEMORY_RECORDS = 2_000
MEMORY_BYTES = 4 << 20
"""Memory for records, and as much again for data."""
WINDOW_BYTES = 128 << 10
"""A client's buffer is filled up to this; what comes after waits where it is."""

_COMMAND = re.compile(r'\s*\{\s*"command"\s*:\s*')


@dataclass(frozen=True, slots=True)
class Command:
    """An envelope that a client passed on: parsed, and the very bytes of it."""

    envelope: dict[str, Any]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """The uplink has stored every record up to this one."""

    run_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A client was disconnected because of what it sent."""

    reason: str


Request = Command | Stored | Refused


def packet_body(
    packet: Packet,
    channels: Sequence[str],
    utc_offset_ns: int,
    sensitivities: Sequence[str | None] = (),
    clock: Mapping[str, Any] | None = None,
) -> bytes:
    """A data item for a packet: ``{"packet": {…}}``.

    Keys: ``sensor``, ``start`` (UTC of the first sample), ``rate_hz``, ``channels``, ``encoding``
    (``int32le`` or ``float64le``), ``samples`` (base64 of the rows one after the other, channels ×
    n) and, where known, ``sensitivities`` (texts as in gateway.toml, null for an unknown one),
    ``offsets_ns`` (how much later each channel was really sampled) and ``clock`` (how sure the time
    is, as ``UtcClock.status``).
    """
    exact = packet.samples.dtype.kind == "i"
    samples = packet.samples.astype("<i4" if exact else "<f8", copy=False)
    item: dict[str, Any] = {
        "sensor": packet.sensor,
        "start": iso(packet.start_ns + utc_offset_ns),
        "rate_hz": packet.rate_hz,
        "channels": list(channels),
        "encoding": "int32le" if exact else "float64le",
        "samples": b2a_base64(samples.tobytes(), newline=False).decode(),
    }
    if any(sensitivities):
        item["sensitivities"] = list(sensitivities)
    if packet.offsets_ns:
        item["offsets_ns"] = list(packet.offsets_ns)
    if clock is not None:
        item["clock"] = clock
    return _dump({"packet": item})


def reading_body(reading: Reading, utc_offset_ns: int) -> bytes:
    """A data item for a reading: ``{"reading": {…}}``.

    Keys: ``sensor``, ``time``, ``quantity`` and ``micro``, the exact value in millionths (null:
    missing).
    """
    item = {
        "sensor": reading.sensor,
        "time": iso(reading.time_ns + utc_offset_ns),
        "quantity": reading.quantity,
        "micro": reading.micro,
    }
    return _dump({"reading": item})


def measured_body(measured: Measured, utc_offset_ns: int) -> bytes:
    """A data item for what is made of readings: ``{"measured": {…}}``.

    Keys: ``sensor``, ``time`` and ``values``, an object of numbers by name with unit.
    """
    item = {
        "sensor": measured.sensor,
        "time": iso(measured.time_ns + utc_offset_ns),
        "values": {name: round(value, 6) for name, value in measured.values.items()},
    }
    return _dump({"measured": item})


class Ring:
    """The last lines of a stream, each with its seq. A position counts all lines ever pushed."""

    def __init__(self, max_lines: int, max_bytes: int) -> None:
        self.first = 0
        """The position of the oldest line kept."""
        self.dropped_seq = 0
        """Seq of the newest line dropped; 0 while there is none."""
        self._lines: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._max_lines = max_lines
        self._max_bytes = max_bytes

    @property
    def end(self) -> int:
        """The position behind the newest line."""
        return self.first + len(self._lines)

    def push(self, seq: int, line: bytes) -> None:
        """Add a line; the oldest make room."""
        self._lines.append((seq, line))
        self._bytes += len(line)
        while len(self._lines) > self._max_lines or self._bytes > self._max_bytes:
            self.dropped_seq, dropped = self._lines.popleft()
            self._bytes -= len(dropped)
            self.first += 1

    def at(self, position: int) -> tuple[int, bytes]:
        """Seq and line at a position from ``first`` to before ``end``."""
        return self._lines[position - self.first]

    def after(self, seq: int) -> int | None:
        """The position behind ``seq``; None when lines behind it have been dropped."""
        if seq < self.dropped_seq:
            return None
        return self.first + bisect_right(self._lines, seq, key=lambda item: item[0])


class Feed:
    """The server's end.

    Each turn of the shell's loop::

        for key, mask in selector.select(timeout):
            key.data(mask)
        for request in feed.take(): …             # commands, and what the uplink has stored
        …                                          # journal.poll(): each Batch to feed.batch()
        feed.pump()
        for after in feed.wanted():
            journal.read_after(after)

    Raises:
        OSError: the socket can't be made, or another core serves it.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.run_id = run_id
        self._records = Ring(MEMORY_RECORDS, MEMORY_BYTES)
        self._data = Ring(MEMORY_RECORDS, MEMORY_BYTES)
        self._seq = 0
        self._data_seq = 0
        self._clients: list[_Client] = []
        self._requests: list[Request] = []
        self._keeps_data = False
        self._listener = Listener(path, self._connected)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Serve from now on; ``key.data`` of each socket is a callable of the event mask."""
        self._listener.register(selector)

    def close(self) -> None:
        """Disconnect everybody and remove the socket."""
        for client in self._clients:
            client.connection.close()
        self._listener.close()

    @property
    def wants_data(self) -> bool:
        """Whether anybody listens to data, or will want it: else it need not even be encoded."""
        return self._keeps_data or any(client.wants_data for client in self._clients)

    def publish(self, seq: int, line: bytes) -> None:
        """A record of this run: its JSON without a line feed; ``seq`` rises by one from 1 on."""
        self._seq = seq
        self._records.push(seq, _record_line(self.run_id, seq, line))

    def data(self, body: bytes) -> None:
        """A data item: a JSON object such as :func:`packet_body` gives."""
        self._data_seq += 1
        if self.wants_data:
            head = b'{"stream":"data","run_id":%b,"seq":%d,' % (_dump(self.run_id), self._data_seq)
            self._data.push(self._data_seq, head + body[1:] + b"\n")

    def take(self) -> list[Request]:
        """What clients have asked since the last call."""
        requests, self._requests = self._requests, []
        return requests

    def wanted(self) -> list[Position]:
        """Positions after which the journal is to be read; each is given once."""
        asking = [client for client in self._clients if client.wants_journal]
        for client in asking:
            client.asked_at = self._records.end
        return list(dict.fromkeys(client.have for client in asking))

    def batch(self, batch: Batch) -> None:
        """What the journal read."""
        for client in self._clients:
            if client.asked_at is not None and client.have == batch.after:
                client.catch_up(batch, self._records)
                client.connection.flush()

    def pump(self) -> None:
        """Send each client what it takes, without blocking."""
        for client in self._clients:
            client.fill(self._records, self._data)
            client.connection.flush()
        self._clients = [client for client in self._clients if client.connection.open]

    def _connected(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        client = _Client(self, sock, selector)
        self._clients.append(client)
        if len(self._clients) > MAX_CLIENTS:
            silent = [c for c in self._clients[:-1] if not c.greeted]
            refused = silent[0] if silent else client
            refused.refuse(f"feed: {MAX_CLIENTS} clients are connected; close one of them")

    def greet(self, client: "_Client", hello: dict[str, Any]) -> None:
        """Place a client where its greeting says."""
        have = hello.get("have")
        if have == "now":
            client.have = (self.run_id, self._seq)
            client.record_at = self._records.end
        elif have is not None:
            client.have = (str(have["run_id"]), int(have["seq"]))
            client.reach_memory(self._records)
        client.wants_data = bool(hello.get("data"))
        client.data_at = self._data.end
        if hello.get("data") == "memory":
            client.data_at = self._data.first
            self._keeps_data = True
        else:
            client.given_data = True
        client.greeted = True

    def ask(self, request: Request) -> None:
        """Keep a client's request for :meth:`take`."""
        self._requests.append(request)


class _Client:
    """One connection.

    ``have`` is the last record given to it. ``record_at`` is its position in memory, or None while
    it is further back than that and the journal has to bring it up; ``asked_at`` is then where
    memory ended when the journal was asked.
    """

    def __init__(self, feed: Feed, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        self.feed = feed
        self.connection = LineConnection(sock, selector, self.ready, MAX_LINE_BYTES)
        self.greeted = False
        self.have: Position = None
        self.record_at: int | None = None
        self.asked_at: int | None = None
        self.wants_data = False
        self.data_at = 0
        self.given_data = False

    @property
    def wants_journal(self) -> bool:
        """Whether it is time to ask the journal for its next records."""
        behind = self.greeted and self.record_at is None and self.asked_at is None
        return behind and self.connection.waiting_bytes < WINDOW_BYTES

    def ready(self, mask: int) -> None:
        """The socket can be read or written (:meth:`Feed.pump` does the writing)."""
        if mask & selectors.EVENT_READ:
            try:
                for line in self.connection.read_lines():
                    self._obey(line)
            except (ValueError, TypeError, LookupError, RecursionError, LineTooLongError) as error:
                self.refuse(f"feed: {type(error).__name__}: {error}")

    def refuse(self, reason: str) -> None:
        """Say why, and disconnect."""
        self.feed.ask(Refused(reason))
        self.connection.send(_dump({"error": reason}) + b"\n")
        self.connection.flush()
        self.connection.close()

    def _obey(self, line: bytes) -> None:
        text = line.decode()
        message = json.loads(text)
        if not self.greeted:
            self.feed.greet(self, dict(message["hello"]))
        elif "stored" in message:
            place = message["stored"]
            self.feed.ask(Stored(str(place["run_id"]), int(place["seq"])))
        else:
            self.feed.ask(_command(text))

    def reach_memory(self, records: Ring) -> None:
        """Go on from memory where that holds everything after what the client has."""
        if self.have and self.have[0] == self.feed.run_id:
            self.record_at = records.after(self.have[1])

    def catch_up(self, batch: Batch, records: Ring) -> None:
        """Pass on what the journal gave; at its end go on from memory, stating what neither had."""
        asked_at, self.asked_at = self.asked_at or 0, None
        for run_id, seq, line in batch.records:
            self.connection.send(_record_line(run_id, seq, line))
            self.have = (run_id, seq)
        if not batch.complete:
            self._gap("record", None)
        self.reach_memory(records)
        overtaken = batch.complete and records.first > asked_at  # since: the journal has the rest
        if self.record_at is None and batch.done and not overtaken:
            in_this_run = self.have and self.have[0] == self.feed.run_id
            lost = records.dropped_seq - (self.have[1] if self.have and in_this_run else 0)
            if lost and batch.complete:
                self._gap("record", lost)
            self.record_at = records.first

    def fill(self, records: Ring, data: Ring) -> None:
        """Move lines to the socket's buffer: records first, and no more than the window."""
        connection = self.connection
        if self.record_at is not None and self.record_at < records.first:
            self.record_at = None  # overtaken: the journal has the rest
        while self.record_at is not None and self.record_at < records.end:
            if connection.waiting_bytes >= WINDOW_BYTES:
                return
            seq, line = records.at(self.record_at)
            connection.send(line)
            self.have = (self.feed.run_id, seq)
            self.record_at += 1
        if not self.wants_data or connection.waiting_bytes >= WINDOW_BYTES:
            return
        if self.data_at < data.first:
            if self.given_data:  # else it has only just come and asked for what there is
                self._gap("data", data.first - self.data_at)
            self.data_at = data.first
        while self.data_at < data.end and connection.waiting_bytes < WINDOW_BYTES:
            connection.send(data.at(self.data_at)[1])
            self.data_at += 1
            self.given_data = True

    def _gap(self, stream: str, lost: int | None) -> None:
        self.connection.send(_dump({"stream": "gap", "of": stream, "lost": lost}) + b"\n")


def _command(text: str) -> Command:
    """A line that is a command and nothing else.

    Raises:
        ValueError: it is not.
    """
    if not (start := _COMMAND.match(text)):
        raise ValueError(f"neither stored nor command: {text[:80]!r}")
    envelope, end = json.JSONDecoder().raw_decode(text, start.end())
    raw = text[start.end() : end].encode()
    if not isinstance(envelope, dict) or text[end:].strip() != "}":
        raise ValueError(f"not a command and nothing else: {text[:80]!r}")
    if len(raw) > MAX_COMMAND_BYTES:
        raise ValueError(f"a command of {len(raw)} bytes; allowed {MAX_COMMAND_BYTES}")
    return Command(envelope, raw)


def _record_line(run_id: str, seq: int, line: bytes) -> bytes:
    return b'{"stream":"record","run_id":%b,"seq":%d,"record":%b}\n' % (_dump(run_id), seq, line)


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
