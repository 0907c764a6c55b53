"""What one station decides: bytes and packets in, alerts and siren commands out, time by argument.

Shaking is synthetic: quiet noise, then a 3 Hz wave of about 1 m/s² on every component.
"""

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.core.arbiter import Request
from gateway.core.arming import Arming, Mode
from gateway.core.compiled import Compiled
from gateway.core.engine import Core
from gateway.events import (
    MICRO,
    NS,
    Alert,
    ArmingChange,
    Coincidence,
    GroundMotion,
    Health,
    Level,
    LevelChange,
    Onset,
    Packet,
    Phase,
    Quality,
    Reading,
    SirenAction,
    Status,
)
from tests.core.station import gauge, seismometer, station

RATE_HZ = 100
QUAKE_S = 8
"""When the shaking begins."""


@cache
def counts(seed: int, *, shakes: bool, seconds: int = 14) -> NDArray[np.int32]:
    """Three components, shape (3, n)."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 30, (3, seconds * RATE_HZ))
    if shakes:
        t = np.arange((seconds - QUAKE_S) * RATE_HZ) / RATE_HZ
        samples[:, QUAKE_S * RATE_HZ :] += 400_000 * np.sin(2 * np.pi * 3 * t)
    return samples.astype(np.int32)


def two_sensors(votes: int = 2) -> Compiled:
    config = station((seismometer("p1", "s1", "A"), seismometer("p2", "s2", "B")))
    return replace(config, site=replace(config.site, votes=votes))


def shake(core: Core, **records: NDArray[np.int32]) -> list[Any]:
    """Play the records side by side in packets of 0.1 s; everything that was published."""
    columns = 10
    for start in range(0, max(r.shape[1] for r in records.values()), columns):
        start_ns = start * NS // RATE_HZ
        end_ns = (start + columns) * NS // RATE_HZ
        for sensor, samples in records.items():
            block = samples[:, start : start + columns]
            core.packets(sensor, [Packet(sensor, start_ns, RATE_HZ, block)], end_ns)
    return events(core)


def events(core: Core) -> list[Any]:
    return [event for event, _ in core.published()]


def those(found: list[Any], kind: type) -> list[Any]:
    return [event for event in found if isinstance(event, kind)]


def close(core: Core, t: int, value: float = 1.0, sensor: str = "gauge") -> list[Any]:
    """The contact reads ``value``; everything that was published."""
    core.bytes(sensor, f"contact {value}\n".encode(), t)
    return events(core)


def on(core: Core) -> bool:
    return bool(core.status()["sirens"]["main"]["on"])


# --- shaking ------------------------------------------------------------------------------------


def test_one_sensor_of_two_that_shakes_never_sounds_a_siren() -> None:
    core = Core(two_sensors())
    found = shake(core, s1=counts(1, shakes=True), s2=counts(2, shakes=False))
    assert those(found, Onset)
    assert any(motion.sustained for motion in those(found, GroundMotion))
    assert those(found, Coincidence) == those(found, Alert) == those(found, SirenAction) == []
    assert not on(core)


def test_two_sensors_that_shake_together_sound_it() -> None:
    core = Core(two_sensors())
    found = shake(core, s1=counts(1, shakes=True), s2=counts(2, shakes=True))
    coincidence = those(found, Coincidence)[0]
    assert coincidence.votes == 2
    alert = those(found, Alert)[0]
    assert alert.inputs["votes"] == 2.0
    assert coincidence.time_ns <= alert.time_ns
    assert on(core)
    order = [type(event) for event in found]
    assert max(order.index(Onset), order.index(Coincidence)) < order.index(Alert)
    assert order.index(Alert) < order.index(SirenAction)


def geophones(*locations: str, weights: dict[str, float] | None = None) -> Compiled:
    """Verticals, each on a port of its own."""
    sensors = [seismometer(f"p{at}", f"s{at}", at) for at in locations]
    verticals = [
        replace(s, channels=tuple(c for c in s.channels if c.id.endswith("Z"))) for s in sensors
    ]
    config = station(tuple(verticals))
    return replace(config, site=replace(config.site, weights=weights or {}))


def test_verticals_that_shake_together_sound_a_siren() -> None:
    core = Core(geophones("A", "B"))
    found = shake(core, sA=counts(1, shakes=True)[:1], sB=counts(2, shakes=True)[:1])
    alert = those(found, Alert)[0]
    assert alert.inputs["votes"] == 2.0
    assert 0.5 <= alert.inputs["after_p_s"] <= 2.0
    assert on(core)


@pytest.mark.parametrize(
    ("locations", "weights"),
    [("A", {}), ("AB", {}), ("AB", {"sB": 0.0})],
    ids=["the only one", "the other is still", "the other has no vote"],
)
def test_one_vertical_that_shakes_never_sounds_it(
    locations: str, weights: dict[str, float]
) -> None:
    core = Core(geophones(*locations, weights=weights))
    moves = {
        f"s{at}": counts(k, shakes=at == "A" or bool(weights)) for k, at in enumerate(locations)
    }
    found = shake(core, **{name: samples[:1] for name, samples in moves.items()})
    assert those(found, GroundMotion)
    assert those(found, Alert) == []
    assert not on(core)


def test_a_site_that_asks_for_one_vote_sounds_for_one_sensor() -> None:
    core = Core(two_sensors(votes=1))
    found = shake(core, s1=counts(1, shakes=True), s2=counts(2, shakes=False))
    assert those(found, Alert)
    assert on(core)


def test_a_bad_sensor_is_out_of_the_vote_and_the_other_decides_alone() -> None:
    flat = np.zeros_like(counts(2, shakes=False))
    core = Core(two_sensors())
    core._weigh(Quality("XX.B.00.HNZ", "flat", 0))
    core._weigh(Quality("XX.B.00.HNN", "dead", 0))
    core._weigh(Quality("XX.B.00.HNE", "clipped", 0))
    assert core._site.needed == 1
    found = shake(core, s1=counts(1, shakes=True), s2=flat)
    assert those(found, Alert)
    core._weigh(Quality("XX.B.00.HNZ", "recovered", 0, ended="flat"))
    assert core._site.needed == 2


@pytest.mark.parametrize("kind", ["gap", "overlap", "spike", "clock", "invalid", "threshold"])
def test_what_passes_by_costs_no_vote(kind: str) -> None:
    core = Core(two_sensors())
    core._weigh(Quality("XX.B.00.HNZ", kind, 0))
    assert core._site.needed == 2


def test_each_channel_gets_its_own_offset_back() -> None:
    plain = Core(two_sensors())
    moved = Core(two_sensors())
    record = counts(1, shakes=True)
    offsets = (1_000_000, 2_000_000, -3_000_000)
    for core, shift in ((plain, ()), (moved, offsets)):
        for start in range(0, record.shape[1], 10):
            t = start * NS // RATE_HZ
            block = record[:, start : start + 10]
            core.packets("s1", [Packet("s1", t, RATE_HZ, block, shift)], t + NS // 10)
    times = [{o.channel[-1]: o.time_ns for o in those(events(c), Onset)} for c in (plain, moved)]
    assert times[0]
    assert times[1] == {c: t + offsets["ZNE".index(c)] for c, t in times[0].items()}


# --- the order of decisions ---------------------------------------------------------------------


def test_a_replay_decides_in_the_order_of_time_not_of_reading() -> None:
    core = Core(station((gauge("a", name="a"), gauge("b", name="b"))), live=False)
    close(core, 5 * NS, 0.5, "a")
    found = close(core, 3 * NS, 0.5, "b") + close(core, 9 * NS, 1.0, "b")
    core.ended("b")
    core.ended("a")
    found += events(core)
    changes = [(c.sensor, c.level.name) for c in those(found, LevelChange)]
    assert changes == [("b", "blue"), ("a", "blue"), ("b", "red")]


def test_time_comes_to_an_end_when_nothing_is_left_to_do() -> None:
    core = Core(station(), live=False)
    close(core, NS)
    core.ended("gauge")
    core.advance(10**6 * NS)
    found = events(core)
    assert [a.action for a in those(found, SirenAction)] == ["off"]
    assert those(found, SirenAction)[0].time_ns == 61 * NS
    assert not core.sounding


# --- arming -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "sound", "status", "sounds"),
    [
        (Mode.armed, "full", Status.actual, True),
        (Mode.silent, "full", Status.actual, False),
        (Mode.disarmed, "full", Status.test, False),
        (Mode.exercise, "full", Status.exercise, True),
        (Mode.exercise, "silent", Status.exercise, False),
    ],
)
def test_a_mode_says_what_an_alert_is_and_whether_it_sounds(
    mode: Mode, sound: Any, status: Status, sounds: bool
) -> None:
    core = Core(station())
    core.arm(Arming.order(mode, 60, 0, "me", sound), 0)
    found = close(core, NS)
    assert those(found, ArmingChange)[0].mode == mode
    assert those(found, Alert)[0].status is status
    assert on(core) is sounds


def test_a_chirping_exercise_only_chirps() -> None:
    core = Core(station())
    core.arm(Arming.order(Mode.exercise, 60, 0, "me", "chirp"), 0)
    found = close(core, NS)
    assert [action.pattern for action in those(found, SirenAction)] == ["chirp"]
    core.tick(2 * NS)
    assert not on(core)


def test_disarmed_for_a_time_is_armed_when_it_is_over() -> None:
    core = Core(station())
    core.arm(Arming.order(Mode.disarmed, 20, 0, "me", "full"), 0)
    close(core, NS)
    assert not on(core)
    core.tick(20 * NS)
    assert core.arming.mode is Mode.armed
    assert [a.mode for a in those(events(core), ArmingChange)] == ["armed"]
    assert on(core), "the pattern has not ended, so that it is heard from here on"


def test_disarming_silences_at_once() -> None:
    core = Core(station())
    close(core, NS)
    core.arm(Arming.order(Mode.disarmed, 60, 2 * NS, "me", "full"), 2 * NS)
    assert not on(core)
    assert those(events(core), SirenAction)[-1].reason == "disarmed"


# --- orders -------------------------------------------------------------------------------------


def test_a_silenced_alert_stays_silent_until_its_level_rises() -> None:
    config = station()
    blue = replace(config.plans[0].levels[1], pattern="long")
    fire = replace(config.plans[0], levels=(config.plans[0].levels[0], blue))
    core = Core(replace(config, plans=(fire,)))
    close(core, NS, 0.5)
    assert on(core)
    core.siren_off((), 2 * NS, "by hand")
    close(core, 3 * NS, 0.6)
    assert not on(core)
    close(core, 4 * NS, 1.0)
    assert on(core)


def test_an_alert_that_is_cancelled_is_silent() -> None:
    core = Core(station())
    alert = those(close(core, NS), Alert)[0]
    assert core.cancel("another", 2 * NS, "by hand") is False
    assert core.cancel(alert.id, 2 * NS, "by hand") is True
    assert those(events(core), Alert)[0].phase is Phase.cancel
    assert not on(core)


def test_what_stops_sounds_no_more() -> None:
    core = Core(station())
    close(core, NS)
    assert core.loud() == ["main"]
    core.stop(2 * NS, "stopped")
    core.siren_on(Request("x", Status.test, None, Level.none, "long", 3 * NS), (), 3 * NS)
    assert not on(core)
    core.tick(3 * NS)
    assert core.loud() == []


def test_a_siren_counts_as_loud_until_it_has_said_that_it_is_silent() -> None:
    core = Core(station())
    close(core, NS)
    core.stop(NS, "stopped")
    assert core.loud() == ["main"]
    core.tick(NS)
    assert core.loud() == []


# --- silence, health, times ---------------------------------------------------------------------


def test_a_gauge_that_falls_silent_is_stated_and_holds_no_level_for_ever() -> None:
    config = station((gauge("g", silent_after_s=3.0),))
    core = Core(replace(config, scales=(replace(config.scales[0], reach_s=8),)))
    core.opened("g", 0)
    core.bytes("g", b"contact 1\n", NS)
    core.tick(NS)
    events(core)
    assert core.next_deadline() == 4 * NS
    core.tick(4 * NS)
    silent = those(events(core), Health)[0]
    assert (silent.component, silent.kind, silent.state) == ("gauge", "silent", "failed")
    assert "check its power and cable" in silent.detail
    assert core.status()["sensors"]["gauge"]["age_s"] is None
    assert core.data()[-1] == Reading("gauge", 4 * NS, "contact", None)
    core.tick(41 * NS)
    assert those(events(core), LevelChange)[-1].level is Level.none
    core.bytes("g", b"contact 0\n", 42 * NS)
    assert those(events(core), Health)[0].state == "ok"


def test_garbage_is_counted_and_said_once() -> None:
    core = Core(station((gauge("g"),)))
    core.opened("g", 0)
    for t in range(50):
        core.bytes("g", b"?!\n", t * NS)
    assert len(those(events(core), Health)) == 1
    assert core.status()["totals"] == {"gauge.garbage": 100}


def test_an_event_keeps_the_utc_that_held_when_it_was_decided() -> None:
    core = Core(station())
    core.set_utc_offset(100 * NS)
    core.readings("gauge", [Reading("gauge", NS, "contact", MICRO)], NS)
    core.set_utc_offset(-5 * NS)
    core.cancel(core.status()["alerts"][0]["id"], 2 * NS, "x")
    published = core.published()
    offsets = [offset for event, offset in published if isinstance(event, Alert)]
    assert offsets == [100 * NS, -5 * NS]
    assert core.published() == []


# --- over a restart -----------------------------------------------------------------------------


def restarted(core: Core, t: int, *, same_boot: bool) -> Core:
    """A new core with what the old one saved, through JSON."""
    fresh = Core(core.config, t)
    fresh.restore(json.loads(json.dumps(core.state())), t, same_boot=same_boot)
    return fresh


@pytest.mark.parametrize(("after_s", "sounds"), [(10, True), (60, True), (61, False)])
def test_in_the_same_boot_a_pattern_goes_on_to_its_own_end(after_s: int, sounds: bool) -> None:
    core = Core(station())
    close(core, NS)
    fresh = restarted(core, after_s * NS, same_boot=True)
    assert on(fresh) is sounds
    fresh.tick(61 * NS)
    assert not on(fresh)


def test_after_a_reboot_the_alert_is_known_and_silent_until_fresh_data_come() -> None:
    core = Core(station())
    alert = those(close(core, 1000 * NS), Alert)[0]
    fresh = restarted(core, 5 * NS, same_boot=False)
    assert not on(fresh)
    assert [a["interrupted"] for a in fresh.status()["alerts"]] == [True]
    again = those(close(fresh, 6 * NS), Alert)[0]
    assert (again.id, again.phase) == (alert.id, Phase.update)
    assert on(fresh)


@pytest.mark.parametrize("same_boot", [True, False])
def test_a_technician_is_not_armed_upon_by_a_restart(same_boot: bool) -> None:
    core = Core(station())
    core.arm(Arming.order(Mode.disarmed, 600, 0, "me", "full"), 0)
    fresh = restarted(core, 50 * NS, same_boot=same_boot)
    assert fresh.arming == Arming(Mode.disarmed, 650 * NS, "me", "full")
    close(fresh, 51 * NS)
    assert not on(fresh)


def test_arming_that_cannot_be_read_is_armed_and_stated() -> None:
    core = Core(station())
    core.restore({"arming": {"mode": "asleep"}}, 0, same_boot=True)
    assert core.arming.mode is Mode.armed
    assert those(events(core), Health)[0].kind == "arming_state"


# --- deadlines ----------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.integers(0, 20_000),
        st.sampled_from(
            ["close", "half", "open", "garbage", "lost", "opened", "off", "on", "disarm", "arm"]
        ),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_whatever_happened_time_gets_on_from_deadline_to_deadline(
    happenings: list[tuple[int, str]],
) -> None:
    core = Core(station((gauge("g", silent_after_s=7.0),)))
    t = 0
    for pause_ms, what in happenings:
        t = run(core, t, t + pause_ms * NS // 1000)
        happen(core, what, t)
    run(core, t, t + 7200 * NS)
    assert not on(core)


def run(core: Core, t: int, end: int) -> int:
    """Tick at each deadline up to ``end``; fails if time does not get on."""
    same = 0
    for _ in range(300):
        due = core.next_deadline()
        if due is None or due > end:
            core.tick(end)
            return end
        same = 0 if due > t else same + 1
        assert same < 4, "what a siren driver says at once may ask for another look, not for ever"
        t = max(t, due)
        core.tick(t)
    raise AssertionError(f"300 deadlines up to {t} ns")


def happen(core: Core, what: str, t: int) -> None:
    match what:
        case "close" | "half" | "open":
            value = {"close": b"1", "half": b"0.5", "open": b"0"}[what]
            core.bytes("g", b"contact " + value + b"\n", t)
        case "garbage":
            core.bytes("g", b"\xff\n", t)
        case "lost":
            core.lost("g", t, "unplugged")
        case "opened":
            core.opened("g", t)
        case "off":
            core.siren_off((), t, "by hand")
        case "on":
            core.siren_on(Request(f"x{t}", Status.test, None, Level.none, "long", t), (), t)
        case "disarm":
            core.arm(Arming.order(Mode.disarmed, 5, t, "me", "full"), t)
        case "arm":
            core.arm(Arming(), t)
