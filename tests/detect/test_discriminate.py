"""What is no earthquake is told from one, and named; what is one gets through."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from gateway.detect import SeismicDetector
from gateway.events import NS, Onset, Quality, Rejected
from tests.detect.signals import (
    START_NS,
    Trace,
    add,
    every,
    ground,
    knock,
    run,
    shaking,
    vehicle,
)

AT_S = 20
SEEDS = range(8)
Make = Callable[[float, int], Trace]


def judged(make: Make, rate_hz: float, lead_s: float = 0.0) -> Counter[str]:
    """How often which verdict was given on a disturbance at 20 s, over several noises."""
    verdicts: Counter[str] = Counter()
    for seed in SEEDS:
        samples = ground(30, rate_hz, seed, 1e6 if seed % 2 else 0.0)
        samples = add(samples, round((AT_S - lead_s) * rate_hz), make(rate_hz, seed))
        counts = np.round(samples)[None].astype(np.int32)
        detector = SeismicDetector(["XX.A..HHZ"], rate_hz)
        cuts = every(max(1, round(rate_hz / 4)), counts.shape[1])
        found = run(detector, counts, rate_hz, cuts)
        onsets = [e for e in found if isinstance(e, Onset)]
        verdicts.update({"onset"} if onsets else set())
        verdicts.update({e.reason for e in found if isinstance(e, Rejected)})
        verdicts.update({f"quality {e.kind}" for e in found if isinstance(e, Quality)})
        for event in onsets:
            assert event.time_ns > START_NS + 4 * NS, "before the station was armed"
    return verdicts


RATES = [20.0, 31.25, 50.0, 100.0, 250.0, 1000.0]


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("size", [1e4, -1e6, 8e6])
def test_a_spike_is_a_spike(size: float, rate_hz: float) -> None:
    verdicts = judged(lambda _rate, _seed: np.array([size]), rate_hz)
    assert not verdicts["onset"]
    if abs(size) > 1e5:
        assert verdicts["spike"] == verdicts["quality spike"] == len(SEEDS)


@pytest.mark.parametrize("rate_hz", RATES)
def test_a_pair_of_spikes_is_no_earthquake(rate_hz: float) -> None:
    assert not judged(lambda _rate, _seed: np.array([8e6, -3e6]), rate_hz)["onset"]


@pytest.mark.parametrize("rate_hz", [100.0, 250.0, 1000.0])
def test_a_spike_that_has_passed_an_anti_alias_filter_is_a_spike(rate_hz: float) -> None:
    ringing = 1e6 * np.sinc(0.9 * np.arange(-20, 21)) * np.hanning(41)
    verdicts = judged(lambda _rate, _seed: ringing, rate_hz)
    assert not verdicts["onset"]


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("size", [5e3, 1e5, -4e6])
def test_a_step_is_a_step(size: float, rate_hz: float) -> None:
    verdicts = judged(lambda rate, _seed: np.full(round(60 * rate), size), rate_hz)
    assert not verdicts["onset"]


@pytest.mark.parametrize("rate_hz", RATES)
def test_a_calibration_pulse_is_no_earthquake(rate_hz: float) -> None:
    """A step of current through the calibration coil of a broadband sensor."""
    verdicts = judged(
        lambda rate, _seed: 1e6 * np.exp(-np.arange(round(60 * rate)) / rate / 8.0), rate_hz
    )
    assert not verdicts["onset"]


@pytest.mark.parametrize("rate_hz", [100.0, 200.0])
def test_most_knocks_are_short(rate_hz: float) -> None:
    verdicts = judged(lambda rate, _seed: 2e4 * knock(rate, 20.0, 0.1), rate_hz)
    assert verdicts["short"] >= len(SEEDS) // 2
    assert verdicts["onset"] <= len(SEEDS) // 2


@pytest.mark.parametrize("rate_hz", [100.0, 200.0])
def test_most_who_walk_by_are_no_earthquake(rate_hz: float) -> None:
    def steps(rate: float, seed: int) -> Trace:
        trace = np.zeros(round(6 * rate))
        for k in range(9):
            trace = add(trace, round(0.55 * k * rate), 3e3 * knock(rate, 15.0 + seed, 0.08))
        return trace

    assert judged(steps, rate_hz)["onset"] <= len(SEEDS) // 2


def test_most_vehicles_are_emergent() -> None:
    verdicts = judged(lambda rate, seed: 1e3 * vehicle(rate, seed, 2.0), 100.0, lead_s=6.0)
    assert verdicts["emergent"] >= len(SEEDS) // 2


@pytest.mark.parametrize("rate_hz", [200.0, 250.0, 1000.0])
def test_mains_hum_is_outside_the_band(rate_hz: float) -> None:
    verdicts = judged(
        lambda rate, _seed: 5e3 * np.sin(2 * np.pi * 50.0 * np.arange(round(5 * rate)) / rate),
        rate_hz,
    )
    assert not verdicts["onset"]


EARTHQUAKES: dict[str, tuple[float, Make]] = {
    "just over the noise": (50.0, lambda rate, seed: 800.0 * shaking(rate, seed)),
    "strong": (20.0, lambda rate, seed: 3e3 * shaking(rate, seed)),
    "very strong": (20.0, lambda rate, seed: 3e6 * shaking(rate, seed)),
    "from afar": (
        50.0,
        lambda rate, seed: 2e3 * shaking(rate, seed, 0.3, 6.0, (0.5, 3.0)),
    ),
    "very small and near": (
        50.0,
        lambda rate, seed: 5e3 * shaking(rate, seed, 0.01, 0.6, (4.0, 25.0)),
    ),
}


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("kind", EARTHQUAKES)
def test_an_earthquake_gets_through(kind: str, rate_hz: float) -> None:
    least_hz, make = EARTHQUAKES[kind]
    if rate_hz < least_hz:
        pytest.skip("its band is above this sampling rate")
    assert judged(make, rate_hz)["onset"] >= len(SEEDS) - 1
