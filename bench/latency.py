"""From the last byte of the deciding packet to the first byte of the siren's frame, over ptys.

Both sides run at real-time priority where the machine allows it. The reference is a process that
does nothing but ``os.read`` on one pty and ``os.write`` on another, in the same run.

Two measurements. *Contact*: thousands of decisions, each a digitiser frame that goes through the
real shell, the rpi-seism parser and the streaming detector, and then closes a contact whose plan
sounds the siren (an earthquake can't be had a hundred times a second). *Earthquake*: a few real
onsets at real speed on the whole path.
"""

import contextlib
import itertools
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from bench.report import Result
from gateway.core.compiled import Channel, Compiled, Port, Sensor, Siren, Station
from gateway.detect import SeismicDetector
from gateway.detect.scale import Condition, Measure, Scale, Step
from gateway.detect.settings import Sensitivity
from gateway.drivers.rpi_seism import RpiSeism
from gateway.events import MICRO, NS, Diagnostic, Hazard, Level, Reading, Scans
from gateway.plan.rules import Clause, LevelRule, Pattern, Plan
from gateway.plan.rules import Condition as PlanCondition
from gateway.plan.rules import Step as PlanStep
from gateway.siren.modbus_relay import ModbusRelaySimulator

PRIORITY = 30
CHANNELS = ("XX.BENCH.00.EHZ", "XX.BENCH.00.EHN", "XX.BENCH.00.EHE")
CLOSED = 1 << 20
"""A count above which the bench's contact is closed."""

FLASH_ON = 0x02


class Knock:
    """A driver for this bench: the real parser and detector, then a contact for the decision."""

    kind = "scalar"

    def __init__(self, options: dict[str, Any] | None = None, sensor: str = "") -> None:
        del options
        self._inner = RpiSeism({"rate_hz": 100}, sensor)
        self._detector = SeismicDetector(CHANNELS, 100.0)
        self._sensor = sensor
        self._closed: bool | None = None

    def opened(self, t: int) -> None:
        self._inner.opened(t)

    def feed(self, data: bytes, t: int) -> list[Scans | Reading | Diagnostic]:
        found: list[Scans | Reading | Diagnostic] = []
        for item in self._inner.feed(data, t):
            if isinstance(item, Scans):
                closed = bool(item.samples[0, -1] >= CLOSED)
                self._detector.process(item.samples % CLOSED, item.index * NS // 100)
                if closed is not self._closed:
                    self._closed = closed
                    found.append(Reading(self._sensor, t, "contact", int(closed) * MICRO))
        return found

    def tick(self, t: int) -> list[Scans | Reading | Diagnostic]:
        return self._inner.tick(t)

    def next_deadline(self) -> int | None:
        return self._inner.next_deadline()

    def to_send(self) -> bytes:
        return self._inner.to_send()


def frame(counts: int, others: int = 0) -> bytes:
    body = b"\xaa\xbb" + struct.pack("<3i", counts, others, others)
    return body + struct.pack("<I", crc32(body))


class Pty:
    """One pseudo-terminal: we are the device."""

    def __init__(self, link: Path) -> None:
        self.fd, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self.fd, False)
        link.symlink_to(os.ttyname(self._slave))

    def read(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(self.fd, 4096)
        return b""

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._slave)


_BARE = """
import os, sys, tty
a, b = (os.open(p, os.O_RDWR | os.O_NOCTTY) for p in sys.argv[1:3])
try: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(20))
except OSError: pass
os.write(b, b"ready")
while data := os.read(a, 4096):
    os.write(b, b"\\1\\5\\2\\0\\0\\x1e\\r\\xba")
"""


def percentiles(delays_ns: list[int]) -> tuple[float, float, float]:
    """p50, p99 and p99.9 in µs."""
    return tuple(float(v) / 1000 for v in np.percentile(delays_ns, [50, 99, 99.9]))  # type: ignore[return-value]


def become_important() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except OSError:
        return False
    return True


def wait_for(fd: int, seconds: float) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


def bare(folder: Path, trials: int) -> list[int]:
    """Delays of the reference."""
    near, far = Pty(folder / "bare-in"), Pty(folder / "bare-out")
    ends = [str(folder / "bare-in"), str(folder / "bare-out")]
    process = subprocess.Popen([sys.executable, "-S", "-c", _BARE, *ends])
    try:
        assert wait_for(far.fd, 10)
        far.read()
        delays = []
        for i in range(trials):
            time.sleep(0.004 + 0.0001 * (i % 17))
            began = time.monotonic_ns()
            os.write(near.fd, frame(i))
            assert wait_for(far.fd, 5)
            delays.append(time.monotonic_ns() - began)
            far.read()
        return delays
    finally:
        process.kill()
        process.wait()
        near.close()
        far.close()


def relay_answers(relay: Pty, board: ModbusRelaySimulator) -> bytes:
    """Let the simulated board answer what the core has sent; gives what that was."""
    got = relay.read()
    t = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    board.feed(got, t)
    due = board.next_deadline()
    if due is not None:
        board.tick(max(due, t))
    if answer := board.to_send():
        os.write(relay.fd, answer)
    return got


def is_sound(got: bytes) -> bool:
    """Whether it holds a flash-on frame."""
    return any(got[i : i + 3] == b"\x01\x05\x02" for i in range(len(got)))


def station(folder: Path, sensor: Sensor, scale: Scale | None, plan: Plan) -> Path:
    """Compile a station for the core; its state folder."""
    config = Compiled(
        station=Station("bench", "bench", "bench", code="BENCH"),
        sensors=(sensor,),
        sirens=(
            Siren(
                "main",
                Port(str(folder / "relay")),
                "gateway.siren.modbus_relay:ModbusRelay",
                unit={"address": 1, "relay": 1},
                max_on_s=3600,
                max_hour_s=3600,
            ),
        ),
        scales=(scale,) if scale else (),
        plans=(plan,),
        patterns=(Pattern("long", (PlanStep(on=True, seconds=3.0),)),),
    )
    state = folder / "state"
    (state / "compiled").mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(config), default=str)
    (state / "compiled" / "current.json").write_text(text)
    return state


@contextlib.contextmanager
def running_core(folder: Path, state: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "gateway.core", "--state", str(state)]
    command += ["--run", str(folder / "run")]
    log = (folder / "core.log").open("w")
    process = subprocess.Popen(command, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def plan_for(hazard: Hazard, condition: PlanCondition) -> Plan:
    rule = LevelRule(Level.red, (Clause((condition,)),), "long", (), "x", "x")
    return Plan(hazard, "1", (rule,), hold_s=0, rearm_s=0)


def contact(folder: Path, trials: int) -> list[int]:
    """Delays of the gateway for decisions by contact, everything but the hazard's rule real."""
    near, relay = Pty(folder / "seis"), Pty(folder / "relay")
    condition = Condition(Measure.value, "contact", 0, MICRO, MICRO)
    scale = Scale(
        "bench", Hazard.fire, "closed", (Step(Level.red, (condition,)),), hold_s=0, reach_s=0
    )
    sensor = Sensor("seis1", Port(str(folder / "seis")), "bench.latency:Knock", "scalar")
    plan = plan_for(Hazard.fire, PlanCondition("scale", ">=", 4.0))
    board = ModbusRelaySimulator()
    try:
        with running_core(folder, station(folder, sensor, scale, plan)):
            assert wait_for(near.fd, 30), (folder / "core.log").read_text()
            near.read()
            delays = []
            for i in itertools.count():
                os.write(near.fd, frame(i % 50))
                settle = time.monotonic() + 0.03
                while (left := settle - time.monotonic()) > 0:
                    if wait_for(relay.fd, left):
                        relay_answers(relay, board)
                near.read()
                began = time.monotonic_ns()
                os.write(near.fd, frame(CLOSED + i % 50))
                assert wait_for(relay.fd, 5), (folder / "core.log").read_text()
                took = time.monotonic_ns() - began
                if is_sound(relay_answers(relay, board)):
                    delays.append(took)
                if len(delays) == trials:
                    return delays
        raise AssertionError
    finally:
        near.close()
        relay.close()


def earthquake(folder: Path, trials: int) -> list[int]:
    """Delays of whole onsets: noise, then shaking, through detector, ground motion and plan."""
    rng = np.random.default_rng(1)
    near, relay = Pty(folder / "seis"), Pty(folder / "relay")
    sensitivity = Sensitivity(426141.0, "m/s**2")
    channels = tuple(Channel(name, sensitivity) for name in CHANNELS)
    port = Port(str(folder / "seis"))
    driver = "gateway.drivers.rpi_seism:RpiSeism"
    sensor = Sensor("seis1", port, driver, "seismic", {"rate_hz": 200}, channels, 200.0)
    plan = plan_for(Hazard.earthquake, PlanCondition("intensity", ">=", 5.0))
    board = ModbusRelaySimulator()
    delays = []
    try:
        for _ in range(trials):
            with running_core(folder, station(folder, sensor, None, plan)):
                assert wait_for(near.fd, 30)
                os.write(near.fd, near.read())
                due, written = time.monotonic_ns(), 0
                for i in range(200 * 20):
                    shake = 400_000 * np.sin(i / 200 * 2 * np.pi * 3) if i > 200 * 8 else 0.0
                    z, n, e = (rng.normal(0, 30, 3) + shake).astype(int)
                    body = b"\xaa\xbb" + struct.pack("<3i", z, n, e)
                    due += NS // 200
                    while (left := due - time.monotonic_ns()) > 0:
                        if wait_for(relay.fd, left / NS):
                            now = time.monotonic_ns()
                            if is_sound(relay_answers(relay, board)):
                                delays.append(now - written)
                                break
                    else:
                        os.write(near.fd, body + struct.pack("<I", crc32(body)))
                        written = time.monotonic_ns()
                        continue
                    break
    finally:
        near.close()
        relay.close()
    return delays


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other work on every core of the machine, at ordinary priority."""
    command = [sys.executable, "-S", "-c", "while True: pass"]
    started = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()


def run(quick: bool) -> list[Result]:
    trials = 100 if quick else 5000
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    important = become_important()
    try:
        with tempfile.TemporaryDirectory(prefix="gw") as name:
            folder = Path(name)
            places = iter(range(100))

            def fresh() -> Path:
                made = folder / str(next(places))
                made.mkdir()
                return made

            reference = percentiles(bare(fresh(), trials))
            idle = percentiles(contact(fresh(), trials))
            with busy(os.cpu_count() or 1):
                loaded = percentiles(contact(fresh(), max(100, trials // 5)))
            quake = earthquake(fresh(), 1 if quick else 10)
    finally:
        os.sched_setscheduler(0, *before)
    note = "" if important else "no real-time priority here"
    names = ("p50", "p99", "p99.9")
    results = [
        Result(
            f"byte → siren / bare read → write, {p}", a / b, "×", goal, note=f"{a:.0f} µs; {note}"
        )
        for p, a, b, goal in zip(names, idle, reference, (3, 3, 4), strict=True)
    ]
    results += [
        Result(
            f"the same, every core busy / idle, {p}", a / b, "×", 1.5, note=f"{a:.0f} µs; {note}"
        )
        for p, a, b in zip(names[:2], loaded, idle, strict=False)
    ]
    if quake:
        middle = float(np.median(quake)) / 1000
        results.append(
            Result(
                "earthquake, last byte → siren byte / bare, median",
                middle / reference[0],
                "×",
                note=f"{middle:.0f} µs over {len(quake)} onsets, worst {max(quake) / 1000:.0f} µs",
            )
        )
    return results
