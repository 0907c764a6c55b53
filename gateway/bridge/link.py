"""One bridged port: its peer on the network, its socket for the core, and the bytes between.

Each link has a thread, since a name that does not resolve must not keep the other links waiting.
Buffers are bounded; what does not fit, or comes while the core is not there, is lost, as it would
be on a serial line, and counted.
"""

import ipaddress
import logging
import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Final
from urllib.parse import urlsplit

from gateway.bridge.rfc2217 import Rfc2217
from gateway.core.compiled import Bridge

log = logging.getLogger("gateway.bridge")

READ_SIZE: Final = 65_536
TO_CORE: Final = 262_144
"""Bytes that wait for the core: over 20 s of the fastest digitiser here."""
TO_PEER: Final = 4096
FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 30.0
CONNECT_S: Final = 5.0
HANDSHAKE_S: Final = 5.0
STEADY_S: Final = 30.0
"""A link that held so long begins again with the first pause."""

KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
"""A peer that is gone without a word is noticed within 25 s."""


@dataclass(slots=True)
class Status:
    """How a link does. Bytes are counted since the bridge started."""

    name: str
    url: str
    state: str = "waiting"
    """``waiting`` for its peer, or ``open``."""
    reason: str = ""
    since: float = 0.0
    """Unix time of the last change of state."""
    openings: int = 0
    core_connected: bool = False
    bytes_to_core: int = 0
    bytes_to_peer: int = 0
    lost_to_core: int = 0
    lost_to_peer: int = 0
    datagrams_refused: int = 0


class Link(Thread):
    """Keeps one bridged port.

    Args:
        bridge: its name, url, and how its line is set.
        folder: where the sockets are.
        stop: becomes readable when the bridge is to end.
    """

    def __init__(self, bridge: Bridge, folder: Path, stop: int) -> None:
        super().__init__(name=bridge.name, daemon=True)
        self.status = Status(bridge.name, bridge.url, since=time.time())
        self._bridge = bridge
        self._path = folder / bridge.name
        self._stop_fd = stop
        parts = urlsplit(bridge.url)
        self._scheme, self._host, self._port = parts.scheme, parts.hostname or "", parts.port or 0
        self._codec: Rfc2217 | None = None
        self._client: socket.socket | None = None
        self._to_core = bytearray()
        self._to_peer = bytearray()

    def run(self) -> None:
        """Connect, serve, and connect again, until told to stop."""
        pause_s = FIRST_RETRY_S
        while not self._stopping(0):
            began = time.monotonic()
            try:
                reason = self._once()
            except OSError as error:
                reason = f"{self._bridge.url}: {error.strerror or error}"
            if self._stopping(0):
                break
            self._tell("waiting", reason)
            if time.monotonic() - began >= STEADY_S:
                pause_s = FIRST_RETRY_S
            if self._stopping(pause_s):
                break
            pause_s = min(2 * pause_s, LAST_RETRY_S)
        self._path.unlink(missing_ok=True)

    def _once(self) -> str:
        """One connection from beginning to end; why it ended."""
        with ExitStack() as stack:
            peer = stack.enter_context(self._connect())
            reason = self._set_line(peer) if self._scheme == "rfc2217" else ""
            if reason:
                return reason
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
            stack.callback(self._path.unlink, missing_ok=True)
            self._path.chmod(0o660)
            listener.listen(1)
            listener.setblocking(False)
            peer.setblocking(False)
            stack.callback(self._drop_client)
            self._tell("open", "")
            return self._serve(peer, listener)

    def _connect(self) -> socket.socket:
        if self._scheme == "udp":
            return self._bound()
        peer = socket.create_connection((self._host, self._port), CONNECT_S)
        for level, option, value in KEEP_ALIVE:
            peer.setsockopt(level, option, value)
        return peer

    def _bound(self) -> socket.socket:
        address = ipaddress.ip_address(self._host)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        peer = socket.socket(family, socket.SOCK_DGRAM)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        peer.bind((self._host, self._port))
        if address.is_multicast and address.version == 4:
            membership = address.packed + bytes(4)
            peer.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        return peer

    def _set_line(self, peer: socket.socket) -> str:
        """Set the terminal server's line; why that failed, or nothing."""
        self._codec = codec = Rfc2217(self._bridge.port)
        peer.settimeout(HANDSHAKE_S)
        end = time.monotonic() + HANDSHAKE_S
        peer.sendall(codec.begin())
        while not codec.ready:
            try:
                heard = peer.recv(READ_SIZE)
            except TimeoutError:
                heard = b""
            if not heard or time.monotonic() > end:
                return f"{self._bridge.url}: no answer to the settings of the line (RFC 2217)"
            data, reply = codec.feed(heard)
            self.status.lost_to_core += len(data)  # the line as it was before
            peer.sendall(reply)
            if codec.refused:
                return f"{self._bridge.url}: {codec.refused}"
        return ""

    # --- the bytes ----------------------------------------------------------------------------

    def _serve(self, peer: socket.socket, listener: socket.socket) -> str:
        self._to_peer.clear()
        while True:
            client = self._client
            reading = [self._stop_fd, listener.fileno(), peer.fileno()]
            writing = [peer.fileno()] if self._to_peer else []
            if client is not None:
                reading.append(client.fileno())
                writing += [client.fileno()] if self._to_core else []
            readable, writable, _ = select.select(reading, writing, [])
            if self._stop_fd in readable:
                return ""
            if peer.fileno() in readable and (reason := self._from_peer(peer)) is not None:
                return reason
            if peer.fileno() in writable:
                del self._to_peer[: peer.send(self._to_peer)]
            if client is not None:
                self._tend_core(client, readable, writable)
            if listener.fileno() in readable:
                self._accept(listener)

    def _tend_core(
        self, client: socket.socket, readable: Sequence[int], writable: Sequence[int]
    ) -> None:
        fd = client.fileno()
        if fd in writable:
            self._send_to_core()
        if fd in readable and self._client is client:
            self._from_core()

    def _accept(self, listener: socket.socket) -> None:
        """The core is there; an older connection is that of a core that is not."""
        self._drop_client()
        with suppress(BlockingIOError):
            self._client, _ = listener.accept()
            self._client.setblocking(False)
            self.status.core_connected = True

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None
        self.status.core_connected = False
        self.status.lost_to_core += len(self._to_core)
        self._to_core.clear()

    def _from_core(self) -> None:
        if self._client is None:
            return
        try:
            data = self._client.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop_client()
            return
        coded = self._codec.encode(data) if self._codec else data
        if self._scheme == "udp" or len(self._to_peer) + len(coded) > TO_PEER:
            self.status.lost_to_peer += len(data)
        else:
            self._to_peer += coded
            self.status.bytes_to_peer += len(data)

    def _from_peer(self, peer: socket.socket) -> str | None:
        """Take what came; the reason if the peer is gone."""
        if self._scheme == "udp":
            data, sender = peer.recvfrom(READ_SIZE)
            if self._bridge.accept and sender[0] not in self._bridge.accept:
                self.status.datagrams_refused += 1
                return None
        else:
            data = peer.recv(READ_SIZE)
            if not data:
                return f"{self._bridge.url}: the peer hung up"
        if self._codec is not None:
            data, reply = self._codec.feed(data)
            self._to_peer += reply
            if self._codec.refused:
                return f"{self._bridge.url}: {self._codec.refused}"
        if self._client is None or len(self._to_core) + len(data) > TO_CORE:
            self.status.lost_to_core += len(data)
        else:
            self._to_core += data
            self._send_to_core()
        return None

    def _send_to_core(self) -> None:
        if self._client is None:
            return
        try:
            sent = self._client.send(self._to_core)
        except BlockingIOError:
            return
        except OSError:
            self._drop_client()
            return
        del self._to_core[:sent]
        self.status.bytes_to_core += sent

    # --- what is said of it -------------------------------------------------------------------

    def _stopping(self, wait_s: float) -> bool:
        return bool(select.select([self._stop_fd], [], [], wait_s)[0])

    def _tell(self, state: str, reason: str) -> None:
        """Log a change, or another reason."""
        status = self.status
        if (status.state, status.reason) == (state, reason):
            return
        if status.state != state:
            status.since = time.time()
        status.state, status.reason = state, reason
        status.openings += state == "open"
        level = logging.INFO if state == "open" else logging.WARNING
        log.log(level, "bridge", extra={"link": asdict(status)})


def unlink_sockets(folder: Path) -> None:
    """Take away what a bridge that died left behind."""
    for path in folder.iterdir():
        if path.is_socket():
            path.unlink()


def stop_pipe() -> tuple[int, int]:
    """What links wait for, and what to close to stop them."""
    return os.pipe2(os.O_CLOEXEC)
