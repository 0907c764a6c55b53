"""``gateway plot``: draw recordings with what the core makes of them."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import output
from gateway.cli.options import InventoryFile, SensitivityText


def plot(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="Waveforms that obspy reads, CSV files of readings, folders of an archive.",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PNG", help="FILE.png if not given."),
    ] = None,
    inventory: InventoryFile = None,
    sensitivity: SensitivityText = None,
) -> None:
    """Draw recordings with the onsets, levels, alerts and siren times of their replay.

    Rain is drawn with the sums and thresholds of the scales in force.

    A pause of more than ten minutes begins another drawing, PNG-2 and so on.
    """
    from gateway.detect.settings import Sensitivity
    from gateway.drill.plot import draw, pictures, read
    from gateway.drill.recording import RecordingError, read_inventory
    from gateway.drill.replay import Replay, default_base

    try:
        known = read_inventory(inventory) if inventory else None
        rest = Sensitivity.parse(sensitivity) if sensitivity else None
    except (RecordingError, ValueError) as error:
        output.fail(str(error), output.WRONG_USE)
    files = [file for given in files for file in _archived(given)]
    if not files:
        output.fail("no waveforms in these folders", output.WRONG_USE)
    base = default_base()
    replay = Replay(base, inventory=known, sensitivity=rest)
    records = list(replay.run(files))
    faults = list(replay.summary.faults)
    recordings = []
    for file in files:
        try:
            recordings.append(read(file))
        except RecordingError as error:
            if str(error) not in faults:
                faults.append(str(error))
    made = pictures(recordings, records, known, rest, scales=base.scales)
    path = out or files[0].with_suffix(".png")
    for number, picture in enumerate(made, 1):
        place = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        draw(picture, place)
        output.say(f"wrote {place}")
    if faults:
        output.fail("; ".join(faults))


def _archived(path: Path) -> list[Path]:
    """The day files of an archive's folder; anything else is itself."""
    if not path.is_dir():
        return [path]
    aside = {"overlap", "quality"}
    found = (file for file in path.rglob("*.D.[0-9]*") if file.is_file())
    return sorted(x for x in found if not aside & set(x.relative_to(path).parts))
