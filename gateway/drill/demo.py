"""The demonstration: a recorded earthquake and rainstorm through the whole gateway.

It starts, and ends, what a station and its city have::

    simulate seismometer ─┐                        ┌─ mosquitto on a free loopback port
    simulate rain gauge  ─┤─ gateway run ──────────┤
    simulate siren relay ─┘  (core and uplink)     └─ hub, in this process

and watches from three sides: the core's feed, what the hub heard, and the logs of the simulators.
Everything is in one temporary folder; the drawing and the summary stay.
"""

import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from gateway.core import compiled
from gateway.core.feed_client import FeedClient, FeedError, packet_samples
from gateway.drill import demo_station as station
from gateway.drill import latency
from gateway.drill.demo_outcome import Outcome, played
from gateway.drill.demo_station import Places
from gateway.drill.lines import line_of
from gateway.drill.view import Scene
from gateway.events import NS, parse_iso
from gateway.hub.broker import Broker
from gateway.hub.hub import Hub, Message
from gateway.uplink.config import MqttConfig

START_S = 60.0
"""Longest wait for anything to start; small machines are slow to import."""
STOP_S = 20.0
DEVICE_PRIORITY = 20
"""Real-time priority of the simulators, where this user may give it."""
LATEST_PACKETS = 40
ROUNDING_NS = 2_000
"""Of two published times."""
QUIET_KINDS = ("telemetry", "waveform")
QUIET_TYPES = ("ground_motion",)


class DemoError(Exception):
    """The demonstration can't go on; the message says why and what to do."""


class InterruptedDemoError(Exception):
    """The person at the keyboard has seen enough."""


class _Child:
    """A process of the demonstration, in a session of its own: Ctrl-C is for us to pass on."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter
                [sys.executable, "-m", "gateway.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise DemoError if it has ended."""
        if (code := self._process.poll()) is not None:
            said = "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
            raise DemoError(f"{self.name} ended with {code}; it said:\n{said}")

    def stop(self) -> None:
        """Ask it to end; kill whatever of its session is left."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class Demo:
    """All of it, as a context: made, run with :meth:`run`, and gone at its end.

    Args:
        tell: takes a line about what is started or seen, for people.
        stop: descriptor that is readable when the demonstration is to end at once.
        seconds: how long to watch, from the first sample on.

    Raises:
        DemoError: something did not start; says what to do. Nothing is left running.
        InterruptedDemoError: ``stop`` became readable.
    """

    def __init__(self, tell: Callable[[str], None], stop: int, seconds: float) -> None:
        self.seconds = seconds
        self.outcome = Outcome()
        self.scene: Scene | None = None
        self._tell = tell
        self._stop = stop
        self._selector = selectors.DefaultSelector()
        self._children: list[_Child] = []
        self._feed: FeedClient | None = None
        self._began: int | None = None
        self._packets: deque[dict[str, Any]] = deque(maxlen=LATEST_PACKETS)
        self._deciding: dict[str, Any] | None = None
        self._decided_ns: int | None = None
        self._first_rain: int | None = None
        self._heard_alert_ns: int | None = None
        self._stack = ExitStack()

    # -- start and end ---------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._selector)
            self._selector.register(self._stop, selectors.EVENT_READ, self._interrupted)
            folder = Path(tempfile.mkdtemp(prefix="gateway-demo-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self.places = Places(folder)
            self._tell(f"starts, all below {folder} and gone at the end:")
            broker = self._start_broker(stack)
            station.write(self.places, broker.url)
            self._start_simulators(stack)
            self._start_hub(stack, broker)
            self._start_gateway(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_broker(self, stack: ExitStack) -> Broker:
        try:
            broker = stack.enter_context(Broker())
        except (FileNotFoundError, RuntimeError) as error:
            raise DemoError(str(error)) from error
        self._tell(f"  broker       mosquitto at {broker.url}, pid {broker.pid}")
        return broker

    def _start(self, stack: ExitStack, name: str, arguments: list[str]) -> _Child:
        child = _Child(name, arguments, self.places.folder / f"{name}.log")
        stack.callback(child.stop)
        self._children.append(child)
        return child

    def _start_simulators(self, stack: ExitStack) -> None:
        places = self.places
        for device, what, arguments in (
            (
                "seis",
                f"rpi-seism digitiser playing {station.QUAKE.name}",
                [str(places.profile), "--play", str(station.QUAKE)],
            ),
            (
                "rain",
                f"RG-15 gauge playing {station.STORM.name}, {station.SPEED} times as fast",
                ["hydreon-rg15", "--play", str(places.storm), "--speed", str(station.SPEED)],
            ),
            ("relay", "Modbus relay that switches the siren", ["waveshare-modbus-relay"]),
        ):
            link = places.port(device)
            log = ["--link", str(link), "--log", str(places.log(device))]
            child = self._start(stack, device, ["simulate", *arguments, *log])
            self._tell(f"  simulator    {what}, on {link}, pid {child.pid}")
        for child in self._children:
            self._until(places.port(child.name).exists, f"simulator {child.name}")
        with suppress(OSError):  # devices do not wait for a turn on the host's processor
            for child in self._children:
                os.sched_setscheduler(child.pid, os.SCHED_RR, os.sched_param(DEVICE_PRIORITY))
            self._tell("               they have real-time priority, as devices have no host")

    def _start_hub(self, stack: ExitStack, broker: Broker) -> None:
        mqtt = MqttConfig(urls=(broker.url,), client_id="hub")
        record = self.places.folder / "hub.sqlite"
        self._hub = stack.enter_context(Hub(mqtt, self._heard, self._selector, record))
        self._until(lambda: self._hub.connected, "hub at the broker")
        self._tell("  hub          in this process; stores and acknowledges what the station says")

    def _start_gateway(self, stack: ExitStack) -> None:
        places = self.places
        arguments = ["--config", str(places.config), "--state", str(places.state)]
        child = self._start(stack, "gateway", ["run", *arguments, "--run", str(places.run)])
        stack.callback(self._disconnect)
        self._until(self._connect, "core of the gateway")
        parts = ", ".join(f"{name} pid {pid}" for name, pid in _parts(child.pid)) or "core, uplink"
        self._tell(f"  gateway run  pid {child.pid}: {parts}")
        self._until(lambda: self._began is not None, "first sample")

    def _connect(self) -> bool:
        """Connect to the core's feed once it is there."""
        try:
            self._feed = FeedClient(self.places.run / "feed.sock", data=True, timeout_s=0)
        except FeedError:
            return False
        self._selector.register(self._feed, selectors.EVENT_READ, self._read_feed)
        self.scene = Scene(
            compiled.load(self.places.state / "compiled" / "current.json"),
            speed=station.SPEED,
            messages_title="hub 城市中心收到的消息",
        )
        return True

    def _disconnect(self) -> None:
        if self._feed is not None:
            self._selector.unregister(self._feed)
            self._feed.close()
            self._feed = None

    def _until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + START_S
        while not condition():
            if time.monotonic() > end:
                raise DemoError(f"{what}: not there after {START_S:g} s; is the machine very slow?")
            self.turn(0.05)

    # -- one turn --------------------------------------------------------------------------------

    def run(self, draw: Callable[[], None] | None = None) -> Outcome:
        """Watch for the time that was set; then say what was seen and what was missing."""
        while self.elapsed_s < self.seconds:
            self.turn(0.1)
            if draw is not None:
                draw()
        self._conclude()
        return self.outcome

    @property
    def elapsed_s(self) -> float:
        """Since the first sample."""
        return 0.0 if self._began is None else (time.monotonic_ns() - self._began) / NS

    def turn(self, wait_s: float) -> None:
        """Wait for something to happen, and see to it."""
        if hub := getattr(self, "_hub", None):
            now = time.monotonic_ns()
            hub.turn(now)
            wait_s = min(wait_s, max(0, hub.next_deadline(now) - now) / NS)
        for key, mask in self._selector.select(wait_s):
            key.data(mask, time.monotonic_ns())
        for child in self._children:
            child.check()
        self._look_at_relay()

    def _interrupted(self, _mask: int, _t: int) -> None:
        raise InterruptedDemoError

    def _read_feed(self, _mask: int, t: int) -> None:
        try:
            while self._feed is not None and (item := self._feed.receive()) is not None:
                self._take(item, t)
        except FeedError as error:
            raise DemoError(f"the core went away: {error}") from error

    def _take(self, item: dict[str, Any], t: int) -> None:
        if self.scene is not None:
            self.scene.take(item)
        if packet := item.get("packet"):
            self._began = self._began or t
            self._packets.append(packet)
            self._measure()
        elif reading := item.get("reading"):
            self._first_rain = self._first_rain or parse_iso(reading["time"])
        elif record := item.get("record"):
            self._note(record)

    def _note(self, record: dict[str, Any]) -> None:
        """What the core decided, as its feed says."""
        outcome = self.outcome
        match record["type"]:
            case "onset":
                outcome.onset = outcome.onset or record
            case "ground_motion":
                outcome.motion = record
            case "siren":
                outcome.sirens.append(record)
                if self._decided_ns is None:
                    to_boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.time_ns()
                    self._decided_ns = parse_iso(record["time"]) + to_boottime
            case "alert" if record["hazard"] == "earthquake" and self._deciding is None:
                self._deciding = record
            case "level" if record["level"] != "none" and self._first_rain is not None:
                reached = (parse_iso(record["time"]) - self._first_rain) / NS
                outcome.rain_reached_s = outcome.rain_reached_s or round(reached, 3)
        if record["type"] not in QUIET_TYPES:
            self._tell(f"core  {line_of(record)}")

    def _heard(self, message: Message) -> None:
        """What the hub received."""
        if message.kind in QUIET_KINDS or message.type in QUIET_TYPES:
            return
        record = dict(message.data)
        self._tell(f"hub   {line_of(record)}")
        if self.scene is not None:
            self.scene.say(record)
        if message.type != "alert" or record["phase"] != "alert":
            return
        if record["hazard"] == "earthquake" and self.outcome.earthquake is None:
            self.outcome.earthquake = record
            self._heard_alert_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        elif record["hazard"] == "rainstorm":
            self.outcome.rainstorm = self.outcome.rainstorm or record

    # -- siren and latency -----------------------------------------------------------------------

    def _look_at_relay(self) -> None:
        edges = latency.read_log(self.places.log("relay"))
        for edge in edges[len(self.outcome.edges) :]:
            state = "closed: the siren sounds" if edge["on"] else "open: the siren is silent"
            frame = f", by {edge['frame']}" if "frame" in edge else ", by its own timer"
            self._tell(f"relay {state}{frame}")
            if self.scene is not None:
                for siren in self.scene.sirens.values():
                    siren.closed = edge["on"]
        self.outcome.edges = edges

    def _measure(self) -> None:
        """Once the samples of the decision have come: which it was, and how long all took."""
        if self._deciding is None or self._decided_ns is None or self.outcome.latency is not None:
            return
        found = self._deciding_samples(parse_iso(self._deciding["time"]))
        logs = (latency.read_log(self.places.log(device)) for device in ("seis", "relay"))
        self.outcome.latency = measured = latency.measure(found, self._decided_ns, *logs)
        if measured is None:
            return
        took = f"{measured.measured_ms:.2f} ms"
        self._tell(f"timing {took} from the last byte needed to the siren's first byte")
        if self.scene is not None:
            self.scene.latency = f"{took} last byte needed → siren's first byte"

    def _deciding_samples(self, time_ns: int) -> list[int]:
        """The number of the first sample from that time on; none while its packet has not come.

        Ground motion is judged at fixed times after the onset, each as soon as a sample shows that
        it has been reached. Two numbers, where rounding leaves it open.
        """
        for packet in self._packets:
            start_ns, rate_hz = parse_iso(packet["start"]), packet["rate_hz"]
            block = packet_samples(packet).astype(np.int32)
            low, high = (
                math.ceil((time_ns + off_ns - start_ns) * rate_hz / NS)
                for off_ns in (-ROUNDING_NS, ROUNDING_NS)
            )
            first = latency.place(played(), block) if 0 <= low < block.shape[1] else None
            if first is not None:
                self.outcome.to_recording_ns = round(first * NS / rate_hz) - start_ns
                return list(range(first + low, first + high + 1))
        return []

    # -- the end ---------------------------------------------------------------------------------

    def _conclude(self) -> None:
        outcome = self.outcome
        outcome.seconds = self.elapsed_s
        outcome.hub_counts = dict(self._hub.counts)
        if outcome.latency is not None and self._heard_alert_ns is not None:
            later_ns = self._heard_alert_ns - outcome.latency.heard_ns
            outcome.hub_later_ms = round(later_ns / 1e6, 1)

    def progress(self) -> str:
        """How far the recordings are, in one line."""
        at = min(self.elapsed_s, self.seconds)
        storm = f"storm {station.storm_time(at)}, ×{station.SPEED}"
        return f"{at:4.0f} of {self.seconds:g} s · earthquake ×1 · {storm}"


def _parts(pid: int) -> list[tuple[str, int]]:
    """The children of `gateway run`, as ``core`` and ``uplink``."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found = []
        for child in children:
            words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            name = next((w for w in words if w.startswith("gateway.")), "")
            found.append((name.removeprefix("gateway."), int(child)))
    except OSError:  # one of them has ended meanwhile, or this kernel does not tell
        return []
    return found
