"""What README and docs name is there: commands with their options, tests, modules, files."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:^|[\s$/])(?<!-u )gateway ((?:[a-z]+ ?){1,2})([^#|]*)")
BLOCK = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
MODULE = re.compile(r"python -m ([a-z_.]+)")


def code(page: Path) -> Iterator[str]:
    """What a page shows as code: blocks line by line, lines that end in a backslash as one."""
    text = page.read_text().replace("\\\n", " ")
    for block in BLOCK.findall(text):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))


def options(name: str, more: str) -> set[str] | None:
    """The options of ``gateway NAME [MORE]``; None if there is no such command."""
    if name not in cli.COMMANDS:
        return None
    command: Any = cli._load(name)
    if more and more in getattr(command, "commands", {}):
        command = command.commands[more]
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_exists_with_its_options(page: Path) -> None:
    for line in code(page):
        for words, rest in COMMAND.findall(f" {line}"):
            name, _, more = words.strip().partition(" ")
            known = options(name, more)
            assert known is not None, line
            asked = set(re.findall(r"(?<![\w-])--[a-z-]+", rest.split("$ ")[0]))
            assert asked <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_make_target_and_module_exists(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in code(page):
        for target in re.findall(r"^(?:\$ )?make ([a-z-]+)", line):
            assert target in targets, line
        for module in MODULE.findall(line):
            assert importlib.util.find_spec(module) is not None, line


def test_every_test_that_safety_names_exists() -> None:
    file = ""
    for line in (ROOT / "docs/safety.md").read_text().splitlines():
        if not line.startswith("|"):
            continue
        for name in re.findall(r"`([^`]+)`", line.split("|")[-2]):
            path, _, part = name.partition("::")
            file = path or file
            found = list((ROOT / "tests").glob(file))
            assert found, name
            if words := part.partition("[")[0]:
                texts = [path.read_text() for path in found]
                assert any(re.search(rf"def test_\w*{words}", text) for text in texts), name
