"""One round: a station with its devices, its alert, its faults, and what its sirens did.

The devices are a contact, a seismometer, a Modbus relay board (siren ``main``) and a USB relay
(siren ``horn``), each simulated on a pseudo-terminal. Everything here is one loop: devices, the
supervisor and the script are called when their time has come.
"""

import contextlib
import heapq
import io
import itertools
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.core.compiled import Compiled, Siren, Station
from gateway.core.compiled import Port as CompiledPort
from gateway.core.control import ControlError, call
from gateway.drill import sources
from gateway.drill.stage import FaultKind, Stage
from gateway.drivers.rpi_seism import RpiSeismSimulator
from gateway.events import NS
from gateway.plan.rules import Pattern, Step
from gateway.siren.lcus_relay import LcusRelaySimulator
from gateway.siren.modbus_relay import ModbusRelaySimulator
from tests.campaign import verdict
from tests.campaign.script import UPLINK, Fault, Kind, Round
from tests.campaign.supervisor import Child, Supervisor
from tests.campaign.verdict import EDGE_NS, RESUME_NS, Outage, Span, Wrong
from tests.core.station import fire_plan, gauge, install, scale, seismometer

START_NS = 20 * NS
"""So long a core may take to be ready; only a broken machine needs it."""
BACK_NS = 3 * NS
"""A line that is back is opened within 2 s, and its siren told again within another."""
STOP_NS = round(1.5 * NS)
"""An orderly stop silences, reads back and leaves."""
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  as /run is
REPEAT_NS = NS // 5
STALL_NS = NS // 10
"""A device that is later than this is no device: half of the shortest time-out of a driver."""
TRIES = 3

UPLINK_CONFIG = """
[station]
id = "campaign"
city = "test"
latitude = 31.0
longitude = 103.4

[uplink.mqtt]
url = "mqtt://127.0.0.1:1"
"""


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Contact:
    """The simulated contact: says its state five times a second, and at once when it changes."""

    def __init__(self) -> None:
        self.closed = False
        self._due = 0

    def powered(self, t: int) -> None:
        self._due = t

    def feed(self, data: bytes, t: int) -> None:
        """It is told nothing."""

    def tick(self, t: int) -> None:
        """It speaks when it is asked for what it sends."""

    def next_deadline(self) -> int:
        return self._due

    def to_send(self) -> bytes:
        t = time.monotonic_ns()
        if t < self._due:
            return b""
        self._due = t + REPEAT_NS
        return f"contact {int(self.closed)}\n".encode()

    def turn(self, *, closed: bool) -> None:
        self.closed, self._due = closed, 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a round. Times in ns; ``silent`` and ``resumed`` follow the deaths of cores.

    ``stalled`` is how often this machine held up the simulated devices themselves.
    """

    round: Round
    wrong: list[Wrong]
    silent_ns: list[int] = field(default_factory=list)
    resumed_ns: list[int] = field(default_factory=list)
    left_out: list[Kind] = field(default_factory=list)
    stalled: int = 0
    folder: Path | None = None

    def record(self) -> dict[str, Any]:
        """For the process that collects them."""
        return {
            "seed": self.round.seed,
            "kinds": [fault.kind.name for fault in self.round.faults],
            "left_out": [kind.name for kind in self.left_out],
            "wrong": [str(wrong) for wrong in self.wrong],
            "silent_s": [x / NS for x in self.silent_ns],
            "resumed_s": [x / NS for x in self.resumed_ns],
            "stalled": self.stalled,
            "folder": str(self.folder) if self.folder else None,
        }


class Live:
    """A station at work. Made, :meth:`play`-ed once, and closed."""

    def __init__(self, folder: Path, what: Round, faketime: str | None) -> None:
        self.folder, self._round, self._faketime = folder, what, faketime
        self._order = itertools.count()
        self._script: list[tuple[int, int, Callable[[int], None]]] = []
        self.outages: list[Outage] = []
        self.deaths: list[int] = []
        self.wrong: list[Wrong] = []
        self.left_out: list[Kind] = []
        self.quiet: Span | None = None
        self._stalled = 0
        self._deaths_to_come = 0
        self._hung_ns: int | None = None
        self._uplink: Child | None = None
        self._uplink_due = 0
        self._logs = {"main": io.StringIO(), "horn": io.StringIO()}
        self._contact = Contact()
        relay = ModbusRelaySimulator({"pulse_restarts": what.board})
        self._stages = {
            "gauge": Stage(self._contact, folder / "gauge"),
            "seis1": Stage(
                RpiSeismSimulator({"rate_hz": 100}, sources.Quiet(100.0, 3)),
                folder / "seis1",
                baud=250_000,
            ),
            "main": Stage(relay, folder / "main", log=self._logs["main"]),
            "horn": Stage(
                LcusRelaySimulator({"feedback": True}), folder / "horn", log=self._logs["horn"]
            ),
        }
        install(self._configuration(), folder / "state")
        (folder / "gateway.toml").write_text(UPLINK_CONFIG)
        (folder / "clock").write_text("+0\n")
        self._supervisor = Supervisor(folder, self._environment(), self._core_died)

    def _configuration(self) -> Compiled:
        what = self._round
        steps = tuple(
            Step(on=number % 2 == 0, seconds=step_s) for number, step_s in enumerate(what.pattern)
        )
        modbus, lcus = (f"gateway.siren.{name}" for name in ("modbus_relay", "lcus_relay"))
        return Compiled(
            station=Station("campaign", "campaign", "test"),
            sensors=(
                gauge(str(self.folder / "gauge"), silent_after_s=1.0),
                seismometer(str(self.folder / "seis1")),
            ),
            sirens=(
                Siren(
                    "main",
                    CompiledPort(str(self.folder / "main")),
                    f"{modbus}:ModbusRelay",
                    {"pulse_restarts": what.belief},
                    {"relay": 1},
                ),
                Siren(
                    "horn",
                    CompiledPort(str(self.folder / "horn")),
                    f"{lcus}:LcusRelay",
                    {"feedback": True},
                    {"relay": 1},
                ),
            ),
            scales=(scale(),),
            plans=(fire_plan(),),
            patterns=(Pattern("long", steps, what.repeat), Pattern("chirp", (Step(True, 0.2),))),
        )

    def _environment(self) -> Mapping[str, str]:
        if self._faketime is None or not any(
            fault.kind is Kind.step_clock for fault in self._round.faults
        ):
            return {}
        return {
            "LD_PRELOAD": self._faketime,
            "FAKETIME_TIMESTAMP_FILE": str(self.folder / "clock"),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    # -- the loop --------------------------------------------------------------------------------

    def play(self) -> Outcome:
        """The whole round."""
        for stage in self._stages.values():
            stage.begin(time.monotonic_ns())
        if any(fault.kind in UPLINK for fault in self._round.faults):
            self._uplink_due = 1
        self._until(self._at_rest, "the station is ready")
        first_s = min([0.0, *(fault.at_s for fault in self._round.faults)])
        began = now_ns() + round(-first_s * NS)
        for fault in self._round.faults:
            self._at(began + round(fault.at_s * NS), self._injection(fault))
        self._at(began, lambda _t: self._contact.turn(closed=True))
        length_ns = round(self._round.length_s * NS)
        while (t := now_ns()) < max(
            [began + length_ns + NS, *(o.silent_ns + NS // 2 for o in self.outages)]
        ) or self._script:
            self._turn(t)
        self._until(lambda: self._supervisor.ready and self._ask(), "a core answers at the end")
        end = now_ns()
        wanted = [
            (began + round(a * NS), began + round(b * NS)) for a, b in self._round.stretches_s
        ]
        self._check_status()
        return self._outcome(wanted, end)

    def _outcome(self, wanted: list[Span], end: int) -> Outcome:
        silent, resumed = [], []
        for siren in ("main", "horn"):
            sounded = verdict.closed(self._changes(siren), end)
            self.wrong += verdict.judge(siren, wanted, sounded, self.outages, self.quiet)
            for death in self.deaths:
                lasted = verdict.silent_after(death, sounded)
                if lasted is not None:
                    silent.append(lasted)
                again = verdict.resumed_after(death, wanted, sounded)
                if again is not None and self._alone(siren, death):
                    resumed.append(again)
                    if again > RESUME_NS:
                        self.wrong.append(Wrong("late", siren, (death, death + again)))
        return Outcome(self._round, self.wrong, silent, resumed, self.left_out, self._stalled)

    def _alone(self, siren: str, death: int) -> bool:
        """Nothing else kept the siren from being told again after this death."""
        return not any(
            o.siren in ("", siren) and o.death_ns != death
            and o.start_ns < death + RESUME_NS and o.silent_ns > death
            for o in self.outages
        )  # fmt: skip

    def _changes(self, siren: str) -> list[tuple[int, bool]]:
        records = map(json.loads, self._logs[siren].getvalue().splitlines())
        return [(r["boottime_ns"], r["on"]) for r in records if r["relay"] == 1]

    def _turn(self, t: int) -> None:
        while self._script and self._script[0][0] <= t:
            heapq.heappop(self._script)[2](t)
        self._supervisor.tend(t)
        self._tend_uplink(t)
        for stage in self._stages.values():
            stage.step(time.monotonic_ns())
        offset = now_ns() - time.monotonic_ns()
        dues = [t + NS // 50, *(self._script[0][:1] if self._script else ())]
        dues += [x + offset for s in self._stages.values() if (x := s.next_deadline()) is not None]
        files = [fd for stage in self._stages.values() if (fd := stage.fileno()) is not None]
        files += self._supervisor.files()
        select.select(files, [], [], max(0, min(dues) - now_ns()) / NS)
        self._stalled += now_ns() - max(t, min(dues)) > STALL_NS

    def _until(self, condition: Callable[[], object], what: str) -> None:
        end = now_ns() + START_NS
        while not condition():
            if (t := now_ns()) >= end:
                self.wrong.append(Wrong(f"not within {START_NS // NS} s: {what}", "core", (t, t)))
                return
            self._turn(t)

    def _at(self, t: int, do: Callable[[int], None]) -> None:
        heapq.heappush(self._script, (t, next(self._order), do))

    def _at_rest(self) -> bool:
        """Whether core and devices have found each other: each has been told and has answered."""
        if not self._supervisor.ready:
            return False
        status = self._ask()
        if status is None:
            return False
        ports = all(port["state"] == "open" for port in status["ports"].values())
        heard = all(sensor["age_s"] is not None for sensor in status["sensors"].values())
        return ports and heard and (not self._uplink_due or self._uplink is not None)

    def _ask(self) -> dict[str, Any] | None:
        try:
            return call(self.folder / "run" / "control.sock", {"do": "status"}, 1.0)
        except ControlError:
            return None

    def _check_status(self) -> None:
        """At the end the core answers, and says what it has dropped."""
        status = self._ask()
        t = now_ns()
        if status is None:
            self.wrong.append(Wrong("no answer at the end", "core", (t, t)))
            return
        if any(fault.kind is Kind.third_death for fault in self._round.faults):
            stated = any(entry["kind"] == "deaths" for entry in status["health"])
            if status["alerts"] or not stated:
                self.wrong.append(Wrong("third death not stated", "core", (t, t)))

    # -- faults ----------------------------------------------------------------------------------

    def _injection(self, fault: Fault) -> Callable[[int], None]:
        deeds: dict[Kind, Callable[[Fault, int], None]] = {
            Kind.hang_core: self._hang,
            Kind.pause_core: self._pause,
            Kind.stop_core: self._stop,
            Kind.kill_both: self._kill_both,
            Kind.kill_again: self._kill_again,
            Kind.kill_last_resort: self._kill_last_resort,
            Kind.third_death: self._third_death,
            Kind.kill_journal: self._kill_journal,
            Kind.pause_journal: self._pause_journal,
            Kind.disk_fails: self._disk_fails,
            Kind.kill_uplink: self._kill_uplink,
            Kind.pause_uplink: self._pause_uplink,
            Kind.step_clock: self._step_clock,
            Kind.intrude: self._intrude,
        }
        if fault.kind in deeds:
            deed = deeds[fault.kind]
            return lambda t: deed(fault, t)
        if fault.kind in (Kind.kill_core, Kind.crash_core):
            return lambda t: self._kill(fault, t)
        return lambda t: self._line(fault, t)

    def _when_running(self, fault: Fault, t: int) -> bool:
        """Whether a core runs that can be hit; else the fault is put off."""
        if self._supervisor.core is not None and self._supervisor.ready and self._hung_ns is None:
            return True
        self._at(t + NS // 20, self._injection(fault))
        return False

    def _core_died(self, killed_ns: int | None) -> None:
        t = now_ns()
        if killed_ns is None:
            self.wrong.append(Wrong("died by itself", "core", (t, t)))
        death = killed_ns or t
        start = self._hung_ns or death
        self._hung_ns = None
        self.deaths.append(death)
        until = death + RESUME_NS
        self.outages.append(Outage("death", "", start, until, until, death))
        if self._deaths_to_come:
            self._deaths_to_come -= 1
            if self._deaths_to_come == 0:
                self.quiet = death, until
                self._contact.turn(closed=False)  # else its next word is a new alert

    def _kill(self, fault: Fault, t: int) -> None:
        if self._when_running(fault, t):
            crash = fault.kind is Kind.crash_core
            self._supervisor.kill(signal.SIGSEGV if crash else signal.SIGKILL, t)

    def _kill_both(self, fault: Fault, t: int) -> None:
        if self._when_running(fault, t):
            journal = self._supervisor.journal()
            self._supervisor.kill(signal.SIGKILL, t)
            if journal is not None:
                os.kill(journal, signal.SIGKILL)

    def _kill_again(self, fault: Fault, t: int) -> None:
        if self._when_running(fault, t):
            self._supervisor.kill_start_after_ns = round(min(fault.for_s / 8, 0.6) * NS)
            self._supervisor.kill(signal.SIGKILL, t)

    def _kill_last_resort(self, fault: Fault, t: int) -> None:
        if self._when_running(fault, t):
            self._supervisor.kill_last_resort_after_ns = round(fault.for_s / 12 * NS)
            self._supervisor.kill(signal.SIGKILL, t)

    def _third_death(self, fault: Fault, t: int) -> None:
        if not self._when_running(fault, t):
            return
        if not self._deaths_to_come:
            self._deaths_to_come = 3
        self._supervisor.kill(signal.SIGKILL, t)
        if self._deaths_to_come > 1:
            self._at(t + NS, self._injection(fault))

    def _hang(self, fault: Fault, t: int) -> None:
        if self._when_running(fault, t) and self._supervisor.core is not None:
            self._supervisor.core.signal(signal.SIGSTOP)
            self._hung_ns = t
            # Until the watchdog bites nobody knows; its time comes with the death.
            self.outages.append(Outage("hang", "", t, t + 4 * NS, t + 4 * NS))

    def _pause(self, fault: Fault, t: int) -> None:
        if not self._when_running(fault, t) or self._supervisor.core is None:
            return
        core = self._supervisor.core
        core.signal(signal.SIGSTOP)
        end = t + round(fault.for_s * NS)
        self.outages.append(Outage("pause", "", t, end + EDGE_NS, end + EDGE_NS))

        def go_on(_t: int) -> None:
            if not core.ended:
                core.signal(signal.SIGCONT)

        self._at(end, go_on)

    def _stop(self, fault: Fault, t: int) -> None:
        if self._when_running(fault, t):
            self.quiet = t, t + STOP_NS
            self._supervisor.stop()

    def _kill_journal(self, fault: Fault, t: int) -> None:
        if self._when_running(fault, t) and (journal := self._supervisor.journal()) is not None:
            os.kill(journal, signal.SIGKILL)

    def _pause_journal(self, fault: Fault, t: int) -> None:
        if self._when_running(fault, t) and (journal := self._supervisor.journal()) is not None:
            os.kill(journal, signal.SIGSTOP)
            self._at(t + round(fault.for_s * NS), lambda _t: _signal(journal, signal.SIGCONT))

    def _disk_fails(self, fault: Fault, t: int) -> None:
        """Every write of the child fails, as if there were no room left for a single byte."""
        if self._when_running(fault, t) and (journal := self._supervisor.journal()) is not None:
            before = resource.prlimit(journal, resource.RLIMIT_FSIZE)
            resource.prlimit(journal, resource.RLIMIT_FSIZE, (0, before[1]))

            def heal(_t: int) -> None:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(journal, resource.RLIMIT_FSIZE, before)

            self._at(t + round(fault.for_s * NS), heal)

    def _kill_uplink(self, _fault: Fault, _t: int) -> None:
        if self._uplink is not None:
            self._uplink.signal(signal.SIGKILL)

    def _pause_uplink(self, fault: Fault, t: int) -> None:
        if (uplink := self._uplink) is not None:
            uplink.signal(signal.SIGSTOP)
            end = t + round(fault.for_s * NS)
            self._at(end, lambda _t: _signal(uplink.process.pid, signal.SIGCONT))

    def _step_clock(self, fault: Fault, _t: int) -> None:
        if self._faketime is None:
            self.left_out.append(fault.kind)
            return
        fresh = self.folder / "clock.new"
        fresh.write_text(f"{fault.for_s:+.3f}\n")
        fresh.replace(self.folder / "clock")

    def _intrude(self, fault: Fault, t: int) -> None:
        if not self._when_running(fault, t):
            return
        for name in ("control.sock", "feed.sock"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
                door.setblocking(False)
                with contextlib.suppress(OSError):
                    door.connect(str(self.folder / "run" / name))
                    door.send(os.urandom(2000) + b"\n" + b'{"do": ["siren_off"]}\n' * 9)

    def _line(self, fault: Fault, t: int) -> None:
        verb, _, device = fault.kind.name.partition("_")
        name = {"gauge": "gauge", "seismometer": "seis1", "siren": fault.siren}[device]
        kind = {
            "unplug": FaultKind.unplug,
            "garble": FaultKind.garbage,
            "silence": FaultKind.silence,
            "power": FaultKind.power,
        }[verb]
        mono, length_ns = time.monotonic_ns(), round(fault.for_s * NS)
        self._stages[name].suffer(kind, mono, mono + length_ns)
        if device != "siren":
            return
        if name == "horn" and kind is FaultKind.unplug:  # USB is its power
            self._stages[name].suffer(FaultKind.power, mono, mono + length_ns)
        end = t + length_ns
        sounds = t + RESUME_NS + EDGE_NS if name == "main" else end + BACK_NS
        self.outages.append(Outage(fault.kind.name, name, t, sounds, end + BACK_NS))

    # -- the uplink ------------------------------------------------------------------------------

    def _tend_uplink(self, t: int) -> None:
        if self._uplink is not None and self._uplink.ended:
            self._uplink.close()
            self._uplink, self._uplink_due = None, t + NS
        if self._uplink is None and 0 < self._uplink_due <= t and self._supervisor.ready:
            command = ["nice", sys.executable, "-m", "gateway.uplink"]
            command += ["--config", str(self.folder / "gateway.toml")]
            command += ["--state", str(self.folder / "uplink"), "--run", str(self.folder / "run")]
            self._uplink = Child(command, {}, self.folder / "uplink.log")

    def close(self) -> None:
        """End every process, and take the devices away."""
        self._supervisor.close()
        if self._uplink is not None:
            self._uplink.close()
        for stage in self._stages.values():
            stage.end()
        for name, log in self._logs.items():
            (self.folder / f"{name}.jsonl").write_text(log.getvalue())


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def play(what: Round, faketime: str | None = None, keep: Path | None = None) -> Outcome:
    """Play a round in a folder of its own, kept under ``keep`` when something was wrong.

    Where the machine held up the devices themselves, what went wrong proves nothing: the round is
    played again.
    """
    for _ in range(TRIES):
        outcome = _play(what, faketime, keep)
        if not outcome.wrong or not outcome.stalled:
            break
    return outcome


def _play(what: Round, faketime: str | None, keep: Path | None) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="gw"))
    with tempfile.TemporaryDirectory(prefix="gw", dir=MEMORY) as run:
        (folder / "run").symlink_to(run)
        live = Live(folder, what, faketime)
        try:
            outcome = live.play()
        finally:
            live.close()
            shutil.rmtree(folder / "state", ignore_errors=True)  # the journal allocates 64 MB
    if outcome.wrong and keep is not None:
        kept = keep / what.seed.replace("/", "-")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, ignore=_devices)
        story = [what, *outcome.wrong, *live.outages, *live.deaths]
        (kept / "round.txt").write_text("\n".join(map(str, story)) + "\n")
        outcome = replace(outcome, folder=kept)
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _devices(folder: str, names: list[str]) -> list[str]:
    """Sockets and links to terminals are not kept."""
    return [x for x in names if Path(folder, x).is_symlink() or not Path(folder, x).is_file()]
