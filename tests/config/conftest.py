"""Configurations to check: a good one, and ways to spoil it."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from gateway.config import check
from gateway.config.environment import PREFIX
from gateway.drivers import registry

GOOD = """\
[station]
id = "cn-demo-001"
city = "demo"
latitude = 31.0
longitude = 103.4

[[sensor]]
name = "seis1"
profile = "rpi-seism"
port = "/dev/seis1"

[[sensor]]
name = "rain1"
profile = "hydreon-rg15"
port = "/dev/rain1"

[[siren]]
name = "main"
profile = "waveshare-modbus-relay"
port = "/dev/relay"
address = 1
relay = 1
"""
"""A sound configuration; the tests below spoil single lines of it."""


_third_party = cache(registry.third_party)


@pytest.fixture(autouse=True)
def _installed_packages_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searching them for entry points is most of what a check costs."""
    monkeypatch.setattr(registry, "third_party", _third_party)


@pytest.fixture(autouse=True)
def _no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """gateway.toml in a folder of its own."""
    path = tmp_path / "gateway.toml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def faults(config: Path) -> Callable[..., list[str]]:
    """The faults of a configuration text, one line each, without the folder's name."""

    def found(text: str) -> list[str]:
        config.write_text(text)
        folder = f"{config.parent}/"
        return [str(fault).replace(folder, "") for fault in check(config).faults]

    return found
