"""Gauges that speak by themselves: what holds for each of them, and each one's own frames."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import drivers
from gateway.drill.sources import Readings
from gateway.drivers import Driver, Source, dfrobot_a02yyuw, gill_windsonic
from gateway.drivers import nova_sds011 as sds011
from gateway.drivers import plantower_pms5003 as pms5003
from gateway.drivers.dfrobot_a02yyuw import DfrobotA02yyuw
from gateway.drivers.gill_windsonic import GillWindSonic, GillWindSonicSimulator
from gateway.drivers.maxbotix_hrxl import MaxbotixHrxl
from gateway.drivers.nova_sds011 import NovaSds011, NovaSds011Simulator
from gateway.drivers.plantower_pms5003 import PlantowerPms5003, PlantowerPms5003Simulator
from gateway.events import MICRO, NS, Diagnostic, Reading
from tests.drivers.line import Line, kinds, merged, values

WIND = b"\x02Q,229,002.74,M,00,\x0316\r\n"
PMS = bytes.fromhex(
    "42 4D 00 1C 00 04 00 05 00 05 00 04 00 05 00 0300 7E 00 E2 00 17 00 02 00 00 00 00 97 00 02 D5"
)
SDS = bytes.fromhex("AA C0 7B 00 C8 01 A1 60 45 AB")
A02 = bytes.fromhex("FF 07 A1 A7")


def series(quantity: str, *values: float | None) -> Readings:
    """One value each second."""
    rows = [(n * NS, None if v is None else round(v * MICRO)) for n, v in enumerate(values)]
    return Readings({quantity: rows})


@dataclass(frozen=True)
class Gauge:
    """A driver, how it is made so that each frame is a reading, and frames with their values."""

    driver: str
    quantity: str
    options: dict[str, Any]
    frames: tuple[bytes, ...]
    every_s: float = 1.0

    def made(self) -> Driver:
        driver: Driver = drivers.load(self.driver)(self.options, "g")
        driver.opened(0)
        return driver

    def read(self, pieces: Iterable[bytes], driver: Driver | None = None) -> list[Any]:
        """What comes of pieces that arrive one each ``every_s``, past any warm-up."""
        driver = driver or self.made()
        found: list[Any] = []
        for n, piece in enumerate(pieces, 100):
            found += driver.feed(piece, round(n * self.every_s * NS))
        return found


GAUGES = [
    Gauge(
        "gill_windsonic",
        "wind_mps",
        {},
        tuple(gill_windsonic.polar("Q", 30 * n, n * 1_370_000) for n in range(8)),
    ),
    Gauge("plantower_pms5003", "pm25_ugm3", {"interval_s": 1}, tuple(map(pms5003.frame, range(8)))),
    Gauge(
        "nova_sds011",
        "pm25_ugm3",
        {"interval_s": 1},
        tuple(
            sds011.frame(sds011.REPORT, bytes((n, 0, n, 0, 0xA1, 0x60))) for n in (0x7B, 0xAA, 9)
        ),
    ),
    Gauge(
        "maxbotix_hrxl", "water_level_m", {"interval_s": 1}, (b"R1234\r", b"R0999\r", b"R4999\r")
    ),
    Gauge(
        "dfrobot_a02yyuw",
        "water_level_m",
        {"interval_s": 1},
        tuple(map(dfrobot_a02yyuw.frame, (1953, 300, 2047, 4000))),
    ),
]
EACH = pytest.mark.parametrize("gauge", GAUGES, ids=lambda gauge: gauge.driver)


@EACH
def test_readings_do_not_depend_on_how_reads_are_cut(gauge: Gauge) -> None:
    stream = b"".join(gauge.frames * 3)
    whole = gauge.made().feed(stream, 50 * NS)
    assert gauge.driver == "gill_windsonic" or not values(whole, gauge.quantity)
    for width in range(1, len(stream)):
        driver = gauge.made()
        found: list[Any] = []
        for at in range(0, len(stream), width):
            found += driver.feed(stream[at : at + width], 50 * NS)
        assert merged(found) == merged(whole)


@EACH
@given(st.data())
def test_any_bytes_are_taken_whatever_the_cut(gauge: Gauge, data: st.DataObject) -> None:
    pieces = data.draw(
        st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(gauge.frames)), max_size=12)
    )
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    whole, cut = gauge.made(), gauge.made()
    found: list[Any] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += cut.feed(stream[begin:end], 1)
    assert merged(found) == merged(whole.feed(stream, 1))


@EACH
@given(st.data())
def test_damage_costs_at_most_one_undamaged_frame(gauge: Gauge, data: st.DataObject) -> None:
    count = len(gauge.frames)
    stream = [gauge.frames[n % count] for n in range(12)]
    hit = data.draw(st.integers(3, 8))
    damage = data.draw(
        st.one_of(
            st.binary(max_size=100),
            st.integers(1, len(stream[hit]) - 1).map(lambda n: stream[hit][:n]),
            st.integers(1, len(stream[hit]) - 1).map(lambda n: stream[hit][n:]),
        )
    )
    damaged = [*stream[:hit], damage, *stream[hit + 1 :]]
    clean = len(values(gauge.read(stream), gauge.quantity))
    assert clean == (12 if gauge.driver == "gill_windsonic" else 11)
    assert len(values(gauge.read(damaged), gauge.quantity)) >= clean - 2


@EACH
@pytest.mark.parametrize("bit", range(8))
def test_a_frame_with_a_wrong_bit_is_never_taken_for_another_value(gauge: Gauge, bit: int) -> None:
    if gauge.driver == "maxbotix_hrxl":
        pytest.skip("the device sends no checksum; the median of the interval outvotes one line")
    frame = gauge.frames[1]
    for place in range(len(frame)):
        damaged = bytearray(frame)
        damaged[place] ^= 1 << bit
        driver = gauge.made()
        found = driver.feed(bytes(damaged), 50 * NS) + driver.feed(bytes(damaged), 60 * NS)
        taken = [item for item in found if isinstance(item, Reading)]
        assert taken == [], (place, damaged)


@EACH
def test_opening_voids_what_was_half_read(gauge: Gauge) -> None:
    driver = gauge.made()
    driver.feed(gauge.frames[0][:-1], 1)
    driver.opened(2)
    assert not [i for i in driver.feed(gauge.frames[0][-1:], 3) if isinstance(i, Reading)]


# --- wind ---------------------------------------------------------------------------------------


def test_the_manual_s_line_of_the_anemometer_is_read_exactly() -> None:
    assert GillWindSonic(None, "w").feed(WIND, 5) == [Reading("w", 5, "wind_mps", 2_740_000)]
    assert gill_windsonic.polar("Q", 229, 2_740_000) == WIND


def line(body: bytes, begin: bytes = b"\x02", end: bytes = b"\x03") -> bytes:
    check = 0
    for byte in body:
        check ^= byte
    return begin + body + end + b"%02X\r\n" % check


@pytest.mark.parametrize(
    ("unit", "micro"),
    [(b"M", 10_000_000), (b"N", 5_144_444), (b"P", 4_470_400), (b"K", 2_777_777), (b"F", 50_800)],
)
def test_speeds_are_converted_exactly_and_rounded_down(unit: bytes, micro: int) -> None:
    for text in (
        line(b"Q,229,010.00,%s,00," % unit),
        line(b"WIMWV,229,R,010.00,%s,A" % unit, b"$", b"*"),
        line(b"IIMWV,229,R,010.00,%s,60" % unit, b"$", b"*"),
    ):
        assert values(GillWindSonic().feed(text, 1), "wind_mps") == [micro]


@pytest.mark.parametrize(
    ("body", "micro", "kind"),
    [
        pytest.param(b"Q,,000.04,M,00,", [40_000], [], id="calm has no direction"),
        pytest.param(b"Q,229,002.74,M,04,", [None], ["invalid"], id="measurement failed"),
        pytest.param(b"Q,,,M,01,", [None], ["invalid"], id="no speed"),
        pytest.param(b"R,229,002.74,M,00,", [], ["unsolicited"], id="another node"),
        pytest.param(b"Q,229,002.74,X,00,", [], ["mismatch"], id="unknown unit"),
        pytest.param(b"Q,+000.12,-001.70,M,00,", [], ["mismatch"], id="UV"),
        pytest.param(b"Q,229,2.74e3,M,00,", [], ["mismatch"], id="no number"),
    ],
)
def test_what_a_line_says_besides_a_speed(
    body: bytes, micro: list[int | None], kind: list[str]
) -> None:
    found = GillWindSonic().feed(line(body), 1)
    assert values(found, "wind_mps") == micro
    assert kinds(found) == kind


def test_the_simulated_anemometer_gives_each_second_of_a_recording() -> None:
    gust = [3.0, 12.5, 41.55, None, 7.25]
    device = GillWindSonicSimulator(None, series("wind_mps", *gust))
    found = Line(GillWindSonic(), device).run(5.5)
    assert values(found, "wind_mps") == [12_500_000, 41_550_000, None, 7_250_000, 7_250_000]


# --- particles ----------------------------------------------------------------------------------


def test_the_sheets_frames_of_the_particle_sensors_are_read_exactly() -> None:
    plantower = Gauge("plantower_pms5003", "pm25_ugm3", {"interval_s": 1}, (PMS,))
    nova = Gauge("nova_sds011", "pm25_ugm3", {"interval_s": 1}, (SDS,))
    assert values(plantower.read([PMS] * 40), "pm25_ugm3")[-1] == 5_000_000
    assert values(nova.read([SDS] * 2), "pm25_ugm3") == [12_300_000]


def test_commands_are_those_of_the_makers() -> None:
    assert pms5003.seal(bytes.fromhex("42 4D E4 00 01")) == pms5003.WAKE
    assert pms5003.seal(bytes.fromhex("42 4D E1 00 01")) == pms5003.ACTIVE
    sleep = bytes.fromhex("AA B4 06 01 00 00 00 00 00 00 00 00 00 00 00 FF FF 05 AB")
    assert sds011.command(6, 0) == sleep


def test_a_reading_is_the_mean_of_its_interval() -> None:
    gauge = Gauge("nova_sds011", "pm25_ugm3", {"interval_s": 4}, ())
    frames = [
        sds011.frame(sds011.REPORT, bytes((n, 0, 0, 0, 0, 0))) for n in (10, 20, 30, 40, 50, 60)
    ]
    assert values(gauge.read(frames), "pm25_ugm3") == [3_000_000]


def test_the_first_half_minute_after_a_silence_is_no_measurement() -> None:
    gauge = Gauge("plantower_pms5003", "pm25_ugm3", {"interval_s": 10}, ())
    driver = gauge.made()
    found: list[Any] = []
    for second in (*range(51), *range(100, 151)):
        found += driver.feed(PMS, second * NS)
    missing, there = [None] * 3, [5_000_000] * 2
    assert values(found, "pm25_ugm3") == [*missing, *there, None, *missing, *there]


def test_an_error_of_the_sensor_is_said_and_its_value_missing() -> None:
    gauge = Gauge("plantower_pms5003", "pm25_ugm3", {"interval_s": 1}, ())
    driver = gauge.made()
    driver.feed(PMS, 0)
    found = driver.feed(pms5003.frame(9, error=2), 60 * NS) + driver.feed(PMS, 62 * NS)
    assert "invalid" in kinds(found)


def test_a_sleeping_sensor_is_woken() -> None:
    device = PlantowerPms5003Simulator(None, series("pm25_ugm3", 35.0))
    line = Line(PlantowerPms5003({"interval_s": 5}), device)
    line.run(60.0)
    device.feed(pms5003.seal(bytes.fromhex("42 4D E4 00 00")), line.t)
    found = line.run(60.0)
    assert kinds(found) == ["no_answer"]
    assert values(found, "pm25_ugm3")[-1] == 35_000_000


def test_a_passive_sensor_is_told_to_speak_by_itself() -> None:
    device = PlantowerPms5003Simulator(None, series("pm25_ugm3", 35.0))
    line = Line(PlantowerPms5003({"interval_s": 5}), device)
    device.feed(pms5003.seal(bytes.fromhex("42 4D E1 00 00")), line.t)
    found = line.run(80.0)
    assert kinds(found) == ["no_answer"]
    assert values(found, "pm25_ugm3")[-1] == 35_000_000


def test_settings_are_sent_until_each_is_answered_alike() -> None:
    device = NovaSds011Simulator(None, series("pm25_ugm3", 12.3))
    device.settings.update({sds011.MODE: 1, sds011.WORK: 0})
    line = Line(NovaSds011({"period_min": 2}), device)
    found = line.run(250.0)
    assert device.settings == {sds011.MODE: 0, sds011.WORK: 1, sds011.PERIOD: 2}
    assert values(found, "pm25_ugm3")[-2:] == [12_300_000] * 2
    assert "mismatch" not in kinds(found)
    assert line.driver.next_deadline() is None


def test_a_sensor_that_answers_otherwise_is_a_mismatch() -> None:
    driver = NovaSds011()
    driver.opened(0)
    driver.tick(0)
    driver.to_send()
    answer = sds011.frame(sds011.ANSWER, bytes((sds011.PERIOD, 1, 7, 0, 0xA1, 0x60)))
    (found,) = driver.feed(answer, 1)
    assert isinstance(found, Diagnostic)
    assert (found.kind, found.detail) == ("mismatch", "command 8: 0 was sent, the sensor has 7")


# --- water level --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "frame", "level"),
    [
        pytest.param(MaxbotixHrxl, b"R1234\r", 8_766_000, id="maxbotix"),
        pytest.param(DfrobotA02yyuw, A02, 8_047_000, id="dfrobot"),
    ],
)
def test_the_level_is_the_sensor_s_height_less_the_distance(
    driver: Callable[..., Any], frame: bytes, level: int
) -> None:
    made = driver({"height_m": 10.0, "interval_s": 1}, "l")
    assert made.feed(frame, 0) + made.feed(frame, NS) == [Reading("l", NS, "water_level_m", level)]


def test_centimetres_are_read_where_the_sensor_is_of_that_class() -> None:
    driver = MaxbotixHrxl({"unit": "cm", "interval_s": 1})
    assert values(driver.feed(b"R123\r", 0) + driver.feed(b"R123\r", NS), "water_level_m") == [
        -1_230_000
    ]
    assert kinds(driver.feed(b"R1234\r", 2 * NS)) == ["mismatch"]


def test_a_bird_and_a_lost_echo_are_outvoted() -> None:
    driver = MaxbotixHrxl({"height_m": 5.0})
    found: list[Any] = []
    for n, millimetres in enumerate([2000, 2010, 400, 5000, 2005, 1990, 5000, 2000, 2000, 2000, 2]):
        found += driver.feed(b"R%04d\r" % millimetres, n * NS)
    assert values(found, "water_level_m") == [3_000_000]


@pytest.mark.parametrize(
    ("driver", "frame", "levels", "kind"),
    [
        pytest.param(MaxbotixHrxl, b"R5000\r", [None], "no_target", id="maxbotix, none"),
        pytest.param(MaxbotixHrxl, b"R0300\r", [4_700_000], "too_near", id="maxbotix, near"),
        pytest.param(DfrobotA02yyuw, b"\xff\xff\xfd\xfb", [None], "no_target", id="a02, none"),
        pytest.param(DfrobotA02yyuw, b"\xff\xff\xfe\xfc", [None], "interference", id="a02, noise"),
        pytest.param(
            DfrobotA02yyuw,
            dfrobot_a02yyuw.frame(20),
            [4_970_000],
            "too_near",
            id="a02, near",
        ),
        pytest.param(
            DfrobotA02yyuw, dfrobot_a02yyuw.frame(4500), [None], "no_target", id="a02, far"
        ),
    ],
)
def test_beyond_its_range_a_sensor_gives_a_bound_or_nothing(
    driver: Callable[..., Any], frame: bytes, levels: list[int | None], kind: str
) -> None:
    made = driver({"height_m": 5.0, "interval_s": 1})
    found = made.feed(frame, 0) + made.feed(frame, NS)
    assert values(found, "water_level_m") == levels
    assert set(kinds(found)) == {kind}


@pytest.mark.parametrize("name", ["maxbotix_hrxl", "dfrobot_a02yyuw"])
def test_a_simulated_gauge_gives_the_levels_of_a_recording(name: str) -> None:
    made = drivers.load(name)
    options = {"height_m": 514.0, "interval_s": 1}
    source: Source = series("water_level_m", *[511.0] * 5, *[512.25] * 5)
    found = Line(made(options), made.simulator(options, source)).run(9.5)
    levels = values(found, "water_level_m")
    assert (levels[0], levels[-1]) == (511_000_000, 512_250_000)
    assert not set(kinds(found)) - {"garbage"}


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "table", "message"),
    [
        (GillWindSonic, {"node": "q"}, "node: saw 'q'; allowed is A, B"),
        (GillWindSonic, {"rate_hz": 3}, "rate_hz: saw 3; allowed is 1, 2, 4"),
        (PlantowerPms5003, {"basis": "air"}, "basis: saw 'air'; allowed is cf1, atmosphere"),
        (NovaSds011, {"period_min": 31}, "period_min: saw 31; allowed is 0 to 30 min"),
        (MaxbotixHrxl, {"height_m": 9001}, "height_m: saw 9001.0; allowed is -500 to 9000 m"),
        (MaxbotixHrxl, {"unit": "in"}, "unit: saw 'in'; allowed is mm, cm"),
        (DfrobotA02yyuw, {"farthest_mm": 30}, "farthest_mm: saw 30; allowed is 31 to 100000 mm"),
    ],
)
def test_wrong_options_are_refused_by_name(
    driver: Callable[..., Any], table: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        driver(table)
