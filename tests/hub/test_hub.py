"""The hub hears every station, believes none about another, and keeps what it has acknowledged."""

import json
import selectors
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.events import NS, to_record
from gateway.hub.broker import Broker, find_program
from gateway.hub.hub import Hub, Message
from gateway.uplink.config import MqttConfig
from gateway.uplink.messages import cloud_event
from gateway.uplink.mqtt import Received, Up
from gateway.uplink.service import now
from tests.uplink.city import PATIENCE_S, City, alert
from tests.uplink.conftest import broker, city, line, make_city
from tests.uplink.line import Line

__all__ = ["broker", "city", "line", "make_city"]

RECORD = to_record(alert(1))


@pytest.fixture
def heard() -> list[Message]:
    return []


@pytest.fixture
def hub(heard: list[Message], tmp_path: Path) -> Iterator[Hub]:
    """A hub that reaches nobody; what it receives is handed to it."""
    with selectors.DefaultSelector() as selector:
        config = MqttConfig(urls=("mqtt://127.0.0.1:1",), client_id="hub")
        with Hub(config, heard.append, selector, tmp_path / "hub.sqlite") as it:
            yield it


def said(number: int = 1, station: str = "s1", topic: str = "s1/alert", **changes: Any) -> Received:
    event = json.loads(cloud_event(f"/eew/demo/{station}", f"r-{number}", number, RECORD))
    payload = json.dumps(event | changes).encode()
    return Received(f"eew/v1/demo/{topic}", payload, retained=False)


def receive(hub: Hub, items: list[Received]) -> None:
    for message in hub._store(items):
        hub._tell(message)


def test_a_message_is_told_once_and_acknowledged_each_time(hub: Hub, heard: list[Message]) -> None:
    receive(hub, [said(), said()])
    receive(hub, [said()])
    assert [m.id for m in heard] == ["r-1"]
    assert heard[0].data == RECORD
    assert hub._unacknowledged == {"/eew/demo/s1": ["r-1"] * 3}
    assert hub.counts["repeated"] == 2


def test_a_repeat_that_was_numbered_anew_stands_where_its_new_number_says(hub: Hub) -> None:
    """A station that was killed numbers again, in the old order, what it had not stored."""
    receive(hub, [said(2)])
    for number, sequence in ((1, 11), (2, 12)):
        receive(hub, [said(number, sequence=f"{sequence:020d}")])
    assert [e["id"] for e in hub.messages("/eew/demo/s1")] == ["r-1", "r-2"]


def test_a_repeat_with_other_content_is_counted_and_said(hub: Hub) -> None:
    receive(hub, [said()])
    receive(hub, [said(data=RECORD | {"level": "blue"})])
    assert hub.counts["conflicting"] == 1
    assert "other content" in hub.refused
    (event,) = hub.messages("/eew/demo/s1")
    assert event["data"] == RECORD, "the first holds"


def test_a_repeat_is_known_after_a_restart(hub: Hub, heard: list[Message], tmp_path: Path) -> None:
    receive(hub, [said()])
    with selectors.DefaultSelector() as selector:
        config = MqttConfig(urls=("mqtt://127.0.0.1:1",))
        with Hub(config, heard.append, selector, tmp_path / "hub.sqlite") as again:
            receive(again, [said()])
    assert len(heard) == 1


def test_the_same_id_of_another_station_is_another_message(hub: Hub, heard: list[Message]) -> None:
    receive(hub, [said(), said(station="s2", topic="s2/alert")])
    assert [m.station for m in heard] == ["s1", "s2"]


def test_messages_come_in_order_and_what_is_late_is_marked(hub: Hub, heard: list[Message]) -> None:
    receive(hub, [said(n) for n in (3, 1, 2)])
    assert [m.late for m in heard] == [False, True, True]
    assert [e["id"] for e in hub.messages("/eew/demo/s1")] == ["r-1", "r-2", "r-3"]


@pytest.mark.parametrize(
    "item",
    [
        said(station="s2"),
        said(topic="s1/something"),
        said(sequence="7"),
        said(specversion="0.3"),
        said(data=[]),
        said(id=""),
        Received("eew/v1/demo/s1/alert", b"", retained=False),
        Received("eew/v1/demo/s1/alert", b"\xff\xfe", retained=False),
        Received("eew/v1/demo/s1/alert", b"[" * 100_000, retained=False),
        Received("eew/v1/demo/s1/alert", b"[]", retained=False),
    ],
    ids=str,
)
def test_what_can_not_be_believed_is_refused_and_counted(
    hub: Hub, heard: list[Message], item: Received
) -> None:
    receive(hub, [item, said()])
    assert hub.counts["refused"] == 1
    assert item.topic in hub.refused
    assert [m.id for m in heard] == ["r-1"], "and the next is heard all the same"


def test_a_warning_with_a_fault_in_it_is_still_a_warning(hub: Hub, heard: list[Message]) -> None:
    receive(hub, [said(data=RECORD | {"level": "purple"})])
    assert heard[0].data["level"] == "purple"
    assert hub.faults(heard[0]) == [
        "$.level: 'purple' is not one of ['none', 'blue', 'yellow', 'orange', 'red']"
    ]
    receive(hub, [said(2, type="eew.novelty.v1")])
    assert hub.faults(heard[1]) == ["no schema for 'novelty'"]
    receive(hub, [said(3)])
    assert hub.faults(heard[2]) == []


def test_the_broker_of_one_s_own_is_gone_with_its_files() -> None:
    if find_program("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    with Broker() as broker:
        directory = broker._directory
        assert directory.is_dir()
        pid = broker.pid
    assert not directory.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_broker_that_can_not_start_says_why() -> None:
    if find_program("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    with pytest.raises(RuntimeError, match="Unknown configuration"):
        Broker(settings="nonsense true").start()


def test_an_unreachable_broker_is_trouble_of_both_sessions(hub: Hub) -> None:
    end = now() + round(PATIENCE_S * NS)
    hub.run(lambda: len(hub.troubles) == 2 or now() > end)
    assert all("refused" in hub.troubles[session] for session in ("hub", "hub-bulk"))


@pytest.mark.parametrize("session", ["hub", "hub-bulk"])
def test_the_loss_of_one_session_is_said_until_that_one_is_back(
    session: str, city: City, broker: Broker, line: Callable[..., Line]
) -> None:
    hub = city.start_hub()
    city.until(lambda: hub.connected)
    assert hub.troubles == {}
    thief = line(MqttConfig(urls=(broker.url,)), session)  # a broker has one session of a name
    thief.until_seen(Up, 1)
    city.until(lambda: hub.troubles, "it is told")
    assert list(hub.troubles) == [session]
    assert broker.url in hub.troubles[session]
    city.until(lambda: not hub.troubles, "it is back")
    assert hub.connected


def test_a_session_that_may_not_listen_says_so_while_the_other_is_well(
    tmp_path: Path, make_city: Callable[..., City]
) -> None:
    plugin = find_library("mosquitto_dynamic_security.so")
    if find_program("mosquitto") is None or plugin is None:
        pytest.skip("mosquitto or its access lists are not installed")
    access = tmp_path / "access.json"
    forbid(access, "eew/v1/+/+/telemetry")
    with Broker(settings=f"plugin {plugin}\nplugin_opt_config_file {access}") as broker:
        city = make_city(broker.url)
        hub = city.start_hub()
        city.until(lambda: hub.connected and hub.troubles, "it is told")
        assert list(hub.troubles) == ["hub-bulk"]
        assert "telemetry, waveform: Not authorized" in hub.troubles["hub-bulk"]
        broker.kill()
        city.until(lambda: len(hub.troubles) == 2, "both are lost")
        forbid(access, "eew/v1/+/+/nothing")
        broker.start()
        city.until(lambda: hub.connected and not hub.troubles, "it may listen")


def forbid(access: Path, topic: str) -> None:
    """An access list for mosquitto's plugin: all may everything but subscribe to ``topic``."""
    may = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
    acl = {"acltype": "subscribeLiteral", "topic": topic, "allow": False}
    settings = {
        "defaultACLAccess": dict.fromkeys(may, True),
        "roles": [{"rolename": "limited", "acls": [acl]}],
        "groups": [{"groupname": "all", "roles": [{"rolename": "limited"}]}],
        "anonymousGroup": "all",
    }
    access.write_text(json.dumps(settings))


def find_library(name: str) -> Path | None:
    """A library of this machine, or of what is unpacked in this environment."""
    for place in (Path(sys.prefix) / "debian/usr/lib", Path("/usr/lib")):
        for path in place.glob(f"*/{name}"):
            return path
    return None
