"""``gateway tune``: what a place is like for the detector, and which settings would fit it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output
from gateway.cli.options import RUN, AsJson, InventoryFile, RunDir, SensitivityText

if TYPE_CHECKING:
    from gateway.core.compiled import Compiled
    from gateway.drill.tune import Found, Source

LIVE_S = 600.0


def tune(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE…", help="Waveforms that obspy reads. None: the running core."),
    ] = None,
    *,
    as_json: AsJson = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings in force and sensitivities."),
    ] = None,
    inventory: InventoryFile = None,
    sensitivity: SensitivityText = None,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=10.0, help="How long to listen to the running core.")
    ] = LIVE_S,
    run: RunDir = RUN,
) -> None:
    """Look at a station's noise: RMS by band, Peterson's models, false triggers, settings that fit.

    A recording is taken to hold no earthquake; a working day with its traffic tells most. Nothing
    is written: what is suggested is a few lines for gateway.toml, with the reason.
    """
    from gateway.detect.settings import SeismicSettings, Sensitivity
    from gateway.drill.recording import RecordingError, read_inventory
    from gateway.drill.tune import tune as look

    try:
        known = read_inventory(inventory) if inventory else None
        rest = Sensitivity.parse(sensitivity) if sensitivity else None
    except (RecordingError, ValueError) as error:
        output.fail(str(error), output.WRONG_USE)
    compiled = None
    if config is not None:
        from gateway.cli.check import compiled_or_fail

        compiled = compiled_or_fail(config)
    faults: list[str] = []
    sources = (
        _from_files(files, known, rest, compiled, faults) if files else _from_feed(run, seconds)
    )
    settings = compiled.seismic if compiled else SeismicSettings()
    for source in sources:
        try:
            found = look(source, settings)
        except ValueError as error:
            faults.append(str(error))
            continue
        if as_json:
            output.say_json(found.record())
        else:
            _show(found)
    if faults:
        output.fail("; ".join(faults))


def _from_files(
    files: Sequence[Path], known: Any, rest: Any, compiled: "Compiled | None", faults: list[str]
) -> "Iterator[Source]":
    from gateway.drill import recording
    from gateway.drill.recording import RecordingError
    from gateway.drill.tune import Source, Stretch
    from gateway.drivers.capture import Capture

    own = {c.id: c.sensitivity for s in compiled.sensors for c in s.channels} if compiled else {}
    for file in files:
        try:
            if Capture.recognises(file):
                raise RecordingError(f"{file}: a raw capture; tune looks at waveform files")  # noqa: TRY301  one way out
            found = recording.read(file)
            if not found.waveforms:
                raise RecordingError(f"{file}: readings; tune looks at waveforms")  # noqa: TRY301  likewise
        except RecordingError as error:
            faults.append(str(error))
            continue
        faults += found.faults
        for waveform in found.waveforms:
            yield Source(
                waveform.name,
                waveform.channels,
                waveform.rate_hz,
                tuple(
                    (known and known.get(c, waveform.start_ns)) or own.get(c) or rest
                    for c in waveform.channels
                ),
                tuple(Stretch(p.start_ns, p.samples) for p in waveform.packets(1 << 24)),
            )


def _from_feed(run: Path, seconds: float) -> "list[Source]":
    """What the running core's sensors give in the next so many seconds."""
    import time

    from gateway.core.feed_client import FeedClient, FeedError, packet_samples
    from gateway.detect.settings import Sensitivity
    from gateway.drill.tune import Source, Stretch
    from gateway.events import parse_iso

    heads: dict[str, dict[str, Any]] = {}
    stretches: dict[str, list[Stretch]] = {}
    end = time.monotonic() + seconds
    try:
        with FeedClient(run / "feed.sock", "now", data="memory", timeout_s=1.0) as client:
            for item in client:
                if item is not None and "packet" in item:
                    packet = item["packet"]
                    heads[packet["sensor"]] = packet
                    stretches.setdefault(packet["sensor"], []).append(
                        Stretch(parse_iso(packet["start"]), packet_samples(packet))
                    )
                if time.monotonic() >= end:
                    break
    except FeedError as error:
        output.fail(str(error))
    if not heads:
        output.fail(f"{run / 'feed.sock'}: no samples in {seconds:g} s; see gateway status")
    return [
        Source(
            sensor,
            tuple(head["channels"]),
            float(head["rate_hz"]),
            tuple(
                Sensitivity.parse(text) if text else None
                for text in head.get("sensitivities") or [None] * len(head["channels"])
            ),
            tuple(_joined(stretches[sensor], float(head["rate_hz"]))),
        )
        for sensor, head in heads.items()
    ]


def _joined(parts: Sequence[Any], rate_hz: float) -> Iterator[Any]:
    """Packets that follow each other as one stretch."""
    import numpy as np

    from gateway.drill.tune import Stretch
    from gateway.events import NS

    held = list(parts[:1])
    columns = held[0].samples.shape[1]
    for part in parts[1:]:
        late = (part.start_ns - held[0].start_ns) * rate_hz / NS - columns
        if abs(late) > 0.5:
            yield Stretch(held[0].start_ns, np.concatenate([p.samples for p in held], axis=1))
            held, columns = [], 0
        held.append(part)
        columns += part.samples.shape[1]
    yield Stretch(held[0].start_ns, np.concatenate([p.samples for p in held], axis=1))


def _show(found: "Found") -> None:
    output.say(f"{found.name}: {found.hours:.2f} h of samples")
    output.table(
        (
            {
                "channel": c["channel"],
                "RMS by band, Hz": "  ".join(
                    f"{b['band_hz'][0]:g}–{b['band_hz'][1]:g}: {b['median']:.2g}" for b in c["rms"]
                ),
                "weakest P": c["least_p"],
                "unit": c["unit"],
                "complete": f"{c['completeness']:.1%}",
                "data": ", ".join(f"{kind} {n}" for kind, n in c["quality"].items()) or "good",
            }
            for c in found.channels
        ),
        ("channel", "RMS by band, Hz", "weakest P", "unit", "complete", "data"),
    )
    for c in found.channels:
        if c["noise"] is not None:
            machines = f"; stands out: {', '.join(f'{f:g}' for f in c['lines_hz'])} Hz"
            output.say(
                f"{c['channel']}: {c['noise']['verdict']}{machines if c['lines_hz'] else ''}"
            )
    thresholds = sorted({t["trigger_on"] for t in found.triggers})
    bands = dict.fromkeys(tuple(t["band_hz"]) for t in found.triggers)
    rates = {(tuple(t["band_hz"]), t["trigger_on"]): t["per_hour"] for t in found.triggers}
    output.table(
        (
            {"band": f"{band[0]:g}–{band[1]:g} Hz"}
            | {f"{t:g}": rates.get((band, t)) for t in thresholds}
            for band in bands
        ),
        ("band", *(f"{t:g}" for t in thresholds)),
        title="onsets an hour by threshold (trigger_on)",
    )
    if found.onset_times:
        output.say("onsets with what is in force, false unless you know better:")
        for text in found.onset_times:
            output.say(f"  {text}")
    output.say(f"suggestion: {found.suggestion['why']}")
    if found.suggestion["toml"]:
        output.say(found.suggestion["toml"].rstrip())
