"""What an earlier run of the core left, read back when the next one starts.

Reads the newest segments first and no more of them than it takes, so that a start does not wait
for the whole journal.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gateway.core.journal_child import boot_id, boottime_ns
from gateway.core.segments import (
    Death,
    Entry,
    Kind,
    Mark,
    Position,
    Segments,
    StateFile,
    covered,
    position,
    unpack_record,
)

RESUME_RECORDS = 2_000
"""Most records that recovery gives."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an earlier run left.

    ``records`` are those after ``state`` was saved (at most the last 2,000), oldest first, each as
    (run id, seq, record). ``last_run_id`` and ``last_seq`` are of the last record kept, None and 0
    without one. ``skipped`` counts entries that damage cost among those looked at. ``problem``
    says what could not be read; the rest then still holds.
    """

    state: dict[str, Any] | None = None
    records: tuple[tuple[str, int, dict[str, Any]], ...] = ()
    last_run_id: str | None = None
    last_seq: int = 0
    deaths: tuple[Death, ...] = ()
    previous_boot_id: str | None = None
    skipped: int = 0
    problem: str = ""

    def deaths_within(self, span_ns: int) -> int:
        """How many cores died in this boot of the machine within the last ``span_ns``."""
        boot, since = boot_id(), boottime_ns() - span_ns
        return sum(d.boot_id == boot and d.boottime_ns >= since for d in self.deaths)


def recover(directory: Path) -> tuple[Recovered, Mark | None]:
    """What is in ``directory``, and its last mark. Never raises: see ``problem``."""
    problems: list[str] = []
    state, included = _state(directory, problems)
    entries = _entries_after(directory, included, problems)

    mark = _mark(directory, entries, problems)
    deaths = mark.deaths if mark else ()
    if mark and mark.running:
        # Neither the core nor its child came to say when: both were killed, or the power was cut.
        same_boot = mark.boot_id == boot_id()
        deaths += (Death(mark.boot_id, boottime_ns() if same_boot else mark.started_ns),)

    records = [(e.number, unpack_record(e.body)) for e in entries if e.kind is Kind.record]
    last = records[-1][1] if records else None
    known = covered(entries, included) if included else None
    resume: dict[tuple[str, int], dict[str, Any]] = {}
    for number, record in records[-RESUME_RECORDS:]:
        if number > (known or 0):
            try:
                resume[record.run_id, record.seq] = json.loads(record.line)
            except ValueError:
                problems.append(f"record {record.run_id}-{record.seq} is no JSON")
    recovered = Recovered(
        state=state,
        records=tuple((run_id, seq, value) for (run_id, seq), value in resume.items()),
        last_run_id=last.run_id if last else None,
        last_seq=last.seq if last else 0,
        deaths=deaths,
        previous_boot_id=mark.boot_id if mark else None,
        skipped=sum(b.number - a.number - 1 for a, b in pairwise(entries)),
        problem="; ".join(problems),
    )
    return recovered, mark


def _state(directory: Path, problems: list[str]) -> tuple[dict[str, Any] | None, Position]:
    """The saved state, and the last record that it includes."""
    try:
        if text := StateFile.load(directory):
            saved = json.loads(text)
            return dict(saved["state"]), position(saved["after"])
    except (OSError, ValueError, TypeError, LookupError) as error:
        problems.append(f"{directory}/state: {error}")
    return None, None


def _mark(directory: Path, entries: list[Entry], problems: list[str]) -> Mark | None:
    for entry in reversed(entries):
        if entry.kind is Kind.mark:
            try:
                return Mark.unpack(entry.body)
            except (ValueError, TypeError, LookupError) as error:
                problems.append(f"{directory}: mark {entry.number}: {error}")
    return None


def _entries_after(directory: Path, place: Position, problems: list[str]) -> list[Entry]:
    """The newest entries: back to ``place`` if need be, and to the last mark in any case."""
    entries: list[Entry] = []
    try:
        segments = Segments(directory)
    except OSError as error:
        problems.append(f"{directory}: {error}")
        return entries
    for segment in reversed(segments.in_order()):
        try:
            older = list(segment.read())
        except OSError as error:
            problems.append(f"{segment.path}: {error}")
            continue
        if not older:
            continue
        newest = entries[0].number if entries else older[-1].number + 1
        entries = [e for e in older if e.number < newest] + entries
        records = sum(entry.kind is Kind.record for entry in entries)
        if records >= RESUME_RECORDS or (place and covered(older, place) is not None):
            break
    if segments.unreadable:
        problems.append(f"{directory}: {segments.unreadable} segments can't be read")
    segments.close()
    return entries
