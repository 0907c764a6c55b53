"""Alerts as CAP 1.2: valid by the OASIS schema, and saying no more than was observed here."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from gateway.config.compile import check
from gateway.config.uplink import uplink_config
from gateway.events import NS, Alert, Hazard, Level, Phase, Status, to_record
from gateway.hub.broker import Broker
from gateway.uplink.cap import NAMESPACE, cap_record, message
from gateway.uplink.config import CapConfig
from tests.station_toml import STATION
from tests.uplink.city import City

DATA = Path(__file__).parents[1] / "data"
T = 1_700_000_000 * NS
CONFIG = CapConfig("cn-demo-001@city.example", "示范站", 31.0, 103.4)
ALERT = Alert(
    "cn-demo-001-earthquake-20231114T221320.000000Z", "cn-demo-001", Hazard.earthquake, Level.red,
    Phase.alert, Status.actual, T, "intensity >= 7",
    "示范站：本地实测地震烈度7.2度，达到红色标准。立即就近避险，护住头部。",
    "示范站: observed shaking here of intensity 7.2, red standard. Drop, cover and hold on now.",
    "earthquake 1.0.0", {"intensity": 7.2, "tau_c_s": None, "basis": "observed"},
)  # fmt: skip


@cache
def schema() -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(DATA / "CAP-v1.2.xsd"))


def cap(alert: Alert, config: CapConfig = CONFIG, **more: Any) -> etree._Element:
    """The message of an alert, proved to be valid."""
    record = json.loads(json.dumps(to_record(alert))) | more
    root = etree.fromstring(message(record, config))
    schema().assertValid(root)
    return root


def texts(root: etree._Element, path: str) -> list[str]:
    steps = "/".join(f"c:{step}" for step in path.split("/"))
    return [x.text for x in root.findall(steps, {"c": NAMESPACE})]


def pairs(root: etree._Element, name: str) -> dict[str, str]:
    names = texts(root, f"info/{name}/valueName")
    return dict(zip(names, texts(root, f"info/{name}/value"), strict=True))


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("hazard", Hazard)
def test_every_step_of_every_hazard_is_valid(hazard: Hazard, phase: Phase, status: Status) -> None:
    level = Level.none if phase in (Phase.cancel, Phase.expire) else Level.orange
    root = cap(replace(ALERT, hazard=hazard, phase=phase, status=status, level=level))
    assert texts(root, "status") == [status.value]
    assert texts(root, "info/language") == ["zh-CN", "en"]


@pytest.mark.parametrize(
    ("level", "severity"),
    [("red", "Extreme"), ("orange", "Severe"), ("yellow", "Moderate"), ("blue", "Minor")],
)
def test_colours_are_severities(level: str, severity: str) -> None:
    assert set(texts(cap(replace(ALERT, level=Level[level])), "info/severity")) == {severity}


def test_it_is_for_hub_and_site_and_calls_itself_no_warning() -> None:
    root = cap(ALERT)
    assert texts(root, "scope") == ["Restricted"]
    assert "不得作为预警信号向公众转发" in texts(root, "restriction")[0]
    assert texts(root, "info/event") == ["地震（本地实测）", "Earthquake (observed on site)"]
    assert set(texts(root, "info/certainty")) == {"Observed"}


def test_what_was_predicted_is_only_likely() -> None:
    root = cap(replace(ALERT, inputs={"basis": "predicted"}))
    assert set(texts(root, "info/certainty")) == {"Likely"}


def test_headline_and_instruction_are_the_plan_s_sentences() -> None:
    root = cap(ALERT)
    assert texts(root, "info/headline") == [
        "示范站：本地实测地震烈度7.2度，达到红色标准。",
        "示范站: observed shaking here of intensity 7.2, red standard.",
    ]
    assert texts(root, "info/instruction") == [
        "立即就近避险，护住头部。",
        "Drop, cover and hold on now.",
    ]


def test_updates_and_the_end_refer_to_every_earlier_step() -> None:
    first = cap(ALERT)
    second_alert = replace(
        ALERT, phase=Phase.update, time_ns=T + 2 * NS, earlier=("2023-11-14T22:13:20.000000Z",)
    )
    second = cap(second_alert)
    last = cap(
        replace(
            second_alert,
            phase=Phase.expire,
            level=Level.none,
            time_ns=T + 62 * NS,
            earlier=(*second_alert.earlier, "2023-11-14T22:13:22.000000Z"),
        )
    )
    assert texts(first, "references") == []
    known = [
        ",".join(texts(root, name)[0] for name in ("sender", "identifier", "sent"))
        for root in (first, second)
    ]
    assert texts(second, "references")[0].split() == known[:1]
    assert texts(last, "references")[0].split() == known
    assert texts(last, "msgType") == ["Cancel"]
    assert set(texts(last, "info/responseType")) == {"AllClear"}


def test_it_holds_as_long_as_the_plan_says_and_the_end_for_good() -> None:
    root = cap(replace(ALERT, expires_ns=T + 3600 * NS, audiences=("site", "hub")))
    assert texts(root, "info/effective")[0] == "2023-11-15T06:13:20+08:00"
    assert texts(root, "info/expires")[0] == "2023-11-15T07:13:20+08:00"
    assert texts(root, "info/audience")[0] == "site hub"
    assert texts(cap(replace(ALERT, phase=Phase.cancel, level=Level.none)), "info/expires") == []


def test_an_exercise_says_so_in_its_note() -> None:
    assert "演练" in texts(cap(replace(ALERT, status=Status.exercise)), "note")[0]
    assert texts(cap(ALERT), "note") == []


def test_area_codes_and_inputs() -> None:
    config = replace(
        CONFIG,
        polygon=((31.0, 103.0), (31.1, 103.0), (31.1, 103.1), (31.0, 103.0)),
        geocodes={"GB/T2260": "510121"},
    )
    root = cap(
        replace(ALERT, event_code="city-list=E01"),
        config,
        clock={"state": "synchronised", "uncertainty_s": 0.01, "steps": 0},
    )
    assert texts(root, "info/area/circle")[0] == "31,103.4 1"
    assert texts(root, "info/area/polygon")[0] == "31,103 31.1,103 31.1,103.1 31,103"
    assert texts(root, "info/area/geocode/value")[0] == "510121"
    assert pairs(root, "eventCode") == {"hazard": "earthquake", "city-list": "E01"}
    parameters = pairs(root, "parameter")
    assert parameters["intensity"] == "7.2"
    assert parameters["clock"] == "synchronised"
    assert "tau_c_s" not in parameters, "what was not measured is not claimed"


def test_private_messages_name_their_receivers() -> None:
    config = replace(CONFIG, scope="Private", addresses=("hub@city.example", "duty room"))
    root = cap(ALERT, config)
    assert texts(root, "addresses") == ['hub@city.example "duty room"']
    assert texts(root, "restriction") == []


def test_names_that_xml_can_not_hold_do_no_harm() -> None:
    config = replace(CONFIG, station_name="<示范&站>\x07")
    assert texts(cap(ALERT, config), "info/senderName")[0] == "<示范&站>\ufffd"


def test_the_same_record_gives_the_same_message() -> None:
    record = to_record(ALERT)
    assert cap_record(record, CONFIG) == cap_record(record, CONFIG)


def test_the_hub_gets_it_beside_the_alert_and_acknowledges_it(
    broker: Broker, make_city: Callable[..., City]
) -> None:
    city = make_city(broker.url, cap=CONFIG)
    city.start_hub()
    city.start_uplink()
    city.core.publish(ALERT)
    city.until(lambda: {"alert", "cap"} <= {m.kind for m in city.heard}, "alert and CAP are heard")
    found = next(m for m in city.heard if m.kind == "cap")
    schema().assertValid(etree.fromstring(found.data["xml"]))
    assert found.id == "run1-1.cap"
    assert city.faults() == []
    city.until(lambda: city.waiting() == 0, "both are acknowledged")


BASE = f"{STATION}[uplink.cap]\n"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('sender = "a b"', "uplink.cap.sender: 'a b'; expected a text without spaces"),
        ('sender = "a"\nscope = "Public"', "expected one of Restricted, Private"),
        ("", "uplink.cap.sender: missing"),
        ('sender = "a"\nscope = "Private"', "uplink.cap.addresses: empty; expected whom"),
        ('sender = "a"\npolygon = [[31, 103], [32, 103]]', "uplink.cap.polygon: expected at least"),
        (
            'sender = "a"\npolygon = [[103, 31], [104, 31], [104, 32], [103, 31]]',
            "uplink.cap.polygon: [103.0, 31.0]; expected [latitude, longitude]",
        ),
    ],
)
def test_a_wrong_table_says_what_would_be_right(tmp_path: Path, keys: str, said: str) -> None:
    (tmp_path / "gateway.toml").write_text(BASE + keys)
    assert any(said in str(fault) for fault in check(tmp_path / "gateway.toml").faults)


def test_a_good_table_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(BASE + 'sender = "a@city.example"\nradius_km = 6\n')
    config = uplink_config(path).cap
    assert config == CapConfig("a@city.example", "示范站", 31.0, 103.4, radius_km=6.0)
