"""Anything but armed is for a stated time, and what can't be read means armed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.arming import MAX_S, Arming, Mode, Sound
from gateway.events import NS, Status


@pytest.mark.parametrize(
    ("mode", "sound", "status", "muted"),
    [
        (Mode.armed, "full", Status.actual, ""),
        (Mode.silent, "full", Status.actual, "silent"),
        (Mode.disarmed, "full", Status.test, "disarmed"),
        (Mode.exercise, "full", Status.exercise, ""),
        (Mode.exercise, "chirp", Status.exercise, ""),
        (Mode.exercise, "silent", Status.exercise, "silent exercise"),
    ],
)
def test_what_a_mode_means(mode: Mode, sound: Sound, status: Status, muted: str) -> None:
    arming = Arming(mode, 1, "me", sound)
    assert (arming.status, arming.muted) == (status, muted)


def test_a_chirping_exercise_shortens_what_is_no_real_alert() -> None:
    chirping = Arming(Mode.exercise, 1, "me", "chirp")
    assert chirping.pattern(Status.exercise, "disaster") == "chirp"
    assert chirping.pattern(Status.actual, "disaster") == "disaster"
    assert Arming(Mode.exercise, 1, "me", "full").pattern(Status.exercise, "disaster") == "disaster"


@pytest.mark.parametrize("for_s", [None, 0, -1, MAX_S + 1, float("nan")])
@pytest.mark.parametrize("mode", [Mode.silent, Mode.exercise, Mode.disarmed])
def test_no_mode_but_armed_is_for_ever(mode: Mode, for_s: float | None) -> None:
    with pytest.raises(ValueError, match="needs a time of up to 8 h"):
        Arming.order(mode, for_s, 0, "me", "full")
    assert Arming.order(Mode.armed, for_s, 0, "me", "full").until_ns is None


def test_the_time_left_runs_only_while_powered_on() -> None:
    before = Arming.order(Mode.disarmed, 100, 0, "me", "full")
    after = Arming.restore(before.state(40 * NS), 7 * NS)
    assert after == Arming(Mode.disarmed, 67 * NS, "me", "full")


@pytest.mark.parametrize("left_ns", [0, -5, None])
def test_a_time_that_is_over_is_armed_again(left_ns: int | None) -> None:
    state = {"mode": "disarmed", "left_ns": left_ns, "by": "me", "sound": "full"}
    assert Arming.restore(state, 0).mode is Mode.armed
    assert Arming.restore(None, 0) == Arming()


@pytest.mark.parametrize(
    "state", [{}, {"mode": "asleep", "left_ns": 1, "by": "", "sound": "full"}, [], "armed", 7]
)
def test_state_that_cannot_be_read_is_refused(state: Any) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        Arming.restore(state, 0)


@given(
    st.sampled_from(Mode), st.floats(1, MAX_S), st.integers(0, 2**62), st.integers(0, MAX_S * NS)
)
def test_saved_and_restored_it_is_the_same_or_over(
    mode: Mode, for_s: float, t: int, gone_ns: int
) -> None:
    arming = Arming.order(mode, for_s, t, "me", "full")
    assert Arming.restore(arming.state(t), t) == Arming(mode, arming.until_ns, "me", "full")
    later = Arming.restore(arming.state(t + gone_ns), t + gone_ns)
    over = arming.until_ns is None or arming.until_ns <= t + gone_ns
    assert later.mode is (Mode.armed if over else mode)
