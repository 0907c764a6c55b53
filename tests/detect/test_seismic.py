"""The detector as a whole: the same decisions however it is fed, none without an earthquake."""

import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import obspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.detect import SeismicDetector
from gateway.detect.settings import SeismicSettings, Sensitivity
from gateway.events import (
    NS,
    Candidate,
    Decision,
    Event,
    GroundMotion,
    Observed,
    Onset,
    Quality,
    Rejected,
    parse_iso,
    to_record,
)
from tests.detect.corpus import needs_corpus, read, references
from tests.detect.signals import START_NS, Trace, add, every, ground, knock, run, shaking, vehicle

RATE = 100.0
SENSOR = ("XX.A..HHE", "XX.A..HHN", "XX.A..HHZ")
SITE = (*SENSOR, "XX.B..HNZ")
SENSITIVITY = Sensitivity(1e6, "m/s")


def busy_minute(rate_hz: float = RATE) -> Trace:
    """Everything at once: an earthquake and a second one in its coda, a spike, a lorry, holes."""

    def at(seconds: float) -> int:
        return round(seconds * rate_hz)

    rows = []
    for seed, channel in enumerate(SITE):
        gain = 2.0 if channel.endswith("Z") else 1.0
        row = ground(60.0, rate_hz, seed, 1e5 * seed)
        row = add(row, at(15), 3e4 * gain * shaking(rate_hz, seed))
        row = add(row, at(22), 2e5 * gain * shaking(rate_hz, seed + 10))
        row = add(row, at(38), 3e3 * vehicle(rate_hz, seed, 1.0))
        rows.append(add(row, at(55), np.array([4e6])))
    rows[1][at(48.2) : at(48.25)] = np.nan
    rows[0][at(30) : at(31)] = np.nan
    rows[2][at(50) :] = np.nan
    return np.array(rows)


def lines(decisions: Sequence[Decision]) -> list[str]:
    """What is published, and the candidates, as text."""
    return [
        str((d.channel, round(d.time_ns / 1000), round(d.ratio, 2)))
        if isinstance(d, Candidate)
        else str(to_record(d))
        for d in decisions
        if not isinstance(d, Observed)
    ]


@pytest.fixture(scope="module")
def whole() -> list[str]:
    detector = SeismicDetector(SITE, RATE, sensitivities=[SENSITIVITY] * 4)
    return lines(run(detector, busy_minute(), RATE))


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(1, 5999), max_size=80, unique=True))
def test_cuts_do_not_change_a_line(whole: list[str], cuts: list[int]) -> None:
    detector = SeismicDetector(SITE, RATE, sensitivities=[SENSITIVITY] * 4)
    assert lines(run(detector, busy_minute(), RATE, sorted(cuts))) == whole


@pytest.mark.parametrize("length", [1, 7, 25, 64, 65, 100])
def test_packet_sizes_do_not_change_a_line(whole: list[str], length: int) -> None:
    detector = SeismicDetector(SITE, RATE, sensitivities=[SENSITIVITY] * 4)
    assert lines(run(detector, busy_minute(), RATE, every(length, 6000))) == whole


@pytest.mark.parametrize("length", [1, 25, 130])
@pytest.mark.parametrize("looks", [True, False])
def test_a_look_back_that_waits_changes_no_line(whole: list[str], length: int, looks: bool) -> None:
    """Whether the second that is over is looked at after each packet or before the next."""
    detector = SeismicDetector(SITE, RATE, sensitivities=[SENSITIVITY] * 4)
    samples = busy_minute()
    found: list[Decision] = []
    for first in range(0, 6000, length):
        start_ns = START_NS + round(first * NS / RATE)
        found += detector.decide(samples[:, first : first + length], start_ns)
        if looks:
            found += detector.look()
    found += detector.look()
    found.sort(key=lambda d: (d.decided_ns, str(getattr(d, "channel", getattr(d, "station", "")))))
    assert lines(found) == whole


def test_the_busy_minute_has_everything(whole: list[str]) -> None:
    text = "\n".join(whole)
    for word in ("'onset'", "'ground_motion'", "'gap'", "'recovered'", "'spike'", "'rejected'"):
        assert word in text


def test_the_same_packets_give_the_same_bytes() -> None:
    first, second = (
        lines(run(SeismicDetector(SITE, RATE), busy_minute(), RATE, every(25, 6000)))
        for _ in range(2)
    )
    assert first == second


def test_decisions_come_in_order_and_none_before_its_time() -> None:
    detector = SeismicDetector(SITE, RATE, sensitivities=[SENSITIVITY] * 4)
    samples = busy_minute()
    last = 0
    for first, end in pairwise([*range(0, 6000, 25), 6000]):
        start_ns = START_NS + round(first * NS / RATE)
        found = detector.process(samples[:, first:end], start_ns)
        decided = [d.decided_ns for d in found]
        assert decided == sorted(decided)
        assert all(t <= START_NS + round((end - 1) * NS / RATE) for t in decided)
        for one in found:
            if isinstance(one, Onset | Rejected):
                assert one.time_ns <= one.declared_ns
        last = max([last, *decided])


def mostly_counts(samples: Trace, cuts: Sequence[int]) -> list[Decision]:
    """All decisions on packets of integer counts, but for those with holes in."""
    detector = SeismicDetector(SITE, RATE, sensitivities=[SENSITIVITY] * 4)
    decisions: list[Decision] = []
    for first, end in pairwise([0, *cuts, samples.shape[1]]):
        packet = samples[:, first:end]
        if not np.isnan(packet).any():
            packet = packet.astype(np.int32)
        decisions += detector.process(packet, START_NS + round(first * NS / RATE))
    return decisions


@pytest.fixture(scope="module")
def whole_counts() -> list[str]:
    detector = SeismicDetector(SITE, RATE, sensitivities=[SENSITIVITY] * 4)
    return lines(run(detector, np.round(busy_minute()), RATE))


@pytest.mark.parametrize("length", [1, 25, 6000])
def test_integer_counts_are_as_good_as_floats(whole_counts: list[str], length: int) -> None:
    found = mostly_counts(np.round(busy_minute()), every(length, 6000))
    assert lines(found) == whole_counts


@pytest.mark.parametrize("alone", [0.7, 0.97])
def test_scans_that_come_alone_between_packets_change_nothing(
    whole_counts: list[str], alone: float
) -> None:
    random = np.random.default_rng(round(100 * alone))
    lengths = np.where(random.random(6000) < alone, 1, random.integers(1, 40, 6000))
    cuts = np.cumsum(lengths)
    assert lines(mostly_counts(np.round(busy_minute()), cuts[cuts < 6000].tolist())) == whole_counts


@pytest.mark.parametrize("length", [1, 25])
def test_a_caller_may_use_the_room_of_one_packet_for_the_next(length: int) -> None:
    """A hole where a packet begins is bridged from the last sample, not from what stands there."""
    samples = busy_minute()[:2, :2000]
    samples[:, 1000:1005] = np.nan
    apart, reused = (SeismicDetector(SITE[:2], RATE) for _ in range(2))
    counts, floats = np.empty((2, length), np.int32), np.empty((2, length))
    for first in range(0, 2000, length):
        packet = samples[:, first : first + length]
        start_ns = START_NS + round(first * NS / RATE)
        if np.isnan(packet).any() or first < 500:
            floats[...] = packet
            assert reused.process(floats, start_ns) == apart.process(packet, start_ns)
        else:
            counts[...] = packet
            assert reused.process(counts, start_ns) == apart.process(counts.copy(), start_ns)


def of(kind: type[Event], decisions: Sequence[Decision]) -> list[str]:
    return [d.channel for d in decisions if isinstance(d, kind) and not isinstance(d, GroundMotion)]  # type: ignore[union-attr]  # those without a channel are left out


def motion_on(rows: Sequence[int], strengths: Sequence[float] = (1e4, 1e4, 1e4)) -> Trace:
    samples = np.array([ground(40.0, RATE, seed) for seed in range(3)])
    for row in rows:
        samples[row] = add(samples[row], 2000, strengths[row] * shaking(RATE, row))
    return samples


@pytest.mark.parametrize(
    ("rows", "onsets", "rejected"),
    [
        ((2,), [SENSOR[2]], []),
        ((0, 1, 2), 1, None),
        ((0,), [], [SENSOR[0]]),
        ((0, 1), 1, None),
    ],
    ids=["vertical alone", "all three", "one horizontal", "both horizontals"],
)
def test_one_sensor_declares_one_arrival_once(
    rows: Sequence[int], onsets: list[str] | int, rejected: list[str] | None
) -> None:
    found = run(SeismicDetector(SENSOR, RATE), motion_on(rows), RATE, every(25, 4000))
    channels = of(Onset, found)
    assert len(channels) == onsets if isinstance(onsets, int) else channels == onsets
    if rejected is not None:
        assert of(Rejected, found) == rejected


@pytest.mark.parametrize("vertical", [0.0, 350.0], ids=["still", "moves a little"])
def test_a_horizontal_needs_the_company_of_another_component(vertical: float) -> None:
    """P on one horizontal, and on the vertical too weak to trigger."""
    samples = motion_on((0,))
    samples[2] = add(samples[2], 2000, vertical * shaking(RATE, 2))
    found = run(SeismicDetector(SENSOR, RATE), samples, RATE, every(25, 4000))
    assert of(Onset, found) == ([SENSOR[0]] if vertical else [])
    assert (
        [d.reason for d in found if isinstance(d, Rejected)] == [] if vertical else ["horizontal"]
    )


def test_a_knock_just_before_hides_no_earthquake() -> None:
    """An onset that was something lesser: the earthquake 1.2 s later is declared too."""
    samples = ground(40.0, RATE, 1)
    samples = add(samples, 1880, 700.0 * shaking(RATE, 5, 0.03, 0.6))
    samples = add(samples, 2000, 1e5 * shaking(RATE, 6))[None]
    found = run(SeismicDetector(SENSOR[2:], RATE), samples, RATE, every(25, 4000))
    onsets = [d for d in found if isinstance(d, Onset)]
    times = [(d.time_ns - START_NS) / NS for d in onsets]
    assert times == pytest.approx([18.8, 20.0], abs=0.1)
    assert (onsets[1].declared_ns - onsets[1].time_ns) / NS < 0.5


@pytest.mark.parametrize("kind", ["earthquake", "horizontal", "steps"])
def test_what_components_make_of_one_another_does_not_depend_on_the_cuts(kind: str) -> None:
    samples = motion_on({"earthquake": (0, 1, 2), "horizontal": (0,), "steps": ()}[kind])
    if kind == "steps":
        for k in range(8):
            samples = np.array(
                [add(row, 2000 + 55 * k, 3e3 * knock(RATE, 15.0, 0.08)) for row in samples]
            )
    random = np.random.default_rng(2)
    cuts = sorted(set(random.integers(1, 4000, 300).tolist()))
    whole = run(SeismicDetector(SENSOR, RATE), samples, RATE, every(100, 4000))
    assert lines(run(SeismicDetector(SENSOR, RATE), samples, RATE, cuts)) == lines(whole)
    assert lines(run(SeismicDetector(SENSOR, RATE), samples, RATE, every(1, 4000))) == lines(whole)


@pytest.mark.parametrize("silent", ["missing", "flat"])
def test_one_horizontal_is_enough_where_the_vertical_is_out(silent: str) -> None:
    samples = motion_on((0,))
    samples[2, 500:] = np.nan if silent == "missing" else samples[2, 500]
    found = run(SeismicDetector(SENSOR, RATE), samples, RATE, every(25, 4000))
    assert of(Onset, found) == [SENSOR[0]]


def test_two_sensors_of_a_station_each_declare() -> None:
    channels = ("AM.RS4D..EHZ", "AM.RS4D..ENZ")
    samples = motion_on((0, 1))[:2]
    found = run(SeismicDetector(channels, RATE), samples, RATE, every(25, 4000))
    assert sorted(of(Onset, found)) == sorted(channels)


def test_a_stronger_earthquake_in_the_coda_of_another_is_declared() -> None:
    samples = motion_on((2,))[2:]
    samples = add(samples[0], 2700, 1e6 * shaking(RATE, 9))[None]
    found = run(SeismicDetector(SENSOR[2:], RATE), samples, RATE, every(25, 4000))
    times = [(d.time_ns - START_NS) / NS for d in found if isinstance(d, Onset)]
    assert times == pytest.approx([20.0, 27.0], abs=0.1)


def test_a_lasting_rise_of_the_noise_does_not_deafen() -> None:
    """A machine is switched on for good; an earthquake a minute later stands out from it."""
    samples = ground(150.0, RATE, 1)
    random = np.random.default_rng(1)
    samples[3000:] += random.normal(0.0, 3e3, len(samples) - 3000)
    samples = add(samples, 10_000, 1e5 * shaking(RATE, 3))[None]
    found = run(SeismicDetector(SENSOR[2:], RATE), samples, RATE, every(25, 15_000))
    times = [(d.time_ns - START_NS) / NS for d in found if isinstance(d, Onset)]
    assert times[-1] == pytest.approx(100.0, abs=0.1)
    assert not [t for t in times if 32.0 < t < 99.0]


@pytest.mark.parametrize("kind", ["white", "walk", "swell"])
def test_a_thousand_cold_starts_declare_nothing(kind: str) -> None:
    rows, n = 340, 1000
    random = np.random.default_rng(7)
    samples = random.normal(0.0, 100.0, (rows, n)) + 1e6 * random.normal(size=(rows, 1))
    if kind == "walk":
        samples = samples.cumsum(axis=1)
    if kind == "swell":
        phase = 2 * np.pi * (0.15 * np.arange(n) / RATE + random.random((rows, 1)))
        samples = samples + 1e5 * np.sin(phase)
    channels = [f"XX.S{row}..HHZ" for row in range(rows)]
    found = run(SeismicDetector(channels, RATE), samples, RATE, every(50, n))
    assert not [d for d in found if isinstance(d, Onset)]


def test_a_start_inside_an_earthquake_declares_nothing_before_it_is_armed() -> None:
    samples = add(ground(20.0, RATE, 1), 0, 1e5 * shaking(RATE, 3, 1e-6, 4.0, seconds=20.0))[None]
    found = run(SeismicDetector(SENSOR[2:], RATE), samples, RATE, every(25, 2000))
    assert not [d for d in found if isinstance(d, Onset) and d.time_ns < START_NS + 4 * NS]


def test_a_row_that_is_lost_while_examined_is_rejected() -> None:
    samples = motion_on((2,))[2:]
    samples[0, 2010:2100] = np.nan
    found = run(SeismicDetector(SENSOR[2:], RATE), samples, RATE, every(25, 4000))
    assert ("gap",) in {(d.reason,) for d in found if isinstance(d, Rejected)}


def test_motion_in_physical_units_needs_a_sensitivity() -> None:
    samples = motion_on((0, 1, 2))
    without = run(SeismicDetector(SENSOR, RATE), samples, RATE, every(25, 4000))
    assert not [d for d in without if isinstance(d, GroundMotion)]
    detector = SeismicDetector(SENSOR, RATE, sensitivities=[SENSITIVITY] * 3)
    motion = [
        d for d in run(detector, samples, RATE, every(25, 4000)) if isinstance(d, GroundMotion)
    ]
    assert motion[0].components == 3
    onset = next(d for d in without if isinstance(d, Onset))
    assert motion[0].since_ns == onset.time_ns


@pytest.mark.parametrize("rate_hz", [10.0, 20.0, 31.25, 62.5, 100.0, 250.0, 500.0, 1000.0])
def test_defaults_follow_the_rate(rate_hz: float) -> None:
    samples = add(ground(30.0, rate_hz, 1), round(20 * rate_hz), 1e4 * shaking(rate_hz, 2))[None]
    cuts = every(round(rate_hz), samples.shape[1])
    found = run(SeismicDetector(SENSOR[2:], rate_hz), samples, rate_hz, cuts)
    onset = next(d for d in found if isinstance(d, Onset))
    assert (onset.time_ns - START_NS) / NS == pytest.approx(20.0, abs=max(0.1, 2 / rate_hz))


@pytest.mark.parametrize(
    ("channels", "rate_hz", "what"),
    [
        ((), 100.0, "channel"),
        (SENSOR, 0.0, "sampling rate"),
        (SENSOR, -100.0, "sampling rate"),
        (SENSOR, float("inf"), "sampling rate"),
        (SENSOR, float("nan"), "sampling rate"),
        (SENSOR, 1.0, "corner"),
        (SENSOR, 2.2, "band"),
    ],
)
def test_an_impossible_detector_is_refused(
    channels: Sequence[str], rate_hz: float, what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        SeismicDetector(channels, rate_hz)


def test_sensitivities_are_one_a_channel() -> None:
    with pytest.raises(ValueError, match="2 sensitivities for 3 channels"):
        SeismicDetector(SENSOR, RATE, sensitivities=[SENSITIVITY] * 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("band_hz", (10.0, 1.0)),
        ("candidate_band_hz", (0.0, 5.0)),
        ("sta_s", 0.0),
        ("lta_s", 4000.0),
        ("trigger_on", 0.5),
        ("trigger_off", 9.0),
        ("min_duration_s", -1.0),
        ("lta_freeze_max_s", float("nan")),
        ("candidate_on", float("inf")),
    ],
)
def test_an_impossible_setting_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        SeismicSettings(**{key: value})  # type: ignore[arg-type]  # by name


def test_obspys_own_recording_of_a_local_earthquake_is_picked() -> None:
    """BW.UH1, 2010-05-27, from the data that come with obspy."""
    folder = Path(obspy.__file__).parent / "signal" / "tests" / "data"
    trace = obspy.read(str(folder / "BW.UH1._.SHZ.D.2010.147.cut.slist.gz"))[0]
    rate_hz, start_ns = trace.stats.sampling_rate, trace.stats.starttime.ns
    samples = trace.data[None].astype(np.float64)
    detector = SeismicDetector([trace.id], rate_hz)
    found = run(detector, samples, rate_hz, every(25, samples.shape[1]), start_ns)
    onset = next(d for d in found if isinstance(d, Onset))
    expected_ns = parse_iso("2010-05-27T16:24:33.34Z")
    assert (onset.time_ns - expected_ns) / NS == pytest.approx(0.0, abs=0.1)
    assert (onset.declared_ns - expected_ns) / NS < 0.5


@needs_corpus
@pytest.mark.parametrize("name", ["d01", "d02", "d03", "d04", "d05", "d06", "d08"])
def test_every_clear_p_of_a_recording_is_declared_in_time(name: str) -> None:
    onsets: list[Onset] = []
    for r in read(name):
        detector = SeismicDetector(r.channels, r.rate_hz)
        cuts = every(round(r.rate_hz), r.counts.shape[1])
        found = run(detector, r.counts, r.rate_hz, cuts, r.start_ns)
        onsets += [d for d in found if isinstance(d, Onset)]
    delays = []
    for pick in references(name):
        if pick["quality"] != "clear":
            continue
        station = pick["channel"].split(".")[:2]
        time_ns = parse_iso(pick["time"])
        declared = [
            (d.declared_ns - time_ns) / NS
            for d in onsets
            if d.channel.split(".")[:2] == station and -0.5 <= (d.time_ns - time_ns) / NS <= 1.0
        ]
        assert declared, f"{pick['channel']} {pick['time']}"
        delays.append(min(declared))
    assert max(delays) <= 2.0
    assert statistics.median(delays) <= 0.9


@needs_corpus
@pytest.mark.parametrize(
    ("name", "at_most"),
    [("d12", 1), ("d13", 3), ("d14", 0), ("d15", 0), ("d16", 0), ("d17", 0), ("d20", 1)],
)
def test_noise_declares_next_to_nothing(name: str, at_most: int) -> None:
    onsets = []
    for r in read(name):
        detector = SeismicDetector(r.channels, r.rate_hz)
        cuts = every(round(10 * r.rate_hz), r.counts.shape[1])
        found = run(detector, r.counts, r.rate_hz, cuts, r.start_ns)
        onsets += [d for d in found if isinstance(d, Onset)]
    assert len(onsets) <= at_most


def test_nothing_but_quality_is_said_of_a_recording_full_of_gaps() -> None:
    samples = ground(60.0, RATE, 4)[None]
    samples[0, ::97] = np.nan
    for at in range(500, 6000, 500):
        samples[0, at : at + 60] = np.nan
    found = run(SeismicDetector(SENSOR[2:], RATE), samples, RATE, every(25, 6000))
    assert {type(d) for d in found} == {Quality}
