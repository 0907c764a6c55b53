"""Relay sirens sound at once, hold without a gap, fall silent by themselves, and prove it."""

import asyncio
import os
import select
import threading
import time
import tty
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import WriteSingleCoilRequest, WriteSingleCoilResponse
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

from gateway import siren as sirens
from gateway.events import NS, SirenState
from gateway.modbus import Function, Request, crc16, seal
from gateway.siren.modbus_relay import ModbusRelay, ModbusRelaySimulator
from tests.siren.line import MS, Line

ONE = {"main": {"address": 1, "relay": 1}}
STRATEGIES = ["yes", "no", "unknown"]
TRUTHFUL = [("yes", "yes"), ("no", "no"), ("no", "yes"), ("unknown", "yes"), ("unknown", "no")]
"""What is believed of a board and what it does, where the belief does no harm."""


def line(
    restarts: str = "unknown",
    board: str = "yes",
    units: dict[str, dict[str, int]] | None = None,
    **options: object,
) -> tuple[Line, ModbusRelaySimulator]:
    """A driver that believes ``restarts`` on a board that does ``board``, 1 s after opening."""
    driver = ModbusRelay({"pulse_restarts": restarts, **options}, units or ONE)
    relays = ModbusRelaySimulator({"pulse_restarts": board})
    return Line(driver, relays).run(NS), relays


def edges(relays: ModbusRelaySimulator) -> list[tuple[float, bool]]:
    """(seconds, closed) of relay 1."""
    return [(round(t / NS, 2), on) for t, relay, on in relays.changes() if relay == 1]


# --- sounding and falling silent ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("restarts", "for_s", "frame"),
    [
        ("yes", 15.0, "01 05 02 00 00 1E"),
        ("yes", 0.95, "01 05 02 00 00 0A"),
        ("no", 15.0, "01 05 02 00 00 96"),
        ("unknown", 15.0, "01 05 02 00 00 96"),
        ("unknown", 0.01, "01 05 02 00 00 01"),
        ("unknown", 7200.0, "01 05 02 00 7F FF"),
    ],
)
def test_a_siren_is_told_to_sound_at_once_and_for_no_longer_than_it_may(
    restarts: str, for_s: float, frame: str
) -> None:
    road, _ = line(restarts)
    assert road.sound("main", round(for_s * NS)) == seal(bytes.fromhex(frame))


def test_silence_is_sent_at_once_even_to_a_siren_thought_silent() -> None:
    road, _ = line()
    assert road.silence("main") == Request(1, Function.write_coil, 0, 0).frame


@pytest.mark.parametrize(("restarts", "board"), TRUTHFUL)
def test_a_stretch_sounds_from_end_to_end_without_a_gap(restarts: str, board: str) -> None:
    road, relays = line(restarts, board)
    road.sound("main", 15 * NS)
    road.run(30 * NS)
    (start, closed), (end, opened) = edges(relays)
    assert (closed, opened) == (True, False)
    assert 1.0 <= start <= 1.02
    assert 16.0 <= end <= 16.1
    assert road.states() == [("main", False), ("main", True), ("main", False)]
    assert road.diagnostics() == []


def test_a_board_declared_wrongly_is_found_out_and_sounds_on_with_short_gaps() -> None:
    road, relays = line("yes", "no", refresh_s=0.7)
    road.sound("main", 15 * NS)
    road.run(20 * NS)
    changes = edges(relays)
    gaps = [b - a for (a, on), (b, _) in pairwise(changes) if not on]
    assert max(gaps) <= 0.6
    assert "mismatch" in road.diagnostics()
    assert relays.relays[0] is False


@pytest.mark.parametrize(
    ("restarts", "board", "longest_s"),
    [("yes", "yes", 3.0), ("unknown", "yes", 3.0), ("unknown", "no", 15.1), ("no", "no", 15.1)],
)
@given(death_ms=st.integers(100, 14_000))
@settings(max_examples=20, deadline=None)
def test_the_siren_stops_by_itself_when_the_gateway_dies(
    restarts: str, board: str, longest_s: float, death_ms: int
) -> None:
    road, relays = line(restarts, board)
    begin = road.t
    road.sound("main", 15 * NS)
    road.run(begin + death_ms * MS)
    assert relays.relays[0]
    road.host_alive = False
    road.run(begin + 60 * NS)
    (_, _), (end, opened) = edges(relays)
    assert not opened
    assert end <= min(1 + death_ms / 1000 + longest_s, 16.1) + 0.03


@pytest.mark.parametrize("restarts", STRATEGIES)
def test_silence_ends_the_sound_within_two_exchanges(restarts: str) -> None:
    road, relays = line(restarts)
    road.sound("main", 60 * NS)
    road.run(8 * NS)
    road.silence("main")
    road.run(20 * NS)
    assert edges(relays)[-1][1] is False
    assert edges(relays) == []
    assert relays.relays[0] is False
    assert road.states()[-1] == ("main", False)


def test_silence_waits_for_no_more_than_the_exchange_under_way() -> None:
    road, relays = line()
    road.sound("main", 60 * NS)
    for step in range(150):
        road.run(road.t + 3 * NS + step * 7 * MS)
        road.silence("main")
        road.run(road.t + 45 * MS)
        assert relays.relays[0] is False
        road.sound("main", 60 * NS)
        road.run(road.t + 45 * MS)
        assert relays.relays[0] is True


def test_no_state_is_published_that_an_order_under_way_contradicts() -> None:
    for pause_ms in range(90):
        road, _ = line()
        road.sound("main", 60 * NS)
        road.run(road.t + pause_ms * MS)
        road.said.clear()
        road.silence("main")
        road.run(road.t + NS)
        assert ("main", True) not in road.states()


@pytest.mark.parametrize("board", ["yes", "no"])
@pytest.mark.parametrize("restarts", ["unknown", "no"])
def test_a_prolonged_stretch_is_renewed_with_one_blink(restarts: str, board: str) -> None:
    road, relays = line(restarts, board)
    road.sound("main", 5 * NS)
    for second in range(2, 6):
        road.run(second * NS)
        road.sound("main", 5 * NS)
    road.run(30 * NS)
    changes = edges(relays)
    assert len(changes) == 4
    assert changes[2][0] - changes[1][0] <= 0.06
    assert 10.0 <= changes[-1][0] <= 10.1
    assert road.diagnostics() == []


def test_with_restarting_pulses_a_prolonged_stretch_has_no_gap_at_all() -> None:
    road, relays = line("yes")
    road.sound("main", 5 * NS)
    road.run(4 * NS)
    road.sound("main", 10 * NS)
    road.run(30 * NS)
    assert [on for _, on in edges(relays)] == [True, False]


def test_a_shortened_stretch_ends_at_its_new_end() -> None:
    road, relays = line("no", "no")
    road.sound("main", 60 * NS)
    road.run(2 * NS)
    road.sound("main", 3 * NS)
    road.run(10 * NS)
    assert edges(relays)[-1][0] == pytest.approx(5.01, abs=0.02)


def test_a_stretch_that_is_over_already_is_silence() -> None:
    road, relays = line()
    road.driver.sound("main", road.t, road.t)
    road.run(3 * NS)
    assert edges(relays) == []


# --- an unreliable line -------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", ["yes", "unknown"])
def test_a_lost_pulse_is_not_heard(restarts: str) -> None:
    road, relays = line(restarts)
    road.to_board = lambda data, t: b"" if 3 * NS < t < 4.5 * NS else data
    road.sound("main", 15 * NS)
    road.run(30 * NS)
    assert [on for _, on in edges(relays)] == [True, False]


def test_a_lost_start_is_sent_again_after_the_time_out() -> None:
    road, relays = line()
    lost: list[bytes] = []

    def lose_the_first(data: bytes, t: int) -> bytes:
        del t
        lost.append(data)
        return b"" if len(lost) == 1 else data

    road.to_board = lose_the_first
    road.sound("main", 15 * NS)
    road.run(2 * NS)
    assert edges(relays) == [(1.21, True)]


def test_damaged_answers_are_counted_and_the_siren_sounds_all_the_same() -> None:
    road, relays = line()
    road.to_host = lambda data, t: data[:-1] + b"\x55" if data and t % 3 == 0 else data
    road.sound("main", 15 * NS)
    road.run(30 * NS)
    assert edges(relays)[0] == (1.01, True)
    assert relays.relays[0] is False


def test_a_dead_board_is_reported_once_and_taken_up_again_when_it_answers() -> None:
    road, relays = line()
    dead = [(NS, 40 * NS)]
    road.to_board = lambda data, t: b"" if dead[0][0] < t < dead[0][1] else data
    road.run(39 * NS)
    assert road.states() == [("main", False), ("main", None)]
    assert road.diagnostics() == ["no_answer"]
    asked = len(road.sent)
    road.sound("main", 15 * NS)
    road.run(42 * NS)
    assert len(road.sent) - asked < 12
    assert relays.relays[0] is True
    assert road.states()[-1] == ("main", True)
    road.run(60 * NS)
    assert road.states()[-1] == ("main", False)


@pytest.mark.parametrize("restarts", STRATEGIES)
def test_a_board_that_lost_its_power_while_sounding_sounds_again_within_a_second(
    restarts: str,
) -> None:
    road, relays = line(restarts)
    road.sound("main", 15 * NS)
    road.run(round(5.2 * NS))
    relays.powered(road.t)
    road.run(round(6.3 * NS))
    assert relays.relays[0] is True


def test_a_relay_closed_by_someone_else_is_opened_and_reported() -> None:
    road, relays = line()
    relays.feed(Request(1, Function.write_coil, 0, 0xFF00).frame, road.t)
    road.run(15 * NS)
    assert relays.relays[0] is False
    assert road.states() == [("main", False), ("main", True), ("main", False)]
    assert road.diagnostics().count("mismatch") == 1


class Fast(ModbusRelaySimulator):
    """A board whose clock gains one percent."""

    tenth_ns = 99 * MS


def test_a_board_whose_clock_gains_is_not_taken_for_one_that_disobeys() -> None:
    for for_ms in range(5000, 7000, 100):
        board = Fast({"pulse_restarts": "no"})
        road = Line(ModbusRelay({"pulse_restarts": "no"}, ONE), board).run(NS)
        road.sound("main", for_ms * MS)
        road.run(10 * NS)
        (_, _), (end, _) = edges(board)
        assert end < 1 + for_ms / 1000
        assert road.states() == [("main", False), ("main", True), ("main", False)]
        assert road.said[-1][0] >= NS + for_ms * MS
        assert road.diagnostics() == []


class Welded(ModbusRelaySimulator):
    """A relay that reads as closed whatever it is told."""

    def to_send(self) -> bytes:
        self.relays[0] = True
        return super().to_send()


def test_a_relay_that_does_not_obey_is_reported_once_and_does_not_take_the_bus() -> None:
    road = Line(ModbusRelay({}, ONE), Welded({})).run(60 * NS)
    assert road.diagnostics() == ["mismatch"]
    assert road.states() == [("main", True)]
    assert len(road.sent) < 130  # told and read once a second, 5 % of the bus


class Broken(ModbusRelaySimulator):
    """A relay that reads as open whatever it is told."""

    def to_send(self) -> bytes:
        self.relays[0] = False
        return super().to_send()


def test_a_siren_that_can_not_be_switched_on_is_reported_once_and_told_each_second() -> None:
    road = Line(ModbusRelay({}, ONE), Broken({})).run(NS)
    road.sound("main", 60 * NS)
    before = len(road.sent)
    road.run(41 * NS)
    assert road.diagnostics() == ["mismatch"]
    assert road.states() == [("main", False)]
    assert 80 < len(road.sent) - before < 240


def test_the_bus_never_holds_two_requests() -> None:
    units = {f"s{n}": {"relay": n} for n in range(1, 5)}
    road, _ = line(units=units)
    for n in range(1, 5):
        road.sound(f"s{n}", 10 * NS)
    road.run(20 * NS)
    times = [t for t, _ in road.sent]
    assert all(len(frame) == 8 and crc16(frame) == 0 for _, frame in road.sent)
    assert min(b - a for a, b in pairwise(times)) > 20 * MS


def test_starts_go_before_stops_and_stops_before_reading() -> None:
    road, _ = line(units={"a": {"relay": 1}, "b": {"relay": 2}, "c": {"relay": 3}})
    road.sound("a", 60 * NS)
    road.run(2 * NS)
    road.silence("c")
    mark = len(road.sent)
    road.silence("a")
    road.sound("b", 60 * NS)
    road.run(3 * NS)
    wanted = ["01 05 02 01 02 58", "01 05 02 01 00 1E", "01 05 00 00 00 00"]
    told = [frame[:6] for _, frame in road.sent[mark:] if frame[1] == Function.write_coil]
    assert sorted(told[:3]) == sorted(bytes.fromhex(text) for text in wanted)
    assert told[0] == bytes.fromhex(wanted[0])


@pytest.mark.parametrize("dies_at_s", [0, 5])
def test_a_dead_board_delays_another_on_its_line_by_one_time_out_at_most(dies_at_s: int) -> None:
    units = {"dead": {"address": 2}, "main": {"address": 1}}
    dead, relays = ModbusRelaySimulator({"address": 2}), ModbusRelaySimulator({})
    road = Line(ModbusRelay({}, units), dead, relays).run(dies_at_s * NS)
    road.boards.remove(dead)
    road.run(5 * NS)
    road.sound("dead", 60 * NS)
    road.sound("main", 60 * NS)
    road.run(round(5.24 * NS))
    assert relays.relays[0] is True
    road.silence("main")
    road.run(road.t + 240 * MS)
    assert relays.relays[0] is False


class Plain(ModbusRelaySimulator):
    """A board without flash-on."""

    def _write_coil(self, data: bytes, t: int) -> bytes | int:
        return 2 if data[0] else super()._write_coil(data, t)


def test_a_board_without_timed_pulses_is_switched_plainly_and_this_is_said() -> None:
    road = Line(driver := ModbusRelay({"pulse_restarts": "yes"}, ONE), board := Plain({})).run(NS)
    assert driver.pulse_s == 3.0
    road.sound("main", 5 * NS)
    road.run(20 * NS)
    assert [on for _, on in edges(board)] == [True, False]
    assert road.diagnostics() == ["refused"]
    assert driver.pulse_s is None


def test_after_a_replug_the_board_may_be_another_with_timed_pulses() -> None:
    road = Line(driver := ModbusRelay({"pulse_restarts": "yes"}, ONE), Plain({})).run(NS)
    road.sound("main", NS)
    road.run(5 * NS)
    road.boards = [ModbusRelaySimulator({})]
    road.reopen()
    assert driver.pulse_s == 3.0
    road.run(6 * NS)
    assert road.sound("main", 5 * NS) == seal(bytes.fromhex("01 05 02 00 00 1E"))


def test_an_adapter_that_echoes_its_own_bytes_proves_nothing() -> None:
    road = Line(ModbusRelay({}, ONE))
    road.to_board = lambda data, t: road._flying.append((t + MS, 1, data)) or b""  # type: ignore[func-returns-value]
    road.reopen()
    road.run(20 * NS)
    assert road.states() == []
    assert "no_answer" in road.diagnostics()


# --- opening ------------------------------------------------------------------------------------


def test_opening_silences_every_siren_and_reads_it_back() -> None:
    relays = ModbusRelaySimulator({})
    road = Line(ModbusRelay({}, ONE), relays)
    assert road.sent == [(0, Request(1, Function.write_coil, 0, 0).frame)]
    assert road.run(NS).states() == [("main", False)]


def test_a_port_that_comes_back_goes_on_sounding_and_not_longer_than_it_should() -> None:
    road, relays = line()
    road.sound("main", 15 * NS)
    road.run(5 * NS)
    relays.powered(road.t)
    assert road.reopen() == seal(bytes.fromhex("01 05 02 00 00 6E"))
    road.run(30 * NS)
    assert edges(relays)[-1] == (16.0, False) or edges(relays) == []
    assert relays.relays[0] is False


def test_a_port_that_comes_back_after_the_stretch_stays_silent() -> None:
    road, relays = line()
    road.sound("main", 2 * NS)
    road.run(10 * NS)
    relays.changes()
    road.reopen()
    road.run(20 * NS)
    assert edges(relays) == []


# --- bytes and options --------------------------------------------------------------------------


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, NS)), max_size=20))
@settings(max_examples=50, deadline=None)
def test_no_bytes_from_the_line_stop_the_driver_or_close_a_relay(
    noise: list[tuple[bytes, int]],
) -> None:
    road, relays = line()
    for data, wait in noise:
        road.inject(data)
        road.run(road.t + wait)
    road.run(road.t + 13 * NS)
    assert edges(relays) == []
    assert road.states()[-1] == ("main", False)


def test_rest_costs_the_bus_one_exchange_in_ten_seconds() -> None:
    road, _ = line()
    before = len(road.sent)
    road.run(601 * NS)
    assert 59 <= len(road.sent) - before <= 60


@pytest.mark.parametrize(
    ("options", "units", "says"),
    [
        ({"pulse_s": 4.0}, {}, "pulse_s: saw 4.0"),
        ({"pulse_s": 1.5, "refresh_s": 1.0}, {}, "pulse_s: saw 1.5"),
        ({"pulse_restarts": "perhaps"}, {}, "pulse_restarts: saw 'perhaps'"),
        ({"pulse": 3}, {}, "pulse: no such option"),
        ({"retries": -1}, {}, "retries: saw -1"),
        ({}, {"main": {"relay": 0}}, "main.relay: saw 0"),
        ({}, {"main": {"relay": 9}}, "main.relay: saw 9"),
        ({}, {"main": {"address": 0}}, "main.address: saw 0"),
        ({}, {"a": {"relay": 2}, "b": {"relay": 2}}, "b.relay: saw 2 of board 1, which a has"),
    ],
)
def test_wrong_options_are_refused_with_the_key_and_what_is_allowed(
    options: dict[str, object], units: dict[str, dict[str, int]], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        ModbusRelay(options, units)


@pytest.mark.parametrize(
    ("units", "frame"),
    [
        ({}, ""),
        ({"a": {"relay": 3}}, "01 05 00 02 00 00"),
        ({"a": {"relay": 3}, "b": {"relay": 5}}, "01 05 00 FF 00 00"),
        ({"a": {"address": 1}, "b": {"address": 2}}, "00 05 00 FF 00 00"),
    ],
)
def test_one_frame_silences_the_whole_line(units: dict[str, dict[str, int]], frame: str) -> None:
    driver = ModbusRelay({}, units)
    body = bytes.fromhex(frame)
    assert driver.off_frames() == (seal(body) if body else b"")


def test_the_driver_is_found_by_name_and_idles_without_sirens() -> None:
    driver = sirens.load("modbus_relay")()
    assert isinstance(driver, sirens.SirenDriver)
    driver.opened(0)
    assert driver.tick(NS) == []
    assert driver.next_deadline() is None
    assert driver.to_send() == b""


# --- the simulator, and a server that others wrote ----------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answered", "closed"),
    [
        ("01 05 00 00 FF 00 8C 3A", "01 05 00 00 FF 00 8C 3A", {1}),
        ("01 05 00 00 55 00 F2 9A", "01 05 00 00 55 00 F2 9A", {1}),
        ("01 05 00 FF FF 00 BC 0A", "01 05 00 FF FF 00 BC 0A", set(range(1, 9))),
        ("01 01 00 00 00 08 3D CC", "01 01 01 00 51 88", set()),
        ("01 0F 00 00 00 08 01 FF BE D5", "01 0F 00 00 00 08 54 0D", set(range(1, 9))),
        ("01 05 02 00 00 07 8D B0", "01 05 02 00 00 07 8D B0", {1}),
        ("01 05 04 00 00 05 0C F9", "01 05 04 00 00 05 0C F9", set()),
        ("01 05 00 00 FF 00 8C 3B", "", set()),
        ("FF 05 00 00 FF 00 99 E4", "", set()),
    ],
)
def test_the_simulated_board_answers_byte_for_byte(
    asked: str, answered: str, closed: set[int]
) -> None:
    board = ModbusRelaySimulator()
    board.powered(0)
    board.feed(bytes.fromhex(asked), 0)
    board.tick(4 * MS)
    assert board.to_send() == bytes.fromhex(answered)
    assert {n for n, on in enumerate(board.relays, 1) if on} == closed


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("01 05 00 08 FF 00", "01 85 02"),
        ("01 05 00 00 12 34", "01 85 03"),
        ("01 05 02 00 80 00", "01 85 03"),
        ("01 01 00 00 00 09", "01 81 02"),
        ("01 01 00 00 00 00", "01 81 03"),
        ("01 0F 00 00 00 08 02 FF", "01 8F 03"),
        ("01 03 00 00 00 01", "01 83 01"),
    ],
)
def test_the_simulated_board_refuses_what_it_does_not_know(body: str, answer: str) -> None:
    board = ModbusRelaySimulator()
    board.feed(seal(bytes.fromhex(body)), 0)
    board.tick(4 * MS)
    assert board.to_send() == seal(bytes.fromhex(answer))


def test_the_simulated_board_takes_two_frames_without_a_pause_for_none() -> None:
    board = ModbusRelaySimulator()
    board.feed(2 * Request(1, Function.write_coil, 0, 0xFF00).frame, 0)
    board.tick(4 * MS)
    assert board.to_send() == b""
    assert board.relays[0] is False


def test_flash_off_closes_by_itself_and_a_broadcast_is_obeyed_unanswered() -> None:
    board = ModbusRelaySimulator()
    board.feed(Request(1, Function.write_coil, 0x400, 5).frame, 0)
    board.tick(4 * MS)
    board.tick(NS)
    assert board.changes() == [(504 * MS, 1, True)]
    board.to_send()
    board.feed(Request(0, Function.write_coil, 0xFF, 0).frame, NS)
    board.tick(NS + 4 * MS)
    assert board.to_send() == b""
    assert board.changes() == [(NS + 4 * MS, 1, False)]


class FlashOn(WriteSingleCoilRequest):
    """Write of a coil as Waveshare's boards know it: 0200 and up closes a relay for a while.

    Framing, CRC, coils and their reading are pymodbus's; only the meaning of the value is added.
    """

    running: ClassVar[dict[int, asyncio.TimerHandle]] = {}

    def decode(self, data: bytes) -> None:
        super().decode(data)
        self.tenths = int.from_bytes(data[2:4], "big")

    async def datastore_update(self, context: Any, device_id: int) -> ModbusPDU:
        coil = self.address & 0xFF
        if before := self.running.pop(coil, None):
            before.cancel()
        if self.address < 0x200:
            return await super().datastore_update(context, device_id)
        await context.async_setValues(device_id, 5, coil, [True])

        def over() -> None:
            tasks.append(
                asyncio.ensure_future(context.async_setValues(device_id, 5, coil, [False]))
            )

        loop = asyncio.get_running_loop()
        self.running[coil] = loop.call_later(self.tenths / 10, over)
        return FlashOnEcho(self)


class FlashOnEcho(WriteSingleCoilResponse):
    """The echo, whose value pymodbus would make FF00."""

    def __init__(self, asked: FlashOn) -> None:
        super().__init__(
            address=asked.address, dev_id=asked.dev_id, transaction_id=asked.transaction_id
        )
        self.tenths = asked.tenths

    def encode(self) -> bytes:
        return self.address.to_bytes(2, "big") + self.tenths.to_bytes(2, "big")


tasks: list[Any] = []
"""What runs on the server's loop, held so that it is not collected."""


@pytest.fixture
def others_board() -> Iterator[int]:
    """The line to a Modbus server of pymodbus's, unit 1 with 8 coils."""
    host, unit = os.openpty()
    tty.setraw(unit)
    loop = asyncio.new_event_loop()
    coils = SimData(0, count=8, values=[False] * 8, datatype=DataType.BITS)
    word = [SimData(0, values=0, datatype=DataType.REGISTERS)]
    board = SimDevice(1, simdata=([coils], [coils], word, word))

    async def serve() -> ModbusSerialServer:
        server = ModbusSerialServer(
            board, port=os.ttyname(unit), baudrate=9600, custom_pdu=[FlashOn]
        )
        await server.serve_forever(background=True)
        return server

    server = loop.run_until_complete(serve())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield host
    ended = server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus leaves it untyped
    asyncio.run_coroutine_threadsafe(ended, loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    os.close(host)
    os.close(unit)


def test_a_plain_board_written_by_others_is_switched_and_read(others_board: int) -> None:
    driver = ModbusRelay({"pulse_s": 0.0}, {"main": {"relay": 3}})
    driver.opened(time.monotonic_ns())
    assert next_state(driver, others_board) is False
    now = time.monotonic_ns()
    driver.sound("main", now + 60 * NS, now)
    assert next_state(driver, others_board) is True
    driver.silence("main", time.monotonic_ns())
    assert next_state(driver, others_board) is False


def next_state(driver: ModbusRelay, line: int) -> bool | None:
    """Turn the line until the siren's state is news."""
    while True:
        os.write(line, driver.to_send())
        due = driver.next_deadline()
        assert due is not None
        wait_s = max(0.0, (due - time.monotonic_ns()) / NS)
        ready, _, _ = select.select([line], [], [], min(wait_s, 5.0))
        t = time.monotonic_ns()
        for item in driver.feed(os.read(line, 256), t) if ready else driver.tick(t):
            if isinstance(item, SirenState):
                return item.on


def test_timed_pulses_hold_a_board_written_by_others_and_end_when_nobody_renews_them(
    others_board: int,
) -> None:
    options = {"pulse_s": 2.0, "refresh_s": 0.5, "pulse_restarts": "yes", "timeout_s": 1.0}
    driver = ModbusRelay(options, {"main": {"relay": 3}})
    driver.opened(time.monotonic_ns())
    assert next_state(driver, others_board) is False
    began = time.monotonic_ns()
    driver.sound("main", began + 3 * NS, began)
    assert next_state(driver, others_board) is True
    assert next_state(driver, others_board) is False
    assert time.monotonic_ns() - began >= 3 * NS, "longer than one pulse, and to its end"
    began = time.monotonic_ns()
    driver.sound("main", began + 60 * NS, began)
    assert next_state(driver, others_board) is True
    closed = True
    while closed:
        os.write(others_board, Request(1, Function.read_coils, 0, 8).frame)
        select.select([others_board], [], [], 1.0)
        select.select([], [], [], 0.05)
        closed = bool(os.read(others_board, 256)[3] & 4)
        assert time.monotonic_ns() - began < 60 * NS, "it opens by itself"
