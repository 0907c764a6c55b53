"""How commands speak: results to standard output, what went wrong to standard error.

Exit codes: 0 fine, 1 found a fault, 2 wrong use.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import typer

FAULT = 1
WRONG_USE = 2


def fail(message: str, code: int = FAULT) -> NoReturn:
    """Say what is wrong, where, and what to do, then leave."""
    print(f"gateway: {message}", file=sys.stderr)  # noqa: T201  the command's own output
    raise typer.Exit(code)


def say(text: str) -> None:
    """One line of the result."""
    print(text, flush=True)  # noqa: T201  the command's own output


def say_json(record: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own; Chinese text stays readable."""
    say(json.dumps(record, ensure_ascii=False, separators=(",", ":")))


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], title: str = "") -> None:
    """A table with one line a row, in colour on a terminal, plain and uncut in a pipe.

    ``columns`` are the keys shown, in order, and their headings; a missing value stays blank.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    drawn = Table(
        title=title or None, title_justify="left", box=box.SIMPLE_HEAD if terminal else None
    )
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_cell(row.get(column))) for column in columns))
    Console(width=None if terminal else 1000).print(drawn)


def show(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, title: str = ""
) -> None:
    """The same rows for people (:func:`table`) or, with ``--json``, for programs."""
    if as_json:
        for row in rows:
            say_json(row)
    else:
        table(rows, columns, title)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(item) for item in value)
    return str(value)
