"""Drawings of recordings: traces, ratios, rain, and what the core made of them.

A :class:`Picture` is what is to be drawn, in plain numbers; :func:`draw` puts it into a PNG with
matplotlib, which is imported there alone. :func:`pictures` makes pictures of files by replaying
them, so that a drawing shows the very decisions of the daemon. Labels are in English, for a
machine without Chinese fonts would draw boxes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gateway.detect.filters import Float
from gateway.detect.quality import BRIDGE_S
from gateway.detect.rain import QUANTITIES as RAIN_QUANTITIES
from gateway.detect.rain import RainGauge
from gateway.detect.scale import RAIN, Measure, Scale
from gateway.detect.settings import SeismicSettings, Sensitivity
from gateway.drill import recording
from gateway.drill.recording import Inventory, Recording, RecordingError, Series, Waveform
from gateway.drill.view import RatioMeter
from gateway.drivers.capture import Capture
from gateway.events import MICRO, NS, iso, parse_iso

MAX_ROWS = 12
"""Channels in one drawing."""
MAX_LEGEND_ROWS = 8
MAX_POINTS = 6000
"""Longer traces are drawn as the band between lowest and highest value."""
HOURS_NS = 2 * 3600 * NS
"""Longer drawings have hours along them."""
PAUSE_NS = 600 * NS
"""A gap so long begins another drawing."""

LEVEL_COLOURS = {
    "none": "tab:green",
    "blue": "tab:blue",
    "yellow": "gold",
    "orange": "darkorange",
    "red": "tab:red",
}
CURVE_COLOURS = ("tab:blue", "tab:purple", "tab:brown", "0.3", "tab:cyan", "tab:pink")


@dataclass(frozen=True, slots=True)
class Row:
    """One channel. ``ratio`` is None for readings, which are drawn as steps.

    ``curves`` are further (label, values) at the same times, ``limits`` thresholds as (label,
    value, colour).
    """

    name: str
    unit: str
    times_ns: np.ndarray[Any, np.dtype[np.int64]]
    values: Float
    ratio: Float | None = None
    label: str = ""
    curves: tuple[tuple[str, Float], ...] = ()
    limits: tuple[tuple[str, float, str], ...] = ()

    @property
    def station(self) -> str:
        return ".".join(self.name.split(".")[:2])


@dataclass(frozen=True, slots=True)
class Moment:
    """A line across the rows of a station, or of a channel; of all where ``of`` is empty."""

    label: str
    time_ns: int
    colour: str
    style: str = "-"
    of: str = ""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time that is shaded, as while a siren sounds."""

    label: str
    start_ns: int
    end_ns: int
    colour: str = "tab:red"
    of: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing. ``zoom`` is a stretch (start, end, ns) of the first row that is drawn larger."""

    title: str
    rows: list[Row]
    moments: list[Moment] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    trigger_on: float = SeismicSettings().trigger_on
    zoom: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Axis:
    """Time along a drawing: after ``began``, in seconds, or in hours where it is long."""

    began: int
    ended: int

    @classmethod
    def over(cls, rows: Sequence[Row]) -> "_Axis":
        return cls(
            min(int(row.times_ns[0]) for row in rows), max(int(row.times_ns[-1]) for row in rows)
        )

    @property
    def _unit(self) -> tuple[str, int]:
        return ("hours", 3600 * NS) if self.ended - self.began > HOURS_NS else ("seconds", NS)

    @property
    def length(self) -> float:
        return (self.ended - self.began) / self._unit[1]

    @property
    def label(self) -> str:
        return f"{self._unit[0]} after {iso(self.began)[:19]}Z"

    def at(self, times_ns: np.ndarray[Any, np.dtype[np.int64]]) -> Float:
        return np.asarray((times_ns - self.began) / self._unit[1], np.float64)


def draw(picture: Picture, path: Path) -> None:
    """Write the picture as a PNG.

    Raises:
        OSError: it can't be written.
    """
    import matplotlib as mpl  # noqa: PLC0415  heavy, and only drawings need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  after the choice of backend

    rows = picture.rows
    traces = [row for row in rows if row.ratio is not None]
    heights = [2.0] * len(rows) + [2.2] * bool(picture.zoom) + [1.6] * bool(traces)
    figure, axes = plt.subplots(
        len(heights),
        1,
        figsize=(11, 1.0 + sum(heights)),
        squeeze=False,
        layout="constrained",
        height_ratios=heights,
    )
    places = list(axes[:, 0])
    axis = _Axis.over(rows)
    for place, row in zip(places, rows, strict=False):
        _draw_row(place, row, picture, axis)
        place.set_xlim(0, axis.length)
    if picture.zoom:
        place = places[len(rows)]
        _draw_row(place, rows[0], picture, axis)
        place.set_xlim(*axis.at(np.array(picture.zoom)))
    _draw_legend(places[len(rows)] if picture.zoom else places[0], places[: len(rows)])
    if traces:
        _draw_ratios(places[-1], traces, picture, axis)
        places[-1].set_xlim(0, axis.length)
    places[-1].set_xlabel(axis.label)
    figure.suptitle(picture.title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_row(place: Any, row: Row, picture: Picture, axis: _Axis) -> None:
    along = axis.at(row.times_ns)
    if row.ratio is None:
        curves = [(row.label, row.values), *row.curves]
        for (label, values), colour in zip(curves, CURVE_COLOURS, strict=False):
            place.step(along, values, where="post", linewidth=1.2, color=colour, label=f"_{label}")
        for label, value, colour in row.limits:
            place.axhline(value, color=colour, linestyle="-.", linewidth=1, label=f"_{label}")
        if row.curves or row.limits:
            keys = place.get_lines()[: len(curves) + len(row.limits)]
            words = [key.get_label().removeprefix("_") for key in keys]
            shown = [(key, word) for key, word in zip(keys, words, strict=True) if word]
            place.add_artist(
                place.legend(*zip(*shown, strict=True), loc="upper left", fontsize=7, ncols=2)
            )
    elif len(along) <= MAX_POINTS * 3:
        place.plot(along, row.values, color="0.25", linewidth=0.6)
    else:
        place.fill_between(*_band(along, row.values), color="0.25", linewidth=0)
    place.set_ylabel(f"{row.name}\n{row.unit}", fontsize=8)
    place.grid(alpha=0.3)
    place.margins(x=0)
    for stretch in picture.stretches:
        if stretch.of in {"", row.station, row.name}:
            low, high = axis.at(np.array((stretch.start_ns, stretch.end_ns)))
            place.axvspan(low, high, color=stretch.colour, alpha=0.12, label=stretch.label)
    for moment in picture.moments:
        if moment.of in {"", row.station, row.name}:
            at = float(axis.at(np.array([moment.time_ns]))[0])
            place.axvline(
                at, color=moment.colour, linestyle=moment.style, linewidth=1.2, label=moment.label
            )


def _draw_legend(place: Any, places: Sequence[Any]) -> None:
    """Each label once, however often and wherever it is drawn."""
    once: dict[str, Any] = {}
    for drawn in places:
        lines, labels = drawn.get_legend_handles_labels()
        once |= dict(zip(labels, lines, strict=True))
    if once:
        place.legend(
            once.values(),
            once.keys(),
            loc="upper right",
            fontsize=7,
            framealpha=0.7,
            ncols=-(-len(once) // MAX_LEGEND_ROWS),
        )


def _draw_ratios(place: Any, rows: Sequence[Row], picture: Picture, axis: _Axis) -> None:
    for row in rows:
        if row.ratio is not None:
            along = axis.at(row.times_ns)
            step = max(1, len(along) // MAX_POINTS)
            place.plot(along[::step], row.ratio[::step], linewidth=0.7, label=row.name)
    place.axhline(picture.trigger_on, color="tab:red", linestyle="--", linewidth=1)
    place.set_yscale("log")
    place.set_ylim(bottom=0.05)
    place.set_ylabel("STA/LTA\nof energies", fontsize=8)
    place.grid(alpha=0.3)


def _band(along: Float, values: Float) -> tuple[Float, Float, Float]:
    """Times, lowest and highest values of ``MAX_POINTS`` equal parts."""
    size = -(-len(values) // MAX_POINTS)
    parts = np.pad(values, (0, -len(values) % size), constant_values=np.nan).reshape(-1, size)
    blank = np.isnan(parts).all(axis=1)
    low = np.where(np.isnan(parts), np.inf, parts).min(axis=1)
    high = np.where(np.isnan(parts), -np.inf, parts).max(axis=1)
    return along[::size], np.where(blank, np.nan, low), np.where(blank, np.nan, high)


# -- pictures of files ---------------------------------------------------------------------------


def read(path: Path) -> Recording:
    """A file that can be drawn.

    Raises:
        RecordingError: it can't be read, or it is a raw capture, of which only the replay is shown.
    """
    if Capture.recognises(path):
        raise RecordingError(f"{path}: a raw capture can't be drawn; see it with gateway replay")
    return recording.read(path)


def pictures(
    recordings: Iterable[Recording],
    records: Iterable[Mapping[str, Any]],
    inventory: Inventory | None = None,
    sensitivity: Sensitivity | None = None,
    settings: SeismicSettings | None = None,
    scales: Sequence[Scale] = (),
) -> list[Picture]:
    """Drawings of recordings with the ``records`` of their replay, one for each stretch of time.

    ``scales`` are those of the replay: their windows and thresholds are drawn.
    """
    chosen = settings or SeismicSettings()
    rows: list[Row] = []
    names = []
    for found in recordings:
        names.append(found.path.name)
        for waveform in found.waveforms:
            rows += _waveform_rows(waveform, inventory, sensitivity, chosen)
        rows += [row for series in found.series for row in _series_rows(series, scales)]
    moments, stretches = _decisions(records)
    return _pages(", ".join(names), rows, moments, stretches, chosen)


def _pages(
    title: str,
    rows: Sequence[Row],
    moments: Sequence[Moment],
    stretches: Sequence[Stretch],
    settings: SeismicSettings,
) -> list[Picture]:
    """One drawing for each stretch of time, with what was decided in it."""
    made = []
    for group in _sections(rows):
        axis = _Axis.over(group)
        left_out = f", {len(group) - MAX_ROWS} channels more" if len(group) > MAX_ROWS else ""
        made.append(
            Picture(
                title + left_out,
                group[:MAX_ROWS],
                [m for m in moments if axis.began <= m.time_ns <= axis.ended],
                [s for s in stretches if s.end_ns >= axis.began and s.start_ns <= axis.ended],
                settings.trigger_on,
            )
        )
    return made


def _waveform_rows(
    waveform: Waveform,
    inventory: Inventory | None,
    sensitivity: Sensitivity | None,
    settings: SeismicSettings,
) -> list[Row]:
    """A row for each channel and each stretch without a long pause."""
    rows = []
    period_ns = NS / waveform.rate_hz
    for packets in _stretches(waveform):
        began = packets[0].start_ns
        firsts = [round((packet.start_ns - began) / period_ns) for packet in packets]
        length = firsts[-1] + packets[-1].samples.shape[1]
        times = began + (np.arange(length) * period_ns).astype(np.int64)
        samples = np.full((len(waveform.channels), length), np.nan)
        for first, packet in zip(firsts, packets, strict=True):
            samples[:, first : first + packet.samples.shape[1]] = packet.samples
        for number, channel in enumerate(waveform.channels):
            known = (inventory and inventory.get(channel, waveform.start_ns)) or sensitivity
            values = samples[number]
            if np.isnan(values).all():
                continue
            level = float(np.nanmedian(values))
            ratio = _ratio(values, waveform.rate_hz, settings)
            scaled = (values - level) / (known.counts_per_unit if known else 1.0)
            unit = known.unit.replace("**2", "²") if known else "counts"
            rows.append(Row(channel, unit, times, scaled, ratio))
    return rows


def _ratio(values: Float, rate_hz: float, settings: SeismicSettings) -> Float:
    """The ratio along a trace; it begins anew after each hole, as the detector does."""
    known = np.flatnonzero(~np.isnan(values))
    ratio = np.full(len(values), np.nan)
    for piece in np.split(known, np.flatnonzero(np.diff(known) > 1 + BRIDGE_S * rate_hz) + 1):
        ratio[piece] = RatioMeter(settings, rate_hz).process(values[piece])
    return ratio


def _stretches(waveform: Waveform) -> list[list[Any]]:
    found: list[list[Any]] = []
    end_ns = 0
    for packet in waveform.packets(1 << 16):
        if not found or packet.start_ns - end_ns > PAUSE_NS:
            found.append([])
        found[-1].append(packet)
        end_ns = packet.start_ns + round(packet.samples.shape[1] * NS / packet.rate_hz)
    return found


def _series_rows(series: Series, scales: Sequence[Scale]) -> list[Row]:
    rows = []
    quantities = dict.fromkeys(reading.quantity for reading in series.readings)
    for quantity in quantities:
        known = [
            (r.time_ns, r.micro / MICRO)
            for r in series.readings
            if r.quantity == quantity and r.micro is not None
        ]
        if known:
            times = np.array([time_ns for time_ns, _ in known], np.int64)
            values = np.array([value for _, value in known])
            rows.append(
                Row(series.sensor, quantity, times, values, limits=_limits(quantity, scales))
            )
    if any(quantity in RAIN_QUANTITIES for quantity in quantities):
        rows += _rain_rows(series, scales)
    return rows


def _limits(quantity: str, scales: Sequence[Scale]) -> tuple[tuple[str, float, str], ...]:
    """Thresholds that are compared with a plain value of this quantity, or its mean or highest."""
    plain = {Measure.value, Measure.mean, Measure.max}
    return tuple(
        (
            f"{scale.name} {step.level.name}",
            c.at_least_micro / MICRO,
            LEVEL_COLOURS[step.level.name],
        )
        for scale in scales
        if not scale.index and not scale.needs_warning
        for step in scale.steps
        for c in step.conditions
        if c.quantity == quantity and c.measure in plain
    )


def _rain_rows(series: Series, scales: Sequence[Scale]) -> list[Row]:
    """All rain that has fallen, and for each rain scale the sums that it looks at."""
    gauge = RainGauge()
    fallen = [
        (r.time_ns, found.nm)
        for r in series.readings
        if r.quantity in RAIN_QUANTITIES
        and (found := gauge.take(r)) is not None
        and found.nm is not None
    ]
    if not fallen:
        return []
    times = np.array([time_ns for time_ns, _ in fallen], np.int64)
    running = np.cumsum([nm for _, nm in fallen]) / MICRO
    rows = [Row(series.sensor, "sum of rain, mm", times, running)]
    before = np.concatenate(([0.0], running))
    for scale in scales:
        if scale.quantities != (RAIN,):
            continue
        sums = [
            (
                f"{window_s / 3600:g} h",
                running - before[np.searchsorted(times, times - window_s * NS, "right")],
            )
            for window_s in sorted({c.window_s for c in scale.conditions})
        ]
        limits = tuple(
            (
                f"{step.level.name} {c.at_least_micro / MICRO:g} mm in {c.window_s / 3600:g} h",
                c.at_least_micro / MICRO,
                LEVEL_COLOURS[step.level.name],
            )
            for step in scale.steps
            for c in step.conditions
        )
        label, values = sums[0]
        rows.append(
            Row(series.sensor, f"{scale.name}\nsums, mm", times, values, None, label,
                tuple(sums[1:]), limits)
        )  # fmt: skip
    return rows


def _sections(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that overlap in time, or nearly, belong into one drawing."""
    groups: list[list[Row]] = []
    end_ns = 0
    for row in sorted(rows, key=lambda row: (int(row.times_ns[0]), row.name)):
        if not groups or int(row.times_ns[0]) - end_ns > PAUSE_NS:
            groups.append([])
            end_ns = 0
        groups[-1].append(row)
        end_ns = max(end_ns, int(row.times_ns[-1]))
    return groups


def _decisions(records: Iterable[Mapping[str, Any]]) -> tuple[list[Moment], list[Stretch]]:
    """Onsets, levels, alerts and sounding sirens of a replay or of a feed."""
    moments: list[Moment] = []
    stretches: list[Stretch] = []
    began: dict[tuple[str, str], tuple[int, str]] = {}
    last = 0
    for record in records:
        if "time" not in record:
            continue
        at = last = parse_iso(record["time"])
        match record["type"]:
            case "onset":
                moments.append(Moment("onset", at, "tab:orange", "-", record["channel"]))
            case "level":
                colour = LEVEL_COLOURS[record["level"]]
                label = f"level {record['level']}"
                moments.append(Moment(label, at, colour, "--", record["sensor"]))
            case "alert" if record["hazard"] == "earthquake" or record["phase"] == "alert":
                label = f"{record['phase']} {record['hazard']} {record['level']}"
                colour = LEVEL_COLOURS[record["level"]]
                moments.append(Moment(label, at, colour, ":", record["station"]))
            case "siren" if record["action"] == "on":
                began[record["siren"], record["station"]] = at, record["pattern"]
            case "siren":
                start, pattern = began.pop((record["siren"], record["station"]), (at, ""))
                stretches.append(Stretch(f"siren {pattern}", start, at, of=record["station"]))
    for (_, station), (start, pattern) in began.items():
        stretches.append(Stretch(f"siren {pattern}", start, last, of=station))
    return moments, stretches
