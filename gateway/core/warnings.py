"""Warnings of the authorities that hold here: which scales they put in force, and for how long.

A gateway's own readings never make a warning; one comes as a signed command
(``gateway.core.commands``) and holds until its time is over or another of the same hazard takes its
place. Level ``none`` ends it. Its end is a time of UTC: when the clock is set, the end moves with
it, and a clock that is wrong can't make a warning hold for longer than ``MAX_S``.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.events import NS, Hazard, Level, OfficialWarning, iso

MAX_S = 48 * 3600
"""Typhoon warnings are renewed or lifted well within two days."""


@dataclass(frozen=True, slots=True)
class _Holding:
    """One in force. ``latest_ns`` (stream clock) is when it ends whatever the clock says."""

    level: Level
    expires_utc_ns: int
    latest_ns: int
    command: str
    by: str

    def end_ns(self, utc_offset_ns: int) -> int:
        return min(self.expires_utc_ns - utc_offset_ns, self.latest_ns)


class Warnings:
    """At most one a hazard, of those that some scale here waits for."""

    def __init__(self, wanted: Collection[Hazard | None]) -> None:
        self._wanted = frozenset(hazard for hazard in wanted if hazard is not None)
        self._held: dict[Hazard, _Holding] = {}

    @property
    def in_force(self) -> frozenset[Hazard]:
        """The hazards that are warned of."""
        return frozenset(self._held)

    def take(
        self,
        hazard: Hazard,
        level: Level,
        expires_utc_ns: int,
        t: int,
        utc_offset_ns: int,
        command: str,
        by: str,
    ) -> list[OfficialWarning]:
        """A warning that a verified command brings.

        Raises:
            ValueError: no scale here waits for it, or its validity is over or too long.
        """
        if hazard not in self._wanted:
            there = ", ".join(sorted(self._wanted)) or "none"
            raise ValueError(f"no scale here waits for a warning of {hazard}; expected {there}")
        if level is Level.none:
            return self._end(hazard, t, utc_offset_ns, f"lifted by {by}")
        left_ns = expires_utc_ns - utc_offset_ns - t
        if not 0 < left_ns <= MAX_S * NS:
            raise ValueError(
                f"expires: {iso(expires_utc_ns)} is {left_ns / NS:.0f} s from now; expected "
                f"at most {MAX_S // 3600} h"
            )
        self._held[hazard] = _Holding(level, expires_utc_ns, t + MAX_S * NS, command, by)
        return [self._event(hazard, "in_force", t, utc_offset_ns, "")]

    def tick(self, t: int, utc_offset_ns: int) -> list[OfficialWarning]:
        """End those whose time is over."""
        over = [h for h, held in self._held.items() if held.end_ns(utc_offset_ns) <= t]
        return [event for h in over for event in self._end(h, t, utc_offset_ns, "its time is over")]

    def next_deadline(self, utc_offset_ns: int) -> int | None:
        """When :meth:`tick` is next wanted."""
        return min((held.end_ns(utc_offset_ns) for held in self._held.values()), default=None)

    def status(self) -> list[dict[str, Any]]:
        """Those in force, for people."""
        return [
            {"hazard": str(h), "level": held.level.name, "expires": iso(held.expires_utc_ns)}
            for h, held in self._held.items()
        ]

    def state(self) -> list[dict[str, Any]]:
        """What a restart needs, as JSON types."""
        return [
            {
                "hazard": str(hazard),
                "level": held.level.name,
                "expires_utc_ns": held.expires_utc_ns,
                "command": held.command,
                "by": held.by,
            }
            for hazard, held in self._held.items()
        ]

    def restore(
        self, state: Sequence[Mapping[str, Any]], t: int, utc_offset_ns: int
    ) -> list[OfficialWarning]:
        """Take up what :meth:`state` gave, as far as it still holds.

        Raises:
            ValueError: it is not of this form; nothing of it was taken over.
        """
        try:
            found = {
                Hazard(item["hazard"]): _Holding(
                    Level[item["level"]],
                    int(item["expires_utc_ns"]),
                    t + MAX_S * NS,
                    str(item["command"]),
                    str(item["by"]),
                )
                for item in state
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"saved warnings: {error!r}") from error
        self._held = {
            hazard: held
            for hazard, held in found.items()
            if hazard in self._wanted and held.end_ns(utc_offset_ns) > t
        }
        return [
            self._event(hazard, "in_force", t, utc_offset_ns, "restored") for hazard in self._held
        ]

    def _end(
        self, hazard: Hazard, t: int, utc_offset_ns: int, reason: str
    ) -> list[OfficialWarning]:
        if hazard not in self._held:
            return []
        event = self._event(hazard, "ended", t, utc_offset_ns, reason)
        del self._held[hazard]
        return [event]

    def _event(
        self, hazard: Hazard, state: Any, t: int, utc_offset_ns: int, reason: str
    ) -> OfficialWarning:
        held = self._held[hazard]
        # In stream time, as all times of events are; to_record adds the offset again.
        expires_ns = held.expires_utc_ns - utc_offset_ns
        return OfficialWarning(
            hazard, held.level, state, t, expires_ns, held.command, held.by, reason
        )
