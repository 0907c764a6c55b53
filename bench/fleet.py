"""A city's fleet at one broker and one hub: how many stations, and how long an alert takes.

Stations are the uplink's own connections with their own flow control, many in a process, that speak
for as many stations; an alert that the hub has not acknowledged they send again, as an outbox does.
Broker and hub are the real ones, the hub with its record on disk (``gateway hub watch``). Hub,
broker and stations share this machine's processors.

=============  =====================================================================================
phase          what happens
=============  =====================================================================================
quiet          every station is connected; now and then one says an alert
saturated      every station sends a backlog of telemetry as fast as its flow control lets it, as
               after an outage of the whole city; alerts as before
storm          every station says an alert, and the broker is killed in the middle of it, loses what
               it knew, and is started again: everybody comes back at once
=============  =====================================================================================

An alert's time is from its publishing to the hub's acknowledgement at the station: through the
broker, onto the hub's disk, and back. But for the storm, alerts come from a few stations in a
process of their own, which send telemetry like all others: a station has its own processor, and
does not wait for hundreds of others to be served.
"""

import json
import multiprocessing
import random
import selectors
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from bench.outbox import spawned
from bench.report import Result
from gateway.events import NS, iso, to_record
from gateway.hub.broker import Broker
from gateway.uplink.config import MqttConfig
from gateway.uplink.messages import Station, cloud_event
from gateway.uplink.mqtt import Connection, Published, Received, Up, Will
from gateway.uplink.outbox import RESEND_MIN_NS
from gateway.uplink.service import BulkWindow, now
from tests.uplink.city import alert

PROCESSES = 2
"""Beside that of the stations that say alerts."""
PATIENCE_S = 180.0
TICK_NS = NS // 4
GOAL_STATIONS = 1000
GOAL_P99_S = 1.0
CITY = "bench"


@dataclass(slots=True)
class Waiting:
    """An alert that the hub has not acknowledged."""

    payload: bytes
    said_t: int
    sent_t: int


class Speaker:
    """One station: its connection, its alerts, its telemetry."""

    def __init__(self, name: str, url: str, selector: selectors.BaseSelector) -> None:
        self.station = Station(CITY, name)
        self.up = False
        self.waiting: dict[str, Waiting] = {}
        self.took_s: list[float] = []
        self.taken = 0
        """Telemetry messages that the broker has taken."""
        self._said = self._sequence = 0
        self._bulk = BulkWindow()
        self._in_flight: dict[int, int] = {}
        self.connection = Connection(
            MqttConfig(urls=(url,), keepalive_s=60), name, self._will, selector
        )

    def turn(self, t: int, *, saturate: bool) -> None:
        """Take what happened, and send what is due."""
        self.connection.tick(t)
        for happening in self.connection.happened(t):
            match happening:
                case Up():
                    self._greet(t)
                case Published():
                    self._published(happening.mid, t)
                case Received():
                    self._acknowledged(happening.payload, t)
        self.up = self.connection.room > 0
        if not self.up:
            self._in_flight.clear()
            return
        for waiting in self.waiting.values():
            if t - waiting.sent_t > RESEND_MIN_NS:
                self._send(waiting, t)
        while saturate and len(self._in_flight) < self._bulk.size:
            mid = self._publish("telemetry", self._telemetry(t), t)
            self._in_flight[mid] = t

    def say_alert(self, t: int) -> str:
        """Say an alert; its id."""
        self._said += 1
        name = self.station.id
        record = to_record(replace(alert(self._said), id=f"{name}-{self._said}", station=name))
        identity = f"run1-{self._said}"
        waiting = Waiting(self._event(identity, record), t, t)
        self.waiting[identity] = waiting
        if self.connection.room > 0:
            self._send(waiting, t)
        return identity

    def _greet(self, t: int) -> None:
        self.connection.subscribe(self.station.topic("hub/#"))
        topic, payload = self._status("online")
        self.connection.publish(topic, payload, t, retain=True)
        for waiting in self.waiting.values():
            self._send(waiting, t)

    def _will(self) -> Will:
        return Will(*self._status("offline"))

    def _status(self, state: str) -> tuple[str, bytes]:
        record = {"type": "status", "time": iso(time.time_ns()), "state": state, "reason": "",
                  "run_id": "run1", "version": "0", "acknowledgement": "hub"}  # fmt: skip
        return self.station.topic("status"), self._event(f"status-{self._sequence}", record)

    def _telemetry(self, t: int) -> bytes:
        reading = {"sensor": "rain1", "time": iso(t), "quantity": "rain_mm", "value": 0.2}
        record = {"type": "telemetry", "time": iso(t), "readings": [reading], "measured": []}
        return self._event(f"t-{self._sequence}", record)

    def _event(self, identity: str, record: Mapping[str, Any]) -> bytes:
        self._sequence += 1
        return cloud_event(self.station.source, identity, self._sequence, record)

    def _send(self, waiting: Waiting, t: int) -> None:
        waiting.sent_t = t
        self._publish("alert", waiting.payload, t)

    def _publish(self, name: str, payload: bytes, t: int) -> int:
        return self.connection.publish(self.station.topic(name), payload, t)

    def _published(self, mid: int, t: int) -> None:
        if (sent_t := self._in_flight.pop(mid, None)) is not None:
            self.taken += 1
            self._bulk.acknowledged(t - sent_t, t)

    def _acknowledged(self, payload: bytes, t: int) -> None:
        for identity in json.loads(payload)["ids"]:
            if (waiting := self.waiting.pop(identity, None)) is not None:
                self.took_s.append((t - waiting.said_t) / NS)


@dataclass(slots=True)
class Report:
    """What a process tells of its stations; times and counts are since it was last asked."""

    up: int
    waiting: int
    said: int
    taken: int
    took_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Order:
    """What stations are to do from now on: alerts a second, telemetry, and once an alert each."""

    alerts_hz: float = 0.0
    saturate: bool = False
    all_at_once: bool = False


def speak(pipe: Pipe, names: list[str], url: str, seed: int) -> None:
    """A process of stations: takes orders by a pipe, answers each with a report, ends on None."""
    chance = random.Random(seed)
    order, next_alert, next_tick, said = Order(), 0, 0, 0
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        speakers = [Speaker(name, url, selector) for name in names]
        of = {speaker.connection: speaker for speaker in speakers}
        while True:
            events = selector.select(0.01)
            t = now()
            turning: dict[str, Speaker] = {}
            for key, mask in events:
                if key.fileobj is not pipe:
                    key.data(mask, t)
                    speaker = of[key.data.__self__]
                    turning[speaker.station.id] = speaker
                    continue
                if (given := pipe.recv()) is None:
                    for speaker in speakers:
                        speaker.connection.close()
                    return
                pipe.send(_report(speakers, said))
                order, said, next_alert, next_tick = given, 0, t, t
                for speaker in speakers if order.all_at_once else ():
                    speaker.say_alert(t)
                    said += 1
            while order.alerts_hz and t >= next_alert:
                next_alert += round(chance.expovariate(order.alerts_hz) * NS)
                chance.choice(speakers).say_alert(t)
                said += 1
            if t >= next_tick:
                next_tick = t + TICK_NS
                turning = {speaker.station.id: speaker for speaker in speakers}
            for speaker in turning.values():
                speaker.turn(now(), saturate=order.saturate)


def _report(speakers: list[Speaker], said: int) -> Report:
    found = Report(0, 0, said, 0)
    for speaker in speakers:
        found.up += speaker.up
        found.waiting += len(speaker.waiting)
        found.taken += speaker.taken
        found.took_s += speaker.took_s
        speaker.taken = 0
        speaker.took_s.clear()
    return found


class Fleet:
    """All stations, in several processes."""

    def __init__(self, url: str, count: int) -> None:
        names = [f"s{n:04d}" for n in range(count)]
        spawning = multiprocessing.get_context("spawn")
        few = min(10, count // 2)
        lots = [names[:few], *(names[few + n :: PROCESSES] for n in range(PROCESSES))]
        self._pipes: list[Pipe] = []
        self._processes = []
        self.said = 0
        for number, lot in enumerate(lots):
            ours, theirs = spawning.Pipe()
            arguments = (theirs, lot, url, number)
            process = spawning.Process(target=speak, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def order(self, order: Order) -> Report:
        """Give an order; what there is to tell of what was before."""
        for number, pipe in enumerate(self._pipes):
            pipe.send(replace(order, alerts_hz=0.0) if number else order)
        whole = Report(0, 0, 0, 0)
        for pipe in self._pipes:
            if not pipe.poll(PATIENCE_S):
                raise TimeoutError("the stations do not answer")
            part: Report = pipe.recv()
            whole.up += part.up
            whole.waiting += part.waiting
            whole.said += part.said
            whole.taken += part.taken
            whole.took_s += part.took_s
        self.said += whole.said
        return whole

    def during(self, order: Order, seconds: float) -> Report:
        """Follow an order for a while, and then nothing but what is open; what came of it."""
        self.order(order)
        time.sleep(seconds)  # what is measured happens meanwhile
        rest = replace(order, alerts_hz=0.0, all_at_once=False)
        return self.until(rest, lambda r: not r.waiting, self.order(rest))

    def until(self, order: Order, done: Callable[[Report], bool], whole: Report) -> Report:
        """Go on until a report says that it is done; everything since ``whole``."""
        end = time.monotonic() + PATIENCE_S
        latest = whole
        while not done(latest):
            if time.monotonic() > end:
                raise TimeoutError(f"{latest.up} up, {latest.waiting} alerts wait")
            time.sleep(0.1)  # between two looks
            latest = self.order(order)
            whole.took_s += latest.took_s
            whole.up, whole.waiting = latest.up, latest.waiting
        return whole

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(PATIENCE_S)


def run(quick: bool) -> list[Result]:
    count, seconds, alerts_hz = (50, 2.0, 40.0) if quick else (GOAL_STATIONS, 30.0, 20.0)
    with tempfile.TemporaryDirectory() as name, Broker() as broker:
        record = Path(name) / "hub.sqlite"
        watch = ("gateway.cli", "hub", "watch", "--url", broker.url, "--kinds", "none")
        with spawned(*watch, "--record", str(record)):
            fleet = Fleet(broker.url, count)
            try:
                began = time.monotonic()
                up = fleet.until(Order(), lambda r: r.up == count, fleet.order(Order()))
                all_up_s = time.monotonic() - began
                fleet.during(Order(all_at_once=True), 0.0)  # by then the hub is there as well
                quiet = fleet.during(Order(alerts_hz), seconds)
                full = fleet.during(Order(alerts_hz, saturate=True), seconds)
                fleet.order(Order(all_at_once=True))
                broker.kill()
                broker.start()
                began = time.monotonic()
                fleet.until(Order(), lambda r: r.up == count > r.waiting == 0, fleet.order(Order()))
                back_s = time.monotonic() - began
            finally:
                fleet.close()
        with sqlite3.connect(record) as db:
            (arrived,) = db.execute("SELECT count(*) FROM message WHERE type = 'alert'").fetchone()
    p99 = [statistics.quantiles(found.took_s, n=100)[98] for found in (quiet, full)]
    p50 = [statistics.median(found.took_s) for found in (quiet, full)]
    return [
        Result(
            "stations at one broker and one hub", up.up, "", GOAL_STATIONS, at_least=True,
            note=f"all connected after {all_up_s:.1f} s",
        ),
        Result(
            "alert to the hub's acknowledgement, quiet, p99", p99[0], "s",
            note=f"median {1000 * p50[0]:.1f} ms of {len(quiet.took_s)}",
        ),
        Result(
            "the same while telemetry saturates, p99", p99[1], "s", GOAL_P99_S,
            note=f"median {1000 * p50[1]:.1f} ms of {len(full.took_s)}; "
            f"{full.taken / seconds:.0f} telemetry messages/s",
        ),
        Result(
            "alerts that arrived, a reconnect storm included", 100 * arrived / fleet.said, "%",
            100, at_least=True,
            note=f"{fleet.said - arrived} of {fleet.said} lost; all back and acknowledged "
            f"{back_s:.1f} s after the broker was",
        ),
    ]  # fmt: skip
