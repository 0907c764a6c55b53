"""The view shows what the core decided, by the core's own arithmetic, and fits the terminal."""

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from gateway import cli
from gateway.cli.monitor import _line
from gateway.config import shipped
from gateway.core.compiled import Channel, Compiled, Port, Sensor, Siren, Station
from gateway.core.feed import packet_body, reading_body
from gateway.detect.settings import SeismicSettings, Sensitivity
from gateway.drill.demo_outcome import played
from gateway.drill.lines import colour_of, line_of
from gateway.drill.replay import Replay, default_base
from gateway.drill.view import SPAN_S, RatioMeter, Scene, braille, picture
from gateway.events import (
    MICRO,
    NS,
    Alert,
    ArmingChange,
    Coincidence,
    Event,
    GroundMotion,
    Hazard,
    Health,
    Level,
    LevelChange,
    Onset,
    Packet,
    Phase,
    Quality,
    Reading,
    Rejected,
    Reply,
    SirenAction,
    Status,
    iso,
    parse_iso,
    to_record,
)
from tests.uplink.city import FakeCore

T = 1_700_000_000 * NS
RATE_HZ = 200.0
CHANNELS = ("XX.DEMO..HNZ", "XX.DEMO..HNN", "XX.DEMO..HNE")
PATIENCE_S = 30.0


def config() -> Compiled:
    sensitivity = Sensitivity(426141.261, "m/s**2")
    return Compiled(
        Station("cn-demo-001", "示范站", "demo"),
        sensors=(
            Sensor(
                "seis1",
                Port("/dev/s"),
                "",
                "seismic",
                channels=tuple(Channel(name, sensitivity) for name in CHANNELS),
                rate_hz=RATE_HZ,
            ),
            Sensor("rain1", Port("/dev/r"), "", "scalar"),
        ),
        sirens=(Siren("main", None, "gateway.siren.virtual:Virtual"),),
        scales=shipped.scales(),
    )


def packets(counts: Any, size: int = 100) -> Iterator[dict[str, Any]]:
    """Items of the feed as the core makes them, for counts of shape (3, n) from ``T`` on."""
    for first in range(0, counts.shape[1], size):
        start_ns = T + round(first * NS / RATE_HZ)
        packet = Packet("seis1", start_ns, RATE_HZ, counts[:, first : first + size])
        yield json.loads(packet_body(packet, CHANNELS, 0))


def readings(*totals_mm: float) -> Iterator[dict[str, Any]]:
    for minute, total in enumerate(totals_mm):
        reading = Reading("rain1", T + minute * 60 * NS, "rain_total_mm", round(total * MICRO))
        yield json.loads(reading_body(reading, 0))


ALERT = Alert(
    id="a1",
    station="cn-demo-001",
    hazard=Hazard.earthquake,
    level=Level.red,
    phase=Phase.alert,
    status=Status.actual,
    time_ns=T,
    reason="intensity >= 7",
    text_zh="本地实测达到红色标准",
    text_en="red standard observed here",
)
ONSET = Onset(CHANNELS[0], T + 10 * NS, T + 11 * NS, 109570.0, 57.9, "down")
SIREN = SirenAction("cn-demo-001", "main", "a1", "on", "disaster", T)
MOTION = GroundMotion(
    *("XX.DEMO", T, T, 4.52, 0.93, 0.4, 0.04, 0.1, 2.2, 9.0, 9.7, 10.5, 3), True, True
)
EVENTS: list[Event] = [
    MOTION,
    Rejected(CHANNELS[0], T, T, "spike"),
    Coincidence("site", "XX.DEMO", T, CHANNELS, 2),
    Quality(CHANNELS[0], "gap", T, "3 s"),
    LevelChange("rain1", Hazard.rainstorm, Level.blue, T, 50.4, "mm", 12),
    Health("rain1", "failed", T, "silent", "check its power"),
    Reply("c1", "siren_on", "refused", T, "late"),
    ArmingChange("disarmed", T, "uid 0", 60.0),
    ONSET,
    ALERT,
    SIREN,
]


# --- arithmetic ---------------------------------------------------------------------------------


def test_the_ratio_is_that_of_the_detector() -> None:
    path = Path(shipped.__file__).parents[1] / "drill/data/napa_2014_NP.1765.mseed"
    records = Replay(default_base()).run([path])
    onset = next(record for record in records if record["type"] == "onset")
    ratio = RatioMeter(SeismicSettings(), RATE_HZ).process(played()[0].astype(np.float64))
    since_ns = parse_iso(onset["declared"]) - parse_iso("2014-08-24T10:20:37Z")
    assert ratio[round(since_ns * RATE_HZ / NS)] == pytest.approx(onset["ratio"], rel=1e-6)


@pytest.mark.parametrize("size", [1, 7, 64, 100, 1000])
def test_the_ratio_does_not_depend_on_how_the_stream_is_cut(size: int) -> None:
    counts = played()[0, :8000].astype(np.float64)
    whole = RatioMeter(SeismicSettings(), RATE_HZ).process(counts)
    meter = RatioMeter(SeismicSettings(), RATE_HZ)
    parts = [meter.process(counts[k : k + size]) for k in range(0, len(counts), size)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6)


def test_a_gap_blanks_the_trace_and_the_ratio_begins_anew() -> None:
    scene = Scene(config())
    items = list(packets(played()[:, :4000]))
    for item in items[:20] + items[24:]:
        scene.take(item)
    trace = scene.traces[0]
    assert np.isnan(trace.samples[-2000:-1600]).all()
    assert np.isnan(trace.ratio[-1600:-800]).all()
    assert not np.isnan(trace.ratio[-700:]).any()
    assert trace.end_ns == T + 20 * NS


def test_rain_sums_are_those_of_the_core_where_it_was_asked() -> None:
    scene = Scene(config())
    for item in readings(0, 3, 10):
        scene.take(item)
    gauge = scene.gauges[0]
    assert gauge.rows(1.0)[0] == ("12 h", 10.0, 50.0, "blue")
    sirens = {"main": {"on": False, "alert": None, "pattern": None}}
    core = {"sensors": {"rain1": {"rain_12h_mm": 47.2}}, "sirens": sirens, "alerts": []}
    scene.status(core)
    assert gauge.rows(1.0)[0] == ("12 h", 47.2, 50.0, "blue")


def test_braille_fills_the_band_between_lowest_and_highest() -> None:
    assert braille(np.array([-1.0, np.nan]), np.array([1.0, np.nan]), 1, 1.0) == ["⡇"]
    values = np.array([0.0, 0.0, -1.0, 1.0])
    assert braille(values, values, 2, 1.0) == ["⠀⠈", "⠉⡀"]


# --- how it looks -------------------------------------------------------------------------------


def drawn(scene: Scene, width: int = 100, height: int = 30) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=False)
    with console.capture() as capture:
        console.print(scene, height=height)
    return capture.get().rstrip("\n").split("\n")


def busy() -> Scene:
    """An earthquake and rain, as in the feed of a station."""
    scene = Scene(config())
    for item in packets(played()[:, :3000]):
        scene.take(item)
    for item in readings(0, 30, 60):
        scene.take(item)
    for event in EVENTS:
        record = to_record(event)
        scene.take({"record": record})
        scene.say(record)
    return scene


def quiet() -> Scene:
    return Scene(config())


def bare() -> Scene:
    """A station that has nothing yet."""
    return Scene(Compiled(config().station))


@pytest.mark.parametrize(("width", "height"), [(100, 30), (80, 24), (200, 60), (40, 10)])
@pytest.mark.parametrize(
    "make", [busy, lambda: Scene(config()), lambda: Scene(Compiled(config().station))]
)
def test_it_fits_the_terminal(make: Any, width: int, height: int) -> None:
    lines = drawn(make(), width, height)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


def test_its_picture_is_a_drawing_that_needs_nothing_of_others() -> None:
    drawing = picture(busy())
    text = "".join(ET.fromstring(drawing).itertext()).replace("\xa0", " ")  # noqa: S314  it is ours
    assert "S I R E N" in text
    assert "本地实测达到红色标准" in text
    assert "font-face" not in drawing


def test_it_shows_siren_alert_onset_and_rain() -> None:
    text = "\n".join(drawn(busy()))
    for words in (
        "S I R E N",
        "disaster",
        "地震 earthquake red",
        "本地实测达到红色标准",
        "red standard observed here",
        "烈度 9.7",
        f"P {iso(ONSET.time_ns)[11:23]}",
        "60.0/50 mm",
        "蓝色",
    ):
        assert words in text


def test_an_alert_that_has_ended_is_no_longer_shown() -> None:
    scene = busy()
    scene.take({"record": {**to_record(ALERT), "phase": "expire", "level": "none"}})
    scene.take({"record": {**to_record(SIREN), "action": "off"}})
    text = "\n".join(drawn(scene))
    assert "S I R E N" not in text
    assert "silent 静默" in text
    assert "地震 earthquake red " not in text.splitlines()[-2]


def test_a_siren_between_two_blasts_is_not_shown_as_sounding() -> None:
    scene = busy()
    scene.sirens["main"].closed = False
    text = "\n".join(drawn(scene))
    assert "S I R E N" not in text
    assert "pause in the pattern" in text


def test_old_samples_leave_on_the_left() -> None:
    scene = Scene(config())
    for item in packets(played()[:, : round((SPAN_S + 10) * RATE_HZ)]):
        scene.take(item)
    trace = scene.traces[0]
    assert len(trace.samples) == SPAN_S * RATE_HZ
    assert trace.column(trace.end_ns - 31 * NS, 50) is None
    assert trace.column(trace.end_ns - 1, 50) == 49


# --- plain lines --------------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_record_has_a_line_without_blanks_and_braces(event: Event) -> None:
    record = to_record(event)
    line = line_of(record)
    assert line.strip() == line
    assert not {"{", "}", "\n"} & set(line)
    assert len(line) > len(record["type"])
    assert colour_of(record)


def test_a_record_of_another_version_still_has_a_line() -> None:
    assert line_of({"type": "tsunami", "time": iso(T)}) == "tsunami"
    assert line_of({"type": "onset", "time": iso(T), "channel": "X"}).startswith("onset")
    assert colour_of({"type": "tsunami"}) == "white"


def test_packets_and_readings_have_lines_too() -> None:
    packet = next(packets(played()[:, :100]))
    assert "seis1 100 samples: XX.DEMO..HNZ" in _line(packet)
    assert _line(next(readings(1.5))) == f"{iso(T)}  rain1 rain_total_mm 1.5"
    missing = Reading("rain1", T, "rain_mm", None)
    assert _line(json.loads(reading_body(missing, 0))).endswith("rain_mm missing")
    assert _line({"stream": "gap", "of": "data", "lost": 3}) == "lost 3 of data"


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def core(tmp_path: Path) -> Iterator[FakeCore]:
    made = FakeCore(tmp_path / "feed.sock")
    yield made
    made.close()


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Any]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "gateway.cli", "monitor", "--run", str(tmp_path)]
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines_of(process: subprocess.Popen[str], core: FakeCore, wanted: int) -> list[str]:
    """The next lines of the monitor, while the core runs and says something once it listens."""
    assert process.stdout is not None
    found = b""
    said = False
    end = time.monotonic() + PATIENCE_S
    while found.count(b"\n") < wanted:
        assert time.monotonic() < end, found
        assert process.poll() is None
        core.turn()
        if core.feed.wants_data and not said:
            said = True
            core.data(next(readings(1.5)))
            core.publish(ALERT, SIREN)
        if select.select([process.stdout], [], [], 0.01)[0]:
            found += os.read(
                process.stdout.fileno(), 65_536
            )  # readline would hide lines from select
    return found.decode().splitlines()[:wanted]


def test_json_gives_the_items_of_the_feed(core: FakeCore, monitor: Any) -> None:
    process = monitor("--json")
    items = [json.loads(line) for line in lines_of(process, core, 3)]
    records = [item["record"] for item in items if item["stream"] == "record"]
    assert [record["type"] for record in records] == ["alert", "siren"]
    assert [item["reading"]["micro"] for item in items if "reading" in item] == [1_500_000]


def test_plain_lines_come_where_there_is_no_terminal(core: FakeCore, monitor: Any) -> None:
    process = monitor()
    text = "\n".join(lines_of(process, core, 3))
    assert "ALERT 地震 earthquake 红色 red: 本地实测达到红色标准" in text
    assert "rain1 rain_total_mm 1.5" in text
    assert "\x1b" not in text
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0


def test_it_waits_for_a_core_that_is_started_again(monitor: Any, tmp_path: Path) -> None:
    first = FakeCore(tmp_path / "feed.sock")
    process = monitor()
    lines_of(process, first, 3)
    first.close()
    assert process.stdout is not None
    assert "the core is away" in process.stdout.readline()
    again = FakeCore(tmp_path / "feed.sock", "run2")
    try:
        assert any("ALERT" in line for line in lines_of(process, again, 3))
    finally:
        again.close()


def test_a_gateway_that_does_not_run_is_a_fault_with_advice(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["monitor", "--run", str(tmp_path)])
    assert result.exit_code == 1
    assert "is the gateway's core running?" in result.stderr
