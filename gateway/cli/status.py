"""``gateway status``: how the running gateway does, on one small screen."""

import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from gateway.cli import output
from gateway.cli.options import RUN, AsJson, RunDir

MAX_ROWS = 6
"""Rows of each part; a screen has 24."""
_LEVEL_STYLES = {"ok": "green", "degraded": "yellow", "failed": "bold red"}

Line = tuple[str, str]
"""Text and its colour."""


def status(run: RunDir = RUN, as_json: AsJson = False) -> None:
    """Say how the running gateway does: sirens, sensors, alerts, and what is wrong.

    Exits 1 if something has failed, or if the gateway does not run.
    """
    from gateway.core.control import ControlError, call

    try:
        found = call(run / "control.sock", {"do": "status"})
    except ControlError as error:
        output.fail(str(error))
    if as_json:
        output.say_json(found)
    else:
        _show(list(lines(found)))
    if any(entry["state"] == "failed" for entry in found["health"]):
        raise typer.Exit(output.FAULT)


def _show(rows: list[Line]) -> None:
    if not sys.stdout.isatty():
        for text, _ in rows:
            output.say(text)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for text, style in rows:
        line = Text(text, style)
        line.truncate(shutil.get_terminal_size().columns, overflow="ellipsis")
        console.print(line)


def lines(found: Mapping[str, Any]) -> Iterator[Line]:
    """The answer of the core's control socket in lines for people, each with its colour."""
    health = sorted(found["health"], key=lambda entry: entry["state"] != "failed")
    failed = sum(entry["state"] == "failed" for entry in health)
    verdict = f"{failed} failed" if failed else f"{len(health)} degraded" if health else "all well"
    arming = found["arming"]
    style = "bold" if arming["mode"] == "armed" else "bold magenta"
    yield f"{found['station']}  {_arming(arming)}  {verdict}  clock {_clock(found['clock'])}", style
    yield from _part("sirens", [_siren(name, siren) for name, siren in found["sirens"].items()])
    ports = found["ports"]
    sensors = found["sensors"].items()
    yield from _part("sensors", [_sensor(name, sensor, ports) for name, sensor in sensors])
    yield from _part("alerts", [_alert(alert) for alert in found["alerts"]])
    if found.get("warnings"):
        yield from _part("warnings", [_warning(warning) for warning in found["warnings"]])
    yield from _part(
        "health",
        [
            (
                f"{h['state']} {h['component']} {h['kind']}: {h['detail']}",
                _LEVEL_STYLES[h["state"]],
            )
            for h in health
        ],
    )


def _part(title: str, rows: list[Line]) -> Iterator[Line]:
    """Rows under a title at the left; what is too much for a screen is counted."""
    shown = rows if len(rows) <= MAX_ROWS else rows[: MAX_ROWS - 1]
    left = len(rows) - len(shown)
    more = [(f"and {left} more; --json shows all", "")] if left else []
    for number, (text, style) in enumerate([*shown, *more] or [("none", "dim")]):
        yield f"{title if number == 0 else '':8} {text}", style


def _arming(arming: Mapping[str, Any]) -> str:
    left_ns = arming["left_ns"]
    left = "" if left_ns is None else f" for {left_ns / 60e9:.0f} min more"
    by = f" by {arming['by']}" if arming["by"] else ""
    return f"{arming['mode']}{left}{by}"


def _clock(clock: Mapping[str, Any]) -> str:
    known = clock["uncertainty_s"]
    return str(clock["state"]) + ("" if known is None else f" ±{known * 1000:.3g} ms")


def _siren(name: str, siren: Mapping[str, Any]) -> Line:
    if siren["on"]:
        return f"{name:10} SOUNDS {siren['pattern']} for {siren['alert']}", "bold red"
    if siren["pattern"]:
        return f"{name:10} pause in {siren['pattern']} for {siren['alert']}", "red"
    test = siren["self_test"]
    if not test:
        return f"{name:10} silent", "green"
    ago = "" if test["result"] == "running" else f" {_ago(test['age_s'])}"
    style = "red" if test["result"] == "failed" else "green"
    return f"{name:10} silent, self-test {test['result']}{ago}", style


def _ago(seconds: float) -> str:
    for unit_s, unit in ((3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _sensor(name: str, sensor: Mapping[str, Any], ports: Mapping[str, Any]) -> Line:
    port = ports.get(sensor["port"], {})
    if port.get("state") != "open":
        return f"{name:10} {sensor['port']}: {port.get('reason') or port.get('state')}", "red"
    age_s = sensor["age_s"]
    if age_s is None:
        return f"{name:10} silent, {sensor['port']} is open", "red"
    return f"{name:10} {age_s:5.1f} s ago  {_values(sensor) or sensor['port']}", ""


def _values(sensor: Mapping[str, Any]) -> str:
    """The latest readings, and rain by its hours."""
    shown = [
        f"{key} {value:g}"
        for key, value in sensor.items()
        if key.startswith(("wind_mps", "gust_mps", "pm25_ugm3", "water_level_m", "contact"))
    ]
    if "rain_1h_mm" in sensor:
        hours = [f"{h} h {sensor[f'rain_{h}h_mm']:g}" for h in (1, 6, 24)]
        if "rain_day20_mm" in sensor:
            hours.append(f"since 20:00 {sensor['rain_day20_mm']:g}")
            hours.append(f"since 08:00 {sensor['rain_day08_mm']:g}")
        shown.insert(0, f"rain in {', '.join(hours)} mm")
    levels = (f"{scale}: {level}" for scale, level in sensor.get("levels", {}).items())
    shown[:0] = [level.upper() for level in levels]
    if sensor.get("maintenance_s") is not None:
        shown.insert(0, f"IN MAINTENANCE for {sensor['maintenance_s'] / 60:.0f} min more")
    return ", ".join(shown)


def _warning(warning: Mapping[str, Any]) -> Line:
    """A warning of the authorities that puts scales in force."""
    return f"{warning['level']} {warning['hazard']} until {warning['expires'][:16]}Z", "yellow"


def _alert(alert: Mapping[str, Any]) -> Line:
    """The id names the hazard and when it began."""
    state = "interrupted" if alert["interrupted"] else alert["status"]
    return f"{alert['level']:6} {state} {alert['id']}", "red"
