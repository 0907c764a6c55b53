"""A day of a station in fast motion, with all that can go wrong in it: what is missing at its end?

``python -m tests.uplink.day`` (``make day``) prints what was done and what came of it, and exits
with 1 if the hub's record is not the core's journal, item for item, if the time-series database
lacks a minute, or if the archive overlaps or lacks a sample.

Real are: the core (its shell, engine, journal and feed; see ``tests.uplink.fast_core`` for what is
not as on a station), the uplink with outbox, database sink and archive, mosquitto with
certificates, the hub, VictoriaMetrics.

=========  ======================================================================================
at         what happens
=========  ======================================================================================
any time   the uplink is killed (SIGKILL), 200 times
20 %       the broker is killed and stays away for 4 % of the day (an hour)
30 %       an earthquake
40 %       the broker is frozen for as long as the uplink needs to leave it, and 1 % of the day
45 %       the database is stopped for 4 % (killed, it would lose what it had acknowledged last)
50 %       the station's certificate is replaced
55 %       a storm begins
60 %       the broker is killed again
75 %       the disk of the outbox is full for 1 % (root only)
=========  ======================================================================================

A station's day has 86,400 seconds, in which an uplink that is killed is back before the core has
forgotten what it missed. Here a second is a few milliseconds, so time goes no further than
``AHEAD_S`` beyond what the archive holds: less than the core remembers, more than an uplink needs
to come back. Kills fall where they fall, also upon an uplink that has only just begun.
"""

import argparse
import json
import os
import random
import selectors
import signal
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import obspy

from gateway.core.feed_client import FeedClient, FeedError
from gateway.events import NS
from gateway.hub.broker import Broker, find_program, free_port
from gateway.hub.hub import Hub, Message
from gateway.uplink import config as settings
from gateway.uplink.config import ArchiveConfig, InfluxConfig, UplinkConfig
from gateway.uplink.messages import RETAINED
from gateway.uplink.mseed import RECORD_BYTES, read_header
from gateway.uplink.service import now
from tests.station_toml import STATION, instruments
from tests.uplink.authority import Authority
from tests.uplink.disk import Disk, disk_or_none
from tests.uplink.fast_core import RAIN_EVERY_S, START_NS
from tests.uplink.processes import Processes

SOURCE = "/eew/demo/cn-demo-001"
PATIENCE_S = 300.0
AHEAD_S = 600.0
"""The core remembers 20 minutes of this station's packets."""
DISK_SIZE = "24m"
SIREN = """
[[siren]]
name = "main"
profile = "virtual-siren"
"""


@dataclass(slots=True)
class Outcome:
    """What came of the day."""

    done: list[str] = field(default_factory=list)
    records: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    repeated: int = 0
    minutes: int = 0
    minutes_wanted: int = 0
    incomplete: int = 0
    rain: int = 0
    rain_wanted: int = 0
    samples: int = 0
    samples_wanted: int = 0
    overlaps: int = 0
    gaps: int = 0
    elapsed_s: float = 0.0

    @property
    def good(self) -> bool:
        return (
            not self.lost
            and not self.changed
            and self.minutes == self.minutes_wanted
            and not self.incomplete
            and self.rain == self.rain_wanted
            and not self.overlaps
            and self.samples == self.samples_wanted
        )

    def text(self) -> str:
        types = ", ".join(f"{count} {name}" for name, count in sorted(self.by_type.items()))
        lines = [f"{self.elapsed_s:.0f} s: {'; '.join(self.done)}"]
        lines.append(
            f"journal: {self.records} records ({types}); at the hub {len(self.lost)} are missing, "
            f"{len(self.changed)} differ; {self.repeated} came more than once"
        )
        lines.append(
            f"database: {self.minutes} of {self.minutes_wanted} minute values, {self.incomplete} "
            f"of them incomplete; {self.rain} of {self.rain_wanted} readings of rain"
        )
        lines.append(
            f"archive: {self.samples} of {self.samples_wanted} samples, {self.overlaps} overlaps, "
            f"{self.gaps} gaps"
        )
        lines.append("good" if self.good else f"NOT GOOD: {self.lost[:5]} {self.changed[:5]}")
        return "\n".join(lines)


class Day:
    """Everything, and one loop that drives it."""

    def __init__(self, folder: Path, hours: float, kills: int, seed: int) -> None:
        self._folder = folder
        self._hours = hours
        self._chance = random.Random(seed)
        self._kills = kills
        self._outcome = Outcome()
        self._authority = Authority(folder / "authority")
        for name in ("broker", "hub"):
            self._authority.issue(name)
        self._authority.issue("cn-demo-001", ends=timedelta(days=3))
        self._broker = Broker(secure=self._authority.listener(), settings="max_queued_messages 0")
        self._heard = 0
        self._selector = selectors.DefaultSelector()
        self._hub: Hub | None = None
        self._processes = Processes(folder)
        self._metrics_port = free_port()
        self._disk: Disk | None = None
        self._next_kill: list[float] = []
        self._quiet: tuple[float, float] = (0.0, 0.0)

    # --- who is there -----------------------------------------------------------------------------

    def start(self) -> None:
        folder = self._folder
        (folder / "gateway.toml").write_text(STATION + instruments("none") + SIREN)
        (folder / "time").write_text("0\n")
        self._disk = disk_or_none(folder / "outbox", DISK_SIZE)
        self._broker.start()
        self._start_metrics()
        self._authority.give("cn-demo-001", folder / "station")
        there = replace(self._authority.config(self._broker.url, "hub"), client_id="hub")
        self._hub = Hub(there, self._told, self._selector, folder / "hub.sqlite")
        uplink = UplinkConfig(
            "cn-demo-001",
            "demo",
            self._authority.config(self._broker.url, folder / "station"),
            InfluxConfig(f"http://127.0.0.1:{self._metrics_port}"),
            archive=ArchiveConfig(str(folder / "archive")),
        )
        (folder / "uplink.json").write_text(settings.write(uplink))
        self._processes.python("core", "-m", "tests.uplink.fast_core", folder, self._hours)
        self._until((folder / "run/feed.sock").exists, "the core is there")
        self._start_uplink()

    def _start_metrics(self) -> None:
        program = find_program("victoria-metrics")
        if program is None:
            raise FileNotFoundError("victoria-metrics: run tools/debian .venv/debian")
        self._processes.start(
            "metrics",
            program,
            f"-httpListenAddr=127.0.0.1:{self._metrics_port}",
            f"-storageDataPath={self._folder / 'metrics'}",
            "-retentionPeriod=100y",
        )

    def _start_uplink(self) -> None:
        folder = self._folder
        self._processes.uplink(folder / "uplink.json", folder / "outbox", folder / "run")

    def _told(self, _message: Message) -> None:
        self._heard += 1

    def close(self) -> None:
        self._processes.close()
        if self._hub is not None:
            self._hub.close()
        self._selector.close()
        self._broker.__exit__(None, None, None)
        if self._disk is not None:
            self._disk.close()

    # --- the day ----------------------------------------------------------------------------------

    def run(self) -> Outcome:
        began = time.monotonic()
        length = self._hours * 3600
        self._quiet = (0.495 * length, 0.515 * length)
        chosen = (self._chance.uniform(0.01, 0.99) * length for _ in range(self._kills))
        self._next_kill = sorted(t for t in chosen if not self._quiet[0] <= t <= self._quiet[1])
        self._next_kill += [0.99 * length] * (self._kills - len(self._next_kill))
        done = self._outcome.done
        for at, what in (
            (0.20, self._broker_outage),
            (0.40, self._broker_freezes),
            (0.45, self._metrics_outage),
            (0.50, self._certificate),
            (0.60, self._broker_outage),
            (0.75, self._disk_full),
        ):
            self._pass(at * length)
            done.append(what(length))
        self._pass(length)
        self._until(lambda: self._time() > 10**8, "the day is over")
        self._outcome.done.insert(0, f"{self._hours:g} h, uplink killed {self._kills} times")
        self._compare()
        self._outcome.elapsed_s = time.monotonic() - began
        return self._outcome

    def _broker_outage(self, length: float) -> str:
        at = self._time()
        self._broker.kill()
        self._pass(at + 0.04 * length)
        self._broker.start()
        return f"broker away {0.04 * length / 60:.0f} min"

    def _broker_freezes(self, length: float) -> str:
        at = self._time()
        os.kill(self._broker.pid, signal.SIGSTOP)
        began = time.monotonic()
        self._until(lambda: time.monotonic() - began > 5, "it has been left")
        self._pass(at + 0.01 * length)
        os.kill(self._broker.pid, signal.SIGCONT)
        return f"broker frozen {(self._time() - at) / 60:.0f} min"

    def _metrics_outage(self, length: float) -> str:
        at = self._time()
        self._processes.end("metrics")
        self._pass(at + 0.04 * length)
        self._start_metrics()
        return f"database away {0.04 * length / 60:.0f} min"

    def _certificate(self, _length: float) -> str:
        self._authority.issue("renewed", "cn-demo-001")
        self._authority.give("renewed", self._folder / "station")
        log = self._processes.log("uplink")
        self._until(lambda: "hub left to come back" in log.read_text(), "the new one is used")
        return "certificate renewed"

    def _disk_full(self, length: float) -> str:
        if self._disk is None:
            return "no full disk (not root)"
        at = self._time()
        self._disk.fill()
        self._pass(at + 0.01 * length)
        self._disk.relieve()
        return f"disk full {0.01 * length / 60:.0f} min"

    def _time(self) -> int:
        return int((self._folder / "time").read_text())

    def _archived_s(self) -> float:
        """The station's time up to which the archive holds a channel on disk."""
        newest = max((self._folder / "archive").glob("*/*/*/*.D/*"), default=None)
        if newest is None or newest.stat().st_size < RECORD_BYTES:
            return 0.0
        with newest.open("rb") as file:
            file.seek(newest.stat().st_size // RECORD_BYTES * RECORD_BYTES - RECORD_BYTES)
            return (read_header(file.read(RECORD_BYTES)).end_ns - START_NS) / NS

    def _pass(self, until_s: float) -> None:
        """Let the station's time come to there, killing the uplink when it is time to."""
        while (at := self._time()) < until_s:
            granted = min([until_s, self._archived_s() + AHEAD_S, *self._next_kill[:1]])
            (self._folder / "until").write_text(f"{granted}\n")
            if self._next_kill and at >= self._next_kill[0]:
                self._next_kill.pop(0)
                self._processes.end("uplink", signal.SIGKILL)
                self._start_uplink()
            self._turn()

    def _turn(self) -> None:
        assert self._hub is not None
        for name in self._processes.ended():
            raise AssertionError(f"{name} has ended\n{self._processes.said(name)}")
        self._hub.turn(now())
        for key, mask in self._selector.select(0.01):
            key.data(mask, now())

    def _until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                said = self._processes.said("uplink")
                raise AssertionError(f"never happened: {what}\n{said}")
            if "uplink" in self._processes:
                self._turn()
            else:
                time.sleep(0.01)  # between two looks, not for a result

    # --- what has come of it ----------------------------------------------------------------------

    def _compare(self) -> None:
        outcome, hub = self._outcome, self._hub
        assert hub is not None
        journal = self._journal()
        wanted = {k: v for k, v in journal.items() if v["type"] not in RETAINED}
        outcome.records = len(wanted)
        for record in wanted.values():
            outcome.by_type[record["type"]] = outcome.by_type.get(record["type"], 0) + 1

        def missing() -> list[str]:
            there = {event["id"]: event["data"] for event in hub.messages(SOURCE)}
            outcome.changed = [k for k, v in wanted.items() if k in there and there[k] != v]
            return [k for k in wanted if k not in there]

        end = time.monotonic() + 60
        while (lost := missing()) and time.monotonic() < end:
            settle = time.monotonic() + 1
            while time.monotonic() < settle:
                self._turn()
        outcome.lost = lost
        outcome.repeated = hub.counts["repeated"]
        length = round(self._hours * 3600)
        channels = 3
        outcome.minutes_wanted = channels * (length // 60 - 1)  # the last is over with what follows
        outcome.rain_wanted = length // RAIN_EVERY_S
        end = time.monotonic() + 120
        while self._count_metrics() and time.monotonic() < end:
            settle = time.monotonic() + 1
            while time.monotonic() < settle:
                self._turn()
        self._processes.end("uplink")
        (self._folder / "stop").touch()
        self._processes.wait("core")
        self._count_archive(length)

    def _journal(self) -> dict[str, dict[str, Any]]:
        """Everything that the core's journal has, by the id that it has at the hub."""
        found: dict[str, dict[str, Any]] = {}
        feed = FeedClient(self._folder / "run/feed.sock", timeout_s=2.0)
        with feed as client, suppress(FeedError):
            while (item := client.receive()) is not None:
                if item.get("stream") == "record":
                    found[f"{item['run_id']}-{item['seq']}"] = item["record"]
        return found

    def _count_metrics(self) -> bool:
        """Whether something is missing still."""
        outcome = self._outcome
        minutes = self._export("rsam_samples")
        last_ms = (START_NS // NS + round(self._hours * 3600)) * 1000
        outcome.minutes = sum(t < last_ms for t, _ in minutes)
        most = max((value for _, value in minutes), default=0)
        outcome.incomplete = sum(value < most for t, value in minutes if t < last_ms)
        outcome.rain = len(self._export("reading_rain_mm"))
        return outcome.minutes < outcome.minutes_wanted or outcome.rain < outcome.rain_wanted

    def _export(self, name: str) -> list[tuple[int, float]]:
        base = f"http://127.0.0.1:{self._metrics_port}"
        try:
            _get(f"{base}/internal/force_flush")
            query = urllib.parse.urlencode({"match[]": name})
            rows = [json.loads(line) for line in _get(f"{base}/api/v1/export?{query}").splitlines()]
        except OSError:
            return []
        return [pair for row in rows for pair in zip(row["timestamps"], row["values"], strict=True)]

    def _count_archive(self, length: int) -> None:
        outcome = self._outcome
        files = [p for p in (self._folder / "archive").rglob("XX.*.D.*") if p.is_file()]
        for path in files:
            if "overlap" in path.parts:
                outcome.overlaps += 1
        traces = obspy.Stream()
        for path in files:
            if "overlap" not in path.parts:
                traces += obspy.read(str(path))
        traces.sort()
        for one, next_ in pairwise(traces):
            if one.id != next_.id:
                continue
            apart = next_.stats.starttime - one.stats.endtime - one.stats.delta
            outcome.overlaps += apart < -one.stats.delta / 2
            outcome.gaps += apart > one.stats.delta / 2
        outcome.samples = sum(trace.stats.npts for trace in traces)
        rates = {trace.stats.sampling_rate for trace in traces} or {0.0}
        outcome.samples_wanted = round(3 * length * max(rates))


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  our own server
        return bytes(answer.read())


def run(hours: float, kills: int, seed: int, folder: Path) -> Outcome:
    """A day in ``folder``."""
    day = Day(folder, hours, kills, seed)
    try:
        day.start()
        return day.run()
    finally:
        day.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="day", description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for everything, which is kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-day-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = run(options.hours, options.kills, options.seed, folder)
    print(outcome.text())  # noqa: T201  a program's output
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
