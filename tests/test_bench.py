"""Every benchmark runs and gives figures; none is judged here, as the machine is shared."""

import math
from importlib import import_module
from pathlib import Path

import pytest

import bench
from bench.report import Result, table
from gateway.hub.broker import find_program

NAMES = sorted(p.stem for p in Path(bench.__file__).parent.glob("[a-z]*.py") if p.stem != "report")
NEEDS_BROKER = {"fleet", "outbox", "uplink"}


def test_the_benchmarks_are_found() -> None:
    assert {"detect", "footprint", "latency"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_gives_figures(name: str) -> None:
    if name in NEEDS_BROKER and find_program("mosquitto") is None:
        pytest.skip("no mosquitto here; tools/debian fetches it")
    results = import_module(f"bench.{name}").run(quick=True)
    assert results
    assert all(math.isfinite(result.value) and result.value > 0 for result in results)
    assert len({result.name for result in results}) == len(results)


def test_a_goal_is_a_bound_from_above_or_below() -> None:
    dear = Result("cost", 3.0, "×", 2.0)
    quick = Result("rate", 3.0, "×", 2.0, at_least=True)
    stated = Result("figure", 3.0, "s")
    assert [result.reached for result in (dear, quick, stated)] == [False, True, True]


def test_the_table_names_what_was_missed() -> None:
    rows = table([Result("cost", 3.0, "×", 2.0, note="here")]).splitlines()
    assert rows[-1] == "| cost | 3 × | ≤ 2 | no | here |"
