"""Hydreon RG-15 optical rain gauge, polled.

Facts are from the maker's instructions (manual 04, software 1.000, 2022-07-18) and from lines that
users have captured from real gauges. 3.3 V serial (not RS-232 levels), 9600 8N1, ASCII; the gauge
ends each line with CR LF and acts on a command at its LF. There is no checksum, so a line counts
only when all of it has the form below.

=========  =====================================================================================
command    answer
=========  =====================================================================================
``R``      ``Acc  0.04 mm, EventAcc  1.63 mm, TotalAcc  6.51 mm, RInt 99.81 mmph``, in imperial
           units ``in`` and ``iph``; ``, LensBad`` and ``, EmSat`` may follow
``P``      ``p``: speaks only when asked from now on
``H L``    ``h l``: high or low resolution
``M I``    ``m i``: metric or imperial
``K``      restarts
=========  =====================================================================================

At power-up it prints a banner of ``;`` lines, ``Reset`` with a letter, ``SW``, ``Emitters`` and at
last ``PwrDays``. That can come at any time; all accumulations are then zero again and the gauge
has forgotten what it was set to.

``Acc`` is consumed by reading it and would be lost with a lost answer, so rain is taken from
``TotalAcc``, a counter that starts again from zero at a restart.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, ClassVar

from gateway.drivers import Simulator, Source
from gateway.drivers.options import one_of, read_options, within
from gateway.drivers.settings import Exchange, Setting
from gateway.events import MICRO, NS, Diagnostic, Reading, Scans, parse_micro

DATA_LINE = re.compile(
    rb"Acc\s+(?P<acc>\d+\.?\d*) (?P<unit>mm|in), EventAcc\s+(?P<event>\d+\.?\d*) (?P=unit), "
    rb"TotalAcc\s+(?P<total>\d+\.?\d*) (?P=unit), "
    rb"RInt\s+(?P<rate>\d+\.?\d*) (?P<rate_unit>mmph|iph)(?P<flags>(?:, *[A-Za-z]+)*)"
)
RESTART_LINE = re.compile(rb"Reset ([NMWOUBD])")
RESTART_CAUSES = {
    b"N": "power-up",
    b"M": "reset pin",
    b"W": "watchdog",
    b"O": "stack overflow",
    b"U": "stack underflow",
    b"B": "brown-out",
    b"D": "other",
}
BANNER_END = b"PwrDays "
KNOWN_LINE = re.compile(
    rb";.*|SW .*|Emitters .*|EmTotal .*|PwrDays .*|Baud \d+|XTBTips: .*|Event|[pchlimsxy]|"
)
FLAGS = {b"LensBad": "lens_bad", b"EmSat": "emitter_saturated", b"TooCold": "too_cold"}

RATE_UNIT = {b"mm": b"mmph", b"in": b"iph"}
LINE_BYTES = 160
"""Twice the longest line that the gauge prints; more without an end is garbage."""
ANSWER_NS = NS
"""The maker states no reply time; users poll with one second."""


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile.

    ``poll_s`` seconds between requests, 2 to 60. The least is twice the time an answer is waited
    for, so that a late one does not meet the next request; the shortest rain window is a minute,
    so 2 s costs no warning time and notices a dead gauge soon. ``unit`` ``mm`` or ``in``: what the
    gauge is set to; answers are read by the unit that they name.
    """

    poll_s: float = 2.0
    unit: str = "mm"

    def __post_init__(self) -> None:
        within("poll_s", self.poll_s, 2, 60, "s")
        one_of("unit", self.unit, ("mm", "in"))

    def commands(self) -> bytes:
        """What sets the gauge: speak when asked, high resolution, unit."""
        return b"P\nH\n" + (b"M\n" if self.unit == "mm" else b"I\n")


class _Request(Enum):
    """The one request that may be under way; only ``sent`` takes an answer."""

    none = auto()
    queued = auto()
    sent = auto()


class HydreonRg15:
    """Driver of the gauge: ``rain_total_mm`` and ``rain_mmph`` each poll."""

    kind: ClassVar[str] = "scalar"
    simulator: ClassVar[type[Simulator]]

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        self.sensor = sensor
        self.options = read_options(Options, options)
        self.spacing_s = self.options.poll_s
        self._poll_ns = round(self.options.poll_s * NS)
        self._line = b""
        self._stray = 0
        self._to_send = b""
        self._request = _Request.none
        self._answer_due: int | None = None
        self._next_poll: int | None = None

    def opened(self, t: int) -> None:
        """The port was opened: set the gauge, then poll."""
        self._line = b""
        self._stray = 0
        self._to_send = self.options.commands()
        self._request = _Request.none
        self._answer_due = None
        self._next_poll = t

    def feed(self, data: bytes, t: int) -> list[Scans | Reading | Diagnostic]:
        """Readings from whole lines that answer a request; everything else is named or counted."""
        found: list[Scans | Reading | Diagnostic] = []
        *lines, rest = (self._line + data).split(b"\n")
        for line in lines:
            found += self._take(line.removesuffix(b"\r"), len(line) + 1, t)
        if len(rest) > LINE_BYTES:
            self._stray += len(rest)
            rest = b""
        self._line = rest
        if self._stray:
            found.append(Diagnostic("garbage", self._stray))
            self._stray = 0
        return found

    def _take(self, line: bytes, size: int, t: int) -> Iterator[Reading | Diagnostic]:
        if match := DATA_LINE.fullmatch(line):
            yield from self._data(match, size, t)
            line = match["flags"]
        elif match := RESTART_LINE.fullmatch(line):
            yield Diagnostic("reboot", 1, RESTART_CAUSES[match[1]])
        elif line.startswith(BANNER_END):
            self._to_send += self.options.commands()
        elif not KNOWN_LINE.fullmatch(line) and not _flags(line):
            self._stray += size
        for kind in _flags(line):
            yield Diagnostic(kind)

    def _data(self, line: re.Match[bytes], size: int, t: int) -> Iterator[Reading | Diagnostic]:
        total, rate = _micro_mm(line["total"], line["unit"]), _micro_mm(line["rate"], line["unit"])
        if line["rate_unit"] != RATE_UNIT[line["unit"]] or total is None or rate is None:
            self._stray += size
        elif self._request is not _Request.sent:
            self._to_send += b"P\n"
            yield Diagnostic("unsolicited")
        else:
            self._request = _Request.none
            self._answer_due = None
            yield Reading(self.sensor, t, "rain_total_mm", total)
            yield Reading(self.sensor, t, "rain_mmph", rate)

    def settings(self) -> list[Setting]:
        """Mode and resolution are echoed and can't be asked for; the unit is in every answer."""
        unit = self.options.unit
        units = _echoed("M" if unit == "mm" else "I", unit)
        return [
            Setting("mode", "polled", _echoed("P", "polled")),
            Setting("resolution", "high", _echoed("H", "high")),
            Setting("unit", unit, units, Exchange(b"R\n", _unit_of)),
        ]

    def tick(self, t: int) -> list[Scans | Reading | Diagnostic]:
        """Give up an answer that is overdue; ask again when it is time."""
        found: list[Scans | Reading | Diagnostic] = []
        if self._answer_due is not None and t >= self._answer_due:
            self._answer_due = None
            self._request = _Request.none
            found.append(Diagnostic("no_answer"))
        if self._next_poll is not None and t >= self._next_poll:
            self._next_poll += self._poll_ns
            if self._next_poll <= t:
                self._next_poll = t + self._poll_ns
            self._answer_due = t + ANSWER_NS
            self._request = _Request.queued
            self._to_send += b"R\n"
        return found

    def next_deadline(self) -> int | None:
        """When an answer is overdue or the next request is due."""
        due = [at for at in (self._answer_due, self._next_poll) if at is not None]
        return min(due, default=None)

    def to_send(self) -> bytes:
        """Commands that are due. A request counts as made once it was taken from here."""
        if self._request is _Request.queued:
            self._request = _Request.sent
        due, self._to_send = self._to_send, b""
        return due


def _echoed(letter: str, value: str) -> Exchange:
    """A command that the gauge repeats in a line of its own, in small letters."""
    echo = letter.lower().encode()
    return Exchange(
        letter.encode() + b"\n", lambda heard: value if echo in heard.splitlines() else None
    )


def _unit_of(heard: bytes) -> str | None:
    lines = [DATA_LINE.fullmatch(line.removesuffix(b"\r")) for line in heard.split(b"\n")[:-1]]
    found = [line["unit"].decode() for line in lines if line is not None]
    return found[-1] if found else None


def _flags(words: bytes) -> list[str]:
    """What the gauge complains of, in a line of its own or behind the data."""
    return [FLAGS[word] for word in words.replace(b",", b" ").split() if word in FLAGS]


def _micro_mm(text: bytes, unit: bytes) -> int | None:
    """Exact millionths of a millimetre; None for digits finer than that."""
    try:
        micro = parse_micro(text.decode("ascii"))
    except ValueError:
        return None
    if micro is None or unit == b"mm":
        return micro
    whole, rest = divmod(micro * 254, 10)
    return None if rest else whole


class HydreonRg15Simulator:
    """The gauge: prints its banner at power-up, then answers; rain falls as the source says.

    Rain begins to play with the first request. The intensity is that of the last minute; an event
    ends an hour after its last drop. ``set_lens_bad`` makes it complain. Without ``P`` it would
    print each change by itself; so does this one, once a second.
    """

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        read_options(Options, options)
        self._source = source
        self._received = b""
        self._to_send = bytearray()
        self._play_began: int | None = None
        self._cleared_micro = 0
        self._event_began_micro = 0
        self._reported_micro = 0
        self._last_drop = 0
        self._minute: deque[tuple[int, int]] = deque()
        self._metric = True
        self._fine = True
        self._continuous = True
        self._next: int | None = None
        self.lens_bad = False

    def powered(self, t: int) -> None:
        """Power-up or restart: everything is counted from zero again, as the switches say."""
        now = self._now(t)
        self._received = b""
        self._cleared_micro = self._event_began_micro = self._reported_micro = now
        self._metric = self._fine = self._continuous = True
        self._next = t + NS
        self._say("*" * 57, ";")
        self._say(" HYDREON MODEL RG-15 RAIN GAUGE", ";")
        for line in ("Reset N", "SW 1.000 2020.07.06", "Emitters 9 10, EmTotal 19", "PwrDays 13"):
            self._say(line)

    def _say(self, text: str, mark: str = "") -> None:
        self._to_send += f"{mark}{text}\r\n".encode("ascii")

    def _now(self, t: int) -> int:
        """Rain since the play began, in millionths of a millimetre."""
        if self._play_began is None:
            return 0
        return self._source.micro("rain_total_mm", t - self._play_began) or 0

    def feed(self, data: bytes, t: int) -> None:
        """Carry out each line; what is no command is passed over."""
        *lines, rest = (self._received + data).split(b"\n")
        for line in lines:
            self._obey(line.strip().upper(), t)
        self._received = rest[-LINE_BYTES:]

    def _obey(self, command: bytes, t: int) -> None:
        if command in (b"R", b"A"):
            self._play_began = t if self._play_began is None else self._play_began
            self._report(t, whole=command == b"R")
        elif command == b"K":
            self.powered(t)
        elif command == b"O":
            self._cleared_micro = self._now(t)
        elif command.split(b" ")[0] == b"B":
            self._say("Baud 9600")
        elif command in (b"P", b"C", b"H", b"L", b"M", b"I", b"S", b"X", b"Y"):
            self._continuous = command == b"C" if command in b"PC" else self._continuous
            self._fine = command != b"L" if command in b"HLS" else self._fine
            self._metric = command != b"I" if command in b"MIS" else self._metric
            self._say(command.decode("ascii").lower())

    def _report(self, t: int, *, whole: bool) -> None:
        now = self._now(t)
        while self._minute and self._minute[0][0] < t - 60 * NS:
            self._minute.popleft()
        then, before = self._minute[0] if self._minute else (t, now)
        hourly = (now - before) * 3600 * NS // max(t - then, NS)
        self._minute.append((t, now))
        if now > self._reported_micro:
            self._last_drop = t
        elif t - self._last_drop > 3600 * NS:
            self._event_began_micro = now
        unit, rate = ("mm", "mmph") if self._metric else ("in", "iph")
        values = {"Acc": self._reported_micro, "EventAcc": self._event_began_micro}
        values["TotalAcc"] = self._cleared_micro
        parts = [f"{key} {self._text(now - since)} {unit}" for key, since in values.items()]
        parts.append(f"RInt {self._text(hourly)} {rate}")
        self._say(", ".join((parts if whole else parts[:1]) + ["LensBad"] * self.lens_bad))
        self._reported_micro = now

    def _text(self, micro: int) -> str:
        """Width 5, in steps of the resolution, rounded down as a counter of drops does."""
        if self._metric:
            step = MICRO // 50 if self._fine else MICRO // 5
            return f"{micro // step * step / MICRO:5.2f}"
        step = MICRO // 1000 if self._fine else MICRO // 100
        return f"{micro * 10 // 254 // step * step / MICRO:5.3f}"

    def tick(self, t: int) -> None:
        """In continuous mode a change of the accumulation is printed by itself."""
        if self._next is None or t < self._next:
            return
        self._next = t + NS
        if self._continuous and self._now(t) > self._reported_micro:
            self._report(t, whole=True)

    def next_deadline(self) -> int | None:
        """When the accumulation is looked at next; None once the gauge speaks only if asked."""
        return self._next if self._continuous else None

    def to_send(self) -> bytes:
        """What the gauge says."""
        said = bytes(self._to_send)
        self._to_send.clear()
        return said


HydreonRg15.simulator = HydreonRg15Simulator
