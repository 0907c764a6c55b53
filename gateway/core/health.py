"""What is wrong at this moment, said once when it begins, again now and then, and when it ends.

Two sorts. A *condition* (a silent sensor, a lost port) lasts until it is cleared. An *incident*
(garbage on a line, a late reply) is over when it has not been seen for a minute. Whatever is
skipped or dropped is counted here, and the counts are published.
"""

from dataclasses import dataclass
from typing import Literal

from gateway.events import NS, Health

REPEAT_S = 60
"""An incident that goes on is stated again this often; so long it must be absent to be over."""

State = Literal["ok", "degraded", "failed"]


@dataclass(slots=True)
class _Entry:
    state: State
    incident: bool
    since_ns: int
    seen_ns: int
    said_ns: int
    total: int
    unsaid: int
    detail: str


class HealthBook:
    """Open conditions and incidents by (component, kind). Pure; health events are returned."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Entry] = {}
        self._totals: dict[tuple[str, str], int] = {}

    def condition(
        self, component: str, kind: str, t: int, detail: str = "", state: State = "degraded"
    ) -> list[Health]:
        """Something is wrong until :meth:`clear`. Said again only when the detail changes."""
        entry = self._open.get((component, kind))
        if entry is not None and entry.detail == detail and entry.state == state:
            entry.seen_ns = t
            return []
        return self._begin(component, kind, t, detail, state, count=1, incident=False)

    def clear(self, component: str, kind: str, t: int, detail: str = "") -> list[Health]:
        """The condition is over."""
        if self._open.pop((component, kind), None) is None:
            return []
        return [Health(component, "ok", t, kind, detail, self._totals[component, kind])]

    def passed(self, component: str, kind: str, t: int, detail: str) -> list[Health]:
        """A test has passed: stated each time, whether or not the one before had failed."""
        self._open.pop((component, kind), None)
        return [Health(component, "ok", t, kind, detail, self._totals.get((component, kind), 0))]

    def incident(
        self, component: str, kind: str, t: int, detail: str = "", count: int = 1
    ) -> list[Health]:
        """Something happened, ``count`` times; over by itself."""
        entry = self._open.get((component, kind))
        if entry is None:
            return self._begin(component, kind, t, detail, "degraded", count, incident=True)
        self._totals[component, kind] += count
        entry.total += count
        entry.unsaid += count
        entry.seen_ns = t
        entry.detail = detail or entry.detail
        if t - entry.said_ns < REPEAT_S * NS:
            return []
        entry.said_ns, said, entry.unsaid = t, entry.unsaid, 0
        return [Health(component, entry.state, t, kind, entry.detail, said)]

    def _begin(
        self,
        component: str,
        kind: str,
        t: int,
        detail: str,
        state: State,
        count: int,
        *,
        incident: bool,
    ) -> list[Health]:
        key = component, kind
        self._totals[key] = self._totals.get(key, 0) + count
        self._open[key] = _Entry(state, incident, t, t, t, count, 0, detail)
        return [Health(component, state, t, kind, detail, count)]

    def next_deadline(self) -> int | None:
        return min(
            (e.seen_ns + REPEAT_S * NS for e in self._open.values() if e.incident), default=None
        )

    def tick(self, t: int) -> list[Health]:
        """End the incidents that have not been seen for a while."""
        over = [
            (key, entry)
            for key, entry in self._open.items()
            if entry.incident and t - entry.seen_ns >= REPEAT_S * NS
        ]
        events = []
        for key, entry in over:
            del self._open[key]
            detail = f"{entry.total} in all, not seen for {REPEAT_S} s"
            events.append(Health(key[0], "ok", t, key[1], detail, max(entry.unsaid, 1)))
        return events

    def open(self) -> list[Health]:
        """Everything that is wrong now."""
        return [
            Health(component, entry.state, entry.since_ns, kind, entry.detail, entry.total)
            for (component, kind), entry in sorted(self._open.items())
        ]

    def totals(self) -> dict[str, int]:
        """How often each thing has happened since the start, as ``component.kind``."""
        return {f"{component}.{kind}": n for (component, kind), n in sorted(self._totals.items())}
