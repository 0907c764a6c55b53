"""A private broker: mosquitto on a free port of this machine, for the demo and for tests.

It keeps nothing behind: its files are in a directory of its own, and it ends with the ``with``
block. Real stations talk to the city's broker instead, see docs/uplink.md.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

START_TIMEOUT_S = 10.0
_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find_program(name: str) -> str | None:
    """Where a program is: on PATH, unpacked in this environment, or among the system's servers."""
    environment = Path(sys.prefix)
    places = (os.environ.get("PATH", ""), environment / "bin", environment / "debian/bin", *_PLACES)
    return shutil.which(name, path=os.pathsep.join(map(str, places)))


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """A mosquitto of one's own, ``with Broker() as broker: connect(broker.url)``.

    ``settings`` are lines for mosquitto.conf beyond the listener's; ``secure`` are those of a TLS
    listener and make :attr:`url` an ``mqtts`` one.

    Raises:
        FileNotFoundError: mosquitto is not installed; says how to get it.
    """

    def __init__(self, settings: str = "", secure: str = "", port: int | None = None) -> None:
        program = find_program("mosquitto")
        if program is None:
            raise FileNotFoundError(
                "mosquitto is not installed: run tools/debian .venv/debian mosquitto"
            )
        self._program = program
        self.port = port or free_port()
        scheme, host = ("mqtts", "localhost") if secure else ("mqtt", "127.0.0.1")
        self.url = f"{scheme}://{host}:{self.port}"
        self._settings = settings
        self._secure = secure
        self._directory = Path(tempfile.mkdtemp(prefix="gateway-broker-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process to send signals to."""
        if self._process is None:
            raise RuntimeError("the broker does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it, again if it was killed, and wait until it listens."""
        settings = self._directory / "mosquitto.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\n{self._secure}\n"
            f"persistence true\npersistence_location {self._directory}/\n"
            "autosave_interval 1800\nallow_anonymous true\nset_tcp_nodelay true\n"
            f"log_type error\nlog_type warning\n{_user()}{self._settings}\n"
        )
        log = (self._directory / "mosquitto.log").open("ab")
        with log:
            self._process = subprocess.Popen(  # noqa: S603  found by find_program
                [self._program, "-c", str(settings)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)  # between two tries; a port that opens can't be waited for
            else:
                return
        said = (self._directory / "mosquitto.log").read_text(errors="replace").strip()
        self.kill()
        raise RuntimeError(f"mosquitto on port {self.port} did not start: {said}")

    def kill(self) -> None:
        """End it without a chance to save anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it in good order; it saves its sessions and retained messages."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


def _user() -> str:
    """Stay who we are: as root, mosquitto would become a user that can't read our files."""
    return "user root\n" if os.geteuid() == 0 else ""
