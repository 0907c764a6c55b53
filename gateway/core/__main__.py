"""``python -m gateway.core``: the core as systemd starts it.

It loads STATE/compiled/current.json, or previous.json if that can't be loaded. If neither can, it
runs with nothing configured, every siren off, and says so. With ``--sirens-off`` it silences every
siren of the compiled configuration and leaves; that is the unit's ExecStopPost.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: no worker threads

from gateway.core import logs
from gateway.core.compiled import Compiled, Station, load

UNCONFIGURED = "unconfigured"
USAGE = "usage: python -m gateway.core [--state DIR] [--run DIR] [--sirens-off]"


def load_compiled(state: Path) -> tuple[Compiled, str]:
    """The compiled configuration, and what kept the newest one from loading."""
    problems: list[str] = []
    remedy = "run `gateway apply`"
    for name in ("current.json", "previous.json"):
        path = state / "compiled" / name
        try:
            return load(path), "; ".join(problems)
        except (OSError, ValueError, TypeError, KeyError) as error:
            problems.append(f"{path}: {error}")
            if isinstance(error, PermissionError):
                remedy = f"let uid {os.geteuid()} read it, or run as root"
    problems.append(f"no configuration can be loaded and no siren can sound; {remedy}")
    return Compiled(Station(UNCONFIGURED, "", "")), "; ".join(problems)


@dataclass(slots=True)
class _Options:
    """What the command line says. argparse would stay in memory, with gettext and locale."""

    state: Path = Path("/var/lib/gateway")
    run: Path = Path("/run/gateway")
    sirens_off: bool = False

    @classmethod
    def of(cls, words: Sequence[str]) -> "_Options":
        """Read the command line.

        Raises:
            ValueError: it is not of the form of :data:`USAGE`.
        """
        options, left = cls(), list(words)
        while left:
            name, _, value = left.pop(0).partition("=")
            if name == "--sirens-off" and not value:
                options.sirens_off = True
            elif name not in ("--state", "--run"):
                raise ValueError(f"unknown argument {name!r}")
            elif not (value := value or (left.pop(0) if left else "")):
                raise ValueError(f"{name}: a folder is expected")
            elif name == "--state":
                options.state = Path(value)
            else:
                options.run = Path(value)
        return options


def main() -> int:
    try:
        options = _Options.of(sys.argv[1:])
    except ValueError as error:
        sys.stderr.write(f"{USAGE}\n{error}\n")
        return 2
    config, problem = load_compiled(options.state)
    if options.sirens_off:
        from gateway.core.sirens_off import sirens_off  # noqa: PLC0415  not needed to run

        if problem:
            sys.stderr.write(f"{problem}\n")
        unread = config.station.id == UNCONFIGURED and (options.state / "compiled").exists()
        return sirens_off(config) or int(unread)
    logs.configure()
    from gateway.core.shell import start  # noqa: PLC0415  not needed to silence

    start(config, options.state, options.run, problem)
    return 0


if __name__ == "__main__":
    sys.exit(main())
