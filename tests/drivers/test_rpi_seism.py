from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drivers.rpi_seism import RpiSeism, RpiSeismSimulator, frame
from gateway.events import NS, Diagnostic, Scans
from tests.drivers.line import Line, Ramp, kinds, merged

EXAMPLE = bytes.fromhex("AA BB E8 03 00 00 18 FC FF FF FF FF 7F 00 BC 11 20 30")
SETTINGS = bytes.fromhex("CC DD 64 00 06 0B")


def frames(first: int, count: int) -> list[bytes]:
    return [frame(Ramp().samples(i, 1)[:, 0]) for i in range(first, first + count)]


def verticals(found: list[Any]) -> list[int]:
    return [int(v) for item in found if isinstance(item, Scans) for v in item.samples[0]]


def test_the_published_example_decodes_and_encodes() -> None:
    (scans,) = RpiSeism().feed(EXAMPLE, 7)
    assert isinstance(scans, Scans)
    assert (scans.arrival_ns, scans.index, scans.rate_hz) == (7, 0, 100.0)
    assert scans.samples.tolist() == [[1000], [-1000], [8388607]]
    assert scans.samples.dtype == np.int32
    assert frame(np.array([1000, -1000, 8388607], np.int32)) == EXAMPLE


def test_settings_are_sent_at_opening_and_proven_by_their_echo() -> None:
    line = Line(RpiSeism(), RpiSeismSimulator(None, Ramp()))
    found = line.run(1.0)
    assert verticals(found) == list(range(99))
    assert kinds(found) == []
    assert line.driver.to_send() == b""


def test_the_settings_frame_is_the_published_one() -> None:
    driver = RpiSeism()
    driver.opened(0)
    assert driver.to_send() == SETTINGS
    assert driver.to_send() == b""


def test_frames_of_one_read_become_one_item() -> None:
    (scans,) = RpiSeism().feed(b"".join(frames(0, 50)), 1)
    assert isinstance(scans, Scans)
    assert scans.samples.shape == (3, 50)
    assert scans.samples.flags.c_contiguous


@pytest.mark.parametrize("start", range(1, 18))
def test_decoding_begins_anywhere_in_the_stream(start: int) -> None:
    found = RpiSeism().feed(b"".join(frames(0, 3))[start:], 1)
    assert verticals(found) == [1, 2]


@pytest.mark.parametrize("bad", range(18))
def test_one_damaged_byte_costs_one_scan_and_leaves_a_gap_of_one(bad: int) -> None:
    sent = frames(0, 5)
    damaged = bytearray(sent[2])
    damaged[bad] ^= 0x41
    found = RpiSeism().feed(b"".join([*sent[:2], bytes(damaged), *sent[3:]]), 1)
    runs = [(item.index, item.samples.shape[1]) for item in found if isinstance(item, Scans)]
    assert runs == [(0, 2), (3, 2)]
    assert [(i.kind, i.count) for i in found if isinstance(i, Diagnostic)] == [
        ("garbage", 18),
        ("lost", 1),
    ]


@pytest.mark.parametrize("cut", range(1, 20))
def test_two_stray_bytes_of_an_echo_do_not_swallow_a_frame_whatever_the_cut(cut: int) -> None:
    stream = b"\x00\xcc\xdd" + frames(0, 1)[0]
    driver = RpiSeism()
    found = driver.feed(stream[:cut], 1) + driver.feed(stream[cut:], 1)
    assert verticals(found) == [0]


@given(st.data())
def test_scans_do_not_depend_on_how_reads_are_cut(data: st.DataObject) -> None:
    pieces = data.draw(
        st.lists(
            st.one_of(
                st.sampled_from(frames(0, 8)),
                st.just(SETTINGS),
                st.binary(max_size=40),
                st.sampled_from([b"\xaa", b"\xcc", b"\xaa\xbb", b"\xcc\xdd"]),
            ),
            max_size=12,
        )
    )
    stream = b"".join([*pieces, *frames(90, 2)])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    whole, cut = RpiSeism(), RpiSeism()
    expected = merged(whole.feed(stream, 1))
    found: list[Any] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += cut.feed(stream[begin:end], 1)
    assert merged(found) == expected
    assert verticals(found)[-2:] == [90, 91]


@given(st.lists(st.one_of(st.binary(max_size=60), st.just(EXAMPLE)), max_size=20))
def test_any_bytes_are_taken_and_each_is_counted_once(pieces: list[bytes]) -> None:
    driver = RpiSeism()
    found: list[Any] = []
    for t, piece in enumerate(pieces):
        found += driver.feed(piece, t)
    driver.opened(100)
    found += driver.tick(100 + 2 * NS)
    garbage = sum(i.count for i in found if isinstance(i, Diagnostic) and i.kind == "garbage")
    scans = sum(i.samples.shape[1] for i in found if isinstance(i, Scans))
    assert garbage + 18 * scans <= sum(map(len, pieces))


def test_silence_is_answered_with_settings_every_two_seconds() -> None:
    driver = RpiSeism()
    driver.opened(0)
    sent = [driver.to_send()]
    found: list[Any] = []
    for second in range(1, 9):
        found += driver.tick(second * NS)
        sent.append(driver.to_send())
    assert [s for s in sent if s] == [SETTINGS] * 5
    assert kinds(found) == ["no_answer"] * 4


def test_a_device_that_lost_power_is_set_again_and_goes_on() -> None:
    line = Line(RpiSeism(), RpiSeismSimulator(None, Ramp()))
    line.run(1.0)
    line.device.powered(line.t)
    found = line.run(4.0)
    assert kinds(found) == ["no_answer"]
    assert verticals(found)[-1] > 350


def test_settings_of_another_gain_are_a_mismatch() -> None:
    driver = RpiSeism()
    driver.opened(0)
    (found,) = driver.feed(bytes.fromhex("CC DD 64 00 05 0B"), 1)
    assert isinstance(found, Diagnostic)
    assert found.kind == "mismatch"
    assert "cc dd 64 00 05 0b" in found.detail


def test_data_without_an_echo_count_and_the_settings_are_sent_once_more() -> None:
    driver = RpiSeism()
    driver.opened(0)
    driver.to_send()
    found: list[Any] = []
    for i, sent in enumerate(frames(0, 300)):
        found += driver.feed(sent, i * NS // 100) + driver.tick(i * NS // 100)
    assert verticals(found) == list(range(300))
    assert kinds(found) == ["no_answer"]
    assert driver.to_send() == SETTINGS


def test_settings_are_not_repeated_while_data_flow() -> None:
    line = Line(RpiSeism(), RpiSeismSimulator(None, Ramp()))
    line.run(30.0)
    assert verticals(line.found) == list(range(2999))


def test_the_device_saturates_at_24_bits() -> None:
    class Huge(Ramp):
        def samples(self, first: int, count: int) -> Any:
            del first
            return np.full((3, count), 2**30, np.int32)

    line = Line(RpiSeism(), RpiSeismSimulator(None, Huge()))
    assert set(verticals(line.run(0.1))) == {8388607}


def test_the_device_echoes_settings_found_among_noise() -> None:
    device = RpiSeismSimulator(None, Ramp())
    device.powered(0)
    for byte in b"\x01\x01" + b"\xcc\x01\x02\x03\x04\x05" + SETTINGS:
        device.feed(bytes((byte,)), 0)
    assert device.to_send() == SETTINGS
    assert device.next_deadline() == NS // 100


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"gain": 3}, "gain: saw 3; allowed is 1, 2, 4, 8, 16, 32, 64"),
        ({"rate_hz": 400}, "rate_hz: saw 400; allowed is 1 to 366 Hz"),
        ({"rate_hz": "100"}, "rate_hz: saw '100'; expected int"),
        ({"rate_hz": 200, "converter_rate_hz": 500}, "at most a quarter of converter_rate_hz"),
        ({"gian": 64}, "gian: no such option; there are rate_hz, gain, converter_rate_hz"),
    ],
)
def test_wrong_options_are_refused_by_name(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RpiSeism(table)
