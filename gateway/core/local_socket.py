"""Sockets between the gateway's own processes: lines of JSON over a Unix stream socket.

A peer cannot hold the loop up: nothing here blocks, what it sends is bounded by ``max_line``, and
one turn of the loop moves a bounded number of bytes for it.
"""

import contextlib
import errno
import os
import selectors
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

READ_BYTES = 16 << 10
WRITE_BYTES = 64 << 10


class Listener:
    """A listening socket at ``path``, mode 0660; what a dead process left there is removed.

    ``connected`` is given the socket of each peer that connects, and the selector.

    Raises:
        OSError: a living process listens there, the path is no socket, or it can't be made.
    """

    def __init__(
        self, path: Path, connected: Callable[[socket.socket, selectors.BaseSelector], None]
    ) -> None:
        self._path = path
        self._connected = connected
        self._socket = _listen(path)
        self._selector: selectors.BaseSelector | None = None

    def register(self, selector: selectors.BaseSelector) -> None:
        """Let peers in from now on; ``key.data`` is a callable of the event mask."""
        self._selector = selector
        selector.register(self._socket, selectors.EVENT_READ, partial(self._accept, selector))

    def close(self) -> None:
        """Let nobody in any more and remove the socket."""
        if self._selector is not None:
            self._selector.unregister(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _accept(self, selector: selectors.BaseSelector, _mask: int) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:  # it has gone again
            return
        self._connected(sock, selector)


def _listen(path: Path) -> socket.socket:
    if path.is_socket() and not _listened_to(path):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
        listener.listen(8)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            message = "another gateway core is running, or the path is taken"
            raise OSError(error.errno, message, str(path)) from None
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.umask(before)
    return listener


def _listened_to(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:  # its backlog is full, or it is not ours to connect to
            return True
    return True


class LineTooLongError(Exception):
    """A peer sent a line longer than it may."""


class LineConnection:
    """One peer: whole lines in, bytes out.

    ``ready`` is called with the selector's event mask when something can be read or written.
    """

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        ready: Callable[[int], None],
        max_line: int,
    ) -> None:
        sock.setblocking(False)
        self.open = True
        self._sock = sock
        self._selector = selector
        self._ready = ready
        self._max_line = max_line
        self._received = bytearray()
        self._out = bytearray()
        self._events = selectors.EVENT_READ
        selector.register(sock, self._events, ready)

    @property
    def waiting_bytes(self) -> int:
        """How much has yet to be sent."""
        return len(self._out)

    def read_lines(self) -> list[bytes]:
        """The lines that have come whole, without line feeds. Closes at the peer's end.

        Raises:
            LineTooLongError: more than ``max_line`` bytes without a line feed.
        """
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.close()
            return []
        self._received += data
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        if any(len(line) > self._max_line for line in (*lines, rest)):
            raise LineTooLongError(f"a line of more than {self._max_line} bytes")
        return [bytes(line) for line in lines]

    def send(self, data: bytes) -> None:
        """Queue bytes for the peer; :meth:`flush` sends them."""
        self._out += data

    def flush(self) -> None:
        """Send what the socket takes, ``WRITE_BYTES`` at most, and wait for room for the rest."""
        if self.open and self._out:
            try:
                count = self._sock.send(self._out[:WRITE_BYTES])
                del self._out[:count]
            except BlockingIOError:
                pass
            except OSError:
                self.close()
        if self.open:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
            if events != self._events:
                self._events = events
                self._selector.modify(self._sock, events, self._ready)

    def close(self) -> None:
        """Close the connection, at most once."""
        if self.open:
            self.open = False
            self._out.clear()
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._sock)
            self._sock.close()
