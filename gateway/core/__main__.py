"""``python -m gateway.core``: the core as systemd starts it.

It loads STATE/compiled/current.json, or previous.json if that can't be loaded. If neither can, it
runs with nothing configured, every siren off, and says so. With ``--sirens-off`` it silences every
siren of the compiled configuration and leaves; that is the unit's ExecStopPost.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: no worker threads

from gateway.core import logs
from gateway.core.compiled import Compiled, Station, load


def load_compiled(state: Path) -> tuple[Compiled, str]:
    """The compiled configuration, and what kept the newest one from loading."""
    problems: list[str] = []
    for name in ("current.json", "previous.json"):
        path = state / "compiled" / name
        try:
            return load(path), "; ".join(problems)
        except (OSError, ValueError, TypeError, KeyError) as error:
            problems.append(f"{path}: {error}")
    problems.append("nothing is configured and no siren can sound; run `gateway apply`")
    return Compiled(Station("unconfigured", "", "")), "; ".join(problems)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway.core", description=__doc__)
    parser.add_argument("--state", type=Path, default=Path("/var/lib/gateway"), metavar="DIR")
    parser.add_argument("--run", type=Path, default=Path("/run/gateway"), metavar="DIR")
    parser.add_argument("--sirens-off", action="store_true", help="silence every siren and leave")
    options = parser.parse_args()
    config, problem = load_compiled(options.state)
    if options.sirens_off:
        from gateway.core.sirens_off import sirens_off  # noqa: PLC0415  not needed to run

        return sirens_off(config)
    logs.configure()
    from gateway.core.shell import start  # noqa: PLC0415  not needed to silence

    start(config, options.state, options.run, problem)
    return 0


if __name__ == "__main__":
    sys.exit(main())
