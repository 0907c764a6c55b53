"""Siren drivers: one file a device, sans-IO, in the shape of ``gateway.drivers``.

One driver serves one port; several sirens (relays, addresses) may share it. The core calls
:meth:`SirenDriver.sound` and :meth:`SirenDriver.silence` at the edges of a pattern and writes what
:meth:`SirenDriver.to_send` gives at once. A device that can time itself is pulsed, so that it falls
silent within 3 s of the last pulse when the gateway dies.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from gateway.drivers import Simulator
from gateway.drivers.registry import Registry
from gateway.events import Diagnostic, SirenState

BUILT_IN = {
    "gpio": "gateway.siren.gpio:Gpio",
    "lcus_relay": "gateway.siren.lcus_relay:LcusRelay",
    "modbus_relay": "gateway.siren.modbus_relay:ModbusRelay",
    "patlite": "gateway.siren.patlite:Patlite",
    "virtual": "gateway.siren.virtual:Virtual",
}


@runtime_checkable
class SirenDriver(Protocol):
    """What the core asks of a siren driver. ``t`` is monotonic time in ns and never falls.

    Made with ``(options=None, sirens=None)``: ``options`` is the profile's ``[driver]`` table,
    ``sirens`` maps each siren's name to its own keys (``address``, ``relay`` …). ``__init__``
    raises ValueError naming the key, what was seen and what is allowed.
    """

    simulator: ClassVar[type[Simulator] | None]
    pulse_s: float | None
    """How long after the last command the device falls silent by itself; None where not assured."""
    reads_back: bool
    """Whether the device says what it does: without that no :class:`SirenState` ever comes."""

    def opened(self, t: int) -> None:
        """The port was opened, or opened again: state unknown until read back."""

    def sound(self, siren: str, until_ns: int, t: int) -> None:
        """Sound from now on, until ``until_ns`` at the latest."""

    def silence(self, siren: str, t: int) -> None:
        """Be silent from now on."""

    def self_test(self, siren: str, t: int) -> None:
        """Be silent and prove it: what was known is forgotten, and read back again."""

    def feed(self, data: bytes, t: int) -> list[SirenState | Diagnostic]:
        """Take bytes that were read at ``t``. Never raises, whatever the bytes."""

    def tick(self, t: int) -> list[SirenState | Diagnostic]:
        """Time has come to ``t``: pulses, polls, time-outs."""

    def next_deadline(self) -> int | None:
        """When :meth:`tick` is next wanted."""

    def to_send(self) -> bytes:
        """Bytes for the device, each given once."""

    def off_frames(self) -> bytes:
        """Frames that silence every siren of the port, for use without a running daemon."""


_registry = Registry("siren driver", "gateway.sirens", BUILT_IN)
paths, names, load = _registry.paths, _registry.names, _registry.load

Sirens = Mapping[str, Mapping[str, Any]]
