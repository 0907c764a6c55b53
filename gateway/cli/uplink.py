"""``gateway uplink``: become the uplink."""

import os
import sys

from gateway.cli import options
from gateway.cli.options import ConfigFile, RunDir, StateDir


def uplink(
    *,
    config: ConfigFile = options.CONFIG,
    state: StateDir = options.STATE,
    run: RunDir = options.RUN,
) -> None:
    """Run the uplink until it is told to stop: outbox, MQTT, telemetry, archive."""
    command = [sys.executable, "-m", "gateway.uplink", "--config", str(config)]
    command += ["--state", str(state), "--run", str(run)]
    os.execv(sys.executable, command)  # noqa: S606  our own interpreter, no shell
