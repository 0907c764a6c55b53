"""The core as a pure function: bytes and packets in, siren bytes and events out.

Time comes in as an argument and nothing here does I/O, so that a replay of a recording *is* the
daemon, run on recorded time. The way through it::

    bytes ─► driver ─► clock ─► detector ─┐
    packets ──────────────────► detector ─┤► sequence ─► site ─► plan ─► arbiter ─► siren driver
    readings ─────────────────► scales  ──┘

The shell (``gateway.core.shell``) and the replay (``gateway.drill.replay``) drive it with
:meth:`Core.bytes`, :meth:`Core.packets`, :meth:`Core.readings` and :meth:`Core.tick`, and drain
:meth:`Core.published` (events) and :meth:`Core.data`. What a port is to be sent does not wait to be
drained: it is handed out the moment it is decided, before anything is said of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.clock import SampleClock
from gateway.core.arbiter import Arbiter, Request
from gateway.core.arming import Arming, Mode
from gateway.core.compiled import Compiled, Sensor, Siren
from gateway.core.health import HealthBook
from gateway.core.self_test import SelfTests
from gateway.core.sequence import Sequencer
from gateway.core.warnings import Warnings
from gateway.detect import SeismicDetector
from gateway.detect.coincidence import FirstMotions, SharedShaking, SiteCoincidence
from gateway.detect.gauge import MAX_MAINTENANCE_S, Gauge
from gateway.drivers import load_object
from gateway.events import (
    NS,
    ArmingChange,
    Candidate,
    Coincidence,
    Decision,
    Diagnostic,
    Event,
    GroundMotion,
    Hazard,
    Level,
    LevelChange,
    Measured,
    Observed,
    OfficialWarning,
    Onset,
    Packet,
    Phase,
    Quality,
    Reading,
    Scans,
    SirenState,
)
from gateway.plan.lifecycle import AlertStep, Lifecycle

_BAD = frozenset({"flat", "dead", "clipped", "noise", "polarity"})
"""Kinds of bad data for which a channel loses its vote until it recovers."""

_CANCEL, _EXPIRE = Phase.cancel, Phase.expire
"""Kept at hand: Python 3.11 takes as long to look up a member as to call a function or two."""

OVERDUE_EVERY_NS = 3600 * NS
"""How often the dates of the plans' revisions are looked at."""


class _Chain:
    """What belongs to one sensor: its driver, and when it was last heard."""

    def __init__(self, sensor: Sensor) -> None:
        self.sensor = sensor
        self.driver: Any = (
            load_object(sensor.driver)(sensor.options, sensor.name) if sensor.driver else None
        )
        self.heard_ns: int | None = None
        self.silent_after_ns = round(sensor.silent_after_s * NS)

    def silence_deadline(self) -> int | None:
        return None if self.heard_ns is None else self.heard_ns + self.silent_after_ns


class _Seismic(_Chain):
    """A digitiser: its sample clock and detector."""

    def __init__(self, sensor: Sensor, config: Compiled) -> None:
        super().__init__(sensor)
        self.clock = SampleClock(sensor.rate_hz)
        self.channels = tuple(channel.id for channel in sensor.channels)
        self.detector = SeismicDetector(
            self.channels,
            sensor.rate_hz,
            config.seismic,
            sensitivities=[channel.sensitivity for channel in sensor.channels],
        )
        self.upto_ns = 0

    def process(self, packet: Packet) -> list[Decision]:
        """Decisions of a packet, with each channel's own offset put back into its times."""
        decisions = self.detector.process(packet.samples, packet.start_ns)
        columns = packet.samples.shape[1]
        self.upto_ns = packet.start_ns + round((columns - 1) * NS / packet.rate_hz)
        if any(packet.offsets_ns):
            offsets = dict(zip(self.channels, packet.offsets_ns, strict=True))
            decisions = [_shifted(decision, offsets) for decision in decisions]
            self.upto_ns -= round(NS / packet.rate_hz)
        return decisions


class _Scalar(_Chain):
    """A sensor of readings, and what is made of them."""

    def __init__(self, sensor: Sensor, config: Compiled) -> None:
        super().__init__(sensor)
        measured = {plan.hazard for plan in config.plans if plan.measured}
        self.gauge = Gauge(sensor.name, config.scales, sensor.counter_wrap_micro, measured)


class _Bus:
    """The sensors of a port that several share: they take turns, and each item has its owner."""

    def __init__(self, chains: Sequence[_Chain]) -> None:
        self.chains = {chain.sensor.name: chain for chain in chains}
        self.driver: Any = chains[0].driver.bus([chain.driver for chain in chains])


def _shifted(decision: Decision, offsets: Mapping[str, int]) -> Decision:
    shift = offsets.get(getattr(decision, "channel", ""), 0)
    if not shift:
        return decision
    if isinstance(decision, Onset):
        return replace(
            decision,
            time_ns=decision.time_ns + shift,
            declared_ns=decision.declared_ns + shift,
        )
    return replace(decision, time_ns=decision.time_ns + shift)


class _Sirens:
    """The sirens of one port: their driver and one arbiter each."""

    def __init__(self, sirens: Sequence[Siren], config: Compiled) -> None:
        first = sirens[0]
        self.path = first.port.path if first.port else ""
        self.driver = load_object(first.driver)(
            first.options, {siren.name: siren.unit for siren in sirens}
        )
        patterns = {pattern.name: pattern for pattern in config.patterns}
        self.arbiters = {
            siren.name: Arbiter(
                config.station.id, siren.name, patterns, siren.max_on_s, siren.max_hour_s
            )
            for siren in sirens
        }


class Core:
    """Everything that one station decides.

    Args:
        config: the compiled configuration.
        t: time now on the core's clock, ns.
        send: takes the path of a port and what is to be written to it at once; None: nobody does.
        live: the daemon; decisions act at once. Otherwise (replay) they wait until every sensor
            has been read past their time, and act at their own time.
    """

    def __init__(
        self,
        config: Compiled,
        t: int = 0,
        send: Callable[[str, bytes], None] | None = None,
        *,
        live: bool = True,
    ) -> None:
        self.config = config
        self._send = send
        self._live = live
        self._t = t
        self._utc_offset_ns = 0
        self._utc_sure = not live
        self._overdue_looked_ns = t - OVERDUE_EVERY_NS
        self._seismic: dict[str, _Seismic] = {}
        self._scalar: dict[str, _Scalar] = {}
        self._chains = [self._add_sensor(sensor) for sensor in config.sensors]
        self._by_port: dict[str, _Chain] = {}
        self._buses: dict[str, _Bus] = {}
        self._add_ports()
        self._sirens: dict[str, _Sirens] = {}
        self._add_sirens(config)
        self._arbiters = {
            name: arbiter
            for group in self._sirens.values()
            for name, arbiter in group.arbiters.items()
        }
        self._sequence = Sequencer(() if live else tuple(s.name for s in config.sensors))
        self._health = HealthBook()
        self._self_tests = SelfTests(
            {
                name: group.driver.reads_back
                for group in self._sirens.values()
                for name in group.arbiters
                if live
            },
            t,
        )
        self._lifecycle = Lifecycle(config.station.id, config.station.name, config.plans)
        self._arming = Arming()
        self._status = self._arming.status
        self._warnings = Warnings({scale.needs_warning for scale in config.scales})
        self._site = self._make_site()
        self._shared = SharedShaking(self._site.window_ns)
        self._first_motions = FirstMotions()
        self._last_coincidence: Coincidence | None = None
        self._published: list[tuple[Event | AlertStep, int]] = []
        self._data: list[Packet | Reading | Measured] = []
        self._reported: dict[str, bool | None] = {}
        self.device_utc: tuple[int, int] | None = None
        """(time on the core's clock, UTC) that a locked digitiser gave last."""
        self.candidates: list[Candidate] | None = None
        """Set to a list to have the candidates kept, for coincidence over several stations."""
        self._take_siren_output(t)

    def _add_sensor(self, sensor: Sensor) -> _Chain:
        chain: _Chain
        if sensor.kind == "seismic":
            chain = self._seismic[sensor.name] = _Seismic(sensor, self.config)
        else:
            chain = self._scalar[sensor.name] = _Scalar(sensor, self.config)
        return chain

    def _add_ports(self) -> None:
        shared: dict[str, list[_Chain]] = {}
        for chain in self._chains:
            shared.setdefault(chain.sensor.port.path, []).append(chain)
        for path, chains in shared.items():
            if len(chains) > 1 and hasattr(chains[0].driver, "bus"):
                self._buses[path] = _Bus(chains)
            else:
                self._by_port[path] = chains[-1]

    def _add_sirens(self, config: Compiled) -> None:
        ports: dict[str, list[Siren]] = {}
        for siren in config.sirens:
            ports.setdefault(siren.port.path if siren.port else siren.name, []).append(siren)
        for key, sirens in ports.items():
            self._sirens[key] = _Sirens(sirens, config)

    def _make_site(self) -> SiteCoincidence:
        site = self.config.site
        channels = [(name, c) for name, chain in self._seismic.items() for c in chain.channels]
        return SiteCoincidence(
            f"{self.config.station.network}.{self.config.station.code}",
            {channel: channel[:-1] for _, channel in channels},
            site.votes,
            site.window_s,
            {c: site.weights.get(c, site.weights.get(name, 1.0)) for name, c in channels},
        )

    # -- inputs ----------------------------------------------------------------------------------

    def set_utc_offset(self, offset_ns: int, *, sure: bool = True) -> None:
        """UTC minus the core's clock. It changes stated times, never a decision.

        Without a clock that somebody vouches for (``sure``) no hour is a quiet one, and no plan is
        called overdue.
        """
        self._utc_offset_ns, self._utc_sure = offset_ns, sure
        if sure and self._t >= self._overdue_looked_ns + OVERDUE_EVERY_NS:
            self._overdue_looked_ns = self._t
            self._look_for_overdue_plans()

    def _look_for_overdue_plans(self) -> None:
        for plan in self.config.plans:
            if plan.overdue(self._t + self._utc_offset_ns):
                detail = (
                    f"{plan.version} was to be revised by {plan.next_revision}; have it revised"
                )
                event = self._health.condition(f"{plan.hazard} plan", "revision", self._t, detail)
            else:
                event = self._health.clear(f"{plan.hazard} plan", "revision", self._t)
            self._publish(event)

    def opened(self, port: str, t: int) -> None:
        """A port was opened, or opened again."""
        self._t = max(self._t, t)
        if port in self._sirens:
            group = self._sirens[port]
            group.driver.opened(t)
            self._publish(self._health.clear(_names(group), "port", t, "open"))
            self._collect(group, t)
        else:
            driver = (self._buses.get(port) or self._by_port[port]).driver
            driver.opened(t)
            for chain in self._on_port(port):
                chain.heard_ns = t
                self._publish(self._health.clear(chain.sensor.name, "port", t, "open"))
            self._drain(port, driver)

    def lost(self, port: str, t: int, reason: str) -> None:
        """A port is not there, or went away; the reason says what to do."""
        self._t = max(self._t, t)
        if port in self._sirens:
            names = [_names(self._sirens[port])]
        else:
            chains = self._on_port(port)
            names = [chain.sensor.name for chain in chains]
            for chain in chains:
                chain.heard_ns = None
                name = chain.sensor.name
                self._publish(self._health.clear(name, "silent", t, "the port itself is lost"))
        for name in names:
            self._publish(self._health.condition(name, "port", t, reason, "failed"))

    def _on_port(self, port: str) -> list[_Chain]:
        bus = self._buses.get(port)
        return [self._by_port[port]] if bus is None else list(bus.chains.values())

    def bytes(self, port: str, data: bytes, t: int) -> None:
        """Bytes that were read from a port at ``t``."""
        self._t = max(self._t, t)
        group = self._sirens.get(port)
        if group is not None:
            self._siren_answers(group, group.driver.feed(data, t), t)
            self._collect(group, t)
            return
        bus = self._buses.get(port)
        if bus is not None:
            self._share(bus, bus.driver.feed(data, t), t)
            self._drain(port, bus.driver)
            return
        chain = self._by_port[port]
        self._take(chain, chain.driver.feed(data, t), t)
        self._drain(port, chain.driver)

    def packets(self, sensor: str, packets: Iterable[Packet], t: int) -> None:
        """Samples already placed in time: a waveform replay's entrance."""
        self._t = max(self._t, t)
        chain = self._seismic[sensor]
        for packet in packets:
            chain.heard_ns = t
            self._data.append(packet)
            self._decide(chain.process(packet), sensor, chain.upto_ns)

    def readings(self, sensor: str, readings: Iterable[Reading], t: int) -> None:
        """Readings already placed in time: a CSV replay's entrance."""
        chain = self._scalar[sensor]
        for reading in readings:
            self._measure(chain, reading)
        self._t = max(self._t, t)

    def shaken(self, motion: GroundMotion, t: int) -> None:
        """Ground motion measured elsewhere."""
        self._t = max(self._t, t)
        self._act([motion])

    def ended(self, sensor: str) -> None:
        """A replayed sensor gives no more."""
        if sensor in self._scalar:
            self._decide(self._scalar[sensor].gauge.ended(), sensor, 0)
        self._act(self._sequence.ended(sensor))

    def tick(self, t: int) -> None:
        """Time has come to ``t``."""
        self._t = max(self._t, t)
        self._tick_sensors(t)
        if self._live:
            self._tick_gauges(t)
        for group in self._sirens.values():
            if _due(group.driver.next_deadline(), t):
                self._siren_answers(group, group.driver.tick(t), t)
        if _due(self._self_tests.next_deadline(), t):
            self._tick_self_tests(t)
        mark = self._sequence.watermark
        self.advance(t if mark is None else min(t, mark))
        self._publish(self._health.tick(t))
        self._collect_all(t)

    def _tick_sensors(self, t: int) -> None:
        for port, chain in self._by_port.items():
            if chain.driver is not None and _due(chain.driver.next_deadline(), t):
                self._take(chain, chain.driver.tick(t), t)
                self._drain(port, chain.driver)
        for port, bus in self._buses.items():
            if _due(bus.driver.next_deadline(), t):
                self._share(bus, bus.driver.tick(t), t)
                self._drain(port, bus.driver)
        for chain in self._chains:
            if self._live and _due(chain.silence_deadline(), t):
                self._fall_silent(chain, t)

    def _tick_gauges(self, t: int) -> None:
        """Levels and days that end without a reading, maintenance and warnings that are over."""
        offset = self._utc_offset_ns
        for name, scalar in self._scalar.items():
            if _due(scalar.gauge.next_deadline(offset), t):
                self._decide(scalar.gauge.tick(t, offset), name, t)
            if _due(scalar.gauge.maintenance_until_ns, t):
                self.maintain(name, None, t, "time over")
        if _due(self._warnings.next_deadline(offset), t):
            self._warned(self._warnings.tick(t, offset), t)

    def driver_deadline(self, port: str) -> int | None:
        """When the driver of a sensor's port next wants :meth:`tick`."""
        deadline: int | None = self._by_port[port].driver.next_deadline()
        return deadline

    def next_deadline(self) -> int | None:
        """When :meth:`tick` is next wanted."""
        times = [
            self._health.next_deadline(),
            self._self_tests.next_deadline(),
            self._lifecycle.next_deadline(),
            self._arming.until_ns,
            self._warnings.next_deadline(self._utc_offset_ns),
        ]
        times += [chain.silence_deadline() for chain in self._chains]
        times += [c.driver.next_deadline() for c in self._by_port.values() if c.driver is not None]
        times += [bus.driver.next_deadline() for bus in self._buses.values()]
        for scalar in self._scalar.values():
            times.append(scalar.gauge.next_deadline(self._utc_offset_ns))
            times.append(scalar.gauge.maintenance_until_ns)
        for group in self._sirens.values():
            times.append(group.driver.next_deadline())
            times += [arbiter.next_deadline() for arbiter in group.arbiters.values()]
        return min((x for x in times if x is not None), default=None)

    # -- from driver output to decisions ---------------------------------------------------------

    def _share(
        self, bus: _Bus, found: Iterable[tuple[str, Scans | Reading | Diagnostic]], t: int
    ) -> None:
        for name, item in found:
            self._take(bus.chains[name], [item], t)

    def _take(self, chain: _Chain, found: Sequence[Scans | Reading | Diagnostic], t: int) -> None:
        for item in found:
            if isinstance(item, Diagnostic):
                name = chain.sensor.name
                self._publish(self._health.incident(name, item.kind, t, item.detail, item.count))
                continue
            if chain.heard_ns is None:
                self._publish(self._health.clear(chain.sensor.name, "silent", t, "heard again"))
            chain.heard_ns = t
            if isinstance(item, Scans):
                self._place(chain, item)
            else:
                self._measure(chain, item)

    def _place(self, chain: _Chain, scans: Scans) -> None:
        if not isinstance(chain, _Seismic):
            return
        stamped = chain.clock.stamp(scans)
        if scans.device_utc_ns is not None and len(stamped) == 1:
            start_ns, samples = stamped[0]
            if samples.shape == scans.samples.shape:  # else earlier scans are among them
                self.device_utc = start_ns, scans.device_utc_ns
        for start_ns, samples in stamped:
            packet = Packet(chain.sensor.name, start_ns, chain.sensor.rate_hz, samples)
            self._data.append(packet)
            if self._live:
                self._act(chain.detector.decide(samples, start_ns))
                self._act(chain.detector.look())  # the sirens have been told
            else:
                self._decide(chain.process(packet), chain.sensor.name, chain.upto_ns)

    def _measure(self, chain: _Chain, reading: Reading) -> None:
        if not isinstance(chain, _Scalar):
            return
        self._data.append(reading)
        gauge, t = chain.gauge, reading.time_ns
        self._decide(gauge.reading(reading, self._utc_offset_ns), chain.sensor.name, t - 1)
        compared = gauge.compare((other.gauge for other in self._scalar.values()), t)
        self._decide(compared, chain.sensor.name, t)
        if self._live and gauge.measured_due(t):
            self._data.append(Measured(gauge.name, t, gauge.values(t)))

    def _fall_silent(self, chain: _Chain, t: int) -> None:
        detail = f"nothing for {chain.sensor.silent_after_s:g} s; check its power and cable"
        self._publish(self._health.condition(chain.sensor.name, "silent", t, detail, "failed"))
        chain.heard_ns = None
        if isinstance(chain, _Scalar):
            for quantity in list(chain.gauge.latest):
                self._measure(chain, Reading(chain.sensor.name, t, quantity, None))
            self._decide(chain.gauge.unknown(t), chain.sensor.name, t)

    # -- from decisions to sirens ----------------------------------------------------------------

    def _decide(self, decisions: Sequence[Decision], stream: str, upto_ns: int) -> None:
        if self._live:
            self._act(decisions)
        else:
            self._act(self._sequence.add(decisions, stream, upto_ns))

    def _act(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            t = self._t if self._live else decision.decided_ns
            self.advance(t)
            match decision:
                case LevelChange():
                    self._publish([decision])
                    offset = self._utc_offset_ns
                    self._alerts(self._lifecycle.level(decision, self._status, offset), t)
                case Candidate() | Onset():
                    self._vote(decision)
                case Quality():
                    self._weigh(decision)
                    self._publish([decision])
                case GroundMotion():
                    if decision.whole_second or decision.final:
                        self._publish([decision])
                    self._shake(decision, t)
                case Observed():
                    offset = self._utc_offset_ns
                    self._alerts(self._lifecycle.observed(decision, self._status, offset), t)
                case _:
                    self._publish([decision])

    def _vote(self, decision: Candidate | Onset) -> None:
        if isinstance(decision, Onset):
            self._publish([decision])
            for quality in self._first_motions.add(decision):
                self._weigh(quality)
                self._publish([quality])
        elif self.candidates is not None:
            self.candidates.append(decision)
        for coincidence in self._site.add(decision):
            self._last_coincidence = coincidence
            self._publish([coincidence])

    def _weigh(self, quality: Quality) -> None:
        if quality.kind in _BAD:
            self._site.exclude(quality.channel, quality.kind)
        elif quality.kind == "recovered":
            self._site.include(quality.channel, quality.ended)

    def _shake(self, motion: GroundMotion, t: int) -> None:
        """Shaking counts once it is sustained and, with several sensors, seen by enough of them."""
        if not self._shared.confirms(motion, self._site.shaking):
            return
        votes = 1
        if not self._site.alone:
            last = self._last_coincidence
            if last is None or last.time_ns < motion.since_ns - self._site.window_ns:
                return
            votes = last.votes
        offset = self._utc_offset_ns
        self._alerts(self._lifecycle.shaking(motion, votes, self._status, offset), t)

    def _alerts(self, steps: list[AlertStep], t: int) -> None:
        for step in steps:
            self._publish([step])
            rule = step.sounding_rule(self._utc_offset_ns if self._utc_sure else None)
            if rule is not None:
                pattern = self._arming.pattern(step.status, rule.pattern)
                wanted = Request(step.id, step.status, step.plan.hazard, step.level, pattern, t)
            for name, arbiter in self._arbiters.items():
                if rule is not None and (not rule.sirens or name in rule.sirens):
                    arbiter.request(wanted, t)
                elif step.sounds or step.phase is _CANCEL:
                    arbiter.withdraw(step.id, t, f"alert {step.phase}")
                if step.phase is _CANCEL or step.phase is _EXPIRE:
                    arbiter.forget(step.id)  # what has begun may sound to its end
            self._collect_all(t)

    def advance(self, t: int) -> None:
        """Everything of plan and sirens that is due by ``t``, each at its own time."""
        while True:
            due = t + 1
            if (at := self._lifecycle.next_deadline()) is not None and at < due:
                due = at
            if (at := self._arming.until_ns) is not None and at < due:
                due = at
            for arbiter in self._arbiters.values():
                if (at := arbiter.next_deadline()) is not None and at < due:
                    due = at
            if due > t:
                return
            if _due(self._arming.until_ns, due):
                self.arm(Arming(by="time over"), due)
            self._alerts(self._lifecycle.tick(due), due)
            for arbiter in self._arbiters.values():
                if _due(arbiter.next_deadline(), due):
                    arbiter.tick(due)
            self._collect_all(due)

    # -- sirens ----------------------------------------------------------------------------------

    def _collect_all(self, t: int) -> None:
        for group in self._sirens.values():
            self._collect(group, t)
        for arbiter in self._arbiters.values():
            self._publish(arbiter.actions())

    def _collect(self, group: _Sirens, t: int) -> None:
        for arbiter in group.arbiters.values():
            for command in arbiter.commands():
                self._reported[command.siren] = None  # what it said before is no answer to this
                if command.on:
                    group.driver.sound(command.siren, command.until_ns, t)
                else:
                    group.driver.silence(command.siren, t)
        self._drain(group.path, group.driver)

    def _siren_answers(
        self, group: _Sirens, found: Sequence[SirenState | Diagnostic], t: int
    ) -> None:
        for item in found:
            if isinstance(item, Diagnostic):
                name = _names(group)
                self._publish(self._health.incident(name, item.kind, t, item.detail, item.count))
                for siren in group.arbiters if item.detail else ():
                    self._self_tests.diagnosed(siren, item.detail)
                continue
            self._reported[item.siren] = item.on
            wanted = self._arbiters[item.siren].on
            if self._self_tests.heard(item.siren, item.on, wanted, t):
                detail = self._self_tests.detail(item.siren)
                self._publish(self._health.passed(item.siren, "self_test", t, detail))
            if item.on == wanted:
                self._publish(self._health.clear(item.siren, "state", t, "as commanded"))
                continue
            if item.on is None:
                is_on = "not known whether it sounds; check its power and cable"
            else:
                is_on = "sounds and should not" if item.on else "should sound and does not"
            self._publish(self._health.condition(item.siren, "state", t, is_on, "failed"))

    def _take_siren_output(self, t: int) -> None:
        for group in self._sirens.values():
            if not group.path:
                group.driver.opened(t)
            self._collect(group, t)

    def self_test(self, sirens: Sequence[str], t: int) -> None:
        """Have sirens prove that they are silent; an empty ``sirens`` means all.

        Raises:
            ValueError: an unknown siren, or one that is wanted to sound.
        """
        chosen = self._chosen(sirens)
        names = [name for name, arbiter in self._arbiters.items() if arbiter in chosen]
        for name in names:
            if (serving := self._arbiters[name].serving) is not None:
                raise ValueError(f"{name} is busy with {serving.alert}; silence it first")
        for name in names:
            self._begin_self_test(name, t)

    def _begin_self_test(self, name: str, t: int) -> None:
        for group in self._sirens.values():
            if name in group.arbiters and self._self_tests.begin(name, t):
                group.driver.self_test(name, t)
                self._drain(group.path, group.driver)

    def _tick_self_tests(self, t: int) -> None:
        busy = {name for name, arbiter in self._arbiters.items() if arbiter.serving is not None}
        due, failed = self._self_tests.tick(t, busy)
        for name in due:
            self._begin_self_test(name, t)
        for name in failed:
            detail = self._self_tests.detail(name)
            self._publish(self._health.condition(name, "self_test", t, detail, "failed"))

    # -- orders ----------------------------------------------------------------------------------

    def arm(self, arming: Arming, t: int) -> None:
        """Another arming mode from now on."""
        self._arming, self._status = arming, arming.status
        left_s = None if arming.until_ns is None else (arming.until_ns - t) / NS
        change = ArmingChange(arming.mode.value, t, arming.by, left_s, arming.sound)
        self._publish([change])
        if arming.mode is Mode.armed:
            self._publish(self._health.clear("sirens", "arming", t, f"armed by {arming.by}"))
        else:
            detail = f"{arming.mode} by {arming.by}"
            self._publish(self._health.condition("sirens", "arming", t, detail))
        for arbiter in self._arbiters.values():
            arbiter.mute(t, arming.muted)
        self._collect_all(t)

    def maintain(self, sensor: str, for_s: float | None, t: int, by: str) -> None:
        """Somebody works on a sensor of readings for so long; None: nobody does any more.

        Raises:
            ValueError: no such sensor, or a time that is too long.
        """
        if sensor not in self._scalar:
            there = ", ".join(self._scalar) or "none"
            raise ValueError(
                f"no sensor of readings {sensor!r}; there are {there}. For work on a seismometer "
                "disarm the site"
            )
        if for_s is not None and not 0 < for_s <= MAX_MAINTENANCE_S:
            limit_h = MAX_MAINTENANCE_S // 3600
            raise ValueError(f"maintenance needs a time of up to {limit_h} h; got {for_s!r} s")
        until_ns = None if for_s is None else t + round(for_s * NS)
        self._decide(self._scalar[sensor].gauge.maintain(until_ns, t), sensor, t)
        self._state_maintenance(sensor, t, by)

    def _state_maintenance(self, sensor: str, t: int, by: str) -> None:
        if self._scalar[sensor].gauge.maintenance_until_ns is None:
            self._publish(self._health.clear(sensor, "maintenance", t, f"ended by {by}"))
        else:
            detail = f"worked on, its readings count as missing; by {by}"
            self._publish(self._health.condition(sensor, "maintenance", t, detail))

    def warn(
        self, hazard: Hazard, level: Level, expires_utc_ns: int, t: int, command: str, by: str
    ) -> None:
        """A warning of the authorities that scales of this station wait for.

        ``level`` none ends the one that is in force.

        Raises:
            ValueError: no scale here waits for it, or its validity is over or too long.
        """
        offset = self._utc_offset_ns
        self._warned(self._warnings.take(hazard, level, expires_utc_ns, t, offset, command, by), t)

    def _warned(self, changes: Sequence[OfficialWarning], t: int) -> None:
        self._publish(changes)
        for scalar in self._scalar.values():
            found = scalar.gauge.warn(self._warnings.in_force, t)
            self._decide(found, scalar.sensor.name, t)

    def siren_on(self, request: Request, sirens: Sequence[str], t: int) -> None:
        """Sound a pattern by order. An empty ``sirens`` means all.

        Raises:
            ValueError: an unknown siren or pattern, or an air-raid signal that no plan of this
                site is authorised to give.
        """
        known = {pattern.name: pattern for pattern in self.config.patterns}
        if request.pattern not in known:
            raise ValueError(
                f"no pattern {request.pattern!r}; there are {', '.join(sorted(known))}"
            )
        authorised = any(plan.civil_defence_reference for plan in self.config.plans)
        if known[request.pattern].civil_defence and not authorised:
            raise ValueError(
                f"{request.pattern!r} is an air-raid signal; no plan here has "
                "civil_defence_authorised = true with its reference"
            )
        for arbiter in self._chosen(sirens):
            arbiter.request(request, t)
        self._collect_all(t)

    def siren_off(self, sirens: Sequence[str], t: int, reason: str) -> None:
        """Silence what sounds, until an alert's level rises or a new one begins.

        Raises:
            ValueError: an unknown siren.
        """
        levels = {alert.id: alert.level for alert in self._lifecycle.active.values()}
        chosen = self._chosen(sirens)
        for arbiter in chosen:
            arbiter.silence(t, reason, levels)
        if len(chosen) == len(self._arbiters):
            self._lifecycle.acknowledge()
        self._collect_all(t)

    def _chosen(self, sirens: Sequence[str]) -> list[Arbiter]:
        for name in sirens:
            if name not in self._arbiters:
                there = ", ".join(self._arbiters) or "none"
                raise ValueError(f"no siren {name!r}; there are {there}")
        return [self._arbiters[name] for name in sirens or self._arbiters]

    def stop(self, t: int, reason: str) -> None:
        """Silence every siren, and sound none again."""
        for arbiter in self._arbiters.values():
            arbiter.silence(t, reason, {})
            arbiter.mute(t, reason)
        self._collect_all(t)

    def loud(self) -> list[str]:
        """Sirens that are to sound, or that have not said that they are silent again."""
        return [
            name
            for name, arbiter in self._arbiters.items()
            if arbiter.on or self._reported.get(name, False) is not False
        ]

    def cancel(self, alert_id: str, t: int, reason: str) -> bool:
        """End an alert by order; False if there is none of that id."""
        steps = self._lifecycle.cancel(alert_id, t, reason)
        self._alerts(steps, t)
        return bool(steps)

    def note(self, component: str, kind: str, t: int, detail: str, *, wrong: bool) -> None:
        """A condition of the shell's own (journal, clock, feed) begins or ends."""
        if wrong:
            self._publish(self._health.condition(component, kind, t, detail, "failed"))
        else:
            self._publish(self._health.clear(component, kind, t, detail))

    def incident(self, component: str, kind: str, t: int, detail: str = "", count: int = 1) -> None:
        """Something of the shell's own happened, such as a refused command."""
        self._publish(self._health.incident(component, kind, t, detail, count))

    # -- outputs ---------------------------------------------------------------------------------

    def _drain(self, port: str, driver: Any) -> None:
        data = driver.to_send()
        if data and self._send is not None:
            self._send(port, data)

    def _publish(self, events: Iterable[Event | AlertStep]) -> None:
        for event in events:
            self._published.append((event, self._utc_offset_ns))

    def published(self) -> list[tuple[Event, int]]:
        """Events with the UTC offset that held when they were decided, each given once."""
        drained, self._published = self._published, []
        return [
            (self._lifecycle.worded(event) if isinstance(event, AlertStep) else event, offset_ns)
            for event, offset_ns in drained
        ]

    def data(self) -> list[Packet | Reading | Measured]:
        """Packets and readings that came in and what is made of these, each given once."""
        drained, self._data = self._data, []
        return drained

    # -- state -----------------------------------------------------------------------------------

    @property
    def sounding(self) -> bool:
        """Whether any siren serves an alert, so that time goes on mattering."""
        return any(arbiter.serving for arbiter in self._arbiters.values())

    @property
    def alert_count(self) -> int:
        return len(self._lifecycle.active)

    @property
    def arming(self) -> Arming:
        return self._arming

    def status(self, now: int | None = None) -> dict[str, Any]:
        """What `gateway status` shows, as plain JSON types; as of the last input if not told."""
        t = self._t if now is None else max(now, self._t)
        return {
            "station": self.config.station.id,
            "arming": self._arming.state(t),
            "sensors": {
                name: {
                    "kind": chain.sensor.kind,
                    "port": chain.sensor.port.path,
                    "age_s": None if chain.heard_ns is None else (t - chain.heard_ns) / NS,
                    **(self._scalar[name].gauge.status(t) if name in self._scalar else {}),
                }
                for name, chain in ((c.sensor.name, c) for c in self._chains)
            },
            "sirens": {
                name: {
                    "on": arbiter.on,
                    "alert": arbiter.serving.alert if arbiter.serving else None,
                    "pattern": arbiter.serving.pattern if arbiter.serving else None,
                    "self_test": self._self_tests.status(name, t),
                }
                for name, arbiter in self._arbiters.items()
            },
            "alerts": self._lifecycle.state(),
            "warnings": self._warnings.status(),
            "health": [
                {"component": h.component, "kind": h.kind, "state": h.state, "detail": h.detail}
                for h in self._health.open()
            ],
            "totals": self._health.totals(),
        }

    def state(self, now: int | None = None) -> dict[str, Any]:
        """What must survive this process, as plain JSON types; as of the last input if not told."""
        t, offset = self._t if now is None else max(now, self._t), self._utc_offset_ns
        return {
            "t": t,
            "arming": self._arming.state(t),
            "alerts": self._lifecycle.state(),
            "past": self._lifecycle.past(),
            "sirens": {name: arbiter.state(t) for name, arbiter in self._arbiters.items()},
            "warnings": self._warnings.state(),
            "gauges": {
                name: scalar.gauge.state(t, offset) for name, scalar in self._scalar.items()
            },
        }

    def restore(self, state: Mapping[str, Any], t: int, *, same_boot: bool) -> None:
        """Take up what :meth:`state` gave before the last end of this process.

        In the same boot, sirens whose deadline has not passed resume. After a reboot nothing
        sounds: alerts are known as interrupted, arming goes on with the time it had left.
        """
        self._t = max(self._t, t)
        try:
            self.arm(Arming.restore(state.get("arming"), t), t)
        except ValueError as error:
            self._publish(self._health.condition("sirens", "arming_state", t, str(error), "failed"))
        self._lifecycle.restore(state.get("alerts", []), t, same_boot=same_boot)
        offset = self._utc_offset_ns
        try:
            self._warned(self._warnings.restore(state.get("warnings", []), t, offset), t)
        except ValueError as error:
            self.note("warnings", "state", t, str(error), wrong=True)
        for name, saved in state.get("gauges", {}).items():
            if name not in self._scalar:
                continue
            for text in self._scalar[name].gauge.restore(saved, t, offset):
                self.note(name, "gauge_state", t, text, wrong=True)
            self._state_maintenance(name, t, "order before the restart")
        if same_boot:
            self._lifecycle.restore_past(state.get("past", {}))
            for name, saved in state.get("sirens", {}).items():
                if name in self._arbiters:
                    self._arbiters[name].restore(saved, t)
        self._collect_all(t)


def _due(deadline: int | None, t: int) -> bool:
    return deadline is not None and deadline <= t


def _names(group: _Sirens) -> str:
    return "+".join(group.arbiters)
