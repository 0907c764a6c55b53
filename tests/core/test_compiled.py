"""The core takes back exactly what was compiled and refuses anything else, saying where."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gateway.core.compiled import FORMAT, Compiled, decode, load
from tests.core.station import gauge, install, relay_siren, seismometer, station


def test_what_was_compiled_is_loaded_again(tmp_path: Path) -> None:
    config = station((gauge(), seismometer("/dev/a")), relay_siren("/dev/b"))
    assert load(install(config, tmp_path) / "compiled" / "current.json") == config


def plain(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(asdict(station()), default=str))
    for path, value in changes.items():
        place: Any = data
        *way, last = path.split("__")
        for key in way:
            place = place[int(key) if key.isdigit() else key]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return data


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"extra": 1}, r"\.extra: unknown; there are station"),
        ({"station__id": ...}, r"\.station\.id: missing"),
        ({"station__id": 7}, r"\.station\.id: 7 is no str"),
        ({"station__latitude": True}, r"\.station\.latitude: True is no float"),
        ({"station": []}, r"\.station: \[\] is no table"),
        ({"site__votes": True}, r"\.site\.votes: True is no int"),
        ({"site__votes": 1.5}, r"\.site\.votes: 1.5 is no int"),
        ({"sensors__0__kind": "sonar"}, r"\.sensors\[0\]\.kind: 'sonar' is none of"),
        ({"sensors__0__port__parity": "X"}, r"\.sensors\[0\]\.port\.parity: 'X' is none of"),
        ({"seismic__band_hz": [1.0]}, r"\.seismic\.band_hz: 1 values; expected 2"),
        ({"seismic__band_hz": [9.0, 1.0]}, "expected 0 < lower < upper"),
        ({"plans__0__hazard": "meteor"}, "'meteor' is not a valid Hazard"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_at_fault(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        decode(Compiled, plain(**changes))


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", f'{{"format": {FORMAT + 1}}}', '{"format": "1"}', "\x00\xff"]
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011  json's own words, or "not a compiled …"
        load(tmp_path / "x.json")


def test_whole_numbers_stand_for_floats() -> None:
    config = decode(Compiled, plain(station__elevation_m=540))
    assert isinstance(config.station.elevation_m, float)
