"""Readings and ground motion to a time-series database, in InfluxDB's line protocol (v2 API).

What the loop hands over goes to a spool on disk first and leaves it when the server has said that
it is stored; a restart, a long outage or a kill costs nothing that was spooled. All of it runs in
one thread of its own, since the client waits for the server. A batch that was sent twice does no
harm: the same series and time overwrite each other.

====================  ==========================================================================
server's answer       what follows
====================  ==========================================================================
2xx                   the lines are deleted
400, 413, 422         the batch is halved; a single line that is refused is dropped and counted
anything else, none   the lines stay; the next try comes after a pause that doubles to a minute
====================  ==========================================================================

::

    reading,city=demo,station=cn-demo-001,sensor=rain1 rain_mm=0.2 1700000000000000000
    ground_motion,city=demo,station=cn-demo-001,site=NP.1765 pga=0.12,intensity=5.3 17…
"""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.events import MICRO, parse_iso
from gateway.uplink.config import InfluxConfig
from gateway.uplink.messages import Station
from gateway.uplink.outbox import used_bytes

BATCH_LINES = 100
GATHER_S = 1.0
PAUSE_S = (1.0, 60.0)
TIMEOUT_S = 10.0
MAX_HANDED = 10_000
"""Lines that may wait for the thread, or for a disk that fails."""
CLOSE_S = 5.0
_MOTION = ("pga", "pgv", "pgd", "pd", "tau_c", "cav", "intensity", "predicted")
_REFUSED = (400, 413, 422)

Write = Callable[[Sequence[str]], int]
"""Sends lines; the HTTP status, 0 if the server can't be reached."""


def lines(item: Mapping[str, Any], station: Station) -> list[str]:
    """The lines for an item of the core's feed; none for what is no measurement."""
    if "reading" in item and item["reading"]["micro"] is not None:
        reading = item["reading"]
        tags = {"sensor": reading["sensor"]}
        values = {reading["quantity"]: reading["micro"] / MICRO}
        return [_line("reading", station, tags, values, reading["time"])]
    record = item.get("record")
    if record and record.get("type") == "ground_motion":
        values = {name: record[name] for name in _MOTION if record.get(name) is not None}
        tags = {"site": record["station"]}
        return [_line("ground_motion", station, tags, values, record["time"])]
    return []


def _line(
    name: str, station: Station, tags: Mapping[str, str], values: Mapping[str, float], moment: str
) -> str:
    named = {"city": station.city, "station": station.id} | dict(tags)
    labels = ",".join(f"{key}={_escaped(value)}" for key, value in named.items())
    fields = ",".join(f"{_escaped(key)}={value!r}" for key, value in values.items())
    return f"{name},{labels} {fields} {parse_iso(moment)}"


def _escaped(text: str) -> str:
    """A tag's value as line protocol wants it; line feeds have no form there."""
    for special in (",", "=", " "):
        text = text.replace(special, "\\" + special)
    return text.replace("\n", "\\ ")


def client_write(config: InfluxConfig) -> Write:
    """Writing with influxdb-client, synchronously: its batching mode loses what it holds."""
    from influxdb_client.client.influxdb_client import InfluxDBClient  # noqa: PLC0415  only where it is configured
    from influxdb_client.client.write_api import SYNCHRONOUS  # noqa: PLC0415  likewise
    from influxdb_client.rest import ApiException  # noqa: PLC0415  likewise
    from urllib3.exceptions import HTTPError  # noqa: PLC0415  likewise

    token = Path(config.token_file).read_text().strip() if config.token_file else ""
    client = InfluxDBClient(
        config.url, token=token, org=config.organisation, timeout=round(TIMEOUT_S * 1000), retries=0
    )
    api = client.write_api(write_options=SYNCHRONOUS)

    def write(batch: Sequence[str]) -> int:
        try:
            api.write(config.bucket, record="\n".join(batch))
        except ApiException as error:
            return int(error.status or 0)
        except (HTTPError, OSError):
            return 0
        return 204

    return write


class Spool:
    """Lines on disk, oldest first, in a SQLite database. Of one thread."""

    def __init__(self, path: Path, quota_bytes: int) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS line (id INTEGER PRIMARY KEY, text TEXT)")
        self._quota_bytes = quota_bytes

    def add(self, texts: Sequence[str]) -> int:
        """Keep lines; how many of the oldest had to go for them.

        Raises:
            sqlite3.Error: the disk does not take them.
        """
        dropped = 0
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT INTO line (text) VALUES (?)", [(x,) for x in texts])
            while used_bytes(self._db) > self._quota_bytes and (removed := self._drop_oldest()):
                dropped += removed
            self._db.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        return dropped

    def oldest(self, most: int) -> list[tuple[int, str]]:
        """The oldest lines with their ids."""
        return self._db.execute("SELECT id, text FROM line ORDER BY id LIMIT ?", (most,)).fetchall()

    def remove(self, first: int, last: int) -> None:
        """Forget the lines of these ids."""
        self._db.execute("DELETE FROM line WHERE id BETWEEN ? AND ?", (first, last))

    def close(self) -> None:
        self._db.close()

    def _drop_oldest(self) -> int:
        return self._db.execute(
            "DELETE FROM line WHERE id IN (SELECT id FROM line ORDER BY id LIMIT 100)"
        ).rowcount


class Influx:
    """A consumer of the uplink's feed; see ``gateway.uplink.service.Consumer``."""

    def __init__(
        self, config: InfluxConfig, station: Station, path: Path, write: Write | None = None
    ) -> None:
        self._config = config
        self._station = station
        self._path = path
        self._opened: Spool | None = None
        self._write = write
        self._handed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._held: list[str] = []
        self._said: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._pause_s = PAUSE_S[0]
        self._next_try_s = 0.0
        self._thread = threading.Thread(target=self._run, name="influx", daemon=True)
        self._thread.start()

    def take(self, item: Mapping[str, Any], t: int) -> None:  # noqa: ARG002  a consumer's signature
        """Hand an item's lines to the thread; what it can't take any more is counted."""
        for text in lines(item, self._station):
            if self._handed.qsize() < MAX_HANDED:
                self._handed.put(text)
            else:
                self._said.put(("dropped", "the disk or the server is too slow"))

    def health(self) -> list[tuple[str, str]]:
        """What went wrong since last asked."""
        found = []
        while not self._said.empty():
            found.append(self._said.get_nowait())
        return found

    def close(self) -> None:
        """Spool what is held and end the thread."""
        self._handed.put(None)
        self._thread.join(CLOSE_S)

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._gather():
            self._guarded(self._keep)
            while time.monotonic() >= self._next_try_s and self._guarded(self._send):
                pass
        self._guarded(self._keep)
        if self._opened is not None:
            self._opened.close()

    def _guarded(self, step: Callable[[Spool], bool]) -> bool:
        """A step that needs the spool; a disk that fails is said, a damaged spool begins anew."""
        try:
            if self._opened is None:
                self._opened = Spool(self._path, self._config.quota_mb << 20)
            return step(self._opened)
        except sqlite3.Error as error:
            self._said.put(("store", f"{self._path}: {error}"))
            if self._opened is not None:
                self._opened.close()
                self._opened = None
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                self._path.replace(self._path.with_name(f"{self._path.name}.damaged"))
            return False

    def _gather(self) -> bool:
        """Take what is handed over within a moment; False when it is time to end."""
        end = time.monotonic() + GATHER_S
        while (left_s := end - time.monotonic()) > 0:
            try:
                text = self._handed.get(timeout=left_s)
            except queue.Empty:
                break
            if text is None:
                return False
            self._held.append(text)
        return True

    def _keep(self, spool: Spool) -> bool:
        if (over := len(self._held) - MAX_HANDED) > 0:
            del self._held[:over]
            self._said.put(("dropped", f"{over} lines that could not be stored"))
        if self._held:
            if dropped := spool.add(self._held):
                self._said.put(("dropped", f"{dropped} lines over the spool's quota"))
            self._held.clear()
        return True

    def _send(self, spool: Spool) -> bool:
        """Send the oldest batch; whether there may be more to send now."""
        batch = spool.oldest(BATCH_LINES)
        if not batch:
            return False
        if not self._sent(batch):
            self._next_try_s = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, PAUSE_S[1])
            return False
        spool.remove(batch[0][0], batch[-1][0])
        self._pause_s = PAUSE_S[0]
        return len(batch) == BATCH_LINES

    def _sent(self, batch: Sequence[tuple[int, str]]) -> bool:
        """Whether nothing of the batch needs to be sent again."""
        if self._write is None:
            try:
                self._write = client_write(self._config)
            except OSError as error:
                self._said.put(("token", str(error)))
                return False
        status = self._write([text for _, text in batch])
        if status in _REFUSED:
            if len(batch) == 1:
                self._said.put(("refused", f"{status}: {batch[0][1][:200]}"))
                return True
            middle = len(batch) // 2
            return self._sent(batch[:middle]) and self._sent(batch[middle:])
        if not 200 <= status < 300:
            said = f"answers {status}" if status else "can't be reached"
            self._said.put(("unavailable", f"{self._config.url} {said}"))
            return False
        return True
