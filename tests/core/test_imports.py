"""The core process loads nothing that may block it, open the network or slow its start."""

import subprocess
import sys
from pathlib import Path

import gateway
from tests.core.station import site

FORBIDDEN = {
    *("asyncio", "ssl", "sqlite3", "importlib.metadata"),
    *("pydantic", "scipy", "obspy", "paho", "typer", "rich"),
}
PACKAGES = ("core", "detect", "drivers", "siren", "clock")
SINGLE = ("gateway", "gateway.events", "gateway.plan.rules", "gateway.plan.lifecycle")

ROOT = Path(gateway.__file__).parent


def modules() -> list[str]:
    found = [
        f"gateway.{package}.{path.stem}".removesuffix(".__init__")
        for package in PACKAGES
        for path in sorted((ROOT / package).glob("*.py"))
        if path.stem != "__main__"
    ]
    return [*SINGLE, *found]


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def test_no_module_of_the_core_imports_what_is_forbidden() -> None:
    names = modules()
    assert "gateway.core.shell" in names
    assert "gateway.drivers.rpi_seism" in names
    assert "gateway.siren" in names
    code = "import sys, importlib\n" + "\n".join(
        f"importlib.import_module({name!r})\n"
        f"bad = {FORBIDDEN!r} & set(sys.modules)\n"
        f"assert not bad, ({name!r}, bad)"
        for name in names
    )
    assert "gateway.core.shell" in loaded_by(code)


def test_the_shell_alone_loads_no_uplink_and_no_configuration() -> None:
    loaded = loaded_by("import gateway.core.shell")
    ours = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("gateway.")}
    assert ours <= {f"gateway.{part}" for part in (*PACKAGES, "events", "plan")}
    assert "tomllib" not in loaded


def test_a_running_core_has_one_thread_and_none_of_their_libraries(tmp_path: Path) -> None:
    with site(tmp_path) as here:
        here.configure()
        here.start()
        here.fire()
        maps = Path(f"/proc/{here.pid}/maps").read_text()
        status = Path(f"/proc/{here.pid}/status").read_text()
    libraries = {line.split()[-1] for line in maps.splitlines() if ".so" in line}
    marks = ("_ssl.", "libssl", "_sqlite3.", "libsqlite", "_asyncio.", "pydantic", "/scipy/")
    assert [path for path in libraries if any(mark in path for mark in marks)] == []
    assert "Threads:\t1\n" in status
