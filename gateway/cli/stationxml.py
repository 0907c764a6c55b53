"""``gateway stationxml``: the station's channels, coordinates and responses for seismologists."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import options, output
from gateway.cli.options import ConfigFile


def stationxml(
    *,
    config: ConfigFile = options.CONFIG,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Standard output if not given."),
    ] = None,
) -> None:
    """Write FDSN StationXML from the configuration and the profiles of its sensors.

    The uplink keeps the same file beside the archive, as station.xml.
    """
    from gateway.cli.check import print_faults
    from gateway.config import ConfigError
    from gateway.config.stationxml import station_xml

    try:
        text = station_xml(config)
    except ConfigError as error:
        print_faults(error.faults)
        raise typer.Exit(output.FAULT) from None
    if out is None:
        output.say(text.rstrip("\n"))
        return
    try:
        out.write_text(text)
    except OSError as error:
        output.fail(f"{out}: {error.strerror}")
    output.say(f"wrote {out}")
