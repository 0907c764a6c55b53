"""The connection: what it tries, what it notices, and how it comes back."""

import json
import os
import re
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.events import NS
from gateway.hub.broker import Broker, find_program, free_port
from gateway.uplink.config import MqttConfig
from gateway.uplink.mqtt import (
    Connection,
    Down,
    Published,
    Received,
    State,
    Subscribed,
    Up,
)
from gateway.uplink.service import now
from tests.uplink.authority import Authority
from tests.uplink.city import City, alert
from tests.uplink.line import Line


class OldBroker:
    """Stands before a broker and knows no MQTT 5: it refuses it, or hangs up at once."""

    def __init__(self, port: int, *, hangs_up: bool) -> None:
        self.versions: list[int] = []
        self._hangs_up = hangs_up
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            greeting = client.recv(4096)
            version = greeting[greeting.index(b"MQTT") + 4]
            self.versions.append(version)
            if version == 5:
                if not self._hangs_up:
                    client.sendall(b"\x20\x02\x00\x01")
                client.close()
                continue
            behind = socket.create_connection(("127.0.0.1", self._behind))
            behind.sendall(greeting)
            self._sockets += [client, behind]
            for one, other in ((client, behind), (behind, client)):
                self._threads.append(threading.Thread(target=_pass_on, args=(one, other)))
                self._threads[-1].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(4096):
            other.sendall(data)
        other.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@pytest.mark.parametrize("hangs_up", [False, True], ids=["refuses", "hangs up"])
def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(
    broker: Broker, line: Callable[..., Line], hangs_up: bool
) -> None:
    old = OldBroker(broker.port, hangs_up=hangs_up)
    try:
        it = line(MqttConfig(urls=(old.url,)))
        it.until(lambda: it.of(Up))
        assert it.of(Up) == [Up(old.url, 4)]
        assert old.versions == [5, 4]
        it.connection.subscribe("#")
        it.until(lambda: it.of(Subscribed))
        it.connection.publish("a", b"b", now(), expiry_s=60)
        it.until(lambda: it.of(Received))
    finally:
        old.close()


def test_mqtt_5_is_spoken_where_it_is_understood(broker: Broker, line: Callable[..., Line]) -> None:
    it = line(MqttConfig(urls=(broker.url,)))
    it.until(lambda: it.of(Up))
    assert it.of(Up) == [Up(broker.url, 5)]


def test_brokers_are_tried_in_order(broker: Broker, line: Callable[..., Line]) -> None:
    dead = f"mqtt://127.0.0.1:{free_port()}"
    it = line(MqttConfig(urls=(dead, broker.url)))
    it.until(lambda: it.of(Up))
    assert [type(h) for h in it.happened] == [Down, Up]
    assert it.connection.url == broker.url


def test_pauses_between_rounds_grow_to_a_minute_and_are_never_the_same(
    line: Callable[..., Line],
) -> None:
    it = line(MqttConfig(urls=(f"mqtt://127.0.0.1:{free_port()}",)))
    pauses = []
    t = now()
    for _ in range(12):
        failed = len(it.of(Down))
        while len(it.of(Down)) == failed:
            it.turn(t)
        pauses.append((it.connection.next_deadline(t) - t) / NS)
        t = it.connection.next_deadline(t)
    assert all(0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses[:6]))
    assert all(30 <= pause <= 60 for pause in pauses[7:])
    assert len(set(pauses)) == len(pauses)


def test_a_frozen_broker_is_noticed_within_1_7_keepalives(
    broker: Broker, line: Callable[..., Line]
) -> None:
    it = line(MqttConfig(urls=(broker.url,), keepalive_s=8))
    it.until(lambda: it.of(Up))
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        began = now()
        it.turn(began + 13 * NS)
        assert not it.of(Down)
        it.turn(began + 14 * NS)
        it.turn(began + 14 * NS)
        assert "nothing heard" in str(it.of(Down))
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def test_a_broker_that_pings_but_takes_nothing_is_left(
    broker: Broker, line: Callable[..., Line]
) -> None:
    it = line(MqttConfig(urls=(broker.url,), keepalive_s=8))
    it.until(lambda: it.of(Up))
    it.connection.publish("a", b"b", now())
    it.connection._heard_at = now() + 20 * NS
    it.connection.tick(now() + 20 * NS)
    assert "unacknowledged" in str(it.connection.happened(now()))


def test_a_broker_that_comes_back_is_found_again(broker: Broker, line: Callable[..., Line]) -> None:
    it = line(MqttConfig(urls=(broker.url,)))
    for times in range(1, 4):
        it.until_seen(Up, times)
        broker.kill()
        it.until_seen(Down, times)
        broker.start()


def test_what_is_no_mqtt_is_said_and_left(line: Callable[..., Line]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        it = line(MqttConfig(urls=(f"mqtt://127.0.0.1:{server.getsockname()[1]}",)))

        def answer() -> None:
            for _ in range(2):
                client, _ = server.accept()
                client.recv(100)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(range(256)) * 4)
                client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        it.until(lambda: len(it.of(Down)) >= 2)
        thread.join()
        assert it.connection.state in State


def test_a_url_that_names_no_broker_is_refused() -> None:
    with selectors.DefaultSelector() as selector:
        for url in ("http://hub", "mqtt://", "hub:1883"):
            with pytest.raises(ValueError, match="not a broker"):
                Connection(MqttConfig(urls=(url,)), "station", None, selector)


# --- TLS, passwords, access ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a broker's certificate, and a station's."""
    if find_program("openssl") is None:
        pytest.skip("openssl is not installed")
    made = Authority(tmp_path_factory.mktemp("certificates"))
    for name in ("broker", "cn-demo-001"):
        made.issue(name)
    return made.folder


@pytest.fixture
def secure_broker(certificates: Path) -> Iterator[Broker]:
    if find_program("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    access = certificates / "access"
    access.write_text(
        "user hub\ntopic readwrite eew/#\n"
        "pattern write eew/v1/demo/%u/+\n"
        "pattern read eew/v1/demo/%u/hub/#\n"
    )
    secure = (
        f"cafile {certificates}/ca.pem\ncertfile {certificates}/broker.pem\n"
        f"keyfile {certificates}/broker.key\nrequire_certificate true\n"
        "use_identity_as_username true\n"
    )
    with Broker(settings=f"acl_file {access}", secure=secure) as running:
        yield running


def secured(broker: Broker, certificates: Path, name: str = "cn-demo-001") -> MqttConfig:
    return MqttConfig(
        urls=(broker.url,),
        keepalive_s=2,
        ca_file=str(certificates / "ca.pem"),
        certificate_file=str(certificates / f"{name}.pem"),
        key_file=str(certificates / f"{name}.key"),
    )


def test_a_station_with_a_certificate_delivers_over_tls(
    secure_broker: Broker, certificates: Path, make_city: Callable[..., City]
) -> None:
    city = make_city(secure_broker.url, mqtt=secured(secure_broker, certificates))
    city.start_uplink()
    city.core.publish(*(alert(n) for n in range(100)))
    city.until(lambda: city.core.stored == 100)
    city.until(lambda: city.uplink is not None and city.uplink._connection is not None
               and city.uplink._connection.state is State.up and city.uplink.quiet)  # fmt: skip
    assert city.waiting() >= 100


def test_a_station_speaks_for_itself_alone_and_commands_nobody(
    secure_broker: Broker, certificates: Path, line: Callable[..., Line]
) -> None:
    it = line(secured(secure_broker, certificates))
    it.connection._will = None  # the access list would refuse a will on a topic of no station
    it.until(lambda: it.of(Up))
    for topic in ("cn-demo-001/alert", "cn-demo-002/alert", "cn-demo-001/hub/command"):
        it.connection.publish(f"eew/v1/demo/{topic}", b"x", now())
    it.until_seen(Published, 3)
    refused = {p.mid: bool(p.refused) for p in it.of(Published) if isinstance(p, Published)}
    assert [refused[mid] for mid in sorted(refused)] == [False, True, True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ca_file": ""}, "CERTIFICATE_VERIFY_FAILED"),
        ({"certificate_file": "", "key_file": ""}, "hung up|certificate"),
        ({"ca_file": "/nowhere/ca.pem"}, "No such file"),
        ({"password_file": "/nowhere/secret", "username": "x"}, "/nowhere/secret"),
    ],
)
def test_what_is_wrong_with_a_secure_connection_is_said(
    secure_broker: Broker,
    certificates: Path,
    line: Callable[..., Line],
    change: dict[str, Any],
    said: str,
) -> None:
    it = line(replace(secured(secure_broker, certificates), **change))
    it.until(lambda: it.of(Down))
    assert re.search(said, str(it.of(Down))), it.of(Down)


# --- birth, last will, retained ---------------------------------------------------------------


def watch(line: Callable[..., Line], broker: Broker) -> Line:
    it: Line = line(MqttConfig(urls=(broker.url,), session_expiry_s=0), "watch")
    it.until(lambda: it.of(Up))
    it.connection.subscribe("eew/#")
    it.until(lambda: it.of(Subscribed))
    return it


def statuses(it: Line) -> list[tuple[str, str, bool]]:
    found = []
    for happening in it.happened:
        if isinstance(happening, Received) and happening.topic.endswith("/status"):
            data = json.loads(happening.payload)["data"]
            found.append((data["state"], data["reason"], happening.retained))
    return found


def test_a_station_says_that_it_is_there_and_the_broker_that_it_is_gone(
    city: City, broker: Broker, line: Callable[..., Line]
) -> None:
    city.spawn_uplink()
    it = watch(line, broker)
    it.until(lambda: statuses(it))
    assert statuses(it)[0][:2] == ("online", "")
    city.signal_uplink(signal.SIGKILL)
    it.until(lambda: len(statuses(it)) == 2)
    assert statuses(it)[1][:2] == ("offline", "lost")
    late = line(MqttConfig(urls=(broker.url,)), "late")
    late.until(lambda: late.of(Up))
    late.connection.subscribe("eew/#")
    late.until(lambda: statuses(late))
    assert statuses(late) == [("offline", "lost", True)]


def test_a_station_that_is_stopped_takes_its_leave(
    city: City, broker: Broker, line: Callable[..., Line]
) -> None:
    city.spawn_uplink()
    it = watch(line, broker)
    it.until(lambda: statuses(it))
    city.signal_uplink(signal.SIGTERM)
    it.until(lambda: len(statuses(it)) == 2)
    assert statuses(it)[1][:2] == ("offline", "stopped")
