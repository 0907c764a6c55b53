"""How long the gateway took from the last byte that a decision needed to the siren's first byte.

Both ends are times of CLOCK_BOOTTIME from the simulators' logs (:mod:`gateway.drill.stage`):

=============  ==================================================================================
``needed_ns``  the digitiser's simulator is about to write the last byte of the scan that held the
               deciding sample
``heard_ns``   the relay's simulator has read the first byte of the frame that closed its relay
=============  ==================================================================================

A pseudo-terminal passes bytes at once. On a wire the frame's own bytes follow one another at the
line's speed and a Modbus board waits out the pause that ends a frame; :attr:`Latency.line_ms` says
how long that takes, and is not measured.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.drill.stage import LINE_BITS
from gateway.drivers.rpi_seism import DATA

MODBUS_PAUSE_CHARACTERS = 3.5


@dataclass(frozen=True, slots=True)
class Latency:
    """One decision: its sample, counted in scans from the first, and the two moments."""

    sample: int
    needed_ns: int
    heard_ns: int
    frame: str

    @property
    def measured_ms(self) -> float:
        """From the last byte needed to the first byte at the relay."""
        return (self.heard_ns - self.needed_ns) / 1e6

    def line_ms(self, baud: int = 9600) -> float:
        """What a wire and a Modbus board add until the relay closes, by calculation."""
        characters = len(bytes.fromhex(self.frame)) + MODBUS_PAUSE_CHARACTERS
        return characters * LINE_BITS * 1000 / baud


def place(recording: NDArray[np.int32], block: NDArray[np.int32]) -> int | None:
    """Which sample of a recording, shape (channels, n), a block of it begins with."""
    width = block.shape[1]
    starts = np.flatnonzero((recording == block[:, :1]).all(axis=0))
    for start in starts.tolist():
        if np.array_equal(recording[:, start : start + width], block):
            return int(start)
    return None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a simulator's log; none where there is no file yet."""
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines]


def measure(
    samples: Sequence[int],
    decided_ns: int,
    sensor: Iterable[dict[str, Any]],
    relay: Iterable[dict[str, Any]],
) -> Latency | None:
    """The latency of a decision, from both logs; None where they do not hold it.

    ``samples`` are the scans that may have decided: two neighbours where a moment falls on a
    sample to the rounding of stated times. Then it was the later one if that was on its way when
    the core decided, at ``decided_ns``.
    """
    closing = next((line for line in relay if line["on"] and "heard_ns" in line), None)
    scans = before = 0
    written: dict[int, int] = {}
    for line in sensor:
        first = scans
        scans += (line["sent"] - before) // DATA.size  # what is left over echoes settings
        before = line["sent"]
        written |= {n: line["boottime_ns"] for n in samples if first <= n < scans}
    possible = [n for n in samples if n in written and written[n] <= decided_ns]
    if closing is None or not possible:
        return None
    sample = max(possible)
    return Latency(sample, written[sample], closing["heard_ns"], closing["frame"])
