"""How drivers read the ``[driver]`` table of a profile: one frozen dataclass each, checked here."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")


def read_options(cls: type[T], table: Mapping[str, Any] | None) -> T:
    """Options of a driver from its table; keys that are absent keep their defaults.

    Raises:
        ValueError: a key is unknown, of the wrong type or out of bounds; names the key, what was
            seen and what is allowed.
    """
    known = {spec.name: spec.type for spec in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    values: dict[str, Any] = {}
    for key, value in (table or {}).items():
        if key not in known:
            raise ValueError(f"{key}: no such option; there are {', '.join(known)}")
        wanted = known[key]
        if wanted is float and type(value) is int:
            values[key] = float(value)
        elif type(value) is wanted:
            values[key] = value
        else:
            name = getattr(wanted, "__name__", str(wanted))
            raise ValueError(f"{key}: saw {value!r}; expected {name}")
    return cls(**values)


def within(key: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raise ValueError unless low ≤ value ≤ high."""
    if not low <= value <= high:
        raise ValueError(f"{key}: saw {value}; allowed is {low} to {high} {unit}".rstrip())


def one_of(key: str, value: object, allowed: Collection[object]) -> None:
    """Raise ValueError unless the value is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{key}: saw {value!r}; allowed is {', '.join(map(str, allowed))}")
