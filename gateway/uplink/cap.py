"""Alerts in the Common Alerting Protocol 1.2 (OASIS, 1 July 2010), in Chinese and English.

One step in the life of an alert becomes one CAP message. It says what was observed at the station,
to the hub and the site; only the authorities warn the public, so the scope is never Public.

==============  =================================================================================
identifier      the alert's id and the time of the step
sent            the step's time, Beijing time
status          as decided: Actual, Exercise or Test
msgType         Alert, Update; Cancel for the end, however it came
references      the earlier steps of the alert
category        by hazard
severity        by colour, as is usual in China: red Extreme, orange Severe, yellow Moderate,
                blue Minor
certainty       Observed; Likely where the level was predicted from the P wave
headline        the first sentence of the plan's text; ``instruction`` is what follows it
expires         as the plan says: a station that falls silent must not alarm for ever
parameter       colour, what decided, its inputs, and how sure the station was of the time
==============  =================================================================================

A message is a pure function of the record and the configuration: said twice, it is the same.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.etree import ElementTree as ET

from gateway.events import BEIJING
from gateway.uplink.config import CapConfig

NAMESPACE = "urn:oasis:names:tc:emergency:cap:1.2"

_SEVERITY = {"red": "Extreme", "orange": "Severe", "yellow": "Moderate", "blue": "Minor"}
_MESSAGE_TYPES = {"alert": "Alert", "update": "Update", "cancel": "Cancel", "expire": "Cancel"}
_RESTRICTION = (
    "本站点与城市应急中心内部信息，不得作为预警信号向公众转发 / "
    "For the site and the city's hub; not a public warning"
)
_NOTE = {
    "Exercise": "应急演练，并非真实事件 / An exercise, not a real event",
    "Test": "设备测试，并非真实事件 / A test, not a real event",
}
_EVENT = {"zh": "{}（本地实测）", "en": "{} (observed on site)"}
_LANGUAGES = {"zh": "zh-CN", "en": "en"}
_SENTENCE = {
    "zh": re.compile(r"^(.*?[。！])\s*(.*)$", re.DOTALL),
    "en": re.compile(r"^(.*?[.!])\s(.*)$", re.DOTALL),
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class _Hazard:
    """What CAP says of a hazard. ``response`` is what is asked of people from orange on."""

    names: Mapping[str, str]
    categories: tuple[str, ...]
    response: str


_HAZARDS = {
    "earthquake": _Hazard({"zh": "地震", "en": "Earthquake"}, ("Geo",), "Shelter"),
    "rainstorm": _Hazard({"zh": "暴雨", "en": "Rainstorm"}, ("Met",), "Avoid"),
    "typhoon": _Hazard({"zh": "大风", "en": "Strong wind"}, ("Met",), "Shelter"),
    "flood": _Hazard({"zh": "洪水", "en": "Flood"}, ("Met",), "Evacuate"),
    "air_pollution": _Hazard({"zh": "空气污染", "en": "Air pollution"}, ("Env", "Health"), "Avoid"),
    "fire": _Hazard({"zh": "火灾", "en": "Fire"}, ("Fire",), "Evacuate"),
}


def cap_record(alert: Mapping[str, Any], config: CapConfig) -> dict[str, Any]:
    """The record that carries the CAP message of an alert's record to the hub."""
    return {
        "type": "cap",
        "time": alert["time"],
        "alert": alert["id"],
        "identifier": _identifier(alert, alert["time"]),
        "message_type": _MESSAGE_TYPES[alert["phase"]],
        "xml": message(alert, config),
    }


def message(alert: Mapping[str, Any], config: CapConfig) -> str:
    """The CAP 1.2 message of an alert's record, as it is published (``to_record``)."""
    ends = alert["phase"] in ("cancel", "expire")
    root = ET.Element("alert", xmlns=NAMESPACE)
    _put(
        root,
        ("identifier", _identifier(alert, alert["time"])),
        ("sender", config.sender),
        ("sent", _moment(alert["time"])),
        ("status", alert["status"]),
        ("msgType", _MESSAGE_TYPES[alert["phase"]]),
        ("scope", config.scope),
        (
            "restriction",
            (config.restriction or _RESTRICTION) if config.scope == "Restricted" else "",
        ),
        ("addresses", " ".join(f'"{x}"' if " " in x else x for x in config.addresses)),
        ("note", _NOTE.get(alert["status"], "")),
        ("references", " ".join(_references(alert, config))),
        ("incidents", alert["id"]),
    )
    for language in _LANGUAGES:
        _info(ET.SubElement(root, "info"), alert, config, language, ends=ends)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False)


def _info(
    info: ET.Element,
    alert: Mapping[str, Any],
    config: CapConfig,
    language: str,
    *,
    ends: bool,
) -> None:
    hazard, level, inputs = _HAZARDS[alert["hazard"]], alert["level"], alert.get("inputs", {})
    predicted = inputs.get("basis") == "predicted"
    if ends:
        response = "AllClear"
    elif level in ("red", "orange"):
        response = hazard.response
    else:
        response = "Prepare" if level == "yellow" else "Monitor"
    headline, instruction = _sentences(alert[f"text_{language}"], language)
    _put(
        info,
        ("language", _LANGUAGES[language]),
        *(("category", category) for category in hazard.categories),
        ("event", _EVENT[language].format(hazard.names[language])),
        ("responseType", response),
        ("urgency", "Past" if ends else "Immediate"),
        ("severity", _SEVERITY.get(level, "Minor")),
        ("certainty", "Likely" if predicted and not ends else "Observed"),
        ("audience", " ".join(alert["audiences"])),
    )
    code_list, _, code = alert["event_code"].partition("=")
    _pairs(info, "eventCode", {"hazard": alert["hazard"], code_list: code})
    _put(
        info,
        ("effective", _moment(alert["time"])),
        ("expires", "" if ends else _moment(alert["expires"])),
        ("senderName", config.station_name),
        ("headline", headline),
        ("description", alert[f"text_{language}"]),
        ("instruction", instruction),
        ("contact", config.contact),
    )
    _pairs(info, "parameter", {"level": level, "reason": alert["reason"], "plan": alert["plan"]})
    _pairs(info, "parameter", {name: x for name, x in inputs.items() if x is not None})
    if clock := alert.get("clock"):
        _pairs(info, "parameter", {"clock": clock["state"]})
    _area(ET.SubElement(info, "area"), config)


def _area(area: ET.Element, config: CapConfig) -> None:
    corners = " ".join(f"{latitude:g},{longitude:g}" for latitude, longitude in config.polygon)
    _put(
        area,
        ("areaDesc", config.area or config.station_name),
        ("polygon", corners),
        ("circle", f"{config.latitude:g},{config.longitude:g} {config.radius_km:g}"),
    )
    _pairs(area, "geocode", config.geocodes)


def _identifier(alert: Mapping[str, Any], moment: str) -> str:
    return f"{alert['id']}.{re.sub('[-:]', '', moment)}"


def _references(alert: Mapping[str, Any], config: CapConfig) -> Iterable[str]:
    for moment in alert.get("earlier", ()):
        yield f"{config.sender},{_identifier(alert, moment)},{_moment(moment)}"


def _moment(text: str) -> str:
    """The time as CAP wants it: whole seconds and a numeric offset."""
    return datetime.fromisoformat(text).astimezone(BEIJING).isoformat(timespec="seconds")


def _sentences(text: str, language: str) -> tuple[str, str]:
    """What was observed, and what to do about it."""
    found = _SENTENCE[language].match(text)
    return (found[1], found[2]) if found else (text, "")


def _put(parent: ET.Element, *items: tuple[str, str]) -> None:
    """Elements of these names and texts; one without a text is left out."""
    for name, text in items:
        if text:
            ET.SubElement(parent, name).text = _NOT_XML.sub("\ufffd", text)


def _pairs(parent: ET.Element, name: str, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if value != "":
            _put(ET.SubElement(parent, name), ("valueName", key), ("value", str(value)))
