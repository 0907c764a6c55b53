#!/usr/bin/env python3
"""Write the measured part of docs/detection.md: every recording with its picks and verdicts.

Usage: .venv/bin/python tools/detect_report.py [RECORDINGS]

RECORDINGS is a folder with ``manifest.json`` and miniSEED files; without it the folder named by
GATEWAY_CORPUS, or ``../shared/corpus`` beside the checkout. Plots are drawn only of recordings
whose licence lets them be passed on (CC0, MIT, and those that come with obspy).
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
PLOTTED = {"d01": ["BW.UH1", "BW.UH4"], "d02": ["BW.RJOB"], "d08": ["NP.1765", "NP.1737"]}
PLOTTED["d11"] = ["GR.TNS", "GR.FUR"]
ARMED_S = 4.0
SEGMENT_GAP_S = 60.0

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
    return [*rows, "", *lines]


def _listed(recording: Recording, onset: Onset) -> bool:
    """Whether a doubtful event is listed near this onset."""
    return any(
        station(p["channel"]) == station(onset.channel)
        and abs(parse_iso(p["time"]) - onset.time_ns) <= 15 * NS
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


Characteristic = Callable[[Samples], Samples]
FUNCTIONS: dict[str, Characteristic] = {
    "magnitude, \\|y\\|": lambda y: np.sqrt(np.abs(y)),
    "energy, y²": lambda y: y,
    "Allen (1978), y² + 3 y′²": lambda y: np.sqrt(
        y**2 + 3.0 * np.diff(y, axis=1, prepend=y[:, :1]) ** 2
    ),
    "fourth power, y⁴": lambda y: y**2,
}
"""Square roots of the characteristic functions of y, the band-passed trace: energies are made of
them."""


def ratios(segment: Segment, function: Characteristic) -> Samples:
    """Bare STA/LTA of (channels, n), NaN until armed and where samples are missing."""
    counts = np.where(np.isnan(segment.counts), 0.0, segment.counts)
    rate_hz = segment.rate_hz
    band = butterworth(2, 1.0, min(10.0, 0.45 * rate_hz), rate_hz)
    first = np.argmax(~np.isnan(segment.counts), axis=1)
    counts -= counts[np.arange(len(counts)), first][:, None]
    counts[np.isnan(segment.counts)] = 0.0
    filtered = BlockFilter(StateSpace.of(band), len(counts)).process(counts)[0]
    values = function(filtered)
    tracker = StaLta((Windows(0.5, 20.0),), len(counts), rate_hz)
    out = np.empty_like(values)
    for at in range(0, values.shape[1], MAX_RUN):
        part = np.ascontiguousarray(values[:, at : at + MAX_RUN])
        tracker.process(part, part.shape[1])
        lta = tracker.lta[:, 0]
        out[:, at : at + MAX_RUN] = tracker.sta[:, 0] / np.where(lta > 0, lta, np.inf)
    out[:, : round(ARMED_S * rate_hz)] = np.nan
    out[np.isnan(segment.counts)] = np.nan
    return out


def crossings(ratio: Samples, on: float) -> list[int]:
    """Where a ratio (n,) rises above ``on`` after having been below half of it."""
    found, high = [], True
    level = np.where(np.isnan(ratio), 0.0, ratio)
    marks = np.flatnonzero((level > on) | (level < on / 2))
    for at in marks.tolist():
        if level[at] > on and not high:
            found.append(at)
        high = bool(level[at] > on)
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


def draw(recording: Recording) -> list[str]:
    """Plots of the stations chosen; gives the lines that show them."""
    lines = []
    for name in PLOTTED.get(recording.name[:3], []):
        pick = next(p for p in picks(recording) if station(p["channel"]) == name)
        time_ns = parse_iso(pick["time"])
        segment = next(
            s
            for s in recording.segments
            if pick["channel"] in s.channels
            and s.start_ns <= time_ns <= s.start_ns + s.counts.shape[1] / s.rate_hz * NS
        )
        row = segment.channels.index(pick["channel"])
        seconds = (
            np.arange(segment.counts.shape[1]) / segment.rate_hz + (segment.start_ns - time_ns) / NS
        )
        inside = (seconds > -6) & (seconds < 9)
        figure, axes = plt.subplots(2, 1, figsize=(7, 3.2), sharex=True)
        trace = segment.counts[row, inside]
        axes[0].plot(seconds[inside], trace - np.nanmedian(trace), "k", lw=0.6)
        axes[0].set_ylabel("counts")
        ratio = ratios(segment, FUNCTIONS["energy, y²"])[row]
        axes[1].semilogy(seconds[inside], np.maximum(ratio[inside], 0.05), "k", lw=0.8)
        axes[1].axhline(SeismicSettings().trigger_on, color="tab:gray", ls=":")
        axes[1].set_ylabel("STA/LTA")
        axes[1].set_xlabel(f"s after the reference pick {pick['time'][:22]}")
        for axis in axes:
            axis.axvline(0.0, color="tab:blue", lw=1.2, label="reference")
            if onset := matched(recording, pick):
                axis.axvline(
                    (onset.time_ns - time_ns) / NS, color="tab:red", ls="--", label="onset"
                )
                axis.axvline(
                    (onset.declared_ns - time_ns) / NS, color="tab:orange", label="declared"
                )
        axes[0].legend(loc="upper left", fontsize=7)
        axes[0].set_title(pick["channel"], fontsize=9)
        figure.tight_layout()
        PLOTS.mkdir(exist_ok=True)
        path = PLOTS / f"{recording.name[:3]}_{name}.png"
        figure.savefig(path, dpi=70, metadata={"Software": ""})
        plt.close(figure)
        lines.append(f"![{pick['channel']}](detection/{path.name})")
    return lines


def main() -> None:
    default = os.environ.get("GATEWAY_CORPUS", HERE.parent / "shared" / "corpus")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else default)
    if not (folder / "manifest.json").exists():
        sys.exit(f"{folder} holds no manifest.json: name the folder of the recordings")
    recordings = read(folder)
    for recording in recordings:
        detect(recording)
    parts = ["### Recordings", "", *summary(recordings), "", "### Picks", ""]
    parts += [*verdicts(recordings), "", "### Characteristic functions compared", ""]
    parts += [*characteristic(recordings), "", "### A few of them", ""]
    parts += [line for recording in recordings for line in draw(recording)]
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(parts) + f"\n\n{END}{after}")


if __name__ == "__main__":
    main()
