"""The archive's processor time: three channels at 100 Hz for an hour, records as they fill.

Reference: obspy writing the same hour with one call a channel, in the same run, by turns. The
archive takes the core's feed as it comes, a packet of half a second of all channels each, two
seconds together (that is how its sink gathers); parsing the feed's JSON is the uplink's and not in
it, unpacking the samples is. Syncing and the quality log are in it.
"""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import obspy

from bench.report import Result
from gateway.core.feed import packet_body
from gateway.events import NS, Packet
from gateway.uplink.archive import Archive
from gateway.uplink.config import ArchiveConfig

CHANNELS = ("XX.DEMO..EHZ", "XX.DEMO..EHN", "XX.DEMO..EHE")
RATE_HZ = 100
BEGIN_NS = 1_795_660_200 * NS
CLOCK = {"state": "synchronised", "uncertainty_s": 0.004, "steps": 0}


def samples(seconds: int) -> Any:
    steps = np.random.default_rng(1).normal(0, 30, (len(CHANNELS), seconds * RATE_HZ))
    return np.cumsum(steps, axis=1).astype(np.int32)


def items(rows: Any) -> list[dict[str, Any]]:
    """The feed of it; stamps drift as those of a crystal 20 ppm off do."""
    found = []
    for first in range(0, rows.shape[1], RATE_HZ // 2):
        start_ns = BEGIN_NS + round(first * NS / RATE_HZ * (1 + 20e-6))
        packet = Packet("seis1", start_ns, RATE_HZ, rows[:, first : first + RATE_HZ // 2])
        found.append(json.loads(packet_body(packet, CHANNELS, 0, clock=CLOCK)))
    return found


def archive_s(feed: list[dict[str, Any]], folder: Path) -> float:
    now_s = 0.0
    archive = Archive(ArchiveConfig(str(folder), reserve_mb=0), now_s=lambda: now_s)
    begin = time.process_time()
    for first in range(0, len(feed), 4):
        now_s += 2.0
        archive.work(feed[first : first + 4])
    archive.finish()
    return time.process_time() - begin


def obspy_s(rows: Any, folder: Path) -> float:
    folder.mkdir()
    begin = time.process_time()
    for channel, row in zip(CHANNELS, rows, strict=True):
        network, station, location, code = channel.split(".")
        head = {"network": network, "station": station, "location": location, "channel": code}
        trace = obspy.Trace(row, header={**head, "sampling_rate": RATE_HZ})
        trace.write(str(folder / code), format="MSEED", encoding="STEIM2", reclen=512)
    return time.process_time() - begin


def run(quick: bool = False) -> list[Result]:
    """Least time of each, by turns."""
    seconds, rounds = (120, 1) if quick else (3600, 7)
    rows = samples(seconds)
    feed = items(rows)
    place = Path(tempfile.mkdtemp(prefix="archive-"))
    mine, theirs = [], []
    try:
        obspy_s(rows, place / "first")  # what is imported on first use is not timed
        for turn in range(rounds):
            mine.append(archive_s(feed, place / f"archive{turn}"))
            theirs.append(obspy_s(rows, place / f"obspy{turn}"))
        size = sum(x.stat().st_size for x in (place / "archive0").rglob("*.D.*"))
        other = sum(x.stat().st_size for x in (place / "obspy0").iterdir())
    finally:
        shutil.rmtree(place)
    took = f"{min(mine):.3f} s of CPU an hour, obspy {min(theirs):.4f} s"
    return [
        Result(
            "archive / one obspy call an hour a channel",
            min(mine) / min(theirs),
            "×",
            30,
            note=took,
        ),
        Result("archive's size / obspy's", size / other, "×", note="the same records"),
    ]
