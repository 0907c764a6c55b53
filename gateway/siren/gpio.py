"""Sirens on output lines of the board itself, by the kernel's GPIO character device (libgpiod v2).

Facts: libgpiod 2 and its Python binding. A line has no bytes, so this driver differs from the
others in that it holds its lines itself: setting or reading one is a single ioctl, which does not
wait. A line is driven only while it is held. When the gateway dies the kernel gives it back, and
most controllers then make it an input: **wire the siren so that an open line is silent, with a
resistor that pulls it there.** Some controllers keep the last level; then
``python -m gateway.core --sirens-off``, which systemd runs at every end of the core, drives it to
silence. Values here are logical: with ``active_low`` the siren sounds on a low line.

Lines are taken silent, in one step with being made outputs, so that taking them never sounds one.
They are read back each ``poll_s``; a line that some other program holds is asked for again every
2 s.

``chip`` is a path (/dev/gpiochip0) or, better, the controller's label (pinctrl-bcm2711 on a
Raspberry Pi 4, pinctrl-rp1 on a 5), since the numbers differ between kernels.
"""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from gateway.drivers import Simulator
from gateway.drivers.options import read_options, within
from gateway.events import NS, Diagnostic, SirenState
from gateway.siren import Sirens

_RETRY_NS: Final = 2 * NS


class Lines(Protocol):
    """Output lines that are held, by offset; True is active."""

    def set(self, offset: int, active: bool) -> None: ...
    def get(self, offset: int) -> bool: ...


Take = Callable[[str, Mapping[int, bool]], Lines]
"""Takes the lines of a chip, given offset → active_low, all inactive; OSError if it can't."""


class _Gpiod:
    """Lines held through libgpiod."""

    def __init__(self, chip: str, active_low: Mapping[int, bool]) -> None:
        import gpiod  # noqa: PLC0415  needed only where a siren is on a GPIO line

        self._value = gpiod.line.Value
        self._request = gpiod.request_lines(
            find_chip(chip),
            consumer="gateway siren",
            config={
                offset: gpiod.LineSettings(
                    direction=gpiod.line.Direction.OUTPUT,
                    output_value=gpiod.line.Value.INACTIVE,
                    active_low=low,
                )
                for offset, low in active_low.items()
            },
        )

    def set(self, offset: int, active: bool) -> None:
        self._request.set_value(offset, self._value.ACTIVE if active else self._value.INACTIVE)

    def get(self, offset: int) -> bool:
        return bool(self._request.get_value(offset) is self._value.ACTIVE)


def find_chip(name: str, devices: Path = Path("/dev")) -> str:
    """The path of a chip that is named by its path or its label.

    Raises:
        OSError: ENOENT: there is no such chip.
    """
    if name.startswith("/"):
        return name
    import gpiod  # noqa: PLC0415  needed only where a siren is on a GPIO line

    labels = []
    for path in sorted(devices.glob("gpiochip*")):
        with gpiod.Chip(str(path)) as chip:
            labels.append(chip.get_info().label)
        if labels[-1] == name:
            return str(path)
    raise OSError(errno.ENOENT, f"no GPIO chip {name!r}; there are {', '.join(labels) or 'none'}")


@dataclass(frozen=True, slots=True)
class Options:
    """``[driver]`` of a profile."""

    chip: str = "/dev/gpiochip0"
    poll_s: float = 10.0
    """Time between readings of the lines."""

    def __post_init__(self) -> None:
        within("poll_s", self.poll_s, 0.1, 3600.0, "s")


@dataclass(frozen=True, slots=True)
class Unit:
    """A siren's own keys."""

    line: int = 17
    """Offset of the line on its chip (the BCM number on a Raspberry Pi)."""
    active_low: bool = False

    def __post_init__(self) -> None:
        within("line", self.line, 0, 1023)


@dataclass(slots=True)
class _Siren:
    unit: Unit
    until_ns: int = 0
    known: bool | None = None
    wrong: bool = False


class Gpio:
    """All sirens on lines of one chip: :class:`Options`, and a :class:`Unit` each."""

    simulator: ClassVar[type[Simulator] | None] = None
    pulse_s: float | None = None
    reads_back: bool = True
    take: ClassVar[Take] = _Gpiod

    def __init__(
        self, options: Mapping[str, Any] | None = None, sirens: Sirens | None = None
    ) -> None:
        self._options = read_options(Options, options)
        self._sirens: dict[str, _Siren] = {}
        for name, keys in (sirens or {}).items():
            try:
                unit = read_options(Unit, keys)
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from None
            if any(other.unit.line == unit.line for other in self._sirens.values()):
                raise ValueError(f"{name}.line: saw {unit.line}; each siren needs its own")
            self._sirens[name] = _Siren(unit)
        self._lines: Lines | None = None
        self._news: list[SirenState | Diagnostic] = []
        self._fault = ""
        self._due_ns = 0

    def opened(self, t: int) -> None:
        """Take the lines, if they aren't held yet."""
        self._due_ns = t
        self._tend(t)

    def sound(self, siren: str, until_ns: int, t: int) -> None:
        self._sirens[siren].until_ns = until_ns if until_ns > t else 0
        self._drive(siren, t)

    def silence(self, siren: str, t: int) -> None:
        self._sirens[siren].until_ns = 0
        self._drive(siren, t)

    def self_test(self, siren: str, t: int) -> None:
        self._sirens[siren].known = None
        self.silence(siren, t)

    def feed(self, data: bytes, t: int) -> list[SirenState | Diagnostic]:
        """There is no port: bytes can't come."""
        del data
        return self.tick(t)

    def tick(self, t: int) -> list[SirenState | Diagnostic]:
        for name, siren in self._sirens.items():
            if 0 < siren.until_ns <= t:
                self.silence(name, t)
        if t >= self._due_ns:
            self._tend(t)
        news, self._news = self._news, []
        return news

    def next_deadline(self) -> int | None:
        if not self._sirens:
            return None
        if self._news:
            return 0
        ends = [siren.until_ns for siren in self._sirens.values() if siren.until_ns]
        return min([self._due_ns, *ends])

    def to_send(self) -> bytes:
        return b""

    def off_frames(self) -> bytes:
        return b""

    def _tend(self, t: int) -> None:
        """Take the lines if they are not held; set and read all of them."""
        if not self._sirens:
            return
        self._due_ns = t + round(self._options.poll_s * NS)
        if self._lines is None:
            units = [siren.unit for siren in self._sirens.values()]
            try:
                self._lines = type(self).take(
                    self._options.chip, {unit.line: unit.active_low for unit in units}
                )
            except (OSError, ValueError, ImportError) as error:
                self._failed(error, t)
                return
            self._fault = ""
        for name in self._sirens:
            self._drive(name, t)

    def _drive(self, name: str, t: int) -> None:
        """Set the line as wanted and read it back."""
        if self._lines is None:
            return
        siren = self._sirens[name]
        line, wanted = siren.unit.line, siren.until_ns > 0
        try:
            wrong = siren.known is not None and self._lines.get(line) is not siren.known
            self._lines.set(line, wanted)
            found = self._lines.get(line)
        except (OSError, ValueError) as error:
            self._failed(error, t)
            return
        if (wrong or found is not wanted) and not siren.wrong:
            detail = f"{name}: line {line} of {self._options.chip} is not as it was set; set again"
            self._news.append(Diagnostic("mismatch", 1, detail))
        siren.wrong = wrong or found is not wanted
        if found is not siren.known:
            siren.known = found
            self._news.append(SirenState(name, found))

    def _failed(self, error: Exception, t: int) -> None:
        """The lines are not to be had: say so once, and ask again."""
        self._lines = None
        self._due_ns = t + _RETRY_NS
        for name, siren in self._sirens.items():
            if siren.known is not None:
                self._news.append(SirenState(name, None))
            siren.known = None
        reason = _explain(self._options.chip, error)
        if reason != self._fault:
            self._fault = reason
            self._news.append(Diagnostic("no_answer", 1, reason))


def _explain(chip: str, error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    what = {
        errno.EBUSY: "a line is held by another program: stop that one (gpioinfo names it)",
        errno.EACCES: "permission denied: add the gateway's user to the group gpio",
    }.get(number or 0)
    if isinstance(error, ImportError):
        what = "the package gpiod is not installed: install the gateway with its extra gpio"
    return f"{chip}: {what or error}"
