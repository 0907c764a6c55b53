"""Health is said once when it begins, now and then while it lasts, and when it ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.health import REPEAT_S, HealthBook
from gateway.events import NS, Health

REPEAT = REPEAT_S * NS


def test_a_condition_is_said_when_it_begins_changes_and_ends() -> None:
    book = HealthBook()
    assert book.condition("rain1", "port", 1, "gone", "failed") == [
        Health("rain1", "failed", 1, "port", "gone")
    ]
    assert book.condition("rain1", "port", 2, "gone", "failed") == []
    assert book.condition("rain1", "port", 3, "locked", "failed") == [
        Health("rain1", "failed", 3, "port", "locked")
    ]
    assert book.clear("rain1", "port", 4, "open")[0].state == "ok"
    assert book.clear("rain1", "port", 5, "open") == []
    assert book.open() == []


def test_a_condition_lasts_until_it_is_cleared() -> None:
    book = HealthBook()
    book.condition("rain1", "port", 0, "gone")
    assert book.next_deadline() is None
    assert book.tick(10**6 * NS) == []
    assert [h.component for h in book.open()] == ["rain1"]


def test_an_incident_ends_by_itself_with_its_count() -> None:
    book = HealthBook()
    assert book.incident("seis1", "garbage", 0, "", 3)[0].count == 3
    assert book.incident("seis1", "garbage", NS, "", 4) == []
    assert book.next_deadline() == NS + REPEAT
    assert book.tick(NS + REPEAT - 1) == []
    [over] = book.tick(NS + REPEAT)
    assert (over.state, over.count) == ("ok", 4)
    assert "7 in all" in over.detail
    assert book.next_deadline() is None
    assert book.totals() == {"seis1.garbage": 7}


def test_an_incident_that_goes_on_is_said_again_with_what_was_not_said() -> None:
    book = HealthBook()
    said = [h for t in range(0, 2 * REPEAT + 1, NS) for h in book.incident("a", "late", t)]
    assert [(h.time_ns, h.count) for h in said] == [(0, 1), (REPEAT, 60), (2 * REPEAT, 60)]


@pytest.mark.parametrize("kind", ["garbage", "late"])
def test_things_that_go_wrong_are_kept_apart(kind: str) -> None:
    book = HealthBook()
    book.incident("a", "garbage", 0)
    book.incident("a", "late", 0)
    book.condition("b", kind, 0, "lasts")
    assert len(book.tick(REPEAT)) == 2
    assert [(h.component, h.kind) for h in book.open()] == [("b", kind)]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 9)), max_size=40))
def test_nothing_is_dropped_silently(steps: list[tuple[int, int]]) -> None:
    book, t = HealthBook(), 0
    for pause_s, count in steps:
        t += pause_s * NS
        book.tick(t)
        book.incident("a", "late", t, "", count)
    assert book.totals().get("a.late", 0) == sum(count for _, count in steps)
