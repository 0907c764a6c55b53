"""A simulated device that is played while a test runs."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.drill.stage import Stage, play

WAIT_S = 20.0


@contextmanager
def playing(stage: Stage) -> Iterator[Stage]:
    """Drives the device in a thread of this process."""
    stage.begin(time.monotonic_ns())
    read, write = os.pipe()
    thread = threading.Thread(target=play, args=([stage], read))
    thread.start()
    try:
        yield stage
    finally:
        os.close(write)
        thread.join(WAIT_S)
        os.close(read)
        stage.end()
