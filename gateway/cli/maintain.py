"""``gateway maintain``: somebody works on a gauge, so that what it says is no measurement."""

from typing import Annotated

import typer

from gateway.cli import output
from gateway.cli.arm import duration_text, tell
from gateway.cli.disarm import parse_duration
from gateway.cli.options import RUN, AsJson, RunDir


def maintain(
    sensor: Annotated[str, typer.Argument(metavar="SENSOR", help="Name in gateway.toml.")],
    *,
    for_time: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="As 90s, 30m, 2h, 1h30m.")
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="The work is done.")] = False,
    run: RunDir = RUN,
    as_json: AsJson = False,
) -> None:
    """Say that a gauge is worked on for a stated time: cleaned, calibrated, poured through.

    Its readings count as missing meanwhile, none of its levels stands, and its windows and days
    are incomplete. It ends by itself; the time runs while the gateway has power.
    """
    from gateway.detect.gauge import MAX_MAINTENANCE_S

    if (for_time is None) != end:
        output.fail("give either --for TIME or --end", output.WRONG_USE)
    seconds = None
    if for_time is not None:
        try:
            seconds = parse_duration(for_time)
        except ValueError as error:
            output.fail(f"--for: {error}", output.WRONG_USE)
        if seconds > MAX_MAINTENANCE_S:
            most = duration_text(MAX_MAINTENANCE_S)
            output.fail(f"--for: {for_time!r}; expected at most {most}", output.WRONG_USE)
    tell(run, {"do": "maintain", "sensor": sensor, "for_s": seconds})
    found = tell(run, {"do": "status"})["sensors"][sensor]["maintenance_s"]
    if as_json:
        output.say_json({"sensor": sensor, "maintenance_s": found})
    elif found is None:
        output.say(f"{sensor}: measures again; windows that hold the pause are incomplete")
    else:
        output.say(f"{sensor}: in maintenance for {duration_text(found)}; nothing of it counts")
