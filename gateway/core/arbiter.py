"""One arbiter a siren: which alert it serves, which edge of the pattern is due, and for how long.

The order is Actual before Exercise before Test; then earthquake, fire, flood, the rest; then the
level; then the newest. A higher request pre-empts at once. The lower one resumes, at the point that
it would have reached, if it is still wanted and inside its own deadline (the end of its pattern).

Two limits hold over all causes together: ``max_on_s`` for one stretch of activity (pauses shorter
than :data:`REST_S` belong to it) and ``max_hour_s`` for the sound of any sixty minutes.

Pure: time comes in as an argument, commands and actions are drained. Times are nanoseconds of
CLOCK_BOOTTIME in the daemon, so that a restarted core in the same boot goes on where it would be.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from gateway.events import (
    NS,
    STATUS_RANK,
    Hazard,
    Level,
    SirenAction,
    SirenCommand,
    Status,
    frozen,
)
from gateway.plan.rules import HAZARD_RANK, Pattern

REST_S = 10.0
"""A silence of this length ends a stretch of activity."""

_REST_NS = round(REST_S * NS)
_HOUR = 3600 * NS
_LONG_AGO = -(2**63)


@frozen
class Request:
    """An alert wants a pattern on a siren, from ``began_ns`` on."""

    alert: str
    status: Status
    hazard: Hazard | None
    level: Level
    pattern: str
    began_ns: int

    @property
    def order(self) -> tuple[int, int, int, int]:
        rank = HAZARD_RANK.get(self.hazard, 0) if self.hazard else 0
        return STATUS_RANK[self.status], rank, int(self.level), self.began_ns


def edge(pattern: Pattern, elapsed_ns: int) -> tuple[bool, int]:
    """Whether a pattern sounds at this point, and when (ns from its start) that next changes.

    Neighbouring steps of the same kind count as one; the end of the pattern is a change.
    """
    at, on = 0, False
    for step in pattern.steps * pattern.repeat:
        if step.on != on and at > elapsed_ns:
            return on, at
        on = step.on
        at += round(step.seconds * NS)
    return on and elapsed_ns < at, at


class Arbiter:
    """Decides for one siren. Call :meth:`tick` when :meth:`next_deadline` has come."""

    def __init__(
        self,
        station: str,
        siren: str,
        patterns: Mapping[str, Pattern],
        max_on_s: float,
        max_hour_s: float,
    ) -> None:
        self._station, self._siren = station, siren
        self._patterns = patterns
        self._length_ns = {p.name: round(p.length_s * NS) for p in patterns.values()}
        self._max_on = round(max_on_s * NS)
        self._max_hour = round(max_hour_s * NS)
        self._requests: dict[str, Request] = {}
        self._silenced: dict[str, Level] = {}
        self._serving: Request | None = None
        self._on_since: int | None = None
        self._on_until = 0
        self._sound: deque[tuple[int, int]] = deque()
        self._sounded = 0
        self._active_since: int | None = None
        self._active_until = _LONG_AGO
        self._rest_until = _LONG_AGO
        self._muted = ""
        self._next: int | None = None
        self._stepped: int | None = None
        """When it was last brought up to date, if ``_next`` has not been worked out since."""
        self._commands: list[SirenCommand] = []
        self._actions: list[tuple[Request, Literal["on", "off"], int, str]] = []

    # -- what is wanted --------------------------------------------------------------------------

    def request(self, request: Request, t: int) -> None:
        """An alert begins, rises or is renewed. A silenced alert stays so until its level rises."""
        silenced = self._silenced.get(request.alert)
        if silenced is not None:
            if request.level <= silenced:
                return
            del self._silenced[request.alert]
        if self._serving is not None and self._serving.alert == request.alert:
            self._stop_serving(t, "level changed")
        self._requests[request.alert] = request
        self.tick(t)

    def withdraw(self, alert: str, t: int, reason: str) -> None:
        """An alert ended, or its new level asks for no sound."""
        if self._requests.pop(alert, None) is not None:
            if self._serving is not None and self._serving.alert == alert:
                self._stop_serving(t, reason)
            self.tick(t)

    def forget(self, alert: str) -> None:
        """The alert is over; a later one with the same id would be new."""
        self._silenced.pop(alert, None)

    def silence(self, t: int, reason: str, alerts: Mapping[str, Level]) -> None:
        """Off, by hand or signed: silences what is wanted now, and does not end any alert.

        ``alerts`` are those in force with their levels: a pattern of theirs that is over does not
        begin again before the level rises either.
        """
        self._silenced |= alerts
        for alert, request in self._requests.items():
            self._silenced[alert] = request.level
        if self._serving is not None:
            self._stop_serving(t, reason)
        self._requests.clear()
        self._apply(on=False, until=t, t=t)
        self._stepped = t

    def mute(self, t: int, reason: str) -> None:
        """Sound nothing while ``reason`` is not empty (disarmed, silent mode)."""
        if reason == self._muted:
            return
        self._muted = reason
        if reason and self._serving is not None:
            self._stop_serving(t, reason)
        self.tick(t)

    # -- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """When :meth:`tick` is next wanted; worked out when asked, after the siren is told."""
        if self._stepped is not None:
            self._next, self._stepped = self._next_after(self._stepped), None
        return self._next

    def tick(self, t: int) -> None:
        """Do everything that is due by ``t``, each at its own time."""
        while (due := self.next_deadline()) is not None and due < t:
            self._step(due)
        self._step(t)

    def _step(self, t: int) -> None:
        best: Request | None = None
        for alert, request in list(self._requests.items()):
            deadline = request.began_ns + self._length_ns[request.pattern]
            if t >= deadline:
                del self._requests[alert]
                if self._serving is request:
                    self._stop_serving(deadline, "pattern ended")
            elif best is None or request.order > best.order:
                best = request
        if self._muted or t < self._rest_until:
            best = None
        if best is not self._serving:
            if self._serving is not None:
                self._stop_serving(t, f"pre-empted by {best.alert}" if best else "resting")
            if best is not None:
                if self._active_since is None or t - self._active_until >= _REST_NS:
                    self._active_since = t
                self._serving = best
                self._actions.append((best, "on", t, ""))
        self._drive(t)
        self._stepped = t

    def _drive(self, t: int) -> None:
        """Bring the output to where the served pattern wants it at ``t``, within the limits."""
        if self._serving is None:
            self._apply(on=False, until=t, t=t)
            return
        request = self._serving
        on, change = edge(self._patterns[request.pattern], t - request.began_ns)
        until = request.began_ns + change
        active_since = self._active_since if self._active_since is not None else t
        if t >= active_since + self._max_on:
            self._requests.pop(request.alert, None)
            self._rest_until = t + _REST_NS
            self._stop_serving(t, f"longest time of {self._max_on / NS:g} s reached")
            self._apply(on=False, until=t, t=t)
            return
        if on:
            left = self._max_hour - self._sound_of_last_hour(t)
            if left <= 0:
                self._requests.pop(request.alert, None)
                self._stop_serving(t, f"hourly limit of {self._max_hour / NS:g} s reached")
                self._apply(on=False, until=t, t=t)
                return
            until = min(until, t + left, active_since + self._max_on)
        self._apply(on=on, until=until, t=t)

    def _apply(self, *, on: bool, until: int, t: int) -> None:
        if on:
            if self._on_since is None:
                self._on_since = t
            if self._on_until != until:
                self._on_until = until
                self._commands.append(SirenCommand(self._siren, on=True, until_ns=until))
        elif self._on_since is not None:
            self._sound.append((self._on_since, t))
            self._sounded += t - self._on_since
            self._on_since, self._on_until = None, 0
            self._commands.append(SirenCommand(self._siren, on=False))

    def _next_after(self, t: int) -> int | None:
        times = [self._deadline(r) for r in self._requests.values()]
        if self._requests and t < self._rest_until:
            times.append(self._rest_until)
        if self._serving is not None:
            began = self._serving.began_ns
            _, change = edge(self._patterns[self._serving.pattern], t - began)
            times.append(began + change)
            if self._active_since is not None:
                times.append(self._active_since + self._max_on)
        if self._on_since is not None:
            times.append(self._on_until)
        return min((x for x in times if x > t), default=None)

    # -- serving ---------------------------------------------------------------------------------

    def _stop_serving(self, t: int, reason: str) -> None:
        request = self._serving
        if request is None:
            return
        self._serving = None
        self._active_until = t
        self._actions.append((request, "off", t, reason))

    def _deadline(self, request: Request) -> int:
        return request.began_ns + self._length_ns[request.pattern]

    def _sound_of_last_hour(self, t: int) -> int:
        since = t - _HOUR
        while self._sound and self._sound[0][1] <= since:
            start, end = self._sound.popleft()
            self._sounded -= end - start
        total = self._sounded
        if self._sound and self._sound[0][0] < since:
            total -= since - self._sound[0][0]
        return total + (t - self._on_since if self._on_since is not None else 0)

    # -- what comes out --------------------------------------------------------------------------

    @property
    def serving(self) -> Request | None:
        """What the siren sounds for, if anything."""
        return self._serving

    @property
    def on(self) -> bool:
        """Whether it is to sound at this moment."""
        return self._on_since is not None

    def commands(self) -> list[SirenCommand]:
        """Commands for the driver, each given once."""
        drained, self._commands = self._commands, []
        return drained

    def actions(self) -> list[SirenAction]:
        """Starts and ends of patterns, each given once."""
        drained, self._actions = self._actions, []
        return [
            SirenAction(
                station=self._station,
                siren=self._siren,
                alert=request.alert,
                action=action,
                pattern=request.pattern,
                time_ns=t,
                status=request.status,
                reason=reason,
            )
            for request, action, t, reason in drained
        ]

    # -- state -----------------------------------------------------------------------------------

    def state(self, t: int) -> dict[str, Any]:
        """What must survive a crash, as plain JSON types."""
        sound = [*self._sound]
        if self._on_since is not None:
            sound.append((self._on_since, t))
        return {
            "requests": [
                {
                    "alert": r.alert,
                    "status": r.status.value,
                    "hazard": r.hazard.value if r.hazard else None,
                    "level": r.level.name,
                    "pattern": r.pattern,
                    "began_ns": r.began_ns,
                }
                for r in self._requests.values()
            ],
            "silenced": {alert: level.name for alert, level in self._silenced.items()},
            "sound": sound,
            "active_since": self._active_since,
            "active_until": t if self._serving else self._active_until,
            "rest_until": self._rest_until,
        }

    def restore(self, state: Mapping[str, Any], t: int) -> None:
        """Take up what :meth:`state` gave earlier in the same boot.

        A pattern whose deadline has not passed resumes at the point that it would have reached; a
        finished one never restarts.
        """
        self._silenced = {a: Level[name] for a, name in state["silenced"].items()}
        self._sound = deque((int(start), int(end)) for start, end in state["sound"])
        self._sounded = sum(end - start for start, end in self._sound)
        self._active_since = state["active_since"]
        self._active_until = state["active_until"]
        self._rest_until = state["rest_until"]
        for item in state["requests"]:
            request = Request(
                alert=item["alert"],
                status=Status(item["status"]),
                hazard=Hazard(item["hazard"]) if item["hazard"] else None,
                level=Level[item["level"]],
                pattern=item["pattern"],
                began_ns=item["began_ns"],
            )
            if request.pattern in self._patterns and t < self._deadline(request):
                self._requests[request.alert] = request
        self.tick(t)
