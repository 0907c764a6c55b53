"""Whether the sirens may sound: armed, silent, exercise or disarmed.

Everything but *armed* is for a stated time. That time runs on powered-on time: what is left is
saved every ten seconds, so that a power cycle neither re-arms under a technician nor forgets to.
State that can't be read means armed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from gateway.events import NS, Status

MAX_S = 8 * 3600
"""The longest time a site may be anything but armed by one order."""


class Mode(StrEnum):
    """What a site does with an alert."""

    armed = "armed"
    silent = "silent"
    """Everything but the sirens."""
    exercise = "exercise"
    """Everything is marked as an exercise."""
    disarmed = "disarmed"
    """For work on the site: the sirens are off, alerts are told to the hub as tests."""


CHIRP = "chirp"
"""The shipped pattern that is too short to be taken for an alarm."""

Sound = Literal["silent", "chirp", "full"]

_STATUS = {
    Mode.armed: Status.actual,
    Mode.silent: Status.actual,
    Mode.exercise: Status.exercise,
    Mode.disarmed: Status.test,
}


@dataclass(frozen=True, slots=True)
class Arming:
    """The mode, until when (on the core's clock), who ordered it and how an exercise sounds."""

    mode: Mode = Mode.armed
    until_ns: int | None = None
    by: str = ""
    sound: Sound = "full"

    @property
    def status(self) -> Status:
        """The CAP status of what is decided in this mode."""
        return _STATUS[self.mode]

    @property
    def muted(self) -> str:
        """Why no siren may sound; empty if it may."""
        if self.mode is Mode.exercise:
            return "silent exercise" if self.sound == "silent" else ""
        return "" if self.mode is Mode.armed else str(self.mode)

    def pattern(self, status: Status, planned: str) -> str:
        """What sounds for an alert whose plan says ``planned``: in a chirping exercise no more."""
        chirps = self.sound == "chirp" and self.mode is Mode.exercise
        return CHIRP if chirps and status is not Status.actual else planned

    def state(self, t: int) -> dict[str, Any]:
        """For the journal: what is left of the time, as it runs only while powered on."""
        left = None if self.until_ns is None else max(0, self.until_ns - t)
        return {"mode": str(self.mode), "left_ns": left, "by": self.by, "sound": self.sound}

    @classmethod
    def order(cls, mode: Mode, for_s: float | None, t: int, by: str, sound: Sound) -> "Arming":
        """A new mode from now on.

        Raises:
            ValueError: no time given, or one that is too long.
        """
        if mode is Mode.armed:
            return cls(by=by)
        if for_s is None or not 0 < for_s <= MAX_S:
            raise ValueError(f"{mode} needs a time of up to {MAX_S // 3600} h; got {for_s!r} s")
        return cls(mode, t + round(for_s * NS), by, sound)

    @classmethod
    def restore(cls, state: Mapping[str, Any] | None, t: int) -> "Arming":
        """What was in force, with the time that was left.

        Raises:
            ValueError: the state can't be read; the caller stays armed and says so.
        """
        if state is None:
            return cls()
        try:
            left, sound = state["left_ns"], state["sound"]
            mode = Mode(state["mode"])
            if mode is Mode.armed or left is None or left <= 0:
                return cls(by=str(state["by"]))
            return cls(mode, t + min(int(left), MAX_S * NS), str(state["by"]), sound)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"arming state {state!r} can't be read") from error
