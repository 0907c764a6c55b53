"""The time-series database: from the spool to a real server, against ``http.client`` posting lines.

Both send the same lines in batches of 100 to the same VictoriaMetrics, by turns. Ours takes them
from a spool on disk that filled up ten lines a second, as in an outage, sends them through
influxdb-client, waits for each answer, and deletes what was stored; the other holds one connection
open and posts. The medians of many short rounds are compared.
"""

import http.client
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from bench.report import Result
from gateway.hub.broker import find_program, free_port
from gateway.uplink.config import InfluxConfig
from gateway.uplink.influx import BATCH_LINES, Influx, Server, Spool
from gateway.uplink.messages import Station

PATIENCE_S = 60.0
GOAL = 0.5
SECOND_LINES = 10
"""So many a station of ten gauges spools at a time."""


def _lines(first: int, count: int) -> list[str]:
    start_ns = 1_700_000_000_000_000_000
    return [
        f"reading,city=demo,station=cn-demo-001,sensor=rain1 rain_mm={n % 7 / 5!r} "
        f"{start_ns + n * 1_000_000_000}"
        for n in range(first, first + count)
    ]


def _bare(url: str, lines: list[str]) -> float:
    """Lines a second by http.client."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    began = time.monotonic()
    for at in range(0, len(lines), BATCH_LINES):
        body = "\n".join(lines[at : at + BATCH_LINES]).encode()
        connection.request("POST", "/api/v2/write?org=gateway&bucket=gateway&precision=ns", body)
        connection.getresponse().read()
    elapsed_s = time.monotonic() - began
    connection.close()
    return len(lines) / elapsed_s


def _ours(url: str, lines: list[str], folder: Path) -> float:
    """Lines a second out of a spool that holds them already."""
    path = folder / "spool.sqlite"
    spool = Spool(path, 1 << 28)
    for at in range(0, len(lines), SECOND_LINES):
        spool.add(lines[at : at + SECOND_LINES])
    spool.close()
    config = InfluxConfig(url)
    sink = Influx(config, Station("demo", "cn-demo-001"), path, Server(config))
    began = time.monotonic()
    sink.work([])
    while sink.lag().waiting:
        sink.work([])
        if time.monotonic() - began > PATIENCE_S:
            raise TimeoutError(f"{sink.lag().waiting} lines are left")
    elapsed_s = time.monotonic() - began
    sink.finish()
    path.unlink()
    return len(lines) / elapsed_s


def run(quick: bool) -> list[Result]:
    program = find_program("victoria-metrics")
    if program is None:
        raise FileNotFoundError("victoria-metrics: run tools/debian .venv/debian")
    rounds, count = (3, 2_000) if quick else (60, 10_000)
    ours, bares = [], []
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        server = subprocess.Popen(
            [
                program,
                f"-httpListenAddr=127.0.0.1:{port}",
                f"-storageDataPath={name}/metrics",
                "-retentionPeriod=100y",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(port)
            for number in range(rounds):
                lines = _lines(number * count, count)
                bares.append(_bare(url, lines))
                ours.append(_ours(url, lines, Path(name)))
        finally:
            server.kill()
            server.wait()
    mine, theirs = statistics.median(ours), statistics.median(bares)
    note = f"{mine:.0f}/s against {theirs:.0f}/s, medians of {rounds}; "
    note += f"the quickest {max(ours):.0f}/s and {max(bares):.0f}/s"
    what = f"spool → database, batches of {BATCH_LINES} lines, against http.client"
    return [Result(what, mine / theirs, "×", GOAL, at_least=True, note=note)]


def _wait_for(port: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            if time.monotonic() > end:
                raise
        finally:
            connection.close()
        time.sleep(0.05)
