"""A siren that is only stated: for replays, demonstrations and stations without hardware.

It has no port and sends nothing; what it was told is its state at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gateway.drivers import Simulator
from gateway.drivers.options import read_options
from gateway.events import Diagnostic, SirenState
from gateway.siren import Sirens


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile: there is nothing to set."""


class Virtual:
    """Any number of virtual sirens. Their own keys (address, relay …) are those of none."""

    simulator: ClassVar[type[Simulator] | None] = None
    pulse_s: float | None = None
    reads_back: bool = True

    def __init__(
        self, options: Mapping[str, Any] | None = None, sirens: Sirens | None = None
    ) -> None:
        read_options(Options, options)
        self._until: dict[str, int] = {}
        self._news = [SirenState(name, on=False) for name in sirens or {}]
        self._now = 0

    def opened(self, t: int) -> None:
        """There is no port: nothing to begin."""

    def sound(self, siren: str, until_ns: int, t: int) -> None:
        self._now = t
        if until_ns <= t:
            self.silence(siren, t)
            return
        if siren not in self._until:
            self._news.append(SirenState(siren, on=True))
        self._until[siren] = until_ns

    def silence(self, siren: str, t: int) -> None:
        self._now = t
        if self._until.pop(siren, None) is not None:
            self._news.append(SirenState(siren, on=False))

    def self_test(self, siren: str, t: int) -> None:
        self.silence(siren, t)
        self._news.append(SirenState(siren, on=False))

    def feed(self, data: bytes, t: int) -> list[SirenState | Diagnostic]:
        """There is no port: bytes can't come."""
        del data
        return self.tick(t)

    def tick(self, t: int) -> list[SirenState | Diagnostic]:
        for siren in [siren for siren, until_ns in self._until.items() if until_ns <= t]:
            self.silence(siren, t)
        news, self._news = self._news, []
        return list(news)

    def next_deadline(self) -> int | None:
        if self._news:
            return self._now
        return min(self._until.values(), default=None)

    def to_send(self) -> bytes:
        return b""

    def off_frames(self) -> bytes:
        return b""
