"""Arming from the command line: for a stated time, never for ever, and said back by the core."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.arm import duration_text
from gateway.cli.disarm import parse_duration
from tests.cli.running_core import Station, gateway, running


@pytest.fixture(scope="module")
def station() -> Iterator[Station]:
    with running() as station:
        yield station


@pytest.mark.parametrize(
    ("mode", "meaning"),
    [
        ("disarmed", "no siren sounds, alerts go to the hub as tests"),
        ("silent", "alerts go to the hub as ever, no siren sounds"),
        ("exercise", "everything is marked as an exercise, sirens: silent"),
    ],
)
def test_disarming_holds_for_the_stated_time_until_armed_again(
    station: Station, mode: str, meaning: str
) -> None:
    done = gateway("disarm", "--for", "2h", "--mode", mode, "--run", str(station.run))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{mode} for ")
    assert meaning in done.stdout
    arming = station.status()["arming"]
    assert arming["mode"] == mode
    assert arming["left_ns"] == pytest.approx(7200e9, abs=60e9)
    done = gateway("arm", "--run", str(station.run))
    assert done.stdout == "armed: the sirens sound when a plan says so\n"
    assert station.status()["arming"]["mode"] == "armed"


def test_an_exercise_may_sound(station: Station) -> None:
    arguments = ["--for", "90s", "--mode", "exercise", "--sound", "chirp", "--json"]
    done = gateway("disarm", *arguments, "--run", str(station.run))
    said = json.loads(done.stdout)
    assert (said["mode"], said["sound"]) == ("exercise", "chirp")
    assert said["left_s"] == pytest.approx(90, abs=30)
    assert gateway("arm", "--run", str(station.run)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--for", "soon"], "'soon'; expected a time such as 90s, 30m, 2h or 1h30m"),
        (["--for", "0m"], "expected a time"),
        (["--for", ""], "expected a time"),
        (["--for", "-2h"], "expected a time"),
        (["--for", "9h"], "expected at most 8 h"),
        (["--for", "1h", "--sound", "full"], "--sound is for --mode exercise"),
        (["--for", "1h", "--mode", "armed"], "'armed'"),
        ([], "--for"),
    ],
)
def test_what_can_not_be_meant_is_refused_before_the_core_is_asked(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = gateway("disarm", *arguments, "--run", str(tmp_path))
    assert done.exit_code == 2
    assert said in done.stderr
    assert "not running" not in done.stderr


@pytest.mark.parametrize("command", [["arm"], ["disarm", "--for", "1h"]])
def test_without_a_core_it_says_so(command: list[str], tmp_path: Path) -> None:
    done = gateway(*command, "--run", str(tmp_path))
    assert done.exit_code == 1
    assert "is not running; start it first" in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("90s", 90, "1 min 30 s"),
        ("30m", 1800, "30 min"),
        ("2h", 7200, "2 h"),
        ("1h30m", 5400, "1 h 30 min"),
        ("1H 0m 5s", 3605, "1 h 5 s"),
    ],
)
def test_durations_are_read_and_shown(text: str, seconds: int, shown: str) -> None:
    assert parse_duration(text) == seconds
    assert duration_text(seconds) == shown
