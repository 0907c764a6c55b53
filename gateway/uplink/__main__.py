"""``python -m gateway.uplink``: the uplink as systemd starts it."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: no worker threads

from gateway.core import logs
from gateway.uplink import config, service


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway.uplink", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("/etc/gateway/gateway.toml"))
    parser.add_argument("--state", type=Path, default=Path("/var/lib/gateway"), metavar="DIR")
    parser.add_argument("--run", type=Path, default=Path("/run/gateway"), metavar="DIR")
    options = parser.parse_args()
    logs.configure()
    try:
        settings = config.read(options.config)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201  read by the technician and the journal
        return 1
    service.run(settings, options.run, options.state)
    return 0


if __name__ == "__main__":
    sys.exit(main())
