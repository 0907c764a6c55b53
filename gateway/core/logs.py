"""Structured logging with the standard library: one JSON object a line, event name first."""

import json
import logging
import sys
import time
from typing import TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """``{"time":…,"level":…,"logger":…,"event":…, key=value …}``."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.gmtime(record.created)
        found = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', seconds)}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        found |= {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False, default=str)


def configure(stream: TextIO | None = None, level: str = "INFO") -> None:
    """Log everything of ours as JSON lines to ``stream``, standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
