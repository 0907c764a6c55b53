"""Device profiles: those that are shipped are sound, and a wrong one is refused at its line."""

from pathlib import Path

import pytest

from gateway import drivers, siren
from gateway.config import profiles
from gateway.config.faults import ConfigError

SHIPPED = profiles.names([profiles.shipped()])

GAUGE = """\
[profile]
name = "gauge"
title = "A gauge"
kind = "scalar"
driver = "hydreon_rg15"
source = "its manual"

[port]
baud = 9600

[[channel]]
quantity = "rain_total_mm"
"""


def test_profiles_are_shipped() -> None:
    assert {"rpi-seism", "hydreon-rg15", "waveshare-modbus-relay", "virtual-siren"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_profile_names_a_driver_that_takes_its_options(name: str) -> None:
    profile, source = profiles.load(name)
    assert source.path == profiles.shipped() / f"{name}.toml"
    if profile.siren is not None:
        siren.load(profile.profile.driver)(profile.driver, {"main": profile.siren.unit})
    else:
        driver = drivers.load(profile.profile.driver)(profile.driver, name)
        assert driver.kind == profile.profile.kind


def _gauge(folder: Path, text: str = GAUGE) -> Path:
    (folder / "gauge.toml").write_text(text)
    return folder


def test_a_station_may_have_profiles_of_its_own(tmp_path: Path) -> None:
    profile, _ = profiles.load("gauge", [_gauge(tmp_path), profiles.shipped()])
    assert profile.profile.title == "A gauge"
    assert [channel.quantity for channel in profile.channel] == ["rain_total_mm"]


def test_its_own_take_the_place_of_shipped_ones(tmp_path: Path) -> None:
    text = GAUGE.replace('"gauge"', '"hydreon-rg15"')
    (tmp_path / "hydreon-rg15.toml").write_text(text)
    profile, _ = profiles.load("hydreon-rg15", [tmp_path, profiles.shipped()])
    assert profile.profile.title == "A gauge"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("baud = 9600", "baud = 9", ":9: port.baud: 9; expected a whole number from 50 to 4000000"),
        (
            "baud = 9600",
            'parity = "X"',
            ":9: port.parity: 'X'; expected one of N, E, O",
        ),
        ("baud = 9600", "boud = 9600", ":9: port.boud: unknown key; did you mean 'baud'?"),
        (
            '"rain_total_mm"',
            '"rain_inch"',
            ":12: channel[0].quantity: 'rain_inch'; expected one of rain_mm, rain_total_mm",
        ),
        ('source = "its manual"\n', "", ":1: profile.source: missing; expected text"),
        ('name = "gauge"', 'name = "other"', ":2: profile.name: 'other'; expected 'gauge'"),
        ('"scalar"', '"siren"', "kind is 'siren'; expected a table [siren]"),
        ('"scalar"', '"seismic"', "channel[0] of a seismic profile; expected code"),
        (
            "[[channel]]",
            '[recognise]\nusb = ["1A86"]\n[[channel]]',
            ":12: recognise.usb[0]: '1A86'",
        ),
        (
            "quantity",
            'quantity = "rain_total_mm"\n[[channel]]\nquantity',
            "two channels rain_total",
        ),
        ('"rain_total_mm"', '"rain_mm"\nwrap_mm = 25.4', "expected it of rain_total_mm alone"),
        ('"rain_total_mm"', '"rain_total_mm"\nwrap_mm = 0', "expected a number above 0"),
    ],
)
def test_a_wrong_profile_is_refused_at_its_line(
    tmp_path: Path, old: str, new: str, fault: str
) -> None:
    assert old in GAUGE
    with pytest.raises(ConfigError) as caught:
        profiles.load("gauge", [_gauge(tmp_path, GAUGE.replace(old, new, 1))])
    assert fault in str(caught.value)


def test_an_unknown_profile_names_those_that_are_near() -> None:
    with pytest.raises(ConfigError, match="did you mean 'rpi-seism'"):
        profiles.load("rpi-sism")
