"""Rain and water level to a hydrological centre, by SL 651-2014 over TCP.

::

    readings ─► Ledger: sums, newest level ─► reports when due ─► store ─► Session ─► centre

==========  ======================  ==============================================================
report      when                    what
==========  ======================  ==============================================================
timed       each ``timed_min``      rain of the hydrological day so far, accumulated rain, level
            from 08:00 Beijing
hourly      each full hour          the same, and twelve 5-minute rains where configured
extra       a rain or flood scale   the same
            reaches another level
==========  ======================  ==============================================================

A report lives on disk until the centre has answered it; an absent centre costs nothing but its
lateness. What the protocol leaves unclear is in ``gateway.uplink.sl651``; that "current rain" is
the rain since 08:00 is one such reading of it.
"""

import json
import re
import socket
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from gateway.detect.days import HOUR_NS, DayKind
from gateway.detect.rain import QUANTITIES, RainGauge
from gateway.events import NS, Reading, parse_iso
from gateway.uplink.config import Sl651Config
from gateway.uplink.sink import Item, Sink
from gateway.uplink.sl651 import (
    Element,
    Function,
    Identity,
    Report,
    Session,
    StationClass,
    encode,
)

MINUTE_NS = 60 * NS
BIN_NS = 5 * MINUTE_NS
BINS = 12
STALE_NS = HOUR_NS
"""A water level older than this is reported as missing."""
CONNECT_S = 10.0
PAUSE_S = (5.0, 600.0)
REFUSALS = 3
MAX_STORED = 20_000
"""Reports, more than two years of hourly ones; of more the oldest go."""
SAVE_S = 60.0
_HAZARDS = frozenset({"rainstorm", "flood"})


class Ledger:
    """What has fallen and how high the water stands; ``state`` survives a restart."""

    def __init__(self, config: Sl651Config, state: Mapping[str, Any]) -> None:
        self._config = config
        self._gauge = RainGauge()
        if counter := state.get("counter"):
            self._gauge.counter = (counter[0], counter[1])
        self._total_nm = int(state.get("total_nm", 0))
        self._day = str(state.get("day", ""))
        self._day_nm = int(state.get("day_nm", 0))
        self._bins: dict[int, int | None] = {}
        self._rain_missing = True
        self._level: tuple[int, int] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """What the next start needs, as plain JSON types."""
        return {
            "total_nm": self._total_nm,
            "day": self._day,
            "day_nm": self._day_nm,
            "counter": self._gauge.counter,
        }

    def take(self, reading: Reading) -> None:
        """A reading of the configured rain gauge or level sensor; others are passed over."""
        quantity = reading.quantity
        if quantity in QUANTITIES and reading.sensor == self._config.rain_sensor:
            self._rain(reading)
        elif quantity == "water_level_m" and reading.sensor == self._config.level_sensor:
            self._level = None if reading.micro is None else (reading.time_ns, reading.micro)

    def elements(self, observed_ns: int, *, hourly: bool = False) -> bytes:
        """The elements of a report, encoded."""
        config, found = self._config, []
        self._turn_day(observed_ns)
        if config.rain_sensor is not None:
            day_nm, total_nm = self._day_nm, self._total_nm
            missing = self._rain_missing
            found += [
                Element(config.rain_identifier, None if missing else day_nm, 3, 1),
                Element(config.total_identifier, None if missing else total_nm, 3, 1),
            ]
        if config.level_sensor is not None:
            fresh = self._level is not None and observed_ns - self._level[0] < STALE_NS
            level = self._level[1] if self._level is not None and fresh else None
            found.append(Element(config.level_identifier, level, 4, 3))
        text = encode(found)
        if hourly and config.rain_sensor is not None and config.five_minute_rain:
            text += bytes((config.five_minute_identifier, BINS << 3)) + self._five_minutes(
                observed_ns
            )
        return text

    def _rain(self, reading: Reading) -> None:
        fallen = self._gauge.take(reading)
        if fallen is None:
            return
        t = reading.time_ns
        self._turn_day(t)
        end = -(-t // BIN_NS) * BIN_NS  # of the five minutes in which the reading's interval ends
        self._rain_missing = fallen.nm is None and reading.micro is None
        if fallen.nm is None:
            self._bins.setdefault(end, None if self._rain_missing else 0)
            return
        self._total_nm += fallen.nm
        self._day_nm += fallen.nm
        self._bins[end] = (self._bins.get(end) or 0) + fallen.nm
        for old in [x for x in self._bins if x <= end - 2 * BINS * BIN_NS]:
            del self._bins[old]

    def _turn_day(self, t: int) -> None:
        day = DayKind.hydrological.of(t).isoformat()
        if day != self._day:
            self._day, self._day_nm = day, 0

    def _five_minutes(self, observed_ns: int) -> bytes:
        """Tenths of a millimetre, a byte each, of the hour that ends at ``observed_ns``."""
        ends = [observed_ns - i * BIN_NS for i in reversed(range(BINS))]
        # A gauge that is not missing and said nothing for five minutes has measured no rain.
        amounts = [self._bins.get(end, None if self._rain_missing else 0) for end in ends]
        return bytes(0xFF if nm is None else min(0xFE, (nm + 50_000) // 100_000) for nm in amounts)


class Timetable:
    """Which reports fall due as time goes on; UTC in ns. Marks that were slept through are one."""

    def __init__(self, timed_min: int, *, hourly: bool, utc_ns: int) -> None:
        self._periods = [
            (function, period_ns)
            for function, period_ns in (
                (Function.timed, timed_min * MINUTE_NS),
                (Function.hourly, HOUR_NS if hourly else 0),
            )
            if period_ns
        ]
        self._next = [_mark_after(utc_ns, period_ns) for _, period_ns in self._periods]

    def due(self, utc_ns: int) -> list[tuple[Function, int]]:
        """Reports that are due, with the time that they are of."""
        found = []
        for i, (function, period_ns) in enumerate(self._periods):
            following = _mark_after(utc_ns, period_ns)
            if utc_ns >= self._next[i]:
                found.append((function, following - period_ns))
            self._next[i] = following
        return found

    def wait_s(self, utc_ns: int) -> float:
        """Until the next."""
        return max(0.0, (min(self._next, default=utc_ns + HOUR_NS) - utc_ns) / NS)


def _mark_after(utc_ns: int, period_ns: int) -> int:
    """The first mark after a time; marks are counted from 08:00 Beijing, 00:00 UTC."""
    return (utc_ns // period_ns + 1) * period_ns


class Store:
    """Reports on disk, oldest first, and the ledger's state, in a SQLite database."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS report "
            "(id INTEGER PRIMARY KEY, function INTEGER, observed_ns INTEGER, elements BLOB)"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY, value TEXT)")

    def state(self) -> dict[str, Any]:
        """What was last saved."""
        row = self._db.execute("SELECT value FROM state").fetchone()
        return dict(json.loads(row[0])) if row else {}

    def save(self, state: Mapping[str, Any], reports: Sequence[Report] = ()) -> int:
        """Keep the state and further reports; how many of the oldest had to go for them."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO report (function, observed_ns, elements) VALUES (?, ?, ?)",
                [(int(r.function), r.observed_ns, r.elements) for r in reports],
            )
            self._db.execute("INSERT OR REPLACE INTO state VALUES (0, ?)", (json.dumps(state),))
            return self._db.execute(
                "DELETE FROM report WHERE id <= (SELECT max(id) FROM report) - ?", (MAX_STORED,)
            ).rowcount

    def oldest(self) -> tuple[int, Report] | None:
        """The report to send next, with its id."""
        row = self._db.execute(
            "SELECT id, function, observed_ns, elements FROM report ORDER BY id LIMIT 1"
        ).fetchone()
        return None if row is None else (row[0], Report(Function(row[1]), row[2], row[3]))

    def remove(self, identity: int) -> None:
        """The centre has it."""
        self._db.execute("DELETE FROM report WHERE id = ?", (identity,))

    def waiting(self) -> tuple[int, int]:
        """How many reports wait, and of when the oldest is (UTC, ns; 0 if none)."""
        count, oldest = self._db.execute(
            "SELECT count(*), coalesce(min(observed_ns), 0) FROM report"
        ).fetchone()
        return count, oldest

    def close(self) -> None:
        self._db.close()


class Hydrology(Sink):
    """Reports to the centre of ``[uplink.sl651]``."""

    gather_s: ClassVar[float] = 0.2

    def __init__(self, config: Sl651Config, path: Path) -> None:
        super().__init__("sl651")
        self._config = config
        self._path = path
        self._store: Store | None = None
        self._ledger = Ledger(config, {})
        self._session: Session | None = None
        self._timetable = Timetable(config.timed_min, hourly=config.hourly, utc_ns=time.time_ns())
        self._saved_s = 0.0
        self._pause_s = PAUSE_S[0]
        self._next_try_s = 0.0
        self._refusals = 0
        self._line: socket.socket | None = None

    def wants(self, item: Item) -> bool:
        if reading := item.get("reading"):
            sensors = (self._config.rain_sensor, self._config.level_sensor)
            return reading["sensor"] in sensors
        return bool(item.get("record", {}).get("type") == "level")

    def work(self, items: Sequence[Item]) -> float | None:
        """Take readings, note reports that are due, and bring to the centre what waits."""
        store = self._opened()
        reports: list[Report] = []
        for item in items:
            reports += self._item(item)
        reports += self._due(time.time_ns())
        now_s = time.monotonic()
        if reports or now_s - self._saved_s >= SAVE_S:
            self._saved_s = now_s
            if dropped := store.save(self._ledger.state, reports):
                self.incident("dropped", "too many reports wait for the centre", dropped)
        if now_s >= self._next_try_s:
            self._deliver(store)
        count, oldest_ns = store.waiting()
        self.behind(count, max(0.0, (time.time_ns() - oldest_ns) / NS))
        wait_s = self._timetable.wait_s(time.time_ns())
        return min(wait_s, max(0.1, self._next_try_s - time.monotonic())) if count else wait_s

    def finish(self) -> None:
        """Keep the sums."""
        self._hang_up()
        if self._store is not None:
            self._store.save(self._ledger.state)
            self._store.close()

    # --- from the feed ----------------------------------------------------------------------------

    def _opened(self) -> Store:
        if self._store is None:
            self._store = Store(self._path)
            self._ledger = Ledger(self._config, self._store.state())
        return self._store

    def _item(self, item: Item) -> list[Report]:
        """Take an item; the reports that were due before it, and its own if it is a scale's."""
        if reading := item.get("reading"):
            t = parse_iso(reading["time"])
            due = self._due(t)
            taken = Reading(reading["sensor"], t, reading["quantity"], reading["micro"])
            self._ledger.take(taken)
            return due
        record = item["record"]
        if record["hazard"] not in _HAZARDS or not self._config.extra:
            return []
        observed_ns = parse_iso(record["time"])
        return [Report(Function.extra, observed_ns, self._ledger.elements(observed_ns))]

    def _due(self, utc_ns: int) -> list[Report]:
        """The reports that have fallen due."""
        return [
            Report(
                function,
                observed_ns,
                self._ledger.elements(observed_ns, hourly=function is Function.hourly),
            )
            for function, observed_ns in self._timetable.due(utc_ns)
        ]

    # --- to the centre ----------------------------------------------------------------------------

    def _deliver(self, store: Store) -> None:
        """Report all that waits; what fails is tried again after a pause."""
        try:
            while (waiting := store.oldest()) is not None and not self.ending:
                identity, report = waiting
                taken = self._exchange(report)
                if taken is None:
                    return
                self._settled(store, identity, taken=taken)
        except OSError as error:
            self._failed(f"{self._config.centre}: {error}; check the address and the network")
        finally:
            self._hang_up()

    def _settled(self, store: Store, identity: int, *, taken: bool) -> None:
        self._pause_s = PAUSE_S[0]
        self.right("unavailable")
        if not taken:
            self._refusals += 1
            if self._refusals < REFUSALS:
                return
            detail = f"refused {REFUSALS} times; ask the centre whether it knows the station"
            self.incident("refused", detail)
        self._refusals = 0
        store.remove(identity)

    def _failed(self, why: str) -> None:
        self.wrong("unavailable", why)
        self._next_try_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_S[1])

    def _exchange(self, report: Report) -> bool | None:
        """Send a report and wait for its answer: taken, refused, or None if none came."""
        session, line = self._connected()
        session.send(report, time.monotonic_ns(), time.time_ns())
        while not self.ending:
            if data := session.to_send():
                line.settimeout(CONNECT_S)
                line.sendall(data)
            with suppress(TimeoutError):
                line.settimeout(0.5)
                received = line.recv(4096)
                if not received:
                    raise ConnectionError("the centre hung up")
                if (taken := session.feed(received)) is not None:
                    return taken
            if not session.tick(time.monotonic_ns(), time.time_ns()):
                what = "check centre_address, station_address and the password"
                self._failed(f"{self._config.centre} does not answer; {what}")
                return None
        return None

    def _connected(self) -> tuple[Session, socket.socket]:
        if self._session is None:
            answer_ns = round(self._config.answer_s * NS)
            self._session = Session(self._identity(), answer_ns, time.time_ns() // NS % 0xFFFF)
        if self._line is None:
            host, _, port = self._config.centre.rpartition(":")
            self._line = socket.create_connection((host.strip("[]"), int(port)), CONNECT_S)
        return self._session, self._line

    def _identity(self) -> Identity:
        config = self._config
        password = bytes(2)
        if config.password_file:
            text = Path(config.password_file).read_text().strip()
            if not re.fullmatch("[0-9A-Fa-f]{4}", text):
                raise OSError(f"{config.password_file} does not hold four hexadecimal digits")
            password = bytes.fromhex(text)
        station_class = StationClass[config.station_class]
        return Identity(config.centre_address, config.station_address, password, station_class)

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.lost()
        if self._line is not None:
            self._line.close()
            self._line = None
