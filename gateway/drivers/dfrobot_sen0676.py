"""DFRobot SEN0676, 80 GHz radar level sensor, polled over Modbus RTU.

Facts are from DFRobot's page of the sensor. RS-485, 115200 8N1 as delivered, address 1. Holding
registers, function 03; those marked * are also written, which is taken from DFRobot's library and
was not tried on a sensor (function 06):

========  =========================================================================
register  meaning
========  =========================================================================
0x0001    distance to the water ("empty height"), mm
0x0003    water level, mm; of use only where 0x0005 is right
0x0005 *  height of installation, cm
0x03F4    address
0x03F6    baud rate / 100
0x07D4 *  range, m
========  =========================================================================

The distance is what is read; the level is made here from the surveyed height, to the millimetre.
What the sensor says when there is no target is on no page that was read: 0 is taken for it, and
whatever is at or beyond ``farthest_mm``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from gateway.drivers import Source
from gateway.drivers.modbus_unit import (
    ModbusDevice,
    ModbusUnit,
    Unit,
    read_registers,
    register_setting,
    write_register,
)
from gateway.drivers.options import read_options, within
from gateway.drivers.settings import Setting
from gateway.drivers.water_surface import Mounting, WaterSurface, distance_mm
from gateway.events import Diagnostic, Reading
from gateway.modbus import Function, Request

DISTANCE: Final = 0x0001
LEVEL: Final = 0x0003
INSTALLED_CM: Final = 0x0005
ADDRESS: Final = 0x03F4
BAUD: Final = 0x03F6
RANGE_M: Final = 0x07D4


@dataclass(frozen=True, slots=True)
class Options(Mounting):
    """``[driver]`` of a profile: those of :class:`Mounting` and of :class:`Unit`, and ``range_m``.

    ``range_m`` metres, 1 to 40: how far the sensor is set to look.
    """

    nearest_mm: int = 150
    farthest_mm: int = 20_000
    address: int = 1
    poll_s: float = 1.0
    timeout_s: float = 0.3
    range_m: int = 20

    def __post_init__(self) -> None:
        Mounting.__post_init__(self)
        within("range_m", self.range_m, 1, 40, "m")

    @property
    def unit(self) -> Unit:
        """Those of the line."""
        return Unit(self.address, self.poll_s, self.timeout_s)


class DfrobotSen0676(ModbusUnit):
    """Driver of the sensor: ``water_level_m`` each interval."""

    def __init__(self, options: Mapping[str, Any] | None = None, sensor: str = "") -> None:
        self.options = read_options(Options, options)
        unit = self.options.unit
        super().__init__(sensor, unit, Request(unit.address, Function.read_holding, DISTANCE, 1))
        self.spacing_s = max(self.options.interval_s, unit.poll_s)
        self._surface = WaterSurface(self.options, sensor)

    def restart(self, t: int) -> None:
        """The port was opened: begin anew."""
        super().restart(t)
        self._surface.clear()

    def settings(self) -> list[Setting]:
        """How far it looks, in metres."""
        return [register_setting("range_m", self.options.address, RANGE_M, self.options.range_m)]

    def answered(self, data: bytes, t: int) -> Iterator[Reading | Diagnostic]:
        distance = int.from_bytes(data, "big")
        if distance == 0:
            yield Diagnostic("no_target", 1, "0 mm")
        yield from self._surface.echo(distance or None, t)


class DfrobotSen0676Simulator(ModbusDevice):
    """The sensor: the source's level, at the height of the options; 0 where there is none."""

    WRITABLE: ClassVar[frozenset[int]] = frozenset({INSTALLED_CM, RANGE_M})

    def __init__(self, options: Mapping[str, Any] | None, source: Source) -> None:
        self._options = read_options(Options, options)
        super().__init__(self._options.address, source)
        self.registers = {INSTALLED_CM: 0, ADDRESS: self._options.address, BAUD: 1152, RANGE_M: 20}

    def _answer(self, function: int, data: bytes, t: int) -> bytes | int:
        if function == Function.write_register:
            return write_register(self.registers, self.WRITABLE, data)
        if function != Function.read_holding:
            return 1
        micro = self._micro("water_level_m", t)
        distance = 0 if micro is None else distance_mm(self._options, micro)
        level = max(self.registers[INSTALLED_CM] * 10 - distance, 0)
        return read_registers({DISTANCE: distance, LEVEL: level, **self.registers}, data)


DfrobotSen0676.simulator = DfrobotSen0676Simulator
