"""A hydrological centre on loopback: reads what stations send by SL 651 and answers as told."""

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.modbus import crc16


@dataclass(frozen=True)
class Heard:
    """A whole frame with a right checksum."""

    centre: int
    station: str
    password: bytes
    function: int
    serial: int
    sent: str
    rest: bytes


def parse(text: bytes) -> Heard:
    """Take a frame apart, with no help of the code under test."""
    assert text[:2] == b"\x7e\x7e"
    assert crc16(text[:-2]) == int.from_bytes(text[-2:], "big")
    length = int.from_bytes(text[11:13], "big")
    assert length >> 12 == 0, "up"
    assert (text[13], text[-3]) == (0x02, 0x03)
    body = text[14:-3]
    assert len(body) == length
    return Heard(
        text[2], text[3:8].hex(), text[8:10], text[10],
        int.from_bytes(body[:2], "big"), body[2:8].hex(), body[8:],
    )  # fmt: skip


def answer(heard: Heard, end: int = 0x1B) -> bytes:
    """What a centre says to a frame."""
    body = heard.serial.to_bytes(2, "big") + bytes.fromhex(heard.sent)
    text = (
        b"\x7e\x7e"
        + bytes.fromhex(heard.station)
        + bytes((heard.centre,))
        + heard.password
        + bytes((heard.function,))
        + (0x8000 | len(body)).to_bytes(2, "big")
        + b"\x02"
        + body
        + bytes((end,))
    )
    return text + crc16(text).to_bytes(2, "big")


class Centre:
    """Listens on a free port. ``manner`` makes the bytes to answer with; None hangs up."""

    def __init__(self, manner: Callable[[Heard], bytes | None] = answer, port: int = 0) -> None:
        self.heard: deque[Heard] = deque()
        self.manner = manner
        self._server = socket.create_server(("127.0.0.1", port))
        self.port: int = self._server.getsockname()[1]
        self._lines: list[socket.socket] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        with suppress(OSError):  # closed before
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for line in self._lines:
            line.close()
        self._thread.join(5)

    def _listen(self) -> None:
        while True:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            self._lines.append(line)
            with line:
                self._serve(line)

    def _serve(self, line: socket.socket) -> None:
        buffer = b""
        while True:
            try:
                data = line.recv(4096)
            except OSError:
                return
            if not data:
                return
            buffer += data
            while len(buffer) >= 13:
                whole = 14 + (int.from_bytes(buffer[11:13], "big") & 0xFFF) + 3
                if len(buffer) < whole:
                    break
                heard, buffer = parse(buffer[:whole]), buffer[whole:]
                self.heard.append(heard)
                said = self.manner(heard)
                if said is None:
                    return
                line.sendall(said)
