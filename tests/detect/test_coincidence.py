"""Sensors and stations vote; a component is no voter, and neither is a bad channel."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.detect.coincidence import (
    FirstMotions,
    NetworkCoincidence,
    SharedShaking,
    SiteCoincidence,
)
from gateway.detect.seismic import SeismicDetector
from gateway.events import NS, Candidate, Coincidence, GroundMotion, Onset, parse_iso
from tests.detect.corpus import needs_corpus, read, references

SENSORS = {
    "XX.S.A.HNZ": "a",
    "XX.S.A.HNN": "a",
    "XX.S.A.HNE": "a",
    "XX.S.B.HNZ": "b",
    "XX.S.C.HNZ": "c",
}


def candidate(channel: str, time_s: float) -> Candidate:
    return Candidate(channel, round(time_s * NS), 6.0)


def onset(channel: str, time_s: float, declared_s: float) -> Onset:
    return Onset(channel, round(time_s * NS), round(declared_s * NS), 9.0, 20.0)


def site_votes(site: SiteCoincidence, *votes: tuple[str, float]) -> list[Coincidence]:
    return [c for channel, t in votes for c in site.add(candidate(f"XX.S.{channel}", t))]


def test_two_sensors_within_the_window_are_a_coincidence_at_the_later_vote() -> None:
    said = site_votes(SiteCoincidence("XX.S", SENSORS), ("B.HNZ", 10.0), ("A.HNN", 11.5))
    assert said == [Coincidence("site", "XX.S", round(11.5 * NS), ("XX.S.A.HNN", "XX.S.B.HNZ"), 2)]


@pytest.mark.parametrize(
    ("votes", "why"),
    [
        ([("A.HNZ", 1.0), ("A.HNN", 1.1), ("A.HNE", 1.2)], "components of one sensor"),
        ([("A.HNZ", 1.0), ("B.HNZ", 3.1)], "too far apart"),
        ([("A.HNZ", 1.0), ("D.HNZ", 1.1)], "a channel of no sensor of the site"),
    ],
)
def test_no_coincidence_of(votes: list[tuple[str, float]], why: str) -> None:
    assert site_votes(SiteCoincidence("XX.S", SENSORS), *votes) == [], why


def test_an_onset_votes_when_it_is_declared() -> None:
    site = SiteCoincidence("XX.S", SENSORS)
    site.add(onset("XX.S.A.HNZ", 8.0, 8.4))
    (said,) = site.add(onset("XX.S.B.HNZ", 9.9, 10.3))
    assert said.time_ns == round(10.3 * NS)


def test_a_further_sensor_enlarges_the_coincidence_and_a_repeated_vote_does_not() -> None:
    said = site_votes(
        SiteCoincidence("XX.S", SENSORS),
        ("A.HNZ", 1.0),
        ("B.HNZ", 1.1),
        ("A.HNN", 1.2),
        ("B.HNZ", 1.3),
        ("C.HNZ", 1.4),
    )
    assert [(c.votes, c.time_ns) for c in said] == [(2, round(1.1 * NS)), (3, round(1.4 * NS))]


def test_a_bad_channel_has_no_vote_and_loses_the_one_it_gave() -> None:
    site = SiteCoincidence("XX.S", SENSORS)
    site.add(candidate("XX.S.B.HNZ", 1.0))
    site.exclude("XX.S.B.HNZ", "flat")
    assert site_votes(site, ("A.HNZ", 1.1), ("B.HNZ", 1.2)) == []
    site.include("XX.S.B.HNZ", "flat")
    assert len(site_votes(site, ("B.HNZ", 1.3))) == 1


def test_a_site_that_is_down_to_one_sensor_is_in_single_sensor_mode() -> None:
    site = SiteCoincidence("XX.S", SENSORS, k=3)
    assert site.needed == 3
    site.exclude("XX.S.C.HNZ", "flat")
    assert site.needed == 2
    for channel in ("XX.S.A.HNZ", "XX.S.A.HNN", "XX.S.A.HNE"):
        site.exclude(channel, "flat")
    assert site.alone
    assert site.needed == 1
    assert site_votes(site, ("B.HNZ", 1.0)) == []


def test_sensors_that_together_weigh_less_than_the_rule_are_all_needed() -> None:
    weights = {"XX.S.B.HNZ": 0.5, "XX.S.C.HNZ": 0.0}
    site = SiteCoincidence("XX.S", SENSORS, weights=weights)
    assert site.usable == {"a", "b"}
    assert (site.alone, site.needed) == (False, 1.5)
    assert site_votes(site, ("A.HNZ", 1.0), ("C.HNZ", 1.1)) == []
    assert len(site_votes(site, ("B.HNZ", 1.2))) == 1


def test_a_sensor_that_weighs_less_needs_company() -> None:
    site = SiteCoincidence("XX.S", SENSORS, weights={"XX.S.C.HNZ": 0.5})
    assert site_votes(site, ("A.HNZ", 1.0), ("C.HNZ", 1.1)) == []
    (said,) = site_votes(site, ("B.HNZ", 1.2))
    assert said.votes == 3


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(SENSORS)), st.integers(0, 1900)), min_size=2, max_size=8
    ),
    st.randoms(use_true_random=False),
)
def test_votes_of_one_window_count_in_any_order(
    votes: list[tuple[str, int]], random: Random
) -> None:
    shuffled = list(votes)
    random.shuffle(shuffled)

    def most(order: Sequence[tuple[str, int]]) -> int:
        site = SiteCoincidence("XX.S", SENSORS)
        said = [c for ch, ms in order for c in site.add(candidate(ch, ms / 1000))]
        return max((c.votes for c in said), default=0)

    voters = len({SENSORS[channel] for channel, _ in votes})
    assert most(sorted(votes, key=lambda v: v[1])) == most(shuffled) == (voters > 1) * voters


@pytest.mark.parametrize(
    ("k", "window_s", "weight"),
    [(0, 2.0, 1.0), (2, 0.0, 1.0), (2, float("nan"), 1.0), (2, 2.0, -1)],
)
def test_a_site_rule_that_cannot_be_is_refused(k: int, window_s: float, weight: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        SiteCoincidence("XX.S", SENSORS, k, window_s, {"XX.S.B.HNZ": weight})


# --- shaking on several sensors of one component ------------------------------------------------


def geophone(
    name: str, time_s: float, *, lasts: bool = True, since_s: float = 10.0
) -> GroundMotion:
    channel = f"XX.S.{name}.EHZ"
    lasting = (channel,) if lasts else ()
    return GroundMotion(
        station="XX.S", channels=(channel,), lasting=lasting, sustained=False,
        time_ns=round(time_s * NS), since_ns=round(since_s * NS), pga=1.0, pgv=0.1, pgd=0.01,
        pd=None, pd_max=None, tau_c=None, cav=0.1, intensity=6.0, predicted=None, components=1,
        standard=False,
    )  # fmt: skip


GEOPHONES = frozenset({"XX.S.A.EHZ", "XX.S.B.EHZ"})


def test_two_geophones_that_shake_together_are_sustained_shaking() -> None:
    shared = SharedShaking(2 * NS)
    assert not shared.confirms(geophone("A", 10.6), GEOPHONES)
    assert shared.confirms(geophone("B", 10.9), GEOPHONES)
    assert shared.confirms(geophone("A", 11.0), GEOPHONES)
    assert shared.confirms(geophone("A", 19.0, lasts=False), GEOPHONES), "until its end"
    assert not shared.confirms(geophone("A", 40.0, since_s=39.0), GEOPHONES), "another shaking"


@pytest.mark.parametrize(
    ("motions", "counting", "why"),
    [
        ([geophone("A", t / 10) for t in range(106, 300)], GEOPHONES, "one geophone alone"),
        ([geophone("A", 10.6), geophone("B", 12.7)], GEOPHONES, "not at the same time"),
        ([geophone("A", 10.6), geophone("B", 10.6, lasts=False)], GEOPHONES, "one only jolted"),
        ([geophone("A", 10.6), geophone("B", 10.6)], {"XX.S.A.EHZ"}, "one is bad"),
    ],
)
def test_is_no_sustained_shaking(
    motions: list[GroundMotion], counting: frozenset[str], why: str
) -> None:
    shared = SharedShaking(2 * NS)
    assert not any(shared.confirms(motion, counting) for motion in motions), why


def test_a_geophone_that_is_clipped_still_shakes_but_one_that_is_flat_does_not() -> None:
    site = SiteCoincidence("XX.S", {channel: channel[:-1] for channel in GEOPHONES})
    site.exclude("XX.S.A.EHZ", "clipped")
    site.exclude("XX.S.B.EHZ", "flat")
    assert site.shaking == {"XX.S.A.EHZ"}


# --- first motions ------------------------------------------------------------------------------


def motions(first: FirstMotions, time_s: float, **polarities: Any) -> list[tuple[str, str]]:
    """What is said when an arrival moves the verticals of the sensors so."""
    said = []
    for name, polarity in polarities.items():
        at = round(time_s * NS)
        one = Onset(f"XX.S.{name}.HHZ", at, at + NS // 4, 50.0, 30.0, polarity, 0)
        said += [(q.channel, q.kind) for q in first.add(one)]
    return said


@pytest.mark.parametrize("last", ["A", "B", "C"])
def test_a_sensor_that_moves_against_the_others_three_times_is_stated_and_recovers(
    last: str,
) -> None:
    first = FirstMotions()
    order = sorted("ABC", key=lambda name: name == last)
    against = {name: "down" if name == "B" else "up" for name in order}
    said = [motions(first, 60.0 * k, **against) for k in range(4)]
    assert said == [[], [], [("XX.S.B.HHZ", "polarity")], []]
    said = [motions(first, 1000.0 + 60.0 * k, **dict.fromkeys(order, "down")) for k in range(4)]
    assert said == [[], [], [("XX.S.B.HHZ", "recovered")], []]


@pytest.mark.parametrize(
    "polarities",
    [{"A": "up", "B": "down"}, {"A": "up", "B": "unknown", "C": "down"},
     {"A": "up", "B": "up", "C": "up"}],
    ids=["two sensors", "one unknown", "all alike"],
)  # fmt: skip
def test_nobody_can_say_that_leads_are_swapped(polarities: dict[str, str]) -> None:
    first = FirstMotions()
    assert not [q for k in range(10) for q in motions(first, 60.0 * k, **polarities)]


def test_horizontal_candidates_do_not_vote_in_a_network_but_agreed_onsets_do() -> None:
    network = NetworkCoincidence(k=2)
    assert network.add(candidate("XX.A..HHN", 1.0)) == []
    assert network.add(onset("XX.A..HHN", 1.0, 1.4)) == []
    (said,) = network.add(candidate("XX.B..HHZ", 2.0))
    assert (said.scope, said.votes, said.channels) == ("network", 2, ("XX.A..HHN", "XX.B..HHZ"))


def test_candidates_can_be_kept_out_of_a_network() -> None:
    network = NetworkCoincidence(k=2, use_candidates=False)
    assert network.add(candidate("XX.A..HHZ", 1.0)) == []
    assert network.add(candidate("XX.B..HHZ", 1.0)) == []


def test_one_station_with_a_wrong_clock_stops_nobody_else() -> None:
    network = NetworkCoincidence(k=2)
    network.add(candidate("XX.A..HHZ", 1.0))
    network.add(candidate("XX.W..HHZ", 1e6))
    assert len(network.add(candidate("XX.B..HHZ", 2.0))) == 1


def test_the_same_stations_are_silent_until_the_blanking_is_over() -> None:
    network = NetworkCoincidence(k=2, blanking_s=3.0)
    times = [1.0, 2.0, 3.9, 4.1]
    said = [c for t in times for s in "AB" for c in network.add(candidate(f"XX.{s}..HHZ", t))]
    assert [c.time_ns / NS for c in said] == [1.0, 4.1]


@pytest.mark.parametrize(("k", "window_s", "blanking_s"), [(1, 3.5, 3.0), (3, 0, 3), (3, 3, 0)])
def test_a_network_rule_that_cannot_be_is_refused(
    k: int, window_s: float, blanking_s: float
) -> None:
    with pytest.raises(ValueError, match="expected"):
        NetworkCoincidence(k, window_s, blanking_s)


def coincidences(name: str, stations: int) -> list[float]:
    """UTC seconds of the network coincidences of at least so many stations in a recording."""
    votes = []
    for recording in read(name):
        detector = SeismicDetector(recording.channels, recording.rate_hz)
        for start in range(0, recording.counts.shape[1], 500):
            columns = recording.counts[:, start : start + 500]
            votes += [
                d
                for d in detector.process(columns, recording.time_ns(start))
                if isinstance(d, Onset | Candidate)
            ]
    network = NetworkCoincidence()
    votes.sort(key=lambda vote: (vote.decided_ns, vote.channel))
    return [c.time_ns / NS for v in votes for c in network.add(v) if c.votes >= stations]


def events(name: str) -> dict[str, list[tuple[float, str]]]:
    """Pick times and stations by event."""
    found: dict[str, list[tuple[float, str]]] = {}
    for pick in references(name):
        at = parse_iso(pick["time"]) / NS
        found.setdefault(pick["event"], []).append((at, pick["channel"].split(".")[1]))
    return found


def covers(picks: list[tuple[float, str]], time: float) -> bool:
    return min(picks)[0] - 1.0 <= time <= max(picks)[0] + 4.0


@needs_corpus
@pytest.mark.parametrize(
    ("name", "stations", "least_found", "most_outside"),
    [("d07", 4, 9, 3), ("d01", 3, 3, 0)],
    ids=["swarm in Iceland", "four stations at Unterhaching"],
)
def test_small_earthquakes_are_found_by_the_network(
    name: str, stations: int, least_found: int, most_outside: int
) -> None:
    said, listed = coincidences(name, stations), events(name)
    large = [p for p in listed.values() if len({station for _, station in p}) >= stations]
    assert sum(any(covers(picks, t) for t in said) for picks in large) >= least_found
    assert sum(not any(covers(p, t) for p in listed.values()) for t in said) <= most_outside


@needs_corpus
def test_six_hours_on_a_volcano_give_at_most_one_coincidence_of_three_stations() -> None:
    assert len(coincidences("d12", 3)) <= 1
