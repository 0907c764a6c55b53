"""``gateway arm``: the sirens may sound again, from now on."""

from pathlib import Path
from typing import Any

from gateway.cli import output
from gateway.cli.options import RUN, AsJson, RunDir


def arm(run: RunDir = RUN, as_json: AsJson = False) -> None:
    """Arm the sirens: they sound when an alert's plan says so.

    Ends whatever `gateway disarm` ordered, at once.
    """
    tell(run, {"do": "arm"})
    show_arming(run, as_json=as_json)


def tell(run: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The running core's answer to a technician's request; leaves with 1 where it gives none."""
    from gateway.core.control import ControlError, call

    try:
        return call(run / "control.sock", request)
    except ControlError as error:
        output.fail(str(error))


def show_arming(run: Path, *, as_json: bool) -> None:
    """What is in force now, as the core itself says."""
    found = tell(run, {"do": "status"})["arming"]
    if as_json:
        left_ns = found["left_ns"]
        left_s = None if left_ns is None else left_ns / 1e9
        output.say_json({"mode": found["mode"], "left_s": left_s, "sound": found["sound"]})
    else:
        output.say(_sentence(found))


def _sentence(found: dict[str, Any]) -> str:
    left_ns = found["left_ns"]
    until = "" if left_ns is None else f" for {duration_text(left_ns / 1e9)}"
    meaning = {
        "armed": "the sirens sound when a plan says so",
        "silent": "alerts go to the hub as ever, no siren sounds",
        "exercise": f"everything is marked as an exercise, sirens: {found['sound']}",
        "disarmed": "no siren sounds, alerts go to the hub as tests",
    }[found["mode"]]
    return f"{found['mode']}{until}: {meaning}"


def duration_text(seconds: float) -> str:
    """``1 h 30 min`` of 5,400 s, to the nearest second."""
    minutes, s = divmod(round(seconds), 60)
    h, m = divmod(minutes, 60)
    parts = [f"{n} {unit}" for n, unit in ((h, "h"), (m, "min"), (s, "s")) if n]
    return " ".join(parts) or "0 s"
