import re
import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

import gateway.plan
from gateway.detect import scale_files
from gateway.detect.level import make
from gateway.events import MICRO, NS, Hazard, Level, Reading
from gateway.plan.files import Limits, PlanError, check_plan, read_patterns, read_plan
from gateway.plan.rules import QUANTITIES

HERE = Path(gateway.plan.__file__).parent
ROOT = Path(__file__).parents[2]
SHIPPED = sorted((HERE / "plans").glob("*.toml"))
EARTHQUAKE = (HERE / "plans" / "earthquake.toml").read_text(encoding="utf-8")
PATTERNS = read_patterns(tomllib.loads((HERE / "patterns.toml").read_text(encoding="utf-8")))


def faults(text: str) -> list[str]:
    with pytest.raises(PlanError) as caught:
        read_plan(tomllib.loads(text), "x.toml")
    return [f"{key}: {what}" for key, what in caught.value.faults]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_plans_are_right(path: Path) -> None:
    plan = read_plan(tomllib.loads(path.read_text(encoding="utf-8")), path.name)
    assert plan.hazard == path.stem
    assert check_plan(plan, PATTERNS, {"main": Limits(300.0)}) == []
    there = [rule.level for rule in plan.levels]
    if plan.hazard is Hazard.fire:
        assert there == [Level.red]
    elif plan.hazard is Hazard.air_pollution:
        assert there == [Level.orange, Level.yellow, Level.blue]
        assert not any(rule.pattern for rule in plan.levels)
    else:
        assert there == [Level.red, Level.orange, Level.yellow, Level.blue]
    assert date.fromisoformat(plan.next_revision) > date(2026, 11, 1)


def test_the_earthquake_plan_holds_to_its_limits() -> None:
    plan = read_plan(tomllib.loads(EARTHQUAKE))
    cases: list[tuple[dict[str, float | None], Level | None]] = [
        ({"intensity": 2.9}, None),
        ({"intensity": 3.0}, Level.blue),
        ({"intensity": 5.0}, Level.yellow),
        ({"intensity": 6.0}, Level.orange),
        ({"intensity": 7.0}, Level.red),
        ({"intensity": 1.0, "predicted_intensity": 8.0}, Level.yellow),
        ({"predicted_intensity": 8.0, "pd_cm": 0.5, "tau_c_s": 1.0}, Level.red),
        ({"predicted_intensity": 8.0, "pd_cm": 0.5, "tau_c_s": 0.9}, Level.yellow),
        ({"predicted_intensity": 8.0, "pd_cm": 0.49, "tau_c_s": 2.0}, Level.yellow),
        ({"predicted_intensity": 8.0, "pd_cm": 0.5, "tau_c_s": None}, Level.yellow),
        ({"predicted_intensity": None, "intensity": None}, None),
    ]
    for inputs, level in cases:
        found = plan.match(inputs)
        assert (found[0].level if found else None) is level, inputs


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            '"intensity >= 3"',
            '"intensity = 3"',
            "'intensity = 3': measured values are compared with >=, >,",
        ),
        ('"intensity >= 3"', '"shaking >= 3"', "unknown quantity 'shaking'; there are intensity"),
        ('"intensity >= 3"', '"intensity >= III"', "'III' in 'intensity >= III' is no number"),
        ('"intensity >= 3"', '"intensity >= 3 and intensity < 2"', "can't both hold"),
        ('"intensity >= 3"', '"intensity >= 13"', "intensity goes from 1 to 12"),
        ('"intensity >= 3"', '"intensity >= 5.5"', "level.yellow.when[0]: 'intensity >= 5' holds"),
        (" and pd_cm >= 0.5", "", "a prediction above yellow also needs 'pd_cm >= 0.5"),
        ('hazard = "earthquake"', 'hazard = "tsunami"', "plan.hazard: is 'tsunami'; expected one"),
        ('version = "1.0.0"', "version = 1", "plan.version: is 1; expected a version"),
        ('author = "gateway project"', "", "plan.author: missing"),
        ("next_revision = 2027-11-01", 'next_revision = "soon"', "expected a date such as"),
        ("[level.blue]", "[level.purple]", "level.purple: unknown level; expected blue"),
        ('siren = "attention"', "sirens = 5", "level.yellow.sirens: is 5; expected a list"),
        ("{grade}度，达到蓝色", "{grad}度，达到蓝色", "unknown placeholder {grad}"),
        ("hold_s = 60", "hold_s = -1", "end.hold_s: is -1; expected 0 to 86400 seconds"),
        ("hold_s = 60", "holds = 60", "end.holds: unknown key; there are hold_s, rearm_s"),
        ("[end]", '[quiet]\nhours = [22]\nbelow = "red"\n[end]', "quiet.hours: is [22]"),
        ("[end]", '[quiet]\nhours = [22, 6]\nbelow = "red"\n[end]', "red is never silenced"),
    ],
)
def test_a_wrong_plan_is_told_key_fault_and_what_is_right(
    old: str, new: str, expected: str
) -> None:
    assert old in EARTHQUAKE
    found = faults(EARTHQUAKE.replace(old, new))
    assert any(expected in fault for fault in found), found


def test_every_fault_is_told_at_once() -> None:
    wrong = EARTHQUAKE.replace('version = "1.0.0"', "").replace('"intensity >= 3"', '"x > 1"')
    assert len(faults(wrong.replace("hold_s = 60", "hold_s = -1"))) == 3


def test_an_air_raid_signal_needs_its_authorisation() -> None:
    text = EARTHQUAKE.replace('siren = "attention"', 'siren = "air-raid-attack"')
    plan = read_plan(tomllib.loads(text))
    assert "air-raid signal" in str(check_plan(plan, PATTERNS, {"main": Limits(300.0)}))
    reference = 'civil_defence_authorised = true\ncivil_defence_reference = "2026-17"\nauthor'
    plan = read_plan(tomllib.loads(text.replace("author", reference, 1)))
    assert check_plan(plan, PATTERNS, {"main": Limits(300.0)}) == []


def test_a_plan_is_checked_against_patterns_and_sirens() -> None:
    plan = read_plan(
        tomllib.loads(
            EARTHQUAKE.replace('siren = "attention"', 'siren = "jingle"').replace(
                'siren = "disaster"', 'siren = "disaster"\nsirens = ["roof"]', 1
            )
        )
    )
    found = dict(check_plan(plan, PATTERNS, {"main": Limits(100.0)}))
    assert found["level.yellow.siren"].startswith("no pattern 'jingle'; there are disaster")
    assert found["level.red.sirens"] == "no siren 'roof'; there are main"
    assert "lasts 120 s, siren 'main' may sound 100 s" in found["level.orange.siren"]


@pytest.mark.parametrize("steps", ["[]", "[0]", "[15, -1]", '["x"]', "[15, 601]"])
def test_a_wrong_pattern_is_refused(steps: str) -> None:
    with pytest.raises(PlanError, match=r"pattern\.p\.steps"):
        read_patterns(tomllib.loads(f"[pattern.p]\nsteps = {steps}"))


def test_the_scale_plans_follow_their_scale() -> None:
    for path in SHIPPED:
        plan = read_plan(tomllib.loads(path.read_text(encoding="utf-8")), path.name)
        if plan.hazard is not Hazard.earthquake:
            for rule in plan.levels:
                found = plan.match({"scale": float(rule.level)})
                assert found is not None
                assert found[0] is rule


@pytest.mark.parametrize(
    ("hour_utc", "level", "quiet"),
    [
        (14, Level.blue, True),  # 22:00 in China
        (13.99, Level.blue, False),
        (21.99, Level.yellow, True),  # 05:59
        (22, Level.yellow, False),
        (16, Level.orange, False),
        (16, Level.red, False),
    ],
)
def test_quiet_hours_silence_only_the_lower_levels(
    hour_utc: float, level: Level, *, quiet: bool
) -> None:
    text = EARTHQUAKE.replace("[end]", '[quiet]\nhours = [22, 6]\nbelow = "orange"\n\n[end]')
    assert read_plan(tomllib.loads(text)).quiet(level, round(hour_utc * 3600e9)) is quiet


DOCUMENTED = re.findall(
    r"```toml\n(.*?)```", (ROOT / "docs" / "plans.md").read_text(encoding="utf-8"), re.DOTALL
)


def test_the_example_of_the_documentation_is_right_and_has_every_key() -> None:
    example, pattern = DOCUMENTED
    patterns = PATTERNS + read_patterns(tomllib.loads(pattern))
    plan = read_plan(tomllib.loads(example))
    assert check_plan(plan, patterns, {"roof": Limits(300, 900), "yard": Limits(300, 900)}) == []
    for key in ("plan", "level.red", "level.red.escalate", "end", "quiet", "pattern.our-city"):
        table, _, last = key.rpartition(".")
        inline = last == "escalate"
        text = (
            example.replace("escalate = {", "escalate = { nonsense = 1,", 1)
            if inline
            else (
                (pattern if last == "our-city" else example).replace(
                    f"[{key}]", f"[{key}]\nnonsense = 1"
                )
            )
        )
        read = read_patterns if last == "our-city" else read_plan
        with pytest.raises(PlanError) as caught:
            read(tomllib.loads(text))
        known = next(t for k, t in caught.value.faults if k == f"{key}.nonsense").split(
            "there are "
        )[1]
        missing = [k for k in known.split(", ") if f"{k} =" not in example + pattern]
        assert missing in ([], ["civil_defence"]), (table, missing)


def test_the_shipped_plans_are_in_the_documentation() -> None:
    text = (ROOT / "docs" / "plans.md").read_text(encoding="utf-8")
    for path in SHIPPED:
        assert text.count(f"| {path.stem} ") == 2, path.stem


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_texts_are_observations_with_advice_in_both_languages(path: Path) -> None:
    plan = read_plan(tomllib.loads(path.read_text(encoding="utf-8")), path.name)
    for rule in plan.levels:
        assert re.search(r"^\{station\}：本地.*达到.*标准.*。$", rule.text_zh), rule.text_zh
        assert rule.text_zh.count("。") == 1, "the first sentence is CAP's headline"
        assert rule.text_en.startswith("{station}: ")
        assert "standard" in rule.text_en
        assert rule.action_zh.endswith("。")
        assert rule.action_en.endswith(".")
        assert "预警" not in rule.text_zh + rule.action_zh
    assert plan.ended_zh
    assert plan.author
    assert plan.audiences


READINGS = {
    Hazard.rainstorm: ("rain_mm", 0.1),
    Hazard.typhoon: ("wind_mps", 5.0),
    Hazard.flood: ("water_level_m", 510.0),
    Hazard.air_pollution: ("pm25_ugm3", 30.0),
    Hazard.fire: ("contact", 0.0),
}


@pytest.mark.parametrize("hazard", READINGS)
def test_what_a_plan_may_compare_is_what_the_scales_know(hazard: Hazard) -> None:
    """A day of readings through every shipped scale of the hazard."""
    names = {READINGS[hazard][0], *(["gust_mps"] if hazard is Hazard.typhoon else ["rain_mm"])}
    minutes = range(1, 26 * 60)
    known: set[str] = set()
    for path in sorted(scale_files.SHIPPED.glob("*.toml")):
        scale = scale_files.read_scale(tomllib.loads(path.read_text(encoding="utf-8")), path.name)
        if scale.hazard is not hazard:
            continue
        evaluator = make(replace(scale, needs_warning=None), "s")
        for i in minutes:
            for name in names:
                value = 0.1 if name == "rain_mm" else READINGS[hazard][1]
                micro = round((value + i % 3 * 0.1) * MICRO) if name != "contact" else 0
                evaluator.reading(Reading("s", i * 60 * NS, name, micro))
        known |= set(evaluator.values(minutes[-1] * 60 * NS))
    assert set(QUANTITIES[hazard]) - {"scale", "value"} <= known
