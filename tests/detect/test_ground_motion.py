"""Shaking is measured in physical units, however it comes in, and only what lasts counts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal
from scipy.integrate import cumulative_trapezoid

from gateway.detect import intensity
from gateway.detect.ground_motion import GroundMotionMeter
from gateway.detect.settings import Sensitivity, Unit
from gateway.events import NS, GroundMotion, parse_iso
from tests.detect.corpus import Recording, counts_per_unit, needs_corpus, read, references

Float = NDArray[np.float64]

ONSET_S = 30.0
DECLARED_S = 0.4
UNITS: list[Unit] = ["m/s", "m/s**2"]


def meter(
    rate_hz: float, unit: Unit = "m/s**2", orientations: str = "ENZ", counts: float = 1.0
) -> GroundMotionMeter:
    channels = [f"XX.S..HH{orientation}" for orientation in orientations]
    return GroundMotionMeter(channels, [Sensitivity(counts, unit)] * 3, rate_hz)


def time_ns(column: float, rate_hz: float) -> int:
    return round(column * NS / rate_hz)


def measure(
    under_test: GroundMotionMeter,
    samples: Float,
    rate_hz: float,
    onset_s: float = ONSET_S,
    cuts: Sequence[int] = (),
) -> list[GroundMotion]:
    """Everything that is said of one onset, declared 0.4 s after it, with packets cut anywhere."""
    declared = math.ceil((onset_s + DECLARED_S) * rate_hz)
    edges = sorted({0, declared + 1, samples.shape[1], *(c % samples.shape[1] for c in cuts)})
    said = []
    for start, stop in pairwise(edges):
        said += under_test.process(samples[:, start:stop], time_ns(start, rate_hz))
        if stop == declared + 1:
            said += under_test.begin(round(onset_s * NS), time_ns(declared, rate_hz))
    return said


def times(rate_hz: float, length_s: float = 60.0) -> Float:
    """Seconds since the onset."""
    return np.arange(int(length_s * rate_hz)) / rate_hz - ONSET_S


def noise(rate_hz: float, rms: float, length_s: float = 60.0) -> Float:
    return np.random.default_rng(7).normal(0.0, rms, (3, int(length_s * rate_hz)))


def burst(rate_hz: float, peak: float, frequency_hz: float = 3.0, length_s: float = 8.0) -> Float:
    """Shaking that comes and goes smoothly on all components, a fifth weaker on one."""
    t = times(rate_hz)
    wave = np.where(t > 0, t / 2 * np.exp(1 - t / 2), 0) * np.sin(2 * np.pi * frequency_hz * t)
    return peak * np.array([[1.0], [0.8], [1.0]]) * np.where(t < length_s, wave, 0)


# --- the numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("frequency_hz", [0.5, 1.0, 4.0])
def test_a_steady_sine_has_the_peaks_and_the_period_of_a_sine(
    unit: Unit, frequency_hz: float
) -> None:
    omega, pga, rate_hz = 2 * np.pi * frequency_hz, 0.8, 200.0
    t = times(rate_hz)
    wave = np.sin(omega * t) * (pga if unit == "m/s**2" else pga / omega)
    said = measure(meter(rate_hz, unit), np.array([0 * t, 0 * t, wave]), rate_hz)
    motion = said[30]
    assert motion.pga == pytest.approx(pga, rel=0.01)
    assert motion.pgv == pytest.approx(pga / omega, rel=0.02)
    assert motion.pgd == pytest.approx(pga / omega**2, rel=0.04)
    assert motion.pd == pytest.approx(pga / omega**2, rel=0.04)
    elapsed_s = (motion.time_ns - motion.since_ns) / NS
    assert motion.cav == pytest.approx(pga * 2 / np.pi * elapsed_s, rel=0.03)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("period_s", [0.5, 1.0, 2.0])
def test_tau_c_of_a_sine_is_its_period(unit: Unit, period_s: float) -> None:
    rate_hz, omega = 100.0, 2 * np.pi / period_s
    t = times(rate_hz)
    velocity = np.where(t > 0, np.sin(omega * t), 0)
    wave = velocity if unit == "m/s" else np.where(t > 0, omega * np.cos(omega * t), 0)
    (last,) = measure(meter(rate_hz, unit), np.array([0 * t, 0 * t, wave]), rate_hz)[-1:]
    assert last.tau_c == pytest.approx(period_s, rel=0.2)


def test_the_definitions_step_by_step_give_the_same_numbers() -> None:
    rate_hz = 100.0
    acceleration = burst(rate_hz, 2.0) + 0.3 * burst(rate_hz, 2.0, 0.7)
    said = measure(meter(rate_hz), acceleration, rate_hz)
    standard = signal.butter(2, [0.1, 10.0], "bandpass", fs=rate_hz, output="sos")
    high_pass = signal.butter(2, 0.075, "highpass", fs=rate_hz, output="sos")

    def integral(x: Float) -> Float:
        return np.asarray(cumulative_trapezoid(x, dx=1 / rate_hz, axis=-1, initial=0.0))

    filtered = signal.sosfilt(standard, acceleration)
    rate = signal.sosfilt(high_pass, integral(acceleration[2]))
    displacement = signal.sosfilt(high_pass, integral(rate))
    first, p_end = round(ONSET_S * rate_hz), round((ONSET_S + 3.0) * rate_hz) + 1
    last = said[-1]
    assert last.pga == pytest.approx(np.linalg.norm(filtered, axis=0).max(), rel=1e-8)
    assert last.pgv == pytest.approx(np.linalg.norm(integral(filtered), axis=0).max(), rel=1e-8)
    assert last.pd_max == pytest.approx(np.abs(displacement).max(), rel=1e-8)
    u, v = displacement[first:p_end], rate[first:p_end]
    assert last.pd == pytest.approx(np.abs(u).max(), rel=1e-8)
    assert last.tau_c == pytest.approx(2 * np.pi * math.sqrt(float(u @ u) / float(v @ v)), rel=1e-8)


@pytest.mark.parametrize("rate_hz", [50.0, 100.0, 200.0, 500.0])
def test_both_kinds_of_sensor_agree_on_the_same_ground(rate_hz: float) -> None:
    velocity = burst(rate_hz, 0.05, 2.0)
    acceleration = np.gradient(velocity, 1 / rate_hz, axis=1)
    (one,) = measure(meter(rate_hz, "m/s"), velocity, rate_hz)[-1:]
    (other,) = measure(meter(rate_hz, "m/s**2"), acceleration, rate_hz)[-1:]
    for name in ("pga", "pgv", "pgd", "pd", "tau_c", "cav"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=0.03), name
    assert abs(one.intensity - other.intensity) <= 0.1
    for scale in ("jma", "mmi"):
        assert getattr(one, scale)() == pytest.approx(getattr(other, scale)(), abs=0.11), scale


def test_an_offset_of_millions_of_counts_changes_nothing() -> None:
    counts, rate_hz = 1e5, 100.0
    samples = np.round(counts * (burst(rate_hz, 1.0) + noise(rate_hz, 1e-3)))
    with_offset = measure(meter(rate_hz, counts=counts), samples + 8e6, rate_hz)
    without = measure(meter(rate_hz, counts=counts), samples, rate_hz)
    assert with_offset[-1].pgd == pytest.approx(without[-1].pgd, rel=1e-6)
    assert with_offset[-1].intensity == without[-1].intensity


def test_a_k_net_accelerogram_reaches_the_peak_that_its_header_states() -> None:
    path = Path(obspy.__file__).parent / "io" / "nied" / "tests" / "data" / "test.knet"
    trace = obspy.read(str(path))[0]
    rate_hz = float(trace.stats.sampling_rate)
    header_mps2 = trace.stats.knet.accmax / 100
    under_test = GroundMotionMeter(
        ["BO.AKT013..HNE"], [Sensitivity(1 / trace.stats.calib, "m/s**2")], rate_hz
    )
    (last,) = measure(under_test, trace.data[None, :].astype(float), rate_hz, 9.2)[-1:]
    # the header's peak is of the whole band, the intensity's of 0.1–10 Hz
    assert 0.5 * header_mps2 < last.pga <= header_mps2
    assert (last.components, last.standard) == (1, False)


# --- when and how it speaks ---------------------------------------------------------------------


def test_values_come_every_tenth_of_a_second_from_the_declaration_on() -> None:
    said = measure(meter(100.0), burst(100.0, 1.0), 100.0)
    since_onset = [m.time_ns - round(ONSET_S * NS) for m in said]
    assert since_onset == [NS // 10 * k for k in range(4, 4 + len(said))]
    assert [m.whole_second for m in said[:-1]] == [t % NS == 0 for t in since_onset[:-1]]
    assert {m.since_ns for m in said} == {round(ONSET_S * NS)}


def test_the_value_of_the_declaring_sample_is_given_with_the_declaration() -> None:
    under_test, rate_hz = meter(100.0), 100.0
    under_test.process(burst(rate_hz, 1.0)[:, :3041], 0)
    (motion,) = under_test.begin(30 * NS, time_ns(3040, rate_hz))
    assert motion.time_ns == round(30.4 * NS)


def test_it_ends_when_the_shaking_has_and_says_so_once() -> None:
    under_test = meter(100.0)
    said = measure(under_test, burst(100.0, 1.0), 100.0)
    assert [m.final for m in said] == [False] * (len(said) - 1) + [True]
    assert not under_test.active
    elapsed_s = (said[-1].time_ns - said[-1].since_ns) / NS
    assert 20.0 <= elapsed_s <= 29.0
    assert under_test.process(burst(100.0, 1.0), 60 * NS) == []


def test_shaking_that_never_ends_is_given_up_after_ten_minutes() -> None:
    rate_hz = 20.0
    under_test = meter(rate_hz)
    t = np.arange(int(660 * rate_hz)) / rate_hz
    hum = np.where(t > ONSET_S, np.sin(2 * np.pi * 2.5 * t), 0) * np.ones((3, 1))
    said = measure(under_test, hum, rate_hz)
    assert (said[-1].time_ns - said[-1].since_ns) / NS == 600.0
    assert said[-1].final


def close(one: Sequence[GroundMotion], other: Sequence[GroundMotion]) -> bool:
    return len(one) == len(other) and all(
        x == pytest.approx(y, rel=1e-9, abs=0) if isinstance(x, float) else x == y
        for a, b in zip(one, other, strict=True)
        for x, y in zip(values(a), values(b), strict=True)
    )


def values(motion: GroundMotion) -> list[object]:
    found = [getattr(motion, spec.name) for spec in fields(motion)]
    return [value() if callable(value) else value for value in found]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 10**6), max_size=12),
    st.sampled_from([20.0, 31.25, 100.0]),
    st.sampled_from(UNITS),
)
def test_packets_may_be_cut_anywhere(cuts: list[int], rate_hz: float, unit: Unit) -> None:
    samples = 1e5 * (burst(rate_hz, 1.0) + noise(rate_hz, 1e-3)) + 3e5
    samples[1, int(20 * rate_hz) : int(20.05 * rate_hz) + 1] = np.nan
    whole = measure(meter(rate_hz, unit, counts=1e5), samples, rate_hz)
    assert close(measure(meter(rate_hz, unit, counts=1e5), samples, rate_hz, cuts=cuts), whole)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.5, 20.0), st.sampled_from([31.25, 100.0]))
def test_a_value_depends_on_no_later_sample(known_s: float, rate_hz: float) -> None:
    samples = burst(rate_hz, 1.0) + noise(rate_hz, 1e-3)
    known = math.floor((ONSET_S + known_s) * rate_hz) + 1
    other = samples.copy()
    other[:, known:] *= -7.0
    until_ns = time_ns(known - 1, rate_hz)

    def said(x: Float) -> list[GroundMotion]:
        return [m for m in measure(meter(rate_hz), x, rate_hz) if m.time_ns <= until_ns]

    assert close(said(samples), said(other))


# --- P and S ------------------------------------------------------------------------------------


def p_then_s(rate_hz: float, p: float, s: float, s_after_s: float) -> Float:
    """A P wave on the vertical, then S on the horizontals, both of 1 Hz and half of that on."""
    t = times(rate_hz)
    wave = np.sin(2 * np.pi * t) + 0.3 * np.sin(2 * np.pi * 3 * t)
    p_wave = np.where((t > 0) & (t < 15), p * wave, 0)
    s_wave = np.where((t > s_after_s) & (t < 15), s * wave, 0)
    return np.array([s_wave + 0.2 * p_wave, s_wave + 0.2 * p_wave, p_wave + 0.3 * s_wave])


@pytest.mark.parametrize(
    ("s_after_s", "frozen_s"), [(1.5, 1.5), (2.0, 2.0), (8.0, 3.0)], ids=["near", "mid", "far"]
)
def test_pd_and_tau_c_are_final_at_three_seconds_or_at_s(s_after_s: float, frozen_s: float) -> None:
    said = measure(meter(100.0), p_then_s(100.0, 0.3, 2.0, s_after_s), 100.0)
    final, before_s = said[-1], said[round((frozen_s - 0.5) * 10)]
    at = [m for m in said if m.time_ns - m.since_ns <= frozen_s * NS]
    assert final.pd is not None
    assert final.pd_max is not None
    assert before_s.pd is not None
    assert before_s.pd * 0.8 <= final.pd <= (at[-1].pd or 0.0) * 1.1
    assert final.pd_max > 1.2 * final.pd
    afterwards = {(m.pd, m.tau_c) for m in said if m.time_ns - m.since_ns >= 3 * NS}
    assert len(afterwards) == 1


def test_an_s_wave_that_is_taken_for_an_onset_foretells_nothing() -> None:
    t = times(100.0)
    s_wave = np.where((t > 0) & (t < 10), np.sin(2 * np.pi * 2 * t), 0)
    said = measure(meter(100.0), np.array([s_wave, s_wave, 0.3 * s_wave]), 100.0)
    assert {(m.pd, m.tau_c, m.predicted) for m in said} == {(None, None, None)}
    assert said[-1].intensity > 7.0


@pytest.mark.parametrize(
    ("peak_mps2", "noise_mps2", "foretells", "why"),
    [
        (1.0, 1e-5, True, "a clear displacement"),
        (0.05, 1e-5, False, "a displacement below 0.05 cm"),
        (1.0, 0.1, False, "a displacement within the sensor's own"),
    ],
)
def test_only_a_clear_displacement_foretells(
    peak_mps2: float, noise_mps2: float, foretells: bool, why: str
) -> None:
    samples = burst(100.0, peak_mps2, 2.0) * [[0.2], [0.2], [1.0]] + noise(100.0, noise_mps2)
    (last,) = measure(meter(100.0), samples, 100.0)[-1:]
    assert (last.predicted is not None) is foretells, why
    assert (last.tau_c is not None) is foretells, why
    assert last.pd is not None


def test_an_onset_that_nobody_felt_gives_way_to_the_earthquake_that_follows() -> None:
    rate_hz = 100.0
    samples = p_then_s(rate_hz, 0.3, 2.0, 8.0) + noise(rate_hz, 1e-5)
    under_test = meter(rate_hz)
    knock_s, said = ONSET_S - 9.0, []
    declared = round((knock_s + 0.4) * rate_hz)
    said += under_test.process(samples[:, : declared + 1], 0)
    said += under_test.begin(round(knock_s * NS), time_ns(declared, rate_hz))
    again = round((ONSET_S + 0.4) * rate_hz)
    said += under_test.process(samples[:, declared + 1 : again + 1], time_ns(declared + 1, rate_hz))
    said += under_test.begin(round(ONSET_S * NS), time_ns(again, rate_hz))
    felt = again + 300
    said += under_test.process(samples[:, again + 1 : felt + 1], time_ns(again + 1, rate_hz))
    assert said[-1].sustained
    assert said[-1].since_ns == round(ONSET_S * NS)
    assert under_test.begin(time_ns(felt - 10, rate_hz), time_ns(felt, rate_hz)) == []
    (motion, *_) = under_test.process(samples[:, felt + 1 :], time_ns(felt + 1, rate_hz))
    assert motion.since_ns == round(ONSET_S * NS)


# --- what lasts, and what does not --------------------------------------------------------------


def decaying(t: Float, frequency_hz: float, decay_s: float) -> Float:
    return np.where(t >= 0, np.sin(2 * np.pi * frequency_hz * t) * np.exp(-t.clip(0) / decay_s), 0)


JOLTS: dict[str, Callable[[Float], NDArray[Any]]] = {
    "spike of one sample": lambda t: 20.0 * (np.abs(t) < 0.5 * (t[1] - t[0])),
    "step of the offset": lambda t: 20.0 * (t >= 0),
    "pulse of 50 ms": lambda t: 20.0 * ((t >= 0) & (t < 0.05)),
    "two spikes": lambda t: 20.0 * (np.abs(t - np.array([[0.0], [0.4]])) < 5e-4).any(axis=0),
    "calibration step of 0.5 s": lambda t: 20.0 * ((t >= 0) & (t < 0.5)),
    "slow decay of a step": lambda t: 20.0 * (t >= 0) * np.exp(-t.clip(0) / 5),
    "knock on the housing": lambda t: 2.0 * decaying(t, 30.0, 0.05),
    "footstep": lambda t: 2.0 * decaying(t, 15.0, 0.1),
    "tremor below the felt": lambda t: 0.01 * decaying(t, 5.0, 5.0),
    "distant earthquake": lambda t: 0.02 * decaying(t, 0.1, 60.0),
}


@pytest.mark.parametrize("rate_hz", [31.25, 50.0, 100.0, 200.0, 1000.0])
@pytest.mark.parametrize("jolt", JOLTS, ids=str)
def test_a_jolt_is_not_sustained_even_on_all_components(jolt: str, rate_hz: float) -> None:
    shape = np.array([[1.0], [0.7], [0.5]]) * JOLTS[jolt](times(rate_hz))
    said = measure(meter(rate_hz), shape + noise(rate_hz, 1e-4), rate_hz)
    assert said
    assert not any(m.sustained for m in said)


@pytest.mark.parametrize(
    ("scale", "sustained", "why"),
    [
        ((1.0, 1.0, 1.0), True, "on all three"),
        ((0.0, 0.3, 1.0), True, "on two, one of them weaker"),
        ((0.0, 0.0, 1.0), False, "on one alone"),
    ],
)
def test_felt_shaking_is_sustained_on_two_components(
    scale: tuple[float, ...], sustained: bool, why: str
) -> None:
    samples = burst(100.0, 0.3) * np.array(scale)[:, None] + noise(100.0, 1e-4)
    said = measure(meter(100.0), samples, 100.0)
    assert said[-1].sustained is sustained, why
    assert not any(m.sustained for m in said if m.time_ns - m.since_ns < NS // 2)


def test_noise_of_the_sensor_itself_is_not_sustained_shaking() -> None:
    said = measure(meter(100.0), noise(100.0, 0.05), 100.0)
    assert not any(m.sustained for m in said)


# --- holes in the data --------------------------------------------------------------------------


def test_a_hole_of_a_tenth_of_a_second_is_bridged() -> None:
    rate_hz = 100.0
    samples = burst(rate_hz, 1.0) + 1e3
    holed = samples.copy()
    holed[:, 3600:3610] = np.nan
    (whole,) = measure(meter(rate_hz), samples, rate_hz)[-1:]
    (bridged,) = measure(meter(rate_hz), holed, rate_hz)[-1:]
    assert bridged.components == 3
    assert bridged.pga == pytest.approx(whole.pga, rel=0.05)


def test_a_component_with_a_longer_hole_is_no_longer_counted() -> None:
    samples = burst(100.0, 1.0)
    samples[0, 3300:3350] = np.nan
    said = measure(meter(100.0), samples, 100.0)
    assert {m.components for m in said if m.time_ns < 33 * NS} == {3}
    assert (said[-1].components, said[-1].standard) == (2, False)


@pytest.mark.parametrize("new_offset", [0.0, 8.0e6])
@pytest.mark.parametrize("how", ["missing samples", "a jump in time"])
def test_no_edge_of_a_gap_is_shaking(how: str, new_offset: float) -> None:
    counts, rate_hz, under_test = 1e5, 100.0, meter(100.0, counts=1e5)
    samples = counts * noise(rate_hz, 1e-3)
    samples[:, 3000:] += new_offset
    said = under_test.process(samples[:, :2800], 0)
    if how == "missing samples":
        samples[:, 2800:3000] = np.nan
        said += under_test.process(samples[:, 2800:3040], 28 * NS)
    else:
        said += under_test.process(samples[:, 3000:3040], 30 * NS)
    said += under_test.begin(30 * NS, time_ns(3039, rate_hz))
    said += under_test.process(samples[:, 3040:], time_ns(3040, rate_hz))
    assert said
    assert max(m.intensity for m in said) == 1.0
    assert not any(m.sustained for m in said)
    assert all(m.predicted is None for m in said)


@pytest.mark.parametrize(("lost_s", "goes_on"), [(5, True), (60, False)])
def test_no_value_is_given_for_a_time_that_was_lost(lost_s: int, goes_on: bool) -> None:
    rate_hz, under_test = 100.0, meter(100.0)
    samples, resumed_ns = burst(rate_hz, 1.0), (33 + lost_s) * NS
    before = measure(under_test, samples[:, :3300], rate_hz)
    after = under_test.process(samples[:, 3300:3500], resumed_ns)
    assert [m.time_ns for m in before] == [3 * 10**10 + 10**8 * k for k in range(4, 30)]
    assert [m.time_ns for m in after[:2]] == [resumed_ns, resumed_ns + 10**8][: 2 if goes_on else 1]
    assert under_test.active is goes_on
    assert after[-1].final is not goes_on
    assert after[-1].pga == before[-1].pga


def test_a_clock_that_falls_back_ends_the_measurement() -> None:
    under_test = meter(100.0)
    under_test.process(burst(100.0, 1.0)[:, :3041], 100 * NS)
    under_test.begin(130 * NS, 100 * NS + time_ns(3040, 100.0))
    assert under_test.active
    assert under_test.process(burst(100.0, 1.0)[:, 3041:], 0) == []
    assert not under_test.active


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308])
def test_no_value_is_too_wild(value: float) -> None:
    samples = burst(100.0, 1.0)
    samples[:, 3100] = value
    for motion in measure(meter(100.0), samples, 100.0):
        assert 1.0 <= motion.intensity <= 12.0


def test_an_onset_before_any_sample_begins_nothing() -> None:
    under_test = meter(100.0)
    assert under_test.begin(0, 0) == []
    assert not under_test.active


@pytest.mark.parametrize(
    ("orientations", "sensitivities", "rate_hz"),
    [
        ("ZNE", [Sensitivity(1.0, "m/s")] * 2, 100.0),
        ("ZN", [Sensitivity(1.0, "m/s"), Sensitivity(1.0, "m/s**2")], 100.0),
        ("", [], 100.0),
        ("Z", [Sensitivity(1.0, "m/s")], 1.0),
        ("Z", [Sensitivity(1.0, "m/s")], math.nan),
    ],
)
def test_a_sensor_that_cannot_be_measured_is_refused(
    orientations: str, sensitivities: list[Sensitivity], rate_hz: float
) -> None:
    with pytest.raises(ValueError, match=r"expected|need"):
        GroundMotionMeter([f"XX.S..HH{o}" for o in orientations], sensitivities, rate_hz)


# --- other scales -------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["in order", "backwards", "only the last"])
def test_other_scales_say_the_same_whenever_they_are_asked(asked: str) -> None:
    rate_hz = 100.0
    shaking = burst(rate_hz, 2.0) + noise(rate_hz, 1e-4)
    at_once = [
        (motion.jma(), motion.mmi())
        for motion in measure(meter(rate_hz), shaking, rate_hz, cuts=range(0, 6000, 25))
    ]
    later = measure(meter(rate_hz), shaking, rate_hz, cuts=range(0, 6000, 25))
    order = {
        "in order": range(len(later)),
        "backwards": range(len(later) - 1, -1, -1),
        "only the last": [len(later) - 1],
    }[asked]
    assert all((later[at].jma(), later[at].mmi()) == at_once[at] for at in order)
    assert at_once[-1] == (max(jma for jma, _ in at_once if jma is not None), at_once[-1][1])


def test_another_measurement_changes_nothing_that_was_said() -> None:
    rate_hz = 100.0
    shaking = noise(rate_hz, 1e-4) + burst(rate_hz, 2.0) * (times(rate_hz) > 4.0)
    edge = round((ONSET_S + 4.0) * rate_hz)
    under_test = meter(rate_hz)
    unfelt = measure(under_test, shaking[:, :edge], rate_hz)[-1]
    under_test.begin(round((ONSET_S + 3.9) * NS), time_ns(edge - 1, rate_hz))
    felt = under_test.process(shaking[:, edge:], time_ns(edge, rate_hz))[-1]
    assert felt.jma() == pytest.approx(5.0, abs=1.0)
    assert unfelt.jma() == measure(meter(rate_hz), shaking[:, :edge], rate_hz)[-1].jma()


def test_a_sensor_says_on_other_scales_what_it_can() -> None:
    slow = measure(meter(20.0), burst(20.0, 2.0), 20.0)[-1]
    assert slow.jma() is None
    assert slow.mmi() == pytest.approx(6.8, abs=1.0)
    vertical = GroundMotionMeter(["XX.S..HHZ"], [Sensitivity(1.0, "m/s**2")], 100.0)
    alone = measure(vertical, burst(100.0, 2.0)[2:], 100.0)[-1]
    assert alone.jma() == pytest.approx(4.4, abs=1.0)
    assert alone.mmi() is None
    assert not alone.standard


# --- recordings ---------------------------------------------------------------------------------


def measure_recording(
    recording: Recording, sensitivities: Sequence[Sensitivity], onset_ns: Sequence[int]
) -> list[GroundMotion]:
    """Every onset declared 0.4 s after its time, in packets of a second."""
    under_test = GroundMotionMeter(recording.channels, sensitivities, recording.rate_hz)
    said, n = [], recording.counts.shape[1]
    declared = [
        math.ceil((t - recording.start_ns + 0.4 * NS) * recording.rate_hz / NS) for t in onset_ns
    ]
    edges = sorted({*range(0, n, round(recording.rate_hz)), *(d + 1 for d in declared), n})
    for at, stop in pairwise(e for e in edges if e <= n):
        said += under_test.process(recording.counts[:, at:stop], recording.time_ns(at))
        for onset, column in zip(onset_ns, declared, strict=True):
            if column + 1 == stop:
                said += under_test.begin(onset, recording.time_ns(column))
    return said


@needs_corpus
@pytest.mark.parametrize(
    ("station", "degree"),
    [
        ("1765", 9.7),
        ("68150", 9.1),
        ("1759", 7.8),
        ("1764", 7.2),
        ("1743", 6.3),
        ("1768", 5.8),
        ("1737", 4.3),
    ],
)
def test_the_napa_earthquake_is_as_strong_as_it_was(station: str, degree: float) -> None:
    said = napa(station)
    assert said[-1].intensity == pytest.approx(degree, abs=0.15)
    assert said[-1].standard


def napa(station: str) -> list[GroundMotion]:
    (recording,) = read("d08", station)
    picks = [p["time"] for p in references("d08") if p["channel"].split(".")[1] == station]
    sensitivities = [Sensitivity(counts_per_unit(c), "m/s**2") for c in recording.channels]
    return measure_recording(recording, sensitivities, [parse_iso(picks[0])])


# Peak velocity in cm/s of the larger horizontal and the intensity that ShakeMap gave the station
# by Wald et al. (1999): event nc72282711, version 38 of its station list, U.S. Geological Survey.
SHAKEMAP = [
    ("1765", 86.87, 9.1),
    ("68150", 54.77, 8.4),
    ("1759", 17.07, 6.6),
    ("1764", 15.09, 5.9),
]


@needs_corpus
@pytest.mark.parametrize(("station", "pgv_cmps", "published"), SHAKEMAP)
def test_the_napa_earthquake_has_shakemaps_mmi(
    station: str, pgv_cmps: float, published: float
) -> None:
    mmi = napa(station)[-1].mmi()
    assert mmi == pytest.approx(intensity.modified_mercalli(pgv_cmps / 100), abs=0.31)
    assert mmi == pytest.approx(published, abs=0.63)  # the relation's own standard deviation


def red(motion: GroundMotion) -> bool:
    """What the shipped earthquake plan calls red."""
    foretold = (
        (motion.predicted or 0.0) >= 7.0
        and (motion.pd or 0.0) >= 0.005
        and (motion.tau_c or 0.0) >= 1.0
    )
    return motion.sustained and (motion.intensity >= 7.0 or foretold)


@needs_corpus
@pytest.mark.parametrize(
    ("station", "within_s"),
    [("1765", 1.5), ("68150", 1.5), ("1759", 3.5), ("1764", 6.5), ("1743", None), ("1737", None)],
)
def test_the_napa_earthquake_is_red_in_time_where_it_was_destructive(
    station: str, within_s: float | None
) -> None:
    reds = [(m.time_ns - m.since_ns) / NS for m in napa(station) if red(m)]
    assert (min(reds) <= within_s) if within_s else not reds


@needs_corpus
@pytest.mark.parametrize("name", ["d13", "d14", "d15", "d16", "d17", "d20"])
def test_a_record_without_an_earthquake_raises_nothing_whenever_an_onset_is_declared(
    name: str,
) -> None:
    for whole in read(name):
        assumed = Sensitivity(4.2e5, "m/s**2") if name == "d16" else Sensitivity(6e8, "m/s")
        # the shortest measurement lasts 20 s, so that these leave nothing out
        every, ten_minutes = round(20 * whole.rate_hz), round(600 * whole.rate_hz)
        recording = replace(whole, counts=whole.counts[:, :ten_minutes])
        columns = range(every // 4, recording.counts.shape[1], every)
        onsets = [recording.time_ns(column) for column in columns]
        said = measure_recording(recording, [assumed] * len(recording.channels), onsets)
        assert not any(m.sustained and max(m.intensity, m.predicted or 0) >= 3.0 for m in said)
