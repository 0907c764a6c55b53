"""A connection to a broker, and the loop that drives it."""

import random
import selectors
from collections.abc import Callable

from gateway.events import NS
from gateway.uplink.config import MqttConfig
from gateway.uplink.mqtt import Connection, Happening, Will
from gateway.uplink.service import now
from tests.uplink.city import PATIENCE_S


class Line:
    """A connection and the loop around it."""

    def __init__(self, config: MqttConfig, client_id: str = "cn-demo-001") -> None:
        self.selector = selectors.DefaultSelector()
        self.happened: list[Happening] = []
        self.connection = Connection(
            config, client_id, lambda: Will("will", b"gone"), self.selector, random.Random(1)
        )

    def turn(self, t: int | None = None) -> None:
        self.connection.tick(t or now())
        self.happened += self.connection.happened(t or now())
        for key, mask in self.selector.select(0.01):
            key.data(mask, t or now())

    def until(self, condition: Callable[[], object]) -> None:
        end = now() + round(PATIENCE_S * NS)
        while not condition():
            assert now() < end, self.happened
            self.turn()

    def until_seen(self, kind: type[Happening], times: int) -> None:
        self.until(lambda: len(self.of(kind)) >= times)

    def of(self, kind: type[Happening]) -> list[Happening]:
        return [happening for happening in self.happened if isinstance(happening, kind)]

    def close(self) -> None:
        self.connection.close()
        self.selector.close()
