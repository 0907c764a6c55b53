"""Processes of a station, by name, each with its log."""

import signal
import subprocess
import sys
from pathlib import Path


class Processes:
    """They run until they are ended; what they say goes to ``folder/NAME.log``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: object) -> None:
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)

    def python(self, name: str, *arguments: object) -> None:
        """Start our own interpreter."""
        self.start(name, sys.executable, *arguments)

    def uplink(self, config: Path, state: Path, run: Path) -> None:
        """Start an uplink."""
        places = ("--config", config, "--state", state, "--run", run)
        self.python("uplink", "-m", "gateway.uplink", *places)

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal, and wait for the end that it makes."""
        process = self._running.pop(name)
        process.send_signal(number)
        process.wait(60)

    def wait(self, name: str) -> None:
        """Wait until it has ended by itself."""
        self._running.pop(name).wait(60)

    def close(self) -> None:
        """Kill all that are left, the latest first."""
        for name in reversed(list(self._running)):
            self.end(name, signal.SIGKILL)

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def ended(self) -> list[str]:
        """Who has ended by itself."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def said(self, name: str) -> str:
        """The end of its log."""
        log = self.log(name)
        return log.read_text()[-3000:] if log.exists() else ""
