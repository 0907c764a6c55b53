"""A serial line between a siren driver and boards, in simulated time."""

from collections.abc import Callable

from gateway.drivers import Simulator
from gateway.events import NS, Diagnostic, SirenState
from gateway.siren import SirenDriver

MS = 1_000_000
BYTE_NS = NS // 960
"""One character at 9600 baud."""

Fault = Callable[[bytes, int], bytes]


def whole(data: bytes, t: int) -> bytes:
    """A line without a fault."""
    del t
    return data


def cut(data: bytes, t: int) -> bytes:
    """A line that is cut."""
    del data, t
    return b""


class Line:
    """Carries bytes both ways at 9600 baud and calls each side when it asks for it.

    ``to_board`` and ``to_host`` may change what passes. ``sent`` keeps (time, frame) of what the
    host wrote, ``said`` (time, item) of what the driver returned.
    """

    def __init__(self, driver: SirenDriver, *boards: Simulator, t: int = 0) -> None:
        self.driver = driver
        self.boards = list(boards)
        self.t = t
        self.sent: list[tuple[int, bytes]] = []
        self.said: list[tuple[int, SirenState | Diagnostic]] = []
        self.to_board: Fault = whole
        self.to_host: Fault = whole
        self.host_alive = True
        self._flying: list[tuple[int, int, bytes]] = []
        for board in boards:
            board.powered(t)
        driver.opened(t)
        self._collect()

    def run(self, until: int) -> "Line":
        """Let time pass to ``until``, which is reached."""
        while (due := self._next()) is not None and due <= until:
            self.t = max(self.t, due)
            self._step()
        self.t = until
        self._step()
        return self

    def sound(self, siren: str, for_ns: int) -> bytes:
        """Sound, and what is on the line at that very moment."""
        self.driver.sound(siren, self.t + for_ns, self.t)
        return self._collect()

    def silence(self, siren: str) -> bytes:
        self.driver.silence(siren, self.t)
        return self._collect()

    def reopen(self) -> bytes:
        """The port is gone and back."""
        self.driver.opened(self.t)
        return self._collect()

    def states(self) -> list[tuple[str, bool | None]]:
        return [(item.siren, item.on) for _, item in self.said if isinstance(item, SirenState)]

    def diagnostics(self) -> list[str]:
        return [item.kind for _, item in self.said if isinstance(item, Diagnostic)]

    def inject(self, data: bytes) -> None:
        """Bytes from the line to the host, now."""
        self._hear(data)

    def _next(self) -> int | None:
        times = [due for due, _, _ in self._flying]
        times += [due for board in self.boards if (due := board.next_deadline()) is not None]
        if self.host_alive and (due := self.driver.next_deadline()) is not None:
            times.append(due)
        return min(times, default=None)

    def _step(self) -> None:
        landed = [item for item in self._flying if item[0] <= self.t]
        self._flying = [item for item in self._flying if item[0] > self.t]
        for _, towards, data in landed:
            if towards == 0:
                for board in self.boards:
                    board.feed(data, self.t)
            elif self.host_alive:
                self._hear(data)
        for board in self.boards:
            board.tick(self.t)
            if data := self.to_host(board.to_send(), self.t):
                self._flying.append((self.t + len(data) * BYTE_NS, 1, data))
        if self.host_alive:
            self.said += [(self.t, item) for item in self.driver.tick(self.t)]
            self._collect()

    def _hear(self, data: bytes) -> None:
        self.said += [(self.t, item) for item in self.driver.feed(data, self.t)]
        self._collect()

    def _collect(self) -> bytes:
        data = self.driver.to_send()
        if data:
            self.sent.append((self.t, data))
            if passed := self.to_board(data, self.t):
                self._flying.append((self.t + len(passed) * BYTE_NS, 0, passed))
        return data
