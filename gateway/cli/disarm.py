"""``gateway disarm``: for work on the site and for exercises, always for a stated time."""

import re
from enum import StrEnum
from typing import Annotated

import typer

from gateway.cli import output
from gateway.cli.arm import duration_text, show_arming, tell
from gateway.cli.options import RUN, AsJson, RunDir

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class Mode(StrEnum):
    """Everything that a site can be besides armed."""

    disarmed = "disarmed"
    silent = "silent"
    exercise = "exercise"


class Sound(StrEnum):
    """How an exercise sounds."""

    silent = "silent"
    chirp = "chirp"
    full = "full"


def disarm(
    *,
    for_time: Annotated[str, typer.Option("--for", metavar="TIME", help="As 90s, 30m, 2h, 1h30m.")],
    mode: Annotated[
        Mode,
        typer.Option(
            help="disarmed: no siren, alerts are tests; silent: no siren, alerts are real; "
            "exercise: everything is marked so."
        ),
    ] = Mode.disarmed,
    sound: Annotated[
        Sound | None, typer.Option(help="How an exercise sounds; silent if not said.")
    ] = None,
    run: RunDir = RUN,
    as_json: AsJson = False,
) -> None:
    """Keep the sirens from sounding for a stated time, after which they are armed again.

    The time runs only while the gateway has power, so that a power cycle does not arm the sirens
    under somebody who works on them. `gateway arm` ends it sooner.
    """
    from gateway.core.arming import MAX_S

    try:
        seconds = parse_duration(for_time)
    except ValueError as error:
        output.fail(f"--for: {error}", output.WRONG_USE)
    if seconds > MAX_S:
        text = f"--for: {for_time!r}; expected at most {duration_text(MAX_S)}"
        output.fail(f"{text}, then disarm again", output.WRONG_USE)
    if sound is not None and mode is not Mode.exercise:
        text = f"--sound is for --mode exercise; in mode {mode} no siren sounds"
        output.fail(text, output.WRONG_USE)
    tell(
        run,
        {"do": "disarm", "mode": mode, "for_s": seconds, "sound": sound or Sound.silent},
    )
    show_arming(run, as_json=as_json)


def parse_duration(text: str) -> int:
    """Seconds of ``90s``, ``30m``, ``2h`` or ``1h30m``.

    Raises:
        ValueError: any other text, or no time at all.
    """
    found = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + seconds
    if not total:
        raise ValueError(f"{text!r}; expected a time such as 90s, 30m, 2h or 1h30m")
    return total
