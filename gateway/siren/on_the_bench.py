"""Sirens without a core: the silent self-test, and what only a bench can tell.

The ports are opened with their lock, so that a running core is never disturbed.
"""

import selectors
import time
from collections.abc import Callable
from typing import Final, Protocol

from gateway.core.compiled import Port, Siren
from gateway.core.transport import Line
from gateway.drivers import load_object
from gateway.events import NS, Diagnostic, SirenState
from gateway.siren import SirenDriver
from gateway.siren.pulse_test import Finding, PulseTest

_SILENT_NS: Final = 5 * NS
_PULSE_NS: Final = 20 * NS


class BenchError(Exception):
    """The port can't be had; the message says why and what to do."""


class _Machine(Protocol):
    """What is driven over a line: a siren driver, or a test in its shape."""

    def opened(self, t: int) -> None: ...
    def feed(self, data: bytes, t: int) -> object: ...
    def tick(self, t: int) -> object: ...
    def next_deadline(self) -> int | None: ...
    def to_send(self) -> bytes: ...


def silent_test(siren: Siren) -> tuple[bool, str]:
    """Whether the siren can be told to be silent and reads back so, and what was found.

    Raises:
        BenchError: its port can't be had.
    """
    driver: SirenDriver = load_object(siren.driver)(siren.options, {siren.name: siren.unit})
    if not driver.reads_back:
        return True, "told to be silent; the device gives no answer, so nothing is proved"
    found: list[bool] = []
    why = ["not read back as silent; check its port, power and cable"]

    def heard(items: object) -> bool:
        for item in items if isinstance(items, list) else ():
            if isinstance(item, SirenState) and item.on is not None:
                found.append(item.on)
            elif isinstance(item, Diagnostic) and item.detail:
                why.append(item.detail)
        return bool(found) and not found[-1]

    began = time.monotonic_ns()
    if _drive(siren.port, driver, heard, _SILENT_NS):
        return True, f"silent, read back after {(time.monotonic_ns() - began) / NS:.2f} s"
    return False, why[-1]


def pulse_test(siren: Siren) -> Finding | None:
    """What the siren's relay board does with a timed pulse that is sent again; it sounds.

    None where the device has no such pulses.

    Raises:
        BenchError: its port can't be had.
    """
    if siren.port is None or not siren.driver.endswith("modbus_relay:ModbusRelay"):
        return None
    test = PulseTest(siren.options, siren.unit)
    _drive(siren.port, test, lambda _: test.over, _PULSE_NS)
    return test.finding


def _drive(
    port: Port | None, machine: _Machine, done: Callable[[object], bool], limit_ns: int
) -> bool:
    """Turn a machine on its line until it is done; False when the time is over before."""
    line = Line(port) if port else None
    try:
        if line is not None:
            _open(line)
        with selectors.DefaultSelector() as selector:
            if line is not None and (fd := line.fileno()) is not None:
                selector.register(fd, selectors.EVENT_READ)
            t = time.monotonic_ns()
            end = t + limit_ns
            machine.opened(t)
            while t < end:
                if line is not None:
                    line.write(machine.to_send())
                due = machine.next_deadline()
                wait_ns = min(x for x in (due, end) if x is not None) - time.monotonic_ns()
                ready = selector.select(max(0, wait_ns) / NS)
                t = time.monotonic_ns()
                data = line.read(t) if line is not None and ready else b""
                if done(machine.feed(data, t) if data else machine.tick(t)):
                    if line is not None:
                        line.write(machine.to_send())
                    return True
                if line is not None and line.next_deadline() == 0:
                    raise BenchError(line.tick(t)[0].reason)
        return False
    finally:
        if line is not None:
            line.close()


def _open(line: Line) -> None:
    """Open the line, or say why not; a board that is reset by opening is given its time."""
    end = time.monotonic_ns() + NS
    while line.fileno() is None:
        t = time.monotonic_ns()
        for event in line.tick(t):
            if event.reason:
                raise BenchError(event.reason)
        if t > end:
            raise BenchError(f"{line.port.path} does not open")
        if (due := line.next_deadline()) is not None:
            time.sleep(max(0, due - t) / NS)  # to when the port is tried again
