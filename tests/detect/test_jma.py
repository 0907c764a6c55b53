"""JMA intensity as it goes on is that of the whole record by JMA's definition."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import obspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal

from gateway.detect.filters import BlockFilter, StateSpace, butterworth
from gateway.detect.jma import LOWEST_RATE_HZ, JmaScale, Shaken, weighting
from tests.detect.corpus import counts_per_unit, needs_corpus, read

Float = NDArray[np.float64]

NAPA = Path(__file__).parents[2] / "gateway/drill/data/napa_2014_NP.1765.mseed"
NAPA_COUNTS_PER_MPS2 = 426141.261
RATES_HZ = [31.25, 50.0, 80.0, 100.0, 200.0, 500.0]


def band(rate_hz: float) -> tuple[tuple[float, float, float, float, float], ...]:
    """The band-pass of GB/T 17742, as the meter has it."""
    return butterworth(2, 0.1, min(10.0, 0.45 * rate_hz), rate_hz)


def reached(shaken: Shaken) -> float:
    """Before it is cut to a decimal."""
    return math.log10(shaken.largest[0]) + 4.94


def going_on(acceleration: Float, rate_hz: float, cuts: Sequence[int] = ()) -> Shaken:
    """What has been seen at the end of (3, n) of m/s²."""
    filtered = BlockFilter(StateSpace.of(band(rate_hz)), len(acceleration)).process(acceleration)[0]
    scale = JmaScale(band(rate_hz), len(acceleration), rate_hz)
    shaken, n = scale.still, acceleration.shape[1]
    for start, stop in pairwise(sorted({0, n, *(cut % n for cut in cuts)})):
        shaken = scale.after(shaken, filtered[:, start:stop])
    return shaken


def by_definition(acceleration: Float, rate_hz: float) -> float:
    """The notice's filter on the whole record, and its value for 0.3 s."""
    n = acceleration.shape[1]
    padded = 2 ** math.ceil(math.log2(2 * n))
    frequency = np.fft.rfftfreq(padded, 1 / rate_hz)
    frequency[0] = 1.0
    y2 = (frequency / 10) ** 2
    terms = (1, 0.694, 0.241, 0.0557, 0.009664, 0.00134, 0.000155)
    weight = np.sqrt((1 - np.exp(-((frequency / 0.5) ** 3))) / frequency)
    weight /= np.sqrt(sum(term * y2**power for power, term in enumerate(terms)))
    weight[0] = 0.0
    gal = 100 * (acceleration - acceleration[:, : int(rate_hz)].mean(axis=1, keepdims=True))
    weighted = np.fft.irfft(np.fft.rfft(gal, padded) * weight, padded)[:, :n]
    length = np.sort(np.linalg.norm(weighted, axis=0))
    return float(2 * np.log10(length[-round(0.3 * rate_hz)]) + 0.94)


def burst(rate_hz: float, frequency_hz: float) -> Float:
    """Shaking that comes and goes, in another phase on each component."""
    t = np.arange(int(40 * rate_hz)) / rate_hz - 10
    rise = np.where(t > 0, t / 2 * np.exp(1 - t / 2), 0)
    return np.array([rise * np.sin(2 * np.pi * frequency_hz * t + phase) for phase in (0, 1, 2)])


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("frequency_hz", [0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0])
def test_a_burst_is_as_strong_as_by_definition(frequency_hz: float, rate_hz: float) -> None:
    acceleration = burst(rate_hz, frequency_hz)
    exact = by_definition(acceleration, rate_hz)
    assert reached(going_on(acceleration, rate_hz)) == pytest.approx(exact, abs=0.1)


def test_half_the_nyquist_frequency_is_what_a_rate_can_hold() -> None:
    acceleration = burst(50.0, 12.0)
    exact = by_definition(acceleration, 50.0)
    assert reached(going_on(acceleration, 50.0)) == pytest.approx(exact, abs=0.2)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_broad_shaking_is_as_strong_as_by_definition(rate_hz: float) -> None:
    """Noise up to 0.4 of the rate that grows and fades: more high frequencies than the ground."""
    random = np.random.default_rng(3).normal(size=(3, int(60 * rate_hz)))
    t = np.arange(random.shape[1]) / rate_hz - 20
    sos = signal.butter(4, 0.4 * rate_hz, fs=rate_hz, output="sos")
    shaking = signal.sosfilt(sos, random) * np.where(t > 0, t * np.exp(-t / 4), 0)
    exact = by_definition(shaking, rate_hz)
    assert reached(going_on(shaking, rate_hz)) == pytest.approx(exact, abs=0.1)


def at_rate(acceleration: Float, from_hz: float, to_hz: float) -> Float:
    level = acceleration[:, : int(from_hz)].mean(axis=1, keepdims=True)
    resampled = signal.resample_poly(acceleration - level, 4, round(4 * from_hz / to_hz), axis=1)
    return np.asarray(resampled)


@pytest.mark.parametrize("rate_hz", [31.25, 50.0, 100.0, 200.0])
def test_the_napa_earthquake_is_as_strong_as_by_definition(rate_hz: float) -> None:
    stream = obspy.read(str(NAPA)).sort()
    counts = np.array([trace.data for trace in stream], dtype=np.float64)
    acceleration = at_rate(counts / NAPA_COUNTS_PER_MPS2, 200.0, rate_hz)
    shaken = going_on(acceleration, rate_hz)
    assert reached(shaken) == pytest.approx(by_definition(acceleration, rate_hz), abs=0.1)
    assert shaken.intensity == 6.0


@needs_corpus
@pytest.mark.parametrize("rate_hz", [31.25, 50.0, 100.0, 200.0])
@pytest.mark.parametrize(
    "station", ["1765", "68150", "1759", "1764", "1743", "1768", "1737"]
)  # 6.1 to 2.9
def test_every_station_of_napa_is_within_a_tenth(station: str, rate_hz: float) -> None:
    (recording,) = read("d08", station)
    counts = np.nan_to_num(recording.counts)
    acceleration = counts / np.array([[counts_per_unit(c)] for c in recording.channels])
    acceleration = at_rate(acceleration, recording.rate_hz, rate_hz)
    exact = by_definition(acceleration, rate_hz)
    assert reached(going_on(acceleration, rate_hz)) == pytest.approx(exact, abs=0.1)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 10**6), max_size=12), st.sampled_from(RATES_HZ))
def test_pieces_may_be_cut_anywhere(cuts: list[int], rate_hz: float) -> None:
    acceleration = burst(rate_hz, 3.0)
    whole, pieces = going_on(acceleration, rate_hz), going_on(acceleration, rate_hz, cuts)
    assert np.sort(pieces.largest) == pytest.approx(np.sort(whole.largest), rel=1e-9)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_what_is_kept_does_not_grow(rate_hz: float) -> None:
    assert len(going_on(burst(rate_hz, 3.0), rate_hz).largest) == round(0.3 * rate_hz)


@pytest.mark.parametrize(
    ("samples", "intensity"), [(0, None), (29, None), (30, 1.0), (31, 1.0)], ids=str
)
def test_a_value_is_what_is_reached_for_three_tenths_of_a_second(
    samples: int, intensity: float | None
) -> None:
    a2_m2ps4 = 10 ** (1.0 - 4.94)
    largest = np.sort(np.array([a2_m2ps4] * samples + [0.0] * (30 - samples)))[-30:]
    assert Shaken(np.zeros((3, 12)), largest).intensity == intensity


@pytest.mark.parametrize(
    ("exact", "cut"), [(4.996, 5.0), (4.994, 4.9), (4.95, 4.9), (1.104, 1.1), (6.0501, 6.0)]
)
def test_the_third_decimal_is_rounded_and_the_second_cut_off(exact: float, cut: float) -> None:
    assert Shaken(np.zeros((3, 12)), np.array([10 ** (exact - 4.94)])).intensity == cut


def test_an_offset_weighs_nothing() -> None:
    acceleration = burst(100.0, 2.0)
    shifted = going_on(acceleration + 9.81, 100.0)
    assert reached(shifted) == pytest.approx(reached(going_on(acceleration, 100.0)), abs=1e-9)


def test_a_rate_too_low_for_the_band_is_refused() -> None:
    rate_hz = LOWEST_RATE_HZ - 0.1
    with pytest.raises(ValueError, match=r"expected at least 26\.7 Hz"):
        weighting(band(rate_hz), rate_hz)


@pytest.mark.parametrize("rate_hz", [LOWEST_RATE_HZ, 59.0, 60.1, 77.0, 89.0, 90.1, 125.0, 1000.0])
def test_the_recursions_fade_at_every_rate(rate_hz: float) -> None:
    for _, _, _, a1, a2 in weighting(band(rate_hz), rate_hz):
        assert max(abs(np.roots([1.0, a1, a2]))) < 1.0
