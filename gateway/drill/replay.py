"""A recording through the very core of the daemon, on recorded time, as fast as the machine can.

Each NET.STA of the files is a site with a core of its own; over several of them onsets and
candidates also go through network coincidence, which never alerts. What comes out is one record a
decision, in order of decision time, then channel, whatever the size of the packets.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.core.compiled import Channel, Compiled, Port, Sensor, Siren, Station
from gateway.core.engine import Core
from gateway.core.sequence import channel_of
from gateway.detect.coincidence import NetworkCoincidence
from gateway.detect.settings import Sensitivity
from gateway.drill import recording
from gateway.drill.recording import Inventory, Recording, Series, Waveform
from gateway.drivers.capture import Capture
from gateway.events import (
    NS,
    Alert,
    Candidate,
    Event,
    Onset,
    Packet,
    Phase,
    Reading,
    to_record,
)

RUN_OUT_S = 3600.0
"""How long after the last sample sirens may sound out and alerts end."""


@dataclass(slots=True)
class Site:
    """One station of the files: what feeds its core."""

    name: str
    waveforms: list[Waveform] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    captures: list[Capture] = field(default_factory=list)


@dataclass(slots=True)
class Summary:
    """Counts over a whole replay. ``faults`` are one line each."""

    samples: int = 0
    channels: int = 0
    onsets: int = 0
    alerts: int = 0
    elapsed_s: float = 0.0
    files: int = 0
    stations: int = 0
    alerts_disabled: str = ""
    faults: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """The last line of a replay."""
        found: dict[str, Any] = {
            "type": "summary",
            "samples": self.samples,
            "channels": self.channels,
            "onsets": self.onsets,
            "alerts": self.alerts,
            "elapsed_s": round(self.elapsed_s, 3),
            "files": self.files,
            "stations": self.stations,
            "faults": len(self.faults),
        }
        if self.alerts_disabled:
            found["alerts_disabled"] = self.alerts_disabled
        return found


class Replay:
    """Files through the core.

    Args:
        base: the configuration whose settings, plans, scales and sirens hold; its sensors and
            station are those of the files.
        inventory: sensitivities by channel and time.
        sensitivity: for all channels that the inventory does not know.
        packet: samples in a packet; it changes nothing but speed.
    """

    def __init__(
        self,
        base: Compiled,
        *,
        inventory: Inventory | None = None,
        sensitivity: Sensitivity | None = None,
        packet: int = 100,
    ) -> None:
        if packet < 1:
            raise ValueError(f"packet of {packet} samples; expected 1 or more")
        self._base = base
        self._inventory = inventory or Inventory({})
        self._sensitivity = sensitivity
        self._packet = packet
        self.summary = Summary()

    def run(self, paths: Sequence[Path], series: Sequence[Series] = ()) -> Iterator[dict[str, Any]]:
        """Records of everything that was decided; ``summary`` is complete afterwards.

        ``series`` are readings that come from no file.
        """
        started = time.monotonic()
        sites = self._sites(paths)
        sites += [Site(each.sensor, series=[each]) for each in series]
        events: list[Event] = []
        candidates: list[Candidate] = []
        for site in sites:
            found, low = self._run_site(site)
            events += found
            candidates += low
        if sum(bool(site.waveforms or site.captures) for site in sites) > 1:
            events += _network(events, candidates)
        events.sort(key=lambda event: (event.decided_ns, channel_of(event)))
        for event in events:
            self._count(event)
            yield to_record(event)
        self.summary.elapsed_s = time.monotonic() - started

    # -- files -----------------------------------------------------------------------------------

    def _sites(self, paths: Sequence[Path]) -> list[Site]:
        sites: dict[str, Site] = {}
        for path in paths:
            self.summary.files += 1
            try:
                if Capture.recognises(path):
                    capture = Capture.open(path)
                    sites.setdefault(capture.station, Site(capture.station)).captures.append(
                        capture
                    )
                    continue
                found: Recording = recording.read(path)
            except OSError as error:
                self.summary.faults.append(f"{path}: {error.strerror}")
                continue
            except ValueError as error:
                self.summary.faults.append(str(error))
                continue
            self.summary.faults += found.faults
            for waveform in found.waveforms:
                site = sites.setdefault(waveform.station, Site(waveform.station))
                site.waveforms.append(waveform)
            for series in found.series:
                sites.setdefault(series.sensor, Site(series.sensor)).series.append(series)
        self.summary.stations = len(sites)
        return [sites[name] for name in sorted(sites)]

    # -- one site --------------------------------------------------------------------------------

    def _compiled(self, site: Site) -> Compiled:
        network, _, code = site.name.rpartition(".")
        station = replace(
            self._base.station, id=site.name, name=site.name, network=network or "XX", code=code
        )
        sensors: dict[str, Sensor] = {}
        for waveform in site.waveforms:
            known = sensors.get(waveform.name)
            names = {c.id for c in known.channels} if known else set()
            channels = tuple(
                Channel(name, self._inventory.get(name, waveform.start_ns) or self._sensitivity)
                for name in sorted(names | set(waveform.channels))
            )
            sensors[waveform.name] = Sensor(
                name=waveform.name,
                port=Port(waveform.name),
                driver="",
                kind="seismic",
                channels=channels,
                rate_hz=waveform.rate_hz,
            )
        for series in site.series:
            sensors[series.sensor] = Sensor(series.sensor, Port(series.sensor), "", "scalar")
        for capture in site.captures:
            sensors[capture.sensor.name] = self._with_sensitivity(capture)
        return replace(self._base, station=station, sensors=tuple(sensors.values()))

    def _with_sensitivity(self, capture: Capture) -> Sensor:
        sensor, at = capture.sensor, capture.header.utc_ns
        channels = tuple(
            replace(
                channel,
                sensitivity=self._inventory.get(channel.id, at)
                or channel.sensitivity
                or self._sensitivity,
            )
            for channel in sensor.channels
        )
        return replace(sensor, channels=channels)

    def _run_site(self, site: Site) -> tuple[list[Event], list[Candidate]]:
        config = self._compiled(site)
        core = Core(config, live=False)
        core.candidates = []
        channels = [c for sensor in config.sensors for c in sensor.channels]
        self.summary.channels += len(channels) or len(site.series)
        if channels and not any(c.sensitivity for c in channels):
            self.summary.alerts_disabled = "no sensitivity"
        events: list[Event] = [q for waveform in site.waveforms for q in waveform.overlaps]
        last = _Feeder(core, config, self._packet).feed(site)
        self.summary.samples += sum(w.samples for w in site.waveforms)
        self.summary.samples += sum(s.samples for s in site.series)
        for capture in site.captures:
            self.summary.samples += capture.samples
            self.summary.faults += capture.faults
        core.advance(last + round(RUN_OUT_S * NS))
        events += [event for event, _ in core.published()]
        return events, core.candidates

    def _count(self, event: Event) -> None:
        if isinstance(event, Onset):
            self.summary.onsets += 1
        elif isinstance(event, Alert) and event.phase is Phase.alert:
            self.summary.alerts += 1


class _Feeder:
    """Gives a core what the files of one site hold, in order of time."""

    def __init__(self, core: Core, config: Compiled, packet: int) -> None:
        self._core = core
        self._ports = {sensor.name: sensor.port.path for sensor in config.sensors}
        self._rows = {s.name: {c.id: i for i, c in enumerate(s.channels)} for s in config.sensors}
        self._packet = packet

    def feed(self, site: Site) -> int:
        """Everything; the time of the last sample, 0 if there is none."""
        sources = [(w.name, iter(self._packets(w))) for w in site.waveforms]
        last = self._merge(sources, lambda p: p.start_ns, self._give_packet)
        readings = [(s.sensor, iter(s.readings)) for s in site.series]
        last = max(last, self._merge(readings, lambda r: r.time_ns, self._give_reading))
        for capture in site.captures:
            last = max(last, self._give_capture(capture))
        return last

    def _packets(self, waveform: Waveform) -> Iterable[Packet]:
        import numpy as np  # noqa: PLC0415  only where several files give one sensor

        rows = self._rows[waveform.name]
        if len(rows) == len(waveform.channels):
            return waveform.packets(self._packet)
        places = [rows[channel] for channel in waveform.channels]

        def widened() -> Iterator[Packet]:
            for packet in waveform.packets(self._packet):
                block = np.full((len(rows), packet.samples.shape[1]), np.nan)
                block[places] = packet.samples
                offsets = [0] * len(rows)
                for place, offset in zip(places, packet.offsets_ns, strict=True):
                    offsets[place] = offset
                yield replace(packet, samples=block, offsets_ns=tuple(offsets))

        return widened()

    def _merge(
        self,
        sources: list[tuple[str, Iterator[Any]]],
        key: Callable[[Any], int],
        give: Callable[[str, Any], int],
    ) -> int:
        """Take from several streams in order of time; a stream that ends says so at once."""
        heads = {name: (item, items) for name, items in sources if (item := next(items, None))}
        for name in {name for name, _ in sources} - set(heads):
            self._core.ended(name)
        last = 0
        while heads:
            name = min(heads, key=lambda n: key(heads[n][0]))
            item, items = heads[name]
            last = max(last, give(name, item))
            following = next(items, None)
            if following is None:
                del heads[name]
                self._core.ended(name)
            else:
                heads[name] = (following, items)
        return last

    def _give_packet(self, name: str, packet: Packet) -> int:
        columns: int = packet.samples.shape[1]
        end_ns = packet.start_ns + round((columns - 1) * NS / packet.rate_hz)
        self._core.packets(name, [packet], end_ns)
        self._core.data()
        return end_ns

    def _give_reading(self, name: str, reading: Reading) -> int:
        self._core.readings(name, [reading], reading.time_ns)
        self._core.data()
        return reading.time_ns

    def _give_capture(self, capture: Capture) -> int:
        port, last = self._ports[capture.sensor.name], 0
        for t, data in capture.reads():
            if not last:
                self._core.opened(port, t)
            self._let_pass(port, t)
            self._core.bytes(port, data, t)
            self._core.data()
            last = t
        self._core.ended(capture.sensor.name)
        return last

    def _let_pass(self, port: str, t: int) -> None:
        """Polls and time-outs of the driver that were due before these bytes came."""
        before = None
        while (due := self._core.driver_deadline(port)) is not None and due <= t and due != before:
            self._core.tick(due)
            before = due


def _network(events: Sequence[Event], candidates: Sequence[Candidate]) -> list[Event]:
    network = NetworkCoincidence()
    votes: list[Onset | Candidate] = [e for e in events if isinstance(e, Onset)]
    votes += candidates
    found: list[Event] = []
    for vote in sorted(votes, key=lambda v: (v.decided_ns, v.channel)):
        found += network.add(vote)
    return found


def default_base() -> Compiled:
    """What a replay without a configuration stands on: shipped plans and a virtual siren."""
    from gateway.config import shipped  # noqa: PLC0415  pydantic, only needed here

    return Compiled(
        station=Station("", "", ""),
        sirens=(Siren("virtual", None, "gateway.siren.virtual:Virtual"),),
        scales=shipped.scales(),
        plans=shipped.plans(),
        patterns=shipped.patterns(),
    )
