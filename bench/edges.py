"""How near to its time each edge of a siren's pattern is, at the relay.

A real core with real-time priority drives four Modbus relay boards on four pseudo-terminals, each
with a pattern of short steps that are no whole multiple of anything else the driver does. An edge
is when the first byte of the frame that makes the board switch is read on the board's side, and it
is due at the pattern's time after the moment at which the core says that it began. (A real line
at 9600 baud adds 8 ms of transmission and 4 ms of silence to each, always; boards whose timer is up
in the same moment open by it.)

The load is that of the goal: every core of the machine busy at ordinary priority, a digitiser of
three channels at 100 Hz, and the uplink publishing all of it to a broker.
"""

import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.latency import CHANNELS, become_important, busy, percentiles, running_core
from bench.report import Result
from gateway.core.compiled import Channel, Compiled, Port, Sensor, Siren, Station
from gateway.core.control import ControlError, call
from gateway.drill import sources
from gateway.drill.stage import Stage, play
from gateway.drivers.rpi_seism import RpiSeismSimulator
from gateway.events import NS
from gateway.hub.broker import Broker, find_program
from gateway.plan.rules import Pattern, Step
from gateway.siren.modbus_relay import ModbusRelaySimulator

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  as /run is
SIRENS = 4
GOAL_MS = 20.0
STEPS_S = (0.13, 0.11, 0.17, 0.09, 0.23, 0.12)
"""Sound and silence in turn; the sum is 0.85 s."""
EDGES = len(STEPS_S)

UPLINK = """
[station]
id = "bench"
name = "bench"
city = "bench"
latitude = 31.0
longitude = 103.4

[uplink.mqtt]
url = "{url}"
"""


def station(folder: Path, repeat: int) -> Path:
    """Compile the station; its state folder."""
    channels = tuple(Channel(name) for name in CHANNELS)
    driver = "gateway.drivers.rpi_seism:RpiSeism"
    port = Port(str(folder / "seis1"), 250_000)
    steps = tuple(Step(on=i % 2 == 0, seconds=step) for i, step in enumerate(STEPS_S))
    config = Compiled(
        station=Station("bench", "bench", "bench", code="BENCH"),
        sensors=(Sensor("seis1", port, driver, "seismic", {"rate_hz": 100}, channels, 100.0),),
        sirens=tuple(
            Siren(
                f"s{n}",
                Port(str(folder / f"s{n}")),
                "gateway.siren.modbus_relay:ModbusRelay",
                {"pulse_restarts": "yes"},
                {"address": 1, "relay": 1},
                max_on_s=3600,
                max_hour_s=3600,
            )
            for n in range(SIRENS)
        ),
        patterns=(Pattern("edges", steps, repeat),),
    )
    state = folder / "state"
    (state / "compiled").mkdir(parents=True)
    (state / "compiled" / "current.json").write_text(json.dumps(asdict(config), default=str))
    return state


@contextlib.contextmanager
def devices(folder: Path) -> Iterator[list[Path]]:
    """The digitiser and the boards, played with real-time priority; the boards' logs."""
    logs = [folder / f"s{n}.jsonl" for n in range(SIRENS)]
    with contextlib.ExitStack() as stack:
        digitiser = RpiSeismSimulator({"rate_hz": 100}, sources.Quiet(100.0, 3))
        stages = [Stage(digitiser, folder / "seis1", baud=250_000)]
        for n, path in enumerate(logs):
            log = stack.enter_context(path.open("w"))
            stages.append(Stage(ModbusRelaySimulator(), folder / f"s{n}", log=log))
        for stage in stages:
            stage.begin(time.monotonic_ns())
            stack.callback(stage.end)
        read, write = os.pipe()

        def devices_turn() -> None:
            become_important()  # which is of a thread and not inherited
            play(stages, read)

        thread = threading.Thread(target=devices_turn)
        thread.start()
        try:
            yield logs
        finally:
            os.write(write, b"x")
            thread.join()
            os.close(read)
            os.close(write)


@contextlib.contextmanager
def publishing(folder: Path) -> Iterator[str]:
    """The uplink at work, where there is a broker to publish to; what was had."""
    if find_program("mosquitto") is None:
        yield "no broker here, so no uplink"
        return
    with Broker() as broker, (folder / "uplink.log").open("w") as log:
        (folder / "gateway.toml").write_text(UPLINK.format(url=broker.url))
        command = [sys.executable, "-m", "gateway.uplink"]
        command += ["--config", str(folder / "gateway.toml")]
        command += ["--state", str(folder / "uplink"), "--run", str(folder / "run")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield "uplink publishing"
        finally:
            process.terminate()
            process.wait(30)


def sound(folder: Path) -> int:
    """Have all sirens sound; when, in ns of CLOCK_BOOTTIME."""
    control = folder / "run" / "control.sock"
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(ControlError):
            sirens = call(control, {"do": "status"})["sirens"].values()
            if all(siren["self_test"]["result"] == "passed" for siren in sirens):
                break
        assert time.monotonic() < end, (folder / "core.log").read_text()
        select.select([], [], [], 0.05)
    answer = call(control, {"do": "siren_on", "pattern": "edges"})
    return int(answer["id"].rpartition("-")[2])


def errors(log: Path, began_ns: int, repeat: int) -> list[int]:
    """How far from its time each edge was at one board, ns; the pattern's last edge included.

    One that never came is as far away as the next of its kind.
    """
    starts = [0.0, *itertools.accumulate(STEPS_S * repeat)][: EDGES * repeat]
    records = [json.loads(line) for line in log.read_text().splitlines()]
    found: list[int] = []
    for on in (True, False):
        changes = np.array(
            [r.get("heard_ns", r["boottime_ns"]) for r in records if r["on"] is on], np.int64
        )
        assert changes.size, f"{log}: no edge of {len(starts)}"
        due = [began_ns + round(start_s * NS) for start_s in starts[0 if on else 1 :: 2]]
        found += [int(np.abs(changes - at_ns).min()) for at_ns in due]
    return found


def measure(repeat: int, *, loaded: bool) -> tuple[list[int], str]:
    """The errors of all edges, ns, and under which load."""
    with (
        tempfile.TemporaryDirectory(prefix="gw", dir=MEMORY) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        logs = stack.enter_context(devices(folder))
        stack.enter_context(running_core(folder, station(folder, repeat)))
        load = "idle"
        if loaded:
            stack.enter_context(busy(os.cpu_count() or 1))
            load = stack.enter_context(publishing(folder))
        began = sound(folder)
        end = began + round(sum(STEPS_S) * repeat * NS) + NS
        while (left_ns := end - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) > 0:
            select.select([], [], [], left_ns / NS)
        found = [error for log in logs for error in errors(log, began, repeat)]
    return found, load


def run(quick: bool) -> list[Result]:
    repeat = 2 if quick else 120
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    important = become_important()
    try:
        idle, _ = measure(repeat, loaded=False)
        loaded, load = measure(repeat, loaded=True)
    finally:
        os.sched_setscheduler(0, *before)
    note = f"{len(loaded)} edges, {load}" + ("" if important else "; no real-time priority here")
    return [*_rows("idle", idle, f"{len(idle)} edges"), *_rows("every core busy", loaded, note)]


def _rows(name: str, found: Sequence[int], note: str) -> list[Result]:
    p50, _, p999 = (us / 1000 for us in percentiles(list(found)))
    worst = float(np.max(found)) / 1e6
    return [
        Result(f"pattern edge, {name}, p50", p50, "ms", note=note),
        Result(f"pattern edge, {name}, p99.9", p999, "ms", GOAL_MS, note=f"worst {worst:.2f} ms"),
    ]
