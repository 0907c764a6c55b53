"""Rolling sums, means and extremes over time, exact, in integers, with bounded memory.

A window of width w at time t holds what ended in (t − w, t]: an entry that ends at e is in it from
t = e and leaves it at exactly t = e + w. Every class keeps its entries in a deque, oldest first,
each a tuple that begins with its end; adding and rolling cost O(1) amortised an entry.

================  =====================  =======================================================
class             entry                  at most so many entries
================  =====================  =======================================================
``RollingSum``    (end, amount, span)    ``LIMIT``; beyond, new amounts share the newest entry
``RollingMean``   (end, cover, weight)   ``BINS`` + 1; entries of the same bin are one
``RollingLow``,   (end, value)           ``BINS`` + 1; monotone, entries of the same bin are one
``RollingHigh``
================  =====================  =======================================================

Sharing an entry keeps what it holds in the window until the newest reading in it leaves, so a
shared sum or extreme is never smaller than the exact one. Times and widths are nanoseconds.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import ClassVar

Entry = tuple[int, ...]

LIMIT = 100_000
"""Readings with rain that a sum keeps apart: more than one a second for a whole day."""

BINS = 300


class Rolling(ABC):
    """What all of them share. ``WIDTH`` is how many numbers an entry has."""

    __slots__ = ("_bin_ns", "entries", "window_ns")
    WIDTH: ClassVar[int]

    def __init__(self, window_ns: int) -> None:
        self.window_ns = window_ns
        self.entries: deque[Entry] = deque()
        self._bin_ns = max(window_ns // BINS, 1)

    @abstractmethod
    def restore(self, entries: Iterable[Entry]) -> None:
        """Take over entries that were saved, oldest first."""

    def roll(self, t: int) -> None:
        """Let go of what has left the window by ``t``."""
        start, entries = t - self.window_ns, self.entries
        while entries and entries[0][0] <= start:
            self._forget(entries.popleft())

    def _forget(self, entry: Entry) -> None:  # noqa: B027  extremes have nothing to forget
        """An entry left."""

    @property
    def changes_ns(self) -> int | None:
        """When the oldest entry leaves; None if there is none."""
        return self.entries[0][0] + self.window_ns if self.entries else None

    def _same_bin(self, end: int) -> bool:
        return bool(self.entries) and self.entries[-1][0] // self._bin_ns == end // self._bin_ns


class RollingSum(Rolling):
    """Sum of the amounts in the window. Exact."""

    __slots__ = ("total",)
    WIDTH = 3

    def __init__(self, window_ns: int) -> None:
        super().__init__(window_ns)
        self.total = 0

    def add(self, end: int, amount: int, span: int = 0) -> None:
        """Add an amount that came over ``span``.

        One that came over longer than the window is left out: it says nothing of the window.
        """
        if not amount or span > self.window_ns:
            return
        self.total += amount
        if len(self.entries) >= LIMIT:
            _, shared, before = self.entries.pop()
            amount, span = amount + shared, max(span, before)
        self.entries.append((end, amount, span))

    def restore(self, entries: Iterable[Entry]) -> None:
        for end, amount, span in entries:
            self.add(end, amount, span)

    def _forget(self, entry: Entry) -> None:
        self.total -= entry[1]


class RollingMean(Rolling):
    """Mean of the values in the window, each weighted with the time that it covers."""

    __slots__ = ("covered", "weight")
    WIDTH = 3

    def __init__(self, window_ns: int) -> None:
        super().__init__(window_ns)
        self.covered = 0
        self.weight = 0

    def add(self, end: int, cover: int, value: int) -> None:
        """Add a value that held for ``cover`` ns."""
        if cover > 0:
            self._put(end, cover, value * cover)

    def restore(self, entries: Iterable[Entry]) -> None:
        for end, cover, weight in entries:
            self._put(end, cover, weight)

    def value(self, valid_ns: int) -> int | None:
        """The mean, rounded down (an integer bound is met exactly when the exact mean meets it).

        None while less than ``valid_ns`` of the window is covered.
        """
        if not self.covered or self.covered < valid_ns:
            return None
        return self.weight // self.covered

    def _put(self, end: int, cover: int, weight: int) -> None:
        self.covered += cover
        self.weight += weight
        if self._same_bin(end):
            _, shared_cover, shared_weight = self.entries.pop()
            cover, weight = cover + shared_cover, weight + shared_weight
        self.entries.append((end, cover, weight))

    def _forget(self, entry: Entry) -> None:
        self.covered -= entry[1]
        self.weight -= entry[2]


class RollingHigh(Rolling):
    """Largest value in the window."""

    __slots__ = ()
    WIDTH = 2
    SIGN = 1

    def add(self, end: int, value: int) -> None:
        """Add a value; those that it outdoes can never be the extreme again."""
        entries = self.entries
        while entries and (value - entries[-1][1]) * self.SIGN >= 0:
            entries.pop()
        if self._same_bin(end):
            value = entries.pop()[1]
        entries.append((end, value))

    def restore(self, entries: Iterable[Entry]) -> None:
        for end, value in entries:
            self.add(end, value)

    @property
    def value(self) -> int | None:
        """The extreme; None for an empty window."""
        return self.entries[0][1] if self.entries else None


class RollingLow(RollingHigh):
    """Smallest value in the window."""

    __slots__ = ()
    SIGN = -1
