"""A wrong configuration is refused with the file, the line, the key, and what would be right."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import ConfigError, check, compile_config
from tests.config.conftest import GOOD

Faults = Callable[[str], list[str]]

KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_a_sound_configuration_has_no_faults(faults: Faults) -> None:
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        pytest.param(
            "latitude = 31.0",
            "latitude = 91.0",
            "4: station.latitude: 91.0; expected a number from -90 to 90 (°)",
            id="out of range",
        ),
        pytest.param(
            "latitude = 31.0",
            'latitude = "31"',
            "4: station.latitude: '31'; expected a number from -90 to 90 (°)",
            id="text in place of a number",
        ),
        pytest.param(
            "latitude = 31.0",
            "latitude = nan",
            "4: station.latitude: nan; expected a number from -90 to 90 (°)",
            id="not a number",
        ),
        pytest.param(
            "latitude = 31.0\n",
            "",
            "1: station.latitude: missing; expected a number from -90 to 90 (°)",
            id="a missing key is put at its table",
        ),
        pytest.param(
            'city = "demo"',
            'city = "demo"\nnetwork = "xx"',
            "4: station.network: 'xx'; expected 1 or 2 capitals or digits, as FDSN codes are",
            id="form of a network code",
        ),
        pytest.param(
            'id = "cn-demo-001"',
            'id = "cn/demo/+"',
            "2: station.id: 'cn/demo/+'; expected a name of letters, digits and _ . - (64 at most)",
            id="a name that would break a topic",
        ),
        pytest.param(
            'port = "/dev/seis1"',
            'prot = "/dev/seis1"',
            "10: sensor[0].prot: unknown key; did you mean 'port'?",
            id="misspelt key",
        ),
        pytest.param(
            'profile = "rpi-seism"',
            'profile = "rpi-seis"',
            "9: sensor[0].profile: no profile 'rpi-seis'; did you mean 'rpi-seism'?",
            id="unknown profile",
        ),
        pytest.param(
            'profile = "rpi-seism"',
            'profile = "waveshare-modbus-relay"',
            "9: sensor[0].profile: 'waveshare-modbus-relay' is a siren profile; expected",
            id="a siren is no sensor",
        ),
        pytest.param(
            'name = "rain1"',
            'name = "seis1"',
            "13: sensor[1].name: 'seis1' is also the name of sensor[0]",
            id="a name twice",
        ),
        pytest.param(
            'port = "/dev/rain1"',
            'port = "/dev/seis1"',
            "15: sensor[1].port: is also the port of sensor[0]; expected one of its own",
            id="two sensors on a port",
        ),
        pytest.param(
            'port = "/dev/relay"',
            'port = "/dev/rain1"',
            "20: siren[0].port: is also the port of sensor[1]; expected one of its own",
            id="a siren on a sensor's port",
        ),
        pytest.param(
            'port = "/dev/seis1"',
            'port = "socket://10.0.0.5:4000"',
            "10: sensor[0].port: 'socket://10.0.0.5:4000' is on a network",
            id="a port on a network",
        ),
        pytest.param(
            'port = "/dev/seis1"',
            'port = "/dev/seis1"\nsensitivity = "4.26e5 m/s"',
            "11: sensor[0].sensitivity: sensitivity '4.26e5 m/s': expected counts per unit",
            id="form of a sensitivity",
        ),
        pytest.param(
            'port = "/dev/seis1"',
            'port = "/dev/seis1"\nsensitivity = { EHX = "6e8:m/s" }',
            "11: sensor[0].sensitivity.EHX: no such channel; did you mean 'EHZ'",
            id="sensitivity of a channel that there is not",
        ),
        pytest.param(
            'port = "/dev/rain1"',
            'port = "/dev/rain1"\nsensitivity = "6e8:m/s"',
            "16: sensor[1].sensitivity: 'hydreon-rg15' is no seismometer; expected no such key",
            id="sensitivity of a rain gauge",
        ),
        pytest.param(
            'port = "/dev/seis1"',
            'port = "/dev/seis1"\noptions = { rate_hz = 1000 }',
            "11: sensor[0].options.rate_hz: saw 1000; allowed is 1 to 366 Hz",
            id="an option that the driver refuses",
        ),
        pytest.param(
            "relay = 1",
            "relay = 99",
            "22: siren[0].relay: ",
            id="a key that the siren's driver refuses",
        ),
        pytest.param(
            "relay = 1",
            "realy = 1",
            "22: siren[0].realy: unknown key; did you mean 'relay'?",
            id="a misspelt key of a siren's own",
        ),
        pytest.param(
            'port = "/dev/relay"\n',
            "",
            "17: siren[0].port: missing; expected the device that switches it",
            id="a siren without its port",
        ),
        pytest.param(
            'profile = "waveshare-modbus-relay"',
            'profile = "virtual-siren"',
            "20: siren[0].port: 'virtual-siren' is no device on a port; expected no such key",
            id="a port that the siren has not",
        ),
        pytest.param(
            "relay = 1",
            "relay = 1\nmax_on_s = 10",
            "siren: 'disaster' lasts",
            id="a pattern longer than the siren may sound",
        ),
        pytest.param(
            "[[siren]]",
            "[siren]",
            "17: siren: is one table; expected a list of them, each headed [[siren]]",
            id="a single table where a list belongs",
        ),
        pytest.param(
            "[[siren]]",
            "[detect.seismic]\nband_hz = [1.0, 50.0]\n[[siren]]",
            "18: detect.seismic.band_hz: upper corner 50 Hz; expected at most 45 Hz",
            id="a corner too high for the rate",
        ),
        pytest.param(
            "[[siren]]",
            "[detect.seismic]\nband_hz = [10.0, 1.0]\n[[siren]]",
            "18: detect.seismic.band_hz: [10.0, 1.0]; expected 0 < lower corner < upper",
            id="corners in the wrong order",
        ),
        pytest.param(
            "[[siren]]",
            "[detect.seismic]\ntrigger_off = 9\n[[siren]]",
            "18: detect.seismic.trigger_off: 9; expected less than trigger_on, 8",
            id="a trigger that ends before it begins",
        ),
        pytest.param(
            "[[siren]]",
            "[detect.seismic]\nsta_s = 5\nlta_s = 5\n[[siren]]",
            "18: detect.seismic.sta_s: 5; expected less than lta_s, 5",
            id="a short average that is not shorter",
        ),
        pytest.param(
            "[[siren]]",
            '[uplink.mqtt]\nurl = "http://hub"\n[[siren]]',
            "18: uplink.mqtt.url: 'http://hub'; expected mqtts://host:port or mqtt://host:port",
            id="an address of another kind",
        ),
        pytest.param(
            "[[siren]]",
            '[uplink.mqtt]\nurl = "mqtts://me:secret@hub"\n[[siren]]',
            "18: uplink.mqtt.url: holds a password; expected the address alone",
            id="a password in an address",
        ),
        pytest.param(
            "[[siren]]",
            '[uplink.mqtt]\nurl = "mqtts://hub"\npassword = "secret"\n[[siren]]',
            "19: uplink.mqtt.password: unknown key that looks like a secret",
            id="a secret in the file",
        ),
        pytest.param(
            "[[siren]]",
            '[uplink.mqtt]\nurl = "mqtts://hub"\nkey_file = "/dev/null"\n[[siren]]',
            "19: uplink.mqtt.key_file: given without certificate_file; expected both",
            id="a private key without its certificate",
        ),
        pytest.param(
            "[[siren]]",
            '[commands.keys]\nhub = "d75a98"\n[[siren]]',
            "18: commands.keys.hub: 'd75a98'; expected 64 hexadecimal digits",
            id="a public key that is none",
        ),
        pytest.param(
            "[[siren]]",
            '[scales]\nrainstorm = ["rainstorm-shanghia"]\n[[siren]]',
            "18: scales.rainstorm[0]: no scale 'rainstorm-shanghia'; did you mean",
            id="an unknown scale",
        ),
        pytest.param(
            "[[siren]]",
            '[scales]\nrainstorm = [\n  "rainstorm-national",\n  "gale",\n]\n[[siren]]',
            "20: scales.rainstorm[1]: scale 'gale' is for typhoon, not rainstorm",
            id="a scale of another hazard",
        ),
    ],
)
def test_each_mistake_is_named_with_its_line(
    faults: Faults, old: str, new: str, fault: str
) -> None:
    assert old in GOOD
    assert any(fault in line for line in faults(GOOD.replace(old, new, 1)))


def test_every_mistake_is_reported_at_once(faults: Faults) -> None:
    text = (
        GOOD.replace("31.0", "91.0")
        .replace('"rpi-seism"', '"rpi-seis"')
        .replace("/dev/relay", "/dev/rain1")
        .replace("relay = 1", "relay = 99")
    )
    found = faults(text + '[commands.keys]\nhub = "nothing"\n')
    assert [line.split(": ")[1] for line in found] == [
        "station.latitude",
        "sensor[0].profile",
        "siren[0].relay",
        "commands.keys.hub",
    ]


def test_a_key_that_is_wrong_does_not_hide_its_neighbours(faults: Faults) -> None:
    table = "[detect.seismic]\nsta_s = -1\nband_hz = [1, 50]\n"
    assert [line.split(": ")[1] for line in faults(GOOD + table)] == [
        "detect.seismic.sta_s",
        "detect.seismic.band_hz",
    ]


def test_a_file_that_is_not_toml_is_shown_where_it_breaks(faults: Faults) -> None:
    (fault,) = faults(GOOD.replace('"/dev/relay"', "/dev/relay"))
    assert fault.startswith("gateway.toml:20: column 8: ")
    assert "`port = /dev/relay`" in fault


def test_one_device_under_two_paths_is_one_port(faults: Faults, tmp_path: Path) -> None:
    device, link = tmp_path / "ttyUSB0", tmp_path / "by-id"
    device.touch()
    link.symlink_to(device)
    text = GOOD.replace("/dev/seis1", str(device)).replace("/dev/rain1", str(link))
    assert len(faults(text)) == 1


def test_two_seismometers_need_locations_of_their_own(faults: Faults) -> None:
    second = GOOD.replace('"hydreon-rg15"', '"rpi-seism"')
    (fault,) = faults(second)
    assert fault.startswith("gateway.toml:12: sensor[1].location: XX.STA..EHZ is also a channel")
    assert faults(second.replace('"/dev/rain1"', '"/dev/rain1"\nlocation = "10"')) == []


def test_the_unit_of_a_sensitivity_is_what_the_device_measures(
    faults: Faults, tmp_path: Path
) -> None:
    (tmp_path / "profiles").mkdir()
    profile = '[profile]\nname = "geophone"\ntitle = "t"\nkind = "seismic"\nsource = "s"\n'
    channels = "".join(
        f'[[channel]]\ncode = "{code}"\nsensitivity = "1e8:m/s"\n' for code in ("EHZ", "EHN", "EHE")
    )
    (tmp_path / "profiles" / "geophone.toml").write_text(
        f'{profile}driver = "rpi_seism"\n[port]\n{channels}'
    )
    text = GOOD.replace('"rpi-seism"', '"geophone"')
    own = 'port = "/dev/seis1"\nsensitivity = "4.2e5:m/s**2"'
    assert faults(text) == []
    (fault,) = faults(text.replace('port = "/dev/seis1"', own))
    assert fault.startswith(
        "gateway.toml:11: sensor[0].sensitivity: counts per m/s**2; expected counts per m/s, "
    )


SECOND = '\n[[siren]]\nname = "second"\nprofile = "waveshare-modbus-relay"\nport = "/dev/relay"\n'


def test_sirens_share_a_port_if_their_keys_tell_them_apart(faults: Faults) -> None:
    assert faults(GOOD + SECOND + "relay = 2\n") == []
    assert faults(GOOD + SECOND) == [
        "gateway.toml:24: siren[1]: address 1, relay 1 is also that of siren[0]; expected another"
    ]
    other = "relay = 2\noptions = { poll_s = 20.0 }\n"
    (fault,) = faults(GOOD + SECOND + other)
    assert fault.startswith("gateway.toml:27: siren[1].port: is also the port of siren[0]")


def test_files_of_the_uplink_may_come_later(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    (tmp_path / "password").chmod(0o644)
    table = '[uplink.mqtt]\nurl = "mqtt://hub"\nca_file = "ca.pem"\npassword_file = "password"\n'
    found = faults(GOOD + table)
    assert [line.split(": ")[1:3] for line in found] == [
        ["warning", "uplink.mqtt.url"],
        ["warning", "uplink.mqtt.ca_file"],
        ["warning", "uplink.mqtt.password_file"],
    ]
    (tmp_path / "password").chmod(0o600)
    assert len(faults(GOOD + table)) == 2


def test_a_public_key_may_stand_in_a_file(config: Path, tmp_path: Path) -> None:
    (tmp_path / "hub.pub").write_text(f"{KEY.upper()}\n")
    config.write_text(f'{GOOD}[commands.keys]\nhub = "hub.pub"\nspare = "{KEY}"\n')
    assert compile_config(config).keys == {"hub": KEY, "spare": KEY}


def test_a_plan_past_its_revision_is_a_warning_and_holds(config: Path) -> None:
    checked = check(config, today=date(2199, 1, 1))
    assert checked.compiled is not None
    assert checked.errors == []
    assert all("is past; expected a revised plan" in str(fault) for fault in checked.warnings)
    assert len(checked.warnings) == len(checked.compiled.plans)


def test_what_can_not_be_compiled_raises_with_every_fault(config: Path) -> None:
    config.write_text(GOOD.replace("31.0", "91").replace("103.4", "200"))
    with pytest.raises(ConfigError) as caught:
        compile_config(config)
    assert len(caught.value.faults) == 2
    assert str(caught.value).count("\n") == 1


def test_a_vote_needs_as_many_seismometers(faults: Faults) -> None:
    two = GOOD.replace('"hydreon-rg15"', '"rpi-seism"\nlocation = "10"')
    assert faults("[site]\nvotes = 2\n" + two) == []
    assert faults("[site]\nvotes = 3\n" + GOOD) == []
    assert faults("[site]\nvotes = 3\n" + two) == [
        "gateway.toml:2: site.votes: 3; expected at most 2, the seismometers that there are"
    ]


@pytest.mark.parametrize("value", ["nan", "1979-05-27", "[1979-05-27]"])
def test_an_option_that_the_compiled_file_can_not_hold_is_refused(
    faults: Faults, value: str
) -> None:
    option = f'port = "/dev/seis1"\noptions = {{ rate_hz = {value} }}'
    (fault,) = faults(GOOD.replace('port = "/dev/seis1"', option))
    assert fault.startswith("gateway.toml:11: sensor[0].options: expected text, finite numbers")
    (fault,) = faults(GOOD.replace("relay = 1", f"relay = {value}"))
    assert fault.startswith("gateway.toml:17: siren[0]: expected text, finite numbers")


ODD = ["''", "'x'", "-1", "1e400", "nan", "true", "[]", "[1]", "{}", "{a = 1}", "1979-05-27"]
LINES = [i for i, line in enumerate(GOOD.splitlines()) if "=" in line]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(st.sampled_from(LINES), st.sampled_from(ODD), min_size=1))
def test_no_value_whatever_stops_the_check(faults: Faults, changes: dict[int, str]) -> None:
    lines = GOOD.splitlines()
    for index, value in changes.items():
        lines[index] = f"{lines[index].partition('=')[0]}= {value}"
    for fault in faults("\n".join(lines)):
        assert "\n" not in fault
        assert fault.startswith("gateway.toml:")


# --- sensors that share a port ------------------------------------------------------------------

BUS = """\
[station]
id = "cn-demo-001"
name = "x"
city = "demo"
latitude = 31.0
longitude = 103.4

[[sensor]]
name = "fire"
profile = "modbus-contact"
port = "/dev/bus"

[[sensor]]
name = "rain"
profile = "sonbus-xm9505"
port = "/dev/bus"
options = { address = 2 }
"""


def test_modbus_sensors_with_an_address_each_share_a_port(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(BUS)
    compiled = check(path).compiled
    assert compiled is not None
    assert [sensor.port.path for sensor in compiled.sensors] == ["/dev/bus", "/dev/bus"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        pytest.param(
            'profile = "sonbus-xm9505"',
            'profile = "dfrobot-sen0676"',
            "16: sensor[1].port: is also the port of sensor[0], which has 9600 baud 8N1",
            id="another speed",
        ),
        pytest.param(
            'profile = "sonbus-xm9505"\nport = "/dev/bus"\noptions = { address = 2 }',
            'profile = "hydreon-rg15"\nport = "/dev/bus"',
            "16: sensor[1].port: is also the port of sensor[0]; expected one of its own, for only",
            id="a device without an address",
        ),
        pytest.param(
            'profile = "sonbus-xm9505"\nport = "/dev/bus"\noptions = { address = 2 }',
            'profile = "modbus-contact"\nport = "/dev/bus"',
            "13: sensor[1]: asks unit 1 for the same as sensor[0]; expected another address",
            id="the same input",
        ),
    ],
)
def test_what_can_not_share_a_port_is_said(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in BUS
    path = tmp_path / "gateway.toml"
    path.write_text(BUS.replace(old, new))
    assert any(fault in str(each) for each in check(path).errors), check(path).errors


# --- bridged ports ------------------------------------------------------------------------------

BRIDGED = """\
[station]
id = "cn-demo-001"
name = "x"
city = "demo"
latitude = 31.0
longitude = 103.4

[[sensor]]
name = "rain"
profile = "dfrobot-sen0575"
port = "hill"

[[bridge]]
name = "hill"
url = "rfc2217://10.0.0.7:4001"
"""


def test_a_bridge_gets_the_line_of_the_device_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(BRIDGED)
    compiled = check(path, run=tmp_path).compiled
    assert compiled is not None
    (bridge,) = compiled.bridges
    assert (bridge.name, bridge.port.baud) == ("hill", 9600)
    assert compiled.sensors[0].port.path == str(tmp_path / "ports" / "hill")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('port = "hill"', 'port = "hil"', "11: sensor[0].port: 'hil': no device and no [[bridge]]"),
        (":4001", "", "15: bridge[0].url: 'rfc2217://10.0.0.7' names no port"),
        ("rfc2217", "tcp", "15: bridge[0].url: 'tcp://10.0.0.7:4001'; expected socket"),
        ("rfc2217://10.0.0.7", "udp://hill.example", "15: bridge[0].url: 'udp://hill.example"),
        (
            ':4001"',
            ':4001"\naccept = ["10.0.0.7"]',
            "16: bridge[0].accept: is of use for udp:// alone",
        ),
        (
            'rfc2217://10.0.0.7:4001"',
            'udp://0.0.0.0:4001"\naccept = ["hill"]',
            "16: bridge[0].accept[0]: 'hill'; expected an IP address",
        ),
        (
            '4001"',
            '4001"\n[[bridge]]\nname = "hill"\nurl = "socket://10.0.0.8:1"',
            "17: bridge[1].name: 'hill' is also the name of bridge[0]",
        ),
    ],
)
def test_a_wrong_bridge_is_refused_at_its_line(
    tmp_path: Path, old: str, new: str, fault: str
) -> None:
    assert old in BRIDGED
    path = tmp_path / "gateway.toml"
    path.write_text(BRIDGED.replace(old, new))
    found = [str(each) for each in check(path).errors]
    assert any(fault in each for each in found), found
