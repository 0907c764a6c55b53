"""What is wrong with what people wrote: a line a fault, with the way out."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Key = tuple[str | int, ...]
"""Where a value stands in a TOML file: ``("sensor", 0, "port")`` is ``sensor[0].port``."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``text`` says what was seen and, after a semicolon, what was expected.

    ``line`` counts from 1; None where the fault is in no line (a missing file, the environment).
    """

    file: str
    line: int | None
    key: str
    text: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        kind = "warning: " if self.severity == "warning" else ""
        return f"{place}: {kind}{self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class ConfigError(ValueError):
    """The configuration can't be used; ``faults`` holds every reason, the message one a line."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


def key_text(key: Key) -> str:
    """``sensor[0].port`` of ``("sensor", 0, "port")``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse_key(text: str) -> Key:
    """``("sensor", 0, "port")`` of ``sensor[0].port``."""
    return tuple(
        int(index) if index else name for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", text)
    )


def shown(value: Any) -> str:
    """A value as it may stand in a fault: short, on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def nearest(name: str, known: Sequence[str]) -> str:
    """What was probably meant by ``name``, else everything there is."""
    if not known:
        return "there are none"
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(map(repr, close)) + "?"
    return "there are " + ", ".join(known)
