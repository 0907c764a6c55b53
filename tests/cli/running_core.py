"""A real core, in a process of its own, with one virtual siren, for as long as a test needs it."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from gateway import cli
from gateway.config import compile_config, install
from gateway.core.control import ControlError, call

CONFIGURATION = """
[station]
id = "cn-demo-001"
city = "demo"
latitude = 30.0
longitude = 100.0

[[siren]]
name = "main"
profile = "virtual-siren"
"""


def gateway(*arguments: str, **keywords: Any) -> Any:
    """What the command says and how it ends."""
    return CliRunner().invoke(cli.app, list(arguments), **keywords)


@dataclass(frozen=True)
class Station:
    """Where a station keeps its things; the core may run there or not."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "gateway.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def status(self) -> dict[str, Any]:
        return call(self.run / "control.sock", {"do": "status"})


@contextmanager
def applied(configuration: str = CONFIGURATION) -> Iterator[Station]:
    """A station whose configuration is installed and whose core does not run."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:  # short, for the sockets' paths
        station = Station(Path(folder))
        station.config.write_text(configuration)
        install(compile_config(station.config, run=station.run), station.state)
        yield station


@contextmanager
def running() -> Iterator[Station]:
    """A station whose core runs."""
    with applied() as station:
        places = ["--state", str(station.state), "--run", str(station.run)]
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.core", *places], stderr=subprocess.DEVNULL
        )
        try:
            _wait(station, process)
            yield station
        finally:
            process.terminate()
            process.wait(30)


def _wait(station: Station, process: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + 60
    while True:
        try:
            station.status()
        except ControlError:
            assert process.poll() is None, "the core has ended"
            assert time.monotonic() < give_up, "the core does not answer"
            time.sleep(0.02)  # between two looks, not for a result
        else:
            return
