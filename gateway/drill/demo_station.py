"""The station of the demonstration: two recordings, and the configuration that reads them.

===========================  =======================================================================
profiles/NAME.toml           the rpi-seism digitiser, here with the accelerometer of the recording
scales/NAME.toml             the national rainstorm scale, all its times divided by ``SPEED``
plans/rainstorm.toml         the shipped plan, whose texts say that time is compressed
storm.csv                    the part of the storm that is played
gateway.toml                 the station
seis, rain, relay            links to the simulators' terminals, while they run
===========================  =======================================================================

Times of a scale and speed of the rain change together, so that a window means what it means at
real speed: 12 hours of the storm pass in 48 s and are summed over 48 s. All else is as shipped.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.config import plans, profiles
from gateway.detect import scale_files

DATA = Path(__file__).parent / "data"
QUAKE = DATA / "napa_2014_NP.1765.mseed"
STORM = DATA / "arna_1955-10.csv"

QUAKE_BEGINS = "2014-08-24T10:20:37Z"
QUAKE_S = 60.0
STATION = "cn-demo-001"
CITY = "demo"
RATE_HZ = 200
COUNTS_PER_MPS2 = 426141.261
CHANNELS = ("HNZ", "HNN", "HNE")
PROFILE = "demo-accelerometer"
SCALE = "rainstorm-demo"

SPEED = 900
"""Seconds of the storm that pass in one; a gauge that is asked each 2 s shows half hours."""
STORM_FROM = "1955-10-07T14:25:00Z"
"""Before this it rained 0.4 mm in 7 h."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A known moment of the recording, s after its first sample."""

    label: str
    at_s: float
    colour: str


MARKS = (
    Mark("P, read by eye", 10.33, "tab:blue"),
    Mark("S, computed", 12.45, "tab:purple"),
)
"""P was read on the vertical, by eye and by AIC, to 0.15 s. S is P and the 2.12 s that iasp91 puts
between the two at 17 km, from a hypocentre at 38.215° N, 122.312° W, 11.1 km deep (USGS)."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the demonstration has its files, all below one folder."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "gateway.toml"

    @property
    def profile(self) -> Path:
        return self.folder / "profiles" / f"{PROFILE}.toml"

    @property
    def storm(self) -> Path:
        return self.folder / "storm.csv"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def port(self, device: str) -> Path:
        return self.folder / device

    def log(self, device: str) -> Path:
        return self.folder / f"{device}.jsonl"


def write(places: Places, broker_url: str) -> None:
    """All files of the station but those that its processes make."""
    folder = places.folder
    for name in ("profiles", "scales", "plans"):
        (folder / name).mkdir()
    places.profile.write_text(_profile())
    shipped = tomllib.loads((scale_files.SHIPPED / "rainstorm-national.toml").read_text())
    (folder / "scales" / f"{SCALE}.toml").write_text(_scale(shipped))
    plan = tomllib.loads((plans.SHIPPED / "plans" / "rainstorm.toml").read_text())
    (folder / "plans" / "rainstorm.toml").write_text(_plan(plan, shipped))
    places.storm.write_text(_storm())
    places.config.write_text(_configuration(places, broker_url))


def storm_time(seconds: float) -> str:
    """Local text of the moment of the storm that is played ``seconds`` after its begin."""
    moment = datetime.fromisoformat(STORM_FROM) + timedelta(seconds=seconds * SPEED)
    return f"{moment:%d %b %H:%M}"


def storm_reaches(threshold_mm: float = 50.0, window_h: float = 12.0) -> float:
    """How many seconds after its begin the storm reaches a sum; exact, to the reading."""
    begin = datetime.fromisoformat(STORM_FROM)
    rows = [row.split(",") for row in _storm().splitlines()[1:]]
    fallen = [(datetime.fromisoformat(time), float(mm or 0)) for time, mm in rows]
    for end, _ in fallen:
        since = end - timedelta(hours=window_h)
        if round(sum(mm for time, mm in fallen if since < time <= end), 6) >= threshold_mm:
            return (end - begin).total_seconds() / SPEED
    raise ValueError(f"{STORM}: never {threshold_mm:g} mm in {window_h:g} h")


def _storm() -> str:
    header, *rows = STORM.read_text().splitlines()
    return "\n".join([header, *(row for row in rows if row.split(",")[0] > STORM_FROM), ""])


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # which is a basic string of TOML as well


def _profile() -> str:
    shipped, _ = profiles.load("rpi-seism")
    channels = "".join(
        f'\n[[channel]]\ncode = "{code}"\nsensitivity = "{COUNTS_PER_MPS2}:m/s**2"\n'
        for code in CHANNELS
    )
    return f"""[profile]
name = "{PROFILE}"
title = "rpi-seism digitiser with the accelerometer of NP.1765"
kind = "seismic"
driver = "{shipped.profile.driver}"
source = {_text(shipped.profile.source)}

[port]
baud = {shipped.port.baud if shipped.port else 9600}

[driver]
rate_hz = {RATE_HZ}

[limits]
silent_after_s = {shipped.limits.silent_after_s}
{channels}"""


def _seconds(hours: float) -> int:
    compressed = hours * 3600 / SPEED
    if compressed != int(compressed):
        raise ValueError(f"{hours:g} h at {SPEED} times the speed is no whole number of seconds")
    return int(compressed)


def _scale(shipped: Mapping[str, Any]) -> str:
    head, end = shipped["scale"], shipped["end"]
    levels = ""
    for name, level in shipped["level"].items():
        conditions = ", ".join(
            f'{{ measure = "{c["measure"]}", quantity = "{c["quantity"]}", '
            f"window_s = {_seconds(c['window_h'])}, at_least = {c['at_least']} }}"
            for c in level["any"]
        )
        levels += f"\n[level.{name}]\nany = [{conditions}]\n"
    return f"""[scale]
name = "{SCALE}"
title = {{ zh = "暴雨（国家标准，时间压缩{SPEED}倍）", en = "Rainstorm (national, time ×{SPEED})" }}
hazard = "rainstorm"
unit = "mm"
source = {_text(head["source"])}
published = {head["published"]}
note = "For the demonstration: all times divided by {SPEED}, the highest rate multiplied by it."
continuing_s = {_seconds(head["continuing_min"] / 60)}
highest = {head["highest"] * SPEED}
{levels}
[end]
fraction = {end["fraction"]}
hold_s = {_seconds(end["hold_min"] / 60)}
"""


def _plan(shipped: Mapping[str, Any], national: Mapping[str, Any]) -> str:
    head = shipped["plan"]
    levels = ""
    for name, rule in shipped["level"].items():
        hours = str(national["level"][name]["any"][0]["window_h"])
        zh = rule["text"]["zh"].replace("{window_h}", hours)
        en = rule["text"]["en"].replace("{window_h}", hours)
        siren = f'siren = "{rule["siren"]}"\n' if "siren" in rule else ""
        levels += f"""
[level.{name}]
when = {json.dumps(rule["when"])}
{siren}text = {{ zh = {_text(f"【演示，雨量时间压缩{SPEED}倍】{zh}")}, en = \
{_text(f"(Demonstration, rain at {SPEED} times its speed) {en}")} }}
"""
    return f"""[plan]
hazard = "rainstorm"
version = "{head["version"]}-demo"
author = {_text(head["author"])}
next_revision = {head["next_revision"]}
title = {{ zh = "暴雨应急预案（演示）", en = "Rainstorm plan (demonstration)" }}
{levels}
[end]
hold_s = {shipped["end"]["hold_s"]}
rearm_s = {shipped["end"]["rearm_s"]}
"""


def _configuration(places: Places, broker_url: str) -> str:
    return f"""[station]
id = "{STATION}"
name = "示范站"
city = "{CITY}"
network = "XX"
code = "DEMO"
latitude = 38.3305
longitude = -122.3184
elevation_m = 23.0

[[sensor]]
name = "seis1"
profile = "{PROFILE}"
port = "{places.port("seis")}"

[[sensor]]
name = "rain1"
profile = "hydreon-rg15"
port = "{places.port("rain")}"

[scales]
rainstorm = ["{SCALE}"]

[[siren]]
name = "main"
profile = "waveshare-modbus-relay"
port = "{places.port("relay")}"
address = 1
relay = 1

[uplink.mqtt]
url = "{broker_url}"
"""
