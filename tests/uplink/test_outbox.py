"""What the outbox keeps, in which order it gives it, and what it does when the disk does not."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.events import NS
from gateway.uplink import outbox as module
from gateway.uplink.messages import Kind
from gateway.uplink.outbox import Message, Outbox, Position
from tests.uplink.disk import Disk

ROOM = 10_000


def put(box: Outbox, kind: Kind, name: str, t: int = 0, size: int = 20) -> None:
    box.put(kind, name, kind.name, lambda n: b'{"n":%d,"x":"%b"}' % (n, b"x" * size), t)


def ids(messages: list[Message]) -> list[str]:
    return [message.id for message in messages]


def stored(box: Outbox) -> Position | None:
    return box.position


def drain(box: Outbox) -> list[str]:
    """Everything that waits, as a hub that acknowledges at once gets it."""
    got: list[str] = []
    for _ in range(2):  # a read that meets damage gives nothing, the next what was kept
        while found := ids(box.due(0, ROOM, ROOM)):
            got += found
            box.acknowledged(found, 0)
    return got


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


@pytest.fixture
def open_box(path: Path) -> Iterator[Callable[..., Outbox]]:
    boxes: list[Outbox] = []

    def open_one(quota_bytes: int = 1 << 24, t: int = 0) -> Outbox:
        if boxes:
            boxes[-1]._close()
        boxes.append(Outbox(path, quota_bytes, t))
        return boxes[-1]

    yield open_one
    boxes[-1]._close()


def test_the_urgent_goes_first_and_the_latest_before_a_backlog(
    open_box: Callable[..., Outbox],
) -> None:
    box = open_box()
    for kind in reversed(Kind):
        put(box, kind, f"old-{kind.name}")
    box.commit(0)
    put(box, Kind.alert, "new-alert")
    assert ids(box.due(0, ROOM, ROOM)) == ["new-alert", *(f"old-{kind.name}" for kind in Kind)]
    assert [kind.name for kind in Kind] == [
        "alert", "siren", "cap", "reply", "event", "health", "telemetry", "waveform",
    ]  # fmt: skip


def test_telemetry_takes_no_more_than_its_share(open_box: Callable[..., Outbox]) -> None:
    box = open_box()
    for n in range(10):
        put(box, Kind.telemetry, f"t{n}")
        put(box, Kind.waveform, f"w{n}")
    assert len(box.due(0, ROOM, 3)) == 3
    put(box, Kind.alert, "a")
    assert ids(box.due(0, ROOM, 0)) == ["a"]


def test_what_was_stored_is_there_after_a_restart(open_box: Callable[..., Outbox]) -> None:
    box = open_box()
    put(box, Kind.alert, "a")
    box.retain("eew/arming", b"armed", 0)
    box.reached("run1", 7, 0)
    assert stored(box) is None
    box.tick(NS)
    assert stored(box) == Position("run1", 7)
    box = open_box()
    assert stored(box) == Position("run1", 7)
    assert ids(box.due(0, ROOM, ROOM)) == ["a"]
    assert box.retained == {"eew/arming": b"armed"}


def test_what_was_acknowledged_is_gone_and_what_was_not_is_sent_again(
    open_box: Callable[..., Outbox],
) -> None:
    box = open_box()
    for n in range(5):
        put(box, Kind.event, f"e{n}")
    box.commit(0)
    assert len(box.due(0, ROOM, ROOM)) == 5
    box.acknowledged(["e0", "e1", "e3", "unheard of"], NS)
    assert box.due(2 * NS, ROOM, ROOM) == []
    assert ids(box.due(20 * NS, ROOM, ROOM)) == ["e2", "e4"]
    box.commit(20 * NS)
    box = open_box()
    assert ids(box.due(0, ROOM, ROOM)) == ["e2", "e4"]


def test_pauses_between_repeats_grow_and_an_acknowledgement_shortens_them(
    open_box: Callable[..., Outbox],
) -> None:
    box = open_box()
    put(box, Kind.alert, "a")
    put(box, Kind.alert, "b")
    sent_at = [t for t in range(0, 200 * NS, NS) if box.due(t, ROOM, ROOM)]
    assert [t // NS for t in sent_at] == [0, 5, 15, 35, 75, 155]
    box.acknowledged(["b"], 200 * NS)
    assert ids(box.due(206 * NS, ROOM, ROOM)) == ["a"]


def test_what_nobody_hears_is_tried_ever_less_often_until_somebody_does(
    open_box: Callable[..., Outbox],
) -> None:
    box = open_box()
    put(box, Kind.telemetry, "stored")
    box.commit(0)
    put(box, Kind.telemetry, "fresh")
    tried = []
    for t in range(0, 3000 * NS, NS):
        for message in box.due(t, ROOM, 1):
            tried.append(t // NS)
            box.unheard(message, t)
    assert tried == [0, 60, 180, 420, 900, 1500, 2100, 2700]
    put(box, Kind.waveform, "w")
    assert ids(box.due(3000 * NS, ROOM, ROOM)) == ["w"], "another topic may have its listener"
    box.send_again()
    assert sorted(ids(box.due(3000 * NS, ROOM, ROOM))) == ["fresh", "stored", "w"]


def test_a_hub_that_acknowledges_nothing_is_not_flooded(open_box: Callable[..., Outbox]) -> None:
    box = open_box()
    for n in range(3 * module.WINDOW):
        put(box, Kind.event, f"e{n}")
    box.commit(0)
    first = box.due(0, ROOM, ROOM)
    assert len(first) == module.WINDOW
    assert box.due(NS, ROOM, ROOM) == []
    box.acknowledged(ids(first), NS)
    assert len(box.due(NS, ROOM, ROOM)) == module.WINDOW
    put(box, Kind.event, "now")
    assert ids(box.due(NS, ROOM, ROOM)) == ["now"]


def test_after_a_lost_connection_everything_unacknowledged_is_due_at_once(
    open_box: Callable[..., Outbox],
) -> None:
    box = open_box()
    put(box, Kind.alert, "stored")
    put(box, Kind.telemetry, "t")
    box.commit(0)
    put(box, Kind.alert, "fresh")
    assert len(box.due(0, ROOM, ROOM)) == 3
    box.send_again()
    assert sorted(ids(box.due(1, ROOM, ROOM))) == ["fresh", "stored", "t"]


def test_what_is_acknowledged_in_time_never_touches_the_disk(
    open_box: Callable[..., Outbox], path: Path
) -> None:
    box = open_box()
    put(box, Kind.telemetry, "t")
    box.due(0, ROOM, ROOM)
    box.acknowledged(["t"], 1)
    box.commit(2)
    box._close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM message").fetchone() == (0,)
    db.close()


def test_an_alert_is_stored_at_once_and_takes_along_what_waits(
    open_box: Callable[..., Outbox],
) -> None:
    box = open_box()
    put(box, Kind.telemetry, "t", NS)
    box.tick(NS)
    assert box.next_deadline() > NS
    put(box, Kind.alert, "a", NS)
    assert box.next_deadline() <= NS
    box.tick(NS)
    assert not box._fresh


def test_sequence_numbers_rise_over_restarts_even_unclean_ones(
    open_box: Callable[..., Outbox],
) -> None:
    used = 0
    for _ in range(3):
        box = open_box()
        box.tick(0)
        for _ in range(5):
            assert box.next_sequence() > used
            used = box._sequence


def test_over_the_quota_the_oldest_telemetry_goes_first_and_is_counted(
    open_box: Callable[..., Outbox],
) -> None:
    box = open_box(quota_bytes=400_000)
    for n in range(100):
        put(box, Kind.alert, f"a{n}", size=500)
        for m in range(10):
            put(box, Kind.telemetry, f"t{n}-{m}", size=500)
        box.commit(0)
    left = box.waiting()
    assert left[Kind.alert] == 100
    dropped = box.dropped()
    assert dropped == {(Kind.telemetry, "quota"): 1000 - left[Kind.telemetry]}
    assert box.dropped() == {}, "each is said once"
    telemetry = [name for name in drain(box) if name.startswith("t")]
    assert "t99-9" in telemetry, "the newest is kept"
    assert "t0-0" not in telemetry


def test_old_telemetry_expires_by_powered_on_time_and_alerts_never_do(
    open_box: Callable[..., Outbox],
) -> None:
    box = open_box()
    put(box, Kind.waveform, "w")
    put(box, Kind.alert, "a")
    box.commit(0)
    for minute in range(0, 50, 10):
        box.tick(minute * 60 * NS)
    box = open_box(t=0)
    assert len(box.due(0, ROOM, ROOM)) == 2, "time without power does not count"
    box.tick(15 * 60 * NS)
    box.tick(25 * 60 * NS)
    assert box.dropped() == {(Kind.waveform, "expired"): 1}
    assert box.waiting() == {Kind.alert: 1}


def test_a_disk_that_fails_stops_no_alert_and_the_core_keeps_what_is_not_stored(
    open_box: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = open_box()
    assert box.commit(0)

    def no_space(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(Outbox, "_write", no_space)
        put(box, Kind.alert, "a", NS)
        box.reached("run1", 1, NS)
        box.tick(NS)
        assert "disk is full" in box.failure
        assert stored(box) is None
        assert ids(box.due(NS, ROOM, ROOM)) == ["a"]
        for n in range(module.MAX_IN_MEMORY + 10):
            put(box, Kind.telemetry, f"t{n}", NS)
            assert len(box._fresh) <= module.MAX_IN_MEMORY
        assert box.full
        assert box.dropped() == {(Kind.telemetry, "memory"): 11}
        assert ids(box.due(10 * NS, 1, 1)) == ["a"], "still sent, from memory"
    box.tick(20 * NS)
    assert box.failure == ""
    assert stored(box) == Position("run1", 1)
    assert not box.full


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_is_full_is_said_and_heals(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk", "256k")
    try:
        box = Outbox(disk.path / "outbox.sqlite", 1 << 24, 0)
        disk.fill()
        for n in range(30):
            put(box, Kind.alert, f"a{n}", n * NS, size=1000)
            box.tick(n * NS)
        assert "full" in box.failure
        assert len(box.due(30 * NS, ROOM, ROOM)) == 30
        disk.relieve()
        box.tick(40 * NS)
        assert box.failure == ""
        box._close()
        again = Outbox(disk.path / "outbox.sqlite", 1 << 24, 0)
        assert len(drain(again)) == 30
        again._close()
    finally:
        disk.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:0], id="emptied"),
        pytest.param(lambda data: data[:16] + b"\xff" * 5000, id="header only"),
        pytest.param(lambda data: b"garbage" * (len(data) // 7), id="garbage"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut short"),
        pytest.param(lambda data: data[:-4096] + b"\xee" * 4096, id="last page"),
        pytest.param(lambda data: data[:8192] + b"\xee" * 4096 + data[12288:], id="third page"),
    ],
)
def test_a_damaged_outbox_is_set_aside_and_the_core_asked_for_everything(
    open_box: Callable[..., Outbox], path: Path, damage: Callable[[bytes], bytes]
) -> None:
    box = open_box()
    for n in range(200):
        put(box, Kind.alert, f"a{n}", size=200)
    box.reached("run1", 200, 0)
    box.close(0)
    path.write_bytes(damage(path.read_bytes()))
    box = open_box()
    assert box.failure == ""
    if path.stat().st_size and box.damaged:
        assert path.with_name("outbox.sqlite.damaged").exists()
    assert stored(box) is None, "the core sends everything again"
    put(box, Kind.alert, "new")
    assert box.commit(0)
    assert "new" in ids(box.due(0, ROOM, ROOM))


def test_of_a_damaged_outbox_what_can_be_read_is_carried_over(
    open_box: Callable[..., Outbox], path: Path
) -> None:
    box = open_box()
    for n in range(500):
        put(box, Kind.alert, f"a{n}", size=400)
    put(box, Kind.telemetry, "t")
    box.close(0)
    data = bytearray(path.read_bytes())
    page = data.index(b'"n":' + data[data.index(b'"n":') + 4 :][:16]) // 4096
    data[page * 4096 : (page + 1) * 4096] = b"\xee" * 4096
    path.write_bytes(data)
    box = open_box()
    assert box.damaged == 1
    kept = drain(box)
    assert len(kept) > 400
    assert "t" not in kept


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "outbox.sqlite"
    box = Outbox(path, 1 << 24, 0)
    for n in range(30):
        put(box, Kind.alert, f"a{n}", size=300)
    box.close(0)
    return path


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_damage_keeps_it_from_opening(sound: Path, data: st.DataObject) -> None:
    content = bytearray(sound.read_bytes())
    path = sound.with_name("damaged.sqlite")
    for left in sound.parent.glob("damaged.sqlite*"):
        left.unlink()
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    box = Outbox(path, 1 << 24, 0)
    put(box, Kind.alert, "new")
    box.commit(0)
    assert "new" in drain(box) or stored(box) is None
    assert box.failure == ""
    box._close()


@pytest.mark.parametrize(
    "row",
    [
        (7, None, "x", "t", b"{}", 0),
        (7, "0", "x", "t", b"{}", 0),
        (7, 99, "x", "t", b"{}", 0),
        (7, 0, None, "t", b"{}", 0),
        (7, 0, "x", 1, b"{}", 0),
        (7, 0, "x", "t", None, 0),
        (7, 0, "x", "t", b"{}", None),
        (2**63 - 1, 0, "x", "t", b"{}", 0),
        (7, 0, "x", "t", b"{}", 2**63 - 1),
        (7, 0, "x", "t", b"no JSON", 0),
    ],
)
def test_a_row_whose_types_are_damaged_is_left_behind(path: Path, row: tuple[object, ...]) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE message (sequence INTEGER PRIMARY KEY, kind, id, topic, payload, "
                   "powered_s)")  # fmt: skip
        db.executemany(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)", [row, (9, 0, "good", "t", b"{}", 0)]
        )
        assert [found[2] for found in module._readable(db)] == ["good"]


def test_a_second_uplink_on_the_same_outbox_is_told_so(
    open_box: Callable[..., Outbox], path: Path
) -> None:
    open_box().commit(0)
    other = Outbox(path, 1 << 24, 0)
    assert "locked" in other.failure


_WRITER = """
import sys
from gateway.uplink.messages import Kind
from gateway.uplink.outbox import Outbox
from pathlib import Path
box = Outbox(Path(sys.argv[1]), 1 << 24, 0)
n = 0
while True:
    box.put(Kind.alert, f"a{n}", "alert", lambda s: b"{}", 0)
    box.commit(0)
    print(n, flush=True)
    n += 1
"""


def test_whatever_was_called_stored_survives_a_kill(path: Path) -> None:
    for _ in range(3):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        said = -1
        while said < 50:
            said = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split("\n")[:-1]
        said = int(rest[-1]) if rest else said
        writer.wait()
        writer.stdout.close()
        box = Outbox(path, 1 << 24, 0)
        assert box.waiting()[Kind.alert] >= said + 1
        box._close()
