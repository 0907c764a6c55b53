"""Silence every siren with no daemon to do it: after a crash, or when a technician must be sure.

systemd runs it when the core has ended for whatever reason (ExecStopPost), and ``gateway siren off
--all`` is the same. It knows nothing of alerts: it opens each siren's port, has the siren's own
driver silence it and read it back, on all ports at once, and is done within 1.5 s whatever does not
answer, so that a siren that is to sound on does so within 3 s of the last core's death: two starts
of Python on a busy machine are the rest.

The ports are opened without asking for their lock. A dead process has left none, but one that
hangs still holds its own, and then this is the only way left to the siren. Two masters on one line
can garble each other's frames; the driver repeats what was not echoed.

A siren that is not confirmed silent after half of that gets its driver's ``off_frames`` too, which
need no answer but may switch more than sirens.
"""

import selectors
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.core.compiled import Compiled, Siren
from gateway.core.transport import Line, LineChange
from gateway.drivers import load_object
from gateway.events import NS, Diagnostic, SirenState
from gateway.siren import SirenDriver

LIMIT_NS: Final = 3 * NS // 2
_AGAIN_NS: Final = LIMIT_NS // 2
_PAUSE_NS: Final = NS // 20
"""After ``off_frames``: a device may answer them, and nobody waits for that."""


@dataclass(slots=True)
class _Port:
    """The sirens of one port; ``line`` is None for those that have none."""

    driver: SirenDriver
    line: Line | None
    sirens: tuple[str, ...]
    silent: dict[str, bool] = field(default_factory=dict)
    why: str = "no answer"
    begin_ns: int | None = None
    again_ns: int = 0

    @property
    def done(self) -> bool:
        return all(self.silent.get(siren) for siren in self.sirens)

    def next_deadline(self) -> int | None:
        if self.line is not None and self.line.fileno() is None:
            return self.line.next_deadline()
        times = [self.begin_ns]
        if self.begin_ns is None:
            times = [self.again_ns, self.driver.next_deadline()]
        if self.line is not None:
            times.append(self.line.next_deadline())
        return min(x for x in times if x is not None)

    def opened(self, t: int) -> None:
        self.begin_ns = t

    def turn(self, t: int, data: bytes) -> None:
        """Bytes that came, and whatever is due."""
        if self.begin_ns is not None:
            if t < self.begin_ns:
                return
            self.begin_ns = None
            self.again_ns = t + _AGAIN_NS
            self.driver.opened(t)
            for siren in self.sirens:
                self.driver.silence(siren, t)
        elif t >= self.again_ns:
            self._write(self.driver.off_frames())
            self.begin_ns = t + _PAUSE_NS
            return
        self._take(self.driver.feed(data, t) if data else [])
        self._take(self.driver.tick(t))
        self._write(self.driver.to_send())

    def _take(self, items: Sequence[SirenState | Diagnostic]) -> None:
        for item in items:
            if isinstance(item, SirenState):
                self.silent[item.siren] = item.on is False
                if item.on:
                    self.why = "it still reads as sounding"
            elif item.detail:
                self.why = item.detail

    def _write(self, data: bytes) -> None:
        if self.line is not None:
            self.line.write(data)


def sirens_off(compiled: Compiled) -> int:
    """Silence every siren and print a line for each; 0 when all are read back as silent, else 1."""
    begin = time.monotonic_ns()
    ports, broken = _ports(compiled.sirens)
    with selectors.DefaultSelector() as selector:
        t = begin
        while (waiting := [port for port in ports if not port.done]) and t < begin + LIMIT_NS:
            for port in waiting:
                _tend(port, selector, t)
            due = [x for port in waiting if (x := port.next_deadline()) is not None]
            wake_ns = min([*due, begin + LIMIT_NS])
            ready = selector.select(max(0, wake_ns - time.monotonic_ns()) / NS)
            t = time.monotonic_ns()
            for key, mask in ready:
                port, line = key.data
                if mask & selectors.EVENT_WRITE:
                    line.flush()
                data = line.read(t) if mask & selectors.EVENT_READ else b""
                if not port.done:
                    port.turn(t, data)
    for port in ports:
        if port.line is not None:
            port.line.close()
    for text in (*broken, *(text for port in ports for text in _report(port))):
        sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    return 0 if not broken and all(port.done for port in ports) else 1


def _ports(sirens: Sequence[Siren]) -> tuple[list[_Port], list[str]]:
    """The ports of all sirens, and a line for each siren whose driver can't be made."""
    groups: dict[str, list[Siren]] = {}
    for siren in sirens:
        groups.setdefault(siren.port.path if siren.port else siren.name, []).append(siren)
    ports, broken = [], []
    for group in groups.values():
        first, names = group[0], tuple(siren.name for siren in group)
        try:
            driver = load_object(first.driver)(
                first.options, {siren.name: siren.unit for siren in group}
            )
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            broken += [f"{name}: not silenced: {first.driver}: {error}" for name in names]
            continue
        line = Line(first.port, exclusive=False) if first.port else None
        port = _Port(driver, line, names)
        if line is None:
            port.opened(time.monotonic_ns())
        ports.append(port)
    return ports, broken


def _tend(port: _Port, selector: selectors.BaseSelector, t: int) -> None:
    """Open the port, or open it again; let what is due be done."""
    line = port.line
    if line is None:
        port.turn(t, b"")
        return
    before = line.fileno()
    for change, reason in line.tick(t):
        if change is LineChange.opened:
            port.opened(t)
        else:
            port.why = reason
    fd = line.fileno()
    if fd != before and before is not None:
        selector.unregister(before)
    if fd is None:
        return
    port.turn(t, b"")
    events = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.wants_write else 0)
    if fd != before:
        selector.register(fd, events, (port, line))
    else:
        selector.modify(fd, events, (port, line))


def _report(port: _Port) -> Iterator[str]:
    for siren in port.sirens:
        if port.silent.get(siren):
            yield f"{siren}: silent"
        else:
            yield f"{siren}: not confirmed silent: {port.why}"
