"""What is measured reaches the time-series database, whatever becomes of it or of us meanwhile."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.events import NS, iso
from gateway.hub.broker import find_program, free_port
from gateway.uplink import influx
from gateway.uplink.config import InfluxConfig
from gateway.uplink.influx import Influx, Spool, lines
from gateway.uplink.messages import Station
from gateway.uplink.sink import Fault
from tests.uplink.city import PATIENCE_S, reading

STATION = Station("demo", "cn-demo-001")
MOTION = {
    "type": "ground_motion", "station": "NP.1765", "time": iso(NS), "since": iso(0),
    "pga": 0.12, "pgv": 0.01, "pgd": 0.001, "pd": None, "tau_c": None, "intensity": 5.3,
    "predicted": None, "cav": 0.5,
}  # fmt: skip

MOTION_LINE = (
    "ground_motion,city=demo,station=cn-demo-001,site=NP.1765"
    " pga=0.12,pgv=0.01,pgd=0.001,cav=0.5,intensity=5.3 1000000000"
)


def until(condition: Callable[[], object], what: str = "") -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Influx, "gather_s", 0.02)
    monkeypatch.setattr(influx, "PAUSE_S", (0.02, 0.1))


class Server:
    """Takes lines, or answers as it is told to."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.answers: list[int] = []
        self.refuses = ""

    def __call__(self, batch: Sequence[str]) -> int:
        if self.answers:
            return self.answers.pop(0)
        if self.refuses and any(self.refuses in line for line in batch):
            return 400
        self.taken += batch
        return 204


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Influx]]:
    made: list[Influx] = []

    def one(write: influx.Write | None, quota_mb: int = 16, url: str = "http://nowhere") -> Influx:
        config = InfluxConfig(url=url, quota_mb=quota_mb)
        made.append(Influx(config, STATION, tmp_path / "influx.sqlite", write))
        made[-1].start()
        return made[-1]

    yield one
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            reading(2),
            ["reading,city=demo,station=cn-demo-001,sensor=rain1 rain_mm=0.4 1700000002000000000"],
        ),
        (
            {"reading": {"sensor": "a b,c=d", "time": iso(0), "quantity": "contact", "micro": 0}},
            [r"reading,city=demo,station=cn-demo-001,sensor=a\ b\,c\=d contact=0.0 0"],
        ),
        ({"reading": {"sensor": "a", "time": iso(0), "quantity": "x", "micro": None}}, []),
        (
            {"record": MOTION},
            [MOTION_LINE],
        ),
        ({"record": {"type": "alert"}}, []),
        ({"packet": {}}, []),
    ],
)
def test_line_protocol(item: dict[str, Any], expected: list[str]) -> None:
    assert lines(item, STATION) == expected


@pytest.mark.parametrize("answer", [0, 401, 404, 429, 500, 503])
def test_an_outage_of_the_server_costs_nothing(make: Callable[..., Influx], answer: int) -> None:
    server = Server()
    server.answers = [answer] * 3
    it = make(server)
    for n in range(250):
        it.take(reading(n))
    until(lambda: len(server.taken) == 250)
    assert [line.split()[-1] for line in server.taken] == sorted(
        line.split()[-1] for line in server.taken
    )
    assert [f.state for f in it.faults() if f.kind == "unavailable"][:1] == ["wrong"]


def test_a_line_that_the_server_refuses_is_dropped_alone(make: Callable[..., Influx]) -> None:
    server = Server()
    server.refuses = "rain_mm=8.4 "
    it = make(server)
    for n in range(100):
        it.take(reading(n))
    until(lambda: len(server.taken) == 99)
    said = [fault for fault in it.faults() if fault.state != "right"]
    assert [fault.kind for fault in said] == ["refused"]
    assert "rain_mm=8.4" in said[0].detail


def test_what_was_spooled_outlives_a_restart(make: Callable[..., Influx]) -> None:
    deaf = make(lambda _: 503)
    for n in range(50):
        deaf.take(reading(n))
    deaf.close()
    server = Server()
    make(server)
    until(lambda: len(server.taken) == 50)


def test_over_the_quota_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 200_000)
    dropped = sum(spool.add([f"{n} {'x' * 100}"] * 100) for n in range(50))
    left = spool.oldest(10_000)
    assert len(left) + dropped == 5000
    assert left[-1][1].startswith("49 ")
    spool.close()


def test_a_damaged_spool_begins_anew(make: Callable[..., Influx], tmp_path: Path) -> None:
    (tmp_path / "influx.sqlite").write_bytes(b"garbage" * 2000)
    server = Server()
    it = make(server)
    it.take(reading(0))
    until(lambda: server.taken)
    assert "store" in [fault.kind for fault in it.faults()]


# --- a real server --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = find_program("victoria-metrics")
    if program is None:
        pytest.skip("victoria-metrics is not installed")
    url = f"http://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            program,
            f"-httpListenAddr={url.removeprefix('http://')}",
            f"-storageDataPath={tmp_path_factory.mktemp('metrics')}",
            "-retentionPeriod=100y",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _get(f"{url}/health") == "OK", "VictoriaMetrics starts")
        yield url
    finally:
        process.kill()
        process.wait()


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  our own server
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_real_server_gives_back_what_was_sent(make: Callable[..., Influx], database: str) -> None:
    it = make(None, url=database)
    for n in range(250):
        it.take(reading(n))
    it.take({"record": MOTION | {"time": iso(1_700_000_000 * NS)}})

    def stored(name: str) -> list[float]:
        _get(f"{database}/internal/force_flush")
        text = _get(f"{database}/api/v1/export?match[]={name}")
        return [value for line in text.splitlines() for value in json.loads(line)["values"]]

    until(lambda: len(stored("reading_rain_mm")) == 250, "all readings are there")
    assert [round(5 * value) for value in stored("reading_rain_mm")] == list(range(250))
    until(lambda: stored("ground_motion_pga") == [0.12])


def test_a_server_that_is_not_there_is_said(make: Callable[..., Influx]) -> None:
    it = make(None, url=f"http://127.0.0.1:{free_port()}")
    it.take(reading(0))
    said: list[Fault] = []

    def told() -> bool:
        said.extend(it.faults())
        return bool(said)

    until(told)
    assert "can't be reached" in said[0].detail
