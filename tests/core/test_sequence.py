"""Decisions of a replay come in order of their time, however the recording was cut."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.sequence import Sequencer, channel_of
from gateway.events import Candidate, Decision, Hazard, Health, Level, LevelChange


def vote(channel: str, t: int) -> Candidate:
    return Candidate(channel, t, 5.0)


def test_live_nothing_is_held_back() -> None:
    sequence = Sequencer()
    assert sequence.add([vote("b", 2), vote("a", 1)], "x", 0) == [vote("b", 2), vote("a", 1)]
    assert sequence.watermark is None


def test_a_decision_waits_until_every_stream_has_passed_it() -> None:
    sequence = Sequencer(("a", "b"))
    assert sequence.add([vote("a", 5)], "a", 9) == []
    assert sequence.add([], "b", 4) == []
    assert sequence.add([vote("b", 5), vote("b", 6)], "b", 5) == [vote("a", 5), vote("b", 5)]
    assert sequence.watermark == 5
    assert sequence.ended("b") == [vote("b", 6)]
    assert sequence.ended("b") == []
    assert sequence.ended("a") == []
    assert sequence.watermark is None


def test_a_stream_never_goes_back() -> None:
    sequence = Sequencer(("a",))
    sequence.add([], "a", 9)
    sequence.add([], "a", 3)
    assert sequence.watermark == 9


def test_decisions_of_one_time_are_ordered_by_what_they_are_of() -> None:
    change = LevelChange("m", Hazard.fire, Level.red, 1, 1.0, "")
    assert channel_of(change) == "m"
    assert channel_of(vote("c", 1)) == "c"
    assert channel_of(Health("h", "ok", 1, "k")) == "h"
    sequence = Sequencer(("x",))
    found = sequence.add([vote("z", 1), change, vote("c", 1)], "x", 1)
    assert [channel_of(decision) for decision in found] == ["c", "m", "z"]


@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 50), max_size=20), min_size=1),
    st.randoms(use_true_random=False),
)
def test_any_interleaving_gives_the_same_order(times: dict[str, list[int]], random: Random) -> None:
    def run(order: list[str]) -> list[Decision]:
        sequence, left = Sequencer(tuple(times)), {k: sorted(v) for k, v in times.items()}
        found: list[Decision] = []
        for stream in order:
            if left[stream]:
                t = left[stream].pop(0)
                found += sequence.add([vote(stream, t)], stream, t - 1)
        for stream in times:
            found += sequence.ended(stream)
        return found

    turns = [stream for stream, values in times.items() for _ in values]
    shuffled = list(turns)
    random.shuffle(shuffled)
    expected = sorted((t, stream) for stream, values in times.items() for t in values)
    for order in (turns, shuffled):
        assert [(d.decided_ns, channel_of(d)) for d in run(order)] == expected
