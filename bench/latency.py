"""From the last byte of the deciding packet to the first byte of the siren's frame, over ptys.

Both sides run at real-time priority where the machine allows it, everything else at ordinary. The
reference is a process that does nothing but ``os.read`` on one pty and ``os.write`` on another, in
the same run and at the same pace.

Two measurements. *Contact*: thousands of decisions, each a digitiser frame that goes through the
real shell, the rpi-seism parser and the streaming detector, and then closes a contact whose plan
sounds the siren (an earthquake can't be had a hundred times a second). *Earthquake*: a few real
onsets at real speed on the whole path.

*Under load* the same decisions are taken while endless loops keep every core of the machine busy at
ordinary priority and the real uplink takes all that the core publishes and sends it to a hub
through mosquitto. Where there is no mosquitto, a client drains the feed in its place, and the
figure's note says so. The archive has nothing to do here: the bench's contact gives no samples.

Each core first hears noise until its detector is armed, as a station's is for all but the first
seconds of its life. Frames come at 100 Hz throughout, and the simulated relay board answers every
request at once, as else the core would rightly take it for dead. A decision begins when the board's
line is idle: what a command waits for an exchange under way is a property of RS-485 and bounded by
the driver.
"""

import contextlib
import itertools
import json
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from bench.report import INSTALLED, Result
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
FRAME_NS = NS // 100
QUIET_FRAMES = 3
"""From the end of one sound to the next decision; the board is read back meanwhile."""
DECISIONS_A_CORE = 250
"""Then it is the turn of the next measurement."""
ARMED_S = 5.0
NOISE = 1000 + np.random.default_rng(2).normal(0, 30, (997, 3)).astype(int)
CHANNELS = ("XX.BENCH.00.EHZ", "XX.BENCH.00.EHN", "XX.BENCH.00.EHE")
NOISE[:, -1] &= ~1
CLOSED = 1
"""The bit of the last channel's counts that says that the bench's contact is closed."""

FLASH_ON = b"\x01\x05\x02"
"""Address, function and the register's upper byte of the frame that sounds the siren."""
FRAME_GAP_NS = 4_000_000
"""The silence after which the board takes a frame for complete."""


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
                closed = bool(item.samples.item(-1) & CLOSED)
                self._detector.decide(item.samples, item.index * NS // 100)
                if closed is not self._closed:
                    self._closed = closed
                    found.append(Reading(self._sensor, t, "contact", int(closed) * MICRO))
        return found

    def tick(self, t: int) -> list[Scans | Reading | Diagnostic]:
        return self._inner.tick(t)

    def next_deadline(self) -> int | None:
        return self._inner.next_deadline()

    def to_send(self) -> bytes:
        """What the core asks for last, so that here it is time for the second that is over."""
        self._detector.look()
        return self._inner.to_send()


def frame(*counts: int) -> bytes:
    """A frame of the digitiser; channels that are not given are 0."""
    body = b"\xaa\xbb" + struct.pack("<3i", *counts, *[0] * (len(CHANNELS) - len(counts)))
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
    """Real-time priority for this process; what it starts is ordinary until it asks itself."""
    try:
        policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(PRIORITY))
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
            time.sleep(FRAME_NS / NS + 0.0001 * (i % 17))
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


class Street:
    """What the core's two lines lead to: a digitiser that is fed, a relay board that answers."""

    def __init__(self, folder: Path) -> None:
        self._near, self._relay = Pty(folder / "seis"), Pty(folder / "relay")
        self._board = ModbusRelaySimulator()
        self._heard_ns = 0

    def close(self) -> None:
        self._near.close()
        self._relay.close()

    def send(self, data: bytes) -> int:
        """Write a digitiser's frame; when, in monotonic ns."""
        began = time.monotonic_ns()
        os.write(self._near.fd, data)
        return began

    def serve(self, until_ns: int) -> int | None:
        """Answer both lines until then; ends early with the time when a flash-on has come."""
        while (left_ns := until_ns - time.monotonic_ns()) > 0:
            ready, _, _ = select.select([self._relay.fd, self._near.fd], [], [], left_ns / NS)
            came = time.monotonic_ns()
            if self._relay.fd in ready and FLASH_ON in self._answer(came):
                return came
            if self._near.fd in ready:
                os.write(self._near.fd, self._near.read())  # the settings, echoed
        return None

    @property
    def exchanging(self) -> bool:
        """Whether the relay's line may not be idle: it is polled every ten seconds."""
        return time.monotonic_ns() < self._heard_ns + FRAME_NS

    def wait_for_core(self, seconds: float = 30.0) -> bool:
        """Whether the core has opened the digitiser's port and sent its settings."""
        return wait_for(self._near.fd, seconds)

    def _answer(self, t: int) -> bytes:
        got = self._relay.read()
        self._heard_ns = t
        self._board.feed(got, t)
        self._board.tick(t + FRAME_GAP_NS)
        if answer := self._board.to_send():
            os.write(self._relay.fd, answer)
        return got


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
    process = subprocess.Popen(command, stderr=log, env=INSTALLED)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def plan_for(hazard: Hazard, condition: PlanCondition) -> Plan:
    rule = LevelRule(Level.red, (Clause((condition,)),), "long", (), "x", "x")
    return Plan(hazard, "1", (rule,), hold_s=0, rearm_s=0)


Beside = Callable[[Path], contextlib.AbstractContextManager[None]]
"""What runs beside a core, given its folder of sockets."""


def alone(_run: Path) -> contextlib.AbstractContextManager[None]:
    """Nothing."""
    return contextlib.nullcontext()


def contact(folder: Path, trials: int, armed_s: float, beside: Beside = alone) -> list[int]:
    """Delays of the gateway for decisions by contact, everything but the hazard's rule real."""
    condition = Condition(Measure.value, "contact", 0, MICRO, MICRO)
    scale = Scale(
        "bench", Hazard.fire, "closed", (Step(Level.red, (condition,)),), hold_s=0, reach_s=0
    )
    port = Port(str(folder / "seis"))
    sensor = Sensor("seis1", port, "bench.latency:Knock", "scalar", silent_after_s=3600.0)
    plan = plan_for(Hazard.fire, PlanCondition("scale", ">=", 4.0))
    delays: list[int] = []
    street = Street(folder)
    try:
        with (
            running_core(folder, station(folder, sensor, scale, plan)),
            contextlib.ExitStack() as s,
        ):
            assert street.wait_for_core(), (folder / "core.log").read_text()
            s.enter_context(beside(folder / "run"))
            noise = itertools.cycle(NOISE.tolist())
            for _ in range(round(armed_s * NS / FRAME_NS)):
                street.serve(street.send(frame(*next(noise))) + FRAME_NS)
            while len(delays) < trials:
                for i in range(QUIET_FRAMES):
                    sent = street.send(frame(*next(noise)))
                    jitter_ns = len(delays) % 17 * 100_000 if i == QUIET_FRAMES - 1 else 0
                    street.serve(sent + FRAME_NS + jitter_ns)
                while street.exchanging:
                    street.serve(street.send(frame(*next(noise))) + FRAME_NS)
                *others, last = next(noise)
                began = street.send(frame(*others, last | CLOSED))
                sounded = street.serve(began + 5 * NS)
                assert sounded is not None, (folder / "core.log").read_text()
                delays.append(sounded - began)
                street.serve(began + FRAME_NS)
    finally:
        street.close()
    return delays


def earthquake(folder: Path) -> int:
    """Delay of one whole onset: noise, then shaking, through detector, ground motion and plan."""
    rng = np.random.default_rng(1)
    sensitivity = Sensitivity(426141.0, "m/s**2")
    channels = tuple(Channel(name, sensitivity) for name in CHANNELS)
    port = Port(str(folder / "seis"))
    driver = "gateway.drivers.rpi_seism:RpiSeism"
    sensor = Sensor("seis1", port, driver, "seismic", {"rate_hz": 100}, channels, 100.0)
    plan = plan_for(Hazard.earthquake, PlanCondition("intensity", ">=", 5.0))
    street = Street(folder)
    try:
        with running_core(folder, station(folder, sensor, None, plan)):
            assert street.wait_for_core(), (folder / "core.log").read_text()
            due = time.monotonic_ns()
            for i in range(100 * 20):
                shake = 400_000 * np.sin(i / 100 * 2 * np.pi * 3) if i > 100 * 8 else 0.0
                counts = (rng.normal(0, 30, 3) + shake).astype(int)
                sent = street.send(frame(*counts))
                due += (
                    FRAME_NS  # not from the last frame: a slow digitiser looks like one with gaps
                )
                if (sounded := street.serve(due)) is not None:
                    return sounded - sent
        raise AssertionError((folder / "core.log").read_text())
    finally:
        street.close()


_LISTENER = """
import sys
from pathlib import Path
from gateway.core.feed_client import FeedClient
with FeedClient(Path(sys.argv[1]), None, data=True) as feed:
    print("ready", flush=True)
    for item in feed:
        pass
"""


@contextlib.contextmanager
def listening(feed: Path) -> Iterator[None]:
    """A process that takes everything from the core's feed."""
    command = [sys.executable, "-c", _LISTENER, str(feed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def hub() -> Iterator[tuple[Beside, str]]:
    """An uplink to a hub for each core that asks for one, and what it does in a few words."""
    from bench.outbox import spawned  # noqa: PLC0415  the core loads this module for its driver
    from gateway.hub.broker import Broker, find_program  # noqa: PLC0415
    from gateway.uplink.config import MqttConfig, UplinkConfig, write  # noqa: PLC0415

    @contextlib.contextmanager
    def drained(run: Path) -> Iterator[None]:
        with listening(run / "feed.sock"):
            yield

    if find_program("mosquitto") is None:
        yield drained, "no mosquitto here: a client drains the feed"
        return
    with tempfile.TemporaryDirectory() as name, Broker() as broker:
        record = ("--record", str(Path(name) / "hub.sqlite"), "--kinds", "none")

        @contextlib.contextmanager
        def uplink(run: Path) -> Iterator[None]:
            config, mqtt = run / "uplink.json", MqttConfig(urls=(broker.url,))
            config.write_text(write(UplinkConfig("bench", "bench", mqtt)))
            paths = ["--config", config, "--state", run / "uplink", "--run", run]
            with spawned("gateway.uplink", *map(str, paths)):
                yield

        with spawned("gateway.cli", "hub", "watch", "--url", broker.url, *record):
            yield uplink, "uplink to a hub through mosquitto"


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other work on every core of the machine, at ordinary priority."""
    command = [sys.executable, "-S", "-c", "while True: pass"]
    started = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@dataclass(frozen=True, slots=True)
class Delays:
    """What was measured by turns, so that what else the machine does falls on all alike, ns."""

    bare: list[int]
    idle: list[int]
    loaded: list[int]


def by_turns(
    fresh: Callable[[], Path], rounds: int, decisions: int, armed_s: float, beside: Beside
) -> Delays:
    """So many rounds of the reference, the gateway, and the gateway on a busy machine."""
    found = Delays([], [], [])
    for _ in range(rounds):
        found.bare.extend(bare(fresh(), decisions))
        found.idle.extend(contact(fresh(), decisions, armed_s))
        with busy(os.cpu_count() or 1):
            found.loaded.extend(contact(fresh(), decisions, armed_s, beside))
    return found


def run(quick: bool) -> list[Result]:
    rounds, decisions, armed_s = (1, 20, 0.5) if quick else (8, DECISIONS_A_CORE, ARMED_S)
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    important = become_important()
    try:
        with tempfile.TemporaryDirectory(prefix="gw") as name, hub() as (beside, doing):
            places = itertools.count()

            def fresh() -> Path:
                made = Path(name) / str(next(places))
                made.mkdir()
                return made

            delays = by_turns(fresh, rounds, decisions, armed_s, beside)
            quake = [earthquake(fresh()) for _ in range(1 if quick else 5)]
    finally:
        os.sched_setscheduler(0, *before)
    reference, idle, loaded = (
        percentiles(found) for found in (delays.bare, delays.idle, delays.loaded)
    )
    trials = len(delays.idle)
    note = "" if important else "; no real-time priority here"
    names = ("p50", "p99", "p99.9")
    results = [
        Result(
            f"byte → siren byte, {p}",
            a / b,
            "× a bare read and write",
            goal,
            note=f"{a:.0f} µs against {b:.0f} µs, {trials} decisions{note}",
        )
        for p, a, b, goal in zip(names, idle, reference, (3, 3, 4), strict=True)
    ]
    results += [
        Result(
            f"the same, every core busy and the uplink at work, {p}",
            a / b,
            "× itself, idle",
            1.5,
            note=f"{a:.0f} µs; {doing}{note}",
        )
        for p, a, b in zip(names[:2], loaded, idle, strict=False)
    ]
    middle = float(np.median(quake)) / 1000
    results.append(
        Result(
            "earthquake: last byte → siren byte, median",
            middle / reference[0],
            "× a bare read and write",
            note=f"{middle:.0f} µs over {len(quake)} onsets, worst {max(quake) / 1000:.0f} µs",
        )
    )
    return results
