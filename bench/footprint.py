"""What the core costs a small computer: memory, time to start, processor.

The core runs as systemd starts it, with the shipped plans and scales, on simulated devices, and a
client takes all that it publishes, as the uplink does. Three figures:

- *memory*: resident memory of the core with a three-channel digitiser at 100 Hz, a rain gauge and a
  siren, against a process that has imported numpy, pyserial and selectors. The journal child, which
  shares most of its pages with the core, is stated beside it by its own share (PSS).
- *start*: from ``exec`` to ``READY=1``, which is sent with the ports open and the plans armed,
  against an interpreter that imports numpy and pyserial and ends. By turns; medians. The detector
  then needs 4 s of samples, which are the ground's and not ours.
- *processor*: time on a core of this machine with 12 channels at 100 Hz (two boards, each of ten
  packets a second), eight gauges and four sirens, as the scheduler counts it.
"""

import contextlib
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.latency import listening
from bench.report import INSTALLED, Result
from gateway.config import shipped
from gateway.config.install import install
from gateway.core.compiled import Channel, Compiled, Port, Sensor, Siren, Station
from gateway.detect.settings import Sensitivity
from gateway.drill.sources import Quiet
from gateway.drill.stage import Stage, play
from gateway.drivers import load_object
from gateway.events import NS

_SENSITIVITY = Sensitivity(426141.0, "m/s**2")
_IMPORTED = """
import numpy, selectors, serial
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
"""
CORE = (sys.executable, "-m", "gateway.core")
GAUGES = 8
SIRENS = 4
BOARDS = 2
CHANNELS_A_BOARD = 6


class Devices:
    """Simulated devices of a station, each on its own pseudo-terminal."""

    def __init__(self, folder: Path) -> None:
        self.sensors: list[Sensor] = []
        self.sirens: list[Siren] = []
        self._folder = folder
        self._stages: list[Stage] = []

    def digitiser(self, name: str, driver: str, channels: int, options: dict[str, Any]) -> None:
        kind = load_object(driver)
        port = self._port(name, kind.simulator(options, Quiet(100.0, channels)), 250_000)
        ids = tuple(Channel(f"XX.{name}.00.EH{k}", _SENSITIVITY) for k in range(channels))
        self.sensors.append(Sensor(name, port, driver, "seismic", options, ids, 100.0))

    def gauge(self, name: str) -> None:
        driver = "gateway.drivers.hydreon_rg15:HydreonRg15"
        port = self._port(name, load_object(driver).simulator({}, Quiet(1.0)), 9600)
        self.sensors.append(Sensor(name, port, driver, "scalar", silent_after_s=10.0))

    def relays(self, count: int) -> None:
        driver = "gateway.siren.modbus_relay:ModbusRelay"
        port = self._port("relays", load_object(driver).simulator({}), 9600)
        for relay in range(1, count + 1):
            unit = {"address": 1, "relay": relay}
            self.sirens.append(Siren(f"siren{relay}", port, driver, unit=unit))

    def _port(self, name: str, device: Any, baud: int) -> Port:
        link = self._folder / name
        self._stages.append(Stage(device, link, baud=baud))
        return Port(str(link), baud)

    def configuration(self) -> Compiled:
        """The station, with everything that is shipped."""
        return Compiled(
            station=Station("bench", "bench", "bench", code="BENCH"),
            sensors=tuple(self.sensors),
            sirens=tuple(self.sirens),
            scales=shipped.scales(),
            plans=shipped.plans(),
            patterns=shipped.patterns(),
        )

    @contextlib.contextmanager
    def powered(self) -> Iterator[None]:
        try:
            for stage in self._stages:
                stage.begin(time.monotonic_ns())
            yield
        finally:
            for stage in self._stages:
                stage.end()

    def run(self, seconds: float) -> None:
        """Be the devices for so long."""
        play(self._stages, until=time.monotonic_ns() + round(seconds * NS))


def small(folder: Path) -> Devices:
    """A digitiser, a rain gauge and a siren."""
    found = Devices(folder)
    found.digitiser("seis1", "gateway.drivers.rpi_seism:RpiSeism", 3, {"rate_hz": 100})
    found.gauge("rain1")
    found.relays(1)
    return found


def large(folder: Path) -> Devices:
    """The most that one gateway is meant for."""
    found = Devices(folder)
    options = {"rate_hz": 100, "channels": CHANNELS_A_BOARD}
    for k in range(BOARDS):
        found.digitiser(f"seis{k}", "gateway.drivers.psn_adc:PsnAdc", CHANNELS_A_BOARD, options)
    for k in range(GAUGES):
        found.gauge(f"rain{k}")
    found.relays(SIRENS)
    return found


@contextlib.contextmanager
def core(folder: Path, config: Compiled) -> Iterator[tuple[int, float]]:
    """A running core: its process id, and after how many seconds it was ready."""
    install(config, folder)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        (folder / "log").open("w") as log,
    ):
        manager.bind(str(folder / "notify"))
        environment = {**INSTALLED, "NOTIFY_SOCKET": str(folder / "notify")}
        command = [*CORE, "--state", str(folder), "--run", str(folder / "run")]
        began = time.monotonic()
        process = subprocess.Popen(command, stderr=log, env=environment)
        try:
            assert select.select([manager], [], [], 60)[0], (folder / "log").read_text()
            yield process.pid, time.monotonic() - began
        finally:
            process.terminate()
            process.wait(20)


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1])


def share_kib(pid: int) -> int:
    """Its pages, each divided by the number of processes that share it."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in rollup if line.startswith("Pss:")).split()[1])


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def processor_ns(pid: int) -> int:
    """Time it has run; finer than the ticks that ``stat`` counts in."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def memory(folder: Path, seconds: float) -> Result:
    reference = [sys.executable, "-c", _IMPORTED]
    bare = int(subprocess.run(reference, env=INSTALLED, capture_output=True, check=True).stdout)
    devices = small(folder)
    with (
        devices.powered(),
        core(folder, devices.configuration()) as (pid, _),
        listening(folder / "run" / "feed.sock"),
    ):
        devices.run(seconds)
        used, (child,) = resident_kib(pid), children(pid)
        note = (
            f"{used / 1024:.1f} MiB against {bare / 1024:.1f} MiB resident after {seconds:g} s; "
            f"PSS: core {share_kib(pid) / 1024:.1f}, journal child {share_kib(child) / 1024:.1f}"
        )
    return Result("core's memory", used / bare, "× numpy + serial imported", 1.35, note=note)


def start(fresh: Callable[[], Path], rounds: int) -> Result:
    ours, bare = [], []
    for _ in range(rounds):
        folder = fresh()
        devices = small(folder)
        with devices.powered(), core(folder, devices.configuration()) as (_, ready_s):
            ours.append(ready_s)
        began = time.monotonic()
        command = [sys.executable, "-c", "import numpy, serial"]
        subprocess.run(command, env=INSTALLED, check=True)
        bare.append(time.monotonic() - began)
    middle, reference = statistics.median(ours), statistics.median(bare)
    return Result(
        "core's start to armed",
        middle / reference,
        "× importing numpy and serial",
        3.0,
        note=f"{middle * 1000:.0f} ms against {reference * 1000:.0f} ms, {rounds} starts",
    )


def processor(folder: Path, warm_s: float, seconds: float) -> Result:
    devices = large(folder)
    with (
        devices.powered(),
        core(folder, devices.configuration()) as (pid, _),
        listening(folder / "run" / "feed.sock"),
    ):
        devices.run(warm_s)
        (child,) = children(pid)
        began, before, beside = time.monotonic(), processor_ns(pid), processor_ns(child)
        devices.run(seconds)
        elapsed_ns = (time.monotonic() - began) * NS
        ours = (processor_ns(pid) - before) / elapsed_ns
        childs = (processor_ns(child) - beside) / elapsed_ns
    return Result(
        "core's processor time, 12 channels, 8 gauges, 4 sirens",
        100 * ours,
        "% of a core",
        2.0,
        note=f"over {seconds:g} s with the feed drained; journal child {100 * childs:.2f} %",
    )


def run(quick: bool) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        places = iter(range(1000))

        def fresh() -> Path:
            made = Path(name) / str(next(places))
            made.mkdir()
            return made

        with core(fresh(), Devices(fresh()).configuration()):
            pass  # every module has been compiled once
        return [
            memory(fresh(), 2.0 if quick else 30.0),
            start(fresh, 1 if quick else 9),
            processor(fresh(), 2.0 if quick else 10.0, 2.0 if quick else 60.0),
        ]
