"""Nothing decided is lost on the way to the hub, whoever dies, and nothing is told twice."""

import json
import random
import signal
import time
from collections.abc import Callable

import pytest

from gateway.events import iso
from gateway.hub.broker import Broker
from gateway.uplink.config import MqttConfig
from gateway.uplink.messages import Kind
from gateway.uplink.outbox import Message, Outbox
from gateway.uplink.service import now
from tests.uplink.city import City, alert, reading


def test_an_alert_reaches_the_hub_and_is_forgotten_once_acknowledged(city: City) -> None:
    city.start_hub()
    city.start_uplink()
    city.core.publish(alert(1))
    city.until(city.alerts_heard, "the hub hears the alert")
    message = next(m for m in city.heard if m.kind == "alert")
    assert message.data["text_zh"] == "本地实测达到地震红色标准"
    assert message.id == "run1-1"
    assert city.faults() == []
    city.until(lambda: city.waiting() == 0, "the outbox is empty again")
    city.until(lambda: city.core.stored == 1, "the core is told that the alert is stored")


def test_an_alert_stays_until_the_hub_itself_has_it(city: City) -> None:
    """The broker's acknowledgement is not enough: it may die with the message."""
    city.start_uplink()
    city.core.publish(alert(1))
    city.until(lambda: city.core.stored == 1)
    assert city.uplink is not None
    city.until(lambda: city.uplink is not None and city.uplink.quiet)
    assert city.waiting() >= 1
    city.start_hub()
    city.until(city.alerts_heard)
    city.until(lambda: city.waiting() == 0)


def test_a_broker_killed_with_messages_it_acknowledged_costs_nothing(
    city: City, broker: Broker
) -> None:
    hub = city.start_hub()
    city.start_uplink()
    city.until(lambda: hub.connected)
    city.stop_hub()
    city.core.publish(*(alert(n) for n in range(50)))
    city.until(lambda: city.core.stored == 50)
    city.until(lambda: city.uplink is not None and city.uplink.quiet)
    broker.kill()
    broker.start()
    city.start_hub()
    city.until(lambda: len(set(city.alerts_heard())) == 50)
    assert len(city.alerts_heard()) == 50


def tell_readings(city: City) -> None:
    """Five readings, gathered and put into the outbox."""
    uplink = city.uplink
    assert uplink is not None
    city.until(lambda: city.core.feed.wants_data)
    for n in range(5):
        city.core.data(reading(n))
    city.until(lambda: uplink._telemetry_at is not None)
    city.until(lambda: uplink._telemetry_at is None)


def telemetry_waiting(city: City) -> int:
    assert city.uplink is not None
    return city.uplink.outbox.waiting().get(Kind.telemetry, 0)


def test_telemetry_goes_on_the_brokers_word(city: City) -> None:
    """The broker keeps it for a hub that is away, as long as it keeps its session."""
    hub = city.start_hub()
    city.start_uplink()
    city.until(lambda: hub.connected and city.heard)
    city.stop_hub()
    tell_readings(city)
    city.until(lambda: telemetry_waiting(city) == 0)
    city.start_hub()
    city.until(lambda: any(m.kind == "telemetry" for m in city.heard))


def test_an_alert_does_not_wait_at_the_broker_behind_a_backlog_of_telemetry(city: City) -> None:
    hub, uplink = city.start_hub(), city.start_uplink()
    city.until(lambda: hub.connected and city.heard)
    city.stop_hub()
    record = {"type": "telemetry", "time": iso(0), "readings": [], "measured": []}
    for n in range(900):
        uplink._put(f"t-{n}", record, now())
    city.until(lambda: telemetry_waiting(city) == 0, "the broker has it")
    city.core.publish(alert(1))
    city.until(lambda: city.core.stored == 1 and uplink.quiet)
    city.start_hub()
    city.until(city.alerts_heard)
    assert sum(m.kind == "telemetry" for m in city.heard) < 900
    city.until(lambda: sum(m.kind == "telemetry" for m in city.heard) >= 900)


def test_telemetry_that_the_broker_takes_for_nobody_waits_for_a_hub(
    city: City, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that was killed has lost the hub's session, and confirms what goes to nobody."""
    unheard: list[Message] = []

    def note(box: Outbox, message: Message, t: int) -> None:
        unheard.append(message)
        hold(box, message, t)

    hold = Outbox.unheard
    monkeypatch.setattr(Outbox, "unheard", note)
    hub = city.start_hub()
    city.start_uplink()
    city.until(lambda: hub.connected and city.heard)
    city.stop_hub()
    broker.kill()
    broker.start()
    tell_readings(city)
    city.until(lambda: unheard, "the broker says that nobody listens")
    assert telemetry_waiting(city) == 1
    city.start_hub()
    city.until(lambda: any(m.kind == "telemetry" for m in city.heard))
    city.until(lambda: telemetry_waiting(city) == 0)


def test_where_the_brokers_word_is_enough_it_may_be_for_nobody(
    broker: Broker, make_city: Callable[..., City]
) -> None:
    """Some brokers store what comes by rules of their own, without any subscription."""
    mqtt = MqttConfig(urls=(broker.url,), keepalive_s=2, acknowledgement="broker")
    city = make_city(broker.url, mqtt=mqtt)
    city.start_uplink()
    tell_readings(city)
    city.until(lambda: city.waiting() == 0)


def test_readings_of_a_moment_travel_together(city: City) -> None:
    city.start_hub()
    city.start_uplink()
    city.until(lambda: city.core.feed.wants_data)
    for n in range(3):
        city.core.data(reading(n))
    city.until(lambda: any(m.kind == "telemetry" for m in city.heard))
    message = next(m for m in city.heard if m.kind == "telemetry")
    assert [r["value"] for r in message.data["readings"]] == [0.0, 0.2, 0.4]


def test_the_hub_can_put_a_stations_messages_in_order(city: City) -> None:
    hub = city.start_hub()
    city.start_uplink()
    city.core.publish(*(alert(n) for n in range(20)))
    city.until(lambda: len(city.alerts_heard()) == 20)
    events = [e for e in hub.messages("/eew/demo/cn-demo-001") if e["type"] == "eew.alert.v1"]
    assert [e["data"]["id"] for e in events] == [alert(n).id for n in range(20)]
    assert len({e["sequence"] for e in events}) == 20


def test_an_uplink_killed_again_and_again_loses_nothing(city: City) -> None:
    chance = random.Random(20)
    hub = city.start_hub()
    for kill in range(10):
        city.spawn_uplink()
        city.until_heard_more("the uplink speaks")
        for n in range(20):
            city.core.publish(alert(20 * kill + n))
        end = time.monotonic() + chance.uniform(0, 0.1)
        while time.monotonic() < end:
            city.turn()
        city.signal_uplink(signal.SIGKILL)
    city.spawn_uplink()
    city.until(lambda: len(set(city.alerts_heard())) == 200, "all 200 alerts arrive")
    assert len(city.alerts_heard()) == 200, "the hub tells no repeat"
    assert hub.counts["refused"] == 0
    city.until(lambda: city.core.stored == 200)
    city.signal_uplink(signal.SIGTERM)


def test_where_the_hub_has_no_ack_the_brokers_word_is_taken(
    broker: Broker, make_city: Callable[..., City]
) -> None:
    mqtt = MqttConfig(urls=(broker.url,), keepalive_s=2, acknowledgement="broker")
    city = make_city(broker.url, mqtt=mqtt)
    city.start_hub(acknowledge=False)
    city.start_uplink()
    city.core.publish(alert(1))
    city.until(city.alerts_heard)
    city.until(lambda: city.waiting() == 0)
    status = next(m for m in city.heard if m.kind == "status")
    assert status.data["acknowledgement"] == "broker"


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"ids":3}', b'{"ids":[null,{}]}', b"[" * 9999])
def test_a_bad_acknowledgement_is_counted_and_does_no_harm(city: City, payload: bytes) -> None:
    hub = city.start_hub()
    city.start_uplink()
    city.until(lambda: any(m.kind == "status" for m in city.heard))
    hub._urgent.publish("eew/v1/demo/cn-demo-001/hub/ack", payload, time.monotonic_ns())
    city.core.publish(alert(1))
    city.until(city.alerts_heard)
    assert json.dumps(city.heard[-1].data)
