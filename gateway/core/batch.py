"""Packets and readings on their way to the data feed.

Samples are gathered for half a second a sensor, so that a digitiser that sends one sample at a
time costs the feed no more than one that sends fifty.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.events import NS, Packet, Reading, iso

GATHER_NS = NS // 2


class _Gathered:
    """Contiguous packets of one sensor."""

    def __init__(self, first: Packet) -> None:
        self.first = first
        self.blocks: list[NDArray[Any]] = [first.samples]
        self.columns: int = first.samples.shape[1]

    def follows(self, packet: Packet) -> bool:
        """Whether the packet begins where this ends, to half a sample."""
        period_ns = NS / packet.rate_hz
        return bool(
            abs(packet.start_ns - self.first.start_ns - self.columns * period_ns) < period_ns / 2
        )

    def add(self, packet: Packet) -> None:
        self.blocks.append(packet.samples)
        self.columns += packet.samples.shape[1]

    @property
    def full(self) -> bool:
        return bool(self.columns * NS >= GATHER_NS * self.first.rate_hz)


class Batcher:
    """Turns what the core took in into messages for the data feed, as plain JSON types.

    ``channels`` names the channels of each seismic sensor. A packet's message holds ``sensor``,
    ``start``, ``rate_hz``, ``channels``, ``encoding`` (``int32le`` or ``float64le``) and
    ``samples``: base64 of the rows one after the other.
    """

    def __init__(self, channels: Mapping[str, tuple[str, ...]]) -> None:
        self._channels = channels
        self._gathered: dict[str, _Gathered] = {}

    def take(self, items: Iterable[Packet | Reading], utc_offset_ns: int) -> list[dict[str, Any]]:
        """The messages that are complete."""
        messages = []
        for item in items:
            if isinstance(item, Reading):
                messages.append({"reading": _reading(item, utc_offset_ns)})
                continue
            held = self._gathered.get(item.sensor)
            if held is not None and held.follows(item):
                held.add(item)
            else:
                if held is not None:
                    messages.append(self._packet(held, utc_offset_ns))
                held = self._gathered[item.sensor] = _Gathered(item)
            if held.full:
                del self._gathered[item.sensor]
                messages.append(self._packet(held, utc_offset_ns))
        return messages

    def _packet(self, held: _Gathered, utc_offset_ns: int) -> dict[str, Any]:
        samples = held.blocks[0] if len(held.blocks) == 1 else np.concatenate(held.blocks, axis=1)
        kind = "<i4" if samples.dtype.kind == "i" else "<f8"
        first = held.first
        return {
            "packet": {
                "sensor": first.sensor,
                "start": iso(first.start_ns + utc_offset_ns),
                "rate_hz": first.rate_hz,
                "channels": self._channels[first.sensor],
                "encoding": "int32le" if kind == "<i4" else "float64le",
                "samples": b64encode(samples.astype(kind, copy=False).tobytes()).decode(),
            }
        }


def _reading(reading: Reading, utc_offset_ns: int) -> dict[str, Any]:
    value = None if reading.micro is None else reading.micro / 1e6
    return {
        "sensor": reading.sensor,
        "time": iso(reading.time_ns + utc_offset_ns),
        "quantity": reading.quantity,
        "value": value,
    }


def line(message: Mapping[str, Any]) -> bytes:
    """A message as compact JSON text, without a line feed."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
