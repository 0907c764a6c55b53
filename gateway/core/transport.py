"""The serial line: opened and configured by pyserial, then read and written raw, and reopened.

A :class:`Line` never blocks and never raises once it is made. It opens its port by the path that
was configured, which should be a stable one (/dev/serial/by-id or by-path; the number of a node
changes at a replug), and a path that is a Unix socket is connected to instead: that is a port on
the network, served by ``gateway bridge``.

What Linux and pyserial 3.5 do, and what follows:

- pyserial leaves VMIN at 0, so that a read of nothing gives b"" just as a hang-up does. VMIN is set
  to 1: nothing is then ``BlockingIOError``, and b"" is the end of the device.
- ``termios.error`` is no ``OSError``, and unplugged ports raise either.
- HUPCL is cleared, so that a restart of the gateway does not drop DTR and reset the board.
- The lock is ``flock``: it ends with its process, keeps out a second gateway and whatever else
  asks for it, and does not keep out who doesn't: that is how :mod:`gateway.core.sirens_off`
  reaches a siren whose port a hung process holds. TIOCEXCL would shut it out.
- Closing a port waits for its output to drain, up to 30 s on a stuck adapter, so what is unsent on
  a lost line is flushed away first.
"""

import errno
import os
import socket
import termios
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import serial

from gateway.core.compiled import Port
from gateway.events import NS

READ_SIZE: Final = 4096
UNSENT_LIMIT: Final = 4096
"""Bytes that wait for a line that takes none; at 9600 baud some 4 s."""

_FIRST_RETRY_NS: Final = NS // 10
_LAST_RETRY_NS: Final = 2 * NS
_RESET_NS: Final = NS // 10
"""DTR low for so long resets a board through its capacitor."""

_SERIAL_ERRORS: Final = (OSError, termios.error, ValueError, TypeError)
"""What pyserial raises on ports that are missing, busy, unplugged or misconfigured."""


class State(StrEnum):
    """Where a line stands."""

    waiting = "waiting"
    resetting = "resetting"
    open = "open"


class LineChange(StrEnum):
    """What happened to a line."""

    opened = "opened"
    lost = "lost"
    waiting = "waiting"


class LineEvent(NamedTuple):
    """A change, told once. ``reason`` says what, where, and what to do; "" for ``opened``.

    ``waiting`` says why the line can't be opened, again whenever that changes. On ``lost`` the
    descriptor is closed already: unregister it before another line is ticked, which may get the
    same number.
    """

    change: LineChange
    reason: str = ""


class Line:
    """One serial port or Unix socket, kept open. Times are in ns and never fall.

    The caller's loop: call :meth:`tick` when :meth:`next_deadline` has come; on ``opened``
    register :meth:`fileno`; :meth:`read` when it is readable; :meth:`flush` when it is writable
    and :attr:`wants_write`. ``exclusive=False`` opens a port that another process has locked.
    """

    def __init__(self, port: Port, *, exclusive: bool = True) -> None:
        self.port = port
        self._exclusive = exclusive
        self._device: serial.Serial | socket.socket | None = None
        self._fd: int | None = None
        self._state = State.waiting
        self._fault = ""
        self._reason = ""
        self._since_ns = 0
        self._due_ns = 0
        self._retry_ns = _FIRST_RETRY_NS
        self._unsent = bytearray()
        self._last_read_ns: int | None = None
        self._openings = self._bytes_read = self._bytes_written = self._bytes_dropped = 0

    # --- the hot path -------------------------------------------------------------------------

    def fileno(self) -> int | None:
        """The descriptor while the line is open."""
        return self._fd

    def read(self, t: int) -> bytes:
        """What has come; b"" for nothing. A loss found here is told by the next :meth:`tick`."""
        if self._fd is None or self._fault:
            return b""
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return b""
        except OSError as error:
            self._fault = f"reading failed: {error.strerror}"
            return b""
        if not data:
            self._fault = "the device hung up"
        self._bytes_read += len(data)
        self._last_read_ns = t
        return data

    def write(self, data: bytes) -> None:
        """Write at once what the kernel takes and keep the rest for :meth:`flush`.

        On a line that is not open, or when more waits than :data:`UNSENT_LIMIT`, ``data`` is
        dropped as a whole, so that no frame is cut, and counted.
        """
        if not data:
            return
        if self._fd is None or self._fault:
            self._bytes_dropped += len(data)
        elif not self._unsent:
            sent = self._put(data)
            if sent < len(data):
                self._unsent += data[sent:]
        elif len(self._unsent) + len(data) <= UNSENT_LIMIT:
            self._unsent += data
        else:
            self._bytes_dropped += len(data)

    @property
    def wants_write(self) -> bool:
        """Bytes wait until the descriptor is writable."""
        return bool(self._unsent)

    @property
    def at_rest(self) -> bool:
        """Open and well, and nothing waits: :meth:`tick` has nothing to do."""
        return self._state is State.open and not self._fault and not self._unsent

    def flush(self) -> None:
        """Write what waits."""
        if self._unsent:
            del self._unsent[: self._put(bytes(self._unsent))]

    def _put(self, data: bytes) -> int:
        if self._fd is None or self._fault:
            return 0
        try:
            count = os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fault = f"writing failed: {error.strerror}"
            return 0
        self._bytes_written += count
        return count

    # --- opening, losing, reopening -----------------------------------------------------------

    def next_deadline(self) -> int | None:
        """When :meth:`tick` is next wanted; 0 is at once, None while the line is open and well."""
        if self._fault:
            return 0
        return None if self._state is State.open else self._due_ns

    def tick(self, t: int) -> list[LineEvent]:
        """Open, reopen, or close what is lost; what changed since the last call."""
        if self._fault:
            return [self._lose(t)]
        if self._state is State.open or t < self._due_ns:
            return []
        try:
            if self._state is State.waiting:
                self._open()
                if self.port.dtr == "reset" and isinstance(self._device, serial.Serial):
                    self._state = State.resetting
                    self._due_ns = t + _RESET_NS
                    return []
            elif isinstance(self._device, serial.Serial):
                _raise_dtr(self._device)
        except _SERIAL_ERRORS as error:
            self._close()
            return self._wait(explain(self.port, error), t)
        assert self._device is not None  # noqa: S101  _open gave one or raised
        self._fd = self._device.fileno()
        self._state = State.open
        self._since_ns = t
        self._openings += 1
        self._reason = ""
        return [LineEvent(LineChange.opened)]

    def close(self) -> None:
        """Close for good; bytes that the kernel has taken are still sent."""
        device, self._device, self._fd = self._device, None, None
        if device is not None:
            with suppress(OSError):  # a device that is gone can't be closed any better
                device.close()

    def status(self) -> dict[str, Any]:
        """For ``gateway status``: state, reason and counters."""
        return {
            "path": self.port.path,
            "state": self._state.value,
            "reason": self._reason,
            "since_ns": self._since_ns,
            "last_read_ns": self._last_read_ns,
            "openings": self._openings,
            "bytes_read": self._bytes_read,
            "bytes_written": self._bytes_written,
            "bytes_dropped": self._bytes_dropped,
        }

    def _open(self) -> None:
        if Path(self.port.path).is_socket():
            bridge = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._device = bridge
            bridge.setblocking(False)
            bridge.connect(self.port.path)
            return
        device = serial.Serial()
        device.port = self.port.path
        device.baudrate = self.port.baud
        device.bytesize = self.port.bytesize
        device.parity = self.port.parity
        device.stopbits = self.port.stopbits
        device.timeout = device.write_timeout = 0
        device.exclusive = True if self._exclusive else None
        device.dtr = self.port.dtr == "high"
        device.rts = self.port.rts == "high"
        device.open()
        self._device = device
        with suppress(OSError, ValueError):  # some adapters have no such mode
            device.set_low_latency_mode(True)
        attributes = termios.tcgetattr(device.fileno())
        attributes[2] &= ~termios.HUPCL
        attributes[6][termios.VMIN] = 1
        termios.tcsetattr(device.fileno(), termios.TCSANOW, attributes)
        os.set_blocking(device.fileno(), False)

    def _lose(self, t: int) -> LineEvent:
        reason, self._fault = f"{self.port.path} is lost: {self._fault}", ""
        if t - self._since_ns >= _LAST_RETRY_NS:
            self._retry_ns = _FIRST_RETRY_NS
        self._close()
        self._wait(reason, t)
        return LineEvent(LineChange.lost, reason)

    def _wait(self, reason: str, t: int) -> list[LineEvent]:
        """Try again later; the reason is told when it is another than before."""
        known, self._reason = self._reason, reason
        if self._state is not State.waiting or not known:
            self._since_ns = t
        self._state = State.waiting
        self._due_ns = t + self._retry_ns
        self._retry_ns = min(2 * self._retry_ns, _LAST_RETRY_NS)
        return [] if reason == known else [LineEvent(LineChange.waiting, reason)]

    def _close(self) -> None:
        self._bytes_dropped += len(self._unsent)
        self._unsent.clear()
        if isinstance(self._device, serial.Serial) and self._device.is_open:
            with suppress(termios.error):  # an unplugged port has nothing left to flush
                termios.tcflush(self._device.fileno(), termios.TCIOFLUSH)
        self.close()


def _raise_dtr(device: serial.Serial) -> None:
    """End the reset; what came before it is the old run's."""
    try:
        device.dtr = True
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):  # lines without DTR, as ptys are
            raise
    termios.tcflush(device.fileno(), termios.TCIFLUSH)


_REASONS: Final = {
    errno.ENOENT: "{path} is not there: plug the device in, or correct the port in the "
    "configuration (gateway ports lists those that are there)",
    errno.EACCES: "{path}: permission denied: add the gateway's user to the group {group} and "
    "restart it",
    errno.EAGAIN: "{path} is in use by another program: stop that one (fuser -v {path} names it)",
    errno.ECONNREFUSED: "{path}: nobody serves this port: start gateway-bridge",
    errno.EIO: "{path} does not respond: unplug the device and plug it in again",
    errno.EINVAL: "{path} refuses {form}: correct the port settings of the profile",
    errno.ENOTTY: "{path} is no serial port: correct the port in the configuration",
}
_ALIKE: Final = {
    errno.ENODEV: errno.ENOENT,
    errno.ENXIO: errno.ENOENT,
    errno.EPERM: errno.EACCES,
    errno.EBUSY: errno.EAGAIN,
}


_UNSERVED: Final = (
    "{path} is not served: its peer on the network is away, or gateway-bridge does not run "
    "(gateway bridge --status says which)"
)


def explain(port: Port, error: BaseException) -> str:
    """Why the port can't be opened and what to do, in one line."""
    if isinstance(error, OSError) and error.errno is not None:
        code = error.errno
    elif isinstance(error, termios.error):
        code = error.args[0]
    elif isinstance(error, ValueError):
        code = errno.EINVAL
    else:  # pyserial's, without a number, where the terminal attributes can't be read
        code = errno.ENOTTY if "Could not configure port" in str(error) else 0
    code = _ALIKE.get(code, code)
    text = _REASONS.get(code, "{path} can't be opened: {error}")
    if code in (errno.ENOENT, errno.ECONNREFUSED) and Path(port.path).parent.name == "ports":
        text = _UNSERVED
    form = f"{port.baud} baud {port.bytesize}{port.parity}{port.stopbits}"
    return text.format(path=port.path, group=_group(port.path), form=form, error=error)


def _group(path: str) -> str:
    """The group that owns the device, the usual one where that can't be told."""
    try:
        return Path(path).group()
    except (OSError, KeyError):
        return "dialout"
