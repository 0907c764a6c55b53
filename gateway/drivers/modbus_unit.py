"""What sensors on a Modbus RTU line have in common: one request, asked again and again.

Framing and the line's rules are in :mod:`gateway.modbus`. A :class:`ModbusUnit` is the driver of
one sensor. Several on one RS-485 pair, of whatever makes, take turns: the core gives their port to
one :class:`ModbusBus`, which asks the unit that has waited longest, waits for its answer or its
time-out, and only then asks the next. A unit that does not answer is asked ever more seldom, down
to an eighth as often, so that it can't take the line from the others; the first answer restores its
rate.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from gateway.drivers import Simulator, Source
from gateway.drivers.options import within
from gateway.drivers.settings import Exchange, Setting
from gateway.events import NS, Diagnostic, Reading, Scans
from gateway.modbus import (
    MAX_FRAME,
    Answer,
    Function,
    Master,
    Refusal,
    Request,
    crc16,
    find,
    seal,
)

Item = Scans | Reading | Diagnostic

_GAP_NS: Final = NS // 100
"""3.5 characters are 8 ms at 4800 baud; at more baud less would do."""
_LATE_NS: Final = NS
"""How long after a time-out the answer to a read is still reckoned with."""
_SELDOM: Final = 8


@dataclass(frozen=True, slots=True)
class Unit:
    """Options that every sensor on a Modbus line has.

    ``address`` 1 to 255 (the standard ends at 247, some makers don't). ``poll_s`` seconds from
    request to request, 0.1 to 3600. ``timeout_s`` seconds that an answer may take, 0.05 to 5.
    """

    address: int = 1
    poll_s: float = 2.0
    timeout_s: float = 0.3

    def __post_init__(self) -> None:
        within("address", self.address, 1, 255)
        within("poll_s", self.poll_s, 0.1, 3600, "s")
        within("timeout_s", self.timeout_s, 0.05, 5, "s")


class ModbusUnit(ABC):
    """Driver of one sensor: what it is asked, and what its answer means."""

    kind: ClassVar[str] = "scalar"
    simulator: ClassVar[type[Simulator]]
    bus: ClassVar[type["ModbusBus"]]
    """What lets several sensors share a port."""

    def __init__(self, sensor: str, unit: Unit, request: Request) -> None:
        self.sensor = sensor
        self.unit = unit
        self.request = request
        self.poll_ns = round(unit.poll_s * NS)
        self.due_ns: int | None = None
        self.unanswered = 0
        self._alone = ModbusBus([self])

    @abstractmethod
    def answered(self, data: bytes, t: int) -> Iterable[Reading | Diagnostic]:
        """What the data of a good answer mean."""

    def restart(self, t: int) -> None:
        """The port was opened: ask at once."""
        self.due_ns = t
        self.unanswered = 0

    def opened(self, t: int) -> None:
        """The port was opened, with this unit alone on it."""
        self._alone.opened(t)

    def feed(self, data: bytes, t: int) -> list[Item]:
        """Readings from the answer to a request; everything else is named or counted."""
        return [item for _, item in self._alone.feed(data, t)]

    def tick(self, t: int) -> list[Item]:
        """Give up an answer that is overdue; ask when it is time."""
        return [item for _, item in self._alone.tick(t)]

    def next_deadline(self) -> int | None:
        """When an answer is overdue or the next request is due."""
        return self._alone.next_deadline()

    def to_send(self) -> bytes:
        """The request that is due. It counts as made once it was taken from here."""
        return self._alone.to_send()


class ModbusBus:
    """Units that share a line. In the shape of a driver, but it says whose each item is."""

    def __init__(self, units: Sequence[ModbusUnit]) -> None:
        self._units = list(units)
        self._asked = self._units[0]
        self._taken = False
        """Whether the request that is pending was taken for sending."""
        timeout_s = max(unit.unit.timeout_s for unit in units)
        self._master = Master(round(timeout_s * NS), _LATE_NS, _GAP_NS)

    def opened(self, t: int) -> None:
        """The port was opened: every unit is asked anew."""
        self._master.reset()
        for unit in self._units:
            unit.restart(t)

    def feed(self, data: bytes, t: int) -> list[tuple[str, Item]]:
        """What came, by the sensor's name; what is no answer is that of the unit asked last."""
        found: list[tuple[str, Item]] = []
        asked = self._asked
        if self._master.pending is not None and not self._taken:
            return [(asked.sensor, Diagnostic("unsolicited", len(data)))] if data else []
        for item in self._master.feed(data, t):
            if isinstance(item, Diagnostic):
                found.append((asked.sensor, item))
                continue
            asked.unanswered = 0
            self._plan(asked, t)
            if isinstance(item, Answer):
                found += [(asked.sensor, each) for each in asked.answered(item.data, t)]
            else:
                found.append((asked.sensor, _refused(item)))
        return found

    def tick(self, t: int) -> list[tuple[str, Item]]:
        """Give up what is overdue; ask the unit that has waited longest."""
        found: list[tuple[str, Item]] = []
        if self._master.tick(t) is not None:
            asked = self._asked
            asked.unanswered += 1
            self._plan(asked, t)
            text = f"unit {asked.unit.address} does not answer; check power, A/B wires, address"
            found.append((asked.sensor, Diagnostic("no_answer", 1, text)))
        if self._master.pending is None:
            ready = [(self._ready(unit), n) for n, unit in enumerate(self._units)]
            due_ns, number = min(ready)
            if due_ns <= t:
                self._asked = self._units[number]
                self._taken = False
                self._master.send(self._asked.request, t)
        return found

    def next_deadline(self) -> int | None:
        """When :meth:`tick` is next wanted; None before the port was opened."""
        if self._master.pending is not None:
            return self._master.deadline_ns
        due = min(self._ready(unit) for unit in self._units)
        return None if due >= _NEVER else due

    def to_send(self) -> bytes:
        """The request that is due."""
        self._taken = True
        return self._master.to_send()

    def _ready(self, unit: ModbusUnit) -> int:
        """When the unit can be asked next."""
        if unit.due_ns is None:
            return _NEVER
        return max(unit.due_ns, self._master.ready_ns(unit.request))

    @staticmethod
    def _plan(unit: ModbusUnit, t: int) -> None:
        """When the unit is asked next, in step with its period where that can be kept."""
        period = unit.poll_ns * min(1 << min(unit.unanswered, 8), _SELDOM)
        due_ns = t if unit.due_ns is None else unit.due_ns
        unit.due_ns = max(due_ns + period, t)


_NEVER: Final = 1 << 63
ModbusUnit.bus = ModbusBus


def _refused(refusal: Refusal) -> Diagnostic:
    request = refusal.request
    what = f"unit {request.address} refuses register {request.register:#06x}"
    return Diagnostic("refused", 1, f"{what}: {refusal.reason}; is it the device of the profile?")


# --- settings in registers ------------------------------------------------------------------------


def register_setting(name: str, address: int, register: int, wanted: int) -> Setting:
    """A holding register that is written with function 06 and read back with 03."""
    write = Request(address, Function.write_register, register, wanted)
    read = Request(address, Function.read_holding, register, 1)
    return Setting(
        name,
        str(wanted),
        Exchange(write.frame, lambda heard: None if _said(write, heard) is None else str(wanted)),
        Exchange(read.frame, lambda heard: _number(_said(read, heard))),
    )


def _said(request: Request, heard: bytes) -> bytes | None:
    found = find(request, heard)
    if isinstance(found, Refusal):
        raise ValueError(f"unit {request.address} refuses: {found.reason}")  # noqa: TRY004  said
    return None if found is None else found.data


def _number(data: bytes | None) -> str | None:
    return None if data is None else str(int.from_bytes(data, "big"))


# --- the device's side --------------------------------------------------------------------------


class ModbusDevice(ABC):
    """A simulated unit: answers after the silence that ends a frame, and only what is its own.

    It plays its source from the first good request on.
    """

    SILENCE_NS: ClassVar[int] = 4_000_000

    def __init__(self, address: int, source: Source) -> None:
        self._address = address
        self._source = source
        self._in = bytearray()
        self._out = bytearray()
        self._last_ns = 0
        self._play_began: int | None = None

    @abstractmethod
    def _answer(self, function: int, data: bytes, t: int) -> bytes | int:
        """The data of the answer to a request, or the number of an exception."""

    def _micro(self, quantity: str, t: int) -> int | None:
        return self._source.micro(quantity, t - (self._play_began or 0))

    def powered(self, t: int) -> None:
        """Nothing was said or heard."""
        del t
        self._in.clear()
        self._out.clear()

    def feed(self, data: bytes, t: int) -> None:
        """Bytes on the line."""
        self.tick(t)
        if data:
            self._in += data[: MAX_FRAME + 1 - len(self._in)]
            self._last_ns = t

    def tick(self, t: int) -> None:
        """A silence ends a frame."""
        if not self._in or t < self._last_ns + self.SILENCE_NS:
            return
        frame = bytes(self._in)
        self._in.clear()
        if len(frame) < 4 or frame[0] != self._address or crc16(frame) != 0:
            return
        self._play_began = t if self._play_began is None else self._play_began
        answer = self._answer(frame[1], frame[2:-2], t)
        head = bytes((self._address,))
        if isinstance(answer, int):
            self._out += seal(head + bytes((frame[1] | 0x80, answer)))
        else:
            self._out += seal(head + frame[1:2] + answer)

    def next_deadline(self) -> int | None:
        """When the silence is over."""
        return self._last_ns + self.SILENCE_NS if self._in else None

    def to_send(self) -> bytes:
        """What the unit says."""
        said = bytes(self._out)
        self._out.clear()
        return said


def read_registers(registers: Mapping[int, int], data: bytes) -> bytes | int:
    """The data of an answer to a read of 16-bit registers, or exception 2 or 3."""
    first, count = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")
    if len(data) != 4 or not 1 <= count <= 125:
        return 3
    wanted = range(first, first + count)
    if any(register not in registers for register in wanted):
        return 2
    words = b"".join((registers[r] & 0xFFFF).to_bytes(2, "big") for r in wanted)
    return bytes((len(words),)) + words


def write_register(registers: dict[int, int], writable: Iterable[int], data: bytes) -> bytes | int:
    """Write one register; the data of the echo, or exception 2 or 3."""
    if len(data) != 4:
        return 3
    register = int.from_bytes(data[:2], "big")
    if register not in writable:
        return 2
    registers[register] = int.from_bytes(data[2:], "big")
    return data


def words(data: bytes) -> Iterator[int]:
    """The 16-bit registers of an answer."""
    return (int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
