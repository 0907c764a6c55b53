"""How strongly the ground shook in each minute: the mean absolute amplitude of each channel.

Volcano observatories watch this figure as RSAM (Endo and Murray 1991, *Real-time Seismic Amplitude
Measurement (RSAM): a volcano monitoring and prediction tool*, Bulletin of Volcanology 53, 533-545;
known here from later descriptions, the paper itself was not read): one number a minute in which a
tremor, a storm's microseism, a pump and a dead sensor can all be seen over months. The mean is
taken off first, in place of their analogue high-pass: over a minute it is the sensor's offset.

Minutes are UTC; a value's time is the minute's end. ``samples`` says how complete it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.core.feed_client import packet_samples
from gateway.events import NS, parse_iso

MINUTE_NS = 60 * NS


class MinuteValue(NamedTuple):
    """One minute of one channel, in counts."""

    channel: str
    end_ns: int
    mean_absolute: float
    samples: int


@dataclass(slots=True)
class _Open:
    """The minute of one digitiser that is not over: its end, and pieces of (channels, n)."""

    end_ns: int
    channels: list[str]
    pieces: list[NDArray[np.float64]] = field(default_factory=list)


class Minutes:
    """Packets to minute values.

    ``written`` is the end of the last minute of each channel that is stored already. Earlier data,
    which the core repeats after a restart, is left out: half a minute must not take the place of
    the whole.
    """

    def __init__(self, written: Mapping[str, int]) -> None:
        self._written = dict(written)
        self._open: dict[str, _Open] = {}

    def take(self, packet: Mapping[str, Any]) -> list[MinuteValue]:
        """A packet of the feed; gives the minutes that it shows to be over.

        Raises:
            ValueError, KeyError: it is no packet of the feed.
        """
        samples = np.asarray(packet_samples(dict(packet)), np.float64)
        start_ns, rate_hz = parse_iso(packet["start"]), float(packet["rate_hz"])
        over: list[MinuteValue] = []
        at = 0
        while at < samples.shape[1]:
            end_ns = ((start_ns + round(at * NS / rate_hz)) // MINUTE_NS + 1) * MINUTE_NS
            until = max(at + 1, int(np.ceil((end_ns - start_ns) * rate_hz / NS)))
            over += self._add(packet["sensor"], packet["channels"], end_ns, samples[:, at:until])
            at = until
        return over

    def _add(
        self, sensor: str, channels: list[str], end_ns: int, piece: NDArray[np.float64]
    ) -> list[MinuteValue]:
        now = self._open.get(sensor)
        over: list[MinuteValue] = []
        if now is None or now.end_ns != end_ns or now.channels != channels:
            over = self._values(now) if now is not None else []
            now = self._open[sensor] = _Open(end_ns, channels)
        now.pieces.append(piece)
        return over

    def _values(self, minute: _Open) -> list[MinuteValue]:
        found = []
        for name, row in zip(minute.channels, np.concatenate(minute.pieces, axis=1), strict=True):
            there = row[~np.isnan(row)]
            if there.size and minute.end_ns > self._written.get(name, 0):
                mean = float(np.abs(there - there.mean()).mean())
                found.append(MinuteValue(name, minute.end_ns, mean, int(there.size)))
        return found
