import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drivers.psn_adc import (
    DATA_HEADER,
    Options,
    PsnAdc,
    PsnAdcSimulator,
    command,
    packet,
)
from gateway.events import NS, Diagnostic, Scans
from tests.drivers.line import Line, Ramp, kinds, merged

CONFIGURATION = bytes.fromhex("02 43 04 00 64 00 00 2E 93 02 00 00 00 00 03 03 9C 03")
ONE_SCAN = bytes.fromhex(
    "AA 55 88 44 1D 00 44 80 65 00 00 00 00 2E 93 02 00 00 00 00 00 00 00 00 00 02 08 01 01 1A"
    " 64 00 9C FF FF 7F 94"
)
SMALL = {"rate_hz": 10, "channels": 3}


def data(number: int, scans: int = 1) -> bytes:
    """Packet ``number`` of a ramp at ``scans`` scans a packet."""
    counts = Ramp().samples(number * scans, scans).T.astype("<i2").tobytes()
    return packet(b"D", DATA_HEADER.pack(number, number * 100, 0, 0, 0, 48, 0, 0, 0, 0) + counts)


def verticals(found: list[Any]) -> list[int]:
    return [int(v) for item in found if isinstance(item, Scans) for v in item.samples[0]]


def test_worked_examples_decode_and_encode() -> None:
    assert Options().command(43_200_000) == CONFIGURATION
    assert command(b"S") == bytes.fromhex("02 53 53 03")
    (scans,) = PsnAdc(SMALL).feed(ONE_SCAN, 3)
    assert isinstance(scans, Scans)
    assert scans.samples.tolist() == [[100], [-100], [32767]]
    assert (scans.arrival_ns, scans.index, scans.rate_hz) == (3, 0, 10.0)


def test_a_board_that_asks_is_configured_and_every_scan_arrives() -> None:
    line = Line(PsnAdc(), PsnAdcSimulator(None, Ramp()))
    found = line.run(30.0)
    assert verticals(found) == list(range(len(verticals(found))))
    assert len(verticals(found)) >= 2980
    assert kinds(found) == []


def test_a_board_that_runs_already_is_decoded_at_once() -> None:
    driver = PsnAdc(SMALL)
    driver.opened(0)
    assert verticals(driver.feed(data(7)[20:] + data(8) + data(9), 1)) == [8, 9]
    assert driver.to_send() == command(b"S")


def test_missing_packets_are_a_gap_of_the_right_length() -> None:
    driver = PsnAdc(SMALL)
    found = driver.feed(data(1) + data(2), NS) + driver.feed(data(6), NS * 14 // 10)
    assert [item.index for item in found if isinstance(item, Scans)] == [0, 5]
    assert kinds(found) == ["lost"]


def test_a_packet_number_that_time_contradicts_makes_no_gap() -> None:
    driver = PsnAdc(SMALL)
    found = driver.feed(data(1), NS) + driver.feed(data(9000), NS * 11 // 10)
    assert [item.index for item in found if isinstance(item, Scans)] == [0, 1]
    assert kinds(found) == ["sequence"]


def test_numbers_that_begin_again_are_a_reboot() -> None:
    driver = PsnAdc(SMALL)
    found = driver.feed(data(500), NS) + driver.feed(data(1), 2 * NS)
    assert kinds(found) == ["reboot"]
    assert verticals(found) == [500, 1]


@pytest.mark.parametrize("bad", range(45))
def test_a_damaged_byte_costs_that_packet_alone(bad: int) -> None:
    sent = [bytearray(data(n)) for n in range(1, 8)]
    sent[2][bad % len(sent[2])] ^= 0x10
    found = PsnAdc(SMALL).feed(b"".join(sent), NS)
    assert verticals(found) == [1, 2, 4, 5, 6, 7]
    assert [item.index for item in found if isinstance(item, Scans)] == [0, 3]


def test_a_damaged_length_does_not_hold_data_back() -> None:
    driver = PsnAdc(SMALL)
    driver.feed(data(1), NS)
    long = bytearray(data(2))
    long[4:6] = struct.pack("<h", 4000)
    assert verticals(driver.feed(bytes(long) + data(3), NS)) == [3]


@given(st.data())
def test_scans_do_not_depend_on_how_reads_are_cut(drawn: st.DataObject) -> None:
    noise = st.one_of(st.binary(max_size=30), st.sampled_from([b"\xaa", b"\xaa\x55\x88\x44"]))
    stream = data(1)
    for number in range(2, 8):
        stream += drawn.draw(noise) + data(number)
    stream += packet(b"L", b"GPS locked\0") + data(8) + packet(b"S", bytes(6))
    cuts = sorted(drawn.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    expected = merged(PsnAdc(SMALL).feed(stream, 1))
    driver = PsnAdc(SMALL)
    found: list[Any] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += driver.feed(stream[begin:end], 1)
    assert merged(found) == expected


@given(st.lists(st.one_of(st.binary(max_size=80), st.just(ONE_SCAN)), max_size=20))
def test_any_bytes_are_taken(pieces: list[bytes]) -> None:
    driver = PsnAdc(SMALL)
    driver.opened(0)
    for t, piece in enumerate(pieces):
        driver.feed(piece, t)
        driver.tick(t)


def test_a_locked_receiver_gives_utc_to_the_millisecond() -> None:
    device = PsnAdcSimulator(None, Ramp())
    start_ns = int(datetime(2026, 1, 1, 23, 59, 50, 250_000, UTC).timestamp()) * NS + NS // 4
    device.utc_at_power_ns = start_ns
    line = Line(PsnAdc({"time_reference": "garmin"}), device)
    scans = [item for item in line.run(30.0) if isinstance(item, Scans)]
    dated = [item for item in scans if item.device_utc_ns is not None]
    assert len(scans) - len(dated) <= 15
    for item in dated:
        truth = start_ns + item.arrival_ns - NS // 10
        assert abs((item.device_utc_ns or 0) - truth) <= 2_000_000


def test_without_a_fix_there_is_no_device_time() -> None:
    line = Line(PsnAdc(), PsnAdcSimulator(None, Ramp()))
    assert all(item.device_utc_ns is None for item in line.run(5.0) if isinstance(item, Scans))


def test_status_that_contradicts_the_configuration_is_a_mismatch() -> None:
    driver = PsnAdc()
    (found,) = driver.feed(packet(b"S", struct.pack("<4Bh", 2, 1, 0, 4, 50)), 0)
    assert isinstance(found, Diagnostic)
    assert found.kind == "mismatch"
    assert "4 channels at 50 Hz" in found.detail


def test_a_board_set_to_other_channels_is_named_not_decoded() -> None:
    driver = PsnAdc()
    driver.opened(0)
    assert kinds(driver.feed(data(1), 1)) == ["mismatch"]


def test_a_board_that_restarts_is_configured_again() -> None:
    line = Line(PsnAdc(), PsnAdcSimulator(None, Ramp()))
    line.run(10.0)
    line.device.powered(line.t)
    found = line.run(5.0)
    assert kinds(found) == ["reboot"]
    assert len(verticals(found)) > 450


def test_the_watchdog_of_the_board_never_fires_while_the_host_is_there() -> None:
    line = Line(PsnAdc(SMALL), PsnAdcSimulator(None, Ramp(rate_hz=10)))
    found = line.run(200.0)
    assert kinds(found) == []
    assert len(verticals(found)) >= 1990


def test_the_board_answers_what_the_host_library_sends() -> None:
    device = PsnAdcSimulator(None, Ramp())
    device.powered(0)
    device.feed(CONFIGURATION, 0)
    device.feed(command(b"D" + struct.pack("<IB", 43_199_000, 0)), 0)
    device.feed(command(b"a")[:2], 0)
    device.feed(command(b"a")[2:], 0)
    device.feed(b"\x02S\x00\x03" + command(b"S"), 0)
    assert device.to_send() == (
        packet(b"w", struct.pack("<iH", 1000, 0))
        + packet(b"a", b"")
        + packet(b"S", struct.pack("<4Bh", 2, 1, 0, 3, 100))
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rate_hz": 25}, "rate_hz: saw 25; allowed is 10, 20, 50, 100, 200, 250, 500"),
        ({"rate_hz": 500, "channels": 5}, "channels: saw 5; allowed is 1, 2, 3, 4"),
        ({"time_reference": "gps"}, "time_reference: saw 'gps'"),
        ({"watchdog": 1}, "watchdog: saw 1; expected bool"),
    ],
)
def test_wrong_options_are_refused_by_name(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PsnAdc(table)
