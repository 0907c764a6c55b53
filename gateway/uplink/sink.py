"""What every taker of the uplink's feed is made of: a thread of its own behind a bounded hand-over.

The time-series database, the archive, a hydrological centre: each waits for a disk or a peer, and
none may delay the uplink's loop, let alone another of them. So each is a :class:`Sink`. What the
loop hands over it takes without waiting; what a sink that hangs can't take any more is dropped,
counted and told. What a sink has to say to the hub goes the other way, and wakes the loop.

==================  =============================================================================
the loop's          :meth:`~Sink.start`, :meth:`~Sink.take`, :meth:`~Sink.ask`,
                    :meth:`~Sink.faults`, :meth:`~Sink.lag`, :meth:`~Sink.published`,
                    :meth:`~Sink.close`; none waits (``close`` a bounded time), none raises
the sink's thread   :meth:`~Sink.work` and :meth:`~Sink.finish`, which a sink defines, and
                    :meth:`~Sink.publish`, :meth:`~Sink.answer`, :meth:`~Sink.incident`,
                    :meth:`~Sink.wrong`, :meth:`~Sink.right`, :meth:`~Sink.behind`, which it calls
==================  =============================================================================

Items are those of the core's feed, see ``gateway.core.feed``: ``{"record": …}``,
``{"reading": …}``, ``{"packet": …}``, ``{"stream": "gap", …}``. A request of the hub that a
sink serves comes as ``{"request": Request}``. What the uplink itself says (health, and every minute
its clock and queues) comes as ``{"stream": "uplink", "record": …}``.

After the uplink's restart the data of the last minutes, as far as the core remembers them, comes
once more: a sink that was killed with half a minute in memory gets it back, and what it has written
already it must recognise by its time.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

log = logging.getLogger("gateway.uplink")

Item = Mapping[str, Any]

MAX_GATHERED = 2000
"""Items of one :meth:`Sink.work`."""
MAX_UNSAID = 1000
"""Records, and faults, that may wait for the loop."""
AFTER_A_FAULT_S = 1.0


class Fault(NamedTuple):
    """Something that went wrong in a sink, for health.

    ``incident``: it happened ``times`` times. ``wrong``: a condition until ``right``.
    """

    state: Literal["incident", "wrong", "right"]
    kind: str
    detail: str = ""
    times: int = 1


class Lag(NamedTuple):
    """How many items are not written yet, and how old the oldest of them is, s."""

    waiting: int
    oldest_s: float


class Publication(NamedTuple):
    """A record for the hub. Without a ``time`` it gets that of its sending.

    ``identity`` is the CloudEvents id of a record that may be made again after a restart; empty:
    any.
    """

    record: Mapping[str, Any]
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What the hub wants of a station, by ``hub/request``; nothing that sounds or changes it."""

    id: str
    request: str
    arguments: Mapping[str, Any]


class Sink:
    """A taker of the feed. A subclass defines :meth:`work`, and what it needs of the rest.

    ``name`` is the component in health.
    """

    serves: ClassVar[frozenset[str]] = frozenset()
    """Requests of the hub that it answers, by name."""
    gather_s: ClassVar[float] = 1.0
    """How long items are gathered for one :meth:`work`."""
    capacity: ClassVar[int] = 4000
    """Items that may wait for the thread."""
    close_s: ClassVar[float] = 5.0
    """How long the end may take."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._handed: deque[tuple[float, Item]] = deque()
        self._come = threading.Event()
        self._end = threading.Event()
        self._in_work: tuple[int, float] = (0, 0.0)
        self._kept: tuple[int, float] = (0, 0.0)
        self._dropped = 0
        self._open: set[str] = set()
        self._faults: queue.SimpleQueue[Fault] = queue.SimpleQueue()
        self._records: queue.SimpleQueue[Publication] = queue.SimpleQueue()
        self._wake: Callable[[], None] = lambda: None
        self._again_s: float | None = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # --- for the loop -----------------------------------------------------------------------------

    def start(self, wake: Callable[[], None] = lambda: None) -> None:
        """Begin; ``wake``, which any thread may call, makes the loop look for :meth:`published`."""
        self._wake = wake
        self._thread.start()

    def wants(self, item: Item) -> bool:  # noqa: ARG002  a subclass looks at it
        """Whether to be handed an item; called by the loop, so it looks and does nothing else."""
        return True

    def take(self, item: Item) -> None:
        """An item of the feed. What the thread can't take any more is dropped and counted."""
        if self.wants(item) and not self._hand(item):
            self._dropped += 1

    def ask(self, request: Request) -> bool:
        """A request of the hub that this sink serves; False if too much waits already."""
        return self._hand({"request": request})

    def faults(self) -> list[Fault]:
        """What went wrong, or right again, since last asked."""
        found = []
        while not self._faults.empty():
            found.append(self._faults.get_nowait())
        if self._dropped:
            detail = f"it hangs: {self.capacity} items wait for it already"
            found.append(Fault("incident", "dropped", detail, self._dropped))
            self._dropped = 0
        return found

    def published(self) -> list[Publication]:
        """Records for the hub since last asked."""
        found = []
        while not self._records.empty():
            found.append(self._records.get_nowait())
        return found

    def lag(self) -> Lag:
        """How far it is behind."""
        now_s = time.monotonic()
        parts = [self._in_work, self._kept]
        with suppress(IndexError):  # taken meanwhile
            parts.append((len(self._handed), self._handed[0][0]))
        since_s = [since for count, since in parts if count]
        return Lag(sum(count for count, _ in parts), max(0.0, now_s - min(since_s, default=now_s)))

    def close(self) -> None:
        """End: work off what is handed over, unless that takes longer than ``close_s``."""
        self._end.set()
        self._come.set()
        if self._thread.is_alive():
            self._thread.join(self.close_s)
            if self._thread.is_alive():
                log.warning("sink left behind", extra={"sink": self.name, "after_s": self.close_s})

    # --- for the sink's own thread ----------------------------------------------------------------

    def work(self, items: Sequence[Item]) -> float | None:
        """Take items, none of them where only time has passed.

        Gives after how many seconds it wants to be called again if nothing comes; None: never.
        Whatever it raises is told as health, and its items count as dropped.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Write what is held: this is the end."""

    def publish(self, record: Mapping[str, Any], identity: str = "") -> bool:
        """Send a record to the hub, in the class of its ``type``; False if too many wait."""
        if self._records.qsize() >= MAX_UNSAID:
            self.incident("unsaid", f"{record.get('type')}: too much waits to be published")
            return False
        self._records.put(Publication(record, identity))
        self._wake()
        return True

    def answer(
        self, request: Request, outcome: Literal["accepted", "refused", "failed"], reason: str = ""
    ) -> None:
        """Say what became of a request."""
        self.publish(
            {
                "type": "reply",
                "command": request.id,
                "action": request.request,
                "outcome": outcome,
                "reason": reason,
                "by": self.name,
            }
        )

    def incident(self, kind: str, detail: str = "", count: int = 1) -> None:
        """Something happened, ``count`` times."""
        self._say(Fault("incident", kind, detail, count))

    def wrong(self, kind: str, detail: str = "") -> None:
        """Something is wrong until :meth:`right`."""
        self._open.add(kind)
        self._say(Fault("wrong", kind, detail))

    def right(self, kind: str) -> None:
        """It is over, if it was wrong."""
        if kind in self._open:
            self._open.remove(kind)
            self._say(Fault("right", kind))

    def behind(self, count: int, oldest_s: float) -> None:
        """How much it keeps that is not written where it belongs, and the age of the oldest."""
        self._kept = count, time.monotonic() - oldest_s

    @property
    def ending(self) -> bool:
        """Whether it is time to end; a long :meth:`work` looks at it."""
        return self._end.is_set()

    # --- inside -----------------------------------------------------------------------------------

    def _hand(self, item: Item) -> bool:
        if len(self._handed) >= self.capacity:
            return False
        self._handed.append((time.monotonic(), item))
        self._come.set()
        return True

    def _say(self, fault: Fault) -> None:
        if self._faults.qsize() < MAX_UNSAID:
            self._faults.put(fault)

    def _run(self) -> None:
        while not self._end.is_set() or self._handed:
            self._guarded(self._gather())
        try:
            self.finish()
        except Exception as error:
            log.exception("sink could not finish", extra={"sink": self.name})
            self.incident("failed", repr(error))

    def _guarded(self, items: Sequence[Item]) -> None:
        try:
            self._again_s = self.work(items)
        except Exception as error:
            log.exception("sink failed", extra={"sink": self.name})
            self.incident("failed", repr(error))
            if items:
                self.incident("dropped", repr(error), len(items))
            self._again_s = AFTER_A_FAULT_S
        self._in_work = 0, 0.0

    def _gather(self) -> list[Item]:
        """Wait for an item, or for as long as :meth:`work` has said; then gather for a moment."""
        if self._come.wait(self._again_s) and len(self._handed) < MAX_GATHERED:
            self._end.wait(self.gather_s)
        self._come.clear()
        count = min(len(self._handed), MAX_GATHERED)
        if count:
            self._in_work = count, self._handed[0][0]
        items = [self._handed.popleft()[1] for _ in range(count)]
        if self._handed or self._end.is_set():
            self._come.set()
        return items
