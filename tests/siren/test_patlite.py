"""A signal tower sounds at once, waits for each answer, and is believed only without doubt."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import siren as sirens
from gateway.events import NS
from gateway.siren.patlite import ACK, NAK, Patlite, PatliteSimulator
from tests.siren.line import MS, Line, cut, whole

ONE: dict[str, dict[str, int]] = {"main": {}}
BUZZER = 3


def line(**options: object) -> tuple[Line, PatliteSimulator]:
    board = PatliteSimulator()
    return Line(Patlite(options, ONE), board).run(NS), board


@pytest.mark.parametrize(
    ("options", "frame"),
    [
        ({}, b"@??S200001!"),
        ({"red": 1, "amber": 9, "buzzer": 4}, b"@??S190004!"),
    ],
)
def test_the_tower_is_told_at_once(options: dict[str, object], frame: bytes) -> None:
    road, board = line(**options)
    assert road.sound("main", 10 * NS) == frame
    road.run(2 * NS)
    assert board.relays[BUZZER] is True
    assert road.silence("main") == b"@??C!"
    road.run(3 * NS)
    assert board.relays == [False] * 4
    assert road.states() == [("main", False), ("main", True), ("main", False)]


def test_a_stretch_ends_at_its_end_without_a_gap() -> None:
    road, board = line()
    road.sound("main", 15 * NS)
    road.run(40 * NS)
    edges = [t for t, output, _ in board.changes() if output == BUZZER + 1]
    assert len(edges) == 2
    assert 16 * NS <= edges[1] <= 16 * NS + 30 * MS


def test_the_next_command_waits_for_the_answer_to_the_last() -> None:
    road, board = line()
    road.sound("main", 15 * NS)
    assert road.silence("main") == b""
    road.run(2 * NS)
    assert board.relays[BUZZER] is False
    assert road.states() == [("main", False)]
    assert [frame for _, frame in road.sent[-2:]] == [b"@??S200001!", b"@??C!"]


def test_a_late_answer_does_not_pass_for_that_of_the_next_command() -> None:
    road, board = line()
    road.sound("main", 60 * NS)
    road.run(5 * NS)
    road.to_board = cut
    road.silence("main")
    road.run(road.t + 600 * MS)
    road.inject(bytes((ACK,)))
    assert board.relays[BUZZER] is True
    assert road.states()[-1] == ("main", True)
    road.to_board = whole
    road.run(8 * NS)
    assert board.relays[BUZZER] is False
    assert road.states()[-1] == ("main", False)


def test_a_dead_tower_is_reported_once_and_told_again_when_it_answers() -> None:
    road, board = line()
    road.sound("main", 60 * NS)
    road.run(5 * NS)
    road.to_board = cut
    road.silence("main")
    road.run(15 * NS)
    assert road.diagnostics() == ["no_answer"]
    assert road.states()[-1] == ("main", None)
    assert board.relays[BUZZER] is True
    road.to_board = whole
    road.run(20 * NS)
    assert board.relays[BUZZER] is False
    assert road.states()[-1] == ("main", False)


def test_a_refusal_is_reported_and_the_command_repeated() -> None:
    road, board = line()
    refused: list[bytes] = []

    def refuse_once(data: bytes, t: int) -> bytes:
        if data and t > NS and not refused:
            refused.append(data)
            return bytes((NAK,))
        return data

    road.to_host = refuse_once
    road.sound("main", 15 * NS)
    road.run(5 * NS)
    assert road.diagnostics() == ["refused"]
    assert road.states()[-1] == ("main", True)
    assert board.relays[BUZZER] is True


@given(st.lists(st.binary(max_size=20), max_size=10))
@settings(max_examples=50, deadline=None)
def test_no_bytes_stop_it_or_sound_the_tower(noise: list[bytes]) -> None:
    road, board = line()
    for data in noise:
        road.inject(data)
        road.run(road.t + 700 * MS)
    assert ("main", True) not in road.states()
    road.run(road.t + 60 * NS)
    assert board.changes() == []
    assert road.states()[-1] == ("main", False)


@pytest.mark.parametrize(
    ("options", "units", "says"),
    [
        ({"buzzer": 0}, {}, "buzzer: saw 0"),
        ({"red": 5}, {}, "red: saw 5"),
        ({"unit": "@1"}, {}, "unit: saw '@1'"),
        ({}, {"a": {}, "b": {}}, "port: saw sirens a, b"),
        ({}, {"a": {"relay": 1}}, "a.relay: no such option"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, object], units: dict[str, dict[str, int]], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Patlite(options, units)


def test_the_driver_is_found_by_name_and_can_be_silenced_blindly() -> None:
    driver = sirens.load("patlite")()
    assert isinstance(driver, sirens.SirenDriver)
    driver.opened(0)
    assert driver.next_deadline() is None
    assert driver.to_send() == driver.off_frames() == b""
    assert Patlite({}, ONE).off_frames() == b"@??C!"


@pytest.mark.parametrize(
    ("asked", "answered", "lit"),
    [
        (b"@??S190004!", ACK, [True, False, False, True]),
        (b"@01S002000!", ACK, [False, False, True, False]),
        (b"@??C!", ACK, [False] * 4),
        (b"@??S500000!", NAK, [False] * 4),
        (b"@??S1!", NAK, [False] * 4),
        (b"noise@??X!", NAK, [False] * 4),
    ],
)
def test_the_simulated_tower_answers_byte_for_byte(
    asked: bytes, answered: int, lit: list[bool]
) -> None:
    tower = PatliteSimulator()
    tower.feed(asked, 0)
    assert tower.to_send() == bytes((answered,))
    assert tower.relays == lit


def test_the_simulated_tower_refuses_a_command_that_stands_still() -> None:
    tower = PatliteSimulator()
    tower.feed(b"@??S1", 0)
    assert tower.next_deadline() == 5 * NS
    tower.tick(5 * NS)
    assert tower.to_send() == bytes((NAK,))
    tower.feed(b"@??S100000!", 5 * NS)
    assert tower.to_send() == bytes((ACK,))
