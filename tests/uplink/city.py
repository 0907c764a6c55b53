"""A city in one process: a core's feed, a broker, a hub, and an uplink between them."""

import json
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.core.feed import Command, Feed, Stored
from gateway.core.journal import Batch
from gateway.core.segments import Record
from gateway.events import NS, Alert, Event, Hazard, Level, Phase, Status, iso, to_record
from gateway.hub.hub import Hub, Message
from gateway.uplink import config as settings
from gateway.uplink.config import MqttConfig, UplinkConfig
from gateway.uplink.service import Uplink, now
from gateway.uplink.sink import Sink
from tests.uplink.processes import Processes

PATIENCE_S = 30.0


def alert(number: int) -> Alert:
    """One of many alerts, told apart by its id."""
    return Alert(
        id=f"cn-demo-001-earthquake-{number}",
        station="cn-demo-001",
        hazard=Hazard.earthquake,
        level=Level.red,
        phase=Phase.alert,
        status=Status.actual,
        time_ns=1_700_000_000 * NS + number,
        reason="intensity 7.2 observed",
        text_zh="本地实测达到地震红色标准",
        text_en="observed here: earthquake, red",
    )


class FakeCore:
    """The core's side of feed.sock; its list of records stands for the journal."""

    def __init__(self, path: Path, run_id: str = "run1") -> None:
        self.run_id = run_id
        self.records: list[bytes] = []
        self.stored = 0
        self.closed = False
        self.commands: list[Command] = []
        self._selector = selectors.DefaultSelector()
        self.feed = Feed(path, run_id)
        self.feed.register(self._selector)

    def publish(self, *events: Event) -> None:
        self.publish_lines([json_line(to_record(event)) for event in events])

    def publish_lines(self, lines: list[bytes]) -> None:
        for line in lines:
            self.records.append(line)
            self.feed.publish(len(self.records), line)

    def data(self, item: dict[str, Any]) -> None:
        self.feed.data(json_line(item))

    def turn(self) -> None:
        if self.closed:
            return
        for key, mask in self._selector.select(0):
            key.data(mask)
        for request in self.feed.take():
            if isinstance(request, Stored):
                assert request.run_id == self.run_id
                self.stored = request.seq
            elif isinstance(request, Command):
                self.commands.append(request)
        for after in self.feed.wanted():
            first = after[1] if after and after[0] == self.run_id else 0
            rows = enumerate(self.records[first:], first + 1)
            records = tuple(Record(self.run_id, seq, line) for seq, line in rows)
            self.feed.batch(Batch(after, records, done=True))
        self.feed.pump()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.feed.close()
            self._selector.close()


def json_line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


class City:
    """Everything, and one loop that drives it: :meth:`until`."""

    def __init__(self, directory: Path, url: str, **changes: Any) -> None:
        self.directory = directory
        mqtt = MqttConfig(urls=(url,), keepalive_s=2)
        self.config = replace(UplinkConfig("cn-demo-001", "demo", mqtt), **changes)
        self.core: FakeCore
        self.start_core()
        self.heard: list[Message] = []
        self.hub: Hub | None = None
        self.uplink: Uplink | None = None
        self._processes = Processes(directory)
        self._hub_selector = selectors.DefaultSelector()
        self._uplink_selector = selectors.DefaultSelector()

    # --- who is there -----------------------------------------------------------------------------

    def start_core(self, run_id: str = "run1") -> None:
        self.core = FakeCore(self.directory / "feed.sock", run_id)

    def stop_core(self) -> None:
        self.core.close()

    def start_hub(self, config: MqttConfig | None = None, **options: Any) -> Hub:
        assert self.config.mqtt is not None
        there = config or MqttConfig(self.config.mqtt.urls, client_id="hub", keepalive_s=2)
        record = self.directory / "hub.sqlite"
        self.hub = Hub(there, self.heard.append, self._hub_selector, record, **options)
        return self.hub

    def stop_hub(self) -> None:
        assert self.hub is not None
        self.hub.close()
        self.hub = None

    def start_uplink(self, sinks: tuple[Sink, ...] = ()) -> Uplink:
        state = self.directory / "state"
        self.uplink = Uplink(
            self.config, self.directory, state, self._uplink_selector, now(), sinks
        )
        return self.uplink

    def stop_uplink(self) -> None:
        assert self.uplink is not None
        self.uplink.close(now())
        self.uplink = None

    def spawn_uplink(self) -> None:
        """An uplink as a process of its own, to be killed."""
        path = self.directory / "uplink.json"
        path.write_text(settings.write(self.config))
        self._processes.uplink(path, self.directory / "state", self.directory)

    def signal_uplink(self, number: signal.Signals) -> None:
        self._processes.end("uplink", number)

    def close(self) -> None:
        self._processes.close()
        if self.uplink is not None:
            self.stop_uplink()
        if self.hub is not None:
            self.stop_hub()
        self.core.close()
        self._hub_selector.close()
        self._uplink_selector.close()

    # --- what happens -----------------------------------------------------------------------------

    def turn(self) -> None:
        self.core.turn()
        for part, selector in (
            (self.hub, self._hub_selector),
            (self.uplink, self._uplink_selector),
        ):
            if part is None:
                continue
            for key, mask in selector.select(0.002):
                key.data(mask, now())
            part.turn(now())

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Drive everything until the condition holds."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"never happened: {what or condition}\n{self.uplink_said()}")
            self.turn()

    def until_heard_more(self, what: str = "") -> None:
        """Drive everything until the hub has heard something more."""
        heard = len(self.heard)
        self.until(lambda: len(self.heard) > heard, what)

    def uplink_said(self) -> str:
        """The end of the log of an uplink that is a process."""
        return self._processes.said("uplink")

    def faults(self) -> list[str]:
        """Where anything that was heard does not match its schema."""
        assert self.hub is not None
        return [fault for message in self.heard for fault in self.hub.faults(message)]

    def alerts_heard(self) -> list[str]:
        return [m.data["id"] for m in self.heard if m.kind == "alert"]

    def waiting(self) -> int:
        assert self.uplink is not None
        self.uplink.outbox.commit(now())
        return sum(self.uplink.outbox.waiting().values())


def reading(number: int) -> dict[str, Any]:
    """A data item of a rain gauge."""
    time_ns = (1_700_000_000 + number) * NS
    return {
        "reading": {
            "sensor": "rain1",
            "time": iso(time_ns),
            "quantity": "rain_mm",
            "micro": 200_000 * number,
        }
    }
