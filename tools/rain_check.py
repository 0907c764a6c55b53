#!/usr/bin/env python3
"""Are the level times of a replay those of exact integer arithmetic, to the reading?

``make rain-check`` runs it over every rain series of the tree and of the corpus (GATEWAY_CORPUS),
and over a made one that reaches red, under every shipped rain scale. Nothing of the product's code
is used but the command itself: ``gateway replay --json`` on one side; on the other a scale read by
``tomllib``, decimal text turned into whole nanometres, and sums over all readings of each window,
in plain Python integers.

A level of a scale (docs/readings.md says the same in words):

* is reached at a reading that is not missing, when the sum over (t − window, t] of one of its
  conditions is at or above the threshold and there was rain within ``continuing_min``;
* ends when the sums of all its conditions have been below 90 % of their thresholds for 60 minutes;
  a sum also falls when a reading leaves its window, between readings;
* is told when the highest that stands changes.
"""

import csv
import json
import subprocess
import sys
import tempfile
import tomllib
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import Any

NS = 10**9
GATEWAY = (str(Path(sys.executable).with_name("gateway")),)
LEVELS = ("blue", "yellow", "orange", "red")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[1]
SCALES = ROOT / "gateway" / "detect" / "scales"

Told = tuple[str, str, float, int]
"""Time, level, window in h, sum in nm."""


def read_series(path: Path) -> list[tuple[int, int | None]]:
    """(end in ns, nm or None) of each line of a CSV ``time,rain_mm``."""
    with path.open(encoding="utf-8") as file:
        rows = csv.reader(file)
        if next(rows) != ["time", "rain_mm"]:
            raise ValueError(f"{path}: expected the header time,rain_mm")
        return [(_ns(time), _nm(cell)) for time, cell in rows]


def _ns(text: str) -> int:
    passed = datetime.fromisoformat(text) - EPOCH
    return (passed.days * 86_400 + passed.seconds) * NS + passed.microseconds * 1000


def _nm(cell: str) -> int | None:
    return int(Decimal(cell) * 10**6) if cell else None


def iso(ns: int) -> str:
    """UTC as the replay writes it."""
    moment = EPOCH + timedelta(microseconds=(ns + 500) // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class LongWay:
    """The levels of a series under a scale (the parsed TOML), by sums over all its readings."""

    def __init__(self, scale: dict[str, Any], series: Sequence[tuple[int, int | None]]) -> None:
        self._hold = scale["end"]["hold_min"] * 60 * NS
        self._continuing = scale["scale"].get("continuing_min", 0) * 60 * NS
        fraction = Decimal(str(scale["end"]["fraction"]))
        self._steps = {
            level: [
                (window_h * 3600 * NS, at_least * 10**6, at_least * 10**6 * fraction)
                for condition in scale["level"][level]["any"]
                for window_h, at_least in [(condition["window_h"], condition["at_least"])]
            ]
            for level in LEVELS
            if level in scale["level"]
        }
        self._ends = [t for t, _ in series]
        self._running = [0, *accumulate(nm or 0 for _, nm in series)]
        self._wet = [t for t, nm in series if nm]
        self._present = {t for t, nm in series if nm is not None}
        windows = {window for step in self._steps.values() for window, _, _ in step}
        far = [self._ends[-1] + 10**15] if series else []
        self._moments = sorted(
            {*self._ends, *(t + window for t in self._wet for window in windows), *far}
        )

    def _sum(self, window: int, t: int, *, before: bool = False) -> int:
        """Rain in (t − window, t]; just before t it is what ended earlier than t."""
        last = bisect_right(self._ends, t - 1 if before else t)
        first = bisect_right(self._ends, t - window)
        return self._running[max(first, last)] - self._running[first]

    def _may_rise(self, t: int) -> bool:
        wet = bisect_right(self._wet, t)
        rained = wet > 0 and t - self._wet[wet - 1] < self._continuing
        return t in self._present and (rained or not self._continuing)

    def _spans(self, level: str) -> list[tuple[int, int, int]]:
        """(begin, end, window that reached it) of each time that the level stood."""
        found, begin, by, below = [], None, 0, None
        for t in self._moments:
            sums = [self._sum(window, t) for window, _, _ in self._steps[level]]
            rows = list(zip(sums, self._steps[level], strict=True))
            if begin is not None and below is not None and below + self._hold <= t:
                found.append((begin, below + self._hold, by))
                begin = None
            reached = [window for total, (window, at_least, _) in rows if total >= at_least]
            if begin is None and reached and self._may_rise(t):
                begin, by, below = t, reached[0], None
            elif any(total >= bound for total, (_, _, bound) in rows):
                below = None
            elif below is None:
                below = t
        return found

    def levels(self) -> list[Told]:
        """What is to be told, in order of time."""
        turns: dict[tuple[int, bool], dict[str, int]] = {}
        for level in self._steps:
            for begin, end, window in self._spans(level):
                turns.setdefault((begin, True), {})[level] = window
                turns.setdefault((end, False), {})[level] = window
        standing: dict[str, int] = {}
        told: list[Told] = []
        for (t, rises), those in sorted(turns.items()):
            before = max(standing, key=LEVELS.index, default="none")
            if rises:
                standing |= those
            else:
                standing = {k: v for k, v in standing.items() if k not in those}
            level = max(standing, key=LEVELS.index, default="none")
            if level != before:
                ended = max(those, key=LEVELS.index)
                window = standing[level] if standing else those[ended]
                value = self._sum(window, t, before=not rises)
                told.append((iso(t), level, window / 3600 / NS, value))
        return told


def replayed(path: Path, scale: Path) -> list[Told]:
    """What ``gateway replay --json`` says of a file under one scale."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.toml"
        config.write_text(
            '[station]\nid = "rain-check"\ncity = "x"\nlatitude = 0.0\nlongitude = 0.0\n'
            + _scales(scale)
        )
        done = subprocess.run(  # noqa: S603  the command beside this interpreter
            [*GATEWAY, "replay", "--json", "--config", config, path],
            capture_output=True,
            text=True,
            check=True,
        )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        (r["time"], r["level"], float(r["window_h"]), round(r["value"] * 10**6))
        for r in records
        if r["type"] == "level"
    ]


def _scales(scale: Path) -> str:
    """The table [scales] that puts this one in force and no other."""
    hazard = tomllib.loads(scale.read_text())["scale"]["hazard"]
    hazards = ("rainstorm", "flood", "typhoon", "air_pollution", "fire")
    rows = (f'{h} = ["{scale.stem}"]' if h == hazard else f"{h} = []" for h in hazards)
    return "[scales]\n" + "\n".join(rows) + "\n"


def cloudbursts(path: Path) -> Path:
    """Two days by the minute with bursts up to 3 mm a minute, dry hours and missing cells."""
    lines, state = ["time,rain_mm"], 1
    for minute in range(2880):
        state = (state * 1_103_515_245 + 12_345) % 2**31
        burst = minute % 900 < 150
        cell = f"{(state >> 8) % 3000 / 1000 if burst else 0:g}"
        if (state >> 4) % 97 == 0:
            cell = ""
        lines.append(f"{iso(minute * 60 * NS)},{cell}")
    path.write_text("\n".join(lines) + "\n")
    return path


def rain_scales() -> list[Path]:
    """Every shipped scale of rain."""
    return [p for p in sorted(SCALES.glob("*.toml")) if "rain_mm" in p.read_text()]


def main(folders: Sequence[str]) -> int:
    """Compare, a line a series and scale; 1 if any differs."""
    wrong = count = told = 0
    folder_made = tempfile.TemporaryDirectory()
    paths = sorted(p for folder in folders for p in Path(folder).glob("*.csv"))
    for path in [cloudbursts(Path(folder_made.name) / "cloudbursts.csv"), *paths]:
        series = read_series(path)
        for scale in rain_scales():
            expected = LongWay(tomllib.loads(scale.read_text()), series).levels()
            found = replayed(path, scale)
            # A recording ends where it ends: what would end later is not told by a replay.
            expected = [e for e in expected if e[0] <= iso(series[-1][0])]
            same = found == expected
            wrong, count, told = wrong + (not same), count + 1, told + len(expected)
            verdict = "equal" if same else f"DIFFERS\n  {found}\n  {expected}"
            print(f"{path.name} {scale.stem}: {len(expected)} level changes, {verdict}")  # noqa: T201  its output
    print(f"{count} runs, {told} level changes, {wrong} differ")  # noqa: T201  likewise
    folder_made.cleanup()
    return 1 if wrong or not told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
