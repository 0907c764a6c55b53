"""What every scale does with time: levels that are reached, hold, and end at an exact moment.

A level is *reached* at a reading, when one of its conditions is at or above its threshold. It
*ends* when each of its conditions has been below its lower bound for the whole hold time; as a
rolling window changes without any reading, that moment is computed, not waited for: it is the same
whether the clock is told of it at once, late, or only by the next reading. Nothing but a reading
raises a level: no tick, no restored sum, no change of mode. A value that has become unknown (the
sensor fell silent) counts as below, so that a dead sensor can't hold a level for ever.

Each level has a standing of its own; what is published is the highest that stands, when that
changes, so the end of red gives yellow if yellow still holds.

After a restart the levels that stood are *restored*: they are published again only when a reading
reaches them anew, and if none does, their end is, so that nobody waits for an all-clear in vain.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gateway.detect.rolling import Rolling
from gateway.detect.scale import Condition, Scale, Step
from gateway.events import MICRO, NS, Level, LevelChange, Observed, Quality, Reading

REPORT_EVERY_NS = 3600 * NS
"""A kind of fault is reported once in this time; in between it is counted."""

Output = LevelChange | Observed | Quality


class Mode(Enum):
    """What readings do."""

    live = "live"
    """They count, and levels rise."""

    quiet = "quiet"
    """They count, but no level stands: the warning that the scale needs is not in force."""

    maintenance = "maintenance"
    """They count as missing, and no level stands: someone is working on the sensor."""


class _Standing(Enum):
    idle = 0
    active = 1
    restored = 2


@dataclass(slots=True)
class _Rung:
    """One level of the scale and where it stands.

    ``by`` is the condition that reached it, ``value_micro`` the last value known of that.
    """

    step: Step
    by: Condition
    standing: _Standing = _Standing.idle
    below_since_ns: int | None = None
    value_micro: int = 0


class Evaluator(ABC):
    """One scale over one sensor. Times are stream time in ns, through arguments only.

    Readings of one quantity must come in rising order of time; one that does not is counted and
    left out. ``tick`` may be called at any time, or never.
    """

    def __init__(self, scale: Scale, sensor: str) -> None:
        self.scale = scale
        self.sensor = sensor
        self.mode = Mode.quiet if scale.needs_warning else Mode.live
        self.level = Level.none
        self.faults: Counter[str] = Counter()
        self._reported: dict[str, int] = {}
        self._rungs = [_Rung(step, step.conditions[0]) for step in scale.steps]
        self._hold_ns = scale.hold_s * NS
        self._now: int | None = None
        self._unseen_ns: int | None = None
        self._last_ns: dict[str, int] = {}
        self._rollings: list[Rolling] = []
        self._kept: dict[str, Rolling] = {}
        self._indicative = False
        self.observed = False
        """Set to have what is known said at every reading, for a plan that judges it."""

    # --- what a kind of scale adds --------------------------------------------------------------

    @abstractmethod
    def _take(self, reading: Reading, out: list[Output]) -> bool:
        """Let a reading into the measures; whether it counted. Faults go to ``out``."""

    @abstractmethod
    def _value(self, condition: Condition) -> int | None:
        """What the condition compares, in millionths; None if unknown."""

    @abstractmethod
    def _changes(self, condition: Condition) -> int | None:
        """When that changes next without a reading."""

    @abstractmethod
    def reads(self, quantity: str) -> bool:
        """Whether readings of that quantity are any of its."""

    @abstractmethod
    def _known(self, t: int) -> dict[str, float]:
        """What is known at ``t``, to which it has been rolled; names carry the units."""

    def _may_rise(self, t: int) -> bool:  # noqa: ARG002  rain needs the time
        return self.mode is Mode.live

    # --- the interface --------------------------------------------------------------------------

    def values(self, t: int) -> dict[str, float]:
        """What is known at ``t``, for status and telemetry; names carry the units.

        Where a level stands, :meth:`tick` has to be told of ``t`` first.
        """
        self._look(t)
        return self._known(t)

    def reading(self, reading: Reading) -> list[Output]:
        """Take a reading; those of other sensors and quantities are left alone."""
        if reading.sensor != self.sensor or not self.reads(reading.quantity):
            return []
        t = reading.time_ns
        last = self._last_ns.get(reading.quantity)
        if last is not None and t <= last:
            return self._fault("overlap", t, f"{reading.quantity} is not newer than the last one")
        self._last_ns[reading.quantity] = t
        out = self.tick(t)
        if self._unseen_ns is None:
            self._unseen_ns = t
        if self.scale.indicative:
            self._mark_indicative(t, "these sensors are no reference instruments", out)
        counted = self._take(reading, out)
        if not counted:
            self._unseen_ns = max(self._unseen_ns, t)
        out += self._settle(t)
        if counted and self._may_rise(t):
            out += self._raise(t)
        if self.observed and self.mode is Mode.live:
            out.append(Observed(self.sensor, self.scale.hazard, self.scale.name, t, self._known(t)))
        return out

    def tick(self, t: int) -> list[Output]:
        """Time has come to ``t``: levels whose hold time has passed end."""
        out: list[Output] = []
        while (due := self.next_deadline()) is not None and due <= t:
            self._roll(due)
            out += self._settle(due)
        self._roll(t)
        return out

    def next_deadline(self) -> int | None:
        """When :meth:`tick` is next wanted; None while no level stands."""
        moments = []
        for rung in self._rungs:
            if rung.standing is _Standing.idle:
                continue
            moments += [self._changes(condition) for condition in rung.step.conditions]
            if rung.below_since_ns is not None:
                moments.append(rung.below_since_ns + self._hold_ns)
        return min((x for x in moments if x is not None), default=None) if moments else None

    def set_mode(self, mode: Mode, t: int) -> list[Output]:
        """Change the mode. Leaving ``live`` ends the level that stands."""
        out = self.tick(t)
        self.mode = mode
        if mode is not Mode.live:
            ended = [rung for rung in self._rungs if self._clear(rung)]
            out += self._announce(t, ended)
            out += self.unknown(t)
        return out

    def unknown(self, t: int) -> list[Output]:
        """Nothing is known any more: what a plan judged by it holds no longer."""
        if not self.observed:
            return []
        return [Observed(self.sensor, self.scale.hazard, self.scale.name, t, {})]

    def complete(self, window_s: int) -> bool:
        """Whether everything in the window that ends now was observed."""
        if self._now is None or self._unseen_ns is None:
            return False
        return self._unseen_ns <= self._now - window_s * NS

    def state(self, utc_offset_ns: int) -> dict[str, Any]:
        """What a restart needs, as JSON types; times are UTC (``utc_offset_ns`` + stream time)."""
        return {
            "scale": self.scale.name,
            "sensor": self.sensor,
            "levels": [
                rung.step.level.name for rung in self._rungs if rung.standing is not _Standing.idle
            ],
            "rolling": {
                name: [[entry[0] + utc_offset_ns, *entry[1:]] for entry in self._saved(rolling)]
                for name, rolling in self._kept.items()
            },
        }

    def _saved(self, rolling: Rolling) -> Iterable[tuple[int, ...]]:
        return rolling.entries

    def restore(self, state: Mapping[str, Any], t: int, utc_offset_ns: int) -> None:
        """Take over what :meth:`state` gave, before the first reading.

        What happened between then and the first reading was not observed. Entries from the future
        (the clock was wrong, then or now) are left out. A state of another scale or sensor is
        left alone.

        Raises:
            ValueError: the state is not of this form; nothing of it was taken over.
        """
        if state.get("scale") != self.scale.name or state.get("sensor") != self.sensor:
            return
        try:
            levels = {Level[name] for name in state["levels"]}
            kept = {
                name: sorted(
                    (int(end) - utc_offset_ns, *(int(number) for number in rest))
                    for end, *rest in state["rolling"].get(name, [])
                )
                for name in self._kept
            }
            if any(len(e) != self._kept[n].WIDTH for n, entries in kept.items() for e in entries):
                raise ValueError("an entry of another width")  # noqa: TRY301  one message for all
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"saved state of {self.sensor}: {error!r}") from error
        for name, entries in kept.items():
            self._kept[name].restore(entry for entry in entries if entry[0] <= t)
        self._take_over()
        self._roll(t)
        for rung in self._rungs:
            if rung.step.level in levels and self.mode is Mode.live:
                rung.standing, rung.below_since_ns = _Standing.restored, t

    def _take_over(self) -> None:  # noqa: B027  most scales have nothing to do here
        """What follows from entries that were restored."""

    # --- the levels -----------------------------------------------------------------------------

    def _roll(self, t: int) -> None:
        """Roll to ``t``; time that was already passed (a reading came late) stays passed."""
        if self._now is None or t > self._now:
            self._now = t
        for rolling in self._rollings:
            if rolling.entries:
                rolling.roll(self._now)

    def _look(self, t: int) -> None:
        """Roll to ``t``, unless a level's fate may turn on the way: that is for :meth:`tick`."""
        due = self.next_deadline()
        if due is None or due > t:
            self._roll(t)

    def _settle(self, t: int) -> list[Output]:
        """Note since when standing levels are below, and end those that were for long enough."""
        ended = []
        for rung in self._rungs:
            if rung.standing is _Standing.idle:
                continue
            held = False
            for condition in rung.step.conditions:
                value = self._value(condition)
                held = held or (value is not None and value >= condition.below_micro)
                if condition is rung.by and value is not None:
                    rung.value_micro = value
            if held:
                rung.below_since_ns = None
            elif rung.below_since_ns is None:
                rung.below_since_ns = t
            if rung.below_since_ns is not None and t - rung.below_since_ns >= self._hold_ns:
                self._clear(rung)
                ended.append(rung)
        return self._announce(t, ended) if ended else []

    @staticmethod
    def _clear(rung: _Rung) -> bool:
        stood = rung.standing is not _Standing.idle
        rung.standing, rung.below_since_ns = _Standing.idle, None
        return stood

    def _raise(self, t: int) -> list[Output]:
        risen = False
        for rung in self._rungs:
            if rung.standing is _Standing.active:
                continue
            for condition in rung.step.conditions:
                value = self._value(condition)
                if value is not None and value >= condition.at_least_micro:
                    rung.standing, rung.by, rung.value_micro = _Standing.active, condition, value
                    risen = True
                    break
        return self._announce(t, []) if risen else []

    def _announce(self, t: int, ended: list[_Rung]) -> list[Output]:
        active = [rung for rung in self._rungs if rung.standing is _Standing.active]
        level = active[-1].step.level if active else Level.none
        closing = (
            bool(ended)
            and not active
            and all(rung.standing is not _Standing.restored for rung in self._rungs)
        )
        if level is self.level and not closing:
            return []
        if level is Level.none and not closing:
            return []
        self.level = level
        rung = active[-1] if active else ended[-1]
        return [
            LevelChange(
                self.sensor,
                self.scale.hazard,
                level,
                t,
                rung.value_micro / MICRO,
                self.scale.unit,
                rung.by.window_s / 3600 if rung.by.window_s else None,
                self.complete(rung.by.window_s),
                self.scale.name,
                self._known(t),
            )
        ]

    # --- faults ---------------------------------------------------------------------------------

    def _fault(self, kind: str, t: int, detail: str) -> list[Output]:
        self.faults[kind] += 1
        last = self._reported.get(kind)
        if last is not None and t - last < REPORT_EVERY_NS:
            return []
        self._reported[kind] = t
        return [Quality(self.sensor, kind, t, f"{detail} (counted so far: {self.faults[kind]})")]

    def _recovered(self, t: int, out: list[Output]) -> None:
        """A good reading: a fault that lasted until now is over."""
        if self._reported.pop("flat", None) is not None:
            out.append(Quality(self.sensor, "recovered", t, "the value changes again"))

    def _mark_indicative(self, t: int, why: str, out: list[Output]) -> None:
        if not self._indicative:
            self._indicative = True
            out.append(Quality(self.sensor, "indicative", t, f"{self.scale.name}: {why}"))
