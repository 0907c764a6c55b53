"""``gateway hub watch``: what the city's stations say, a line each as it comes."""

import json
import os
import selectors
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output
from gateway.cli.options import AsJson

if TYPE_CHECKING:
    from gateway.hub.hub import Hub, Message
    from gateway.hub.neighbours import Blocked, Neighbours

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The city's side: watch stations.",
)

_COLOURS = {"red": "31;1", "orange": "38;5;208;1", "yellow": "33", "blue": "34", "offline": "35"}


@app.callback()
def _hub() -> None:
    """The city's side of the link."""


@app.command()
def watch(  # noqa: PLR0913  a command's options
    url: Annotated[
        str, typer.Option(envvar="GATEWAY_HUB_URL", help="The broker: mqtt://… or mqtts://…")
    ] = "mqtt://127.0.0.1:1883",
    *,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Be the hub: store here what comes, and acknowledge it."),
    ] = None,
    username: Annotated[str, typer.Option(help="User at the broker.")] = "",
    password_file: Annotated[str, typer.Option(metavar="FILE", help="Holds the password.")] = "",
    ca_file: Annotated[str, typer.Option(metavar="FILE", help="Checks the broker.")] = "",
    certificate_file: Annotated[
        str, typer.Option(metavar="FILE", help="Certificate and key of this hub, in one PEM file.")
    ] = "",
    waveforms: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Store waveforms there as miniSEED files."),
    ] = None,
    kinds: Annotated[
        str, typer.Option(help="Only these, with commas: alert,siren,event,health,status …")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Print what stations say as it comes. A line each, the urgent in colour.

    Without --record it looks on and acknowledges nothing; telemetry that it hears, stations do not
    keep for a hub that is away. With it this is the hub, whose two sessions the broker keeps for a
    week, as hub and hub-bulk. What keeps it from listening, and messages that it refuses, are said
    on standard error.
    """
    from gateway.hub.hub import Hub
    from gateway.hub.neighbours import Neighbours
    from gateway.uplink.config import MqttConfig

    wanted = frozenset(kinds.split(",")) if kinds else frozenset()
    neighbours = Neighbours()

    def tell(message: "Message") -> None:
        _compare(neighbours, message, hub, as_json=as_json)
        if waveforms is not None and message.kind == "waveform":
            _store(waveforms, message)
        if wanted and message.kind not in wanted:
            return
        if as_json:
            output.say_json({"station": message.station, "kind": message.kind, **message.data})
        else:
            output.say(_line(message, faulty=bool(hub.faults(message))))

    config = MqttConfig(
        urls=(url,),
        client_id="hub" if record else f"watch-{os.getpid()}",
        username=username,
        password_file=password_file,
        ca_file=ca_file,
        certificate_file=certificate_file,
        session_expiry_s=604_800 if record else 0,
    )
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    shown: dict[str, str] = {}
    with selectors.DefaultSelector() as selector:
        try:
            hub = Hub(config, tell, selector, record, acknowledge=record is not None)
        except ValueError as error:
            output.fail(str(error), code=2)

        def done() -> bool:
            nonlocal shown
            troubles = hub.troubles | {"messages": hub.refused}
            for source, trouble in troubles.items():
                if trouble and trouble != shown.get(source):
                    print(f"gateway: {trouble}", file=sys.stderr)  # noqa: T201  the command's own output
            shown = troubles
            return stopped

        with hub:
            hub.run(done)


def _compare(neighbours: "Neighbours", message: "Message", hub: "Hub", *, as_json: bool) -> None:
    """Hold a station's rain against that of the others of its city."""
    if message.kind != "telemetry" or not message.data.get("measured") or hub.faults(message):
        return
    for blocked in neighbours.take(message.city, message.station, message.data):
        _say_blocked(blocked, as_json=as_json)


def _say_blocked(blocked: "Blocked", *, as_json: bool) -> None:
    """A gauge that the hub finds blocked: the hub's own finding, not a station's word."""
    if as_json:
        finding = {"type": "blocked", "time": blocked.time, "sensor": blocked.sensor}
        output.say_json(
            {"station": blocked.station, "kind": "hub", **finding, "detail": str(blocked)}
        )
    else:
        output.say(f"{blocked.time[:19]}Z {blocked.station:16} hub       blocked {blocked}")


def _store(directory: Path, message: "Message") -> None:
    from gateway.hub.waveforms import store

    try:
        store(directory, message)
    except (OSError, ValueError) as error:
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201  the command's own output


def _line(message: "Message", *, faulty: bool) -> str:
    data = message.data
    level = str(data.get("level", data.get("state", "")))
    text = {
        "alert": lambda: (
            f"{data['hazard']} {level} {data['phase']} {data['status']}: "
            f"{data.get('text_zh') or data['reason']}"
        ),
        "siren": lambda: f"{data['siren']} {data['action']} {data['pattern']} {data['status']}",
        "health": lambda: f"{data['component']} {data['state']}: {data['kind']} {data['detail']}",
        "status": lambda: f"{data['state']} {data['reason']}",
        "reply": lambda: f"{data['action']} {data['outcome']} {data['reason']}",
        "arming": lambda: f"{data['mode']} by {data['by']}",
        "waveform": lambda: (
            f"{data['channel']} {data['time'][:23]} {data['part']}/{data['parts']} "
            f"{data['reason']} {data['of']}"
        ),
        "telemetry": lambda: "  ".join(
            f"{r['sensor']} {r['quantity']}={r['value']}" for r in data["readings"]
        ),
    }.get(message.kind)
    try:
        said = text() if text else _rest(data)
    except (KeyError, TypeError):
        said = _rest(data)
    marks = ("  (late)" if message.late else "") + ("  (faulty)" if faulty else "")
    line = f"{message.time[:23]}  {message.station:<14} {message.kind:<9} {said}{marks}"
    if sys.stdout.isatty() and level in _COLOURS:
        return f"\033[{_COLOURS[level]}m{line}\033[0m"
    return line


def _rest(data: Any) -> str:
    """Any other record, shortened."""
    kept = {key: value for key, value in dict(data).items() if key not in ("time", "mseed")}
    return json.dumps(kept, ensure_ascii=False)[:160]
