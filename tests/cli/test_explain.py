"""An alert is explained from the journal alone: inputs, rule, plan, clock, sirens, every step."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import explain as explaining
from gateway.config import install
from gateway.core.compiled import Compiled, Station
from gateway.core.segments import Kind, Record, Segments, pack_record
from gateway.drill.replay import Replay, default_base
from gateway.plan.rules import Pattern, Step
from tests.cli.running_core import gateway

RAIN = Path(__file__).parents[1] / "data" / "rain" / "arna_1955-10.csv"
CLOCK = {"state": "synchronised", "uncertainty_s": 0.0021, "steps": 0}


@pytest.fixture(scope="module")
def storm() -> list[dict[str, Any]]:
    """What the core decided in a recorded storm, with the clock as the daemon states it."""
    records = list(Replay(default_base()).run([RAIN]))
    return [{**r, "clock": CLOCK} if r["type"] == "alert" else r for r in records]


def journal(state: Path, records: Sequence[dict[str, Any]]) -> Path:
    """A state folder whose journal holds these records."""
    (state / "core").mkdir(parents=True)
    segments = Segments(state / "core", 2)
    segments.rotate(b"{}")
    for seq, record in enumerate(records, 1):
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        assert segments.write(Kind.record, pack_record(Record("run1", seq, line)))
    segments.sync()
    segments.close()
    return state


def with_plans(state: Path, **changes: Any) -> None:
    """Install the shipped plans for the core, changed in every plan as said."""
    base: Compiled = default_base()
    plans = tuple(replace(plan, **changes) for plan in base.plans)
    install(replace(base, station=Station("s", "s", "demo"), plans=plans), state)


def explain(state: Path, *arguments: str) -> Any:
    return gateway("explain", *arguments, "--state", str(state))


def alert_of(records: Sequence[dict[str, Any]]) -> str:
    name: str = next(r["id"] for r in records if r["type"] == "alert")
    return name


def test_inputs_rule_plan_and_clock_of_every_step(
    tmp_path: Path, storm: list[dict[str, Any]]
) -> None:
    state = journal(tmp_path, storm)
    with_plans(state)
    done = explain(state, alert_of(storm))
    assert done.exit_code == 0, done.output
    for words in (
        "rainstorm, Actual, station arna_1955-10",
        "plan rainstorm 1.0.0\n",
        "ALERT blue: scale >= blue",
        "inputs scale 1.0, value 50.3",
        "blue   holds  scale >= blue",
        "yellow no     scale >= yellow",
        "clock synchronised, ±2.1 ms, 0 steps since start",
        "CANCEL none: no condition of the plan is met any more",
        "level sensor=arna_1955-10 hazard=rainstorm level=blue",
    ):
        assert words in done.stdout


def test_a_plan_that_is_no_longer_in_force_is_not_used_to_explain(
    tmp_path: Path, storm: list[dict[str, Any]]
) -> None:
    state = journal(tmp_path, storm)
    with_plans(state, version="2.0.0")
    done = explain(state, alert_of(storm))
    assert "plan rainstorm 1.0.0, which is no longer in force here" in done.stdout
    assert "holds" not in done.stdout


def test_programs_get_steps_sirens_and_evidence(
    tmp_path: Path, storm: list[dict[str, Any]]
) -> None:
    state = journal(tmp_path, storm)
    with_plans(state)
    found = json.loads(explain(state, alert_of(storm), "--json").stdout)
    assert [step["phase"] for step in found["steps"]] == ["alert", "cancel"]
    assert found["steps"][0]["clock"] == CLOCK
    assert [c["level"] for c in found["steps"][0]["conditions"] if c["holds"]] == ["blue"]
    assert {record["type"] for record in found["evidence"]} == {"level"}


def shaking() -> list[dict[str, Any]]:
    """Records as the core publishes them, a second apart: shaking, an alert, its siren."""

    def at(second: float) -> str:
        return f"2026-11-24T01:00:{second:09.6f}Z"

    def motion(second: int) -> dict[str, Any]:
        found = {"type": "ground_motion", "station": "XX.STA", "time": at(second)}
        return found | {"intensity": 4.0 + second / 10}

    def siren(second: float, action: str, reason: str = "") -> dict[str, Any]:
        found = {"type": "siren", "station": "s", "siren": "main", "alert": "a1"}
        return found | {
            "action": action,
            "pattern": "attention",
            "time": at(second),
            "status": "Actual",
            "reason": reason,
        }

    onset = {"type": "onset", "channel": "XX.STA..EHZ", "time": at(9.1), "declared": at(9.9)}
    alert: dict[str, Any] = {"type": "alert", "id": "a1", "station": "s", "hazard": "earthquake"}
    alert |= {"level": "yellow", "phase": "alert", "status": "Actual", "time": at(12.5)}
    alert |= {"reason": "intensity >= 5", "text_zh": "震", "text_en": "shaking"}
    alert |= {"plan": "earthquake 1.0.0", "inputs": {"intensity": 5.2, "pd_cm": None}}
    arming = {"type": "arming", "mode": "silent", "by": "uid 0", "left_s": 60.0}
    return [
        {**arming, "time": "2026-11-23T20:00:00.000000Z"},
        {**arming, "mode": "armed", "left_s": None, "time": "2026-11-23T21:00:00.000000Z"},
        {**onset, "channel": "XX.STA..OLD", "declared": "2026-11-24T00:50:00.000000Z"},
        onset,
        *map(motion, range(10, 13)),
        {**alert, "clock": {"state": "never", "uncertainty_s": None, "steps": 2}},
        siren(12.5, "on"),
        *map(motion, range(13, 28)),
        siren(27, "off", "pattern ended"),
    ]


def test_shaking_is_shown_where_it_decided_and_at_its_end(tmp_path: Path) -> None:
    found = json.loads(explain(journal(tmp_path, shaking()), "a1", "--json").stdout)
    kinds = [(r["type"], r["time"][17:19]) for r in found["evidence"]]
    assert kinds == [
        ("arming", "00"),
        ("onset", "09"),
        ("ground_motion", "12"),
        ("ground_motion", "27"),
    ]
    assert found["evidence"][0]["mode"] == "armed"
    assert [siren["reason"] for siren in found["sirens"]] == ["", "pattern ended"]


def test_people_read_it_in_order_of_time(tmp_path: Path) -> None:
    done = explain(journal(tmp_path, shaking()), "a1")
    said = [line.split("  ", 1)[1] for line in done.stdout.splitlines() if line[:2] == "20"]
    assert [line.split()[0] for line in said] == [
        "arming",
        "onset",
        "ground_motion",
        "ALERT",
        "siren",
        "ground_motion",
        "siren",
    ]
    assert "clock never, error unknown, 2 steps since start" in done.stdout


def test_an_unknown_alert_lists_the_last_ones(tmp_path: Path, storm: list[dict[str, Any]]) -> None:
    state = journal(tmp_path, storm)
    done = explain(state, "no-such-alert")
    assert done.exit_code == 1
    assert "no alert 'no-such-alert'" in done.stderr
    assert alert_of(storm) in done.stdout


def test_without_an_id_the_last_alerts_are_listed_newest_first(tmp_path: Path) -> None:
    alert = next(record for record in shaking() if record["type"] == "alert")
    records = [
        {**alert, "id": f"a{n}", "time": f"2026-11-24T01:{n:02}:00.000000Z"} for n in range(12)
    ]
    done = explain(journal(tmp_path, records), "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == [f"a{n}" for n in range(11, 1, -1)]
    assert rows[0]["highest"] == "yellow"


def test_an_empty_journal_and_none_at_all(tmp_path: Path) -> None:
    assert explain(journal(tmp_path / "new", [])).stdout == "no alert in the journal\n"
    done = explain(tmp_path / "elsewhere")
    assert done.exit_code == 1
    assert "there is no journal; is --state right?" in done.stderr


def test_damage_costs_no_more_than_what_it_hit(tmp_path: Path) -> None:
    state = journal(tmp_path, shaking())
    segment = next(p for p in (state / "core").glob("journal.*") if b"a1" in p.read_bytes())
    data = bytearray(segment.read_bytes())
    data[data.index(b"XX.STA..OLD")] ^= 0xFF
    segment.write_bytes(data)
    assert len(json.loads(explain(state, "a1", "--json").stdout)["steps"]) == 1


def test_reading_changes_nothing(tmp_path: Path) -> None:
    state = journal(tmp_path, shaking())
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    explain(state, "a1")
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


def test_each_edge_of_a_siren_is_told(tmp_path: Path) -> None:
    """A contact closes: the disaster pattern sounds, and again until it is switched off."""
    lines = ["time,contact"]
    lines += [f"2026-08-01T00:00:{at:02}Z,{int(at >= 10)}" for at in range(0, 60, 10)]
    recording = tmp_path / "gate.csv"
    recording.write_text("\n".join(lines) + "\n")
    records = list(Replay(default_base()).run([recording]))
    state = journal(tmp_path, records)
    with_plans(state)
    done = explain(state, alert_of(records))
    assert (
        "siren virtual on, disaster\n"
        "    sounds 00:00:10.000–00:00:25.000, 00:00:35.000–00:00:40.000"
    ) in done.stdout
    assert "tells site, hub, community\n" in done.stdout
    assert "UPDATE red: red for 180 s, not switched off: 1 of 5" in done.stdout
    found = json.loads(explain(state, alert_of(records), "--json").stdout)
    edges = found["sirens"][0]["edges"]
    assert len(edges) == 12
    assert edges[0] == {"time": "2026-08-01T00:00:10.000000Z", "on": True}
    assert edges[-1] == {"time": "2026-08-01T00:02:00.000000Z", "on": False}


def test_a_pattern_that_was_interrupted_has_the_edges_that_were_heard() -> None:
    long = Pattern("long", (Step(on=True, seconds=100), Step(on=False, seconds=50)), 2)

    def at(second: int, action: str) -> dict[str, Any]:
        time = f"2026-08-01T00:{second // 60:02}:{second % 60:02}.000000Z"
        return {"time": time, "siren": "main", "action": action, "pattern": "long"}

    step = {**at(0, ""), "phase": "alert"}
    heard = [at(0, "on"), at(30, "off"), at(60, "on"), at(200, "off")]
    sirens = explaining._with_edges(explaining.Story("a", [step], heard, []), {"long": long})
    spans = [[(e["time"][14:19], e["on"]) for e in s.get("edges", [])] for s in sirens]
    assert spans == [
        [("00:00", True), ("00:30", False)],
        [],
        [("01:00", True), ("01:40", False), ("02:30", True), ("03:20", False)],
        [],
    ]
