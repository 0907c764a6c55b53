"""A small station for tests of the core: a contact that is closed by hand, a siren that is heard.

A closed contact is red at once, so that a test needs no earthquake to have an alert. This module
is imported by the core under test as well, which finds the driver :class:`Gauge` here.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gateway.core.compiled import Channel, Compiled, Port, Sensor, Siren, Station
from gateway.core.control import ControlError, call
from gateway.core.feed_client import FeedClient
from gateway.core.segments import Position
from gateway.detect.scale import Condition as ScaleCondition
from gateway.detect.scale import Measure, Scale
from gateway.detect.scale import Step as ScaleStep
from gateway.detect.settings import Sensitivity
from gateway.drill.stage import Stage
from gateway.events import MICRO, NS, Diagnostic, Hazard, Level, Reading, Scans, parse_micro
from gateway.plan.rules import Clause, Condition, LevelRule, Pattern, Plan, Step
from gateway.siren.modbus_relay import ModbusRelaySimulator
from tests.staged import playing

REPOSITORY = Path(__file__).parents[2]
WAIT_S = 30.0

FLASH_ON = "01 05 02 00"
"""How the frame begins that closes relay 1 for a while: board 1, write coil, register 0200."""
COUNTS = Sensitivity(426_141.261, "m/s**2")


class Gauge:
    """Driver of a gauge that says lines of ``quantity value``."""

    kind = "scalar"

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        del options
        self._sensor = sensor
        self._rest = b""

    def opened(self, t: int) -> None:
        del t
        self._rest = b""

    def feed(self, data: bytes, t: int) -> list[Scans | Reading | Diagnostic]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        found: list[Scans | Reading | Diagnostic] = []
        for line in lines:
            try:
                quantity, value = line.decode().split()
                found.append(Reading(self._sensor, t, quantity, parse_micro(value)))
            except ValueError:
                found.append(Diagnostic("garbage", len(line)))
        return found

    def tick(self, t: int) -> list[Scans | Reading | Diagnostic]:
        del t
        return []

    def next_deadline(self) -> int | None:
        return None

    def to_send(self) -> bytes:
        return b""


# --- configurations -----------------------------------------------------------------------------

LONG = Pattern("long", (Step(on=True, seconds=60.0),))
CHIRP = Pattern("chirp", (Step(on=True, seconds=0.2),))


def scale(*, blue_at: float | None = None) -> Scale:
    """A closed contact is red and holds for half a minute; a value in between may be blue."""

    def step(level: Level, at: float) -> ScaleStep:
        micro = round(at * MICRO)
        return ScaleStep(level, (ScaleCondition(Measure.value, "contact", 0, micro, micro),))

    steps = [step(Level.blue, blue_at)] if blue_at is not None else []
    steps.append(step(Level.red, 1.0))
    return Scale("contact", Hazard.fire, "closed", tuple(steps), hold_s=30, reach_s=0)


def rule(condition: Condition, pattern: str, level: Level = Level.red) -> LevelRule:
    return LevelRule(level, (Clause((condition,)),), pattern, (), "x", "x")


def fire_plan(pattern: str = "long") -> Plan:
    """The siren sounds for red; blue is known and silent."""
    rules = (
        rule(Condition("scale", ">=", 4.0), pattern),
        rule(Condition("scale", ">=", 1.0), "", Level.blue),
    )
    return Plan(Hazard.fire, "1", rules, hold_s=30, rearm_s=0)


def quake_plan(intensity: float = 3.0) -> Plan:
    rules = (rule(Condition("intensity", ">=", intensity), "long"),)
    return Plan(Hazard.earthquake, "1", rules, hold_s=30, rearm_s=0)


def gauge(path: str = "gauge", silent_after_s: float = 3600.0, name: str = "gauge") -> Sensor:
    driver = "tests.core.station:Gauge"
    return Sensor(name, Port(path), driver, "scalar", silent_after_s=silent_after_s)


def seismometer(path: str, name: str = "seis1", code: str = "A", rate_hz: int = 100) -> Sensor:
    channels = tuple(Channel(f"XX.{code}.00.HN{c}", COUNTS) for c in "ZNE")
    driver = "gateway.drivers.rpi_seism:RpiSeism"
    options = {"rate_hz": rate_hz}
    return Sensor(name, Port(path), driver, "seismic", options, channels, float(rate_hz))


def virtual_siren(name: str = "main") -> Siren:
    driver = "gateway.siren.virtual:Virtual"
    return Siren(name, None, driver, max_on_s=3600, max_hour_s=3600)


def relay_siren(path: str) -> Siren:
    driver = "gateway.siren.modbus_relay:ModbusRelay"
    options = {"pulse_restarts": "yes"}
    unit = {"address": 1, "relay": 1}
    return Siren("main", Port(path), driver, options, unit, max_on_s=3600, max_hour_s=3600)


def station(
    sensors: Sequence[Sensor] = (), siren: Siren | None = None, pattern: Pattern = LONG
) -> Compiled:
    """A station whose contact and whose shaking sound ``pattern`` on its one siren."""
    return Compiled(
        station=Station("cn-test-001", "测试站", "test"),
        sensors=tuple(sensors) or (gauge(),),
        sirens=(siren or virtual_siren(),),
        scales=(scale(blue_at=0.5),),
        plans=(fire_plan(), quake_plan()),
        patterns=(replace(pattern, name="long"), CHIRP),
    )


def install(config: Compiled, state: Path) -> Path:
    """Write the compiled file where the core looks for it; the state folder."""
    folder = state / "compiled"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "current.json").write_text(json.dumps(asdict(config), default=str))
    return state


# --- real processes -----------------------------------------------------------------------------


def until(condition: Callable[[], object], why: Callable[[], object] = str) -> None:
    """Wait until it holds."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, why()
        select.select([], [], [], 0.01)


class Wire:
    """The far end of a gauge's line."""

    def __init__(self, link: Path) -> None:
        self._far, self._near = os.openpty()
        tty.setraw(self._near)
        link.symlink_to(os.ttyname(self._near))

    def say(self, text: str) -> None:
        os.write(self._far, text.encode())

    def close(self) -> None:
        os.close(self._far)
        os.close(self._near)


def children(pid: int) -> list[int]:
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether the process still runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Site:
    """A folder with simulated devices in it, and the core that runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state, self.run = folder / "state", folder / "run"
        self.contact = Wire(folder / "gauge")
        self.process: subprocess.Popen[bytes] | None = None
        self.children: list[int] = []
        self._log = folder / "relay.jsonl"
        self._stages = contextlib.ExitStack()
        self.plug(Stage(ModbusRelaySimulator(), folder / "relay", log=self._opened_log()))

    def _opened_log(self) -> Any:
        return self._stages.enter_context(self._log.open("w"))

    def plug(self, stage: Stage) -> None:
        """Another simulated device."""
        self._stages.enter_context(playing(stage))

    def configure(self, pattern: Pattern = LONG, *sensors: Sensor) -> Compiled:
        """Install a configuration with the contact, the siren and further sensors."""
        contact = gauge(str(self.folder / "gauge"))
        siren = relay_siren(str(self.folder / "relay"))
        config = station((contact, *sensors), siren, pattern)
        install(config, self.state)
        return config

    def start(self, *before: str, command: Sequence[str] = ()) -> dict[str, Any]:
        """Start the core, under the command ``before``; its first status."""
        places = ["--state", str(self.state), "--run", str(self.run)]
        command = command or [sys.executable, "-m", "gateway.core", *places]
        with (self.folder / "core.log").open("a") as log:
            self.process = subprocess.Popen([*before, *command], stderr=log, cwd=REPOSITORY)
        until(lambda: self.status() or self.process is None or self.process.poll(), self.log)
        status = self.status()
        assert status is not None, self.log()
        self.children = children(self.pid)
        return status

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def log(self) -> str:
        return (self.folder / "core.log").read_text()

    def ask(self, **request: Any) -> dict[str, Any]:
        return call(self.run / "control.sock", request, WAIT_S)

    def status(self) -> dict[str, Any] | None:
        """What the core says of itself; None while it does not run."""
        try:
            return self.ask(do="status")
        except ControlError:
            return None

    def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait for a status of which the condition holds."""
        found: dict[str, Any] = {}

        def holds() -> bool:
            found.clear()
            found.update(self.status() or {})
            return bool(found) and bool(condition(found))

        until(holds, lambda: (found, self.log()))
        return found

    def ports_open(self) -> None:
        """Wait until contact and relay are connected."""
        ports = (str(self.folder / "gauge"), str(self.folder / "relay"))
        self.until(lambda status: all(status["ports"][p]["state"] == "open" for p in ports))

    def fire(self) -> str:
        """Close the contact; the id of the alert that follows."""
        self.ports_open()
        self.contact.say("contact 1\n")
        status = self.until(lambda status: status["alerts"])
        return str(status["alerts"][0]["id"])

    def changes(self) -> list[dict[str, Any]]:
        """Everything that the relay has done."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def sounding(self) -> bool:
        changes = self.changes()
        return bool(changes) and bool(changes[-1]["on"])

    def crash(self) -> None:
        """The core dies, and nobody waits for what its journal child has still to write."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(WAIT_S)

    def kill(self) -> None:
        """The core dies; what it had given its journal child is written nonetheless."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the core and wait for it and its journal child; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        self.process = None
        until(lambda: not any(map(alive, self.children)))
        return code

    def records(
        self, enough: Callable[[list[dict[str, Any]]], object], have: Position = None
    ) -> list[dict[str, Any]]:
        """The records of the feed from the first one on, as soon as they are enough."""
        found: list[dict[str, Any]] = []
        end = time.monotonic() + WAIT_S
        with FeedClient(self.run / "feed.sock", have, timeout_s=0.2) as client:
            for item in client:
                if item is not None and item["stream"] == "record":
                    found.append(item["record"])
                if enough(found):
                    break
                assert time.monotonic() < end, (found, self.log())
        return found

    def close(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(WAIT_S)
        until(lambda: not any(map(alive, self.children)))
        self._stages.close()
        self.contact.close()
        shutil.rmtree(self.state, ignore_errors=True)  # the journal allocates 64 MB


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Site]:
    """A site whose processes, threads and terminals are gone afterwards."""
    made = Site(folder)
    try:
        yield made
    finally:
        made.close()


def first(records: list[dict[str, Any]], **wanted: Any) -> dict[str, Any] | None:
    """The first record with these values."""
    return next((r for r in records if wanted.items() <= r.items()), None)


def seconds(count: float) -> int:
    """In ns."""
    return round(count * NS)
