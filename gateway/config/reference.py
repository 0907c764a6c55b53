"""The tables of docs/configuration.md, made from the models.

``python -m gateway.config.reference docs/configuration.md`` brings the page up to date between its
two marks; a test says when it is not.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.config import form
from gateway.config.faults import Key
from gateway.config.models import Configuration
from gateway.config.profiles import Profile

BEGIN = "<!-- generated from the models: begin -->"
END = "<!-- generated from the models: end -->"


def keys(model: type[BaseModel], level: str = "###") -> str:
    """Every table of a file and every key in it, as Markdown."""
    return "\n".join(_tables(form.form(model), level))


def _tables(shape: form.Form, level: str) -> Iterator[str]:
    for key, schema in shape.tables():
        rows = list(_rows(shape, schema))
        if not rows:
            continue
        if key:
            yield f"{level} `{_header(key)}`\n"
            yield f"{schema.get('description', '')}\n"
        yield "| key | what it may be | unit | default | meaning |"
        yield "| --- | --- | --- | --- | --- |"
        yield from rows
        yield ""


def _header(key: Key) -> str:
    name = ".".join(part for part in key if isinstance(part, str))
    return f"[[{name}]]" if key[-1] == 0 else f"[{name}]"


def _rows(shape: form.Form, schema: form.Schema) -> Iterator[str]:
    required = schema.get("required", ())
    for name, below in schema.get("properties", {}).items():
        found = shape.resolve(below)
        inner = found.get("items")
        is_table = "properties" in found or (
            isinstance(inner, dict) and "properties" in shape.resolve(inner)
        )
        if is_table:
            continue  # has a section of its own
        default = "required" if name in required else _default(found)
        meaning = found.get("description", "")
        cells = (f"`{name}`", form.kind(found), form.unit(name, found), default, meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(schema: form.Schema) -> str:
    value: Any = schema.get("default")
    return "" if value in (None, "", [], {}) else f"`{json.dumps(value, ensure_ascii=False)}`"


def generated() -> str:
    """What stands between the marks of docs/configuration.md."""
    return (
        f"{BEGIN}\n\n## Keys of gateway.toml\n\n{keys(Configuration)}\n"
        f"## Keys of a device profile\n\n{keys(Profile)}\n{END}"
    )


def update(page: str) -> str:
    """The page with its generated part renewed."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + generated() + after


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(update(path.read_text()))
