"""``gateway demo``: a recorded earthquake and rainstorm through the whole gateway."""

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import output

if TYPE_CHECKING:
    from gateway.drill.demo import Demo
    from gateway.drill.demo_outcome import Outcome

_REDRAW_S = 0.125
_RUN_S = 70.0
_SHORTEST_S = 36.0
"""The storm reaches its level after 32 s."""


def demo(
    *,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="S",
            min=_SHORTEST_S,
            max=600.0,
            help="How long to watch, from the first sample on.",
        ),
    ] = _RUN_S,
    folder: Annotated[
        Path,
        typer.Option("--output", metavar="DIR", help="Where summary.json and earthquake.png go."),
    ] = Path(".demo"),
    picture: Annotated[
        Path | None,
        typer.Option(metavar="SVG", help="Draw there what a terminal shows at the end."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Plain lines, as where there is no terminal.")
    ] = False,
) -> None:
    """Show the main job: an earthquake and a rainstorm from serial bytes to siren and hub.

    Starts simulators, the gateway, a broker and a hub on this machine alone, and ends them again.
    Exits 1 if something that was to be seen was not. With CI=true or without a terminal it prints
    plain lines.
    """
    from gateway.drill.demo import Demo, DemoError, InterruptedDemoError
    from gateway.drill.interrupt import Interrupt

    live = sys.stdout.isatty() and not plain and os.environ.get("CI", "") in {"", "false", "0"}
    began = time.monotonic()

    def tell(line: str) -> None:
        if not drawing:
            output.say(f"{time.monotonic() - began:6.2f} s  {line}")

    drawing = False
    output.say("The gateway's main job, with recorded data on simulated devices.")
    try:
        with ExitStack() as stack:
            stop = stack.enter_context(Interrupt())
            signal.signal(signal.SIGHUP, lambda *_: None)  # a closed terminal ends it like Ctrl-C
            demo = stack.enter_context(Demo(tell, stop.fileno(), seconds))
            _explain(demo)
            drawing = live
            outcome = _watch(demo) if live else demo.run()
            drawing = False
            _summary(outcome, folder)
            if picture is not None:
                _draw(demo, picture)
    except InterruptedDemoError:
        output.say("interrupted: everything that was started has been ended")
        raise typer.Exit(130) from None
    except DemoError as error:
        output.fail(str(error))
    output.say("everything that was started has been ended")
    if outcome.missing:
        output.fail("; ".join(outcome.missing))


def _explain(demo: "Demo") -> None:
    from gateway.drill import demo_station as station

    output.say(
        f"plays: the earthquake of South Napa (M 6.0, 2014) at station NP.1765, at its own speed;\n"
        f"       the rain at Arna (1955) {station.SPEED} times as fast, and the times of the rain "
        f"scale divided by {station.SPEED}.\n"
        f"watches for {demo.seconds:g} s; P comes {station.MARKS[0].at_s:.1f} s after the first "
        f"sample, 50 mm in 12 h {station.storm_reaches():.0f} s after the first poll."
    )


def _watch(demo: "Demo") -> "Outcome":
    """Run with a picture on the terminal."""
    from rich.live import Live

    due = 0.0
    with Live(demo.scene, auto_refresh=False, screen=True, vertical_overflow="crop") as live:

        def draw() -> None:
            nonlocal due
            if (now := time.monotonic()) >= due and demo.scene is not None:
                due = now + _REDRAW_S
                demo.scene.title = demo.progress()
                live.update(demo.scene, refresh=True)

        return demo.run(draw)


def _draw(demo: "Demo", path: Path) -> None:
    """The picture of the terminal, also where there was none."""
    from gateway.drill.view import picture

    if demo.scene is not None:
        demo.scene.title = demo.progress()
        path.write_text(picture(demo.scene))
        output.say(f"wrote {path}")


def _summary(outcome: "Outcome", folder: Path) -> None:
    for line in outcome.lines():
        output.say(line)
    summary, picture = outcome.save(folder)
    output.say(f"wrote {summary} and {picture}")
