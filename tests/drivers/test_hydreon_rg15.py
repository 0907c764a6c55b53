from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drivers.hydreon_rg15 import HydreonRg15, HydreonRg15Simulator
from gateway.events import NS, Diagnostic, Reading
from tests.drivers.line import Line, Ramp, kinds, merged, values

CAPTURED = b"Acc  0.04 mm, EventAcc  1.63 mm, TotalAcc  6.51 mm, RInt 99.81 mmph\r\n"
IMPERIAL = b"Acc 0.000 in, EventAcc 0.010 in, TotalAcc 0.257 in, RInt 3.929 iph\r\n"


def asked(options: dict[str, Any] | None = None) -> HydreonRg15:
    """A driver that has just sent a request."""
    driver = HydreonRg15(options, "rain1")
    driver.opened(0)
    driver.to_send()
    driver.tick(0)
    assert driver.to_send() == b"R\n"
    return driver


def test_a_line_from_a_real_gauge_is_read_exactly() -> None:
    assert asked().feed(CAPTURED, 5) == [
        Reading("rain1", 5, "rain_total_mm", 6_510_000),
        Reading("rain1", 5, "rain_mmph", 99_810_000),
    ]


def test_inches_are_converted_exactly() -> None:
    found = asked().feed(IMPERIAL, 5)
    assert values(found, "rain_total_mm") == [6_527_800]
    assert values(found, "rain_mmph") == [99_796_600]


def test_the_gauge_is_set_at_opening() -> None:
    driver = HydreonRg15({"unit": "in"})
    driver.opened(0)
    assert driver.to_send() == b"P\nH\nI\n"
    assert driver.next_deadline() == 0


@pytest.mark.parametrize("width", range(1, len(CAPTURED)))
def test_readings_do_not_depend_on_how_reads_are_cut(width: int) -> None:
    driver = asked()
    found: list[Any] = []
    for at in range(0, len(CAPTURED), width):
        found += driver.feed(CAPTURED[at : at + width], 5)
    assert values(found, "rain_total_mm") == [6_510_000]
    assert kinds(found) == []


def test_only_the_answer_to_a_request_counts() -> None:
    driver = asked()
    found = driver.feed(CAPTURED + CAPTURED, 5)
    assert len(values(found, "rain_total_mm")) == 1
    assert kinds(found) == ["unsolicited"]
    assert driver.to_send() == b"P\n"


def test_an_answer_after_its_time_is_refused() -> None:
    driver = asked()
    assert kinds(driver.tick(NS)) == ["no_answer"]
    assert kinds(driver.feed(CAPTURED, NS + 1)) == ["unsolicited"]


def test_a_request_that_was_never_taken_for_sending_gets_no_answer() -> None:
    driver = HydreonRg15()
    driver.opened(0)
    driver.tick(0)
    assert kinds(driver.feed(CAPTURED, 1)) == ["unsolicited"]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(CAPTURED[1:], id="beginning lost"),
        pytest.param(CAPTURED.replace(b"mmph", b"mmp"), id="end lost"),
        pytest.param(CAPTURED.replace(b"6.51 mm", b"6.51 in"), id="units mixed"),
        pytest.param(CAPTURED.replace(b"99.81 mmph", b"99.81 iph"), id="rate of another unit"),
        pytest.param(CAPTURED.replace(b"6.51", b"6,51"), id="decimal comma"),
        pytest.param(CAPTURED.replace(b"6.51", b"-6.51"), id="negative"),
        pytest.param(CAPTURED.replace(b"6.51", b"6.5123456"), id="finer than a millionth"),
        pytest.param(CAPTURED.replace(b"TotalAcc", b"TotolAcc"), id="misspelt"),
    ],
)
def test_a_line_that_is_not_whole_is_no_reading(line: bytes) -> None:
    found = asked().feed(line, 5)
    assert [(i.kind, i.count) for i in found if isinstance(i, Diagnostic)] == [
        ("garbage", len(line))
    ]


def test_complaints_behind_the_data_are_said_and_the_reading_stands() -> None:
    found = asked().feed(CAPTURED.replace(b"mmph", b"mmph, LensBad, EmSat"), 5)
    assert values(found, "rain_total_mm") == [6_510_000]
    assert kinds(found) == ["lens_bad", "emitter_saturated"]


@pytest.mark.parametrize(("letter", "cause"), [(b"N", "power-up"), (b"B", "brown-out")])
def test_a_restart_is_said_with_its_cause_and_the_gauge_set_again(
    letter: bytes, cause: str
) -> None:
    driver = asked()
    banner = b";***\r\n; HYDREON MODEL RG-15 RAIN GAUGE\r\nReset " + letter
    banner += b"\r\nSW 1.000 2020.07.06\r\nEmitters 9 10, EmTotal 19\r\nPwrDays 13\r\n"
    (found,) = driver.feed(banner, 5)
    assert isinstance(found, Diagnostic)
    assert (found.kind, found.detail) == ("reboot", cause)
    assert driver.to_send() == b"P\nH\nM\n"


@given(st.lists(st.one_of(st.binary(max_size=200), st.just(CAPTURED)), max_size=12))
def test_any_bytes_are_taken_whatever_the_cut(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    whole, cut = asked(), asked()
    found: list[Any] = []
    for byte in stream.replace(b"\n", b"\r\n"):
        found += cut.feed(bytes((byte,)), 1)
    expected = whole.feed(stream.replace(b"\n", b"\r\n"), 1)
    if max(map(len, stream.split(b"\n"))) < 150:
        assert merged(found) == merged(expected)


@pytest.mark.parametrize("unit", ["mm", "in"])
def test_rain_of_a_simulated_gauge_is_read_to_its_resolution(unit: str) -> None:
    line = Line(HydreonRg15({"unit": unit}), HydreonRg15Simulator(None, Ramp()))
    found = line.run(600.0)
    totals = [v for v in values(found, "rain_total_mm") if v is not None]
    assert len(totals) == 300
    assert totals == sorted(totals)
    assert 5_940_000 < totals[-1] <= 6_000_000
    assert kinds(found) == ["reboot"]
    assert values(found, "rain_mmph")[-1] == pytest.approx(36e6, rel=0.01)


def test_a_brown_out_begins_the_counter_again_and_polling_goes_on() -> None:
    line = Line(HydreonRg15(), HydreonRg15Simulator(None, Ramp()))
    line.run(60.0)
    line.device.powered(line.t)
    found = line.run(60.0)
    totals = values(found, "rain_total_mm")
    assert len(totals) == 30
    assert (totals[0] or 0) < 50_000
    assert kinds(found) == ["reboot"]


def test_a_gauge_in_continuous_mode_is_told_to_wait_until_asked() -> None:
    device = HydreonRg15Simulator(None, Ramp())
    line = Line(HydreonRg15(), device)
    line.run(10.0)
    device.feed(b"C\n", line.t)
    found = line.run(20.0)
    assert kinds(found).count("unsolicited") <= 2
    assert len(values(found, "rain_total_mm")) == 10


def test_a_dead_gauge_is_asked_on_and_said_to_be_silent() -> None:
    driver = HydreonRg15()
    driver.opened(0)
    found: list[Any] = []
    sent = b""
    t = 0
    while t < 20 * NS:
        found += driver.tick(t)
        sent += driver.to_send()
        t = driver.next_deadline() or 0
    assert sent.count(b"R\n") == 10
    assert kinds(found) == ["no_answer"] * 10


def test_the_simulated_banner_and_answers_are_those_of_the_device() -> None:
    device = HydreonRg15Simulator(None, Ramp())
    device.powered(0)
    assert device.to_send().splitlines()[1:] == [
        b"; HYDREON MODEL RG-15 RAIN GAUGE",
        b"Reset N",
        b"SW 1.000 2020.07.06",
        b"Emitters 9 10, EmTotal 19",
        b"PwrDays 13",
    ]
    device.feed(b"p\nh\nm\nr\n", 0)
    assert device.to_send() == (
        b"p\r\nh\r\nm\r\nAcc  0.00 mm, EventAcc  0.00 mm, TotalAcc  0.00 mm, RInt  0.00 mmph\r\n"
    )
    device.lens_bad = True
    device.feed(b"I\nO\nR\nA\n", 60 * NS)
    assert device.to_send() == (
        b"i\r\n"
        b"Acc 0.023 in, EventAcc 0.023 in, TotalAcc 0.000 in, RInt 1.417 iph, LensBad\r\n"
        b"Acc 0.000 in, LensBad\r\n"
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"poll_s": 1}, "poll_s: saw 1.0; allowed is 2 to 60 s"),
        ({"unit": "cm"}, "unit: saw 'cm'; allowed is mm, in"),
        ({"poll_s": True}, "poll_s: saw True; expected float"),
    ],
)
def test_wrong_options_are_refused_by_name(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HydreonRg15(table)
