"""Drivers by name: those of this tree, and those that other packages add as entry points."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def load_object(path: str) -> Any:
    """The object that ``package.module:Name`` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def third_party(group: str) -> dict[str, str]:
    """``module:Class`` by name of the entry points in a group."""
    from importlib.metadata import entry_points  # noqa: PLC0415  the core never searches

    return {point.name: point.value for point in entry_points(group=group)}


class Registry:
    """The drivers of one kind. A name of this tree can't be taken by another package."""

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str]) -> None:
        self._kind, self._group, self._built_in = kind, group, built_in

    def paths(self) -> dict[str, str]:
        """``module:Class`` of every driver by name, third-party entry points included."""
        return {**third_party(self._group), **self._built_in}

    def names(self) -> list[str]:
        """The names of all drivers, sorted."""
        return sorted(self.paths())

    def load(self, name: str) -> type[Any]:
        """The driver class of that name; calling it without arguments makes one with defaults.

        Raises:
            KeyError: no such driver; the message lists those there are.
        """
        known = self.paths()
        if name not in known:
            raise KeyError(f"no {self._kind} {name!r}; there are {', '.join(sorted(known))}")
        return load_object(known[name])  # type: ignore[no-any-return]  # a class, by the protocol
