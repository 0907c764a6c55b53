"""SeedLink: obspy's own clients get every record, and nobody can hold up anybody."""

import socket
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obspy.clients.seedlink.basic_client import Client as BasicClient
from obspy.clients.seedlink.easyseedlink import EasySeedLinkClient
from obspy.clients.seedlink.slclient import SLClient

from gateway.events import NS
from gateway.uplink.config import SeedLinkConfig
from gateway.uplink.mseed import RECORD_BYTES, read_header
from gateway.uplink.seedlink import SeedLink, address_of
from gateway.uplink.seedlink_protocol import Session, Step, Wanted, moment, selector
from tests.uplink.recording import BEGIN_NS, CHANNELS, Desk, noise, packets

PATIENCE_S = 30.0
SECONDS = 240


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.005)


class Station:
    """An archive of four minutes, a server on it, and samples to come."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.samples = noise(SECONDS + 60)
        self.items = packets(self.samples)
        self.settings = settings
        self.root = root
        self.at = 0
        self.start()
        self.go_on(2 * SECONDS)

    def start(self) -> None:
        self.desk = Desk(self.root)
        config = SeedLinkConfig(**{"listen": "127.0.0.1:0", **self.settings})
        self.server = SeedLink(config, self.desk.archive.sds)
        self.desk.archive.listen(self.server.put)
        self.desk.work()
        self.server.start()
        until(lambda: self.server.port)

    def go_on(self, items: int) -> None:
        """More packets come."""
        self.desk.take(self.items[self.at : self.at + items])
        self.at += items

    def stop(self) -> None:
        self.desk.finish()
        self.server.close()

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def faults(self) -> list[tuple[str, str]]:
        return [(x.kind, x.detail) for x in self.server.faults()]

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.server.port))
        sock.settimeout(PATIENCE_S)
        return sock


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    made = Station(tmp_path)
    yield made
    made.stop()


def ask(sock: socket.socket, line: str, size: int = 4) -> bytes:
    sock.sendall(line.encode() + b"\r\n")
    return read(sock, size)


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def records(sock: socket.socket, count: int) -> list[bytes]:
    found = []
    for _ in range(count):
        data = read(sock, 8 + RECORD_BYTES)
        assert data[:2] == b"SL"
        assert int(data[2:8], 16) == read_header(data[8:]).sequence
        found.append(data[8:])
    return found


# --- obspy's clients ------------------------------------------------------------------------------


def test_a_window_of_the_past_is_exactly_what_was_recorded(station: Station) -> None:
    client = BasicClient("127.0.0.1", station.server.port, timeout=60)
    start = obspy.UTCDateTime(ns=BEGIN_NS)
    found = client.get_waveforms("XX", "DEMO", "", "EH?", start + 20, start + 50)
    assert len(found) == 3
    for channel, row in zip(CHANNELS, station.samples, strict=True):
        (trace,) = found.select(id=channel)
        assert trace.data.tolist() == row[2000:5001].tolist()
    assert sorted(client.get_info(level="channel")) == sorted(
        tuple(channel.split(".")) for channel in CHANNELS
    )


def test_a_client_is_told_what_there_is_and_gets_it_as_it_comes(station: Station) -> None:
    class Listener(EasySeedLinkClient):  # type: ignore[misc]  # obspy has no types
        found: list[obspy.Trace] = []  # noqa: RUF012  of one test

        def on_data(self, trace: obspy.Trace) -> None:
            self.found.append(trace)

    client = Listener(station.url, autoconnect=False)
    client.conn.timeout = 60
    client.connect()
    assert "multistation" in client.capabilities
    streams = ET.fromstring(client.get_info("STREAMS").replace("\n", ""))  # noqa: S314  our own
    names = [x.get("seedname", "") for x in streams.iter("stream")]
    assert sorted(names) == ["EHE", "EHN", "EHZ"]
    client.select_stream("XX", "DEMO", "EHZ")

    def listen() -> None:
        with suppress(Exception):  # it does not like being closed while it reads
            client.run()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    until(lambda: any(x.session.streaming for x in station.server._clients))
    station.go_on(60)
    until(lambda: len(client.found) >= 5)
    client.close()
    stream = obspy.Stream(client.found).merge(method=-1)
    assert len(stream) == 1
    first = round((stream[0].stats.starttime.ns - BEGIN_NS) / NS * 100)
    expected = station.samples[0, first : first + len(stream[0])]
    assert first > 100 * (SECONDS - 10), "only what came afterwards"
    assert stream[0].data.tolist() == expected.tolist()


class Resumer(SLClient):  # type: ignore[misc]  # obspy has no types
    """Takes so many records and then hangs up."""

    def __init__(self, url: str, wanted: int, after: int) -> None:
        super().__init__(timeout=60)
        self.slconn.timeout = 60
        self.slconn.set_sl_address(url)
        self.multiselect = "XX_DEMO:EHN"
        self.initialize()
        self.slconn.streams[0].seqnum = after
        self.wanted = wanted
        self.numbers: list[int] = []
        self.found = obspy.Stream()

    def packet_handler(self, _count: int, packet: Any) -> bool:
        with suppress(AttributeError):
            number = packet.get_sequence_number()
            if number > 0:
                self.numbers.append(number)
                self.found += packet.get_trace()
        return len(self.numbers) >= self.wanted


def test_a_client_goes_on_by_number_after_it_and_the_server_were_away(station: Station) -> None:
    first = Resumer(station.url, 10, 1)
    first.run()
    station.stop()
    station.start()
    station.go_on(40)
    second = Resumer(station.url, 30, first.numbers[-1])
    second.run()
    both = (first.found + second.found).merge(method=-1)
    assert len(both) == 1, "nothing between is missing, nothing is there twice"
    at = round((both[0].stats.starttime.ns - BEGIN_NS) / NS * 100)
    assert both[0].data.tolist() == station.samples[1, at : at + len(both[0])].tolist()


# --- the protocol ---------------------------------------------------------------------------------


def test_fetch_ends_when_all_has_been_sent(station: Station) -> None:
    with station.connect() as sock:
        assert ask(sock, "HELLO", 9) == b"SeedLink "
        sock.recv(4096)
        assert ask(sock, "STATION DEMO XX") == b"OK\r\n"
        assert ask(sock, "SELECT EHZ.D") == b"OK\r\n"
        assert ask(sock, "FETCH 0") == b"OK\r\n"
        sock.sendall(b"END\r\n")
        data = b""
        while more := sock.recv(65_536):
            data += more
    assert data.endswith(b"END")
    count = (len(data) - 3) // (8 + RECORD_BYTES)
    sds = station.desk.archive.sds
    assert count == len(list(sds.window(CHANNELS[0], 0, 1 << 62)))


def test_one_station_needs_no_station_command(station: Station) -> None:
    with station.connect() as sock:
        assert ask(sock, "SELECT EHE") == b"OK\r\n"
        sock.sendall(b"DATA 1\r\n")
        found = records(sock, 12)
    assert {read_header(x).channel for x in found} == {"XX.DEMO..EHE"}


def test_batch_mode_answers_nothing(station: Station) -> None:
    with station.connect() as sock:
        assert ask(sock, "BATCH") == b"OK\r\n"
        sock.sendall(b"STATION DEMO XX\rSELECT EHZ\rDATA 1\rEND\r")
        assert len(records(sock, 3)) == 3


@pytest.mark.parametrize("level", ["ID", "CAPABILITIES", "STATIONS", "STREAMS", "GAPS", "ALL"])
def test_info_is_xml_in_records_of_text(station: Station, level: str) -> None:
    with station.connect() as sock:
        sock.sendall(f"INFO {level}\r\n".encode())
        text = b""
        while True:
            data = read(sock, 8 + RECORD_BYTES)
            assert data[:6] == b"SLINFO"
            size = int.from_bytes(data[8 + 30 : 8 + 32], "big")
            text += data[8 + 56 : 8 + 56 + size]
            if data[7:8] == b" ":
                break
    root = ET.fromstring(text.decode())  # noqa: S314  our own
    assert root.get("software", "").startswith("SeedLink v3.1")
    assert (root.find("station") is not None) == (level not in ("ID", "CAPABILITIES"))


def test_gaps_are_told(tmp_path: Path) -> None:
    station = Station(tmp_path)
    station.at += 40
    station.go_on(20)
    xml = station.server._xml("GAPS")
    station.stop()
    assert len(list(ET.fromstring(xml).iter("gap"))) == 3  # noqa: S314  our own


def test_the_list_of_stations(station: Station) -> None:
    with station.connect() as sock:
        assert ask(sock, "CAT", 12) == b"XX DEMO\r\nEND"


@pytest.mark.parametrize(
    ("text", "takes", "leaves"),
    [
        ("EHZ", ["XX.DEMO..EHZ", "XX.DEMO.00.EHZ"], ["XX.DEMO..EHN"]),
        ("EH?.D", ["XX.DEMO..EHZ"], ["XX.DEMO..HNZ"]),
        ("--EHZ", ["XX.DEMO..EHZ"], ["XX.DEMO.00.EHZ"]),
        ("00EHZ.D", ["XX.DEMO.00.EHZ"], ["XX.DEMO..EHZ"]),
        ("!EHZ", ["XX.DEMO..EHN"], ["XX.DEMO..EHZ"]),
        ("D", ["XX.DEMO..EHZ"], []),
        ("L", [], ["XX.DEMO..EHZ"]),
        ("?????.D", ["XX.DEMO..EHZ"], []),
    ],
)
def test_selectors(text: str, takes: list[str], leaves: list[str]) -> None:
    wanted = Wanted(selectors=[selector(text)])
    assert all(wanted.takes(x) for x in takes)
    assert not any(wanted.takes(x) for x in leaves)


@pytest.mark.parametrize("text", ["X", "EH", "EHZZ", "EHZ.X", "..", "E Z"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    session = Session("")
    ((answer, _),) = session.feed(f"SELECT {text}\r".encode(), [])
    assert answer == b"ERROR\r\n"


def test_times_are_those_of_the_protocol() -> None:
    assert moment("2026,11,26,03,00,00") == BEGIN_NS - 123_456_000
    assert moment("2026,1,2,3,4,5.5") % NS == NS // 2
    for wrong in ("2026,11,26", "2026,13,1,0,0,0", "now", "1,1,1,1,1,1"):
        with pytest.raises(ValueError):  # noqa: PT011  whatever is wrong
            moment(wrong)


@given(st.lists(st.binary(max_size=120), max_size=12))
def test_no_bytes_break_a_session(chunks: list[bytes]) -> None:
    session = Session("")
    with suppress(ValueError):
        for chunk in chunks:
            for answer, step in session.feed(chunk, ["XX DEMO"]):
                assert isinstance(step, Step)
                assert len(answer) < 200


# --- nobody holds up anybody ----------------------------------------------------------------------


def test_garbage_is_disconnected_and_told(station: Station) -> None:
    with station.connect() as sock:
        sock.sendall(b"\xff" * 1000)
        with suppress(ConnectionError):
            assert read(sock, 1) == b""
    until(lambda: ("garbage") in [kind for kind, _ in station.faults()])


def test_who_is_not_asked_in_is_not_heard(tmp_path: Path) -> None:
    station = Station(tmp_path, allow=("192.0.2.0/24",))
    with station.connect() as sock, suppress(ConnectionError):
        assert read(sock, 1) == b""
    until(lambda: any("127.0.0.1" in detail for _, detail in station.faults()))
    station.stop()


def test_more_clients_than_may_be_are_refused_and_the_others_go_on(tmp_path: Path) -> None:
    station = Station(tmp_path, clients=4)
    there = [station.connect() for _ in range(4)]
    for sock in there:
        assert ask(sock, "STATION DEMO XX") == b"OK\r\n"
    flood = [station.connect() for _ in range(40)]
    for sock in flood:
        with suppress(ConnectionError):
            assert read(sock, 1) == b""
    assert len(station.server._clients) == 4
    for sock in there:
        assert ask(sock, "DATA 1") == b"OK\r\n"
        sock.sendall(b"END\r\n")
        assert len(records(sock, 3)) == 3
    for sock in [*there, *flood]:
        sock.close()
    station.stop()


def test_a_client_that_takes_nothing_is_bounded_and_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.uplink.seedlink.STALLED_S", 3.0)
    station = Station(tmp_path)
    loud = np.random.default_rng(1).integers(-(2**28), 2**28, (3, 60_000), dtype=np.int32)
    station.desk.take(packets(loud, BEGIN_NS + 3600 * NS, columns=5000), turn=1)
    slow = station.connect()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(b"DATA 1\r\n")
    with station.connect() as quick:
        assert ask(quick, "SELECT EHZ") == b"OK\r\n"
        quick.sendall(b"DATA 1\r\n")
        assert len(records(quick, 550)) == 550
    until(lambda: "slow" in [kind for kind, _ in station.faults()])
    slow.close()
    station.stop()


def test_a_port_that_is_taken_is_told_and_nothing_else_suffers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        desk = Desk(tmp_path)
        server = SeedLink(SeedLinkConfig(f"127.0.0.1:{port}"), desk.archive.sds)
        desk.archive.listen(server.put)
        desk.work()
        server.start()
        desk.take(packets(noise(20)))
        until(lambda: "listen" in [x.kind for x in server.faults()])
        server.close()
        desk.finish()


@pytest.mark.parametrize("text", ["", "18000", "host:18000", "0.0.0.0:99999", "0.0.0.0:x"])
def test_what_is_no_address_to_listen_at_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        address_of(text)
