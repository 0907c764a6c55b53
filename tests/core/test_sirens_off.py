"""Without a daemon every siren is silenced and read back, whatever became of the last one."""

import os
import select
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serial

from gateway.core.compiled import Compiled, Port, Siren, Station
from gateway.core.sirens_off import sirens_off
from gateway.drivers import Simulator
from gateway.events import NS
from gateway.modbus import Function, Request
from gateway.siren.modbus_relay import ModbusRelaySimulator

STATION = Station("cn-demo-001", "示范站", "demo")
RELAY = "gateway.siren.modbus_relay:ModbusRelay"
VIRTUAL = "gateway.siren.virtual:Virtual"
ON = Request(1, Function.write_coil, 0, 0xFF00).frame


class Sounding(ModbusRelaySimulator):
    """A board whose siren sounds."""

    def powered(self, t: int) -> None:
        super().powered(t)
        self.relays[0] = True


class Welded(Sounding):
    """A relay that nothing opens."""

    def _switch(self, coil: int, closed: bool, t: int) -> None:
        pass


@contextmanager
def plugged(**boards: Simulator) -> Iterator[dict[str, str]]:
    """Boards on ptys, turned by a thread; their paths by name."""
    fars, nears, by_far = {}, {}, {}
    for name, board in boards.items():
        far, near = os.openpty()
        tty.setraw(near)
        fars[name], nears[name], by_far[far] = far, near, board
        board.powered(time.monotonic_ns())
    stop_read, stop_write = os.pipe()

    def turn() -> None:
        while True:
            due = [x for board in boards.values() if (x := board.next_deadline()) is not None]
            wait_s = max(0, min(due) - time.monotonic_ns()) / NS if due else 10.0
            ready, _, _ = select.select([*by_far, stop_read], [], [], wait_s)
            if stop_read in ready:
                return
            for far, board in by_far.items():
                t = time.monotonic_ns()
                if far in ready:
                    board.feed(os.read(far, 4096), t)
                board.tick(t)
                os.write(far, board.to_send())

    thread = threading.Thread(target=turn)
    thread.start()
    yield {name: os.ttyname(near) for name, near in nears.items()}
    os.write(stop_write, b"x")
    thread.join()
    for fd in (*fars.values(), *nears.values(), stop_read, stop_write):
        os.close(fd)


def siren(name: str, path: str | None, driver: str = RELAY, **unit: int) -> Siren:
    return Siren(name, Port(path) if path else None, driver, unit=unit)


def compiled(*sirens: Siren) -> Compiled:
    return Compiled(STATION, sirens=sirens)


def test_every_siren_on_every_port_is_silenced_and_confirmed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, two = Sounding(), Sounding()
    with plugged(one=one, two=two) as paths:
        config = compiled(
            siren("roof", paths["one"], relay=1),
            siren("yard", paths["one"], relay=2),
            siren("gate", paths["two"], relay=1),
            siren("virtual", None, VIRTUAL),
        )
        assert sirens_off(config) == 0
    assert not one.relays[0]
    assert not two.relays[0]
    assert capsys.readouterr().out.splitlines() == [
        "roof: silent",
        "yard: silent",
        "gate: silent",
        "virtual: silent",
    ]


def test_relays_that_are_no_sirens_are_left_as_they_are() -> None:
    board = Sounding()
    with plugged(board=board) as paths:
        board.relays[7] = True
        assert sirens_off(compiled(siren("main", paths["board"]))) == 0
    assert board.relays == [False] * 7 + [True]


def test_a_port_that_a_hung_process_holds_is_used_all_the_same() -> None:
    board = Sounding()
    with plugged(board=board) as paths, serial.Serial(paths["board"], exclusive=True):
        assert sirens_off(compiled(siren("main", paths["board"]))) == 0
    assert not board.relays[0]


def test_what_is_not_confirmed_is_said_with_the_reason_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "absent")
    good, welded = Sounding(), Welded()
    with plugged(good=good, welded=welded) as paths:
        config = compiled(
            siren("broken", absent, "gateway.siren.nothing:Nothing"),
            siren("good", paths["good"]),
            siren("welded", paths["welded"]),
            siren("dead", paths["good"], address=9),
            siren("absent", absent + "2"),
        )
        assert sirens_off(config) == 1
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert not good.relays[0]
    assert lines["good"] == "silent"
    assert "No module named" in lines["broken"]
    assert lines["welded"].startswith("not confirmed silent: ")
    assert "board 9 does not answer" in lines["dead"]
    assert "not there: plug the device in" in lines["absent"]


def test_without_sirens_there_is_nothing_to_silence() -> None:
    assert sirens_off(compiled()) == 0


def test_it_imports_nothing_that_could_hold_it_up() -> None:
    code = (
        "import sys, gateway.core.sirens_off, gateway.siren.modbus_relay\n"
        "print(*sorted({'asyncio', 'ssl', 'sqlite3', 'scipy', 'obspy', 'pydantic'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("kept", "code", "said"),
    [
        (None, 0, "No such file or directory"),
        ('{"format": 0}', 1, "not a compiled configuration of format"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_no_success(
    tmp_path: Path, kept: str | None, code: int, said: str
) -> None:
    """A station that was never configured has no sirens; one whose configuration is bad may."""
    if kept is not None:
        (tmp_path / "compiled").mkdir()
        (tmp_path / "compiled" / "current.json").write_text(kept)
    command = [sys.executable, "-m", "gateway.core", "--state", str(tmp_path), "--sirens-off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert "run `gateway apply`" in done.stderr
