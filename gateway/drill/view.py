"""What a running gateway looks like: trace, ratio, rain, sirens and messages on one terminal.

A :class:`Scene` takes the items of the core's feed (and, in the demonstration, what the hub heard)
and draws itself with rich; it does no I/O. Ratios and sums are made by the classes that the core
uses, from the samples and readings that the feed carries.
"""

import io
import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from rich import box
from rich.align import Align
from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gateway.core.compiled import Compiled, Sensor
from gateway.core.feed_client import packet_samples
from gateway.detect.filters import (
    MAX_RUN,
    NYQUIST_SHARE,
    BlockFilter,
    Float,
    StateSpace,
    butterworth,
)
from gateway.detect.level import make
from gateway.detect.rain import RainEvaluator
from gateway.detect.scale import Condition, Scale
from gateway.detect.settings import SeismicSettings
from gateway.detect.sta_lta import StaLta, Windows
from gateway.drill.lines import COLOURS, HAZARD_ZH, LEVEL_ZH, colour_of, line_of
from gateway.events import MICRO, NS, Reading, parse_iso

SPAN_S = 30.0
"""How much of the trace is shown."""
ARM_S = 4.0
"""The detector declares nothing before it has seen so much."""
MESSAGES = 100
RATIO_DECADES = 8
"""The ratio's bar runs from 1 to ten to this."""

_POWERS = ("1", "10²", "10⁴", "10⁶", "10⁸")
_WEB_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_BRAILLE = 0x2800
_DOTS = np.array(((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)))
"""Bits of a braille character: columns of dots, from the top."""


class RatioMeter:
    """STA/LTA of one channel as the detector has it, its LTA held from a trigger until its end."""

    def __init__(self, settings: SeismicSettings, rate_hz: float) -> None:
        low, high = settings.band_hz
        band = butterworth(2, low, min(high, NYQUIST_SHARE * rate_hz), rate_hz)
        self._settings = settings
        self._filter = BlockFilter(StateSpace.of(band), 1)
        self._averages = StaLta((Windows(settings.sta_s, settings.lta_s),), 1, rate_hz)
        self._armed = round(ARM_S * rate_hz)
        self._longest = round(settings.lta_freeze_max_s * rate_hz)
        self._held_since: int | None = None
        self._seen = 0

    def process(self, samples: Float) -> Float:
        """The ratio after each of ``samples``; NaN until the detector would be armed."""
        parts = [self._run(samples[k : k + MAX_RUN]) for k in range(0, len(samples), MAX_RUN)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _run(self, samples: Float) -> Float:
        n = len(samples)
        self._averages.process(self._filter.run(samples[np.newaxis, :]), n)
        at = 0
        while at < n:
            at = self._hold(at, n) if self._held_since is None else self._release(at, n)
        ratio = self._ratio()
        ratio[: max(0, self._armed - self._seen)] = np.nan
        self._seen += n
        return ratio

    def _ratio(self) -> Float:
        sta, lta = self._averages.sta[0, 0], self._averages.lta[0, 0]
        ratio: Float = np.divide(sta, lta, out=np.zeros_like(sta), where=lta > 0.0)
        return ratio

    def _hold(self, at: int, n: int) -> int:
        over = np.flatnonzero(self._ratio()[at:] > self._settings.trigger_on) + at
        over = over[over + self._seen >= self._armed]
        if not len(over):
            return n
        column = int(over[0])
        self._averages.hold(0, 0, column)
        self._held_since = self._seen + column
        return column + 1

    def _release(self, at: int, n: int) -> int:
        below = np.flatnonzero(self._ratio()[at:] < self._settings.trigger_off) + at
        since = self._held_since or 0
        column = min(
            int(below[0]) if len(below) else n, max(at, since + self._longest - self._seen)
        )
        if column >= n:
            return n
        self._averages.release(0, 0, column)
        self._held_since = None
        return column + 1


class Trace:
    """The last ``SPAN_S`` of one channel and of its ratio."""

    def __init__(self, sensor: Sensor, row: int, settings: SeismicSettings) -> None:
        channel = sensor.channels[row]
        self.sensor, self.row, self.name, self.rate_hz = (
            sensor.name,
            row,
            channel.id,
            sensor.rate_hz,
        )
        known = channel.sensitivity
        self.unit = known.unit.replace("**2", "²") if known else "counts"
        self._counts_per_unit = known.counts_per_unit if known else 1.0
        self._settings = settings
        self._meter = RatioMeter(settings, sensor.rate_hz)
        length = round(SPAN_S * sensor.rate_hz)
        self.samples = np.full(length, np.nan)
        self.ratio = np.full(length, np.nan)
        self.end_ns = 0
        self._level = 0.0

    def take(self, packet: Mapping[str, Any]) -> None:
        """A packet of the feed."""
        counts = packet_samples(dict(packet))[self.row].astype(np.float64)
        start_ns = parse_iso(packet["start"])
        period_ns = NS / self.rate_hz
        if not self.end_ns:
            self._level = float(counts[0])
        late = round((start_ns - self.end_ns) / period_ns) if self.end_ns else 0
        if late or np.isnan(counts).any():
            self._meter = RatioMeter(self._settings, self.rate_hz)
        counts = np.where(np.isnan(counts), self._level, counts)
        ratio = self._meter.process(counts)
        if late > 0:
            self._push(np.full(min(late, len(self.samples)), np.nan), np.nan)
        self._push((counts - self._level) / self._counts_per_unit, ratio)
        self.end_ns = start_ns + round(len(counts) * period_ns)

    def _push(self, samples: Float, ratio: Float | float) -> None:
        n = min(len(samples), len(self.samples))
        self.samples = np.concatenate((self.samples[n:], samples[-n:]))
        values = np.broadcast_to(np.asarray(ratio, np.float64), samples.shape)
        self.ratio = np.concatenate((self.ratio[n:], values[-n:]))

    def envelope(self, columns: int) -> tuple[Float, Float]:
        """Lowest and highest value of each of ``columns`` equal parts; NaN where there is none."""
        edges = np.linspace(0, len(self.samples), columns + 1).astype(int)
        low, high = np.full(columns, np.nan), np.full(columns, np.nan)
        for k, (a, b) in enumerate(pairwise(edges)):
            part = self.samples[a:b][~np.isnan(self.samples[a:b])]
            if len(part):
                low[k], high[k] = part.min(), part.max()
        return low, high

    def column(self, time_ns: int, columns: int) -> int | None:
        """Which of ``columns`` shows a moment; None if none does."""
        share = 1 - (self.end_ns - time_ns) / NS / SPAN_S
        return int(share * columns) if 0 <= share < 1 else None


@dataclass(slots=True)
class Gauge:
    """One rain gauge under one scale.

    Sums are made from the readings that came by, and are those of the core where it was asked.
    """

    evaluator: RainEvaluator
    total_mm: float = 0.0
    level: str = "none"
    core: Mapping[str, Any] = field(default_factory=dict)

    def take(self, reading: Reading) -> None:
        self.evaluator.reading(reading)
        if reading.quantity == "rain_total_mm" and reading.micro is not None:
            self.total_mm = reading.micro / MICRO

    def rows(self, speed: float) -> list[tuple[str, float, float, str]]:
        """(window, sum in mm, threshold in mm, level) of each level's first condition.

        ``speed``: rain is played so many times as fast.
        """
        found = []
        for step in self.evaluator.scale.steps:
            condition: Condition = step.conditions[0]
            hours = condition.window_s * speed / 3600
            seen = self.evaluator.sum_nm(condition.window_s) / MICRO
            fallen = float(self.core.get(f"rain_{hours:g}h_mm", seen)) if speed == 1 else seen
            label = f"{hours:g} h" if hours >= 1 else f"{hours * 60:g} min"
            found.append((label, fallen, condition.at_least_micro / MICRO, step.level.name))
        return found


@dataclass(slots=True)
class SirenPicture:
    """One siren: the pattern that it sounds; whether its relay is closed, where that is seen."""

    pattern: str = ""
    closed: bool | None = None
    since: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """One of the messages: when, what, in which colour, and further lines of it."""

    time: str
    text: str
    colour: str = "white"
    more: tuple[str, ...] = ()


@dataclass(slots=True)
class Scene:
    """Everything that is shown. ``speed`` of the rain; ``title`` for the head line."""

    config: Compiled
    title: str = ""
    speed: float = 1.0
    latency: str = ""
    remark: str = ""
    messages_title: str = "events 事件"
    said: deque[Said] = field(default_factory=lambda: deque(maxlen=MESSAGES))
    traces: list[Trace] = field(default_factory=list)
    gauges: list[Gauge] = field(default_factory=list)
    readings: dict[tuple[str, str], float | None] = field(default_factory=dict)
    sirens: dict[str, SirenPicture] = field(default_factory=dict)
    alerts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    onset: str = ""
    onset_ns: int | None = None
    motion: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for sensor in self.config.sensors:
            if sensor.kind == "seismic":
                codes = [channel.id[-1:] for channel in sensor.channels]
                row = codes.index("Z") if "Z" in codes else 0
                self.traces.append(Trace(sensor, row, self.config.seismic))
            else:
                self.gauges += [
                    Gauge(evaluator)
                    for scale in self.config.scales
                    if isinstance(evaluator := make(scale, sensor.name), RainEvaluator)
                    and _is_rain(scale)
                ]
        self.sirens = {siren.name: SirenPicture() for siren in self.config.sirens}

    # -- what happens ----------------------------------------------------------------------------

    def take(self, item: Mapping[str, Any]) -> None:
        """An item of the feed."""
        if packet := item.get("packet"):
            for trace in self.traces:
                if trace.sensor == packet["sensor"]:
                    trace.take(packet)
        elif reading := item.get("reading"):
            self._read(reading)
        elif record := item.get("record"):
            self._record(record)

    def status(self, found: Mapping[str, Any]) -> None:
        """What the core itself says (``gateway status``), of times before this view began too."""
        for gauge in self.gauges:
            gauge.core = found["sensors"].get(gauge.evaluator.sensor, {})
        for name, siren in found["sirens"].items():
            self.sirens.setdefault(name, SirenPicture()).closed = bool(siren["on"])
            self.sirens[name].pattern = siren["pattern"] or ""
        self.alerts = {alert["id"]: alert for alert in found["alerts"]}

    def say(self, record: Mapping[str, Any]) -> None:
        """A record among the messages."""
        more = tuple(record[key] for key in ("text_zh", "text_en") if record.get(key))
        text = line_of({**record, "text_zh": "", "text_en": ""})
        self.said.append(Said(_clock(record["time"]), text, colour_of(record), more))

    def _read(self, reading: Mapping[str, Any]) -> None:
        sensor, quantity, micro = reading["sensor"], reading["quantity"], reading["micro"]
        self.readings[sensor, quantity] = None if micro is None else micro / MICRO
        time_ns = parse_iso(reading["time"])
        for gauge in self.gauges:
            if gauge.evaluator.sensor == sensor:
                gauge.take(Reading(sensor, time_ns, quantity, micro))

    def _record(self, record: Mapping[str, Any]) -> None:
        match record["type"]:
            case "onset":
                self.onset = f"P {_clock(record['time'])} {record['channel']}"
                self.onset_ns = parse_iso(record["time"])
            case "ground_motion":
                self.motion = record
            case "level":
                for gauge in self.gauges:
                    if gauge.evaluator.sensor == record["sensor"]:
                        gauge.level = record["level"]
            case "alert" if record["phase"] in ("cancel", "expire"):
                self.alerts.pop(record["id"], None)
            case "alert":
                self.alerts[record["id"]] = record
            case "siren":
                on = record["action"] == "on"
                siren = self.sirens.setdefault(record["siren"], SirenPicture())
                siren.pattern = record["pattern"] if on else ""
                siren.since = _clock(record["time"])

    # -- how it looks ----------------------------------------------------------------------------

    def __rich__(self) -> RenderableType:
        layout = Layout()
        layout.split_column(
            Layout(self._head(), name="head", size=1),
            Layout(name="middle", size=15),
            Layout(self._messages(), name="messages"),
            Layout(self._foot(), name="foot", size=3),
        )
        layout["middle"].split_row(Layout(name="ground", ratio=3), Layout(name="rest", ratio=2))
        layout["ground"].split_column(
            Layout(_TracePanel(self), name="trace"), Layout(self._ratio_panel(), size=4)
        )
        layout["rest"].split_column(
            Layout(self._siren_panel(), size=6), Layout(self._scalar_panel(), name="rain")
        )
        return layout

    def _head(self) -> RenderableType:
        station = self.config.station
        table = Table.grid(expand=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_row(Text(f" {station.name} {station.id}", "bold"), Text(f"{self.title} "))
        table.style = "white on grey23"
        return table

    def _ratio_panel(self) -> RenderableType:
        if not self.traces:
            return _panel(Text("no seismometer", "dim"), "STA/LTA")
        trace = self.traces[0]
        known = trace.ratio[~np.isnan(trace.ratio)]
        now = float(known[-1]) if len(known) else 0.0
        highest = float(known.max()) if len(known) else 0.0
        on = self.config.seismic.trigger_on
        return _panel(_Bar(now, highest, on), f"STA/LTA 长短时比 · trigger {on:g}")

    def _siren_panel(self) -> RenderableType:
        rows: list[RenderableType] = []
        style = "none"
        for name, siren in self.sirens.items():
            text = Text(justify="center")
            if not siren.pattern:
                text.append(f"{name}\n", "bold")
                text.append("silent 静默", "green")
            elif siren.closed is False:
                text.append(f"{name} · {siren.pattern}\nsince {siren.since}\n", "bold red")
                text.append("pause in the pattern 间歇", "red")
            else:
                style = "bold white on red"
                text.append("▄▀  S I R E N  警 报  ▀▄\n", "bold blink")
                text.append(f"{name} · {siren.pattern}\nsince {siren.since}")
            rows.append(text)
        shown = Group(*(rows or [Text("no siren is configured", "dim")]))
        return Panel(
            Align.center(shown, vertical="middle"),
            title="sirens 警报器",
            box=box.ROUNDED,
            style=style,
        )

    def _scalar_panel(self) -> RenderableType:
        table = Table.grid(padding=(0, 1, 0, 0))
        for _ in range(4):
            table.add_column(no_wrap=True)
        for gauge in self.gauges:
            if not _heard(gauge):
                continue
            for label, fallen, threshold, level in gauge.rows(self.speed):
                reached = fallen >= threshold
                bar = _blocks(fallen / threshold, 6)
                colour = COLOURS[level]
                table.add_row(
                    Text(label, justify="right"),
                    Text(bar, colour),
                    Text(f"{fallen:5.1f}/{threshold:g} mm", f"bold {colour}" if reached else ""),
                    Text(LEVEL_ZH[level], f"reverse {colour}" if reached else f"dim {colour}"),
                )
            table.add_row(
                Text("all", justify="right"), Text(""), Text(f"{gauge.total_mm:5.1f} mm"), Text("")
            )
        if not table.rows:
            for (sensor, quantity), value in self.readings.items():
                shown = "missing" if value is None else f"{value:g}"
                table.add_row(Text(sensor), Text(quantity), Text(shown, "bold"))
        if not table.rows:
            table.add_row(Text("no readings yet", "dim"))
        faster = f" · time ×{self.speed:g}" if self.speed != 1 else ""
        return _panel(table, f"rain 雨量{faster}")

    def _messages(self) -> RenderableType:
        return _panel(_Newest(list(self.said)), self.messages_title)

    def _foot(self) -> RenderableType:
        alerts = [
            Text.assemble(
                (
                    f" {HAZARD_ZH.get(a['hazard'], '')} {a['hazard']} {a['level']} ",
                    f"reverse bold {COLOURS[a['level']]}",
                ),
                " ",
            )
            for a in self.alerts.values()
        ]
        text = Text(" ").join([*alerts, Text(self.latency or self.remark)])
        text.no_wrap = True
        return _panel(text, "alerts and latency 告警与时延")


def picture(scene: Scene) -> str:
    """The scene as SVG, on a terminal of 100 columns and 34 rows; it fetches no font."""
    console = Console(width=100, height=34, record=True, file=io.StringIO(), force_terminal=True)
    console.print(scene, height=34)
    return _WEB_FONTS.sub("", console.export_svg(title="gateway"))


def _heard(gauge: Gauge) -> bool:
    return gauge.evaluator.gauge.quantity != ""


def _is_rain(scale: Scale) -> bool:
    return scale.hazard.value == "rainstorm"


class _TracePanel:
    """The trace as wide and high as there is room."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __rich_console__(self, console: Any, options: Any) -> Any:
        height = (options.height or 11) - 2
        width = options.max_width - 4
        if not self._scene.traces:
            yield Panel(Text("no seismometer is configured", "dim"), height=height + 2)
            return
        trace = self._scene.traces[0]
        low, high = trace.envelope(2 * width)
        peak = float(np.nanmax(np.abs((low, high)))) if not np.isnan(low).all() else 0.0
        rows = braille(low, high, height - 1, peak or 1.0)
        body = Text("\n").join(self._coloured(trace, row, width) for row in rows)
        body.append("\n" + _axis(width), "dim")
        motion = self._scene.motion
        shaking = f" · 烈度 {motion['intensity']:.1f}" if motion else ""
        yield Panel(
            body,
            title=f"{trace.name} · peak {peak:.3g} {trace.unit}{shaking}",
            subtitle=self._scene.onset or None,
            subtitle_align="right",
            box=box.ROUNDED,
            height=height + 2,
        )

    def _coloured(self, trace: Trace, row: str, width: int) -> Text:
        """The row, red from the P onset on, with a mark there."""
        at = None
        if self._scene.onset_ns is not None:
            at = trace.column(self._scene.onset_ns, width)
            if at is None and self._scene.onset_ns < trace.end_ns:
                return Text(row, "red" if self._shaking else "cyan")
        if at is None:
            return Text(row, "cyan")
        mark = row[at] if row[at] != chr(_BRAILLE) else "┊"
        return Text.assemble((row[:at], "cyan"), (mark, "bold yellow"), (row[at + 1 :], "red"))

    @property
    def _shaking(self) -> bool:
        return any(a["hazard"] == "earthquake" for a in self._scene.alerts.values())


def braille(low: Float, high: Float, rows: int, peak: float) -> list[str]:
    """``rows`` lines of braille: a band from ``low`` to ``high`` in each column of dots.

    Two columns of dots a character; zero is in the middle, ``peak`` at the edges, NaN is blank.
    """
    dots = 4 * rows
    cells = np.zeros((rows, len(low) // 2), dtype=int)
    for k in range(2 * cells.shape[1]):
        if math.isnan(low[k]):
            continue
        top = round((1 - high[k] / peak) / 2 * (dots - 1))
        bottom = round((1 - low[k] / peak) / 2 * (dots - 1))
        for dot in range(max(0, top), min(dots - 1, bottom) + 1):
            cells[dot // 4, k // 2] |= int(_DOTS[k % 2, dot % 4])
    return ["".join(chr(_BRAILLE + cell) for cell in row) for row in cells]


def _axis(width: int) -> str:
    """Seconds before the newest sample."""
    line = [" "] * width
    for back in range(0, int(SPAN_S) + 1, 10):
        text = f"−{back} s" if back else "0"
        at = min(width - len(text), max(0, round((1 - back / SPAN_S) * width)))
        line[at : at + len(text)] = text
    return "".join(line)


class _Bar:
    """The ratio on a logarithmic bar, with the trigger's place and the highest of the span."""

    def __init__(self, now: float, highest: float, trigger: float) -> None:
        self._now, self._highest, self._trigger = now, highest, trigger

    def __rich_console__(self, console: Any, options: Any) -> Any:
        label = f"{self._now:8.3g} "
        width = options.max_width - len(label)

        def place(value: float) -> int:
            share = math.log10(max(value, 1.0)) / RATIO_DECADES
            return int(min(width - 1, round(share * (width - 1))))

        filled, top, trigger = place(self._now), place(self._highest), place(self._trigger)
        over = self._now > self._trigger
        bar = Text(label, "bold red" if over else "bold")
        for k in range(width):
            if k == trigger:
                bar.append("┃", "yellow")
            elif k < filled:
                bar.append("█", "red" if k > trigger else "green")
            else:
                bar.append("▏" if k == top else "·", "dim")
        yield bar
        scale = [" "] * width
        for decade in range(0, RATIO_DECADES + 1, 2):
            text = _POWERS[decade // 2]
            at = min(width - len(text), place(10.0**decade))
            scale[at : at + len(text)] = text
        yield Text(" " * len(label) + "".join(scale), "dim")


class _Newest:
    """As many of the newest lines as there is room for, the newest last."""

    def __init__(self, lines: Sequence[Said]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Any, options: Any) -> Any:
        room = options.height or 10
        shown: deque[Text] = deque()
        for line in reversed(self._lines):
            rows = [Text.assemble((f"{line.time} ", "dim"), (line.text, line.colour))]
            rows += [Text(f"{'':13}{more}", line.colour) for more in line.more]
            if len(shown) + len(rows) > room:
                break
            for row in reversed(rows):
                row.truncate(options.max_width, overflow="ellipsis")
                shown.appendleft(row)
        yield Group(*(shown or [Text("nothing yet", "dim")]))


def _panel(inside: RenderableType, title: str) -> Panel:
    return Panel(inside, title=title, title_align="left", box=box.ROUNDED, padding=(0, 1))


def _blocks(share: float, width: int) -> str:
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    whole, part = divmod(eighths, 8)
    return ("█" * whole + " ▏▎▍▌▋▊▉"[part].strip()).ljust(width, "░")


def _clock(iso_time: str) -> str:
    """The time of day, UTC, to the millisecond."""
    return iso_time[11:23]
