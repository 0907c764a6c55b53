"""PSN-ADC-SERIAL and -USB boards V2 and V3 of Webtronics: up to eight 16-bit channels, GPS.

The board of the amateur Public Seismic Network. Facts are from the maker's own host library (the
``PSNADBoard`` sources that WinSDR and Earthworm's PsnAdSend are built on) and from the firmware of
its sister SDR24. 8N1 at 9600 to 57600 as jumpered; DTR is the board's reset and stays low, so does
RTS. Everything is little-endian.

Board to host:

======  =====  ==============================================================================
offset  type   meaning
======  =====  ==============================================================================
0       4 B    ``AA 55 88 44``
4       i16    length of the payload and the check byte
6       char   type: ``C`` asks for its configuration, ``D`` data, ``S`` status, ``a`` done,
               ``L`` log text, ``g`` what the GPS says, ``w`` time information
7       u8     board: ``80`` V2, ``81`` V3
8       …      payload
last    u8     exclusive or of everything from offset 4 on
======  =====  ==============================================================================

Payload of ``D``, ten a second: the header below, then rate/10 scans of i16, channel by channel.

======  =====  ==============================================================================
offset  type   meaning
======  =====  ==============================================================================
0       u32    packet number, one more each time
4       u32    board's time of the first scan, ms of its day
8       u32    board's time of the latest GPS pulse
12      u32    UTC second of the day of that pulse, once the GPS has said it
16      u8     loop error
17      char   quality of the fix as in NMEA GGA: ``0`` none, ``1`` GPS, ``2`` differential …
18      u8     satellites
19      3×u8   month, day, year − 2000
======  =====  ==============================================================================

Host to board: ``02``, command letter, its data, exclusive or of letter and data, ``03``. ``C``
carries 14 bytes: u16 flags, u16 rate, u32 board time in ms of the day, u32 zero, u8 channels, u8
time reference. ``S`` asks for the status, which reads back channels (offset 3) and rate (4, i16).

With its watchdog on, the board restarts when the host has been silent for long, so ``S`` is sent
every 10 s; the letter that the maker's library uses for this restarts a V2. The board's clock is
never set from here: the pulse and the second that belongs to it give UTC without that.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from gateway.drivers import Simulator, Source
from gateway.drivers.options import one_of, read_options
from gateway.events import NS, Diagnostic, Reading, Scans

if TYPE_CHECKING:
    from numpy.typing import NDArray

SYNC = b"\xaa\x55\x88\x44"
MAY_BEGIN = re.compile(rb"\xaa\x55\x88\x44|\xaa(\x55(\x88)?)?\Z")
"""Where, after damage, the next packet could begin."""

HEADER = struct.Struct("<4shcB")
DATA_HEADER = struct.Struct("<4I6B")
CONFIGURATION = struct.Struct("<cHHIIBB")
STATUS = struct.Struct("<4Bh")
ADJUSTMENT = struct.Struct("<IB")

PACKETS_HZ = 10
PACKET_NS = NS // PACKETS_HZ
DAY_MS = 86_400_000
MS = 1_000_000

RATES_HZ = (10, 20, 50, 100, 200, 250, 500)
TIME_REFERENCES = (
    *("garmin", "motorola_nmea", "motorola_binary", "pc", "wwv"),
    *("wwvb", "skg", "oem_4800", "oem_9600"),
)
"""In the order of their codes; ``pc`` is a board without a receiver."""

COMMAND_DATA = {b"C": 14, b"T": 5, b"D": 5, b"d": 5, b"j": 5}
"""Bytes after the letter of a command; the others have none."""

FALLING_PULSE, LED_OFF, WATCHDOG = 1, 2, 4

BOARDS = {"V2": 0x80, "V3": 0x81}
TEXT_BYTES = 512
"""Longest log or GPS text that is waited for; a damaged length must not hold data back."""
LENGTHS = {b"C": (1, 64), b"S": (7, 16), b"L": (1, TEXT_BYTES), b"g": (1, TEXT_BYTES)}
LENGTHS |= {b"w": (1, 64), b"a": (1, 16)}

SILENCE_NS = 3 * NS
STATUS_NS = 10 * NS
CONFIGURATION_NS = 2 * NS
"""A board that has been configured may ask a few times more; those are not answered."""
SLACK_PACKETS = 20
"""How far a jump of the packet number may be from the time that has passed: 2 s of latency."""
HOST_SILENCE_NS = 90 * NS
"""After this long without a word from the host a board with its watchdog on restarts (SDR24)."""
PULSE_AGE_NS = 3600 * NS
SATELLITES = 3


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile.

    ``rate_hz`` scans a second; 250 and 500 on V3 only. ``channels`` 1 to 8, 4 at most at 500 Hz.
    ``time_reference`` the receiver on the board. ``falling_pulse``: its second begins at the
    falling edge. ``led``: the board's lamp blinks with the pulse. ``watchdog``: the board restarts
    when this host falls silent.
    """

    rate_hz: int = 100
    channels: int = 3
    time_reference: str = "pc"
    falling_pulse: bool = False
    led: bool = True
    watchdog: bool = True

    def __post_init__(self) -> None:
        one_of("rate_hz", self.rate_hz, RATES_HZ)
        one_of("channels", self.channels, range(1, 9) if self.rate_hz < 500 else range(1, 5))
        one_of("time_reference", self.time_reference, TIME_REFERENCES)

    def command(self, board_time_ms: int = 0) -> bytes:
        """The configuration command; ``board_time_ms`` of the day is where its clock starts."""
        flags = FALLING_PULSE * self.falling_pulse + LED_OFF * (not self.led)
        flags += WATCHDOG * self.watchdog
        reference = TIME_REFERENCES.index(self.time_reference)
        values = (flags, self.rate_hz, board_time_ms, 0, self.channels, reference)
        return command(CONFIGURATION.pack(b"C", *values))


def exclusive_or(data: bytes) -> int:
    """The check byte of both directions."""
    return int(np.bitwise_xor.reduce(np.frombuffer(data, np.uint8)))


def command(letter_and_data: bytes) -> bytes:
    """A command to the board."""
    return b"\x02" + letter_and_data + bytes((exclusive_or(letter_and_data), 3))


def packet(kind: bytes, payload: bytes, board: int = BOARDS["V2"]) -> bytes:
    """A packet from the board."""
    body = HEADER.pack(SYNC, len(payload) + 1, kind, board) + payload
    return body + bytes((exclusive_or(body[4:]),))


class DataHeader(NamedTuple):
    """The header of a ``D`` payload, field by field."""

    number: int
    board_ms: int
    pulse_ms: int
    pulse_utc_s: int
    loop_error: int
    fix: int
    satellites: int
    month: int
    day: int
    year: int

    def locked(self) -> bool:
        """Whether the receiver has a position fix from enough satellites."""
        return self.fix in b"12345\x02" and self.satellites >= SATELLITES

    def pulse_utc_ns(self) -> int | None:
        """UTC of the pulse; None where date or second are none."""
        try:
            day = datetime(2000 + self.year, self.month, self.day, tzinfo=UTC)
        except ValueError:
            return None
        if self.pulse_utc_s >= DAY_MS // 1000:
            return None
        return (int(day.timestamp()) + self.pulse_utc_s) * NS


class _Pulse(NamedTuple):
    """A GPS second: the board's time of it and its UTC."""

    board_ms: int
    utc_ns: int

    def utc_of(self, board_ms: int) -> int | None:
        since_ns = (board_ms - self.board_ms) % DAY_MS * MS
        return self.utc_ns + since_ns if since_ns < PULSE_AGE_NS else None


class PsnAdc:
    """Driver of the board. See :class:`gateway.drivers.Driver`."""

    kind: ClassVar[str] = "seismic"
    simulator: ClassVar[type[Simulator]]

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        self.sensor = sensor
        self.options = read_options(Options, options)
        self.rate_hz = float(self.options.rate_hz)
        self.channels = self.options.channels
        self._scans = self.options.rate_hz // PACKETS_HZ
        self._data_length = DATA_HEADER.size + 2 * self._scans * self.channels + 1
        self._rest = b""
        self._stray = 0
        self._index = 0
        self._previous: DataHeader | None = None
        self._last_data: int | None = None
        self._pulse: _Pulse | None = None
        self._run: list[NDArray[np.int32]] = []
        self._run_utc: int | None = None
        self._to_send = b""
        self._configured: int | None = None
        self._status_due = 0
        self._deadline: int | None = None

    def opened(self, t: int) -> None:
        """The port was opened and the board perhaps reset: it will ask for its configuration."""
        self._rest = b""
        self._stray = 0
        self._previous = None
        self._last_data = None
        self._pulse = None
        self._to_send = b""
        self._configured = None
        self._deadline = t + SILENCE_NS

    def feed(self, data: bytes, t: int) -> list[Scans | Reading | Diagnostic]:
        """Scans of all whole data packets, one item for each unbroken run; what else was said."""
        data = self._rest + data
        found: list[Scans | Reading | Diagnostic] = []
        at = 0
        while (size := self._size(data, at)) is not None:
            if size and not exclusive_or(data[at + 4 : at + size]):
                if self._stray:
                    found += self._flush(t)
                    found += self._garbage()
                for item in self._packet(data[at : at + size], t):
                    found += self._flush(t)
                    found.append(item)
                at += size
            else:
                beginning = MAY_BEGIN.search(data, at + 1)
                following = beginning.start() if beginning else len(data)
                self._stray += following - at
                at = following
        self._rest = data[at:]
        found += self._flush(t)
        if self._previous is None:
            found += self._garbage()
        return found

    def _size(self, data: bytes, at: int) -> int | None:
        """Bytes of the packet at ``at``; 0 if none begins there, None if its end is to come."""
        left = len(data) - at
        if left < HEADER.size:
            return None if SYNC.startswith(data[at : at + len(SYNC)]) else 0
        sync, length, kind, board = HEADER.unpack_from(data, at)
        if sync != SYNC or board not in BOARDS.values() or not self._plausible(kind, length):
            return 0
        size = HEADER.size + int(length)
        return size if left >= size else None

    def _plausible(self, kind: bytes, length: int) -> bool:
        if kind != b"D":
            low, high = LENGTHS.get(kind, (1, 0))
            return low <= length <= high
        if length == self._data_length:
            return True
        odd = DATA_HEADER.size + 3 <= length <= DATA_HEADER.size + 2 * 8 * 50 + 1
        return odd and self._previous is None

    def _packet(self, frame: bytes, t: int) -> Iterator[Diagnostic]:
        """Take one undamaged packet; its scans join the run, the rest is said."""
        kind = frame[6:7]
        if kind == b"D":
            yield from self._data(frame, t)
        elif kind == b"C":
            yield from self._asked(t)
        elif kind == b"S":
            yield from self._status(frame)
        elif kind == b"L":
            text = frame[HEADER.size : -1].rstrip(b"\0").decode("ascii", "replace")
            yield Diagnostic("device_log", 1, text)

    def _data(self, frame: bytes, t: int) -> Iterator[Diagnostic]:
        if len(frame) != HEADER.size + self._data_length:
            yield Diagnostic(
                "mismatch",
                1,
                f"board sends {len(frame)} bytes a packet where {self.channels} channels at "
                f"{self.options.rate_hz} Hz make {HEADER.size + self._data_length}",
            )
            return
        header = DataHeader(*DATA_HEADER.unpack_from(frame, HEADER.size))
        yield from self._sequence(header, t)
        counts = np.frombuffer(frame[HEADER.size + DATA_HEADER.size : -1], "<i2")
        utc_ns = self._utc(header)
        if not self._run:
            self._run_utc = utc_ns
        self._run.append(counts.reshape(self._scans, self.channels).T.astype(np.int32))
        self._previous = header
        if self._last_data is None:
            self._ask_status(t)
        self._last_data = t

    def _sequence(self, header: DataHeader, t: int) -> Iterator[Diagnostic]:
        """Account for packets that are missing between the previous one and this."""
        if self._previous is None or self._last_data is None:
            return
        missing = header.number - self._previous.number - 1
        elapsed = (t - self._last_data) // PACKET_NS
        if missing < 0:
            self._pulse = None
            yield Diagnostic("reboot", 1, "packet numbers began again")
        elif missing > elapsed + SLACK_PACKETS:
            yield Diagnostic("sequence", 1, f"{missing} packets missing by number, not by time")
        elif missing:
            yield Diagnostic("lost", missing * self._scans, "scans in packets that did not arrive")
            self._index += missing * self._scans

    def _utc(self, header: DataHeader) -> int | None:
        """UTC of the packet's first scan, where the receiver is locked.

        The second that belongs to a pulse arrives a little after it, so the pair is taken in the
        packet in which the second has just changed.
        """
        if not header.locked():
            self._pulse = None
            return None
        previous = self._previous
        if previous is not None and previous.pulse_utc_s != header.pulse_utc_s:
            utc_ns = header.pulse_utc_ns()
            fresh = (header.board_ms - header.pulse_ms) % DAY_MS < 1000
            self._pulse = _Pulse(header.pulse_ms, utc_ns) if utc_ns and fresh else None
        return self._pulse.utc_of(header.board_ms) if self._pulse else None

    def _ask_status(self, t: int) -> None:
        self._to_send += command(b"S")
        self._status_due = t + STATUS_NS

    def _asked(self, t: int) -> Iterator[Diagnostic]:
        if self._configured is not None and t - self._configured < CONFIGURATION_NS:
            return
        if self._last_data is not None:
            yield Diagnostic("reboot", 1, "board asks for its configuration again")
        self._configure(t)

    def _configure(self, t: int) -> None:
        self._to_send += self.options.command()
        self._configured = t
        self._previous = None
        self._last_data = None
        self._pulse = None
        self._deadline = t + SILENCE_NS

    def _status(self, frame: bytes) -> Iterator[Diagnostic]:
        _, _, _, channels, rate_hz = STATUS.unpack_from(frame, HEADER.size)
        if (channels, rate_hz) != (self.channels, self.options.rate_hz):
            yield Diagnostic(
                "mismatch",
                1,
                f"board says {channels} channels at {rate_hz} Hz, configured are "
                f"{self.channels} at {self.options.rate_hz} Hz",
            )

    def _flush(self, t: int) -> Iterator[Scans]:
        """The run of scans that has gathered, as one item."""
        if not self._run:
            return
        samples = self._run[0] if len(self._run) == 1 else np.concatenate(self._run, axis=1)
        counts = np.ascontiguousarray(samples)
        yield Scans(t, self._index, self.rate_hz, counts, self._run_utc)
        self._index += counts.shape[1]
        self._run = []

    def _garbage(self) -> Iterator[Diagnostic]:
        if self._stray:
            yield Diagnostic("garbage", self._stray)
            self._stray = 0

    def tick(self, t: int) -> list[Scans | Reading | Diagnostic]:
        """Configure a board that is silent; ask a running one for its status now and then."""
        if self._deadline is None or t < self._deadline:
            return []
        if self._last_data is not None and t - self._last_data < SILENCE_NS:
            if t >= self._status_due:
                self._ask_status(t)
            self._deadline = min(self._last_data + SILENCE_NS, self._status_due)
            return []
        self._stray += len(self._rest)
        self._rest = b""
        self._configure(t)
        return [
            *self._garbage(),
            Diagnostic("no_answer", 1, "no data for 3 s; configuration sent"),
        ]

    def next_deadline(self) -> int | None:
        """When silence is to be acted upon or the status is due."""
        return self._deadline

    def to_send(self) -> bytes:
        """Commands that are due."""
        due, self._to_send = self._to_send, b""
        return due


class PsnAdcSimulator:
    """The board: asks for its configuration once a second, then sends ten packets a second.

    Put :attr:`utc_at_power_ns` to give its receiver a fix. The source plays from the first
    configuration on and goes on with the board's time. How often a real board asks is not
    documented; what a real GPS says (command ``P``) is not simulated.
    """

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        self.utc_at_power_ns: int | None = None
        self._source = source
        self._board = BOARDS["V3" if read_options(Options, options).rate_hz > 200 else "V2"]
        self._received = b""
        self._to_send = bytearray()
        self._powered = 0
        self._play_began: int | None = None
        self._next: int | None = None
        self._heard = 0
        self._configuration: tuple[int, int, int] | None = None
        self._board_ahead_ms = 0
        self._number = 0

    def powered(self, t: int) -> None:
        """Power-up or reset: the board knows nothing and asks."""
        self._powered = t
        self._received = b""
        self._to_send.clear()
        self._restart(t)

    def _restart(self, t: int) -> None:
        self._configuration = None
        self._number = 0
        self._next = t

    def feed(self, data: bytes, t: int) -> None:
        """Carry out whole commands; a damaged one is skipped."""
        received = (self._received + data)[-256:]
        while (at := received.find(b"\x02")) >= 0:
            received = received[at:]
            size = 4 + COMMAND_DATA.get(received[1:2], 0)
            if len(received) < size:
                break
            body = received[1 : size - 1]
            if received[size - 1] == 3 and not exclusive_or(body):
                self._heard = t
                self._obey(body[:1], body[1:-1], t)
                received = received[size:]
            else:
                received = received[1:]
        else:
            received = b""
        self._received = received

    def _obey(self, letter: bytes, data: bytes, t: int) -> None:
        if letter == b"C":
            flags, rate_hz, board_ms, _, channels, _ = CONFIGURATION.unpack(letter + data)[1:]
            self._board_ahead_ms = board_ms - t // MS
            self._configuration = (flags, rate_hz, channels)
            self._play_began = t if self._play_began is None else self._play_began
            self._next = t + PACKET_NS
        elif letter == b"S":
            _, rate_hz, channels = self._configuration or (0, 0, 0)
            version = 3 if self._board == BOARDS["V3"] else 2
            self._say(b"S", STATUS.pack(version, 1, 0, channels, rate_hz))
        elif letter in (b"T", b"D"):
            host_ms, _ = ADJUSTMENT.unpack(data)
            difference = self._board_ms(t) - host_ms
            if letter == b"T":
                self._board_ahead_ms -= difference
            else:
                self._say(b"w", struct.pack("<iH", difference, 0))
        elif letter in (b"a", b"s", b"d", b"j"):
            self._board_ahead_ms += {b"a": 1, b"s": -1}.get(letter, 0)
            self._say(b"a", b"")
        elif letter == b"x" or (letter == b"R" and self._board == BOARDS["V2"]):
            self._restart(t)

    def _say(self, kind: bytes, payload: bytes) -> None:
        self._to_send += packet(kind, payload, self._board)

    def _board_ms(self, t: int) -> int:
        return (t // MS + self._board_ahead_ms) % DAY_MS

    def tick(self, t: int) -> None:
        """Send what is due: a request for configuration, or data."""
        while self._next is not None and self._next <= t:
            if self._configuration is None:
                self._say(b"C", ADJUSTMENT.pack(0, 0))
                self._next += NS
            elif self._configuration[0] & WATCHDOG and t - self._heard >= HOST_SILENCE_NS:
                self._restart(self._next)
            else:
                self._data(self._next, *self._configuration[1:])
                self._next += PACKET_NS

    def _data(self, t: int, rate_hz: int, channels: int) -> None:
        scans = rate_hz // PACKETS_HZ
        began = t - PACKET_NS
        first = round((began - (self._play_began or 0)) * self._source.rate_hz / NS)
        counts = np.clip(self._source.samples(first, scans)[:channels], -0x8000, 0x7FFF)
        self._number += 1
        header = DATA_HEADER.pack(self._number, self._board_ms(began), *self._gps(began))
        self._say(b"D", header + counts.T.astype("<i2").tobytes())

    def _gps(self, t: int) -> tuple[int, ...]:
        """The header from the pulse on; the receiver names a second 300 ms after its pulse."""
        if self.utc_at_power_ns is None:
            return (0, 0, 0, ord("0"), 0, 0, 0, 0)
        utc_ns = self.utc_at_power_ns + t - self._powered
        pulse_ms = self._board_ms(t - utc_ns % NS)
        named_s = (utc_ns - 300 * MS) // NS
        day = datetime.fromtimestamp(named_s, UTC)
        date = (day.month, day.day, day.year - 2000)
        return (pulse_ms, named_s % (DAY_MS // 1000), 0, ord("1"), 8, *date)

    def next_deadline(self) -> int | None:
        """When the next packet is due."""
        return self._next

    def to_send(self) -> bytes:
        """What the board says."""
        said = bytes(self._to_send)
        self._to_send.clear()
        return said


PsnAdc.simulator = PsnAdcSimulator
