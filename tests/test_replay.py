"""``gateway replay``: the contract that outside tools rely on."""

import json
import random
import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import obspy
import pytest
from typer.testing import CliRunner

import gateway.drill
from gateway.cli import app
from gateway.detect.settings import Sensitivity
from gateway.drill.recording import read_inventory
from gateway.drill.replay import Replay, default_base
from gateway.drivers.capture import Header, Writer
from gateway.events import NS, parse_iso

DATA = Path(gateway.drill.__file__).parent / "data"
NAPA = DATA / "napa_2014_NP.1765.mseed"
RAIN = DATA / "arna_1955-10.csv"
SENSITIVITY = Sensitivity(426141.261, "m/s**2")
P_NS = parse_iso("2014-08-24T10:20:47.33Z")
OBSPY = Path(obspy.__file__).parent

Records = list[dict[str, Any]]


def replay(*paths: Path, packet: int = 100, sensitivity: Sensitivity | None = None) -> Records:
    run = Replay(default_base(), sensitivity=sensitivity, packet=packet)
    return [*run.run(paths), run.summary.record()]


def command(*arguments: str) -> tuple[int, Records, str]:
    result = CliRunner().invoke(app, ["replay", "--json", *arguments])
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return result.exit_code, lines, result.stderr


def of(kind: str, records: Records) -> Records:
    return [record for record in records if record["type"] == kind]


def times(records: Records) -> list[float]:
    """Seconds after P."""
    return [(parse_iso(record["time"]) - P_NS) / NS for record in records]


def test_a_strong_earthquake_gives_onset_red_alert_and_siren() -> None:
    records = replay(NAPA, sensitivity=SENSITIVITY)
    onset = of("onset", records)[0]
    assert abs(times([onset])[0]) < 0.1
    alert = of("alert", records)[0]
    assert (alert["level"], alert["phase"], alert["status"]) == ("red", "alert", "Actual")
    siren_on, siren_off = of("siren", records)
    assert (siren_on["action"], siren_on["pattern"]) == ("on", "disaster")
    assert times([siren_on])[0] <= 1.5
    assert siren_on["alert"] == siren_off["alert"] == alert["id"]
    assert parse_iso(siren_off["time"]) - parse_iso(siren_on["time"]) == 120 * NS
    motion = of("ground_motion", records)
    assert max(m["intensity"] for m in motion) == pytest.approx(9.7, abs=0.15)
    since = {m["since"] for m in motion if m["since"] == onset["time"]}
    assert since
    summary = records[-1]
    assert summary["type"] == "summary"
    assert (summary["samples"], summary["channels"], summary["alerts"]) == (36_003, 3, 1)
    assert "alerts_disabled" not in summary


def test_lines_are_in_order_of_decision_and_nothing_is_used_before_its_time() -> None:
    records = replay(NAPA, sensitivity=SENSITIVITY)[:-1]
    decided = [parse_iso(r["declared"] if "declared" in r else r["time"]) for r in records]
    assert decided == sorted(decided)
    for onset in of("onset", records):
        assert onset["declared"] >= onset["time"]


@pytest.mark.parametrize("packet", [1, 7, 25, 1000])
def test_the_size_of_packets_changes_nothing(packet: int) -> None:
    assert (
        replay(NAPA, packet=packet, sensitivity=SENSITIVITY)[:-1]
        == (replay(NAPA, sensitivity=SENSITIVITY)[:-1])
    )


def test_the_same_input_gives_the_same_bytes() -> None:
    first, second = (
        [json.dumps(r) for r in replay(NAPA, sensitivity=SENSITIVITY)[:-1]] for _ in range(2)
    )
    assert first == second


def test_without_a_sensitivity_counts_stay_counts() -> None:
    records = replay(NAPA)
    assert of("onset", records)
    assert not of("ground_motion", records)
    assert not of("alert", records)
    assert records[-1]["alerts_disabled"] == "no sensitivity"


def _frame(counts: tuple[int, int, int]) -> bytes:
    body = b"\xaa\xbb" + struct.pack("<3i", *counts)
    return body + struct.pack("<I", crc32(body))


@pytest.fixture(scope="module")
def reads() -> list[tuple[int, bytes]]:
    """What a host reads of a digitiser that plays the earthquake: time in ns and bytes."""
    stream = obspy.read(str(NAPA))
    rows = [stream.select(component=c)[0].data for c in "ZNE"]
    rng = random.Random(1)
    found, waiting = [], b""
    for i, counts in enumerate(np.transpose(rows)[: 200 * 30].tolist()):
        waiting += _frame(tuple(counts))
        if rng.random() < 0.7:
            found.append((i * NS // 200 + rng.randrange(300_000), waiting))
            waiting = b""
    return found


def _capture(path: Path, reads: list[tuple[int, bytes]]) -> Path:
    header = Header(
        driver="rpi_seism",
        monotonic_ns=0,
        utc_ns=P_NS - 10 * NS,
        options={"rate_hz": 200},
        channels=("XX.CAP.00.HNZ", "XX.CAP.00.HNN", "XX.CAP.00.HNE"),
        sensitivity=dict.fromkeys(
            ("XX.CAP.00.HNZ", "XX.CAP.00.HNN", "XX.CAP.00.HNE"), "426141.261:m/s**2"
        ),
    )
    with path.open("w") as file:
        writer = Writer(file, header)
        for t, data in reads:
            writer.read(t, data)
    return path


@pytest.mark.parametrize("seed", range(3))
def test_how_the_bytes_of_a_capture_are_cut_changes_nothing(
    seed: int, reads: list[tuple[int, bytes]], tmp_path: Path
) -> None:
    rng = random.Random(seed)
    cut = []
    for t, data in reads:
        places = sorted(rng.sample(range(len(data)), rng.randrange(3)))
        ends = [*places, len(data)]
        cut += [(t, data[a:b]) for a, b in zip([0, *places], ends, strict=True) if a < b]
    whole = replay(_capture(tmp_path / "whole.raw", reads))[:-1]
    assert of("alert", whole)[0]["level"] == "red"
    assert replay(_capture(tmp_path / "cut.raw", cut))[:-1] == whole


def test_rain_reaches_the_level_that_its_sums_reach() -> None:
    records = replay(RAIN)
    assert [(r["level"], r["time"]) for r in of("level", records)] == [
        ("blue", "1955-10-07T22:15:00.000000Z"),
        ("none", "1955-10-08T07:55:00.000000Z"),
    ]
    assert of("level", records)[0] | {"window_h": 12.0, "unit": "mm"} == of("level", records)[0]
    assert [r["phase"] for r in of("alert", records)] == ["alert", "cancel"]


QUIET = {
    "gaps": "io/mseed/tests/data/gaps.mseed",
    "traffic": "io/kinemetrics/tests/data/BX456_MOLA-02351.evt",
    "microseism": "io/mseed/tests/data/test.mseed",
    "spikes": "io/reftek/tests/data/225051000_00008656",
}


@pytest.mark.parametrize("path", QUIET.values(), ids=QUIET)
@pytest.mark.parametrize("sensitivity", ["6e8:m/s", "4.2e5:m/s**2"])
def test_what_is_no_earthquake_never_alerts(path: str, sensitivity: str) -> None:
    code, records, _ = command(str(OBSPY / path), "--sensitivity", sensitivity)
    assert code == 0
    assert not of("alert", records)
    assert not of("siren", records)


def _trace(samples: int, rate_hz: float = 100, start: str = "2026-01-01") -> obspy.Trace:
    header = {"network": "XX", "station": "T", "channel": "HHZ", "sampling_rate": rate_hz}
    header["starttime"] = obspy.UTCDateTime(start)
    data = np.random.default_rng(0).normal(0, 100, samples).astype(np.int32)
    return obspy.Trace(data, header)


def test_a_file_of_two_samples_is_read(tmp_path: Path) -> None:
    _trace(2).write(str(tmp_path / "two.mseed"), format="MSEED")
    code, records, _ = command(str(tmp_path / "two.mseed"))
    assert code == 0
    assert records[-1]["samples"] == 2


def test_gaps_overlaps_and_mixed_rates_are_read_and_stated(tmp_path: Path) -> None:
    late = _trace(1000, start="2026-01-01T00:00:25")
    over = _trace(1000, start="2026-01-01T00:00:19")
    other = _trace(1000, 31.25)
    other.stats.channel = "BHZ"
    stream = obspy.Stream([_trace(2000), over, late, other])
    for trace, place in ((late, "late"), (over, "over")):
        trace.stats.station = {"late": "T", "over": "T"}[place]
    stream.write(str(tmp_path / "mixed.mseed"), format="MSEED")
    code, records, _ = command(str(tmp_path / "mixed.mseed"))
    assert code == 0
    kinds = {r["kind"] for r in of("quality", records)}
    assert {"overlap"} <= kinds
    assert not of("onset", records)


def test_one_bad_file_does_not_keep_the_others_from_being_read(tmp_path: Path) -> None:
    (tmp_path / "empty.mseed").touch()
    (tmp_path / "garbage.mseed").write_bytes(random.Random(0).randbytes(5000))
    names = [str(tmp_path / n) for n in ("empty.mseed", "garbage.mseed", "missing.mseed")]
    code, records, errors = command(*names, str(RAIN))
    assert code == 1
    assert of("level", records)
    assert records[-1]["faults"] == 3
    for expected in ("empty file", "no waveform that obspy reads", "No such file"):
        assert expected in errors


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("time,rain\n2026-01-01T00:00:00Z,1\n", 1, "1: column 2: unknown column 'rain' (did"),
        (
            "time,rain_mm\n2026-01-01T00:00:00Z,wet\n",
            1,
            "2: column 'rain_mm': not a decimal number: 'wet'",
        ),
        (
            "time,rain_mm\n2026-01-01T00:00:00Z,nan\n",
            1,
            "column 'rain_mm': not a decimal number: 'nan'",
        ),
        ("time,rain_mm,rain_mm\n", 1, "1: column 3: 'rain_mm' is there twice"),
        ("time,\n", 1, "1: column 2: unknown column ''"),
        ("time,rain_mm\nyesterday,1\n", 1, "2: column 'time': 'yesterday'; expected a time"),
        ("time,rain_mm\n2026-01-01T00:00:00Z\n", 1, "2: 1 cells; expected 2"),
        ("time,rain_mm\n2026-01-01T00:00:00Z,\n", 0, ""),
    ],
)
def test_a_wrong_line_of_readings_is_named(
    text: str, code: int, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "r.csv").write_text(text)
    found, records, errors = command(str(tmp_path / "r.csv"))
    assert found == code
    assert expected in errors
    assert records[-1]["type"] == "summary"


@pytest.mark.parametrize(
    "arguments", [[], ["x", "--sensitivity", "6e8"], ["x", "--packet", "0"], ["x", "--what"]]
)
def test_wrong_use_is_told_with_code_2(arguments: list[str]) -> None:
    assert command(*arguments)[0] == 2


def test_an_inventory_is_taken_by_the_time_of_the_recording(tmp_path: Path) -> None:
    path = OBSPY / "core/tests/data/IU_ANMO_00_BHZ.xml"
    if not path.exists():
        path = OBSPY / "io/stationxml/tests/data/IU_ANMO_00_BHZ.xml"
    inventory = obspy.read_inventory(str(path))
    channel = inventory[0][0][0]
    later = channel.start_date + 3600
    newer = obspy.read_inventory(str(path))
    newer[0][0][0].start_date = later
    newer[0][0][0].response.instrument_sensitivity.value *= 2
    channel.end_date = later
    (inventory + newer).write(str(tmp_path / "two.xml"), format="STATIONXML")
    found = read_inventory(tmp_path / "two.xml")
    before, after = (found.get("IU.ANMO.00.BHZ", int((later + shift).ns)) for shift in (-60, 60))
    assert before is not None
    assert after is not None
    assert after.counts_per_unit == pytest.approx(2 * before.counts_per_unit)
    assert found.get("XX.NONE..BHZ", 0) is None
