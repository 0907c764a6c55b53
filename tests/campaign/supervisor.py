"""The core under what its systemd unit says: watchdog, ExecStopPost, restart.

``systemd/gateway-core.service`` in so many words: real-time priority, WatchdogSec=2s (SIGABRT, and
SIGKILL after TimeoutAbortSec=1s), ``--sirens-off`` at every end, RestartSec=100ms,
KillMode=process. The same on a booted systemd is ``tests/test_systemd.py``.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.events import NS
from tests.core.station import REPOSITORY, children

WATCHDOG_NS: Final = 2 * NS
ABORT_NS: Final = NS
RESTART_NS: Final = NS // 10
STOP_NS: Final = 5 * NS


def important(priority: int) -> list[str]:
    """Command to run another with real-time priority, where this machine allows it."""
    chrt = shutil.which("chrt")
    if chrt is None:
        return []
    before = [chrt, "--rr", "--reset-on-fork", str(priority)]
    allowed = subprocess.run([*before, "true"], check=False, stderr=subprocess.DEVNULL)
    return before if allowed.returncode == 0 else []


class Child:
    """A process and how to hear of its end: :meth:`fileno` is readable then."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("a") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                cwd=REPOSITORY,
                env={**os.environ, **environment},
            )
        self._fd = os.pidfd_open(self.process.pid)

    def fileno(self) -> int:
        return self._fd

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        """Kill it if it is still there, and wait for it."""
        if not self.ended:
            self.process.kill()
        self.process.wait()
        os.close(self._fd)


class Supervisor:
    """systemd for one core. Call :meth:`tend` often; times are ns of CLOCK_BOOTTIME.

    ``on_death`` is told of a core that died, with the time of the signal that killed it if it was
    one of ours. ``kill_start_after_ns`` and ``kill_last_resort_after_ns`` are set to have the next
    core, or the next ``--sirens-off``, killed so long after its start.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], on_death: Callable[[int | None], None]
    ) -> None:
        self._folder, self._on_death = folder, on_death
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(folder / "notify"))
        self._environment = {**environment, "NOTIFY_SOCKET": str(folder / "notify")}
        places = ["--state", str(folder / "state")]
        self._core_command = [*important(20), sys.executable, "-m", "gateway.core", *places]
        self._core_command += ["--run", str(folder / "run")]
        self._post_command = [*important(20), sys.executable, "-m", "gateway.core", *places]
        self._post_command += ["--sirens-off"]
        self.core: Child | None = None
        self.post: Child | None = None
        self.ready = False
        self.starts = 0
        self.journals: set[int] = set()
        self.kill_start_after_ns: int | None = None
        self.kill_last_resort_after_ns: int | None = None
        self._began_ns = self._alive_ns = 0
        self._aborted_ns: int | None = None
        self._killed_ns: int | None = None
        self._stopping = False
        self._start_due: int | None = 0

    def files(self) -> list[int]:
        """What is readable when there is something to tend."""
        return [self._socket.fileno(), *(x.fileno() for x in (self.core, self.post) if x)]

    def journal(self) -> int | None:
        """The journal child of the core that runs."""
        if self.core is None or not self.ready:
            return None
        found = children(self.core.process.pid)
        return found[0] if found else None

    def kill(self, number: signal.Signals, t: int) -> bool:
        """Kill the core with a signal; False where none runs."""
        if self.core is None:
            return False
        self._killed_ns = t
        self.core.signal(number)
        return True

    def stop(self) -> None:
        """``systemctl restart``."""
        if self.core is not None:
            self._stopping = True
            self.core.signal(signal.SIGTERM)

    def tend(self, t: int) -> None:
        """Everything that is due."""
        self._listen(t)
        if self.core is not None:
            if self.core.ended:
                self._core_ended(t)
            else:
                self._watch(t)
        elif self.post is not None:
            after_ns = self.kill_last_resort_after_ns
            if after_ns is not None and t - self._began_ns >= after_ns:
                self.kill_last_resort_after_ns = None
                self.post.signal(signal.SIGKILL)
            elif t - self._began_ns >= STOP_NS:
                self.post.signal(signal.SIGKILL)
            if self.post.ended:
                self.post.close()
                self.post, self._start_due = None, t + RESTART_NS
        elif self._start_due is not None and t >= self._start_due:
            self._start_due = None
            self._start(t)

    def _start(self, t: int) -> None:
        self.core = Child(self._core_command, self._environment, self._folder / "core.log")
        self._began_ns = self._alive_ns = t
        self.starts += 1

    def _listen(self, t: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                message = self._socket.recv(4096)
                self._alive_ns = t
                if message == b"READY=1":
                    self.ready = True
                    if (journal := self.journal()) is not None:
                        self.journals.add(journal)

    def _watch(self, t: int) -> None:
        assert self.core is not None
        if self.kill_start_after_ns is not None and t - self._began_ns >= self.kill_start_after_ns:
            self.kill_start_after_ns = None
            self.kill(signal.SIGKILL, t)
        elif self.ready and self._aborted_ns is None and t - self._alive_ns > WATCHDOG_NS:
            self._aborted_ns = t
            self.core.signal(signal.SIGABRT)
        elif self._aborted_ns is not None and t - self._aborted_ns > ABORT_NS:
            self.kill(signal.SIGKILL, t)

    def _core_ended(self, t: int) -> None:
        assert self.core is not None
        self.core.close()
        self.core, self.ready, self._aborted_ns = None, False, None
        if not self._stopping:
            self._on_death(self._killed_ns)
        self._stopping, self._killed_ns = False, None
        self.post = Child(self._post_command, self._environment, self._folder / "core.log")
        self._began_ns = t

    def close(self) -> None:
        """End all of it."""
        for child in (self.core, self.post):
            if child is not None:
                child.close()
        for pid in self.journals:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
        self._socket.close()
