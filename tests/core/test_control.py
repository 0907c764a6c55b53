"""The technician's socket serves whom the kernel says may ask, and no request stops the daemon."""

import grp
import json
import os
import selectors
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core import control as control_module
from gateway.core.control import MAX_CONNECTIONS, MAX_REQUEST_BYTES, Control, ControlError, call

WAIT_S = 30.0
NOBODY = 65_534
A_GROUP = grp.getgrgid(1).gr_name


def answer(request: dict[str, Any], uid: int) -> dict[str, Any]:
    """Stands for the shell."""
    match request:
        case {"fail": True}:
            raise KeyError("siren")
        case {"unspeakable": True}:
            return {"value": object()}
        case {"long": length}:
            return {"text": "x" * length}
        case {"refuse": True}:
            return {"error": "siren main: disarmed; arm it first"}
    return {"asked": request, "uid": uid}


class Daemon:
    """A loop around the control socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.control = Control(path, answer)
        self.control.register(self.selector)

    def turn(self, timeout_s: float = 0.0) -> None:
        for key, mask in self.selector.select(timeout_s):
            key.data(mask)

    def ask(self, data: bytes) -> Any:
        """Send bytes over a connection of its own and give the parsed answer."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            client.sendall(data)
            client.setblocking(False)
            received = b""
            deadline = time.monotonic() + WAIT_S
            while not received.endswith(b"\n") and time.monotonic() < deadline:
                self.turn(0.01)
                try:
                    received += client.recv(1 << 20)
                except BlockingIOError:
                    continue
        return json.loads(received)

    def close(self) -> None:
        self.control.close()
        self.selector.close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    # Not tmp_path, whose parents other users may not enter.
    directory = Path(tempfile.mkdtemp(prefix="control-"))
    directory.chmod(0o755)
    daemon = Daemon(directory / "control.sock")
    yield daemon
    daemon.close()
    shutil.rmtree(directory)


def in_child(daemon: Daemon, ask: Callable[[], dict[str, Any]], uid: int, gid: int) -> str:
    """What ``call`` gives to another user: its answer, or the error's text."""
    read_end, write_end = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([gid])
                os.setgid(uid)
                os.setuid(uid)
            try:
                text = json.dumps(ask())
            except ControlError as error:
                text = str(error)
            os.write(write_end, text.encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with selectors.DefaultSelector() as done:
        done.register(read_end, selectors.EVENT_READ)
        deadline = time.monotonic() + WAIT_S
        while not done.select(0) and time.monotonic() < deadline:
            daemon.turn(0.01)
    text = os.read(read_end, 1 << 20).decode()
    os.close(read_end)
    os.waitpid(pid, 0)
    return text


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


def test_the_own_user_is_answered_and_named(daemon: Daemon) -> None:
    uid = os.geteuid()
    text = in_child(daemon, lambda: call(daemon.path, {"command": "status"}), uid, os.getegid())
    assert json.loads(text) == {"asked": {"command": "status"}, "uid": uid}


@needs_root
def test_a_stranger_does_not_even_get_through_the_file_s_mode(daemon: Daemon) -> None:
    text = in_child(daemon, lambda: call(daemon.path, {"arm": False}), NOBODY, NOBODY)
    assert "permission denied; be root or join the group gateway-admin" in text


@needs_root
def test_a_stranger_is_refused_by_the_kernel_s_word(daemon: Daemon) -> None:
    daemon.path.chmod(0o666)
    text = in_child(daemon, lambda: call(daemon.path, {"arm": False}), NOBODY, NOBODY)
    assert text == f"control: uid {NOBODY} may not; be root or join the group gateway-admin"


@needs_root
def test_a_member_of_the_group_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "GROUP", A_GROUP)
    directory = Path(tempfile.mkdtemp(prefix="control-"))
    directory.chmod(0o755)
    daemon = Daemon(directory / "control.sock")
    try:
        assert daemon.path.stat().st_gid == 1
        text = in_child(daemon, lambda: call(daemon.path, {"n": 1}), NOBODY, 1)
        assert json.loads(text) == {"asked": {"n": 1}, "uid": NOBODY}
    finally:
        daemon.close()
        shutil.rmtree(directory)


def test_a_refusal_of_the_daemon_is_an_error_with_its_words(daemon: Daemon) -> None:
    ask = in_child(daemon, lambda: call(daemon.path, {"refuse": True}), os.geteuid(), os.getegid())
    assert ask == "siren main: disarmed; arm it first"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"garbage\n", "no JSON"),
        (b"\xff\n", "no JSON"),
        (b"[" * 4000 + b"\n", "no JSON"),
        (b"3\n", "must be an object"),
        (b'{"a":"' + b"x" * MAX_REQUEST_BYTES + b'"}\n', "nothing was done"),
        (b'{"fail":true}\n', "KeyError"),
        (b'{"unspeakable":true}\n', "TypeError"),
    ],
)
def test_what_cannot_be_answered_gets_an_error_and_the_next_is_served(
    daemon: Daemon, sent: bytes, reason: str
) -> None:
    assert reason in daemon.ask(sent)["error"]
    assert daemon.ask(b'{"n":1}\n')["asked"] == {"n": 1}


def test_several_requests_on_one_connection_are_answered_in_order(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.path))
        for byte in b'{"n":1}\n{"n":2}\n{"n":3}\n':
            client.sendall(bytes([byte]))
            daemon.turn()
        lines = client.recv(65_536).splitlines()
    assert [json.loads(line)["asked"]["n"] for line in lines] == [1, 2, 3]


def test_a_long_answer_arrives_whole(daemon: Daemon) -> None:
    assert len(daemon.ask(b'{"long":700000}\n')["text"]) == 700_000


def test_who_never_reads_is_disconnected(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.path))
        client.sendall(b'{"long":900000}\n' * 3)
        for _ in range(5):
            daemon.turn()
        assert not any(c.open for c in daemon.control._connections)


def test_forgotten_connections_do_not_lock_the_technician_out(daemon: Daemon) -> None:
    forgotten = []
    for _ in range(2 * MAX_CONNECTIONS):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(daemon.path))
        forgotten.append(client)
        daemon.turn()
    assert daemon.ask(b'{"n":1}\n')["asked"] == {"n": 1}
    assert len(daemon.control._connections) <= MAX_CONNECTIONS
    for client in forgotten:
        client.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200), max_size=10))
def test_no_bytes_stop_the_daemon(daemon: Daemon, pieces: list[bytes]) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.path))
        for piece in pieces:
            client.sendall(piece)
            daemon.turn()
    daemon.turn()
    assert daemon.ask(b'{"n":1}\n')["asked"] == {"n": 1}


@pytest.mark.parametrize("crashed", [False, True])
def test_asking_a_daemon_that_is_not_there_says_so(tmp_path: Path, *, crashed: bool) -> None:
    path = tmp_path / "control.sock"
    if crashed:
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
    with pytest.raises(ControlError, match="the gateway is not running; start it first"):
        call(path, {})


def test_a_daemon_that_does_not_answer_is_not_waited_for_long(daemon: Daemon) -> None:
    with pytest.raises(ControlError, match=r"no answer within 0\.05 s"):
        call(daemon.path, {}, timeout_s=0.05)
