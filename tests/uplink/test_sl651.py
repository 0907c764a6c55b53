"""Reports to a hydrological centre: byte for byte as published, and none lost while it is away."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.compile import check
from gateway.events import MICRO, NS, Reading, iso, parse_iso
from gateway.uplink import hydrology
from gateway.uplink.config import Sl651Config
from gateway.uplink.hydrology import Hydrology, Ledger, Store, Timetable
from gateway.uplink.sl651 import (
    Answer,
    Answers,
    Element,
    Function,
    Identity,
    Report,
    Session,
    StationClass,
    encode,
    frame,
    report_frame,
)
from tests.station_toml import STATION
from tests.uplink.centre import Centre, Heard, answer

PATIENCE_S = 20.0
FIRST = Identity(1, "0012345678", bytes.fromhex("1234"), StationClass.river)
SECOND = Identity(5, "0011223344", bytes.fromhex("03E8"), StationClass.river)
CONFIG = Sl651Config("127.0.0.1:1", "0012345678", rain_sensor="rain1", level_sensor="level1")


def beijing(text: str) -> int:
    return parse_iso(text + "+08:00")


def values(rain: float, total: float, level: float, volts: float) -> bytes:
    return encode(
        [
            Element(0x20, round(rain * MICRO), 3, 1),
            Element(0x26, round(total * MICRO), 3, 1),
            Element(0x39, round(level * MICRO), 4, 3),
            Element(0x38, round(volts * MICRO), 2, 2),
        ]
    )


def test_published_frames_are_made_byte_for_byte() -> None:
    keep = frame(FIRST, Function.keep_link, 3, beijing("2059-10-11T15:51:11"), b"")
    assert keep.hex().upper() == "7E7E01001234567812342F0008020003591011155111036BCA"
    report = Report(Function.test, beijing("2059-10-11T15:49"), values(0.5, 0.5, 0.127, 11.15))
    test = report_frame(FIRST, report, 3, beijing("2059-10-11T15:49:47"))
    assert test.hex().upper() == (
        "7E7E010012345678123430002B020003591011154947F1F1001234567848F0F05910111549"
        "20190000052619000005392300000127381211150320FA"
    )
    report = Report(Function.timed, beijing("2017-07-18T11:00"), values(4.0, 4.0, 10.49, 10.99))
    timed = report_frame(SECOND, report, 0x34, beijing("2017-07-18T11:00:16"))
    assert timed.hex().upper() == (
        "7E7E05001122334403E832002B020034170718110016F1F1001122334448F0F01707181100"
        "20190000402619000040392300010490381210990" + "3A421"
    )


PUBLISHED_ANSWER = bytes.fromhex("7E7E00123456780112343080080200035910111549471B75D4")


def test_a_published_answer_is_understood() -> None:
    assert Answers(FIRST).feed(PUBLISHED_ANSWER) == [Answer(0x30, 3, 0x1B)]


@pytest.mark.parametrize(
    ("element", "text"),
    [
        (Element(0x20, None, 3, 1), "2019ffffff"),
        (Element(0x39, -1_234_000, 4, 3), "3923ff001234"),
        (Element(0x26, 1_234_567_890_000, 3, 1), "2619345679"),  # a counter that has wrapped
        (Element(0x20, 249_999, 3, 1), "2019000002"),
        (Element(0x20, 250_000, 3, 1), "2019000003"),
    ],
)
def test_values_missing_negative_wrapped_and_rounded(element: Element, text: str) -> None:
    assert element.encode().hex() == text


@given(st.binary(max_size=80), st.binary(max_size=80), st.integers(1, 40))
def test_an_answer_is_found_in_any_garbage_however_it_is_cut(
    before: bytes, after: bytes, cut: int
) -> None:
    text = before.replace(b"\x7e", b"") + PUBLISHED_ANSWER + after
    answers = Answers(FIRST)
    found = [x for i in range(0, len(text), cut) for x in answers.feed(text[i : i + cut])]
    assert Answer(0x30, 3, 0x1B) in found


@given(st.binary(max_size=400))
def test_garbage_is_dropped_counted_and_bounded(garbage: bytes) -> None:
    answers = Answers(FIRST)
    assert answers.feed(garbage) == []
    assert 0 <= answers.dropped <= len(garbage)


@pytest.mark.parametrize(
    "change", [{"password": b"\x12\x35"}, {"station": "0012345679"}, {"centre": 2}]
)
def test_an_answer_to_somebody_else_is_none(change: dict[str, Any]) -> None:
    assert Answers(replace(FIRST, **change)).feed(PUBLISHED_ANSWER) == []


def test_a_report_is_sent_three_times_and_then_given_back() -> None:
    session = Session(FIRST, 20 * NS)
    session.send(Report(Function.hourly, 0, b""), 0, 0)
    sent = [session.to_send()]
    assert session.tick(19 * NS, 0)
    assert session.to_send() == b""
    for t in (20, 40):
        assert session.tick(t * NS, 0)
        sent.append(session.to_send())
    assert sent[0]
    assert sent == [sent[0]] * 3
    assert not session.tick(60 * NS, 0)


def test_only_the_answer_to_this_report_counts() -> None:
    session = Session(FIRST, 20 * NS, serial=2)
    session.send(Report(Function.timed, 0, b""), 0, 0)
    assert session.feed(PUBLISHED_ANSWER) is None, "the answer is to another function"
    session.lost()
    session = Session(FIRST, 20 * NS, serial=2)
    session.send(Report(Function.test, 0, b""), 0, 0)
    assert session.feed(PUBLISHED_ANSWER) is True


# --- what is reported ---------------------------------------------------------------------------


def rain(moment: str, mm: float | None, quantity: str = "rain_mm") -> Reading:
    micro = None if mm is None else round(mm * MICRO)
    return Reading("rain1", beijing(moment), quantity, micro)


def reported(text: bytes) -> dict[int, str]:
    """Identifier to digits."""
    found = {}
    while text:
        size = text[1] >> 3
        found[text[0]] = text[2 : 2 + size].hex()
        text = text[2 + size :]
    return found


def test_current_rain_is_of_the_hydrological_day_and_accumulated_rain_goes_on() -> None:
    ledger = Ledger(CONFIG, {})
    ledger.take(rain("2026-07-01T07:55", 1.0))
    ledger.take(rain("2026-07-01T08:00", 2.0))
    assert reported(ledger.elements(beijing("2026-07-01T08:00")))[0x20] == "000030"
    ledger.take(rain("2026-07-01T08:05", 0.5))
    found = reported(ledger.elements(beijing("2026-07-01T08:05")))
    assert (found[0x20], found[0x26]) == ("000005", "000035")


def test_sums_survive_a_restart_and_so_does_the_counter_they_follow() -> None:
    ledger = Ledger(CONFIG, {})
    ledger.take(rain("2026-07-01T09:00", 100.0, "rain_total_mm"))
    ledger.take(rain("2026-07-01T09:01", 100.4, "rain_total_mm"))
    again = Ledger(CONFIG, ledger.state)
    again.take(rain("2026-07-01T09:02", 101.0, "rain_total_mm"))
    assert reported(again.elements(beijing("2026-07-01T09:02")))[0x26] == "000010"


def test_what_is_not_measured_is_reported_as_missing() -> None:
    ledger = Ledger(CONFIG, {})
    assert set(reported(ledger.elements(0)).values()) == {"ffffff", "ffffffff"}
    ledger.take(Reading("level1", beijing("2026-07-01T09:00"), "water_level_m", 1_234_000))
    assert reported(ledger.elements(beijing("2026-07-01T09:30")))[0x39] == "00001234"
    assert reported(ledger.elements(beijing("2026-07-01T10:30")))[0x39] == "ffffffff", "stale"


def test_other_sensors_are_passed_over() -> None:
    ledger = Ledger(CONFIG, {})
    ledger.take(replace(rain("2026-07-01T09:00", 5.0), sensor="rain2"))
    assert reported(ledger.elements(beijing("2026-07-01T09:00")))[0x26] == "ffffff"


def test_the_hour_in_twelve_parts() -> None:
    ledger = Ledger(replace(CONFIG, five_minute_rain=True), {})
    ledger.take(rain("2026-07-01T09:05", 0.3))
    ledger.take(rain("2026-07-01T09:06", 0.2))
    ledger.take(rain("2026-07-01T10:00", 40.0))
    text = ledger.elements(beijing("2026-07-01T10:00"), hourly=True)
    assert text[-14:].hex() == "f460" + "0302" + "00" * 9 + "fe"


def test_reports_fall_due_on_the_clock_and_what_was_slept_through_is_one() -> None:
    start = beijing("2026-07-01T07:59:59")
    table = Timetable(360, hourly=True, utc_ns=start)
    assert table.due(start) == []
    eight = beijing("2026-07-01T08:00")
    assert table.due(eight) == [(Function.timed, eight), (Function.hourly, eight)]
    assert table.due(eight + NS) == []
    eleven = beijing("2026-07-01T11:00")
    assert table.due(eleven + 60 * NS) == [(Function.hourly, eleven)]
    assert table.due(start) == [], "a clock that is set back makes none"
    assert table.due(eight)


def test_without_timed_and_hourly_reports_none_fall_due() -> None:
    assert Timetable(0, hourly=False, utc_ns=0).due(10**18) == []


def test_the_oldest_reports_give_way_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydrology, "MAX_STORED", 3)
    store = Store(tmp_path / "reports.sqlite")
    assert store.save({}, [Report(Function.timed, n, b"") for n in range(5)]) == 2
    oldest = store.oldest()
    assert oldest is not None
    assert oldest[1].observed_ns == 2
    store.close()


# --- with a centre ------------------------------------------------------------------------------


@pytest.fixture
def centres() -> Iterator[Callable[..., Centre]]:
    made: list[Centre] = []

    def make(*arguments: Any, **options: Any) -> Centre:
        made.append(Centre(*arguments, **options))
        return made[-1]

    yield make
    for centre in made:
        centre.close()


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hydrology]]:
    monkeypatch.setattr(hydrology, "PAUSE_S", (0.1, 0.2))
    made: list[Hydrology] = []

    def make(centre: Centre, **changes: Any) -> Hydrology:
        config = replace(CONFIG, centre=centre.address, answer_s=0.3, **changes)
        made.append(Hydrology(config, tmp_path / "sl651.sqlite"))
        made[-1].start()
        return made[-1]

    yield make
    for sink in made:
        sink.close()


def level_change(hazard: str = "rainstorm") -> dict[str, Any]:
    return {
        "stream": "record",
        "record": {"type": "level", "hazard": hazard, "time": iso(time.time_ns())},
    }


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "never happened"
        threading.Event().wait(0.01)  # the sink and the centre run in threads of their own


def told(sink: Hydrology, state: str, kind: str) -> Callable[[], bool]:
    """Whether the sink has said so by now."""
    return lambda: any((fault.state, fault.kind) == (state, kind) for fault in sink.faults())


def test_a_level_that_is_reached_is_reported_with_what_has_fallen(
    centres: Callable[..., Centre], station: Callable[..., Hydrology]
) -> None:
    centre = centres()
    sink = station(centre)
    reading = {"sensor": "rain1", "time": iso(time.time_ns()), "quantity": "rain_mm"}
    sink.take({"stream": "data", "reading": reading | {"micro": 12_300_000}})
    sink.take(level_change())
    sink.take(level_change("earthquake"))
    until(lambda: centre.heard)
    heard = centre.heard[0]
    assert (heard.function, heard.station, heard.centre) == (0x33, "0012345678", 1)
    assert heard.rest[:8].hex() == "f1f1" + "0012345678" + "48"
    assert reported(heard.rest[15:])[0x20] == "000123"
    until(lambda: sink.lag().waiting == 0)
    assert len(centre.heard) == 1


def test_a_centre_that_drops_the_first_frames_gets_the_report_all_the_same(
    centres: Callable[..., Centre], station: Callable[..., Hydrology]
) -> None:
    heard: list[Heard] = []

    def manner(frame: Heard) -> bytes:
        heard.append(frame)
        return b"" if len(heard) <= 2 else answer(frame)

    sink = station(centres(manner))
    sink.take(level_change())
    until(lambda: len(heard) == 3 and sink.lag().waiting == 0)
    assert len({frame.serial for frame in heard}) == 1, "a repeat is known by its serial number"


def test_a_late_answer_and_one_behind_garbage_are_understood(
    centres: Callable[..., Centre], station: Callable[..., Hydrology]
) -> None:
    def manner(frame: Heard) -> bytes:
        threading.Event().wait(0.2)  # slow, and still within the time to answer
        return b"NOISE\x7e" + answer(frame, 0x04)

    sink = station(centres(manner))
    sink.take(level_change())
    sink.take(level_change("flood"))
    until(lambda: sink.lag() == (0, 0.0))


def test_a_centre_that_refuses_is_stated_and_holds_nothing_up(
    centres: Callable[..., Centre], station: Callable[..., Hydrology]
) -> None:
    centre = centres(lambda frame: answer(frame, 0x15 if frame.function == 0x33 else 0x1B))
    sink = station(centre)
    sink.take(level_change())
    until(told(sink, "incident", "refused"))
    assert len(centre.heard) == 3
    until(lambda: sink.lag().waiting == 0)


def test_reports_wait_on_disk_while_the_centre_is_away_even_over_a_restart(
    centres: Callable[..., Centre], station: Callable[..., Hydrology]
) -> None:
    away = centres()
    port = away.port
    away.close()
    sink = station(away)
    for _ in range(3):
        sink.take(level_change())
    until(told(sink, "wrong", "unavailable"))
    sink.close()
    back = Centre(port=port)
    try:
        again = station(back)
        until(lambda: len(back.heard) == 3)
        until(lambda: again.lag().waiting == 0)
    finally:
        back.close()


def test_a_centre_that_hangs_up_in_the_middle_costs_nothing(
    centres: Callable[..., Centre], station: Callable[..., Hydrology]
) -> None:
    heard: list[Heard] = []

    def manner(frame: Heard) -> bytes | None:
        heard.append(frame)
        return None if len(heard) == 1 else answer(frame)

    sink = station(centres(manner))
    sink.take(level_change())
    until(lambda: len(heard) == 2 and sink.lag().waiting == 0)


BASE = f"""{STATION}
[[sensor]]
name = "rain1"
profile = "hydreon-rg15"
port = "/dev/null"
[uplink.sl651]
"""


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('centre = "c"\nstation_address = "0012345678"', "'c'; expected an address host:port"),
        ('centre = "c:1"\nstation_address = "12"', "'12'; expected ten digits"),
        (
            'centre = "c:1"\nstation_address = "0012345678"',
            "neither rain_sensor nor level_sensor; expected what to report",
        ),
        (
            'centre = "c:1"\nstation_address = "0012345678"\nrain_sensor = "rain2"',
            "uplink.sl651.rain_sensor: no gauge 'rain2'; there are rain1",
        ),
        (
            'centre = "c:1"\nstation_address = "0012345678"\npassword_file = "secret"',
            "secret is not there",
        ),
    ],
)
def test_a_wrong_table_says_what_would_be_right(tmp_path: Path, keys: str, said: str) -> None:
    (tmp_path / "gateway.toml").write_text(BASE + keys)
    faults = check(tmp_path / "gateway.toml").faults
    assert any(said in str(fault) for fault in faults), faults
