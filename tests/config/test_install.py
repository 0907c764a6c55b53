"""The core finds the old configuration or the new one, never half of one."""

import json
import os
from pathlib import Path

import pytest

from gateway.config import compile_config, install
from gateway.config.install import to_json
from gateway.core import compiled
from gateway.core.compiled import Compiled
from tests.config.conftest import GOOD


@pytest.fixture
def first(config: Path) -> Compiled:
    return compile_config(config)


@pytest.fixture
def second(config: Path) -> Compiled:
    config.write_text(GOOD.replace("demo-001", "demo-002"))
    return compile_config(config)


def _loaded(state: Path, name: str) -> Compiled:
    return compiled.load(state / "compiled" / f"{name}.json")


def test_the_core_loads_what_was_compiled(first: Compiled, tmp_path: Path) -> None:
    assert install(first, tmp_path)
    assert _loaded(tmp_path, "current") == first
    assert not (tmp_path / "compiled" / "previous.json").exists()


def test_the_one_before_is_kept(first: Compiled, second: Compiled, tmp_path: Path) -> None:
    install(first, tmp_path)
    assert install(second, tmp_path)
    assert _loaded(tmp_path, "current") == second
    assert _loaded(tmp_path, "previous") == first


def test_the_same_again_touches_nothing(first: Compiled, second: Compiled, tmp_path: Path) -> None:
    install(first, tmp_path)
    install(second, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "compiled").iterdir()}
    assert not install(second, tmp_path)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "compiled").iterdir()} == before


def test_a_damaged_current_one_never_becomes_the_previous_one(
    first: Compiled, second: Compiled, tmp_path: Path
) -> None:
    install(first, tmp_path)
    install(second, tmp_path)
    current = tmp_path / "compiled" / "current.json"
    current.write_bytes(current.read_bytes()[:100])
    install(second, tmp_path)
    assert _loaded(tmp_path, "current") == second
    assert _loaded(tmp_path, "previous") == first


@pytest.mark.parametrize("broken", ["replace", "link", "fsync"])
def test_a_write_that_fails_leaves_what_was(
    first: Compiled,
    second: Compiled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    install(first, tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path if broken == "replace" else os, broken, fail)
        with pytest.raises(OSError, match="No space left"):
            install(second, tmp_path)
    assert _loaded(tmp_path, "current") == first
    assert install(second, tmp_path)
    assert _loaded(tmp_path, "current") == second
    left = {path.name for path in (tmp_path / "compiled").iterdir()}
    assert left == {"current.json", "previous.json"}


def test_the_same_configuration_gives_the_same_bytes(config: Path) -> None:
    assert to_json(compile_config(config)) == to_json(compile_config(config))


def test_a_compiled_file_of_another_format_is_refused(first: Compiled, tmp_path: Path) -> None:
    data = json.loads(to_json(first))
    data["format"] += 1
    (tmp_path / "other.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="not a compiled configuration of format"):
        compiled.load(tmp_path / "other.json")
