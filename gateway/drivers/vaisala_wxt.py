r"""Vaisala WXT520 and WXT530 series, the wind of it, polled in ASCII with CRC.

Facts are from Vaisala's documentation of the WXT530 (M211840EN) and from a public driver. RS-232,
422 or 485, 19200 8N1 (the public driver's; set the profile to yours), lines end with CR LF:

=============  ================================================================================
request        answer
=============  ================================================================================
``0r1Goe``     ``0r1,Dn=236D,Dm=283D,Dx=031D,Sn=0.0M,Sm=1.0M,Sx=2.2MJ\Y``: direction and speed,
               least, mean and most of the averaging time; the device is set to which fields come
=============  ================================================================================

The first character is the address, 0 as delivered. The three characters at the end are the CRC of
all before: CRC-16 of polynomial 0xA001 started at 0, in steps of 4, 6 and 6 bits, each with 0x40.
(The sample in the manual has another; the command CRCs there are right.) A unit ``#`` is a
measurement that failed. M is m/s; K km/h, S miles an hour and N knots are general knowledge.

The mean ``Sm`` is given as the wind. The scale makes 3-s gusts of it, so the device must average
over 1 s and renew each second (``0WU,I=1,A=1``, general knowledge, not sent from here). ``Sx`` is
the most of four samples a second, more than a 3-s gust, and not used; rain is not read, as whether
its counter falls at each reading depends on settings that were not verified.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from gateway.drivers import Source
from gateway.drivers.options import one_of, read_options, within
from gateway.drivers.streaming import Item, StreamingGauge
from gateway.events import MICRO, NS, Diagnostic, Reading, parse_micro
from gateway.modbus import crc16

ADDRESSES: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LONGEST: Final = 160
SPEED: Final = re.compile(rb"(\d{1,4}(?:\.\d{1,4})?)([A-Z#])")
MPS: Final = {b"M": (1, 1), b"N": (1852, 3600), b"S": (44704, 100_000), b"K": (1000, 3600)}
"""Metres a second in one of the unit, as a fraction."""


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile.

    ``address`` one letter or digit. ``poll_s`` seconds between requests, 0.5 to 60; ``timeout_s``
    seconds that an answer may take, 0.1 to 5 and less than ``poll_s``.
    """

    address: str = "0"
    poll_s: float = 1.0
    timeout_s: float = 0.5

    def __post_init__(self) -> None:
        one_of("address", self.address, ADDRESSES)
        within("poll_s", self.poll_s, 0.5, 60, "s")
        within("timeout_s", self.timeout_s, 0.1, min(5, self.poll_s), "s")


class VaisalaWxt(StreamingGauge):
    """Driver of the transmitter: ``wind_mps`` each poll."""

    BEGIN: ClassVar[bytes] = ADDRESSES.encode()

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        super().__init__(sensor)
        self.options = read_options(Options, options)
        self.spacing_s = self.options.poll_s
        self._request = sealed(f"{self.options.address}r1".encode())
        self._to_send = b""
        self._asked = False
        self._answer_due: int | None = None
        self._next_poll: int | None = None

    def opened(self, t: int) -> None:
        """The port was opened: poll."""
        super().opened(t)
        self._to_send = b""
        self._asked = False
        self._answer_due = None
        self._next_poll = t

    @staticmethod
    def match(data: bytes, at: int) -> int:
        end = data.find(b"\n", at, at + LONGEST)
        line = data[at : end + 1 if end >= 0 else at + LONGEST]
        if line[:1] not in (letter.encode() for letter in ADDRESSES):
            return -1
        if not b"r1,".startswith(line[1:4]):
            return -1
        if end < 0:
            return 0 if len(line) < LONGEST else -1
        return len(line) if sealed(line[:-5]) == line else -1

    def _frame(self, frame: bytes, t: int) -> Iterator[Reading | Diagnostic]:
        if not self._asked or frame[:1] != self.options.address.encode():
            yield Diagnostic("unsolicited")
            return
        self._asked = False
        self._answer_due = None
        fields = dict(field.split(b"=", 1) for field in frame[4:-5].split(b",") if b"=" in field)
        speed = SPEED.fullmatch(fields.get(b"Sm", b""))
        if speed is None:
            yield Diagnostic("mismatch", 1, "no mean wind speed Sm in the answer; enable it")
        elif speed[2] in MPS:
            times, per = MPS[speed[2]]
            micro = parse_micro(speed[1].decode()) or 0
            yield Reading(self.sensor, t, "wind_mps", micro * times // per)
        else:
            yield Reading(self.sensor, t, "wind_mps", None)
            yield Diagnostic("invalid", 1, f"Sm={fields[b'Sm'].decode()}")

    def tick(self, t: int) -> list[Item]:
        """Give up an answer that is overdue; ask again when it is time."""
        found: list[Item] = []
        if self._answer_due is not None and t >= self._answer_due:
            self._answer_due = None
            self._asked = False
            found.append(Diagnostic("no_answer"))
        if self._next_poll is not None and t >= self._next_poll:
            self._next_poll = max(self._next_poll + round(self.options.poll_s * NS), t + 1)
            self._answer_due = t + round(self.options.timeout_s * NS)
            self._asked = False
            self._to_send = self._request
        return found

    def next_deadline(self) -> int | None:
        """When an answer is overdue or the next request is due."""
        due = [at for at in (self._answer_due, self._next_poll) if at is not None]
        return min(due, default=None)

    def to_send(self) -> bytes:
        """The request that is due. It counts as made once it was taken from here."""
        due, self._to_send = self._to_send, b""
        self._asked = self._asked or bool(due)
        return due


def sealed(body: bytes) -> bytes:
    """``body`` with its CRC and the end of the line."""
    crc = crc16(body, 0)
    return body + bytes(0x40 | crc >> shift & 0x3F for shift in (12, 6, 0)) + b"\r\n"


class VaisalaWxtSimulator:
    """The transmitter: answers ``r1`` with a right CRC, and nothing else."""

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        self._options = read_options(Options, options)
        self._source = source
        self._in = b""
        self._out = b""
        self._play_began: int | None = None

    def powered(self, t: int) -> None:
        """Nothing was said or heard."""
        del t
        self._in = self._out = b""

    def feed(self, data: bytes, t: int) -> None:
        """Answer each request; what is none is passed over."""
        *lines, rest = (self._in + data).split(b"\n")
        self._in = rest[-LONGEST:]
        for line in lines:
            if line + b"\n" == sealed(f"{self._options.address}r1".encode()):
                self._play_began = t if self._play_began is None else self._play_began
                micro = self._source.micro("wind_mps", t - self._play_began)
                tenths = round((micro or 0) * 10 / MICRO)
                speed = f"{tenths // 10}.{tenths % 10}{'#' if micro is None else 'M'}"
                text = f"{self._options.address}r1,Dn=236D,Dm=283D,Dx=031D"
                self._out += sealed(f"{text},Sn={speed},Sm={speed},Sx={speed}".encode())

    def tick(self, t: int) -> None:
        """Nothing is due."""

    def next_deadline(self) -> int | None:
        """Nothing is due."""
        return None

    def to_send(self) -> bytes:
        """What the transmitter says."""
        said, self._out = self._out, b""
        return said


VaisalaWxt.simulator = VaisalaWxtSimulator
