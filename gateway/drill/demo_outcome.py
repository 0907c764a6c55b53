"""What came of a demonstration: what was seen and what was not, in words, JSON and a drawing."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gateway.detect.settings import SeismicSettings
from gateway.drill import demo_station as station
from gateway.drill import sources
from gateway.drill.latency import Latency
from gateway.drill.lines import line_of
from gateway.drill.plot import Moment, Picture, Row, Stretch, draw
from gateway.drill.view import RatioMeter
from gateway.events import NS, parse_iso

ZOOM_S = (9.0, 20.0)

Record = dict[str, Any]


@dataclass(slots=True)
class Outcome:
    """Everything that was seen.

    ``onset``, ``sirens`` and ``motion`` are from the core's feed, ``earthquake`` and ``rainstorm``
    the alerts as the hub received them, ``edges`` the log of the relay's simulator.
    ``to_recording_ns`` takes the core's UTC to seconds of the recording, in ns after its beginning.
    """

    seconds: float = 0.0
    onset: Record | None = None
    sirens: list[Record] = field(default_factory=list)
    motion: Record | None = None
    rain_reached_s: float | None = None
    earthquake: Record | None = None
    rainstorm: Record | None = None
    hub_counts: dict[str, int] = field(default_factory=dict)
    edges: list[Record] = field(default_factory=list)
    latency: Latency | None = None
    hub_later_ms: float | None = None
    to_recording_ns: int | None = None

    @property
    def missing(self) -> list[str]:
        """What was to be seen and was not."""
        closed = any(edge["on"] and edge.get("frame") for edge in self.edges)
        wanted = (
            (self.earthquake, "the hub did not hear the earthquake alert"),
            (self.rainstorm, "the hub did not hear the rainstorm alert"),
            (closed, "the relay's simulator never got the frame that sounds the siren"),
            (self.latency, "the deciding sample was not found in the simulators' logs"),
        )
        return [text for seen, text in wanted if not seen]

    @property
    def onset_s(self) -> float | None:
        """The onset that the gateway found, in seconds of the recording."""
        if self.onset is None or self.to_recording_ns is None:
            return None
        return (parse_iso(self.onset["time"]) + self.to_recording_ns) / NS

    # -- in words --------------------------------------------------------------------------------

    def lines(self) -> list[str]:
        """A few lines for people."""
        heard, twice, odd = (
            self.hub_counts.get(name, 0) for name in ("received", "repeated", "faults")
        )
        return [
            f"seen in {self.seconds:.0f} s:",
            *self._earthquake_lines(),
            *self._rain_lines(),
            f"  messages     {heard} at the hub, {twice} repeated, {odd} not as their schema says",
        ]

    def _earthquake_lines(self) -> list[str]:
        lines = []
        if self.onset is not None:
            late = ""
            if self.onset_s is not None:
                late = f", {self.onset_s - station.MARKS[0].at_s:+.2f} s from the P read by eye"
            lines.append(f"  P onset      ratio {self.onset['ratio']:g}{late}")
        if self.earthquake is not None:
            lines.append(f"  earthquake   {line_of(self.earthquake)}")
        if (found := self.latency) is not None:
            size = len(bytes.fromhex(found.frame))
            lines.append(
                f"  siren        {found.measured_ms:.2f} ms from the last byte needed to the "
                "siren's first byte (measured, pty to pty)"
            )
            lines.append(
                f"               on a wire the relay closes {found.line_ms():.1f} ms later: {size} "
                "bytes at 9600 baud and the pause that ends them (computed)"
            )
        if self.hub_later_ms is not None:
            lines.append(f"  hub          had the alert {self.hub_later_ms:.0f} ms after that byte")
        if (motion := self.motion) is not None:
            lines.append(
                f"  shaking      intensity 烈度 {motion['intensity']:g}, PGA {motion['pga']:g} "
                f"m/s², PGV {motion['pgv']:g} m/s"
            )
        return lines

    def _rain_lines(self) -> list[str]:
        lines = []
        if self.rainstorm is not None:
            lines.append(f"  rainstorm    {line_of(self.rainstorm)}")
        if self.rain_reached_s is not None:
            lines.append(
                f"               {self.rain_reached_s:.1f} s after the first poll; by the "
                f"recording {station.storm_reaches():.1f} s, and the gauge is asked each 2 s"
            )
        return lines

    # -- on disk ---------------------------------------------------------------------------------

    def record(self) -> Record:
        """For summary.json."""
        found = self.latency
        return {
            "ok": not self.missing,
            "missing": self.missing,
            "seconds": round(self.seconds, 1),
            "latency": found
            and {
                "deciding_sample": found.sample,
                "last_byte_needed_to_first_siren_byte_ms": round(found.measured_ms, 3),
                "frame": found.frame,
                "line_and_pause_computed_ms": round(found.line_ms(), 1),
                "first_siren_byte_to_alert_at_hub_ms": self.hub_later_ms,
            },
            "onset_s": self.onset_s and round(self.onset_s, 3),
            "onset": self.onset,
            "earthquake_at_hub": self.earthquake,
            "ground_motion": self.motion,
            "rain_speed": station.SPEED,
            "rain_reached_s": self.rain_reached_s,
            "rainstorm_at_hub": self.rainstorm,
            "siren_actions": self.sirens,
            "relay": self.edges,
            "hub": self.hub_counts,
        }

    def picture(self) -> Picture:
        """The vertical of the recording, with what was decided and when the relay was closed."""
        rate_hz, began = float(station.RATE_HZ), parse_iso(station.QUAKE_BEGINS)
        counts = played()[0].astype(np.float64)
        times = began + (np.arange(len(counts)) * NS / rate_hz).astype(np.int64)
        values = (counts - counts[0]) / station.COUNTS_PER_MPS2
        ratio = RatioMeter(SeismicSettings(), rate_hz).process(counts)
        moments = [
            Moment(mark.label, began + round(mark.at_s * NS), mark.colour, "--")
            for mark in station.MARKS
        ]
        if self.onset_s is not None:
            at_ns = began + round(self.onset_s * NS)
            moments.append(Moment("onset found by the gateway", at_ns, "tab:orange"))
        stretches = []
        if (found := self.latency) is not None:
            decided_ns = began + round(found.sample * NS / rate_hz)
            label = f"siren, {found.measured_ms:.1f} ms after the last byte needed"
            moments.append(Moment(label, decided_ns, "tab:red"))
            seen_ns = began + round(min(self.seconds, station.QUAKE_S) * NS)
            stretches = self._sounding(decided_ns - found.needed_ns, seen_ns)
        return Picture(
            "South Napa, M 6.0, 24 August 2014, at NP.1765, as the demonstration played it",
            [Row("NP.1765..HNZ", "vertical, m/s²", times, values, ratio)],
            moments,
            stretches,
            zoom=(began + round(ZOOM_S[0] * NS), began + round(ZOOM_S[1] * NS)),
        )

    def _sounding(self, shift_ns: int, end_ns: int) -> list[Stretch]:
        """When the relay was closed; ``shift_ns`` takes the log's clock to the recording's."""
        closed: int | None = None
        stretches = []
        for edge in [*self.edges, {"boottime_ns": end_ns - shift_ns, "on": False}]:
            at_ns = min(edge["boottime_ns"] + shift_ns, end_ns)
            if edge["on"]:
                closed = at_ns
            elif closed is not None:
                stretches.append(Stretch("siren sounds", closed, at_ns))
                closed = None
        return stretches

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write summary.json and earthquake.png into a folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        summary, picture = folder / "summary.json", folder / "earthquake.png"
        summary.write_text(json.dumps(self.record(), ensure_ascii=False, indent=2) + "\n")
        draw(self.picture(), picture)
        return summary, picture


def played() -> Any:
    """The counts that the simulated digitiser plays, shape (channels, n)."""
    source = sources.waveform(station.QUAKE, station.CHANNELS, float(station.RATE_HZ))
    return source.samples(0, round(station.QUAKE_S * station.RATE_HZ))
