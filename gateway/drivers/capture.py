"""Raw captures: every byte read from a device and written to it, with the time of each.

A capture is a text file, so that it can be looked at, cut and sent by mail:

=====  ===========================================================================================
line   content
=====  ===========================================================================================
1      a JSON object: ``capture`` 1, ``driver``, ``profile``, ``options`` of the driver,
       ``sensor``, ``channels`` (NET.STA.LOC.CHA in the driver's order), ``clock`` with
       ``monotonic_ns`` and ``utc_ns`` of the moment at which the port was opened and whether UTC
       was ``synchronised``; optionally ``sensitivity``, counts per unit by channel
2 …    ``<monotonic_ns> r|w <hex>``: bytes read (``r``) or written (``w``) at that time
=====  ===========================================================================================

Replaying one gives the driver each byte at its recorded time, so a field capture decodes on a desk
as it did in the field. A last line that a power cut left unfinished is left out and stated.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from gateway import drivers
from gateway.core.compiled import Channel, Port, Sensor
from gateway.detect.settings import Sensitivity
from gateway.drivers import Driver
from gateway.events import Diagnostic, Reading, Scans

FORMAT = 1


class Record(NamedTuple):
    """Bytes that passed the port at one time; ``read`` from the device or written to it."""

    t: int
    read: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """The first line. Times in ns; ``monotonic_ns`` and ``utc_ns`` are one moment."""

    driver: str
    monotonic_ns: int
    utc_ns: int
    synchronised: bool = False
    profile: str = ""
    sensor: str = "sensor"
    options: Mapping[str, Any] = field(default_factory=dict)
    channels: Sequence[str] = ()
    sensitivity: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """The header as the first line of a file."""
        record: dict[str, Any] = {
            "capture": FORMAT,
            "driver": self.driver,
            "profile": self.profile,
            "options": dict(self.options),
            "sensor": self.sensor,
            "channels": list(self.channels),
            "clock": {
                "monotonic_ns": self.monotonic_ns,
                "utc_ns": self.utc_ns,
                "synchronised": self.synchronised,
            },
        }
        if self.sensitivity:
            record["sensitivity"] = dict(self.sensitivity)
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def parse(cls, line: str) -> "Header":
        """Read a first line.

        Raises:
            ValueError: says what is missing or wrong.
        """
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"no JSON: {error}") from None
        if not isinstance(record, dict) or record.get("capture") != FORMAT:
            raise ValueError(f'expected a JSON object with "capture": {FORMAT}')
        clock = _typed(record, "clock", dict, {})
        sensitivity = _typed(record, "sensitivity", dict, {})
        for value in sensitivity.values():
            Sensitivity.parse(str(value))
        return cls(
            driver=_typed(record, "driver", str),
            profile=_typed(record, "profile", str, ""),
            sensor=_typed(record, "sensor", str, "sensor"),
            options=_typed(record, "options", dict, {}),
            channels=tuple(str(name) for name in _typed(record, "channels", list, [])),
            monotonic_ns=_typed(clock, "monotonic_ns", int),
            utc_ns=_typed(clock, "utc_ns", int),
            synchronised=_typed(clock, "synchronised", bool, False),
            sensitivity=sensitivity,
        )


_REQUIRED = object()


def _typed(record: Mapping[str, Any], key: str, kind: type, default: Any = _REQUIRED) -> Any:
    value = record.get(key, default)
    if value is _REQUIRED:
        raise ValueError(f"{key}: missing; expected {kind.__name__}")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{key}: saw {value!r}; expected {kind.__name__}")
    return value


class Writer:
    """Writes a capture as it happens, each line whole."""

    def __init__(self, file: TextIO, header: Header) -> None:
        self._file = file
        print(header.line(), file=file, flush=True)

    def read(self, t: int, data: bytes) -> None:
        """Bytes came from the device."""
        print(t, "r", data.hex(), file=self._file, flush=True)

    def written(self, t: int, data: bytes) -> None:
        """Bytes went to the device."""
        print(t, "w", data.hex(), file=self._file, flush=True)


class Capture:
    """A capture file. ``faults`` gathers what was wrong with it while it is read."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.header = header
        self.faults: list[str] = []
        try:
            self._driver: type[Any] = drivers.load(header.driver)
            made = self._driver(header.options, header.sensor)
        except KeyError as error:
            raise ValueError(f"{path}:1: driver: {error.args[0]}") from None
        except ValueError as error:
            raise ValueError(f"{path}:1: options: {error}") from None
        self.sensor = Sensor(
            name=header.sensor,
            port=Port(header.sensor),
            driver=drivers.paths()[header.driver],
            kind=made.kind,
            options=dict(header.options),
            channels=tuple(self._channel(name) for name in header.channels),
            rate_hz=float(getattr(made, "rate_hz", 0.0)),
        )

    def _channel(self, name: str) -> Channel:
        text = self.header.sensitivity.get(name)
        return Channel(name, Sensitivity.parse(text) if text else None)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the file looks like a capture."""
        with path.open("rb") as file:
            return b'"capture"' in file.read(64) and path.suffix != ".csv"

    @classmethod
    def open(cls, path: Path) -> "Capture":
        """A capture, its header read.

        Raises:
            OSError: it can't be read.
            ValueError: its header is broken; says line and what.
        """
        with path.open("rb") as file:
            try:
                header = Header.parse(file.readline().decode("utf-8"))
            except ValueError as error:
                raise ValueError(f"{path}:1: {error}") from None
        return cls(path, header)

    @property
    def station(self) -> str:
        """NET.STA of the channels, the sensor's name where it has none."""
        codes = self.header.channels[0].split(".") if self.header.channels else []
        return ".".join(codes[:2]) if len(codes) == 4 else self.header.sensor

    @property
    def utc_offset_ns(self) -> int:
        """UTC minus the clock of the lines."""
        return self.header.utc_ns - self.header.monotonic_ns

    def records(self) -> Iterator[Record]:
        """Every line after the first; faulty ones are stated in ``faults`` and left out."""
        self.faults.clear()
        before = self.header.monotonic_ns
        with self.path.open("rb") as file:
            file.readline()
            for number, line in enumerate(file, 2):
                try:
                    record = _parse(line)
                    if record.t < before:
                        raise ValueError(f"time {record.t} is before {before}")  # noqa: TRY301
                except ValueError as error:
                    cut = "" if line.endswith(b"\n") else "truncated last line: "
                    self.faults.append(f"{self.path}:{number}: {cut}{error}; left out")
                    continue
                before = record.t
                yield record

    def reads(self) -> Iterator[tuple[int, bytes]]:
        """(UTC in ns, bytes), the opening of the port and times of writing with no bytes."""
        offset_ns = self.utc_offset_ns
        yield self.header.utc_ns, b""
        for record in self.records():
            yield record.t + offset_ns, record.data if record.read else b""

    def decode(self) -> Iterator[tuple[int, Scans | Reading | Diagnostic]]:
        """What a fresh driver makes of it, with the time on the capture's own clock."""
        driver: Driver = self._driver(self.header.options, self.header.sensor)
        driver.opened(self.header.monotonic_ns)
        driver.to_send()
        for record in self.records():
            while (due := driver.next_deadline()) is not None and due <= record.t:
                for item in driver.tick(due):
                    yield due, item
                driver.to_send()
                if driver.next_deadline() == due:
                    break
            if record.read:
                for item in driver.feed(record.data, record.t):
                    yield record.t, item
                driver.to_send()

    @property
    def samples(self) -> int:
        """Samples over all channels, or readings."""
        total = 0
        for _, item in self.decode():
            if isinstance(item, Scans):
                total += item.samples.size
            elif isinstance(item, Reading):
                total += 1
        return total


def _parse(line: bytes) -> Record:
    fields = line.decode("ascii").split()
    if not line.endswith(b"\n") or len(fields) != 3 or fields[1] not in ("r", "w"):
        raise ValueError("expected <monotonic_ns> r|w <hex>")
    return Record(int(fields[0]), fields[1] == "r", bytes.fromhex(fields[2]))


class Player:
    """Says again what a device once said, at the same distances in time, whatever it is told.

    It begins with the first bytes from the host. The recorded moment of opening is then.
    """

    def __init__(self, capture: Capture) -> None:
        start = capture.header.monotonic_ns
        reads = (record for record in capture.records() if record.read)
        self._left = deque((record.t - start, record.data) for record in reads)
        self._began: int | None = None
        self._to_send = b""

    def powered(self, t: int) -> None:
        """Power means nothing to a recording."""

    def feed(self, data: bytes, t: int) -> None:
        """The first bytes start it."""
        if data and self._began is None:
            self._began = t

    def tick(self, t: int) -> None:
        """Say what is due."""
        while (due := self.next_deadline()) is not None and due <= t:
            self._to_send += self._left.popleft()[1]

    def next_deadline(self) -> int | None:
        """When the next bytes are due."""
        if self._began is None or not self._left:
            return None
        return self._began + self._left[0][0]

    def to_send(self) -> bytes:
        """What the device said."""
        said, self._to_send = self._to_send, b""
        return said
