"""The demonstration shows what it says it shows, and leaves nothing behind."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.cli import demo as command
from gateway.config import check
from gateway.detect.scale import Scale
from gateway.detect.scale_files import SHIPPED, read_scale
from gateway.drill import demo_station, latency
from gateway.drill.demo import Demo, DemoError
from gateway.drill.demo_outcome import Outcome, played
from gateway.drill.demo_station import Places
from gateway.events import Hazard
from gateway.hub.broker import find_program

PATIENCE_S = 120.0

needs_broker = pytest.mark.skipif(
    find_program("mosquitto") is None, reason="mosquitto is not installed"
)


def start(output: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "demo", "--output", str(output), *arguments],
        env={**os.environ, "CI": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def folder_of(output: str) -> Path:
    found = re.search(r"all below (\S+)", output)
    assert found, output
    return Path(found[1])


def commands() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text().replace("\0", " ")
        except OSError:  # it has just ended
            continue


def left_over(output: str) -> list[str]:
    """Whatever of the demonstration is still there: its folder, its processes, its broker."""
    folder = folder_of(output)
    pids = [int(pid) for pid in re.findall(r"pid (\d+)", output)]
    there = [str(folder)] if folder.exists() else []
    there += [words for words in commands() if str(folder) in words]
    there += [str(pid) for pid in pids if Path(f"/proc/{pid}").exists()]
    return there


@needs_broker
def test_earthquake_and_storm_reach_siren_and_hub(tmp_path: Path) -> None:
    process = start(tmp_path / "out", "--seconds", "36")
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    assert "\x1b" not in output
    assert left_over(output) == []

    summary: dict[str, Any] = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["ok"]
    assert summary["missing"] == []
    earthquake, rainstorm = summary["earthquake_at_hub"], summary["rainstorm_at_hub"]
    assert (earthquake["level"], earthquake["status"]) == ("red", "Actual")
    assert (rainstorm["level"], rainstorm["status"]) == ("blue", "Actual")
    assert "演示" in rainstorm["text_zh"]
    assert "900 times its speed" in rainstorm["text_en"]
    closed = [edge for edge in summary["relay"] if edge["on"]]
    assert closed[0]["frame"].startswith("01 05 02 00 ")  # flash relay 1 on
    assert summary["latency"]["last_byte_needed_to_first_siren_byte_ms"] > 0
    assert summary["onset_s"] == pytest.approx(demo_station.MARKS[0].at_s, abs=0.15)
    assert summary["hub"].get("faults", 0) == 0
    assert (tmp_path / "out" / "earthquake.png").read_bytes().startswith(b"\x89PNG")
    for line in ("broker", "simulator", "gateway run", "hub   ALERT", "relay closed"):
        assert line in output


@needs_broker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_ends_all_that_it_has_started(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    output = ""
    end = time.monotonic() + PATIENCE_S
    while "gateway run" not in output:
        assert select.select([process.stdout], [], [], end - time.monotonic())[0], output
        line = process.stdout.readline()
        assert line, output
        output += line
    process.send_signal(number)
    rest, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "everything that was started has been ended" in rest
    assert left_over(output + rest) == []
    assert list(tmp_path.iterdir()) == []


def test_without_a_broker_it_says_how_to_get_one_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gateway.hub.broker.find_program", lambda _name: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    read, write = os.pipe()
    try:
        with pytest.raises(DemoError, match="tools/debian"), Demo(lambda _line: None, read, 1.0):
            pass
    finally:
        os.close(read)
        os.close(write)
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_seen_is_named() -> None:
    missing = Outcome().missing
    assert len(missing) == 4
    assert any("earthquake" in text for text in missing)
    assert any("rainstorm" in text for text in missing)
    alert = {"level": "red"}
    timed = latency.Latency(0, 0, 1, "01")
    edges = [{"on": True, "frame": "01"}]
    assert Outcome(earthquake=alert, rainstorm=alert, latency=timed, edges=edges).missing == []
    unheard = [{"on": True}]
    assert Outcome(earthquake=alert, rainstorm=alert, latency=timed, edges=unheard).missing


# --- its station --------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path)
    demo_station.write(found, "mqtt://127.0.0.1:1883")
    return found


def test_its_configuration_is_sound(places: Places) -> None:
    checked = check(places.config, run=places.run)
    assert checked.errors == []
    assert checked.compiled is not None
    assert checked.compiled.sensors[0].rate_hz == demo_station.RATE_HZ


def national() -> Scale:
    return read_scale(tomllib.loads((SHIPPED / "rainstorm-national.toml").read_text()))


def test_its_rain_scale_is_the_national_one_in_compressed_time(places: Places) -> None:
    compiled = check(places.config, run=places.run).compiled
    assert compiled is not None
    fast = next(scale for scale in compiled.scales if scale.hazard is Hazard.rainstorm)
    slow, speed = national(), demo_station.SPEED
    for compressed, shipped in zip(fast.conditions, slow.conditions, strict=True):
        assert compressed.window_s * speed == shipped.window_s
        assert compressed.at_least_micro == shipped.at_least_micro
    assert fast.hold_s * speed == slow.hold_s
    assert fast.continuing_s * speed == slow.continuing_s
    assert slow.highest_micro is not None
    assert fast.highest_micro == slow.highest_micro * speed


def test_its_plan_differs_in_the_words_about_time_alone(places: Places) -> None:
    compiled = check(places.config, run=places.run).compiled
    assert compiled is not None
    plan = next(plan for plan in compiled.plans if plan.hazard is Hazard.rainstorm)
    blue = plan.levels[-1]
    assert "12小时" in blue.text_zh
    assert "12 h" in blue.text_en
    assert "{window_h}" not in blue.text_zh + blue.text_en
    assert blue.pattern == ""


def test_the_storm_reaches_its_level_within_the_shortest_run() -> None:
    assert demo_station.storm_reaches() == pytest.approx(31.3, abs=0.1)
    assert demo_station.storm_time(demo_station.storm_reaches()) == "07 Oct 22:15"


def test_paths_of_its_sockets_are_short_enough() -> None:
    longest = "/tmp/gateway-demo-12345678/run/control.sock"  # noqa: S108  only its length counts
    assert len(longest) < 108


# --- latency ------------------------------------------------------------------------------------

SETTINGS_ECHO, SCAN = 6, 18
SENSOR_LOG: list[dict[str, Any]] = [
    {"boottime_ns": 1_000 * n, "sent": SETTINGS_ECHO + SCAN * n} for n in range(10)
]  # scan n is complete at 1000 · (n + 1)
RELAY_LOG: list[dict[str, Any]] = [
    {"boottime_ns": 9_500, "on": True, "heard_ns": 8_250, "frame": "01 05 02 00 00 96 4c 1c"},
    {"boottime_ns": 9_900, "on": False},
]


@pytest.mark.parametrize(
    ("samples", "decided_ns", "expected_ns"),
    [
        ([6], 7_500, 1_250),
        ([5, 6], 7_500, 1_250),  # the later one was there when the core decided
        ([6, 7], 7_500, 1_250),  # the later one was not
    ],
)
def test_latency_runs_from_the_last_byte_needed_to_the_first_byte_at_the_relay(
    samples: list[int], decided_ns: int, expected_ns: int
) -> None:
    found = latency.measure(samples, decided_ns, SENSOR_LOG, RELAY_LOG)
    assert found is not None
    assert found.sample == 6
    assert found.measured_ms == pytest.approx(expected_ns / 1e6)
    assert found.line_ms() == pytest.approx((8 + 3.5) * 10 / 9.6)


@pytest.mark.parametrize(
    ("samples", "relay"), [([], RELAY_LOG), ([99], RELAY_LOG), ([6], []), ([6], RELAY_LOG[1:])]
)
def test_no_latency_is_stated_where_the_logs_do_not_hold_it(
    samples: list[int], relay: list[dict[str, Any]]
) -> None:
    assert latency.measure(samples, 7_500, SENSOR_LOG, relay) is None


def test_samples_are_found_again_in_the_recording() -> None:
    counts = played()
    assert latency.place(counts, counts[:, 2200:2300]) == 2200
    assert latency.place(counts, np.flip(counts[:, 2200:2300], axis=1)) is None


def test_a_log_that_is_being_written_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "relay.jsonl"
    assert latency.read_log(path) == []
    path.write_text('{"on": true}\n{"on": fal')
    assert latency.read_log(path) == [{"on": True}]


def test_the_shortest_run_is_long_enough_for_both_hazards() -> None:
    poll_s = 2.0
    assert demo_station.storm_reaches() + poll_s < command._SHORTEST_S
    assert max(mark.at_s for mark in demo_station.MARKS) < command._SHORTEST_S
