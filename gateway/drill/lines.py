"""Records of the gateway in one line for people, in Chinese and English."""

from collections.abc import Mapping
from typing import Any

COLOURS = {"none": "green", "blue": "blue", "yellow": "yellow", "orange": "orange1", "red": "red"}
LEVEL_ZH = {"none": "解除", "blue": "蓝色", "yellow": "黄色", "orange": "橙色", "red": "红色"}
HAZARD_ZH = {
    "earthquake": "地震",
    "rainstorm": "暴雨",
    "typhoon": "台风",
    "flood": "洪水",
    "air_pollution": "空气污染",
    "fire": "火灾",
}

_TEMPLATES = {
    "onset": "P onset {channel}, ratio {ratio:g}, signal to noise {snr_db:g} dB, {polarity}",
    "rejected": "rejected {channel}: {reason}",
    "quality": "quality {channel}: {kind} {detail}",
    "coincidence": "coincidence of {votes} at {station}",
    "ground_motion": "ground motion {station}: PGA {pga:g} m/s², PGV {pgv:g} m/s, "
    "intensity 烈度 {intensity:g}",
    "level": "level {hazard_zh} {hazard} {level_zh} {level}: {value:g} {unit} at {sensor}",
    "rain_day": "rain of the {kind} day {day} at {sensor}: {mm:g} mm, complete {complete}",
    "warning": "warning of the authorities 预警 {hazard_zh} {hazard} {level_zh} {level} {state} "
    "until {expires} {reason}",
    "noise": "noise {channel}: {verdict}",
    "alert": "{phase_upper} {hazard_zh} {hazard} {level_zh} {level}: {text_zh} {text_en}",
    "siren": "siren {siren} {action}, {pattern} {reason}",
    "health": "health {component} {state}: {kind} {detail}",
    "reply": "command {action} {outcome} {reason}",
    "arming": "sirens 布防 {mode} {by}",
    "status": "status {state}",
}


class _Fields(dict[str, Any]):
    """A missing field stays blank."""

    def __missing__(self, key: str) -> str:
        return ""


def line_of(record: Mapping[str, Any]) -> str:
    """What a record says."""
    fields = _Fields(record)
    fields["level_zh"] = LEVEL_ZH.get(str(record.get("level")), "")
    fields["hazard_zh"] = HAZARD_ZH.get(str(record.get("hazard")), "")
    fields["phase_upper"] = str(record.get("phase", "")).upper()
    template = _TEMPLATES.get(record["type"], record["type"])
    try:
        return " ".join(template.format_map(fields).split())
    except ValueError:  # a number is missing
        return f"{record['type']} {fields}"


def colour_of(record: Mapping[str, Any]) -> str:
    """The colour that a record is shown in."""
    match record["type"]:
        case "alert" | "level":
            return COLOURS.get(str(record["level"]), "white")
        case "siren":
            return "red" if record["action"] == "on" else "green"
        case "health":
            return {"ok": "green", "failed": "red"}.get(str(record["state"]), "yellow")
        case "onset" | "coincidence":
            return "yellow"
    return "white"
