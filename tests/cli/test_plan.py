"""Plans from the command line: what holds, what is wrong where, what differs, what would happen."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config.plans import SHIPPED
from gateway.core.__main__ import load_compiled
from gateway.events import Hazard
from tests.cli.running_core import CONFIGURATION, gateway

EARTHQUAKE = SHIPPED / "plans" / "earthquake.toml"
RAIN = Path(__file__).parents[1] / "data" / "rain" / "arna_1955-10.csv"


def plan(tmp_path: Path, *arguments: Any) -> Any:
    """The command at a station that has a gateway.toml only if the test wrote one."""
    words = [arguments[0], *map(str, arguments[1:])]
    places = [] if words[0] == "diff" else ["--config", str(tmp_path / "gateway.toml")]
    return gateway("plan", *words, *places)


def sets(values: list[str]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def changed(path: Path, old: str, new: str) -> Path:
    """The shipped earthquake plan with something else in it."""
    text = EARTHQUAKE.read_text()
    assert old in text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(old, new))
    return path


def line_of(path: Path, words: str) -> int:
    return 1 + next(n for n, line in enumerate(path.read_text().splitlines()) if words in line)


def test_without_a_configuration_the_shipped_plans_are_listed(tmp_path: Path) -> None:
    done = plan(tmp_path, "list", "--json")
    rows = {row["hazard"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert {"earthquake", "rainstorm"} <= rows.keys()
    assert rows["earthquake"]["levels"].startswith("red: disaster")
    assert rows["earthquake"]["overdue"] is False
    assert "these are the shipped plans" in done.stderr


def test_a_station_s_own_plan_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(CONFIGURATION)
    own = changed(tmp_path / "plans" / "quake.toml", 'version = "1.0.0"', 'version = "1.1.0"')
    done = plan(tmp_path, "show", "earthquake")
    assert done.exit_code == 0, done.output
    assert "version 1.1.0" in done.stdout
    assert str(own) in done.stdout
    assert "when  intensity >= 7" in done.stdout
    assert "siren disaster (120 s) on all" in done.stdout


def test_a_plan_is_shown_whole(tmp_path: Path) -> None:
    said = plan(tmp_path, "show", "flood").stdout
    for line in (
        "  tells site, hub, community",
        "  again 10 min later unless switched off, 3 times 10 min apart, telling emergency besides",
        "ends with its conditions; a new alert no sooner than 0 s later",
        "said again every 12 h; lasts 14 d at most",
        "  lowered {station}：本地实测已低于洪水{from}标准，降为{level}标准。",
        "event code OET:v1.2=OET-081",
        "no siren below orange from 22 to 6 h local time",
    ):
        assert line in said


@pytest.mark.parametrize(
    ("hazard", "code", "said"),
    [("avalanche", 2, "there are earthquake"), ("Fire", 2, "there are earthquake")],
)
def test_a_plan_that_there_is_not(tmp_path: Path, hazard: str, code: int, said: str) -> None:
    done = plan(tmp_path, "show", hazard)
    assert done.exit_code == code
    assert said in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "at", "said"),
    [
        ("intensity >= 6", "intensty >= 6", "intensty", "did you mean intensity (instrumental"),
        ("hold_s = 60", "hold_s = -1", "hold_s", "end.hold_s: is -1; expected 0 to 86400 seconds"),
        ('siren = "attention"', 'siren = "yodel"', "yodel", "no pattern 'yodel'; there are"),
        ("2027-11-01", "2020-11-01", "2020-11", "2020-11-01 is past; expected a revised plan"),
        ("[end]", "[end", "[end", "expected TOML"),
    ],
)
def test_each_fault_has_its_file_line_and_what_would_be_right(
    tmp_path: Path, old: str, new: str, at: str, said: str
) -> None:
    path = changed(tmp_path / "quake.toml", old, new)
    done = plan(tmp_path, "check", path)
    fault = done.stdout.splitlines()[0]
    assert fault.startswith(f"{path}:{line_of(path, at)}: ")
    assert said in fault
    assert done.exit_code == (0 if ": warning: " in fault else 1)


WIND = SHIPPED / "plans" / "typhoon.toml"


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        # conditions
        ('["scale >= red"]', '["gust_kmh >= 100"]', "level.red.when[0]", "did you mean gust_mps"),
        (
            '["scale >= red"]',
            '["gust_mps >= 90 km/h"]',
            "level.red.when[0]",
            "write the number alone",
        ),
        (
            '["scale >= red"]',
            '["gust_mps >= 90km/h"]',
            "level.red.when[0]",
            "write the number alone",
        ),
        ('["scale >= red"]', '["gust_mps >= 200"]', "level.red.when[0]", "goes from 0 to 120"),
        (
            '["scale >= red"]',
            '["wind_mps >= 0"]',
            "level.red.when[0]",
            "holds whatever is measured",
        ),
        (
            '["scale >= red"]',
            '["gust_mps >= 30 and gust_mps < 20"]',
            "level.red.when[0]",
            "gust_mps >= 30 and gust_mps < 20 can't both hold",
        ),
        ('["scale >= red"]', '["scale >= blue"]', "level.red.when[0]", "of level blue does, so"),
        # sirens
        ('siren = "disaster"', 'siren = "disastr"', "level.red.siren", "did you mean 'disaster'?"),
        ('siren = "disaster"', 'siren = "hours"', "level.red.siren", "'hours' lasts 600 s, siren"),
        (
            'siren = "disaster"',
            'siren = "disaster"\nsirens = ["roof"]',
            "level.red.sirens",
            "no siren 'roof'; there are main",
        ),
        (
            'siren = "disaster"',
            'siren = "air-raid-attack"',
            "level.red.siren",
            "needs civil_defence_authorised = true and civil_defence_reference in [plan]",
        ),
        ("times = 2", "times = 20, every_s2 = 1", "level.red.escalate.every_s2", "unknown key"),
        ("after_s = 1800", "after_s = 60", "level.red.escalate", "would begin again before it is"),
        (
            "every_s = 1800, times = 2",
            "every_s = 150, times = 30",
            "level.red.escalate",
            "1500 s in an",
        ),
        # texts and the rest
        (
            "达到大风红色标准。",
            "发布大风红色预警信号。",
            "level.red.text.zh",
            "are the authorities' alone",
        ),
        (
            "{gust_force}级），]达到大风红",
            "{gust_forc}级），]达到大风红",
            "level.red.text.zh",
            "{gust_force}?",
        ),
        ('"OET:v1.2=OET-218"', '"OET-218"', "plan.cap_event", "expected LIST=CODE"),
        ('"typhoon"', '"typhon"', "plan.hazard", "did you mean 'typhoon'?"),
        ("longest_s = 604800", "longest_s = 1", "end.longest_s", "expected 60 to 2592000 seconds"),
        ('below = "orange"', "", "quiet.below", "expected the lowest level that sounds"),
    ],
)
def test_what_can_be_wrong_is_told_at_its_key_and_line(
    tmp_path: Path, old: str, new: str, key: str, said: str
) -> None:
    (tmp_path / "gateway.toml").write_text(CONFIGURATION)
    (tmp_path / "patterns.toml").write_text("[pattern.hours]\nsteps = [600]\n")
    path = tmp_path / "wind.toml"
    text = WIND.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    done = plan(tmp_path, "check", path)
    assert done.exit_code == 1, done.output
    (fault,) = [x for x in done.stdout.splitlines() if f": {key}: " in x and said in x]
    file, line, _ = fault.split(":", 2)
    assert file == str(path)
    assert 1 <= int(line) <= len(text.splitlines())


def test_no_fault_hides_another(tmp_path: Path) -> None:
    text = WIND.read_text().replace('version = "1.0.0"', "version = 1", 1)
    path = tmp_path / "wind.toml"
    path.write_text(text.replace('"disaster"', '"disastr"').replace("hold_s = 0", "hold_s = -1"))
    done = plan(tmp_path, "check", path)
    keys = [line.split(": ")[1] for line in done.stdout.splitlines()[:-1]]
    assert keys == ["plan.version", "level.red.siren", "end.hold_s"]


def test_a_level_that_no_scale_reaches_is_a_warning(tmp_path: Path) -> None:
    text = (SHIPPED / "plans" / "air_pollution.toml").read_text()
    path = tmp_path / "air.toml"
    path.write_text(text.replace("[level.orange]", "[level.red]").replace("= orange", "= red"))
    done = plan(tmp_path, "check", path)
    assert done.exit_code == 0
    assert "warning: level.red.when[0]: 'scale >= red' never holds" in done.stdout


def test_a_wrong_plan_leaves_the_core_with_the_last_good_one(tmp_path: Path) -> None:
    config, state = tmp_path / "gateway.toml", tmp_path / "state"
    config.write_text(CONFIGURATION)
    places = ["--config", str(config), "--state", str(state)]
    own = changed(tmp_path / "plans" / "quake.toml", 'version = "1.0.0"', 'version = "1.1.0"')
    assert gateway("apply", *places).exit_code == 0

    def in_force() -> str:
        compiled, _ = load_compiled(state)
        return next(p.version for p in compiled.plans if p.hazard is Hazard.earthquake)

    assert in_force() == "1.1.0"
    changed(own, '"intensity >= 3"', '"intensity >= III"')
    refused = gateway("apply", *places)
    assert refused.exit_code == 1
    assert f"{own}:{line_of(own, 'III')}: level.blue.when[0]: 'III' in" in refused.output
    assert in_force() == "1.1.0"
    changed(own, 'version = "1.0.0"', 'version = "1.2.0"')
    assert gateway("apply", *places).exit_code == 0
    (state / "compiled" / "current.json").write_text("{")
    assert in_force() == "1.1.0", "the one before is kept for when the current one can't be read"


def test_sound_plans_check_out(tmp_path: Path) -> None:
    for arguments in ([SHIPPED / "plans"], [EARTHQUAKE, SHIPPED / "patterns.toml"]):
        done = plan(tmp_path, "check", *arguments)
        assert done.exit_code == 0, done.output
        assert done.stdout.endswith("looked at; 0 errors, 0 warnings\n")


def test_two_plans_for_one_hazard_in_a_folder_are_a_fault(tmp_path: Path) -> None:
    first = changed(tmp_path / "plans" / "a.toml", "2027", "2028")
    changed(tmp_path / "plans" / "b.toml", "2027", "2028")
    done = plan(tmp_path, "check", tmp_path / "plans")
    assert done.exit_code == 1
    assert f"expected one plan a hazard, {first} is another" in done.stdout


def test_patterns_beside_a_plan_are_known_to_it(tmp_path: Path) -> None:
    path = changed(tmp_path / "quake.toml", '"attention"', '"long"')
    (tmp_path / "patterns.toml").write_text("[pattern.long]\nsteps = [20]\n")
    assert plan(tmp_path, "check", path).exit_code == 0


def test_sirens_are_looked_for_where_a_configuration_says_which_there_are(tmp_path: Path) -> None:
    path = changed(
        tmp_path / "quake.toml", 'siren = "attention"', 'siren = "attention"\nsirens = ["roof"]'
    )
    assert plan(tmp_path, "check", path).exit_code == 0
    (tmp_path / "gateway.toml").write_text(CONFIGURATION)
    done = plan(tmp_path, "check", path)
    assert done.exit_code == 1
    assert "no siren 'roof'; there are main" in done.stdout


def test_the_same_plan_in_another_layout_does_not_differ(tmp_path: Path) -> None:
    other = changed(tmp_path / "b.toml", "\n[level.red]", "\n\n# the highest\n[level.red]")
    assert plan(tmp_path, "diff", EARTHQUAKE, other).stdout == "the same plan\n"


def test_what_differs_is_said_level_by_level(tmp_path: Path) -> None:
    other = changed(tmp_path / "b.toml", '"intensity >= 6"', '"intensity >= 6.5"')
    other.write_text(other.read_text().replace("hold_s = 60", "hold_s = 90"))
    done = plan(tmp_path, "diff", EARTHQUAKE, other)
    assert done.stdout.splitlines() == [
        "plan hold_s",
        "  - 60.0",
        "  + 90.0",
        "level orange when",
        "  - intensity >= 6",
        "  + intensity >= 6.5",
    ]


def test_a_faulty_plan_is_not_compared(tmp_path: Path) -> None:
    done = plan(tmp_path, "diff", EARTHQUAKE, changed(tmp_path / "b.toml", "hold_s", "hold"))
    assert done.exit_code == 1
    assert "end.hold: unknown key" in done.stderr


@pytest.mark.parametrize(
    ("hazard", "readings", "level", "siren"),
    [
        ("earthquake", ["intensity=7"], "red", "disaster"),
        ("earthquake", ["predicted_intensity=9", "pd_cm=0.6", "tau_c_s=1.2"], "red", "disaster"),
        ("earthquake", ["predicted_intensity=9", "pd_cm=0.6"], "yellow", "attention"),
        ("earthquake", ["intensity=3.4"], "blue", ""),
        ("earthquake", ["intensity=2.9"], "none", ""),
        ("rainstorm", ["scale=orange", "value=51"], "orange", "attention"),
    ],
)
def test_what_a_plan_would_make_of_readings(
    tmp_path: Path, hazard: str, readings: list[str], level: str, siren: str
) -> None:
    found = json.loads(plan(tmp_path, "try", hazard, *sets(readings), "--json").stdout)
    assert (found["level"], found["siren"]) == (level, siren)
    held = [c for c in found["conditions"] if c["holds"]]
    assert found["reason"] == (held[0]["when"] if held else "")


def test_why_is_said_with_every_condition(tmp_path: Path) -> None:
    done = plan(tmp_path, "try", "earthquake", "--set", "intensity=5.2")
    assert "yellow holds  intensity >= 5" in done.stdout
    assert "orange no     intensity >= 6" in done.stdout
    assert "yellow, because intensity >= 5\n  siren  attention (15 s) on all\n" in done.stdout
    assert "station：本地实测地震烈度5.2度，达到黄色标准。" in done.stdout


def test_typed_readings_go_through_the_scales(tmp_path: Path) -> None:
    steady = "wind_mps=25.1@2026-08-01T10:00:00Z/2026-08-01T10:10:00Z"
    gust = "gust_mps=38.2@2026-08-01T10:05:30Z"
    done = plan(tmp_path, "try", "typhoon", "--reading", steady, "--reading", gust)
    assert done.exit_code == 0, done.output
    for line in (
        "2026-08-01T10:02:00.000000Z  scale  orange: typed has 25.1 m/s in 2 min by gale",
        "2026-08-01T10:05:30.000000Z  update red, because scale >= red",
        "  typed：本地实测2分钟平均风速25.1米/秒（10级），最大阵风38.2米/秒（13级），",
        "  typed: observed here mean wind 25.1 m/s (force 10), gusts 38.2 m/s (force 13), red gale",
        "red for 1800 s, not switched off: 1 of 2",
        "  tells  site, hub, community, emergency",
        "is still red where the data end",
    ):
        assert line in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "intensty=5"], "no quantity 'intensty'; there are"),
        (["--set", "intensity=strong"], "expected intensity= and a number"),
        (["--set", "intensity=5", EARTHQUAKE], "files and --set; give files, or"),
        ([], "nothing to try; give files, or --reading, or --set"),
        (["--reading", "rain=1@2026-08-01"], "no quantity 'rain' in 'rain=1@2026-08-01'; there"),
        (["--reading", "rain_mm=1"], "expected rain_mm=VALUE@TIME or @TIME/TIME"),
        (["--reading", "rain_mm=wet@2026-08-01"], "not a decimal number: 'wet'; expected rain_mm="),
        (["--reading", "rain_mm=1@2026-08-02/2026-08-01"], "ends before it begins"),
    ],
)
def test_readings_that_make_no_sense(tmp_path: Path, arguments: list[Any], said: str) -> None:
    done = plan(tmp_path, "try", "earthquake", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_recording_is_tried_on_a_plan_that_is_not_yet_in_force(tmp_path: Path) -> None:
    recording = tmp_path / "storm.csv"
    recording.write_text(RAIN.read_text().replace("1955-", "2015-"))
    text = (SHIPPED / "plans" / "rainstorm.toml").read_text()
    new = tmp_path / "rain.toml"
    new.write_text(text.replace('["scale >= blue"]', '["scale >= blue"]\nsiren = "attention"'))
    for arguments, siren in (([], False), (["--plan", new], True)):
        done = plan(tmp_path, "try", "rainstorm", recording, *arguments)
        assert done.exit_code == 0, done.output
        assert "2015-10-07T22:15:00.000000Z  alert  blue, because scale >= blue" in done.stdout
        assert "1 alerts by rainstorm 1.0.0" in done.stdout
        assert ("siren  virtual on attention" in done.stdout) is siren


def test_an_unreadable_recording_is_a_fault(tmp_path: Path) -> None:
    done = plan(tmp_path, "try", "rainstorm", tmp_path / "none.csv")
    assert done.exit_code == 1
    assert "none.csv" in done.stderr
