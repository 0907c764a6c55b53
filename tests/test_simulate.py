"""``gateway simulate`` as a process on its own pseudo-terminal, and what it can be told to play."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
import serial
from typer.testing import CliRunner

from gateway import siren
from gateway.cli import app
from gateway.config import profiles
from gateway.drill import devices, sources
from gateway.drill.stage import Fault, FaultKind, Stage, play
from gateway.drivers import load
from gateway.drivers.capture import Capture, Header, Player, Writer
from gateway.events import NS, Diagnostic, Reading, Scans
from tests.staged import playing

SENSORS = [
    name
    for name in profiles.names([profiles.shipped()])
    if profiles.load(name)[0].profile.kind != "siren"
]
WAIT_S = 20.0

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def simulate(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(profile: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "gateway.cli", "simulate", profile]
        command += ["--link", str(tmp_path / "tty"), *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready {tmp_path / 'tty'}\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Drives the device of a profile in a thread of this process; gives its link."""
    with ExitStack() as stack:

        def start(profile: str, *faults: str) -> Path:
            chosen, _ = profiles.load(profile)
            stage = Stage(
                devices.simulator(chosen, devices.Play()),
                tmp_path / "tty",
                baud=chosen.port.baud if chosen.port else 9600,
                faults=[Fault.parse(text) for text in faults],
            )
            stack.enter_context(playing(stage))
            return tmp_path / "tty"

        yield start


def decode(
    profile: str, path: Path, enough: Callable[[list[Any]], bool], found: list[Any] | None = None
) -> list[Any]:
    """What the profile's driver makes of the device behind ``path``, as soon as it is enough."""
    chosen, _ = profiles.load(profile)
    options = {key: 1.0 if key == "interval_s" else v for key, v in chosen.driver.items()}
    driver = load(chosen.profile.driver)(options, "sensor")
    found = [] if found is None else found
    end = time.monotonic_ns() + round(WAIT_S * NS)
    with serial.Serial(str(path), chosen.port.baud if chosen.port else 9600, timeout=0) as port:
        driver.opened(time.monotonic_ns())
        while not enough(found):
            assert time.monotonic_ns() < end, found
            port.write(driver.to_send())
            due = driver.next_deadline() or end
            wait = max(0.0, min((due - time.monotonic_ns()) / NS, 0.5))
            if select.select([port.fileno()], [], [], wait)[0]:
                found += driver.feed(os.read(port.fileno(), 4096), time.monotonic_ns())
            if due <= time.monotonic_ns():
                found += driver.tick(time.monotonic_ns())
    return found


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        select.select([], [], [], 0.01)


def data(found: list[Any]) -> list[Any]:
    return [item for item in found if not isinstance(item, Diagnostic)]


@pytest.mark.parametrize("profile", SENSORS)
def test_every_shipped_sensor_is_simulated_and_decoded(
    staged: Callable[..., Path], profile: str
) -> None:
    found = decode(profile, staged(profile), lambda found: len(data(found)) >= 2)
    assert {type(item) for item in data(found)} in ({Scans}, {Reading})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_and_takes_the_link_away(
    simulate: Start, tmp_path: Path, number: signal.Signals
) -> None:
    process = simulate("hydreon-rg15")
    assert (tmp_path / "tty").is_symlink()
    process.send_signal(number)
    assert process.wait(WAIT_S) == 0
    assert list(tmp_path.iterdir()) == []


def test_it_paces_by_the_clock(staged: Callable[..., Path]) -> None:
    found = decode(
        "rpi-seism",
        staged("rpi-seism"),
        lambda found: sum(s.samples.shape[1] for s in data(found)) >= 150,
    )
    scans = data(found)
    last = scans[-1].index + scans[-1].samples.shape[1]
    elapsed_s = (scans[-1].arrival_ns - scans[0].arrival_ns) / NS
    assert elapsed_s >= (last - 2) / 100 - 0.05


def test_rain_is_played_faster_when_told_to(simulate: Start, tmp_path: Path) -> None:
    csv = tmp_path / "storm.csv"
    rows = [f"2026-07-20T0{h}:{m:02d}:00Z,0.5" for h in range(3) for m in range(60)]
    csv.write_text("time,rain_mm\n" + "\n".join(rows) + "\n")
    simulate("hydreon-rg15", "--play", str(csv), "--speed", "3600")
    found = decode(
        "hydreon-rg15",
        tmp_path / "tty",
        lambda found: any(r.micro == 90_000_000 for r in data(found)),
    )
    totals = [r.micro for r in data(found) if r.quantity == "rain_total_mm"]
    assert totals == sorted(totals)


def test_unplugging_takes_the_terminal_away_and_brings_back_another(
    staged: Callable[..., Path],
) -> None:
    link = staged("rpi-seism", "unplug@0.5:0.3")
    with pytest.raises((OSError, AssertionError)):
        decode("rpi-seism", link, lambda found: len(found) > 10_000)
    until(link.exists)
    assert len(decode("rpi-seism", link, lambda found: len(data(found)) > 5)) > 5


def test_garbage_and_silence_pass_and_the_driver_recovers(staged: Callable[..., Path]) -> None:
    link = staged("rpi-seism", "garbage@0.4:0.2", "silence@0.9:0.3")
    found: list[Any] = []

    def enough(found: list[Any]) -> bool:
        scans = data(found)
        return bool(scans) and scans[-1].index > 130

    decode("rpi-seism", link, enough, found)
    kinds = {item.kind for item in found if isinstance(item, Diagnostic)}
    assert "garbage" in kinds


def test_a_relay_logs_each_change(simulate: Start, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    simulate("waveshare-modbus-relay", "--log", str(log))
    chosen, _ = profiles.load("waveshare-modbus-relay")
    driver = siren.load("modbus_relay")({**chosen.driver}, {"main": {"address": 1, "relay": 2}})
    with serial.Serial(str(tmp_path / "tty"), 9600, timeout=0) as port:
        driver.opened(time.monotonic_ns())
        driver.sound("main", time.monotonic_ns() + 60 * NS, time.monotonic_ns())

        def logged() -> list[dict[str, Any]]:
            port.write(driver.to_send())
            driver.feed(port.read(256), time.monotonic_ns())
            driver.tick(time.monotonic_ns())
            return [json.loads(line) for line in log.read_text().splitlines()]

        until(lambda: len(logged()) >= 1)
        driver.silence("main", time.monotonic_ns())
        until(lambda: len(logged()) >= 2)
        on, off = logged()[:2]
    assert (on["relay"], on["on"]) == (2, True)
    assert (off["relay"], off["on"]) == (2, False)
    assert on["time"] < off["time"]
    assert on["time"].endswith("Z")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rpi-sism"], "rpi-seism"),
        (["virtual-siren"], "has no device that could be simulated"),
        (["rpi-seism", "--fault", "fire@3"], "expected KIND@T[:SECONDS]"),
        (["rpi-seism", "--speed", "2"], "a seismometer plays at its own rate"),
        (["hydreon-rg15", "--play", "nothing.csv"], "nothing.csv"),
        (["rpi-seism", "--option", "gain=3"], "gain: saw 3; allowed is 1, 2, 4"),
        (["rpi-seism", "--option", "gain"], "expected KEY=VALUE"),
    ],
)
def test_wrong_use_is_said_in_a_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["simulate", *arguments, "--link", str(tmp_path / "tty")])
    assert done.exit_code == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- the stage in this process ------------------------------------------------------------------


def test_a_file_in_the_way_of_the_link_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "tty").write_text("precious")
    stage = Stage(load("hydreon_rg15").simulator(None, sources.Quiet(1.0)), tmp_path / "tty")
    with pytest.raises(FileExistsError, match="name another"):
        stage.begin(0)
    assert (tmp_path / "tty").read_text() == "precious"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    link = tmp_path / "desk" / "tty"
    stage = Stage(load("hydreon_rg15").simulator(None, sources.Quiet(1.0)), link)
    with pytest.raises(FileNotFoundError, match=f"{link}: there is no folder {link.parent}; make"):
        stage.begin(0)


def test_a_host_that_does_not_read_loses_bytes_and_nothing_else(tmp_path: Path) -> None:
    simulator = load("rpi_seism").simulator({"rate_hz": 300}, sources.Quiet(300.0, 3))
    stage = Stage(simulator, tmp_path / "tty", baud=250_000)
    stage.begin(0)
    simulator.feed(load("rpi_seism")({"rate_hz": 300}).options.frame(), 0)
    t = 0
    while t < 60 * NS:
        t = stage.next_deadline() or 0
        stage.step(t)
    assert stage.overruns > 0
    stage.end()


def test_bytes_take_the_time_of_the_line(tmp_path: Path) -> None:
    stage = Stage(load("hydreon_rg15").simulator(None, sources.Quiet(1.0)), tmp_path / "tty")
    stage.begin(0)
    stage.step(0)
    banner = 59 + 35 + 9 + 22 + 27 + 12
    assert stage.next_deadline() == pytest.approx(banner * 10 * NS // 9600, abs=20 * NS // 960)
    stage.end()


def test_play_ends_at_its_time_or_when_told(tmp_path: Path) -> None:
    stage = Stage(load("hydreon_rg15").simulator(None, sources.Quiet(1.0)), tmp_path / "tty")
    stage.begin(time.monotonic_ns())
    play([stage], until=time.monotonic_ns() + NS // 20)
    read, write = os.pipe()
    os.write(write, b".")
    play([stage], stop=read)
    stage.end()
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("garbage@10", Fault(FaultKind.garbage, 10 * NS, 11 * NS)),
        ("unplug@60:3", Fault(FaultKind.unplug, 60 * NS, 63 * NS)),
        ("silence@0:0.5", Fault(FaultKind.silence, 0, NS // 2)),
    ],
)
def test_faults_are_written_kind_at_time_and_length(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize("text", ["garbage", "garbage@", "garbage@-1", "fire@1", "unplug@1:x", ""])
def test_other_forms_of_a_fault_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected KIND@T"):
        Fault.parse(text)


# --- sources ------------------------------------------------------------------------------------


def test_noise_depends_on_seed_and_sample_alone() -> None:
    whole = sources.Quiet(100.0, 3, seed=5).samples(4000, 300)
    again = sources.Quiet(100.0, 3, seed=5)
    pieces = [again.samples(first, 100) for first in (4000, 4100, 4200)]
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)
    assert 15 < whole.std() < 25
    assert not np.array_equal(sources.Quiet(100.0, 3, seed=6).samples(4000, 300), whole)


@pytest.fixture
def quake(tmp_path: Path) -> Path:
    """East, north, vertical at 100 Hz, in a file that lists them in that order; and one at 50."""

    def trace(code: str, rate_hz: float, data: Any) -> obspy.Trace:
        header = {"network": "XX", "station": code[0], "channel": code[2:]}
        return obspy.Trace(np.asarray(data), {**header, "sampling_rate": rate_hz})

    ramp = np.arange(1000, dtype=np.int32)
    stream = obspy.Stream(
        [
            trace("A.HHE", 100, ramp + 3000),
            trace("A.HHN", 100, ramp + 2000),
            trace("A.HHZ", 100, ramp + 1000),
            trace("B.EHZ", 50, ramp),
        ]
    )
    stream.write(str(tmp_path / "quake.mseed"), "MSEED")
    return tmp_path / "quake.mseed"


def test_components_go_to_the_devices_own_order_and_counts_stay_counts(quake: Path) -> None:
    source = sources.waveform(quake, ("EHZ", "EHN", "EHE"), 100.0)
    assert source.channels == ("XX.A..HHZ", "XX.A..HHN", "XX.A..HHE")
    assert source.samples(10, 2).tolist() == [[1010, 1011], [2010, 2011], [3010, 3011]]


def test_after_the_end_noise_goes_on_where_the_recording_ended(quake: Path) -> None:
    source = sources.waveform(quake, ("EHZ", "EHN", "EHE"), 100.0)
    after = source.samples(998, 500)
    assert after[0, :2].tolist() == [1998, 1999]
    assert abs(after[0, 2:].mean() - 1949.5) < 5


def test_another_rate_is_refused_until_resampling_is_asked_for(quake: Path) -> None:
    with pytest.raises(sources.SourceError, match="50 Hz where the device has 100 Hz"):
        sources.waveform(quake, ("EHZ",), 100.0, station="XX.B")
    source = sources.waveform(quake, ("EHZ", "EHN"), 100.0, station="XX.B", resample=True)
    assert source.channels == ("XX.B..EHZ", "")
    assert abs(int(source.samples(1000, 1)[0, 0]) - 500) <= 1
    assert source.samples(1000, 100)[1].std() < 40


def test_samples_that_are_no_counts_need_a_scale(tmp_path: Path) -> None:
    header = {"network": "XX", "station": "A", "channel": "HHZ", "sampling_rate": 100.0}
    obspy.Trace(np.linspace(0, 1, 500), header).write(str(tmp_path / "m.mseed"), "MSEED")
    with pytest.raises(sources.SourceError, match="--scale"):
        sources.waveform(tmp_path / "m.mseed", ("EHZ",), 100.0)
    source = sources.waveform(tmp_path / "m.mseed", ("EHZ",), 100.0, scale=1000.0)
    assert source.samples(499, 1).tolist() == [[1000]]


def test_a_running_total_that_falls_was_reset(tmp_path: Path) -> None:
    csv = tmp_path / "t.csv"
    csv.write_text(
        "time,rain_total_mm\n2026-01-01T00:00:00Z,5\n2026-01-01T00:01:00Z,7\n"
        "2026-01-01T00:02:00Z,\n2026-01-01T00:03:00Z,1.5\n"
    )
    rain = sources.readings(csv, ["rain_total_mm"])
    totals = [rain.micro("rain_total_mm", minute * 60 * NS) for minute in range(6)]
    assert totals == [0, 0, 2_000_000, 2_000_000, 3_500_000, 3_500_000]


def test_a_capture_is_said_again_at_its_own_pace(tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    with path.open("w") as file:
        writer = Writer(file, Header("rpi_seism", 1000, 1000))
        writer.written(1000, b"\xcc")
        writer.read(2000, b"ab")
        writer.read(5000, b"c")
    player = Player(Capture.open(path))
    player.powered(0)
    assert player.next_deadline() is None
    player.feed(b"x", 50)
    assert player.next_deadline() == 1050
    player.tick(1050)
    assert player.to_send() == b"ab"
    player.tick(9999)
    assert player.to_send() == b"c"
    assert player.next_deadline() is None


# --- gateway capture ----------------------------------------------------------------------------


def test_a_simulated_device_is_captured_and_decodes_again(
    simulate: Start, tmp_path: Path, quake: Path
) -> None:
    simulate("rpi-seism", "--play", str(quake), "--fault", "garbage@3600")
    out = tmp_path / "x.raw"
    arguments = ["capture", "rpi-seism", str(tmp_path / "tty"), "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--seconds", "0.6", "--station", "XX.DEMO"])
    assert done.exit_code == 0, done.stderr
    capture = Capture.open(out)
    assert capture.station == "XX.DEMO"
    assert [r.data.hex() for r in capture.records() if not r.read] == ["ccdd6400060b"]
    found = [item for _, item in capture.decode()]
    verticals = [int(v) for scans in data(found) for v in scans.samples[0]]
    assert verticals == list(range(1000, 1000 + len(verticals)))
    assert len(verticals) > 20
    again = CliRunner().invoke(app, [*arguments, "--seconds", "1"])
    assert again.exit_code == 2
    assert "name a new file" in again.stderr


def test_a_port_that_is_not_there_is_no_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cli.capture.OPENING_NS", 0)
    out = tmp_path / "x.raw"
    done = CliRunner().invoke(app, ["capture", "rpi-seism", "/dev/nothing", "--out", str(out)])
    assert done.exit_code == 1
    assert "/dev/nothing is not there" in done.stderr
    assert not out.exists()
