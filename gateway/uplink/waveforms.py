"""Waveforms for the hub: around what happened, and whatever window it asks for.

A message on the topic ``waveform`` is one piece of one channel: whole miniSEED records, 32 KiB at
most, in base64. All pieces of an occasion name it in ``of`` (the id of an alert, of the record that
was the reason, or of the request) and how many there are.

A request comes on ``hub/request``::

    {"id": "…", "request": "waveform",
     "arguments": {"start": "2026-11-26T01:00:00Z", "end": "2026-11-26T01:05:00Z",
                   "channels": ["XX.DEMO..EH?"]}}

and is answered on ``reply``. It needs no signature, for it can sound nothing and change nothing;
what it can cost is bounded. ``channels`` (patterns; all if not given) and the window must be what
the archive has, and not more than ``request_kb``; all waveforms together, those of events included,
keep to ``hour_kb`` an hour. Waveforms are the last in the outbox, pieces are handed to it a few at
a time, and so no alert waits for them.
"""

import base64
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from gateway.events import NS, iso, parse_iso
from gateway.uplink.mseed import RECORD_BYTES, read_header

PIECE_BYTES = 64 * RECORD_BYTES
MAX_WAITING = 8
"""Occasions that may wait for their turn; a request beyond is refused."""
LATE_S = 10.0
"""How long the samples of an occasion may take to come after their time."""
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Window:
    """What is to be sent: channels that match, from ``begin_ns`` to before ``end_ns``."""

    reason: str
    of: str
    channels: tuple[str, ...]
    begin_ns: int
    end_ns: int

    def wants(self, channel: str) -> bool:
        return any(fnmatchcase(channel, pattern) for pattern in self.channels)


def requested(identity: str, arguments: Mapping[str, Any]) -> Window:
    """The window of a request.

    Raises:
        ValueError: what is wrong with the arguments, and what would be right.
    """
    times = []
    for key in ("start", "end"):
        try:
            times.append(parse_iso(arguments[key]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"malformed: {key}: expected a time as 2026-11-26T01:00:00Z"
            ) from error
    patterns = arguments.get("channels", ["*"])
    if (
        not isinstance(patterns, list)
        or not 0 < len(patterns) <= 64
        or not all(isinstance(x, str) and 0 < len(x) <= 32 for x in patterns)
    ):
        raise ValueError('malformed: channels: expected a list such as ["XX.DEMO..EH?"]')
    if times[0] >= times[1]:
        raise ValueError("malformed: start is not before end")
    return Window("request", identity, tuple(patterns), *times)


class Allowance:
    """Bytes that may go in an hour, as a bucket that fills steadily. Times in s."""

    def __init__(self, hour_bytes: int) -> None:
        self._hour_bytes = hour_bytes
        self._left = float(hour_bytes)
        self._at_s: float | None = None

    def wait_s(self, size: int, now_s: float) -> float:
        """How long until ``size`` bytes may go; 0: now. More than an hour's worth is never."""
        if self._at_s is not None:
            gained = (now_s - self._at_s) * self._hour_bytes / HOUR_S
            self._left = min(self._hour_bytes, self._left + gained)
        self._at_s = now_s
        if size > self._hour_bytes:
            return float("inf")
        return max(0.0, (size - self._left) * HOUR_S / self._hour_bytes)

    def spend(self, size: int) -> None:
        """So many go."""
        self._left -= size


def pieces(window: Window, channels: Mapping[str, Sequence[bytes]]) -> Iterable[dict[str, Any]]:
    """The ``waveform`` records for what was found of a window, by channel."""
    step = PIECE_BYTES // RECORD_BYTES
    cut = [
        (channel, records[first : first + step])
        for channel, records in channels.items()
        for first in range(0, len(records), step)
    ]
    for number, (channel, records) in enumerate(cut, 1):
        yield piece(channel, records, window.reason, window.of, number, len(cut))


def piece(
    channel: str, records: Sequence[bytes], reason: str, of: str, part: int, parts: int
) -> dict[str, Any]:
    """One ``waveform`` record."""
    return {
        "type": "waveform",
        "time": iso(read_header(records[0]).start_ns),
        "end": iso(read_header(records[-1]).end_ns),
        "channel": channel,
        "reason": reason,
        "of": of,
        "part": part,
        "parts": parts,
        "mseed": base64.b64encode(b"".join(records)).decode(),
    }


@dataclass(slots=True)
class Occasion:
    """A window that waits until its samples are there: until ``due_s`` at the latest."""

    window: Window
    due_s: float


class Occasions:
    """Windows around what happened; one needs none of its own that lies early in another."""

    def __init__(self, pre_s: float, post_s: float) -> None:
        self._pre_ns, self._post_ns = round(pre_s * NS), round(post_s * NS)
        self._post_s = post_s
        self._waiting: deque[Occasion] = deque()
        self._last_ns: int | None = None

    def happened(self, time_ns: int, of: str, channels: tuple[str, ...], now_s: float) -> bool:
        """Something happened; whether a window is made for it (another may cover it already)."""
        if self._last_ns is not None and (
            -self._pre_ns <= time_ns - self._last_ns < self._post_ns // 2
        ):
            return False
        if len(self._waiting) >= MAX_WAITING:
            return False
        window = Window("event", of, channels, time_ns - self._pre_ns, time_ns + self._post_ns)
        self._last_ns = time_ns
        self._waiting.append(Occasion(window, now_s + self._post_s + LATE_S))
        return True

    def due(self, upto_ns: int, now_s: float) -> list[Window]:
        """Windows whose samples have come up to their end, or will not come any more."""
        due = [x for x in self._waiting if upto_ns >= x.window.end_ns or now_s >= x.due_s]
        self._waiting = deque(x for x in self._waiting if x not in due)
        return [x.window for x in due]

    def next_s(self) -> float | None:
        """When the first of them is due at the latest."""
        return min((x.due_s for x in self._waiting), default=None)
