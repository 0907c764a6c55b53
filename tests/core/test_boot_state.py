"""What the next core of this boot takes up is in memory, and only of this boot."""

import json
from pathlib import Path

import pytest

from gateway.core.boot_state import BootState
from gateway.events import NS

MINUTE = 60 * NS


def test_what_was_kept_is_taken_up_and_a_death_is_known(tmp_path: Path) -> None:
    first = BootState.take_over(tmp_path)
    assert (first.state, first.deaths, first.problem) == (None, (), "")
    first.save({"alerts": [1]})
    second = BootState.take_over(tmp_path)
    assert second.state == {"alerts": [1]}
    assert second.deaths_within(MINUTE) == 1
    assert BootState.take_over(tmp_path).deaths_within(MINUTE) == 2
    assert BootState.take_over(tmp_path).state == {"alerts": [1]}


def test_an_orderly_end_is_no_death(tmp_path: Path) -> None:
    BootState.take_over(tmp_path).save({"alerts": []}, running=False)
    found = BootState.take_over(tmp_path)
    assert (found.state, found.deaths) == ({"alerts": []}, ())


def test_deaths_of_long_ago_do_not_count(tmp_path: Path) -> None:
    kept = BootState.take_over(tmp_path)
    kept.deaths = (1,)
    assert kept.deaths_within(NS) == 0


def test_nothing_of_another_boot_is_taken_up(tmp_path: Path) -> None:
    BootState.take_over(tmp_path).save({"alerts": [1]})
    kept = json.loads((tmp_path / "state").read_text())
    (tmp_path / "state").write_text(json.dumps({**kept, "boot": "another"}))
    found = BootState.take_over(tmp_path)
    assert (found.state, found.deaths, found.problem) == (None, (), "")


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"boot": 1}'])
def test_damage_is_stated_and_nothing_taken_up(tmp_path: Path, damage: str) -> None:
    (tmp_path / "state").write_text(damage)
    found = BootState.take_over(tmp_path)
    assert (found.state, found.deaths) == (None, ())
    assert str(tmp_path / "state") in found.problem or damage == '{"boot": 1}'
    found.save({})
    assert found.problem == ""


def test_where_nothing_can_be_kept_nothing_old_stays_to_resume(tmp_path: Path) -> None:
    kept = BootState.take_over(tmp_path)
    kept.save({"alerts": [1]})
    (tmp_path / "state.new").mkdir()
    kept.save({"alerts": [2]})
    assert "a crash would end what sounds" in kept.problem
    assert not (tmp_path / "state").exists()
