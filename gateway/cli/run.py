"""``gateway run``: core, uplink and bridge together, looked after as systemd would."""

import ctypes
import signal
import subprocess
import sys
import time
from threading import Event
from typing import Annotated

import typer

from gateway.cli import options
from gateway.cli.options import ConfigFile, RunDir, StateDir

_RESTART_S = {"core": 0.1, "uplink": 1.0, "bridge": 1.0}
_STOP_S = 15.0
_PR_SET_PDEATHSIG = 1
"""<linux/prctl.h>: the signal that a process gets when its parent has died."""


class _Unit:
    """One of the processes: started, and started again when it dies."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        self.name = name
        self._command = [sys.executable, "-m", f"gateway.{name}", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._due = 0.0

    def tend(self, now: float) -> None:
        """Start it when it is due; notice when it has died."""
        if self._process is None and now >= self._due:
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter
                self._command,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  this process has no threads
            )
        elif self._process is not None and (code := self._process.poll()) is not None:
            typer.echo(f"gateway run: {self.name} ended with {code}, starting it again", err=True)
            self._process = None
            self._due = now + _RESTART_S[self.name]
            if self.name == "core":
                _sirens_off(self._command)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> None:
        """Give it time to leave, then kill it."""
        if self._process is None:
            return
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            typer.echo(f"gateway run: {self.name} does not stop, killing it", err=True)
            self._process.kill()
            self._process.wait()


def _end_with_parent() -> None:
    """However this command ends, what it has started ends in good order too."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _sirens_off(command: list[str]) -> None:
    subprocess.run([*command, "--sirens-off"], check=False)  # noqa: S603  our own interpreter


def run(
    *,
    config: ConfigFile = options.CONFIG,
    state: StateDir = options.STATE,
    run: RunDir = options.RUN,
    uplink: Annotated[
        bool, typer.Option("--uplink/--no-uplink", help="Run the uplink as well.")
    ] = True,
) -> None:
    """Compile the configuration and run core and uplink until interrupted.

    Either is started again when it dies, and the sirens are silenced in between, as the systemd
    units do.
    """
    from gateway import config as configuration
    from gateway.cli.check import compiled_or_fail

    compiled = compiled_or_fail(config, run)
    configuration.install(compiled, state)
    places = ["--state", str(state), "--run", str(run)]
    units = [_Unit("core", places)]
    if compiled.bridges:
        units.append(_Unit("bridge", places))
    if uplink:
        units.append(_Unit("uplink", ["--config", str(config), *places]))
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        while not stopped.wait(0.1):
            for unit in units:
                unit.tend(time.monotonic())
    finally:
        for unit in reversed(units):
            unit.stop()
        for unit in reversed(units):
            unit.wait()
