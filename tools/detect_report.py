#!/usr/bin/env python3
"""Write the measured part of docs/detection.md: every recording with its picks and verdicts.

Usage: .venv/bin/python tools/detect_report.py [RECORDINGS]

RECORDINGS is a folder with ``manifest.json`` and miniSEED files; without it the folder named by
GATEWAY_CORPUS, or ``../shared/corpus`` beside the checkout. One sheet a recording is drawn into
docs/detection, small enough for a page.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import obspy
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import lfilter

from gateway.detect import SeismicDetector
from gateway.detect.filters import MAX_RUN, BlockFilter, StateSpace, butterworth
from gateway.detect.settings import SeismicSettings
from gateway.detect.sta_lta import StaLta, Windows
from gateway.events import NS, Onset, Rejected, parse_iso

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parents[1]
PAGE = HERE / "docs" / "detection.md"
PLOTS = HERE / "docs" / "detection"
BEGIN, END = "<!-- measured: make detect-report -->", "<!-- end of what is measured -->"
NOISE = ("noise", "noise_gap", "spike", "false_trigger", "continuous")
URBAN = ("d13", "d16", "d20")
ARMED_S = 4.0
SEGMENT_GAP_S = 60.0
STARTS, START_S = 1000, 10.0
SHEET_ROWS = 6
PIXELS = 1500

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Segment:
    """Channels of one station and rate without a long hole: counts (channels, n), NaN missing."""

    channels: tuple[str, ...]
    rate_hz: float
    start_ns: int
    counts: Samples


@dataclass(slots=True)
class Recording:
    """One file, what is known of it, and what the detector made of it."""

    facts: dict[str, Any]
    segments: list[Segment]
    onsets: list[Onset] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.facts["name"])

    @property
    def is_noise(self) -> bool:
        return self.facts["kind"] in NOISE

    @property
    def hours(self) -> float:
        """Channel-hours of data."""
        return sum(s.counts.size / s.rate_hz for s in self.segments) / 3600.0


def station(channel: str) -> str:
    return ".".join(channel.split(".")[:2])


def _segments(path: Path) -> Iterator[Segment]:
    groups: dict[tuple[str, float], list[Any]] = {}
    for trace in obspy.read(str(path)):
        key = station(trace.id), round(trace.stats.sampling_rate, 4)
        groups.setdefault(key, []).append(trace)
    for (_, rate_hz), traces in groups.items():
        traces.sort(key=lambda t: t.stats.starttime)
        channels = tuple(sorted({t.id for t in traces}))
        parts: list[list[Any]] = []
        end = None
        for trace in traces:
            if end is None or trace.stats.starttime - end > SEGMENT_GAP_S:
                parts.append([])
                end = trace.stats.endtime
            parts[-1].append(trace)
            end = max(end, trace.stats.endtime)
        for part in parts:
            start = min(t.stats.starttime for t in part)
            offsets = [round((t.stats.starttime - start) * rate_hz) for t in part]
            n = max(at + len(t.data) for at, t in zip(offsets, part, strict=True))
            counts = np.full((len(channels), n), np.nan)
            for at, trace in zip(offsets, part, strict=True):
                counts[channels.index(trace.id), at : at + len(trace.data)] = trace.data
            yield Segment(channels, rate_hz, start.ns, counts)


def read(folder: Path) -> list[Recording]:
    facts = json.loads((folder / "manifest.json").read_text())["records"]
    return [Recording(f, list(_segments(folder / Path(f["file"]).name))) for f in facts]


def detect(recording: Recording) -> None:
    """Run every segment in packets of a second."""
    detectors: dict[tuple[str, ...], SeismicDetector] = {}
    for s in recording.segments:
        detector = detectors.setdefault(s.channels, SeismicDetector(s.channels, s.rate_hz))
        length = max(1, round(s.rate_hz))
        for at in range(0, s.counts.shape[1], length):
            start_ns = s.start_ns + round(at * NS / s.rate_hz)
            for d in detector.process(s.counts[:, at : at + length], start_ns):
                if isinstance(d, Onset):
                    recording.onsets.append(d)
                elif isinstance(d, Rejected):
                    recording.rejected.append(d)


def matched(recording: Recording, pick: dict[str, Any]) -> Onset | None:
    """The onset that serves a reference pick, if one does in time."""
    time_ns, clear = parse_iso(pick["time"]), pick["quality"] == "clear"
    early = 0.5 if clear else max(0.5, pick["tolerance_s"])
    late = 1.0 if clear else max(3.0, 1.5 * pick["tolerance_s"])
    found = [
        (abs(d.time_ns - time_ns), d)
        for d in recording.onsets
        if station(d.channel) == station(pick["channel"])
        and -early <= (d.time_ns - time_ns) / NS <= late
        and (not clear or (d.declared_ns - time_ns) / NS <= 2.0)
    ]
    return min(found, key=lambda f: f[0])[1] if found else None


def picks(recording: Recording) -> list[dict[str, Any]]:
    """The picks that count: clear ones, and others that are known to within 5 s."""
    return [
        p
        for p in recording.facts["references"]
        if p["quality"] in ("clear", "weak", "tele")
        and (p["quality"] == "clear" or p["tolerance_s"] <= 5)
    ]


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def summary(recordings: list[Recording]) -> list[str]:
    head = (
        "| recording | what | clear, weak, distant P found | error s | P to declared s "
        "| onsets on noise | rejected |"
    )
    rows = [
        head,
        "|---|---|---|---|---|---|---|",
    ]
    errors: list[float] = []
    delays: list[float] = []
    counts = {"clear": [0, 0], "weak": [0, 0], "tele": [0, 0]}
    for r in recordings:
        mine = {kind: [0, 0] for kind in counts}
        error, delay = [], []
        for pick in picks(r):
            onset = matched(r, pick)
            mine[pick["quality"]][1] += 1
            if onset is None:
                continue
            mine[pick["quality"]][0] += 1
            if pick["quality"] == "clear":
                error.append(abs(onset.time_ns - parse_iso(pick["time"])) / NS)
                delay.append((onset.declared_ns - parse_iso(pick["time"])) / NS)
        if r.facts["kind"] != "swarm_network":
            errors, delays = errors + error, delays + delay
            for kind, (found, all_) in mine.items():
                counts[kind][0] += found
                counts[kind][1] += all_
        hits = ", ".join(f"{a}/{b}" if b else "–" for a, b in mine.values())
        median = f"{statistics.median(error):.2f}" if error else "–"
        spread = f"{statistics.median(delay):.2f} … {max(delay):.2f}" if delay else "–"
        reasons = sorted({d.reason for d in r.rejected})
        rejected = f"{len(r.rejected)} ({', '.join(reasons)})" if reasons else "0"
        noise = str(len(r.onsets)) if r.is_noise else "–"
        rows.append(
            f"| {r.name} | {r.facts['kind'].replace('_', ' ')} | {hits} | {median} | {spread} |"
            f" {noise} | {rejected} |"
        )
    total = ", ".join(f"{kind} {found}/{all_}" for kind, (found, all_) in counts.items())
    text = (
        f"Without the swarm (d07), which is a matter of network coincidence: {total}. "
        f"Onset error of clear picks: median {statistics.median(errors):.2f} s, "
        f"90 % {quantile(errors, 0.9):.2f} s. P to declared: median "
        f"{statistics.median(delays):.2f} s, 90 % {quantile(delays, 0.9):.2f} s, "
        f"maximum {max(delays):.2f} s."
    )
    lines = [text, ""]
    for title, chosen in (
        ("stationary", [r for r in recordings if r.name.startswith(("d12", "d17"))]),
        ("urban", [r for r in recordings if r.name.startswith(URBAN)]),
    ):
        false = sum(len(r.onsets) for r in chosen)
        if title == "stationary":
            false = sum(not _listed(r, d) for r in chosen for d in r.onsets)
        hours = sum(r.hours for r in chosen)
        lines.append(f"- {title} noise: {false} onsets in {hours:.1f} channel-hours")
    artefacts = [r for r in recordings if r.facts["kind"] in ("spike", "noise_gap")]
    lines.append(f"- spikes and gap edges: {sum(len(r.onsets) for r in artefacts)} onsets")
    begun, false = cold_starts([r for r in recordings if r.name.startswith(("d12", "d17"))])
    lines.append(f"- {begun} cold starts in stationary noise: {false} onsets in the first 10 s")
    return [*rows, "", *lines]


def cold_starts(recordings: list[Recording]) -> tuple[int, int]:
    """Starts spread evenly over noise, and the onsets within 10 s that are near no listed event."""
    total = sum(r.hours for r in recordings)
    begun = false = 0
    for r in recordings:
        for s in r.segments:
            n = round(START_S * s.rate_hz)
            count = max(1, round(STARTS * r.hours / total / len(r.segments) / len(s.counts)))
            places = np.linspace(0, s.counts.shape[1] - n, count).astype(int)
            cuts = np.array([row[at : at + n] for row in s.counts for at in places])
            names = [f"XX.S{k}..HHZ" for k in range(len(cuts))]
            detector = SeismicDetector(names, s.rate_hz)
            found = [
                d
                for at in range(0, n, round(s.rate_hz))
                for d in detector.process(
                    cuts[:, at : at + round(s.rate_hz)], round(at * NS / s.rate_hz)
                )
                if isinstance(d, Onset)
            ]
            begun += len(cuts)
            for d in found:
                k = names.index(d.channel)
                at_ns = s.start_ns + round(int(places[k % count]) * NS / s.rate_hz) + d.time_ns
                channel = s.channels[k // count]
                false += not _near(r, station(channel), at_ns)
    return begun, false


def _listed(recording: Recording, onset: Onset) -> bool:
    """Whether a doubtful event is listed near this onset."""
    return _near(recording, station(onset.channel), onset.time_ns)


def _near(recording: Recording, name: str, time_ns: int) -> bool:
    return any(
        station(p["channel"]) == name and abs(parse_iso(p["time"]) - time_ns) <= 15 * NS
        for p in recording.facts["references"]
    )


def verdicts(recordings: list[Recording]) -> list[str]:
    head = (
        "| recording | channel | reference | kind | onset s | declared s | ratio | SNR dB "
        "| weight | verdict |"
    )
    rows = [
        head,
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in recordings:
        for pick in picks(r):
            line = f"| {r.name[:3]} | {pick['channel']} | {pick['time'][:22]} | {pick['quality']}"
            onset = matched(r, pick)
            if onset is None:
                rows.append(f"{line} | | | | | | missed |")
                continue
            time_ns = parse_iso(pick["time"])
            rows.append(
                f"{line} | {(onset.time_ns - time_ns) / NS:+.2f}"
                f" | {(onset.declared_ns - time_ns) / NS:+.2f} | {onset.ratio:.3g}"
                f" | {onset.snr_db:.0f} | {onset.quality} | found |"
            )
    return rows


Characteristic = Callable[[Samples, float], Samples]
"""From band-passed rows (channels, n) and their rate to what is compared with a threshold."""


def averaged(root: Callable[[Samples], Samples]) -> Characteristic:
    """STA/LTA of a characteristic function, given its square root (energies are made of it)."""

    def ratio(filtered: Samples, rate_hz: float) -> Samples:
        values = root(filtered)
        tracker = StaLta((Windows(0.5, 20.0),), len(values), rate_hz)
        out = np.empty_like(values)
        for at in range(0, values.shape[1], MAX_RUN):
            part = values[:, at : at + MAX_RUN]
            tracker.process(np.pad(part, ((0, 0), (0, 2))), part.shape[1])
            lta = tracker.lta[:, 0]
            out[:, at : at + MAX_RUN] = tracker.sta[:, 0] / np.where(lta > 0, lta, np.inf)
        return out

    return ratio


def _slope(filtered: Samples) -> Samples:
    return np.diff(filtered, axis=1, prepend=filtered[:, :1])


def _mean(values: Samples, seconds: float, rate_hz: float) -> Samples:
    """Recursive mean; that of all so far while it is young."""
    weight = 1.0 / (seconds * rate_hz)
    total = np.asarray(lfilter([weight], [1.0, weight - 1.0], values, axis=1))
    share = 1.0 - (1.0 - weight) ** np.arange(1, values.shape[1] + 1)
    return total / share


def classic(filtered: Samples, rate_hz: float) -> Samples:
    """The ratio of plain moving means, armed when the long one is full."""
    energy = np.cumsum(filtered**2, axis=1)
    short, long = round(0.5 * rate_hz), round(20.0 * rate_hz)
    out = np.zeros_like(filtered)
    if energy.shape[1] > long:
        sta = (energy[:, long:] - energy[:, long - short : -short]) / short
        lta = (energy[:, long:] - energy[:, :-long]) / long
        out[:, long:] = sta / np.where(lta > 0, lta, np.inf)
    return out


def baer(filtered: Samples, rate_hz: float) -> Samples:
    """Baer & Kradolfer (1987): the squared envelope function in standard deviations."""
    slope2 = _slope(filtered) ** 2
    weight = np.cumsum(filtered**2, axis=1) / np.maximum(np.cumsum(slope2, axis=1), 1e-30)
    envelope4 = (filtered**2 + weight * slope2) ** 2
    mean = _mean(envelope4, 20.0, rate_hz)
    variance = np.maximum(_mean(envelope4**2, 20.0, rate_hz) - mean**2, 1e-300)
    before = np.roll(np.sqrt(variance), 1, axis=1)
    return (envelope4 - np.roll(mean, 1, axis=1)) / before


def kurtosis(filtered: Samples, rate_hz: float) -> Samples:
    """Recursive kurtosis over 4 s (Langet et al. 2014)."""
    variance = _mean(filtered**2, 4.0, rate_hz)
    return _mean(filtered**4, 4.0, rate_hz) / np.maximum(variance, 1e-300) ** 2


ENERGY = averaged(lambda y: y)
FUNCTIONS: dict[str, Characteristic] = {
    "magnitude, \\|y\\|": averaged(lambda y: np.sqrt(np.abs(y))),
    "energy, y²": ENERGY,
    "energy, plain moving means": classic,
    "Allen (1978), y² + 3 y′²": averaged(lambda y: np.sqrt(y**2 + 3.0 * _slope(y) ** 2)),
    "fourth power, y⁴": averaged(lambda y: y**2),
    "Baer and Kradolfer (1987)": baer,
    "kurtosis over 4 s": kurtosis,
}


def ratios(segment: Segment, function: Characteristic) -> Samples:
    """A bare characteristic of (channels, n), NaN until armed and where samples are missing."""
    counts = np.where(np.isnan(segment.counts), 0.0, segment.counts)
    rate_hz = segment.rate_hz
    band = butterworth(2, 1.0, min(10.0, 0.45 * rate_hz), rate_hz)
    first = np.argmax(~np.isnan(segment.counts), axis=1)
    counts -= counts[np.arange(len(counts)), first][:, None]
    counts[np.isnan(segment.counts)] = 0.0
    filtered = BlockFilter(StateSpace.of(band), len(counts)).process(counts)[0]
    out = function(np.ascontiguousarray(filtered), rate_hz)
    out[:, : round(ARMED_S * rate_hz)] = np.nan
    out[np.isnan(segment.counts)] = np.nan
    return out


def crossings(ratio: Samples, on: float) -> list[int]:
    """Where a ratio (n,) rises above ``on`` after having been below half of it."""
    level = np.where(np.isnan(ratio), 0.0, ratio)
    marks = np.flatnonzero((level > on) | (level < on / 2))
    high = level[marks] > on
    found: list[int] = marks[1:][high[1:] & ~high[:-1]].tolist()
    return found


def characteristic(recordings: list[Recording]) -> list[str]:
    """Each function at the lowest threshold that keeps the noise goals, bare of all else."""
    head = (
        "| characteristic function | threshold | clear P in time | P to trigger s: median, 90 % "
        "| stationary, urban false a channel-hour |"
    )
    rows = [
        head,
        "|---|---|---|---|---|",
    ]
    chosen = [r for r in recordings if r.facts["kind"] != "swarm_network"]
    stationary = [r for r in chosen if r.name.startswith(("d12", "d17"))]
    urban = [r for r in chosen if r.name.startswith(URBAN)]
    for name, function in FUNCTIONS.items():
        series = {
            id(s): ratios(s, function)
            for r in chosen
            if not r.is_noise or r in stationary or r in urban
            for s in r.segments
        }

        def false(group: list[Recording], on: float, held: dict[int, Samples] = series) -> float:
            count = sum(
                len(crossings(row, on)) for r in group for s in r.segments for row in held[id(s)]
            )
            return count / sum(r.hours for r in group)

        on = 1.5
        while false(stationary, on) > 0.1 or false(urban, on) > 3.0:
            on *= 2**0.25
        delays, clear = [], 0
        for r in chosen:
            if r.is_noise:
                continue
            for pick in picks(r):
                if pick["quality"] != "clear":
                    continue
                clear += 1
                times = [
                    (s.start_ns - parse_iso(pick["time"])) / NS + at / s.rate_hz
                    for s in r.segments
                    if station(s.channels[0]) == station(pick["channel"])
                    for row in series[id(s)]
                    for at in crossings(row, on)
                ]
                if near := [t for t in times if -0.5 <= t <= 2.0]:
                    delays.append(min(near))
        rows.append(
            f"| {name} | {on:.1f} | {len(delays)}/{clear} | {statistics.median(delays):.2f},"
            f" {quantile(delays, 0.9):.2f} | {false(stationary, on):.2f}, {false(urban, on):.1f} |"
        )
    return rows


@dataclass(frozen=True, slots=True)
class View:
    """What a row of a sheet shows: seconds from ``zero_ns`` on of one channel."""

    segment: Segment
    row: int
    zero_ns: int
    window_s: tuple[float, float]
    pick: dict[str, Any] | None = None


def views(recording: Recording) -> list[View]:
    """One for each station with a pick, else one for each channel, those with onsets first."""
    found: dict[str, View] = {}
    for pick in recording.facts["references"]:
        at = parse_iso(pick["time"])
        for s in recording.segments:
            inside = s.start_ns <= at <= s.start_ns + s.counts.shape[1] / s.rate_hz * NS
            if inside and pick["channel"] in s.channels and not recording.is_noise:
                row = s.channels.index(pick["channel"])
                view = View(s, row, at, (-8.0, 14.0), pick)
                found.setdefault(f"{station(pick['channel'])} {pick.get('event', '')}", view)
    if not found:
        for s in recording.segments:
            for row, channel in enumerate(s.channels):
                view = View(s, row, s.start_ns, (0.0, s.counts.shape[1] / s.rate_hz))
                found.setdefault(channel, view)
    declared = {o.channel for o in recording.onsets}
    shown = sorted(found.values(), key=lambda v: v.segment.channels[v.row] not in declared)
    missed = [v for v in shown if v.pick and matched(recording, v.pick) is None]
    return ([v for v in shown if v not in missed] + missed)[: SHEET_ROWS - 2] + missed[:2]


def draw(recording: Recording) -> str:
    """The sheet of a recording; gives its name."""
    shown = list({id(v): v for v in views(recording)}.values())
    figure, axes = plt.subplots(
        len(shown), 2, figsize=(10, 0.35 + 1.15 * len(shown)), squeeze=False
    )
    for (left, right), view in zip(axes, shown, strict=True):
        s, channel = view.segment, view.segment.channels[view.row]
        seconds = np.arange(s.counts.shape[1]) / s.rate_hz + (s.start_ns - view.zero_ns) / NS
        inside = (seconds >= view.window_s[0]) & (seconds <= view.window_s[1])
        thin = max(1, int(inside.sum()) // (4 * PIXELS))
        t, trace = seconds[inside], s.counts[view.row, inside]
        ratio = ratios(s, ENERGY)[view.row, inside]
        left.plot(t[::thin], (trace - np.nanmedian(trace))[::thin], "k", lw=0.4)
        right.semilogy(t[::thin], np.maximum(ratio, 0.05)[::thin], "k", lw=0.5)
        right.axhline(SeismicSettings().trigger_on, color="tab:gray", ls=":", lw=0.8)
        verdict = "noise" if recording.is_noise else ""
        if view.pick:
            verdict = "found" if matched(recording, view.pick) else "not found"
            verdict = f"{view.pick['quality']}: {verdict}"
        for axis in (left, right):
            if view.pick:
                axis.axvline(0.0, color="tab:blue", lw=1.0)
            for onset in recording.onsets:
                at = (onset.time_ns - view.zero_ns) / NS
                if onset.channel == channel and view.window_s[0] <= at <= view.window_s[1]:
                    axis.axvline(at, color="tab:red", ls="--", lw=0.9)
                    axis.axvline(
                        (onset.declared_ns - view.zero_ns) / NS, color="tab:orange", lw=0.7
                    )
            axis.set_xlim(*view.window_s)
            axis.tick_params(labelsize=6)
        left.set_yticks([])
        left.set_title(f"{channel}  {verdict}", fontsize=7, pad=2)
        right.set_title("STA/LTA", fontsize=7, pad=2)
    figure.tight_layout(pad=0.4)
    return save(figure, recording.name[:3])


def save(figure: Any, name: str) -> str:
    """A figure as a small PNG of few colours."""
    PLOTS.mkdir(exist_ok=True)
    path = PLOTS / f"{name}.png"
    figure.savefig(path, dpi=72, metadata={"Software": ""})
    plt.close(figure)
    with Image.open(path) as image:
        image.convert("RGB").quantize(24).save(path, optimize=True)
    return path.name


COMPARED = (("d11", "GR.FUR"), ("d01", "BW.UH4"), ("d06", "OE.D008"))


def draw_functions(recordings: list[Recording]) -> str:
    """What each characteristic function makes of three P waves; gives the sheet's name."""
    figure, axes = plt.subplots(
        len(FUNCTIONS) + 1, len(COMPARED), figsize=(10, 8), squeeze=False, sharex=True
    )
    for column, (name, where) in enumerate(COMPARED):
        recording = next(r for r in recordings if r.name.startswith(name))
        view = next(v for v in every_view(recording) if v.pick and where in v.pick["channel"])
        s = view.segment
        seconds = np.arange(s.counts.shape[1]) / s.rate_hz + (s.start_ns - view.zero_ns) / NS
        inside = (seconds > -4) & (seconds < 5)
        trace = s.counts[view.row, inside]
        axes[0, column].plot(seconds[inside], trace - np.nanmedian(trace), "k", lw=0.5)
        axes[0, column].set_title(s.channels[view.row], fontsize=7, pad=2)
        for axis, (title, function) in zip(axes[1:, column], FUNCTIONS.items(), strict=True):
            values = ratios(s, function)[view.row, inside]
            axis.semilogy(seconds[inside], np.maximum(values, 0.1), "k", lw=0.6)
            axis.set_title(title.replace("\\|", "|"), fontsize=6, pad=1)
        for axis in axes[:, column]:
            axis.axvline(0.0, color="tab:blue", lw=0.8)
            axis.tick_params(labelsize=5)
    figure.tight_layout(pad=0.3)
    return save(figure, "functions")


def every_view(recording: Recording) -> list[View]:
    """Views of all clear picks."""
    return [
        View(s, s.channels.index(p["channel"]), parse_iso(p["time"]), (-8.0, 14.0), p)
        for p in recording.facts["references"]
        for s in recording.segments
        if p["quality"] == "clear"
        and p["channel"] in s.channels
        and s.start_ns <= parse_iso(p["time"]) <= s.start_ns + s.counts.shape[1] / s.rate_hz * NS
    ]


def main() -> None:
    default = os.environ.get("GATEWAY_CORPUS", HERE.parent / "shared" / "corpus")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else default)
    if not (folder / "manifest.json").exists():
        sys.exit(f"{folder} holds no manifest.json: name the folder of the recordings")
    recordings = read(folder)
    for recording in recordings:
        detect(recording)
    parts = ["### Recordings", "", *summary(recordings), ""]
    parts += ["### Characteristic functions compared", "", *characteristic(recordings), ""]
    parts += [f"![characteristic functions](detection/{draw_functions(recordings)})", ""]
    parts += ["### Picks", "", *verdicts(recordings), "", "### Each recording", ""]
    legend = (
        "Trace on the left, ratio and threshold on the right; blue the reference, red the onset, "
        "orange when it was declared; seconds from the reference, or from the beginning."
    )
    parts += [legend, ""]
    for recording in recordings:
        facts = recording.facts
        parts += [f"**{recording.name}**, {facts['source']} ({facts['licence']})", ""]
        parts += [f"![{recording.name}](detection/{draw(recording)})", ""]
    parts.pop()
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(parts) + f"\n\n{END}{after}")


if __name__ == "__main__":
    main()
