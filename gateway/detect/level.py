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
from dataclasses import dataclass, field
from itertools import pairwise

from gateway.detect.evaluator import EVER_NS, Evaluator, Mode, Output
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

_VALUE, _MEAN, _MAX, _MAINTENANCE = Measure.value, Measure.mean, Measure.max, Mode.maintenance
"""Python 3.11 looks up a member of an enumeration by several calls, each time."""

_Key = tuple[Measure, str, int]


@dataclass(slots=True)
class _Series:
    """The readings of one quantity, and the windows over them."""

    means: list[RollingMean] = field(default_factory=list)
    highs: list[RollingHigh] = field(default_factory=list)
    gust: RollingMean | None = None
    """What makes gusts of it; None where they are not made, or reported."""
    newest_micro: int = 0
    stands_until_ns: int = -EVER_NS
    """When the newest value that counts no longer stands for anything."""
    read_ns: int | None = None
    """When one was last read, whatever it was worth, ``spacing_ns`` after the one before."""
    spacing_ns: int | None = None
    steady_micro: int | None = None
    steady_ns: int = 0
    """Since when each reading has been ``steady_micro``."""
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=3))

    def put(self, t: int, cover: int, micro: int, until_ns: int) -> None:
        """Let a value count that stood for ``cover`` ns and stands on until then."""
        self.newest_micro, self.stands_until_ns = micro, until_ns
        for mean in self.means:
            mean.add(t, cover, micro)
        for high in self.highs:
            high.add(t, micro)


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
        self._reach_ns = scale.reach_s * NS or EVER_NS
        self._series = {quantity: _Series() for quantity in scale.quantities}
        conditions = {_key(condition): condition for condition in scale.conditions}
        for quantity in self._series:
            for measure, window_s in _SHOWN[quantity]:
                shown = Condition(measure, quantity, window_s, 0, 0, window_s * 3 // 4)
                conditions.setdefault(_key(shown), shown)
        self._means: dict[_Key, RollingMean] = {}
        self._highs: dict[_Key, RollingHigh] = {}
        for key in conditions:
            measure, quantity, window_s = key
            if measure is _MEAN:
                self._means[key] = RollingMean(window_s * NS)
                self._series[quantity].means.append(self._means[key])
            elif measure in (_MAX, Measure.rise):
                kind = RollingHigh if measure is _MAX else RollingLow
                self._highs[key] = kind(window_s * NS)
                self._series[quantity].highs.append(self._highs[key])
        self._rolling: dict[_Key, Rolling] = {**self._means, **self._highs}
        self._rollings = [*self._rolling.values()]
        self._shown = {q: Condition(_VALUE, q, 0, 0, 0) for q in self._series}
        for measure, quantity, window_s in self._rolling:
            name = f"{quantity}_{measure}_{_label(window_s)}"
            self._shown[name] = conditions[measure, quantity, window_s]
        if "gust_mps" in self._series:
            gust = RollingMean(GUST_NS)
            self._rollings.append(gust)
            self._series.setdefault("wind_mps", _Series()).gust = gust
            self.quantities = tuple(self._series)
        self._kept = {
            f"{key[0]} {key[1]} {key[2]}": rolling
            for key, rolling in self._rolling.items()
            if key[2] >= _KEEP_FROM_S
        }

    def _take(self, reading: Reading, out: list[Output]) -> bool:
        quantity, t, micro, scale = reading.quantity, reading.time_ns, reading.micro, self.scale
        series = self._series[quantity]
        if quantity == "gust_mps" and micro is not None:
            self._series["wind_mps"].gust = None
            self.quantities = scale.quantities
        cover = self._cover(series, t) if self._rollings else 0  # windows alone weigh it
        if micro is None:
            return False
        low, high = scale.lowest_micro, scale.highest_micro
        if (low is not None and micro < low) or (high is not None and micro > high):
            out += self._fault("spike", t, f"{quantity} {micro / MICRO:g} can't be; left out")
            return False
        if scale.stuck_s and self._sticks(series, reading, micro, out):
            return False
        if scale.despike:
            series.recent.append(micro)
            if len(series.recent) < 3:
                return False
            micro = sorted(series.recent)[1]
        if self.mode is _MAINTENANCE:
            return False
        series.put(t, cover, micro, t + self._reach_ns)
        if series.gust is not None and cover <= GUST_NS:
            self._make_gust(series.gust, t, cover, micro)
        return True

    def _sticks(self, series: _Series, reading: Reading, micro: int, out: list[Output]) -> bool:
        """Whether the value has not changed for so long that it can't be one."""
        t = reading.time_ns
        if micro != series.steady_micro:
            series.steady_micro, series.steady_ns = micro, t
            self._recovered(t, out)
        elif micro and t - series.steady_ns >= self.scale.stuck_s * NS:
            what = f"{reading.quantity} stuck at {micro / MICRO:g}; left out"
            out += self._fault("flat", t, what)
            return True
        return False

    def _cover(self, series: _Series, t: int) -> int:
        """How long the reading at ``t`` stands for."""
        last, before = series.read_ns, series.spacing_ns
        series.read_ns = t
        if last is None:
            return 0
        series.spacing_ns = spacing = t - last
        return min(spacing, 2 * (spacing if before is None else before), self._reach_ns)

    def _make_gust(self, mean: RollingMean, t: int, cover: int, micro: int) -> None:
        mean.add(t, cover, micro)
        gust = mean.value(_GUST_VALID_NS)
        if gust is not None:
            self._series["gust_mps"].put(t, cover, gust, t + self._reach_ns)

    def _value(self, condition: Condition) -> int | None:
        if condition.measure is not _VALUE:
            return self._windowed(condition)
        series = self._series[condition.quantity]
        return series.newest_micro if self._now < series.stands_until_ns else None

    def _windowed(self, condition: Condition) -> int | None:
        key = _key(condition)
        if condition.measure is _MEAN:
            mean = self._means[key].value(condition.valid_s * NS)
            if mean is not None and self.scale.index:
                return index_of(self.scale.index, mean) * MICRO
            return mean
        extreme = self._highs[key].value
        if condition.measure is _MAX:
            return extreme
        series = self._series[condition.quantity]
        if extreme is None or self._now >= series.stands_until_ns:
            return None
        return series.newest_micro - extreme

    def _changes(self, condition: Condition) -> int | None:
        rolling = self._rolling.get(_key(condition))
        moments = [rolling.changes_ns if rolling else None]
        if condition.measure in (_VALUE, Measure.rise) and self.scale.reach_s:
            stands_until_ns = self._series[condition.quantity].stands_until_ns
            moments.append(stands_until_ns if self._now < stands_until_ns else None)
        return min((moment for moment in moments if moment is not None), default=None)

    def _known(self, t: int) -> dict[str, float]:  # noqa: ARG002  rain needs the time
        found: dict[str, float] = {}
        for name, condition in self._shown.items():
            value = self._value(condition)
            if value is None:
                continue
            if self.scale.index and condition.measure is _MEAN:
                window_s = condition.window_s
                found["iaqi_realtime" if window_s <= 3600 else f"iaqi_{_label(window_s)}"] = (
                    value / MICRO
                )
                value = self._means[_key(condition)].value(0) or 0
            found[name] = value / MICRO
        return found


def _key(condition: Condition) -> _Key:
    return condition.measure, condition.quantity, condition.window_s


def _label(window_s: int) -> str:
    return f"{window_s // 3600}h" if window_s % 3600 == 0 else f"{window_s // 60}min"


def make(scale: Scale, sensor: str, wrap_micro: int | None = None) -> Evaluator:
    """The evaluator of a scale over the readings of one sensor.

    ``wrap_micro`` is the value at which a rain counter begins again at 0.

    A sensor that falls silent says nothing by itself: give it a reading with ``micro=None`` when
    that is noticed, and again at intervals while it lasts, so that its windows are incomplete.
    """
    if scale.quantities == (RAIN,):
        return RainEvaluator(scale, sensor, wrap_micro)
    return LevelEvaluator(scale, sensor)
