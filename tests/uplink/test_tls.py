"""TLS and passwords with a real broker: what is wrong is said with what to do, and heals."""

import base64
import hashlib
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events import NS
from gateway.hub.broker import Broker, find_program
from gateway.uplink import mqtt
from gateway.uplink.certificates import Files, certificates, trouble, validity
from gateway.uplink.config import MqttConfig
from gateway.uplink.mqtt import Down, Published, Received, State, Up
from gateway.uplink.service import now
from tests.uplink.authority import Authority
from tests.uplink.city import PATIENCE_S, City, alert
from tests.uplink.line import Line

DAY_NS = 86_400 * NS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if find_program("openssl") is None or find_program("mosquitto") is None:
        pytest.skip("openssl and mosquitto are wanted")
    made = Authority(tmp_path_factory.mktemp("authority"))
    for name in ("broker", "cn-demo-001"):
        made.issue(name)
    made.issue("elsewhere", names="DNS:hub.example")
    made.issue("ended", begins=timedelta(days=-9), ends=timedelta(days=-1))
    made.issue("begins", begins=timedelta(days=1), ends=timedelta(days=9))
    made.issue("ends-soon", ends=timedelta(days=9, hours=12))
    made.issue("long", ends=timedelta(days=365 * 40))
    stranger = Authority(made.folder / "stranger")
    stranger.issue("cn-demo-001")
    return made


@pytest.fixture
def start() -> Iterator[Callable[..., Broker]]:
    brokers: list[Broker] = []

    def make(**options: Any) -> Broker:
        brokers.append(Broker(**options))
        brokers[-1].start()
        return brokers[-1]

    yield make
    for made in brokers:
        made.__exit__(None, None, None)


def reason(it: Line) -> str:
    it.until(lambda: it.of(Down))
    (down, *_) = it.of(Down)
    assert isinstance(down, Down)
    return down.reason


# --- what is read of certificates -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["ca", "broker", "ended", "begins", "long"])
def test_a_certificate_holds_when_openssl_says(authority: Authority, name: str) -> None:
    path = authority.folder / f"{name}.pem"
    said = subprocess.run(
        ["openssl", "x509", "-in", str(path), "-noout", "-dates"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = validity(certificates(path)[0])
    for line_, at_ns in zip(said.split("\n"), found, strict=False):
        moment = datetime.strptime(line_.split("=")[1], "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
        assert round(moment.timestamp()) * NS == at_ns


@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        validity(data)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broker", "^$"),
        ("ends-soon", "ends on .* in 9 days: put a new one"),
        ("ended", "ended on .*: put a new one"),
        ("begins", "begins on .* the clock says .*: set the clock"),
    ],
)
def test_a_certificate_that_ends_is_told_days_before(
    authority: Authority, name: str, said: str
) -> None:
    (der,) = certificates(authority.folder / f"{name}.pem")
    utc_ns = round(datetime.now(UTC).timestamp() * NS)
    assert re.search(said, trouble("it", der, utc_ns))


# --- what is wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "client", "change", "said", "lasting"),
    [
        ("broker", "cn-demo-001", {"ca_file": ""}, "CERTIFICATE_VERIFY.*into ca_file", True),
        ("broker", "stranger/cn-demo-001", {}, "(ALERT|hung up).*station's certificate", None),
        ("broker", "ended", {}, "(EXPIRED|hung up).*this station's certificate", None),
        ("broker", "cn-demo-001", {"certificate_file": "", "key_file": ""},
         "(REQUIRED|hung up).* this station's certificate", None),
        ("elsewhere", "cn-demo-001", {}, "[Hh]ostname mismatch.*correct the host", True),
        ("ended", "cn-demo-001", {}, "has expired.*renew the broker's", False),
        ("begins", "cn-demo-001", {}, "not yet valid.*set the clock", False),
        ("broker", "cn-demo-001", {"ca_file": "/nowhere"}, "No such file.*correct", True),
        ("broker", "cn-demo-001", {"urls": "mqtt"}, "hung up.*wants mqtts", False),
    ],
)  # fmt: skip
def test_what_is_wrong_with_tls_is_said_with_what_to_do(
    authority: Authority,
    start: Callable[..., Broker],
    line: Callable[..., Line],
    server: str,
    client: str,
    change: dict[str, Any],
    said: str,
    lasting: bool | None,  # None: the alert may come or not
) -> None:
    broker = start(secure=authority.listener(server))
    if "urls" in change:
        change = {"urls": (broker.url.replace("mqtts", "mqtt"),), "protocol": "5"}
    it = line(replace(authority.config(broker.url, client), **change))
    assert re.search(said, reason(it)), reason(it)
    it.until(lambda: it.connection.state is State.waiting)
    wait_s = (it.connection.next_deadline(now()) - now()) / NS
    assert lasting in (wait_s > mqtt.PAUSE_MAX_S, None), (
        "what time can't heal is not tried all the time"
    )


def test_tls_where_there_is_none_is_said(
    authority: Authority, start: Callable[..., Broker], line: Callable[..., Line]
) -> None:
    broker = start()
    it = line(authority.config(broker.url.replace("mqtt://127.0.0.1", "mqtts://localhost")))
    assert re.search("SSL|hung up|Connection reset|EOF", reason(it)), reason(it)


def password_file(path: Path, user: str, secret: str) -> None:
    """A file as mosquitto_passwd makes it: PBKDF2-SHA512, 101 rounds."""
    salt = b"s" * 12
    digest = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, 101)
    texts = [base64.b64encode(part).decode() for part in (salt, digest)]
    path.write_text(f"{user}:$7$101${texts[0]}${texts[1]}\n")


def test_a_wrong_password_is_said_and_the_right_one_taken_as_soon_as_it_is_there(
    authority: Authority,
    start: Callable[..., Broker],
    line: Callable[..., Line],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mqtt, "FILES_NS", NS // 20)
    password_file(tmp_path / "users", "station", "right")
    broker = start(
        secure=authority.listener(mutual=False),
        settings=f"allow_anonymous false\npassword_file {tmp_path}/users",
    )
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    it = line(
        MqttConfig(
            urls=(broker.url,),
            username="station",
            password_file=str(secret),
            ca_file=f"{authority.folder}/ca.pem",
        )
    )
    assert re.search("username or password_file|let the station in", reason(it)), reason(it)
    secret.write_text("right\n")
    it.until(lambda: it.of(Up))


def test_a_topic_that_the_broker_refuses_is_told_with_what_to_do(
    authority: Authority, start: Callable[..., Broker], make_city: Callable[..., City]
) -> None:
    access = authority.folder / "no-alerts"
    access.write_text("topic readwrite eew/v1/demo/cn-demo-001/health\ntopic readwrite eew/#\n"
                      "topic deny eew/v1/demo/cn-demo-001/alert\n")  # fmt: skip
    broker = start(settings=f"acl_file {access}")
    city = make_city(broker.url)
    city.start_hub()
    city.start_uplink()
    city.core.publish(alert(1))
    city.until(lambda: any(m.data.get("kind") == "refused" for m in city.heard))
    detail = next(m.data["detail"] for m in city.heard if m.data.get("kind") == "refused")
    assert "cn-demo-001/alert" in detail
    assert "let the station write there" in detail


# --- renewal --------------------------------------------------------------------------------------


def test_a_new_certificate_is_used_without_a_restart_and_half_a_one_is_not(
    authority: Authority,
    start: Callable[..., Broker],
    line: Callable[..., Line],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who the station is at the broker is its certificate's name: the new one is another's."""
    monkeypatch.setattr(mqtt, "FILES_NS", NS // 20)
    authority.issue("renewed", "cn-demo-002")
    access = tmp_path / "access"
    access.write_text("pattern write eew/v1/demo/%u/+\npattern read eew/v1/demo/%u/hub/#\n")
    broker = start(secure=authority.listener(), settings=f"acl_file {access}")
    mine = tmp_path / "station"
    authority.give("cn-demo-001", mine)
    it = line(authority.config(broker.url, mine))
    it.connection._will = None
    it.until(lambda: it.of(Up))

    def may_write(station: str) -> bool:
        asked = len(it.of(Published))
        it.connection.publish(f"eew/v1/demo/{station}/alert", b"x", now())
        it.until_seen(Published, asked + 1)
        answer = it.of(Published)[-1]
        return isinstance(answer, Published) and not answer.refused

    assert (may_write("cn-demo-001"), may_write("cn-demo-002")) == (True, False)
    authority.give("renewed", mine, "pem")
    it.until(lambda: any("can't be used" in said for said in it.connection.troubles(0)))
    assert may_write("cn-demo-001"), "the old connection goes on"
    authority.give("renewed", mine, "key")
    it.until_seen(Up, 2)
    assert [down.planned for down in it.of(Down) if isinstance(down, Down)] == [True]
    assert (may_write("cn-demo-001"), may_write("cn-demo-002")) == (False, True)
    assert not any("can't be used" in said for said in it.connection.troubles(0))


def test_a_renewal_loses_no_alert_and_is_no_outage(
    authority: Authority,
    start: Callable[..., Broker],
    make_city: Callable[..., City],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mqtt, "FILES_NS", NS // 20)
    broker = start(secure=authority.listener())
    mine = tmp_path / "station"
    authority.give("ends-soon", mine)
    city = make_city(broker.url, mqtt=authority.config(broker.url, mine))
    city.start_hub(config=replace(authority.config(broker.url), client_id="hub"))
    city.start_uplink()
    city.until(lambda: any(m.data.get("kind") == "certificate" for m in city.heard))
    told = next(m.data for m in city.heard if m.data.get("kind") == "certificate")
    assert "in 9 days" in told["detail"]
    authority.give("cn-demo-001", mine)
    for n in range(100):
        city.core.publish(alert(n))
        city.turn()
    city.until(lambda: len(set(city.alerts_heard())) == 100)
    city.until(
        lambda: any(
            m.data.get("kind") == "certificate" and m.data["state"] == "ok" for m in city.heard
        ),
        "the new one is good",
    )
    assert not any(m.data.get("kind") == "disconnected" for m in city.heard)


def test_a_clock_that_is_set_is_tried_at_once(
    authority: Authority, start: Callable[..., Broker], line: Callable[..., Line]
) -> None:
    broker = start(secure=authority.listener("begins"))
    it = line(authority.config(broker.url))
    it.until(lambda: it.of(Down) and it.connection.state is State.waiting)
    assert it.connection.next_deadline(now()) > now()
    it.connection.hurry(now())
    assert it.connection.next_deadline(now()) <= now()


def test_files_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files = Files([str(path), ""])
    assert not files.changed()
    path.write_text("1")
    assert files.changed()
    assert not files.changed()
    path.write_text("22")
    assert files.changed()
    path.unlink()
    assert files.changed()


def test_what_tls_holds_already_is_read_in_turns_to_its_end(
    authority: Authority, line: Callable[..., Line]
) -> None:
    """A broker may put many packets into one record, of which no selector sees the rest."""
    connack = bytes.fromhex("2003000000")
    packet = b"\x30\x06\x00\x01t\x00ab"  # QoS 0, topic "t", no properties, "ab"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.folder / "broker.pem", authority.folder / "broker.key")

    def serve() -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as sock:
            sock.recv(4096)
            sock.sendall(connack + 100 * packet)
            seen.wait(PATIENCE_S)

    seen = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        it = line(authority.config(f"mqtts://localhost:{listener.getsockname()[1]}"))
        it.connection._read_packets = 1
        it.until_seen(Received, 100)
        seen.set()
        thread.join()


def test_nothing_older_than_tls_1_2_is_spoken(
    authority: Authority, line: Callable[..., Line]
) -> None:
    context = line(authority.config("mqtts://localhost:1")).connection._tls()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
