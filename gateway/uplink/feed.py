"""The uplink's end of the core's feed: never waits, and comes back by itself."""

import json
import selectors
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.core.feed_client import FeedClient, FeedError
from gateway.events import NS
from gateway.uplink.outbox import Position

RETRY_NS = NS // 2
MAX_ITEMS = 500
"""Most items of one turn, so that sending and storing keep up with reading."""


class CoreFeed:
    """A connection to ``path`` that keeps itself up. ``t`` is monotonic time in ns."""

    def __init__(self, path: Path, selector: selectors.BaseSelector) -> None:
        self.trouble = "not connected yet"
        """Why the core can't be heard; empty while it can."""
        self._path = path
        self._selector = selector
        self._client: FeedClient | None = None
        self._watched = False
        self._more = False
        self._retry_at = 0

    def tick(self, t: int, have: Position | None, *, paused: bool) -> list[dict[str, Any]]:
        """What the core has said. Connects where that is due, asking for what follows ``have``.

        While ``paused``, what comes is left with the core.
        """
        if self._client is None and t >= self._retry_at:
            self._retry_at = t + RETRY_NS
            try:
                self._client = FeedClient(self._path, have, data="memory", timeout_s=0)
            except FeedError as error:
                self.trouble = str(error)
            else:
                self.trouble = ""
        self._watch(paused=paused)
        items: list[dict[str, Any]] = []
        try:
            while self._client is not None and not paused and len(items) < MAX_ITEMS:
                if (item := self._client.receive()) is None:
                    break
                items.append(item)
        except (FeedError, ValueError, TypeError, RecursionError) as error:
            self._lost(error)
        self._more = len(items) == MAX_ITEMS
        return items

    def next_deadline(self, t: int) -> int | None:
        """When :meth:`tick` is next wanted, the socket apart."""
        if self._client is None:
            return self._retry_at
        return t if self._more else None

    def stored(self, position: Position) -> None:
        """Tell the core that everything up to here is kept."""
        if self._client is not None:
            try:
                self._client.stored(*position)
            except FeedError as error:
                self._lost(error)

    def command(self, envelope: Mapping[str, Any]) -> bool:
        """Hand on a signed command; False if the core is not there."""
        if self._client is None:
            return False
        try:
            text = json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))
            self._client.command(text.encode())
        except FeedError as error:
            self._lost(error)
            return False
        return True

    def close(self) -> None:
        """Hang up."""
        self._watch(paused=True)
        if self._client is not None:
            self._client.close()
            self._client = None

    def _watch(self, *, paused: bool) -> None:
        if self._client is None or paused != self._watched:
            return
        if paused:
            self._selector.unregister(self._client)
        else:
            self._selector.register(self._client, selectors.EVENT_READ, lambda *_: None)
        self._watched = not paused

    def _lost(self, error: Exception) -> None:
        self.trouble = str(error)
        self.close()
