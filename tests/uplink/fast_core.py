"""The real core on recorded time, faster than the clock: a day of a station in minutes.

``python -m tests.uplink.fast_core FOLDER HOURS`` runs the core's own shell, engine, journal and
feed in FOLDER, with ``FOLDER/gateway.toml`` for its configuration. What is not as on a station:
time comes from here, samples enter behind the drivers, and time stands still while more than
``MAX_BEHIND`` items of data wait for the uplink. ``FOLDER/time`` tells the station's
time, s since the start, as it goes; it does not pass what ``FOLDER/until`` says. When the day is
over the feed is served until there is a ``FOLDER/stop``.

What it feels: noise all day, the recorded Napa earthquake (``gateway/drill/data``) at 30 % of the
day, and from 55 % on the wettest hours of the rain of Arna.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway import config as configuration
from gateway.clock import Sync
from gateway.core import logs, shell
from gateway.core.compiled import Compiled
from gateway.core.transport import Line
from gateway.drill import recording
from gateway.events import NS, Packet, Reading

DATA = Path(__file__).parents[2] / "gateway/drill/data"
START_NS = round(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * NS
RAIN_EVERY_S = 300
QUAKE_AT, STORM_AT = 0.3, 0.55
STORM_READINGS = 72
MAX_BEHIND = 400
TELL_EVERY_S = 20
RUN_OUT_S = 600
"""How long after the last sample time goes on, so that alerts end and minutes are over."""


@dataclass(slots=True)
class Clock:
    """The station's clock; once the day is over it creeps with each look at it."""

    now_ns: int = START_NS
    creep_ns: int = 0

    def read(self) -> int:
        self.now_ns += self.creep_ns
        return self.now_ns


class FastShell(shell.Shell):
    """A shell without ports, whose turns are taken when we say so."""

    def _make_lines(self) -> dict[str, Line]:
        return {}

    def give(self, packet: Packet, end_ns: int) -> None:
        self._core.packets(packet.sensor, [packet], end_ns)

    def read(self, reading: Reading) -> None:
        self._core.readings(reading.sensor, [reading], reading.time_ns)

    def turn(self, longest_ns: int = 0) -> None:
        self._turn(longest_ns)

    def behind(self) -> int:
        """Items of data that wait for the uplink."""
        feed: Any = self._feed
        places = [client.data_at for client in feed._clients if client.wants_data]
        return int(feed._data.end - min(places, default=self.left_at))

    left_at = 0
    """Where the data stood when the uplink was last there."""

    def note_place(self) -> None:
        feed: Any = self._feed
        places = [client.data_at for client in feed._clients if client.wants_data]
        self.left_at = min(places, default=self.left_at)

    def leave(self) -> None:
        self._stopping = "the end of the day"
        self._leave()


def _compiled(path: Path) -> tuple[Compiled, NDArray[np.int32]]:
    """The station with the recording's channels and rate, and the recording."""
    checked = configuration.check(path)
    if checked.compiled is None:
        raise SystemExit("\n".join(map(str, checked.faults)))
    (waveform,) = recording.read(DATA / "napa_2014_NP.1765.mseed").waveforms
    sensors = []
    for sensor in checked.compiled.sensors:
        if sensor.kind == "seismic":
            channels = sensor.channels[: len(waveform.channels)]
            sensors.append(replace(sensor, driver="", channels=channels, rate_hz=waveform.rate_hz))
        else:
            sensors.append(replace(sensor, driver="", silent_after_s=1e9))
    quake = np.concatenate([p.samples for p in waveform.packets(1000)], axis=1)
    return replace(checked.compiled, sensors=tuple(sensors)), quake.astype(np.int32)


def _rain() -> list[int]:
    """The wettest hours of the record, millionths of a mm each five minutes."""
    series = recording.read(DATA / "arna_1955-10.csv").series[0]
    fallen = [reading.micro or 0 for reading in series.readings]
    sums = [sum(fallen[n : n + STORM_READINGS]) for n in range(len(fallen) - STORM_READINGS)]
    first = sums.index(max(sums))
    return fallen[first : first + STORM_READINGS]


def _seconds(
    hours: float, sensor: str, rate_hz: int, channels: int, quake: NDArray[np.int32]
) -> Iterator[tuple[int, Packet]]:
    """The station's seconds and what it feels in each."""
    chance = np.random.default_rng(1)
    length = round(hours * 3600)
    quake_s = round(QUAKE_AT * length)
    for n in range(length):
        samples = chance.integers(-40, 41, (channels, rate_hz), dtype=np.int32)
        at = (n - quake_s) * rate_hz
        if at >= 0 and at + rate_hz <= quake.shape[1]:
            samples = np.ascontiguousarray(quake[:, at : at + rate_hz])
        yield n, Packet(sensor, START_NS + n * NS, float(rate_hz), samples)


def run(folder: Path, hours: float, tell: Callable[[int], None]) -> FastShell:
    """The day; the shell then still serves the feed."""
    clock = Clock()
    vars(shell).update(
        boottime_ns=clock.read,
        read_system=lambda: (
            clock.now_ns,
            clock.now_ns,
            Sync(synchronised=True, max_error_ns=10**6),
        ),
    )
    config, quake = _compiled(folder / "gateway.toml")
    seismic = next(s for s in config.sensors if s.kind == "seismic")
    gauge = next(s for s in config.sensors if s.kind == "scalar")
    running = FastShell(config, folder / "state", folder / "run")
    rain = _rain()
    storm_s = round(STORM_AT * hours * 3600 / RAIN_EVERY_S) * RAIN_EVERY_S
    rate_hz, channels = round(seismic.rate_hz), len(seismic.channels)
    while running.behind() == 0 and not running._feed.wants_data:
        running.turn(NS // 100)
        time.sleep(0.005)  # leaves the processor to the uplink
    until_s = 0.0
    for n, packet in _seconds(hours, seismic.name, rate_hz, channels, quake):
        while n >= until_s:
            tell(n)
            running.turn()
            time.sleep(0.002)  # leaves the processor to who grants time
            until_s = _until_s(folder)
        now_ns = clock.now_ns = START_NS + (n + 1) * NS
        running.give(packet, now_ns - round(NS / rate_hz))
        if (n + 1) % RAIN_EVERY_S == 0:
            place = (n + 1 - storm_s) // RAIN_EVERY_S
            fell = rain[place] if 0 <= place < len(rain) else 0
            running.read(Reading(gauge.name, now_ns, "rain_mm", fell))
        running.turn()
        running.note_place()
        while running.behind() > MAX_BEHIND:
            running.turn()
            running.note_place()
            time.sleep(0.002)  # leaves the processor to the uplink
        if n % TELL_EVERY_S == 0:
            tell(n)
    for n in range(RUN_OUT_S):
        clock.now_ns += NS
        running.turn()
        tell(round(hours * 3600) + n)
    clock.creep_ns = NS // 1000
    return running


def _until_s(folder: Path) -> float:
    """How far time may go."""
    try:
        return float((folder / "until").read_text())
    except (OSError, ValueError):  # not there yet, or being written
        return 0.0


def main() -> None:
    folder, hours = Path(sys.argv[1]), float(sys.argv[2])
    logs.configure()

    def tell(second: int) -> None:
        fresh = folder / "time.new"
        fresh.write_text(f"{second}\n")
        fresh.replace(folder / "time")

    running = run(folder, hours, tell)
    tell(10**9)
    while not (folder / "stop").exists():
        running.turn()
        time.sleep(0.005)
    running.leave()


if __name__ == "__main__":
    main()
