"""Rain: exact rolling sums, intensities, the event in progress, and the faults of gauges.

Amounts are whole nanometres: a millionth of a millimetre, the resolution of a reading. A window of
width w at time t holds the readings whose interval *ends* in (t − w, t], each with its whole
interval; so sums are those of exact integer arithmetic on the series, to the reading.

=================  ==================================================  ==========================
quantity           what a reading adds                                 its interval
=================  ==================================================  ==========================
``rain_total_mm``  the rise of the counter; a counter that fell was    since the last reading
                   reset, and its new value counts as fallen, unless
                   it has wrapped; the first reading is only the
                   baseline
``rain_mm``        itself                                              the gauge's own
``rain_mmph``      rate × time since the last reading, remainders      since the last reading
                   carried; indicative
=================  ==================================================  ==========================

Of a gauge that reports several, the uppermost of the table counts, as a counter loses nothing when
telegrams are lost. An amount that a counter gathered over longer than a window (the line was down)
says nothing of that window and is left out of it; the window is then incomplete.

A gauge that reports dry intervals too has left readings out when its next one comes after twice the
usual time; that makes windows incomplete as a missing reading does.

A fault makes a reading count as missing: an amount beyond the largest rain on record, a negative
one, a rate that has not changed for ``stuck_h``. The largest is ``highest`` of the scale for each
minute, and at most 422 mm × (hours)^0.475, the envelope of the world's records (Paulhus 1965; WMO
No. 168), plus one tip. The interval of a first ``rain_mm`` is taken for 5 minutes. A counter
that jumps is believed only when the next reading confirms the new place, and the jump is no rain.
A second equal tip within 150 ms is the contact bouncing and adds nothing.

Where the profile says at which value a counter begins again at zero (a 16-bit register of tenths:
6553.6 mm), a fall that makes less than half of that as a wrap is a wrap; any other is a reset.

Two faults are only reported, since leaving true rain out would be worse: equal amounts at equal
intervals for ``stuck_h`` and at least ``EQUAL_READINGS`` of them, for rain is never so even, and
rain without a dry hour for ``ENDLESS_H``, longer than a front or a landfalling typhoon brings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.detect.evaluator import Evaluator, Mode, Output
from gateway.detect.rolling import Entry, Rolling, RollingSum
from gateway.detect.scale import Condition, Scale
from gateway.events import MICRO, NS, Reading

QUANTITIES = ("rain_total_mm", "rain_mm", "rain_mmph")
"""Best first."""

SUMS_S = (3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600)
"""Windows that are always kept, besides those of the scale."""

INTENSITIES_S = (60, 300, 600, 3600)

EVENT_GAP_NS = 6 * 3600 * NS
"""Rain after so long a dry time is another event, as hydrology usually parts them."""

ENDLESS_H = 72
EQUAL_READINGS = 60

MINUTE_NS = 60 * NS
_HOUR_NS = 3600 * NS
_UNKNOWN_NS = 24 * _HOUR_NS
_FIRST_NS = 5 * MINUTE_NS
_TIP_NM = 1 * MICRO
_RECORD_NM = 422 * MICRO
_BOUNCE_NS = NS * 150 // 1000
_RATE_REACH_NS = 15 * MINUTE_NS
_BLOCKED_S = 3 * 3600
_BLOCKED_NM = 10 * MICRO


@dataclass(frozen=True, slots=True)
class Fallen:
    """What one reading says of the rain. ``nm`` is None where it says nothing.

    ``span_ns`` is the length of the interval where it is known, else 0.
    """

    nm: int | None
    span_ns: int = 0
    fault: str = ""
    detail: str = ""


class RainGauge:
    """Turns the readings of one gauge, of whatever quantity, into amounts in nanometres.

    Args:
        highest_micro: most rain in a minute that is believed, millionths of a mm; None: any.
        stuck_s: an unchanging rate other than 0 for so long is a fault; 0: never.
        wrap_micro: value at which the counter begins again at 0; None: it never does.
    """

    def __init__(
        self,
        highest_micro: int | None = None,
        stuck_s: int = 0,
        wrap_micro: int | None = None,
    ) -> None:
        self._highest_nm = highest_micro
        self._stuck_ns = stuck_s * NS
        self._wrap_nm = wrap_micro
        self.quantity = ""
        self._last_ns: int | None = None
        self._last_nm = 0
        self._counter: tuple[int, int] | None = None
        self._suspect: tuple[int, int] | None = None
        self._steady: tuple[int, int] = (0, 0)
        self._even_span_ns = 0
        self._equal = 0
        self._remainder = 0

    @property
    def counter(self) -> tuple[int, int] | None:
        """Time and value (millionths of a mm) of the counter that the next reading adds to."""
        return self._counter

    @counter.setter
    def counter(self, place: tuple[int, int]) -> None:
        self.quantity, self._counter = QUANTITIES[0], place

    def take(self, reading: Reading) -> Fallen | None:
        """The amount of a reading; None for a quantity that gives way to a better one."""
        quantity = reading.quantity
        if quantity != self.quantity:
            if self.quantity and QUANTITIES.index(quantity) > QUANTITIES.index(self.quantity):
                return None
            self.quantity, self._last_ns = quantity, None
        t, micro, since = reading.time_ns, reading.micro, self._last_ns
        self._last_ns = t
        if micro is None:
            return Fallen(None)
        if micro < 0:
            return Fallen(None, fault="invalid", detail=f"{quantity} {micro / MICRO:g} is negative")
        if quantity == "rain_total_mm":
            return self._risen(t, micro)
        if quantity == "rain_mm":
            return self._amount(t, micro, since)
        return self._rate(t, micro, since)

    def _believed(self, nm: int, span_ns: int) -> bool:
        if self._highest_nm is None:
            return True
        most = self._highest_nm * span_ns // MINUTE_NS
        return nm - _TIP_NM <= min(most, int(_RECORD_NM * (span_ns / _HOUR_NS) ** 0.475))

    def _amount(self, t: int, nm: int, since: int | None) -> Fallen:
        span = _FIRST_NS if since is None else t - since
        before, self._last_nm = self._last_nm, nm
        if nm and nm == before and span < _BOUNCE_NS:
            return Fallen(0, fault="bounce", detail=f"a second tip after {span // 1_000_000} ms")
        if not self._believed(nm, span):
            return _impossible(f"{nm / MICRO:g}", span)
        return self._even(Fallen(nm), t, span)

    def _risen(self, t: int, value: int) -> Fallen:
        if self._counter is None:
            self._counter = (t, value)
            return Fallen(None)
        for start, base in filter(None, (self._suspect, self._counter)):
            fell = value < base
            nm, span = (value if fell else value - base), t - start
            wrapped = self._wrapped(base, value) if fell else None
            if wrapped is not None and self._believed(wrapped, span):
                self._counter, self._suspect = (t, value), None
                return Fallen(wrapped, span)
            # After a jump only a counter that goes on from one of the two places is believed.
            if self._believed(nm, span) and not (fell and self._suspect):
                self._counter, self._suspect = (t, value), None
                if fell:
                    return Fallen(nm, span, "reset", f"counter fell from {base / MICRO:g} mm")
                return self._even(Fallen(nm, span), t, span)
        self._suspect = (t, value)
        start, base = self._counter
        return _impossible(f"counter from {base / MICRO:g} to {value / MICRO:g}", t - start)

    def _wrapped(self, base: int, value: int) -> int | None:
        """What a counter that fell has gathered if it wrapped; None where that can't be."""
        if self._wrap_nm is None or base >= self._wrap_nm:
            return None
        nm = self._wrap_nm - base + value
        return nm if 2 * nm < self._wrap_nm else None

    def _even(self, fallen: Fallen, t: int, span_ns: int) -> Fallen:
        """Say so of an amount that has come evenly for too long; it counts all the same."""
        (steady, since), span, before = self._steady, span_ns, self._even_span_ns
        self._even_span_ns = span
        # Tips are all of one size: what is even of them is the time between.
        if fallen.nm != steady or abs(span - before) > before // 20:
            self._steady, self._equal = (fallen.nm or 0, t), 0
            return fallen
        self._equal += 1
        long_enough = self._stuck_ns and t - since >= self._stuck_ns
        if not fallen.nm or not long_enough or self._equal < EQUAL_READINGS:
            return fallen
        detail = f"{fallen.nm / MICRO:g} mm in each of the last {self._equal} readings"
        return Fallen(fallen.nm, fallen.span_ns, "steady", f"{detail}; check the gauge")

    def _rate(self, t: int, rate: int, since: int | None) -> Fallen:
        steady, since_steady = self._steady
        if rate != steady:
            self._steady = (rate, t)
        elif rate and self._stuck_ns and t - since_steady >= self._stuck_ns:
            return Fallen(None, fault="flat", detail=f"rate stuck at {rate / MICRO:g} mm/h")
        if since is None or t - since > _RATE_REACH_NS:
            return Fallen(None)
        span = t - since
        if not self._believed(rate * span // _HOUR_NS, span):
            return _impossible(f"{rate * span // _HOUR_NS / MICRO:g}", span)
        nm, self._remainder = divmod(rate * span + self._remainder, _HOUR_NS)
        return Fallen(nm, span)


def _impossible(what: str, span_ns: int) -> Fallen:
    detail = f"{what} mm in {span_ns / NS:g} s is beyond any rain; check the gauge"
    return Fallen(None, fault="spike", detail=detail)


@dataclass(frozen=True, slots=True)
class RainEvent:
    """Rain without a dry time of six hours: first and newest wet reading, and the sum."""

    start_ns: int
    last_ns: int
    nm: int


class RainEvaluator(Evaluator):
    """A rain scale over one gauge. ``wrap_micro``: see :class:`RainGauge`."""

    def __init__(self, scale: Scale, sensor: str, wrap_micro: int | None = None) -> None:
        super().__init__(scale, sensor)
        self.quantities = QUANTITIES
        self.gauge = RainGauge(scale.highest_micro, scale.stuck_s, wrap_micro)
        self.event: RainEvent | None = None
        windows = sorted({*SUMS_S, *(condition.window_s for condition in scale.conditions)})
        self._sums = {window_s: RollingSum(window_s * NS) for window_s in windows}
        self._intensities = {window_s: RollingSum(window_s * NS) for window_s in INTENSITIES_S}
        self._rollings = [*self._sums.values(), *self._intensities.values()]
        self._kept = {"rain": self._sums[windows[-1]]}
        self._continuing_ns = scale.continuing_s * NS
        self._wet_ns: int | None = None
        self._wet_since_ns = 0
        self._read_ns: int | None = None
        self._speaks_dry = False
        self._spacing_ns = _UNKNOWN_NS

    def _take(self, reading: Reading, out: list[Output]) -> bool:
        fallen = self.gauge.take(reading)
        t = reading.time_ns
        if fallen is None:
            return True
        if fallen.fault:
            out += self._fault(fallen.fault, t, fallen.detail)
        elif reading.micro is not None:
            self._recovered(t, out)
        if reading.quantity == "rain_mmph":
            self._mark_indicative(t, "rain is integrated from a rate", out)
        spacing = _UNKNOWN_NS if self._read_ns is None else t - self._read_ns
        if not fallen.span_ns and self._speaks_dry and spacing >= 2 * self._spacing_ns:
            self._unseen_ns = t
        self._read_ns, self._spacing_ns = t, spacing
        if fallen.nm is None or self.mode is Mode.maintenance:
            return False
        self._speaks_dry = self._speaks_dry or not fallen.nm
        if fallen.nm:
            out += self._endless(t)
        self._add(t, fallen.nm, fallen.span_ns)
        return True

    def _endless(self, t: int) -> list[Output]:
        """Report rain that has had no dry hour for longer than rain lasts."""
        if self._wet_ns is None or t - self._wet_ns > _HOUR_NS:
            self._wet_since_ns = t
        if t - self._wet_since_ns < ENDLESS_H * _HOUR_NS:
            return []
        hours = (t - self._wet_since_ns) // _HOUR_NS
        return self._fault("endless", t, f"rain for {hours} h without a dry one; check the gauge")

    def _add(self, t: int, nm: int, span_ns: int) -> None:
        for rolling in self._sums.values():
            rolling.add(t, nm, span_ns)
        for rolling in self._intensities.values():
            rolling.add(t, nm, span_ns or self._spacing_ns)
        if nm:
            self._wet_ns = t
            event = self.event
            if event is None or t - event.last_ns >= EVENT_GAP_NS:
                event = RainEvent(t, t, 0)
            self.event = RainEvent(event.start_ns, t, event.nm + nm)

    def _value(self, condition: Condition) -> int | None:
        return self._sums[condition.window_s].total

    def _changes(self, condition: Condition) -> int | None:
        return self._sums[condition.window_s].changes_ns

    def _raise(self, t: int) -> list[Output]:
        wet = self._wet_ns is not None and t - self._wet_ns < self._continuing_ns
        return super()._raise(t) if wet or not self._continuing_ns else []

    def sum_nm(self, window_s: int) -> int:
        """Rain of a window that the scale or ``SUMS_S`` has, as of the latest time told."""
        return self._sums[window_s].total

    def _known(self, t: int) -> dict[str, float]:
        found = {f"rain_{_label(w)}_mm": s.total / MICRO for w, s in self._sums.items()}
        found |= {
            f"rain_{_label(w)}_mmph": rolling.total / MICRO * 3600 / w
            for w, rolling in self._intensities.items()
            if self._spacing_ns <= rolling.window_ns
        }
        if self._unseen_ns is not None:
            watched_ns = min(t - self._unseen_ns, _UNKNOWN_NS)
            found["rain_complete_h"] = max(0.0, watched_ns / _HOUR_NS)
        if self.event is not None and t - self.event.last_ns < EVENT_GAP_NS:
            found["rain_event_mm"] = self.event.nm / MICRO
            found["rain_event_h"] = (self.event.last_ns - self.event.start_ns) / _HOUR_NS
        return found

    def compare(self, neighbour: "RainEvaluator", t: int) -> list[Output]:
        """Report a gauge that caught nothing in 3 h in which its neighbour caught 10 mm."""
        for gauge in (self, neighbour):
            gauge._look(t)  # noqa: SLF001  one of our own
            if not gauge.complete(_BLOCKED_S):
                return []
        if self.sum_nm(_BLOCKED_S) or neighbour.sum_nm(_BLOCKED_S) < _BLOCKED_NM:
            return []
        caught = neighbour.sum_nm(_BLOCKED_S) / MICRO
        return self._fault(
            "blocked", t, f"no rain in 3 h while {neighbour.sensor} had {caught:g} mm; clean it"
        )

    def state(self, utc_offset_ns: int) -> dict[str, Any]:
        """As of every evaluator; rain is kept by the minute, at each minute's last reading."""
        state = super().state(utc_offset_ns)
        place = self.gauge.counter
        state["counter"] = None if place is None else [place[0] + utc_offset_ns, place[1]]
        event = self.event
        state["event"] = (
            None
            if event is None
            else [event.start_ns + utc_offset_ns, event.last_ns + utc_offset_ns, event.nm]
        )
        return state

    def _saved(self, rolling: Rolling) -> list[Entry]:
        minutes: list[Entry] = []
        for end, nm, span in rolling.entries:
            if minutes and minutes[-1][0] // MINUTE_NS == end // MINUTE_NS:
                _, shared, before = minutes.pop()
                minutes.append((end, nm + shared, max(span, before)))
            else:
                minutes.append((end, nm, span))
        return minutes

    def restore(self, state: Mapping[str, Any], t: int, utc_offset_ns: int) -> None:
        super().restore(state, t, utc_offset_ns)
        if state.get("scale") != self.scale.name or state.get("sensor") != self.sensor:
            return
        match state.get("counter"):
            case [int(moment), int(value)] if moment - utc_offset_ns <= t:
                self.gauge.counter = (moment - utc_offset_ns, value)
        match state.get("event"):
            case [int(start), int(last), int(nm)] if last - utc_offset_ns <= t:
                self.event = RainEvent(start - utc_offset_ns, last - utc_offset_ns, nm)

    def _take_over(self) -> None:
        longest = self._kept["rain"]
        for rolling in self._sums.values():
            if rolling is not longest:
                rolling.restore(longest.entries)
        if longest.entries:
            self._wet_ns = longest.entries[-1][0]


def _label(window_s: int) -> str:
    return f"{window_s // 3600}h" if window_s % 3600 == 0 else f"{window_s // 60}min"
