"""The order in which decisions are taken up.

In the daemon a decision acts at once. In a replay it waits until every stream has been read past
its time, so that the order of decisions, and with it every line, does not depend on how the
recording was cut into packets.
"""

import heapq
from collections.abc import Sequence

from gateway.events import Decision


def channel_of(decision: Decision) -> str:
    """What orders decisions of the same time: the channel, sensor or station that they are of."""
    for name in ("channel", "sensor", "station", "component"):
        if (value := getattr(decision, name, None)) is not None:
            return str(value)
    return ""


class Sequencer:
    """Decisions of several streams, given back in order of (decided, channel).

    With ``streams`` empty nothing is held back.
    """

    def __init__(self, streams: tuple[str, ...] = ()) -> None:
        self._upto = dict.fromkeys(streams, -(2**63))
        self._heap: list[tuple[int, str, int, Decision]] = []
        self._count = 0

    def add(
        self, decisions: Sequence[Decision], stream: str = "", upto_ns: int = 0
    ) -> Sequence[Decision]:
        """Take decisions of a stream that has been read up to ``upto_ns``; give what is due."""
        if not self._upto:
            return decisions
        for decision in decisions:
            self._count += 1
            entry = (decision.decided_ns, channel_of(decision), self._count, decision)
            heapq.heappush(self._heap, entry)
        self._upto[stream] = max(self._upto[stream], upto_ns)
        return self._release()

    def ended(self, stream: str) -> list[Decision]:
        """A stream gives no more."""
        if self._upto.pop(stream, None) is None:
            return []
        return self._release()

    @property
    def watermark(self) -> int | None:
        """Time up to which everything is known; None when nothing is held back."""
        return min(self._upto.values(), default=None)

    def _release(self) -> list[Decision]:
        mark = self.watermark
        due = []
        while self._heap and (mark is None or self._heap[0][0] <= mark):
            due.append(heapq.heappop(self._heap)[3])
        return due
