"""The client's end of ``feed.sock``: for the uplink, for monitors, for tests.

Synchronous and small. It never reconnects by itself: the caller knows what it has stored, and
connects again with that.
"""

import base64
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from gateway.core.segments import Position

_READ_BYTES = 256 << 10
_TYPES = {"int32le": "<i4", "float64le": "<f8"}


class FeedError(Exception):
    """The feed can't be had, or it ended; the message says why."""


class FeedClient:
    """One connection to the core's feed. Iterating gives its items as they come, without end.

    ``have`` is the last record stored; None asks for all that the core's journal has, ``"now"``
    for new ones only. ``data`` asks for packets and readings: new ones, or what the core still has
    in memory too. ``timeout_s`` is the longest wait for an item: when it is over, iterating
    gives None, so that the caller can see to other things.

    Raises:
        FeedError: the core is not running, or this user may not connect.
    """

    def __init__(
        self,
        path: Path,
        have: Position | Literal["now"] = None,
        *,
        data: bool | Literal["memory"] = False,
        timeout_s: float | None = None,
    ) -> None:
        self._path = path
        self._received = bytearray()
        self._lines: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        place = {"run_id": have[0], "seq": have[1]} if isinstance(have, tuple) else have
        try:
            self._socket.connect(str(path))
            self._send({"hello": {"have": place, "data": data}})
        except (OSError, FeedError) as error:
            self._socket.close()
            raise FeedError(f"{path}: {error}; is the gateway's core running?") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        while True:
            yield self.receive()

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self._socket.fileno()

    def receive(self) -> dict[str, Any] | None:
        """The next item; None when the time is over.

        Raises:
            FeedError: the connection ended.
        """
        while not self._lines:
            try:
                data = self._socket.recv(_READ_BYTES)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError as error:
                raise FeedError(f"{self._path}: {error}") from error
            if not data:
                raise FeedError(f"{self._path}: the core closed the feed")
            self._received += data
            *lines, self._received = self._received.split(b"\n")
            self._lines = [bytes(line) for line in reversed(lines)]
        item: dict[str, Any] = json.loads(self._lines.pop())
        if "error" in item:
            raise FeedError(f"{self._path}: {item['error']}")
        return item

    def stored(self, run_id: str, seq: int) -> None:
        """Tell the core that every record up to this one is stored durably."""
        self._send({"stored": {"run_id": run_id, "seq": seq}})

    def command(self, envelope: bytes) -> None:
        """Pass on a signed envelope, whose bytes reach the core as they are.

        Raises:
            ValueError: there is a line feed in it.
            FeedError: the connection ended.
        """
        if b"\n" in envelope:
            raise ValueError("an envelope is one line of JSON")
        self._send_bytes(b'{"command":' + envelope + b"}\n")

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        self._send_bytes(json.dumps(message).encode() + b"\n")

    def _send_bytes(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise FeedError(f"{self._path}: {error}") from error


def packet_samples(packet: Mapping[str, Any]) -> NDArray[np.int32] | NDArray[np.float64]:
    """The samples of a data item's ``packet``, shape (channels, n).

    Raises:
        ValueError, KeyError: it is no packet of the feed.
    """
    flat = np.frombuffer(base64.b64decode(packet["samples"]), _TYPES[packet["encoding"]])
    return flat.reshape(len(packet["channels"]), -1)
