"""What is on disk is read back whole, whatever a power cut or a bad sector did to the rest."""

import contextlib
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.segments import (
    MAX_BODY_BYTES,
    SLOT_BYTES,
    Entry,
    Kind,
    Record,
    Segments,
    StateFile,
    encode,
    pack_record,
    scan,
    unpack_record,
)

SEGMENT_BYTES = 4096

bodies = st.lists(st.binary(max_size=60), min_size=1, max_size=12)


def segment(bodies: list[bytes], first: int = 1) -> tuple[bytes, list[tuple[int, int]]]:
    """Entries as on disk, and the span of each."""
    data, spans = b"", []
    for number, body in enumerate(bodies, first):
        entry = encode(Kind.record, number, body)
        spans.append((len(data), len(data) + len(entry)))
        data += entry
    return data, spans


def write_all(segments: Segments, bodies: list[bytes]) -> None:
    for body in bodies:
        while not segments.write(Kind.record, body):
            segments.rotate(b"mark")


def read_all(directory: Path) -> list[Entry]:
    segments = Segments(directory)
    entries = [entry for part in segments.in_order() for entry in part.read()]
    segments.close()
    return entries


def records(directory: Path) -> list[bytes]:
    return [entry.body for entry in read_all(directory) if entry.kind is Kind.record]


@given(st.text(max_size=20), st.integers(0, 2**63), st.binary(max_size=100))
def test_a_record_is_unpacked_as_it_was_packed(run_id: str, seq: int, line: bytes) -> None:
    record = Record(run_id, seq, line)
    assert unpack_record(pack_record(record)) == record


def test_a_record_longer_than_an_entry_may_be_is_refused() -> None:
    with pytest.raises(ValueError, match=rf"run-7: .*allowed {MAX_BODY_BYTES}"):
        pack_record(Record("run", 7, b"x" * MAX_BODY_BYTES))


@given(bodies, st.data())
def test_one_damaged_byte_costs_one_entry(bodies: list[bytes], data: st.DataObject) -> None:
    disk, spans = segment(bodies)
    at = data.draw(st.integers(0, len(disk) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(disk + bytes(200))
    damaged[at] ^= flip
    expected = [
        (number, body)
        for number, (body, (start, end)) in enumerate(zip(bodies, spans, strict=True), 1)
        if not start <= at < end
    ]
    assert [(e.number, e.body) for e in scan(bytes(damaged))] == expected


@given(bodies, st.data())
def test_a_torn_tail_costs_only_the_torn_entry(bodies: list[bytes], data: st.DataObject) -> None:
    disk, spans = segment(bodies)
    cut = data.draw(st.integers(0, len(disk)))
    torn = disk[:cut] + bytes(300)
    whole = [
        body
        for body, (start, end) in zip(bodies, spans, strict=True)
        if torn[start:end] == disk[start:end]  # a tail of zeros may happen to be right
    ]
    assert [entry.body for entry in scan(torn)] == whole


@given(st.binary(max_size=400), bodies)
def test_garbage_is_passed_over(garbage: bytes, bodies: list[bytes]) -> None:
    disk, _ = segment(bodies)
    assert [entry.body for entry in scan(garbage + disk)] == bodies


@given(bodies, bodies)
def test_what_a_file_held_before_is_never_read_again(old: list[bytes], new: list[bytes]) -> None:
    before, _ = segment(old, first=1)
    after, _ = segment(new, first=1000)
    disk = after + before[len(after) :]
    assert [entry.body for entry in scan(disk)] == new


def test_the_ring_keeps_the_newest_and_forgets_the_oldest(tmp_path: Path) -> None:
    ring = Segments(tmp_path, 4, SEGMENT_BYTES)
    bodies = [b"%05d" % n * 10 for n in range(1000)]
    write_all(ring, bodies)
    ring.sync()
    ring.close()
    kept = records(tmp_path)
    assert kept == bodies[-len(kept) :]
    assert 3 * SEGMENT_BYTES // 80 <= len(kept) <= 4 * SEGMENT_BYTES // 70
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 4 * SEGMENT_BYTES


def test_writing_goes_on_where_it_ended(tmp_path: Path) -> None:
    bodies = [b"%d" % n * 30 for n in range(200)]
    for start in range(0, 200, 20):
        ring = Segments(tmp_path, 8, SEGMENT_BYTES)
        write_all(ring, bodies[start : start + 20])
        ring.close()
    assert records(tmp_path) == bodies
    numbers = [entry.number for entry in read_all(tmp_path)]
    assert numbers == list(range(1, len(numbers) + 1))


class PowerCut(BaseException):
    """The machine stops in the middle of a system call."""


class Disk:
    """A disk that loses power at its ``calls``-th write or sync.

    Of what was written since the last sync, each sector got there or did not, in any order.
    """

    SECTOR = 512

    def __init__(self, calls: int, rng: random.Random) -> None:
        self.calls = calls
        self.rng = rng
        self.before: dict[tuple[Path, int], bytes] = {}
        self.patch = pytest.MonkeyPatch()
        self.pwrite = os.pwrite

    def __enter__(self) -> None:
        self.patch.setattr(os, "pwrite", self.write)
        self.patch.setattr(os, "fdatasync", self.sync)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()
        for (path, at), content in self.before.items():
            if self.rng.random() < 0.5:
                with path.open("r+b") as file:
                    file.seek(at)
                    file.write(content)

    def write(self, fd: int, data: bytes, offset: int) -> int:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        first = offset // self.SECTOR * self.SECTOR
        for at in range(first, offset + len(data), self.SECTOR):
            self.before.setdefault((path, at), os.pread(fd, self.SECTOR, at))
        count = self.pwrite(fd, data, offset)
        self._count()
        return count

    def sync(self, fd: int) -> None:
        self._count()
        path = Path(f"/proc/self/fd/{fd}").readlink()
        self.before = {key: old for key, old in self.before.items() if key[0] != path}

    def _count(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise PowerCut


@pytest.mark.parametrize("seed", range(40))
def test_a_power_cut_costs_only_what_was_not_yet_durable(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    durable: dict[str, list[int]] = {}
    state = n = 0
    for _ in range(4):
        attempt = state
        ring, states = Segments(tmp_path, 3, 2048), StateFile(tmp_path)
        with contextlib.suppress(PowerCut), Disk(rng.randrange(150), rng):
            written: list[tuple[str, int]] = []
            while True:
                n += 1
                while not ring.write(Kind.record, b"%06d" % n * rng.randrange(1, 30)):
                    recycled = str(ring.oldest().path)
                    durable.pop(recycled, None)
                    written = [(path, m) for path, m in written if path != recycled]
                    ring.rotate(b"mark")
                assert ring._current is not None
                written.append((str(ring._current.path), n))
                if rng.random() < 0.2:
                    ring.sync()
                    for path, m in written:
                        durable.setdefault(path, []).append(m)
                    written = []
                if rng.random() < 0.1:
                    attempt = n
                    states.save(b"%d" % n)
                    state = n
        ring.close()
        states.close()
        found = [int(body[:6]) for body in records(tmp_path)]
        assert found == sorted(set(found))
        assert {m for kept in durable.values() for m in kept} <= set(found)
        loaded = int(StateFile.load(tmp_path) or 0)
        assert loaded in (state, attempt)
        state = loaded


@pytest.mark.parametrize("seed", range(20))
def test_pages_that_a_power_cut_kept_from_the_disk_cost_only_themselves(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    ring = Segments(tmp_path, 3, 65_536)
    write_all(ring, [b"old %d" % n * 20 for n in range(rng.randrange(3000))])
    ring.sync()
    page = rng.randrange(4)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    fresh = [b"new %d" % n * 20 for n in range(150)]
    write_all(ring, fresh)
    ring.close()
    for path, content in before.items():  # one page of each file is as it was before
        with path.open("r+b") as file:
            file.seek(page * 4096)
            file.write(content[page * 4096 : (page + 1) * 4096])
    # a first entry is durable before anything follows it, so a rotation never loses its first page
    kept = [body for body in records(tmp_path) if body.startswith(b"new")]
    numbers = [int(body[4:].split(b"new")[0]) for body in kept]
    assert numbers == sorted(set(numbers))
    assert len(kept) >= 150 - 2 * (4096 // 100 + 2)
    again = Segments(tmp_path, 3, 65_536)
    write_all(again, [b"later"])
    again.close()
    assert records(tmp_path)[-1] == b"later"


def test_a_lost_segment_is_not_mistaken_for_an_empty_one(tmp_path: Path) -> None:
    ring = Segments(tmp_path, 3, SEGMENT_BYTES)
    write_all(ring, [b"x" * 100 for _ in range(80)])
    ring.close()
    newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    highest = read_all(tmp_path)[-1].number
    newest.rename(tmp_path / "aside")
    newest.mkdir()  # reading it gives EISDIR, as a bad sector gives EIO
    reader = Segments(tmp_path)
    assert reader.unreadable == 1
    assert reader.last >= highest
    reader.close()


def test_a_file_that_a_start_left_half_allocated_is_completed(tmp_path: Path) -> None:
    (tmp_path / "journal.000").write_bytes(b"")
    (tmp_path / "journal.001").write_bytes(bytes(100))
    ring = Segments(tmp_path, 2, SEGMENT_BYTES)
    write_all(ring, [b"kept"])
    ring.close()
    assert records(tmp_path) == [b"kept"]


def test_rewound_entries_are_written_again_with_the_same_numbers(tmp_path: Path) -> None:
    ring = Segments(tmp_path, 2, SEGMENT_BYTES)
    write_all(ring, [b"a"])
    ring.sync()
    write_all(ring, [b"b", b"c"])
    ring.rewind()
    write_all(ring, [b"b", b"c", b"d"])
    ring.close()
    assert records(tmp_path) == [b"a", b"b", b"c", b"d"]
    assert [entry.number for entry in read_all(tmp_path)] == [1, 2, 3, 4, 5]


def test_an_abandoned_segment_is_still_read_up_to_its_damage(tmp_path: Path) -> None:
    ring = Segments(tmp_path, 3, SEGMENT_BYTES)
    write_all(ring, [b"a"])
    ring.sync()
    write_all(ring, [b"b"])
    ring.rewind()
    ring.abandon(b"mark")
    write_all(ring, [b"b", b"c"])
    ring.close()
    assert records(tmp_path) == [b"a", b"b", b"b", b"c"]  # readers drop the repeat by its seq
    numbers = [entry.number for entry in read_all(tmp_path)]
    assert numbers == sorted(set(numbers))


def test_the_newest_state_is_loaded(tmp_path: Path) -> None:
    assert StateFile.load(tmp_path) is None
    for n in range(5):
        states = StateFile(tmp_path)
        states.save(b"state %d" % n)
        states.close()
    assert StateFile.load(tmp_path) == b"state 4"
    assert (tmp_path / "state").stat().st_size == 2 * SLOT_BYTES


@settings(max_examples=30)
@given(data=st.data())
def test_damage_to_one_slot_leaves_a_state(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("state")
    texts = [b"first " * 10, b"second " * 10]
    states = StateFile(directory)
    for text in texts:
        states.save(text)
    states.close()
    slot = data.draw(st.sampled_from([0, SLOT_BYTES]))
    at = slot + data.draw(st.integers(0, 79))
    path = directory / "state"
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ data.draw(st.integers(1, 255))]))
    assert StateFile.load(directory) in texts
    path.unlink()
    directory.rmdir()


def test_a_state_that_does_not_fit_is_refused_and_the_last_one_stands(tmp_path: Path) -> None:
    states = StateFile(tmp_path)
    states.save(b"small")
    with pytest.raises(ValueError, match="allowed"):
        states.save(bytes(SLOT_BYTES))
    states.close()
    assert StateFile.load(tmp_path) == b"small"


def test_files_are_private_to_the_gateway(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Segments(tmp_path, 2, SEGMENT_BYTES).close()
        StateFile(tmp_path).close()
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
