"""A drawing shows the recording and the very decisions of its replay."""

from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from typer.testing import CliRunner

from gateway import cli
from gateway.detect.settings import SeismicSettings, Sensitivity
from gateway.drill import plot
from gateway.drill.replay import Replay, default_base
from gateway.events import NS, parse_iso
from tests.uplink.recording import Desk, noise, packets

DATA = Path(plot.__file__).parent / "data"
QUAKE = DATA / "napa_2014_NP.1765.mseed"
STORM = DATA / "arna_1955-10.csv"
SENSITIVITY = "426141.261:m/s**2"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["plot", *map(str, arguments)])


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def test_an_earthquake_is_drawn_beside_its_file_or_where_asked(tmp_path: Path) -> None:
    file = tmp_path / "quake.mseed"
    file.write_bytes(QUAKE.read_bytes())
    result = run(file, "--sensitivity", SENSITIVITY)
    assert result.exit_code == 0, result.output
    assert is_png(tmp_path / "quake.png")
    result = run(file, STORM, "-o", tmp_path / "two.png")
    assert result.output.splitlines() == [
        f"wrote {tmp_path / 'two.png'}",  # the storm of 1955 and the earthquake of 2014
        f"wrote {tmp_path / 'two-2.png'}",
    ]
    assert is_png(tmp_path / "two-2.png")


def test_an_archive_is_drawn_as_it_is(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "archive")
    desk.take(packets(noise(30)))
    desk.finish()
    out = tmp_path / "archive.png"
    assert run(tmp_path / "archive", "-o", out).exit_code == 0
    assert is_png(out)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(empty, "-o", out).exit_code == 2


def test_onset_alert_and_siren_of_the_replay_are_in_the_drawing() -> None:
    sensitivity = Sensitivity.parse(SENSITIVITY)
    records = list(Replay(default_base(), sensitivity=sensitivity).run([QUAKE]))
    (picture,) = plot.pictures([plot.read(QUAKE)], records, None, sensitivity)
    assert [row.name for row in picture.rows] == [f"NP.1765..HN{c}" for c in "ENZ"]
    assert {row.unit for row in picture.rows} == {"m/s²"}
    assert max(float(np.nanmax(np.abs(row.values))) for row in picture.rows) > 4
    onset = next(record for record in records if record["type"] == "onset")
    drawn = {moment.label: moment for moment in reversed(picture.moments)}  # the first of each
    assert drawn["onset"].time_ns == parse_iso(onset["time"])
    assert drawn["onset"].of == "NP.1765..HNZ"
    assert drawn["alert earthquake red"].of == "NP.1765"
    siren = next(record for record in records if record["type"] == "siren")
    assert picture.stretches[0].start_ns == parse_iso(siren["time"])
    assert picture.stretches[0].label == "siren disaster"


def test_rain_is_drawn_with_its_sum_and_levels() -> None:
    records = list(Replay(default_base()).run([STORM]))
    scales = [s for s in default_base().scales if s.name == "rainstorm-national"]
    (picture,) = plot.pictures([plot.read(STORM)], records, scales=scales)
    assert [row.unit for row in picture.rows] == [
        "rain_mm",
        "sum of rain, mm",
        "rainstorm-national\nsums, mm",
    ]
    sums = dict(picture.rows[2].curves)
    assert list(sums) == ["6 h", "12 h"]
    level = next(record for record in records if record["type"] == "level")
    at = int(np.searchsorted(picture.rows[2].times_ns, parse_iso(level["time"])))
    assert sums["12 h"][at] == pytest.approx(level["value"])
    assert ("blue 50 mm in 12 h", 50.0, "tab:blue") in picture.rows[2].limits
    fallen = [float(line.split(",")[1] or 0) for line in STORM.read_text().splitlines()[1:]]
    assert float(picture.rows[1].values[-1]) == pytest.approx(sum(fallen))
    assert "level blue" in [moment.label for moment in picture.moments]


def test_a_hole_is_left_blank_and_the_ratio_begins_anew_after_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 100, 6000).round().astype(np.int32)
    header = {"network": "XX", "station": "A", "channel": "EHZ", "sampling_rate": 100.0}
    trace = obspy.Trace(noise, header)
    start = trace.stats.starttime
    stream = obspy.Stream([trace.slice(start, start + 30), trace.slice(start + 40, start + 60)])
    stream.write(str(tmp_path / "hole.mseed"), "MSEED")
    (picture,) = plot.pictures([plot.read(tmp_path / "hole.mseed")], [])
    (row,) = picture.rows
    assert np.isnan(row.values[3100:3900]).all()
    assert row.ratio is not None
    assert np.isnan(row.ratio[4000:4400]).all()  # until the detector is armed again
    assert not np.isnan(row.ratio[4500:]).any()


def test_a_long_trace_is_drawn_as_the_band_that_it_fills() -> None:
    values = np.sin(np.arange(100_000) / 7.0)
    values[50_000:60_000] = np.nan
    along, low, high = plot._band(np.arange(100_000.0), values)
    assert len(along) <= plot.MAX_POINTS
    known = ~np.isnan(low)
    assert low[known].min() == pytest.approx(-1, abs=1e-2)
    assert high[known].max() == pytest.approx(1, abs=1e-2)
    assert 0.08 < np.isnan(low).mean() < 0.12


def test_channels_beyond_a_page_are_counted() -> None:
    times = np.arange(10, dtype=np.int64) * NS
    rows = [plot.Row(f"XX.S{n}..EHZ", "counts", times, np.zeros(10)) for n in range(20)]
    assert [len(group) for group in plot._sections(rows)] == [20]
    shown = plot._pages("x", rows, [], [], SeismicSettings())
    assert len(shown[0].rows) == plot.MAX_ROWS
    assert "8 channels more" in shown[0].title


def test_what_cannot_be_read_is_said_and_the_rest_is_drawn(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mseed"
    broken.write_bytes(b"no waveform")
    result = run(broken, QUAKE, "-o", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "broken.mseed" in result.output
    assert is_png(tmp_path / "x.png")
    assert run(broken, "-o", tmp_path / "y.png").exit_code == 1
    assert not (tmp_path / "y.png").exists()


def test_a_raw_capture_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    capture = Path(__file__).parents[1] / "captures" / "rpi_seism" / "handshake.raw"
    result = run(capture, "-o", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "gateway replay" in result.output


def test_wrong_use_exits_with_2() -> None:
    assert run(QUAKE, "--sensitivity", "much").exit_code == 2
    assert run(QUAKE, "--inventory", "nowhere.xml").exit_code == 2
    assert run().exit_code == 2
