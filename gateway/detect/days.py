"""Days of rain as Chinese services count them, in fixed UTC+08:00, whatever the host's zone.

=====================  ======================  ===============================================
day                    interval                named after
=====================  ======================  ===============================================
meteorological         (20:00, 20:00]          the date on which it ends; halves 20–08, 08–20
hydrological           (08:00, 08:00]          the date on which it starts
=====================  ======================  ===============================================

An amount belongs to the day in which its interval *ends*, whole; one that ends at 08:00:00 belongs
to what ends then. Sources: 地面气象观测规范 (day boundary 20:00 Beijing time) and SL 21
降水量观测规范 (日分界 08:00). Times here are UTC in nanoseconds since 1970, amounts nanometres.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any

from gateway.events import MICRO, NS

HOUR_NS = 3600 * NS
_HALF_NS = 12 * HOUR_NS
_OFFSET_NS = 8 * HOUR_NS
MAX_DAYS = 31
"""Days without a reading that are told of; after a longer silence, or when the clock was wrong by
so much, totals begin anew."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DayKind(Enum):
    """Which day: the hour at which it begins and ends, and which of its dates names it."""

    meteorological = (20, 1)
    hydrological = (8, 0)

    @property
    def hour(self) -> int:
        """Local hour of the boundary."""
        return self.value[0]

    def start_ns(self, day: date) -> int:
        """UTC of the beginning of the day of that name; the beginning itself is not in it."""
        first = day - timedelta(days=self.value[1])
        days = first.toordinal() - _EPOCH.toordinal()
        return days * 24 * HOUR_NS + self.hour * HOUR_NS - _OFFSET_NS

    def of(self, end_ns: int) -> date:
        """The day to which an interval belongs that ends at ``end_ns`` (UTC)."""
        # One nanosecond back, so that an end on the boundary is in the day that ends there.
        passed = (end_ns - 1 + _OFFSET_NS - self.hour * HOUR_NS) // (24 * HOUR_NS)
        return date.fromordinal(_EPOCH.toordinal() + passed + self.value[1])


@dataclass(frozen=True, slots=True)
class DayTotal:
    """Rain of one day. ``first_half_nm`` is what fell in its first twelve hours.

    ``missing`` counts the readings that were missing; ``complete`` is True only if there was none
    and the day was watched from its beginning to its end.
    """

    kind: DayKind
    day: date
    nm: int
    first_half_nm: int
    missing: int
    complete: bool

    @property
    def mm(self) -> float:
        return self.nm / MICRO


class DayTotals:
    """Running total of one kind of day; tells each day when it is over.

    Args:
        kind: which day.
        longest_ns: readings further apart than this leave a gap, which counts as one missing
            reading of each day that it touches; None for a gauge that speaks only when it rains.
    """

    def __init__(self, kind: DayKind, longest_ns: int | None = HOUR_NS) -> None:
        self.kind = kind
        self.longest_ns = longest_ns
        self._day: date | None = None
        self._last_ns = 0
        self._nm = self._first_half_nm = self._missing = 0
        self._whole = False

    def add(self, end_ns: int, nm: int | None) -> list[DayTotal]:
        """Add the amount of an interval that ends at ``end_ns``; None is a missing one.

        Readings come in rising order of time. Returns the days that are over by then, oldest
        first; a day without any reading is among them, with no rain and incomplete.
        """
        gap = self._gap(end_ns)
        over = self._close(end_ns, gap=gap)
        if self._day is None:
            self._day = self.kind.of(end_ns)
        day, self._last_ns = self._day, end_ns
        self._missing += gap + (nm is None)
        self._nm += nm or 0
        if end_ns <= self.kind.start_ns(day) + _HALF_NS:
            self._first_half_nm += nm or 0
        return over

    def tick(self, now_ns: int) -> list[DayTotal]:
        """Days that are over at ``now_ns``.

        While the next reading may still close the day without a gap, that is waited for.
        """
        gap = self._gap(now_ns)
        return self._close(now_ns, gap=gap) if gap or not self.longest_ns else []

    def next_deadline(self) -> int | None:
        """When :meth:`tick` has something to tell at the latest; None before any reading."""
        if self._day is None:
            return None
        end_ns = self.end_ns(self._day)
        # Over when a gap has opened behind the last reading, and not before the day itself.
        return max(end_ns, self._last_ns + (self.longest_ns or 0)) + 1

    def current(self) -> DayTotal | None:
        """The day in progress, which is never complete."""
        return None if self._day is None else self._total(self._day, complete=False)

    def end_ns(self, day: date) -> int:
        """UTC of the end of a day."""
        return self.kind.start_ns(day) + 24 * HOUR_NS

    def state(self) -> dict[str, Any]:
        """What a restart needs, as JSON types."""
        return {
            "day": None if self._day is None else self._day.isoformat(),
            "last_ns": self._last_ns,
            "nm": self._nm,
            "first_half_nm": self._first_half_nm,
            "missing": self._missing,
            "whole": self._whole,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave.

        Raises:
            ValueError: it is not of this form; nothing of it was taken over.
        """
        try:
            day = None if state["day"] is None else date.fromisoformat(state["day"])
            numbers = [int(state[k]) for k in ("last_ns", "nm", "first_half_nm", "missing")]
            whole = bool(state["whole"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"saved day of rain: {error!r}") from error
        self._day, self._whole = day, whole
        self._last_ns, self._nm, self._first_half_nm, self._missing = numbers

    def _gap(self, now_ns: int) -> bool:
        return bool(self.longest_ns and self._day and now_ns - self._last_ns > self.longest_ns)

    def _close(self, now_ns: int, *, gap: bool) -> list[DayTotal]:
        over: list[DayTotal] = []
        day = self.kind.of(now_ns)
        if self._day is None or not -1 <= (day - self._day).days <= MAX_DAYS:
            self._day, self._whole = None, False
            self._nm = self._first_half_nm = self._missing = 0
            return over
        while self._day < day:
            end_ns = self.end_ns(self._day)
            self._missing += gap and self._last_ns < end_ns
            over.append(self._total(self._day, complete=self._whole and not self._missing))
            self._day += timedelta(days=1)
            self._nm = self._first_half_nm = self._missing = 0
            self._whole = True
        return over

    def _total(self, day: date, *, complete: bool) -> DayTotal:
        return DayTotal(self.kind, day, self._nm, self._first_half_nm, self._missing, complete)
