"""What is measured reaches the time-series database, whatever becomes of it or of us meanwhile."""

import base64
import itertools
import json
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write.point import Point
from influxdb_client.client.write_api import SYNCHRONOUS

from gateway.events import (
    NS,
    Event,
    Hazard,
    Health,
    Level,
    LevelChange,
    Phase,
    Quality,
    SirenAction,
    iso,
    to_record,
)
from gateway.hub.broker import find_program, free_port
from gateway.uplink import influx
from gateway.uplink.config import InfluxConfig
from gateway.uplink.influx import Answer, Influx, Piece, Server, Spool, lines, refused_lines
from gateway.uplink.messages import Station
from gateway.uplink.sink import Fault
from tests.uplink.city import PATIENCE_S, alert, reading

DASHBOARD = Path(__file__).parents[2] / "docs/dashboard.json"
STATION = Station("demo", "cn-demo-001")
MOTION = {
    "type": "ground_motion", "station": "NP.1765", "time": iso(NS), "since": iso(0),
    "pga": 0.12, "pgv": 0.01, "pgd": 0.001, "pd": None, "tau_c": None, "intensity": 5.3,
    "predicted": None, "cav": 0.5, "jma": 3.1, "mmi": 4.2,
}  # fmt: skip

UPLINK = {
    "type": "uplink", "time": iso(NS),
    "clock": {"state": "synchronised", "uncertainty_s": 0.01, "steps": 2},
    "queues": [{"name": "alert", "waiting": 3, "oldest_s": 1.5}],
    "budget": None,
}  # fmt: skip


def record(event: Event) -> dict[str, Any]:
    return {"record": to_record(event)}


MOTION_LINE = (
    "ground_motion,city=demo,station=cn-demo-001,site=NP.1765"
    " pga=0.12,pgv=0.01,pgd=0.001,cav=0.5,intensity=5.3,jma=3.1,mmi=4.2 1000000000"
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


class Scripted:
    """Takes lines, or answers as it is told to."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.answers: list[int] = []
        self.refuses = ""
        self.says = ""

    def __call__(self, batch: str) -> Answer:
        if self.answers:
            return Answer(self.answers.pop(0), self.says)
        if self.refuses and self.refuses in batch:
            return Answer(400, self.says)
        self.taken += batch.split("\n")
        return Answer(204)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Influx]]:
    made: list[Influx] = []

    def one(
        write: influx.Write | None,
        quota_mb: int = 16,
        url: str = "http://nowhere",
        station: Station = STATION,
    ) -> Influx:
        config = InfluxConfig(url=url, quota_mb=quota_mb)
        made.append(Influx(config, station, tmp_path / "influx.sqlite", write))
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
        ({"record": {"type": "onset"}}, []),
        ({"packet": {}}, []),
        (record(LevelChange("rain1", Hazard.rainstorm, Level.yellow, NS, 50.4, "mm", 6)),
         ["level,@,sensor=rain1,hazard=rainstorm level=2.0,value=50.4 1000000000"]),
        (record(Health("rain1", "failed", NS, "silent", "nothing for 5 s", 3)),
         ["health,@,component=rain1,kind=silent state=2.0,count=3.0 1000000000"]),
        (record(SirenAction("cn-demo-001", "main", "a1", "on", "disaster", NS)),
         ["siren,@,siren=main,status=Actual on=1.0 1000000000"]),
        (record(replace(alert(0), time_ns=NS)),
         ["alert,@,hazard=earthquake,status=Actual level=4.0 1000000000"]),
        (record(replace(alert(0), time_ns=NS, phase=Phase.expire)),
         ["alert,@,hazard=earthquake,status=Actual level=0.0 1000000000"]),
        (record(Quality("XX.A..HHZ", "gap", NS)),
         ["quality,@,channel=XX.A..HHZ,kind=gap count=1.0 1000000000"]),
        ({"record": UPLINK},
         ["clock,@ synchronised=1.0,steps=2.0,uncertainty_s=0.01 1000000000",
          "queue,@,name=alert waiting=3.0,oldest_s=1.5 1000000000"]),
    ],
)  # fmt: skip
def test_line_protocol(item: dict[str, Any], expected: list[str]) -> None:
    whole = [line.replace("@", "city=demo,station=cn-demo-001") for line in expected]
    assert lines(item, STATION) == whole


@pytest.mark.parametrize("answer", [0, 401, 404, 429, 500, 503])
def test_an_outage_of_the_server_costs_nothing(make: Callable[..., Influx], answer: int) -> None:
    server = Scripted()
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
    server = Scripted()
    server.refuses = "rain_mm=8.4 "
    it = make(server)
    for n in range(100):
        it.take(reading(n))
    until(lambda: len(server.taken) == 99)
    said = [fault for fault in it.faults() if fault.state != "right"]
    assert [fault.kind for fault in said] == ["refused"]
    assert "rain_mm=8.4" in said[0].detail


def test_what_was_spooled_outlives_a_restart(make: Callable[..., Influx]) -> None:
    deaf = make(lambda _: Answer(503))
    for n in range(50):
        deaf.take(reading(n))
    deaf.close()
    server = Scripted()
    make(server)
    until(lambda: len(server.taken) == 50)


def test_a_reading_that_the_core_repeats_is_written_once(make: Callable[..., Influx]) -> None:
    def item(n: int) -> dict[str, Any]:
        return {"stream": "data", "run_id": "r", "seq": n, **reading(n)}

    server = Scripted()
    it = make(server)
    for n in range(1, 5):
        it.take(item(n))
    until(lambda: len(server.taken) == 4)
    it.close()
    again = make(server)
    for n in range(2, 8):
        again.take(item(n))
    until(lambda: len(server.taken) >= 7)
    again.close()
    assert len(set(server.taken)) == len(server.taken) == 7


def pieces(spool: Spool) -> Iterator[Piece]:
    """What a spool holds, oldest first."""
    last = 0
    while batch := spool.after(last):
        yield from batch
        last = batch[-1].id


def test_lines_join_the_newest_piece_until_it_makes_a_batch(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    given = [f"line {n}" for n in range(1234)]
    for at, end in itertools.pairwise((0, 1, 8, 99, 100, 101, 350, 1234)):
        spool.add(given[at:end])
    kept = list(pieces(spool))
    assert "\n".join(piece.text for piece in kept).split("\n") == given
    assert all(piece.lines == piece.text.count("\n") + 1 for piece in kept)
    assert {piece.lines for piece in kept[:-1]} == {influx.BATCH_LINES}
    spool.close()


def test_nothing_joins_a_piece_that_may_be_on_its_way(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    for text in ("a", "b"):
        spool.add([text], behind=spool.last)
    assert [piece.text for piece in pieces(spool)] == ["a", "b"]
    spool.close()


def test_over_the_quota_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 200_000)
    dropped = sum(spool.add([f"{n} {'x' * 100}"] * 100) for n in range(50))
    left = list(pieces(spool))
    assert sum(piece.lines for piece in left) == spool.count == 5000 - dropped
    assert left[-1].text.startswith("49 ")
    spool.close()


def test_a_damaged_spool_begins_anew(make: Callable[..., Influx], tmp_path: Path) -> None:
    (tmp_path / "influx.sqlite").write_bytes(b"garbage" * 2000)
    server = Scripted()
    it = make(server)
    it.take(reading(0))
    until(lambda: server.taken)
    assert "store" in [fault.kind for fault in it.faults()]


def test_a_partial_write_drops_the_lines_that_the_answer_names(make: Callable[..., Influx]) -> None:
    server = Scripted()
    server.answers = [400]
    server.says = json.dumps(
        {"error": "partial write of line protocol occurred",
         "data": [{"original_line": "x", "line_number": 3, "error_message": "no such column"}]}
    )  # fmt: skip
    it = make(server)
    for n in range(10):
        it.take(reading(n))
    until(lambda: it.lag().waiting == 0)
    refused = [fault for fault in it.faults() if fault.kind == "refused"]
    assert len(refused) == 1
    assert "no such column" in refused[0].detail
    assert "rain_mm=0.4 " in refused[0].detail
    assert server.taken == [], "the others were taken with that answer and are not sent again"


@pytest.mark.parametrize(
    "text", ["", "[" * 9999, "[]", '{"data":3}', '{"data":[{}]}',
             '{"data":[{"line_number":11,"error_message":"of another batch"}]}'],
)  # fmt: skip
def test_an_answer_that_names_no_line_of_the_batch_names_none(text: str) -> None:
    assert refused_lines(text, 10) == {}


def test_after_an_outage_new_points_go_first_and_the_old_follow_in_order(
    make: Callable[..., Influx], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influx, "BACKLOG_S", 0.0)
    deaf = make(lambda _: Answer(503))
    for n in range(2000):
        deaf.take(reading(n))
    deaf.close()
    server, handed = Scripted(), threading.Event()

    def write(batch: str) -> Answer:
        handed.wait(PATIENCE_S)
        return server(batch)

    it = make(write)
    until(lambda: it._opened is not None, "the backlog's first batch is on its way")
    it.take(reading(5000))
    handed.set()
    until(lambda: len(server.taken) == 2001)
    times = [int(line.split()[-1]) for line in server.taken]
    new = (1_700_000_000 + 5000) * NS
    assert times.index(new) < 2000, "it did not wait for the end of the backlog"
    assert [t for t in times if t != new] == sorted(t for t in times if t != new)


@pytest.mark.parametrize(("status", "said"), [(401, "token"), (403, "right"), (404, "bucket")])
def test_what_a_person_must_mend_is_said_with_what_to_do(
    make: Callable[..., Influx], status: int, said: str
) -> None:
    server = Scripted()
    server.answers = [status]
    it = make(server)
    it.take(reading(0))
    until(lambda: server.taken)
    (fault,) = [fault for fault in it.faults() if fault.state == "wrong"]
    assert said in fault.detail


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
        wanted = urllib.parse.urlencode({"match[]": name + '{station="cn-demo-001"}'})
        text = _get(f"{database}/api/v1/export?{wanted}")
        return [value for line in text.splitlines() for value in json.loads(line)["values"]]

    until(lambda: len(stored("reading_rain_mm")) == 250, "all readings are there")
    assert [round(5 * value) for value in stored("reading_rain_mm")] == list(range(250))
    until(lambda: stored("ground_motion_pga") == [0.12])


def test_every_minute_of_an_outage_is_there_afterwards(
    make: Callable[..., Influx], database: str
) -> None:
    """The server is away and the station is killed in between; the database has each minute."""
    start_ns, minutes = 1_750_000_020 * NS, 30
    samples = base64.b64encode(np.arange(40, dtype="<i4").tobytes()).decode()
    items = [
        {"packet": {"sensor": "s", "start": iso(start_ns + 10 * n * NS), "rate_hz": 4.0,
                    "channels": ["XX.B..HHZ"], "encoding": "int32le", "samples": samples}}
        for n in range(6 * minutes + 1)
    ]  # fmt: skip
    deaf = make(lambda _: Answer(0))
    for item in items[:90]:
        deaf.take(item)
    deaf.close()
    it = make(None, url=database)
    for item in items[60:]:  # with what the core repeats
        it.take(item)
    expected = [(start_ns + 60 * NS * (n + 1)) // 1_000_000 for n in range(minutes)]

    def stored(name: str) -> dict[int, float]:
        _get(f"{database}/internal/force_flush")
        wanted = urllib.parse.urlencode({"match[]": name + '{channel="XX.B..HHZ"}'})
        text = _get(f"{database}/api/v1/export?{wanted}")
        rows = (json.loads(line) for line in text.splitlines())
        return {t: v for row in rows for t, v in zip(row["timestamps"], row["values"], strict=True)}

    until(lambda: len(stored("rsam_samples")) >= minutes, "every minute is there")
    assert stored("rsam_samples") == dict.fromkeys(expected, 240.0)
    assert set(stored("rsam_value").values()) == {10.0}, "of 0 to 39 the mean is 10 away from 19.5"


def test_every_query_of_the_dashboard_finds_what_a_station_writes(
    make: Callable[..., Influx], database: str
) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    assert len(queries) > 8
    t_ns = time.time_ns() - 30 * NS
    now_record = {"time": iso(t_ns)}
    it = make(None, url=database, station=Station("demo", "cn-other-001"))
    it.take({"reading": reading(3)["reading"] | now_record})
    for quantity in ("wind_mps", "gust_mps", "water_level_m", "pm25_ugm3"):
        it.take({"reading": reading(3)["reading"] | now_record | {"quantity": quantity}})
    for record_ in (MOTION, UPLINK):
        it.take({"record": record_ | now_record})
    for event in (
        LevelChange("rain1", Hazard.rainstorm, Level.yellow, t_ns, 50.4, "mm", 6),
        Health("rain1", "failed", t_ns, "silent", "nothing for 5 s", 3),
        SirenAction("cn-demo-001", "main", "a1", "on", "disaster", t_ns),
        replace(alert(0), time_ns=t_ns),
        Quality("XX.A..HHZ", "gap", t_ns),
    ):
        it.take(record(event))
    for n in range(3):
        start = iso(t_ns - (120 - 60 * n) * NS)
        packet = {"sensor": "s", "start": start, "rate_hz": 1.0, "channels": ["XX.A..HHZ"]}
        it.take({"packet": packet | {"encoding": "int32le", "samples": "AAAAAAEAAAA="}})
    until(lambda: it.lag().waiting == 0)

    def found(query: str) -> bool:
        _get(f"{database}/internal/force_flush")
        for name, value in (("$station", "cn-other-001"), ("$__interval", "1m"), ("$city", "demo")):
            query = query.replace(name, value)
        text = _get(f"{database}/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        return bool(text) and bool(json.loads(text)["data"]["result"])

    for query in queries:
        until(lambda q=query: found(q), query)  # type: ignore[misc]  # the lambda's default


def test_our_lines_are_those_of_influxdbs_own_client() -> None:
    made: Any = Point
    point = made("reading").tag("sensor", "a b,c=d").field("rain_mm", 0.4)
    point = point.tag("city", "demo").tag("station", "cn-demo-001").time(NS)
    ours = {"sensor": "a b,c=d", "time": iso(NS), "quantity": "rain_mm", "micro": 400_000}
    (line,) = lines({"reading": ours}, STATION)
    tags, fields, moment = re.split(r"(?<!\\) ", line)
    name, *rest = re.split(r"(?<!\\),", tags)
    assert f"{','.join((name, *sorted(rest)))} {fields} {moment}" == point.to_line_protocol()


def test_influxdbs_own_client_and_we_write_the_same(database: str) -> None:
    """Both to the real server; what it gives back differs in the station alone."""
    t_ns = 1_760_000_000 * NS
    ours = [f"same,station=ours v={n / 3!r} {t_ns + n * NS}" for n in range(20)]
    assert Server(InfluxConfig(database))("\n".join(ours)).status == 204
    with InfluxDBClient(database, token="", org="gateway") as client:
        theirs = [line.replace("ours", "theirs") for line in ours]
        client.write_api(write_options=SYNCHRONOUS).write("gateway", record=theirs)

    def stored(station: str) -> list[tuple[int, float]]:
        _get(f"{database}/internal/force_flush")
        wanted = urllib.parse.urlencode({"match[]": f'same_v{{station="{station}"}}'})
        rows = _get(f"{database}/api/v1/export?{wanted}").splitlines()
        found = [json.loads(row) for row in rows]
        return [
            pair for row in found for pair in zip(row["timestamps"], row["values"], strict=True)
        ]

    until(lambda: len(stored("ours")) == len(stored("theirs")) == 20)
    assert stored("ours") == stored("theirs")


class Listening(BaseHTTPRequestHandler):
    """A server that notes what it is asked, and answers 204; hangs up after each answer."""

    asked: ClassVar[list[tuple[str, str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, self.headers.get("Authorization", ""), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


def test_a_batch_is_one_post_with_the_token_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    Listening.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Listening) as server:
        threading.Thread(target=server.serve_forever).start()
        config = InfluxConfig(
            f"http://127.0.0.1:{server.server_port}/base", "o r", "b", str(tmp_path / "token")
        )
        write = Server(config)
        try:
            assert [write("a v=1 1\na v=2 2").status for _ in range(3)] == [204] * 3
        finally:
            server.shutdown()
    path = "/base/api/v2/write?org=o+r&bucket=b&precision=ns"
    assert Listening.asked == [(path, "Token secret", b"a v=1 1\na v=2 2")] * 3


def test_a_server_that_is_not_there_is_said(make: Callable[..., Influx]) -> None:
    it = make(None, url=f"http://127.0.0.1:{free_port()}")
    it.take(reading(0))
    said: list[Fault] = []

    def told() -> bool:
        said.extend(it.faults())
        return bool(said)

    until(told)
    assert "can't be reached" in said[0].detail
