"""What gauges that speak by themselves have in common: whole frames out of a damaged stream.

A driver says what begins a frame, what a whole one is and what it means; here is the search. After
damage it goes on at the next byte that could begin a frame, so that at most the undamaged frame
that the damage ran into is lost. What is found does not depend on how reads were cut, and no byte
is looked at more often than a frame is long.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from gateway.drivers import Simulator, Source
from gateway.events import Diagnostic, Reading, Scans

Item = Scans | Reading | Diagnostic


class StreamingGauge(ABC):
    """Driver of a gauge that speaks by itself. It holds less than one frame between two reads."""

    kind: ClassVar[str] = "scalar"
    simulator: ClassVar[type[Simulator]]
    BEGIN: ClassVar[bytes]
    """The byte, or one of the bytes, with which a frame begins."""

    def __init__(self, sensor: str) -> None:
        self.sensor = sensor
        self._begin = re.compile(b"[" + re.escape(self.BEGIN) + b"]", re.DOTALL)
        self._rest = b""

    @staticmethod
    @abstractmethod
    def match(data: bytes, at: int) -> int:
        """Size of the whole frame that begins at ``at``.

        0 while it may become one, which must not be said of more bytes than the longest frame has;
        -1 where none begins.
        """

    @abstractmethod
    def _frame(self, frame: bytes, t: int) -> Iterable[Reading | Diagnostic]:
        """What a whole frame says."""

    def opened(self, t: int) -> None:
        """The port was opened: what was half read is void."""
        del t
        self._rest = b""

    def feed(self, data: bytes, t: int) -> list[Item]:
        """What the whole frames say; bytes that belong to none are counted."""
        data = self._rest + data
        found: list[Item] = []
        at = stray = 0
        while at < len(data):
            size = self.match(data, at)
            if size == 0:
                break
            if size > 0:
                found += self._frame(data[at : at + size], t)
                at += size
                continue
            beginning = self._begin.search(data, at + 1)
            following = beginning.start() if beginning else len(data)
            stray += following - at
            at = following
        self._rest = data[at:]
        if stray:
            found.append(Diagnostic("garbage", stray))
        return found

    def tick(self, t: int) -> list[Item]:
        """Nothing is due: the core tells a gauge that fell silent."""
        del t
        return []

    def next_deadline(self) -> int | None:
        """Nothing is due."""
        return None

    def to_send(self) -> bytes:
        """Nothing to say."""
        return b""


class StreamingSimulator(ABC):
    """A device that says a frame each ``interval_ns`` from its power-up on.

    The source plays from the first power-up on, so that what a later restart misses is missing.
    """

    def __init__(self, source: Source, interval_ns: int) -> None:
        self._source = source
        self._interval_ns = interval_ns
        self._out = bytearray()
        self._next: int | None = None
        self._play_began: int | None = None

    @abstractmethod
    def _said(self, t: int) -> bytes:
        """The frame at ``t`` ns of the play."""

    def powered(self, t: int) -> None:
        """Power-up."""
        self._out.clear()
        self._play_began = t if self._play_began is None else self._play_began
        self._next = t + self._interval_ns

    def feed(self, data: bytes, t: int) -> None:
        """Deaf."""
        del data, t

    def tick(self, t: int) -> None:
        """Say every frame that is due."""
        while self._next is not None and self._next <= t and self._play_began is not None:
            self._out += self._said(self._next - self._play_began)
            self._next += self._interval_ns

    def next_deadline(self) -> int | None:
        """When the next frame is due."""
        return self._next

    def to_send(self) -> bytes:
        """What the device says."""
        said = bytes(self._out)
        self._out.clear()
        return said
