"""Packets on their way to the data feed, gathered so that each costs it little.

Samples are gathered for half a second a sensor: a digitiser that sends one sample at a time then
costs the feed no more than one that sends fifty.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.events import NS, Measured, Packet, Reading

GATHER_NS = NS // 2

Item = Packet | Reading | Measured


class _Gathered:
    """Contiguous packets of one sensor."""

    def __init__(self, first: Packet) -> None:
        self._first = first
        self._blocks: list[NDArray[Any]] = [first.samples]
        self._columns: int = first.samples.shape[1]

    def takes(self, packet: Packet) -> bool:
        """Add the packet if it begins where this ends, to half a sample."""
        period_ns = NS / packet.rate_hz
        late_ns = packet.start_ns - self._first.start_ns - self._columns * period_ns
        if abs(late_ns) >= period_ns / 2:
            return False
        self._blocks.append(packet.samples)
        self._columns += packet.samples.shape[1]
        return True

    @property
    def full(self) -> bool:
        return bool(self._columns * NS >= GATHER_NS * self._first.rate_hz)

    def packet(self) -> Packet:
        first = self._first
        if len(self._blocks) == 1:
            return first
        samples = np.concatenate(self._blocks, axis=1)
        return Packet(first.sensor, first.start_ns, first.rate_hz, samples, first.offsets_ns)


class Batcher:
    """Gathers packets by sensor; the rest passes."""

    def __init__(self) -> None:
        self._gathered: dict[str, _Gathered] = {}

    def take(self, items: Iterable[Item]) -> list[Item]:
        """What is complete."""
        complete: list[Item] = []
        for item in items:
            if not isinstance(item, Packet):
                complete.append(item)
                continue
            held = self._gathered.get(item.sensor)
            if held is None or not held.takes(item):
                if held is not None:
                    complete.append(held.packet())
                held = self._gathered[item.sensor] = _Gathered(item)
            if held.full:
                complete.append(held.packet())
                del self._gathered[item.sensor]
        return complete
