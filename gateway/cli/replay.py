"""``gateway replay``: recordings through the core, as fast as the machine can."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import output
from gateway.cli.options import AsJson, InventoryFile, SensitivityText


def replay(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", help="Waveforms that obspy reads, raw captures, CSV files of readings."
        ),
    ],
    *,
    as_json: AsJson = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="Take settings, plans and scales from this file."
        ),
    ] = None,
    inventory: InventoryFile = None,
    sensitivity: SensitivityText = None,
    packet: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Samples in a packet; changes nothing but speed."),
    ] = 100,
) -> None:
    """Run recordings through the very core of the daemon, on recorded time.

    Without a sensitivity counts stay counts, and nothing in physical units is claimed.
    Exit codes: 0 everything was read, 1 a file was unreadable or damaged, 2 wrong use.
    """
    from gateway.detect.settings import Sensitivity
    from gateway.drill.recording import RecordingError, read_inventory
    from gateway.drill.replay import Replay

    try:
        known = read_inventory(inventory) if inventory else None
        rest = Sensitivity.parse(sensitivity) if sensitivity else None
    except (RecordingError, ValueError) as error:
        output.fail(str(error), output.WRONG_USE)
    run = Replay(_base(config), inventory=known, sensitivity=rest, packet=packet)
    for record in run.run(files):
        if as_json:
            output.say_json(record)
        else:
            output.say(_line(record))
    summary = run.summary.record()
    if as_json:
        output.say_json(summary)
    else:
        output.say("  ".join(f"{key} {value}" for key, value in summary.items() if key != "type"))
    for fault in run.summary.faults:
        typer.echo(f"gateway: {fault}", err=True)
    if run.summary.faults:
        raise typer.Exit(output.FAULT)


def _base(config: Path | None) -> Any:
    from gateway.drill.replay import default_base

    if config is None:
        return default_base()
    from gateway.cli.check import compiled_or_fail

    return compiled_or_fail(config)


def _line(record: dict[str, Any]) -> str:
    """One event for a person: time, what, where, and the rest as key=value."""
    rest = dict(record)
    kind, time = rest.pop("type"), rest.pop("time", "")
    where = rest.pop("channel", None) or rest.pop("sensor", None) or rest.pop("station", "")
    words = [f"{key}={value}" for key, value in rest.items() if value not in (None, "", {}, [])]
    return f"{time}  {kind:13} {where:16} {' '.join(words)}"
