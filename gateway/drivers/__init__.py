"""Sensor drivers: one file a device, sans-IO.

A driver turns bytes into :class:`~gateway.events.Scans` or :class:`~gateway.events.Reading`. It
never opens a port, reads a clock or sleeps: time comes in as an argument and bytes to be sent are
drained with :meth:`Driver.to_send`. Beside each driver stands the byte-exact simulator of its
device. A package outside this tree adds a device with an entry point in the group
``gateway.drivers`` whose value is its driver class.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gateway.drivers.registry import Registry
from gateway.drivers.registry import load_object as load_object
from gateway.events import Diagnostic, Reading, Scans

BUILT_IN = {
    "dfrobot_a02yyuw": "gateway.drivers.dfrobot_a02yyuw:DfrobotA02yyuw",
    "dfrobot_sen0676": "gateway.drivers.dfrobot_sen0676:DfrobotSen0676",
    "gill_windsonic": "gateway.drivers.gill_windsonic:GillWindSonic",
    "hydreon_rg15": "gateway.drivers.hydreon_rg15:HydreonRg15",
    "maxbotix_hrxl": "gateway.drivers.maxbotix_hrxl:MaxbotixHrxl",
    "modbus_contact": "gateway.drivers.modbus_contact:ModbusContact",
    "modbus_rain": "gateway.drivers.modbus_rain:ModbusRain",
    "nova_sds011": "gateway.drivers.nova_sds011:NovaSds011",
    "plantower_pms5003": "gateway.drivers.plantower_pms5003:PlantowerPms5003",
    "psn_adc": "gateway.drivers.psn_adc:PsnAdc",
    "rpi_seism": "gateway.drivers.rpi_seism:RpiSeism",
    "vaisala_wxt": "gateway.drivers.vaisala_wxt:VaisalaWxt",
}


@runtime_checkable
class Driver(Protocol):
    """What the core asks of a sensor driver. ``t`` is monotonic time in ns and never falls.

    A class is made with ``(options=None, sensor="")``; ``options`` is the ``[driver]`` table of a
    profile, every key of which has a default. ``__init__`` raises ValueError naming the key, what
    was seen and what is allowed. A seismic driver also has ``rate_hz`` and ``channels``, as its
    options make them; a scalar one may have ``spacing_s``, the seconds from reading to reading.
    """

    kind: ClassVar[str]
    """``seismic`` or ``scalar``."""

    simulator: ClassVar[type["Simulator"]]

    def opened(self, t: int) -> None:
        """The port was opened, or opened again: begin from the start."""

    def feed(self, data: bytes, t: int) -> list[Scans | Reading | Diagnostic]:
        """Take bytes that were read at ``t``. Never raises, whatever the bytes."""

    def tick(self, t: int) -> list[Scans | Reading | Diagnostic]:
        """Time has come to ``t``: time-outs and polls that are due."""

    def next_deadline(self) -> int | None:
        """When :meth:`tick` is next wanted."""

    def to_send(self) -> bytes:
        """Bytes for the device, each given once."""


class Source(Protocol):
    """What a simulated sensor measures, from the moment on at which it is first asked for data."""

    rate_hz: float

    def samples(self, first: int, count: int) -> NDArray[np.int32]:
        """Counts, shape (channels, count), from sample ``first`` on."""

    def micro(self, quantity: str, t: int) -> int | None:
        """A quantity ``t`` ns after the start, in millionths of its unit; None where missing."""


@runtime_checkable
class Simulator(Protocol):
    """The device's side of the line, in the same shape: made with ``(options, source)``.

    ``feed`` takes what the host wrote; ``to_send`` gives what the device says. ``powered(t)``
    is its power-up; the device's own time counts from there.
    """

    def powered(self, t: int) -> None: ...
    def feed(self, data: bytes, t: int) -> None: ...
    def tick(self, t: int) -> None: ...
    def next_deadline(self) -> int | None: ...
    def to_send(self) -> bytes: ...


_registry = Registry("driver", "gateway.drivers", BUILT_IN)
paths, names, load = _registry.paths, _registry.names, _registry.load

Options = Mapping[str, Any]
