"""Nova SDS011 particle sensor.

Facts are from Nova's "Laser Dust Sensor Control Protocol V1.3" (2015) as listed in public, and from
a public driver. 5 V, serial 3.3 V levels, 9600 8N1. Each second, or at the end of each measurement
where a period is set, it says 10 bytes:

======  =====  ==============================================================================
offset  type   meaning
======  =====  ==============================================================================
0       2 B    ``AA C0``; ``AA C5`` answers a command
2       u16    PM2.5 in 0.1 µg/m³, low byte first (of an answer: command, 0 asked or 1 set)
4       u16    PM10 likewise (of an answer: value, 0)
6       u16    the sensor's own number
8       u8     sum of bytes 2 to 7
9       1 B    ``AB``
======  =====  ==============================================================================

Commands are 19 bytes: ``AA B4``, 15 bytes of data the last two of which are ``FF FF`` for any
sensor, their sum, ``AB``. Data begin with the command: 2 report mode (1 set, 0 by itself), 6 (1
set, 1 work), 8 period (1 set, minutes; 0 is each second). These three are sent at opening and
again every 3 s until each was answered alike; a sensor in period mode sleeps in between and
answers nothing then. It keeps them without power.

These sensors are no reference instruments: they count light flashes, and humid air reads high.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

from gateway.drivers import Source
from gateway.drivers.interval import Interval, mean
from gateway.drivers.options import read_options, within
from gateway.drivers.settings import Exchange, Setting
from gateway.drivers.streaming import Item, StreamingGauge, StreamingSimulator
from gateway.events import MICRO, NS, Diagnostic, Reading

REPORT: Final = b"\xaa\xc0"
ANSWER: Final = b"\xaa\xc5"
COMMAND: Final = b"\xaa\xb4"
END: Final = 0xAB
SIZE: Final = 10
COMMAND_SIZE: Final = 19

MODE, WORK, PERIOD = 2, 6, 8
NAMES: Final = {MODE: "report_mode", WORK: "work", PERIOD: "period_min"}
REPEAT_NS: Final = 3 * NS
REPEATS: Final = 5
"""So often settings are sent when nothing answers; then only after each reading that comes."""


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile.

    ``period_min`` minutes from measurement to measurement, 0 to 30; 0 is each second. The laser
    lasts some 8000 hours, a year: with 5 minutes it works 30 s in each, and lasts ten.
    ``interval_s`` seconds, 1 to 3600, of which each reading is the mean.
    """

    period_min: int = 0
    interval_s: float = 60.0

    def __post_init__(self) -> None:
        within("period_min", self.period_min, 0, 30, "min")
        within("interval_s", self.interval_s, 1, 3600, "s")

    def settings(self) -> dict[int, int]:
        """Value by command."""
        return {WORK: 1, MODE: 0, PERIOD: self.period_min}


class NovaSds011(StreamingGauge):
    """Driver of the sensor: ``pm25_ugm3`` each interval, or each period."""

    BEGIN: ClassVar[bytes] = REPORT[:1]

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        super().__init__(sensor)
        self.options = read_options(Options, options)
        self.spacing_s = max(self.options.interval_s, 60.0 * self.options.period_min)
        self._interval = Interval(self.options.interval_s, mean)
        self._unproven: dict[int, int] = {}
        self._sent = 0
        self._deadline: int | None = None
        self._to_send = b""

    def opened(self, t: int) -> None:
        """The port was opened: settings are due."""
        super().opened(t)
        self._interval.clear()
        self._unproven = self.options.settings()
        self._sent = 0
        self._deadline = t
        self._to_send = b""

    @staticmethod
    def match(data: bytes, at: int) -> int:
        frame = data[at : at + SIZE]
        if frame[:2] not in (REPORT, ANSWER):
            return 0 if len(frame) == 1 and frame == REPORT[:1] else -1
        if len(frame) < SIZE:
            return 0
        return SIZE if frame[9] == END and sum(frame[2:8]) & 0xFF == frame[8] else -1

    def _frame(self, frame: bytes, t: int) -> Iterator[Reading | Diagnostic]:
        if frame[:2] == ANSWER:
            yield from self._answer(frame)
            return
        if self._unproven and self._deadline is None:
            self._deadline = t  # it is awake now
        micro = int.from_bytes(frame[2:4], "little") * MICRO // 10
        if self.options.period_min:
            yield Reading(self.sensor, t, "pm25_ugm3", micro)
            return
        for value in self._interval.add(micro, t):
            yield Reading(self.sensor, t, "pm25_ugm3", value)

    def _answer(self, frame: bytes) -> Iterator[Diagnostic]:
        command, _, value = frame[2:5]
        wanted = self._unproven.get(command)
        if wanted is None:
            return
        if wanted == value:
            del self._unproven[command]
            if not self._unproven:
                self._deadline = None
        else:
            detail = f"command {command}: {wanted} was sent, the sensor has {value}"
            yield Diagnostic("mismatch", 1, detail)

    def settings(self) -> list[Setting]:
        """At work, by itself, each period; all three can be asked for."""
        return [
            Setting(
                NAMES[number],
                str(value),
                Exchange(command(number, value), partial(stated, number)),
                Exchange(command(number, None), partial(stated, number)),
            )
            for number, value in self.options.settings().items()
        ]

    def tick(self, t: int) -> list[Item]:
        """Send what was not answered."""
        if self._deadline is None or t < self._deadline:
            return []
        self._sent += 1
        self._deadline = t + REPEAT_NS if self._sent % REPEATS else None
        self._to_send = b"".join(command(*item) for item in self._unproven.items())
        if self._sent == 1:
            return []
        what = ", ".join(str(number) for number in self._unproven)
        return [Diagnostic("no_answer", 1, f"no answer to command {what}")]

    def next_deadline(self) -> int | None:
        """When settings are due again."""
        return self._deadline

    def to_send(self) -> bytes:
        """Commands that are due."""
        due, self._to_send = self._to_send, b""
        return due


def command(number: int, value: int | None) -> bytes:
    """The frame that sets ``value``; None asks for the one that holds."""
    data = bytes((number, value is not None, value or 0)) + bytes(10) + b"\xff\xff"
    return COMMAND + data + bytes((sum(data) & 0xFF, END))


def stated(number: int, heard: bytes) -> str | None:
    """The value of a setting in the last answer that states it."""
    value = None
    for at in range(len(heard) - SIZE + 1):
        if NovaSds011.match(heard, at) == SIZE and heard[at : at + 3] == ANSWER + bytes((number,)):
            value = str(heard[at + 4])
    return value


def frame(head: bytes, data: bytes) -> bytes:
    """What the sensor says: head, six bytes, sum, end."""
    return head + data + bytes((sum(data) & 0xFF, END))


class NovaSds011Simulator(StreamingSimulator):
    """The sensor: as it was left (by itself, each second, at work), then as it is told."""

    NUMBER: ClassVar[bytes] = b"\xa1\x60"

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        read_options(Options, options)
        super().__init__(source, NS)
        self._received = b""
        self.settings = {MODE: 0, WORK: 1, PERIOD: 0}

    def powered(self, t: int) -> None:
        """Settings are kept."""
        super().powered(t)
        self._received = b""

    def feed(self, data: bytes, t: int) -> None:
        """Carry out commands; anything else is dropped."""
        del t
        received = (self._received + data)[-256:]
        while (at := received.find(COMMAND)) >= 0 and len(received) - at >= COMMAND_SIZE:
            whole = received[at : at + COMMAND_SIZE]
            if sum(whole[2:17]) & 0xFF == whole[17] and whole[18] == END:
                received = received[at + COMMAND_SIZE :]
                self._obey(whole[2], whole[3], whole[4])
            else:
                received = received[at + 2 :]
        self._received = received

    def _obey(self, number: int, setting: int, value: int) -> None:
        if number not in self.settings or not (self.settings[WORK] or number == WORK):
            return
        if setting:
            self.settings[number] = value
        if number == PERIOD:
            self._interval_ns = max(1, 60 * self.settings[PERIOD]) * NS
        data = bytes((number, setting, self.settings[number], 0)) + self.NUMBER
        self._out += frame(ANSWER, data)

    def _said(self, t: int) -> bytes:
        if not self.settings[WORK] or self.settings[MODE]:
            return b""
        micro = self._source.micro("pm25_ugm3", t)
        if micro is None:
            return b""
        tenths = min(max(micro * 10 // MICRO, 0), 9999)
        pm10 = min(tenths * 3 // 2, 19_999)
        data = tenths.to_bytes(2, "little") + pm10.to_bytes(2, "little")
        return frame(REPORT, data + self.NUMBER)


NovaSds011.simulator = NovaSds011Simulator
