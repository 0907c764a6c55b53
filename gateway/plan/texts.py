"""What people read of an alert: the plan's texts with the numbers in them, in Chinese and English.

A text of a plan holds placeholders such as ``{intensity}``, with a format of Python where the
usual one decimal is not right: ``{water_level_m:.2f}``. What is not known reads as a dash; a part
in square brackets is left out whole where a number in it is not known::

    本地实测2分钟平均风速{wind_mps_mean_2min}米/秒[，阵风{gust_mps_max_10min}米/秒]

===============  ===============================================================================
placeholder      meaning (besides the hazard's quantities)
===============  ===============================================================================
``station``      the station's name
``level``        the level that holds now: 蓝色, blue …
``from``         the level that held before, in texts of lowering and of the end
``basis``        实测 or 按初至波估计, observed or predicted (地震预测 is the authorities' alone;
                 ours is an estimate from the P wave that has arrived here)
``grade``        the intensity, or the value that decided
``unit``         the scale's unit
``window_h``     the window of the sum or mean that decided, h
``wind_force``   Beaufort number of the mean wind of 2 min (GB/T 28591)
``gust_force``   Beaufort number of the strongest gust of 10 min
===============  ===============================================================================

Our own levels are observed here (本地实测达到…标准): 预警信号 are the authorities' alone.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from gateway.events import Alert, Level, Phase, Status
from gateway.plan.rules import Plan


class Ending(StrEnum):
    """How an alert came to its end."""

    over = "over"
    """What it rested on is over."""

    ordered = "ordered"
    run_out = "run_out"
    real = "real"
    """It was an exercise or a test, and something real began."""


PLACEHOLDERS = frozenset(
    {
        "station",
        "level",
        "from",
        "basis",
        "grade",
        "value",
        "unit",
        "window_h",
        "wind_force",
        "gust_force",
    }
)
"""Placeholders of texts besides the hazard's quantities."""

BEAUFORT_MPS = (
    0.3, 1.6, 3.4, 5.5, 8.0, 10.8, 13.9, 17.2, 20.8, 24.5, 28.5, 32.7, 37.0, 41.5, 46.2, 51.0, 56.1,
)  # fmt: skip
"""Lower limits of wind force 1 to 17 (GB/T 28591), m/s."""

_LEVEL = {
    Level.none: {"zh": "无", "en": "none"},
    Level.blue: {"zh": "蓝色", "en": "blue"},
    Level.yellow: {"zh": "黄色", "en": "yellow"},
    Level.orange: {"zh": "橙色", "en": "orange"},
    Level.red: {"zh": "红色", "en": "red"},
}
_MARK = {
    Status.actual: {"zh": "", "en": ""},
    Status.exercise: {"zh": "【演练】", "en": "[EXERCISE] "},
    Status.test: {"zh": "【测试】", "en": "[TEST] "},
}
_BASIS = {
    "observed": {"zh": "实测", "en": "observed"},
    "predicted": {"zh": "按初至波估计", "en": "predicted"},
}
_REMINDER = {"zh": "【再次提醒】", "en": "[REMINDER] "}
_LASTING = {"zh": "【仍在持续】", "en": "[STILL SO] "}
_LOWERED = {
    "zh": "{station}：本地实测已不再达到{from}标准，降为{level}。",
    "en": "{station}: the {from} standard is no longer reached here, now {level}.",
}
_ENDED = {
    "zh": "{station}：本地实测已不再达到标准，本站解除提示。",
    "en": "{station}: the standard is no longer reached here; this station's alert is over.",
}
_ORDERED = {
    "zh": "{station}：本站提示已由值守人员解除。",
    "en": "{station}: this station's alert was ended by order.",
}
_RUN_OUT = {
    "zh": "{station}：本站提示已到期结束，当前情况请以主管部门发布的信息为准。",
    "en": "{station}: this station's alert has run out; go by what the authorities say.",
}
_REAL = {
    "zh": "{station}：演练或测试到此结束，以下为实际监测信息。",
    "en": "{station}: the exercise or test ends here; what follows is real.",
}
_ENDINGS = {Ending.ordered: _ORDERED, Ending.run_out: _RUN_OUT, Ending.real: _REAL}
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_NAMES = re.compile(r"\{(\w+)")


def worded(alert: Alert, plan: Plan, station: str) -> tuple[str, str]:
    """The text of an alert's step in Chinese and in English."""
    zh, en = _form(alert, plan)
    return _text("zh", zh, alert, station), _text("en", en, alert, station)


def _mark(alert: Alert, language: str) -> str:
    """What stands before a text: that it is no real one, a reminder, or said again."""
    mark = _MARK[alert.status][language]
    if "reminder" in alert.inputs:
        mark += _REMINDER[language]
    elif "lasting" in alert.inputs:
        mark += _LASTING[language]
    return mark


def _form(alert: Alert, plan: Plan) -> tuple[str, str]:
    """The texts with their placeholders."""
    rule = plan.rule(alert.level)
    if alert.phase in (Phase.cancel, Phase.expire) or rule is None:
        if ending := _ENDINGS.get(alert.inputs.get("ended")):  # type: ignore[call-overload]  # any
            return ending["zh"], ending["en"]
        return plan.ended_zh or _ENDED["zh"], plan.ended_en or _ENDED["en"]
    zh, en = rule.text_zh, rule.text_en
    if "from" in alert.inputs:
        zh, en = plan.lowered_zh or _LOWERED["zh"], plan.lowered_en or _LOWERED["en"]
    return zh + rule.action_zh, " ".join(filter(None, (en, rule.action_en)))


def _text(language: str, form: str, alert: Alert, station: str) -> str:
    words = _Words(alert.inputs, language)
    words["station"] = station
    words["level"] = _LEVEL[alert.level][language]
    shown = _OPTIONAL.sub(lambda part: part[1] if words.know(part[1]) else "", form)
    return _mark(alert, language) + shown.format_map(words)


class _Words(dict[str, Any]):
    """Words for a text; what is not known reads as a dash."""

    def __init__(self, inputs: Mapping[str, float | str | None], language: str) -> None:
        super().__init__({k: _word(v) for k, v in inputs.items() if v is not None})
        if basis := _BASIS.get(str(inputs.get("basis"))):
            self["basis"] = basis[language]
        if was := inputs.get("from"):
            self["from"] = _LEVEL[Level[str(was)]][language]
        for word, quantity in (
            ("wind_force", "wind_mps_mean_2min"),
            ("gust_force", "gust_mps_max_10min"),
        ):
            if isinstance(mps := inputs.get(quantity), float):
                self[word] = str(bisect_right(BEAUFORT_MPS, mps))

    def __missing__(self, key: str) -> "_Dash":
        return _Dash("—")

    def know(self, part: str) -> bool:
        return all(name in self for name in _NAMES.findall(part))


class _Dash(str):
    """A dash whatever the format."""

    __slots__ = ()

    def __format__(self, form: str) -> str:
        return str(self)


class _Number(float):
    """A number with one decimal where it has one and no other format is asked for."""

    __slots__ = ()

    def __format__(self, form: str) -> str:
        return super().__format__(form) if form else f"{float(self):.1f}".removesuffix(".0")


def _word(value: float | str) -> "str | _Number":
    return value if isinstance(value, str) else _Number(value)
