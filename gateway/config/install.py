"""Put a compiled configuration in the core's place, whole or not at all.

============================  =====================================================================
STATE/compiled/current.json   what the core loads
STATE/compiled/previous.json  what it loads when it can't load that
============================  =====================================================================
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from gateway.core import compiled
from gateway.core.compiled import Compiled

CURRENT = "current.json"
PREVIOUS = "previous.json"


def to_json(config: Compiled) -> bytes:
    """The compiled file; the same configuration always gives the same bytes."""
    return (
        json.dumps(asdict(config), ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n"
    )


def install(config: Compiled, state: Path) -> bool:
    """Make a configuration the current one and the current one the previous one.

    Every step is written through to the disk before the next, so that a power cut leaves the old
    or the new configuration. A current file that the core could not load does not become the
    previous one.

    Returns:
        False if it was the current one already; then nothing is touched.

    Raises:
        OSError: it could not be written; nothing has changed.
        ValueError: it could not be read back; nothing has changed.
    """
    folder = state / "compiled"
    folder.mkdir(parents=True, exist_ok=True)
    current, previous = folder / CURRENT, folder / PREVIOUS
    data = to_json(config)
    if current.is_file() and current.read_bytes() == data:
        return False
    new, old = (folder / f".{name}.{os.getpid()}" for name in (CURRENT, PREVIOUS))
    try:
        _write(new, data)
        if compiled.load(new) != config:
            raise ValueError(f"{new}: does not read back as it was written")
        if _loads(current):
            os.link(current, old)
            old.replace(previous)
        new.replace(current)
    finally:
        new.unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    _sync(folder)
    return True


def _loads(path: Path) -> bool:
    try:
        compiled.load(path)
    except (OSError, ValueError):
        return False
    return True


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
