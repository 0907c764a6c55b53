"""Sensors on a Modbus line: their makers' frames, one request at a time, several on one pair."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import drivers
from gateway.drill.sources import Readings
from gateway.drivers import Simulator
from gateway.drivers.dfrobot_sen0676 import DfrobotSen0676
from gateway.drivers.modbus_contact import ModbusContact, ModbusContactSimulator
from gateway.drivers.modbus_rain import ModbusRain, ModbusRainSimulator
from gateway.drivers.modbus_unit import ModbusBus, ModbusUnit
from gateway.events import MICRO, NS, Reading
from gateway.modbus import seal
from tests.drivers.line import Line, kinds, values

SEN0575 = {
    "address": 192,
    "registers": "input",
    "register": 8,
    "words": 2,
    "low_word_first": True,
    "mm_per_count": 0.0001,
}


def series(quantity: str, *values: float | None) -> Readings:
    """One value each second."""
    rows = [(n * NS, None if v is None else round(v * MICRO)) for n, v in enumerate(values)]
    return Readings({quantity: rows})


def asked(driver: ModbusUnit) -> bytes:
    """The request of a driver whose port was just opened."""
    driver.opened(0)
    driver.tick(0)
    return driver.to_send()


@pytest.mark.parametrize(
    ("driver", "request_", "answer", "quantity", "micro"),
    [
        pytest.param(
            ModbusRain(None, "g"),
            "01 03 00 00 00 01 84 0A",
            "01 03 02 02 18 B9 2E",
            "rain_total_mm",
            53_600_000,
            id="XM9505",
        ),
        pytest.param(
            ModbusRain(SEN0575, "g"),
            "C0 04 00 08 00 02 E0 D8",
            "C0 04 04 6D 24 00 00 77 EF",
            "rain_total_mm",
            2_794_000,
            id="SEN0575",
        ),
        pytest.param(
            ModbusContact({"debounce_s": 0}, "g"),
            seal(bytes.fromhex("01 02 00 00 00 01")).hex(),
            seal(bytes.fromhex("01 02 01 01")).hex(),
            "contact",
            MICRO,
            id="contact",
        ),
    ],
)
def test_requests_and_answers_are_those_of_the_makers(
    driver: ModbusUnit, request_: str, answer: str, quantity: str, micro: int
) -> None:
    assert asked(driver) == bytes.fromhex(request_)
    assert driver.feed(bytes.fromhex(answer), 5) == [Reading("g", 5, quantity, micro)]


def test_the_radar_is_asked_for_its_distance() -> None:
    driver = DfrobotSen0676({"height_m": 514.0, "interval_s": 1})
    assert asked(driver) == bytes.fromhex("01 03 00 01 00 01 D5 CA")
    driver.feed(seal(bytes.fromhex("01 03 02 09 C4")), 5)
    driver.tick(NS + 5)
    driver.to_send()
    found = driver.feed(seal(bytes.fromhex("01 03 02 09 C4")), NS + 5)
    assert values(found, "water_level_m") == [511_500_000]


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"", id="clean"),
        pytest.param(b"\x00", id="glitch of the transceiver"),
        pytest.param(bytes.fromhex("01 03 00 00 00 01 84 0A"), id="echo of the request"),
        pytest.param(b"\xff\x01\x03\x02", id="a false beginning"),
    ],
)
def test_an_answer_is_found_behind_noise(noise: bytes) -> None:
    driver = ModbusRain()
    asked(driver)
    found = driver.feed(noise + bytes.fromhex("01 03 02 02 18 B9 2E"), 5)
    assert values(found, "rain_total_mm") == [53_600_000]


def test_only_the_answer_to_a_request_counts() -> None:
    answer = bytes.fromhex("01 03 02 02 18 B9 2E")
    driver = ModbusRain()
    driver.opened(0)
    assert kinds(driver.feed(answer, 1)) == ["unsolicited"]
    driver.tick(1)
    assert kinds(driver.feed(answer, 2)) == ["unsolicited"], "the request was not yet taken"
    driver.to_send()
    found = driver.feed(answer + answer, 3)
    assert len(values(found, "rain_total_mm")) == 1
    assert kinds(found) == ["unsolicited"]


def test_an_answer_after_its_time_is_refused_and_not_taken_for_the_next() -> None:
    driver = ModbusRain({"poll_s": 0.5})
    asked(driver)
    assert kinds(driver.tick(NS)) == ["no_answer"]
    assert kinds(driver.feed(bytes.fromhex("01 03 02 02 18 B9 2E"), NS + 1)) == ["unsolicited"]
    assert (driver.next_deadline() or 0) >= 2 * NS


def test_an_exception_is_said_with_its_meaning() -> None:
    driver = ModbusRain()
    asked(driver)
    (found,) = driver.feed(bytes.fromhex("01 83 02 C0 F1"), 5)
    assert "unit 1 refuses register 0x0000: exception 2 (illegal address)" in str(found)


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_any_bytes_are_taken_whatever_the_cut(pieces: list[bytes], data: st.DataObject) -> None:
    answer = bytes.fromhex("01 03 02 02 18 B9 2E")
    stream = b"".join([*pieces, answer])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    found: list[list[int | None]] = []
    for ends in ([len(stream)], [*cuts, len(stream)]):
        driver = ModbusRain()
        asked(driver)
        items: list[Any] = []
        begin = 0
        for end in ends:
            items += driver.feed(stream[begin:end], 5)
            begin = end
        found.append(values(items, "rain_total_mm"))
    assert found[0] == found[1]
    assert len(found[0]) == 1


def test_a_dead_unit_is_asked_ever_more_seldom_and_at_its_rate_once_it_lives() -> None:
    driver = ModbusRain({"poll_s": 2})
    driver.opened(0)
    t, requests = 0, []
    while t < 200 * NS:
        driver.tick(t)
        if driver.to_send():
            requests.append(t / NS)
        t = driver.next_deadline() or 0
    assert requests[:4] == [0.0, 4.0, 12.0, 28.0], requests
    assert len(requests) < 18
    driver.tick(t)
    driver.to_send()
    driver.feed(bytes.fromhex("01 03 02 02 18 B9 2E"), t)
    assert (driver.next_deadline() or 0) <= t + 2 * NS


# --- simulated devices --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, SEN0575], ids=["XM9505", "SEN0575"])
def test_rain_of_a_simulated_gauge_is_read_to_its_count(options: dict[str, Any]) -> None:
    source = series("rain_total_mm", *[n * 0.05 for n in range(200)])
    line = Line(ModbusRain(options), ModbusRainSimulator(options, source))
    found = line.run(100.0)
    totals = values(found, "rain_total_mm")
    assert len(totals) == 50
    assert kinds(found) == []
    assert 4_800_000 <= (totals[-1] or 0) <= 5_000_000
    line.device.powered(line.t)
    assert (values(line.run(4.0), "rain_total_mm")[0] or 0) < 300_000


@pytest.mark.parametrize("normally_closed", [False, True])
def test_a_closed_contact_is_given_once_it_has_held(normally_closed: bool) -> None:
    options = {"normally_closed": normally_closed, "input": 3, "address": 9}
    bounce = [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    source = Readings({"contact": [(n * NS, v * MICRO) for n, v in enumerate(bounce)]})
    found = Line(ModbusContact(options), ModbusContactSimulator(options, source)).run(9.0)
    given = [(i.time_ns / NS, i.micro) for i in found if isinstance(i, Reading)]
    assert [value for _, value in given] == [0, MICRO, 0]
    assert 3.4 <= given[1][0] <= 3.9


def test_a_bounce_shorter_than_the_debounce_is_none() -> None:
    rows = [(0, 0), (3 * NS, MICRO), (3 * NS + 300_000_000, 0)]
    device = ModbusContactSimulator(None, Readings({"contact": rows}))
    assert values(Line(ModbusContact(), device).run(9.0), "contact") == [0]


def test_a_contact_that_does_not_change_is_repeated_and_a_dead_module_is_no_alarm() -> None:
    device = ModbusContactSimulator({"normally_closed": True}, series("contact", 0.0))
    line = Line(ModbusContact({"normally_closed": True}), device)
    assert values(line.run(35.0), "contact") == [0, 0, 0, 0]
    line.device = ModbusContactSimulator({"address": 2}, series("contact", 0.0))
    found = line.run(60.0)
    assert values(found, "contact") == []
    assert set(kinds(found)) == {"no_answer"}


def test_an_input_that_the_module_does_not_have_is_refused() -> None:
    line = Line(ModbusContact({"input": 12}), ModbusContactSimulator(None, series("contact", 0.0)))
    assert set(kinds(line.run(1.0))) == {"refused"}


def test_the_simulated_radar_gives_the_levels_of_a_recording() -> None:
    options = {"height_m": 514.0, "interval_s": 1}
    source = series("water_level_m", *[511.0] * 5, *[512.25] * 5, None)
    made = drivers.load("dfrobot_sen0676")
    found = Line(made(options), made.simulator(options, source)).run(20.0)
    levels = values(found, "water_level_m")
    assert (levels[0], levels[-1]) == (511_000_000, None)
    assert 512_250_000 in levels
    assert set(kinds(found)) == {"no_target"}


# --- several on one pair ------------------------------------------------------------------------


class Pair:
    """Several devices on one pair of wires: each hears all, as does the host."""

    def __init__(self, *devices: Simulator) -> None:
        self.devices = devices

    def powered(self, t: int) -> None:
        for device in self.devices:
            device.powered(t)

    def feed(self, data: bytes, t: int) -> None:
        for device in self.devices:
            device.feed(data, t)

    def tick(self, t: int) -> None:
        for device in self.devices:
            device.tick(t)

    def next_deadline(self) -> int | None:
        return min((d for x in self.devices if (d := x.next_deadline()) is not None), default=None)

    def to_send(self) -> bytes:
        return b"".join(device.to_send() for device in self.devices)


class Named:
    """A bus as a driver, so that :class:`Line` can drive it."""

    def __init__(self, bus: ModbusBus) -> None:
        self.bus = bus
        self.by_name: list[tuple[str, Any]] = []

    def opened(self, t: int) -> None:
        self.bus.opened(t)

    def feed(self, data: bytes, t: int) -> list[Any]:
        return self._told(self.bus.feed(data, t))

    def tick(self, t: int) -> list[Any]:
        return self._told(self.bus.tick(t))

    def _told(self, found: list[tuple[str, Any]]) -> list[Any]:
        self.by_name += found
        return [item for _, item in found]

    def next_deadline(self) -> int | None:
        return self.bus.next_deadline()

    def to_send(self) -> bytes:
        return self.bus.to_send()


def test_units_of_several_makes_take_turns_on_one_pair() -> None:
    fire, rain = {"address": 1}, {"address": 2}
    pair = Pair(
        ModbusContactSimulator(fire, series("contact", 0, 0, 0, 0, 0, 1)),
        ModbusRainSimulator(rain, series("rain_total_mm", *range(60))),
    )
    bus = ModbusBus([ModbusContact(fire, "fire"), ModbusRain(rain, "rain")])
    named = Named(bus)
    found = Line(named, pair).run(30.0)  # type: ignore[arg-type]  # all of a driver but its class
    assert kinds(found) == []
    assert {i.quantity for name, i in named.by_name if name == "rain"} == {"rain_total_mm"}
    assert len(values(found, "rain_total_mm")) == 15
    assert values(found, "contact")[:2] == [0, MICRO]


def test_a_dead_unit_does_not_keep_the_others_from_the_line() -> None:
    fire = {"address": 1}
    bus = ModbusBus([ModbusContact(fire, "fire"), ModbusRain({"address": 2}, "rain")])
    named = Named(bus)
    device = ModbusContactSimulator(fire, series("contact", *[0] * 5, 1))
    Line(named, Pair(device)).run(30.0)  # type: ignore[arg-type]  # all of a driver but its class
    given = [(i.time_ns / NS, i.micro) for name, i in named.by_name if isinstance(i, Reading)]
    assert given[1][1] == MICRO
    assert given[1][0] <= 6.3
    assert {name for name, i in named.by_name if not isinstance(i, Reading)} == {"rain"}


@pytest.mark.parametrize(
    ("driver", "table", "message"),
    [
        ("modbus_rain", {"address": 0}, "address: saw 0; allowed is 1 to 255"),
        ("modbus_rain", {"words": 3}, "words: saw 3; allowed is 1, 2"),
        ("modbus_rain", {"registers": "coil"}, "registers: saw 'coil'; allowed is holding, input"),
        ("modbus_contact", {"input": 0}, "input: saw 0; allowed is 1 to 2000"),
        ("modbus_contact", {"poll_s": 0.01}, "poll_s: saw 0.01; allowed is 0.1 to 3600 s"),
        ("dfrobot_sen0676", {"range_m": 0}, "range_m: saw 0; allowed is 1 to 40 m"),
        ("dfrobot_sen0676", {"timeout_s": 9}, "timeout_s: saw 9.0; allowed is 0.05 to 5 s"),
    ],
)
def test_wrong_options_are_refused_by_name(
    driver: str, table: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        drivers.load(driver)(table)
