"""``python -m tests.campaign``: rounds of random faults, several stations at a time, and a table.

Exits 1 when a siren was stuck or silent, and leaves what the round did in ``--keep``.
"""

import argparse
import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.campaign.script import Kind, rounds
from tests.core.station import REPOSITORY

DEVICE_PRIORITY = 30
"""Devices do not wait for a scheduler, so neither do their simulators: before the core's 20."""


def find_faketime() -> str | None:
    """The library that steps a process's clock; ``tools/setup`` unpacks it from Debian."""
    for place in (REPOSITORY / ".venv/debian/usr/lib", Path("/usr/lib")):
        for path in place.glob("*/faketime/libfaketime.so.1"):
            return str(path)
    return None


def work() -> None:
    """A worker: seeds in, one a line; outcomes out, one a line."""
    from tests.campaign.station import play  # noqa: PLC0415  not needed to collect

    options = json.loads(sys.stdin.readline())
    _become_a_device()
    made = {r.seed: r for r in rounds(options["seed"], options["faults"])}
    keep = Path(options["keep"]) if options["keep"] else None
    for line in sys.stdin:
        outcome = play(made[line.strip()], options["faketime"], keep)
        print(json.dumps(outcome.record()), flush=True)


def _become_a_device() -> None:
    policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(DEVICE_PRIORITY))
    except OSError:
        print("no real-time priority here: times are those of the scheduler", file=sys.stderr)


class Worker:
    """One station at a time, in a process of its own."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign", "--work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            text=True,
        )
        self.seed = ""
        self._say(json.dumps(options))

    def give(self, seed: str) -> None:
        self.seed = seed
        self._say(seed)

    def take(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker of round {self.seed} has died")
        outcome: dict[str, Any] = json.loads(line)
        return outcome

    def fileno(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)


def campaign(
    seed: int, faults: int, stations: int, keep: Path | None, *, quiet: bool = False
) -> list[dict[str, Any]]:
    """The outcomes of all rounds."""
    seeds = [r.seed for r in rounds(seed, faults)]
    options = {
        "seed": seed,
        "faults": faults,
        "faketime": find_faketime(),
        "keep": str(keep) if keep else None,
    }
    workers = [Worker(options) for _ in range(min(stations, len(seeds)))]
    waiting, outcomes = iter(seeds), []
    for worker, first in zip(workers, itertools.islice(waiting, len(workers)), strict=True):
        worker.give(first)
    busy = set(workers)
    try:
        while busy:
            for worker in select.select(list(busy), [], [])[0]:
                outcomes.append(worker.take())
                if not quiet:
                    _say(outcomes[-1], len(outcomes), len(seeds))
                if (following := next(waiting, None)) is None:
                    busy.discard(worker)
                else:
                    worker.give(following)
    finally:
        for worker in workers:
            worker.close()
    return outcomes


def _say(outcome: dict[str, Any], done: int, of: int) -> None:
    if outcome["wrong"]:
        print(f"{outcome['seed']} {outcome['kinds']}: {'; '.join(outcome['wrong'])}", flush=True)
    elif done % 20 == 0 or done == of:
        print(f"{done} of {of} rounds", flush=True)


def table(outcomes: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row a kind of fault, then the sums."""
    count = Counter(kind for o in outcomes for kind in o["kinds"])
    count.subtract(kind for o in outcomes for kind in o["left_out"])
    wrong = Counter(kind for o in outcomes if o["wrong"] for kind in set(o["kinds"]))
    rows = ["| fault | injected | in rounds with a fault of the gateway |", "|---|---|---|"]
    rows += [f"| {kind.value} | {count[kind.name]} | {wrong[kind.name]} |" for kind in Kind]
    rows.append(f"| all | {count.total()} | {sum(bool(o['wrong']) for o in outcomes)} |")
    silent = sorted(x for o in outcomes for x in o["silent_s"])
    resumed = sorted(x for o in outcomes for x in o["resumed_s"])
    stalled = sum(bool(o["stalled"]) for o in outcomes)
    rows += ["", f"rounds in which the machine held up the devices themselves: {stalled}"]
    for name, times in (("silent", silent), ("sounding again", resumed)):
        if times:
            middle, worst = times[len(times) // 2], times[-1]
            rows.append(
                f"{name} after a core's death: median {middle:.2f} s, longest {worst:.2f} s"
                f" ({len(times)} sirens)"
            )
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--faults", type=int, default=1000, help="how many in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stations", type=int, default=4, help="how many at a time")
    parser.add_argument("--only", metavar="SEED", help="one round alone, as 1/17")
    parser.add_argument("--keep", type=Path, default=Path(".campaign"), metavar="FOLDER")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return 0
    if options.only:
        from tests.campaign.station import play  # noqa: PLC0415  the parent does without

        _become_a_device()
        made = {r.seed: r for r in rounds(options.seed, options.faults)}
        outcome = play(made[options.only], find_faketime(), options.keep)
        print(json.dumps(outcome.record(), indent=1))
        return 1 if outcome.wrong else 0
    began = time.monotonic()
    outcomes = campaign(options.seed, options.faults, options.stations, options.keep)
    minutes = (time.monotonic() - began) / 60
    print(table(outcomes))
    print(
        f"seed {options.seed}, {len(outcomes)} rounds, {options.stations} stations at a time, "
        f"{minutes:.0f} min"
    )
    return 1 if any(outcome["wrong"] for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
