"""GPIO sirens: lines are taken silent, set at once, read back, and asked for again when lost."""

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gateway import siren as sirens
from gateway.events import NS, Diagnostic, SirenState
from gateway.siren import gpio
from gateway.siren.gpio import Gpio

TWO: dict[str, dict[str, object]] = {"main": {"line": 17}, "yard": {"line": 27, "active_low": True}}


class Chip:
    """A chip of which tests see what is set; ``stuck`` lines keep their value."""

    def __init__(self) -> None:
        self.active: dict[int, bool] = {}
        self.active_low: dict[int, bool] = {}
        self.takings = 0
        self.stuck: set[int] = set()
        self.fault: Exception | None = None

    def take(self, chip: str, active_low: Mapping[int, bool]) -> "Chip":
        assert chip == "/dev/gpiochip0"
        self.takings += 1
        self._fail()
        self.active_low = dict(active_low)
        self.active = dict.fromkeys(active_low, False)
        return self

    def set(self, offset: int, active: bool) -> None:
        self._fail()
        if offset not in self.stuck:
            self.active[offset] = active

    def get(self, offset: int) -> bool:
        self._fail()
        return self.active[offset]

    def _fail(self) -> None:
        if self.fault:
            raise self.fault


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Chip:
    made = Chip()
    monkeypatch.setattr(Gpio, "take", made.take)
    return made


def driver_on(chip: Chip) -> Gpio:
    driver = Gpio({}, TWO)
    assert chip.takings == 0
    driver.opened(0)
    assert driver.next_deadline() == 0
    assert driver.tick(0) == [SirenState("main", on=False), SirenState("yard", on=False)]
    return driver


def test_lines_are_taken_silent_and_with_their_polarity(chip: Chip) -> None:
    driver_on(chip)
    assert chip.active == {17: False, 27: False}
    assert chip.active_low == {17: False, 27: True}


def test_a_siren_sounds_in_the_call_itself_and_ends_in_time(chip: Chip) -> None:
    driver = driver_on(chip)
    driver.sound("main", 5 * NS, NS)
    assert chip.active == {17: True, 27: False}
    assert driver.tick(NS) == [SirenState("main", on=True)]
    assert driver.next_deadline() == 5 * NS
    assert driver.tick(5 * NS) == [SirenState("main", on=False)]
    assert chip.active == {17: False, 27: False}


def test_silence_is_immediate_and_a_stretch_that_is_over_is_silence(chip: Chip) -> None:
    driver = driver_on(chip)
    driver.sound("yard", 5 * NS, NS)
    driver.silence("yard", 2 * NS)
    assert chip.active[27] is False
    driver.sound("yard", 3 * NS, 3 * NS)
    assert chip.active[27] is False


def test_a_line_that_is_not_as_it_was_set_is_reported_once_and_set_again(chip: Chip) -> None:
    driver = driver_on(chip)
    chip.active[17] = True
    (mismatch,) = driver.tick(10 * NS)
    assert isinstance(mismatch, Diagnostic)
    assert mismatch.kind == "mismatch"
    assert chip.active[17] is False
    assert driver.tick(20 * NS) == []


def test_a_stuck_line_is_stated_as_it_is(chip: Chip) -> None:
    driver = driver_on(chip)
    chip.stuck = {17}
    driver.sound("main", 60 * NS, NS)
    said = driver.tick(NS)
    assert [item.kind for item in said if isinstance(item, Diagnostic)] == ["mismatch"]
    assert SirenState("main", on=True) not in said


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (OSError(errno.EBUSY, "busy"), "held by another program"),
        (OSError(errno.EACCES, "no"), "to the group gpio"),
        (OSError(errno.ENOENT, "no GPIO chip"), "no GPIO chip"),
        (ImportError("gpiod"), "with its extra gpio"),
        (ValueError("line 99"), "line 99"),
    ],
)
def test_lines_that_are_not_to_be_had_are_asked_for_every_two_seconds(
    chip: Chip, fault: Exception, says: str
) -> None:
    chip.fault = fault
    driver = Gpio({}, TWO)
    driver.opened(0)
    (told,) = driver.tick(0)
    assert isinstance(told, Diagnostic)
    assert says in told.detail
    driver.sound("main", 60 * NS, NS)
    assert driver.next_deadline() == 2 * NS
    assert driver.tick(2 * NS) == []
    chip.fault = None
    assert SirenState("main", on=True) in driver.tick(4 * NS)
    assert chip.active == {17: True, 27: False}


def test_lines_lost_while_held_leave_the_state_unknown(chip: Chip) -> None:
    driver = driver_on(chip)
    chip.fault = OSError(errno.ENODEV, "gone")
    said = driver.tick(10 * NS)
    assert said[:2] == [SirenState("main", None), SirenState("yard", None)]
    assert len(said) == 3


@pytest.mark.parametrize(
    ("options", "units", "says"),
    [
        ({"poll_s": 0}, {}, "poll_s: saw 0"),
        ({}, {"main": {"line": -1}}, "main.line: saw -1"),
        ({}, {"main": {"line": 5}, "yard": {"line": 5}}, "yard.line: saw 5; each siren needs"),
        ({}, {"main": {"pin": 5}}, "main.pin: no such option"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, object], units: dict[str, dict[str, object]], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Gpio(options, units)


def test_the_driver_is_found_by_name_and_idles_without_sirens() -> None:
    driver = sirens.load("gpio")()
    assert isinstance(driver, sirens.SirenDriver)
    driver.opened(0)
    assert driver.next_deadline() is None
    assert driver.to_send() == driver.off_frames() == b""


def test_a_chip_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    pytest.importorskip("gpiod")
    assert gpio.find_chip("/dev/gpiochip4") == "/dev/gpiochip4"
    with pytest.raises(OSError, match="no GPIO chip 'pinctrl-rp1'; there are none"):
        gpio.find_chip("pinctrl-rp1", tmp_path)


def test_without_a_chip_the_real_binding_is_a_stated_fault() -> None:
    pytest.importorskip("gpiod")
    driver = Gpio({"chip": "/dev/null"}, TWO)
    driver.opened(0)
    (told,) = driver.tick(0)
    assert isinstance(told, Diagnostic)
    assert told.detail.startswith("/dev/null: ")


SIMULATED = Path("/sys/kernel/config/gpio-sim")


@pytest.fixture
def kernel_chip() -> Iterator[tuple[str, Path]]:
    """A chip of eight lines that the kernel simulates: its path, and where its lines are read.

    Layout: the kernel's documentation of gpio-sim (admin-guide/gpio/gpio-sim.rst).
    """
    if not SIMULATED.is_dir():
        pytest.skip("this kernel has no gpio-sim: the driver is tested against the documented API")
    device = SIMULATED / f"gateway-{os.getpid()}"
    bank = device / "bank0"
    try:
        bank.mkdir(parents=True)
        (bank / "num_lines").write_text("8")
        (device / "live").write_text("1")
    except OSError as error:
        pytest.skip(f"gpio-sim can't be set up here: {error}")
    name = (bank / "chip_name").read_text().strip()
    place = Path("/sys/devices/platform") / (device / "dev_name").read_text().strip() / name
    try:
        yield f"/dev/{name}", place
    finally:
        (device / "live").write_text("0")
        bank.rmdir()
        device.rmdir()


def test_a_line_of_the_kernel_is_driven_and_read_back(kernel_chip: tuple[str, Path]) -> None:
    path, place = kernel_chip
    driver = Gpio({"chip": path}, {"main": {"line": 3}})
    value = place / "sim_gpio3" / "value"
    driver.opened(0)
    assert [s.on for s in driver.tick(0) if isinstance(s, SirenState)] == [False]
    driver.sound("main", 10 * NS, 0)
    assert value.read_text().strip() == "1"
    assert [s.on for s in driver.tick(0) if isinstance(s, SirenState)] == [True]
    driver.tick(10 * NS)
    assert value.read_text().strip() == "0"
