"""Threshold scales as data: what makes blue, yellow, orange and red of a scalar hazard.

A scale is one dated TOML file with its source; no threshold stands in code. Provinces, cities and
counties differ, so a station's configuration names the files that hold where it stands::

    [scale]
    name = "rainstorm-national"
    title = { zh = "暴雨（国家）", en = "Rainstorm (national)" }
    hazard = "rainstorm"
    unit = "mm"                 # of the thresholds
    source = "…"                # document, article, where it was read
    published = 2007-06-12      # date of that document; where it bears none, of reading it
    note = "…"                  # what is this project's own choice, what was not verified
    continuing_min = 30         # rain only: raised only if it rained in the last 30 min

    [level.blue]                # one table a level; the conditions of a level are alternatives
    any = [{ measure = "sum", quantity = "rain_mm", window_h = 12, at_least = 50 }]

    [end]
    fraction = 0.9              # or margin = 0.2, in the unit of the thresholds
    hold_min = 60               # so long below fraction × threshold, and the level ends

=================  ============================================================================
key of [scale]     meaning
=================  ============================================================================
``index``          pairs [concentration, index]; thresholds and values are then index points
``despike``        true: each reading is replaced by the median of it and the two before
``reach_s``        longest time one reading stands for; 0: until the next one
``stuck_h``        the same non-zero value for so long is a fault; 0: never
``lowest``         readings below it are impossible and count as missing
``highest``        readings above it are impossible; for rain: most mm in a minute
``indicative``     true: the sensors in use are no reference instruments, and the data say so
``needs_warning``  hazard; levels rise only while a signed warning of it is in force
=================  ============================================================================

=========  ==================================================  ======================  ========
measure    value                                               quantity                window
=========  ==================================================  ======================  ========
``sum``    rain of readings that end in (t − window, t]        ``rain_mm``             needed
``mean``   time-weighted mean over (t − window, t]; with       any other               needed
           ``valid_s`` of it covered, by default ¾
``max``    largest reading in (t − window, t]                  any other               needed
``rise``   newest reading less the lowest in (t − window, t]   any other               needed
``value``  newest reading                                      any other               none
=========  ==================================================  ======================  ========

``rain_mm`` stands for rain by whatever quantity the gauge reports; ``gust_mps`` is made from
``wind_mps`` (3-s means) where an anemometer has no gust of its own.

Numbers are exact: a threshold is kept in millionths of its unit, taken from its decimal text.
"""

import difflib
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from gateway.detect.scale import RAIN, Condition, Measure, Scale, Step
from gateway.events import MICRO, Hazard, Level

SHIPPED = Path(__file__).parent / "scales"
"""Folder of the scale files that come with the gateway."""

UNITS = {
    RAIN: "mm",
    "wind_mps": "m/s",
    "gust_mps": "m/s",
    "pm25_ugm3": "µg/m³",
    "water_level_m": "m",
    "contact": "closed",
}
"""Quantities that a scale may compare, with the unit that they come in."""

QUANTITIES = tuple(UNITS)


class ScaleError(ValueError):
    """A scale file is wrong. ``faults`` holds (key, what is wrong and what is right)."""

    def __init__(self, where: str, faults: list[tuple[str, str]]) -> None:
        self.where = where
        self.faults = faults
        super().__init__("\n".join(f"{where}: {key}: {text}" for key, text in faults))


class _Table:
    """A TOML table that is taken apart key by key; what stays over is unknown."""

    def __init__(self, data: Any, key: str, faults: list[tuple[str, str]]) -> None:
        self.key, self.faults = key, faults
        self.known: list[str] = []
        if not isinstance(data, Mapping):
            self.fault("", f"is {data!r}; expected a table")
            data = {}
        self.data = dict(data)

    def fault(self, key: str, text: str) -> None:
        self.faults.append((".".join(filter(None, (self.key, key))), text))

    def take(self, key: str, default: Any = ...) -> Any:
        self.known.append(key)
        if key not in self.data:
            if default is ...:
                self.fault(key, "missing")
            return None if default is ... else default
        return self.data.pop(key)

    def table(self, key: str, default: Any = ...) -> "_Table":
        value = self.take(key, default)
        missing = value is None
        return _Table(
            {} if missing else value, ".".join(filter(None, (self.key, key))), self.faults
        )

    def text(self, key: str, default: Any = ...) -> str:
        value = self.take(key, default)
        if value is not None and (not isinstance(value, str) or (default is ... and not value)):
            self.fault(key, f"{value!r}; expected text")
        return value if isinstance(value, str) else ""

    def flag(self, key: str) -> bool:
        value = self.take(key, default=False)
        if not isinstance(value, bool):
            self.fault(key, f"{value!r}; expected true or false")
        return value is True

    def word(self, key: str, words: Sequence[str], default: Any = ...) -> str:
        value = self.take(key, default)
        if value not in (None, default) and value not in words:
            near = difflib.get_close_matches(str(value), words, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            self.fault(key, f"{value!r}{hint}; expected one of {', '.join(words)}")
            return ""
        return value or ""

    def micro(self, key: str, what: str, default: Any = ...) -> int | None:
        """A number in exact millionths."""
        value = self.take(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fault(key, f"{value!r}; expected {what}")
            return None
        exact = Decimal(str(value)) * MICRO
        if not exact.is_finite() or exact != exact.to_integral_value():
            self.fault(key, f"{value!r}; expected {what}, to a millionth at the finest")
            return None
        return int(exact)

    def seconds(self, units: Mapping[str, int], default: int | None = None) -> int | None:
        """A duration in whole seconds, under whichever of the keys (``window_h`` …) is there."""
        given = [key for key in units if key in self.data]
        self.known.extend(key for key in units if key not in given)
        if not given:
            if default is None:
                self.fault(next(iter(units)), f"missing; expected one of {', '.join(units)}")
            return default
        for key in given[1:]:
            self.fault(key, f"given besides {given[0]}; one of them is enough")
            self.take(key)
        micro = self.micro(given[0], "a duration")
        if micro is None:
            return default
        whole, rest = divmod(micro * units[given[0]], MICRO)
        if rest or whole < 0:
            self.fault(given[0], "expected whole seconds, none negative")
            return default
        return whole

    def done(self) -> None:
        for key, value in self.data.items():
            near = difflib.get_close_matches(key, self.known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.known)}"
            self.fault(key, f"unknown key (value {value!r}); {hint}")


_WINDOW = {"window_h": 3600, "window_min": 60, "window_s": 1}
_VALID = {"valid_h": 3600, "valid_min": 60, "valid_s": 1}
_HOLD = {"hold_min": 60, "hold_s": 1}


def _below(at_least: int, fraction: int | None, margin: int | None) -> int:
    if margin is not None:
        return at_least - margin
    # Below the fraction, rounded up: an integer is below the exact bound where it is below this.
    return -(-at_least * (MICRO if fraction is None else fraction) // MICRO)


def _condition(table: _Table, fraction: int | None, margin: int | None) -> Condition | None:
    before = len(table.faults)
    measure = table.word("measure", [m.value for m in Measure])
    quantity = table.word("quantity", QUANTITIES)
    at_least = table.micro("at_least", "a threshold in the scale's unit")
    window: int | None = 0
    valid = 0
    if measure and measure != Measure.value:
        window = table.seconds(_WINDOW)
        if window == 0:
            table.fault("window_s", "0; expected more")
    if measure == Measure.mean and window:
        valid = table.seconds(_VALID, -(-window * 3 // 4)) or 0
        if not 0 < valid <= window:
            table.fault("valid_s", f"{valid}; expected more than 0 and at most {window} s")
    if quantity and measure and (quantity == RAIN) != (measure == Measure.sum):
        table.fault("measure", f"{measure!r} of {quantity!r}; rain is summed, and only rain is")
    if at_least is not None and at_least <= 0 and margin is None:
        table.fault("at_least", "expected more than 0, or [end] margin in place of fraction")
    table.done()
    if len(table.faults) > before or at_least is None or window is None:
        return None
    return Condition(
        Measure(measure), quantity, window, at_least, _below(at_least, fraction, margin), valid
    )


def _steps(levels: _Table, fraction: int | None, margin: int | None) -> tuple[Step, ...]:
    steps = []
    for level in Level:
        if level is Level.none or level.name not in levels.data:
            continue
        table = levels.table(level.name)
        rows = table.take("any")
        table.done()
        if not isinstance(rows, list) or not rows:
            if rows is not None:
                table.fault("any", f"{rows!r}; expected a list of conditions, at least one")
            continue
        conditions = [
            _condition(_Table(row, f"{table.key}.any[{i}]", levels.faults), fraction, margin)
            for i, row in enumerate(rows)
        ]
        steps.append(Step(level, tuple(c for c in conditions if c is not None)))
    levels.known = [level.name for level in Level if level is not Level.none]
    if not steps:
        levels.fault("", "no level; expected at least one of [level.blue] to [level.red]")
    levels.done()
    return tuple(steps)


def _index(table: _Table) -> tuple[tuple[int, int], ...]:
    rows = table.take("index", default=[])
    pairs = rows if isinstance(rows, list) else [rows]
    good = len(pairs) != 1 and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)
        for pair in pairs
    )
    if not good or any(a[0] >= b[0] or a[1] >= b[1] for a, b in pairwise(pairs)):
        table.fault(
            "index", f"{rows!r}; expected pairs [concentration, index] of whole numbers, rising"
        )
        return ()
    return tuple((pair[0], pair[1]) for pair in pairs)


def _same_unit(
    steps: Sequence[Step], head: _Table, levels: _Table, *, index: bool, unit: str
) -> None:
    """Thresholds are in the unit that their quantity comes in, or are index points."""
    compared = {condition.quantity for step in steps for condition in step.conditions}
    if len({quantity == RAIN for quantity in compared}) > 1:
        levels.fault("", "rain and another quantity in one scale; expected a file for each")
        return
    units = {UNITS[quantity] for quantity in compared}
    if len(units) > 1:
        text = f"thresholds in {' and '.join(sorted(units))}; expected one unit, a file for each"
        levels.fault("", text)
    elif units and not index and unit and unit not in units:
        quantity = ", ".join(sorted(compared))
        head.fault("unit", f"{unit!r}; expected {units.pop()!r}, which {quantity} comes in")


def read_scale(data: Mapping[str, Any], where: str = "scale") -> Scale:
    """Check the content of a scale file and make the scale.

    Args:
        data: what ``tomllib`` made of the file.
        where: how the file is named in messages.

    Raises:
        ScaleError: a ValueError that lists every fault: key, value, what would be right.
    """
    faults: list[tuple[str, str]] = []
    root = _Table(data, "", faults)
    head, levels, end = root.table("scale"), root.table("level"), root.table("end", default={})
    root.done()

    fraction = end.micro("fraction", "a fraction of the threshold", default=None)
    margin = end.micro("margin", "a margin below the threshold", default=None)
    hold = end.seconds(_HOLD, 3600)
    if fraction is not None and margin is not None:
        end.fault("margin", "given besides fraction; one of them is enough")
    if fraction is not None and not 0 < fraction <= MICRO:
        end.fault("fraction", f"{fraction / MICRO:g}; expected more than 0, at most 1")
    if margin is not None and margin < 0:
        end.fault("margin", f"{margin / MICRO:g}; expected 0 or more")
    if fraction is None and margin is None:
        fraction = MICRO * 9 // 10
    end.done()

    steps = _steps(levels, fraction, margin)
    published = head.take("published")
    if published is not None and not isinstance(published, date):
        head.fault("published", f"{published!r}; expected a date as 2007-06-12, without quotes")
    title = head.table("title", default={})
    hazard = head.word("hazard", [h.value for h in Hazard])
    needs = head.word("needs_warning", [h.value for h in Hazard], default=None)
    lowest = head.micro("lowest", "a number", default=None)
    highest = head.micro("highest", "a number", default=None)
    if lowest is not None and highest is not None and lowest >= highest:
        head.fault("lowest", "expected less than highest")
    values: dict[str, Any] = {
        "name": head.text("name"),
        "unit": head.text("unit"),
        "source": head.text("source"),
        "published": str(published),
        "title_zh": title.text("zh", ""),
        "title_en": title.text("en", ""),
        "note": head.text("note", ""),
        "continuing_s": head.seconds({"continuing_min": 60, "continuing_s": 1}, 0),
        "index": _index(head),
        "despike": head.flag("despike"),
        "reach_s": head.seconds({"reach_s": 1}, 600),
        "stuck_s": head.seconds({"stuck_h": 3600, "stuck_s": 1}, 0),
        "indicative": head.flag("indicative"),
    }
    title.done()
    head.done()
    _same_unit(steps, head, levels, index=bool(values["index"]), unit=values["unit"])
    if faults:
        raise ScaleError(where, faults)
    return Scale(
        hazard=Hazard(hazard),
        steps=steps,
        hold_s=hold or 0,
        lowest_micro=lowest,
        highest_micro=highest,
        needs_warning=Hazard(needs) if needs else None,
        **values,
    )
