"""One scalar sensor: its scales, its days of rain, and what is known of it at a moment.

::

    Reading ─► scales (evaluator) ─► LevelChange, Quality
            └► days of rain       ─► RainDay

A sensor *in maintenance* is one that somebody works on, as a gauge that is being cleaned: water
poured through it is no rain, so its readings count as missing, no level of it stands, and its
windows and days are incomplete. Maintenance is for a stated time and ends by itself; that time
runs while the gateway has power, as that of disarming does.

A scale that waits for a warning of the authorities is in force only while one holds.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from gateway.detect.days import HOUR_NS, DayKind, DayTotal, DayTotals
from gateway.detect.evaluator import Evaluator, Mode
from gateway.detect.level import make
from gateway.detect.rain import QUANTITIES, RainEvaluator, RainGauge
from gateway.detect.scale import RAIN, Scale
from gateway.events import (
    MICRO,
    NS,
    Hazard,
    LevelChange,
    Observed,
    Quality,
    RainDay,
    Reading,
)

Output = LevelChange | Observed | Quality | RainDay

MAX_MAINTENANCE_S = 8 * 3600
MEASURED_EVERY_NS = 60 * NS
COMPARED_EVERY_NS = 600 * NS
"""How often gauges of a site are compared: a blocked one shows over hours."""
REMEMBERED_DAYS = 10
"""Finished days of each kind that state and status hold, for reports."""

_HIGHEST_MICRO = 40 * MICRO
_STUCK_S = 3600
"""Of a gauge without a scale of its own: see rainstorm-national.toml."""


class Gauge:
    """Everything that is made of the readings of one scalar sensor.

    Args:
        name: of the sensor.
        scales: those in force at the station; each takes what is for it.
        wrap_micro: value at which its rain counter begins again at 0; None: it never does.
        observed: hazards whose plan judges what is measured.
    """

    def __init__(
        self,
        name: str,
        scales: Iterable[Scale],
        wrap_micro: int | None = None,
        observed: Collection[Hazard] = (),
    ) -> None:
        scales = tuple(scales)
        self.name = name
        self.evaluators: list[Evaluator] = [make(scale, name, wrap_micro) for scale in scales]
        for evaluator in self.evaluators:
            evaluator.observed = evaluator.scale.hazard in observed
        self._rain_evaluator = next(
            (e for e in self.evaluators if isinstance(e, RainEvaluator)), None
        )
        self.latest: dict[str, Reading] = {}
        self.maintenance_until_ns: int | None = None
        self._warned: frozenset[Hazard] = frozenset()
        self._rain = _Days(name, [s for s in scales if s.quantities == (RAIN,)], wrap_micro)
        self._last_ns: dict[str, int] = {}
        self._measured_ns: int | None = None
        self._compared_ns: int | None = None
        self._due: tuple[int, int | None] | None = None
        """The next deadline and the UTC offset for which it holds, until something changes it."""

    # -- inputs ----------------------------------------------------------------------------------

    def reading(self, reading: Reading, utc_offset_ns: int) -> list[Output]:
        """Take a reading. ``utc_offset_ns`` is UTC minus the stream clock, for the days."""
        self.latest[reading.quantity] = reading
        self._due = None
        out: list[Output] = []
        for evaluator in self.evaluators:
            for output in evaluator.reading(reading):
                # Two scales over one sensor find the same fault: it is one.
                if output not in out:
                    out.append(output)
        if reading.quantity in QUANTITIES:
            newest = self._last_ns.get(reading.quantity)
            if newest is None or reading.time_ns > newest:
                self._last_ns[reading.quantity] = reading.time_ns
                out += self._rain.reading(
                    reading, utc_offset_ns, counts=self.maintenance_until_ns is None
                )
        return out

    def tick(self, t: int, utc_offset_ns: int) -> list[Output]:
        """Levels whose hold time has passed end, and so do days."""
        self._due = None
        out: list[Output] = []
        for evaluator in self.evaluators:
            out += evaluator.tick(t)
        return out + self._rain.tick(t, utc_offset_ns)

    def unknown(self, t: int) -> list[Output]:
        """The sensor has fallen silent."""
        self._due = None
        return [output for evaluator in self.evaluators for output in evaluator.unknown(t)]

    def next_deadline(self, utc_offset_ns: int) -> int | None:
        """When :meth:`tick` is next wanted."""
        if self._due is None or self._due[0] != utc_offset_ns:
            times = [evaluator.next_deadline() for evaluator in self.evaluators]
            times.append(self._rain.next_deadline(utc_offset_ns))
            self._due = utc_offset_ns, min((x for x in times if x is not None), default=None)
        return self._due[1]

    def ended(self) -> list[Output]:
        """A recording is over: the days that it leaves unfinished."""
        return list(self._rain.unfinished())

    # -- modes -----------------------------------------------------------------------------------

    def maintain(self, until_ns: int | None, t: int) -> list[Output]:
        """Somebody works on the sensor until then; None: nobody does any more."""
        self.maintenance_until_ns = until_ns
        return self._set_modes(t)

    def warn(self, hazards: Collection[Hazard], t: int) -> list[Output]:
        """The hazards of which a warning of the authorities is in force."""
        self._warned = frozenset(hazards)
        return self._set_modes(t)

    def _set_modes(self, t: int) -> list[Output]:
        self._due = None
        out: list[Output] = []
        for evaluator in self.evaluators:
            needed = evaluator.scale.needs_warning
            mode = Mode.live if needed is None or needed in self._warned else Mode.quiet
            if self.maintenance_until_ns is not None:
                mode = Mode.maintenance
            if mode is not evaluator.mode:
                out += evaluator.set_mode(mode, t)
        return out

    # -- neighbours ------------------------------------------------------------------------------

    def compare(self, others: Iterable["Gauge"], t: int) -> list[Output]:
        """Report this gauge if it stays dry where a neighbour of the site catches rain."""
        mine = self._catches()
        due = self._compared_ns is None or t - self._compared_ns >= COMPARED_EVERY_NS
        if mine is None or not due or self.maintenance_until_ns is not None:
            return []
        self._compared_ns = t
        out: list[Output] = []
        for other in others:
            theirs = other._catches()  # noqa: SLF001  one of our own
            if theirs is not None and other is not self:
                out += mine.compare(theirs, t)
        return out

    def _catches(self) -> RainEvaluator | None:
        """What it makes of rain, if it measures any."""
        return self._rain_evaluator if self._rain.gauge.quantity else None

    # -- what is known ---------------------------------------------------------------------------

    def measured_due(self, t: int) -> bool:
        """Whether a minute has passed since this was last true."""
        last = self._measured_ns
        if last is not None and t // MEASURED_EVERY_NS == last // MEASURED_EVERY_NS:
            return False
        self._measured_ns = t
        return True

    def values(self, t: int) -> dict[str, float]:
        """The latest readings and what is made of them; names carry the units."""
        found = {q: r.micro / MICRO for q, r in self.latest.items() if r.micro is not None}
        for evaluator in self.evaluators:
            if any(quantity in evaluator.quantities for quantity in self.latest):
                found |= evaluator.values(t)
        return found | self._rain.values()

    def status(self, t: int) -> dict[str, Any]:
        """:meth:`values`, levels that stand, faults counted, days, what is left of maintenance."""
        faults: dict[str, int] = {}
        for evaluator in self.evaluators:
            for kind, count in evaluator.faults.items():
                faults[kind] = max(faults.get(kind, 0), count)
        until_ns = self.maintenance_until_ns
        return {
            **self.values(t),
            "levels": {e.scale.name: e.level.name for e in self.evaluators if e.level},
            "faults": faults,
            "days": self._rain.finished,
            "maintenance_s": None if until_ns is None else (until_ns - t) / NS,
        }

    # -- state -----------------------------------------------------------------------------------

    def state(self, t: int, utc_offset_ns: int) -> dict[str, Any]:
        """What a restart needs, as JSON types."""
        until_ns = self.maintenance_until_ns
        return {
            "scales": [evaluator.state(utc_offset_ns) for evaluator in self.evaluators],
            "days": self._rain.state(utc_offset_ns),
            "maintenance_left_ns": None if until_ns is None else max(0, until_ns - t),
        }

    def restore(self, state: Mapping[str, Any], t: int, utc_offset_ns: int) -> list[str]:
        """Take over what :meth:`state` gave, each part by itself; says what could not be read."""
        self._due = None
        wrong = []
        saved = {s.get("scale"): s for s in state.get("scales", []) if isinstance(s, Mapping)}
        for evaluator in self.evaluators:
            try:
                evaluator.restore(saved.get(evaluator.scale.name, {}), t, utc_offset_ns)
            except ValueError as error:
                wrong.append(f"sums begin anew: {error}")
        try:
            self._rain.restore(state.get("days", {}), t, utc_offset_ns)
        except ValueError as error:
            wrong.append(f"days begin anew: {error}")
        left = state.get("maintenance_left_ns")
        if isinstance(left, int) and left > 0:
            self.maintain(t + min(left, MAX_MAINTENANCE_S * NS), t)
        return wrong


class _Days:
    """Both kinds of days of one gauge, in UTC, and those that are over."""

    def __init__(self, sensor: str, scales: list[Scale], wrap_micro: int | None) -> None:
        highest = scales[0].highest_micro if scales else _HIGHEST_MICRO
        stuck_s = scales[0].stuck_s if scales else _STUCK_S
        self._sensor = sensor
        self.gauge = RainGauge(highest, stuck_s, wrap_micro)
        self._totals = [DayTotals(kind, None) for kind in DayKind]
        self._last_ns: int | None = None
        self.finished: list[dict[str, Any]] = []

    def reading(self, reading: Reading, utc_offset_ns: int, *, counts: bool) -> list[RainDay]:
        fallen = self.gauge.take(reading)
        if fallen is None:
            return []
        t, nm = reading.time_ns, fallen.nm if counts else None
        if nm == 0 and self._last_ns is not None:
            # It reports dry intervals too, so that its silence is a gap.
            longest_ns = max(HOUR_NS, 2 * (t - self._last_ns))
            for totals in self._totals:
                totals.longest_ns = min(totals.longest_ns or longest_ns, longest_ns)
        self._last_ns = t
        if nm is None and reading.micro is not None and counts and not fallen.fault:
            # The baseline of a counter: nothing is known to be missing.
            nm = 0 if reading.quantity == "rain_total_mm" else None
        over = [day for totals in self._totals for day in totals.add(t + utc_offset_ns, nm)]
        return self._over(over, utc_offset_ns)

    def tick(self, t: int, utc_offset_ns: int) -> list[RainDay]:
        over = [day for totals in self._totals for day in totals.tick(t + utc_offset_ns)]
        return self._over(over, utc_offset_ns)

    def next_deadline(self, utc_offset_ns: int) -> int | None:
        times = [totals.next_deadline() for totals in self._totals]
        return min((x - utc_offset_ns for x in times if x is not None), default=None)

    def unfinished(self) -> list[RainDay]:
        days = [totals.current() for totals in self._totals]
        return [
            self._record(day, self._last_ns or 0, over=False) for day in days if day is not None
        ]

    def values(self) -> dict[str, float]:
        found = {}
        for totals in self._totals:
            if (day := totals.current()) is not None:
                name = f"rain_day{totals.kind.hour:02d}"
                found[f"{name}_mm"] = day.mm
                found[f"{name}_missing"] = float(day.missing)
        return found

    def _over(self, days: list[DayTotal], utc_offset_ns: int) -> list[RainDay]:
        records = []
        for day in days:
            end_ns = day.kind.start_ns(day.day) + 24 * HOUR_NS
            record = self._record(day, end_ns - utc_offset_ns, over=True)
            records.append(record)
            self.finished.append(
                {
                    "kind": record.kind,
                    "day": record.day,
                    "mm": record.mm,
                    "first_half_mm": record.first_half_mm,
                    "missing": record.missing,
                    "complete": record.complete,
                }
            )
        del self.finished[: -REMEMBERED_DAYS * len(DayKind)]
        return records

    def _record(self, day: DayTotal, time_ns: int, *, over: bool) -> RainDay:
        return RainDay(
            sensor=self._sensor,
            kind=day.kind.name,  # type: ignore[arg-type]  # the names of the enumeration
            day=day.day.isoformat(),
            time_ns=time_ns,
            mm=day.mm,
            first_half_mm=day.first_half_nm / MICRO,
            second_half_mm=(day.nm - day.first_half_nm) / MICRO,
            missing=day.missing,
            complete=day.complete,
            over=over,
        )

    def state(self, utc_offset_ns: int) -> dict[str, Any]:
        place = self.gauge.counter
        return {
            "totals": {totals.kind.name: totals.state() for totals in self._totals},
            "counter": None if place is None else [place[0] + utc_offset_ns, place[1]],
            "finished": self.finished,
        }

    def restore(self, state: Mapping[str, Any], t: int, utc_offset_ns: int) -> None:
        """Take over what :meth:`state` gave; raises ValueError where it is of another form.

        A place of the counter from the future (the clock was wrong, then or now) is left out.
        """
        if not state:
            return
        try:
            for totals in self._totals:
                totals.restore(state["totals"][totals.kind.name])
            self.finished = [dict(day) for day in state["finished"]]
            if state["counter"] is not None:
                moment, value = (int(number) for number in state["counter"])
                if moment - utc_offset_ns <= t:
                    self.gauge.counter = (moment - utc_offset_ns, value)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"saved days of {self._sensor}: {error!r}") from error
