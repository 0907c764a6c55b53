"""Recordings as the core takes them: waveforms that obspy reads, and CSV files of readings.

A waveform file becomes, for each NET.STA and sampling rate, a :class:`Waveform`: rows aligned to
the nearest sample of a common grid, each row's own offset kept, missing samples NaN, columns that
no channel has left out. A CSV file becomes a :class:`Series`. Faults are collected, not raised,
so that the rest of a file is still of use.
"""

import csv
import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from gateway.detect.settings import Sensitivity
from gateway.events import NS, Packet, Quality, Quantity, Reading, parse_iso, parse_micro

QUANTITIES = get_args(Quantity)
"""Columns of a readings CSV besides ``time``."""


MAX_FAULTS = 20
"""Faults of one file that are told one by one."""


class RecordingError(ValueError):
    """A file that can't be read at all; says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """One gap-free stretch of one channel, on the grid of its run."""

    row: int
    first: int
    samples: NDArray[Any]
    offset_ns: int

    @property
    def end(self) -> int:
        return self.first + len(self.samples)


@dataclass(frozen=True, slots=True)
class _Run:
    """Pieces whose times touch, on one grid that begins at ``start_ns``."""

    start_ns: int
    pieces: tuple[_Piece, ...]

    @property
    def columns(self) -> int:
        return max(piece.end for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Waveform:
    """All channels of one station with one rate."""

    station: str
    channels: tuple[str, ...]
    rate_hz: float
    runs: tuple[_Run, ...]
    overlaps: tuple[Quality, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.station}@{self.rate_hz:g}"

    @property
    def start_ns(self) -> int:
        return self.runs[0].start_ns

    @property
    def samples(self) -> int:
        """Number of samples over all channels."""
        return sum(len(piece.samples) for run in self.runs for piece in run.pieces)

    def packets(self, size: int) -> Iterator[Packet]:
        """The recording in packets of at most ``size`` columns, in order of time."""
        for run in self.runs:
            yield from self._packets(run, size)

    def _packets(self, run: _Run, size: int) -> Iterator[Packet]:
        rows = len(self.channels)
        for low, high in _covered(run):
            for first in range(low, high, size):
                last = min(first + size, high)
                here = [p for p in run.pieces if p.first < last and p.end > first]
                whole = len(here) == rows and all(p.first <= first and p.end >= last for p in here)
                integer = whole and all(p.samples.dtype.kind == "i" for p in here)
                block: NDArray[Any] = (
                    np.empty((rows, last - first), np.int32)
                    if integer
                    else np.full((rows, last - first), np.nan)
                )
                offsets = [0] * rows
                for p in here:
                    a, b = max(p.first, first), min(p.end, last)
                    block[p.row, a - first : b - first] = p.samples[a - p.first : b - p.first]
                    offsets[p.row] = p.offset_ns
                start_ns = run.start_ns + round(first * NS / self.rate_hz)
                yield Packet(self.name, start_ns, self.rate_hz, block, tuple(offsets))


def _covered(run: _Run) -> Iterator[tuple[int, int]]:
    """Stretches of columns in which at least one channel has samples."""
    low: int | None = None
    high = 0
    for piece in sorted(run.pieces, key=lambda p: p.first):
        if low is None:
            low, high = piece.first, piece.end
        elif piece.first > high:
            yield low, high
            low, high = piece.first, piece.end
        else:
            high = max(high, piece.end)
    if low is not None:
        yield low, high


@dataclass(frozen=True, slots=True)
class Series:
    """Readings of one CSV file, in order of the file."""

    sensor: str
    readings: tuple[Reading, ...]

    @property
    def samples(self) -> int:
        return len(self.readings)


@dataclass(slots=True)
class Recording:
    """What a file held, and what was wrong with it."""

    path: Path
    waveforms: list[Waveform] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read(path: Path) -> Recording:
    """Read a waveform file or a CSV of readings.

    Raises:
        RecordingError: nothing in it can be used.
    """
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from error
    if not head:
        raise RecordingError(f"{path}: empty file; expected a waveform, a capture or a CSV")
    if head.lstrip(b"\xef\xbb\xbf").startswith(b"time,"):
        return read_csv(path)
    return read_waveform(path)


# --- CSV ----------------------------------------------------------------------------------------


def read_csv(path: Path) -> Recording:
    """Readings with a header ``time,<quantity>_<unit>[,…]``; an empty cell is missing, not zero.

    Raises:
        RecordingError: the header names an unknown column, or the file is not text.
    """
    found = Recording(path)
    readings: list[Reading] = []
    skipped: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            columns = [name.strip() for name in next(rows)]
            for number, name in enumerate(columns[1:], 2):
                if name not in QUANTITIES:
                    near = difflib.get_close_matches(name, QUANTITIES, 1)
                    hint = f" (did you mean {near[0]!r}?)" if near else ""
                    text = f"unknown column {name!r}{hint}; there are {', '.join(QUANTITIES)}"
                    raise RecordingError(f"{path}:1: column {number}: {text}")
                if name in columns[: number - 1]:
                    raise RecordingError(f"{path}:1: column {number}: {name!r} is there twice")
            if len(columns) == 1:
                there = ", ".join(QUANTITIES)
                raise RecordingError(f"{path}:1: no column of readings; there are {there}")
            for row in rows:
                if not row:
                    continue
                made, faults = _row(path.stem, columns, row)
                readings += made
                skipped += [f"{path}:{rows.line_num}: {fault}" for fault in faults]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{path}: no readable CSV: {error}") from error
    found.faults += skipped[:MAX_FAULTS]
    if len(skipped) > MAX_FAULTS:
        found.faults.append(f"{path}: {len(skipped) - MAX_FAULTS} faults more like these")
    found.series.append(Series(path.stem, tuple(readings)))
    return found


def _row(sensor: str, columns: list[str], row: list[str]) -> tuple[list[Reading], list[str]]:
    """The readings of a line, and what is wrong with it. A cell at fault counts as missing."""
    if len(row) != len(columns):
        return [], [f"{len(row)} cells; expected {len(columns)}; the line is skipped"]
    try:
        time_ns = parse_iso(row[0].strip())
    except ValueError:
        text = f"{row[0]!r}; expected a time of UTC such as 2026-07-01T08:00:00Z"
        return [], [f"column 'time': {text}; the line is skipped"]
    readings, faults = [], []
    for name, cell in zip(columns[1:], row[1:], strict=True):
        micro = None
        try:
            micro = parse_micro(cell)
        except ValueError as error:
            faults.append(f"column {name!r}: {error}; the cell counts as missing")
        readings.append(Reading(sensor, time_ns, name, micro))
    return readings, faults


# --- waveforms ----------------------------------------------------------------------------------


def read_waveform(path: Path) -> Recording:
    """Any waveform file that obspy reads.

    Raises:
        RecordingError: obspy can't read it, or it holds no samples.
    """
    import obspy  # noqa: PLC0415  heavy, and only needed for waveforms

    try:
        stream = obspy.read(str(path))
    except Exception as error:  # obspy's readers raise whatever their format's parser does
        raise RecordingError(
            f"{path}: no waveform that obspy reads, no capture, and no CSV that begins with "
            f"'time,': {type(error).__name__}: {error}"
        ) from error
    found = Recording(path)
    groups: dict[tuple[str, float], list[Any]] = {}
    for trace in stream:
        rate = round(float(trace.stats.sampling_rate), 6)
        if not trace.stats.npts:
            continue
        if not 0 < rate < 1e5:
            found.faults.append(f"{path}: {trace.id}: sampling rate {rate:g} Hz; left out")
            continue
        station = f"{trace.stats.network}.{trace.stats.station}"
        groups.setdefault((station, rate), []).append(trace)
    if not groups:
        raise RecordingError(f"{path}: holds no samples")
    for (station, rate), traces in sorted(groups.items()):
        found.waveforms.append(_waveform(station, rate, traces))
    return found


def _waveform(station: str, rate_hz: float, traces: list[Any]) -> Waveform:
    channels = tuple(sorted({trace.id for trace in traces}))
    row = {channel: i for i, channel in enumerate(channels)}
    seen_ns: dict[str, int] = {}
    overlaps = []
    runs: list[_Run] = []
    pieces: list[_Piece] = []
    grid_ns = end_ns = 0
    for trace in sorted(traces, key=lambda tr: (tr.stats.starttime.ns, tr.id)):
        samples = _counts(trace.data)
        start_ns = int(trace.stats.starttime.ns)
        period_ns = NS / rate_hz
        late = round((seen_ns.get(trace.id, start_ns) - start_ns) / period_ns)
        if late > 0:
            overlaps.append(Quality(trace.id, "overlap", start_ns, f"{late} samples seen before"))
            samples = samples[late:]
            start_ns += round(late * period_ns)
        if not len(samples):
            continue
        if pieces and start_ns - end_ns > period_ns:
            runs.append(_Run(grid_ns, tuple(pieces)))
            pieces = []
        if not pieces:
            grid_ns, end_ns = start_ns, start_ns
        first = round((start_ns - grid_ns) / period_ns)
        offset_ns = start_ns - grid_ns - round(first * period_ns)
        pieces.append(_Piece(row[trace.id], first, samples, offset_ns))
        seen_ns[trace.id] = start_ns + round(len(samples) * period_ns)
        end_ns = max(end_ns, seen_ns[trace.id])
    runs.append(_Run(grid_ns, tuple(pieces)))
    return Waveform(station, channels, rate_hz, tuple(runs), tuple(overlaps))


def _counts(data: NDArray[Any]) -> NDArray[Any]:
    """Counts as int32 where they are that, else float64 with masked samples as NaN."""
    if isinstance(data, np.ma.MaskedArray):
        return np.ma.filled(data.astype(np.float64), np.nan)
    if data.dtype.kind == "i" and data.dtype.itemsize <= 4:
        return data.astype(np.int32, copy=False)
    return data.astype(np.float64, copy=False)


# --- sensitivities ------------------------------------------------------------------------------

_TO_METRE = {
    "M/S": ("m/s", 1.0),
    "M/S**2": ("m/s**2", 1.0),
    "M/S/S": ("m/s**2", 1.0),
    "CM/S": ("m/s", 100.0),
    "CM/S**2": ("m/s**2", 100.0),
    "NM/S": ("m/s", 1e9),
    "NM/S**2": ("m/s**2", 1e9),
}


@dataclass(frozen=True, slots=True)
class _Epoch:
    """A sensitivity and the time for which it holds, ns of UTC; None where it has no end."""

    begin_ns: int | None
    end_ns: int | None
    sensitivity: Sensitivity


class Inventory:
    """Sensitivities by NET.STA.LOC.CHA and time."""

    def __init__(self, epochs: dict[str, list[_Epoch]]) -> None:
        self._epochs = epochs

    def get(self, channel: str, time_ns: int) -> Sensitivity | None:
        """The sensitivity that held at that time; the newest where epochs overlap."""
        found = None
        for epoch in self._epochs.get(channel, []):
            begun = epoch.begin_ns is None or epoch.begin_ns <= time_ns
            if begun and (epoch.end_ns is None or time_ns < epoch.end_ns):
                found = epoch.sensitivity
        return found


def read_inventory(path: Path) -> Inventory:
    """Overall sensitivities from a StationXML file, each with its epoch.

    Raises:
        RecordingError: obspy can't read it, or no channel has a usable sensitivity.
    """
    import obspy  # noqa: PLC0415  heavy, and only needed for waveforms

    try:
        inventory = obspy.read_inventory(str(path))
    except Exception as error:  # obspy's readers raise whatever their format's parser does
        raise RecordingError(f"{path}: no inventory that obspy reads: {error}") from error
    found: dict[str, list[_Epoch]] = {}
    for network in inventory:
        for station in network:
            for channel in station:
                sensitivity = _sensitivity(channel)
                if sensitivity is not None:
                    name = f"{network.code}.{station.code}.{channel.location_code}.{channel.code}"
                    begin, end = (t and int(t.ns) for t in (channel.start_date, channel.end_date))
                    found.setdefault(name, []).append(_Epoch(begin, end, sensitivity))
    if not found:
        raise RecordingError(f"{path}: no channel with a sensitivity to velocity or acceleration")
    for epochs in found.values():
        epochs.sort(key=lambda epoch: epoch.begin_ns or 0)
    return Inventory(found)


def _sensitivity(channel: Any) -> Sensitivity | None:
    overall = channel.response and channel.response.instrument_sensitivity
    if not overall or not overall.value:
        return None
    unit, factor = _TO_METRE.get(str(overall.input_units).upper(), ("", 0.0))
    if not unit:
        return None
    return Sensitivity(abs(float(overall.value)) * factor, unit)  # type: ignore[arg-type]  # from the table
