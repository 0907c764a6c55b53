"""When each scan was taken, from when it arrived.

A scan arrives after it was taken: it is sent, it waits in a USB adapter, the host is busy. The
delay varies and is never negative, so the true times are the line that touches the arrivals from
below. The line is found epoch by epoch. An epoch is one second of scans by count; in it times
advance by the nominal period from its first scan on. At its end the earliest arrival against that
line is one measurement, a least-squares line through the measurements gives phase and drift
(growing memory up to ``MEMORY`` epochs, fading after that: Morrison, *Introduction to Sequential
Smoothing and Prediction*, 1969), and the next epoch begins where that line says.

Since everything changes at fixed scan numbers and depends only on what each scan arrived with,
stamps do not depend on how reads were cut. The one exception is the decision that a late arrival
is a gap, which is made on the last scan of a read.

What the stamps do, seen from the detector:

- Between epochs they are moved by less than a quarter of a period.
- A jump of the scan number is a gap of that many periods.
- For devices that do not number their scans: a scan later than ``GAP_NS`` is a gap at once; a
  lateness that stays for ``CONFIRM`` epochs is a gap then, as long as it is.
- Scans that arrive before their time show that a gap was none; stamps then go back.
- After the start and after a gap found by time, the first half second of scans is held until the
  line is known.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gateway.events import NS, Scans

MEMORY = 64
"""Epochs that the fitted line remembers: a minute, in which a crystal's drift hardly changes."""
MAX_DRIFT = 500e-6
"""Of a digitiser's clock against the host's; crystals are within 100e-6, RC oscillators beyond."""
GAP_NS = 3 * NS // 2
"""Later than any delay of a working line; a core that stalls longer is killed by its watchdog."""
EARLY_NS = NS // 10
SHIFT_NS = 5_000_000
"""Least lateness that, if it stays, counts as scans lost without a number: above USB's jitter."""
CONFIRM = 2
MAX_STEP = 0.25
"""Part of a period by which an epoch may begin off the previous one."""

Stamped = tuple[int, NDArray[np.int32]]
"""Time of the first column in ns on the host's clock, and samples of shape (channels, n)."""


class SampleClock:
    """Stamps the scans of one digitiser.

    Args:
        rate_hz: nominal rate of the scans.
        latency_ns: known least delay from the last scan of a transmission to its arrival, taken
            off every stamp; 0 where it is not known, and stamps are late by it.
    """

    def __init__(self, rate_hz: float, latency_ns: int = 0) -> None:
        self._period = NS / rate_hz
        self._latency = latency_ns
        self._epoch = max(1, round(rate_hz))
        self._shift = max(SHIFT_NS, round(self._period / 2))
        self._held: list[Scans] = []
        self._hold = (self._epoch + 1) // 2
        self._placed = False
        self._first = 0
        self._start_ns = 0
        self._end = 0
        self._least: int | None = None
        self._most = 0
        self._lead = 0.0
        self._drift = 0.0
        self._fitted = 0
        self._late: list[float] = []
        self.gaps = 0
        self.jitter_ns = 0

    @property
    def drift_ppm(self) -> float:
        """How much slower than nominal the device runs, in millionths of the host's time."""
        return self._drift / (self._epoch * self._period) * 1e6

    def stamp(self, scans: Scans) -> list[Stamped]:
        """The scans in pieces whose columns are one nominal period apart."""
        last = scans.index + scans.samples.shape[1] - 1
        if self._placed:
            late = scans.arrival_ns - self._latency - self._time(last)
            if -EARLY_NS < late < GAP_NS:
                if last < self._end:
                    self._measure(late)
                    return [(self._time(scans.index), scans.samples)]
                return list(self._pieces(scans))
            self._placed = False
            self.gaps += 1
        elif self._held and scans.arrival_ns - self._held[-1].arrival_ns > GAP_NS:
            return [*self._release(), *self.stamp(scans)]
        self._held.append(scans)
        if last + 1 - self._held[0].index < self._hold:
            return []
        return self._release()

    def _time(self, scan: int) -> int:
        return self._start_ns + round((scan - self._first) * self._period)

    def _release(self) -> list[Stamped]:
        """Begin a line at the earliest of the held arrivals and stamp what was held."""
        held, self._held = self._held, []
        self._placed = True
        self._first = first = held[0].index
        start_ns = []
        for scans in held:
            last = min(scans.index + scans.samples.shape[1], first + self._hold) - 1
            start_ns.append(scans.arrival_ns - round((last - first) * self._period))
        self._start_ns = min(start_ns) - self._latency
        self._end = (first // self._epoch + 1) * self._epoch
        self._least = None
        self._lead = 0.0
        self._fitted = 0
        self._late.clear()
        pieces = (piece for scans in held for piece in self._pieces(scans))
        return _joined(list(pieces), self._period)

    def _pieces(self, scans: Scans) -> Iterator[Stamped]:
        """Cut where epochs end."""
        scan, done = scans.index, 0
        count = scans.samples.shape[1]
        while done < count:
            if scan >= self._end:
                self._next_epoch(scan)
            take = min(count - done, self._end - scan)
            late = scans.arrival_ns - self._latency - self._time(scan + take - 1)
            self._measure(late)
            whole = scans.samples if take == count else scans.samples[:, done : done + take]
            yield self._time(scan), whole
            scan, done = scan + take, done + take

    def _measure(self, late: int) -> None:
        if self._least is None:
            self._least = self._most = late
        elif late < self._least:
            self._least = late
        elif late > self._most:
            self._most = late

    def _next_epoch(self, scan: int) -> None:
        """Learn from the epoch that has ended and begin the one in which ``scan`` lies."""
        if self._least is not None:
            self._learn(self._least)
            self.jitter_ns = self._most - self._least
            self._least = None
        epochs = scan // self._epoch + 1 - self._end // self._epoch
        first = (scan // self._epoch) * self._epoch
        self._lead += self._drift * epochs
        limit = MAX_STEP * self._period if epochs == 1 else float("inf")
        step = min(max(self._lead, -limit), limit)
        if len(self._late) == CONFIRM:
            step = self._lead
            self._late.clear()
        self._lead -= step
        self._start_ns = self._time(first) + round(step)
        self._first = first
        self._end = first + self._epoch

    def _learn(self, least: int) -> None:
        """Take the earliest arrival of an epoch, ns against its line, into the fitted line."""
        off = least - self._lead
        if off > self._shift and self._fitted:
            self._late.append(off)
            if len(self._late) == CONFIRM:
                self._lead += min(self._late)
                self.gaps += 1
            return
        self._late.clear()
        if off < -self._shift:
            self._fitted = 0
        self._fitted = n = min(self._fitted + 1, MEMORY)
        self._lead += off * 2 * (2 * n - 1) / (n * (n + 1))
        if n > 1:
            limit = MAX_DRIFT * self._epoch * self._period
            drift = self._drift + off * 6 / (n * (n + 1))
            self._drift = min(max(drift, -limit), limit)


def _joined(pieces: list[Stamped], period: float) -> list[Stamped]:
    """Neighbours that are one period apart, to the rounding of it, as one piece."""
    out: list[Stamped] = []
    for start_ns, samples in pieces:
        if out:
            before_ns, before = out[-1]
            if abs(before_ns + before.shape[1] * period - start_ns) <= 1:
                out[-1] = (before_ns, np.concatenate((before, samples), axis=1))
                continue
        out.append((start_ns, samples))
    return out
