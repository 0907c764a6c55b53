"""Waiting to be interrupted: SIGINT or SIGTERM as a descriptor to select on."""

import os
import signal
from typing import Self


class Interrupt:
    """A context in which SIGINT and SIGTERM end nothing, but make :meth:`fileno` readable."""

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._write)
        self._handlers = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """Readable once one of them has come."""
        return self._read
