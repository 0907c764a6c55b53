"""``gateway core``: compile the configuration and become the core."""

import os
import sys
from typing import Annotated

import typer

from gateway.cli import options
from gateway.cli.options import ConfigFile, RunDir, StateDir


def core(
    *,
    config: ConfigFile = options.CONFIG,
    state: StateDir = options.STATE,
    run: RunDir = options.RUN,
    compile_first: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile the configuration first.")
    ] = True,
) -> None:
    """Run the core until it is told to stop: sensors, detection, plan, sirens."""
    if compile_first:
        from gateway import config as configuration
        from gateway.cli.check import compiled_or_fail

        configuration.install(compiled_or_fail(config, run), state)
    command = [sys.executable, "-m", "gateway.core", "--state", str(state), "--run", str(run)]
    os.execv(sys.executable, command)  # noqa: S606  our own interpreter, no shell
