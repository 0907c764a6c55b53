"""The noise of each channel against Peterson's models, told to the hub once an hour.

A sink of the feed's packets; ``gateway.detect.noise`` does the arithmetic, in numpy alone. It
holds ten minutes of samples a channel and a day of short spectra; a restart begins anew. What it
sends is the record ``noise``:

=================  =============================================================================
channel            NET.STA.LOC.CHA
unit               ``dB (m/s²)²/Hz``, or ``dB counts²/Hz`` without a sensitivity
frequencies_hz     half an octave apart; each value is the mean over the octave around it
p10_db, p50_db,    percentiles over the segments of the last 24 h at most
p90_db
above_high_db      of the median over NHNM where it is worst; null without a sensitivity
below_low_db       likewise under NLNM: a dead sensor, or a wrong sensitivity
segments           of ten minutes, that went in
completeness       of samples since the last such record
gaps               in that time
verdict            for people
=================  =============================================================================
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from gateway.core.feed_client import packet_samples
from gateway.detect.noise import NoiseMonitor
from gateway.detect.settings import Sensitivity
from gateway.events import NS, iso, parse_iso
from gateway.uplink.sink import Item, Sink


class Noise(Sink):
    """Spectra of all channels that come by."""

    gather_s: ClassVar[float] = 5.0

    def __init__(self, interval_s: float) -> None:
        super().__init__("noise")
        self._interval_ns = round(interval_s * NS)
        self._monitors: dict[str, NoiseMonitor] = {}
        self._told: dict[str, int] = {}

    def wants(self, item: Item) -> bool:
        return "packet" in item

    def work(self, items: Sequence[Item]) -> float | None:
        for item in items:
            self._packet(item["packet"])
        return None

    def _packet(self, packet: dict[str, Any]) -> None:
        start_ns, rate_hz = parse_iso(packet["start"]), float(packet["rate_hz"])
        known = packet.get("sensitivities") or [None] * len(packet["channels"])
        rows = packet_samples(packet)
        for channel, text, samples in zip(packet["channels"], known, rows, strict=True):
            sensitivity = Sensitivity.parse(text) if text else None
            monitor = self._monitors.get(channel)
            if monitor is None or (monitor.rate_hz, monitor.sensitivity) != (rate_hz, sensitivity):
                monitor = self._monitors[channel] = NoiseMonitor(channel, rate_hz, sensitivity)
            monitor.add(np.ascontiguousarray(samples), start_ns)
            turn = start_ns // self._interval_ns
            if self._told.setdefault(channel, turn) != turn and (found := monitor.report()):
                self._told[channel] = turn
                self.publish({"type": "noise", "time": iso(start_ns), **found})
