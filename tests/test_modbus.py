"""Modbus RTU: frames, and which bytes are taken for the answer to a request."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU

from gateway.events import NS, Diagnostic
from gateway.modbus import (
    Answer,
    Function,
    Master,
    NoAnswer,
    Refusal,
    Request,
    crc16,
    seal,
)

RELAY_3_ON = Request(1, Function.write_coil, 2, 0xFF00)
READ_8 = Request(1, Function.read_coils, 0, 8)
READ_2_WORDS = Request(9, Function.read_holding, 0, 2)


def master() -> Master:
    return Master(timeout_ns=NS // 5, late_ns=NS, gap_ns=4_000_000)


@pytest.mark.parametrize(
    ("request_", "frame"),
    [
        (Request(1, Function.write_coil, 0, 0xFF00), "01 05 00 00 FF 00 8C 3A"),
        (Request(1, Function.write_coil, 0, 0), "01 05 00 00 00 00 CD CA"),
        (Request(1, Function.write_coil, 0x200, 7), "01 05 02 00 00 07 8D B0"),
        (Request(1, Function.write_coil, 0xFF, 0), "01 05 00 FF 00 00 FD FA"),
        (READ_8, "01 01 00 00 00 08 3D CC"),
        (Request(0xFF, Function.write_coil, 0, 0xFF00), "FF 05 00 00 FF 00 99 E4"),
    ],
)
def test_frames_are_those_that_the_makers_print(request_: Request, frame: str) -> None:
    assert request_.frame == bytes.fromhex(frame)


@given(st.binary(max_size=64))
def test_the_crc_is_that_of_an_independent_implementation(data: bytes) -> None:
    assert crc16(data).to_bytes(2, "little") == FramerRTU.compute_CRC(data).to_bytes(2, "big")
    assert crc16(seal(data)) == 0


@pytest.mark.parametrize(
    ("request_", "reply", "data"),
    [
        (RELAY_3_ON, RELAY_3_ON.frame, b""),
        (READ_8, bytes.fromhex("01 01 01 00 51 88"), b"\x00"),
        (READ_2_WORDS, seal(bytes.fromhex("09 03 04 01 02 03 04")), bytes.fromhex("01020304")),
    ],
)
@given(junk=st.binary(max_size=12), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_an_answer_is_found_after_garbage_however_it_is_cut(
    request_: Request, reply: bytes, data: bytes, junk: bytes, cuts: list[int]
) -> None:
    line = master()
    line.send(request_, 0)
    stream = junk + reply
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    heard = []
    for first, last in pairwise(edges):
        heard += line.feed(stream[first:last], 1)
    assert [item for item in heard if not isinstance(item, Diagnostic)] == [Answer(request_, data)]
    assert sum(item.count for item in heard if isinstance(item, Diagnostic)) == len(junk)
    assert line.pending is None


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_no_bytes_raise_or_pile_up(chunks: list[bytes]) -> None:
    line = master()
    line.send(READ_2_WORDS, 0)
    for chunk in chunks:
        line.feed(chunk, 1)
        assert len(line._in) < 256


def test_an_exception_is_a_refusal_with_its_reason() -> None:
    line = master()
    line.send(RELAY_3_ON, 0)
    (refusal,) = line.feed(seal(bytes((1, 0x85, 2))), 1)
    assert refusal == Refusal(RELAY_3_ON, 2)
    assert refusal.reason == "exception 2 (illegal address)"


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(Request(2, Function.write_coil, 2, 0xFF00).frame, id="another unit"),
        pytest.param(Request(1, Function.write_coil, 3, 0xFF00).frame, id="another relay"),
        pytest.param(Request(1, Function.write_coil, 2, 0).frame, id="another value"),
        pytest.param(RELAY_3_ON.frame[:-1] + b"\x00", id="a wrong CRC"),
        pytest.param(bytes.fromhex("01 01 01 00 51 88"), id="another function"),
    ],
)
def test_what_answers_something_else_is_not_the_answer(wrong: bytes) -> None:
    line = master()
    line.send(RELAY_3_ON, 0)
    assert all(isinstance(item, Diagnostic) for item in line.feed(wrong, 1))
    assert line.pending is RELAY_3_ON
    assert line.feed(RELAY_3_ON.frame, 2)[-1] == Answer(RELAY_3_ON, b"")


def test_a_late_answer_is_not_taken_for_that_of_the_next_read() -> None:
    line = master()
    line.send(READ_8, 0)
    assert line.tick(NS // 5 - 1) is None
    assert line.tick(NS // 5) == NoAnswer(READ_8)
    assert line.ready_ns(READ_8) == NS // 5 + NS
    (late,) = line.feed(bytes.fromhex("01 01 01 00 51 88"), NS)
    assert isinstance(late, Diagnostic)
    assert late.kind == "unsolicited"


def test_a_write_and_the_read_of_another_unit_need_not_wait_for_a_late_answer() -> None:
    line = master()
    line.send(READ_8, 0)
    line.tick(NS // 5)
    assert line.ready_ns(RELAY_3_ON) == line.ready_ns(READ_2_WORDS) == NS // 5


def test_the_next_frame_waits_for_the_silence_that_ends_the_last() -> None:
    line = master()
    line.send(RELAY_3_ON, 0)
    line.feed(RELAY_3_ON.frame, 20_000_000)
    assert line.ready_ns(READ_8) == 24_000_000
