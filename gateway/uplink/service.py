"""The uplink's one loop: from the core's feed through the outbox to the hub, and commands back.

::

    feed.sock ─► records ─► outbox ─► broker ─► hub
                 readings ─► gathered ─┘  ▲        │ hub/ack, hub/command
                    core ◄──── verified ──┴────────┘

A turn takes what happened, sends what is due from memory, and only then stores: a slow disk delays
no alert. Whatever is dropped or refused is counted and told to the hub as health.
"""

import json
import logging
import selectors
import signal
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from gateway import __version__
from gateway.clock import UtcClock, read_system
from gateway.core import commands
from gateway.core.commands import MAX_ENVELOPE_BYTES, Refusal
from gateway.core.health import HealthBook
from gateway.core.notify import notify
from gateway.events import MICRO, NS, Event, Reply, iso, to_record
from gateway.uplink.budget import Budget
from gateway.uplink.cap import cap_record
from gateway.uplink.config import MqttConfig, UplinkConfig
from gateway.uplink.feed import CoreFeed
from gateway.uplink.messages import RETAINED, Kind, Station, cloud_event, kind_of
from gateway.uplink.mqtt import (
    Connection,
    Down,
    Happening,
    Published,
    Received,
    Subscribed,
    Up,
    Will,
)
from gateway.uplink.outbox import Message, Outbox, Position
from gateway.uplink.sink import Fault, Publication, Request, Sink

log = logging.getLogger("gateway.uplink")

CLOCK_NS = NS
REPORT_NS = 60 * NS
"""How often the clock and the queues are told."""
METERED_REPORT_NS = 600 * NS
CERTIFICATES_NS = 3600 * NS
BEHIND_S = 300.0
"""So old may a sink's oldest item be."""
UNACKNOWLEDGED_S = 60
"""So old may an alert be while the broker is there, until the hub's silence is told."""
FAREWELL_NS = 2 * NS
MAX_IDS = 10_000
MAX_REQUEST_BYTES = 4096
MAX_ID = 128
BULK_WINDOW = (1.0, 32.0)
"""How much telemetry may be on its way: little, so that an alert never waits behind a queue."""


class BulkWindow:
    """How many telemetry messages may be on their way: fewer as soon as a queue builds up.

    The quickest acknowledgement of the last minutes is what the way takes without a queue; one that
    takes half as long again has waited behind others, and so would an alert.
    """

    SLACK_NS = 1_000_000
    REMEMBERED_NS = 60 * NS

    def __init__(self) -> None:
        self._size = BULK_WINDOW[0]
        self._quickest_ns = self._quickest_before_ns = FAREWELL_NS
        self._since = 0

    def acknowledged(self, took_ns: int, t: int) -> None:
        """A telemetry message was acknowledged at ``t`` after this time."""
        if t - self._since > self.REMEMBERED_NS:
            self._quickest_before_ns, self._quickest_ns = self._quickest_ns, took_ns
            self._since = t
        self._quickest_ns = min(self._quickest_ns, took_ns)
        quickest_ns = min(self._quickest_ns, self._quickest_before_ns)
        if took_ns > 3 * quickest_ns // 2 + self.SLACK_NS:
            self._size = max(BULK_WINDOW[0], self._size / 2)
        else:
            self._size = min(BULK_WINDOW[1], self._size + 1 / self._size)

    def unheard(self) -> None:
        """Nobody listens: one is enough to see whether somebody has come."""
        self._size = BULK_WINDOW[0]

    @property
    def size(self) -> int:
        return int(self._size)


class Uplink:
    """Everything the uplink does, one :meth:`turn` at a time. ``t`` is monotonic time in ns."""

    def __init__(
        self,
        config: UplinkConfig,
        run: Path,
        state: Path,
        selector: selectors.BaseSelector,
        t: int,
        sinks: tuple[Sink, ...] = (),
    ) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._config = config
        self._mqtt: MqttConfig = config.mqtt or MqttConfig(urls=())
        self._station = Station(config.city, config.station)
        self._keys = commands.read_keys(config.keys)
        self._utc = UtcClock()
        self._utc.sample(*read_system())
        self._clock_at = t + CLOCK_NS
        self._health = HealthBook()
        self._run_id = f"u{uuid.uuid4().hex[:12]}"
        self._count = 0
        self.outbox = Outbox(state / "outbox.sqlite", config.outbox_quota_mb << 20, t)
        self.feed = CoreFeed(run / "feed.sock", selector)
        self._sinks = sinks
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector = selector
        selector.register(self._wake_in, selectors.EVENT_READ, self._woken)
        self._connection = (
            Connection(self._mqtt, self._mqtt.client_id or config.station, self._will, selector)
            if config.mqtt
            else None
        )
        self._in_flight: dict[int, tuple[Message, int]] = {}
        self._bulk = BulkWindow()
        self._budget: Budget | None = None
        if self._mqtt.daily_bytes is not None:
            self._budget = Budget(self._mqtt.daily_bytes, *self.outbox.budget)
        self._carried = 0
        self._certificates_at = t
        self._said_down: dict[str, str] = {}
        self._stored: Position | None = self.outbox.position
        self._data_seen: Position | None = None
        self._report_at = t + REPORT_NS
        self._up_since = t
        self._readings: list[Mapping[str, Any]] = []
        self._measured: list[Mapping[str, Any]] = []
        self._telemetry_at: int | None = None
        self._away = False
        self._damaged = 0
        for sink in sinks:
            sink.start(self._wake)

    # --- for the loop -----------------------------------------------------------------------------

    def next_deadline(self, t: int) -> int:
        """When :meth:`turn` is next wanted, readable sockets apart."""
        times = [self._clock_at, self._report_at, self.outbox.next_deadline()]
        if self._connection is not None:
            times.append(self._connection.next_deadline(t))
        times += [
            x
            for x in (self.feed.next_deadline(t), self._telemetry_at, self._health.next_deadline())
            if x is not None
        ]
        return min(times)

    def turn(self, t: int) -> None:
        """Do what there is to do at ``t``."""
        if t >= self._clock_at:
            self._clock_at = t + CLOCK_NS
            if self._utc.sample(*read_system()) and self._connection is not None:
                self._connection.hurry(t)  # a certificate may have been too new for the clock
                self._certificates_at = t
            self._look_after(t)
        if t >= self._report_at:
            self._report(t)
        if self._connection is not None:
            self._connection.tick(t)
            for happening in self._connection.happened(t):
                self._happened(happening, t)
        if self.outbox.damaged > self._damaged:
            self._ask_again(t)
        for item in self.feed.tick(t, self.outbox.position, paused=self.outbox.full):
            self._item(item, t)
        if self._telemetry_at is not None and t >= self._telemetry_at:
            self._send_telemetry(t)
        self._take_published(t)
        self._send(t)
        self.outbox.tick(t)
        if self.outbox.position is not None and self.outbox.position != self._stored:
            self._stored = self.outbox.position
            self.feed.stored(self._stored)

    def close(self, t: int) -> None:
        """Store what waits and hang up, the status already said."""
        if self._readings:
            self._send_telemetry(t)
        for sink in self._sinks:
            sink.close()
        self._take_published(t)
        self.outbox.close(t)
        self.feed.close()
        if self._connection is not None:
            self._connection.close()
        self._selector.unregister(self._wake_in)
        self._wake_in.close()
        self._wake_out.close()

    def farewell(self, t: int) -> bool:
        """Say that the station stops as it was told to; whether there is someone to hear it."""
        if self._connection is None or not self._connection.room:
            return False
        topic, payload = self._status("offline", "stopped")
        self._connection.publish(topic, payload, t, retain=True)
        return True

    @property
    def quiet(self) -> bool:
        """Whether nothing is on its way to the broker."""
        return self._connection is None or self._connection.flushed()

    # --- from the core ----------------------------------------------------------------------------

    def _item(self, item: Mapping[str, Any], t: int) -> None:
        try:
            if item.get("stream") == "data" and self._is_old(item, t):
                return
            for sink in self._sinks:
                sink.take(item)
            match item.get("stream"):
                case "record":
                    self._record(str(item["run_id"]), int(item["seq"]), item["record"], t)
                case "data":
                    self._take_data(item, t)
                case "gap":
                    detail = f"{item['of']}: the core no longer had it"
                    self._incident("feed", "lost", t, detail, int(item["lost"] or 1))
        except (KeyError, TypeError, ValueError) as error:
            self._incident("feed", "garbled", t, f"{error!r}")

    def _wake(self) -> None:
        """Make the loop turn; from any thread."""
        with suppress(OSError):  # full: it will turn anyway; closed: there is no loop any more
            self._wake_out.send(b"\0")

    def _woken(self, _mask: int, _t: int) -> None:
        with suppress(BlockingIOError):
            self._wake_in.recv(4096)

    def _take_published(self, t: int) -> None:
        for sink in self._sinks:
            for publication in sink.published():
                self._publish(publication, t)

    def _publish(self, publication: Publication, t: int) -> None:
        record = {"type": "", "time": iso(t + self._utc.offset_ns), **publication.record}
        self._put(publication.identity or self._own_id(), record, t)

    def _ask_again(self, t: int) -> None:
        """The outbox had to begin anew: the core is asked for everything that it has."""
        self._damaged = self.outbox.damaged
        self.feed.close()
        detail = f"{self.outbox.path} was damaged and set aside; what could be read was kept"
        self._incident("outbox", "damaged", t, detail)

    def _record(self, run_id: str, seq: int, record: Mapping[str, Any], t: int) -> None:
        self._put(f"{run_id}-{seq}", record, t)
        if self._config.cap is not None and record["type"] == "alert":
            self._put(f"{run_id}-{seq}.cap", cap_record(record, self._config.cap), t)
        self.outbox.reached(run_id, seq, t)

    def _is_old(self, item: Mapping[str, Any], t: int) -> bool:
        """Whether this process had an item of data before; what is missing is counted."""
        run_id, seq = str(item["run_id"]), int(item["seq"])
        seen, self._data_seen = self._data_seen, Position(run_id, seq)
        if seen is None:
            last = self.outbox.data_position
            if last is not None and last.run_id == run_id and seq > last.seq + 1:
                detail = "data: the uplink was away for longer than the core remembers"
                self._incident("feed", "lost", t, detail, seq - last.seq - 1)
            return False
        if seen.run_id == run_id and seq <= seen.seq:
            self._data_seen = seen
            return True
        return False

    def _take_data(self, item: Mapping[str, Any], t: int) -> None:
        stored = self.outbox.data_position
        if stored is not None and stored.run_id == item["run_id"] and item["seq"] <= stored.seq:
            return
        if "reading" in item:
            self._readings.append(_reading(item["reading"]))
            if self._telemetry_at is None:
                self._telemetry_at = t + round(self._config.telemetry_interval_s * NS)
        elif "measured" in item:  # follows the reading that it was made with
            self._measured.append(item["measured"])

    def _send_telemetry(self, t: int) -> None:
        readings, self._readings, self._telemetry_at = self._readings, [], None
        measured, self._measured = self._measured, []
        record = {
            "type": "telemetry",
            "time": readings[-1]["time"],
            "readings": readings,
            "measured": measured,
        }
        self._put(self._own_id(), record, t)
        self.outbox.data_position = self._data_seen

    def _put(self, identity: str, record: Mapping[str, Any], t: int) -> None:
        name = record["type"]

        def payload(sequence: int) -> bytes:
            return cloud_event(self._station.source, identity, sequence, record)

        if name in RETAINED:
            topic = self._station.topic(name)
            self.outbox.retain(topic, payload(self.outbox.next_sequence()), t)
            self._say_retained(topic, t)
            return
        kind = kind_of(name)
        if self._connection is not None:
            self.outbox.put(kind, identity, self._station.topic(kind.name), payload, t)

    # --- to the hub -------------------------------------------------------------------------------

    def _send(self, t: int) -> None:
        if self._connection is None or not (room := self._connection.room):
            return
        bulk_room = self._bulk.size - sum(m.kind.bulk for m, _ in self._in_flight.values())
        held = self._budget.held() if self._budget else frozenset[Kind]()
        for message in self.outbox.due(t, room, bulk_room, held):
            if not self._connection.takes(message.topic, message.payload):
                self.outbox.too_large(message, t)
                continue
            expiry_s = self.outbox.remaining_s(message, t)
            mid = self._connection.publish(message.topic, message.payload, t, expiry_s=expiry_s)
            self._in_flight[mid] = (message, t)

    def _say_retained(self, topic: str, t: int) -> None:
        if self._connection is not None and self._connection.room:
            self._connection.publish(topic, self.outbox.retained[topic], t, retain=True)

    def _will(self) -> Will:
        return Will(*self._status("offline", "lost"))

    def _status(self, state: str, reason: str = "") -> tuple[str, bytes]:
        record = {
            "type": "status",
            "time": iso(now() + self._utc.offset_ns),
            "state": state,
            "reason": reason,
            "run_id": self._run_id,
            "version": __version__,
            "acknowledgement": self._mqtt.acknowledgement,
        }
        sequence = self.outbox.next_sequence()
        payload = cloud_event(self._station.source, self._own_id(), sequence, record)
        return self._station.topic("status"), payload

    # --- from the hub -----------------------------------------------------------------------------

    def _happened(self, happening: Happening, t: int) -> None:
        match happening:
            case Up():
                self._up(happening, t)
            case Down():
                self._down(happening, t)
            case Published():
                self._published(happening, t)
            case Subscribed() if happening.refused:
                detail = f"hub/#: {happening.refused}; give the station read access to it"
                self._tell(self._health.condition("uplink", "subscription", t, detail), t)
            case Subscribed():
                self._tell(self._health.clear("uplink", "subscription", t), t)
            case Received():
                self._received(happening, t)

    def _up(self, up: Up, t: int) -> None:
        assert self._connection is not None  # noqa: S101  only a connection says that it is up
        log.info("hub reached", extra={"url": up.url, "mqtt": up.version})
        self._away = False
        self._said_down.clear()
        self._up_since = self._certificates_at = t
        self._tell(self._health.clear("uplink", "disconnected", t, up.url), t)
        self._connection.subscribe(self._station.topic("hub/#"))
        topic, payload = self._status("online")
        self._connection.publish(topic, payload, t, retain=True)
        for topic in self.outbox.retained:
            self._say_retained(topic, t)

    def _down(self, down: Down, t: int) -> None:
        self._in_flight.clear()
        self.outbox.send_again()
        self._certificates_at = t
        if down.planned:
            log.info("hub left to come back", extra={"url": down.url, "reason": down.reason})
        elif self._said_down.get(down.url) != down.reason:
            self._said_down[down.url] = down.reason
            self._away = True
            detail = f"{down.url}: {down.reason}"
            log.warning("hub lost", extra={"url": down.url, "reason": down.reason})
            self._tell(self._health.condition("uplink", "disconnected", t, detail), t)

    def _published(self, published: Published, t: int) -> None:
        message, sent_t = self._in_flight.pop(published.mid, (None, 0))
        if message is None:
            return
        if published.refused:
            detail = f"{message.topic}: {published.refused}; let the station write there"
            self._tell(self._health.incident("uplink", "refused", t, detail), t)
            return
        if message.kind.bulk:
            unheard = published.unheard and self._mqtt.acknowledgement == "hub"
            self._stand(f"unheard_{message.kind.name}", self._silence(message, t, unheard), t)
            if unheard:
                self._bulk.unheard()
                self.outbox.unheard(message, t)
                return
            self._bulk.acknowledged(t - sent_t, t)
        if message.kind.bulk or self._mqtt.acknowledgement == "broker":
            self.outbox.acknowledged([message.id], t)

    def _silence(self, message: Message, t: int, unheard: bool) -> str:
        """What to say where nobody has listened for a while; nothing else."""
        if not unheard or self.outbox.powered_s(t) - message.powered_s < UNACKNOWLEDGED_S:
            return ""
        return (
            f"nobody has subscribed to {message.topic}: it is kept; start the hub, or where the "
            'broker itself stores it, set acknowledgement = "broker"'
        )

    def _received(self, received: Received, t: int) -> None:
        if received.topic == self._station.topic("hub/ack"):
            self._acknowledged(received.payload, t)
        elif received.topic == self._station.topic("hub/command"):
            self._command(received, t)
        elif received.topic == self._station.topic("hub/request"):
            self._request(received, t)

    def _acknowledged(self, payload: bytes, t: int) -> None:
        """The hub has these, or, without any, is back and wants what it has not acknowledged."""
        try:
            ids = json.loads(payload)["ids"]
            known = [i for i in ids[:MAX_IDS] if isinstance(i, str)]
        except (ValueError, TypeError, KeyError, RecursionError):
            self._tell(self._health.incident("uplink", "bad_ack", t, "hub/ack is not ids"), t)
            return
        if known:
            self.outbox.acknowledged(known, t)
        else:
            self.outbox.send_again()

    def _command(self, received: Received, t: int) -> None:
        """Verify a command and hand it on; what is not signed by the hub gets no answer.

        Where this process is not sure of the time, the core judges that: it may have it by GPS.
        """
        if received.retained:
            found: commands.Command | Refusal = Refusal(
                commands.Reason.retained, "a retained command may be of any age; publish it anew"
            )
        else:
            found = commands.verify(
                received.payload[: MAX_ENVELOPE_BYTES + 1],
                self._keys,
                clock=self._utc.clock(t),
                station=self._station.id,
                groups=(*self._config.groups, self._station.city),
            )
        if isinstance(found, Refusal) and found.reason is not commands.Reason.clock_unsure:
            detail = f"{found.reason}: {found.detail}"
            self._tell(self._health.incident("uplink", "command_refused", t, detail), t)
            if found.id:
                self._tell([Reply(found.id, found.action, "refused", t, detail, "uplink")], t)
        elif not self.feed.command(json.loads(received.payload)):
            reason = "the core does not run"
            self._tell([Reply(found.id, found.action, "failed", t, reason, "uplink")], t)

    def _request(self, received: Received, t: int) -> None:
        """Hand a request on to the sink that serves it, or say why not."""
        try:
            request = read_request(received.payload, retained=received.retained)
        except ValueError as error:
            self._incident("uplink", "request_refused", t, str(error))
            return
        serving = next((x for x in self._sinks if request.request in x.serves), None)
        if serving is not None and serving.ask(request):
            return
        outcome: Literal["refused", "failed"] = "refused"
        why = "this station does not serve it"
        if serving is not None:
            outcome, why = "failed", f"{serving.name} is too far behind; ask again later"
        self._tell([Reply(request.id, request.request, outcome, t, why, "uplink")], t)

    # --- health -----------------------------------------------------------------------------------

    def _look_after(self, t: int) -> None:
        health = self._health
        for kind, wrong, detail in (
            ("store", bool(self.outbox.failure), self.outbox.failure),
            ("core", bool(self.feed.trouble), self.feed.trouble),
        ):
            if wrong:
                self._tell(health.condition("uplink", kind, t, detail, "failed"), t)
            else:
                self._tell(health.clear("uplink", kind, t), t)
        self._look_at_link(t)
        for (dropped, why), count in self.outbox.dropped().items():
            self._incident("outbox", f"dropped_{why}", t, dropped.name, count)
        for sink in self._sinks:
            for fault in sink.faults():
                self._fault(sink.name, fault, t)
            if sink.lag().oldest_s > BEHIND_S:
                detail = f"its oldest item waits for more than {BEHIND_S:.0f} s to be written"
                self._tell(health.condition(sink.name, "behind", t, detail), t)
            else:
                self._tell(health.clear(sink.name, "behind", t), t)
        self._tell(health.tick(t), t)

    def _fault(self, component: str, fault: Fault, t: int) -> None:
        match fault.state:
            case "incident":
                self._incident(component, fault.kind, t, fault.detail, fault.times)
            case "wrong":
                self._tell(self._health.condition(component, fault.kind, t, fault.detail), t)
            case "right":
                self._tell(self._health.clear(component, fault.kind, t), t)

    def _look_at_link(self, t: int) -> None:
        """What the certificates and the budget of a metered link come to."""
        if self._connection is None:
            return
        if t >= self._certificates_at:
            self._certificates_at = t + CERTIFICATES_NS
            said = "; ".join(self._connection.troubles(t + self._utc.offset_ns))
            self._stand("certificate", said, t)
        if self._budget is None:
            return
        carried = self._connection.carried_bytes
        self._budget.spend(carried - self._carried, self.outbox.powered_s(t))
        self._carried = carried
        self.outbox.budget = self._budget.since_s, self._budget.used_bytes
        held = ", ".join(kind.name for kind in sorted(self._budget.held()))
        daily_mb = self._budget.daily_bytes / MICRO
        said = (
            f"of {daily_mb:g} MB a day too much is used: {held} wait for the next" if held else ""
        )
        self._stand("budget", said, t)

    def _stand(self, kind: str, detail: str, t: int) -> None:
        """A condition of the uplink that holds while there is something to say of it."""
        if detail:
            self._tell(self._health.condition("uplink", kind, t, detail), t)
        else:
            self._tell(self._health.clear("uplink", kind, t), t)

    def _report(self, t: int) -> None:
        """Tell the clock's state and how much waits where."""
        self._report_at = t + (REPORT_NS if self._budget is None else METERED_REPORT_NS)
        waiting: dict[str, tuple[int, float]] = {
            **{kind.name: found for kind, found in self.outbox.queues(t).items()},
            **{sink.name: sink.lag() for sink in self._sinks},
        }
        record = {
            "type": "uplink",
            "time": iso(t + self._utc.offset_ns),
            "clock": self._utc.status(),
            "queues": [
                {"name": name, "waiting": count, "oldest_s": round(oldest_s, 1)}
                for name, (count, oldest_s) in waiting.items()
            ],
            "budget": None,
        }
        if self._budget is not None:
            held = self._budget.held()
            record["budget"] = {
                "daily_bytes": self._budget.daily_bytes,
                "used_bytes": self._budget.used_bytes,
                "held": {kind.name: waiting[kind.name][0] for kind in sorted(held)},
            }
        self._hand_to_sinks(record)
        self._put(self._own_id(), record, t)
        if self._connection is None or self._mqtt.acknowledgement != "hub":
            return
        oldest_s = max(waiting[kind.name][1] for kind in Kind if kind.urgent)
        connected = self._connection.room > 0 and t - self._up_since > UNACKNOWLEDGED_S * NS
        if connected and oldest_s > UNACKNOWLEDGED_S:
            detail = (
                f"{self._connection.url} is there, and no hub acknowledges: see that the hub runs "
                f"and may write {self._station.topic('hub/ack')}, and that this station may write "
                f"{self._station.topic('alert')}"
            )
            self._tell(self._health.condition("uplink", "unacknowledged", t, detail), t)
        elif oldest_s <= UNACKNOWLEDGED_S:
            self._tell(self._health.clear("uplink", "unacknowledged", t), t)

    def _hand_to_sinks(self, record: Mapping[str, Any]) -> None:
        for sink in self._sinks:
            sink.take({"stream": "uplink", "record": record})

    def _incident(self, component: str, kind: str, t: int, detail: str, count: int = 1) -> None:
        self._tell(self._health.incident(component, kind, t, detail, count), t)

    def _tell(self, events: Sequence[Event], t: int) -> None:
        for event in events:
            record = to_record(event, self._utc.offset_ns)
            log.warning(record["type"], extra={"record": record})
            self._hand_to_sinks(record)
            self._put(self._own_id(), record, t)

    def _own_id(self) -> str:
        self._count += 1
        return f"{self._run_id}-{self._count}"


def _reading(reading: Mapping[str, Any]) -> dict[str, Any]:
    """A reading of the feed as it is published: the value in its unit."""
    micro = reading["micro"]
    return {
        "sensor": reading["sensor"],
        "time": reading["time"],
        "quantity": reading["quantity"],
        "value": None if micro is None else micro / MICRO,
    }


def read_request(payload: bytes, *, retained: bool = False) -> Request:
    """What the hub asks for on ``hub/request``; see docs/schemas/request.v1.json.

    Raises:
        ValueError: it is no request; says what is wrong and what would be right.
    """
    if retained:
        raise ValueError("a retained request may be of any age; publish it anew")
    if len(payload) > MAX_REQUEST_BYTES:
        raise ValueError(f"a request of {len(payload)} bytes; allowed {MAX_REQUEST_BYTES}")
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"hub/request is not JSON: {error}") from error
    arguments = found.get("arguments", {}) if isinstance(found, dict) else None
    if not isinstance(arguments, dict):
        raise ValueError(  # noqa: TRY004  of the text, not of the program
            'hub/request is not {"id":…, "request":…, "arguments":{…}}'
        )
    for key in ("id", "request"):
        value = found.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
            raise ValueError(f"hub/request: {key} is not text of 1 to {MAX_ID} characters")
    return Request(found["id"], found["request"], arguments)


def sinks(config: UplinkConfig, state: Path) -> tuple[Sink, ...]:
    """Who else wants what the core says, by the configuration."""
    found: list[Sink] = []
    state.mkdir(parents=True, exist_ok=True)
    if config.sl651 is not None:
        from gateway.uplink.hydrology import Hydrology  # noqa: PLC0415  only where it is configured

        found.append(Hydrology(config.sl651, state / "sl651.sqlite"))
    if config.influx is not None:
        from gateway.uplink.influx import Influx  # noqa: PLC0415  likewise

        station = Station(config.city, config.station)
        found.append(Influx(config.influx, station, state / "influx.sqlite"))
    if config.noise_interval_s and config.mqtt is not None:
        from gateway.uplink.noise import Noise  # noqa: PLC0415  only where it is configured

        found.append(Noise(config.noise_interval_s))
    if config.archive is not None:
        from gateway.uplink.archive import Archive  # noqa: PLC0415  likewise

        archive = Archive(config.archive, config.waveforms)
        found.append(archive)
        if config.seedlink is not None:
            from gateway.uplink.seedlink import SeedLink  # noqa: PLC0415  likewise

            server = SeedLink(config.seedlink, archive.sds)
            archive.listen(server.put)
            found.append(server)
    return tuple(found)


def now() -> int:
    """The host's own clock, ns: it never steps, and is the one that the clock's offset is to."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def run(config: UplinkConfig, run_dir: Path, state: Path) -> None:
    """Run until SIGTERM or SIGINT."""
    stop_in, stop_out = socket.socketpair()
    stop_out.setblocking(False)
    signal.set_wakeup_fd(stop_out.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        selector.register(stop_in, selectors.EVENT_READ, None)
        uplink = Uplink(config, run_dir, state, selector, now(), sinks(config, state))
        notify("READY=1")
        stopping_at: int | None = None
        while True:
            t = now()
            uplink.turn(t)
            notify("WATCHDOG=1")
            deadline = uplink.next_deadline(t)
            if stopping_at is not None:
                deadline = min(deadline, stopping_at)
                if t >= stopping_at or uplink.quiet:
                    break
            ready = selector.select(max(0, deadline - now()) / NS)
            t = now()
            for key, mask in ready:
                if key.data is not None:
                    key.data(mask, t)
                elif stopping_at is None:
                    selector.unregister(stop_in)
                    notify("STOPPING=1")
                    stopping_at = t + FAREWELL_NS if uplink.farewell(t) else t
        uplink.close(now())
