"""What is measured to a time-series database, in InfluxDB's line protocol (v2 API).

What the loop hands over goes to a spool on disk first and leaves it when the server has said that
it is stored; a restart, a long outage or a kill costs nothing that was spooled. A batch that was
sent twice does no harm: the same series and time overwrite each other. A row of the spool holds
lines as they are sent, up to a batch of them, for most of a spool's cost is its rows.

After an outage the new points go first and the spool's oldest follow in order, in what time is
left between two rounds of new ones.

====================  ==========================================================================
server's answer       what follows
====================  ==========================================================================
2xx                   the lines are deleted
400, 413, 422         where the answer names lines (InfluxDB 3), those are dropped and counted, and
                      the others are stored; else the batch is halved until single lines are left
401, 403, 404         the token or the bucket is wrong, which is said; the token's file is read anew
anything else, none   the lines stay; the next try comes after a pause that doubles to a minute
====================  ==========================================================================

==============  ================================  =============================================
measurement     tags besides city and station     fields
==============  ================================  =============================================
reading         sensor                            the quantity with its unit, such as rain_mm
rsam            channel                           value (counts), samples; each minute
measured        sensor                            sums, means, days so far; each minute
ground_motion   site                              pga, pgv, pgd, pd, tau_c, cav, intensity, …
level           sensor, hazard                    level (0 none to 4 red), value
alert           hazard, status                    level; 0 once it has ended
siren           siren, status                     on (1, 0)
health          component, kind                   state (0 ok, 1 degraded, 2 failed), count
quality         channel, kind                     count
clock                                             synchronised (1, 0), uncertainty_s, steps
queue           name                              waiting, oldest_s
budget                                            daily_bytes, used_bytes; of a metered link
==============  ================================  =============================================

::

    reading,city=demo,station=cn-demo-001,sensor=rain1 rain_mm=0.2 1700000000000000000
    measured,city=demo,station=cn-demo-001,sensor=rain1 rain_1h_mm=3.4,rain_day20_mm=12.6 17…
"""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from gateway.events import MICRO, NS, Level, parse_iso
from gateway.uplink.config import InfluxConfig
from gateway.uplink.messages import Station
from gateway.uplink.minutes import Minutes, MinuteValue
from gateway.uplink.outbox import used_bytes
from gateway.uplink.sink import Item, Sink

BATCH_LINES = 100
BACKLOG_S = 0.5
"""How long lines from before are sent between two rounds of new ones."""
PAUSE_S = (1.0, 60.0)
TIMEOUT_S = 10.0
MAX_HELD = 10_000
"""Lines that may wait for a disk that fails."""
_MOTION = (
    *("pga", "pgv", "pgd", "pd", "pd_max", "tau_c", "cav"),
    *("intensity", "predicted", "jma", "mmi"),
)
_STATES = {"ok": 0, "degraded": 1, "failed": 2}
_OVER = ("cancel", "expire")
_REFUSED = (400, 413, 422)
_ADVICE = {
    401: "the token is not known there; put a valid one into token_file",
    403: "the token may not write to the bucket; give it that right, or another token",
    404: "there is no such bucket or organisation; make it, or correct uplink.influx",
}


class Answer(NamedTuple):
    """What the server said: HTTP status, 0 if it can't be reached, and the body or the reason."""

    status: int
    text: str = ""


Write = Callable[[str], Answer]
"""Sends lines, with line feeds between them."""


def lines(item: Mapping[str, Any], station: Station) -> list[str]:
    """The lines for an item of the feed, packets apart; none for what is no measurement."""
    if "reading" in item and item["reading"]["micro"] is not None:
        reading = item["reading"]
        values = {reading["quantity"]: reading["micro"] / MICRO}
        return [_line("reading", station, {"sensor": reading["sensor"]}, values, reading["time"])]
    if "measured" in item and item["measured"]["values"]:
        measured = item["measured"]
        tags = {"sensor": measured["sensor"]}
        return [_line("measured", station, tags, measured["values"], measured["time"])]
    record = item.get("record") or {}
    return [
        _line(name, station, tags, values, record["time"])
        for name, tags, values in _points(record)
        if values
    ]


_Point = tuple[str, dict[str, str], dict[str, float]]


def _points(record: Mapping[str, Any]) -> list[_Point]:
    """Measurement, tags and fields of a record."""

    def tags(*names: str) -> dict[str, str]:
        return {name: record[name] for name in names}

    found: list[_Point] = []
    match record.get("type"):
        case "ground_motion":
            motion = {name: record[name] for name in _MOTION if record.get(name) is not None}
            found = [("ground_motion", {"site": record["station"]}, motion)]
        case "level":
            fields = {"level": Level[record["level"]].value, "value": record["value"]}
            found = [("level", tags("sensor", "hazard"), fields)]
        case "alert":
            level = 0 if record["phase"] in _OVER else Level[record["level"]].value
            found = [("alert", tags("hazard", "status"), {"level": level})]
        case "siren":
            found = [("siren", tags("siren", "status"), {"on": int(record["action"] == "on")})]
        case "health":
            fields = {"state": _STATES[record["state"]], "count": record["count"]}
            found = [("health", tags("component", "kind"), fields)]
        case "quality":
            found = [("quality", tags("channel", "kind"), {"count": 1})]
        case "uplink":
            clock = record["clock"]
            known = {"uncertainty_s": clock["uncertainty_s"]} if clock["uncertainty_s"] else {}
            budget = {k: v for k, v in (record["budget"] or {}).items() if k != "held"}
            state = {"synchronised": int(clock["state"] == "synchronised"), "steps": clock["steps"]}
            found = [
                ("clock", {}, state | known),
                ("budget", {}, budget),
                *(
                    ("queue", {"name": q["name"]}, {k: q[k] for k in ("waiting", "oldest_s")})
                    for q in record["queues"]
                ),
            ]
    return found


def minute_line(value: MinuteValue, station: Station) -> str:
    """The line for a channel's minute."""
    fields = {"value": float(f"{value.mean_absolute:.6g}"), "samples": value.samples}
    return _line("rsam", station, {"channel": value.channel}, fields, value.end_ns)


def _line(
    name: str,
    station: Station,
    tags: Mapping[str, str],
    values: Mapping[str, float],
    moment: str | int,
) -> str:
    named = {"city": station.city, "station": station.id} | dict(tags)
    labels = ",".join(f"{key}={_escaped(value)}" for key, value in named.items() if value)
    fields = ",".join(f"{_escaped(key)}={float(value)!r}" for key, value in values.items())
    return f"{name},{labels} {fields} {parse_iso(moment) if isinstance(moment, str) else moment}"


def _escaped(text: str) -> str:
    """A tag's value as line protocol wants it; line feeds have no form there."""
    for special in (",", "=", " "):
        text = text.replace(special, "\\" + special)
    return text.replace("\n", "\\ ")


class Server:
    """The v2 write API through influxdb-client, synchronously: its batches lose what they hold.

    Lines go over the client's own connections and with its headers, past its serialising of
    arguments and answers, of which there are none: that takes as long as the server does.

    Raises:
        OSError: the token's file can't be read.
    """

    def __init__(self, config: InfluxConfig) -> None:
        from influxdb_client.client.influxdb_client import InfluxDBClient  # noqa: PLC0415  takes 34 MiB: only where a database is configured
        from urllib3.exceptions import HTTPError  # noqa: PLC0415  likewise

        self._failures = HTTPError, OSError
        token = Path(config.token_file).read_text().strip() if config.token_file else ""
        url = config.url.rstrip("/")
        self._client = InfluxDBClient(url, token)
        api: Any = self._client.api_client
        where = {"org": config.organisation, "bucket": config.bucket, "precision": "ns"}
        self._post = partial(
            api.rest_client.pool_manager.connection_from_url(url).urlopen,
            "POST",
            f"{urlsplit(url).path}/api/v2/write?{urlencode(where)}",
            headers={**api.default_headers, "Content-Type": "text/plain"},
            timeout=TIMEOUT_S,
            retries=False,
        )

    def __call__(self, batch: str) -> Answer:
        """Send lines; the server's answer, with status 0 if it can't be reached."""
        try:
            answer = self._post(body=batch.encode())
        except self._failures as error:
            return Answer(0, str(error) or type(error).__name__)
        text = answer.data.decode(errors="replace")
        return Answer(answer.status, text or answer.reason or "")


class Piece(NamedTuple):
    """At most a batch of lines, with line feeds between them."""

    id: int
    lines: int
    text: str


class Spool:
    """Pieces on disk, oldest first, in a SQLite database. Of one thread."""

    def __init__(self, path: Path, quota_bytes: int) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA secure_delete = OFF")  # Debian's writes zeros over what goes
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS piece (id INTEGER PRIMARY KEY, lines INT, text TEXT)"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS minute (channel TEXT PRIMARY KEY, end_ns INT)")
        self._db.execute("CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY, run_id, seq)")
        self._quota_bytes = quota_bytes
        self.last = self._db.execute("SELECT ifnull(max(id), 0) FROM piece").fetchone()[0]
        """Id of the newest piece."""
        self.count = self._db.execute("SELECT ifnull(sum(lines), 0) FROM piece").fetchone()[0]
        """How many lines there are."""

    def add(
        self,
        texts: Sequence[str],
        minutes: Mapping[str, int] = {},
        place: tuple[str, int] | None = None,
        behind: int = 0,
    ) -> int:
        """Keep lines, the ends of the channels' last minutes, and the last reading's place.

        Lines join the newest piece while it has room, unless its id is ``behind`` or less: it may
        be on its way. Gives how many of the oldest lines had to go for them.

        Raises:
            sqlite3.Error: the disk does not take them.
        """
        dropped = 0
        newest = self._db.execute(
            "SELECT lines FROM piece WHERE id = ? AND id > ?", (self.last, behind)
        ).fetchone()
        room = BATCH_LINES - newest[0] if newest else 0
        lots = [texts[at : at + BATCH_LINES] for at in range(room, len(texts), BATCH_LINES)]
        first = self.last + 1  # an id is never used twice, even in an empty table
        rows = [Piece(id_, len(lot), "\n".join(lot)) for id_, lot in enumerate(lots, first)]
        joining = texts[:room]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if joining:
                self._db.execute(
                    "UPDATE piece SET lines = lines + ?, text = text || ? WHERE id = ?",
                    (len(joining), "\n".join(("", *joining)), self.last),
                )
            self._db.executemany("INSERT INTO piece VALUES (?, ?, ?)", rows)
            self._db.executemany("INSERT OR REPLACE INTO minute VALUES (?, ?)", minutes.items())
            if place is not None:
                self._db.execute("INSERT OR REPLACE INTO place VALUES (0, ?, ?)", place)
            while used_bytes(self._db) > self._quota_bytes and (removed := self._drop_oldest()):
                dropped += removed
            self._db.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self.last += len(lots)
        self.count += len(texts) - dropped
        return dropped

    def after(self, identity: int) -> list[Piece]:
        """The oldest pieces behind an id that make a batch."""
        batch: list[Piece] = []
        room = BATCH_LINES
        for row in self._db.execute("SELECT * FROM piece WHERE id > ? ORDER BY id", (identity,)):
            room -= row[1]
            if room < 0:
                break
            batch.append(Piece(*row))
        return batch

    def remove(self, behind: int, last: int, lines: int) -> None:
        """Forget the pieces behind an id up to another, which have so many lines."""
        self._db.execute("DELETE FROM piece WHERE id > ? AND id <= ?", (behind, last))
        self.count -= lines

    def minutes(self) -> dict[str, int]:
        """The end of each channel's last minute."""
        return dict(self._db.execute("SELECT channel, end_ns FROM minute"))

    def place(self) -> tuple[str, int] | None:
        """Run and number of the last reading that was kept."""
        found: tuple[str, int] | None = self._db.execute("SELECT run_id, seq FROM place").fetchone()
        return found

    def close(self) -> None:
        self._db.close()

    def _drop_oldest(self) -> int:
        oldest = "SELECT id FROM piece ORDER BY id LIMIT 1"
        found = self._db.execute(f"DELETE FROM piece WHERE id = ({oldest}) RETURNING lines")  # noqa: S608  the line above
        return sum(lines for (lines,) in found.fetchall())


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
        self._minutes: Minutes | None = None
        self._write = write
        self._held: list[str] = []
        self._held_minutes: dict[str, int] = {}
        self._held_place: tuple[str, int] | None = None
        self._known_place: tuple[str, int] | None = None
        self._sent_live = 0
        self._pause_s = PAUSE_S[0]
        self._next_try_s = 0.0

    def wants(self, item: Item) -> bool:
        return any(name in item for name in ("reading", "measured", "packet", "record"))

    def work(self, items: Sequence[Item]) -> float | None:
        self._guarded_step(lambda _: True)  # so that it is known which minutes are written
        for item in items:
            self._take_in(item)
        kept = self._guarded_step(self._keep)
        if kept and time.monotonic() >= self._next_try_s:
            more = self._guarded_step(self._send_live) and self._guarded_step(self._send_backlog)
            self._guarded_step(self._say_behind)
            if more:
                return 0.0
        left_s = self._next_try_s - time.monotonic()
        return left_s if left_s > 0 else PAUSE_S[1]

    def finish(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _take_in(self, item: Item) -> None:
        try:
            if "packet" in item:
                self._minutes = self._minutes or Minutes({})
                for value in self._minutes.take(item["packet"]):
                    self._held.append(minute_line(value, self._station))
                    self._held_minutes[value.channel] = value.end_ns
            elif not self._is_known(item):
                self._held += lines(item, self._station)
        except (KeyError, ValueError, TypeError) as error:
            self.incident("garbled", f"an item of the feed: {error!r}")

    def _is_known(self, item: Item) -> bool:
        """Whether it is a reading that the core repeats after a restart: some servers keep both."""
        if item.get("stream") != "data":
            return False
        place, known = (str(item["run_id"]), int(item["seq"])), self._known_place
        if known is not None and known[0] == place[0] and place[1] <= known[1]:
            return True
        self._held_place = place
        return False

    def _guarded_step(self, step: Callable[[Spool], bool]) -> bool:
        """A step that needs the spool; a disk that fails is said, a damaged spool begins anew."""
        try:
            if self._opened is None:
                self._opened = Spool(self._path, self._config.quota_mb << 20)
                self._sent_live = self._opened.last
                self._minutes = self._minutes or Minutes(self._opened.minutes())
                self._known_place = self._known_place or self._opened.place()
            done = step(self._opened)
        except sqlite3.Error as error:
            self.wrong("store", f"{self._path}: {error}")
            if self._opened is not None:
                self._opened.close()
                self._opened = None
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                aside = self._path.with_name(f"{self._path.name}.damaged")
                self._path.replace(aside)
                self.incident("damaged", f"{self._path} was set aside as {aside.name}")
            self._next_try_s = max(self._next_try_s, time.monotonic() + PAUSE_S[0])
            return False
        self.right("store")
        return done

    def _keep(self, spool: Spool) -> bool:
        if (over := len(self._held) - MAX_HELD) > 0:
            del self._held[:over]
            self.incident("dropped", "lines that could not be stored", over)
        if self._held:
            minutes, place = self._held_minutes, self._held_place
            if dropped := spool.add(self._held, minutes, place, self._sent_live):
                self.incident("dropped", "the oldest lines, over the spool's quota", dropped)
            self._held.clear()
            self._held_minutes.clear()
        return True

    def _send_live(self, spool: Spool) -> bool:
        """Send what is new; whether the server takes it."""
        self._sent_live, taken = self._send(spool, self._sent_live, lambda: False)
        if not taken:
            self._sent_live = spool.last
        return taken

    def _send_backlog(self, spool: Spool) -> bool:
        """Send the oldest for a while; whether there is more."""
        end_s = time.monotonic() + BACKLOG_S
        _, taken = self._send(spool, 0, lambda: self.ending or time.monotonic() >= end_s)
        return taken and spool.count > 0

    def _send(self, spool: Spool, behind: int, enough: Callable[[], bool]) -> tuple[int, bool]:
        """Send what is behind an id, a batch at a time, and forget what was taken.

        Gives the id of the last piece that was taken, and False where it is time for a pause.
        """
        last, lines, taken = behind, 0, True
        while taken and (batch := spool.after(last)):
            if taken := self._sent("\n".join([piece.text for piece in batch])):
                last, lines = batch[-1].id, lines + sum(piece.lines for piece in batch)
            if enough():
                break
        if last > behind:
            spool.remove(behind, last, lines)
            self._pause_s = PAUSE_S[0]
        if not taken:
            self._next_try_s = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, PAUSE_S[1])
        return last, taken

    def _sent(self, batch: str) -> bool:
        """Whether nothing of the batch needs to be sent again."""
        if self._write is None:
            try:
                self._write = Server(self._config)
            except OSError as error:
                self.wrong("unavailable", f"uplink.influx.token_file: {error}")
                return False
        answer = self._write(batch)
        if answer.status in _REFUSED:
            return self._without_refused(batch.split("\n"), answer)
        if not 200 <= answer.status < 300:
            said = f"answers {answer.status}" if answer.status else "can't be reached"
            detail = f"{self._config.url} {said}: {_ADVICE.get(answer.status) or answer.text[:200]}"
            self.wrong("unavailable", detail)
            if answer.status in _ADVICE and self._config.token_file:
                self._write = None
            return False
        self.right("unavailable")
        return True

    def _without_refused(self, batch: Sequence[str], answer: Answer) -> bool:
        if named := refused_lines(answer.text, len(batch)):
            for number, why in named.items():
                self.incident("refused", f"{answer.status}: {why}: {batch[number - 1][:200]}")
            return True
        if len(batch) == 1:
            self.incident("refused", f"{answer.status}: {answer.text[:200]}: {batch[0][:200]}")
            return True
        middle = len(batch) // 2
        return self._sent("\n".join(batch[:middle])) and self._sent("\n".join(batch[middle:]))

    def _say_behind(self, spool: Spool) -> bool:
        oldest = spool.after(0)
        first = oldest[0].text.split("\n", 1)[0] if oldest else ""
        oldest_ns = int(first.rsplit(" ", 1)[1]) if first else time.time_ns()
        self.behind(spool.count, max(0.0, (time.time_ns() - oldest_ns) / NS))
        return True


def refused_lines(text: str, count: int) -> dict[int, str]:
    """Number (from 1) and reason of the lines that an answer names; empty if it names none.

    InfluxDB 3 takes the good lines of a batch and says ``{"error":"partial write …","data":
    [{"original_line":…, "line_number":3, "error_message":…}]}``.
    """
    try:
        found = json.loads(text)
        named = {int(x["line_number"]): str(x["error_message"]) for x in found["data"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return named if all(1 <= number <= count for number in named) else {}
