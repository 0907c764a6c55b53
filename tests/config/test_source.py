"""A fault names its line, so every key of a TOML file must be found at the line where it stands."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.faults import ConfigError, Key, key_text, nearest, parse_key
from gateway.config.source import locate, read

EVERYTHING = '''\
# a comment = "no key"
plain = 1
dotted . "quoted.key" = "[not a table]"

[table]
list = [
  1,  # ] not the end
  "]",
  { inner = [true, 1979-05-27 07:32:00] },
]
text = """
key = "in a text"
"""
raw = \'\'\'
[no.table]\'\'\'
escaped = "a \\" quote # no comment"

[[element]]
name = "first"

[element.below]
deep = {}

[[element]]
name = "second"

[[element.inner]]
x = 0x1F
[[element.inner]]
x = -1e3 # comment
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("plain",), 2),
        (("dotted", "quoted.key"), 3),
        (("table",), 5),
        (("table", "list"), 6),
        (("table", "list", 0), 7),
        (("table", "list", 1), 8),
        (("table", "list", 2, "inner"), 9),
        (("table", "list", 2, "inner", 1), 9),
        (("table", "text"), 11),
        (("table", "raw"), 14),
        (("table", "escaped"), 16),
        (("element",), 18),
        (("element", 0, "name"), 19),
        (("element", 0, "below"), 21),
        (("element", 0, "below", "deep"), 22),
        (("element", 1), 24),
        (("element", 1, "name"), 25),
        (("element", 1, "inner", 1), 29),
        (("element", 1, "inner", 1, "x"), 30),
    ],
)
def test_each_key_is_found_at_its_line(key: Key, line: int) -> None:
    assert locate(EVERYTHING)[key] == line


def _keys(value: Any, key: Key = ()) -> Iterator[Key]:
    if key:
        yield key
    if isinstance(value, dict | list):
        for part, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _keys(below, (*key, part))


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(c):08x}" if c in '\\"\n\r' else c for c in value) + '"'
        case list():
            return "[\n" + "".join(f"{_toml(item)}, # ,]\n" for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return str(value)


printable = st.text(st.characters(min_codepoint=32, exclude_categories=["Cc", "Cs"]), max_size=8)
values = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | printable,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(printable, inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(printable, values, max_size=5))
def test_no_key_of_a_valid_file_is_without_a_line(data: dict[str, Any]) -> None:
    text = "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in data.items())
    assert tomllib.loads(text) == data
    lines = locate(text)
    assert set(lines) == set(_keys(data))
    for key in data:
        assert text.split("\n")[lines[(key,)] - 1].startswith(_toml(key) + " = ")


@pytest.mark.parametrize(
    ("content", "place", "shown"),
    [
        (b"a = 1\nb = /dev/ttyUSB0\n", ":2: column 5: ", "in `b = /dev/ttyUSB0`"),
        (b"a = 1\na = 2\n", ":2: column 6: ", "in `a = 2`"),
        (b'a = "open\n', ":1: column 10: ", 'in `a = "open`'),
        (b"[a\n", ":1: column 3: ", "in `[a`"),
        (b"a = 1\nb = '\xff'\n", ":2: ", "byte 0xff is not UTF-8"),
        (b"a = " + b"[" * 100_000, ": ", "nested too deeply"),
    ],
)
def test_what_is_not_toml_is_shown_at_its_place(
    tmp_path: Path, content: bytes, place: str, shown: str
) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(path)
    (fault,) = caught.value.faults
    assert str(fault).startswith(f"{path}{place}")
    assert shown in str(fault)
    assert "\n" not in str(fault)


def test_a_missing_file_is_a_fault_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        read(tmp_path / "gateway.toml")


def test_a_folder_in_place_of_the_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read(tmp_path)


def test_windows_line_ends_do_not_move_lines(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(b"a = 1\r\n\r\nb = 2\r\n")
    assert read(path).line(("b",)) == 3


def test_a_missing_key_is_put_at_the_table_around_it() -> None:
    source_lines = locate("[a]\nb = 1\n")
    assert source_lines == {("a",): 1, ("a", "b"): 2}


@pytest.mark.parametrize("text", ["sensor[0].port", "a", "level.red.when[1]", "a[0][1].b"])
def test_a_key_reads_back_as_it_is_written(text: str) -> None:
    assert key_text(parse_key(text)) == text


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("prot", ["port", "name"], "did you mean 'port'?"),
        ("zzz", ["port", "name"], "there are port, name"),
        ("zzz", [], "there are none"),
    ],
)
def test_the_nearest_known_word_is_offered(name: str, known: list[str], said: str) -> None:
    assert nearest(name, known) == said
