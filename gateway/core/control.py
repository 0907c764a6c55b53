"""The technician's door: ``control.sock``, one request and one answer a line, both JSON.

Who asks is the kernel's word (SO_PEERCRED, SO_PEERGROUPS), not the request's: root, the daemon's
own user, and members of the group ``gateway-admin`` are served. What a request means is the
shell's affair. A refusal or a failure is answered ``{"error": "what, where, what to do"}``.
"""

import contextlib
import json
import logging
import os
import selectors
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.core.local_socket import LineConnection, LineTooLongError, Listener

GROUP = "gateway-admin"
GROUPS = Path("/etc/group")
MAX_REQUEST_BYTES = 4096
MAX_CONNECTIONS = 8
MAX_WAITING_BYTES = 1 << 20
"""A client that leaves more than this unread is disconnected."""

_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python has no name for it
_UCRED = struct.Struct("3i")
_GROUPS_BYTES = 1024  # the most that Python's getsockopt takes: 256 groups

_log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any], int], dict[str, Any]]
"""Takes a request and the uid of who asks; gives the answer."""


class ControlError(Exception):
    """The daemon could not be asked, or refused; the message says what to do."""


class Control:
    """The server's end. The handler runs in the loop, so it must not block.

    Raises:
        OSError: the socket can't be made, or another core serves it.
    """

    def __init__(self, path: Path, handler: Handler) -> None:
        self._handler = handler
        self._connections: list[LineConnection] = []
        self._listener = Listener(path, self._connected)
        self._admin_gid = _gid(GROUP)
        if self._admin_gid is not None:
            # Without the right to give it away only root and the own user can connect.
            with contextlib.suppress(PermissionError):
                os.chown(path, -1, self._admin_gid)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Serve from now on; ``key.data`` of each socket is a callable of the event mask."""
        self._listener.register(selector)

    def close(self) -> None:
        """Disconnect everybody and remove the socket."""
        for connection in self._connections:
            connection.close()
        self._listener.close()

    def _connected(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        uid = _peer_uid(sock)
        allowed = uid in (0, os.geteuid()) or self._admin_gid in _peer_gids(sock)
        self._connections = [c for c in self._connections if c.open]
        if len(self._connections) >= MAX_CONNECTIONS:
            self._connections.pop(0).close()  # a forgotten one must not lock the technician out

        def ready(mask: int) -> None:
            if mask & selectors.EVENT_READ:
                self._serve(connection, uid, allowed=allowed)
            connection.flush()
            if connection.waiting_bytes > MAX_WAITING_BYTES:
                connection.close()

        connection = LineConnection(sock, selector, ready, MAX_REQUEST_BYTES)
        self._connections.append(connection)

    def _serve(self, connection: LineConnection, uid: int, *, allowed: bool) -> None:
        try:
            lines = connection.read_lines()
        except LineTooLongError as error:
            connection.send(_error(f"control: {error}; nothing was done"))
            connection.flush()
            connection.close()
            return
        for line in lines:
            if allowed:
                connection.send(self._answer(line, uid))
            else:
                _log.warning("control refused", extra={"uid": uid})
                reason = f"control: uid {uid} may not; be root or join the group {GROUP}"
                connection.send(_error(reason))

    def _answer(self, line: bytes, uid: int) -> bytes:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            return _error(f"control: the request is no JSON: {error}")
        if not isinstance(request, dict):
            return _error(f"control: the request must be an object, got {line[:80]!r}")
        try:
            return _line(self._handler(request, uid))
        except Exception as error:  # noqa: BLE001  no command may stop the loop that sounds sirens
            _log.exception("control command failed", extra={"request": request, "uid": uid})
            return _error(f"control: {type(error).__name__}: {error}; see the daemon's log")


def call(path: Path, request: dict[str, Any], timeout_s: float = 5.0) -> dict[str, Any]:
    """Ask the running daemon.

    Raises:
        ControlError: it is not running, this user may not ask, it did not answer in time, or its
            answer was an error.
    """
    received = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(str(path))
            sock.sendall(json.dumps(request).encode() + b"\n")
            while not received.endswith(b"\n"):
                if not (data := sock.recv(65_536)):
                    raise ControlError(f"{path}: the gateway closed the connection; see its log")
                received += data
        except (FileNotFoundError, ConnectionRefusedError):
            raise ControlError(f"{path}: the gateway is not running; start it first") from None
        except PermissionError:
            message = f"{path}: permission denied; be root or join the group {GROUP}"
            raise ControlError(message) from None
        except TimeoutError:
            raise ControlError(f"{path}: no answer within {timeout_s:g} s") from None
        except OSError as error:
            raise ControlError(f"{path}: {error}") from error
    answer: dict[str, Any] = json.loads(received)
    if "error" in answer:
        raise ControlError(str(answer["error"]))
    return answer


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode() + b"\n"


def _error(reason: str) -> bytes:
    return _line({"error": reason})


def _gid(name: str) -> int | None:
    """Number of a group of this machine; None if there is none.

    From the file, as a service's group is a local one: the name service might wait for a network,
    and its modules would stay in memory.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in GROUPS.read_text(errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split(":")[2])
    return None


def _peer_uid(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(credentials)[1])


def _peer_gids(sock: socket.socket) -> set[int]:
    """The groups of the process that connected, its own and the supplementary ones."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    own = int(_UCRED.unpack(credentials)[2])
    try:
        groups = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:  # a kernel before 4.13, or more groups than that
        groups = b""
    return {own, *(gid for (gid,) in struct.iter_unpack("I", groups))}
