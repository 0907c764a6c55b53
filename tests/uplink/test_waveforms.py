"""Waveforms reach the hub around what happened and when it asks, and cost only what they may."""

import base64
import io
import time
from pathlib import Path
from typing import Any

import obspy
import pytest

from gateway.events import NS, iso
from gateway.hub.waveforms import store
from gateway.uplink.archive import Archive
from gateway.uplink.config import ArchiveConfig, WaveformsConfig
from gateway.uplink.mseed import RECORD_BYTES, read_header
from gateway.uplink.sink import Request
from gateway.uplink.waveforms import Allowance, requested
from tests.uplink.city import City, alert
from tests.uplink.recording import BEGIN_NS, CHANNELS, Desk, noise, packets

QUAKE_NS = BEGIN_NS + 50 * NS


def quake(kind: str = "alert", **changes: Any) -> dict[str, Any]:
    record = {
        "type": kind,
        "id": "quake-1",
        "hazard": "earthquake",
        "phase": "alert",
        "time": iso(QUAKE_NS),
    }
    return {"stream": "record", "run_id": "r", "seq": 9, "record": record | changes}


def snippet(records: list[dict[str, Any]]) -> obspy.Stream:
    found = obspy.Stream()
    for record in records:
        data = base64.b64decode(record["mseed"])
        assert len(data) <= 64 * RECORD_BYTES
        found += obspy.read(io.BytesIO(data))
    return found.merge(method=-1)


def waveforms(desk: Desk) -> list[dict[str, Any]]:
    return [x for x in desk.published if x["type"] == "waveform"]


def replies(desk: Desk) -> list[tuple[str, str]]:
    return [(x["outcome"], x["reason"]) for x in desk.published if x["type"] == "reply"]


def ask(desk: Desk, start_s: float, end_s: float, identity: str = "q1", **more: Any) -> None:
    times = {"start": iso(BEGIN_NS + round(start_s * NS)), "end": iso(BEGIN_NS + round(end_s * NS))}
    desk.work([{"request": Request(identity, "waveform", times | more)}])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.take(packets(noise(300)))
    return made


def test_what_was_before_and_after_an_alert_is_sent_with_it(tmp_path: Path) -> None:
    samples = noise(180)
    items = packets(samples)
    items.insert(104, quake())
    desk = Desk(tmp_path)
    desk.take(items)
    desk.wait(2)
    sent = waveforms(desk)
    assert {(x["reason"], x["of"]) for x in sent} == {("event", "quake-1")}
    assert [x["part"] for x in sent] == list(range(1, sent[0]["parts"] + 1))
    found = snippet(sent)
    assert sorted(trace.id for trace in found) == sorted(CHANNELS)
    for channel, row in zip(CHANNELS, samples, strict=True):
        (trace,) = found.select(id=channel)
        first = round((trace.stats.starttime.ns - BEGIN_NS) / NS * 100)
        assert first <= 2000, "30 s before"
        assert first > 1200
        assert first + len(trace) >= 11_000, "60 s after"
        assert trace.data.tolist() == row[first : first + len(trace)].tolist()


def test_it_is_sent_though_the_sensor_falls_silent_in_the_middle(tmp_path: Path) -> None:
    items = packets(noise(60))
    items.insert(104, quake())
    desk = Desk(tmp_path)
    desk.take(items)
    assert waveforms(desk) == []
    desk.wait(80)
    (trace,) = snippet(waveforms(desk)).select(channel="EHZ")
    assert trace.stats.endtime.ns == pytest.approx(BEGIN_NS + 59_990_000_000, abs=1000)


@pytest.mark.parametrize(
    "item",
    [
        quake(phase="update"),
        quake(phase="cancel"),
        quake(hazard="rainstorm"),
        quake("onset"),
        quake("rejected"),
    ],
)
def test_nothing_is_sent_of_what_is_no_new_earthquake(desk: Desk, item: dict[str, Any]) -> None:
    desk.work([item])
    desk.wait(100)
    assert waveforms(desk) == []


def test_onsets_too_where_they_are_wanted_and_each_window_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, WaveformsConfig(events=("onset",)))
    items = packets(noise(300))
    for number in range(3):
        at = QUAKE_NS + number * NS
        items.insert(104, quake("onset", time=iso(at)) | {"seq": 100 + number})
    desk.take(items)
    desk.wait(2)
    assert {x["of"] for x in waveforms(desk)} == {"r-102"}, "the one that came first covers them"


def test_one_event_is_bounded_and_shared_by_its_channels(tmp_path: Path) -> None:
    desk = Desk(tmp_path, WaveformsConfig(pre_s=600, post_s=30, event_kb=32))
    items = packets(noise(600))
    items.insert(1102, quake(time=iso(BEGIN_NS + 550 * NS)))
    desk.take(items)
    desk.wait(2)
    sizes = [len(base64.b64decode(x["mseed"])) for x in waveforms(desk)]
    assert sum(sizes) <= (32 << 10) + 3 * RECORD_BYTES
    assert {x["channel"] for x in waveforms(desk)} == set(CHANNELS)


def test_any_window_that_there_is_can_be_had(desk: Desk) -> None:
    ask(desk, 100, 130, channels=["*.EHZ", "XX.DEMO..EHN"])
    desk.wait(2)
    (reply,) = replies(desk)
    assert reply[0] == "accepted"
    found = snippet(waveforms(desk))
    assert sorted(trace.stats.channel for trace in found) == ["EHN", "EHZ"]
    row = noise(300)[0]
    (trace,) = found.select(channel="EHZ")
    first = round((trace.stats.starttime.ns - BEGIN_NS) / NS * 100)
    assert first <= 10_000
    assert first + len(trace) >= 13_000
    assert trace.data.tolist() == row[first : first + len(trace)].tolist()


def test_what_is_not_in_a_full_record_yet_can_be_had_too(desk: Desk) -> None:
    ask(desk, 299, 300)
    desk.wait(2)
    ends = [trace.stats.endtime.ns for trace in snippet(waveforms(desk))]
    assert ends == [pytest.approx(BEGIN_NS + 299_990_000_000, abs=1000)] * 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((-500, -400), "out_of_range: nothing in this window; the archive holds 2026-11-26 to"),
        ((1000, 1100), "out_of_range"),
        ((10, 5), "malformed: start is not before end"),
    ],
)
def test_what_can_not_be_had_is_refused_with_the_reason(
    desk: Desk, arguments: tuple[float, float], reason: str
) -> None:
    ask(desk, *arguments)
    desk.wait(1)
    assert replies(desk)[0][0] == "refused"
    assert replies(desk)[0][1].startswith(reason)


def test_a_request_too_large_or_one_too_many_is_refused(tmp_path: Path) -> None:
    limits = WaveformsConfig(requests=2, request_kb=32, hour_kb=64)
    desk = Desk(tmp_path, limits)
    desk.take(packets(noise(300)))
    ask(desk, 0, 300)
    desk.wait(1)
    assert replies(desk)[-1] == (
        "refused",
        "too_large: more than 32 KiB; ask for a shorter window",
    )
    times = {"start": iso(BEGIN_NS), "end": iso(BEGIN_NS + 50 * NS)}
    desk.work([{"request": Request(f"r{n}", "waveform", times)} for n in range(4)])
    desk.wait(3)
    outcomes = [reason.partition(":")[0] for _, reason in replies(desk)[1:]]
    assert outcomes.count("busy") == 2
    for number in range(4):
        ask(desk, 0, 50, f"more{number}")
        desk.wait(1)
    assert replies(desk)[-1][1].startswith("too_much: 64 KiB an hour; ask again in ")
    desk.wait(3600)
    ask(desk, 0, 50, "later")
    desk.wait(1)
    assert replies(desk)[-1][0] == "accepted"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"start": "2026-11-26T00:00:00Z"},
        {"start": 1, "end": 2},
        {"start": "2026-11-26T00:00:00Z", "end": "2026-11-26T00:01:00Z", "channels": "EHZ"},
        {"start": "2026-11-26T00:00:00Z", "end": "2026-11-26T00:01:00Z", "channels": []},
        {"start": "2026-11-26T00:00:00Z", "end": "2026-11-26T00:01:00Z", "channels": ["x" * 99]},
    ],
)
def test_a_malformed_request_says_what_would_be_right(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"malformed: (start|end|channels): expected"):
        requested("q", arguments)


def test_an_allowance_fills_up_again() -> None:
    allowance = Allowance(3600)
    assert allowance.wait_s(3600, 0.0) == 0
    allowance.spend(3600)
    assert allowance.wait_s(100, 0.0) == pytest.approx(100)
    assert allowance.wait_s(100, 150.0) == 0
    assert allowance.wait_s(4000, 1e9) == float("inf")


def test_pieces_leave_a_few_at_a_time(desk: Desk) -> None:
    desk.take(packets(noise(3000), BEGIN_NS + 300 * NS))
    ask(desk, 0, 3000)
    most, before = 0, len(waveforms(desk))
    for _ in range(40):
        desk.now_s += 0.25
        desk.work()
        most = max(most, len(waveforms(desk)) - before)
        before = len(waveforms(desk))
    assert before == waveforms(desk)[0]["parts"] > 16
    assert most == 8


def test_every_record_where_all_is_wanted(tmp_path: Path) -> None:
    samples = noise(60)
    desk = Desk(tmp_path, WaveformsConfig(continuous=True))
    desk.take(packets(samples))
    (trace,) = snippet(waveforms(desk)).select(channel="EHZ")
    assert trace.data.tolist() == samples[0, : len(trace)].tolist()
    assert len(trace) > 5000
    assert {(x["reason"], x["of"]) for x in waveforms(desk)} == {("continuous", "")}


# --- through a broker -----------------------------------------------------------------------------


@pytest.fixture
def with_archive(city: City, tmp_path: Path) -> tuple[City, Archive]:
    config = ArchiveConfig(str(tmp_path / "archive"), reserve_mb=0)
    archive = Archive(config, WaveformsConfig(pre_s=5, post_s=5))
    city.start_hub()
    city.start_uplink((archive,))
    city.until(lambda: city.core.feed.wants_data)
    return city, archive


def heard(city: City) -> list[Any]:
    return [m for m in city.heard if m.kind == "waveform"]


def test_the_hub_gets_the_snippet_of_an_alert_and_the_window_that_it_asks_for(
    with_archive: tuple[City, Archive], tmp_path: Path
) -> None:
    city, _ = with_archive
    samples = noise(60)
    begin_ns = alert(1).time_ns - 20 * NS
    items = packets(samples, begin_ns)
    for item in items[:40]:
        city.core.data(item)
    city.core.publish(alert(1))
    for item in items[40:]:
        city.core.data(item)
    assert city.hub is not None
    city.until(lambda: heard(city) and len(heard(city)) == heard(city)[0].data["parts"])
    assert city.faults() == []
    paths = {store(tmp_path / "hub", message) for message in heard(city)}
    assert paths == {tmp_path / "hub/demo.cn-demo-001/cn-demo-001-earthquake-1.mseed"}
    (trace,) = obspy.read(str(paths.pop())).merge(method=-1).select(channel="EHZ")
    first = round((trace.stats.starttime.ns - begin_ns) / NS * 100)
    assert first <= 1500
    assert first + len(trace) >= 2500
    assert trace.data.tolist() == samples[0, first : first + len(trace)].tolist()
    before = len(heard(city))
    window = {"start": iso(begin_ns), "end": iso(begin_ns + 10 * NS), "channels": ["*.EHE"]}
    city.hub.request("demo", "cn-demo-001", "q7", "waveform", window)
    city.until(lambda: len(heard(city)) > before)
    assert [m.data["of"] for m in heard(city)[before:]] == ["q7"]
    city.until(lambda: any(m.kind == "reply" for m in city.heard))
    reply = next(m for m in city.heard if m.kind == "reply")
    assert (reply.data["command"], reply.data["outcome"]) == ("q7", "accepted")
    assert city.faults() == []


def test_a_disk_that_hangs_delays_no_alert(
    with_archive: tuple[City, Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    city, archive = with_archive
    let_go: list[bool] = []

    def hang(*_: Any) -> None:
        while not let_go:
            time.sleep(0.01)

    monkeypatch.setattr(archive.sds, "append", hang)
    for item in packets(noise(60)):
        city.core.data(item)
    city.until(lambda: archive.lag().waiting > 0)
    city.core.publish(*(alert(n) for n in range(20)))
    city.until(lambda: len(city.alerts_heard()) == 20)
    assert archive.lag().waiting > 0
    let_go.append(True)


def test_the_hub_refuses_what_is_no_waveform(tmp_path: Path) -> None:
    from gateway.hub.hub import Message  # noqa: PLC0415  one test's

    def message(**data: Any) -> Message:
        return Message("demo", "../x", "waveform", "1", 1, "waveform", "", data, late=False)

    for data in ({}, {"mseed": "?", "of": ""}, {"mseed": "AAAA", "of": "a"}, {"mseed": 5, "of": 1}):
        with pytest.raises(ValueError, match=r"waveform|records"):
            store(tmp_path, message(**data))
    desk = Desk(tmp_path / "archive", WaveformsConfig(continuous=True))
    desk.take(packets(noise(30)))
    good = waveforms(desk)[0]
    path = store(tmp_path / "hub", message(**{**good, "of": "../../etc/passwd"}))
    assert path.parent.parent == tmp_path / "hub"
    assert read_header(path.read_bytes()[:RECORD_BYTES]).channel == good["channel"]
