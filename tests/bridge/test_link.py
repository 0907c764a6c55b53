"""Bridged ports with real peers on loopback, and the core's own line reading through them."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from serial import rfc2217

from gateway.bridge import link as links
from gateway.bridge.link import Link, stop_pipe
from gateway.core.compiled import Bridge, Compiled, Port, Station
from gateway.core.transport import Line, LineChange
from gateway.drill.sources import Quiet
from gateway.drivers import Driver, Simulator
from gateway.drivers.hydreon_rg15 import HydreonRg15, HydreonRg15Simulator
from gateway.events import Diagnostic, Reading
from tests.bridge.test_rfc2217 import FakeSerial

WAIT_S = 20.0


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        select.select([], [], [], 0.01)


class Peer:
    """A TCP server with one client at a time, driven by the test or by a simulated device."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        self.listener.settimeout(WAIT_S)
        self.port = self.listener.getsockname()[1]
        self.client: socket.socket | None = None

    def accept(self) -> socket.socket:
        self.client, _ = self.listener.accept()
        self.client.settimeout(WAIT_S)
        return self.client

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        self.listener.close()


@pytest.fixture
def bridged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Link]]:
    """Starts links; their sockets are in tmp_path."""
    monkeypatch.setattr(links, "FIRST_RETRY_S", 0.05)
    started: list[Link] = []
    stop, stop_write = stop_pipe()

    def start(url: str, *accept: str) -> Link:
        link = Link(Bridge("p", url, Port("", baud=4800), accept), tmp_path, stop)
        started.append(link)
        link.start()
        return link

    yield start
    os.close(stop_write)
    for link in started:
        link.join(WAIT_S)
        assert not link.is_alive()
    os.close(stop)
    assert not (tmp_path / "p").exists()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


def core_side(tmp_path: Path) -> socket.socket:
    """The port, opened as the core does: tried again until it is there."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(WAIT_S)
    until(lambda: client.connect_ex(str(tmp_path / "p")) == 0)
    return client


def received(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        assert piece
        data += piece
    return data


def test_bytes_pass_both_ways_unchanged(
    tmp_path: Path, bridged: Callable[..., Link], peer: Peer
) -> None:
    link = bridged(f"socket://127.0.0.1:{peer.port}")
    device = peer.accept()
    every = bytes(range(256)) * 8
    with core_side(tmp_path) as core:
        until(lambda: link.status.core_connected)
        device.sendall(every)
        assert received(core, len(every)) == every
        core.sendall(every)
        assert received(device, len(every)) == every
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o660 or not (tmp_path / "p").exists()
    status = link.status
    assert (status.bytes_to_core, status.bytes_to_peer, status.lost_to_core) == (2048, 2048, 0)


def test_a_peer_that_leaves_takes_the_port_with_it_and_is_found_again(
    tmp_path: Path, bridged: Callable[..., Link], peer: Peer
) -> None:
    link = bridged(f"socket://127.0.0.1:{peer.port}")
    with peer.accept() as device, core_side(tmp_path) as core:
        until(lambda: link.status.core_connected)
        device.close()
        assert core.recv(10) == b"", "the core sees the port go"
    with peer.accept() as again, core_side(tmp_path) as core:
        until(lambda: link.status.core_connected)
        again.sendall(b"back")
        assert received(core, 4) == b"back"
    assert link.status.openings == 2


def test_a_peer_that_is_not_there_is_tried_again_and_the_reason_said(
    tmp_path: Path, bridged: Callable[..., Link]
) -> None:
    unused = Peer()
    unused.close()
    link = bridged(f"socket://127.0.0.1:{unused.port}")
    until(lambda: link.status.reason)
    assert link.status.state == "waiting"
    assert "Connection refused" in link.status.reason
    late = Peer(unused.port)
    with late.accept():
        until(lambda: link.status.state == "open")
    late.close()
    assert tmp_path.exists()


def test_what_comes_while_the_core_is_away_is_lost_and_counted(
    tmp_path: Path, bridged: Callable[..., Link], peer: Peer
) -> None:
    link = bridged(f"socket://127.0.0.1:{peer.port}")
    device = peer.accept()
    device.sendall(b"x" * 1000)
    until(lambda: link.status.lost_to_core == 1000)
    with core_side(tmp_path) as core:
        until(lambda: link.status.core_connected)
        device.sendall(b"fresh")
        assert received(core, 5) == b"fresh"


def test_a_core_that_does_not_read_bounds_memory_and_costs_counted_bytes(
    tmp_path: Path, bridged: Callable[..., Link], peer: Peer
) -> None:
    link = bridged(f"socket://127.0.0.1:{peer.port}")
    device = peer.accept()
    with core_side(tmp_path):
        until(lambda: link.status.core_connected)
        block = bytes(65_536)
        sent = 0
        while link.status.lost_to_core == 0:
            device.sendall(block)
            sent += len(block)
            assert sent < 64 * links.TO_CORE
    until(lambda: not link.status.core_connected)
    until(lambda: link.status.bytes_to_core + link.status.lost_to_core == sent)


def test_a_new_core_takes_the_place_of_one_that_died(
    tmp_path: Path, bridged: Callable[..., Link], peer: Peer
) -> None:
    bridged(f"socket://127.0.0.1:{peer.port}")
    device = peer.accept()
    with core_side(tmp_path) as old, core_side(tmp_path) as new:
        assert old.recv(10) == b""
        device.sendall(b"for the new")
        assert received(new, 11) == b"for the new"


def test_datagrams_come_in_and_only_from_whom_they_may(
    tmp_path: Path, bridged: Callable[..., Link]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    link = bridged(f"udp://0.0.0.0:{port}", "127.0.0.1")
    with (
        core_side(tmp_path) as core,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        until(lambda: link.status.core_connected)
        stranger.bind(("127.0.0.2", 0))
        stranger.sendto(b"not this", ("127.0.0.1", port))
        until(lambda: link.status.datagrams_refused == 1)
        sender.sendto(b"{'EHZ', 1.5, 3}", ("127.0.0.1", port))
        assert received(core, 15) == b"{'EHZ', 1.5, 3}"
        core.sendall(b"one way")
        until(lambda: link.status.lost_to_peer == 7)


class TerminalServer(threading.Thread):
    """pyserial's RFC 2217 server, with a simulated gauge behind its line."""

    def __init__(self, peer: Peer, device: Simulator) -> None:
        super().__init__(daemon=True)
        self.peer, self.device, self.serial = peer, device, FakeSerial()
        self.ended = threading.Event()

    def write(self, data: bytes) -> None:
        assert self.peer.client is not None
        self.peer.client.sendall(data)

    def run(self) -> None:
        client = self.peer.accept()
        made: Any = rfc2217.PortManager
        manager = made(self.serial, self)
        self.device.powered(time.monotonic_ns())
        while not self.ended.is_set():
            if select.select([client], [], [], 0.01)[0]:
                data = client.recv(4096)
                if not data:
                    return
                heard = b"".join(manager.filter(data))
                self.device.feed(heard, time.monotonic_ns())
            self.device.tick(time.monotonic_ns())
            if said := self.device.to_send():
                client.sendall(b"".join(manager.escape(said)))


def read_through(path: Path, driver: Driver) -> list[Reading]:
    """What the core's line and a driver make of a bridged port."""
    line = Line(Port(str(path)))
    found: list[Any] = []
    end = time.monotonic() + WAIT_S
    while not any(isinstance(item, Reading) for item in found):
        assert time.monotonic() < end, found
        t = time.monotonic_ns()
        for change, _ in line.tick(t):
            if change is LineChange.opened:
                driver.opened(t)
        found += driver.tick(t)
        line.write(driver.to_send())
        if (fd := line.fileno()) is not None and select.select([fd], [], [], 0.01)[0]:
            found += driver.feed(line.read(t), t)
    line.close()
    assert not [item for item in found if isinstance(item, Diagnostic) and item.kind == "garbage"]
    return [item for item in found if isinstance(item, Reading)]


def test_the_core_reads_a_gauge_behind_a_terminal_server_whose_line_is_set(
    tmp_path: Path, bridged: Callable[..., Link], peer: Peer
) -> None:
    server = TerminalServer(peer, HydreonRg15Simulator(None, Quiet(1.0)))
    server.start()
    link = bridged(f"rfc2217://127.0.0.1:{peer.port}")
    readings = read_through(tmp_path / "p", HydreonRg15())
    assert {reading.quantity for reading in readings} == {"rain_total_mm", "rain_mmph"}
    assert server.serial.baudrate == 4800
    assert link.status.state == "open"
    server.ended.set()
    server.join(WAIT_S)


def test_a_peer_without_rfc_2217_is_refused_with_the_reason(
    bridged: Callable[..., Link], peer: Peer
) -> None:
    link = bridged(f"rfc2217://127.0.0.1:{peer.port}")
    with peer.accept() as client:
        client.sendall(b"\xff\xfe\x2c")
        until(lambda: link.status.reason)
    assert "without com port control" in link.status.reason


# --- the process --------------------------------------------------------------------------------


def test_the_process_serves_what_was_compiled_and_leaves_nothing(
    tmp_path: Path, peer: Peer
) -> None:
    config = Compiled(
        Station("s", "s", "c"),
        bridges=(Bridge("digitiser", f"socket://127.0.0.1:{peer.port}", Port("")),),
    )
    current = tmp_path / "compiled" / "current.json"
    current.parent.mkdir()
    current.write_text(json.dumps(asdict(config)))
    command = [sys.executable, "-m", "gateway.bridge", "--state", str(tmp_path)]
    process = subprocess.Popen([*command, "--run", str(tmp_path / "run")], stderr=subprocess.PIPE)
    ports = tmp_path / "run" / "ports"
    try:
        with peer.accept() as device:
            until((ports / "digitiser").is_socket)
            with socket.socket(socket.AF_UNIX) as core:
                core.settimeout(WAIT_S)
                core.connect(str(ports / "digitiser"))
                until(lambda: '"core_connected": true' in _text(ports / "status.json"))
                device.sendall(b"count")
                assert received(core, 5) == b"count"
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        _, said = process.communicate()
    assert list(ports.iterdir()) == []
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["link"]["state"] for event in events][:1] == ["open"]


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
