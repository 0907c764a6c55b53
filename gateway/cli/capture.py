"""``gateway capture``: record a device's raw bytes, to replay them at a desk."""

import select
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from gateway.cli import options, output
from gateway.drill.interrupt import Interrupt
from gateway.events import NS, Diagnostic, Reading, Scans

if TYPE_CHECKING:
    from gateway.config.profiles import Profile
    from gateway.core.transport import Line
    from gateway.drivers import Driver
    from gateway.drivers.capture import Writer

OPENING_NS = 3 * NS
"""After this long without the port being opened there is nothing to capture."""


def capture(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="The device's profile.")],
    port: Annotated[str, typer.Argument(metavar="PORT", help="Its port, as /dev/serial/by-id/….")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where to record; a new file.")
    ],
    seconds: Annotated[
        float | None, typer.Option(metavar="S", min=0.1, help="How long; else until interrupted.")
    ] = None,
    sensor: Annotated[str, typer.Option(metavar="NAME", help="Name of the sensor.")] = "sensor",
    station: Annotated[
        str, typer.Option(metavar="NET.STA", help="FDSN codes for the names of channels.")
    ] = "XX.STA",
    passive: Annotated[
        bool, typer.Option("--passive", help="Only listen: ask nothing, configure nothing.")
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of the driver, over the profile's."),
    ] = None,
) -> None:
    """Record what the device on PORT says and is told; `gateway replay FILE` decodes it.

    The device is opened and spoken to as by the daemon, which has to be stopped first.
    """
    from gateway import drivers
    from gateway.config.faults import ConfigError
    from gateway.core.compiled import Port
    from gateway.core.transport import Line
    from gateway.drill import devices

    try:
        chosen = devices.profile_of(profile, options.CONFIG)
        over = {**chosen.driver, **devices.read_assignments(option or ())}
        driver = drivers.load(chosen.profile.driver)(over, sensor)
    except (ConfigError, KeyError, ValueError) as error:
        output.fail(str(error), output.WRONG_USE)
    line = Line(Port(port, **chosen.port.model_dump() if chosen.port else {}))
    with ExitStack() as stack:
        stop = stack.enter_context(Interrupt())
        stack.callback(line.close)
        _open(line)
        try:
            file = stack.enter_context(out.open("x", encoding="utf-8"))
        except OSError as error:
            output.fail(f"{out}: {error.strerror}; name a new file", output.WRONG_USE)
        writer = _begin(file, chosen, over, sensor, station)
        found = _record(line, driver, writer, stop, seconds, passive=passive)
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
    typer.echo(f"{out}: {counted or 'not a byte came'}", err=True)
    if not found:
        sys.exit(output.FAULT)


def _now() -> int:
    """The clock of the lines: the daemon's."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _open(line: "Line") -> None:
    began, reason = _now(), ""
    while line.fileno() is None:
        for event in line.tick(_now()):
            reason = event.reason or reason
        if _now() - began > OPENING_NS:
            output.fail(reason or f"{line.port.path}: did not open")
        if line.fileno() is None:
            select.select([], [], [], max(0, (line.next_deadline() or 0) - _now()) / NS)


def _begin(
    file: TextIO, profile: "Profile", over: Mapping[str, Any], sensor: str, station: str
) -> "Writer":
    from gateway.clock import read_system
    from gateway.drivers.capture import Header, Writer

    own_ns, utc_ns, sync = read_system()
    coded = [channel for channel in profile.channel if channel.code]
    names = [f"{station}.{channel.location}.{channel.code}" for channel in coded]
    known = {n: c.sensitivity for n, c in zip(names, coded, strict=True) if c.sensitivity}
    header = Header(
        driver=profile.profile.driver,
        monotonic_ns=own_ns,
        utc_ns=utc_ns,
        synchronised=sync.synchronised,
        profile=profile.profile.name,
        sensor=sensor,
        options=over,
        channels=names,
        sensitivity={name: f"{s.counts_per_unit!r}:{s.unit}" for name, s in known.items()},
    )
    return Writer(file, header)


def _record(
    line: "Line",
    driver: "Driver",
    writer: "Writer",
    stop: Interrupt,
    seconds: float | None,
    *,
    passive: bool,
) -> Counter[str]:
    """Record until told to stop, over losses of the port; what was read, by kind."""
    found: Counter[str] = Counter()
    t = _now()
    end = None if seconds is None else t + round(seconds * NS)
    driver.opened(t)
    while end is None or t < end:
        for event in line.tick(t):
            if event.reason:
                typer.echo(event.reason, err=True)
            else:
                driver.opened(t)
        found += _count(driver.tick(t))
        if (due := driver.to_send()) and not passive:
            line.write(due)
            writer.written(t, due)
        line.flush()
        deadlines = [end, driver.next_deadline(), line.next_deadline()]
        deadline = min((at for at in deadlines if at is not None), default=None)
        timeout = None if deadline is None else max(0, deadline - t) / NS
        files = [file for file in (stop.fileno(), line.fileno()) if file is not None]
        ready, _, _ = select.select(files, [], [], timeout)
        if stop.fileno() in ready:
            break
        t = _now()
        if data := line.read(t):
            writer.read(t, data)
            found["bytes"] += len(data)
            found += _count(driver.feed(data, t))
    return found


def _count(items: list[Scans | Reading | Diagnostic]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for item in items:
        if isinstance(item, Scans):
            counts["scans"] += item.samples.shape[1]
        elif isinstance(item, Reading):
            counts["readings"] += 1
        else:
            counts[item.kind] += item.count
    return counts
