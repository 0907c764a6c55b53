"""From a TOML file to a model, or to every fault in it with its line."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.config import form
from gateway.config.faults import Fault, Key, key_text, nearest, shown
from gateway.config.source import Source

Model = TypeVar("Model", bound=BaseModel)

_SECRET = re.compile(r"(pass(word|wd|phrase)?|secret|token|api_?key|private_?key|credentials?)$")
_ADVICE = (
    "secrets do not stand in this file; put it in a file that only the service may read "
    "(systemd: LoadCredential=) and name that file"
)


def validate(
    model: type[Model], source: Source, variables: Mapping[Key, str] | None = None
) -> tuple[Model | None, list[Fault]]:
    """The model of a file's values, or None and what is wrong with them.

    ``variables`` are the environment variables that stand behind some keys.
    """
    try:
        return model(**source.data), []
    except ValidationError as error:
        shape = form.form(model)
        return None, [
            _fault(found, source, shape, variables or {})
            for found in error.errors(include_url=False)
        ]


def sound(model: type[Model], data: Any) -> Model | None:
    """The model of those keys of a table that are sound, so that the rest can be looked at further.

    None where that is not enough. What is wrong is reported with the whole file.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        wrong = {found["loc"][0] for found in error.errors(include_url=False) if found["loc"]}
    if not isinstance(data, Mapping) or not wrong & data.keys():
        return None
    return sound(model, {key: value for key, value in data.items() if key not in wrong})


def elements(model: type[Model], source: Source, name: str) -> list[tuple[int, Model]]:
    """The elements of the list of tables ``[[name]]``, as far as sound, with their indices."""
    tables = source.data.get(name)
    found = [sound(model, table) for table in tables] if isinstance(tables, list) else []
    return [(index, element) for index, element in enumerate(found) if element is not None]


def _fault(found: Any, source: Source, shape: form.Form, variables: Mapping[Key, str]) -> Fault:
    key: Key = tuple(part for part in found["loc"] if part != "[key]")
    text = _text(found, key, shape)
    if (variable := variables.get(key)) is not None:
        return Fault(f"environment {variable}", None, key_text(key), text)
    return Fault(str(source.path), source.line(key), key_text(key), text)


def _text(found: Any, key: Key, shape: form.Form) -> str:
    name = str(key[-1]) if key else ""
    value = found.get("input")
    match found["type"]:
        case "missing":
            return f"missing; expected {form.expected(name, shape.at(key) or {})}"
        case "extra_forbidden":
            if _SECRET.search(name) or "PRIVATE KEY" in str(value):
                return f"unknown key that looks like a secret; {_ADVICE}"
            return f"unknown key; {nearest(name, shape.keys(key[:-1]))}"
        case "value_error":
            return str(found["ctx"]["error"])
    schema = shape.at(key) or {}
    if schema.get("type") == "array" and isinstance(value, Mapping):
        return f"is one table; expected a list of them, each headed [[{key_text(key)}]]"
    return f"{shown(value)}; expected {form.expected(name, schema)}"
