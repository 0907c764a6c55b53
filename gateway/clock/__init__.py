"""Time: when a sample was taken, on the host's own clock, and what that is in UTC.

The two are kept apart. Detection sees only the first, so that a step of UTC, a lost GPS or a host
without a battery-backed clock changes what is said of the time and never what is decided.
"""

from gateway.clock.samples import SampleClock
from gateway.clock.utc import ClockChange, Sync, UtcClock, read_system

__all__ = ["ClockChange", "SampleClock", "Sync", "UtcClock", "read_system"]
