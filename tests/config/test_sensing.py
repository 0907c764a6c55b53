"""What the sensors measure is compared with their channels' codes and with what plans judge."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import check, shipped
from gateway.config.plans import SHIPPED
from gateway.config.sensing import Sensing, misnamed
from gateway.core.compiled import Channel, Port, Sensor
from gateway.detect.settings import Sensitivity, Unit
from gateway.events import Hazard
from gateway.plan.files import read_plan
from tests.config.conftest import GOOD

Faults = Callable[[str], list[str]]

PLANS = {path.stem: path.read_text() for path in (SHIPPED / "plans").glob("*.toml")}


@pytest.mark.parametrize(
    ("code", "unit", "fits"),
    [
        ("HHZ", "m/s", True),
        ("HHZ", "m/s**2", False),
        ("EHZ", "m/s**2", False),
        ("GPZ", "m/s", True),
        ("GPZ", "m/s**2", False),
        ("HNZ", "m/s**2", True),
        ("HNZ", "m/s", False),
        ("HLZ", "m/s", True),
        ("HLZ", "m/s**2", True),
        ("HGZ", "m/s**2", True),
        ("BDF", "m/s", True),
        ("", "m/s", True),
    ],
)
def test_the_second_letter_of_a_code_names_the_instrument(
    code: str, unit: Unit, *, fits: bool
) -> None:
    assert (misnamed(code, unit) == "") is fits


def profile(known: str = "") -> str:
    head = '[profile]\nname = "ours"\ntitle = "t"\nkind = "seismic"\nsource = "s"\n'
    channels = "".join(f'[[channel]]\ncode = "{code}"\n{known}' for code in ("HHZ", "HHN", "HNE"))
    return f'{head}driver = "rpi_seism"\n[port]\n{channels}'


def station(sensitivity: str, profile: str = "rpi-seism") -> str:
    own = f'"/dev/seis1"\nsensitivity = {sensitivity}' if sensitivity else '"/dev/seis1"'
    return GOOD.replace('"rpi-seism"', f'"{profile}"').replace('"/dev/seis1"', own)


def test_a_unit_that_the_code_does_not_name_is_a_warning_where_it_stands(
    faults: Faults, tmp_path: Path
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/ours.toml").write_text(profile())
    said = "counts per m/s on HNE, whose N says acceleration; expected counts per m/s**2, or a"
    said += " profile with HHE for a sensor of velocity"
    by_code = '{ HHZ = "6e8:m/s", HHN = "6e8:m/s", HNE = "6e8:m/s" }'
    assert faults(station(by_code, "ours")) == [
        f"gateway.toml:11: warning: sensor[0].sensitivity.HNE: {said}"
    ]
    assert faults(station('"6e8:m/s"', "ours")) == [
        f"gateway.toml:11: warning: sensor[0].sensitivity: {said}"
    ]
    (tmp_path / "profiles/ours.toml").write_text(profile('sensitivity = "6e8:m/s"\n'))
    assert faults(station("", "ours")) == [
        f"profiles/ours.toml:16: warning: channel[2].sensitivity: {said}"
    ]


def seismometer(
    known: str, rate_hz: float = 100.0, unit: Unit = "m/s", name: str = "seis1"
) -> Sensor:
    """One with a sensitivity on the components of these orientations."""
    sensitivity = Sensitivity(1e8, unit)
    channels = (Channel(f"XX.A..EH{o}", sensitivity if o in known else None) for o in "ZNE")
    return Sensor(name, Port("/dev/x"), "", "seismic", channels=tuple(channels), rate_hz=rate_hz)


WIND = PLANS["typhoon"].replace('"scale >= blue"', '"gust_mps_max_10min >= 14"')
MEAN = PLANS["typhoon"].replace('"scale >= blue"', '"wind_mps_mean_2min >= 11"')
RAIN = PLANS["flood"].replace('"scale >= blue"', '"rain_1h_mm >= 30"')
INDEX = PLANS["air_pollution"].replace('"scale >= yellow"', '"iaqi_24h >= 200"')
FORETOLD = "no vertical channel has a sensitivity"


@pytest.mark.parametrize(
    ("plan", "sensors", "gauged", "missing"),
    [
        pytest.param("earthquake", [seismometer("ZNE")], [], [], id="three components"),
        pytest.param("earthquake", [seismometer("ZN")], [], [], id="two components"),
        pytest.param(
            "earthquake",
            [seismometer("Z"), seismometer("Z", name="other")],
            [],
            [],
            id="two sensors of one component",
        ),
        pytest.param("earthquake", [seismometer("NE")], [], [FORETOLD] * 2, id="no vertical"),
        pytest.param("earthquake", [], ["contact"], "no sensor is a seismometer", id="none"),
        pytest.param(
            "earthquake", [seismometer("")], [], "no channel has a sensitivity", id="counts alone"
        ),
        pytest.param(
            "earthquake",
            [seismometer("Z")],
            [],
            "XX.A..EHZ alone has a sensitivity, and shaking counts on two components only",
            id="one component",
        ),
        pytest.param(
            "earthquake",
            [seismometer("ZNE", 5.0)],
            [],
            "no seismometer samples at 10 Hz or more",
            id="too slow",
        ),
        pytest.param("typhoon", [], ["wind_mps"], [], id="wind by its scale"),
        pytest.param(
            "typhoon",
            [],
            ["contact"],
            "no sensor gives gust_mps or wind_mps, which a scale for typhoon reads",
            id="no wind",
        ),
        pytest.param(WIND, [], ["wind_mps"], [], id="gusts are made of wind"),
        pytest.param(MEAN, [], ["gust_mps"], ["no sensor gives wind_mps"], id="but not the mean"),
        pytest.param("rainstorm", [], ["rain_total_mm"], [], id="rain by whatever a gauge gives"),
        pytest.param(RAIN, [], ["water_level_m", "rain_mmph"], [], id="rain for a flood"),
        pytest.param(
            RAIN, [], ["water_level_m"], ["no sensor gives rain_mm"], id="no rain for a flood"
        ),
        pytest.param("fire", [], ["contact"], [], id="a contact"),
        pytest.param(INDEX, [], ["pm25_ugm3"], [], id="an index of particles"),
    ],
)
def test_what_no_sensor_measures_is_missed(
    plan: str, sensors: list[Sensor], gauged: list[str], missing: str | list[str]
) -> None:
    """A text is the reason why the whole plan can never alert; a list, those of its clauses."""
    made = read_plan(tomllib.loads(PLANS.get(plan, plan)), "plan.toml")
    sensing = Sensing(sensors, gauged, shipped.scales())
    if isinstance(missing, str):
        assert sensing.disabled(made) == missing
    else:
        found = [sensing.missing(made.hazard, c) for rule in made.levels for c in rule.when]
        assert [why for why in found if why] == missing
        assert sensing.disabled(made) == ""


def test_a_plan_of_the_station_is_warned_of_where_it_stands(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans/ours.toml").write_text(PLANS["earthquake"])
    line = PLANS["earthquake"].splitlines().index('hazard = "earthquake"') + 1
    never = "this plan never alerts here: no channel has a sensitivity"
    assert faults(GOOD) == [f"plans/ours.toml:{line}: warning: plan.hazard: earthquake; {never}"]
    found = faults(station('{ EHN = "8.1e7:m/s", EHE = "8.1e7:m/s" }'))
    red = "'predicted_intensity >= 7 and pd_cm >= 0.5 and tau_c_s >= 1'"
    assert [fault.partition(" warning: ")[2] for fault in found] == [
        f"level.red.when[1]: {red} never holds: {FORETOLD}",
        f"level.yellow.when[1]: 'predicted_intensity >= 5' never holds: {FORETOLD}",
    ]


def test_a_sensor_that_is_wrong_itself_is_not_missed_besides(
    faults: Faults, tmp_path: Path
) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans/ours.toml").write_text(PLANS["rainstorm"])
    (fault,) = faults(GOOD.replace('"hydreon-rg15"', '"hydreon-rg16"'))
    assert "no profile 'hydreon-rg16'" in fault


def test_of_the_shipped_plans_it_is_said_which_can_never_alert(config: Path) -> None:
    checked = check(config)
    assert checked.faults == ()
    assert checked.disabled == {
        Hazard.earthquake: "no channel has a sensitivity",
        Hazard.air_pollution: "no sensor gives pm25_ugm3, which a scale for air_pollution reads",
        Hazard.fire: "no sensor gives contact, which a scale for fire reads",
        Hazard.flood: "no sensor gives water_level_m, which a scale for flood reads",
        Hazard.typhoon: "no sensor gives gust_mps or wind_mps, which a scale for typhoon reads",
    }
