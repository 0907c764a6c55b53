"""The intensity is that of GB/T 17742-2020, to its decimal."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.detect import intensity

# Degree, and the acceleration (m/s²) and velocity (m/s) that the standard's table gives for it.
TABLE = [
    (1, 1.80e-2, 1.21e-3),
    (2, 3.69e-2, 2.59e-3),
    (3, 7.57e-2, 5.58e-3),
    (4, 1.55e-1, 1.20e-2),
    (5, 3.19e-1, 2.59e-2),
    (6, 6.53e-1, 5.57e-2),
    (7, 1.35e0, 1.20e-1),
    (8, 2.79e0, 2.58e-1),
    (9, 5.77e0, 5.55e-1),
    (10, 1.19e1, 1.19e0),
    (11, 2.47e1, 2.57e0),
]

positive = st.floats(1e-9, 1e3)


@pytest.mark.parametrize(("degree", "pga", "pgv"), TABLE)
def test_the_standards_own_table_comes_back(degree: int, pga: float, pgv: float) -> None:
    assert intensity.instrumental_intensity(pga, pgv) == pytest.approx(degree, abs=0.1)


@pytest.mark.parametrize(
    ("pga", "pgv", "expected", "rule"),
    [
        (1.35, 0.5, 8.9, "both at least 6: velocity alone"),
        (0.5, 0.5, 7.3, "acceleration below 6: the mean"),
        (1.35, 0.02, 5.8, "velocity below 6: the mean"),
        (0.0, 0.0, 1.0, "no motion"),
        (1e-6, 1e-7, 1.0, "never below 1"),
        (60.0, 20.0, 12.0, "never above 12"),
    ],
)
def test_the_two_intensities_are_joined_by_rule(
    pga: float, pgv: float, expected: float, rule: str
) -> None:
    assert intensity.instrumental_intensity(pga, pgv) == expected, rule


@given(positive, positive)
def test_intensity_has_one_decimal_within_the_scale(pga: float, pgv: float) -> None:
    value = intensity.instrumental_intensity(pga, pgv)
    assert 1.0 <= value <= 12.0
    assert value == round(value, 1)


def test_pd_of_half_a_centimetre_foretells_destructive_shaking() -> None:
    # lg PGV = 0.920 lg 0.5 + 1.642: 23.2 cm/s
    assert intensity.foretold_velocity(0.005) == pytest.approx(0.232, rel=2e-3)
    assert intensity.foretold_intensity(0.005) == 7.9


def test_no_displacement_foretells_no_shaking() -> None:
    assert intensity.foretold_velocity(0.0) == 0.0
    assert intensity.foretold_intensity(0.0) == 1.0


def test_felt_shaking_begins_between_degrees_one_and_two() -> None:
    assert intensity.from_acceleration(intensity.FELT_PGA_MPS2) == pytest.approx(1.5)
    assert math.isclose(intensity.FELT_PGA_MPS2, 0.0248, rel_tol=1e-2)


@pytest.mark.parametrize(
    ("pgv_cmps", "mmi"),
    [
        (0.0, 1.0),
        (0.001, 1.0),
        (0.05, 1.8),  # 4.62 + 2.17 lg PGV
        (1.0, 3.8),  # 3.78 + 1.47 lg PGV
        (10.0, 6.1),  # 2.89 + 3.16 lg PGV
        (86.87, 9.0),
        (1000.0, 10.0),
    ],
)
def test_mmi_is_that_of_worden_and_others(pgv_cmps: float, mmi: float) -> None:
    assert intensity.modified_mercalli(pgv_cmps / 100) == mmi


@given(positive, positive)
def test_a_stronger_motion_has_no_lower_mmi(one: float, other: float) -> None:
    assert intensity.modified_mercalli(min(one, other)) <= intensity.modified_mercalli(
        max(one, other)
    )
