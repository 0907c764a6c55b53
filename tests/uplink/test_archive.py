"""The archive: what came is there once, whatever happened, and another reader reads it."""

import json
import random
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from obspy.clients.filesystem.sds import Client

from gateway.events import NS, iso, parse_iso
from gateway.uplink.config import ArchiveConfig
from gateway.uplink.mseed import (
    CLIPPED,
    CLOCK_LOCKED,
    DAY_NS,
    EVENT,
    MISSING,
    QUESTIONABLE,
    RECORD_BYTES,
    SERIES_ENDS,
    SERIES_STARTS,
    Header,
    read_header,
)
from gateway.uplink.sds import DayFile, Sds, repair
from tests.uplink.city import City
from tests.uplink.disk import Disk, disk_or_none
from tests.uplink.recording import BEGIN_NS, CHANNELS, SURE, Desk, noise, packets


def stream(root: Path, begin_ns: int = BEGIN_NS, seconds: float = 86_400) -> obspy.Stream:
    start = obspy.UTCDateTime(ns=begin_ns)
    return Client(str(root)).get_waveforms("XX", "DEMO", "*", "*", start - 10, start + seconds)


def holds(root: Path, samples: NDArray[Any], begin_ns: int = BEGIN_NS) -> None:
    """The archive is these samples from then on, without gap or overlap."""
    found = stream(root, begin_ns)
    assert found.get_gaps() == []
    found.merge(method=-1)
    assert len(found) == len(CHANNELS)
    for channel, row in zip(CHANNELS, samples, strict=True):
        (trace,) = found.select(id=channel)
        assert abs(trace.stats.starttime.ns - begin_ns) <= 1000
        assert trace.data.tolist() == row.tolist()


def headers(path: Path) -> list[Header]:
    data = path.read_bytes()
    assert len(data) % RECORD_BYTES == 0
    return [read_header(data[x : x + RECORD_BYTES]) for x in range(0, len(data), RECORD_BYTES)]


def day_files(root: Path, tree: str = "") -> list[Path]:
    return sorted(x for x in (root / tree).glob("[0-9]*/XX/DEMO/*.D/*") if x.is_file())


def log(root: Path, kind: str = "") -> list[dict[str, Any]]:
    lines = [
        json.loads(line)
        for path in sorted((root / "quality").rglob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [line for line in lines if not kind or line["kind"] == kind]


def test_what_came_is_read_by_another_reader_as_it_is(tmp_path: Path) -> None:
    samples = noise(300)
    desk = Desk(tmp_path)
    desk.take(packets(samples))
    desk.finish()
    holds(tmp_path, samples)
    assert desk.said == []
    assert (tmp_path / "2026/XX/DEMO/EHZ.D/XX.DEMO..EHZ.D.2026.330") in day_files(tmp_path)
    assert [line["kind"] for line in log(tmp_path)] == ["clock", "opened", "closed"]
    found = headers(day_files(tmp_path)[0])
    assert all(header.timing_percent == 90 for header in found)
    assert found[0].clock == SERIES_STARTS | CLOCK_LOCKED
    assert {header.clock for header in found[1:]} == {CLOCK_LOCKED}
    assert [header.activity for header in found] == [0] * len(found)


def test_records_are_on_the_disk_as_they_fill(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.take(packets(noise(60)))
    last_ns = min(headers(path)[-1].end_ns for path in day_files(tmp_path))
    assert last_ns > BEGIN_NS + 52 * NS, "no more than the record that fills is missing"


@settings(max_examples=15, deadline=None)
@given(
    kills=st.lists(st.tuples(st.integers(1, 240), st.integers(0, 60)), min_size=1, max_size=4),
)
def test_killed_at_any_moment_it_has_everything_once(
    tmp_path_factory: pytest.TempPathFactory, kills: list[tuple[int, int]]
) -> None:
    root = tmp_path_factory.mktemp("archive")
    samples = noise(120)
    items = packets(samples)
    desk = Desk(root)
    at = 0
    for count, remembered in kills:
        desk.take(items[at : at + count], turn=2)
        at = min(len(items), at + count)
        desk = Desk(root)  # the other one is gone with what it had in memory
        at = max(0, at - 40 - remembered)  # the core's ring reaches further back than a record
    desk.take(items[at:])
    desk.finish()
    holds(root, samples)
    assert list((root / "overlap").rglob("*.D.*")) == []
    numbers = [[header.sequence for header in headers(path)] for path in day_files(root)]
    assert all(a < b for row in numbers for a, b in pairwise(row))


def test_a_gap_is_in_the_headers_and_in_the_quality_log(tmp_path: Path) -> None:
    samples = noise(60)
    desk = Desk(tmp_path)
    desk.take(packets(samples[:, :2000]))
    desk.take(packets(samples[:, 2730:], BEGIN_NS + 27_300_000_000))
    desk.finish()
    found = stream(tmp_path)
    assert len(found.get_gaps()) == 3
    (line, *_) = log(tmp_path, "gap")
    assert line["time"] == iso(BEGIN_NS + 20 * NS)
    assert line["until"] == iso(BEGIN_NS + 27_300_000_000)
    assert line["missing_s"] == 7.3
    ends = [x for x in headers(day_files(tmp_path)[0]) if x.clock & SERIES_ENDS]
    starts = [x for x in headers(day_files(tmp_path)[0]) if x.clock & SERIES_STARTS]
    assert [x.end_ns for x in ends] == [pytest.approx(BEGIN_NS + 20 * NS, abs=1000)]
    assert [x.quality & MISSING for x in starts] == [0, MISSING]


def test_a_clock_set_back_makes_no_overlap_and_loses_nothing(tmp_path: Path) -> None:
    samples = noise(120)
    desk = Desk(tmp_path)
    desk.take(packets(samples[:, :6000]))
    desk.take(packets(samples[:, 6000:], BEGIN_NS + 30 * NS))  # half a minute back
    desk.finish()
    holds(tmp_path, np.concatenate((samples[:, :6000], samples[:, 9000:]), axis=1))
    aside = obspy.Stream()
    for path in day_files(tmp_path, "overlap"):
        aside += obspy.read(str(path))
    assert aside.get_gaps() == []
    (trace,) = aside.select(channel="EHZ")
    assert trace.data.tolist() == samples[0, 6000:9000].tolist()
    lines = log(tmp_path, "overlap")
    assert {line["channel"] for line in lines} == set(CHANNELS)
    assert sum(line["samples"] for line in lines) == 3 * 3000


def test_what_comes_a_third_time_is_dropped_and_counted(tmp_path: Path) -> None:
    samples = noise(30)
    desk = Desk(tmp_path)
    desk.take(packets(samples))
    for _ in range(2):
        desk.take(packets(samples))
    desk.finish()
    holds(tmp_path, samples)
    assert "dropped" in desk.kinds()


def test_a_restart_on_a_corrected_clock_does_not_overlap_either(tmp_path: Path) -> None:
    samples = noise(60)
    for back_s in (0, 45):
        desk = Desk(tmp_path)
        desk.take(packets(samples, BEGIN_NS + (60 - back_s) * NS if back_s else BEGIN_NS))
        desk.finish()
    holds(tmp_path, np.concatenate((samples, samples[:, 4500:]), axis=1))


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        pytest.param(lambda data: data[:-100], 1, id="a torn last record"),
        pytest.param(lambda data: data[:-1024] + b"\0" * 1024, 2, id="zeros at the end"),
        pytest.param(lambda data: data + b"\0" * 3000, 0, id="zeros behind the end"),
        pytest.param(lambda data: data[:2048] + b"\0" * 512 + data[2560:], 1, id="a hole within"),
        pytest.param(lambda data: data + data[:1024], 0, id="records that do not follow"),
        pytest.param(lambda _: b"\0" * 5000, 14, id="nothing but zeros"),
    ],
)
def test_what_a_power_cut_left_is_cut_out_and_told(tmp_path: Path, damage: Any, lost: int) -> None:
    samples = noise(60)
    desk = Desk(tmp_path)
    desk.take(packets(samples))
    desk.finish()
    path = tmp_path / "2026/XX/DEMO/EHZ.D/XX.DEMO..EHZ.D.2026.330"
    whole = headers(path)
    path.write_bytes(damage(path.read_bytes()))
    again = Desk(tmp_path)
    more = noise(30, seed=2)
    again.take(packets(more, BEGIN_NS + 100 * NS))
    again.finish()
    kept = headers(path)
    assert len([x for x in kept if x.start_ns < BEGIN_NS + 60 * NS]) == max(0, len(whole) - lost)
    assert all(b.start_ns >= a.end_ns - 1000 for a, b in pairwise(kept))
    assert "cut" in again.kinds()
    assert log(tmp_path, "cut")[0]["file"] == str(path)
    assert obspy.read(str(path))[-1].data.tolist()[-100:] == more[0, -100:].tolist()


@given(st.binary(max_size=4000))
@settings(max_examples=50, deadline=None)
def test_a_file_of_anything_is_repaired(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("sds") / "XX.DEMO..EHZ.D.2026.330"
    path.write_bytes(data)
    cut = repair(path, "XX.DEMO..EHZ")
    assert (cut is None) == (not data)
    assert path.stat().st_size == 0


def test_no_sample_waits_for_longer_than_the_age_of_a_record(tmp_path: Path) -> None:
    samples = noise(3)
    desk = Desk(tmp_path, record_age_s=120.0)
    desk.take(packets(samples))
    assert day_files(tmp_path) == []
    desk.wait(125.0)
    holds(tmp_path, samples)
    assert desk.work() is None or desk.archive.sds.unsynced


def test_a_short_age_gives_a_record_a_second(tmp_path: Path) -> None:
    desk = Desk(tmp_path, record_age_s=1.0)
    items = packets(noise(20))
    for item in items:
        desk.now_s += 0.5
        desk.work([item])
    assert len(headers(day_files(tmp_path)[0])) >= 13


def test_an_unsure_clock_is_in_every_header(tmp_path: Path) -> None:
    samples = noise(30)
    desk = Desk(tmp_path)
    desk.take(packets(samples[:, :1000], clock={"state": "never", "uncertainty_s": None}))
    desk.take(packets(samples[:, 1000:], BEGIN_NS + 10 * NS, clock=SURE))
    desk.finish()
    found = headers(day_files(tmp_path)[0])
    assert found[0].quality & QUESTIONABLE
    assert found[0].timing_percent == 0
    assert found[-1].timing_percent == 90
    states = [(line["state"], line["timing_percent"]) for line in log(tmp_path, "clock")]
    assert states == [("never", 0), ("synchronised", 90)]


def record(**content: Any) -> dict[str, Any]:
    return {"stream": "record", "run_id": "r", "seq": 7, "record": content}


def test_what_the_core_says_of_samples_is_in_their_headers_and_in_the_log(tmp_path: Path) -> None:
    items = packets(noise(60))
    clipped = {"type": "quality", "kind": "clipped", "channel": CHANNELS[0], "detail": "8388607"}
    shaking = {"type": "ground_motion", "station": "XX.DEMO", "since": iso(BEGIN_NS + 20 * NS)}
    items.insert(40, record(**clipped, time=iso(BEGIN_NS + 21 * NS)))
    items.insert(41, record(**shaking, time=iso(BEGIN_NS + 30 * NS)))
    desk = Desk(tmp_path)
    desk.take(items)
    desk.finish()
    for path in day_files(tmp_path):
        for header in headers(path):
            inside = header.start_ns <= BEGIN_NS + 21 * NS < header.end_ns
            assert bool(header.quality & CLIPPED) == (inside and header.channel == CHANNELS[0])
            shaken = header.end_ns > BEGIN_NS + 20 * NS and header.start_ns <= BEGIN_NS + 30 * NS
            assert bool(header.activity & EVENT) == shaken
    (line,) = log(tmp_path, "clipped")
    assert line["channel"] == CHANNELS[0]
    assert line["detail"] == "8388607"


def test_floats_with_missing_samples_are_runs_of_floats(tmp_path: Path) -> None:
    samples = np.random.default_rng(3).normal(0, 1, (3, 3000))
    samples[:, 1200:1300] = np.nan
    samples[1, 0] = np.nan
    desk = Desk(tmp_path)
    desk.take(packets(samples))
    desk.finish()
    found = stream(tmp_path).select(channel="EHZ")
    assert [len(trace) for trace in found] == [1200, 1700]
    assert (found[1].data == samples[0, 1300:]).all()
    assert len(stream(tmp_path).select(channel="EHN")[0]) == 1199


def test_what_can_not_be_read_is_counted_and_costs_nothing_else(tmp_path: Path) -> None:
    samples = noise(20)
    items: list[dict[str, Any]] = packets(samples)
    items[3:3] = [
        {"packet": {}},
        {"packet": {**items[0]["packet"], "samples": "x"}},
        {"packet": {**items[0]["packet"], "start": "noon"}},
        record(type="quality"),
        {"stream": "gap", "of": "data", "lost": 4},
    ]
    desk = Desk(tmp_path)
    desk.take(items)
    desk.finish()
    holds(tmp_path, samples)
    assert desk.kinds().count("garbled") == 4
    assert log(tmp_path, "lost")[0]["items"] == 4


def test_midnight_is_the_end_of_a_file(tmp_path: Path) -> None:
    samples = noise(60)
    begin_ns = parse_iso("2026-12-31T23:59:30.5Z")
    desk = Desk(tmp_path)
    desk.take(packets(samples, begin_ns))
    desk.finish()
    assert {path.name[-8:] for path in day_files(tmp_path)} == {"2026.365", "2027.001"}
    for path in day_files(tmp_path):
        found = headers(path)
        assert found[0].start_ns // DAY_NS == (found[-1].end_ns - 1) // DAY_NS
    holds(tmp_path, samples, begin_ns)


# --- room -----------------------------------------------------------------------------------------


def three_days(root: Path, **settings: Any) -> Desk:
    desk = Desk(root, **settings)
    for day in range(3):
        desk.take(packets(noise(60, seed=day), BEGIN_NS + day * DAY_NS))
    return desk


def days(root: Path) -> list[str]:
    return sorted({path.name[-3:] for path in day_files(root)})


def test_the_oldest_day_goes_with_its_log_when_it_is_too_old(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not ours")
    desk = three_days(tmp_path, days=2)
    desk.wait(30)
    assert days(tmp_path) == ["331", "332"]
    assert next(x for x in desk.said if x[1] == "dropped_day")[2].startswith("2026-11-26")
    assert not (tmp_path / "quality/2026/2026.330.jsonl").exists()
    assert (tmp_path / "notes.txt").exists()


def test_a_clock_that_was_never_right_costs_no_day(tmp_path: Path) -> None:
    desk = Desk(tmp_path, days=2)
    desk.take(packets(noise(20)))
    unsure = {"state": "never", "uncertainty_s": None}
    desk.take(packets(noise(20), BEGIN_NS + 1000 * DAY_NS, clock=unsure))
    desk.wait(30)
    assert len(days(tmp_path)) == 2


def test_the_oldest_days_go_when_all_are_over_the_quota(tmp_path: Path) -> None:
    desk = Desk(tmp_path, quota_mb=1)
    for day in range(5):
        loud = np.random.default_rng(day).integers(-(2**28), 2**28, (3, 30_000), dtype=np.int32)
        desk.take(packets(loud, BEGIN_NS + day * DAY_NS, columns=500), turn=2)
        desk.wait(11)
        assert desk.archive.sds.used_bytes <= 1 << 20
    assert days(tmp_path) == ["333", "334"]


def test_one_day_over_the_quota_goes_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path, quota_mb=1)
    loud = np.random.default_rng(1).integers(-(2**28), 2**28, (3, 150_000), dtype=np.int32)
    desk.take(packets(loud, columns=500), turn=2)
    desk.wait(11)
    assert desk.archive.sds.used_bytes <= 1 << 20
    assert "dropped_day" in desk.kinds()


# --- a disk that fails ----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = disk_or_none(tmp_path / "disk", "640k")
    if made is None:
        pytest.skip("mounting a small disk needs root")
    yield made
    made.close()


def test_a_full_disk_is_told_and_heals_without_a_gap(disk: Disk) -> None:
    samples = noise(900)
    items = packets(samples)
    disk.remount("size=256k")
    desk = Desk(disk.path)
    desk.take(items[:1500])
    wrong = [x for x in desk.said if x[:2] == ("wrong", "store")]
    assert wrong
    assert "No space left" in wrong[0][2]
    assert desk.archive.lag().waiting > 0
    disk.remount("size=4m")
    desk.take(items[1500:])
    desk.wait(10)
    assert ("right", "store", "") in desk.said
    assert desk.archive.lag().waiting == 0
    desk.finish()
    holds(disk.path, samples)
    assert "dropped" not in desk.kinds()


def test_a_full_disk_costs_the_oldest_day_first(disk: Disk) -> None:
    desk = Desk(disk.path)
    for day in range(4):
        desk.take(packets(noise(700, seed=day), BEGIN_NS + day * DAY_NS))
    desk.wait(10)
    desk.finish()
    assert days(disk.path)[-1] == "333"
    assert "330" not in days(disk.path)
    newest = stream(disk.path, BEGIN_NS + 3 * DAY_NS)
    assert newest.get_gaps() == []
    assert len(newest.select(channel="EHZ")[0]) == 70_000
    assert any("disk full" in x[2] for x in desk.said if x[1] == "dropped_day")


def test_the_reserve_is_left_to_others(disk: Disk) -> None:
    desk = Desk(disk.path, reserve_mb=1)
    desk.take(packets(noise(60)))
    assert any("reserve_mb" in x[2] for x in desk.said if x[:2] == ("wrong", "store"))
    assert day_files(disk.path) == []


def test_a_disk_that_is_read_only_is_told_and_heals(disk: Disk) -> None:
    samples = noise(120)
    items = packets(samples)
    desk = Desk(disk.path)
    desk.take(items[:60])
    desk.archive.sds.close()
    disk.remount("ro")
    desk.take(items[60:200])
    assert "store" in desk.kinds()
    disk.remount("rw")
    desk.take(items[200:])
    desk.wait(10)
    desk.finish()
    holds(disk.path, samples)
    assert desk.said[-1] == ("right", "store", "")


def test_a_disk_that_is_not_there_at_the_start_costs_nothing(disk: Disk) -> None:
    samples = noise(120)
    items = packets(samples)
    first = Desk(disk.path)
    first.take(items[:100])
    first.archive.sds.close()
    disk.remount("ro")
    root = disk.path / "later"
    desk = Desk(root)
    desk.take(items[100:160])
    assert "store" in desk.kinds()
    disk.remount("rw")
    desk.take(items[160:])
    desk.wait(10)
    desk.finish()
    holds(root, samples[:, 5000:], BEGIN_NS + 50 * NS)


def test_what_waits_for_a_disk_is_bounded_and_what_goes_is_counted(disk: Disk) -> None:
    loud = np.random.default_rng(1).integers(-(2**28), 2**28, (3, 500_000), dtype=np.int32)
    desk = Desk(disk.path)
    desk.take(packets(loud, columns=2000), turn=2)
    assert desk.archive.lag().waiting <= (4 << 20) // RECORD_BYTES
    assert any(x[1] == "dropped" and "disk" in x[2] for x in desk.said)


# --- looking up -----------------------------------------------------------------------------------


def test_records_are_found_by_time_and_by_number(tmp_path: Path) -> None:
    desk = three_days(tmp_path)
    desk.finish()
    sds = Sds(tmp_path)
    sds.open()
    channel = CHANNELS[1]
    every = [header for path in day_files(tmp_path) for header in headers(path)]
    mine = [header for header in every if header.channel == channel]
    for wanted in mine:
        middle_ns = (wanted.start_ns + wanted.end_ns) // 2
        (record_,) = sds.window(channel, middle_ns, middle_ns + 1)
        assert read_header(record_) == wanted
        after = [read_header(x) for x in sds.after(channel, wanted.sequence)]
        assert after == [x for x in mine if x.sequence > wanted.sequence]
    assert list(sds.window(channel, BEGIN_NS - DAY_NS, BEGIN_NS)) == []
    whole = list(sds.window(channel, 0, 1 << 62))
    assert [read_header(x) for x in whole] == mine
    span = sds.span(channel)
    assert span == (mine[0], mine[-1])
    with DayFile(sds.path(channel, mine[0].start_ns // DAY_NS)) as file:
        assert len(file) == len([x for x in mine if x.start_ns < BEGIN_NS + DAY_NS // 2])


def test_the_station_lies_beside_the_archive(tmp_path: Path) -> None:
    Desk(tmp_path, station_xml="<a/>").work()
    assert (tmp_path / "station.xml").read_text() == "<a/>"
    Desk(tmp_path, station_xml="<b/>").work()
    assert (tmp_path / "station.xml").read_text() == "<b/>"


# --- the uplink's own process ---------------------------------------------------------------------


def test_an_uplink_that_is_killed_again_and_again_has_every_sample_once(
    make_city: Callable[..., City], tmp_path: Path
) -> None:
    root = tmp_path / "archive"
    city = make_city("", mqtt=None, archive=ArchiveConfig(str(root), reserve_mb=0))
    samples = noise(180)
    items = packets(samples)
    chance = random.Random(5)
    for part in range(3):
        city.spawn_uplink()
        city.until(lambda: city.core.feed.wants_data)
        for item in items[part * 120 : (part + 1) * 120]:
            city.core.data(item)
        upto_ns = BEGIN_NS + part * 60 * NS + chance.randrange(10, 50) * NS
        city.until(lambda: written_ns(root) > upto_ns)  # noqa: B023  done before the next
        if part < 2:
            city.signal_uplink(signal.SIGKILL)
    city.until(lambda: written_ns(root) > BEGIN_NS + 170 * NS)
    city.signal_uplink(signal.SIGTERM)
    holds(root, samples)


def written_ns(root: Path) -> int:
    """Up to when every channel is on the disk."""
    ends = [path.stat().st_size for path in day_files(root)]
    if len(ends) < len(CHANNELS) or not all(size >= RECORD_BYTES for size in ends):
        return 0
    last = [path.read_bytes() for path in day_files(root)]
    return min(
        read_header(data[(len(data) // RECORD_BYTES - 1) * RECORD_BYTES :]).end_ns for data in last
    )
