"""What the driver tests share: made-up ground motion and rain, and a line without a cable."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.drivers import Driver, Simulator
from gateway.events import NS, Diagnostic, Reading, Scans


@dataclass
class Ramp:
    """Counts that name their sample: channel c of sample i is 10 000 c + i. Rain at 36 mm/h."""

    rate_hz: float = 100.0
    channels: int = 3

    def samples(self, first: int, count: int) -> NDArray[np.int32]:
        ramp = np.arange(first, first + count, dtype=np.int32)
        return ramp + 10_000 * np.arange(self.channels, dtype=np.int32)[:, np.newaxis]

    def micro(self, quantity: str, t: int) -> int | None:
        del quantity
        return t // 100_000


class Line:
    """A device and its driver on one line, driven by a clock that only the test moves."""

    def __init__(self, driver: Driver, device: Simulator, t: int = 0) -> None:
        self.driver, self.device, self.t = driver, device, t
        self.found: list[Scans | Reading | Diagnostic] = []
        device.powered(t)
        driver.opened(t)

    def run(self, seconds: float) -> list[Scans | Reading | Diagnostic]:
        """Let time pass from deadline to deadline; give what the driver found in it."""
        before = len(self.found)
        end = self.t + round(seconds * NS)
        while True:
            self.exchange()
            deadlines = (self.driver.next_deadline(), self.device.next_deadline())
            due = [deadline for deadline in deadlines if deadline is not None]
            self.t = max(self.t, min([*due, end]))
            if self.t >= end:
                break
            self.found += self.driver.tick(self.t)
            self.device.tick(self.t)
        return self.found[before:]

    def exchange(self) -> None:
        """Carry bytes both ways until neither side has more to say."""
        while True:
            asked = self.driver.to_send()
            self.device.feed(asked, self.t)
            said = self.device.to_send()
            if not (asked or said):
                return
            self.found += self.driver.feed(said, self.t)


def merged(found: list[Any]) -> list[Any]:
    """Scans by index and value, everything else as it is: what must not depend on read sizes."""
    out: list[Any] = []
    stray = 0
    for item in found:
        if isinstance(item, Scans):
            out += [(item.index + n, *column) for n, column in enumerate(item.samples.T.tolist())]
        elif isinstance(item, Diagnostic) and item.kind == "garbage":
            stray += item.count
        else:
            out.append(item)
    return [*out, stray]


def values(found: list[Any], quantity: str) -> list[int | None]:
    return [r.micro for r in found if isinstance(r, Reading) and r.quantity == quantity]


def kinds(found: list[Any]) -> list[str]:
    return [item.kind for item in found if isinstance(item, Diagnostic)]
