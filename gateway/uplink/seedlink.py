"""The archive's records over SeedLink, to the seismic department's own tools, as they are made.

The protocol: ``gateway.uplink.seedlink_protocol``. A client gets records from memory while it keeps
up, and else from the archive's files, in the order of their numbers; nothing is kept for it. One
that takes nothing for ``STALLED_S`` while records wait is disconnected, and so is one that sends
what are no commands. Connections, their buffers and what is read from files at a time are bounded.
Who is in none of the networks of ``allow`` is not heard.
"""

import heapq
import ipaddress
import json
import logging
import selectors
import socket
import time
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from gateway.events import NS, parse_iso
from gateway.uplink.config import SeedLinkConfig
from gateway.uplink.mseed import SEQUENCES, following, read_header, record_sequence
from gateway.uplink.sds import Sds
from gateway.uplink.seedlink_protocol import (
    CAPABILITIES,
    HELLO,
    LEVELS,
    MAX_LINE,
    NOBODY,
    PRIVATE_LEVELS,
    How,
    Session,
    Step,
    info_packets,
    packet,
)
from gateway.uplink.sink import Item, Sink

log = logging.getLogger("gateway.uplink")

RECENT = 1024
"""Records in memory, of all channels together: half a MiB."""
WINDOW_BYTES = 64 << 10
"""A client's buffer is filled up to this; what comes after waits where it is."""
TURN_S = 0.05
TURN_RECORDS = 256
"""Records read from files in a turn, over all clients: 2.6 MB/s, and the other threads hardly
notice."""
SILENT_S = 60.0
"""A client that has not asked for records by then is disconnected."""
STALLED_S = 120.0
ACCEPTS_A_TURN = 16
GAP_DAYS, MAX_GAPS = 7, 1000
FOR_EVER_NS = 1 << 62
LOCAL = (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
    "::1/128", "fc00::/7", "fe80::/10",
)  # fmt: skip
"""Networks of those who are asked in where none are named: this machine and private ones."""


@dataclass(slots=True)
class Client:
    """One connection and where it stands."""

    sock: socket.socket
    address: tuple[str, int]
    session: Session
    since_s: float
    moved_s: float
    """When it last took something, or had nothing to take."""
    out: bytearray = field(default_factory=bytearray)
    past: Generator[bytes] | None = None
    """Records from files that it gets before those in memory."""
    at: int = 0
    """How many records had been made before the next one in memory that it is to get."""
    last: dict[str, int] = field(default_factory=dict)
    """By channel the number of the last record that it got."""
    packets: int = 0
    leaving: bool = False
    """Nothing more is read; it goes when it has taken what waits."""
    watched: int = selectors.EVENT_READ


class SeedLink(Sink):
    """The server, in a thread of its own. :meth:`put` takes each record from the archive's thread.

    Raises:
        ValueError: ``listen`` is no address, or ``allow`` holds what is no network.
    """

    def __init__(self, config: SeedLinkConfig, sds: Sds) -> None:
        super().__init__("seedlink")
        self._config = config
        self._sds = sds
        self._where = address_of(config.listen)
        self._allowed = [ipaddress.ip_network(x) for x in config.allow or LOCAL]
        self._made: deque[bytes] = deque(maxlen=RECENT)
        self._recent: deque[bytes] = deque()
        self._first = 0
        """How many records had been made before the first one in memory."""
        self._clients: list[Client] = []
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._listen_s = 0.0
        self._began = time.gmtime()
        self._turn_left = 0
        self._knock_in, self._knock_out = socket.socketpair()
        for end in (self._knock_in, self._knock_out):
            end.setblocking(False)

    def wants(self, item: Item) -> bool:  # noqa: ARG002  it lives on the archive's records
        """Nothing of the feed."""
        return False

    def put(self, record: bytes) -> None:
        """A record that was made; from any thread."""
        self._made.append(record)
        self._knock()

    def close(self) -> None:
        """Hang up on everybody."""
        self._end.set()
        self._knock()
        super().close()

    @property
    def port(self) -> int:
        """The port that is served; 0 while none is."""
        return int(self._listener.getsockname()[1]) if self._listener else 0

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        self._selector.register(self._knock_in, selectors.EVENT_READ, None)
        while not self._end.is_set():
            try:
                self._turn()
            except Exception as error:
                log.exception("sink failed", extra={"sink": self.name})
                self.incident("failed", repr(error))
                self._end.wait(1.0)
        for client in list(self._clients):
            self._drop(client)
        if self._listener is not None:
            self._listener.close()
        self._selector.close()
        self._knock_in.close()
        self._knock_out.close()

    def _knock(self) -> None:
        with suppress(OSError):  # full: it will turn anyway; closed: it is over
            self._knock_out.send(b"\0")

    def _turn(self) -> None:
        busy = any(client.past is not None for client in self._clients)
        ready = self._selector.select(TURN_S if busy else 1.0)
        now_s = time.monotonic()
        if self._listener is None and now_s >= self._listen_s and self._sds.opened:
            self._listen(now_s)
        self._take_made()
        self._turn_left = TURN_RECORDS
        for key, mask in ready:
            if key.data is None:
                with suppress(OSError):
                    self._knock_in.recv(4096)
            elif key.data is self:
                self._accept(now_s)
            elif mask & selectors.EVENT_READ:
                self._read(key.data, now_s)
        for client in list(self._clients):
            self._serve(client, now_s)
        waiting = [self._first + len(self._recent) - x.at for x in self._clients if x.packets]
        self.behind(max(waiting, default=0), 0.0)

    def _listen(self, now_s: float) -> None:
        host, port = self._where
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((host, port))
            listener.listen(ACCEPTS_A_TURN)
        except OSError as error:
            listener.close()
            self._listen_s = now_s + 10.0
            self.wrong("listen", f"{self._config.listen}: {error}")
            return
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self)
        self.right("listen")

    def _take_made(self) -> None:
        while self._made:
            self._recent.append(self._made.popleft())
        while len(self._recent) > RECENT:
            self._recent.popleft()
            self._first += 1

    # --- connections ------------------------------------------------------------------------------

    def _accept(self, now_s: float) -> None:
        assert self._listener is not None  # noqa: S101  it is what is ready
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, where = self._listener.accept()
            except OSError:
                return
            if not self._asked_in(where[0]):
                self.incident("refused", f"{where[0]} is in none of the networks of allow")
                sock.close()
                continue
            if len(self._clients) >= self._config.clients and not self._make_room(now_s):
                self.incident("refused", f"{where[0]}: {self._config.clients} clients already")
                sock.close()
                continue
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * WINDOW_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
            session = Session(self._config.organisation)
            client = Client(sock, (where[0], where[1]), session, now_s, now_s)
            self._clients.append(client)
            self._selector.register(sock, selectors.EVENT_READ, client)

    def _asked_in(self, host: str) -> bool:
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._allowed)

    def _make_room(self, now_s: float) -> bool:
        """Hang up on who has asked for nothing for the longest, if that is more than a moment."""
        idle = [x for x in self._clients if not x.session.streaming and now_s - x.since_s > 5.0]
        if not idle:
            return False
        self._drop(min(idle, key=lambda x: x.since_s))
        return True

    def _drop(self, client: Client) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(client.sock)
        client.sock.close()
        if client.past is not None:
            client.past.close()
        self._clients.remove(client)

    def _read(self, client: Client, now_s: float) -> None:
        if client not in self._clients or client.leaving:
            return
        try:
            data = client.sock.recv(MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        try:
            for answer, step in client.session.feed(data, self._stations()):
                client.out += answer
                match step:
                    case Step.info:
                        client.out += self._info(client)
                    case Step.start:
                        self._start(client, now_s)
                    case Step.bye:
                        client.leaving = True
        except ValueError as error:
            self.incident("garbage", f"{client.address[0]}: {error}")
            self._drop(client)

    def _serve(self, client: Client, now_s: float) -> None:
        """Give a client what it takes; let it go when it does not."""
        if client not in self._clients:
            return
        if client.session.streaming and not client.leaving:
            self._fill(client)
        before = len(client.out)
        if client.out:
            try:
                sent = client.sock.send(client.out)
                del client.out[:sent]
            except BlockingIOError:
                pass
            except OSError:
                self._drop(client)
                return
        if len(client.out) < before or not client.out:
            client.moved_s = now_s
        if client.leaving and not client.out:
            self._drop(client)
            return
        if now_s - client.moved_s > STALLED_S:
            seconds = f"{STALLED_S:.0f} s"
            self.incident("slow", f"{client.address[0]}: took nothing for {seconds}; disconnected")
            self._drop(client)
        elif not client.session.streaming and now_s - client.since_s > SILENT_S:
            self._drop(client)
        else:
            self._watch(client)

    def _watch(self, client: Client) -> None:
        wanted = selectors.EVENT_WRITE if client.out else 0
        if len(client.out) < WINDOW_BYTES:
            wanted |= selectors.EVENT_READ
        if wanted != client.watched:
            client.watched = wanted
            self._selector.modify(client.sock, wanted, client)

    # --- records ----------------------------------------------------------------------------------

    def _start(self, client: Client, now_s: float) -> None:
        """Place a client where its commands say."""
        client.moved_s = now_s
        newest = self._newest()
        for wanted in client.session.wanted:
            if wanted.how is How.number:
                wanted.number %= SEQUENCES
            ahead = newest is not None and following(wanted.number, newest) > 1
            if wanted.how is How.live or (wanted.how is How.number and ahead):
                wanted.how = How.live
                wanted.number = 0 if newest is None else (newest + 1) % SEQUENCES
        if all(x.how is How.live for x in client.session.wanted):
            client.at = self._first + len(self._recent)
        else:
            client.at = self._first
            client.past = self._past(client)

    def _newest(self) -> int | None:
        """The number of the newest record."""
        if self._recent:
            return record_sequence(self._recent[-1])
        newest: int | None = None
        for header in self._sds.last().values():
            if newest is None or following(header.sequence, newest) > 0:
                newest = header.sequence
        return newest

    def _past(self, client: Client) -> Generator[bytes]:
        """What is in files of what a client has not got yet, in order."""
        newest = self._newest()
        numbered: list[Generator[bytes]] = []
        timed: list[Generator[bytes]] = []
        for channel in self._sds.channels:
            wanted = next((x for x in client.session.wanted if x.takes(channel)), None)
            if wanted is None or newest is None:
                continue
            last = client.last.get(channel)
            if last is not None:
                numbered.append(self._sds.after(channel, last))
            elif wanted.how is How.time:
                begin_ns, end_ns = wanted.begin_ns or 0, wanted.end_ns or FOR_EVER_NS
                timed.append(self._sds.window(channel, begin_ns, end_ns))
            else:
                numbered.append(self._sds.after(channel, (wanted.number - 1) % SEQUENCES))
        yield from heapq.merge(*timed, key=lambda x: read_header(x).start_ns)
        if newest is not None:
            yield from heapq.merge(*numbered, key=lambda x: following(record_sequence(x), newest))

    def _fill(self, client: Client) -> None:
        while len(client.out) < WINDOW_BYTES:
            if client.past is not None:
                if self._turn_left <= 0:
                    return
                self._turn_left -= 1
                record = self._from_past(client)
                if record is None:
                    client.past = None
                    continue
            elif client.at < self._first:  # it did not keep up: the files have the rest
                client.at = self._first
                client.past = self._past(client)
                continue
            elif client.at < self._first + len(self._recent):
                record = self._recent[client.at - self._first]
                client.at += 1
            else:
                if self._is_over(client):
                    client.out += b"END"
                    client.leaving = True
                return
            self._give(client, record)

    def _from_past(self, client: Client) -> bytes | None:
        try:
            return next(client.past, None) if client.past is not None else None
        except (OSError, ValueError) as error:
            self.incident("read", str(error))
            return None

    def _give(self, client: Client, record: bytes) -> None:
        """Put a record into a client's buffer if it wants it and has not got it yet."""
        try:
            header = read_header(record)
        except ValueError:
            return
        wanted = next((x for x in client.session.wanted if x.takes(header.channel)), None)
        if wanted is None:
            return
        last = client.last.get(header.channel)
        if last is not None and following(header.sequence, last) <= 0:
            return
        if wanted.how is not How.time and following(header.sequence, wanted.number) < 0:
            return
        if wanted.begin_ns is not None and header.end_ns <= wanted.begin_ns:
            return
        if wanted.end_ns is not None and header.start_ns >= wanted.end_ns:
            return
        client.last[header.channel] = header.sequence
        client.out += packet(record)
        client.packets += 1

    def _is_over(self, client: Client) -> bool:
        """Whether a client that is up to date wants nothing further."""
        if not all(x.ends for x in client.session.wanted):
            return False
        ends = [x.end_ns for x in client.session.wanted if x.end_ns is not None]
        if not ends or max(ends) < time.time_ns():
            return True
        newest = read_header(self._recent[-1]).end_ns if self._recent else 0
        return newest >= max(ends)

    # --- INFO -------------------------------------------------------------------------------------

    def _stations(self) -> list[str]:
        """NET STA, as CAT gives them."""
        return sorted({" ".join(x.split(".")[:2]) for x in self._sds.channels})

    def _info(self, client: Client) -> bytes:
        level = client.session.level
        local = ipaddress.ip_address(client.address[0].partition("%")[0]).is_loopback
        if level not in LEVELS or (level in PRIVATE_LEVELS and not local):
            why = "unknown level" if level not in LEVELS else "from this machine only"
            return info_packets(f"{level[:32]}: {why}", error=True)
        try:
            return info_packets(self._xml(level))
        except (OSError, ValueError) as error:
            self.incident("read", str(error))
            return info_packets(f"{level}: the archive can't be read", error=True)

    def _xml(self, level: str) -> str:
        head = _tag(
            "seedlink",
            software=HELLO,
            organization=self._config.organisation or NOBODY,
            started=time.strftime("%Y/%m/%d %H:%M:%S.0000", self._began),
        )
        lines = ['<?xml version="1.0"?>', head]
        if level in ("CAPABILITIES", "ALL"):
            lines += [_tag("capability", name=x) + "</capability>" for x in CAPABILITIES]
        if level in ("STATIONS", "STREAMS", "GAPS", "CONNECTIONS", "ALL"):
            lines += self._station_lines(level)
        return "".join([*lines, "</seedlink>"])

    def _station_lines(self, level: str) -> list[str]:
        streams: dict[str, list[str]] = {}
        first = last = self._newest() or 0
        gaps = self._gaps() if level in ("GAPS", "ALL") else {}
        for channel in self._sds.channels:
            network, station, location, code = channel.split(".")
            if (span := self._sds.span(channel)) is None:
                continue
            if following(span[0].sequence, first) < 0:
                first = span[0].sequence
            text = _tag(
                "stream",
                location=location,
                seedname=code,
                type="D",
                begin_time=_time_text(span[0].start_ns),
                end_time=_time_text(span[1].end_ns),
                begin_recno="0",
                end_recno="0",
                gap_check="enabled",
                gap_treshold="1",
            )
            inside = "".join(
                _tag("gap", begin_time=_time_text(a), end_time=_time_text(b)) + "</gap>"
                for a, b in gaps.get(channel, [])
            )
            streams.setdefault(f"{network} {station}", []).append(f"{text}{inside}</stream>")
        lines = []
        for name, inside_it in streams.items():
            network, station = name.split()
            lines.append(
                _tag(
                    "station",
                    name=station,
                    network=network,
                    description=self._config.organisation,
                    begin_seq=f"{first:06X}",
                    end_seq=f"{last:06X}",
                    stream_check="enabled",
                )
            )
            if level in ("STREAMS", "GAPS", "ALL"):
                lines += inside_it
            if level in ("CONNECTIONS", "ALL"):
                lines += [self._connection(x) for x in self._clients]
            lines.append("</station>")
        return lines

    def _connection(self, client: Client) -> str:
        text = _tag(
            "connection",
            host=client.address[0],
            port=str(client.address[1]),
            txcount=str(client.packets),
            begin_seq="000000",
            current_seq=f"{max(client.last.values(), default=0):06X}",
            sequence_gaps="0",
        )
        return f"{text}</connection>"

    def _gaps(self) -> dict[str, list[tuple[int, int]]]:
        """Gaps of the last days by channel, as the quality log has them."""
        found: dict[str, list[tuple[int, int]]] = {}
        count = 0
        for day in self._sds.days[-GAP_DAYS:]:
            with suppress(FileNotFoundError), self._sds.log_path(day).open("rb") as lines:
                for line in lines:
                    if b'"kind":"gap"' not in line or count >= MAX_GAPS:
                        continue
                    count += 1
                    gap = json.loads(line)
                    span = parse_iso(gap["time"]), parse_iso(gap["until"])
                    found.setdefault(gap["channel"], []).append(span)
        return found


def address_of(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[host]:port``.

    Raises:
        ValueError: it is no address; says what would be right.
    """
    host, _, port = text.rpartition(":")
    try:
        number = int(port)
        ipaddress.ip_address(host.strip("[]"))
    except ValueError as error:
        raise ValueError(f"{text!r}; expected an address such as 0.0.0.0:18000") from error
    if not 0 <= number < 65_536:
        raise ValueError(f"{text!r}; expected a port from 0 to 65535")
    return host.strip("[]"), number


def _tag(tag: str, /, **attributes: str) -> str:
    return f"<{tag} {' '.join(f'{k}={quoteattr(v)}' for k, v in attributes.items())}>"


def _time_text(time_ns: int) -> str:
    moment_ = time.gmtime(time_ns // NS)
    return f"{time.strftime('%Y/%m/%d %H:%M:%S', moment_)}.{time_ns % NS // 100_000:04d}"
