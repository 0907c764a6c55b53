"""Whether the sirens did what they had to: the relays' logs against the pattern and the faults.

Two claims. *Never stuck*: a relay is closed only while the pattern sounds, but for the time in
which nobody could have told it: 3 s after a core's death, and while its line is down (where the
device has no timer of its own; with one 3 s, or the end of the stretch). *Never silent*: while the
pattern sounds the relay is closed, but for 3 s after a core's death, and until its line is back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.events import NS

Span = tuple[int, int]
"""From when until when, ns of CLOCK_BOOTTIME."""

EDGE_NS: Final = 350_000_000
"""An edge may be so late where a frame was lost: a time-out, its repetition, and some load."""
RESUME_NS: Final = 3 * NS
"""After a core's death: so long a siren may sound on, and so long it may be silent."""
FOREVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which sirens could not be told. ``siren`` is "" for all of them.

    ``sounds_ns`` and ``silent_ns``: until when what sounded may sound on, and what was to sound be
    silent. ``death_ns``: when a core died of it.
    """

    what: str
    siren: str
    start_ns: int
    sounds_ns: int
    silent_ns: int
    death_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Wrong:
    """A claim that did not hold."""

    claim: str
    siren: str
    span: Span

    def __str__(self) -> str:
        start, end = self.span
        return f"{self.claim}: {self.siren} for {(end - start) / NS:.2f} s"


def minus(spans: Iterable[Span], *others: Iterable[Span]) -> list[Span]:
    """What is in ``spans`` and in none of the others."""
    left = list(spans)
    for start, end in (span for other in others for span in other):
        left = [
            piece
            for a, b in left
            for piece in ((a, min(b, start)), (max(a, end), b))
            if piece[0] < piece[1]
        ]
    return sorted(left)


def closed(changes: Sequence[tuple[int, bool]], end_ns: int) -> list[Span]:
    """When a relay was closed, from its changes."""
    found, since = [], None
    for at_ns, on in changes:
        if on and since is None:
            since = at_ns
        elif not on and since is not None:
            found.append((since, at_ns))
            since = None
    return found if since is None else [*found, (since, end_ns)]


def judge(
    siren: str,
    wanted: Sequence[Span],
    sounded: Sequence[Span],
    outages: Sequence[Outage],
    quiet: Span | None,
) -> list[Wrong]:
    """What a siren did wrong.

    Args:
        siren: its name.
        wanted: when the pattern sounds.
        sounded: when the relay was closed.
        outages: when it could not be told.
        quiet: from when on nothing is to sound any more, and how long it may take to be silent.
    """
    mine = [outage for outage in outages if outage.siren in ("", siren)]
    if quiet is not None:
        wanted = minus(wanted, [(quiet[0], FOREVER)])
    allowed = [(a - EDGE_NS, b + EDGE_NS) for a, b in wanted] + ([quiet] if quiet else [])
    stuck = minus(sounded, allowed, [(o.start_ns, o.sounds_ns) for o in mine])
    due = [(a + EDGE_NS, b - EDGE_NS) for a, b in wanted if b - a > 2 * EDGE_NS]
    silent = minus(due, sounded, [(o.start_ns, o.silent_ns) for o in mine])
    return [
        *(Wrong("stuck", siren, span) for span in stuck),
        *(Wrong("silent", siren, (a, b)) for a, b in silent if b - a > EDGE_NS or (a, b) in due),
    ]


def silent_after(death_ns: int, sounded: Sequence[Span]) -> int | None:
    """How long a siren that sounded at a core's death went on; None if it did not fall silent.

    It did not where it was silent already, or was taken up again without a gap.
    """
    lasted = next((b - death_ns for a, b in sounded if a <= death_ns < b), None)
    return lasted if lasted is not None and lasted <= RESUME_NS else None


def resumed_after(death_ns: int, wanted: Sequence[Span], sounded: Sequence[Span]) -> int | None:
    """How long after a core's death it sounded again; None where nothing was to be resumed.

    Only where it fell silent by this death, and one stretch of the pattern holds all of the time
    until the resumption: else the wait is the pattern's own.
    """
    end_ns = next((b for a, b in wanted if a <= death_ns < b), None)
    lasted = silent_after(death_ns, sounded)
    if end_ns is None or lasted is None:
        return None
    again = next((a for a, _ in sounded if a >= death_ns + lasted), None)
    return again - death_ns if again is not None and again < end_ns else None
