#!/usr/bin/env python3
"""Makes the scenarios of gateway/drill/data: readings of events that no recording here holds.

``python tools/scenarios.py gateway/drill/data`` writes them again, byte for byte. They are made up
to the physics that is stated beside each, not measured; the README of that folder says so.
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import exp, sqrt
from pathlib import Path
from random import Random

START = datetime(2026, 7, 1, tzinfo=UTC)


def write(path: Path, quantity: str, rows: Iterator[tuple[float, str]]) -> None:
    """A CSV of readings; times in seconds after :data:`START`."""
    lines = [f"time,{quantity}"]
    for second, value in rows:
        at = START + timedelta(seconds=second)
        lines.append(f"{at.isoformat().removesuffix('+00:00')}Z,{value}")
    path.write_text("\n".join(lines) + "\n")


def between(points: Sequence[tuple[float, float]], at: float) -> float:
    """Linear interpolation."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= at <= x1:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return points[-1][1]


def gale() -> Iterator[tuple[float, str]]:
    """20 min at 1 s: the mean wind rises from 6 to 31 m/s and falls.

    Turbulence is a first-order autoregression with an intensity of 0.15 and a time scale of 5 s,
    which is that of open country at 10 m.
    """
    random = Random(1)  # noqa: S311  turbulence, no secret
    mean = [(0, 6.0), (120, 8.0), (480, 24.0), (720, 31.0), (840, 31.0), (1200, 9.0)]
    memory = exp(-1 / 5.0)
    u = 0.0
    for second in range(1201):
        u = memory * u + sqrt(1 - memory * memory) * random.gauss(0, 1)
        wind = between(mean, second) * (1 + 0.15 * u)
        yield second, f"{max(wind, 0):.2f}"


def flood() -> Iterator[tuple[float, str]]:
    """4 h at 1 min: base flow, then a flash flood that rises 3.4 m within 80 min and recedes.

    The wave has the form of a gamma distribution, h = H (x e^(1−x))^m with x = t/T, as unit
    hydrographs have; H 3.4 m, T 80 min, m 3. The base is 511.20 m, a level of no real place.
    """
    for minute in range(241):
        x = max(minute - 30, 0) / 80
        yield minute * 60, f"{511.2 + 3.4 * (x * exp(1 - x)) ** 3:.3f}"


def particles() -> Iterator[tuple[float, str]]:
    """60 h at 1 h: clean air, 30 h of stagnation at 260 to 380 µg/m³, and a cold front."""
    mean = [(0, 28.0), (6, 35.0), (14, 260.0), (30, 380.0), (44, 300.0), (47, 22.0), (60, 15.0)]
    for hour in range(61):
        yield hour * 3600, f"{between(mean, hour):.1f}"


def fire() -> Iterator[tuple[float, str]]:
    """A panel's relay: it chatters 0.3 s at 60 s, closes at 120 s, and is reset at 300 s."""
    yield from [(0, "0"), (60, "1"), (60.3, "0"), (120, "1"), (300, "0"), (420, "0")]


def main(folder: Path) -> None:
    """Write them all."""
    write(folder / "scenario_gale.csv", "wind_mps", gale())
    write(folder / "scenario_flood.csv", "water_level_m", flood())
    write(folder / "scenario_particles.csv", "pm25_ugm3", particles())
    write(folder / "scenario_fire.csv", "contact", fire())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
