"""What a look over one TOML file finds: faults, each put at the line of its key."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gateway.config.faults import Fault, Key, key_text
from gateway.config.source import Source


@dataclass(slots=True)
class Findings:
    """The faults of one file. ``variables`` are the environment variables behind some keys."""

    source: Source
    variables: Mapping[Key, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def at(self, key: Key, text: str, *, warning: bool = False) -> Fault:
        """A fault at a key, or at the variable that overrides it."""
        severity: Literal["error", "warning"] = "warning" if warning else "error"
        if (variable := self.variables.get(key)) is not None:
            return Fault(f"environment {variable}", None, key_text(key), text, severity)
        return Fault(str(self.source.path), self.source.line(key), key_text(key), text, severity)

    def add(self, faults: Iterable[Fault]) -> None:
        """Take faults, each once however often it is met."""
        self.faults += [fault for fault in dict.fromkeys(faults) if fault not in self.faults]

    def error(self, key: Key, text: str) -> None:
        """What keeps the configuration from being used."""
        self.add([self.at(key, text)])

    def warn(self, key: Key, text: str) -> None:
        """What a person should know, and the gateway can live with."""
        self.add([self.at(key, text, warning=True)])

    def path(self, path: Path) -> Path:
        """A path that the file names; a relative one starts where the file is."""
        return self.source.path.parent / path

    def folder(self, table: str, given: Path | None) -> Path | None:
        """The folder that ``directory`` of a table names, or the one beside the file, if there."""
        path = self.path(given if given is not None else Path(table))
        if path.is_dir():
            return path
        if given is not None:
            self.warn((table, "directory"), f"{path} is no folder; the shipped {table} hold")
        return None
