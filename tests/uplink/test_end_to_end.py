"""A recorded earthquake from simulated devices through the real core and uplink to a hub, and back.

The only thing that is not as on a station is the clock: the two processes are told that the
machine's is synchronised, since commands that sound a siren are refused otherwise.
"""

import json
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obspy
import pytest
from nacl.signing import SigningKey
from obspy.io.mseed.util import get_flags

from gateway import config as configuration
from gateway.core.commands import Action, Command, sign
from gateway.events import NS
from gateway.hub.broker import Broker
from gateway.hub.hub import Hub, Message
from gateway.uplink.config import MqttConfig
from gateway.uplink.messages import Kind
from gateway.uplink.outbox import Outbox
from gateway.uplink.service import now
from tests.station_toml import STATION, instruments
from tests.uplink.processes import Processes

PATIENCE_S = 60.0
KEY = SigningKey(b"k" * 32)
RECORDING = Path(__file__).parents[2] / "gateway/drill/data/napa_2014_NP.1765.mseed"

START = """
import runpy, sys
import gateway.clock
read, sync = gateway.clock.read_system, gateway.clock.Sync(True, 1_000_000)
gateway.clock.read_system = lambda: (*read()[:2], sync)
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=False)
"""
"""Runs a module of ours on a machine whose clock is sure."""

MORE = """
[[siren]]
name = "main"
profile = "waveshare-modbus-relay"
port = "{folder}/relay"
address = 1
relay = 1

[uplink.mqtt]
url = "{url}"
keepalive_s = 2

[uplink.archive]
path = "archive"
reserve_mb = 0

[uplink.waveforms]
pre_s = 5
post_s = 1

[commands]
groups = ["schools"]

[commands.keys]
hub = "{key}"
"""


class Station:
    """Core, uplink and simulated devices, each a process, and the hub that hears them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.heard: list[Message] = []
        self._selector = selectors.DefaultSelector()
        there = MqttConfig(urls=(url,), client_id="hub")
        self.hub = Hub(there, self.heard.append, self._selector, folder / "hub.sqlite")
        self._processes = Processes(folder)
        self._config = folder / "gateway.toml"
        key = KEY.verify_key.encode().hex()
        more = MORE.format(folder=folder, url=url, key=key)
        self._config.write_text(STATION + instruments(folder) + more)

    def start(self) -> None:
        for name, profile, *more in (
            ("seis", "rpi-seism", "--play", RECORDING, "--option", "rate_hz=200"),
            ("rain", "hydreon-rg15"),
            ("relay", "waveshare-modbus-relay", "--log", self.folder / "relay.jsonl"),
        ):
            link = self.folder / name
            simulate = ("-m", "gateway.cli", "simulate", profile, "--link", link)
            self._processes.python(name, *simulate, *more)
            self.until(link.exists, f"{name} simulated")
        checked = configuration.check(self._config, run=self.folder / "run")
        assert checked.compiled, checked.faults
        configuration.install(checked.compiled, self.folder / "state")
        self._processes.python("core", "-c", START, "gateway.core", *self._places())
        self.start_uplink()

    def start_uplink(self) -> None:
        more = ["--config", self._config, *self._places()]
        self._processes.python("uplink", "-c", START, "gateway.uplink", *more)

    def _places(self) -> list[object]:
        return ["--state", self.folder / "state", "--run", self.folder / "run"]

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        self._processes.end(name, number)

    def close(self) -> None:
        self._processes.close()
        self.hub.close()
        self._selector.close()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Drive the hub until the condition holds."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(p.read_text()[-1500:] for p in self.folder.glob("*.log"))
                raise AssertionError(f"never happened: {what}\n{logs}")
            self.hub.turn(time.monotonic_ns())
            for key, mask in self._selector.select(0.02):
                key.data(mask, time.monotonic_ns())

    def said(self, topic: str, **wanted: Any) -> list[Message]:
        """What the hub has heard on a topic, where the record holds these values."""
        return [m for m in self.heard if m.kind == topic and wanted.items() <= dict(m.data).items()]

    def command(self, action: Action, target: dict[str, str], **arguments: Any) -> dict[str, Any]:
        """Send a signed command; the reply to it."""
        utc_ns = time.time_ns()
        command = Command(
            id=f"c-{utc_ns}",
            key="hub",
            counter=utc_ns // 1_000_000,
            until_ns=utc_ns + 30 * NS,
            action=action,
            target=target,
            arguments=arguments,
        )
        self.hub.command("demo", "cn-demo-001", sign(command, KEY))
        self.until(lambda: self.said("reply", command=command.id), f"a reply to {action}")
        return dict(self.said("reply", command=command.id)[0].data)

    def relay_is(self, *, on: bool) -> bool:
        lines = (self.folder / "relay.jsonl").read_text().splitlines()
        return bool(lines) and json.loads(lines[-1])["on"] is on


@pytest.fixture
def station(broker: Broker, tmp_path: Path) -> Iterator[Station]:
    made = Station(tmp_path, broker.url)
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_an_earthquake_reaches_the_hub_and_the_hubs_word_reaches_the_siren(
    station: Station,
) -> None:
    here = {"station": "cn-demo-001"}
    station.until(lambda: station.said("status", state="online"), "the station is there")
    station.until(lambda: station.said("alert", level="red", phase="alert"), "a red alert")
    station.until(lambda: station.said("siren", action="on"), "the siren's start")
    station.until(lambda: station.relay_is(on=True), "the relay is closed")
    station.until(lambda: any(m.type == "onset" for m in station.heard), "the onset")
    station.until(lambda: any(m.type == "ground_motion" for m in station.heard), "the motion")
    station.until(lambda: station.said("telemetry"), "readings of rain")

    station.until(lambda: station.said("waveform", reason="event"), "the waveforms of the alert")

    silenced = station.command(Action.siren_off, here)
    assert silenced["outcome"] == "accepted"
    station.until(lambda: station.said("siren", action="off"), "the siren's end")
    station.until(lambda: station.relay_is(on=False), "the relay is open")

    tested = station.command(Action.siren_test, {"group": "schools"})
    assert tested["outcome"] == "fired"
    station.until(lambda: station.said("siren", action="on", pattern="chirp"), "the chirp")

    disarmed = station.command(Action.disarm, here, mode="silent", for_s=600)
    assert disarmed["outcome"] == "accepted"
    station.until(lambda: station.said("arming", mode="silent"), "the arming is told")

    elsewhere = station.command(Action.siren_on, {"station": "cn-demo-002"})
    assert (elsewhere["outcome"], elsewhere["action"]) == ("refused", "siren_on")
    station.until(lambda: station.said("health", kind="command_refused"), "the refusal as health")

    station.end("uplink", signal.SIGKILL)
    station.until(lambda: station.said("status", reason="lost"), "the last will")
    station.start_uplink()
    station.until(lambda: len(station.said("status", state="online")) == 2, "it is back")
    readings = len(station.said("telemetry"))
    station.until(
        lambda: len(station.said("telemetry")) > readings + 1,
        "telemetry, which goes after all that was left from before",
    )
    station.end("uplink")
    assert [fault for m in station.heard for fault in station.hub.faults(m)] == []
    kept = Outbox(station.folder / "state/outbox.sqlite", 1 << 20, now())
    assert Kind.alert not in kept.waiting(), "what the hub has acknowledged is forgotten"
    kept.close(now())
    archived(station.folder / "archive")


def archived(root: Path) -> None:
    """What another reader finds in the archive: no overlap, sure times, and the station."""
    found = obspy.Stream()
    for path in root.glob("[0-9]*/XX/DEMO/*.D/*"):
        found += obspy.read(str(path))
        flags = get_flags(str(path), timing_quality=True, io_flags=True)
        assert flags["timing_quality"]["min"] == 100.0
        locked = flags["io_and_clock_flags_counts"]["clock_locked"]
        assert locked == flags["record_count"]
    assert {trace.stats.channel for trace in found} == {"EHZ", "EHN", "EHE"}
    assert all(gap[6] > 0 for gap in found.get_gaps()), "a gap of more than none is no overlap"
    inventory = obspy.read_inventory(str(root / "station.xml"))
    response = inventory.get_response("XX.DEMO..EHZ", found[0].stats.starttime)
    assert response.instrument_sensitivity.value == pytest.approx(426141.261)
