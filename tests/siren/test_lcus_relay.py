"""LCUS relay sirens: told at once, told again, and believed only where the board answers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import siren as sirens
from gateway.events import NS
from gateway.siren.lcus_relay import LcusRelay, LcusRelaySimulator, telegram
from tests.siren.line import MS, Line, cut, whole

TWO: dict[str, dict[str, int]] = {"main": {"relay": 1}, "yard": {"relay": 2}}


def line(feedback: bool, **options: object) -> tuple[Line, LcusRelaySimulator]:
    driver = LcusRelay({"feedback": feedback, "relays": 2, **options}, TWO)
    board = LcusRelaySimulator({"feedback": feedback, "relays": 2})
    return Line(driver, board).run(NS), board


@pytest.mark.parametrize(
    ("feedback", "on", "off"),
    [(False, "A0 01 01 A2", "A0 01 00 A1"), (True, "A0 01 03 A4", "A0 01 02 A3")],
)
def test_a_siren_is_told_at_once(feedback: bool, on: str, off: str) -> None:
    road, board = line(feedback)
    assert road.sound("main", 10 * NS) == bytes.fromhex(on)
    road.run(2 * NS - 30 * MS)
    assert board.relays == [True, False]
    assert road.silence("main") == bytes.fromhex(off)
    road.run(3 * NS)
    assert board.relays == [False, False]


def test_operations_that_may_mean_flash_are_never_sent_unless_declared() -> None:
    road, _ = line(feedback=False)
    road.sound("main", 20 * NS)
    road.run(60 * NS)
    assert {frame[2] for _, frame in road.sent} == {0, 1}


@pytest.mark.parametrize("feedback", [False, True])
def test_a_stretch_ends_at_its_end_without_a_gap(feedback: bool) -> None:
    road, board = line(feedback)
    road.sound("main", 15 * NS)
    road.run(30 * NS)
    (start, _, _), (end, _, _) = board.changes()
    assert NS <= start <= NS + 10 * MS
    assert 16 * NS <= end <= 16 * NS + 60 * MS


@pytest.mark.parametrize(("feedback", "within_s"), [(False, 10), (True, 2)])
def test_what_was_lost_on_the_way_is_made_good(feedback: bool, within_s: int) -> None:
    road, board = line(feedback)
    road.sound("main", 60 * NS)
    road.run(5 * NS)
    road.to_board = cut
    road.silence("main")
    road.run(road.t + 5 * NS)
    assert board.relays[0] is True
    road.to_board = whole
    road.run(road.t + within_s * NS)
    assert board.relays[0] is False


def test_without_feedback_the_state_stays_unknown() -> None:
    road, _ = line(feedback=False)
    road.sound("main", 5 * NS)
    road.run(30 * NS)
    assert road.said == []


def test_with_feedback_the_state_is_what_the_board_says() -> None:
    road, _ = line(feedback=True)
    road.sound("main", 5 * NS)
    road.run(30 * NS)
    assert [on for name, on in road.states() if name == "main"] == [False, True, False]
    assert road.diagnostics() == []


def test_an_answer_to_what_is_no_longer_wanted_is_not_published() -> None:
    road, _ = line(feedback=True)
    road.sound("main", 5 * NS)
    assert road.silence("main") == b""
    road.run(3 * NS)
    assert road.states() == [("main", False), ("yard", False)]


def test_an_answer_with_another_state_than_was_ordered_is_not_its_answer() -> None:
    road, _ = line(feedback=True)
    road.sound("main", 60 * NS)
    road.inject(telegram(1, 0))
    assert road.diagnostics()[-1] == "unsolicited"
    assert ("main", True) not in road.states()


def test_a_port_that_comes_back_has_its_state_told_anew() -> None:
    road, board = line(feedback=True)
    road.sound("main", 60 * NS)
    road.run(5 * NS)
    board.powered(road.t)
    assert road.reopen() == telegram(1, 3)
    road.run(6 * NS)
    assert road.states()[-2:] == [("main", True), ("yard", False)]
    assert board.relays == [True, False]


def test_a_silent_board_is_reported_once_and_believed_again_when_it_answers() -> None:
    road, _ = line(feedback=True)
    road.to_board = cut
    road.run(40 * NS)
    assert road.diagnostics().count("no_answer") == 2
    assert road.states()[-2:] == [("main", None), ("yard", None)]
    road.to_board = whole
    road.run(55 * NS)
    assert road.states()[-2:] == [("main", False), ("yard", False)]


@given(st.lists(st.binary(max_size=20), max_size=10))
@settings(max_examples=50, deadline=None)
def test_no_bytes_stop_it_and_none_are_believed_unasked(noise: list[bytes]) -> None:
    road, board = line(feedback=True)
    for data in [*noise, telegram(1, 1)]:
        road.inject(data)
    assert ("main", True) not in road.states()
    road.run(road.t + 30 * NS)
    assert board.changes() == []
    assert len(road.driver._in) < 4  # type: ignore[attr-defined]  # of this driver


@pytest.mark.parametrize(
    ("options", "units", "says"),
    [
        ({"relays": 9}, {}, "relays: saw 9"),
        ({"feedback": 1}, {}, "feedback: saw 1; expected bool"),
        ({}, {"main": {"relay": 2}}, "main.relay: saw 2; allowed is 1 to 1"),
        ({"relays": 2}, {"a": {}, "b": {}}, "b.relay: saw 1; each siren needs its own"),
        ({}, {"main": {"address": 1}}, "main.address: no such option"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, object], units: dict[str, dict[str, int]], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        LcusRelay(options, units)


def test_the_driver_is_found_by_name_and_can_be_silenced_blindly() -> None:
    driver = sirens.load("lcus_relay")()
    assert isinstance(driver, sirens.SirenDriver)
    assert driver.next_deadline() is None
    assert LcusRelay({"relays": 2}, TWO).off_frames() == bytes.fromhex("A00100A1 A00200A2")


@pytest.mark.parametrize(
    ("asked", "answered", "closed"),
    [
        ("A0 01 01 A2", "", [True, False]),
        ("A0 02 03 A5", "A0 02 01 A3", [False, True]),
        ("A0 01 02 A3", "A0 01 00 A1", [False, False]),
        ("A0 01 04 A5", "A0 01 01 A2", [True, False]),
        ("A0 01 05 A6", "A0 01 00 A1", [False, False]),
        ("FF 00 A0 01 01 A2", "", [True, False]),
        ("A0 01 01 A3", "", [False, False]),
        ("A0 03 01 A4", "", [False, False]),
    ],
)
def test_the_simulated_board_answers_byte_for_byte(
    asked: str, answered: str, closed: list[bool]
) -> None:
    board = LcusRelaySimulator({"feedback": True, "relays": 2})
    board.powered(0)
    board.feed(bytes.fromhex(asked), 0)
    assert board.to_send() == bytes.fromhex(answered)
    assert board.relays == closed
