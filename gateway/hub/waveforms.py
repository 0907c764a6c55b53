"""Waveforms that stations sent, as miniSEED files.

All pieces of one occasion (an alert, a request) are one file, ``DIR/CITY.STATION/OF.mseed``; what
is sent continuously is one file a channel and UTC day. Records stand in the order in which they
came, which readers of miniSEED put right.
"""

import base64
import binascii
import re
from pathlib import Path

from gateway.hub.hub import Message

MAX_NAME = 150
RECORD_BYTES = 512


def store(directory: Path, message: Message) -> Path:
    """Put a ``waveform`` message into its file; the path.

    Raises:
        ValueError: it holds no records.
        OSError: it can't be written.
    """
    try:
        data = message.data
        records = base64.b64decode(data["mseed"], validate=True)
        name = str(data["of"]) or f"{data['channel']}.{str(data['time'])[:10]}"
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError(f"{message.station}: waveform without records: {error!r}") from error
    if not records or len(records) % RECORD_BYTES or not records[:6].isdigit():
        raise ValueError(f"{message.station}: {len(records)} bytes that are no records")
    folder = directory / _safe(f"{message.city}.{message.station}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_safe(name)}.mseed"
    with path.open("ab") as file:
        file.write(records)
    return path


def _safe(name: str) -> str:
    """A name that is one file in one folder, whatever a station says."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:MAX_NAME].lstrip(".") or "_"
