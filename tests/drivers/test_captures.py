"""Golden captures: what each driver makes of every recorded line, byte for byte.

``pytest tests/drivers/test_captures.py --bless`` writes the expected decodes anew; read the
difference before you commit it. A new device is a driver and a capture.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway import drivers
from gateway.drivers.capture import Capture, Header, Record, Writer
from gateway.events import Diagnostic, Reading, Scans

CAPTURES = sorted((Path(__file__).parents[1] / "captures").glob("*/*.raw"))


def record(t: int, item: Scans | Reading | Diagnostic) -> dict[str, Any]:
    """One line of the expected decode."""
    if isinstance(item, Scans):
        line = {"t": t, "scan": item.index, "counts": item.samples.T.tolist()}
        if item.device_utc_ns is not None:
            line["device_utc_ns"] = item.device_utc_ns
        return line
    if isinstance(item, Reading):
        return {"t": t, item.quantity: item.micro}
    return {"t": t, "diagnostic": item.kind, "count": item.count, "detail": item.detail}


def decoded(capture: Capture) -> str:
    lines = [json.dumps(record(t, item)) for t, item in capture.decode()]
    lines += [json.dumps({"fault": fault.partition(".raw:")[2]}) for fault in capture.faults]
    return "".join(line + "\n" for line in lines)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_capture_decodes_as_it_did(path: Path, request: pytest.FixtureRequest) -> None:
    expected = path.with_suffix(".expected.jsonl")
    found = decoded(Capture.open(path))
    if request.config.getoption("--bless", default=False):
        expected.write_text(found)
    assert found == expected.read_text()


def test_every_built_in_driver_has_captures() -> None:
    assert {path.parent.name for path in CAPTURES} >= drivers.BUILT_IN.keys()


HEADER = Header(
    driver="rpi_seism",
    monotonic_ns=1000,
    utc_ns=1_790_000_000_000_001_000,
    synchronised=True,
    profile="rpi-seism",
    sensor="seis1",
    options={"gain": 32},
    channels=("XX.DEMO..EHZ", "XX.DEMO..EHN", "XX.DEMO..EHE"),
    sensitivity={"XX.DEMO..EHZ": "6e8:m/s"},
)


def written(path: Path, *records: Record) -> Path:
    with path.open("w") as file:
        writer = Writer(file, HEADER)
        for each in records:
            (writer.read if each.read else writer.written)(each.t, each.data)
    return path


RECORDS = (Record(1000, read=False, data=b"\xcc\xdd"), Record(1500, read=True, data=b"\xaa\x00"))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    capture = Capture.open(written(tmp_path / "a.raw", *RECORDS))
    assert capture.header == HEADER
    assert list(capture.records()) == list(RECORDS)
    assert capture.faults == []
    assert capture.station == "XX.DEMO"
    assert capture.sensor.rate_hz == 100.0
    assert capture.sensor.channels[0].sensitivity is not None


def test_reads_are_given_in_utc_with_the_opening_first(tmp_path: Path) -> None:
    capture = Capture.open(written(tmp_path / "a.raw", *RECORDS))
    utc_ns = HEADER.utc_ns
    assert list(capture.reads()) == [(utc_ns, b""), (utc_ns, b""), (utc_ns + 500, b"\xaa\x00")]


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_last_line_cut_short_is_left_out_and_stated(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "a.raw", *RECORDS)
    path.write_bytes(path.read_bytes()[:-cut])
    capture = Capture.open(path)
    assert [each.t for each in capture.records()] == [1000]
    (fault,) = capture.faults
    assert "a.raw:3: truncated last line" in fault


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1500 r zz", "non-hexadecimal"),
        ("1500 x aa", "expected <monotonic_ns> r|w <hex>"),
        ("r aa", "expected <monotonic_ns> r|w <hex>"),
        ("900 r aa", "time 900 is before 1000"),
        ("１５００ r aa", "ascii"),
    ],
)
def test_a_faulty_line_is_left_out_and_stated(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path / "a.raw", RECORDS[0])
    with path.open("a") as file:
        print(line, "2000 r bb", sep="\n", file=file)
    capture = Capture.open(path)
    assert [each.t for each in capture.records()] == [1000, 2000]
    (fault,) = capture.faults
    assert "a.raw:3:" in fault
    assert message in fault


GOOD_HEADER = (
    '{"capture": 1, "driver": "rpi_seism", "options": {}, '
    '"clock": {"monotonic_ns": 1, "utc_ns": 1}}'
)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[1]", 'expected a JSON object with "capture": 1'),
        ('{"capture": 2}', 'expected a JSON object with "capture": 1'),
        ('{"capture": 1}', "driver: missing; expected str"),
        ('{"capture": 1, "driver": "rpi_seism", "clock": 3}', "clock: saw 3; expected dict"),
        ('{"capture": 1, "driver": "rpi_seism"}', "monotonic_ns: missing; expected int"),
        (
            GOOD_HEADER.replace("rpi_seism", "rpi_sism"),
            "driver: no driver 'rpi_sism'; there are",
        ),
        (
            GOOD_HEADER.replace("{}", '{"gain": 3}'),
            "options: gain: saw 3",
        ),
        ("\udcff", "no JSON|codec"),
    ],
)
def test_a_broken_header_is_refused_with_line_and_reason(
    tmp_path: Path, header: str, message: str
) -> None:
    path = tmp_path / "a.raw"
    path.write_text(header + "\n", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"a\.raw:1: ") as refusal:
        Capture.open(path)
    assert any(part in str(refusal.value) for part in message.split("|"))


def test_captures_are_told_from_other_files(tmp_path: Path) -> None:
    (tmp_path / "rain.csv").write_text("time,rain_mm\n")
    assert not Capture.recognises(tmp_path / "rain.csv")
    assert all(Capture.recognises(path) for path in CAPTURES)
