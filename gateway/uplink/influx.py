"""Readings and ground motion to a time-series database, in InfluxDB's line protocol (v2 API).

What the loop hands over goes to a spool on disk first and leaves it when the server has said that
it is stored; a restart, a long outage or a kill costs nothing that was spooled. A batch that
was sent twice does no harm: the same series and time overwrite each other.

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

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.events import MICRO, parse_iso
from gateway.uplink.config import InfluxConfig
from gateway.uplink.messages import Station
from gateway.uplink.outbox import used_bytes
from gateway.uplink.sink import Item, Sink

BATCH_LINES = 100
PAUSE_S = (1.0, 60.0)
TIMEOUT_S = 10.0
MAX_HELD = 10_000
"""Lines that may wait for a disk that fails."""
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


class Influx(Sink):
    """The time-series database at ``config.url``, by way of a spool at ``path``."""

    def __init__(
        self, config: InfluxConfig, station: Station, path: Path, write: Write | None = None
    ) -> None:
        super().__init__("influx")
        self._config = config
        self._station = station
        self._path = path
        self._opened: Spool | None = None
        self._write = write
        self._held: list[str] = []
        self._pause_s = PAUSE_S[0]
        self._next_try_s = 0.0

    def wants(self, item: Item) -> bool:
        return "reading" in item or "record" in item

    def work(self, items: Sequence[Item]) -> float | None:
        for item in items:
            self._held += lines(item, self._station)
        self._guarded_step(self._keep)
        while time.monotonic() >= self._next_try_s and self._guarded_step(self._send):
            pass
        return max(0.0, self._next_try_s - time.monotonic()) or PAUSE_S[1]

    def finish(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _guarded_step(self, step: Callable[[Spool], bool]) -> bool:
        """A step that needs the spool; a disk that fails is said, a damaged spool begins anew."""
        try:
            if self._opened is None:
                self._opened = Spool(self._path, self._config.quota_mb << 20)
            return step(self._opened)
        except sqlite3.Error as error:
            self.incident("store", f"{self._path}: {error}")
            if self._opened is not None:
                self._opened.close()
                self._opened = None
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                self._path.replace(self._path.with_name(f"{self._path.name}.damaged"))
            return False

    def _keep(self, spool: Spool) -> bool:
        if (over := len(self._held) - MAX_HELD) > 0:
            del self._held[:over]
            self.incident("dropped", "lines that could not be stored", over)
        if self._held:
            if dropped := spool.add(self._held):
                self.incident("dropped", "lines over the spool's quota", dropped)
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
                self.incident("token", str(error))
                return False
        status = self._write([text for _, text in batch])
        if status in _REFUSED:
            if len(batch) == 1:
                self.incident("refused", f"{status}: {batch[0][1][:200]}")
                return True
            middle = len(batch) // 2
            return self._sent(batch[:middle]) and self._sent(batch[middle:])
        if not 200 <= status < 300:
            said = f"answers {status}" if status else "can't be reached"
            self.wrong("unavailable", f"{self._config.url} {said}")
            return False
        self.right("unavailable")
        return True
