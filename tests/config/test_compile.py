"""What the core gets is what the configuration says, and the form is the documented one."""

from pathlib import Path

import pytest

from gateway.config import check, compile_config, reference
from gateway.config.models import Configuration, Seismic
from gateway.config.uplink import uplink_config
from gateway.core.compiled import Channel, Port, Site
from gateway.detect.settings import SeismicSettings, Sensitivity

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))

DOCUMENTED = """\
[station]
id = "cn-demo-001"
name = "示范站"
city = "demo"
network = "XX"          # FDSN codes
code = "DEMO"
latitude = 31.0
longitude = 103.4
elevation_m = 540.0

[[sensor]]
name = "seis1"
profile = "rpi-seism"               # names the driver
port = "/dev/serial/by-id/usb-…"    # a device, or the name of a bridged port
# sensitivity = "4.26e5:m/s**2"     # overrides the profile's, counts per unit

[[sensor]]
name = "rain1"
profile = "hydreon-rg15"
port = "/dev/ttyUSB1"

[detect.seismic]        # every key has a default that works
band_hz = [1.0, 10.0]   # upper corner at most 0.45 × rate
sta_s = 0.5
lta_s = 20.0            # mean of all samples so far until 20 s; armed after 4 s
trigger_on = 8.0        # ratio of energies
trigger_off = 1.5
min_duration_s = 0.2
lta_freeze_max_s = 20.0 # then the LTA follows again, so that a step cannot latch
candidate_band_hz = [5.0, 25.0]
candidate_on = 5.0      # STA/LTA 0.3/10 s; for coincidence only, never an onset by itself

[plans]
directory = "/etc/gateway/plans"

[[siren]]
name = "main"
profile = "waveshare-modbus-relay"
port = "/dev/ttyUSB2"
address = 1
relay = 1

[uplink.mqtt]
url = "mqtts://hub.example:8883"

[uplink.influx]
url = "http://127.0.0.1:8428"

[uplink.archive]
path = "/var/lib/gateway/archive"
quota_mb = 4096
"""


def test_the_documented_form_is_accepted_to_the_letter(config: Path) -> None:
    config.write_text(DOCUMENTED)
    checked = check(config)
    assert checked.errors == []
    assert checked.compiled is not None
    assert checked.configuration is not None
    assert checked.compiled.seismic == SeismicSettings()
    assert checked.compiled.station.name == "示范站"
    assert checked.configuration.uplink.archive is not None


def test_each_sensor_and_siren_is_compiled_with_its_profile(config: Path, tmp_path: Path) -> None:
    text = DOCUMENTED.replace("# sensitivity", "sensitivity").replace('"/dev/ttyUSB1"', '"rain"')
    config.write_text(text + '[[bridge]]\nname = "rain"\nurl = "socket://10.0.0.7:4000"\n')
    compiled = compile_config(config, run=tmp_path)
    seismometer, gauge = compiled.sensors
    assert seismometer.kind == "seismic"
    assert seismometer.driver == "gateway.drivers.rpi_seism:RpiSeism"
    assert seismometer.rate_hz == 100.0
    assert seismometer.port.baud == 250_000
    assert seismometer.channels == tuple(
        Channel(f"XX.DEMO..{code}", Sensitivity(4.26e5, "m/s**2")) for code in ("EHZ", "EHN", "EHE")
    )
    assert gauge.kind == "scalar"
    assert gauge.channels == ()
    assert gauge.port == Port(f"{tmp_path}/ports/rain")
    (siren,) = compiled.sirens
    assert siren.driver == "gateway.siren.modbus_relay:ModbusRelay"
    assert siren.unit == {"address": 1, "relay": 1}
    assert siren.port is not None
    assert siren.port.path == "/dev/ttyUSB2"


def test_tables_by_code_give_each_channel_its_own_sensitivity(config: Path) -> None:
    config.write_text((ROOT / "examples" / "dam.toml").read_text())
    compiled = compile_config(config)
    crest, toe, _ = compiled.sensors
    assert [c.sensitivity.counts_per_unit for c in crest.channels if c.sensitivity] == [
        8.1e7,
        8.0e7,
        8.2e7,
    ]
    assert toe.channels[0].id == "XX.DAM1.10.EHZ"
    assert toe.options["gain"] == 32
    assert compiled.site == Site(votes=2, window_s=2.0)
    assert compiled.groups == ("valley",)
    assert [siren.max_on_s for siren in compiled.sirens] == [300.0, 180.0]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_can_be_applied(path: Path) -> None:
    assert check(path).errors == []


def test_the_detector_and_the_file_have_the_same_keys_and_defaults() -> None:
    assert SeismicSettings(**Seismic().model_dump()) == SeismicSettings()


def test_the_reference_page_is_in_step_with_the_models() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert reference.update(page) == page, (
        "run: python -m gateway.config.reference docs/configuration.md"
    )


def test_every_key_is_explained() -> None:
    for row in reference.keys(Configuration).splitlines():
        if row.startswith("| `"):
            assert not row.endswith("|  |"), row


def test_the_uplink_gets_its_part_with_absolute_paths(config: Path, tmp_path: Path) -> None:
    config.write_text(
        DOCUMENTED.replace(
            '"mqtts://hub.example:8883"',
            '"mqtts://hub.example:8883"\nfallback_urls = ["mqtts://hub2"]\nca_file = "ca.pem"',
        )
    )
    uplink = uplink_config(config)
    assert (uplink.station, uplink.city) == ("cn-demo-001", "demo")
    assert uplink.mqtt is not None
    assert uplink.mqtt.urls == ("mqtts://hub.example:8883", "mqtts://hub2")
    assert uplink.mqtt.ca_file == str(tmp_path / "ca.pem")
    assert uplink.influx is not None
    assert uplink.influx.url == "http://127.0.0.1:8428"
