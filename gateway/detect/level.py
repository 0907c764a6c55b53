"""Threshold scales over a scalar: wind, air, water level, contacts. And :func:`make` for them all.

===================  =======================================================================
quantity             what is made of its readings
===================  =======================================================================
``wind_mps``         means over 2 and 10 min; where there is no ``gust_mps``, 3-s means of
                     readings at most 3 s apart are the gusts
``gust_mps``         the largest in 10 min
``pm25_ugm3``        running mean over 24 h (``iaqi_24h``), and over the last hour, which is no
                     IAQI of the standard's day and labelled ``iaqi_realtime``
``water_level_m``    the level and its rise in an hour, each reading despiked
``contact``          1 closed, 0 open
===================  =======================================================================

A reading stands for the time since the last one, at most for ``reach_s`` of the scale and at most
for twice the spacing before it, so that the first reading after a silence weighs no more than any
other; the first of all stands for nothing yet. A mean counts once enough of its window is covered.

IAQI: the concentration is rounded to a whole µg/m³ (half to even, as GB/T 8170), interpolated
between the breakpoints of the scale file and rounded up; beyond the last breakpoint it stays there
(HJ 633).
"""

from collections import deque
from itertools import pairwise

from gateway.detect.evaluator import Evaluator, Mode, Output
from gateway.detect.rain import RainEvaluator
from gateway.detect.rolling import Rolling, RollingHigh, RollingLow, RollingMean
from gateway.detect.scale import RAIN, Condition, Measure, Scale
from gateway.events import MICRO, NS, Reading

GUST_NS = 3 * NS
_GUST_VALID_NS = GUST_NS * 5 // 6
_KEEP_FROM_S = 3600
"""Windows at least so long are saved over a restart; shorter ones fill again soon enough."""

_SHOWN: dict[str, tuple[tuple[Measure, int], ...]] = {
    "wind_mps": ((Measure.mean, 120), (Measure.mean, 600)),
    "gust_mps": ((Measure.max, 600),),
    "pm25_ugm3": ((Measure.mean, 3600), (Measure.mean, 86_400)),
    "water_level_m": ((Measure.rise, 3600),),
    "contact": (),
}

_VALUE = Measure.value
"""Python 3.11 looks up an enumeration's ``value`` by a function of its own, each time."""

_Key = tuple[Measure, str, int]


def index_of(breakpoints: tuple[tuple[int, int], ...], micro: int) -> int:
    """The index of a concentration in millionths, by breakpoints (concentration, index)."""
    whole, rest = divmod(micro, MICRO)
    whole += rest * 2 > MICRO or (rest * 2 == MICRO and whole % 2 == 1)
    if whole <= breakpoints[0][0]:
        return breakpoints[0][1]
    for (low, index_low), (high, index_high) in pairwise(breakpoints):
        if whole <= high:
            return index_low - (index_low - index_high) * (whole - low) // (high - low)
    return breakpoints[-1][1]


class LevelEvaluator(Evaluator):
    """A scale over the scalar quantities of one sensor."""

    def __init__(self, scale: Scale, sensor: str) -> None:
        super().__init__(scale, sensor)
        self._reach_ns = scale.reach_s * NS
        self._newest: dict[str, tuple[int, int]] = {}
        self._spacing_ns: dict[str, int] = {}
        self._recent: dict[str, deque[int]] = {}
        self._steady: dict[str, tuple[int, int]] = {}
        self._read_ns: dict[str, int] = {}
        self._gust = RollingMean(GUST_NS)
        self._quantities = scale.quantities
        self._gust_made = "gust_mps" in self._quantities
        keys: list[_Key] = [(c.measure, c.quantity, c.window_s) for c in scale.conditions]
        keys += [(m, q, w) for q in self._quantities for m, w in _SHOWN[q]]
        self._valid_s: dict[_Key, int] = {
            (c.measure, c.quantity, c.window_s): c.valid_s
            for c in scale.conditions
            if c.measure is Measure.mean
        }
        self._means: dict[_Key, RollingMean] = {}
        self._highs: dict[_Key, RollingHigh] = {}
        for key in keys:
            if key[0] is Measure.mean:
                self._means[key] = RollingMean(key[2] * NS)
            elif key[0] is Measure.max:
                self._highs[key] = RollingHigh(key[2] * NS)
            elif key[0] is Measure.rise:
                self._highs[key] = RollingLow(key[2] * NS)
        self._rolling: dict[_Key, Rolling] = {**self._means, **self._highs}
        self._rollings = [*self._rolling.values(), self._gust]
        self._kept = {
            f"{key[0]} {key[1]} {key[2]}": rolling
            for key, rolling in self._rolling.items()
            if key[2] >= _KEEP_FROM_S
        }

    def reads(self, quantity: str) -> bool:
        return quantity in self._quantities or (quantity == "wind_mps" and self._gust_made)

    def _take(self, reading: Reading, out: list[Output]) -> bool:
        quantity, t = reading.quantity, reading.time_ns
        if quantity == "gust_mps" and reading.micro is not None:
            self._gust_made = False
        micro = self._sound(reading, out)
        cover = self._cover(quantity, t)
        if micro is None or self.mode is Mode.maintenance:
            return False
        if quantity in self._quantities:
            self._put(quantity, t, cover, micro)
        if quantity == "wind_mps" and self._gust_made and cover <= GUST_NS:
            self._gust.add(t, cover, micro)
            gust = self._gust.value(_GUST_VALID_NS)
            if gust is not None:
                self._put("gust_mps", t, cover, gust)
        return True

    def _sound(self, reading: Reading, out: list[Output]) -> int | None:
        """The value of a reading, despiked where the scale says so; None if it is no good."""
        quantity, t, micro = reading.quantity, reading.time_ns, reading.micro
        if micro is None:
            return None
        scale = self.scale
        low, high = scale.lowest_micro, scale.highest_micro
        if (low is not None and micro < low) or (high is not None and micro > high):
            out += self._fault("spike", t, f"{quantity} {micro / MICRO:g} can't be; left out")
            return None
        steady, since = self._steady.get(quantity, (None, t))
        if micro != steady:
            self._steady[quantity] = (micro, t)
            self._recovered(t, out)
        elif micro and scale.stuck_s and t - since >= scale.stuck_s * NS:
            out += self._fault("flat", t, f"{quantity} stuck at {micro / MICRO:g}; left out")
            return None
        if not scale.despike:
            return micro
        recent = self._recent.setdefault(quantity, deque(maxlen=3))
        recent.append(micro)
        return sorted(recent)[1] if len(recent) == 3 else None

    def _cover(self, quantity: str, t: int) -> int:
        """How long the reading at ``t`` stands for."""
        last = self._read_ns.get(quantity)
        self._read_ns[quantity] = t
        if last is None:
            return 0
        spacing = t - last
        cover = min(spacing, 2 * self._spacing_ns.get(quantity, spacing))
        self._spacing_ns[quantity] = spacing
        return min(cover, self._reach_ns) if self._reach_ns else cover

    def _put(self, quantity: str, t: int, cover: int, micro: int) -> None:
        self._newest[quantity] = (t, micro)
        for key, mean in self._means.items():
            if key[1] == quantity:
                mean.add(t, cover, micro)
        for key, high in self._highs.items():
            if key[1] == quantity:
                high.add(t, micro)

    def _value(self, condition: Condition) -> int | None:
        return self._measured((condition.measure, condition.quantity, condition.window_s))

    def _changes(self, condition: Condition) -> int | None:
        key: _Key = (condition.measure, condition.quantity, condition.window_s)
        rolling = self._rolling.get(key)
        moments = [rolling.changes_ns if rolling else None]
        if condition.measure in (_VALUE, Measure.rise):
            moments.append(self._stale_ns(condition.quantity))
        return min((moment for moment in moments if moment is not None), default=None)

    def _stale_ns(self, quantity: str) -> int | None:
        """When the newest reading stops standing for anything; None if it never will or has."""
        newest = self._newest.get(quantity)
        if newest is None or not self._reach_ns or self._now is None:
            return None
        stale = newest[0] + self._reach_ns
        return stale if stale > self._now else None

    def _measured(self, key: _Key) -> int | None:
        measure, quantity, window_s = key
        if measure is Measure.mean:
            mean = self._means[key].value(self._valid_s.get(key, window_s * 3 // 4) * NS)
            if mean is not None and self.scale.index:
                return index_of(self.scale.index, mean) * MICRO
            return mean
        if measure is Measure.max:
            return self._highs[key].value
        newest = self._newest.get(quantity)
        if newest is None or (self._reach_ns and self._stale_ns(quantity) is None):
            return None
        if measure is _VALUE:
            return newest[1]
        low = self._highs[key].value
        return None if low is None else newest[1] - low

    def _known(self, t: int) -> dict[str, float]:  # noqa: ARG002  rain needs the time
        found: dict[str, float] = {}
        for quantity in self._quantities:
            value = self._measured((_VALUE, quantity, 0))
            if value is not None:
                found[quantity] = value / MICRO
        for key in self._rolling:
            value = self._measured(key)
            if value is not None:
                measure, quantity, window_s = key
                label = f"{window_s // 3600}h" if window_s % 3600 == 0 else f"{window_s // 60}min"
                if measure is Measure.mean and self.scale.index:
                    name = "iaqi_realtime" if window_s <= 3600 else f"iaqi_{label}"
                    found[name] = value / MICRO
                    value = self._means[key].value(0) or 0
                found[f"{quantity}_{measure}_{label}"] = value / MICRO
        return found


def make(scale: Scale, sensor: str, wrap_micro: int | None = None) -> Evaluator:
    """The evaluator of a scale over the readings of one sensor.

    ``wrap_micro`` is the value at which a rain counter begins again at 0.

    A sensor that falls silent says nothing by itself: give it a reading with ``micro=None`` when
    that is noticed, and again at intervals while it lasts, so that its windows are incomplete.
    """
    if scale.quantities == (RAIN,):
        return RainEvaluator(scale, sensor, wrap_micro)
    return LevelEvaluator(scale, sensor)
