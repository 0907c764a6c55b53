"""A link that is paid by the byte: what waits when the day's are used, and what never does."""

import os
import selectors
import signal
from collections.abc import Callable

import pytest

from gateway.events import NS
from gateway.hub.broker import Broker
from gateway.uplink.budget import DAY_S, Budget
from gateway.uplink.config import MqttConfig
from gateway.uplink.messages import Kind
from gateway.uplink.mqtt import Connection, Down, Up
from gateway.uplink.service import now
from tests.uplink.city import City, alert, reading


@pytest.mark.parametrize(
    ("used", "held"),
    [
        (0, set()),
        (799, set()),
        (800, {Kind.telemetry, Kind.waveform}),
        (1000, {Kind.event, Kind.telemetry, Kind.waveform}),
        (10**9, {Kind.event, Kind.telemetry, Kind.waveform}),
    ],
)
def test_the_least_urgent_wait_first_and_alerts_never(used: int, held: set[Kind]) -> None:
    budget = Budget(1000)
    budget.spend(used, 0)
    assert budget.held() == held


def test_a_day_is_over_after_86400_powered_seconds() -> None:
    budget = Budget(1000, since_s=50)
    budget.spend(2000, 60)
    budget.spend(0, 50 + DAY_S - 1)
    assert budget.held()
    budget.spend(10, 50 + DAY_S)
    assert not budget.held()
    assert budget.used_bytes == 10


@pytest.fixture
def metered(broker: Broker, make_city: Callable[..., City]) -> City:
    return make_city(
        broker.url, mqtt=MqttConfig(urls=(broker.url,), keepalive_s=2, daily_bytes=20_000)
    )


def test_telemetry_waits_for_the_next_day_alerts_go_and_it_is_told(metered: City) -> None:
    city = metered
    city.start_hub()
    uplink = city.start_uplink()
    assert uplink._budget is not None
    city.until(lambda: any(m.kind == "status" for m in city.heard))
    city.until(lambda: uplink._budget is not None and uplink._budget.used_bytes > 300)
    uplink._budget.used_bytes = 16_000
    city.until(lambda: any(m.data.get("kind") == "budget" for m in city.heard), "it is told")
    told = next(m for m in city.heard if m.data.get("kind") == "budget")
    assert "telemetry, waveform wait" in told.data["detail"]
    city.core.data(reading(1))
    city.until(lambda: uplink._readings)
    uplink._send_telemetry(now())
    city.core.publish(alert(1))
    city.until(city.alerts_heard)
    assert not any(m.kind == "telemetry" for m in city.heard)
    used = uplink._budget.used_bytes
    city.stop_uplink()
    uplink = city.start_uplink()
    assert uplink._budget is not None
    assert uplink._budget.used_bytes >= used, "a restart gives nothing"
    uplink._budget.since_s = -DAY_S
    city.until(lambda: any(m.type == "telemetry" for m in city.heard), "the next day")


def test_what_is_held_back_is_counted_and_told(metered: City) -> None:
    city = metered
    city.start_hub()
    uplink = city.start_uplink()
    assert uplink._budget is not None
    city.until(lambda: any(m.kind == "status" for m in city.heard))
    uplink._budget.used_bytes = 20_000
    for n in range(3):
        uplink._put(f"e{n}", {"type": "onset", "time": "2026-01-01T00:00:00Z"}, now())
    uplink._report(now())
    uplink._budget.since_s = -DAY_S
    city.until(lambda: any(m.type == "uplink" for m in city.heard))
    told = next(m for m in city.heard if m.type == "uplink").data["budget"]
    assert told["held"]["event"] == 3
    assert told["daily_bytes"] == 20_000
    assert city.hub is not None
    message = next(m for m in city.heard if m.type == "uplink")
    assert city.hub.faults(message) == []


def test_what_the_link_carried_is_more_than_what_was_said(
    broker: Broker, make_city: Callable[..., City]
) -> None:
    city = make_city(broker.url)
    city.start_hub()
    uplink = city.start_uplink()
    city.until(lambda: any(m.kind == "status" for m in city.heard))
    assert uplink._connection is not None
    before = uplink._connection.carried_bytes
    city.core.publish(*(alert(n) for n in range(100)))
    city.until(lambda: len(city.alerts_heard()) == 100)
    city.until(lambda: city.waiting() == 0)
    said = sum(len(str(m.data).encode()) for m in city.heard if m.kind == "alert")
    uplink._connection._meter()
    assert said < uplink._connection.carried_bytes - before < 10 * said


@pytest.mark.parametrize(("keepalive_s", "limit_s"), [(8, 15), (50, 90)])
def test_a_frozen_broker_is_noticed_in_time_metered_or_not(
    broker: Broker, keepalive_s: int, limit_s: int
) -> None:
    with selectors.DefaultSelector() as selector:
        config = MqttConfig(urls=(broker.url,), keepalive_s=keepalive_s)
        connection = Connection(config, "it", None, selector)
        seen: list[object] = []

        def turn(t: int) -> None:
            connection.tick(t)
            seen.extend(connection.happened(t))
            for key, mask in selector.select(0.01):
                key.data(mask, t)

        while not any(isinstance(x, Up) for x in seen):
            turn(now())
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            began = t = now()
            while not any(isinstance(x, Down) for x in seen):
                t += NS
                turn(t)
            assert (t - began) / NS <= limit_s
        finally:
            os.kill(broker.pid, signal.SIGCONT)
            connection.close()


def test_a_message_that_the_broker_would_not_take_is_dropped_and_counted(
    make_city: Callable[..., City],
) -> None:
    with Broker("max_packet_size 3000") as broker:
        city = make_city(broker.url)
        city.start_hub()
        uplink = city.start_uplink()
        city.until(lambda: any(m.kind == "status" for m in city.heard))
        long = {"type": "waveform", "time": "2026-01-01T00:00:00Z", "samples": "x" * 5000}
        uplink._put("big", long, now())
        city.core.publish(alert(1))
        city.until(city.alerts_heard)
        city.until(lambda: any(m.data.get("kind") == "dropped_too_large" for m in city.heard))
        assert not any(m.data.get("kind") == "disconnected" for m in city.heard)
