"""SL 651-2014 (水文监测数据通信规约), HEX encoding: the frames between a station and its centre.

Without I/O: :func:`frame` makes what a station sends, :class:`Session` says what is to be sent next
and understands the centre's answers. What was seen in published frames, whose checksums match, and
what was not read in the standard itself:

====================  ==================================================================  ========
part                  form                                                                known by
====================  ==================================================================  ========
start                 ``7E 7E``                                                           frames
addresses up          centre u8, station 5 bytes BCD                                      frames
addresses down        station 5 bytes BCD, centre u8                                      frames
password              2 bytes                                                             frames
function              u8, :class:`Function`                                               frames
direction, length     u16: top nibble 0 up, 8 down; bytes between ``02`` and the end mark  frames
begin                 ``02``                                                              frames
serial, time          u16; yyMMddHHmmss BCD, Beijing time                                 frames
station               ``F1 F1``, 5 bytes BCD, class u8                                    frames
observation           ``F0 F0``, yyMMddHHmm BCD                                           frames
element               identifier u8; u8: bytes × 8 + decimals; value BCD                  frames
missing value         ``FF`` in each byte                                                 hearsay
negative value        ``FF`` before the digits                                            hearsay
end up                ``03``                                                              frames
end down              ``1B`` stay on line; others                                         frames;
                      ``04`` may leave, ``06`` taken, ``15`` refused                      hearsay
checksum              CRC-16/MODBUS from the first ``7E`` to the end mark, high first     frames
====================  ==================================================================  ========

"Frames": worked examples by two makers, recomputed. "Hearsay": general knowledge of the protocol,
to be proved with the centre before relying on it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from gateway.events import BEIJING, NS
from gateway.modbus import crc16

START = b"\x7e\x7e"
BEGIN = 0x02
END_UP = 0x03
STAY, LEAVE, TAKEN, REFUSED = 0x1B, 0x04, 0x06, 0x15
ANSWER_ENDS = frozenset({STAY, LEAVE, TAKEN, REFUSED})
_HEAD = 14
"""Bytes of a frame before what the length counts."""
_TAIL = 3
MAX_BODY = 0xFFF
TRIES = 3


class Function(IntEnum):
    """Function codes of reports."""

    keep_link = 0x2F
    test = 0x30
    timed = 0x32
    extra = 0x33
    hourly = 0x34


class StationClass(IntEnum):
    """Class of the station; ``rain`` was not seen in a published frame."""

    river = 0x48
    reservoir = 0x4B
    rain = 0x50


@dataclass(frozen=True, slots=True)
class Element:
    """A measured value as it is sent: ``size`` bytes of BCD with ``decimals`` of its digits.

    ``micro`` is the value in millionths of the unit; None is missing.
    """

    identifier: int
    micro: int | None
    size: int
    decimals: int

    def encode(self) -> bytes:
        """Identifier, definition and value; digits beyond the size are cut as a counter's are."""
        head = bytes((self.identifier, self.size << 3 | self.decimals))
        if self.micro is None:
            return head + b"\xff" * self.size
        step = 10 ** (6 - self.decimals)
        number = (abs(self.micro) + step // 2) // step
        if self.micro < 0:
            digits = f"{number % 10 ** (2 * self.size - 2):0{2 * self.size - 2}d}"
            return head + b"\xff" + bytes.fromhex(digits)
        return head + bytes.fromhex(f"{number % 10 ** (2 * self.size):0{2 * self.size}d}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who reports to whom: the centre's address, the station's ten digits, and the password."""

    centre: int
    station: str
    password: bytes
    station_class: StationClass


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be told: of when (UTC, ns), and the elements as encoded."""

    function: Function
    observed_ns: int
    elements: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the centre said to a frame."""

    function: int
    serial: int
    end: int


def bcd_time(utc_ns: int, *, seconds: bool) -> bytes:
    """A time as yyMMddHHmm[ss] of Beijing, BCD."""
    moment = datetime.fromtimestamp(utc_ns // NS, BEIJING)
    return bytes.fromhex(moment.strftime("%y%m%d%H%M%S" if seconds else "%y%m%d%H%M"))


def frame(identity: Identity, function: Function, serial: int, sent_ns: int, rest: bytes) -> bytes:
    """What the station sends; ``rest`` follows serial and time.

    Raises:
        ValueError: more than one frame holds.
    """
    body = serial.to_bytes(2, "big") + bcd_time(sent_ns, seconds=True) + rest
    if len(body) > MAX_BODY:
        raise ValueError(f"{len(body)} bytes; a frame holds {MAX_BODY}")
    text = (
        START
        + bytes((identity.centre,))
        + bytes.fromhex(identity.station)
        + identity.password
        + bytes((function,))
        + len(body).to_bytes(2, "big")
        + bytes((BEGIN,))
        + body
        + bytes((END_UP,))
    )
    return text + crc16(text).to_bytes(2, "big")


def report_frame(identity: Identity, report: Report, serial: int, sent_ns: int) -> bytes:
    """The frame of a report."""
    place = b"\xf1\xf1" + bytes.fromhex(identity.station) + bytes((identity.station_class,))
    observed = b"\xf0\xf0" + bcd_time(report.observed_ns, seconds=False)
    rest = place + observed + report.elements
    return frame(identity, report.function, serial, sent_ns, rest)


class Answers:
    """Finds the centre's answers in what comes, whatever else does."""

    def __init__(self, identity: Identity) -> None:
        self.dropped = 0
        """Bytes that were no answer to this station."""
        self._address = bytes.fromhex(identity.station) + bytes((identity.centre,))
        self._password = identity.password
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Answer]:
        """The answers that these bytes complete."""
        self._buffer += data
        found: list[Answer] = []
        while (start := self._buffer.find(START)) >= 0:
            self._drop(start)
            if len(self._buffer) < _HEAD:
                return found
            length = int.from_bytes(self._buffer[11:13], "big")
            whole = _HEAD + (length & MAX_BODY) + _TAIL
            if length >> 12 != 8 or self._buffer[13] != BEGIN:
                self._drop(1)
            elif len(self._buffer) < whole:
                return found
            elif (answer := self._answer(bytes(self._buffer[:whole]))) is None:
                self._drop(1)
            else:
                found.append(answer)
                del self._buffer[:whole]
        self._drop(max(0, len(self._buffer) - 1))
        return found

    def forget(self) -> None:
        """The connection is another one."""
        self._buffer.clear()

    def _drop(self, count: int) -> None:
        self.dropped += count
        del self._buffer[:count]

    def _answer(self, text: bytes) -> Answer | None:
        end = text[-3]
        if (
            crc16(text[:-2]) != int.from_bytes(text[-2:], "big")
            or text[2:8] != self._address
            or text[8:10] != self._password
            or end not in ANSWER_ENDS
            or len(text) < _HEAD + 2 + _TAIL
        ):
            return None
        return Answer(text[10], int.from_bytes(text[14:16], "big"), end)


class Session:
    """One frame at a time: sent, sent again while unanswered, done when the centre has it.

    ``t`` is monotonic time in ns, ``utc_ns`` the time that the frame states, ``answer_ns`` how long
    the centre may take. The first serial number is the one after ``serial``.
    """

    def __init__(self, identity: Identity, answer_ns: int, serial: int = 0) -> None:
        self.identity = identity
        self.serial = serial
        self.answers = Answers(identity)
        self._answer_ns = answer_ns
        self._report: Report | None = None
        self._tries = 0
        self._due: int | None = None
        self._out: deque[bytes] = deque()

    def to_send(self) -> bytes:
        """Bytes for the centre, each given once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def send(self, report: Report, t: int, utc_ns: int) -> None:
        """Begin with a report; there is none under way."""
        self.serial = self.serial % 0xFFFF + 1
        self._report, self._tries = report, 0
        self._again(t, utc_ns)

    def feed(self, data: bytes) -> bool | None:
        """Whether the centre has taken the report or refuses it; None if it said neither."""
        for answer in self.answers.feed(data):
            if self._report is None or answer.serial != self.serial:
                continue
            if answer.function != self._report.function:
                continue
            self._report = self._due = None
            return answer.end != REFUSED
        return None

    def tick(self, t: int, utc_ns: int) -> bool:
        """Send again what is not answered; False once that is no use on this connection."""
        if self._due is None or t < self._due:
            return True
        if self._tries >= TRIES:
            return False
        self._again(t, utc_ns)
        return True

    def lost(self) -> None:
        """The connection ended, and with it the report that was under way."""
        self._report = self._due = None
        self._out.clear()
        self.answers.forget()

    def _again(self, t: int, utc_ns: int) -> None:
        assert self._report is not None  # noqa: S101  callers have one
        self._tries += 1
        self._due = t + self._answer_ns
        self._out.append(report_frame(self.identity, self._report, self.serial, utc_ns))


def encode(elements: Sequence[Element]) -> bytes:
    """Elements one after the other."""
    return b"".join(element.encode() for element in elements)
