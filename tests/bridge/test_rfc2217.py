"""The Telnet codec, against pyserial's own server and against any bytes."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serial import rfc2217

from gateway.bridge.rfc2217 import Rfc2217
from gateway.core.compiled import Port

PORT = Port("x", baud=4800, bytesize=7, parity="E", stopbits=2)


class FakeSerial:
    """What pyserial's server sets; it starts as a terminal server is delivered."""

    def __init__(self) -> None:
        self.baudrate, self.bytesize, self.parity, self.stopbits = 9600, 8, "N", 1
        self.dtr = self.rts = self.cts = self.dsr = self.ri = self.cd = False
        self.rtscts = self.xonxoff = self.break_condition = False


class Server:
    """pyserial's side of the connection."""

    def __init__(self) -> None:
        self.serial = FakeSerial()
        self.sent = io.BytesIO()
        made: Any = rfc2217.PortManager
        self.manager = made(self.serial, self)

    def write(self, data: bytes) -> None:
        self.sent.write(data)

    def said(self) -> bytes:
        data = self.sent.getvalue()
        self.sent = io.BytesIO()
        return data

    def hears(self, data: bytes) -> bytes:
        return b"".join(self.manager.filter(data))


def talk(codec: Rfc2217, server: Server) -> bytes:
    """Let both speak until neither has more to say; the data that reached the client."""
    found, said = b"", codec.begin()
    while said:
        server.hears(said)
        data, said = codec.feed(server.said())
        found += data
    return found


def test_the_line_of_a_server_is_set_as_the_profile_says() -> None:
    codec, server = Rfc2217(PORT), Server()
    assert talk(codec, server) == b""
    assert codec.ready
    line = server.serial
    assert (line.baudrate, line.bytesize, line.parity, line.stopbits) == (4800, 7, "E", 2)
    assert (line.dtr, line.rts) == (True, True)


@given(st.binary(max_size=80))
def test_data_pass_unchanged_both_ways_whatever_they_are(data: bytes) -> None:
    codec, server = Rfc2217(PORT), Server()
    talk(codec, server)
    assert server.hears(codec.encode(data)) == data
    escaped = b"".join(server.manager.escape(data))
    for width in (1, 3, len(escaped) or 1):
        found = b""
        for at in range(0, len(escaped), width):
            found += codec.feed(escaped[at : at + width])[0]
        assert found == data


@given(st.binary(max_size=300))
def test_any_bytes_are_taken(data: bytes) -> None:
    codec = Rfc2217(PORT)
    codec.begin()
    found, reply = codec.feed(data)
    assert len(found) <= len(data)
    assert len(reply) <= 80 * len(data)


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        (b"\xff\xfe\x2c", "without com port control"),
        (b"\xff\xfa\x2c\x65\x00\x00\x25\x80\xff\xf0", "has baud 9600; it was told 4800"),
        (b"\xff\xfa\x2c\x67\x01\xff\xf0", "has parity 1; it was told 3"),
    ],
)
def test_a_server_that_does_otherwise_is_refused(heard: bytes, reason: str) -> None:
    codec = Rfc2217(PORT)
    codec.begin()
    codec.feed(b"\xff\xfd\x2c")
    codec.feed(heard)
    assert reason in codec.refused
    assert not codec.ready
