"""The journal loses nothing that it was given, whichever process dies, and never holds the core up.

Every test runs the real child process. A failing disk is made by a file ``broken`` whose presence
makes the child's system calls fail: the child inherits the patched functions when it is forked.
"""

import contextlib
import errno
import json
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core import journal as journal_module
from gateway.core import journal_child
from gateway.core.journal import (
    Batch,
    Committed,
    Failed,
    Healed,
    Item,
    Journal,
    Lost,
    Position,
    Record,
    boot_id,
)
from gateway.core.recovery import recover
from gateway.core.segments import Kind, Segments, encode

WAIT_S = 30.0
QUOTA = 16 << 16
SEGMENT = 1 << 16


class Core:
    """A core's loop around a journal, as far as the journal is concerned."""

    def __init__(
        self, directory: Path, quota: int = QUOTA, segment: int = SEGMENT, wait_s: float = WAIT_S
    ) -> None:
        self.journal = Journal.start(directory, quota, segment_bytes=segment, wait_s=wait_s)
        self.selector = selectors.DefaultSelector()
        self.journal.register(self.selector)
        self.seen: list[Item] = []
        self.seq = 0
        self.token = 0

    def turn(self, timeout_s: float = 0.0) -> None:
        for key, mask in self.selector.select(timeout_s):
            key.data(mask)
        self.journal.flush()
        self.seen += self.journal.poll()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        self.journal.flush()
        while not condition():
            assert time.monotonic() < deadline, self.seen
            self.turn(0.2)

    def until_seen(self, *items: Item) -> None:
        self.until(lambda: all(item in self.seen for item in items))

    def until_failed(self, kind: str, token: int | None = None) -> Failed:
        def found() -> list[Failed]:
            failed = [i for i in self.seen if isinstance(i, Failed)]
            return [i for i in failed if (i.kind, i.token) == (kind, token)]

        self.until(lambda: bool(found()))
        return found()[0]

    def append(self, count: int = 1, run_id: str = "run", *, important: bool = True) -> None:
        for _ in range(count):
            self.seq += 1
            line = json.dumps({"type": "alert", "n": self.seq}).encode()
            self.journal.append(run_id, self.seq, line, important=important)

    def commit(self) -> None:
        self.token += 1
        self.journal.commit(self.token)
        self.until_seen(Committed(self.token))

    def read(self, after: Position, limit: int = 500) -> Batch:
        self.seen = [item for item in self.seen if not isinstance(item, Batch)]
        self.journal.read_after(after, limit)
        self.until(lambda: any(isinstance(i, Batch) and i.after == after for i in self.seen))
        batch = next(i for i in self.seen if isinstance(i, Batch) and i.after == after)
        self.seen.remove(batch)
        return batch


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Core]]:
    cores: list[Core] = []

    def make(directory: Path = tmp_path, **options: Any) -> Core:
        cores.append(Core(directory, **options))
        return cores[-1]

    yield make
    for core in cores:
        core.journal.close(WAIT_S)
        core.selector.close()


@pytest.fixture
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fault") / "broken"


def kept(directory: Path) -> list[tuple[str, int]]:
    recovered, _ = recover(directory)
    return [(run_id, seq) for run_id, seq, _ in recovered.records]


# --- keeping and giving back


def test_a_fresh_directory_has_nothing_to_recover(
    start: Callable[..., Core], tmp_path: Path
) -> None:
    recovered = start(tmp_path / "made" / "here").journal.recovered
    assert recovered == type(recovered)()


def test_records_and_state_come_back_after_a_clean_exit(start: Callable[..., Core]) -> None:
    core = start()
    core.append(3)
    core.journal.save_state({"arming": "silent"})
    core.append(2)
    core.journal.clean_exit()
    assert core.journal.close(WAIT_S)

    recovered = start().journal.recovered
    assert recovered.state == {"arming": "silent"}
    assert recovered.records == (
        ("run", 4, {"type": "alert", "n": 4}),
        ("run", 5, {"type": "alert", "n": 5}),
    )
    assert (recovered.last_run_id, recovered.last_seq) == ("run", 5)
    assert recovered.previous_boot_id == boot_id()
    assert recovered.deaths == ()
    assert recovered.skipped == 0
    assert recovered.problem == ""


def test_without_a_state_every_record_comes_back(start: Callable[..., Core]) -> None:
    core = start()
    core.append(500)
    core.journal.close(WAIT_S)
    assert [seq for _, seq, _ in start().journal.recovered.records] == list(range(1, 501))


def test_the_newest_of_several_queued_states_is_stored(start: Callable[..., Core]) -> None:
    core = start()
    for n in range(100):
        core.journal.save_state({"n": n})
    assert len(core.journal._queue) <= 1
    core.commit()
    core.journal.close(WAIT_S)
    assert start().journal.recovered.state == {"n": 99}


def test_a_state_that_is_too_long_fails_its_commit_and_the_last_one_stands(
    start: Callable[..., Core],
) -> None:
    core = start()
    core.journal.save_state({"good": True})
    core.commit()
    core.journal.save_state({"bad": "x" * (2 << 20)})
    core.journal.commit(77)
    core.until_failed("state", 77)
    core.journal.save_state({"good": "again"})
    core.commit()
    core.until_seen(Healed("state"))
    core.journal.close(WAIT_S)
    assert start().journal.recovered.state == {"good": "again"}


def test_a_record_that_is_too_long_is_counted_and_skipped(start: Callable[..., Core]) -> None:
    core = start()
    assert not core.journal.append("run", 1, b"x" * (1 << 20))
    core.turn()
    assert core.seen == [Lost("too_long", 1)]


# --- reading back for the feed


def test_reading_gives_what_comes_after_in_order_over_all_runs(start: Callable[..., Core]) -> None:
    first = start()
    first.append(1500, "one")
    first.journal.close(WAIT_S)
    core = start()
    core.append(700, "two")
    everything = [("one", n) for n in range(1, 1501)] + [("two", n) for n in range(1, 701)]

    after: Position = ("one", 1234)
    found: list[tuple[str, int]] = []
    done = False
    while not done:
        batch = core.read(after, limit=300)
        assert batch.complete
        assert len(batch.records) <= 300
        found += [(r.run_id, r.seq) for r in batch.records]
        after, done = found[-1], batch.done
    assert found == everything[1234:]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (None, [("a", 1), ("a", 2), ("b", 1), ("b", 2)]),
        (("a", 1), [("a", 2), ("b", 1), ("b", 2)]),
        (("a", 2), [("b", 1), ("b", 2)]),
        (("a", 99), [("b", 1), ("b", 2)]),
        (("b", 2), []),
        (("never seen", 5), [("a", 1), ("a", 2), ("b", 1), ("b", 2)]),
    ],
)
def test_a_position_means(
    start: Callable[..., Core], after: Position, expected: list[tuple[str, int]]
) -> None:
    first = start()
    first.append(2, "a")
    first.journal.close(WAIT_S)
    core = start()
    core.append(2, "b")
    batch = core.read(after)
    assert [(r.run_id, r.seq) for r in batch.records] == expected
    assert batch.done
    assert batch.complete


def test_a_line_comes_back_byte_for_byte(start: Callable[..., Core]) -> None:
    core = start()
    line = '{"type":"alert","text_zh":"本地实测达到红色标准"}'.encode()
    core.journal.append("run", 1, line)
    assert core.read(None).records == (Record("run", 1, line),)


def test_what_the_quota_overwrites_unstored_is_counted(start: Callable[..., Core]) -> None:
    core = start(quota=4 * 8192, segment=8192)
    core.append(60)
    core.journal.stored("run", 50)
    core.commit()
    core.append(1000)
    core.commit()
    oldest = core.read(None).records[0].seq
    lost = sum(i.count for i in core.seen if isinstance(i, Lost) and i.kind == "overwritten")
    assert lost == oldest - 1 - 50


def test_what_is_overwritten_is_counted_once_even_if_the_disk_fails_meanwhile(
    start: Callable[..., Core], monkeypatch: pytest.MonkeyPatch, broken: Path
) -> None:
    real = os.fdatasync

    def faulty(fd: int) -> None:
        if broken.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", faulty)
    monkeypatch.setattr(journal_child, "MAX_RETRY_NS", journal_child.RETRY_NS)
    core = start(quota=4 * 8192, segment=8192)
    core.append(500)
    core.commit()
    broken.touch()
    for token in range(100, 110):
        core.append(50)
        core.journal.commit(token)
        core.until_failed("disk", token)
    broken.unlink()
    core.commit()
    oldest = core.read(None).records[0].seq
    lost = sum(i.count for i in core.seen if isinstance(i, Lost) and i.kind == "overwritten")
    assert lost == oldest - 1


def test_what_the_uplink_has_stored_is_remembered_across_restarts(
    start: Callable[..., Core],
) -> None:
    core = start(quota=4 * 8192, segment=8192)
    core.append(100)
    core.journal.stored("run", 100)
    core.commit()
    core.journal.close(WAIT_S)
    core = start(quota=4 * 8192, segment=8192)
    for n in range(1, 300):
        core.journal.append("next", n, b'{"type":"alert"}')
    core.journal.stored("next", 299)
    core.commit()
    assert not [i for i in core.seen if isinstance(i, Lost)]


# --- deaths of the core

CORE = """
import sys
from pathlib import Path
from gateway.core.journal import Journal

journal = Journal.start(Path(sys.argv[1]), 4 << 20, segment_bytes=1 << 16)
seq = 0
while True:
    for _ in range(20):
        seq += 1
        journal.append(sys.argv[2], seq, b'{"type":"siren","n":%d}' % seq, important=True)
    journal.flush()
    journal.poll()
    if not journal.wants_write:
        print(seq, flush=True)
"""


def killed_core(directory: Path, run_id: str, rounds: int) -> int:
    """Run a core, kill it without warning, and say up to where its records were in the pipe."""
    with subprocess.Popen(
        [sys.executable, "-c", CORE, str(directory), run_id], stdout=subprocess.PIPE, text=True
    ) as core:
        assert core.stdout is not None
        handed_over = 0
        for line in core.stdout:
            handed_over = int(line)
            if handed_over >= rounds * 20:
                core.kill()
                break
        rest = core.stdout.read().splitlines()
    whole = [int(line) for line in rest[:-1]]
    return max([handed_over, *whole])


def test_a_killed_core_loses_nothing_that_was_in_the_pipe(tmp_path: Path) -> None:
    rng = random.Random(20260511)
    for round_ in range(6):
        run_id = f"run{round_}"
        handed_over = killed_core(tmp_path, run_id, rng.randrange(1, 80))
        journal = Journal.start(tmp_path, 4 << 20, segment_bytes=1 << 16, wait_s=WAIT_S)
        recovered = journal.recovered
        seqs = [seq for run, seq, _ in recovered.records if run == run_id]
        assert recovered.last_run_id == run_id
        assert recovered.last_seq >= handed_over
        assert seqs == list(range(seqs[0], recovered.last_seq + 1))
        assert recovered.skipped == 0
        assert len(recovered.deaths) == round_ + 1
        journal.clean_exit()
        assert journal.close(WAIT_S)


def test_deaths_are_counted_within_a_span_of_this_boot(tmp_path: Path) -> None:
    for round_ in range(3):
        killed_core(tmp_path, f"run{round_}", 1)
    journal = Journal.start(tmp_path, wait_s=WAIT_S)
    assert journal.recovered.deaths_within(60 * 10**9) == 3
    assert journal.recovered.deaths_within(0) == 0
    journal.clean_exit()
    journal.close(WAIT_S)


def test_a_death_without_a_witness_counts_too(start: Callable[..., Core]) -> None:
    core = start()
    core.append()
    core.commit()
    os.kill(core.journal.pid, signal.SIGKILL)
    core.until_failed("child")
    recovered = start().journal.recovered
    assert [death.boot_id for death in recovered.deaths] == [boot_id()]
    assert recovered.deaths_within(60 * 10**9) == 1


def test_deaths_of_another_boot_do_not_count(
    start: Callable[..., Core], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "boot_id", lambda: "an earlier boot")
    core = start()
    core.append()
    core.journal.close(WAIT_S)
    monkeypatch.undo()
    recovered = start().journal.recovered
    assert recovered.previous_boot_id == "an earlier boot"
    assert len(recovered.deaths) == 1
    assert recovered.deaths_within(10**18) == 0


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT],
    ids=lambda number: number.name,
)
def test_the_child_outlives_what_stops_the_unit(
    start: Callable[..., Core], number: signal.Signals
) -> None:
    core = start()
    core.commit()
    os.kill(core.journal.pid, number)
    core.append()
    core.commit()


def test_the_child_holds_nothing_open_but_its_pipes_and_files(
    start: Callable[..., Core], tmp_path: Path
) -> None:
    read_end, write_end = os.pipe()
    try:
        core = start()
        core.commit()
        links = Path(f"/proc/{core.journal.pid}/fd").iterdir()
        targets = {link.readlink() for link in links if int(link.name) > 2}
        files = {path for path in targets if path.is_relative_to(tmp_path)}
        assert len(targets - files) == 2
    finally:
        os.close(read_end)
        os.close(write_end)


def test_the_child_is_ordinary_and_named(start: Callable[..., Core]) -> None:
    usual = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("real-time priority takes a privilege")
    try:
        core = start()
    finally:
        os.sched_setscheduler(0, usual, os.sched_param(0))
    core.commit()
    assert os.sched_getscheduler(core.journal.pid) == os.SCHED_OTHER
    assert Path(f"/proc/{core.journal.pid}/comm").read_text() == "gateway-journal\n"


# --- deaths of the child


def test_a_dead_child_is_noticed_and_a_new_one_gets_what_it_left_undone(
    start: Callable[..., Core],
) -> None:
    core = start()
    core.append(10)
    core.commit()
    os.kill(core.journal.pid, signal.SIGSTOP)
    core.append(10)
    core.journal.save_state({"counter": 5})
    core.journal.commit(50)
    core.journal.read_after(None)
    core.turn()
    os.kill(core.journal.pid, signal.SIGKILL)
    core.until(lambda: core.journal.pid == 0)
    assert [i.token for i in core.seen if isinstance(i, Failed)] == [None, 50]
    assert Batch(None, (), done=True, complete=False) in core.seen

    core.append(10)
    core.journal.commit(51)
    core.turn()
    assert Failed("child", "the journal child is dead", 51) in core.seen
    core.journal.restart()
    core.commit()
    assert Healed("child") in core.seen
    assert [r.seq for r in core.read(None).records] == list(range(1, 31))
    core.journal.close(WAIT_S)
    assert start().journal.recovered.state == {"counter": 5}


def test_restarts_wait_longer_and_longer_until_something_was_kept(
    start: Callable[..., Core],
) -> None:
    core = start()
    delays = []
    for _ in range(8):
        core.until(lambda: core.journal.pid != 0)
        os.kill(core.journal.pid, signal.SIGKILL)
        core.until(lambda: core.journal.pid == 0)
        delays.append(core.journal.restart_delay_s)
        core.journal.restart()
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    core.append()
    core.commit()
    assert core.journal.restart_delay_s == 1


def test_children_that_die_again_and_again_lose_nothing(start: Callable[..., Core]) -> None:
    rng = random.Random(7)
    core = start()
    for _ in range(12):
        core.append(rng.randrange(1, 200))
        for _ in range(rng.randrange(4)):
            core.turn()
        os.kill(core.journal.pid, signal.SIGKILL)
        core.until(lambda: core.journal.pid == 0)
        core.journal.restart()
    core.commit()
    after: Position = None
    seqs: list[int] = []
    while True:
        batch = core.read(after)
        seqs += [r.seq for r in batch.records]
        if batch.done:
            break
        after = ("run", seqs[-1])
    assert seqs == list(range(1, core.seq + 1))


# --- disks that fail

FAULTS = [
    pytest.param("pwrite", errno.ENOSPC, id="full"),
    pytest.param("pwrite", errno.EROFS, id="read-only"),
    pytest.param("pwrite", errno.EIO, id="write error"),
    pytest.param("fdatasync", errno.EIO, id="sync error"),
]


@pytest.mark.parametrize(("call", "number"), FAULTS)
def test_a_failing_disk_is_said_once_and_nothing_is_lost_when_it_heals(
    start: Callable[..., Core],
    monkeypatch: pytest.MonkeyPatch,
    broken: Path,
    call: str,
    number: int,
) -> None:
    real = getattr(os, call)

    def faulty(*arguments: object) -> object:
        if broken.exists():
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(os, call, faulty)
    monkeypatch.setattr(journal_child, "MAX_RETRY_NS", journal_child.RETRY_NS)
    core = start()
    core.append(5)
    core.commit()
    broken.touch()
    for token in range(100, 110):
        core.append(5)
        core.journal.save_state({"token": token})
        core.journal.commit(token)
        core.until_failed("disk", token)
    failed = [i for i in core.seen if isinstance(i, Failed)]
    assert [i.token for i in failed] == [None, *range(100, 110)]
    assert os.strerror(number) in failed[0].reason

    broken.unlink()
    core.until_seen(Healed("disk"))
    core.commit()
    assert [r.seq for r in core.read(None).records] == list(range(1, 56))
    core.journal.close(WAIT_S)
    assert start().journal.recovered.state == {"token": 109}


def test_records_that_wait_for_the_disk_can_be_read(
    start: Callable[..., Core], monkeypatch: pytest.MonkeyPatch, broken: Path
) -> None:
    real = os.pwrite

    def faulty(fd: int, data: bytes, offset: int) -> int:
        if broken.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", faulty)
    monkeypatch.setattr(journal_child, "MAX_RETRY_NS", journal_child.RETRY_NS)
    core = start()
    core.append(5)
    core.commit()
    broken.touch()
    core.append(5)
    core.until_failed("disk")
    assert [r.seq for r in core.read(("run", 3)).records] == [4, 5, 6, 7, 8, 9, 10]
    batch = core.read(("run", 3), limit=4)
    assert [r.seq for r in batch.records] == [4, 5, 6, 7]
    assert not batch.done
    broken.unlink()
    core.until_seen(Healed("disk"))
    core.commit()
    assert [r.seq for r in core.read(("run", 7)).records] == [8, 9, 10]


def test_a_core_killed_on_a_failing_disk_leaves_no_child_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", faulty)
    monkeypatch.setattr(journal_child, "GIVE_UP_NS", 200_000_000)
    journal = Journal.start(tmp_path)
    journal.append("run", 1, b"{}")
    assert not journal.close(WAIT_S)
    assert journal.pid == 0


def test_a_directory_that_cannot_be_made_is_said_and_the_core_goes_on(
    start: Callable[..., Core], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_child, "GIVE_UP_NS", 200_000_000)
    (tmp_path / "file").write_text("")
    core = start(tmp_path / "file" / "core")
    core.append()
    assert "file/core" in core.until_failed("disk").reason


def test_one_directory_has_one_writer(start: Callable[..., Core], tmp_path: Path) -> None:
    lock = journal_child.lock(tmp_path)
    core = start(wait_s=0.0)
    core.append()
    assert "another gateway" in core.until_failed("disk").reason
    os.close(lock)
    core.until_seen(Healed("disk"))
    core.journal.close(WAIT_S)
    assert kept(tmp_path) == [("run", 1)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("mounting takes root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_quota_larger_than_the_disk_is_said_and_what_fits_is_used(
    start: Callable[..., Core], small_disk: Path
) -> None:
    core = start(small_disk, quota=64 << 20, segment=1 << 18)
    core.append(5)
    core.commit()
    assert "No space left" in core.until_failed("space").reason
    core.append(20_000)
    core.commit()
    assert core.read(("run", 20_000)).records[-1].seq == 20_005


def test_what_is_allocated_is_not_lost_to_a_disk_that_others_fill(
    start: Callable[..., Core], small_disk: Path
) -> None:
    core = start(small_disk, quota=1 << 20, segment=1 << 18)
    core.commit()
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    core.append(5_000)
    core.journal.save_state({"n": 1})
    core.commit()
    assert not [i for i in core.seen if isinstance(i, Failed)]


def test_a_disk_that_is_full_from_the_start_heals_when_there_is_room(
    start: Callable[..., Core], small_disk: Path
) -> None:
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 14))
            file.flush()
    core = start(small_disk, quota=1 << 20, segment=1 << 18)
    core.append(5)
    assert "No space left" in core.until_failed("disk").reason
    filler.unlink()
    core.until_seen(Healed("disk"))
    core.commit()
    assert [r.seq for r in core.read(None).records] == [1, 2, 3, 4, 5]


# --- the core never waits


def test_a_stuck_disk_never_holds_the_core_up_and_alerts_are_dropped_last(
    start: Callable[..., Core],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    gate = tmp_path_factory.mktemp("gate") / "gate"
    os.mkfifo(gate)
    real = os.fdatasync

    def stuck(fd: int) -> None:
        os.close(os.open(gate, os.O_RDONLY))  # until somebody opens it for writing
        real(fd)

    monkeypatch.setattr(os, "fdatasync", stuck)
    core = start()
    journal = core.journal
    journal.commit(1)
    line = b'{"pad":"' + b"x" * 1000 + b'"}'
    ordinary = important = 0
    while journal.append("run", ordinary + 1, line):
        ordinary += 1
        journal.flush()
    while journal.append("run", ordinary + important + 1, line, important=True):
        important += 1
        journal.flush()
    assert journal.wants_write
    assert ordinary * len(line) < journal_module.ORDINARY_BYTES
    assert important * len(line) > journal_module.IMPORTANT_BYTES / 2
    core.turn()
    assert [i.kind for i in core.seen if isinstance(i, Failed)] == ["queue"]

    monkeypatch.undo()
    opener = subprocess.Popen(["sh", "-c", f"while :; do : > {gate}; done"])
    try:
        core.until_seen(Committed(1), Lost("queue", 2), Healed("queue"))
        core.until(lambda: not journal._unacknowledged)
        journal.close(WAIT_S)
    finally:
        opener.kill()
        opener.wait()
    recovered, _ = recover(journal._directory)
    assert recovered.last_seq == ordinary + important


def test_commits_that_wait_are_bounded(start: Callable[..., Core]) -> None:
    core = start()
    os.kill(core.journal.pid, signal.SIGSTOP)
    for token in range(journal_module.MAX_COMMITS + 1):
        core.journal.commit(token)
    core.turn()
    assert [i.token for i in core.seen if isinstance(i, Failed)] == [journal_module.MAX_COMMITS]
    os.kill(core.journal.pid, signal.SIGCONT)
    core.until_seen(*(Committed(token) for token in range(journal_module.MAX_COMMITS)))


def test_a_selector_watches_the_pipes_and_those_of_a_new_child(start: Callable[..., Core]) -> None:
    core = start()
    watched = core.selector.get_map()
    os.kill(core.journal.pid, signal.SIGSTOP)
    core.append(40_000)
    core.turn()
    assert sorted(key.events for key in watched.values()) == [
        selectors.EVENT_READ,
        selectors.EVENT_WRITE,
    ]
    os.kill(core.journal.pid, signal.SIGKILL)
    core.until(lambda: core.journal.pid == 0)
    assert len(watched) == 0
    core.journal.restart()
    core.commit()
    assert [key.events for key in watched.values()] == [selectors.EVENT_READ]
    core.journal.close(WAIT_S)
    assert len(watched) == 0


# --- damage


def test_damage_in_the_middle_is_skipped_and_counted(
    start: Callable[..., Core], tmp_path: Path
) -> None:
    core = start()
    core.append(100)
    core.journal.close(WAIT_S)
    path = tmp_path / "journal.000"
    data = bytearray(path.read_bytes())
    for n in (30, 31, 60):
        at = data.index(b'"n": %d}' % n)
        data[at] ^= 0x10
    path.write_bytes(data)
    core = start()
    core.turn()
    assert core.journal.recovered.skipped == 3
    assert Lost("damage", 3) in core.seen
    seqs = [r.seq for r in core.read(None).records]
    assert seqs == [n for n in range(1, 101) if n not in (30, 31, 60)]


def test_a_torn_last_record_is_skipped_and_writing_goes_on(
    start: Callable[..., Core], tmp_path: Path
) -> None:
    core = start()
    core.append(10)
    core.journal.close(WAIT_S)
    segments = Segments(tmp_path, 2, SEGMENT)
    end, number = segments._offset, segments.last
    segments.close()
    with (tmp_path / "journal.000").open("r+b") as file:
        file.seek(end)
        file.write(encode(Kind.record, number + 1, b"torn" * 20)[:40])
    core = start()
    core.seq = 10
    core.append(5)
    assert [r.seq for r in core.read(None).records] == list(range(1, 16))
    assert core.journal.recovered.skipped == 0


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_in_the_files_the_core_starts(
    start: Callable[..., Core], tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    core = start()
    core.append(50)
    core.journal.save_state({"n": 1})
    core.journal.close(WAIT_S)
    for name in ("journal.000", "journal.001", "state"):
        data = bytearray((tmp_path / name).read_bytes())
        for _ in range(rng.randrange(200)):
            data[rng.randrange(6000)] = rng.randrange(256)
        (tmp_path / name).write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
    core = start()
    core.seq = 1000
    core.append(5)
    core.commit()
    assert [r.seq for r in core.read(("run", 1000)).records][-5:] == list(range(1001, 1006))
