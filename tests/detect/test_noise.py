"""Spectra against obspy's, Peterson's models, and what a day of segments says of a channel."""

import numpy as np
import obspy
import pytest
from obspy.signal import PPSD
from obspy.signal.spectral_estimation import get_nhnm, get_nlnm

from gateway.detect import noise
from gateway.detect.noise import NHNM, NLNM, NoiseMonitor, density, model_db, spectrum_db
from gateway.detect.settings import Sensitivity
from gateway.events import NS

RATE = 50.0
ACCELERATION, VELOCITY = Sensitivity(1e6, "m/s**2"), Sensitivity(1e6, "m/s")


@pytest.mark.parametrize(("rows", "obspys"), [(NLNM, get_nlnm), (NHNM, get_nhnm)])
def test_the_models_are_petersons(rows: noise.Rows, obspys: object) -> None:
    periods, expected = obspys()  # type: ignore[operator]  # obspy has no types
    inside = (periods >= 0.1) & (periods <= 100)
    ours = model_db(rows, 1 / periods[inside])
    assert ours == pytest.approx(expected[inside], abs=0.01)
    assert np.isnan(model_db(rows, np.array([20.0, 0.001]))).all()


@pytest.mark.parametrize("rate", [20.0, 31.25, 100.0])
def test_the_spectrum_of_white_noise_is_its_variance_over_the_band(rate: float) -> None:
    samples = np.random.default_rng(5).normal(0, 3, round(600 * rate))
    frequencies, power = density(samples, rate)
    assert power[5:-1].mean() == pytest.approx(9 / (rate / 2), rel=0.03)
    assert frequencies[-1] == pytest.approx(rate / 2)


def test_an_offset_and_a_drift_are_no_noise() -> None:
    samples = np.random.default_rng(6).normal(0, 3, 30_000)
    drifting = samples + 8e6 + np.arange(30_000) * 0.01
    _, plain = spectrum_db(samples, RATE, None)
    _, drifted = spectrum_db(drifting, RATE, None)
    assert drifted == pytest.approx(plain, abs=0.5)


def test_a_segment_is_what_obspys_ppsd_makes_of_it() -> None:
    rng = np.random.default_rng(7)
    samples = np.cumsum(rng.normal(size=30_000)) + rng.normal(size=30_000) * 30
    frequencies, levels = spectrum_db(samples, RATE, VELOCITY)
    trace = obspy.Trace(samples, {"sampling_rate": RATE, "station": "A", "channel": "HHZ"})
    response = {"poles": [], "zeros": [], "gain": 1.0, "sensitivity": 1e6}
    theirs = PPSD(trace.stats, response, ppsd_length=600, db_bins=(-400, 100, 1))
    theirs.add(obspy.Stream([trace]))
    periods = np.array(theirs.period_bin_centers)
    expected = np.interp(-np.log(frequencies), np.log(periods), theirs.psd_values[0])
    assert np.abs(levels - expected).max() < 0.6


def test_a_velocity_sensor_is_brought_to_acceleration() -> None:
    samples = np.random.default_rng(7).normal(size=30_000)
    frequencies, acceleration = spectrum_db(samples, RATE, ACCELERATION)
    _, velocity = spectrum_db(samples, RATE, VELOCITY)
    # The mean of the decibels over an octave is that of a frequency a little below its centre.
    expected = 20 * np.log10(2 * np.pi * frequencies)
    assert velocity - acceleration == pytest.approx(expected, abs=0.9)


def filled(sensitivity: Sensitivity | None, amplitude: float, hours: int = 1) -> NoiseMonitor:
    monitor = NoiseMonitor("XX.A..HNZ", RATE, sensitivity)
    rng = np.random.default_rng(8)
    for second in range(hours * 3600 + 60):
        counts = rng.normal(0, amplitude, int(RATE)).astype(np.int32)
        monitor.add(counts, second * NS)
    return monitor


def test_a_quiet_place_is_between_the_models_and_a_shaken_one_above() -> None:
    quiet, shaken = filled(ACCELERATION, 3), filled(ACCELERATION, 10_000)
    found = quiet.report()
    assert found is not None
    assert (found["above_high_db"], found["below_low_db"]) == (0, 0)
    assert found["verdict"] == "between the low and the high noise model"
    assert (found["segments"], found["completeness"], found["gaps"]) == (6, 1.0, 0)
    again = shaken.report()
    assert again is not None
    assert again["above_high_db"] > 20
    assert "above the high noise model" in again["verdict"]


def test_what_is_quieter_than_any_ground_is_dead_or_wrongly_stated() -> None:
    found = filled(Sensitivity(1e12, "m/s**2"), 10).report()
    assert found is not None
    assert found["below_low_db"] > 20
    assert "dead, or its sensitivity is wrong" in found["verdict"]


def test_without_a_sensitivity_counts_are_compared_with_nothing() -> None:
    found = filled(None, 10).report()
    assert found is not None
    assert found["unit"] == "dB counts²/Hz"
    assert found["above_high_db"] is None


def test_a_hole_begins_the_segment_anew_and_is_counted() -> None:
    monitor = NoiseMonitor("XX.A..HNZ", RATE, ACCELERATION)
    zeros = np.zeros(int(RATE), np.int32)
    for second in range(900):
        if second < 500 or second >= 560:
            monitor.add(zeros + second % 7, second * NS)
    assert monitor.report() is None
    for second in range(900, 1200):
        monitor.add(zeros + second % 7, second * NS)
    found = monitor.report()
    assert found is not None
    assert (found["segments"], found["gaps"], found["completeness"]) == (1, 1, 0.95)


def test_a_missing_sample_costs_its_segment_and_no_other() -> None:
    monitor = NoiseMonitor("XX.A..HNZ", RATE, ACCELERATION)
    samples = np.random.default_rng(9).normal(size=int(RATE) * 700)
    samples[10] = np.nan
    monitor.add(samples[: int(RATE)], 0)
    monitor.add(samples[int(RATE) :], NS)
    found = monitor.report()
    assert found is not None
    assert (found["segments"], found["gaps"]) == (1, 1)
