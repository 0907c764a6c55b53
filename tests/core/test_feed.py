"""The feed gives every record once and in order, and says how much data a slow client missed."""

import json
import os
import random
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.core import feed as feed_module
from gateway.core.feed import (
    Command,
    Feed,
    Refused,
    Request,
    Ring,
    Stored,
    packet_body,
    reading_body,
)
from gateway.core.feed_client import FeedClient, FeedError, packet_samples
from gateway.core.journal import Batch, Journal, Position, Record
from gateway.events import NS, Packet, Reading

WAIT_S = 30.0

Have = Position | Literal["now"]


class Core:
    """A core's loop around a feed and, where ``state`` is given, a journal."""

    def __init__(self, path: Path, run_id: str, state: Path | None = None) -> None:
        self.path = path
        self.run_id = run_id
        self.selector = selectors.DefaultSelector()
        self.feed = Feed(path, run_id)
        self.feed.register(self.selector)
        self.journal = Journal.start(state, wait_s=WAIT_S) if state else None
        if self.journal:
            self.journal.register(self.selector)
        self.requests: list[Request] = []
        self.seq = 0
        self.open = True

    def turn(self) -> None:
        for key, mask in self.selector.select(0):
            key.data(mask)
        self.requests += self.feed.take()
        if self.journal:
            for item in self.journal.poll():
                if isinstance(item, Batch):
                    self.feed.batch(item)
        self.feed.pump()
        if self.journal:
            for after in self.feed.wanted():
                self.journal.read_after(after, limit=50)
            self.journal.flush()

    def publish(self, count: int = 1, pad: int = 0) -> None:
        for _ in range(count):
            self.seq += 1
            line = json.dumps({"type": "alert", "n": self.seq, "pad": "x" * pad}).encode()
            if self.journal:
                self.journal.append(self.run_id, self.seq, line, important=True)
            self.feed.publish(self.seq, line)

    def data(self, count: int = 1, pad: int = 0) -> None:
        for _ in range(count):
            self.feed.data(json.dumps({"reading": {"pad": "x" * pad}}).encode())

    def close(self) -> None:
        if not self.open:
            return
        self.open = False
        self.feed.close()
        if self.journal:
            self.journal.close(WAIT_S)
        self.selector.close()


class Reader:
    """A client that is driven together with the core."""

    def __init__(self, core: Core, have: Have = None, *, data: bool = False) -> None:
        self.core = core
        self.client = FeedClient(core.path, have, data=data, timeout_s=0)
        self.items: list[dict[str, Any]] = []
        core.turn()
        core.turn()

    def take(self) -> None:
        while (item := self.client.receive()) is not None:
            self.items.append(item)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, self.items[-3:]
            self.core.turn()
            self.take()

    def until_record(self, run_id: str, seq: int) -> None:
        self.until(lambda: self.records[-1:] == [(run_id, seq)])

    @property
    def records(self) -> list[tuple[str, int]]:
        return [(i["run_id"], i["seq"]) for i in self.items if i["stream"] == "record"]

    @property
    def data(self) -> list[int]:
        return [i["seq"] for i in self.items if i["stream"] == "data"]

    @property
    def gaps(self) -> list[tuple[str, int | None]]:
        return [(i["of"], i["lost"]) for i in self.items if i["stream"] == "gap"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


StartCore = Callable[..., Core]
OpenReader = Callable[..., Reader]


@pytest.fixture
def start(stack: ExitStack, tmp_path: Path) -> StartCore:
    """Start a core; the one before, if any, is closed by the test."""

    def make(run_id: str = "run", *, journal: bool = False) -> Core:
        core = Core(tmp_path / "feed.sock", run_id, tmp_path / "core" if journal else None)
        stack.callback(core.close)
        return core

    return make


@pytest.fixture
def read(stack: ExitStack) -> OpenReader:
    def make(core: Core, have: Have = None, *, data: bool = False) -> Reader:
        reader = Reader(core, have, data=data)
        stack.callback(reader.client.close)
        return reader

    return make


def of_run(run_id: str, first: int, last: int) -> list[tuple[str, int]]:
    return [(run_id, seq) for seq in range(first, last + 1)]


# --- records


def test_a_record_comes_live_and_whole(start: StartCore, read: OpenReader) -> None:
    core = start()
    reader = read(core, "now")
    core.publish()
    reader.until(lambda: bool(reader.items))
    record = {"type": "alert", "n": 1, "pad": ""}
    assert reader.items == [{"stream": "record", "run_id": "run", "seq": 1, "record": record}]


@pytest.mark.parametrize(("have", "first"), [(0, 1), (1, 2), (7, 8), (10, 11)])
def test_a_client_gets_what_follows_the_last_that_it_has(
    start: StartCore, read: OpenReader, have: int, first: int
) -> None:
    core = start()
    core.publish(10)
    reader = read(core, ("run", have))
    core.publish(2)
    reader.until_record("run", 12)
    assert reader.records == of_run("run", first, 12)


@pytest.mark.parametrize(
    ("have", "expected"),
    [
        (None, [*of_run("one", 1, 120), *of_run("two", 1, 30)]),
        (("one", 100), [*of_run("one", 101, 120), *of_run("two", 1, 30)]),
        (("one", 120), of_run("two", 1, 30)),
        (("two", 29), [("two", 30)]),
        (("two", 30), []),
        (("lost", 5), [*of_run("one", 1, 120), *of_run("two", 1, 30)]),
        ("now", []),
    ],
)
def test_records_resume_across_a_restart_of_the_core(
    start: StartCore, read: OpenReader, have: Have, expected: list[tuple[str, int]]
) -> None:
    core = start("one", journal=True)
    core.publish(120)
    core.close()
    core = start("two", journal=True)
    core.publish(30)
    reader = read(core, have)
    core.publish()
    reader.until_record("two", 31)
    assert reader.records == [*expected, ("two", 31)]
    assert reader.gaps == []


def test_a_client_that_memory_has_overtaken_still_gets_every_record(
    start: StartCore, read: OpenReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MEMORY_RECORDS", 50)
    core = start(journal=True)
    reader = read(core, None)
    for _ in range(40):
        core.publish(40, pad=500)
        core.turn()
    reader.until_record("run", 1600)
    assert reader.records == of_run("run", 1, 1600)
    assert reader.gaps == []


def test_a_client_that_is_slow_now_and_then_gets_every_record_once(
    start: StartCore, read: OpenReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MEMORY_RECORDS", 20)
    monkeypatch.setattr(feed_module, "WINDOW_BYTES", 4096)
    rng = random.Random(3)
    core = start(journal=True)
    reader = read(core, None, data=True)
    for _ in range(300):
        core.publish(rng.choice([0, 1, 1, 30]), pad=rng.choice([0, 900]))
        core.data(rng.randrange(3))
        for _ in range(rng.randrange(3)):
            core.turn()
        if rng.random() < 0.3:
            reader.take()
    core.publish()
    reader.until_record("run", core.seq)
    assert reader.records == of_run("run", 1, core.seq)
    assert ("record", None) not in reader.gaps


def test_without_a_journal_live_records_go_on_and_the_gap_is_stated(
    start: StartCore, read: OpenReader
) -> None:
    core = start("two")
    core.publish(3)
    reader = read(core, ("one", 7))
    assert core.feed.wanted() == [("one", 7)]
    assert core.feed.wanted() == []
    core.feed.batch(Batch(("one", 7), (), done=True, complete=False))
    reader.until_record("two", 3)
    assert reader.gaps == [("record", None)]


def test_an_answer_that_memory_has_overtaken_is_asked_for_again(
    start: StartCore, read: OpenReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MEMORY_RECORDS", 10)
    core = start()
    reader = read(core, None)
    assert core.feed.wanted() == [None]
    core.publish(50)
    core.feed.batch(Batch(None, (), done=True))
    assert core.feed.wanted() == [None]
    records = tuple(Record("run", seq, b"{}") for seq in range(1, 48))
    core.feed.batch(Batch(None, records, done=True))
    reader.until_record("run", 50)
    assert reader.records == of_run("run", 1, 50)
    assert reader.gaps == []


def test_records_that_neither_memory_nor_journal_has_are_counted(
    start: StartCore, read: OpenReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MEMORY_RECORDS", 10)
    core = start()
    core.publish(50)
    reader = read(core, ("run", 5))
    assert core.feed.wanted() == [("run", 5)]
    core.feed.batch(Batch(("run", 5), (), done=True))
    reader.until_record("run", 50)
    assert reader.gaps == [("record", 35)]
    assert reader.records == of_run("run", 41, 50)


# --- data


def test_data_goes_to_those_who_asked_for_it(start: StartCore, read: OpenReader) -> None:
    core = start()
    wants = [core.feed.wants_data]
    records, both = read(core, "now"), read(core, "now", data=True)
    wants.append(core.feed.wants_data)
    core.data(3)
    core.publish()
    both.until(lambda: len(both.items) == 4)
    records.until_record("run", 1)
    assert both.data == [1, 2, 3]
    assert records.data == []
    both.client.close()
    core.turn()
    core.turn()
    assert [*wants, core.feed.wants_data] == [False, True, False]


def test_a_slow_client_misses_data_and_is_told_how_much(start: StartCore, read: OpenReader) -> None:
    core = start()
    slow, quick = read(core, "now", data=True), read(core, "now", data=True)
    sent = 0
    while core.feed._data.first < 1000:
        core.data(100, pad=1000)
        sent += 100
        quick.until(lambda: quick.data[-1:] == [sent])  # noqa: B023  called within the loop
    assert quick.data == list(range(1, sent + 1))
    slow.until(lambda: slow.data[-1:] == [sent])
    assert sum(lost for of, lost in slow.gaps if lost and of == "data") == sent - len(slow.data)
    assert len(slow.gaps) < 50
    assert slow.data == sorted(set(slow.data))


def test_an_alert_passes_the_data_that_waits(start: StartCore, read: OpenReader) -> None:
    core = start()
    reader = read(core, "now", data=True)
    for _ in range(1000):
        core.data(pad=1000)
        core.turn()
    core.publish()
    reader.until(lambda: reader.data[-1:] == [1000])
    streams = [item["stream"] for item in reader.items]
    assert 0 < streams.index("record") < 700


def test_a_client_that_never_reads_costs_a_bounded_amount_of_memory(
    start: StartCore, read: OpenReader
) -> None:
    core = start(journal=True)
    read(core, None, data=True)
    for _ in range(50):
        core.publish(100, pad=1000)
        core.data(100, pad=1000)
        core.turn()
    (client,) = core.feed._clients
    assert client.connection.waiting_bytes < feed_module.WINDOW_BYTES + 300_000
    assert core.feed._data._bytes <= feed_module.MEMORY_BYTES


@pytest.mark.parametrize(
    "samples",
    [
        np.array([[1, -2, 3], [2**31 - 1, -(2**31), 0]], np.int32),
        np.array([[0.5, np.nan], [1e9, -0.0]], np.float64),
    ],
    ids=["counts", "missing samples"],
)
def test_samples_come_out_as_they_went_in(
    samples: NDArray[np.int32] | NDArray[np.float64],
) -> None:
    packet = Packet("seis1", 1_000_000 * NS, 100.0, samples, offsets_ns=(0, 2_000_000))
    item = json.loads(packet_body(packet, ["XX.DEMO..EHZ", "XX.DEMO..EHN"], 5 * NS))["packet"]
    np.testing.assert_array_equal(packet_samples(item), samples)
    del item["samples"]
    assert item == {
        "sensor": "seis1",
        "start": "1970-01-12T13:46:45.000000Z",
        "rate_hz": 100.0,
        "channels": ["XX.DEMO..EHZ", "XX.DEMO..EHN"],
        "encoding": "int32le" if samples.dtype == np.int32 else "float64le",
        "offsets_ns": [0, 2_000_000],
    }


@pytest.mark.parametrize("micro", [200_000, 0, None])
def test_a_reading_stays_exact(micro: int | None) -> None:
    item = json.loads(reading_body(Reading("rain1", NS, "rain_mm", micro), 0))
    time_text = "1970-01-01T00:00:01.000000Z"
    assert item == {
        "reading": {"sensor": "rain1", "time": time_text, "quantity": "rain_mm", "micro": micro}
    }


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 10), st.integers(10, 200))
def test_a_ring_keeps_the_newest_within_its_bounds(
    sizes: list[int], max_lines: int, max_bytes: int
) -> None:
    ring = Ring(max_lines, max_bytes)
    for seq, size in enumerate(sizes, 1):
        ring.push(seq, b"x" * size)
    kept = [ring.at(position) for position in range(ring.first, ring.end)]
    assert ring.end == len(sizes)
    assert [seq for seq, _ in kept] == list(range(ring.first + 1, len(sizes) + 1))
    assert len(kept) <= max_lines
    assert sum(len(line) for _, line in kept) <= max_bytes
    for seq in range(len(sizes) + 1):
        assert ring.after(seq) == (seq if seq >= ring.first else None)


# --- what clients may say


def test_a_command_reaches_the_core_byte_for_byte(start: StartCore, read: OpenReader) -> None:
    core = start()
    reader = read(core, "now")
    envelope = b'{ "payload" : "eyJ9", "n": 1.0e0, "\\u5730": "\xe9\x9c\x87" }'
    reader.client.command(envelope)
    reader.client.stored("run", 12)
    reader.until(lambda: len(core.requests) == 2)
    assert core.requests == [Command(json.loads(envelope), envelope), Stored("run", 12)]


HELLO = b'{"hello":{"have":null,"data":false}}\n'


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b'{"stored":{"run_id":"run","seq":1}}\n', "hello"),
        (b"garbage\n", "Expecting value"),
        (b"\xff\xfe\n", "decode"),
        (b"[" * 4000 + b"\n", "RecursionError"),
        (b'{"hello":{"have":{"run_id":"run"}}}\n', "seq"),
        (b'{"hello":{"have":7}}\n', "int"),
        (HELLO + b'{"siren":"on"}\n', "neither stored nor command"),
        (HELLO + b'{"command":{"a":1},"siren":"on"}\n', "nothing else"),
        (HELLO + b'{"siren":"on","command":{"a":1}}\n', "neither stored nor command"),
        (HELLO + b'{"command":{"a":1},"command":{"b":1}}\n', "nothing else"),
        (HELLO + b'{"command":[1]}\n', "nothing else"),
        (HELLO + b'{"command":{"a":"' + b"x" * 4096 + b'"}}\n', "allowed 4096"),
        (HELLO + b"x" * 5000, "a line of more than"),
        (HELLO + b"3\n", "int"),
    ],
)
def test_whatever_else_a_client_says_disconnects_it(
    start: StartCore, sent: bytes, reason: str
) -> None:
    core = start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(core.path))
        client.sendall(sent)
        for _ in range(5):
            core.turn()
        answer = json.loads(client.recv(65_536))
        assert client.recv(1) == b""
    (request,) = core.requests
    assert isinstance(request, Refused)
    assert reason in request.reason
    assert answer == {"error": request.reason}
    assert core.feed._clients == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_stop_the_core(start: StartCore, data: st.DataObject) -> None:
    with ExitStack() as stack:
        core = start()
        stack.callback(core.close)
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(core.path))
        client.setblocking(False)
        pieces = st.one_of(
            st.binary(max_size=100),
            st.sampled_from(
                [HELLO, b'{"command":', b'{"stored":', b"{}", b"}\n", b"\n", b"null\n"]
            ),
        )
        for piece in data.draw(st.lists(pieces, max_size=20)):
            try:
                client.send(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
            core.turn()
        core.publish()
        core.turn()


def test_lines_may_come_in_pieces(start: StartCore) -> None:
    core = start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(core.path))
        for byte in HELLO + b'{"command":{"a":1}}\n{"stored":{"run_id":"r","seq":1}}\n':
            client.send(bytes([byte]))
            core.turn()
        core.turn()
        assert core.requests == [Command({"a": 1}, b'{"a":1}'), Stored("r", 1)]


def test_an_envelope_of_several_lines_is_refused_before_it_is_sent(
    start: StartCore, read: OpenReader
) -> None:
    with pytest.raises(ValueError, match="one line"):
        read(start()).client.command(b"{\n}")


def test_four_clients_are_served_and_a_fifth_is_told(start: StartCore, read: OpenReader) -> None:
    core = start()
    four = [read(core, "now") for _ in range(4)]
    fifth = read(core, "now")
    with pytest.raises(FeedError, match="4 clients"):
        fifth.take()
    core.publish()
    for reader in four:
        reader.until_record("run", 1)


def test_clients_that_never_greet_make_room(
    start: StartCore, read: OpenReader, stack: ExitStack
) -> None:
    core = start()
    for _ in range(4):
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(core.path))
        core.turn()
    reader = read(core, "now")
    core.publish()
    reader.until_record("run", 1)


def test_a_client_that_goes_is_forgotten(start: StartCore, read: OpenReader) -> None:
    core = start(journal=True)
    core.publish(200, pad=1000)
    reader = read(core, None, data=True)
    reader.client.close()
    for _ in range(5):
        core.publish()
        core.data()
        core.turn()
    assert core.feed._clients == []


# --- the socket


def test_the_socket_of_a_dead_core_is_replaced(start: StartCore, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "feed.sock"))
        dead.listen()
    start()


def test_the_socket_of_a_living_core_is_not_taken(start: StartCore, tmp_path: Path) -> None:
    start()
    with pytest.raises(OSError, match="another gateway core is running"):
        Feed(tmp_path / "feed.sock", "two")


def test_a_file_in_the_socket_s_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "feed.sock").write_text("precious")
    with pytest.raises(OSError, match="the path is taken"):
        Feed(tmp_path / "feed.sock", "run")
    assert (tmp_path / "feed.sock").read_text() == "precious"


def test_owner_and_group_may_connect_and_nobody_else(start: StartCore) -> None:
    before = os.umask(0)
    try:
        core = start()
    finally:
        os.umask(before)
    assert core.path.stat().st_mode & 0o777 == 0o660
    core.close()
    assert not core.path.exists()


def test_a_client_without_a_core_is_told_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="is the gateway's core running"):
        FeedClient(tmp_path / "feed.sock")


# --- both processes may die

CORE = """
import selectors, sys
from pathlib import Path
from gateway.core.feed import Feed
from gateway.core.journal import Batch, Journal

directory, run_id = Path(sys.argv[1]), sys.argv[2]
journal = Journal.start(directory / "core", wait_s=30)
selector = selectors.DefaultSelector()
journal.register(selector)
feed = Feed(directory / "feed.sock", run_id)
feed.register(selector)
seq = 0
while True:
    for key, mask in selector.select(0.002):
        key.data(mask)
    for item in journal.poll():
        if isinstance(item, Batch):
            feed.batch(item)
    for _ in range(5):
        seq += 1
        line = b'{"type":"alert","n":%d}' % seq
        journal.append(run_id, seq, line, important=True)
        feed.publish(seq, line)
    journal.flush()
    feed.pump()
    for after in feed.wanted():
        journal.read_after(after)
    journal.flush()
"""


def test_records_reach_an_uplink_once_and_in_order_however_often_the_core_is_killed(
    tmp_path: Path,
) -> None:
    rng = random.Random(11)
    got: list[tuple[str, int]] = []
    for round_ in range(4):
        run_id = f"run{round_}"
        command = [sys.executable, "-c", CORE, str(tmp_path), run_id]
        with subprocess.Popen(command) as core:
            wanted = rng.randrange(20, 400)
            deadline = time.monotonic() + WAIT_S
            while not got or got[-1][0] != run_id or got[-1][1] < wanted:
                assert time.monotonic() < deadline
                wait = got[-1] if got else None
                try:
                    with FeedClient(tmp_path / "feed.sock", wait, timeout_s=5) as client:
                        for _ in range(rng.randrange(50, 300)):  # then the uplink dies
                            if item := client.receive():
                                assert item["stream"] == "record"
                                got.append((item["run_id"], item["seq"]))
                except FeedError:
                    select_a_moment()
            core.kill()
    for round_ in range(4):
        seqs = [seq for run_id, seq in got if run_id == f"run{round_}"]
        assert seqs == list(range(1, len(seqs) + 1))
    assert [run_id for run_id, _ in got] == sorted(run_id for run_id, _ in got)


def select_a_moment() -> None:
    """Leave the core the processor while its socket is not there yet."""
    with selectors.DefaultSelector() as selector:
        selector.select(0.02)
