from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drill.sources import Readings
from gateway.drivers.vaisala_wxt import VaisalaWxt, VaisalaWxtSimulator, sealed
from gateway.events import MICRO, NS, Reading
from tests.drivers.line import Line, kinds, merged, values

ANSWER = b"0r1,Dn=236D,Dm=283D,Dx=031D,Sn=0.0M,Sm=1.0M,Sx=2.2MJ\\Y\r\n"


def asked() -> VaisalaWxt:
    driver = VaisalaWxt(None, "w")
    driver.opened(0)
    driver.tick(0)
    assert driver.to_send() == b"0r1Goe\r\n"
    return driver


@pytest.mark.parametrize("line", [b"0r1Goe", b"0r2Gje", b"0r3Kid", b"0r5Kcd", b"0rBVT", b"0r0Kld"])
def test_the_crc_is_the_maker_s(line: bytes) -> None:
    assert sealed(line[:-3]) == line + b"\r\n"


def test_the_mean_wind_of_the_answer_is_read_exactly() -> None:
    assert asked().feed(ANSWER, 5) == [Reading("w", 5, "wind_mps", 1_000_000)]


@pytest.mark.parametrize("width", range(1, len(ANSWER)))
def test_readings_do_not_depend_on_how_reads_are_cut(width: int) -> None:
    driver = asked()
    found: list[Any] = []
    for at in range(0, len(ANSWER), width):
        found += driver.feed(ANSWER[at : at + width], 5)
    assert (values(found, "wind_mps"), kinds(found)) == ([1_000_000], [])


def test_only_the_answer_to_a_request_counts() -> None:
    driver = asked()
    found = driver.feed(ANSWER + ANSWER, 5)
    assert len(values(found, "wind_mps")) == 1
    assert kinds(found) == ["unsolicited"]
    late = asked()
    assert kinds(late.tick(NS // 2)) == ["no_answer"]
    assert kinds(late.feed(ANSWER, NS // 2 + 1)) == ["unsolicited"]
    taken = VaisalaWxt()
    taken.opened(0)
    taken.tick(0)
    assert kinds(taken.feed(ANSWER, 1)) == ["unsolicited"], "the request was not yet taken"


@pytest.mark.parametrize(
    ("body", "micro", "kind"),
    [
        (b"0r1,Sm=1.0N", [514_444], []),
        (b"0r1,Sm=1.0#", [None], ["invalid"]),
        (b"0r1,Dm=283D", [], ["mismatch"]),
        (b"5r1,Sm=1.0M", [], ["unsolicited"]),
    ],
)
def test_what_an_answer_says_besides_metres_a_second(
    body: bytes, micro: list[int | None], kind: list[str]
) -> None:
    found = asked().feed(sealed(body), 5)
    assert (values(found, "wind_mps"), kinds(found)) == (micro, kind)


@pytest.mark.parametrize("place", range(len(ANSWER)))
def test_a_damaged_answer_is_none(place: int) -> None:
    damaged = bytearray(ANSWER)
    damaged[place] ^= 0x04
    assert values(asked().feed(bytes(damaged), 5), "wind_mps") == []


@given(st.lists(st.one_of(st.binary(max_size=60), st.just(ANSWER)), max_size=8), st.data())
def test_any_bytes_are_taken_whatever_the_cut(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    whole, cut = asked(), asked()
    found: list[Any] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += cut.feed(stream[begin:end], 1)
    assert merged(found) == merged(whole.feed(stream, 1))


def test_the_simulated_transmitter_gives_the_wind_of_a_recording() -> None:
    rows = [(n * NS, n * MICRO) for n in range(8)]
    device = VaisalaWxtSimulator(None, Readings({"wind_mps": [*rows, (8 * NS, None)]}))
    found = Line(VaisalaWxt(), device).run(9.5)
    assert values(found, "wind_mps") == [*(n * MICRO for n in range(8)), None, None]


def test_wrong_options_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"timeout_s: saw 3.0; allowed is 0.1 to 1.0 s"):
        VaisalaWxt({"timeout_s": 3})
