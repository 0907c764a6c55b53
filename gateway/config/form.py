"""The declared form of a configuration, looked at as data: what stands at a key, and in what words.

Everything is read from the JSON Schema that pydantic makes of the models, so that a fault, the
environment and docs/configuration.md all speak from the same declaration.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from gateway.config.faults import Key

Schema = Mapping[str, Any]

_UNITS = {
    "_s": "s",
    "_h": "h",
    "_hz": "Hz",
    "_m": "m",
    "_mb": "MB",
    "_km": "km",
    "_mm": "mm",
}
_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
    "number": "a number",
    "object": "a table",
}
_PLURALS = {"string": "texts", "integer": "whole numbers", "number": "numbers", "object": "tables"}


class Form:
    """The form of one TOML file. Keys of list elements are written with any index."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.root: Schema = model.model_json_schema()

    def resolve(self, schema: Schema) -> Schema:
        """A schema with its reference followed; ``X | None`` is X."""
        for option in schema.get("anyOf", ()):
            if option.get("type") != "null":
                schema = {**self.resolve(option), **{k: schema[k] for k in schema if k != "anyOf"}}
        if "$ref" in schema:
            target = self.root["$defs"][schema["$ref"].rpartition("/")[2]]
            schema = {**self.resolve(target), **{k: schema[k] for k in schema if k != "$ref"}}
        return schema

    def at(self, key: Key) -> Schema | None:
        """The schema of a key; None where there is no such key or anything may stand."""
        schema = self.resolve(self.root)
        for part in key:
            below = (
                schema.get("items", True)
                if isinstance(part, int)
                else schema.get("properties", {}).get(part, schema.get("additionalProperties"))
            )
            if not isinstance(below, Mapping):
                return None
            schema = self.resolve(below)
        return schema

    def keys(self, key: Key) -> list[str]:
        """The keys that a table may have."""
        schema = self.at(key)
        return list(schema.get("properties", ())) if schema else []

    def tables(self, key: Key = ()) -> Iterator[tuple[Key, Schema]]:
        """Every table under a key, the outer before the inner; a list of tables has index 0."""
        schema = self.at(key) or {}
        if "properties" in schema:
            yield key, schema
        for name, below in schema.get("properties", {}).items():
            found = self.resolve(below)
            inner = (*key, name)
            if found.get("type") == "array" and isinstance(found.get("items"), Mapping):
                found, inner = self.resolve(found["items"]), (*inner, 0)
            if "properties" in found:
                yield from self.tables(inner)


@cache
def form(model: type[BaseModel]) -> Form:
    """The form of a model, made once."""
    return Form(model)


def is_scalar(schema: Schema) -> bool:
    """Text, a number, true or false: what one environment variable can hold."""
    return schema.get("type") in {"string", "integer", "number", "boolean"}


def unit(name: str, schema: Schema) -> str:
    """The unit of a key, from its name where it ends in one."""
    ending = re.search(r"_[a-z]+$", name)
    return str(schema.get("unit") or _UNITS.get(ending.group() if ending else "", ""))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def bounds(schema: Schema) -> str:
    """``from 0 to 90``, ``above 0``; empty without bounds."""
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    if "minimum" in schema and "maximum" in schema:
        return f"from {_number(schema['minimum'])} to {_number(schema['maximum'])}"
    return " and ".join(f"{words[key]} {_number(schema[key])}" for key in words if key in schema)


def expected(name: str, schema: Schema) -> str:
    """What may stand at a key, in words: ``a number from -90 to 90 (°)``."""
    measured = unit(name, schema)
    return kind(schema) + (f" ({measured})" if measured else "")


def kind(schema: Schema) -> str:
    """What may stand at a key, but for its unit: ``a number from -90 to 90``."""
    if "form" in schema:
        text = str(schema["form"])
    elif "enum" in schema:
        text = "one of " + ", ".join(map(str, schema["enum"]))
    elif schema.get("type") == "array":
        items: Schema = schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
        count = f"{schema['minItems']} " if schema.get("minItems") else ""
        text = f"a list of {count}{_PLURALS.get(items.get('type', ''), 'values')}"
        if "form" in items:
            text += f", each {items['form']}"
    else:
        text = _TYPES.get(schema.get("type", ""), "a value")
    return f"{text} {limits}" if (limits := bounds(schema)) else text
