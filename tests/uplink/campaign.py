"""Faults in random order while a station talks: is what the hub has what the core said?

``python -m tests.uplink.campaign`` (``make campaign-uplink``) prints what was done and what came of
it, and exits with 1 if anything was lost. The same with ``--seed`` is the same order of faults.

==============  ==================================================================================
fault           what is done
==============  ==================================================================================
uplink killed   SIGKILL at a random moment, started again
broker killed   SIGKILL, so that it loses what it has acknowledged; started again
both killed     the one and then the other
broker frozen   SIGSTOP until the uplink has given it up
half-open       what stands between uplink and broker swallows every byte and hangs up nowhere
disk full       the file system of the outbox takes nothing more (a small tmpfs; root only)
hub away        it hangs up and comes back
==============  ==================================================================================

The uplink and the broker are the real ones, each a process of its own. The core is the real feed
with a list of records behind it, which stands for the journal.
"""

import argparse
import json
import os
import random
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from gateway.events import NS, Health, Onset, SirenAction
from gateway.hub.broker import Broker
from gateway.uplink.config import MqttConfig
from gateway.uplink.service import now
from tests.uplink.city import City, alert, reading
from tests.uplink.disk import disk_or_none

SOURCE = "/eew/demo/cn-demo-001"
KILLS = ("uplink killed", "broker killed", "both killed")
OTHERS = ("broker frozen", "half-open", "disk full", "hub away")
SPACING_S = 0.02
"""One record each."""
DISK_SIZE = "16m"
PATIENCE_S = 180.0
"""The uplink's own pause grows to a minute when one broker after the other dies at once."""


class Between:
    """A TCP relay to a port; :meth:`swallow` makes every connection of the moment half-open."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = 0
        self._dead: set[socket.socket] = set()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._ending = False
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def swallow(self) -> None:
        with self._lock:
            self._dead |= set(self._pairs)

    def close(self) -> None:
        self._ending = True
        self._thread.join()
        for each in (*self._pairs, self._listener):
            each.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._ending:
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    self._ready(key.fileobj)  # type: ignore[arg-type]  # only sockets are there

    def _ready(self, sock: socket.socket) -> None:
        if sock is self._listener:
            near, _ = sock.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self._behind), timeout=1)
            except OSError:
                near.close()
                return
            self.accepted += 1
            self._pairs |= {near: far, far: near}
            for one in (near, far):
                self._selector.register(one, selectors.EVENT_READ)
            return
        if sock not in self._pairs:
            return
        try:
            data = sock.recv(65536)
            if data and sock not in self._dead:
                self._pairs[sock].sendall(data)
        except OSError:
            data = b""
        if not data:
            for one in (sock, self._pairs[sock]):
                with suppress(KeyError):
                    self._selector.unregister(one)
                self._pairs.pop(one, None)
                self._dead.discard(one)
                one.close()


@dataclass(slots=True)
class Outcome:
    """What came of a campaign."""

    faults: Counter[str] = field(default_factory=Counter)
    records: int = 0
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    repeated: int = 0
    readings: int = 0
    readings_lost: int = 0
    readings_repeated: int = 0
    elapsed_s: float = 0.0

    @property
    def good(self) -> bool:
        return not (self.lost or self.changed or self.disordered)

    def text(self) -> str:
        faults = ", ".join(f"{count} × {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{sum(self.faults.values())} faults in {self.elapsed_s:.0f} s: {faults}\n"
            f"{self.records} alerts, siren actions, events and health: {len(self.lost)} lost, "
            f"{len(self.changed)} with other content, {len(self.disordered)} out of order by "
            f"sequence, {self.repeated} delivered more than once (same id)\n"
            f"{self.readings} readings: {self.readings_lost} lost, "
            f"{self.readings_repeated} repeated\n"
            f"{'good' if self.good else 'NOT GOOD: ' + str(self.lost[:5] + self.changed[:5])}"
        )


class Campaign:
    """A city under faults."""

    def __init__(self, folder: Path, broker: Broker, seed: int) -> None:
        self._chance = random.Random(seed)
        self._broker = broker
        self._between = Between(broker.port)
        self._city = City(folder, self._between.url)
        self._outcome = Outcome()
        self._next_s = 0.0
        self._disk = disk_or_none(folder / "state", DISK_SIZE)

    def run(self, kills: int, others: int, say: Callable[[str], None] = lambda _: None) -> Outcome:
        began = time.monotonic()
        faults = [self._chance.choice(KILLS) for _ in range(kills)]
        faults += [name for name in OTHERS for _ in range(others)]
        if self._disk is None:
            faults = [name for name in faults if name != "disk full"]
        self._chance.shuffle(faults)
        self._start_hub()
        self._city.spawn_uplink()
        self._until_heard()
        for number, name in enumerate(faults, 1):
            say(f"{number}/{len(faults)} {name}")
            self._for(self._chance.uniform(0.0, 0.3))
            self._strike(name)
            self._outcome.faults[name] += 1
            if number % 5 == 0:
                self._until_heard()
        self._finish()
        self._outcome.elapsed_s = time.monotonic() - began
        return self._outcome

    def close(self) -> None:
        self._city.close()
        self._between.close()
        if self._disk is not None:
            self._disk.close()

    # --- faults -----------------------------------------------------------------------------------

    def _strike(self, name: str) -> None:
        city, chance = self._city, self._chance
        match name:
            case "uplink killed":
                city.signal_uplink(signal.SIGKILL)
                city.spawn_uplink()
                self._for(chance.uniform(0.3, 1.5))
            case "broker killed":
                self._broker.kill()
                self._for(chance.uniform(0.0, 0.3))
                self._start_broker()
            case "both killed":
                city.signal_uplink(signal.SIGKILL)
                self._broker.kill()
                self._start_broker()
                city.spawn_uplink()
                self._for(chance.uniform(0.3, 1.5))
            case "broker frozen":
                before = self._between.accepted
                os.kill(self._broker.pid, signal.SIGSTOP)
                self._until(lambda: self._between.accepted > before, "the frozen broker is left")
                os.kill(self._broker.pid, signal.SIGCONT)
            case "half-open":
                self._until_heard()
                before = self._between.accepted
                self._between.swallow()
                self._until(lambda: self._between.accepted > before, "the dead line is left")
            case "disk full":
                assert self._disk is not None
                self._disk.fill()
                self._for(chance.uniform(0.5, 1.5))
                self._disk.relieve()
            case "hub away":
                city.stop_hub()
                self._for(chance.uniform(0.2, 1.0))
                self._start_hub()

    def _start_broker(self) -> None:
        """Start it; the hub, whose patience is not at stake, comes back without a pause."""
        self._broker.start()
        hub = self._city.hub
        assert hub is not None
        hub.turn(now())
        for session in (hub._urgent, hub._bulk):
            session.hurry(now())

    def _start_hub(self) -> None:
        there = MqttConfig((self._broker.url,), client_id="hub", keepalive_s=2)
        self._city.start_hub(config=there)

    # --- talk -------------------------------------------------------------------------------------

    def _turn(self) -> None:
        if (now_s := time.monotonic()) >= self._next_s:
            self._next_s = now_s + SPACING_S
            n = len(self._city.core.records) + 1
            t = 1_700_000_000 * NS + n
            event = (
                alert(n),
                Onset("XX.A..HHZ", t, t, 9.0, 20.0),
                SirenAction("cn-demo-001", "main", f"a{n}", "on", "disaster", t),
                Health("rain1", "degraded", t, "silent", f"{n}"),
            )[n % 4]
            self._city.core.publish(event)
            self._city.core.data(reading(self._outcome.readings))
            self._outcome.readings += 1
        self._city.turn()

    def _for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._turn()

    def _until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"never happened: {what}\n{self._city.uplink_said()}")
            self._turn()

    def _until_heard(self) -> None:
        """Until something that is said from now on has reached the hub."""
        wanted = len(self._city.core.records) + 4
        seen = len(self._city.heard)

        def heard() -> bool:
            nonlocal seen
            new, seen = self._city.heard[seen:], len(self._city.heard)
            return any(int(m.id.rsplit("-", 1)[1]) >= wanted for m in new if m.id[:5] == "run1-")

        self._until(heard, "the station is heard")

    def _finish(self) -> None:
        """Let everything arrive, and compare."""
        city, outcome = self._city, self._outcome
        self._until_heard()
        said = {f"run1-{n}": json.loads(x) for n, x in enumerate(city.core.records, 1)}
        missing = set(said)
        seen = 0
        end = time.monotonic() + 90
        while missing and time.monotonic() < end:
            city.turn()
            missing -= {m.id for m in city.heard[seen:]}
            seen = len(city.heard)
        until = time.monotonic() + 3  # readings are gathered for a second
        while time.monotonic() < until:
            city.turn()
        hub = city.hub
        assert hub is not None
        outcome.records = len(said)
        order = []
        for event in hub.messages(SOURCE):
            if (identity := event["id"]) in said:
                order.append(int(identity.rsplit("-", 1)[1]))
                if event["data"] != said[identity]:
                    outcome.changed.append(identity)
        outcome.lost = sorted(missing)
        outcome.disordered = [f"run1-{b}" for a, b in pairwise(order) if b < a]
        outcome.changed += [f"{n} conflicting" for n in [hub.counts["conflicting"]] if n]
        outcome.repeated = hub.counts["repeated"]
        times = Counter(
            r["time"] for m in city.heard if m.type == "telemetry" for r in m.data["readings"]
        )
        outcome.readings_lost = outcome.readings - len(times)
        outcome.readings_repeated = sum(times.values()) - len(times)


def run(kills: int, others: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """A campaign in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="gateway-campaign-") as name, Broker() as broker:
        campaign = Campaign(Path(name), broker, seed)
        try:
            return campaign.run(kills, others, say)
        finally:
            campaign.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--others", type=int, default=10, help="of each of the other faults")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201  a program's output

    outcome = run(options.kills, options.others, options.seed, say)
    print(outcome.text())  # noqa: T201  likewise
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
