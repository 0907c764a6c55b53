"""``gateway monitor``: watch a running gateway's readings and events as they come."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import output
from gateway.cli.options import RUN, STATE, AsJson, RunDir, StateDir

_REDRAW_S = 0.125
_WAIT_S = 0.1
_RECONNECT_S = 1.0
_ASK_S = 2.0
_REMARK = "what runs is shown as it is; Ctrl-C leaves"

Item = dict[str, Any]


def monitor(
    run: RunDir = RUN,
    state: StateDir = STATE,
    as_json: AsJson = False,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", min=0.1, help="Leave after this time.")
    ] = None,
) -> None:
    """Watch readings and events of the running gateway as they come.

    On a terminal a picture, otherwise plain lines; --json gives the items of the core's feed as
    they are. It changes nothing, and goes on when the core is started again.
    """
    from gateway.core import compiled
    from gateway.drill.interrupt import Interrupt

    config = None
    if sys.stdout.isatty() and not as_json:
        path = state / "compiled" / "current.json"
        try:
            config = compiled.load(path)
        except (OSError, ValueError) as error:
            output.fail(f"{error}; give --state as for the gateway itself, or --json")
    with Interrupt() as stop:
        items = _items(run / "feed.sock", stop.fileno(), seconds)
        if config is not None:
            _draw(config, run / "control.sock", items)
            return
        for item in items:
            if item is None:
                continue
            if as_json:
                output.say(json.dumps(item, ensure_ascii=False, separators=(",", ":")))
            elif text := _line(item):
                output.say(text)


def _items(path: Path, stop: int, seconds: float | None) -> Iterator[Item | None]:
    """Items of the feed, None now and then; ends when asked to or when the time is over.

    The first connection must succeed; later ones are tried until they do.
    """
    from gateway.core.feed_client import FeedClient, FeedError

    end = None if seconds is None else time.monotonic() + seconds
    try:
        client: FeedClient | None = FeedClient(path, "now", data=True, timeout_s=0)
    except FeedError as error:
        output.fail(str(error))
    try:
        while not _asked_to_stop(stop, client, _RECONNECT_S if client is None else _WAIT_S):
            if end is not None and time.monotonic() >= end:
                return
            try:
                client = client or FeedClient(path, "now", data=True, timeout_s=0)
                while (item := client.receive()) is not None:
                    yield item
            except FeedError as error:
                if client is not None:
                    client.close()
                    client = None
                    yield {"away": str(error)}
            yield None
    finally:
        if client is not None:
            client.close()


def _asked_to_stop(stop: int, client: Any, wait_s: float) -> bool:
    from select import select

    watched = [stop] if client is None else [stop, client]
    ready, _, _ = select(watched, [], [], wait_s)
    return stop in ready


def _draw(config: Any, control: Path, items: Iterator[Item | None]) -> None:
    """Draw what comes, and what the core itself says of longer times, where this user may ask."""
    from rich.live import Live

    from gateway.core.control import ControlError, call
    from gateway.drill.view import Scene

    scene = Scene(config, remark=_REMARK)
    due = ask_due = 0.0
    with Live(scene, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        for item in items:
            if item is not None:
                scene.take(item)
                scene.remark = item.get("away", _REMARK)
                record = item.get("record")
                if record and record["type"] != "ground_motion":
                    scene.say(record)
            if (now := time.monotonic()) >= ask_due:
                ask_due = now + _ASK_S
                with suppress(ControlError):
                    scene.status(call(control, {"do": "status"}, _ASK_S))
            if now >= due:
                due = now + _REDRAW_S
                scene.title = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC"
                live.update(scene, refresh=True)


def _line(item: Item) -> str:
    """An item in one line; empty for what is not worth one."""
    from gateway.core.feed_client import packet_samples
    from gateway.drill.lines import line_of

    if record := item.get("record"):
        return f"{record['time']}  {line_of(record)}"
    if reading := item.get("reading"):
        micro = reading["micro"]
        value = "missing" if micro is None else f"{micro / 1e6:g}"
        return f"{reading['time']}  {reading['sensor']} {reading['quantity']} {value}"
    if packet := item.get("packet"):
        samples = packet_samples(packet)
        spans = ", ".join(
            f"{channel} {row.min():g} to {row.max():g}"
            for channel, row in zip(packet["channels"], samples, strict=True)
        )
        return f"{packet['start']}  {packet['sensor']} {samples.shape[1]} samples: {spans}"
    if "away" in item:
        return f"the core is away, waiting for it: {item['away']}"
    return f"lost {item.get('lost')} of {item.get('of')}" if item.get("stream") == "gap" else ""
