"""Holes, doubles and broken channels: bridged or stated, never an earthquake."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.detect import SeismicDetector
from gateway.detect.quality import StationNoise, clipped
from gateway.events import NS, Candidate, ChannelReport, Decision, Onset, Quality, Rejected
from tests.detect.signals import START_NS, Trace, add, every, ground, run, shaking

RATE = 100.0
CHANNELS = ("XX.A..HHZ", "XX.B..HHZ", "XX.C..HHZ")
STEP_NS = round(NS / RATE)


def three(seconds: float = 30.0) -> Trace:
    return np.round([ground(seconds, RATE, seed, 1e6 * seed) for seed in range(3)])


def detector() -> SeismicDetector:
    return SeismicDetector(CHANNELS, RATE)


def kinds(decisions: Sequence[Decision]) -> list[tuple[str, str]]:
    return [(d.channel, d.kind) for d in decisions if isinstance(d, Quality)]


def second(index: float) -> int:
    return START_NS + round(index * NS)


@settings(max_examples=15, deadline=None)
@example(holes=[(0, 0, 1), (0, 1, 10)], length=5)
@given(
    holes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2970), st.integers(1, 10))),
    length=st.integers(5, 300),
)
def test_short_holes_are_bridged_and_trigger_nothing(
    holes: list[tuple[int, int, int]], length: int
) -> None:
    samples = three()
    for row, at, missing in holes:
        samples[row, at : at + missing] = np.nan
    decisions = run(detector(), samples, RATE, every(length, samples.shape[1]))
    assert not [d for d in decisions if isinstance(d, Onset | Rejected | Candidate)]
    longest = max(_longest(np.isnan(row)) for row in samples)
    assert ("gap" in {kind for _, kind in kinds(decisions)}) == (longest > 10)


def _longest(mask: np.ndarray) -> int:
    """The longest run, but for one at the beginning: a row that begins late has no gap."""
    best = run_length = 0
    for value in mask[np.argmin(mask) :].tolist():
        run_length = run_length + 1 if value else 0
        best = max(best, run_length)
    return best


@pytest.mark.parametrize("missing", [11, 50, 100, 700])
@pytest.mark.parametrize("length", [1, 25, 3000])
def test_a_long_hole_is_stated_and_restarts_its_row_alone(missing: int, length: int) -> None:
    samples = three()
    samples[1, 1500 : 1500 + missing] = np.nan
    decisions = run(detector(), samples, RATE, every(length, 3000))
    assert kinds(decisions) == [(CHANNELS[1], "gap"), (CHANNELS[1], "recovered")]
    gap, back = (d for d in decisions if isinstance(d, Quality))
    assert gap.time_ns == second(15.0)
    assert gap.decided_ns == second(15.1)
    assert back.time_ns == second(15.0 + missing / RATE)
    assert back.detail == f"gap of {missing / RATE:.2f} s"
    assert not [d for d in decisions if isinstance(d, Onset | Rejected)]


def test_no_row_that_has_restarted_is_armed_before_four_seconds() -> None:
    """The same motion on all rows 3 s after a hole in one of them."""
    samples = three()
    samples[1, 1500:1600] = np.nan
    for row in range(3):
        samples[row] = add(samples[row], 1900, 1e4 * shaking(RATE, row))
    decisions = run(detector(), samples, RATE, every(25, 3000))
    assert {d.channel for d in decisions if isinstance(d, Onset)} == {CHANNELS[0], CHANNELS[2]}


@pytest.mark.parametrize("missing", [3, 10, 11, 400])
def test_a_jump_ahead_is_a_hole_in_all_rows(missing: int) -> None:
    samples = three()
    with_nan = samples.copy()
    with_nan[:, 1500 : 1500 + missing] = np.nan
    whole = run(detector(), with_nan, RATE, every(25, 3000))
    apart = detector()
    jumped = run(apart, samples[:, :1500], RATE, every(25, 1500))
    rest = samples[:, 1500 + missing :]
    jumped += run(
        apart, rest, RATE, every(25, rest.shape[1]), START_NS + (1500 + missing) * STEP_NS
    )
    assert whole == jumped
    assert len(kinds(jumped)) == (6 if missing > 10 else 0)


def test_time_after_a_gap_is_the_packets_own() -> None:
    samples = three(40.0)
    for row in range(3):
        samples[row] = add(samples[row], 3000, 1e4 * shaking(RATE, row))
    late_ns = 90 * NS + 3_456_789
    apart = detector()
    run(apart, samples[:, :1007], RATE)
    found = run(apart, samples[:, 1007:], RATE, every(25, 2993), second(10.07) + late_ns)
    onset = next(d for d in found if isinstance(d, Onset))
    assert onset.time_ns == pytest.approx(second(30.0) + late_ns, abs=0.05 * NS)


@pytest.mark.parametrize("back", [1, 40, 100])
def test_columns_seen_before_are_dropped(back: int) -> None:
    samples = three()
    for row in range(3):
        samples[row] = add(samples[row], 2000, 1e4 * shaking(RATE, row))
    plain = [d for d in run(detector(), samples, RATE) if not isinstance(d, Quality)]
    apart = detector()
    found = run(apart, samples[:, :1000], RATE)
    again = run(apart, samples[:, 1000 - back :], RATE, start_ns=second(10.0 - back / RATE))
    found += again
    assert [d for d in found if not isinstance(d, Quality)] == plain
    assert kinds(found) == [(channel, "overlap") for channel in CHANNELS]
    assert f"{back} samples" in next(d for d in again if isinstance(d, Quality)).detail


def test_a_packet_that_was_seen_before_gives_nothing() -> None:
    samples = three(10.0)
    apart = detector()
    run(apart, samples, RATE)
    assert len(run(apart, samples, RATE)) == 3
    assert not run(apart, samples, RATE), "stated once a minute at most"


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 10)),
        np.zeros(10),
        np.zeros((3, 0)),
        np.zeros((3, 4, 5)),
        np.array([["a"] * 3] * 3),
        np.zeros((3, 5), dtype=complex),
        [[1, 2], [3]],
        None,
    ],
)
def test_what_is_no_packet_is_stated_once_and_skipped(wrong: object) -> None:
    apart = detector()
    samples = three(10.0)
    run(apart, samples, RATE)
    said = apart.process(wrong, second(10.0))  # type: ignore[arg-type]  # that is the point
    assert kinds(said) == [(channel, "invalid") for channel in CHANNELS]
    assert not apart.process(wrong, second(10.0))  # type: ignore[arg-type]  # as above
    assert not run(apart, samples, RATE, start_ns=second(10.0))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300, -1e16])
@pytest.mark.parametrize("length", [1, 25, 3000])
def test_an_impossible_sample_is_a_missing_one(value: float, length: int) -> None:
    samples = three()
    samples[0, 2000] = value
    decisions = run(detector(), samples, RATE, every(length, 3000))
    assert kinds(decisions) == [(CHANNELS[0], "invalid")]
    assert len(decisions) == 1


def test_a_flat_channel_is_stated_and_then_dead_and_then_well() -> None:
    samples = np.round([ground(100.0, RATE, 1)])
    samples[0, 1000:8000] = samples[0, 1000]
    found = run(SeismicDetector(CHANNELS[:1], RATE), samples, RATE, every(25, 10_000))
    said = [(d.kind, round((d.time_ns - START_NS) / NS)) for d in found if isinstance(d, Quality)]
    assert said == [("flat", 15), ("dead", 70), ("recovered", 81)]
    assert not [d for d in found if isinstance(d, Onset)]


def test_a_channel_that_is_missing_for_a_minute_is_dead() -> None:
    samples = three(100.0)
    samples[2, 1000:9000] = np.nan
    said = kinds(run(detector(), samples, RATE, every(50, 10_000)))
    assert said == [(CHANNELS[2], kind) for kind in ("gap", "dead", "recovered", "recovered")]


def test_a_channel_that_has_never_spoken_says_nothing_until_it_does() -> None:
    samples = three()
    samples[0, :1000] = np.nan
    assert not run(detector(), samples, RATE, every(25, 3000))


def test_clipping_is_stated_once_and_again_when_it_is_over() -> None:
    samples = np.round([ground(40.0, RATE, 1)])
    samples[0] = np.clip(add(samples[0], 1500, 1e5 * shaking(RATE, 1)), -50_000, 50_000)
    said = kinds(run(SeismicDetector(CHANNELS[:1], RATE), samples, RATE, every(25, 4000)))
    assert said == [(CHANNELS[0], "clipped"), (CHANNELS[0], "recovered")]


@pytest.mark.parametrize(
    ("trace", "verdict"),
    [
        (np.clip(100 * np.sin(np.arange(100) / 3.0), -80, 80), True),
        (np.round(1000 * np.sin(np.arange(200) / 160.0)), False),
        (np.round(np.random.default_rng(1).normal(0, 1.0, 100)), False),
        (np.zeros(100), False),
        (np.repeat([0.0, 500.0], 50), False),
    ],
    ids=["clipped sine", "crest of a swell", "noise of one count", "flat", "step"],
)
def test_a_plateau_entered_and_left_abruptly_is_clipping(trace: Trace, verdict: bool) -> None:
    assert clipped(trace) is verdict


def ratios_of_an_hour(noise: StationNoise, *rare: float) -> list[tuple[str, str]]:
    """An hour in which each row's ratio is 1, and for a second of every five minutes ``rare``."""
    said = []
    for k in range(3600):
        ratios = np.array(rare) if k % 300 == 0 else np.ones(len(rare))
        said += noise.second(ratios, np.ones(len(rare), dtype=bool), k * NS)
    return [(q.channel, q.kind) for _, q in said]


def test_thresholds_follow_the_noise_of_the_hour_at_most_twofold() -> None:
    noise = StationNoise(["A", "B", "C"], 8.0)
    said = ratios_of_an_hour(noise, 1.0, 12.0, 40.0)
    assert said == [("B", "threshold"), ("C", "threshold"), ("C", "noise")]
    assert noise.thresholds[0] == 8.0
    assert 11.0 < noise.thresholds[1] < 14.0
    assert noise.thresholds[2] == 16.0
    said = ratios_of_an_hour(noise, 1.0, 1.0, 1.0)
    assert said == [("B", "threshold"), ("C", "threshold"), ("C", "recovered")]
    assert (noise.thresholds == 8.0).all()


def test_an_hour_with_an_earthquake_in_it_raises_nothing() -> None:
    noise = StationNoise(["A"], 8.0)
    for k in range(3600):
        noise.second(np.array([500.0 if k < 100 else 1.0]), np.array([k >= 100]), k * NS)
    assert noise.thresholds[0] == 8.0


def test_each_hour_of_a_channel_is_summed_up() -> None:
    """At 20 Hz: noise of a known power, a hole of a minute, ten flat seconds, a spike."""
    rate_hz, n = 20.0, 3700 * 20
    samples = np.random.default_rng(1).normal(0.0, 100.0, (2, n))
    samples[0, 20_000:21_200] = np.nan
    samples[0, 40_000:40_200] = samples[0, 40_000]
    samples[0, 60_000] += 1e6
    found = run(SeismicDetector(CHANNELS[:2], rate_hz), samples, rate_hz, every(100, n))
    one, other = (d for d in found if isinstance(d, ChannelReport))
    assert (one.channel, other.channel) == CHANNELS[:2]
    assert one.completeness == pytest.approx(1 - 60 / 3600, abs=0.001)
    assert (one.gaps, one.spikes) == (1, 1)
    assert 3 <= one.flat_s <= 10
    assert (other.completeness, other.gaps, other.spikes, other.flat_s) == (1.0, 0, 0, 0)
    # white noise of 10 Hz of bandwidth: 8 of them pass, and the skirts of the filter
    assert other.rms["1-10 Hz"] == pytest.approx(100.0 * (8 / 10) ** 0.5, rel=0.1)
    assert other.trigger_on == 8.0


BAD: list[tuple[str, object]] = [
    ("NaN alone", np.full((3, 50), np.nan)),
    ("absurd numbers", np.full((3, 50), -1e300)),
    ("too few rows", np.zeros((2, 50))),
    ("no columns", np.zeros((3, 0))),
    ("one dimension", np.zeros(50)),
    ("three dimensions", np.zeros((3, 5, 5))),
    ("words", np.array([["a", "b"]] * 3)),
    ("complex numbers", np.ones((3, 5), dtype=complex)),
    ("nothing", None),
]
"""Packets that no digitiser should send."""


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(BAD) - 1), st.sampled_from([0, -1, 1, -500])),
        max_size=12,
    )
)
def test_bad_packets_are_marked_or_refused_and_never_an_onset(bad: list[tuple[int, int]]) -> None:
    """Among good noise, early, late, and twice; the detector goes on as if nothing had been."""
    under_test = detector()
    noise = three(90.0)
    decisions, column = [], 0
    for which, late in [*bad, (0, 0)]:
        for _ in range(12):
            start_ns = START_NS + column * STEP_NS
            decisions += under_test.process(noise[:, column : column + 50], start_ns)
            column += 50
        start_ns = START_NS + (column + late) * STEP_NS
        decisions += under_test.process(BAD[which][1], start_ns)  # type: ignore[arg-type]  # bad
    assert not [d for d in decisions if isinstance(d, Onset)]
