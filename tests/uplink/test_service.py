"""Commands go through verified only, and whatever is wrong is told to the hub."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from gateway.clock import UtcClock
from gateway.core import commands
from gateway.core.commands import Action, Clock, Command, sign
from gateway.core.feed import MEMORY_RECORDS
from gateway.events import NS, ArmingChange, iso
from gateway.hub.broker import Broker
from gateway.uplink import service
from gateway.uplink.messages import Kind
from gateway.uplink.service import BulkWindow, now
from tests.uplink.city import City, alert, reading

KEY = SigningKey(b"k" * 32)


@pytest.fixture
def keyed(broker: Broker, make_city: Callable[..., City], monkeypatch: pytest.MonkeyPatch) -> City:
    """A city whose station knows the hub's key, on a machine whose clock is sure."""
    monkeypatch.setattr(UtcClock, "clock", lambda *_: Clock(time.time_ns(), 0))
    city = make_city(broker.url, keys={"hub": KEY.verify_key.encode().hex()})
    city.start_hub()
    city.start_uplink()
    city.until(lambda: any(m.kind == "status" for m in city.heard))
    return city


def envelope(**target: str) -> bytes:
    utc_ns = time.time_ns()
    made = Command(
        id=f"c-{utc_ns}",
        key="hub",
        counter=utc_ns // 1_000_000,
        until_ns=utc_ns + 30 * NS,
        action=Action.siren_on,
        target=target or {"station": "cn-demo-001"},
    )
    return sign(made, KEY)


def publish(city: City, payload: bytes, *, retain: bool = False) -> None:
    assert city.hub is not None
    city.until(lambda: city.hub is not None and city.hub.connected)
    topic = "eew/v1/demo/cn-demo-001/hub/command"
    city.hub._urgent.publish(topic, payload, now(), retain=retain)


def details(city: City, kind: str) -> list[str]:
    return [m.data["detail"] for m in city.heard if m.data.get("kind") == kind]


@pytest.mark.parametrize("target", [{"station": "cn-demo-001"}, {"group": "demo"}])
def test_a_signed_command_reaches_the_core_as_it_was_signed(
    keyed: City, target: dict[str, str]
) -> None:
    sent = envelope(**target)
    publish(keyed, sent)
    keyed.until(lambda: keyed.core.commands)
    assert keyed.core.commands[0].envelope == json.loads(sent)
    found = commands.verify(
        keyed.core.commands[0].raw,
        commands.read_keys({"hub": KEY.verify_key.encode().hex()}),
        clock=Clock(time.time_ns(), 0),
        station="cn-demo-001",
        groups=("demo",),
    )
    assert isinstance(found, Command)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"siren on please", "malformed"),
        (b"x" * 5000, "too_large"),
        (envelope().replace(b'"key":"hub"', b'"key":"hob"'), "unknown_key"),
        (sign(commands.Command("c", "hub", 1, 2, Action.arm, {"station": "x"}), KEY), "not_for_us"),
    ],
)
def test_anything_else_is_refused_and_told(keyed: City, payload: bytes, said: str) -> None:
    publish(keyed, payload)
    keyed.until(lambda: details(keyed, "command_refused"))
    assert details(keyed, "command_refused")[0].startswith(said)
    assert keyed.core.commands == []


def test_a_command_that_lay_at_the_broker_is_refused(
    broker: Broker, make_city: Callable[..., City]
) -> None:
    city = make_city(broker.url, keys={"hub": KEY.verify_key.encode().hex()})
    city.start_hub()
    publish(city, envelope(), retain=True)
    city.until(lambda: city.hub is not None and city.hub._urgent.flushed())
    city.start_uplink()
    city.until(lambda: details(city, "command_refused"))
    assert details(city, "command_refused")[0].startswith("retained")
    assert city.core.commands == []


def test_a_refused_but_genuine_command_is_answered(keyed: City) -> None:
    publish(keyed, envelope(station="cn-demo-002"))
    keyed.until(lambda: any(m.kind == "reply" for m in keyed.heard))
    reply = next(m for m in keyed.heard if m.kind == "reply")
    assert reply.data["outcome"] == "refused"
    assert keyed.faults() == []


def test_a_command_for_a_core_that_does_not_run_has_failed(keyed: City) -> None:
    keyed.stop_core()
    keyed.until(lambda: keyed.uplink is not None and keyed.uplink.feed.trouble)
    publish(keyed, envelope())
    keyed.until(lambda: any(m.kind == "reply" for m in keyed.heard))
    assert next(m for m in keyed.heard if m.kind == "reply").data["outcome"] == "failed"
    keyed.start_core("run2")
    keyed.core.publish(alert(1))
    keyed.until(keyed.alerts_heard)


def test_whether_the_sirens_may_sound_is_retained(city: City, broker: Broker) -> None:
    city.start_uplink()
    city.core.publish(ArmingChange("armed", NS), ArmingChange("silent", 2 * NS, "key", 60.0))
    city.until(lambda: city.core.stored == 2)
    city.until(lambda: city.uplink is not None and city.uplink.quiet)
    broker.stop()
    broker.start()
    city.start_hub()
    city.until(lambda: any(m.kind == "arming" for m in city.heard))
    assert [m.data["mode"] for m in city.heard if m.kind == "arming"] == ["silent"]


def test_an_outage_is_told_once_it_is_over(city: City, broker: Broker) -> None:
    city.start_uplink()
    city.core.publish(alert(1))
    city.until(lambda: city.core.stored == 1)
    city.until(lambda: city.uplink is not None and city.uplink._connection is not None
               and city.uplink._connection.room)  # fmt: skip
    broker.kill()
    city.until(lambda: city.uplink is not None and city.uplink._away)
    broker.start()
    city.start_hub()
    city.until(lambda: len(details(city, "disconnected")) == 2)
    told = sorted(city.heard, key=lambda m: m.sequence)
    states = [m.data["state"] for m in told if m.data.get("kind") == "disconnected"]
    assert states == ["degraded", "ok"]


def test_lost_data_is_counted_and_told(city: City) -> None:
    hub = city.start_hub()
    uplink = city.start_uplink()
    city.until(lambda: hub.connected)
    for item in (
        {"stream": "gap", "of": "data", "lost": 17},
        {"stream": "gap", "of": "record", "lost": None},
        {"stream": "record", "run_id": "r"},
        {"stream": "data", "reading": {}},
        {"what": "ever"},
    ):
        uplink._item(item, now())
    city.until(lambda: details(city, "lost"))
    lost = next(m for m in city.heard if m.data.get("kind") == "lost")
    assert lost.data["count"] == 17
    city.until(lambda: details(city, "garbled"))


def test_a_station_without_a_hub_keeps_nothing_for_it(make_city: Callable[..., City]) -> None:
    city = make_city("", mqtt=None)
    uplink = city.start_uplink()
    city.core.publish(alert(1))
    city.until(lambda: city.core.stored == 1)
    assert uplink.outbox.waiting() == {}


def test_a_damaged_outbox_makes_the_core_tell_everything_again(city: City) -> None:
    city.start_uplink()
    city.core.publish(*(alert(n) for n in range(5)))
    city.until(lambda: city.core.stored == 5)
    city.stop_uplink()
    box = city.directory / "state" / "outbox.sqlite"
    box.write_bytes(b"\0" * box.stat().st_size)
    city.start_hub()
    city.start_uplink()
    city.until(lambda: len(city.alerts_heard()) == 5)
    city.until(lambda: details(city, "damaged"))


def test_telemetry_leaves_room_as_soon_as_a_queue_builds_up() -> None:
    window = BulkWindow()
    for n in range(200):
        window.acknowledged(NS // 100, n * NS // 10)
    assert window.size > 10
    for n in range(6):
        window.acknowledged(NS // 50, 20 * NS + n)
    assert window.size == 1
    for n in range(300):
        window.acknowledged(NS // 50, (21 + n) * NS)
    assert window.size > 10, "a link that has become slower by nature is used all the same"


def test_alerts_pass_telemetry_that_floods_the_link(city: City) -> None:
    city.start_hub()
    city.start_uplink()
    city.until(lambda: city.core.feed.wants_data)
    assert city.uplink is not None
    for n in range(500):
        city.uplink._put(f"flood-{n}", {"type": "telemetry", "time": iso(n), "readings": []}, now())
    city.core.publish(alert(1))
    city.until(city.alerts_heard)
    before = city.heard.index(next(m for m in city.heard if m.kind == "alert"))
    assert before < 250


def _start(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.uplink", *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_faulty_configuration_is_said_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[station]\nid = "x"\ncity = "demo"\nlatitude = 99\nlongitude = 1\n')
    found = _start(["--config", str(path), "--state", str(tmp_path), "--run", str(tmp_path)])
    assert found.returncode == 1
    assert "gateway.toml:4: station.latitude" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_toml_configuration_runs(broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(
        '[station]\nid = "x"\ncity = "demo"\nlatitude = 9\nlongitude = 1\n'
        f'[uplink.mqtt]\nurl = "{broker.url}"\n'
    )
    city = City(tmp_path, broker.url)
    arguments = ["--config", path, "--state", tmp_path / "state", "--run", tmp_path]
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.uplink", *map(str, arguments)], stderr=subprocess.DEVNULL
    )
    try:
        city.start_hub()
        city.until(lambda: any(m.station == "x" for m in city.heard))
    finally:
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0
        city.close()


def test_readings_are_sent_before_the_end(city: City) -> None:
    city.start_hub()
    uplink = city.start_uplink()
    city.until(lambda: city.core.feed.wants_data)
    city.core.data(reading(3))
    city.until(lambda: uplink._readings)
    city.stop_uplink()
    city.start_uplink()
    city.until(lambda: any(m.kind == "telemetry" for m in city.heard))


def test_readings_that_came_while_the_uplink_was_away_are_told_once(city: City) -> None:
    city.start_hub()
    city.start_uplink()
    city.until(lambda: city.core.feed.wants_data)
    city.core.data(reading(0))
    city.until(lambda: any(m.kind == "telemetry" for m in city.heard))
    city.until(lambda: city.waiting() == 0)
    city.stop_uplink()
    city.core.turn()
    for n in range(1, 4):
        city.core.data(reading(n))
    city.start_uplink()
    city.core.data(reading(4))

    def values() -> list[float]:
        found = (m.data.get("readings", ()) for m in city.heard if m.type == "telemetry")
        return [round(r["value"], 1) for readings in found for r in readings]

    city.until(lambda: len(values()) >= 5)
    assert values() == [0.0, 0.2, 0.4, 0.6, 0.8]


def test_data_that_the_core_no_longer_remembers_is_counted(city: City) -> None:
    city.start_hub()
    city.start_uplink()
    city.until(lambda: city.core.feed.wants_data)
    city.core.data(reading(0))
    city.until(lambda: any(m.kind == "telemetry" for m in city.heard))
    city.stop_uplink()
    city.core.turn()
    for n in range(1, MEMORY_RECORDS + 11):
        city.core.data(reading(n))
    city.start_uplink()
    city.until(lambda: details(city, "lost"))
    lost = next(m for m in city.heard if m.data.get("kind") == "lost")
    assert lost.data["count"] == 10


def test_the_clock_and_the_queues_are_told_every_minute(city: City) -> None:
    city.start_hub()
    uplink = city.start_uplink()
    city.until(lambda: any(m.kind == "status" for m in city.heard))
    uplink._report_at = 0
    city.until(lambda: any(m.type == "uplink" for m in city.heard))
    told = next(m for m in city.heard if m.type == "uplink")
    assert [queue["name"] for queue in told.data["queues"]] == list(Kind.__members__)
    assert told.data["clock"]["state"] in ("never", "synchronised", "holdover")
    assert city.faults() == []


def test_a_hub_that_acknowledges_nothing_is_told_with_what_to_do(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "UNACKNOWLEDGED_S", -1)
    city.start_hub(acknowledge=False)
    uplink = city.start_uplink()
    city.until(lambda: any(m.kind == "status" for m in city.heard))
    uplink._report_at = 0
    city.until(lambda: details(city, "unacknowledged"))
    assert "hub/ack" in details(city, "unacknowledged")[0]
