"""The core as a real process on simulated devices: what is heard on the siren's own wire.

An alert is had by closing a contact, which is red at once; one test plays a real earthquake.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import obspy
import pytest
from nacl.signing import SigningKey

from gateway.clock.utc import Sync, read_system
from gateway.core import shell
from gateway.core.commands import Action, Command, sign
from gateway.core.feed_client import FeedClient
from gateway.core.segments import Kind, Mark, Segments, StateFile
from gateway.core.shell import Shell
from gateway.drill import sources
from gateway.drill.stage import Fault, Stage
from gateway.drivers.rpi_seism import RpiSeismSimulator
from gateway.events import NS, parse_iso
from gateway.plan.rules import Pattern, Step
from tests.core.station import (
    FLASH_ON,
    LONG,
    REPOSITORY,
    WAIT_S,
    Site,
    alive,
    children,
    first,
    gauge,
    install,
    seismometer,
    site,
    station,
    until,
)

NAPA = REPOSITORY / "gateway/drill/data/napa_2014_NP.1765.mseed"
NOISE_S = 5.0
"""Enough for the detector, which is armed after 4 s; the recording has 10 s before P."""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        yield made


def of(status: dict[str, Any], component: str, kind: str) -> dict[str, Any] | None:
    """What is wrong with a component at this moment."""
    return first(status["health"], component=component, kind=kind)


def sounding(status: dict[str, Any]) -> tuple[bool, str | None, str | None]:
    """Whether the siren sounds, for which alert, and what."""
    main = status["sirens"]["main"]
    return main["on"], main["alert"], main["pattern"]


# --- sounding -----------------------------------------------------------------------------------


def test_the_bytes_of_an_earthquake_close_the_relay(here: Site, tmp_path: Path) -> None:
    stream = obspy.read(str(NAPA))
    begin = max(trace.stats.starttime for trace in stream)
    stream.trim(begin + 10.0 - NOISE_S, begin + 20.0)
    stream.write(str(tmp_path / "cut.mseed"), "MSEED")
    rate_hz = round(stream[0].stats.sampling_rate)
    source = sources.waveform(tmp_path / "cut.mseed", ("HNZ", "HNN", "HNE"), rate_hz)
    device = RpiSeismSimulator({"rate_hz": rate_hz}, source)
    here.plug(Stage(device, tmp_path / "seis1", baud=250_000))
    here.configure(LONG, seismometer(str(tmp_path / "seis1"), rate_hz=rate_hz))
    here.start()
    until(here.sounding, here.log)
    assert here.changes()[0]["frame"].startswith(FLASH_ON)
    records = here.records(lambda found: first(found, type="siren", action="on"))
    assert first(records, type="onset")
    alert = first(records, type="alert")
    assert alert is not None
    assert (alert["hazard"], alert["status"], alert["phase"]) == ("earthquake", "Actual", "alert")


@pytest.mark.parametrize("network", ["its network", "no network at all"])
def test_a_contact_sounds_the_siren_with(here: Site, network: str) -> None:
    before = [] if network == "its network" else _without_network()
    here.configure()
    here.start(*before)
    here.fire()
    until(here.sounding)
    assert here.changes()[0]["frame"].startswith(FLASH_ON)


def _without_network() -> list[str]:
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-n", "true"], check=False).returncode:
        pytest.skip("an empty network namespace needs root and unshare")
    return [unshare, "-n"]


# --- ends ---------------------------------------------------------------------------------------


def test_an_order_to_end_silences_the_siren_and_leaves_nothing(here: Site) -> None:
    here.configure()
    here.start()
    here.fire()
    until(here.sounding)
    assert here.end(signal.SIGTERM) == 0
    assert not here.sounding()
    assert here.changes()[-1]["frame"].startswith("01 05 00 00 00 00")
    assert [path.name for path in here.run.iterdir()] == ["state"]
    assert not any(map(alive, here.children))
    assert sounding(here.start()) == (False, None, None)


def test_a_killed_core_goes_on_with_the_pattern_where_it_would_be(here: Site) -> None:
    length_s = 12.0
    here.configure(Pattern("long", (Step(on=True, seconds=length_s),)))
    run_id = here.start()["run_id"]
    alert = here.fire()
    until(here.sounding)
    here.crash()
    status = here.start()
    assert status["run_id"] != run_id
    assert sounding(status) == (True, alert, "long")
    records = here.records(lambda found: first(found, type="siren", reason="pattern ended"))
    on, again, off = (r for r in records if r["type"] == "siren")
    assert [on["action"], again["action"], off["action"]] == ["on", "on", "off"]
    lasted_s = (parse_iso(off["time"]) - parse_iso(on["time"])) / NS
    assert lasted_s == pytest.approx(length_s, abs=0.1)
    assert sum(r["type"] == "alert" for r in records) == 1


def test_a_pattern_that_has_ended_never_starts_again(here: Site) -> None:
    here.configure(Pattern("long", (Step(on=True, seconds=0.5),)))
    here.start()
    alert = here.fire()
    here.records(lambda found: first(found, type="siren", reason="pattern ended"))
    until(lambda: not here.sounding())
    so_far = here.changes()
    here.kill()
    status = here.start()
    assert status["alerts"][0]["id"] == alert
    assert status["sirens"]["main"]["alert"] is None
    here.ports_open()
    here.contact.say("contact 1\n")
    here.until(lambda status: status["sensors"]["gauge"].get("contact") == 1.0)
    assert here.changes() == so_far


def test_after_a_reboot_nothing_sounds_and_the_alert_is_interrupted(here: Site) -> None:
    here.configure()
    here.start()
    alert = here.fire()
    until(here.sounding)
    here.kill()
    _reboot(here)
    status = here.start()
    here.ports_open()
    assert status["alerts"][0]["id"] == alert
    assert status["alerts"][0]["interrupted"] is True
    assert status["sirens"]["main"]["alert"] is None
    until(lambda: not here.sounding())
    so_far = here.changes()
    here.contact.say("contact 1\n")
    status = here.until(lambda status: status["sirens"]["main"]["alert"])
    assert status["sirens"]["main"]["alert"] == alert, "fresh data sound it again"
    until(lambda: here.changes() != so_far)


def _reboot(here: Site) -> None:
    """Let the journal say that its core ran before the machine's last boot, which emptied /run."""
    shutil.rmtree(here.run)
    segments = Segments(here.state / "core", 2)
    segments.write(Kind.mark, Mark("another-boot", 0).pack())
    segments.sync()
    segments.close()


def test_a_disk_that_hangs_when_the_core_dies_does_not_keep_the_siren_silent(here: Site) -> None:
    here.configure()
    here.start()
    here.ports_open()
    [journal] = here.children
    os.kill(journal, signal.SIGSTOP)
    alert = here.fire()
    until(here.sounding)
    here.crash()
    status = here.start()
    assert sounding(status) == (True, alert, "long")
    os.kill(journal, signal.SIGCONT)
    until(lambda: not alive(journal))
    here.until(lambda status: not of(status, "journal", "disk"))


def test_the_third_death_within_a_minute_drops_the_alert(here: Site) -> None:
    here.configure()
    here.start()
    alert = here.fire()
    for _ in range(2):
        here.kill()
        assert here.start()["sirens"]["main"]["alert"] == alert
    here.kill()
    status = here.start()
    assert status["alerts"] == []
    assert status["sirens"]["main"]["alert"] is None
    assert status["arming"]["mode"] == "armed"
    wrong = of(status, "core", "deaths")
    assert wrong is not None
    assert "3 deaths within 60 s" in wrong["detail"]
    until(lambda: not here.sounding(), lambda: "the relay opens by itself")


# --- what may be missing ------------------------------------------------------------------------


def test_ports_that_fail_are_stated_with_what_to_do_and_cost_nothing_else(
    here: Site, tmp_path: Path
) -> None:
    missing = gauge(str(tmp_path / "absent"), name="absent")
    here.configure(LONG, missing, seismometer(str(tmp_path / "seis1")))
    here.start()
    faults = [Fault.parse("garbage@2:0.5"), Fault.parse("unplug@3:0.5")]
    device = RpiSeismSimulator({"rate_hz": 100}, sources.Quiet(100.0, 3))
    here.plug(Stage(device, tmp_path / "seis1", baud=250_000, faults=faults))

    def states(records: list[dict[str, Any]]) -> list[str]:
        return [
            record["state"]
            for record in records
            if (record["type"], record.get("component")) == ("health", "seis1")
            and record["kind"] == "port"
        ]

    records = here.records(
        lambda found: states(found)[-1:] == ["ok"] and states(found).count("ok") == 2
    )
    assert first(records, component="seis1", kind="garbage")
    absent = first(records, component="absent", kind="port")
    assert absent is not None
    assert absent["state"] == "failed"
    assert "is not there: plug the device in" in absent["detail"]
    assert any(f"{tmp_path}/seis1 is lost" in r.get("detail", "") for r in records)
    here.fire()
    until(here.sounding)
    assert first(here.records(lambda found: first(found, type="siren")), type="alert")


@pytest.mark.parametrize("damage", ["", "not JSON", '{"format": 1}', '{"format": 99}'])
def test_without_a_configuration_it_runs_and_says_so(here: Site, damage: str) -> None:
    here.configure()
    here.start()
    here.end()
    folder = here.state / "compiled"
    for name in ("current.json", "previous.json"):
        (folder / name).write_text(damage)
    if not damage:
        shutil.rmtree(folder)
    status = here.start()
    wrong = of(status, "configuration", "configuration")
    assert wrong is not None
    assert wrong["state"] == "failed"
    assert "run `gateway apply`" in wrong["detail"]
    assert "current.json" in wrong["detail"]
    assert "previous.json" in wrong["detail"]
    records = here.records(lambda found: first(found, component="configuration"))
    assert records
    assert here.process is not None
    assert here.process.poll() is None
    assert here.end() == 0


def test_the_previous_configuration_stands_in_for_a_broken_one(here: Site) -> None:
    here.configure()
    folder = here.state / "compiled"
    (folder / "current.json").rename(folder / "previous.json")
    (folder / "current.json").write_text("{")
    status = here.start()
    assert of(status, "configuration", "configuration")
    here.fire()
    until(here.sounding)


def test_state_that_makes_no_sense_is_stated_and_the_core_begins_anew(here: Site) -> None:
    here.configure()
    here.start()
    here.fire()
    here.kill()
    file = StateFile(here.state / "core")
    text = StateFile.load(here.state / "core")
    assert text is not None
    saved = json.loads(text)
    saved["state"] = {"core": {"alerts": 7, "sirens": []}, "ledger": [1]}
    file.save(json.dumps(saved).encode())
    file.close()
    kept = json.loads((here.run / "state").read_text())
    (here.run / "state").write_text(json.dumps({**kept, "state": saved["state"]}))
    status = here.start()
    assert status["alerts"] == []
    for component in ("core", "commands"):
        wrong = of(status, component, "state")
        assert wrong is not None
        assert "can't be read" in wrong["detail"]
    here.ports_open()
    here.contact.say("contact 1\n")
    here.until(lambda status: status["alerts"])


# --- the technician -----------------------------------------------------------------------------


def test_a_technician_disarms_for_a_time_and_arms_again(here: Site) -> None:
    here.configure()
    here.start()
    alert = here.fire()
    until(here.sounding)
    here.ask(do="disarm", for_s=600)
    until(lambda: not here.sounding())
    status = here.until(lambda status: status["arming"]["mode"] == "disarmed")
    assert 0 < status["arming"]["left_ns"] <= 600 * NS
    assert of(status, "sirens", "arming")
    here.ask(do="arm")
    until(here.sounding)
    status = here.until(lambda status: status["arming"]["mode"] == "armed")
    assert status["sirens"]["main"]["alert"] == alert
    assert not of(status, "sirens", "arming")


def test_a_technician_tries_the_siren_and_silences_it(here: Site) -> None:
    here.configure()
    here.start()
    here.records(lambda found: first(found, kind="self_test"))  # else a busy board hears no chirp
    here.ask(do="siren_on", pattern="chirp")
    until(here.changes)
    here.ask(do="siren_on", pattern="long")
    until(here.sounding)
    here.ask(do="siren_off", sirens=["main"])
    until(lambda: not here.sounding())
    records = here.records(lambda found: first(found, type="siren", action="off"))
    on = first(records, type="siren", action="on")
    assert on is not None
    assert on["status"] == "Test"


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"do": "dance"}, "unknown request 'dance'"),
        ({}, "unknown request None"),
        ({"do": "siren_on", "pattern": "polka"}, "no pattern 'polka'; there are chirp, long"),
        ({"do": "siren_off", "sirens": ["attic"]}, "no siren 'attic'; there are main"),
        ({"do": "siren_off", "sirens": "main"}, "expected a list of names"),
        ({"do": "siren_on", "status": "Loud"}, "Loud"),
        ({"do": "disarm"}, "expected seconds"),
        ({"do": "disarm", "for_s": 1e9}, "needs a time of up to 8 h"),
        ({"do": "disarm", "for_s": -1}, "needs a time of up to 8 h"),
        ({"do": "disarm", "for_s": 60, "mode": "armed"}, "expected disarmed, silent or exercise"),
        ({"do": "disarm", "for_s": 60, "sound": "loud"}, "expected silent, chirp or full"),
        ({"do": "cancel", "alert": "none"}, "no alert 'none' is active"),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_right(
    desk: "Desk", request_: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        desk.shell._answer(request_, 0)
    assert desk.shell._core.arming.mode == "armed"


# --- the hub's commands -------------------------------------------------------------------------

KEY = SigningKey(bytes(range(32)))
UTC_NS = 1_800_000_000 * NS


class Desk:
    """The shell in this process, its turns taken one by one, UTC as the test says."""

    def __init__(self, folder: Path, sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
        def system() -> tuple[int, int, Sync]:
            now, _, _ = read_system()
            return now, now + UTC_NS, sync

        monkeypatch.setattr(shell, "read_system", system)
        keys = {"hub": bytes(KEY.verify_key).hex()}
        self._state = folder / "state"
        self.shell = Shell(replace(station(), keys=keys), self._state, folder / "run")
        self.client = FeedClient(folder / "run" / "feed.sock", timeout_s=0.0)
        self.records: list[dict[str, Any]] = []
        self._counter = (read_system()[0] + UTC_NS) // 1_000_000 - 1000

    def until(self, **wanted: Any) -> dict[str, Any]:
        """Turn until the feed gives such a record."""
        end = time.monotonic() + WAIT_S
        while (found := first(self.records, **wanted)) is None:
            assert time.monotonic() < end, self.records
            self.shell._turn(NS // 50)
            while (item := self.client.receive()) is not None:
                if item["stream"] == "record":
                    self.records.append(item["record"])
        return found

    def command(self, action: Action, **arguments: Any) -> Command:
        self._counter += 1
        until_ns = self._counter * 1_000_000 + 30 * NS
        target = {"station": "cn-test-001"}
        command_id = f"c{self._counter}"
        return Command(
            command_id, "hub", self._counter, until_ns, action, target, arguments=arguments
        )

    def obey(self, action: Action, key: SigningKey = KEY, **arguments: Any) -> dict[str, Any]:
        """Send a command; the reply."""
        command = self.command(action, **arguments)
        self.client.command(sign(command, key))
        return self.until(type="reply", command=command.id)

    @property
    def sounds(self) -> bool:
        return bool(self.shell._core.status()["sirens"]["main"]["on"])

    def close(self) -> None:
        self.client.close()
        self.shell._stopping = "the end of the test"
        self.shell._leave()
        shutil.rmtree(self._state)


GOOD, NEVER = Sync(synchronised=True, max_error_ns=NS // 100), Sync(synchronised=False)


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Desk]:
    made = Desk(tmp_path, getattr(request, "param", GOOD), monkeypatch)
    yield made
    made.close()


def test_a_signed_command_sounds_and_silences(desk: Desk) -> None:
    assert desk.obey(Action.siren_on, level="red", pattern="long")["outcome"] == "fired"
    assert desk.sounds
    assert desk.obey(Action.siren_off)["outcome"] == "accepted"
    assert not desk.sounds


def test_the_same_command_again_does_nothing_and_gets_the_first_outcome(desk: Desk) -> None:
    envelope = sign(command := desk.command(Action.siren_on, pattern="chirp"), KEY)
    desk.client.command(envelope)
    desk.until(type="siren", action="off", alert=command.id)
    desk.records.clear()
    desk.client.command(envelope)
    assert desk.until(type="reply", command=command.id)["outcome"] == "fired"
    assert not desk.sounds
    late = replace(command, id="another")
    desk.client.command(sign(late, KEY))
    assert desk.until(type="reply", command="another")["reason"].startswith("late: ")


def test_a_forged_command_is_counted_and_not_obeyed(desk: Desk) -> None:
    desk.client.command(sign(desk.command(Action.siren_on), SigningKey.generate()))
    wrong = desk.until(type="health", component="commands", kind="bad_signature")
    assert wrong["state"] == "degraded"
    assert not desk.sounds
    assert first(desk.records, type="reply") is None


@pytest.mark.parametrize("desk", [NEVER], indirect=True)
@pytest.mark.parametrize(
    ("action", "arguments", "outcome"),
    [
        (Action.siren_on, {"pattern": "long"}, "refused"),
        (Action.siren_test, {}, "refused"),
        (Action.disarm, {"for_s": 60}, "refused"),
        (Action.siren_off, {}, "accepted"),
        (Action.arm, {}, "accepted"),
    ],
)
def test_without_the_time_only_what_makes_quieter_or_safer_is_obeyed(
    desk: Desk, action: Action, arguments: dict[str, Any], outcome: str
) -> None:
    reply = desk.obey(action, **arguments)
    assert reply["outcome"] == outcome
    assert reply["reason"].startswith("clock_unsure" if outcome == "refused" else "")
    assert desk.shell._core.arming.mode == "armed"
    assert not desk.sounds


@pytest.mark.parametrize(
    ("action", "arguments", "says"),
    [
        (Action.siren_on, {"pattern": "polka"}, "no pattern 'polka'"),
        (Action.siren_on, {"pattern": "long", "level": "purple"}, "level: 'purple'"),
        (Action.siren_off, {"sirens": ["attic"]}, "no siren 'attic'"),
        (Action.disarm, {}, "expected seconds"),
        (Action.cancel, {"alert": "none"}, "no alert 'none'"),
        (Action.warning, {"hazard": "rain", "level": "blue"}, "hazard: 'rain'"),
        (Action.warning, {"hazard": "typhoon", "level": "blue", "expires": "noon"}, "expires: "),
        (Action.warning, {"hazard": "earthquake", "level": "none"}, "no scale here waits"),
    ],
)
def test_a_genuine_command_that_makes_no_sense_has_failed(
    desk: Desk, action: Action, arguments: dict[str, Any], says: str
) -> None:
    reply = desk.obey(action, **arguments)
    assert reply["outcome"] == "failed"
    assert says in reply["reason"]


def test_a_counter_is_on_the_disk_before_what_it_lets_through_sounds(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk.shell._journal, "commit", [].append)
    command = desk.command(Action.siren_on, pattern="long")
    desk.client.command(sign(command, KEY))
    for _ in range(20):
        desk.shell._turn(NS // 100)
    assert not desk.sounds
    desk.shell._settle(desk.shell._token, stored=False)
    reply = desk.until(type="reply", command=command.id)
    assert reply["outcome"] == "refused"
    assert reply["reason"].startswith("not_stored")


def test_a_command_through_the_real_process(here: Site) -> None:
    config = here.configure()
    keys = {"hub": bytes(KEY.verify_key).hex()}
    install(replace(config, keys=keys), here.state)
    here.start()
    here.fire()
    until(here.sounding)
    counter = time.time_ns() // 1_000_000
    until_ns = counter * 1_000_000 + 30 * NS
    off = Command("off", "hub", counter, until_ns, Action.siren_off, {"station": "cn-test-001"})
    with FeedClient(here.run / "feed.sock", "now", timeout_s=WAIT_S) as client:
        client.command(sign(off, KEY))
        until(lambda: not here.sounding())
    records = here.records(lambda found: first(found, type="reply"))
    assert first(records, type="reply", command="off", outcome="accepted")


# --- gateway run --------------------------------------------------------------------------------

CONFIG = """
[station]
id = "cn-test-001"
name = "测试站"
city = "test"
network = "XX"
code = "A"
latitude = 31.0
longitude = 103.4
elevation_m = 540.0

[[siren]]
name = "main"
profile = "waveshare-modbus-relay"
port = "{relay}"
address = 1
relay = 1
"""


def test_gateway_run_restarts_a_killed_core_and_leaves_nothing(here: Site, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG.format(relay=tmp_path / "relay"))
    places = ["--config", str(file), "--state", str(here.state), "--run", str(here.run)]
    command = [sys.executable, "-m", "gateway.cli", "run", "--no-uplink", *places]
    run_id = here.start(command=command)["run_id"]
    here.until(lambda status: status["ports"][str(tmp_path / "relay")]["state"] == "open")
    core = children(here.pid)
    here.ask(do="siren_on", pattern="disaster")
    until(here.sounding)
    [pid] = core
    journal = children(pid)
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    status = here.until(lambda status: status["run_id"] != run_id)
    assert status["sirens"]["main"]["pattern"] == "disaster"
    offs = [change for change in here.changes() if not change["on"]]
    assert offs, "silenced as soon as the core had died, or by its pulse where that took 3 s"
    assert offs[0].get("frame", "01 05 00 00 00 00").startswith("01 05 00 00 00 00")
    [second] = children(here.pid)
    here.children = [*core, *journal, second, *children(second)]
    assert here.end(signal.SIGTERM) == 0
    assert not here.sounding()
    assert [path.name for path in here.run.iterdir()] == ["state"]


def test_a_killed_gateway_run_takes_its_core_and_its_sirens_with_it(
    here: Site, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG.format(relay=tmp_path / "relay"))
    places = ["--config", str(file), "--state", str(here.state), "--run", str(here.run)]
    here.start(command=[sys.executable, "-m", "gateway.cli", "run", "--no-uplink", *places])
    here.until(lambda status: status["ports"][str(tmp_path / "relay")]["state"] == "open")
    [core] = children(here.pid)
    here.ask(do="siren_on", pattern="disaster")
    until(here.sounding)
    here.children = [core, *children(core)]
    here.end(signal.SIGKILL)
    until(lambda: not here.sounding())
