"""A burst of alerts from the core's feed to the hub's acknowledgement, against bare paho.

The reference is a paho client of its own process that publishes as many messages of the same size
with QoS 1 at the same broker and waits for the broker's acknowledgements: no disk, no hub. Ours
stores every alert, has it received, checked and stored by a hub in a process of its own, and
counts it when the hub's acknowledgement passes the broker. Rounds alternate; medians are compared.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bench.report import Result
from gateway.events import to_record
from gateway.hub.broker import Broker
from gateway.uplink.config import ArchiveConfig, MqttConfig, UplinkConfig, write
from gateway.uplink.messages import cloud_event
from tests.uplink.city import FakeCore, alert, json_line

PATIENCE_S = 60.0
TOPIC = "eew/v1/bench/b1"

_BARE = """
import sys, threading, time
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
port, count, size = map(int, sys.argv[1:])
client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
connected, done = threading.Event(), threading.Event()
left = count
def on_publish(*_):
    global left
    left -= 1
    if not left:
        done.set()
client.on_publish = on_publish
client.on_connect = lambda *_: connected.set()
client.connect("127.0.0.1", port)
client.loop_start()
connected.wait()
payload = b"x" * size
began = time.monotonic()
for _ in range(count):
    client.publish("bare", payload, qos=1)
done.wait()
print(count / (time.monotonic() - began))
"""


def until(condition: Callable[[], object], core: FakeCore, what: str) -> None:
    """Turn the core's feed until the condition holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        core.turn()
        time.sleep(0.0005)


class Listener:
    """A paho client that hands payloads of a topic to a function, in its own thread."""

    def __init__(self, port: int, topic: str, take: Callable[[bytes], None]) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = lambda _c, _u, message: take(bytes(message.payload))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        ready.wait(PATIENCE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def spawned(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A module of ours in a process of its own, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def uplink(directory: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """The uplink as systemd starts it."""
    config = directory / "uplink.json"
    archive = ArchiveConfig(str(directory / "archive"))
    config.write_text(write(UplinkConfig("b1", "bench", MqttConfig(urls=(url,)), archive=archive)))
    paths = ["--config", config, "--state", directory / "state", "--run", directory]
    with spawned("gateway.uplink", *map(str, paths)) as process:
        yield process


def run(quick: bool) -> list[Result]:
    rounds, count = (2, 200) if quick else (7, 1000)
    ratios, ours, bares = [], [], []
    with tempfile.TemporaryDirectory() as name, Broker() as broker:
        directory = Path(name)
        core = FakeCore(directory / "feed.sock")
        acknowledged: set[str] = set()
        listener = Listener(
            broker.port, f"{TOPIC}/hub/ack", lambda p: acknowledged.update(json.loads(p)["ids"])
        )
        record = str(directory / "hub.sqlite")
        watch = (
            "gateway.cli",
            "hub",
            "watch",
            "--url",
            broker.url,
            "--record",
            record,
            "--kinds",
            "none",
        )
        size = len(cloud_event("/eew/bench/b1", "run1-1", 1, to_record(alert(1))))
        with spawned(*watch), uplink(directory, broker.url):
            core.publish(alert(0))
            until(lambda: acknowledged, core, "the first alert")
            for number in range(rounds):
                bare = subprocess.run(
                    [sys.executable, "-c", _BARE, str(broker.port), str(count), str(size)],
                    capture_output=True,
                    check=True,
                )
                bares.append(float(bare.stdout))
                before = len(acknowledged)
                events = [alert(number * count + n + 1) for n in range(count)]
                lines = [json_line(to_record(event)) for event in events]
                began = time.monotonic()
                core.publish_lines(lines)
                until(lambda b=before: len(acknowledged) >= b + count, core, "all acknowledged")  # type: ignore[misc]
                ours.append(count / (time.monotonic() - began))
                ratios.append(ours[-1] / bares[-1])
        listener.close()
        core.close()
    note = f"{statistics.median(ours):.0f}/s against {statistics.median(bares):.0f}/s"
    name = f"outbox → broker → acknowledged by the hub, {count} alerts, against bare paho QoS 1"
    return [Result(name, statistics.median(ratios), "×", 0.3, at_least=True, note=note)]
