"""How many bytes a metered link may carry in a day, and what waits when they are used.

The day is 86,400 seconds that the station was powered on, from the first byte after the last day
was over: so no step of the clock gives or takes anything, and in no calendar day more goes out than
in two of these.

===========================  =============================
used                         still sent
===========================  =============================
less than 80 %               everything
80 % and more                all but telemetry, waveforms
100 % and more               alerts to replies, and health
===========================  =============================
"""

from gateway.uplink.messages import Kind

DAY_S = 86_400
BULK_SHARE = 0.8


class Budget:
    """``daily_bytes`` in each day. ``powered_s`` is the outbox's powered-on clock."""

    def __init__(self, daily_bytes: int, since_s: int = 0, used_bytes: int = 0) -> None:
        self.daily_bytes = daily_bytes
        self.since_s = since_s
        self.used_bytes = used_bytes

    def spend(self, count: int, powered_s: int) -> None:
        """So many bytes went over the link."""
        if powered_s - self.since_s >= DAY_S:
            self.since_s, self.used_bytes = powered_s, 0
        self.used_bytes += count

    def held(self) -> frozenset[Kind]:
        """Classes that wait for the next day."""
        if self.used_bytes >= self.daily_bytes:
            return frozenset({Kind.event, Kind.telemetry, Kind.waveform})
        if self.used_bytes >= BULK_SHARE * self.daily_bytes:
            return frozenset({Kind.telemetry, Kind.waveform})
        return frozenset()
