"""Sirens by hand: asked before, marked Test, and silenced with or without a core."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running_core import CONFIGURATION, Station, applied, gateway, running


@pytest.fixture(scope="module")
def core() -> Iterator[Station]:
    with running() as station:
        yield station


@pytest.fixture
def station(core: Station) -> Station:
    """Silent and armed, whatever ran before."""
    assert siren(core, "off").exit_code == 0
    assert gateway("arm", "--run", str(core.run)).exit_code == 0
    return core


@pytest.fixture
def stopped() -> Iterator[Station]:
    with applied() as station:
        yield station


def siren(station: Station, *arguments: str, **keywords: Any) -> Any:
    places = ["--run", str(station.run), "--state", str(station.state)]
    return gateway("siren", *arguments, *places, **keywords)


def now(station: Station) -> dict[str, Any]:
    found: dict[str, Any] = station.status()["sirens"]["main"]
    return found


def test_a_pattern_sounds_when_confirmed_and_ends_by_off(station: Station) -> None:
    done = siren(station, "on", "disaster", input="y\n")
    assert done.exit_code == 0, done.output
    assert "sound disaster (120 s) on main, marked Test?" in done.stdout
    assert now(station)["pattern"] == "disaster"
    done = siren(station, "off")
    assert done.stdout == "the core was told: every siren off\n"
    found = now(station)
    assert (found["on"], found["alert"], found["pattern"]) == (False, None, None)


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_nothing_sounds_unless_confirmed(station: Station, answer: str) -> None:
    done = siren(station, "on", "disaster", input=answer)
    assert done.exit_code == 1
    assert "nothing was sounded" in done.stderr
    assert now(station)["pattern"] is None


def test_what_sounded_by_hand_is_in_the_journal_as_a_test(station: Station) -> None:
    siren(station, "on", "all-clear", "--siren", "main", "--yes")
    name = now(station)["alert"]
    siren(station, "off", "--siren", "main")
    give_up = time.monotonic() + 30  # the journal's own process writes when it comes to it
    while True:
        done = gateway("explain", name, "--state", str(station.state), "--json")
        if done.exit_code == 0 and len(found := json.loads(done.stdout)["sirens"]) == 2:
            break
        assert time.monotonic() < give_up, done.output
    on, off = found
    assert (on["action"], on["pattern"], on["status"]) == ("on", "all-clear", "Test")
    assert (off["action"], off["reason"][:7]) == ("off", "by uid ")


def test_a_test_is_a_chirp_and_needs_no_confirmation(station: Station) -> None:
    done = siren(station, "test")
    assert done.exit_code == 0
    first, second = done.stdout.splitlines()
    assert first.startswith("main: silent self-test passed: silent, read back after 0.")
    assert second.startswith("chirp on main")


@pytest.mark.parametrize("pattern", ["air-raid-warning", "air-raid-attack"])
def test_air_raid_signals_are_never_sounded_by_hand(station: Station, pattern: str) -> None:
    done = siren(station, "on", pattern, "--yes")
    assert done.exit_code == 1
    assert "never sounded by hand" in done.stderr
    assert now(station)["pattern"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["on", "yodel", "--yes"], "no pattern 'yodel'; there are disaster"),
        (["on", "chirp", "--siren", "roof", "--yes"], "no siren 'roof'; there are main"),
        (["test", "roof"], "no siren 'roof'; there are main"),
        (["off", "--all", "--siren", "main"], "leave out --siren"),
    ],
)
def test_wrong_use_says_what_there_is(station: Station, arguments: list[str], said: str) -> None:
    done = siren(station, *arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_disarmed_siren_is_not_said_to_sound(station: Station) -> None:
    gateway("disarm", "--for", "1h", "--run", str(station.run))
    done = siren(station, "test")
    assert done.exit_code == 1
    assert "the sirens are disarmed, nothing would be heard" in done.stderr


def test_a_busy_siren_is_left_to_what_it_does(station: Station) -> None:
    siren(station, "on", "all-clear", "--yes")
    done = siren(station, "on", "disaster", "--yes")
    assert done.exit_code == 1
    assert "main is busy with cn-demo-001-control-" in done.stderr
    assert now(station)["pattern"] == "all-clear"


def test_off_all_tells_the_core_and_reads_each_siren_back(station: Station) -> None:
    siren(station, "on", "all-clear", "--yes")
    done = siren(station, "off", "--all")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == ["the core was told: every siren off", "main: silent"]
    assert now(station)["pattern"] is None


@pytest.mark.parametrize("arguments", [["off", "--all"], ["off"]])
def test_off_needs_no_core(stopped: Station, arguments: list[str]) -> None:
    done = siren(stopped, *arguments)
    assert done.exit_code == 0
    assert done.stdout == "main: silent\n"
    assert "silencing without it" in done.stderr


def test_a_technician_who_may_not_read_the_state_can_silence(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != station.state)
    assert siren(station, "off").stdout == "the core was told: every siren off\n"
    listed = siren(station, "list")
    assert listed.exit_code == 1
    assert listed.stderr == f"gateway: {station.state}: permission denied; be root\n"


def test_one_siren_alone_needs_the_core(stopped: Station) -> None:
    done = siren(stopped, "off", "--siren", "main")
    assert done.exit_code == 1
    assert "gateway siren off --all silences every siren without the core" in done.stderr


def test_off_is_not_claimed_where_no_siren_is_known(tmp_path: Path) -> None:
    done = siren(Station(tmp_path), "off", "--all")
    assert done.exit_code == 1
    assert "no siren is configured" in done.stderr


def test_a_siren_that_can_not_be_silenced_is_a_fault() -> None:
    configuration = CONFIGURATION.replace("virtual-siren", "lcus-usb-relay")
    with applied(configuration + 'port = "/dev/not-there"\n') as station:
        done = siren(station, "off", "--all")
    assert done.exit_code == 1
    assert "main: not confirmed silent" in done.stdout
    assert "/dev/not-there is not there" in done.stdout


def test_the_list_says_what_each_does(station: Station) -> None:
    siren(station, "on", "all-clear", "--yes")
    done = siren(station, "list", "--json")
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row["name"] == "main"
    assert row["now"].startswith("sounds all-clear for cn-demo-001-control-")
    assert "air-raid-attack (180 s, by authorised plans only)" in siren(station, "list").stdout


def test_the_list_needs_no_core(stopped: Station) -> None:
    done = siren(stopped, "list", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["now"] == "unknown"
