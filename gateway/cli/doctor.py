"""``gateway doctor``: what would keep this station from working, and what to do about it.

Looks and changes nothing: no serial port is opened, nothing is said to the broker beyond a TCP
connection that is closed at once. Each finding is

=======  ===========================================================================
ok       as it should be
warning  the station works; something is weaker than it should be, or can't be seen
fault    a part of the station does not work, or will not after the next start
=======  ===========================================================================
"""

import grp
import os
import shutil
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import typer

from gateway.cli import output
from gateway.cli.options import CONFIG, RUN, STATE, AsJson, ConfigFile, RunDir, StateDir

if TYPE_CHECKING:
    from gateway.config import Checked
    from gateway.core.compiled import Compiled
    from gateway.uplink.config import MqttConfig

CONNECT_S = 3.0
FREE_FAULT_MB = 100
"""Below this the next journal (64 MiB) and the outbox may not fit."""
FREE_WARNING_MB = 1000
MAX_SOCKET_PATH = 107
"""sun_path of unix(7) without its closing zero."""

_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do unless it is ok."""

    part: str
    state: Literal["ok", "warning", "fault"]
    text: str


def doctor(
    config: ConfigFile = CONFIG,
    state: StateDir = STATE,
    run: RunDir = RUN,
    as_json: AsJson = False,
) -> None:
    """Look for what would keep this station from working; say what to do.

    Best run as root: others can't see all of it. Exits 1 if there is a fault.
    """
    findings = list(examine(config, state, run))
    for finding in findings:
        if as_json:
            output.say_json(asdict(finding))
        else:
            output.say(f"{finding.state:7}  {finding.part:13}  {finding.text}")
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(output.FAULT)


def examine(config: Path, state: Path, run: Path) -> Iterator[Finding]:
    """Everything that is looked at, in the order in which one would mend it."""
    from gateway import config as configuration

    checked = configuration.check(config, run=run)
    yield from _configuration(checked)
    yield from _installed(checked, state)
    for path, names in _ports(checked.compiled).items():
        yield port(Path(path), ", ".join(names), run)
    yield from _sockets(run)
    pid = core_pid(run / "control.sock")
    yield _core(pid, run)
    yield _priority(pid)
    yield uplink(run, Path("/proc"))
    yield _clock()
    yield _disk(state)
    yield from _hub(config)


# --- configuration --------------------------------------------------------------------------------


def _configuration(checked: "Checked") -> Iterator[Finding]:
    for fault in checked.faults:
        yield Finding(
            "configuration", "fault" if fault.severity == "error" else "warning", str(fault)
        )
    if not checked.faults:
        yield Finding("configuration", "ok", str(checked.path))


def _installed(checked: "Checked", state: Path) -> Iterator[Finding]:
    """Whether the core runs on what is written now."""
    from gateway.config.install import CURRENT
    from gateway.core.compiled import load

    path = state / "compiled" / CURRENT
    try:
        installed = load(path)
    except FileNotFoundError:
        yield Finding("compiled", "fault", f"{path} is not there: run gateway apply")
        return
    except PermissionError:
        yield Finding("compiled", "warning", f"{path} can't be read: be root to look at it")
        return
    except (OSError, ValueError, TypeError, KeyError) as error:
        yield Finding("compiled", "fault", f"{path}: {error}: run gateway apply")
        return
    if checked.compiled is None:
        text = f"{path} is an earlier configuration: mend the faults above, run gateway apply"
        yield Finding("compiled", "warning", text)
    elif installed != checked.compiled:
        text = f"{path} differs from {checked.path}: run gateway apply, then restart the core"
        yield Finding("compiled", "warning", text)
    else:
        yield Finding("compiled", "ok", f"{path} is in step with {checked.path}")


# --- devices --------------------------------------------------------------------------------------


def _ports(compiled: "Compiled | None") -> dict[str, list[str]]:
    from gateway.cli.ports import users

    return users(compiled)


def port(path: Path, used_by: str, run: Path) -> Finding:
    """One configured port: there, of the right kind, and open to this user."""
    part = "port"
    bridged = path.parent == run / "ports"
    if not path.exists():
        do = "start gateway-bridge" if bridged else "plug it in; gateway ports lists what there is"
        return Finding(part, "fault", f"{path} of {used_by} is not there: {do}")
    if not (bridged or path.is_char_device() or path.is_socket()):
        return Finding(part, "fault", f"{path} of {used_by} is no device: correct its port")
    if not os.access(path, os.R_OK | os.W_OK):
        group = _group(path.stat().st_gid)
        text = f"{path} of {used_by}: this user may not open it: be root or join group {group}"
        return Finding(part, "fault", f"{text}; the core's user needs it too")
    if path.name.startswith(("ttyUSB", "ttyACM")):
        text = f"{path} of {used_by} may have another name at the next start: use a name of"
        return Finding(part, "warning", f"{text} /dev/serial/by-id or by-path (gateway ports)")
    return Finding(part, "ok", f"{path} of {used_by}")


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


# --- processes ------------------------------------------------------------------------------------


def _sockets(run: Path) -> Iterator[Finding]:
    for name in ("control.sock", "feed.sock"):
        path = run / name
        length = len(os.fsencode(path))
        if length > MAX_SOCKET_PATH:
            text = f"{path} is {length} bytes long, a socket's path at most {MAX_SOCKET_PATH}"
            yield Finding("socket", "fault", f"{text}: choose a shorter --run")
        elif not path.is_socket():
            yield Finding("socket", "fault", f"{path} is not there: start the core")
        else:
            yield Finding("socket", "ok", str(path))


def core_pid(path: Path) -> int | None:
    """The process that serves the control socket; None if none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(CONNECT_S)
        try:
            sock.connect(str(path))
            peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        except OSError:
            return None
    pid: int = _UCRED.unpack(peer)[0]
    return pid


def _core(pid: int | None, run: Path) -> Finding:
    from gateway.core.control import ControlError, call

    try:
        found: dict[str, Any] = call(run / "control.sock", {"do": "status"})
    except ControlError as error:
        do = "" if pid is None else "; process there is, restart it if it does not answer"
        return Finding("core", "fault", f"{error}{do}")
    wrong = [f"{h['component']} {h['kind']}" for h in found["health"] if h["state"] == "failed"]
    if wrong:
        text = f"runs, pid {pid}; failed: {', '.join(wrong)}: gateway status says more"
        return Finding("core", "warning", text)
    if found["arming"]["mode"] != "armed":
        text = f"runs, pid {pid}; the site is {found['arming']['mode']}: gateway arm ends it"
        return Finding("core", "warning", text)
    return Finding("core", "ok", f"runs, pid {pid}")


def _priority(pid: int | None) -> Finding:
    """Real-time scheduling: of the running core, else whether this user could have it."""
    part = "priority"
    if pid:
        if os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK in (os.SCHED_RR, os.SCHED_FIFO):
            return Finding(
                part, "ok", f"real-time, priority {os.sched_getparam(pid).sched_priority}"
            )
        do = "run it by systemd, or allow it rtprio 20 in /etc/security/limits.d"
        return Finding(part, "warning", f"the core has no real-time priority: {do}")
    from resource import RLIMIT_RTPRIO, getrlimit

    if os.geteuid() == 0 or getrlimit(RLIMIT_RTPRIO)[0] != 0:
        return Finding(part, "ok", "this user may have real-time priority")
    text = "this user may not have real-time priority; the gateway-core unit gives it to the core"
    return Finding(part, "warning", text)


def uplink(run: Path, processes: Path) -> Finding:
    """The uplink serves no socket, so it is looked for among the processes."""
    for path in processes.glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or it is somebody else's
            continue
        if "gateway.uplink" in words:
            given = dict(pairwise(words)).get("--run", str(RUN))
            if Path(given).absolute() == run.absolute():
                return Finding("uplink", "ok", f"runs, pid {path.parent.name}")
    text = "does not run, or is hidden from this user: systemctl start gateway-uplink"
    return Finding("uplink", "fault", f"{text}; alerts sound here and wait for the hub")


# --- machine --------------------------------------------------------------------------------------


def _clock() -> Finding:
    from gateway.clock import read_system

    *_, sync = read_system()
    if sync.synchronised:
        error_ms = sync.max_error_ns / 1e6
        return Finding("clock", "ok", f"synchronised, at most {error_ms:.3g} ms off")
    text = "not synchronised: look at chronyc tracking or timedatectl"
    return Finding("clock", "warning", f"{text}; detection works, stated times may be wrong")


def _disk(state: Path) -> Finding:
    try:
        free_mb = shutil.disk_usage(state).free / 1e6
    except FileNotFoundError:
        return Finding("disk", "fault", f"{state} is not there: create it, or correct --state")
    except OSError as error:
        return Finding("disk", "fault", f"{state}: {error.strerror}: be root to look at it")
    text = f"{free_mb:.0f} MB free at {state}"
    if free_mb < FREE_FAULT_MB:
        return Finding("disk", "fault", f"{text}: make room; expected {FREE_WARNING_MB} MB")
    if free_mb < FREE_WARNING_MB:
        return Finding("disk", "warning", f"{text}: make room; expected {FREE_WARNING_MB} MB")
    return Finding("disk", "ok", text)


# --- hub ------------------------------------------------------------------------------------------


def _hub(config: Path) -> Iterator[Finding]:
    from gateway.config import ConfigError
    from gateway.config.uplink import uplink_config

    try:
        mqtt = uplink_config(config).mqtt
    except ConfigError:  # its faults are in the list already
        return
    if mqtt is None:
        text = "no [uplink.mqtt] in the configuration: the hub hears nothing of this station"
        yield Finding("hub", "warning", text)
        return
    for url in mqtt.urls:
        yield broker(url)
    yield from certificates(mqtt)


def broker(url: str) -> Finding:
    """Whether something takes connections there; who it is, TLS will say."""
    parts = urlsplit(url)
    address = parts.hostname or "", parts.port or (8883 if parts.scheme == "mqtts" else 1883)
    try:
        socket.create_connection(address, CONNECT_S).close()
    except OSError as error:
        text = f"{url}: {error.strerror or error}: look at the network, its address and firewall"
        return Finding("broker", "fault", text)
    return Finding("broker", "ok", f"{url} takes connections")


def certificates(mqtt: "MqttConfig") -> Iterator[Finding]:
    """Whether the files for the broker can be read, and are what they should be."""
    files = {
        key: path
        for key in ("ca_file", "certificate_file", "key_file", "password_file")
        if (path := getattr(mqtt, key))
    }
    readable = True
    for key, path in files.items():
        try:
            Path(path).read_bytes()
        except OSError as error:
            readable = False
            text = f"{path}: {error.strerror}: put it there, readable for the group gateway"
            yield Finding(key, "fault", text)
    if not readable or not files:
        return
    context = ssl.create_default_context()
    try:
        if mqtt.ca_file:
            context.load_verify_locations(mqtt.ca_file)
        if mqtt.certificate_file and mqtt.key_file:
            context.load_cert_chain(mqtt.certificate_file, mqtt.key_file, password="")
    except (ssl.SSLError, ValueError) as error:
        text = (
            f"{', '.join(files.values())}: {error}: expected PEM, the key that of the certificate"
        )
        yield Finding("certificates", "fault", f"{text}, without a passphrase")
    else:
        yield Finding("certificates", "ok", f"{', '.join(files.values())} can be read")
