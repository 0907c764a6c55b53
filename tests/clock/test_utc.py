import pytest

from gateway.clock import ClockChange, Sync, UtcClock, read_system
from gateway.events import NS

UTC0 = 1_795_000_000 * NS
GOOD = Sync(synchronised=True, max_error_ns=NS // 100)
NONE = Sync(synchronised=False)
UNSYNCHRONISED = ClockChange("unsynchronised", wrong=True, detail="not synchronised since start")


def run(clock: UtcClock, seconds: range, sync: Sync, ahead_ns: int = 0) -> list[ClockChange]:
    return [
        change for s in seconds for change in clock.sample(s * NS, UTC0 + s * NS + ahead_ns, sync)
    ]


def test_a_clock_that_was_never_synchronised_says_so_and_knows_no_uncertainty() -> None:
    clock = UtcClock()
    assert run(clock, range(100), NONE) == [UNSYNCHRONISED]
    assert clock.offset_ns == UTC0
    assert clock.clock(100 * NS).uncertainty_ns is None
    assert not clock.clock(100 * NS).sure


def test_synchronisation_ends_the_condition_and_bounds_the_error() -> None:
    clock = UtcClock()
    run(clock, range(5), NONE)
    assert run(clock, range(5, 9), GOOD) == [ClockChange("unsynchronised", wrong=False)]
    assert clock.clock(9 * NS).sure
    assert clock.clock(9 * NS).utc_ns == UTC0 + 9 * NS
    assert clock.uncertainty_ns(9 * NS) == NS // 100


def test_after_losing_synchronisation_the_error_grows() -> None:
    clock = UtcClock()
    run(clock, range(5), GOOD)
    (change,) = run(clock, range(5, 3605), NONE)
    assert change == ClockChange("unsynchronised", wrong=True, detail="synchronisation lost")
    assert clock.uncertainty_ns(3604 * NS) == NS // 100 + 3600 * NS // 10_000
    assert clock.clock(3604 * NS).sure
    assert not clock.clock(3604 * NS + 50_000 * NS).sure


@pytest.mark.parametrize("step_s", [-3600, 3600, 1])
def test_a_step_without_a_time_service_is_stated_and_not_followed(step_s: int) -> None:
    clock = UtcClock()
    run(clock, range(5), GOOD)
    run(clock, range(5, 10), NONE)
    changes = run(clock, range(10, 20), NONE, ahead_ns=step_s * NS)
    assert [(c.kind, c.wrong) for c in changes] == [("stepped", True)]
    assert f"{step_s:+.3f} s" in changes[0].detail
    assert clock.offset_ns == UTC0


def test_a_step_of_a_synchronised_clock_is_followed_and_stated_for_a_minute() -> None:
    clock = UtcClock()
    run(clock, range(5), GOOD)
    changes = run(clock, range(5, 100), GOOD, ahead_ns=-2 * NS)
    assert [(c.kind, c.wrong) for c in changes] == [("stepped", True), ("stepped", False)]
    assert clock.offset_ns == UTC0 - 2 * NS
    assert clock.steps == 1


def test_slewing_is_no_step() -> None:
    clock = UtcClock()
    for s in range(1000):
        clock.sample(s * NS, UTC0 + s * NS + s * 500_000, GOOD)
    assert clock.steps == 0
    assert clock.offset_ns == UTC0 + 999 * 500_000


def test_a_gps_locked_digitiser_stands_in_for_a_time_service() -> None:
    clock = UtcClock()
    run(clock, range(5), NONE, ahead_ns=-20 * 365 * 86_400 * NS)
    for s in range(5, 10):
        clock.device(s * NS, UTC0 + s * NS - (s % 3) * NS // 100)
    assert clock.offset_ns == UTC0
    assert clock.clock(10 * NS).sure
    run(clock, range(10, 12), NONE, ahead_ns=-20 * 365 * 86_400 * NS)
    assert clock.offset_ns == UTC0


def test_a_time_service_goes_before_a_digitiser() -> None:
    clock = UtcClock()
    run(clock, range(5), GOOD)
    clock.device(5 * NS, UTC0 + 9 * NS)
    assert clock.offset_ns == UTC0


def test_the_state_can_be_shown() -> None:
    clock = UtcClock()
    assert clock.status() == {"state": "never", "uncertainty_s": None, "steps": 0}
    run(clock, range(2), GOOD)
    assert clock.status() == {"state": "synchronised", "uncertainty_s": 0.01, "steps": 0}


def test_the_system_can_be_read_without_rights() -> None:
    own_ns, utc_ns, sync = read_system()
    later_ns, later_utc_ns, _ = read_system()
    assert later_ns >= own_ns > 0
    assert later_utc_ns > 1_600_000_000 * NS
    assert utc_ns > 1_600_000_000 * NS
    assert isinstance(sync, Sync)
