"""``gateway apply``: check, compile, and put the result in the core's place."""

import typer

from gateway.cli import output
from gateway.cli.check import print_faults
from gateway.cli.options import CONFIG, RUN, STATE, AsJson, ConfigFile, RunDir, StateDir


def apply(
    config: ConfigFile = CONFIG,
    state: StateDir = STATE,
    run: RunDir = RUN,
    as_json: AsJson = False,
) -> None:
    """Check the configuration and install it for the core.

    The configuration in force stays if there is an error, and is kept as the previous one if there
    is none. The core takes up the new one when it is restarted, which this command leaves to you.
    """
    from gateway import config as configuration
    from gateway.config.install import CURRENT

    checked = configuration.check(config, run=run)
    print_faults(checked.faults)
    if checked.compiled is None:
        if as_json:
            output.say_json({"installed": False, "errors": len(checked.errors)})
        output.fail(f"{config} is not installed: errors {len(checked.errors)}; what was, stays")
    current = state / "compiled" / CURRENT
    try:
        changed = configuration.install(checked.compiled, state)
    except (OSError, ValueError) as error:
        output.fail(f"{current} could not be written: {error}; what was, stays")
    if as_json:
        output.say_json({"installed": True, "changed": changed, "file": str(current)})
    elif changed:
        output.say(f"installed {current}; it holds from the core's next start:")
        output.say("  systemctl restart gateway-core")
    else:
        output.say(f"{current} is already this configuration; nothing to do")
    raise typer.Exit
