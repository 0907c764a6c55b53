"""Plantower PMS5003 and PMS7003 particle sensors, active mode.

Facts are from transcripts of Plantower's sheet and from public drivers that agree. 3.3 V serial,
9600 8N1. In active mode, as after power-up, a frame comes each 0.2 to 0.8 s while the air changes
and each 2.3 s else; 32 bytes, words are big-endian:

======  =====  ==============================================================================
offset  type   meaning
======  =====  ==============================================================================
0       2 B    ``42 4D``
2       u16    28, the bytes that follow
4       3 u16  PM1.0, PM2.5, PM10 in µg/m³ for the factory's particles (``cf1``)
10      3 u16  PM1.0, PM2.5, PM10 in µg/m³ in the atmosphere
16      6 u16  particles in 0.1 l above 0.3, 0.5, 1, 2.5, 5 and 10 µm
28      u8     version
29      u8     error; 0 is none (what the others mean, the sheet does not say)
30      u16    sum of the 30 bytes before
======  =====  ==============================================================================

Commands are 7 bytes, ``42 4D``, command, two bytes of data, sum; in passive mode the sensor speaks
only when asked, asleep not at all, so after 10 s of silence it is woken and told to be active:
``42 4D E4 00 01 01 74``, ``42 4D E1 00 01 01 71``. The first 30 s after power-up or waking are no
measurement yet, so what comes within 30 s of the first frame after a silence is missing.

These sensors are no reference instruments: they count light flashes, and humid air reads high.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from gateway.drivers import Source
from gateway.drivers.interval import Interval, mean
from gateway.drivers.options import one_of, read_options, within
from gateway.drivers.settings import Exchange, Setting
from gateway.drivers.streaming import Item, StreamingGauge, StreamingSimulator
from gateway.events import MICRO, NS, Diagnostic, Reading

HEAD: Final = b"\x42\x4d\x00\x1c"
FRAME: Final = struct.Struct(">2sH12HBBH")
ANSWER: Final = b"\x42\x4d\x00\x04"
ANSWER_SIZE: Final = 8
WAKE: Final = bytes.fromhex("42 4D E4 00 01 01 74")
ACTIVE: Final = bytes.fromhex("42 4D E1 00 01 01 71")
SILENCE_NS: Final = 10 * NS
WARM_UP_NS: Final = 30 * NS
PM25: Final = {"cf1": 3, "atmosphere": 6}
"""Where PM2.5 stands among the fields of :data:`FRAME`."""


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile.

    ``basis`` which of the two concentrations: ``atmosphere`` or ``cf1``. ``interval_s`` seconds,
    1 to 3600, of which each reading is the mean.
    """

    basis: str = "atmosphere"
    interval_s: float = 60.0

    def __post_init__(self) -> None:
        one_of("basis", self.basis, tuple(PM25))
        within("interval_s", self.interval_s, 1, 3600, "s")


class PlantowerPms5003(StreamingGauge):
    """Driver of the sensor: ``pm25_ugm3`` each interval."""

    BEGIN: ClassVar[bytes] = HEAD[:1]

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        super().__init__(sensor)
        self.options = read_options(Options, options)
        self.spacing_s = self.options.interval_s
        self._interval = Interval(self.options.interval_s, mean)
        self._heard: int | None = None
        self._warm = 0
        self._deadline: int | None = None
        self._to_send = b""

    def opened(self, t: int) -> None:
        """The port was opened: listen."""
        super().opened(t)
        self._interval.clear()
        self._heard = None
        self._deadline = t + SILENCE_NS
        self._to_send = b""

    @staticmethod
    def match(data: bytes, at: int) -> int:
        head = data[at : at + 4]
        for begin, size in ((HEAD, FRAME.size), (ANSWER, ANSWER_SIZE)):
            if not begin.startswith(head):
                continue
            if len(data) - at < size:
                return 0
            if checked(data[at : at + size]):
                return size
        return -1

    def _frame(self, frame: bytes, t: int) -> Iterator[Reading | Diagnostic]:
        if len(frame) == ANSWER_SIZE:
            return
        if self._heard is None or t - self._heard >= SILENCE_NS:
            self._warm = t + WARM_UP_NS
        self._heard = t
        self._deadline = t + SILENCE_NS
        fields = FRAME.unpack(frame)
        micro: int | None = fields[PM25[self.options.basis]] * MICRO
        if error := fields[15]:
            yield Diagnostic("invalid", 1, f"the sensor reports error {error:#04x}")
        if error or t < self._warm:
            micro = None
        for value in self._interval.add(micro, t):
            yield Reading(self.sensor, t, "pm25_ugm3", value)

    def settings(self) -> list[Setting]:
        """The mode; the sensor answers when it is set and can't be asked."""
        answer = seal(ANSWER + ACTIVE[2:3] + ACTIVE[4:5])
        push = Exchange(ACTIVE, lambda heard: "active" if answer in heard else None)
        return [Setting("mode", "active", push)]

    def tick(self, t: int) -> list[Item]:
        """Wake a sensor that is silent."""
        if self._deadline is None or t < self._deadline:
            return []
        self._deadline = t + SILENCE_NS
        self._to_send = WAKE + ACTIVE
        return [Diagnostic("no_answer", 1, "no data for 10 s; told to wake and speak")]

    def next_deadline(self) -> int | None:
        """When silence is to be acted upon."""
        return self._deadline

    def to_send(self) -> bytes:
        """Commands when they are due."""
        due, self._to_send = self._to_send, b""
        return due


def checked(frame: bytes) -> bool:
    """Whether the sum is right, of a frame or of a command."""
    return sum(frame[:-2]) & 0xFFFF == int.from_bytes(frame[-2:], "big")


class PlantowerPms5003Simulator(StreamingSimulator):
    """The sensor: a frame each 0.8 s; it obeys the mode, sleep and read commands."""

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        read_options(Options, options)
        super().__init__(source, NS * 8 // 10)
        self._received = b""
        self._awake = self._active = True

    def powered(self, t: int) -> None:
        """Awake and active."""
        super().powered(t)
        self._received = b""
        self._awake = self._active = True

    def feed(self, data: bytes, t: int) -> None:
        """Carry out commands; anything else is dropped."""
        received = (self._received + data)[-64:]
        while (at := received.find(HEAD[:2])) >= 0 and len(received) - at >= len(WAKE):
            command, received = received[at : at + len(WAKE)], received[at + len(WAKE) :]
            if checked(command):
                self._obey(command[2], command[4], t)
        self._received = received

    def _obey(self, command: int, data: int, t: int) -> None:
        if command == 0xE4:
            self._awake = bool(data)
        elif not self._awake:
            return
        elif command == 0xE1:
            self._active = bool(data)
            self._out += seal(ANSWER + bytes((command, data)))
        elif command == 0xE2 and not self._active and self._play_began is not None:
            self._out += self._report(t - self._play_began)

    def _said(self, t: int) -> bytes:
        return self._report(t) if self._awake and self._active else b""

    def _report(self, t: int) -> bytes:
        micro = self._source.micro("pm25_ugm3", t)
        return frame(round((micro or 0) / MICRO), error=0 if micro is not None else 1)


def seal(body: bytes) -> bytes:
    """``body`` with its sum."""
    return body + (sum(body) & 0xFFFF).to_bytes(2, "big")


def frame(pm25: int, *, error: int = 0) -> bytes:
    """The frame of a concentration in µg/m³; the others and the counts are made up from it."""
    held = min(max(pm25, 0), 0xFFFF)
    masses = (held * 2 // 3, held, min(held * 5 // 4, 0xFFFF))
    counts = (min(held * 120, 0xFFFF), min(held * 36, 0xFFFF), held * 4 // 10, held // 10, 1, 0)
    body = FRAME.pack(HEAD[:2], 28, *masses, *masses, *counts, 0x97, error, 0)[:-2]
    return seal(body)


PlantowerPms5003.simulator = PlantowerPms5003Simulator
