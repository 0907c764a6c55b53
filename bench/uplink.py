"""The uplink's memory, and how long an alert takes to a subscriber while telemetry is pouring out.

Memory is the uplink's resident memory after it has delivered, against a process that has imported
what it builds on: paho, SQLite, and pymseed with numpy, which write the archive. Latency runs from the
core's publishing to a subscriber at the broker, first with an idle link, then while a backlog of
telemetry, as after a long outage, is sent as fast as the link takes it.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.outbox import Listener, spawned, until, uplink
from bench.report import Result
from gateway.events import iso
from gateway.hub.broker import Broker
from gateway.uplink.messages import Kind, cloud_event
from gateway.uplink.outbox import Outbox
from gateway.uplink.service import now
from tests.uplink.city import FakeCore, alert

_REFERENCE = """
import numpy, paho.mqtt.client, pymseed, sqlite3
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
"""
SPACING_S = 0.02


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1])


class Latencies:
    """Milliseconds from publishing an alert to its arrival, by a subscriber in this process."""

    def __init__(self, core: FakeCore, broker: Broker) -> None:
        self._core = core
        self._arrived: dict[str, float] = {}
        self.telemetry = 0
        self._alerts = Listener(broker.port, "eew/v1/bench/b1/alert", self._take)
        self._others = Listener(broker.port, "eew/v1/bench/b1/telemetry", self._count)
        self._number = 0

    def _take(self, payload: bytes) -> None:
        self._arrived.setdefault(json.loads(payload)["data"]["id"], time.monotonic())

    def _count(self, _payload: bytes) -> None:
        self.telemetry += 1

    def measure(self, count: int) -> list[float]:
        found = []
        for _ in range(count):
            self._number += 1
            event = alert(self._number)
            began = time.monotonic()
            self._core.publish(event)
            until(lambda e=event: e.id in self._arrived, self._core, "an alert arrives")  # type: ignore[misc]
            found.append(1000 * (self._arrived[event.id] - began))
            pause = time.monotonic() + SPACING_S
            until(lambda p=pause: time.monotonic() > p, self._core, "a moment passes")  # type: ignore[misc]
        return found

    def close(self) -> None:
        self._alerts.close()
        self._others.close()


def preload(path: Path, count: int) -> None:
    """An outbox in which telemetry has piled up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    box = Outbox(path, 1 << 28, now())
    reading = {"sensor": "rain1", "time": iso(0), "quantity": "rain_mm", "value": 0.2}
    record = {"type": "telemetry", "time": iso(0), "readings": [reading] * 10}
    for n in range(count):
        box.put(
            Kind.telemetry,
            f"old-{n}",
            "eew/v1/bench/b1/telemetry",
            lambda s, n=n: cloud_event("/eew/bench/b1", f"old-{n}", s, record),  # type: ignore[misc]
            now(),
        )
        if n % 1000 == 999:
            box.commit(now())
    box.close(now())


def run(quick: bool) -> list[Result]:
    count, backlog = (20, 5_000) if quick else (300, 60_000)
    with tempfile.TemporaryDirectory() as name, Broker() as broker:
        directory = Path(name)
        core = FakeCore(directory / "feed.sock")
        latencies = Latencies(core, broker)
        record = ("--record", str(directory / "hub.sqlite"), "--kinds", "none")
        with spawned("gateway.cli", "hub", "watch", "--url", broker.url, *record):
            with uplink(directory, broker) as process:
                latencies.measure(5)
                idle = latencies.measure(count)
                resident = resident_kib(process.pid)
            preload(directory / "state" / "outbox.sqlite", backlog)
            with uplink(directory, broker):
                until(lambda: latencies.telemetry, core, "telemetry flows")
                first, began = latencies.telemetry, time.monotonic()
                busy = latencies.measure(count)
                rate = (latencies.telemetry - first) / (time.monotonic() - began)
                drained = latencies.telemetry >= backlog
        latencies.close()
        core.close()
    reference = int(
        subprocess.run(
            [sys.executable, "-c", _REFERENCE], capture_output=True, check=True, text=True
        ).stdout
    )
    p99 = [statistics.quantiles(found, n=100)[98] for found in (idle, busy)]
    p50 = [statistics.median(found) for found in (idle, busy)]
    flow = f"{rate:.0f} telemetry messages/s" + (", drained before the end" if drained else "")
    return [
        Result(
            "uplink memory, against what it is built on, imported",
            resident / reference,
            "×",
            1.5,
            note=f"{resident / 1024:.0f} MiB against {reference / 1024:.0f} MiB",
        ),
        Result(
            "alert to a subscriber while telemetry pours out, p99, against an idle link",
            p99[1] / p99[0],
            "×",
            2,
            note=f"{p99[1]:.1f} ms against {p99[0]:.1f} ms; {flow}",
        ),
        Result(
            "the same, median",
            p50[1] / p50[0],
            "×",
            note=f"{p50[1]:.1f} ms against {p50[0]:.1f} ms",
        ),
    ]
