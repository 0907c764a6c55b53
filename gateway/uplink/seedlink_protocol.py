r"""SeedLink 3.1, the server's end of the protocol, without I/O.

The protocol as SeisComP, libslink and obspy speak it (SeisComP's description of SeedLink 3;
EarthScope's libslink and ringserver; the selectors of the SeedLink manual). Commands are lines that
end with CR, LF or both; answers are ``OK\r\n`` or ``ERROR\r\n``, unless ``BATCH`` was said:

==============================  ==================================================================
``HELLO``                       two lines: protocol and version, organisation
``CAT``                         the stations, a line each, then ``END``
``BATCH``                       no more answers to commands
``STATION sta [net]``           what follows is of this station (``?`` and ``*`` stand for any)
``SELECT [[!][LL]CCC[.T]]``     streams of it; ``!`` excludes; without anything all again
``DATA [n [begin]]``            from record number n (hexadecimal) on and then as they come; without
                                n only as they come
``FETCH [n [begin]]``           as DATA, and ``END`` when all that there is has been sent
``TIME begin [end]``            from a time on, to another; times as ``2026,11,26,01,00,00``
``END``                         send what the stations above said
``INFO level``                  ID, CAPABILITIES, STATIONS, STREAMS, GAPS; from this machine also
                                CONNECTIONS and ALL
``BYE``                         hang up
==============================  ==================================================================

Without ``STATION`` all stations are meant, and ``DATA``, ``FETCH`` and ``TIME`` begin at once and
without an answer (uni-station mode).

A packet is ``SL``, six hexadecimal digits, and a record of 512 bytes. The number is that which the
record carries, so every archived record can be asked for by its number, also after a restart; it
turns over after 1,000,000, and numbers of the last half turn are known. An answer to ``INFO`` is
XML in records of text after ``SLINFO *``, the last after ``SLINFO`` and two spaces.
"""

import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from fnmatch import fnmatchcase

from gateway import __version__
from gateway.events import NS, parse_iso
from gateway.uplink.mseed import RECORD_BYTES, SEQUENCES, record_sequence

MAX_LINE = 256
MAX_STATIONS = 64
MAX_SELECTORS = 64
MAX_ERRORS = 32
LEVELS = ("ID", "CAPABILITIES", "STATIONS", "STREAMS", "GAPS", "CONNECTIONS", "ALL")
PRIVATE_LEVELS = frozenset({"CONNECTIONS", "ALL"})
CAPABILITIES = (
    "dialup", "multistation", "window-extraction", "batch",
    *(f"info:{level.lower()}" for level in LEVELS),
)  # fmt: skip
NOBODY = "early-warning station"
HELLO = f"SeedLink v3.1 (gateway {__version__})"
_INFO_HEAD = struct.Struct(">6s2s5s2s3s2sHHBBBxHHhhBBBBiHHHHBBBx")


class How(Enum):
    """From where a station's records are wanted."""

    live = auto()
    number = auto()
    time = auto()


@dataclass(slots=True)
class Wanted:
    """What a client wants of a station, or of all."""

    network: str = "*"
    station: str = "*"
    selectors: list[str] = field(default_factory=list)
    how: How = How.live
    number: int = 0
    begin_ns: int | None = None
    end_ns: int | None = None
    ends: bool = False
    """FETCH, or TIME with an end: it is over when all has been sent."""

    def takes(self, channel: str) -> bool:
        """Whether a NET.STA.LOC.CHA is meant."""
        network, station, location, code = channel.split(".")
        if not (fnmatchcase(network, self.network) and fnmatchcase(station, self.station)):
            return False
        name = f"{location or '--'}{code}"
        chosen = [x for x in self.selectors if not x.startswith("!")]
        if any(fnmatchcase(name, x[1:]) for x in self.selectors if x.startswith("!")):
            return False
        return not chosen or any(fnmatchcase(name, x) for x in chosen)


def selector(text: str) -> str:
    """A selector as a pattern of location (``--`` for none) and channel, ``!`` kept.

    Raises:
        ValueError: it is none, or of a type that there are no records of.
    """
    excluding = "!" if text.startswith("!") else ""
    name, _, kind = text.removeprefix("!").partition(".")
    if len(name) == 1 and not kind and name in "DECTLO":
        name, kind = "", name
    if kind and kind not in ("D", "?"):
        if kind in "ECTLO":
            return "!*" if excluding else "none"  # there are records of data only
        raise ValueError(text)
    match len(name):
        case 0:
            pattern = "*"
        case 3:
            pattern = "??" + name
        case 5:
            pattern = name.replace(" ", "-")
        case _:
            raise ValueError(text)
    if not all(x.isalnum() or x in "?-*" for x in pattern):
        raise ValueError(text)
    return excluding + pattern


def moment(text: str) -> int:
    """Nanoseconds of a time as ``2026,11,26,01,00,00``.

    Raises:
        ValueError: it is none.
    """
    parts = text.split(",")
    if len(parts) != 6:
        raise ValueError(text)
    numbers = [int(x) for x in parts[:5]]
    second = float(parts[5])
    if not 1970 <= numbers[0] < 2200 or not 0 <= second < 61:
        raise ValueError(text)
    date = f"{numbers[0]:04d}-{numbers[1]:02d}-{numbers[2]:02d}"
    clock = f"{numbers[3]:02d}:{numbers[4]:02d}:00"
    return parse_iso(f"{date}T{clock}Z") + round(second * NS)


class Step(Enum):
    """What a command leads to, its answer apart."""

    none = auto()
    start = auto()
    info = auto()
    bye = auto()


class Session:
    """The commands of one client: bytes in, answers out; no I/O.

    ``cat`` gives the lines of CAT. :attr:`wanted` is what it asked for so far.
    """

    def __init__(self, organisation: str) -> None:
        self._organisation = organisation
        self._received = bytearray()
        self._batch = False
        self._several = False
        self.wanted: list[Wanted] = []
        self.streaming = False
        self.level = ""
        """Of the INFO that was asked for last."""
        self.errors = 0

    def feed(self, data: bytes, stations: Iterable[str]) -> list[tuple[bytes, Step]]:
        """Take what came: for each command the answer and what follows.

        Raises:
            ValueError: a line that is too long, or too much that is no command.
        """
        self._received += data.replace(b"\n", b"\r")
        *lines, rest = bytes(self._received).split(b"\r")
        if len(rest) > MAX_LINE:
            raise ValueError(f"a line of more than {MAX_LINE} bytes")
        self._received = bytearray(rest)
        found = []
        for line in lines:
            if not line.strip():
                continue
            if len(line) > MAX_LINE:
                raise ValueError(f"a line of more than {MAX_LINE} bytes")
            found.append(self._obey(line, stations))
            if self.errors > MAX_ERRORS:
                raise ValueError(f"more than {MAX_ERRORS} lines that are no commands")
        return found

    def _obey(self, line: bytes, stations: Iterable[str]) -> tuple[bytes, Step]:
        try:
            name, *arguments = line.decode("ascii").split()
            return self._command(name.upper(), arguments, stations)
        except (ValueError, UnicodeDecodeError):
            self.errors += 1
            return self._answer(b"ERROR\r\n"), Step.none

    def _command(
        self, name: str, arguments: list[str], stations: Iterable[str]
    ) -> tuple[bytes, Step]:
        if name == "INFO":
            self.level = (arguments or ["ID"])[0].upper()
            return b"", Step.info
        if name == "BYE":
            return b"", Step.bye
        if self.streaming:
            raise ValueError("only INFO and BYE while records are sent")
        if name in ("HELLO", "CAT"):
            return self._told(name, stations), Step.none
        if name == "BATCH":
            self._batch = True
            return b"OK\r\n", Step.none
        if name in ("DATA", "FETCH", "TIME"):
            self._place(name, arguments)
        if (name in ("DATA", "FETCH", "TIME") and not self._several) or (
            name == "END" and self._several
        ):
            self.streaming = True
            return b"", Step.start
        if name in ("STATION", "SELECT"):
            self._choose(name, arguments)
        elif name not in ("DATA", "FETCH", "TIME"):
            raise ValueError(name)
        return self._answer(b"OK\r\n"), Step.none

    def _told(self, name: str, stations: Iterable[str]) -> bytes:
        if name == "CAT":
            return ("".join(f"{x}\r\n" for x in stations) + "END").encode()
        return f"{HELLO}\r\n{self._organisation or NOBODY}\r\n".encode()

    def _choose(self, name: str, arguments: list[str]) -> None:
        if name == "STATION":
            if not 1 <= len(arguments) <= 2 or len(self.wanted) >= MAX_STATIONS:
                raise ValueError(name)
            station, network = (*(x.upper() for x in arguments), "*")[:2]
            self._several = True
            self.wanted.append(Wanted(_pattern(network, 2), _pattern(station, 5)))
            return
        current = self._current()
        if not arguments:
            current.selectors.clear()
        if len(current.selectors) + len(arguments) > MAX_SELECTORS:
            raise ValueError(name)
        current.selectors += [selector(x.upper()) for x in arguments]

    def _answer(self, answer: bytes) -> bytes:
        return b"" if self._batch else answer

    def _current(self) -> Wanted:
        if not self.wanted:
            self.wanted.append(Wanted())
        return self.wanted[-1]

    def _place(self, name: str, arguments: list[str]) -> None:
        current = self._current()
        if name == "TIME":
            if not 1 <= len(arguments) <= 2:
                raise ValueError(name)
            current.how = How.time
            current.begin_ns = moment(arguments[0])
            current.end_ns = moment(arguments[1]) if len(arguments) > 1 else None
            current.ends = current.end_ns is not None
            return
        current.ends = name == "FETCH"
        if not arguments:
            return
        current.how = How.number
        current.number = int(arguments[0], 16)
        current.begin_ns = moment(arguments[1]) if len(arguments) > 1 else None


def _pattern(text: str, most: int) -> str:
    if not 0 < len(text) <= most or not all(x.isalnum() or x in "?*" for x in text):
        raise ValueError(text)
    return text


def packet(record: bytes) -> bytes:
    """A record as it goes to clients."""
    return b"SL%06X" % record_sequence(record) + record


def info_packets(xml: str, *, error: bool = False) -> bytes:
    """Text in records of text, as answers to INFO are."""
    text = xml.encode("ascii", "xmlcharrefreplace")
    size = RECORD_BYTES - 56
    parts = [text[x : x + size] for x in range(0, len(text), size)] or [b""]
    out = bytearray()
    now = time.gmtime()
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        head = _INFO_HEAD.pack(
            b"%06d" % (number % SEQUENCES), b"D ", b"INFO ", b"  ", b"ERR" if error else b"INF",
            b"SL", now.tm_year, now.tm_yday, now.tm_hour, now.tm_min, now.tm_sec, 0,
            len(part), 0, 0, 0, 0, 0, 1, 0, 56, 48, 1000, 0, 0, 1, 9,
        )  # fmt: skip
        out += (b"SLINFO  " if last else b"SLINFO *") + head + part.ljust(size, b"\0")
    return bytes(out)
