#!/usr/bin/env python3
"""Detection on recordings with analysts' picks that the detector was not made with.

Usage: .venv/bin/python tools/validate_detection.py FOLDER

FOLDER holds ``NET_STA_….npz`` files, each with ``data`` (samples, 3) at 100 Hz, ``itp`` and ``its``
(samples of the P and S picks) and ``channels`` (codes joined by ``_``): the form of the sample set
that comes with PhaseNet (``dataset/waveform_train``, MIT licence; northern California, 1986–2017).
A pick is clear where the energy between 1 and 10 Hz in the second after it is tenfold that of the
5 s before on some component. Prints what docs/detection.md states.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from gateway.detect import SeismicDetector
from gateway.detect.filters import BlockFilter, StateSpace, butterworth
from gateway.events import NS, Onset, Rejected

RATE_HZ = 100.0
PACKET = 25
CLEAR_DB = 10.0
EARLY_S, LATE_S, IN_TIME_S = 0.5, 1.0, 2.0


def snr_db(counts: np.ndarray, pick: int) -> float:
    band = BlockFilter(StateSpace.of(butterworth(2, 1.0, 10.0, RATE_HZ)), len(counts))
    energy = band.process(counts)[0] ** 2
    after = energy[:, pick : pick + 100].mean(axis=1)
    before = energy[:, pick - 500 : pick - 20].mean(axis=1)
    return float(10.0 * np.log10(after / np.maximum(before, 1e-30)).max())


def decisions(counts: np.ndarray, channels: list[str]) -> list[Onset | Rejected]:
    detector = SeismicDetector(channels, RATE_HZ)
    return [
        d
        for at in range(0, counts.shape[1], PACKET)
        for d in detector.process(counts[:, at : at + PACKET], round(at * NS / RATE_HZ))
        if isinstance(d, Onset | Rejected)
    ]


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    files = sorted(folder.glob("*.npz")) if folder else []
    if not files:
        sys.exit("name the folder of the .npz files (see the first lines of this tool)")
    picks: Counter[str] = Counter()
    found: Counter[str] = Counter()
    errors: list[float] = []
    delays: list[float] = []
    earlier: list[str] = []
    lines: list[str] = []
    hours = 0.0
    for path in files:
        with np.load(path) as record:
            counts, pick = record["data"].T.astype(float), int(record["itp"])
            codes = str(record["channels"]).split("_")
        rows = [k for k in range(3) if np.ptp(counts[k]) > 0]
        counts = counts[rows]
        codes = codes if len(codes) == len(rows) else ["HHE", "HHN", "HHZ"][-len(rows) :]
        name = ".".join(path.stem.split("_")[:2])
        said = decisions(counts, [f"{name}..{code}" for code in codes])
        kind = "clear" if snr_db(counts, pick) >= CLEAR_DB else "weak"
        picks[kind] += 1
        hours += len(rows) * pick / RATE_HZ / 3600.0
        onsets = [
            (d.time_ns / NS - pick / RATE_HZ, d.declared_ns / NS - pick / RATE_HZ)
            for d in said
            if isinstance(d, Onset)
        ]
        earlier += [f"{path.stem} {t:+.1f} s" for t, _ in onsets if t < -1.0]
        hits = [o for o in onsets if -EARLY_S <= o[0] <= LATE_S and o[1] <= IN_TIME_S]
        if hits:
            found[kind] += 1
            if kind == "clear":
                nearest = min(hits, key=lambda o: abs(o[0]))
                errors.append(abs(nearest[0]))
                delays.append(nearest[1])
        elif kind == "clear":
            reasons = [d.reason for d in said if isinstance(d, Rejected)]
            lines.append(f"missed: {path.stem}, rejected: {', '.join(reasons) or 'nothing'}")
    for kind, all_ in picks.items():
        lines.append(f"{kind}: {found[kind]}/{all_}")
    error, delay = (np.quantile(values, [0.5, 0.9]) for values in (errors, delays))
    lines.append(f"onset error of clear picks: median {error[0]:.2f} s, 90 % {error[1]:.2f} s")
    lines.append(f"P to declared: median {delay[0]:.2f} s, 90 % {delay[1]:.2f} s")
    lines.append(f"onsets before the P in {hours:.1f} channel-hours: {len(earlier)}")
    sys.stdout.write("\n".join(lines + earlier) + "\n")


if __name__ == "__main__":
    main()
