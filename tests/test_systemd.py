"""The units, as systemd judges them and as a booted systemd runs them.

The second half boots a systemd of its own in private namespaces over a throw-away copy of the
machine's root (``tests/systemd-sandbox``), with the gateway as the installer leaves it and a
simulated siren. That needs root, overlayfs and a cgroup2 hierarchy; elsewhere it is skipped.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import obspy
import pytest

from gateway.drill import demo_station

CHECKOUT = Path(__file__).parent.parent
UNITS = ("gateway-apply", "gateway-core", "gateway-bridge", "gateway-uplink")
WAIT_S = 60.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine"
)


@pytest.fixture
def unit_files(tmp_path: Path) -> Path:
    """The units with an interpreter that this machine has."""
    for unit in UNITS:
        text = (CHECKOUT / "systemd" / f"{unit}.service").read_text()
        path = tmp_path / f"{unit}.service"
        path.write_text(text.replace("/opt/gateway/bin/python", sys.executable))
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_to_say_about_a_unit(unit: str, unit_files: Path) -> None:
    command = ["systemd-analyze", "verify", "--man=no", str(unit_files / f"{unit}.service")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize(
    ("unit", "tenths"),
    [
        ("gateway-apply", 5),
        ("gateway-core", 10),
        ("gateway-bridge", 15),
        ("gateway-uplink", 15),
    ],
)
def test_a_unit_is_hardly_exposed(unit: str, tenths: int, unit_files: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    command += [f"--threshold={tenths}", str(unit_files / f"{unit}.service")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@needs_systemd
def test_the_installer_says_what_it_would_do_and_does_nothing() -> None:
    command = [str(CHECKOUT / "tools/install"), "--dry-run"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if "older than 3.11" in found.stderr:
        pytest.skip(found.stderr)
    assert found.returncode == 0, found.stderr
    assert "systemctl --quiet enable gateway-apply.service gateway-core.service" in found.stdout


def test_the_installer_takes_no_other_argument() -> None:
    command = [str(CHECKOUT / "tools/install"), "--force"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2


# --- a booted systemd -----------------------------------------------------------------------------

CONFIG = """\
[station]
id = "sandbox"
city = "demo"
latitude = 31.0
longitude = 103.4

[[siren]]
name = "main"
profile = "lcus-usb-relay"
port = "/run/devices/main"
relay = 1
options = { feedback = true }

[[sensor]]
name = "seis1"
profile = "PROFILE"
port = "/run/quake/seis1"

[uplink.mqtt]
url = "mqtt://127.0.0.1:1"
"""

# A relay that has no timer of its own: nothing but the gateway ever silences it.
DEVICES = """\
[Service]
User=gateway
RuntimeDirectory=devices
RuntimeDirectoryMode=0755
Environment=HOME=/run/devices PYTHONDONTWRITEBYTECODE=1
ExecStart=/opt/gateway/bin/python -m gateway.cli simulate lcus-usb-relay \
--link /run/devices/main --log /run/devices/main.log --option feedback=true
"""

# A real earthquake, from the moment on at which the core opens the port.
QUAKE = """\
[Service]
User=gateway
RuntimeDirectory=quake
RuntimeDirectoryMode=0755
Environment=HOME=/run/quake PYTHONDONTWRITEBYTECODE=1
ExecStart=/opt/gateway/bin/python -m gateway.cli simulate /etc/gateway/profiles/PROFILE.toml \
--link /run/quake/seis1 --play /etc/gateway/quake.mseed
"""

# Namespaces do not change the kernel's id of the boot, which ProtectProc= even mounts anew.
BOOT = """\
[Service]
BindReadOnlyPaths=/etc/gateway/boot_id:/proc/sys/kernel/random/boot_id
"""

TARGET = """\
[Unit]
DefaultDependencies=no
Wants=devices.service gateway-apply.service gateway-core.service gateway-bridge.service
Wants=gateway-uplink.service
"""

PSEUDO_TERMINALS = """\
[Service]
DeviceAllow=char-pts rw
"""

# An interpreter that is not Debian's may bring a library of its own.
INTERPRETER = """\
[Service]
Environment=LD_LIBRARY_PATH=/opt/python/lib
"""

# A unit in whose sandbox the kernel refuses to say whether UTC is synchronised does not even start.
CLOCK = """\
[Service]
ExecStartPre=/opt/gateway/bin/python -c \
"import ctypes as c, sys; sys.exit(c.CDLL(None).adjtimex(c.create_string_buffer(256)) < 0)"
"""

VERSION = f"python3.{sys.version_info.minor}"


def _installed(tree: Path) -> None:
    """What the sandbox has more than the machine: the units, a configuration, /opt/gateway."""
    units = tree / "etc/systemd/system"
    packages = tree / f"opt/gateway/lib/{VERSION}/site-packages"
    for folder in (units / "service.d", packages, tree / "opt/gateway/bin"):
        folder.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(CHECKOUT / "systemd" / f"{unit}.service", units)
        (units / f"{unit}.service.d").mkdir()
    (units / "service.d/interpreter.conf").write_text(INTERPRETER)
    (units / "gateway-core.service.d/pseudo-terminals.conf").write_text(PSEUDO_TERMINALS)
    for unit in ("gateway-core", "gateway-uplink"):
        (units / f"{unit}.service.d/clock.conf").write_text(CLOCK)
    (units / "gateway-core.service.d/boot.conf").write_text(BOOT)
    (units / "devices.service").write_text(DEVICES)
    (units / "quake.service").write_text(QUAKE.replace("PROFILE", demo_station.PROFILE))
    (units / "sandbox.target").write_text(TARGET)
    (tree / "etc/gateway/profiles").mkdir(parents=True)
    (tree / "etc/gateway/gateway.toml").write_text(CONFIG.replace("PROFILE", demo_station.PROFILE))
    _write_quake(tree / "etc/gateway/quake.mseed")
    profile = tree / f"etc/gateway/profiles/{demo_station.PROFILE}.toml"
    profile.write_text(demo_station._profile())
    (tree / "opt/gateway/bin/python").symlink_to(f"/opt/python/bin/{VERSION}")
    (tree / "opt/gateway/pyvenv.cfg").write_text("home = /opt/python/bin\n")
    (packages / "gateway.pth").write_text("/opt/checkout\n/opt/packages\n")


def _write_quake(file: Path) -> None:
    """The recording from 5 s before P on, which is 10 s after its beginning: noise enough."""
    stream = obspy.read(str(CHECKOUT / "gateway/drill/data/napa_2014_NP.1765.mseed"))
    begin = max(trace.stats.starttime for trace in stream)
    stream.trim(begin + 5.0).write(str(file), "MSEED")


@contextmanager
def _control_group() -> Iterator[Path]:
    """A cgroup of our own, which becomes the sandbox's root."""
    hierarchies = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
    top = next((x for x in hierarchies if (x / "cgroup.procs").exists()), None)
    if top is None:
        pytest.skip("no cgroup2 hierarchy")
    group = top / f"gateway-test-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    try:
        yield group
    finally:
        inner_first = sorted((x for x in group.rglob("*") if x.is_dir()), reverse=True)
        for folder in (*inner_first, group):
            _until(partial(_removed, folder), f"{folder} is empty")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition; give what it gave."""
    end = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {WAIT_S:g} s: {what}"
        time.sleep(0.05)  # between two looks, not for a result
    return found


@dataclass(frozen=True)
class Sandbox:
    """A booted systemd; ``init`` is its PID 1 as this machine numbers it."""

    init: int

    def run(self, *command: str, check: bool = True) -> str:
        enter = ["nsenter", "--target", str(self.init), "--all", "--wd=/", "--"]
        found = subprocess.run(
            [*enter, *command], capture_output=True, text=True, check=False, timeout=WAIT_S
        )
        if check:
            assert found.returncode == 0, f"{command}: {found.stdout}{found.stderr}"
        return found.stdout.strip()

    def read(self, path: str) -> str:
        return self.run("cat", path, check=False)

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", unit)

    def active(self, unit: str) -> bool:
        return self.property(unit, "ActiveState") == "active"

    def signal(self, unit: str, number: signal.Signals) -> str:
        """Send a signal to a unit's main process; gives its PID."""
        pid = self.property(unit, "MainPID")
        self.run("kill", f"-{number.value}", pid)
        return pid

    def ask(self, **request: Any) -> dict[str, Any]:
        """The core's answer to a technician, or what its absence says."""
        code = "import json, sys; from pathlib import Path; from gateway.core.control import call; "
        code += (
            "print(json.dumps(call(Path('/run/gateway/control.sock'), json.loads(sys.argv[1]))))"
        )
        found = self.run(
            "setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=gateway-admin",
            "env", "LD_LIBRARY_PATH=/opt/python/lib",
            "/opt/gateway/bin/python", "-c", code, json.dumps(request), check=False,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(found) if found else {}
        return answer

    def relay(self) -> list[bool]:
        """Every change of the siren's relay so far."""
        lines = self.read("/run/devices/main.log").splitlines()
        return [json.loads(line)["on"] for line in lines]

    def status(self) -> dict[str, Any]:
        """What the core says of itself, as soon as it does."""
        found: dict[str, Any] = _until(lambda: self.ask(do="status"), "the core answers")
        return found

    def quake(self) -> str:
        """Have the siren sound because the earth shakes; the alert's id."""
        self.run("systemctl", "restart", "quake.service")
        _until(lambda: self.relay()[-1:] == [True], "the siren sounds")
        return str(self.status()["alerts"][0]["id"])

    def forget(self) -> None:
        """Let the core begin as on its first day."""
        self.run("systemctl", "stop", "gateway-core.service", "quake.service")
        self.run("sh", "-c", "rm -rf /var/lib/gateway/core /run/gateway/state")
        self.run("systemctl", "start", "gateway-core.service")
        self.status()

    def sound(self) -> None:
        """Have the siren sound by a technician's order."""
        _until(lambda: self.ask(do="siren_on", pattern="disaster"), "the core takes an order")
        _until(lambda: self.relay()[-1:] == [True], "the siren sounds")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with _machine(tmp_path_factory.mktemp("systemd")) as folder, _boot(folder) as booted:
        yield booted


@contextmanager
def _machine(folder: Path) -> Iterator[Path]:
    """A machine that can be booted again and again: what it keeps is in ``state``."""
    missing = [
        x for x in ("unshare", "nsenter", "setpriv", "systemd-sysusers") if not shutil.which(x)
    ]
    if missing or os.geteuid() or not Path("/lib/systemd/systemd").exists():
        pytest.skip("booting systemd needs root, systemd, util-linux")
    for name in ("root", "disk", "tree", "state"):
        (folder / name).mkdir()
    (folder / "state").chmod(0o755)
    folder.chmod(0o755)
    _installed(folder / "tree")
    try:
        yield folder
    finally:
        shutil.rmtree(folder / "state", ignore_errors=True)  # the journal allocates 64 MB


@contextmanager
def _boot(folder: Path) -> Iterator[Sandbox]:
    """From power on to power cut."""
    (folder / "tree/etc/gateway/boot_id").write_text(f"{uuid.uuid4()}\n")
    arguments = [folder, sys.base_prefix, Path(pytest.__file__).parent.parent, CHECKOUT]
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--fork", "--kill-child", "--pid"]
    command += ["--mount", "--propagation=private", "--uts", "--ipc", "--net", "--cgroup"]
    command += [str(CHECKOUT / "tests/systemd-sandbox"), *map(str, arguments)]
    with _control_group() as group, (folder / "boot.log").open("w") as log:
        boot = subprocess.Popen(
            ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group), *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            yield _booted(boot, folder / "boot.log")
        finally:
            boot.kill()
            boot.wait()


def _booted(boot: subprocess.Popen[bytes], log: Path) -> Sandbox:
    children = Path(f"/proc/{boot.pid}/task/{boot.pid}/children")
    first = _until(lambda: boot.poll() is not None or children.read_text().split(), "PID 1")
    if first is True:
        pytest.skip(f"no namespaces here: {log.read_text()}")
    sandbox = Sandbox(int(first[0]))

    def state() -> str | None:
        enter = [
            "nsenter",
            "--target",
            first[0],
            "--all",
            "systemctl",
            "is-active",
            "sandbox.target",
        ]
        if boot.poll() is not None:
            return "ended"
        found = subprocess.run(enter, capture_output=True, text=True, check=False)
        return "up" if found.stdout.strip() == "active" else None

    if _until(state, f"systemd is up: {log.read_text()}") == "ended":
        pytest.skip(f"systemd does not boot here: {log.read_text()}")
    return sandbox


def test_core_and_uplink_start_and_say_that_they_are_ready(sandbox: Sandbox) -> None:
    for unit in UNITS:
        _until(partial(sandbox.active, f"{unit}.service"), f"{unit} is active")
    status = _until(lambda: sandbox.ask(do="status"), "the core answers a technician")
    assert status["station"] == "sandbox"
    kinds = {(entry["component"], entry["kind"]) for entry in status["health"]}
    assert not kinds & {("core", "priority"), ("configuration", "configuration")}
    assert not [entry for entry in status["health"] if entry["component"] == "journal"]


def test_only_the_core_is_real_time(sandbox: Sandbox) -> None:
    _until(lambda: sandbox.ask(do="status"), "the core runs")
    core = int(sandbox.property("gateway-core.service", "MainPID"))
    uplink = int(sandbox.property("gateway-uplink.service", "MainPID"))
    child = int(sandbox.run("pgrep", "--parent", str(core)))
    policies = {pid: sandbox.run("chrt", "--pid", str(pid)) for pid in (core, uplink, child)}
    assert "SCHED_RR" in policies[core]
    assert "SCHED_OTHER" in policies[uplink]
    assert "SCHED_OTHER" in policies[child]


def test_who_breaks_into_the_uplink_has_no_power_over_the_core(sandbox: Sandbox) -> None:
    _until(lambda: sandbox.ask(do="status"), "the core runs")
    core = sandbox.property("gateway-core.service", "MainPID")
    uplink = sandbox.property("gateway-uplink.service", "User")
    as_uplink = ["setpriv", f"--reuid={uplink}", "--regid=gateway", "--clear-groups"]
    sandbox.run(*as_uplink, "test", "-w", "/run/gateway/feed.sock")
    for forbidden in (
        ["test", "-w", "/run/gateway/control.sock"],
        ["test", "-w", "/var/lib/gateway/compiled"],
        ["test", "-w", "/var/lib/gateway/compiled/current.json"],
        ["test", "-w", "/var/lib/gateway/core"],
        ["kill", "-0", core],
    ):
        with pytest.raises(AssertionError):
            sandbox.run(*as_uplink, *forbidden)


def test_a_killed_core_leaves_no_siren_sounding_and_is_back(sandbox: Sandbox) -> None:
    sandbox.sound()
    before = len(sandbox.relay())
    killed = sandbox.signal("gateway-core.service", signal.SIGKILL)
    _until(lambda: sandbox.relay()[before:][:1] == [False], "ExecStopPost silences the siren")
    _until(lambda: sandbox.property("gateway-core.service", "MainPID") not in {"0", killed}, "back")
    _until(lambda: sandbox.ask(do="status"), "the new core answers")


def test_what_the_core_had_still_to_write_outlives_it(sandbox: Sandbox) -> None:
    sandbox.forget()  # an earlier test's alert would go before the order, and is written already
    core = sandbox.property("gateway-core.service", "MainPID")
    journal = sandbox.run("pgrep", "--parent", core)
    sandbox.run("kill", "-STOP", journal)
    sandbox.sound()
    alert = sandbox.ask(do="status")["sirens"]["main"]["alert"]
    stored = ["grep", "--recursive", "--files-with-matches", "--text", alert]
    assert not sandbox.run(*stored, "/var/lib/gateway/core", check=False)
    before = len(sandbox.relay())
    sandbox.signal("gateway-core.service", signal.SIGKILL)
    _until(lambda: sandbox.relay()[before:][:1] == [False], "ExecStopPost silences the siren")
    sandbox.run("kill", "-CONT", journal)
    _until(lambda: sandbox.run(*stored, "/var/lib/gateway/core", check=False), "it is written")
    _until(lambda: sandbox.ask(do="status"), "the new core answers")


def test_a_core_that_hangs_is_ended_by_the_watchdog(sandbox: Sandbox) -> None:
    sandbox.sound()
    before = len(sandbox.relay())
    hung = sandbox.signal("gateway-core.service", signal.SIGSTOP)
    _until(lambda: sandbox.relay()[before:][:1] == [False], "ExecStopPost silences the siren")
    _until(lambda: sandbox.property("gateway-core.service", "MainPID") not in {"0", hung}, "back")


def test_a_stopped_core_leaves_the_siren_silent(sandbox: Sandbox) -> None:
    sandbox.sound()
    sandbox.run("systemctl", "stop", "gateway-core.service")
    assert sandbox.relay()[-1] is False
    assert sandbox.property("gateway-core.service", "Result") == "success"
    sandbox.run("systemctl", "start", "gateway-core.service")


def test_a_killed_core_goes_on_with_the_alert_that_sounds(sandbox: Sandbox) -> None:
    sandbox.forget()
    alert = sandbox.quake()
    before = len(sandbox.relay())
    sandbox.signal("gateway-core.service", signal.SIGKILL)
    _until(lambda: sandbox.relay()[before:][:2] == [False, True], "silenced, and sounding again")
    status = sandbox.status()
    assert status["alerts"][0]["id"] == alert
    assert status["sirens"]["main"]["alert"] == alert


def test_a_core_that_dies_three_times_in_a_minute_comes_back_silent_and_armed(
    sandbox: Sandbox,
) -> None:
    sandbox.forget()
    sandbox.quake()
    sandbox.run("systemctl", "stop", "quake.service")  # fresh data would begin another alert
    for _ in range(3):
        killed = sandbox.signal("gateway-core.service", signal.SIGKILL)
        changed = partial(sandbox.property, "gateway-core.service", "MainPID")
        _until(lambda: changed() not in {"0", killed}, "back")  # noqa: B023  called at once
        status = sandbox.status()
    assert status["alerts"] == []
    assert status["arming"]["mode"] == "armed"
    assert ("core", "deaths") in {(h["component"], h["kind"]) for h in status["health"]}
    assert status["sirens"]["main"]["alert"] is None
    _until(lambda: sandbox.relay()[-1] is False, "the siren is silent")


@pytest.mark.parametrize("end", ["reboot", "power cut"])
def test_after_a_reboot_or_a_power_cut_nothing_sounds(end: str, tmp_path: Path) -> None:
    with _machine(tmp_path) as folder:
        with _boot(folder) as sandbox:
            sandbox.status()
            alert = sandbox.quake()
            if end == "reboot":
                sandbox.run("systemctl", "stop", "sandbox.target", "gateway-core.service")
                assert sandbox.relay()[-1] is False
            else:
                _until(lambda: _stored(folder, alert), "the alert is on the disk")
        with _boot(folder) as sandbox:
            status = sandbox.status()
            tested = _until(
                lambda: sandbox.status()["sirens"]["main"]["self_test"]["result"] == "passed",
                "the siren has been told to be silent, and is",
            )
            assert tested
            assert [(a["id"], a["interrupted"]) for a in status["alerts"]] == [(alert, True)]
            assert status["sirens"]["main"]["alert"] is None
            assert True not in sandbox.relay()


def _stored(folder: Path, alert: str) -> bool:
    return any(
        alert.encode() in path.read_bytes() for path in (folder / "state/core").glob("state*")
    )
