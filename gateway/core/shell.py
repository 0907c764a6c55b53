"""The thin shell around the core: one loop, raw descriptors, no threads, nothing that waits.

Each turn of the loop does things in this order: what was read goes through the core and the siren
bytes that follow are written at once; then what is due; only then are events handed to the journal
child and to the feed. Ports are waited for by epoll itself, and the selector of all others is one
descriptor among theirs: what a client asks can wait, a siren can't.

The clock is CLOCK_BOOTTIME, so that deadlines mean the same to the next process of this boot.
"""

import ctypes
import gc
import json
import logging
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from select import EPOLLIN, EPOLLOUT, epoll, select
from typing import Any

from gateway.clock import UtcClock, read_system
from gateway.clock.utc import State
from gateway.core import commands
from gateway.core.arbiter import Request
from gateway.core.arming import Arming, Mode
from gateway.core.batch import Batcher
from gateway.core.boot_state import BootState
from gateway.core.commands import Action, Command, Ledger, Refusal
from gateway.core.compiled import Compiled
from gateway.core.control import Control
from gateway.core.engine import Core
from gateway.core.feed import (
    Feed,
    Refused,
    Stored,
    measured_body,
    packet_body,
    reading_body,
)
from gateway.core.journal import (
    Batch,
    Committed,
    Failed,
    Healed,
    Journal,
    Lost,
    boot_id,
    boottime_ns,
)
from gateway.core.notify import notify
from gateway.core.rehearsal import rehearse
from gateway.core.transport import Line, LineChange
from gateway.events import (
    NS,
    Alert,
    ArmingChange,
    Event,
    Hazard,
    Health,
    Level,
    Measured,
    Packet,
    Reading,
    Reply,
    SirenAction,
    Status,
    parse_iso,
    to_record,
)

log = logging.getLogger("gateway.core")

PRIORITY = 20
"""Real-time priority (SCHED_RR) where the machine allows it; systemd sets it for the unit."""

CARRIED_S = 0.0002
"""Rest after something was sent. The kernel's worker that carries bytes through a terminal runs at
ordinary priority: where it has this process's processor it would wait for all that follows."""
HOUSEKEEPING_NS = NS // 2
STATE_EVERY_NS = 10 * NS
JOURNAL_WAIT_S = 0.5
"""For the last core's journal child to finish; what must resume does not depend on it."""
MAX_DEATHS = 3
DEATHS_WITHIN_NS = 60 * NS


@dataclass(slots=True)
class _Waiting:
    """A command whose counter is on its way to the disk."""

    command: Command
    token: int


class Shell:
    """The core process.

    Args:
        config: the compiled configuration.
        state: folder of the journal, normally /var/lib/gateway.
        run: folder of the sockets, normally /run/gateway.
        problem: why the configuration could not be loaded; the core then has nothing to do but
            to say so.
    """

    def __init__(self, config: Compiled, state: Path, run: Path, problem: str = "") -> None:
        self._config = config
        self._run_id = os.urandom(8).hex()
        self._stopping = ""
        self._seq = 0
        run.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._kept = BootState.take_over(run)
        self._journal = Journal.start(state / "core", wait_s=JOURNAL_WAIT_S)
        self._t = boottime_ns()
        self._selector = selectors.EpollSelector()
        self._poll = epoll()
        self._poll.register(self._selector, EPOLLIN)
        self._lines = self._make_lines()
        self._core = Core(config, self._t, self._send)
        self._open: dict[int, tuple[str, Line]] = {}
        """Path and line of each descriptor that is waited for, and by path which and what for:"""
        self._watched: dict[str, tuple[int, int]] = {}
        self._sent = False
        self._at_rest: set[str] = set()
        """Ports that need no look as long as they stay open and have nothing to send."""
        self._utc = UtcClock()
        self._batcher = Batcher()
        self._channels = {s.name: tuple(c.id for c in s.channels) for s in config.sensors}
        self._sensitivities = {
            s.name: tuple(str(c.sensitivity) if c.sensitivity else None for c in s.channels)
            for s in config.sensors
        }
        self._keys = commands.read_keys(config.keys)
        self._ledger = Ledger()
        self._waiting: deque[_Waiting] = deque()
        self._token = 0
        self._state_due = self._t
        self._housekeeping_due = self._t
        self._restart_journal_due: int | None = None
        self._journal.register(self._selector)
        self._feed = Feed(run / "feed.sock", self._run_id)
        self._feed.register(self._selector)
        self._control = Control(run / "control.sock", self._answer)
        self._control.register(self._selector)
        self._look_at_clock()
        self._recover()
        if problem:
            self._core.note("configuration", "configuration", self._t, problem, wrong=True)

    def _make_lines(self) -> dict[str, Line]:
        ports = [sensor.port for sensor in self._config.sensors]
        ports += [siren.port for siren in self._config.sirens if siren.port]
        return {port.path: Line(port) for port in ports}

    # -- start and end ---------------------------------------------------------------------------

    def _recover(self) -> None:
        """Take up what the last process left; see docs/safety.md for what may sound again."""
        found = self._journal.recovered
        kept = self._kept.state
        same_boot = kept is not None or found.previous_boot_id == boot_id()
        state = dict(kept or found.state or {})
        self._note_kept()
        try:
            self._ledger = Ledger(state.get("ledger"))
        except (TypeError, ValueError, AttributeError) as error:
            detail = f"counters of earlier commands can't be read, counting anew: {error!r}"
            self._core.note("commands", "state", self._t, detail, wrong=True)
        deaths = (found.deaths_within(DEATHS_WITHIN_NS), self._kept.deaths_within(DEATHS_WITHIN_NS))
        if max(deaths) >= MAX_DEATHS:
            state = {}
            detail = f"{MAX_DEATHS} deaths within {DEATHS_WITHIN_NS // NS} s; alert state dropped"
            self._core.note("core", "deaths", self._t, detail, wrong=True)
        if state.get("core"):
            try:
                self._core.restore(state["core"], self._t, same_boot=same_boot)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                detail = f"state of the last run can't be read, beginning anew: {error!r}"
                self._core.note("core", "state", self._t, detail, wrong=True)

    def run(self) -> None:
        """Run until a signal ends it, then leave every siren off."""
        self._become_important()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._selector.register(wake, selectors.EVENT_READ, lambda _mask: os.read(wake, 64))
        if not rehearse(self._config):
            detail = "made-up alerts did not reach every siren's driver; install the release anew"
            self._core.note("core", "rehearsal", self._t, detail, wrong=True)
        _settle_memory()
        self._tend_lines()
        notify("READY=1")
        log.info("core started", extra={"run_id": self._run_id, "station": self._config.station.id})
        try:
            while not self._stopping:
                self._turn()
        finally:
            signal.set_wakeup_fd(-1)
            self._leave()
            self._selector.unregister(wake)
            os.close(wake)
            os.close(wake_write)

    def _stop(self, number: int, _frame: object) -> None:
        self._stopping = signal.Signals(number).name

    def _become_important(self) -> None:
        try:
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
        except OSError as error:
            detail = f"no real-time priority ({error.strerror}); delays under load may be longer"
            self._core.note("core", "priority", self._t, detail, wrong=True)

    def _leave(self) -> None:
        """An orderly end: sirens off, everything journalled, sockets gone."""
        notify("STOPPING=1")
        t = boottime_ns()
        self._core.stop(t, f"core stopped by {self._stopping or 'an error'}")
        while self._core.loud() and self._t < t + NS:
            self._turn(NS // 50)
        self._hand_over()
        self._save_state(running=not self._stopping)
        if self._stopping:
            self._journal.clean_exit()
        self._journal.close()
        self._feed.close()
        self._control.close()
        for port in self._lines.values():
            port.close()

    # -- one turn --------------------------------------------------------------------------------

    def _turn(self, longest_ns: int = HOUSEKEEPING_NS) -> None:
        due = self._core.next_deadline()
        timeout_ns = self._next_deadline(due) - boottime_ns()
        ready = self._poll.poll(min(longest_ns, max(0, timeout_ns)) / NS)
        self._t = boottime_ns()
        others = False
        for fd, mask in ready:
            if fd not in self._open:
                others = True
                continue
            path, line = self._open[fd]
            if mask & ~EPOLLOUT and (data := line.read(self._t)):
                self._core.bytes(path, data, self._t)
            if mask & EPOLLOUT:
                line.flush()
        if self._sent:
            self._sent = False
            select([], [], [], CARRIED_S)  # time.sleep fails where libfaketime steps the clock
        if others:
            for key, events in self._selector.select(0):
                key.data(events)
        if due is not None and due <= self._t:
            self._core.tick(self._t)
        self._tend_lines()
        self._hand_over()
        self._take_orders()
        if self._t >= self._housekeeping_due:
            self._keep_house()
        self._journal.flush()

    def _next_deadline(self, core_due: int | None) -> int:
        times = [self._housekeeping_due, core_due]
        times += [line.next_deadline() for line in self._lines.values()]
        return min([x for x in times if x is not None])

    def _send(self, path: str, data: bytes) -> None:
        if (line := self._lines.get(path)) is not None:
            line.write(data)
            self._sent = True

    def _tend_lines(self) -> None:
        for path, port in self._lines.items():
            if port.at_rest and path in self._at_rest:
                continue
            for change, reason in port.tick(self._t):
                if change is LineChange.opened:
                    self._core.opened(path, self._t)
                else:
                    self._core.lost(path, self._t, reason)
            self._watch(path, port)

    def _watch(self, path: str, port: Line) -> None:
        """Wait for a port that has opened or has bytes waiting, and not for one that is closed."""
        fd = port.fileno()
        wanted = EPOLLIN | (EPOLLOUT if port.wants_write else 0)
        known = self._watched.get(path)
        if (fd, wanted) != known:
            if known is not None:
                with suppress(OSError):  # closed, and so forgotten already
                    self._poll.unregister(known[0])
                del self._watched[path], self._open[known[0]]
            if fd is not None:
                self._poll.register(fd, wanted)
                self._watched[path], self._open[fd] = (fd, wanted), (path, port)
        if fd is not None and wanted == EPOLLIN:
            self._at_rest.add(path)
        else:
            self._at_rest.discard(path)

    # -- events ----------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Events to the journal and the feed, data to the feed."""
        save = False
        for event, offset_ns in self._core.published():
            self._publish(event, offset_ns)
            save |= isinstance(event, (Alert, ArmingChange, SirenAction))
        if save:
            self._save_state()
        data = self._core.data()
        if data and self._feed.wants_data:
            for item in self._batcher.take(data):
                self._feed.data(self._body(item))

    def _body(self, item: Packet | Reading | Measured) -> bytes:
        if isinstance(item, Packet):
            return packet_body(
                item,
                self._channels[item.sensor],
                self._utc.offset_ns,
                self._sensitivities[item.sensor],
                self._utc.status(),
            )
        if isinstance(item, Measured):
            return measured_body(item, self._utc.offset_ns)
        return reading_body(item, self._utc.offset_ns)

    def _publish(self, event: Event, offset_ns: int) -> None:
        record = to_record(event, offset_ns)
        if isinstance(event, Alert):
            record["clock"] = self._utc.status()
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        self._seq += 1
        important = isinstance(event, (Alert, SirenAction, Reply))
        self._journal.append(self._run_id, self._seq, text, important=important)
        self._feed.publish(self._seq, text)
        if isinstance(event, (Alert, SirenAction, Health)):
            log.info(record["type"], extra={"record": record})

    def _save_state(self, *, running: bool = True) -> None:
        state = {"core": self._core.state(self._t), "ledger": self._ledger.state()}
        self._kept.save(state, running=running)
        self._journal.save_state(state)
        self._state_due = self._t + STATE_EVERY_NS

    # -- housekeeping ----------------------------------------------------------------------------

    def _keep_house(self) -> None:
        self._housekeeping_due = self._t + HOUSEKEEPING_NS
        notify("WATCHDOG=1")
        self._look_at_clock()
        self._listen_to_journal()
        if self._t >= self._state_due:
            self._save_state()
            self._note_kept()

    def _note_kept(self) -> None:
        problem = self._kept.problem
        self._core.note("core", "kept", self._t, problem or "kept again", wrong=bool(problem))

    def _look_at_clock(self) -> None:
        changes = self._utc.sample(*read_system())
        if self._core.device_utc is not None:
            self._utc.device(*self._core.device_utc)
            self._core.device_utc = None
        self._core.set_utc_offset(self._utc.offset_ns, sure=self._utc.state is not State.never)
        for change in changes:
            self._core.note("clock", change.kind, self._t, change.detail, wrong=change.wrong)

    def _listen_to_journal(self) -> None:
        for item in self._journal.poll():
            match item:
                case Committed():
                    self._settle(item.token, stored=True)
                case Failed() if item.token is not None:
                    self._settle(item.token, stored=False)
                case Failed():
                    self._core.note("journal", item.kind, self._t, item.reason, wrong=True)
                    if item.kind == "child":
                        delay_ns = round(self._journal.restart_delay_s * NS)
                        self._restart_journal_due = self._t + delay_ns
                case Healed():
                    self._core.note("journal", item.kind, self._t, "works again", wrong=False)
                case Lost():
                    self._core.incident("journal", f"lost_{item.kind}", self._t, count=item.count)
                case Batch():
                    self._feed.batch(item)
        if self._restart_journal_due is not None and self._t >= self._restart_journal_due:
            self._restart_journal_due = None
            self._journal.restart()

    # -- orders ----------------------------------------------------------------------------------

    def _take_orders(self) -> None:
        self._listen_to_journal()
        for request in self._feed.take():
            match request:
                case Stored():
                    self._journal.stored(request.run_id, request.seq)
                case Refused():
                    self._core.incident("feed", "refused", self._t, request.reason)
                case _:
                    self._command(request.raw)
        self._feed.pump()
        for after in self._feed.wanted():
            self._journal.read_after(after)

    def _command(self, envelope: bytes) -> None:
        """A signed command: verified here again, its counter stored before it takes effect."""
        found = commands.verify(
            envelope,
            self._keys,
            clock=self._utc.clock(self._t),
            station=self._config.station.id,
            groups=self._config.groups,
        )
        if isinstance(found, Refusal):
            self._refuse(found, "")
            return
        if (first := self._ledger.first_outcome(found)) is not None:
            self._reply(found, first["outcome"], first["reason"])
            return
        if (late := self._ledger.admit(found)) is not None:
            self._refuse(late, found.action)
            return
        if not found.action.needs_time:
            self._obey(found)
            return
        self._token += 1
        self._waiting.append(_Waiting(found, self._token))
        self._save_state()
        self._journal.commit(self._token)

    def _settle(self, token: int, *, stored: bool) -> None:
        for waiting in [w for w in self._waiting if w.token == token]:
            self._waiting.remove(waiting)
            if stored:
                self._obey(waiting.command)
            else:
                self._reply(waiting.command, "refused", "not_stored: state can't be kept here")

    def _obey(self, command: Command) -> None:
        try:
            outcome = self._carry_out(command)
        except ValueError as error:
            self._reply(command, "failed", str(error))
        else:
            self._reply(command, outcome, "")

    def _carry_out(self, command: Command) -> str:
        t, by, arguments = self._t, f"key {command.key}", command.arguments
        sirens = _names(arguments.get("sirens"))
        match command.action:
            case Action.siren_off:
                self._core.siren_off(sirens, t, f"by {by}")
            case Action.siren_on:
                level = _level(arguments.get("level", "red"))
                pattern = str(arguments.get("pattern", "disaster"))
                request = Request(command.id, command.status, None, level, pattern, t)
                self._core.siren_on(request, sirens, t)
                return "fired"
            case Action.siren_test:
                request = Request(command.id, command.status, None, Level.none, "chirp", t)
                self._core.siren_on(request, sirens, t)
                return "fired"
            case Action.arm:
                self._core.arm(Arming.order(Mode.armed, None, t, by, "full"), t)
            case Action.disarm:
                self._core.arm(_arming(arguments, t, by), t)
            case Action.cancel:
                if not self._core.cancel(str(arguments.get("alert", "")), t, f"by {by}"):
                    raise ValueError(f"no alert {arguments.get('alert')!r} is active")
            case Action.warning:
                hazard, level, expires_utc_ns = _warning(command)
                self._core.warn(hazard, level, expires_utc_ns, t, command.id, by)
        return "accepted"

    def _reply(self, command: Command, outcome: Any, reason: str) -> None:
        self._ledger.settle(command, {"outcome": outcome, "reason": reason})
        reply = Reply(command.id, command.action, outcome, self._t, reason, f"key {command.key}")
        self._publish(reply, self._utc.offset_ns)
        self._save_state()

    def _refuse(self, refusal: Refusal, action: str) -> None:
        self._core.incident("commands", refusal.reason, self._t, refusal.detail)
        if refusal.id:
            reason = f"{refusal.reason}: {refusal.detail}"
            reply = Reply(refusal.id, action, "refused", self._t, reason)
            self._publish(reply, self._utc.offset_ns)

    def _answer(self, request: Mapping[str, Any], uid: int) -> dict[str, Any]:
        """What a technician's command on control.sock asks for.

        Raises:
            ValueError: it makes no sense; the message goes back to the technician.
        """
        self._hand_over()  # what somebody is told, the next core must know
        t, by = self._t, f"uid {uid}"
        log.info("control", extra={"request": json.dumps(dict(request)), "uid": uid})
        sirens = _names(request.get("sirens"))
        match request.get("do"):
            case "status":
                return self._status()
            case "arm":
                self._core.arm(Arming.order(Mode.armed, None, t, by, "full"), t)
            case "disarm":
                self._core.arm(_arming(request, t, by), t)
            case "siren_on":
                return {"ok": True, "id": self._sound(request, sirens)}
            case "siren_off":
                self._core.siren_off(sirens, t, f"by {by}")
            case "siren_self_test":
                self._core.self_test(sirens, t)
            case "maintain":
                self._maintain(request, by)
            case "cancel":
                if not self._core.cancel(str(request.get("alert", "")), t, f"by {by}"):
                    raise ValueError(f"no alert {request.get('alert')!r} is active")
            case other:
                raise ValueError(f"unknown request {other!r}")
        return {"ok": True}

    def _sound(self, request: Mapping[str, Any], sirens: tuple[str, ...]) -> str:
        """Sound a pattern by hand; the id under which it is stated."""
        status = Status(request.get("status", "Test"))
        name = f"{self._config.station.id}-control-{self._t}"
        pattern = str(request.get("pattern", "chirp"))
        asked = Request(name, status, None, Level.none, pattern, self._t)
        self._core.siren_on(asked, sirens, self._t)
        return name

    def _maintain(self, request: Mapping[str, Any], by: str) -> None:
        seconds = request.get("for_s")
        if seconds is not None and not isinstance(seconds, int | float):
            raise ValueError(f"for_s: {seconds!r}; expected seconds")
        self._core.maintain(str(request.get("sensor", "")), seconds, self._t, by)
        self._save_state()

    def _status(self) -> dict[str, Any]:
        return {
            "run_id": self._run_id,
            "seq": self._seq,
            **self._core.status(self._t),
            "clock": self._utc.status(),
            "ports": {path: port.status() for path, port in self._lines.items()},
        }


def _settle_memory() -> None:
    """Give back what starting up has used, and keep the collector off what stays."""
    gc.collect()
    if libc := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's alone
        libc(0)
    gc.freeze()


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"sirens: {value!r}; expected a list of names")
    return tuple(value)


def _warning(command: Command) -> tuple[Hazard, Level, int]:
    """Hazard, level and end of validity (UTC) of a ``warning`` command.

    Raises:
        ValueError: an argument is missing or makes no sense.
    """
    arguments = command.arguments
    if command.status is not Status.actual:
        raise ValueError(f"a warning of status {command.status} puts no scale in force here")
    if (value := arguments.get("hazard")) not in list(Hazard):
        raise ValueError(f"hazard: {value!r}; expected one of {', '.join(Hazard)}")
    level = _level(arguments.get("level"))
    if level is Level.none:
        return Hazard(value), level, 0
    try:
        return Hazard(value), level, parse_iso(str(arguments.get("expires")))
    except ValueError as error:
        raise ValueError(f"expires: {error}; expected a time of UTC") from error


def _level(value: Any) -> Level:
    if value not in Level.__members__:
        raise ValueError(f"level: {value!r}; expected one of {', '.join(Level.__members__)}")
    return Level[value]


def _arming(arguments: Mapping[str, Any], t: int, by: str) -> Arming:
    mode, seconds = arguments.get("mode", "disarmed"), arguments.get("for_s")
    sound = arguments.get("sound", "silent")
    if mode not in list(Mode) or mode == "armed":
        raise ValueError(f"mode: {mode!r}; expected disarmed, silent or exercise")
    if sound not in ("silent", "chirp", "full"):
        raise ValueError(f"sound: {sound!r}; expected silent, chirp or full")
    if not isinstance(seconds, int | float):
        raise ValueError(f"for_s: {seconds!r}; expected seconds")  # noqa: TRY004  one error type
    return Arming.order(Mode(mode), seconds, t, by, sound)


def start(config: Compiled, state: Path, run: Path, problem: str = "") -> None:
    """Run the core until it is told to stop."""
    began = time.monotonic()
    shell = Shell(config, state, run, problem)
    log.info("core ready", extra={"after_s": round(time.monotonic() - began, 3)})
    shell.run()
