"""`gateway tune`: what a technician learns of a place, and that nothing is suggested lightly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.detect.settings import SeismicSettings, Sensitivity
from gateway.drill.tune import Source, Stretch, tune
from gateway.events import NS

RATE = 40.0
T0 = 1_700_000_000 * NS
KNOWN = Sensitivity(1e9, "m/s")


def place(minutes: float, knocks: int = 0, hum: float = 0.0, size: float = 4000) -> Source:
    """Noise of 30 counts; ``knocks`` short shakes an hour that look like arrivals; a machine."""
    n = round(minutes * 60 * RATE)
    rng = np.random.default_rng(3)
    samples = rng.normal(0, 30, n) + hum * np.sin(2 * np.pi * 8 * np.arange(n) / RATE)
    shake = np.exp(-np.arange(round(4 * RATE)) / RATE) * np.sin(np.arange(round(4 * RATE)) * 0.8)
    for k in range(knocks):
        at = round((k + 0.5) * n / knocks)
        samples[at : at + len(shake)] += size * shake
    return Source(
        "XX.A@40", ("XX.A..HHZ",), RATE, (KNOWN,), (Stretch(T0, samples[np.newaxis].round()),)
    )


def test_a_quiet_place_needs_no_change() -> None:
    found = tune(place(65))
    assert found.suggestion["toml"] == ""
    assert "keep it" in found.suggestion["why"]
    (channel,) = found.channels
    assert channel["unit"] == "m/s"
    assert channel["noise"]["verdict"]
    by_band = {tuple(b["band_hz"]): b["median"] for b in channel["rms"]}
    # 30 counts of white noise up to 20 Hz: nine twentieths of the power lie between 1 and 10.
    assert by_band[1.0, 10.0] == pytest.approx(30e-9 * (9 / 20) ** 0.5, rel=0.15)
    assert channel["least_p"] == pytest.approx(by_band[1.0, 10.0] * 8**0.5, rel=0.06)


def test_a_threshold_that_is_too_low_is_raised_with_the_reason() -> None:
    found = tune(place(65, knocks=8, size=220), SeismicSettings(trigger_on=5.5))
    now = next(t for t in found.triggers if (t["band_hz"], t["trigger_on"]) == ([1, 10], 5.5))
    assert now["onsets"] >= 4
    assert found.onset_times
    assert "[detect.seismic]\n" in found.suggestion["toml"]
    assert "onsets an hour now" in found.suggestion["why"]


def test_where_no_setting_helps_the_place_is_to_blame() -> None:
    found = tune(place(65, knocks=30, size=40_000))
    assert found.suggestion["toml"] == ""
    assert "move the sensor" in found.suggestion["why"]


def test_a_machine_is_named_by_its_frequency() -> None:
    (channel,) = tune(place(15, hum=300)).channels
    assert channel["lines_hz"] == [8.0]


def test_a_short_recording_is_looked_at_and_not_judged() -> None:
    found = tune(place(2))
    assert "too short" in found.suggestion["why"]
    assert found.channels[0]["rms"]
    with pytest.raises(ValueError, match="expected at least 8 s"):
        tune(place(0.05))


@pytest.mark.parametrize("sign", [np.nan, np.inf])
def test_samples_that_are_none_count_as_missing(sign: float) -> None:
    source = place(12)
    source.stretches[0].samples[0, 1000:1400] = sign
    (channel,) = tune(source).channels
    assert channel["completeness"] == pytest.approx(1 - 400 / (12 * 60 * RATE), abs=1e-4)
    assert np.isfinite([b["median"] for b in channel["rms"]]).all()


def command(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    result = CliRunner().invoke(app, ["tune", "--json", *arguments])
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return result.exit_code, lines, result.stderr


def test_the_command_reads_what_obspy_reads_and_names_what_it_does_not(tmp_path: Path) -> None:
    good, readings = tmp_path / "a.mseed", tmp_path / "r.csv"
    samples = np.random.default_rng(1).normal(0, 30, 4000).astype(np.int32)
    trace = obspy.Trace(samples, {"network": "XX", "station": "A", "channel": "HHZ"})
    trace.stats.sampling_rate = RATE
    trace.write(str(good))
    readings.write_text("time,rain_mm\n2026-01-01T00:00:00Z,1\n")
    code, records, errors = command(str(good), str(readings), "--sensitivity", "1e9:m/s")
    assert code == 1
    assert [record["source"] for record in records] == ["XX.A@40"]
    assert "r.csv: readings; tune looks at waveforms" in errors
    code, records, errors = command("--run", str(tmp_path), "--seconds", "10")
    assert (code, records) == (1, [])
    assert "is the gateway's core running?" in errors
