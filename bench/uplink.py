"""The uplink's memory, and how long an alert takes to a subscriber while telemetry is pouring out.

Memory is the uplink's resident memory after it has delivered, its archive taking three channels at
100 Hz meanwhile, against a process that has imported what it builds on: paho, SQLite, and pymseed
with numpy, which write the archive.

Latency runs from the core's publishing to a subscriber at the broker. Between uplink and broker is
a link as a station by radio has it (1 Mbit/s, 30 ms each way), at first idle, then full of a
backlog of telemetry, as after a long outage. How full it is, the broker itself counts.
"""

import asyncio
import base64
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

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
SPACING_S = 0.05
RADIO = (125_000.0, 0.03)


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1])


class RadioLink:
    """Passes one way at ``bytes_per_s``, both ways after ``delay_s``; in a thread of its own."""

    def __init__(self, port: int, bytes_per_s: float, delay_s: float) -> None:
        self._behind = port
        self._bytes_per_s = bytes_per_s
        self._delay_s = delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far, far_out = await asyncio.open_connection("127.0.0.1", self._behind)
        up = self._pass(near, far_out, self._bytes_per_s)
        down = self._pass(far, near_out, float("inf"))
        await asyncio.gather(up, down)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, bytes_per_s: float
    ) -> None:
        free_at = 0.0
        with contextlib.suppress(ConnectionResetError):  # the uplink is killed at the end
            while data := await source.read(512):
                free_at = max(free_at, self._loop.time()) + len(data) / bytes_per_s
                self._loop.call_at(free_at + self._delay_s, sink.write, data)
                await asyncio.sleep(free_at - self._loop.time())
        self._loop.call_later(self._delay_s, sink.close)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


class Latencies:
    """Milliseconds from publishing an alert to its arrival, by a subscriber in this process."""

    def __init__(self, core: FakeCore, broker: Broker) -> None:
        self._core = core
        self._arrived: dict[str, float] = {}
        self.taken = 0
        """Messages that the broker has taken from everybody."""
        self._alerts = Listener(broker.port, "eew/v1/bench/b1/alert", self._take)
        self._counts = Listener(broker.port, "$SYS/broker/publish/messages/received", self._count)
        self._number = 0

    def _take(self, payload: bytes) -> None:
        self._arrived.setdefault(json.loads(payload)["data"]["id"], time.monotonic())

    def _count(self, payload: bytes) -> None:
        self.taken = int(payload)

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
        self._counts.close()


def feed_archive(core: FakeCore, count: int) -> None:
    """Packets of half a second, three channels at 100 Hz, as the core says them."""
    samples = np.random.default_rng(1).integers(-500, 500, (3, 50)).astype("<i4")
    for n in range(count):
        packet = {
            "sensor": "seis1",
            "start": iso(1_700_000_000_000_000_000 + n * 500_000_000),
            "rate_hz": 100.0,
            "channels": ["XX.B1..HHE", "XX.B1..HHN", "XX.B1..HHZ"],
            "encoding": "int32le",
            "samples": base64.b64encode(samples.tobytes()).decode(),
            "clock": {"state": "synchronised", "uncertainty_s": 0.001, "steps": 0},
        }
        core.data({"packet": packet})
        core.turn()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        core.turn()
        time.sleep(0.01)


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
    count, backlog = (20, 5_000) if quick else (300, 30_000)
    with tempfile.TemporaryDirectory() as name, Broker("sys_interval 1") as broker:
        directory = Path(name)
        core = FakeCore(directory / "feed.sock")
        latencies = Latencies(core, broker)
        link = RadioLink(broker.port, *RADIO)
        record = ("--record", str(directory / "hub.sqlite"), "--kinds", "none")
        with spawned("gateway.cli", "hub", "watch", "--url", broker.url, *record):
            with uplink(directory, link.url) as process:
                latencies.measure(5)
                feed_archive(core, 200)
                idle = latencies.measure(count)
                resident = resident_kib(process.pid)
            preload(directory / "state" / "outbox.sqlite", backlog)
            with uplink(directory, link.url):
                idle_taken = latencies.taken
                until(lambda: latencies.taken > idle_taken + 100, core, "telemetry flows")
                first, began = latencies.taken, time.monotonic()
                busy = latencies.measure(count)
                rate = (latencies.taken - first) / (time.monotonic() - began)
        latencies.close()
        link.close()
        core.close()
    reference = int(
        subprocess.run(
            [sys.executable, "-c", _REFERENCE], capture_output=True, check=True, text=True
        ).stdout
    )
    p99 = [statistics.quantiles(found, n=100)[98] for found in (idle, busy)]
    p50 = [statistics.median(found) for found in (idle, busy)]
    flow = f"{rate:.0f} telemetry messages/s"
    return [
        Result(
            "uplink memory, against what it is built on, imported",
            resident / reference,
            "×",
            1.5,
            note=f"{resident / 1024:.0f} MiB against {reference / 1024:.0f} MiB",
        ),
        Result(
            "alert to a subscriber over a link full of telemetry, p99, against the idle link",
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
