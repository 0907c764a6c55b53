"""Packets as the core's feed gives them, for the archive and what lives on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.core.feed import packet_body
from gateway.events import NS, Packet, parse_iso
from gateway.uplink.archive import Archive
from gateway.uplink.config import ArchiveConfig, WaveformsConfig

CHANNELS = ("XX.DEMO..EHZ", "XX.DEMO..EHN", "XX.DEMO..EHE")
SURE = {"state": "synchronised", "uncertainty_s": 0.004, "steps": 0}
BEGIN_NS = parse_iso("2026-11-26T03:00:00.123456Z")


def noise(seconds: float, rate_hz: float = 100.0, seed: int = 1) -> NDArray[np.int32]:
    """Ground noise of three channels, counts."""
    steps = np.random.default_rng(seed).normal(0, 30, (3, round(seconds * rate_hz)))
    found: NDArray[np.int32] = np.cumsum(steps, axis=1).astype(np.int32)
    return found


def packets(
    samples: NDArray[Any],
    begin_ns: int = BEGIN_NS,
    rate_hz: float = 100.0,
    columns: int = 50,
    clock: dict[str, Any] | None = SURE,
    channels: tuple[str, ...] = CHANNELS,
) -> list[dict[str, Any]]:
    """Samples of shape (channels, n) in items of the feed."""
    return [
        json.loads(
            packet_body(
                Packet(
                    "seis1",
                    begin_ns + round(first * NS / rate_hz),
                    rate_hz,
                    samples[:, first : first + columns],
                ),
                channels,
                0,
                clock=clock,
            )
        )
        for first in range(0, samples.shape[1], columns)
    ]


class Desk:
    """An archive whose thread is the test, and whose time the test drives."""

    def __init__(
        self, root: Path, waveforms: WaveformsConfig | None = None, **settings: Any
    ) -> None:
        self.now_s = 0.0
        settings = {"reserve_mb": 0, **settings}
        config = ArchiveConfig(str(root), **settings)
        self.archive = Archive(config, waveforms, now_s=lambda: self.now_s)
        self.said: list[tuple[str, str, str]] = []
        self.published: list[dict[str, Any]] = []

    def take(self, items: list[dict[str, Any]], turn: int = 4) -> None:
        """Items as they come, two seconds of packets a turn."""
        for first in range(0, len(items), turn):
            self.now_s += 2.0
            self.work(items[first : first + turn])

    def work(self, items: list[dict[str, Any]] | None = None) -> float | None:
        wait_s = self.archive.work(items or [])
        self.said += [(x.state, x.kind, x.detail) for x in self.archive.faults()]
        self.published += [dict(x.record) for x in self.archive.published()]
        return wait_s

    def wait(self, seconds: float) -> None:
        """Nothing comes for so long; the archive is asked as often as it wants to be."""
        end_s = self.now_s + seconds
        wait_s = self.work()
        while wait_s is not None and self.now_s + wait_s < end_s:
            self.now_s += wait_s
            wait_s = self.work()
        self.now_s = end_s
        self.work()

    def finish(self) -> None:
        self.archive.finish()
        self.said += [(x.state, x.kind, x.detail) for x in self.archive.faults()]

    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.said]
