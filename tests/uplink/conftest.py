"""A broker a module, and a city that is closed whatever happens in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.hub.broker import Broker, find_program
from gateway.uplink.config import MqttConfig
from tests.uplink.city import City
from tests.uplink.line import Line

needs_broker = pytest.mark.skipif(
    find_program("mosquitto") is None, reason="mosquitto is not installed"
)


@pytest.fixture
def broker() -> Iterator[Broker]:
    if find_program("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    with Broker() as running:
        yield running


@pytest.fixture
def line() -> Iterator[Callable[..., Line]]:
    lines: list[Line] = []

    def make(config: MqttConfig, client_id: str = "cn-demo-001") -> Line:
        lines.append(Line(config, client_id))
        return lines[-1]

    yield make
    for made in lines:
        made.close()


@pytest.fixture
def make_city(tmp_path: Path) -> Iterator[Callable[..., City]]:
    cities: list[City] = []

    def make(url: str, **changes: Any) -> City:
        cities.append(City(tmp_path, url, **changes))
        return cities[-1]

    yield make
    for made in cities:
        made.close()


@pytest.fixture
def city(broker: Broker, make_city: Callable[..., City]) -> City:
    return make_city(broker.url)
