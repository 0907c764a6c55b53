"""Every shipped plan, from a simulated sensor's bytes on a pty to the relay's bytes on another.

The sensor plays a real recording (earthquake, rain) or a documented scenario (gateway/drill/data);
sensor, core and relay board are the real ones with the shipped profiles, scales, plans and patterns
and every byte goes through a pseudo-terminal. Only the clock is driven, so that a day of polluted
air takes a second.
"""

import os
import pty
import select
import subprocess
import sys
import tty
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway import drivers
from gateway.config import compile_config, profiles
from gateway.core.engine import Core
from gateway.drill import demo_station, sources
from gateway.drivers import Simulator
from gateway.events import NS, Alert, LevelChange, SirenAction, parse_iso
from gateway.siren.modbus_relay import ModbusRelaySimulator
from tests.station_toml import STATION

DATA = Path(sources.__file__).parent / "data"
RELAY = """
[[siren]]
name = "main"
profile = "waveshare-modbus-relay"
port = "/dev/relay"
options = { pulse_restarts = "yes", poll_s = 60.0 }
"""


class Wire:
    """A pseudo-terminal between a host and the devices on it, each byte carried by the kernel."""

    def __init__(self, *devices: Simulator) -> None:
        self.devices = devices
        self._device, self._host = pty.openpty()
        tty.setraw(self._host)
        self.to_host = self.to_device = 0

    def close(self) -> None:
        os.close(self._host)
        os.close(self._device)

    def ask(self, data: bytes, t: int) -> None:
        """From the host to the devices."""
        for at in range(0, len(data), 1024):
            heard = _carried(self._host, self._device, data[at : at + 1024])
            self.to_device += len(heard)
            for device in self.devices:
                device.feed(heard, t)

    def said(self, t: int) -> Iterator[bytes]:
        """From the devices to the host, whatever is due."""
        for device in self.devices:
            if (due := device.next_deadline()) is not None and due <= t:
                device.tick(t)
            said = device.to_send()
            for at in range(0, len(said), 1024):
                heard = _carried(self._device, self._host, said[at : at + 1024])
                self.to_host += len(heard)
                yield heard

    def next_deadline(self) -> int | None:
        due = [device.next_deadline() for device in self.devices]
        return min((at for at in due if at is not None), default=None)


def _carried(into: int, out_of: int, data: bytes) -> bytes:
    assert os.write(into, data) == len(data)
    heard = b""
    while len(heard) < len(data):
        assert select.select([out_of], [], [], 20)[0], f"{len(data) - len(heard)} bytes lost"
        heard += os.read(out_of, len(data) - len(heard))
    return heard


@dataclass
class Outcome:
    """What came of it. Times are seconds after the start."""

    alerts: list[tuple[float, str, str, str]] = field(default_factory=list)
    levels: list[tuple[float, str]] = field(default_factory=list)
    patterns: list[tuple[float, str, str]] = field(default_factory=list)
    relay: list[tuple[float, bool]] = field(default_factory=list)
    from_sensors: int = 0
    to_relay: int = 0

    def first(self, level: str) -> float:
        """When an alert came to that level."""
        return next(at for at, _, reached, _ in self.alerts if reached == level)

    def sound(self) -> list[tuple[float, float]]:
        """When the relay was closed, from and to; not what still sounds at the end."""
        assert all(on is (n % 2 == 0) for n, (_, on) in enumerate(self.relay))
        times = [at for at, _ in self.relay]
        return list(zip(times[::2], times[1::2], strict=False))


def run(
    folder: Path, sensors: str, devices: dict[str, list[Simulator]], seconds: float, utc: str
) -> Outcome:
    """The station of ``sensors`` on simulated ``devices`` by port, for so long from ``utc`` on."""
    path = folder / "gateway.toml"
    path.write_text(STATION + RELAY + sensors)
    sent: dict[str, bytearray] = defaultdict(bytearray)
    core = Core(compile_config(path), 0, lambda port, data: sent[port].extend(data))
    core.set_utc_offset(parse_iso(utc))
    board = ModbusRelaySimulator({"pulse_restarts": "yes"})
    outcome = Outcome()
    t = 0
    with ExitStack() as stack:
        wires = {port: Wire(*each) for port, each in devices.items()}
        wires["/dev/relay"] = Wire(board)
        for port, wire in wires.items():
            stack.callback(wire.close)
            for device in wire.devices:
                device.powered(0)
            core.opened(port, 0)
        while t <= seconds * NS:
            _exchange(core, sent, wires, t)
            _note(core, board, outcome)
            due = [core.next_deadline(), *(wire.next_deadline() for wire in wires.values())]
            t = max(t + 1, min(at for at in due if at is not None))
            if (at := core.next_deadline()) is not None and at <= t:
                core.tick(t)
        outcome.from_sensors = sum(wires[port].to_host for port in devices)
        outcome.to_relay = wires["/dev/relay"].to_device
    return outcome


def _exchange(core: Core, sent: dict[str, bytearray], wires: dict[str, Wire], t: int) -> None:
    more = True
    while more:
        more = False
        while sent:
            port, data = sent.popitem()
            wires[port].ask(bytes(data), t)
            more = True
        for port, wire in wires.items():
            for heard in wire.said(t):
                core.bytes(port, heard, t)
                more = True


def _note(core: Core, board: ModbusRelaySimulator, outcome: Outcome) -> None:
    for event, _ in core.published():
        match event:
            case Alert():
                alert = (event.time_ns / NS, event.hazard.value, event.level.name)
                outcome.alerts.append((*alert, event.phase.value))
            case LevelChange():
                outcome.levels.append((event.time_ns / NS, event.level.name))
            case SirenAction():
                outcome.patterns.append((event.time_ns / NS, event.action, event.pattern))
    core.data()
    outcome.relay += [(at / NS, on) for at, relay, on in board.changes() if relay == 1]


def device(profile: str, options: dict[str, Any], file: str) -> Simulator:
    """The simulator of a profile's device, playing a scenario."""
    chosen, _ = profiles.load(profile)
    quantities = [channel.quantity for channel in chosen.channel if channel.quantity]
    made = drivers.load(chosen.profile.driver)
    source = sources.readings(DATA / file, quantities)
    simulator: Simulator = made.simulator({**chosen.driver, **options}, source)
    return simulator


def sensor(name: str, profile: str, port: str, options: str = "") -> str:
    return f"""
[[sensor]]
name = "{name}"
profile = "{profile}"
port = "{port}"
options = {{ {options} }}
"""


def disaster(start: float) -> list[tuple[float, float]]:
    """The stretches of the pattern."""
    edges = [(0, 15), (25, 30)]
    return [(start + 40 * n + a, start + 40 * n + b) for n in range(3) for a, b in edges]


def near(found: Sequence[tuple[float, float]], expected: Sequence[tuple[float, float]]) -> bool:
    """Within the board's clock of 0.1 s and an exchange on its bus."""
    return len(found) == len(expected) and all(
        abs(a - b) <= 0.25 and abs(c - d) <= 0.25
        for (a, c), (b, d) in zip(found, expected, strict=True)
    )


def test_a_gale_climbs_every_level_and_red_sounds_the_disaster_pattern(tmp_path: Path) -> None:
    wind = device("gill-windsonic", {}, "scenario_gale.csv")
    outcome = run(
        tmp_path,
        sensor("wind", "gill-windsonic", "/dev/wind"),
        {"/dev/wind": [wind]},
        900,
        "2026-07-01T00:00:00Z",
    )
    assert [(hazard, level) for _, hazard, level, _ in outcome.alerts] == [
        ("typhoon", level) for level in ("blue", "yellow", "orange", "red")
    ]
    red = outcome.first("red")
    assert near([s for s in outcome.sound() if s[0] >= red - 0.1], disaster(red))
    assert outcome.from_sensors > 22 * 880
    assert outcome.to_relay > 500


def test_a_flash_flood_is_red_by_its_rise_before_it_crests(tmp_path: Path) -> None:
    options = {"height_m": 520.0, "poll_s": 5.0}
    level = device("dfrobot-sen0676", options, "scenario_flood.csv")
    outcome = run(
        tmp_path,
        sensor("level", "dfrobot-sen0676", "/dev/level", "height_m = 520.0, poll_s = 5.0"),
        {"/dev/level": [level]},
        4600,
        "2026-07-01T00:00:00Z",
    )
    assert [(hazard, level) for _, hazard, level, _ in outcome.alerts[:4]] == [
        ("flood", level) for level in ("blue", "yellow", "orange", "red")
    ]
    red = outcome.first("red")
    assert red < 30 * 60 + 80 * 60, "the crest"
    assert near([s for s in outcome.sound() if s[0] >= red - 0.1][:6], disaster(red))


def test_a_polluted_day_is_told_and_never_sounded(tmp_path: Path) -> None:
    particles = device("nova-sds011", {"period_min": 5}, "scenario_particles.csv")
    outcome = run(
        tmp_path,
        sensor("air", "nova-sds011", "/dev/air", "period_min = 5"),
        {"/dev/air": [particles]},
        30 * 3600,
        "2026-07-01T00:00:00Z",
    )
    levels = [level for _, _, level, _ in outcome.alerts]
    assert levels[:3] == ["blue", "yellow", "orange"]
    assert 20 * 3600 <= outcome.first("blue") <= 20.1 * 3600, "20 valid hours of 24"
    assert outcome.patterns == []
    assert outcome.relay == []


@pytest.mark.parametrize("normally_closed", [False, True])
def test_a_fire_alarm_sounds_within_a_second_beside_a_gauge_on_the_same_pair(
    tmp_path: Path, normally_closed: bool
) -> None:
    fire = {"address": 1, "normally_closed": normally_closed}
    pair = [
        device("modbus-contact", fire, "scenario_fire.csv"),
        device("sonbus-xm9505", {"address": 2}, "arna_1955-10.csv"),
    ]
    wiring = f"normally_closed = {str(normally_closed).lower()}"
    outcome = run(
        tmp_path,
        sensor("fire", "modbus-contact", "/dev/bus", wiring)
        + sensor("rain", "sonbus-xm9505", "/dev/bus", "address = 2"),
        {"/dev/bus": pair},
        310,
        "2026-07-01T00:00:00Z",
    )
    (first, *_) = outcome.alerts
    assert first[1:] == ("fire", "red", "alert")
    assert 120 <= first[0] <= 121, "not at 60 s, where it only chattered"
    assert near(outcome.sound()[:6], disaster(first[0]))


def test_the_storm_of_arna_raises_rain_levels_through_a_tipping_bucket(tmp_path: Path) -> None:
    options = {"poll_s": 60.0}
    rain = device("sonbus-xm9505", options, "arna_1955-10.csv")
    outcome = run(
        tmp_path,
        sensor("rain", "sonbus-xm9505", "/dev/rain", "poll_s = 60.0"),
        {"/dev/rain": [rain]},
        30 * 3600,
        "1955-10-07T00:00:00Z",
    )
    assert {hazard for _, hazard, _, _ in outcome.alerts} == {"rainstorm"}
    assert outcome.alerts[0][2] in {"blue", "yellow"}


def test_the_napa_earthquake_is_red_and_sounds(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "napa.toml").write_text(NAPA)
    rate_hz = demo_station.RATE_HZ
    source = sources.waveform(demo_station.QUAKE, demo_station.CHANNELS, float(rate_hz))
    made = drivers.load("rpi_seism")
    outcome = run(
        tmp_path,
        sensor("seis", "napa", "/dev/seis", f"rate_hz = {rate_hz}"),
        {"/dev/seis": [made.simulator({"rate_hz": rate_hz}, source)]},
        30,
        "2014-08-24T10:20:44Z",
    )
    assert outcome.alerts[0][1] == "earthquake"
    red = outcome.first("red")
    sounding = outcome.sound()
    assert near([(a, b) for a, b in sounding if a >= red - 0.1][:1], disaster(red)[:1])


NAPA = """\
[profile]
name = "napa"
title = "rpi-seism digitiser on the accelerometer of NP.1765"
kind = "seismic"
driver = "rpi_seism"
source = "StationXML of NP.1765"

[port]
baud = 250000
""" + "".join(
    f'\n[[channel]]\ncode = "{code}"\nsensitivity = "{demo_station.COUNTS_PER_MPS2}:m/s**2"\n'
    for code in demo_station.CHANNELS
)


def test_every_shipped_plan_has_a_scenario() -> None:
    shipped = {path.stem for path in (DATA.parents[1] / "plan" / "plans").glob("*.toml")}
    covered = {"typhoon", "flood", "air_pollution", "fire", "rainstorm", "earthquake"}
    assert shipped == covered


def test_the_scenarios_are_what_their_maker_makes(tmp_path: Path) -> None:
    maker = DATA.parents[2] / "tools" / "scenarios.py"
    subprocess.run([sys.executable, str(maker), str(tmp_path)], check=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in DATA.glob("scenario_*.csv")}
