"""UTC against the host's own clock, and how far it can be trusted.

The host's own clock is CLOCK_BOOTTIME: it never steps. The kernel says whether a time service
(chrony, systemd-timesyncd) keeps the system's UTC, and its largest error, in ``adjtimex(2)``; both
are only read. Three states:

============  ====================================================================================
state         UTC is
============  ====================================================================================
never         the system's, right or not: it was never synchronised since this process began
synchronised  the system's; its error is what the kernel states
holdover      as it was when synchronisation was lost; its error grows by ``HOLDOVER_DRIFT``. A
              step of the system's clock in this state has no authority and is stated, not followed
============  ====================================================================================

A digitiser that is locked to GPS stands in where the system is not synchronised.
"""

import ctypes
import os
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from gateway.core.commands import Clock
from gateway.events import NS

STEP_NS = NS // 4
"""Time services slew what is smaller; what is larger between two looks is a step."""
STATED_NS = 60 * NS
"""How long a step is stated."""
HOLDOVER_DRIFT = 100e-6
"""Of the host's crystal, temperature included, when nothing disciplines it."""
DEVICE_ERROR_NS = NS // 4
"""Of a digitiser's UTC: transmission and buffering of its scans, not known exactly."""
DEVICE_STALE_NS = 10 * NS
TIMESYNCD_FLAG = "/run/systemd/timesync/synchronized"
TIMESYNCD_ERROR_NS = NS
"""Assumed where only systemd-timesyncd's flag can be read."""


@dataclass(frozen=True, slots=True)
class Sync:
    """Whether a time service keeps the system's UTC, and its largest error."""

    synchronised: bool
    max_error_ns: int = 0


@dataclass(frozen=True, slots=True)
class ClockChange:
    """A condition of the clock that begins (``wrong``) or ends: ``unsynchronised``, ``stepped``."""

    kind: str
    wrong: bool
    detail: str = ""


class State(StrEnum):
    """See the module's table."""

    never = "never"
    synchronised = "synchronised"
    holdover = "holdover"


class UtcClock:
    """UTC as an offset to the host's own clock. Times come as arguments."""

    def __init__(self) -> None:
        self.offset_ns = 0
        self.state = State.never
        self._began = False
        self._system_ns = 0
        self._error_ns = 0
        self._error_at = 0
        self._device_at: int | None = None
        self._stated_until: int | None = None
        self.steps = 0

    def sample(self, own_ns: int, utc_ns: int, sync: Sync) -> list[ClockChange]:
        """Take both clocks as read at the same moment; say what has changed."""
        changes = self._step(own_ns, utc_ns - own_ns)
        if sync.synchronised:
            if self.state is not State.synchronised and self._began:
                changes.append(ClockChange("unsynchronised", wrong=False))
            self.state = State.synchronised
            self.offset_ns = self._system_ns
            self._error_ns, self._error_at = sync.max_error_ns, own_ns
        else:
            if self.state is State.synchronised or not self._began:
                lost = self.state is State.synchronised
                since = "synchronisation lost" if lost else "not synchronised since start"
                changes.append(ClockChange("unsynchronised", wrong=True, detail=since))
            if self.state is State.synchronised:
                self.state = State.holdover
            if self.state is State.never:
                self.offset_ns = self._system_ns
        self._began = True
        return changes

    def _step(self, own_ns: int, system_ns: int) -> list[ClockChange]:
        """Note where the system's UTC stands; a jump of it is stated for a while."""
        moved, self._system_ns = system_ns - self._system_ns, system_ns
        if self._began and abs(moved) > STEP_NS:
            self.steps += 1
            self._stated_until = own_ns + STATED_NS
            detail = f"system clock stepped by {moved / NS:+.3f} s"
            return [ClockChange("stepped", wrong=True, detail=detail)]
        if self._stated_until is not None and own_ns >= self._stated_until:
            self._stated_until = None
            return [ClockChange("stepped", wrong=False)]
        return []

    def device(self, own_ns: int, utc_ns: int) -> None:
        """Take UTC that a GPS-locked digitiser gives for a scan stamped ``own_ns``.

        Stamps are late by a delay that varies, never early, so the largest offset is the nearest.
        """
        if self.state is State.synchronised:
            return
        offset_ns = utc_ns - own_ns
        fresh = self._device_at is not None and own_ns - self._device_at < DEVICE_STALE_NS
        near = fresh and abs(offset_ns - self.offset_ns) < DEVICE_ERROR_NS
        self.offset_ns = max(self.offset_ns, offset_ns) if near else offset_ns
        self.state = State.holdover
        self._device_at = own_ns
        self._error_ns, self._error_at = DEVICE_ERROR_NS, own_ns

    def uncertainty_ns(self, own_ns: int) -> int | None:
        """Largest error of UTC at that time; None while it was never known."""
        if self.state is State.never:
            return None
        drift = HOLDOVER_DRIFT if self.state is State.holdover else 0.0
        return self._error_ns + round((own_ns - self._error_at) * drift)

    def clock(self, own_ns: int) -> Clock:
        """UTC with its uncertainty, as commands are judged by it."""
        return Clock(own_ns + self.offset_ns, self.uncertainty_ns(own_ns))

    def status(self) -> dict[str, Any]:
        """For health and the technician. ``uncertainty_s`` as of the last look."""
        known = self.uncertainty_ns(self._error_at)
        return {
            "state": str(self.state),
            "uncertainty_s": None if known is None else known / NS,
            "steps": self.steps,
        }


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2), with the C library's types."""

    _fields_: ClassVar = [
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance")),
        *((name, ctypes.c_long) for name in ("tv_sec", "tv_usec", "tick", "ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("padding", ctypes.c_int * 11),
    ]


STA_UNSYNC = 0x0040


def read_sync() -> Sync:
    """What the kernel knows of the time service.

    Where a sandbox refuses even reading adjtimex, systemd-timesyncd's flag is what is left.
    """
    timex = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) >= 0:
        return Sync(not timex.status & STA_UNSYNC, timex.maxerror * 1000)
    return Sync(os.path.exists(TIMESYNCD_FLAG), TIMESYNCD_ERROR_NS)  # noqa: PTH110  no Path here


def read_system() -> tuple[int, int, Sync]:
    """The host's own clock, the system's UTC and its state: the arguments of ``sample``."""
    sync = read_sync()
    before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    utc_ns = time.time_ns()
    after_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return (before_ns + after_ns) // 2, utc_ns, sync
