"""Plans and scales: the shipped ones hold unless the station has its own, which are checked too."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import compile_config, shipped
from gateway.config.plans import SHIPPED
from gateway.detect import scale_files
from gateway.events import Hazard
from tests.config.conftest import GOOD

EARTHQUAKE = (SHIPPED / "plans" / "earthquake.toml").read_text()
SENSING = GOOD.replace('"/dev/seis1"', '"/dev/seis1"\nsensitivity = "8.1e7:m/s"')
RAINSTORM = (scale_files.SHIPPED / "rainstorm-national.toml").read_text()


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    folder = tmp_path / "plans"
    folder.mkdir()
    return folder


def test_what_is_shipped_is_sound() -> None:
    assert {plan.hazard for plan in shipped.plans()} >= {Hazard.earthquake, Hazard.rainstorm}
    assert "disaster" in {pattern.name for pattern in shipped.patterns()}
    assert "rainstorm-national" in {made.name for made in shipped.scales()}


def test_every_shipped_scale_reads() -> None:
    for path in sorted(scale_files.SHIPPED.glob("*.toml")):
        assert scale_files.read_scale(tomllib.loads(path.read_text()), path.name).name == path.stem


def test_a_plan_of_the_station_takes_the_place_of_the_shipped_one(
    config: Path, plans: Path
) -> None:
    author = 'author = "the county"'
    lines = [author if line.startswith("author") else line for line in EARTHQUAKE.splitlines()]
    (plans / "our-earthquake.toml").write_text("\n".join(lines))
    compiled = compile_config(config)
    authors = {plan.hazard: plan.author for plan in compiled.plans}
    assert authors[Hazard.earthquake] == "the county"
    assert authors[Hazard.rainstorm] != "the county"
    assert len(authors) == len(shipped.plans()) == len(compiled.plans)


def test_a_pattern_of_the_station_takes_the_place_of_the_shipped_one(
    config: Path, plans: Path
) -> None:
    (plans / "patterns.toml").write_text("[pattern.disaster]\nsteps = [60]\n")
    patterns = {pattern.name: pattern for pattern in compile_config(config).patterns}
    assert patterns["disaster"].length_s == 60
    assert set(patterns) == {pattern.name for pattern in shipped.patterns()}


def test_two_plans_for_one_hazard_are_refused(
    faults: Callable[[str], list[str]], plans: Path
) -> None:
    for name in ("a", "b"):
        (plans / f"{name}.toml").write_text(EARTHQUAKE)
    (fault,) = faults(SENSING)
    assert "plans/b.toml:" in fault
    assert "expected one plan a hazard" in fault


def test_a_wrong_plan_is_named_at_its_line(faults: Callable[[str], list[str]], plans: Path) -> None:
    number = 1 + next(
        i for i, line in enumerate(EARTHQUAKE.splitlines()) if line.startswith("version")
    )
    (plans / "earthquake.toml").write_text(EARTHQUAKE.replace("version", "vresion", 1))
    found = faults(GOOD)
    assert any(line.startswith(f"plans/earthquake.toml:{number}: plan.vresion: ") for line in found)


def test_a_plan_that_is_not_toml_is_named(faults: Callable[[str], list[str]], plans: Path) -> None:
    (plans / "earthquake.toml").write_text("[plan\n")
    (fault,) = faults(GOOD)
    assert fault.startswith("plans/earthquake.toml:1: column 6: ")


def test_a_plan_may_only_name_sirens_that_there_are(
    faults: Callable[[str], list[str]], plans: Path
) -> None:
    text = EARTHQUAKE.replace('siren = "disaster"', 'siren = "disaster"\nsirens = ["roof"]', 1)
    (plans / "earthquake.toml").write_text(text)
    (fault,) = faults(SENSING)
    assert "no siren 'roof'; there are main" in fault


def test_a_scale_of_the_station_is_in_force_once_it_is_named(config: Path, tmp_path: Path) -> None:
    (tmp_path / "scales").mkdir()
    own = RAINSTORM.replace('"rainstorm-national"', '"rainstorm-ours"')
    (tmp_path / "scales" / "rainstorm-ours.toml").write_text(own)
    assert "rainstorm-ours" not in {made.name for made in compile_config(config).scales}
    config.write_text(GOOD + '[scales]\nrainstorm = ["rainstorm-ours"]\n')
    names = {made.name for made in compile_config(config).scales}
    assert "rainstorm-ours" in names
    assert "rainstorm-national" not in names


def test_a_wrong_scale_is_named_at_its_line(
    faults: Callable[[str], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "scales").mkdir()
    broken = RAINSTORM.replace("unit =", "unti =", 1)
    number = 1 + next(i for i, line in enumerate(broken.splitlines()) if line.startswith("unti"))
    (tmp_path / "scales" / "rainstorm-national.toml").write_text(broken)
    found = faults(GOOD)
    assert any(f"rainstorm-national.toml:{number}: scale.unti: " in line for line in found)


def test_a_folder_that_is_not_there_leaves_the_shipped_plans(
    faults: Callable[[str], list[str]],
) -> None:
    (fault,) = faults(GOOD + '[plans]\ndirectory = "nowhere"\n')
    assert fault.startswith("gateway.toml:24: warning: plans.directory: ")
    assert fault.endswith("the shipped plans hold")
