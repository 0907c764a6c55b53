"""``gateway check``: every fault of the configuration at once, and what it means."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from gateway.cli import output
from gateway.cli.options import CONFIG, RUN, AsJson, ConfigFile, RunDir

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from gateway.config import Checked, Fault
    from gateway.core.compiled import Compiled, Siren
    from gateway.events import Hazard
    from gateway.plan.rules import Plan


def check(config: ConfigFile = CONFIG, run: RunDir = RUN, as_json: AsJson = False) -> None:
    """Check the configuration and say what it means; every fault at once.

    Looks at gateway.toml, at the profiles that it names, and at the plans and scales in force.
    Exits 1 if there is an error; warnings alone exit 0.
    """
    from gateway import config as configuration

    checked = configuration.check(config, run=run)
    if as_json:
        output.say_json(_report(checked))
    else:
        print_faults(checked.faults)
        if checked.compiled is not None:
            _print_meaning(checked.compiled, checked.disabled)
        output.say(_verdict(checked))
    if checked.errors:
        raise typer.Exit(output.FAULT)


def compiled_or_fail(config: "Path", run: "Path" = RUN) -> "Compiled":
    """The compiled form of a gateway.toml, for commands that run on it; else leave with 1."""
    from gateway import config as configuration

    checked = configuration.check(config, run=run)
    print_faults(checked.faults)
    if checked.compiled is None:
        raise typer.Exit(output.FAULT)
    return checked.compiled


def print_faults(faults: "Iterable[Fault]") -> None:
    """One line a fault, to standard error."""
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201  the command's own output


def _verdict(checked: "Checked") -> str:
    errors, warnings = len(checked.errors), len(checked.warnings)
    found = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    return f"{checked.path}: {'can be applied' if not errors else 'can not be applied'}; {found}"


def _print_meaning(compiled: "Compiled", disabled: "Mapping[Hazard, str]") -> None:
    station = compiled.station
    output.say(f"station {station.id} {station.name} ({station.network}.{station.code})")
    for title, rows in _meaning(compiled).items():
        if rows:
            output.table(rows, list(rows[0]), title)
    for hazard, why in disabled.items():
        output.say(f"{hazard} alerts are disabled: {why}")
    if sum(sensor.kind == "seismic" for sensor in compiled.sensors) == 1:
        output.say("one seismometer: single-sensor mode, an alert needs shaking on two components")
    if not compiled.sirens:
        output.say("no siren: alerts are published and nothing sounds")


def siren_row(siren: "Siren") -> dict[str, Any]:
    """A siren as the configuration has it, for a table."""
    return {
        "name": siren.name,
        "port": siren.port and siren.port.path,
        "driver": siren.driver.rpartition(":")[2],
        "unit": ", ".join(f"{key} {value}" for key, value in siren.unit.items()),
        "max_on_s": siren.max_on_s,
        "max_hour_s": siren.max_hour_s,
    }


def _meaning(compiled: "Compiled") -> dict[str, list[dict[str, Any]]]:
    """What the configuration comes to, as tables of plain values."""
    return {
        "sensors": [
            {
                "name": sensor.name,
                "port": sensor.port.path,
                "driver": sensor.driver.rpartition(":")[2],
                "kind": sensor.kind,
                "rate_hz": sensor.rate_hz or None,
                "lost_after_s": sensor.silent_after_s,
            }
            for sensor in compiled.sensors
        ],
        "channels": [
            {
                "channel": channel.id,
                "sensor": sensor.name,
                "counts_per_unit": channel.sensitivity and channel.sensitivity.counts_per_unit,
                "unit": channel.sensitivity and channel.sensitivity.unit,
            }
            for sensor in compiled.sensors
            for channel in sensor.channels
        ],
        "sirens": [siren_row(siren) for siren in compiled.sirens],
        "plans": [
            {
                "hazard": plan.hazard.value,
                "version": plan.version,
                "levels": _levels(plan),
                "file": plan.file,
            }
            for plan in compiled.plans
        ],
        "scales": [
            {"name": scale.name, "hazard": scale.hazard.value, "published": scale.published}
            for scale in compiled.scales
        ],
    }


def _levels(plan: "Plan") -> str:
    return "; ".join(
        f"{rule.level.name}: {rule.pattern or 'no siren'}" for rule in reversed(plan.levels)
    )


def _report(checked: "Checked") -> dict[str, Any]:
    return {
        "file": str(checked.path),
        "errors": [asdict(fault) for fault in checked.errors],
        "warnings": [asdict(fault) for fault in checked.warnings],
        "disabled": {hazard.value: why for hazard, why in checked.disabled.items()},
        **({} if checked.compiled is None else _meaning(checked.compiled)),
    }
