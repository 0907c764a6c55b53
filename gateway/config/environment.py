"""Environment variables that override scalars of gateway.toml.

``GATEWAY_UPLINK__MQTT__URL`` overrides ``url`` of ``[uplink.mqtt]``: the prefix, then the tables
and the key in capitals, joined by two underscores. Lists and whole tables are not overridable.
Names without two underscores (``GATEWAY_CONFIG``) are not keys and are left alone.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from gateway.config import form
from gateway.config.faults import Fault, Key, key_text, nearest

PREFIX = "GATEWAY_"


@dataclass(slots=True)
class Overrides:
    """What the environment says: nested values, the variable behind each key, what is wrong."""

    values: dict[str, Any] = field(default_factory=dict)
    variables: dict[Key, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def overrides(model: type[BaseModel], environ: Mapping[str, str] | None = None) -> Overrides:
    """Read the overrides of a model's keys; a wrong one becomes a fault and overrides nothing."""
    found = Overrides()
    shape = form.form(model)
    for variable, text in sorted((os.environ if environ is None else environ).items()):
        if not variable.startswith(PREFIX) or "__" not in variable:
            continue
        key = tuple(variable.removeprefix(PREFIX).lower().split("__"))
        try:
            value = _value(shape, key, text)
        except ValueError as error:
            found.faults.append(Fault(f"environment {variable}", None, key_text(key), str(error)))
            continue
        table = found.values
        for name in key[:-1]:
            table = table.setdefault(name, {})
        table[key[-1]] = value
        found.variables[key] = variable
    return found


def _value(shape: form.Form, key: tuple[str, ...], text: str) -> Any:
    for depth in range(len(key)):
        schema = shape.at(key[: depth + 1])
        if schema is None:
            raise ValueError(f"unknown key; {nearest(key[depth], shape.keys(key[:depth]))}")
        if schema.get("type") == "array":
            raise ValueError("a list can't be overridden; write it in gateway.toml")
    if not form.is_scalar(schema := schema or {}):
        raise ValueError("a table can't be overridden whole; name one of its keys")
    try:
        match schema["type"]:
            case "number":
                return float(text)
            case "integer":
                return int(text)
            case "boolean":
                return {"true": True, "false": False}[text.lower()]
            case _:
                return text
    except (ValueError, KeyError):
        raise ValueError(f"{text!r}; expected {form.expected(key[-1], schema)}") from None


class EnvironmentSource(PydanticBaseSettingsSource):
    """:func:`overrides` as pydantic-settings wants a source of settings."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings)
        self._values = overrides(settings).values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002  the signature is the base's
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values
