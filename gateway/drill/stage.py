"""Simulated devices on pseudo-terminals, so that the gateway runs on them as on real ones.

A :class:`Stage` is one device on one line; :func:`play` drives any number of them in one thread.
What the device says leaves when a UART of the profile's speed would have sent it. A host that does
not read loses bytes, as on a serial line without flow control. The slave side is kept open and raw
here, so that a host may come and go.

The log has a line of JSON for each relay that changes, and for each time that a sensor says
something; ``boottime_ns`` is CLOCK_BOOTTIME, which is the clock of the core as well:

====================================================  ==========================================
``{"time", "boottime_ns", "relay", "on",``            ``heard_ns``: when the first byte of the
``"heard_ns", "frame"}``                              ``frame`` was read that made it change, on
                                                      the same clock; a timer needs no frame
``{"time", "boottime_ns", "sent"}``                   when the last of ``sent`` bytes, counted
                                                      from the start, was about to be written
====================================================  ==========================================
"""

import json
import os
import pty
import re
import select
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, TextIO

from gateway.drivers import Simulator
from gateway.events import NS, iso

READ_BYTES = 4096
LINE_BITS = 10
"""Start, eight data, stop."""
FRAME_GAP_NS = 4 * NS // 1000
"""Bytes from the host that come after so long a pause are another frame."""
ANSWER_NS = NS // 10
"""What changes within this time of a frame changes because of it."""


class FaultKind(StrEnum):
    """What can go wrong on a line."""

    garbage = "garbage"
    silence = "silence"
    unplug = "unplug"
    power = "power"


FAULT = re.compile(r"(?P<kind>\w+)@(?P<start>\d+(\.\d*)?)(:(?P<length>\d+(\.\d*)?))?")
DEFAULT_S = {
    FaultKind.garbage: 1.0,
    FaultKind.silence: 5.0,
    FaultKind.unplug: 3.0,
    FaultKind.power: 1.0,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """From ``start_ns`` until ``end_ns`` after the start of the stage.

    ``garbage``: what passes, either way, arrives as random bytes. ``silence``: nothing passes
    either way. ``unplug``: the terminal and its link are gone, and come back as another terminal;
    the device runs on. ``power``: the device has none, and then starts anew.
    """

    kind: FaultKind
    start_ns: int
    end_ns: int

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read ``KIND@T[:SECONDS]``.

        Raises:
            ValueError: any other form.
        """
        match = FAULT.fullmatch(text)
        if match is None or match["kind"] not in DEFAULT_S:
            raise ValueError(
                f"fault {text!r}: expected KIND@T[:SECONDS], as garbage@10 or unplug@60:3, "
                f"where KIND is {', '.join(FaultKind)}"
            )
        kind = FaultKind(match["kind"])
        start_s = float(match["start"])
        length_s = float(match["length"] or DEFAULT_S[kind])
        return cls(kind, round(start_s * NS), round((start_s + length_s) * NS))


@dataclass(slots=True)
class _Frame:
    """Bytes from the host without a pause: when the first and the last were read."""

    first_ns: int
    last_ns: int
    data: bytes


class Stage:
    """One simulated device on a pseudo-terminal.

    Args:
        device: the simulator.
        link: path to be made a symbolic link to the terminal.
        baud: of the line; sets when bytes arrive.
        faults: what goes wrong, and when.
        log: takes the lines of JSON described above.
        seed: of the random bytes.
    """

    def __init__(
        self,
        device: Simulator,
        link: Path,
        *,
        baud: int = 9600,
        faults: Iterable[Fault] = (),
        log: TextIO | None = None,
        seed: int = 0,
    ) -> None:
        self.device = device
        self.link = link
        self.overruns = 0
        self._byte_ns = LINE_BITS * NS // baud
        self._faults = sorted(faults, key=lambda fault: fault.start_ns)
        self._active: set[Fault] = set()
        self._log = log
        self._random = Random(seed)  # noqa: S311  noise, no secret
        self._began = 0
        self._pty: tuple[int, int] | None = None
        self._on_line: deque[tuple[int, bytes]] = deque()
        self._line_free = 0
        self._heard = _Frame(0, 0, b"")
        self._sent = 0

    def begin(self, t: int) -> None:
        """Power the device and make the link.

        Raises:
            OSError: the link can't be made, for example because a file is in its place.
        """
        self._began = t
        self._plug()
        self.device.powered(t)

    def suffer(self, kind: FaultKind, t: int, end_ns: int) -> None:
        """Let something go wrong from ``t`` until ``end_ns``, besides what was planned."""
        self._faults.append(Fault(kind, t - self._began, end_ns - self._began))

    def end(self) -> None:
        """Take the terminal and the link away."""
        if self._pty is None:
            return
        master, slave = self._pty
        if self.link.is_symlink() and os.readlink(self.link) == os.ttyname(slave):  # noqa: PTH115
            self.link.unlink()
        self._pty = None
        os.close(slave)
        os.close(master)

    def _plug(self) -> None:
        if self.link.exists() and not self.link.is_symlink():
            raise FileExistsError(f"{self.link}: is there and is no symbolic link; name another")
        if not self.link.parent.is_dir():
            raise FileNotFoundError(f"{self.link}: there is no folder {self.link.parent}; make it")
        master, slave = pty.openpty()
        self._pty = master, slave
        tty.setraw(slave)
        os.set_blocking(master, False)
        fresh = self.link.with_name(f".{self.link.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(slave))
        fresh.replace(self.link)

    def fileno(self) -> int | None:
        """What to wait for; None while unplugged."""
        return self._pty[0] if self._pty else None

    def next_deadline(self) -> int | None:
        """When :meth:`step` is next wanted."""
        off = self._suffers(FaultKind.power)
        times = [None if off else self.device.next_deadline()]
        times += [self._on_line[0][0]] if self._on_line else []
        times += [
            self._began + (fault.end_ns if fault in self._active else fault.start_ns)
            for fault in self._faults
        ]
        return min((at for at in times if at is not None), default=None)

    def step(self, t: int) -> None:
        """Do all that is due at ``t``: faults, bytes from the host, the device, bytes to it."""
        self._turn_faults(t)
        asked = self._read()
        if not self._suffers(FaultKind.power):
            if asked and not self._suffers(FaultKind.silence):
                self.device.feed(asked, t)
            if (due := self.device.next_deadline()) is not None and due <= t:
                self.device.tick(t)
        if said := self._line(self.device.to_send()):
            self._line_free = max(t, self._line_free) + len(said) * self._byte_ns
            self._on_line.append((self._line_free, said))
        while self._on_line and self._on_line[0][0] <= t:
            self._write(self._on_line.popleft()[1])
        self._note_changes(t)

    def _suffers(self, kind: FaultKind) -> bool:
        return any(fault.kind is kind for fault in self._active)

    def _turn_faults(self, t: int) -> None:
        for fault in list(self._faults):
            if fault not in self._active and t >= self._began + fault.start_ns:
                self._active.add(fault)
                if fault.kind is FaultKind.unplug:
                    self.end()
                elif fault.kind is FaultKind.power:
                    self.device.powered(t)
            if fault in self._active and t >= self._began + fault.end_ns:
                self._active.remove(fault)
                self._faults.remove(fault)
                if fault.kind is FaultKind.power:
                    self.device.powered(t)
                if self._pty is None and not self._suffers(FaultKind.unplug):
                    self._plug()

    def _read(self) -> bytes:
        if self._pty is None:
            return b""
        try:
            data = self._noisy(os.read(self._pty[0], READ_BYTES))
        except BlockingIOError:
            return b""
        now = _boottime_ns()
        if now - self._heard.last_ns > FRAME_GAP_NS:
            self._heard = _Frame(now, now, data)
        else:
            self._heard.last_ns = now
            self._heard.data = (self._heard.data + data)[-READ_BYTES:]
        return data

    def _line(self, said: bytes) -> bytes:
        """What becomes of the device's bytes on the line as it is."""
        if self._suffers(FaultKind.silence) or self._suffers(FaultKind.power):
            return b""
        return self._noisy(said)

    def _noisy(self, data: bytes) -> bytes:
        return self._random.randbytes(len(data)) if self._suffers(FaultKind.garbage) else data

    def _write(self, said: bytes) -> None:
        if self._pty is None:
            return
        master, slave = self._pty
        now = _boottime_ns()
        try:
            written = os.write(master, said)
        except BlockingIOError:
            written = 0
        if written < len(said):
            self.overruns += 1
            termios.tcflush(slave, termios.TCIFLUSH)
        self._sent += len(said)
        if not hasattr(self.device, "changes"):
            self._note(now, {"sent": self._sent})

    def _note_changes(self, t: int) -> None:
        changes: Callable[[], Sequence[tuple[int, int, bool]]] | None
        changes = getattr(self.device, "changes", None)
        if changes is None:
            return
        for at, relay, on in changes():
            at_ns = _boottime_ns() - (t - at)
            record: dict[str, Any] = {"relay": relay, "on": on}
            if at_ns - self._heard.last_ns < ANSWER_NS:
                record["heard_ns"] = self._heard.first_ns
                record["frame"] = self._heard.data.hex(" ")
            self._note(at_ns, record)

    def _note(self, at_ns: int, record: dict[str, Any]) -> None:
        if self._log is not None:
            at = {"time": iso(time.time_ns() - (_boottime_ns() - at_ns)), "boottime_ns": at_ns}
            print(json.dumps({**at, **record}), file=self._log, flush=True)


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def play(stages: Sequence[Stage], stop: int | None = None, until: int | None = None) -> None:
    """Drive stages that have begun, until ``stop`` is readable or the clock has come to ``until``.

    The clock is ``time.monotonic_ns``, which :meth:`Stage.begin` is to be given too. Each device
    is called at its own deadlines, so that delays here do not add up.
    """
    while True:
        now = time.monotonic_ns()
        if until is not None and now >= until:
            return
        deadlines = [until, *(stage.next_deadline() for stage in stages)]
        due = min((at for at in deadlines if at is not None), default=None)
        timeout = None if due is None else max(0, due - now) / NS
        files = [file for file in (stop, *(stage.fileno() for stage in stages)) if file is not None]
        ready, _, _ = select.select(files, [], [], timeout)
        if stop in ready:
            return
        now = time.monotonic_ns()
        for stage in stages:
            stage.step(now)
