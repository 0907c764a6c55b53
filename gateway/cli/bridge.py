"""``gateway bridge``: become the bridge, or say how its links do."""

import json
import os
import sys
from typing import Annotated

import typer

from gateway.cli import options, output
from gateway.cli.options import AsJson, RunDir, StateDir

COLUMNS = ["name", "url", "state", "reason", "bytes_to_core", "lost_to_core", "lost_to_peer"]


def bridge(
    *,
    status: Annotated[
        bool, typer.Option("--status", help="Say how the running bridge's links do.")
    ] = False,
    state: StateDir = options.STATE,
    run: RunDir = options.RUN,
    as_json: AsJson = False,
) -> None:
    """Serve the ports that are on a network to the core, until told to stop."""
    if not status:
        command = [sys.executable, "-m", "gateway.bridge", "--state", str(state)]
        os.execv(sys.executable, [*command, "--run", str(run)])  # noqa: S606  our own, no shell
    path = run / "ports" / "status.json"
    try:
        rows = json.loads(path.read_text())
    except FileNotFoundError:
        output.fail(f"{path} is not there: no bridge runs; start gateway-bridge")
    output.show(rows, COLUMNS, as_json=as_json)
    if any(row["state"] != "open" for row in rows):
        raise typer.Exit(output.FAULT)
