"""One reading an interval, from a device that speaks several times in it.

A particle sensor's single frame is noise about the mean, and an echo from waves is one of many:
what is wanted is the mean or the median of some time, and that in as few readings as that needs.
"""

from collections.abc import Callable, Sequence
from statistics import median_low

from gateway.events import NS

Summary = Callable[[Sequence[int]], int]
LIMIT = 4096
"""Values kept of one interval; more are not waited for: the interval ends."""


def mean(values: Sequence[int]) -> int:
    """The mean, rounded down."""
    return sum(values) // len(values)


median = median_low


class Interval:
    """Gathers values and gives their summary each ``length_s``; an interval begins with a value.

    Of the values some may be missing (None: no target, a fault). Where more than half are, the
    summary is missing too.
    """

    def __init__(self, length_s: float, summary: Summary) -> None:
        self._length_ns = round(length_s * NS)
        self._summary = summary
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._began: int | None = None
        self._values: list[int] = []
        self._missing = 0

    def add(self, micro: int | None, t: int) -> list[int | None]:
        """Take a value; the summary of the interval that ends with it, if one does."""
        if self._began is None:
            self._began = t
        if micro is None:
            self._missing += 1
        else:
            self._values.append(micro)
        count = len(self._values) + self._missing
        if t - self._began < self._length_ns and count < LIMIT:
            return []
        values, missing = self._values, self._missing
        self.clear()
        self._began = t
        return [None if missing * 2 > count else self._summary(values)]
