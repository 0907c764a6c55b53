"""A sink that is slow, hangs or fails costs nobody else anything, and what it drops is told."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest

from gateway.uplink.service import Uplink, now, read_request
from gateway.uplink.sink import Item, Sink
from tests.uplink.city import PATIENCE_S, City, alert


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.005)


class Taker(Sink):
    """Keeps what it is given; hangs and fails as it is told to."""

    serves: ClassVar[frozenset[str]] = frozenset({"window"})
    gather_s: ClassVar[float] = 0.01
    capacity: ClassVar[int] = 5
    close_s: ClassVar[float] = 0.1

    def __init__(self) -> None:
        super().__init__("taker")
        self.taken: list[Item] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.fails = False
        self.finished = False

    def work(self, items: Sequence[Item]) -> float | None:
        if items:
            self.may_go_on.wait(PATIENCE_S)
        if self.fails and items:
            raise OSError("the disk burns")
        self.taken += items
        for item in items:
            if "request" in item:
                self.answer(item["request"], "accepted", "here it is")
        return None

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def taker() -> Iterator[Taker]:
    it = Taker()
    yield it
    it.may_go_on.set()
    it.close()


def test_a_sink_works_off_in_order_what_it_was_handed_and_then_ends(taker: Taker) -> None:
    taker.start()
    for n in range(5):
        taker.take({"n": n})
    taker.close()
    assert [item["n"] for item in taker.taken] == list(range(5))
    assert taker.finished
    assert taker.faults() == []


def test_a_sink_that_hangs_drops_what_is_too_much_and_says_how_far_it_is_behind(
    taker: Taker,
) -> None:
    taker.may_go_on.clear()
    taker.start()
    for n in range(3):
        taker.take({"n": n})
    until(lambda: taker.lag().waiting == 3 and not taker._handed)
    for n in range(12):
        taker.take({"n": 3 + n})
    assert [(f.kind, f.times) for f in taker.faults()] == [("dropped", 7)]
    assert taker.faults() == [], "each is said once"
    assert taker.lag().waiting == 8
    assert taker.lag().oldest_s > 0
    taker.may_go_on.set()
    until(lambda: len(taker.taken) == 8)
    until(lambda: taker.lag() == (0, 0.0))


def test_the_end_waits_for_a_sink_that_hangs_no_longer_than_it_may(taker: Taker) -> None:
    taker.may_go_on.clear()
    taker.start()
    taker.take({"n": 1})
    until(lambda: not taker._handed)
    began = time.monotonic()
    taker.close()
    assert time.monotonic() - began < PATIENCE_S / 2
    assert not taker.finished


def test_a_sink_that_fails_says_what_was_lost_and_goes_on(taker: Taker) -> None:
    taker.fails = True
    taker.start()
    taker.take({"n": 1})
    until(lambda: taker._faults.qsize() >= 2)
    faults = taker.faults()
    assert [(f.kind, f.times) for f in faults[-2:]] == [("failed", 1), ("dropped", 1)]
    assert "the disk burns" in faults[-1].detail
    taker.fails = False
    taker.take({"n": 2})
    until(lambda: taker.taken == [{"n": 2}])


@pytest.fixture
def with_taker(city: City, taker: Taker) -> City:
    city.start_hub()
    city.uplink = Uplink(
        city.config,
        city.directory,
        city.directory / "state",
        city._uplink_selector,
        now(),
        (taker,),
    )
    city.until(lambda: any(m.kind == "status" for m in city.heard))
    return city


def test_a_sink_that_hangs_delays_no_alert(with_taker: City, taker: Taker) -> None:
    taker.may_go_on.clear()
    with_taker.core.publish(*(alert(n) for n in range(50)))
    with_taker.until(lambda: len(with_taker.alerts_heard()) == 50)
    with_taker.until(
        lambda: any(m.data.get("component") == "taker" for m in with_taker.heard), "it is told"
    )
    told = next(m for m in with_taker.heard if m.data.get("component") == "taker")
    assert told.data["kind"] == "dropped"
    assert "hangs" in told.data["detail"]


def test_what_a_sink_publishes_wakes_the_loop_and_reaches_the_hub(
    with_taker: City, taker: Taker
) -> None:
    city = with_taker
    city.until(lambda: city.waiting() == 0)
    ready = city._uplink_selector.select(0)
    record = {"type": "quality", "channel": "XX.A..HHZ", "kind": "gap", "detail": "made here"}
    threading.Thread(target=taker.publish, args=(record, "once-only")).start()
    until(lambda: len(city._uplink_selector.select(0)) > len(ready))
    city.until(lambda: any(m.id == "once-only" for m in city.heard))
    assert city.faults() == []


def test_a_request_of_the_hub_is_served_by_the_sink_that_can(with_taker: City) -> None:
    city = with_taker
    assert city.hub is not None
    city.hub.request("demo", "cn-demo-001", "q1", "window", {"start": "2026-01-01T00:00:00Z"})
    city.hub.request("demo", "cn-demo-001", "q2", "weather", {})
    city.until(lambda: len([m for m in city.heard if m.kind == "reply"]) == 2)
    replies = {m.data["command"]: m.data for m in city.heard if m.kind == "reply"}
    assert (replies["q1"]["outcome"], replies["q1"]["by"]) == ("accepted", "taker")
    assert replies["q2"]["outcome"] == "refused"
    assert city.faults() == []


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 4000, "not JSON"),
        (b"x" * 5000, "5000 bytes"),
        (b"[]", "is not"),
        (b'{"id":"a","request":"window","arguments":[]}', "is not"),
        (b'{"request":"window"}', "id is not text"),
        (b'{"id":"a","request":7}', "request is not text"),
    ],
)
def test_a_bad_request_says_what_is_wrong(payload: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_request(payload)


def test_a_request_that_lay_at_the_broker_is_refused() -> None:
    good: dict[str, Any] = {"payload": b'{"id":"a","request":"window"}'}
    assert read_request(**good).id == "a"
    with pytest.raises(ValueError, match="retained"):
        read_request(**good, retained=True)
