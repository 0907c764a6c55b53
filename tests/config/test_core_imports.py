"""A driver that would pull more into the core than it may hold is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway import drivers, siren
from gateway.config import core_imports
from tests.config.conftest import GOOD


def test_every_shipped_driver_may_live_in_the_core() -> None:
    modules = {path.partition(":")[0] for path in {**drivers.BUILT_IN, **siren.BUILT_IN}.values()}
    assert core_imports.check(modules) == {}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import struct, zlib, numpy, serial", None),
        ("import asyncio", "imports asyncio"),
        ("import json, ssl", "imports ssl;"),
        ("import sqlite3", "imports sqlite3;"),
        ("import pydantic", "pydantic"),
        ("import no_such_module", "can't be imported: ModuleNotFoundError"),
        ("1 / 0", "can't be imported: ZeroDivisionError"),
        ("raise SystemExit", "can't be imported: SystemExit"),
    ],
)
def test_what_a_driver_imports_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str | None
) -> None:
    (tmp_path / "some_driver.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    wrong = core_imports.check(["some_driver"])
    assert (said is None and wrong == {}) or (said is not None and said in wrong["some_driver"])


def test_one_module_does_not_hide_what_another_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first_driver", "second_driver"):
        (tmp_path / f"{name}.py").write_text("import asyncio")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(core_imports.check(["first_driver", "second_driver"])) == {
        "first_driver",
        "second_driver",
    }


def test_the_configuration_says_which_sensor_brings_such_a_driver(
    faults: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_driver.py").write_text(
        "import asyncio\nfrom gateway.drivers.hydreon_rg15 import HydreonRg15\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(drivers.BUILT_IN, "hydreon_rg15", "heavy_driver:HydreonRg15")
    (fault,) = faults(GOOD)
    assert fault.startswith("gateway.toml:14: sensor[1].profile: its driver imports asyncio")
