"""Recordings that are not part of the project: found by GATEWAY_CORPUS or beside the checkout."""

import json
import os
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from numpy.typing import NDArray

from gateway.events import NS

ROOT = Path(
    os.environ.get("GATEWAY_CORPUS", Path(__file__).parents[2].parent / "shared" / "corpus")
)

needs_corpus = pytest.mark.skipif(
    not (ROOT / "manifest.json").exists(),
    reason="no recordings: set GATEWAY_CORPUS to their folder",
)


@dataclass(frozen=True, slots=True)
class Recording:
    """Channels of one sensor, aligned; counts of shape (channels, n), NaN where missing."""

    channels: tuple[str, ...]
    rate_hz: float
    start_ns: int
    counts: NDArray[np.float64]

    def time_ns(self, column: int) -> int:
        return self.start_ns + round(column * NS / self.rate_hz)


def read(name: str, station: str = "*") -> list[Recording]:
    """All sensors of a recording whose file begins with ``name``."""
    stream = obspy.read(str(next(ROOT.glob(f"{name}*.mseed"))))
    stream = stream.select(station=station).merge(method=1, fill_value=None)
    groups: dict[tuple[str, float], list[Any]] = {}
    for trace in stream.sort():
        groups.setdefault((trace.id[:-1], trace.stats.sampling_rate), []).append(trace)
    recordings = []
    for (_, rate_hz), traces in groups.items():
        start = min(t.stats.starttime for t in traces)
        end = max(t.stats.endtime for t in traces)
        for trace in traces:
            trace.trim(start, end, pad=True)
        n = min(len(trace) for trace in traces)
        counts = [np.ma.filled(t.data[:n].astype(np.float64), np.nan) for t in traces]
        recordings.append(
            Recording(tuple(t.id for t in traces), rate_hz, start.ns, np.array(counts))
        )
    return recordings


@cache
def manifest() -> list[dict[str, Any]]:
    """What is known of each recording, its reference picks among it."""
    records: list[dict[str, Any]] = json.loads((ROOT / "manifest.json").read_text())["records"]
    return records


def references(name: str) -> list[dict[str, Any]]:
    """Reference picks of the recording whose name begins so."""
    found: list[dict[str, Any]] = next(
        r["references"] for r in manifest() if r["name"].startswith(name)
    )
    return found


@cache
def counts_per_unit(channel: str) -> float:
    """Sensitivity of a channel of the Napa recordings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two epochs with one and the same sensitivity
        inventory = obspy.read_inventory(str(ROOT / "d08_napa_2014.station.xml"))
        at = obspy.UTCDateTime("2014-08-24T10:20:44")
        return float(inventory.get_response(channel, at).instrument_sensitivity.value)
