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
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from gateway.detect.rolling import Rolling
from gateway.detect.scale import Condition, Scale, Step
from gateway.events import MICRO, NS, Level, LevelChange, Observed, Quality, Reading

REPORT_EVERY_NS = 3600 * NS
"""A kind of fault is reported once in this time; in between it is counted."""

EVER_NS: Final = 1 << 63
"""Later than any time."""

Output = LevelChange | Observed | Quality


class Mode(Enum):
    """What readings do."""

    live = "live"
    """They count, and levels rise."""

    quiet = "quiet"
    """They count, but no level stands: the warning that the scale needs is not in force."""

    maintenance = "maintenance"
    """They count as missing, and no level stands: someone is working on the sensor."""


_LIVE = Mode.live
"""Python 3.11 looks up a member of an enumeration by several calls, each time."""


@dataclass(slots=True)
class _Standing:
    """A level that stands.

    ``by`` is the condition that reached it, ``value_micro`` the last value known of that; of a
    level that a restart only ``restored``, ``by`` is the first condition.
    """

    step: Step
    by: Condition
    value_micro: int = 0
    below_since_ns: int | None = None
    restored: bool = False


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
        self._standing: dict[Level, _Standing] = {}
        self._hold_ns = scale.hold_s * NS
        self._now = -EVER_NS
        self._unseen_ns: int | None = None
        self._last_ns: dict[str, int] = {}
        self._rollings: list[Rolling] = []
        self._kept: dict[str, Rolling] = {}
        self._indicative = False
        self.observed = False
        """Set to have what is known said at every reading, for a plan that judges it."""
        self.quantities: Collection[str] = scale.quantities
        """Those of which it takes readings."""

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
    def _known(self, t: int) -> dict[str, float]:
        """What is known at ``t``, to which it has been rolled; names carry the units."""

    # --- the interface --------------------------------------------------------------------------

    def values(self, t: int) -> dict[str, float]:
        """What is known at ``t``, for status and telemetry; names carry the units.

        Where a level stands, :meth:`tick` has to be told of ``t`` first.
        """
        self._look(t)
        return self._known(t)

    def reading(self, reading: Reading) -> list[Output]:
        """Take a reading; those of other sensors and quantities are left alone."""
        if reading.sensor != self.sensor or reading.quantity not in self.quantities:
            return []
        t = reading.time_ns
        last = self._last_ns.get(reading.quantity)
        if last is not None and t <= last:
            return self._fault("overlap", t, f"{reading.quantity} is not newer than the last one")
        self._last_ns[reading.quantity] = t
        out = self._end_until(t) if self._standing else []
        self._roll(t)
        if self._unseen_ns is None:
            self._unseen_ns = t
        if self.scale.indicative:
            self._mark_indicative(t, "these sensors are no reference instruments", out)
        counted = self._take(reading, out)
        if not counted:
            self._unseen_ns = max(self._unseen_ns, t)
        if self._standing:
            out += self._settle(t)
        if counted and self.mode is _LIVE:
            out += self._raise(t)
        if self.observed and self.mode is _LIVE:
            out.append(Observed(self.sensor, self.scale.hazard, self.scale.name, t, self._known(t)))
        return out

    def tick(self, t: int) -> list[Output]:
        """Time has come to ``t``: levels whose hold time has passed end."""
        out = self._end_until(t) if self._standing else []
        self._roll(t)
        return out

    def next_deadline(self) -> int | None:
        """When :meth:`tick` is next wanted; None while no level stands."""
        if not self._standing:
            return None
        moments = []
        for standing in self._standing.values():
            moments += [self._changes(condition) for condition in standing.step.conditions]
            if standing.below_since_ns is not None:
                moments.append(standing.below_since_ns + self._hold_ns)
        return min((x for x in moments if x is not None), default=None)

    def set_mode(self, mode: Mode, t: int) -> list[Output]:
        """Change the mode. Leaving ``live`` ends the level that stands."""
        out = self.tick(t)
        self.mode = mode
        if mode is not Mode.live:
            ended = [self._standing.pop(level) for level in sorted(self._standing)]
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
        return self._unseen_ns is not None and self._unseen_ns <= self._now - window_s * NS

    def state(self, utc_offset_ns: int) -> dict[str, Any]:
        """What a restart needs, as JSON types; times are UTC (``utc_offset_ns`` + stream time)."""
        return {
            "scale": self.scale.name,
            "sensor": self.sensor,
            "levels": [level.name for level in sorted(self._standing)],
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
        for step in self.scale.steps:
            if step.level in levels and self.mode is Mode.live:
                self._standing[step.level] = _Standing(
                    step, step.conditions[0], below_since_ns=t, restored=True
                )

    def _take_over(self) -> None:  # noqa: B027  most scales have nothing to do here
        """What follows from entries that were restored."""

    # --- the levels -----------------------------------------------------------------------------

    def _roll(self, t: int) -> None:
        """Roll to ``t``; time that was already passed (a reading came late) stays passed."""
        self._now = max(self._now, t)
        for rolling in self._rollings:
            if rolling.entries:
                rolling.roll(self._now)

    def _look(self, t: int) -> None:
        """Roll to ``t``, unless a level's fate may turn on the way: that is for :meth:`tick`."""
        due = self.next_deadline()
        if due is None or due > t:
            self._roll(t)

    def _end_until(self, t: int) -> list[Output]:
        """End each level whose hold time passes until ``t``, at the moment when it does."""
        out: list[Output] = []
        while (due := self.next_deadline()) is not None and due <= t:
            self._roll(due)
            out += self._settle(due)
        return out

    def _settle(self, t: int) -> list[Output]:
        """Note since when standing levels are below, and end those that were for long enough."""
        ended = []
        for level, standing in sorted(self._standing.items()):
            held = False
            for condition in standing.step.conditions:
                value = self._value(condition)
                held = held or (value is not None and value >= condition.below_micro)
                if condition is standing.by and value is not None:
                    standing.value_micro = value
            if held:
                standing.below_since_ns = None
            elif standing.below_since_ns is None:
                standing.below_since_ns = t
            if standing.below_since_ns is not None and t - standing.below_since_ns >= self._hold_ns:
                ended.append(self._standing.pop(level))
        return self._announce(t, ended)

    def _raise(self, t: int) -> list[Output]:
        """Let levels that are reached stand; what to say where that makes another the highest."""
        highest: _Standing | None = None
        for step in self.scale.steps:
            standing = self._standing.get(step.level)
            if standing is not None and not standing.restored:
                highest = standing
                continue
            for condition in step.conditions:
                value = self._value(condition)
                if value is not None and value >= condition.at_least_micro:
                    highest = self._standing[step.level] = _Standing(step, condition, value)
                    break
        if highest is None or highest.step.level is self.level:
            return []
        return [self._change(highest.step.level, highest, t)]

    def _announce(self, t: int, ended: list[_Standing]) -> list[Output]:
        """What to say when levels, given lowest first, have ended."""
        if not ended:
            return []
        if not self._standing:
            return [self._change(Level.none, ended[-1], t)]
        reached = [level for level, standing in self._standing.items() if not standing.restored]
        level = max(reached, default=self.level)
        return [] if level is self.level else [self._change(level, self._standing[level], t)]

    def _change(self, level: Level, standing: _Standing, t: int) -> LevelChange:
        """The change to ``level``, decided by what is, or was, standing."""
        self.level = level
        by = standing.by
        return LevelChange(
            self.sensor,
            self.scale.hazard,
            level,
            t,
            standing.value_micro / MICRO,
            self.scale.unit,
            by.window_s / 3600 if by.window_s else None,
            self.complete(by.window_s),
            self.scale.name,
            self._known(t),
        )

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
