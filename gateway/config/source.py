"""TOML files that remember where each key stands, so that a fault can name its line.

:func:`tomllib.load` gives values without positions. :func:`locate` runs over the same text, which
is then known to be valid, and notes the line of each table, key and list element.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.config.faults import ConfigError, Fault, Key

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'", re.DOTALL
)
_BARE = re.compile(r"[^,\]}\n#]+")
_PLACE = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$")


class _Locator:
    """One pass over valid TOML: a statement is a table header or ``key = value``."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Key, int] = {}
        self.elements: dict[Key, int] = {}
        self.starts = [match.end() for match in re.finditer("\n", text)]

    def run(self) -> dict[Key, int]:
        table: Key = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self.lines

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise ValueError(f"not TOML at character {self.at}")
        self.at = found.end()
        return found.group()

    def _note(self, key: Key) -> None:
        self.lines.setdefault(key, bisect_right(self.starts, self.at) + 1)

    def _header(self) -> Key:
        here = self.at
        brackets = 2 if self.text.startswith("[[", here) else 1
        self.at += brackets
        *outer, name = self._names()
        self.at += brackets
        key = (*self._inside(outer), name)
        if brackets == 2:
            self.elements[key] = self.elements.get(key, -1) + 1
            key = (*key, self.elements[key])
        self.at, end = here, self.at
        for length in range(1, len(key) + 1):
            self._note(key[:length])
        self.at = end
        return key

    def _inside(self, names: Any) -> Key:
        """The key of a table path, where a list of tables means its latest element."""
        key: Key = ()
        for name in names:
            key = (*key, name)
            if key in self.elements:
                key = (*key, self.elements[key])
        return key

    def _names(self) -> list[str]:
        names = []
        while True:
            self._skip(_SPACE)
            if self.text[self.at] in "\"'":
                names.append(tomllib.loads(f"name = {self._skip(_STRING)}")["name"])
            else:
                names.append(self._skip(_NAME))
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return names
            self.at += 1

    def _pair(self, table: Key) -> None:
        here = self.at
        names = self._names()
        end, self.at = self.at, here
        key = table
        for name in names:
            key = (*key, name)
            self._note(key)
        self.at = end + 1
        self._value(key)

    def _value(self, key: Key) -> None:
        self._skip(_SPACE)
        self._note(key)
        first = self.text[self.at]
        if first in "\"'":
            self._skip(_STRING)
        elif first in "[{":
            self._items(key, "]" if first == "[" else "}")
        else:
            self._skip(_BARE)

    def _items(self, key: Key, close: str) -> None:
        self.at += 1
        index = 0
        self._skip(_BLANK)
        while not self.text.startswith(close, self.at):
            if close == "]":
                self._value((*key, index))
                index += 1
            else:
                self._pair(key)
            self._skip(_BLANK)
            if self.text.startswith(",", self.at):
                self.at += 1
                self._skip(_BLANK)
        self.at += 1


def locate(text: str) -> dict[Key, int]:
    """The line, from 1, of each table, key and list element of a valid TOML text."""
    return _Locator(text).run()


@dataclass(frozen=True, slots=True)
class Source:
    """A TOML file as read: its values, and the line of each."""

    path: Path
    data: Mapping[str, Any]
    lines: Mapping[Key, int]

    def line(self, key: Key) -> int | None:
        """The line of a key, or of the nearest table around it."""
        for length in range(len(key), 0, -1):
            if (line := self.lines.get(key[:length])) is not None:
                return line
        return None


def read(path: Path) -> Source:
    """Read a TOML file.

    Raises:
        ConfigError: it is not there, not readable, not UTF-8 or not TOML; says where.
    """
    name = str(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError([Fault(name, None, "", "there is no such file")]) from None
    except OSError as error:
        text = f"can't be read ({error.strerror}); expected a file that this user may read"
        raise ConfigError([Fault(name, None, "", text)]) from None
    try:
        text = raw.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        text = f"byte 0x{raw[error.start]:02x} is not UTF-8; expected a text file saved as UTF-8"
        raise ConfigError([Fault(name, line, "", text)]) from None
    try:
        return Source(path, tomllib.loads(text), locate(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax(name, text, str(error))]) from None
    except RecursionError:
        raise ConfigError([Fault(name, None, "", "is nested too deeply to be TOML")]) from None


def _syntax(name: str, text: str, message: str) -> Fault:
    found = _PLACE.match(message)
    lines = text.split("\n")
    what = found.group(1) if found else message
    line = int(found.group(2)) if found and found.group(2) else len(lines)
    column = int(found.group(3)) if found and found.group(3) else len(lines[-1]) + 1
    written = lines[line - 1].strip() if line <= len(lines) else ""
    return Fault(
        name,
        line,
        "",
        f"column {column}: {what} in `{written}`; expected TOML, with text in quotes",
    )
