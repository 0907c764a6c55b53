"""What happens in a round: the siren's pattern, and the faults with their times, from the seed.

The same seed gives the same rounds, whatever runs them and however many at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final, Literal

Siren = Literal["main", "horn"]
"""``main`` is a Modbus relay with a timer of its own, ``horn`` a USB relay without any."""


class Kind(StrEnum):
    """What goes wrong."""

    kill_core = "core: SIGKILL"
    crash_core = "core: SIGSEGV"
    hang_core = "core: SIGSTOP until the watchdog"
    pause_core = "core: SIGSTOP for up to 1.2 s"
    stop_core = "core: systemctl restart"
    kill_both = "core and journal child: SIGKILL"
    kill_again = "core: SIGKILL, and again while starting"
    kill_last_resort = "core: SIGKILL, and --sirens-off too"
    third_death = "core: SIGKILL three times in a minute"
    kill_journal = "journal child: SIGKILL"
    pause_journal = "journal child: SIGSTOP for up to 6 s"
    disk_fails = "disk: every write fails, up to 6 s"
    kill_uplink = "uplink: SIGKILL"
    pause_uplink = "uplink: SIGSTOP for up to 6 s"
    unplug_gauge = "contact's line: unplugged and back"
    garble_gauge = "contact's line: garbage"
    unplug_seismometer = "seismometer's line: unplugged and back"
    garble_seismometer = "seismometer's line: garbage"
    unplug_siren = "siren's line: unplugged and back"
    garble_siren = "siren's line: garbage"
    silence_siren = "siren's line: nothing passes"
    power_siren = "siren's board: power lost and back"
    step_clock = "system clock: stepped"
    intrude = "sockets: garbage from a client"


DEATHS: Final = {
    Kind.kill_core: 1,
    Kind.crash_core: 1,
    Kind.hang_core: 1,
    Kind.kill_both: 1,
    Kind.kill_last_resort: 1,
    Kind.kill_again: 2,
    Kind.third_death: 3,
    Kind.stop_core: 0,
}
"""How many cores die; two in a minute are survived with the alert, the third drops it."""
LAST: Final = {Kind.stop_core, Kind.third_death}
"""After these nothing sounds any more."""
BEFORE: Final = {
    Kind.kill_journal,
    Kind.pause_journal,
    Kind.disk_fails,
    Kind.kill_uplink,
    Kind.pause_uplink,
    Kind.step_clock,
    Kind.intrude,
}
"""These may also come before the alert begins."""
UPLINK: Final = {Kind.kill_uplink, Kind.pause_uplink}

_WEIGHTS: Final = {Kind.kill_core: 3, Kind.hang_core: 2, Kind.unplug_siren: 2, Kind.kill_again: 2}
_PATTERNS: Final = ((9.0,), (3.0, 2.0, 1.0, 2.0), (2.0, 1.0), (5.0, 2.0), (1.0, 1.0), (4.0, 3.0))
"""Seconds of sound and silence in turn; the second is the disaster signal, five times faster."""
LONGEST_S: Final = 12.0


@dataclass(frozen=True, slots=True)
class Fault:
    """``at_s`` after the alert's beginning; ``for_s`` is how long, or a clock's step."""

    kind: Kind
    at_s: float
    for_s: float
    siren: Siren


@dataclass(frozen=True, slots=True)
class Round:
    """One station's life. ``belief`` is of the relay's timer, ``board`` what is true of it."""

    seed: str
    pattern: tuple[float, ...]
    repeat: int
    belief: Literal["yes", "no", "unknown"]
    board: Literal["yes", "no"]
    faults: tuple[Fault, ...]

    @property
    def length_s(self) -> float:
        return sum(self.pattern) * self.repeat

    @property
    def stretches_s(self) -> list[tuple[float, float]]:
        """From when until when the pattern sounds, seconds from its start."""
        found: list[tuple[float, float]] = []
        at_s = 0.0
        for number, step_s in enumerate(self.pattern * self.repeat):
            if number % len(self.pattern) % 2 == 0:
                if found and found[-1][1] == at_s:
                    found[-1] = found[-1][0], at_s + step_s
                else:
                    found.append((at_s, at_s + step_s))
            at_s += step_s
        return found


def rounds(seed: int, count: int) -> Iterator[Round]:
    """Rounds with ``count`` faults in all."""
    number = 0
    while count > 0:
        made = _round(f"{seed}/{number}", count)
        yield made
        count -= len(made.faults)
        number += 1


def _round(seed: str, most: int) -> Round:
    random = Random(seed)
    pattern = random.choice(_PATTERNS)
    repeat = max(1, int(LONGEST_S // sum(pattern)))
    belief, board = random.choice(
        [("yes", "yes"), ("no", "no"), ("no", "yes"), ("unknown", "yes"), ("unknown", "no")]
    )
    length_s = sum(pattern) * repeat
    faults = _faults(random, min(most, random.choice((2, 2, 3, 3, 4))), length_s)
    return Round(seed, pattern, repeat, belief, board, faults)  # type: ignore[arg-type]  # mypy loses the literals in the choice


def _fits(kind: Kind, drawn: list[Kind]) -> bool:
    """The end of a round stands alone among deaths, and no other deaths are three."""
    before = [other for other in drawn if other in DEATHS]
    if kind not in DEATHS or not before:
        return True
    if kind in LAST or LAST & set(before):
        return False
    return sum(DEATHS[other] for other in (*before, kind)) <= 2


def _faults(random: Random, count: int, length_s: float) -> tuple[Fault, ...]:
    drawn: list[Kind] = []
    while len(drawn) < count:
        kind = random.choices(list(Kind), [_WEIGHTS.get(kind, 1) for kind in Kind])[0]
        if _fits(kind, drawn):
            drawn.append(kind)
    faults = []
    for kind in drawn:
        first_s = -1.0 if kind in BEFORE else 1.5 if kind is Kind.kill_both else 0.05
        at_s = random.uniform(first_s, length_s + 1.0)
        longest_s = {Kind.pause_core: 1.2, Kind.step_clock: 1e6}.get(kind, 6.0)
        if kind in {Kind.garble_siren, Kind.silence_siren, Kind.power_siren}:
            longest_s = 3.0
        for_s = random.uniform(-longest_s if kind is Kind.step_clock else 0.1, longest_s)
        faults.append(Fault(kind, at_s, for_s, random.choice(("main", "horn"))))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))
