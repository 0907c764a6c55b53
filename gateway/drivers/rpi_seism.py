"""The rpi-seism digitiser: an ADS1256 on a microcontroller, three geophone channels over RS-422.

An open design; its firmware and its own host program are public (GitHub organisation rpi-seism,
``reader`` and ``daemon``, 2026). The line is 250000 8N1; everything is little-endian.

Data frame, one a scan, 18 bytes:

======  =====  ==============================================================================
offset  type   meaning
======  =====  ==============================================================================
0       2 B    ``AA BB``
2       3×i32  vertical, north–south, east–west: 24-bit counts, sign-extended
14      u32    CRC-32 (as in zip) of bytes 0 to 13
======  =====  ==============================================================================

Settings frame, host to device, echoed byte for byte; 6 bytes:

======  =====  ==============================================================================
offset  type   meaning
======  =====  ==============================================================================
0       2 B    ``CC DD``
2       u16    scans a second; the firmware's interval is 1 000 000 // rate in µs
4       u8     gain as a code: 0 to 6 for 1 to 64
5       u8     the converter's own data rate as a code: 0 to 15, see ``CONVERTER_RATES``
======  =====  ==============================================================================

After power-up the device is silent until it gets settings. It keeps no count of scans, so how many
are lost is told from the length of what arrived damaged, and otherwise from the time of arrival
(:mod:`gateway.clock`). It also stops for good when the host has not read for half a second; new
settings start it again. Each settings frame restarts the converter, so they are sent at opening,
until the echo proves them, and after 2 s without data, not otherwise.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from gateway.drivers import Simulator, Source
from gateway.drivers.options import one_of, read_options, within
from gateway.drivers.settings import Exchange, Setting
from gateway.events import NS, Diagnostic, Reading, Scans

DATA_SYNC = b"\xaa\xbb"
SETTINGS_SYNC = b"\xcc\xdd"
DATA = struct.Struct("<2s3iI")
SETTINGS = struct.Struct("<2sHBB")
FRAME = DATA.size
COUNTS = np.dtype("<i4")
FRAMES = np.dtype([("sync", "V2"), ("counts", "<i4", 3), ("crc", "<u4")])
CHANNELS = 3
SCAN = CHANNELS, 1

CRC_RESIDUE = 0x2144DF1C
"""CRC-32 of any message followed by its own CRC-32 in little-endian order."""

MAY_BEGIN = re.compile(rb"\xaa\xbb|\xcc\xdd|[\xaa\xcc]\Z", re.DOTALL)
"""Where, after damage, the next frame could begin."""

GAINS = (1, 2, 4, 8, 16, 32, 64)
CONVERTER_RATES = (
    *(2, 5, 10, 15, 25, 30, 50, 60, 100, 500),
    *(1000, 2000, 3750, 7500, 15000, 30000),
)

SILENCE_NS = 2 * NS
"""Settings are sent again after this long without data, as the design's own host does."""
UNPROVEN_NS = 10 * NS
"""Likewise while data flow but no echo has come: each repeat may cost a few scans."""

FULL_SCALE = (1 << 23) - 1
UART_BUFFER = 64
"""Bytes that the simulated device takes between two looks at its receiver."""


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile.

    ``rate_hz`` scans a second, 1 to 366: four conversions with their settling at 2000 a second
    take 2.73 ms. ``gain`` of the converter's amplifier. ``converter_rate_hz`` conversions a second
    of the ADS1256; slower is quieter, but four must fit into one scan.
    """

    rate_hz: int = 100
    gain: int = 64
    converter_rate_hz: int = 2000

    def __post_init__(self) -> None:
        one_of("gain", self.gain, GAINS)
        one_of("converter_rate_hz", self.converter_rate_hz, CONVERTER_RATES)
        within("rate_hz", self.rate_hz, 1, 366, "Hz")
        if self.rate_hz * 4 > self.converter_rate_hz:
            raise ValueError(
                f"rate_hz: saw {self.rate_hz}; allowed is at most a quarter of "
                f"converter_rate_hz ({self.converter_rate_hz})"
            )

    def frame(self) -> bytes:
        """The settings frame."""
        return SETTINGS.pack(
            SETTINGS_SYNC,
            self.rate_hz,
            GAINS.index(self.gain),
            CONVERTER_RATES.index(self.converter_rate_hz),
        )


class RpiSeism:
    """Driver of the digitiser. See :class:`gateway.drivers.Driver`."""

    kind: ClassVar[str] = "seismic"
    simulator: ClassVar[type[Simulator]]
    channels: ClassVar[int] = CHANNELS

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        self.sensor = sensor
        self.options = read_options(Options, options)
        self.rate_hz = float(self.options.rate_hz)
        self._settings = self.options.frame()
        self._rest = b""
        self._index = 0
        self._stray = 0
        self._in_step = False
        self._clean = True
        self._proven = False
        self._to_send = b""
        self._last_data: int | None = None
        self._deadline: int | None = None

    def opened(self, t: int) -> None:
        """The port was opened: settings are due, what was half read is void."""
        self._rest = b""
        self._stray = 0
        self._in_step = False
        self._clean = True
        self._proven = False
        self._last_data = None
        self._send_settings(t)

    def feed(self, data: bytes, t: int) -> list[Scans | Reading | Diagnostic]:
        """Scans of all whole frames, one item for each unbroken run of them."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if (
            len(data) == FRAME
            and data.startswith(DATA_SYNC)
            and crc32(data) == CRC_RESIDUE
            and not self._stray
        ):
            return [self._scans(np.ndarray(SCAN, COUNTS, data, 2), 1, t)]
        return self._search(data, t)

    def _run(self, data: bytes, start: int, frames: int, t: int) -> Scans:
        counts = np.frombuffer(data, FRAMES, frames, start)["counts"].T
        return self._scans(np.ascontiguousarray(counts, np.int32), frames, t)

    def _scans(self, samples: NDArray[np.int32], n: int, t: int) -> Scans:
        scans = Scans(t, self._index, self.rate_hz, samples)
        self._index += n
        self._in_step = self._clean = True
        self._last_data = t
        return scans

    def _search(self, data: bytes, t: int) -> list[Scans | Reading | Diagnostic]:
        found: list[Scans | Reading | Diagnostic] = []
        at = 0
        while at < len(data) and not _is_cut_short(data, at):
            if frames := _whole_frames(data, at):
                found += self._damage()
                found.append(self._run(data, at, frames, t))
                at += frames * FRAME
            elif self._is_echo(echo := data[at : at + SETTINGS.size]):
                found += self._echo(echo)
                at += SETTINGS.size
                self._clean = True
            else:
                self._clean = False
                beginning = MAY_BEGIN.search(data, at + 1)
                following = beginning.start() if beginning else len(data)
                self._stray += following - at
                at = following
        self._rest = data[at:]
        if not self._in_step:
            found += self._damage()
        return found

    def _damage(self) -> Iterator[Diagnostic]:
        """Report stray bytes; between two runs of frames they were scans, which are lost."""
        if not self._stray:
            return
        yield Diagnostic("garbage", self._stray)
        lost = (self._stray + FRAME // 2) // FRAME
        if self._in_step and 0 < lost * NS <= self.options.rate_hz * SILENCE_NS:
            self._index += lost
            yield Diagnostic("lost", lost, "scans that arrived damaged")
        self._stray = 0

    def _is_echo(self, received: bytes) -> bool:
        if received == self._settings:
            return True
        if self._proven or not self._clean or not received.startswith(SETTINGS_SYNC):
            return False
        _, rate_hz, gain, converter = SETTINGS.unpack(received)
        return bool(rate_hz and gain < len(GAINS) and converter < len(CONVERTER_RATES))

    def _echo(self, echo: bytes) -> Iterator[Diagnostic]:
        if echo == self._settings:
            self._proven = True
        else:
            seen, sent = echo.hex(" "), self._settings.hex(" ")
            yield Diagnostic("mismatch", 1, f"settings sent {sent}, device has {seen}")

    def settings(self) -> list[Setting]:
        """All of them go in one frame, whose echo is all that the device says of them."""
        sent = self._settings
        wanted = (
            f"{self.options.rate_hz} Hz, gain {self.options.gain}, "
            f"converter {self.options.converter_rate_hz} Hz"
        )
        push = Exchange(sent, lambda heard: wanted if sent in heard else None)
        return [Setting("rate, gain, converter", wanted, push)]

    def _send_settings(self, t: int) -> None:
        self._to_send = self._settings
        self._deadline = t + SILENCE_NS

    def tick(self, t: int) -> list[Scans | Reading | Diagnostic]:
        """Send the settings again where data or the echo stay away."""
        if self._deadline is None or t < self._deadline:
            return []
        quiet_since = self._last_data
        if quiet_since is not None and t - quiet_since < SILENCE_NS:
            if self._proven:
                self._deadline = quiet_since + SILENCE_NS
                return []
            self._send_settings(t)
            self._deadline = t + UNPROVEN_NS
            return [Diagnostic("no_answer", 1, "no echo of the settings, though data flow")]
        found: list[Scans | Reading | Diagnostic] = []
        self._stray += len(self._rest)
        self._rest = b""
        self._in_step = False
        found += self._damage()
        self._proven = False
        self._send_settings(t)
        found.append(Diagnostic("no_answer", 1, "no data for 2 s; settings sent again"))
        return found

    def next_deadline(self) -> int | None:
        """When silence or a missing echo is to be acted upon."""
        return self._deadline

    def to_send(self) -> bytes:
        """The settings frame when it is due."""
        due, self._to_send = self._to_send, b""
        return due


def _whole_frames(data: bytes, start: int) -> int:
    """How many undamaged data frames follow one another from ``start`` on."""
    at = start
    while (
        data.startswith(DATA_SYNC, at)
        and len(data) - at >= FRAME
        and crc32(data[at : at + FRAME]) == CRC_RESIDUE
    ):
        at += FRAME
    return (at - start) // FRAME


def _is_cut_short(data: bytes, at: int) -> bool:
    """Whether what is left could be the beginning of a frame, the end of which is to come."""
    left = data[at : at + FRAME]
    if left.startswith(SETTINGS_SYNC):
        return len(left) < SETTINGS.size
    return len(left) < FRAME and (
        left.startswith(DATA_SYNC) or left in (DATA_SYNC[:1], SETTINGS_SYNC[:1])
    )


class RpiSeismSimulator:
    """The device: silent after power-up, then one frame each ``1 000 000 // rate`` µs.

    The source plays from the first settings on and goes on with the device's own time, so that
    what a later restart or a cut line misses is missing. Counts saturate at 24 bits.
    """

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        self._source = source
        self._received = b""
        self._to_send = bytearray()
        self._interval_ns = NS // read_options(Options, options).rate_hz
        self._next: int | None = None
        self._play_began: int | None = None

    def powered(self, t: int) -> None:
        """Power-up: whatever settings there were are gone."""
        del t
        self._received = b""
        self._to_send.clear()
        self._next = None

    def feed(self, data: bytes, t: int) -> None:
        """Look for settings frames; anything else is dropped."""
        received = (self._received + data)[-UART_BUFFER:]
        while (at := received.find(SETTINGS_SYNC[0])) >= 0:
            received = received[at:]
            if len(received) < SETTINGS.size:
                break
            sync, rate, gain, converter = SETTINGS.unpack_from(received)
            received = received[SETTINGS.size :]
            if sync == SETTINGS_SYNC:
                self._configured(rate, gain, converter, t)
        else:
            received = b""
        self._received = received

    def _configured(self, rate: int, gain: int, converter: int, t: int) -> None:
        if rate:
            self._interval_ns = 1_000_000 // rate * 1000
        gain = min(gain, len(GAINS) - 1)
        converter = converter if converter < len(CONVERTER_RATES) else 11
        self._to_send += SETTINGS.pack(SETTINGS_SYNC, rate, gain, converter)
        self._play_began = t if self._play_began is None else self._play_began
        self._next = t + self._interval_ns

    def tick(self, t: int) -> None:
        """Send every frame that is due."""
        while self._next is not None and self._next <= t and self._play_began is not None:
            played_ns = self._next - self._play_began - self._interval_ns
            sample = round(played_ns * self._source.rate_hz / NS)
            counts = self._source.samples(sample, 1)[:, 0]
            self._to_send += frame(counts)
            self._next += self._interval_ns

    def next_deadline(self) -> int | None:
        """When the next frame is due; None while the device waits for settings."""
        return self._next

    def to_send(self) -> bytes:
        """What the device says."""
        said = bytes(self._to_send)
        self._to_send.clear()
        return said


def frame(counts: NDArray[np.int32]) -> bytes:
    """The data frame of one scan, shape (3,); counts saturate at 24 bits."""
    held = np.clip(counts, -FULL_SCALE - 1, FULL_SCALE).astype("<i4")
    body = DATA_SYNC + held.tobytes()
    return body + crc32(body).to_bytes(4, "little")


RpiSeism.simulator = RpiSeismSimulator
