"""The virtual siren states at once what it was told."""

import pytest

from gateway import siren as sirens
from gateway.events import NS, SirenState
from gateway.siren.virtual import Virtual


def test_it_is_known_silent_from_the_start() -> None:
    driver = Virtual({}, {"a": {}, "b": {}})
    assert isinstance(driver, sirens.SirenDriver)
    assert driver.next_deadline() == 0
    assert driver.tick(0) == [SirenState("a", on=False), SirenState("b", on=False)]
    assert driver.next_deadline() is None


def test_it_sounds_until_its_end_and_says_so_at_once() -> None:
    driver = Virtual({}, {"a": {}})
    driver.tick(0)
    driver.sound("a", 5 * NS, NS)
    assert driver.next_deadline() == NS
    assert driver.tick(NS) == [SirenState("a", on=True)]
    assert driver.next_deadline() == 5 * NS
    assert driver.tick(5 * NS) == [SirenState("a", on=False)]
    assert driver.next_deadline() is None
    assert driver.to_send() == driver.off_frames() == b""


def test_silence_ends_it_and_repeating_a_command_changes_nothing() -> None:
    driver = Virtual({}, {"a": {}})
    driver.tick(0)
    driver.sound("a", 5 * NS, NS)
    driver.sound("a", 6 * NS, 2 * NS)
    driver.silence("a", 3 * NS)
    driver.silence("a", 3 * NS)
    assert driver.tick(3 * NS) == [SirenState("a", on=True), SirenState("a", on=False)]
    driver.sound("a", 3 * NS, 3 * NS)
    assert driver.tick(9 * NS) == []


def test_it_has_no_options() -> None:
    with pytest.raises(ValueError, match="pulse_s: no such option"):
        Virtual({"pulse_s": 1.0})
