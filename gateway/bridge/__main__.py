"""``python -m gateway.bridge``: the bridge as systemd starts it.

It serves the ``[[bridge]]`` tables of the compiled configuration and writes how each link does to
RUN/ports/status.json, once a second where something changed.
"""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event

from gateway.bridge.link import Link, stop_pipe, unlink_sockets
from gateway.core import logs
from gateway.core.compiled import Bridge, load
from gateway.core.notify import notify

log = logging.getLogger("gateway.bridge")

REPORT_S = 1.0


def serve(bridges: Sequence[Bridge], folder: Path, stopped: Event) -> None:
    """Serve until ``stopped`` is set.

    Raises:
        OSError: the folder of the sockets can't be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unlink_sockets(folder)
    stop, stop_write = stop_pipe()
    links = [Link(bridge, folder, stop) for bridge in bridges]
    for link in links:
        link.start()
    notify("READY=1")
    written = ""
    try:
        while True:
            ended = stopped.wait(REPORT_S)
            text = json.dumps([asdict(link.status) for link in links], ensure_ascii=False)
            if text != written:
                fresh = folder / ".status.json"
                fresh.write_text(text + "\n")
                fresh.replace(folder / "status.json")
                written = text
            if dead := [link.name for link in links if not link.is_alive()]:
                raise RuntimeError(f"the thread of {', '.join(dead)} ended")
            notify("WATCHDOG=1")
            if ended:
                return
    finally:
        notify("STOPPING=1")
        os.close(stop_write)
        for link in links:
            link.join(6.0)  # a connection that is being made may take 5 s
        os.close(stop)
        (folder / "status.json").unlink(missing_ok=True)


def main() -> int:
    """Load, serve, end."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bridge", description=__doc__)
    parser.add_argument("--state", type=Path, default=Path("/var/lib/gateway"), metavar="DIR")
    parser.add_argument("--run", type=Path, default=Path("/run/gateway"), metavar="DIR")
    options = parser.parse_args()
    logs.configure()
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        config = load(options.state / "compiled" / "current.json")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201  read by the technician and the journal
        return 1
    serve(config.bridges, options.run / "ports", stopped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
