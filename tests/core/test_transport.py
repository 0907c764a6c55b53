"""A line opens, reads, writes, and comes back after whatever happened to its port."""

import errno
import fcntl
import os
import select
import socket
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from gateway.core.compiled import Port
from gateway.core.transport import UNSENT_LIMIT, Line, LineChange, explain
from gateway.events import NS


class Adapter:
    """A pty behind a link of a stable name, that can be unplugged and plugged in again."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.plug()

    def plug(self) -> None:
        self.far, near = os.openpty()
        tty.setraw(near)
        self.near = near
        os.set_blocking(self.far, False)
        self.link.symlink_to(os.ttyname(near))

    def unplug(self) -> None:
        self.link.unlink()
        os.close(self.near)
        os.close(self.far)

    def heard(self, size: int) -> bytes:
        """What the host wrote, of at least this size."""
        data = b""
        while len(data) < size:
            ready, _, _ = select.select([self.far], [], [], 10)
            assert ready, f"{data!r} and no more"
            data += os.read(self.far, 65536)
        return data


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Adapter]:
    made = Adapter(tmp_path / "relay")
    yield made
    if made.link.is_symlink():
        made.unplug()


def opened(path: Path, **settings: object) -> Line:
    line = Line(Port(str(path), **settings))  # type: ignore[arg-type]  # settings of a port
    assert line.next_deadline() == 0
    assert line.tick(NS) == [(LineChange.opened, "")]
    return line


def wait_readable(line: Line) -> None:
    fd = line.fileno()
    assert fd is not None
    assert select.select([fd], [], [], 10)[0]


def test_bytes_pass_unchanged_both_ways(adapter: Adapter) -> None:
    line = opened(adapter.link)
    every_byte = bytes(range(256))
    line.write(every_byte)
    assert adapter.heard(256) == every_byte
    os.write(adapter.far, every_byte)
    wait_readable(line)
    assert line.read(2 * NS) == every_byte
    assert line.next_deadline() is None
    line.close()


def test_reading_nothing_is_not_a_loss(adapter: Adapter) -> None:
    line = opened(adapter.link)
    assert line.read(2 * NS) == b""
    assert line.tick(2 * NS) == []
    assert line.fileno() is not None
    line.close()


def test_the_port_is_configured_as_told_and_keeps_dtr_when_closed(adapter: Adapter) -> None:
    line = opened(adapter.link, baud=57600, stopbits=2)
    fd = line.fileno()
    assert fd is not None
    attributes = termios.tcgetattr(fd)
    assert attributes[4] == attributes[5] == termios.B57600
    assert attributes[2] & termios.CSTOPB
    assert not attributes[2] & termios.HUPCL
    assert attributes[6][termios.VMIN] == 1
    assert not attributes[3] & (termios.ICANON | termios.ECHO)
    assert not os.get_blocking(fd)
    line.close()


def test_an_unplugged_port_is_told_once_and_comes_back_by_its_name(adapter: Adapter) -> None:
    line = opened(adapter.link)
    adapter.unplug()
    wait_readable(line)
    assert line.read(10 * NS) == b""
    assert line.next_deadline() == 0
    ((change, reason),) = line.tick(10 * NS)
    assert change is LineChange.lost
    assert str(adapter.link) in reason
    assert line.fileno() is None
    assert line.next_deadline() == 10 * NS + NS // 10
    ((change, reason),) = line.tick(10 * NS + NS // 10)
    assert change is LineChange.waiting
    assert "not there: plug the device in" in reason
    assert line.tick(11 * NS) == []
    adapter.plug()
    due = line.next_deadline()
    assert due is not None
    assert line.tick(due) == [(LineChange.opened, "")]
    line.write(b"hello")
    assert adapter.heard(5) == b"hello"
    line.close()


def test_writing_to_an_unplugged_port_is_a_loss_and_counted(adapter: Adapter) -> None:
    line = opened(adapter.link)
    adapter.unplug()
    line.write(b"12345678")
    assert line.next_deadline() == 0
    ((change, _),) = line.tick(2 * NS)
    assert change is LineChange.lost
    line.write(b"12345678")
    assert line.status()["bytes_dropped"] == 16
    assert line.status()["state"] == "waiting"


def test_retries_slow_down_to_two_seconds_and_each_reason_is_told_once(tmp_path: Path) -> None:
    line = Line(Port(str(tmp_path / "absent")))
    told, waits, t = [], [], 0
    for _ in range(8):
        told += line.tick(t)
        due = line.next_deadline()
        assert due is not None
        waits.append((due - t) / NS)
        t = due
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert [change for change, _ in told] == [LineChange.waiting]
    (tmp_path / "absent").write_text("no port")
    ((_, reason),) = line.tick(t)
    assert "is no serial port" in reason


def test_a_line_that_held_for_a_while_is_reopened_fast(adapter: Adapter) -> None:
    line = Line(Port(str(adapter.link)))
    adapter.link.unlink()
    t = 0
    for _ in range(6):
        line.tick(t)
        t = line.next_deadline() or 0
    adapter.link.symlink_to(os.ttyname(adapter.near))
    assert line.tick(t) == [(LineChange.opened, "")]
    adapter.unplug()
    line.write(b"x")
    line.tick(t + 60 * NS)
    assert line.next_deadline() == t + 60 * NS + NS // 10
    adapter.plug()


def test_a_locked_port_says_so_and_is_opened_only_by_who_may(adapter: Adapter) -> None:
    holder = opened(adapter.link)
    line = Line(Port(str(adapter.link)))
    ((change, reason),) = line.tick(NS)
    assert change is LineChange.waiting
    assert "in use by another program" in reason
    last_resort = Line(Port(str(adapter.link)), exclusive=False)
    assert last_resort.tick(NS) == [(LineChange.opened, "")]
    last_resort.write(b"off")
    assert adapter.heard(3) == b"off"
    last_resort.close()
    holder.close()
    due = line.next_deadline()
    assert due is not None
    assert line.tick(due) == [(LineChange.opened, "")]
    line.close()


def test_the_lock_of_a_killed_process_is_gone_with_it(adapter: Adapter) -> None:
    code = (
        "import sys, serial\n"
        "port = serial.Serial(sys.argv[1], exclusive=True)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(adapter.link)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        line = Line(Port(str(adapter.link)))
        assert line.tick(0)[0].change is LineChange.waiting
        holder.kill()
        holder.wait()
    assert line.tick(line.next_deadline() or 0) == [(LineChange.opened, "")]
    line.close()


def test_what_the_kernel_does_not_take_waits_and_too_much_is_dropped_whole(
    adapter: Adapter,
) -> None:
    line = opened(adapter.link)
    frames = 0
    while not line.status()["bytes_dropped"]:
        line.write(frames.to_bytes(2, "big") * 512)
        frames += 1
    assert line.wants_write
    heard = b""
    while len(heard) < 1024 * (frames - 1):
        heard += adapter.heard(1)
        line.flush()
    assert heard == b"".join(n.to_bytes(2, "big") * 512 for n in range(frames - 1))
    assert line.status()["bytes_dropped"] == 1024
    assert UNSENT_LIMIT >= 1024
    line.close()


def test_a_reset_by_dtr_holds_nothing_up(adapter: Adapter) -> None:
    line = Line(Port(str(adapter.link), dtr="reset"))
    assert line.tick(NS) == []
    assert line.fileno() is None
    assert line.status()["state"] == "resetting"
    due = line.next_deadline()
    assert due == NS + NS // 10
    os.write(adapter.far, b"said before the reset")
    assert line.tick(due) == [(LineChange.opened, "")]
    assert line.read(due) == b""
    line.close()


def test_an_adapter_unplugged_during_its_reset_is_waited_for(adapter: Adapter) -> None:
    line = Line(Port(str(adapter.link), dtr="reset"))
    line.tick(NS)
    adapter.unplug()
    ((change, _),) = line.tick(2 * NS)
    assert change is LineChange.waiting
    assert line.fileno() is None
    adapter.plug()
    t = line.next_deadline()
    assert t is not None
    assert line.tick(t) == []
    assert line.tick(t + NS) == [(LineChange.opened, "")]
    line.close()


def test_a_bridged_port_is_a_unix_socket_that_may_go_and_come(tmp_path: Path) -> None:
    path = tmp_path / "seis1"
    line = Line(Port(str(path)))
    assert "not there" in line.tick(0)[0].reason
    for t in (NS, 100 * NS):
        with socket.socket(socket.AF_UNIX) as bridge:
            bridge.bind(str(path))
            bridge.listen()
            assert line.tick(t) == [(LineChange.opened, "")]
            far, _ = bridge.accept()
            with far:
                far.sendall(b"data")
                wait_readable(line)
                assert line.read(t) == b"data"
                line.write(b"request")
                assert far.recv(64) == b"request"
        wait_readable(line)
        line.read(t + 10 * NS)
        ((change, reason),) = line.tick(t + 10 * NS)
        assert change is LineChange.lost
        assert "hung up" in reason
        ((change, reason),) = line.tick(t + 20 * NS)
        assert "start gateway-bridge" in reason
        path.unlink()
    line.close()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (serial.SerialException(errno.ENOENT, "x"), "plug the device in"),
        (serial.SerialException(errno.EACCES, "x"), "to the group dialout"),
        (serial.SerialException(errno.EAGAIN, "x"), "in use by another program"),
        (OSError(errno.EBUSY, "x"), "in use by another program"),
        (OSError(errno.EIO, "x"), "plug it in again"),
        (OSError(errno.ENODEV, "x"), "plug the device in"),
        (termios.error(errno.EINVAL, "x"), "refuses 9600 baud 8E1"),
        (ValueError("Invalid baud rate"), "refuses 9600 baud 8E1"),
        (OSError("AF_UNIX path too long"), "can't be opened: AF_UNIX path too long"),
    ],
)
def test_every_fault_says_what_to_do(error: Exception, says: str) -> None:
    reason = explain(Port("/dev/nowhere", parity="E"), error)
    assert reason.startswith("/dev/nowhere")
    assert says in reason
    assert "\n" not in reason


def test_nobody_inherits_the_port(adapter: Adapter) -> None:
    line = opened(adapter.link)
    fd = line.fileno()
    assert fd is not None
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    line.close()
