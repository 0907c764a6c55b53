"""Scale files: those that come with the gateway, and what is said of wrong ones."""

import json
import tomllib
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway.core.compiled import decode
from gateway.detect.level import index_of
from gateway.detect.scale import Measure, Scale
from gateway.detect.scale_files import SHIPPED, ScaleError, read_scale
from gateway.events import Hazard, Level

SHIPPED_FILES = sorted(SHIPPED.glob("*.toml"))


def shipped(name: str) -> Scale:
    return read_scale(tomllib.loads((SHIPPED / f"{name}.toml").read_text("utf-8")), name)


def rain_file(**head: Any) -> dict[str, Any]:
    """A correct scale file as ``tomllib`` gives it."""
    return {
        "scale": {
            "name": "r",
            "hazard": "rainstorm",
            "unit": "mm",
            "source": "a test",
            "published": date(2026, 1, 1),
            **head,
        },
        "level": {
            "red": {
                "any": [
                    {"measure": "sum", "quantity": "rain_mm", "window_h": 3, "at_least": 100},
                ]
            }
        },
    }


def thresholds(scale: Scale) -> dict[str, list[tuple[str, int, float]]]:
    return {
        step.level.name: [(c.measure, c.window_s, c.at_least_micro / 1e6) for c in step.conditions]
        for step in scale.steps
    }


@pytest.mark.parametrize("path", SHIPPED_FILES, ids=lambda path: path.stem)
def test_every_shipped_scale_is_sound_dated_and_sourced(path: Path) -> None:
    scale = shipped(path.stem)
    assert scale.name == path.stem
    assert scale.source
    assert date.fromisoformat(scale.published) <= date(2026, 12, 31)
    assert scale.title_zh
    assert scale.title_en


@pytest.mark.parametrize("path", SHIPPED_FILES, ids=lambda path: path.stem)
def test_a_scale_survives_the_compiled_configuration(path: Path) -> None:
    scale = shipped(path.stem)
    assert decode(Scale, json.loads(json.dumps(asdict(scale)))) == scale


def test_the_national_rainstorm_scale() -> None:
    scale = shipped("rainstorm-national")
    assert scale.hazard is Hazard.rainstorm
    assert thresholds(scale) == {
        "blue": [("sum", 12 * 3600, 50)],
        "yellow": [("sum", 6 * 3600, 50)],
        "orange": [("sum", 3 * 3600, 50)],
        "red": [("sum", 3 * 3600, 100)],
    }
    assert scale.continuing_s == 1800
    assert scale.hold_s == 3600
    assert [s.conditions[0].below_micro for s in scale.steps] == [45_000_000] * 3 + [90_000_000]


@pytest.mark.parametrize(
    ("name", "means", "gusts"),
    [
        ("gale", [10.8, 17.2, 24.5, 32.7], [13.9, 20.8, 28.5, 37.0]),
        ("typhoon", [10.8, 17.2, 24.5, 32.7], [17.2, 24.5, 32.7, 41.5]),
    ],
)
def test_the_wind_scales(name: str, means: list[float], gusts: list[float]) -> None:
    scale = shipped(name)
    assert [step.level for step in scale.steps] == list(Level)[1:]
    assert [step.conditions[0].at_least_micro / 1e6 for step in scale.steps] == means
    assert [step.conditions[1].at_least_micro / 1e6 for step in scale.steps] == gusts
    assert {c.measure for c in scale.conditions} == {Measure.mean, Measure.max}


def test_the_typhoon_scale_alone_needs_a_warning_in_force() -> None:
    needs = {path.stem: shipped(path.stem).needs_warning for path in SHIPPED_FILES}
    assert {name for name, hazard in needs.items() if hazard} == {"typhoon"}


@pytest.mark.parametrize(
    ("ugm3", "iaqi"),
    [
        (0, 0),
        (1, 2),
        (35, 50),
        (35.5, 52),
        (36, 52),
        (60, 100),
        (60.5, 100),
        (61.5, 102),
        (115, 150),
        (116, 152),
        (150, 200),
        (151, 201),
        (250, 300),
        (350, 400),
        (500, 500),
        (900, 500),
    ],
)
def test_pm25_index(ugm3: float, iaqi: int) -> None:
    assert index_of(shipped("pm25").index, round(ugm3 * 1e6)) == iaqi


def test_a_threshold_is_its_decimal_text_exactly() -> None:
    data = rain_file()
    data["level"]["red"]["any"][0]["at_least"] = 0.1
    condition = read_scale(data).conditions[0]
    assert (condition.at_least_micro, condition.below_micro) == (100_000, 90_000)


def test_a_margin_takes_the_place_of_the_fraction() -> None:
    data = rain_file() | {"end": {"margin": 0.25, "hold_s": 90}}
    scale = read_scale(data)
    assert scale.conditions[0].below_micro == 99_750_000
    assert scale.hold_s == 90


def condition(**changes: Any) -> dict[str, Any]:
    row = {"measure": "sum", "quantity": "rain_mm", "window_h": 3, "at_least": 100}
    row.update(changes)
    return {"level": {"red": {"any": [{k: v for k, v in row.items() if v is not None}]}}}


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    (rain_file(hazard="rain"), "scale.hazard", "rainstorm"),
    (rain_file(source=""), "scale.source", "text"),
    (rain_file(published="2007"), "scale.published", "2007-06-12"),
    (rain_file(hazrad="x"), "scale.hazrad", "did you mean 'hazard'"),
    (rain_file(index=[[0, 0], [5, 0]]), "scale.index", "rising"),
    (rain_file(index=7), "scale.index", "pairs"),
    (rain_file(lowest=3, highest=2), "scale.lowest", "less than highest"),
    (rain_file(despike=1), "scale.despike", "true or false"),
    (rain_file(needs_warning="storm"), "scale.needs_warning", "one of"),
    (rain_file() | {"level": {}}, "level", "no level"),
    (rain_file() | {"level": 3}, "level", "expected a table"),
    (rain_file() | {"level": {"pink": {}}}, "level.pink", "blue, yellow, orange, red"),
    (rain_file() | {"level": {"red": {"any": []}}}, "level.red.any", "at least one"),
    (rain_file() | {"level": {"red": {}}}, "level.red.any", "missing"),
    (rain_file() | condition(measure="summ"), "level.red.any[0].measure", "did you mean 'sum'"),
    (rain_file() | condition(measure="mean"), "level.red.any[0].measure", "rain is summed"),
    (rain_file() | condition(window_h=None), "level.red.any[0].window_h", "missing"),
    (rain_file() | condition(window_h=0), "level.red.any[0].window_s", "expected more"),
    (rain_file() | condition(window_h=-1), "level.red.any[0].window_h", "none negative"),
    (rain_file() | condition(window_s=9), "level.red.any[0].window_s", "one of them is enough"),
    (rain_file() | condition(at_least=True), "level.red.any[0].at_least", "threshold"),
    (rain_file() | condition(at_least=float("nan")), "level.red.any[0].at_least", "threshold"),
    (rain_file() | condition(at_least=1e-7), "level.red.any[0].at_least", "millionth"),
    (rain_file() | condition(at_least=-1), "level.red.any[0].at_least", "margin"),
    (rain_file() | {"end": {"fraction": 0.9, "margin": 1}}, "end.margin", "one of them"),
    (rain_file() | {"end": {"fraction": 1.5}}, "end.fraction", "at most 1"),
    (rain_file() | {"end": {"hold_min": -1}}, "end.hold_min", "none negative"),
    ({"level": condition()["level"]}, "scale", "missing"),
    (rain_file(unit="inch"), "scale.unit", "'inch'; expected 'mm', which rain_mm comes in"),
    (
        rain_file() | condition(quantity="wind_mps", measure="mean"),
        "scale.unit",
        "'mm'; expected 'm/s', which wind_mps comes in",
    ),
]


@pytest.mark.parametrize(("data", "key", "text"), FAULTS, ids=[f"{k} {t}" for _, k, t in FAULTS])
def test_a_fault_is_named_with_its_key_and_what_would_be_right(
    data: dict[str, Any], key: str, text: str
) -> None:
    with pytest.raises(ScaleError) as caught:
        read_scale(data, "x.toml")
    messages = [message for fault, message in caught.value.faults if fault == key]
    assert any(text in message for message in messages), str(caught.value)
    assert "x.toml" in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    data = rain_file(hazard="rain", unit=3) | condition(at_least="x") | {"end": {"hold_s": 0.5}}
    with pytest.raises(ScaleError) as caught:
        read_scale(data)
    assert {key for key, _ in caught.value.faults} == {
        "scale.hazard",
        "scale.unit",
        "level.red.any[0].at_least",
        "end.hold_s",
    }


def test_rain_and_other_quantities_do_not_share_a_scale() -> None:
    data = rain_file()
    data["level"]["red"]["any"].append(
        {"measure": "value", "quantity": "water_level_m", "at_least": 3}
    )
    with pytest.raises(ScaleError, match="a file for each"):
        read_scale(data)
