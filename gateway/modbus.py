"""Modbus RTU, the master's side of a serial line, sans-IO: one request at a time, bounded waits.

Sensors (:mod:`gateway.drivers.modbus_unit`) and sirens (:mod:`gateway.siren.modbus_relay`) use it.

Facts: MODBUS over Serial Line V1.02 (framing, silent intervals, CRC) and MODBUS Application
Protocol V1.1b3 (function codes, exceptions).

===========  =========================================================================
bytes        meaning
===========  =========================================================================
0            address of the unit, 1…247 (some boards up to 255); 0 is broadcast, unanswered
1            function; with bit 7 set in an answer: refused, and byte 2 says why
2 … n−3      data
n−2, n−1     CRC-16 (polynomial 0xA001 reflected, start 0xFFFF) of all before, low byte first
===========  =========================================================================

An answer carries nothing that ties it to its request, so a late one can pass for the answer to
the next. Hence an answer must have the address, function and length asked for and, for writes,
echo what was written; and after a read that was not answered in time the next read of that unit
waits until a late answer must have come. Writes need not wait: a late echo of the same write
proves the same thing.
"""

from enum import IntEnum
from struct import Struct
from typing import Final

from gateway.events import Diagnostic, frozen

BROADCAST: Final = 0
MAX_FRAME: Final = 256


class Function(IntEnum):
    """The function codes in use here."""

    read_coils = 0x01
    read_inputs = 0x02
    read_holding = 0x03
    read_input = 0x04
    write_coil = 0x05
    write_register = 0x06
    write_coils = 0x0F


_READ_BITS = frozenset({Function.read_coils, Function.read_inputs})
_READ_WORDS = frozenset({Function.read_holding, Function.read_input})

EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal address",
    3: "illegal value",
    4: "device failure",
    5: "acknowledged, not done yet",
    6: "device busy",
}


_REQUEST: Final = Struct(">BBHH")
"""Address, function, register, value."""


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1  # noqa: PLW2901  shifted in place
        table.append(value)
    return tuple(table)


_CRC: Final = _crc_table()


def crc16(data: bytes, crc: int = 0xFFFF) -> int:
    """CRC-16 of Modbus; 0 for a whole frame whose CRC is right. Other protocols start at 0."""
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc


def seal(body: bytes) -> bytes:
    """The frame: ``body`` (address, function, data) with its CRC."""
    return body + crc16(body).to_bytes(2, "little")


@frozen
class Request:
    """One request of two 16-bit fields: register or coil, and value or count."""

    address: int
    function: Function
    register: int
    value: int

    @property
    def frame(self) -> bytes:
        return seal(_REQUEST.pack(self.address, self.function, self.register, self.value))

    @property
    def is_read(self) -> bool:
        return self.function in _READ_BITS or self.function in _READ_WORDS

    @property
    def prefix(self) -> bytes:
        """What a good answer begins with; for writes all of it but the CRC."""
        if self.function in _READ_BITS:
            return bytes((self.address, self.function, (self.value + 7) // 8))
        if self.function in _READ_WORDS:
            return bytes((self.address, self.function, 2 * self.value))
        return self.frame[:-2]

    @property
    def answer_size(self) -> int:
        """Length of a good answer in bytes."""
        return 5 + self.prefix[2] if self.is_read else 8


@frozen
class Answer:
    """A unit did as asked; ``data`` are the bytes it returned, without count and CRC."""

    request: Request
    data: bytes


@frozen
class Refusal:
    """A unit answered with an exception."""

    request: Request
    code: int

    @property
    def reason(self) -> str:
        return f"exception {self.code} ({EXCEPTIONS.get(self.code, 'unknown')})"


@frozen
class NoAnswer:
    """The time for an answer has passed."""

    request: Request


class Master:
    """The bus: sends one request, waits for its answer or the time-out, then is free again.

    Times are monotonic ns. ``timeout_ns`` runs from the request to its answer's last byte; for
    ``late_ns`` after a time-out an answer may still come, and is then taken for nothing.
    ``gap_ns`` is the silence that must precede a frame (3.5 characters: 4 ms at 9600 baud).
    """

    def __init__(self, timeout_ns: int, late_ns: int, gap_ns: int) -> None:
        self._timeout_ns = timeout_ns
        self._late_ns = late_ns
        self._gap_ns = gap_ns
        self._out = b""
        self._in = bytearray()
        self.reset()

    def reset(self) -> None:
        """The line was opened again: nothing is under way."""
        self.pending: Request | None = None
        self.deadline_ns = 0
        self.free_ns = 0
        """When the silence after the last answer is over."""
        self._late: dict[int, int] = {}
        self._in.clear()
        self._out = b""

    def ready_ns(self, request: Request) -> int:
        """From when on ``request`` may be sent, given that nothing is pending."""
        if request.is_read:
            return max(self.free_ns, self._late.get(request.address, 0))
        return self.free_ns

    def send(self, request: Request, t: int) -> None:
        """Put the request on the line; nothing may be pending and :meth:`ready_ns` not ahead.

        Never a broadcast: nobody answers one.
        """
        self._out += request.frame
        self.pending = request
        self.deadline_ns = t + self._timeout_ns

    def to_send(self) -> bytes:
        data, self._out = self._out, b""
        return data

    def feed(self, data: bytes, t: int) -> list[Answer | Refusal | Diagnostic]:
        """Take what came from the line. At most one answer; what is none is counted."""
        if not data:
            return []
        if self.pending is None:
            return [Diagnostic("unsolicited", len(data), "no request was pending")]
        self._in += data
        buffer, start, size = bytes(self._in), 0, 1
        found: Answer | Refusal | None = None
        while found is None and size and start < len(buffer):
            found, size = _match(self.pending, buffer[start : start + MAX_FRAME])
            start += size
        result: list[Answer | Refusal | Diagnostic] = []
        skipped = start - size if found else start
        if skipped:
            result.append(Diagnostic("garbage", skipped, f"unit {self.pending.address}"))
        if found is None:
            del self._in[:start]
            return result
        if start < len(buffer):
            detail = f"after the answer of unit {self.pending.address}"
            result.append(Diagnostic("unsolicited", len(buffer) - start, detail))
        self._in.clear()
        self.pending = None
        self.free_ns = t + self._gap_ns
        return [*result, found]

    def tick(self, t: int) -> NoAnswer | None:
        """The pending request, once, when its time has passed."""
        if self.pending is None or t < self.deadline_ns:
            return None
        request, self.pending = self.pending, None
        self._in.clear()
        self.free_ns = t
        if request.is_read:
            self._late[request.address] = t + self._late_ns
        return NoAnswer(request)


def find(request: Request, heard: bytes) -> Answer | Refusal | None:
    """The first answer to ``request`` in what was heard, whatever is around it."""
    for start in range(len(heard)):
        found, _ = _match(request, heard[start : start + MAX_FRAME])
        if found is not None:
            return found
    return None


def _match(request: Request, data: bytes) -> tuple[Answer | Refusal | None, int]:
    """The answer at the start of ``data`` with its size; (None, 0) while more bytes are needed.

    (None, 1) says that no answer starts at this byte.
    """
    prefix = request.prefix
    if prefix.startswith(data[: len(prefix)]):
        size = request.answer_size
        if len(data) < size:
            return None, 0
        if crc16(data[:size]) == 0:
            return Answer(request, data[len(prefix) : size - 2]), size
    elif bytes((request.address, request.function | 0x80)) == data[:2]:
        if len(data) < 5:
            return None, 0
        if crc16(data[:5]) == 0:
            return Refusal(request, data[2]), 5
    return None, 1
