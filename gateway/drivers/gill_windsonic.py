"""Gill WindSonic two-axis ultrasonic anemometer, continuous output.

Facts are from Gill's manual 1405-PS-0019 (issues 25 and 28). RS-232, 9600 8N1 as delivered. Two of
its formats are read, each from any point of the stream:

=====================  ====================================================================
format                 line
=====================  ====================================================================
polar continuous (M2,  ``02`` ``Q,229,002.74,M,00,`` ``03`` ``16`` ``0D 0A``: node, direction in
as delivered)          degrees (empty in a calm), speed, its unit, status, and in hexadecimal
                       the exclusive or of the bytes between 02 and 03
NMEA (M14)             ``$WIMWV,229,R,002.74,M,A*3F`` ``0D 0A``: direction, R, speed, unit, A
                       valid or V not; exclusive or of the bytes between ``$`` and ``*``
=====================  ====================================================================

Units: M m/s; N knots, P miles an hour, K km/h and F feet a minute are not in the pages that were
read. Status 00 is well (60 is well too, where Gill's status stands in an NMEA line); any other is
a measurement that failed, and the reading is missing. At power-up the instrument may print lines
of text, which count as garbage. UV output (M1) is no polar one and says so.

The scale over the readings makes gusts of 3 s out of them, for which the instrument has to speak
at least once a second (P1, as delivered; P2 and P3 are 2 and 4 times, which was not verified).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from gateway.drivers import Source
from gateway.drivers.options import one_of, read_options
from gateway.drivers.streaming import StreamingGauge, StreamingSimulator
from gateway.events import MICRO, NS, Diagnostic, Reading, parse_micro

LONGEST: Final = 82
"""A line of NMEA 0183; the polar ones are shorter."""
ENDS: Final = {0x02: 0x03, 0x24: 0x2A}
"""What ends the body of a frame, by what begins it."""
END_OF_LINE: Final = b"\r\n"

POLAR = re.compile(
    rb"(?P<node>[A-Z]),(?P<direction>\d{0,3}),(?P<speed>\d{1,4}(?:\.\d{1,4})?|),(?P<unit>[A-Z]),"
    rb"(?P<status>[0-9A-F]{2}),"
)
NMEA = re.compile(
    rb"(?:WI|II)MWV,(?P<direction>\d*\.?\d*),(?P<frame>[RT]),(?P<speed>\d{1,4}(?:\.\d{1,4})?|),"
    rb"(?P<unit>[A-Z]),(?P<status>[0-9A-F]{1,2}|V)"
)
UV = re.compile(rb"[A-Z],[+-][0-9.]+,[+-][0-9.]+,[A-Z],[0-9A-F]{2},")

WELL: Final = frozenset({b"00", b"60", b"A"})
MPS: Final = {
    b"M": (1, 1),
    b"N": (1852, 3600),
    b"P": (44704, 100_000),
    b"K": (1000, 3600),
    b"F": (3048, 600_000),
}
"""Metres a second in one of the unit, as a fraction."""


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile.

    ``node`` the instrument's letter, A to Z: on a shared line others are left alone. ``rate_hz``
    lines a second, 1, 2 or 4: what the instrument is set to, and the simulated one says.
    """

    node: str = "Q"
    rate_hz: int = 1

    def __post_init__(self) -> None:
        one_of("node", self.node, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        one_of("rate_hz", self.rate_hz, (1, 2, 4))


class GillWindSonic(StreamingGauge):
    """Driver of the anemometer: ``wind_mps`` each line."""

    BEGIN: ClassVar[bytes] = b"\x02$"

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        super().__init__(sensor)
        self.options = read_options(Options, options)

    @staticmethod
    def match(data: bytes, at: int) -> int:
        end = ENDS.get(data[at])
        if end is None:
            return -1
        check = 0
        for place in range(at + 1, min(len(data), at + LONGEST - 4)):
            byte = data[place]
            if byte == end:
                return _closed(data, at, place, check)
            if not 0x20 <= byte < 0x7F:
                return -1
            check ^= byte
        return 0 if len(data) - at < LONGEST - 4 else -1

    def _frame(self, frame: bytes, t: int) -> Iterator[Reading | Diagnostic]:
        body = frame[1:-5]
        form = POLAR if frame[0] == 0x02 else NMEA
        match = form.fullmatch(body)
        if match is None:
            detail = "speaks UV; set it to polar (M2)" if UV.fullmatch(body) else _shown(body)
            yield Diagnostic("mismatch", 1, detail)
        elif frame[0] == 0x02 and match["node"] != self.options.node.encode():
            yield Diagnostic("unsolicited", 1, f"node {match['node'].decode()}")
        elif match["unit"] not in MPS:
            yield Diagnostic("mismatch", 1, f"unknown unit of speed in {_shown(body)}")
        elif match["status"] not in WELL or not match["speed"]:
            yield Reading(self.sensor, t, "wind_mps", None)
            yield Diagnostic("invalid", 1, f"status {match['status'].decode()}: {_shown(body)}")
        else:
            times, per = MPS[match["unit"]]
            micro = parse_micro(match["speed"].decode()) or 0
            yield Reading(self.sensor, t, "wind_mps", micro * times // per)


def _closed(data: bytes, at: int, end: int, check: int) -> int:
    """Size of the frame whose body ends at ``end``, given the exclusive or of that."""
    tail = data[end + 1 : end + 5]
    expected = b"%02X\r\n" % check
    if tail == expected:
        return end + 5 - at
    return 0 if len(tail) < 4 and expected.startswith(tail) else -1


def _shown(body: bytes) -> str:
    return body[:40].decode("ascii", "replace")


class GillWindSonicSimulator(StreamingSimulator):
    """The instrument as delivered, polar; the wind turns a degree a second."""

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        self._options = read_options(Options, options)
        super().__init__(source, NS // self._options.rate_hz)

    def powered(self, t: int) -> None:
        """The banner, then data."""
        super().powered(t)
        self._out += b"WINDSONIC (Gill Instruments Ltd)\r\n"

    def _said(self, t: int) -> bytes:
        return polar(self._options.node, t // NS % 360, self._source.micro("wind_mps", t))


def polar(node: str, direction: int, micro: int | None) -> bytes:
    """The frame of a speed in millionths of a m/s; None is a measurement that failed (status 04).

    Speeds are rounded to the instrument's 0.01 m/s; in a calm of less than 0.05 m/s there is no
    direction.
    """
    cents = round((micro or 0) * 100 / MICRO)
    bearing = f"{direction:03d}" if cents >= 5 else ""
    speed = f"{cents // 100:03d}.{cents % 100:02d}"
    body = f"{node},{bearing},{speed},M,{'04' if micro is None else '00'},".encode("ascii")
    check = 0
    for byte in body:
        check ^= byte
    return b"\x02" + body + b"\x03" + b"%02X" % check + END_OF_LINE


GillWindSonic.simulator = GillWindSonicSimulator
