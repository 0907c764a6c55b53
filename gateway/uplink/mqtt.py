"""One connection to the city's broker, as a state machine that a selectors loop drives.

::

    waiting ──retry_at──► connecting ──socket──► greeting ──CONNACK──► up
       ▲                      │                     │                   │
       └──────────────────────┴─────────────────────┴───────────────────┘
                       refused, lost, silent for too long

Each attempt is a new paho client, so that nothing of a lost connection can get in the way of the
next; only resolving, connecting and the TLS handshake run in a thread, which ends before the
client is touched by anyone else. paho's callbacks do no more than note what happened.

MQTT 5 is tried first; a broker that refuses it, or hangs up before it has answered, is tried with
3.1.1. The brokers are tried in order, then again after a pause that doubles up to a minute, each
pause shortened at random so that a city's stations do not all return at once.

A silent peer (half-open TCP, frozen broker) is noticed when nothing was heard for 1.7 keepalives,
pings included, or when it leaves a message unacknowledged for as long.

What only a person can mend (a wrong password, a certificate that is refused) is said with what to
do and tried again every ten minutes, since it may be mended at the broker's end; what time can heal
is tried as above. A certificate, key, CA or password file that has become another one is used at
once: the connection is made anew with it, if it can be.
"""

import queue
import random
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.events import NS
from gateway.uplink.certificates import Files, certificates, trouble
from gateway.uplink.config import MqttConfig

CONNECT_TIMEOUT_S = 8.0
GREETING_NS = 8 * NS
SILENT_KEEPALIVES = 1.7
PAUSE_MIN_S, PAUSE_MAX_S = 1.0, 60.0
PAUSE_LASTING_S = 600.0
FILES_NS = 5 * NS
"""How often the files of certificates and passwords are looked at."""
MAX_PACKET_BYTES = 256 << 10
"""What the broker may send; an acknowledgement of 10,000 ids is no longer than this."""
OVERHEAD_BYTES = 64
"""Of a PUBLISH beside topic and payload, at most."""
IP_BYTES = 40
"""Headers of IPv4 and TCP, without options."""
STEADY_NS = 10 * NS
"""After this long up, the next loss is a new one and the pauses begin from the shortest."""
WINDOW = 100
"""Messages that may be on their way without the broker's acknowledgement."""
READ_PACKETS = 500
"""Packets of one turn, so that whoever stores them can do so together."""
NO_SUBSCRIBERS = 0x10
"""Reason code of a PUBACK, MQTT 5 section 3.4.2.1."""
DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_NOT_SUPPORTED = "Unsupported protocol version"
_HUNG_UP = "the broker hung up"
_KNOCK_NS = NS // 4
_TCP_INFO_BYTES = 208


@dataclass(frozen=True, slots=True)
class Up:
    """Connected. ``version`` is 5 or 4 (3.1.1)."""

    url: str
    version: int


@dataclass(frozen=True, slots=True)
class Down:
    """Not connected, or no longer; why, in words, and what to do.

    ``planned``: on purpose, and the next attempt follows at once.
    """

    url: str
    reason: str
    planned: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has taken a message, or refused it for a reason.

    ``unheard``: taken for nobody, since nobody has subscribed (MQTT 5).
    """

    mid: int
    refused: str = ""
    unheard: bool = False


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker's answer to a subscription."""

    refused: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the broker. ``retained`` says that it was lying there."""

    topic: str
    payload: bytes
    retained: bool


Happening = Up | Down | Published | Subscribed | Received


@dataclass(frozen=True, slots=True)
class Remedy:
    """What a person has to do where an attempt failed with these words.

    ``lasting``: time alone will not heal it.
    """

    words: tuple[str, ...]
    todo: str
    lasting: bool = True


_FILES = Remedy((), "correct password_file, ca_file, certificate_file and key_file")
_HUNG_UP_SECURE = Remedy(
    (), "see whether it accepts this station's certificate and lets it in", lasting=False
)
"""A broker's TLS alert does not always arrive before the end of the connection."""
_HUNG_UP_CLEAR = Remedy(
    (), "see that the broker lets this station in, and whether it wants mqtts", lasting=False
)
_REMEDIES = (
    Remedy(("Bad user name or password",), "correct username or password_file"),
    Remedy(
        ("Not authorized",), "let the station in at the broker: its user, or its certificate's name"
    ),
    Remedy(("Client identifier not valid",), "the broker wants another client_id"),
    Remedy(("Banned",), "the broker has banned this station: lift that there"),
    Remedy(
        ("Hostname mismatch", "IP address mismatch"),
        "correct the host in the URL, or give the broker a certificate for that name",
    ),
    Remedy(
        (
            "self-signed certificate",
            "self signed",
            "unable to get local issuer",
            "unable to verify",
        ),
        "put the certificate of the CA that signed the broker's into ca_file",
    ),
    Remedy(
        ("certificate is not yet valid",),
        "set the clock, or see that a time service is reached",
        lasting=False,
    ),
    Remedy(
        ("certificate has expired",),
        "renew the broker's certificate, if this machine's clock is right",
        lasting=False,
    ),
    Remedy(
        ("ALERT_CERTIFICATE_EXPIRED",),
        "this station's certificate has ended: put a new one into certificate_file",
    ),
    Remedy(
        ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION"),
        "the broker speaks no TLS 1.2, which is the least",
    ),
    Remedy(
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"),
        "there is no TLS at this port: correct the port, or mqtts to mqtt",
    ),
    Remedy(
        ("_ALERT_", "HANDSHAKE_FAILURE"),
        "the broker refuses this station's certificate: give it one that the broker's CA signed",
    ),
    Remedy(
        ("Name or service not known", "name resolution"),
        "correct the host in the URL, or see that names are resolved here",
        lasting=False,
    ),
)
"""The first whose words are in CONNACK's reason, or in what OpenSSL or the system said."""


class State(Enum):
    """Where the connection stands."""

    waiting = auto()
    connecting = auto()
    greeting = auto()
    up = auto()


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker is to say, retained, when the station falls silent."""

    topic: str
    payload: bytes


class Connection:
    """A connection that keeps itself up. ``t`` is monotonic time in ns and never falls.

    ``will``, where there is one, is asked for anew at each attempt; no more than ``read_packets``
    are read in one turn. The sockets are registered with ``selector``, their ``data`` being what
    the loop calls with the event mask and ``t``.

    Raises:
        ValueError: a URL is none of a broker.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        will: Callable[[], Will] | None,
        selector: selectors.BaseSelector,
        chance: random.Random | None = None,
        read_packets: int = READ_PACKETS,
    ) -> None:
        if not config.urls:
            raise ValueError("uplink.mqtt: no broker is named")
        self._brokers = [_broker(url) for url in config.urls]
        self._config = config
        self.client_id = client_id
        self._will = will
        self._selector = selector
        self._read_packets = read_packets
        self._chance = chance or random.Random()  # noqa: S311  spreads retries, keeps no secret
        self.state = State.waiting
        self._retry_at = 0
        self._pause_s = PAUSE_MIN_S
        self._broker = 0
        self._old_protocol = [config.protocol == "3.1.1"] * len(self._brokers)
        self._since = self._heard_at = 0
        self._unpublished: dict[int, int] = {}
        self._window = WINDOW
        self._max_bytes = 0
        self._lasting = [False] * len(self._brokers)
        self._error = ""
        secrets = (
            config.password_file,
            config.ca_file,
            config.certificate_file,
            config.key_file,
        )
        self._files = Files(secrets)
        self._files_at = 0
        self._broken_files = ""
        self._peer = b""
        self._carried = self._carried_before = 0
        self._client: paho.Client | None = None
        self._socket: Any = None
        self._mask = 0
        self._notes: queue.SimpleQueue[tuple[paho.Client, Happening]] = queue.SimpleQueue()
        self._reports: list[Happening] = []
        self._outcome: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._knock_in, self._knock_out = socket.socketpair()
        self._knock_in.setblocking(False)
        selector.register(self._knock_in, selectors.EVENT_READ, self._knocked)

    # --- for the loop -----------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The broker that is connected or being tried."""
        return self._config.urls[self._broker]

    def tick(self, t: int) -> None:
        """Time has come to ``t``: attempts, pings and time-outs that are due."""
        if t >= self._files_at:
            self._files_at = t + FILES_NS
            if self._files.changed():
                self._renew(t)
            self._meter()
        if self.state is State.up and _pending(self._socket):
            self._ready(selectors.EVENT_READ, t)
        if self.state is State.waiting and t >= self._retry_at:
            self._attempt(t)
        elif self.state is State.connecting:
            self._attempted(t)
        elif self.state is State.greeting and t - self._since > GREETING_NS:
            self._lost(t, f"no greeting within {GREETING_NS // NS} s")
        elif self.state is State.up and self._client is not None:
            self._client.loop_misc()
            limit_ns = self._limit_ns()
            if t - self._heard_at > limit_ns:
                self._lost(t, f"nothing heard for {limit_ns / NS:.0f} s")
            elif self._unpublished and t - next(iter(self._unpublished.values())) > limit_ns:
                self._lost(t, f"a message unacknowledged for {limit_ns / NS:.0f} s")
        self._watch()

    def next_deadline(self, t: int) -> int:
        """When :meth:`tick` is next wanted."""
        if self.state is State.waiting:
            return self._retry_at
        if self.state is State.up and _pending(self._socket):
            return t
        return t + (NS if self.state is State.up else _KNOCK_NS)

    def happened(self, t: int) -> list[Happening]:
        """What happened since this was last asked, in order."""
        while not self._notes.empty():
            client, happening = self._notes.get_nowait()
            if client is not self._client:
                continue
            if isinstance(happening, Down):
                self._lost(t, happening.reason)
                continue
            if isinstance(happening, Up):
                self.state, self._since, self._heard_at = State.up, t, t
            elif isinstance(happening, Published):
                self._unpublished.pop(happening.mid, None)
            self._reports.append(happening)
        reports, self._reports = self._reports, []
        return reports

    @property
    def room(self) -> int:
        """How many more messages the broker may be sent now."""
        return self._window - len(self._unpublished) if self.state is State.up else 0

    def takes(self, topic: str, payload: bytes) -> bool:
        """Whether the broker takes a message of this size."""
        size = len(topic.encode()) + len(payload) + OVERHEAD_BYTES
        return not self._max_bytes or size <= self._max_bytes

    @property
    def carried_bytes(self) -> int:
        """What the link has carried for us both ways, headers of IP and TLS included."""
        return self._carried_before + self._carried

    def hurry(self, t: int) -> None:
        """Something has changed that an attempt may depend on: make it now."""
        if self.state is State.waiting:
            self._retry_at = t

    def troubles(self, utc_ns: int) -> list[str]:
        """What is wrong with the certificates, or will be within 30 days, and what to do."""
        found = [self._broken_files] if self._broken_files else []
        for key in ("certificate_file", "ca_file"):
            if name := getattr(self._config, key):
                try:
                    ders = certificates(Path(name))
                    found += [said for der in ders if (said := trouble(name, der, utc_ns))]
                except (OSError, ValueError) as error:
                    found.append(f"{key}: {error}")
        if self._peer:
            with suppress(ValueError):
                found.append(trouble(f"the certificate of {self.url}", self._peer, utc_ns))
        return [said for said in dict.fromkeys(found) if said]

    def publish(
        self,
        topic: str,
        payload: bytes,
        t: int,
        *,
        retain: bool = False,
        expiry_s: int | None = None,
    ) -> int:
        """Hand a message to the broker with QoS 1; the number that :class:`Published` will name.

        Raises:
            ConnectionError: not connected.
        """
        if self._client is None or self.state is not State.up:
            raise ConnectionError(f"{self.url}: not connected")
        properties = None
        if expiry_s is not None and not self._old_protocol[self._broker]:
            properties = _properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expiry_s
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        self._unpublished[info.mid] = t
        return info.mid

    def subscribe(self, topic: str) -> None:
        """Ask for a topic with QoS 1; :class:`Subscribed` is the answer."""
        if self._client is not None and self.state is State.up:
            self._client.subscribe(topic, qos=1)

    def flushed(self) -> bool:
        """Whether nothing is on its way any more."""
        return not self._unpublished

    def close(self) -> None:
        """Take leave of the broker, without the last will."""
        if self._client is not None and self.state is State.up:
            self._client.disconnect()
        self._forget()
        self._selector.unregister(self._knock_in)
        self._knock_in.close()
        self._knock_out.close()

    # --- an attempt -------------------------------------------------------------------------------

    def _attempt(self, t: int) -> None:
        self.state, self._since = State.connecting, t
        try:
            client = self._new_client()
        except (OSError, ValueError) as error:  # a password or certificate file, mostly
            self._lost(t, str(error), _FILES)
            return
        self._client, self._error = client, ""
        outcome, knock = self._outcome, self._knock_out

        def connect() -> None:
            outcome.put(_failure(client))
            try:
                knock.send(b"\0")
            except OSError:
                return  # closed meanwhile: nobody waits for the outcome

        threading.Thread(target=connect, name="connect", daemon=True).start()

    def _attempted(self, t: int) -> None:
        try:
            reason = self._outcome.get_nowait()
        except queue.Empty:
            return
        if reason or self._client is None or self._client.socket() is None:
            self._lost(t, reason or _HUNG_UP)
            return
        self._socket = self._client.socket()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(self._socket, ssl.SSLSocket):
            self._peer = self._socket.getpeercert(binary_form=True) or b""
        self.state, self._since = State.greeting, t
        self._watch()

    def _new_client(self) -> paho.Client:
        old = self._old_protocol[self._broker]
        secure, host, port = self._brokers[self._broker]
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            clean_session=False if old else None,
            protocol=MQTTProtocolVersion.MQTTv311 if old else MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        config = self._config
        if config.username:
            secret = (
                Path(config.password_file).read_text().strip() if config.password_file else None
            )
            client.username_pw_set(config.username, secret)
        if secure:
            client.tls_set_context(self._tls())
        if self._will is not None:
            will = self._will()
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.max_inflight_messages_set(0)
        client.connect_timeout = CONNECT_TIMEOUT_S
        self._listen(client)
        properties = None
        if not old:
            properties = _properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = config.session_expiry_s
            properties.ReceiveMaximum = WINDOW
            properties.MaximumPacketSize = MAX_PACKET_BYTES
        client.connect_async(
            host,
            port,
            keepalive=config.keepalive_s,
            clean_start=paho.MQTT_CLEAN_START_FIRST_ONLY if old else False,
            properties=properties,
        )
        return client

    def _tls(self) -> ssl.SSLContext:
        """TLS from 1.2 on, with the broker's name checked.

        Raises:
            OSError: a file can't be read, or key and certificate do not belong together.
        """
        config = self._config
        context = ssl.create_default_context(cafile=config.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.certificate_file:
            context.load_cert_chain(config.certificate_file, config.key_file or None)
        return context

    def _renew(self, t: int) -> None:
        """A file has become another: connect with it, unless it is no good."""
        try:
            self._tls()
        except OSError as error:  # half of it is there yet, or it is wrong: the old one goes on
            self._broken_files = f"a new file can't be used: {error}; {_FILES.todo}"
            self._files_at = t
            return
        self._broken_files = ""
        if self.state is State.up and self._client is not None:
            self._client.disconnect()
            self._client.loop_write()
            self._reports.append(Down(self.url, "a new certificate or password", planned=True))
            self._forget()
            self.state = State.waiting
        self.hurry(t)

    def _listen(self, client: paho.Client) -> None:
        url, version = self.url, 4 if self._old_protocol[self._broker] else 5

        def note(happening: Happening) -> None:
            self._notes.put((client, happening))

        def on_connect(
            _client: paho.Client,
            _userdata: Any,
            _flags: paho.ConnectFlags,
            reason: ReasonCode,
            properties: Properties | None,
        ) -> None:
            if reason.is_failure:
                note(Down(url, str(reason)))
                return
            self._window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))
            self._max_bytes = getattr(properties, "MaximumPacketSize", 0)
            note(Up(url, version))

        def on_disconnect(
            _client: paho.Client,
            _userdata: Any,
            _flags: paho.DisconnectFlags,
            reason: ReasonCode,
            _properties: Properties | None,
        ) -> None:
            hung_up = self._error if "[SSL" in self._error else _HUNG_UP
            note(Down(url, hung_up if reason == "Unspecified error" else str(reason)))

        def on_log(_client: paho.Client, _userdata: Any, level: int, text: str) -> None:
            if level == LogLevel.MQTT_LOG_ERR:
                self._error = text

        def on_publish(
            _client: paho.Client,
            _userdata: Any,
            mid: int,
            reason: ReasonCode,
            _properties: Properties,
        ) -> None:
            refused = str(reason) if reason.is_failure else ""
            note(Published(mid, refused, reason.value == NO_SUBSCRIBERS))

        def on_subscribe(
            _client: paho.Client,
            _userdata: Any,
            _mid: int,
            reasons: list[ReasonCode],
            _properties: Properties,
        ) -> None:
            note(Subscribed("; ".join(str(r) for r in reasons if r.is_failure)))

        def on_message(_client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
            note(Received(message.topic, bytes(message.payload), message.retain))

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_log = on_log
        client.on_publish = on_publish
        client.on_subscribe = on_subscribe
        client.on_message = on_message
        client.on_socket_close = lambda *_: self._unwatch()

    # --- the socket -------------------------------------------------------------------------------

    def _knocked(self, _mask: int, _t: int) -> None:
        try:
            self._knock_in.recv(64)
        except BlockingIOError:
            return

    def _ready(self, mask: int, t: int) -> None:
        client = self._client
        if client is None:
            return
        try:
            if mask & selectors.EVENT_READ:
                self._heard_at = t
                self._read(client)
            if mask & selectors.EVENT_WRITE:
                client.loop_write()
        except Exception as error:  # noqa: BLE001  paho's parser lets through what bad bytes raise
            self._lost(t, f"not MQTT: {error!r}")

    def _read(self, client: paho.Client) -> None:
        """Read packets until none is left, or enough for one turn; paho takes one at a time."""
        for _ in range(self._read_packets):
            noted = self._notes.qsize()
            client.loop_read()
            if (sock := client.socket()) is None:
                return
            if self._notes.qsize() == noted and not _pending(sock):
                return

    def _watch(self) -> None:
        """Tell the selector what the client's socket waits for."""
        client, sock = self._client, self._socket
        if client is None or sock is None:
            return
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
        if self._mask == 0:
            self._selector.register(sock, mask, self._ready)
        elif mask != self._mask:
            self._selector.modify(sock, mask, self._ready)
        self._mask = mask

    def _unwatch(self) -> None:
        if self._mask:
            self._selector.unregister(self._socket)
        self._socket, self._mask = None, 0

    def _meter(self) -> None:
        """Note what the kernel says that the socket has carried."""
        if self._socket is not None:
            with suppress(OSError):
                self._carried = _carried_bytes(self._socket)

    # --- the end of an attempt or a connection ----------------------------------------------------

    def _limit_ns(self) -> int:
        keepalive_s = self._client.keepalive if self._client else self._config.keepalive_s
        return round(SILENT_KEEPALIVES * keepalive_s * NS)

    def _lost(self, t: int, reason: str, remedy: Remedy | None = None) -> None:
        """An attempt failed or the connection ended: say so, and decide when to try what next."""
        was, broker = self.state, self._broker
        if was is not State.up and reason == _HUNG_UP:
            remedy = _HUNG_UP_SECURE if self._brokers[broker][0] else _HUNG_UP_CLEAR
        remedy = remedy or next((x for x in _REMEDIES if any(w in reason for w in x.words)), None)
        self._lasting[broker] = remedy is not None and remedy.lasting and was is not State.up
        self._reports.append(Down(self.url, f"{reason}: {remedy.todo}" if remedy else reason))
        self._forget()
        self.state = State.waiting
        if was is State.up:
            self._old_protocol[broker] = self._config.protocol == "3.1.1"
            if t - self._since >= STEADY_NS:
                self._pause_s = PAUSE_MIN_S
            self._broker = 0
            self._pause(t)
            return
        no_v5 = was is State.greeting and reason in (_NOT_SUPPORTED, _HUNG_UP)
        if no_v5 and self._config.protocol == "auto" and not self._old_protocol[broker]:
            self._old_protocol[broker] = True
            self._retry_at = t
            return
        self._old_protocol[broker] = self._config.protocol == "3.1.1"
        self._broker = (broker + 1) % len(self._brokers)
        self._retry_at = t
        if self._broker == 0:
            self._pause(t)

    def _pause(self, t: int) -> None:
        if all(self._lasting):
            self._retry_at = t + round(self._chance.uniform(0.5, 1.0) * PAUSE_LASTING_S * NS)
            return
        self._retry_at = t + round(self._chance.uniform(0.5, 1.0) * self._pause_s * NS)
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def _forget(self) -> None:
        """Drop the client and close its socket: without DISCONNECT, so that the will is said."""
        sock = self._socket
        self._meter()
        self._carried_before, self._carried = self.carried_bytes, 0
        self._unwatch()
        if sock is not None:
            sock.close()
        self._client = None
        self._unpublished.clear()
        self._outcome = queue.SimpleQueue()


def _failure(client: paho.Client) -> str:
    """Connect; why it failed, in OpenSSL's or the system's words with what to do, or nothing."""
    try:
        client.reconnect()
    except Exception as error:  # noqa: BLE001  whatever goes wrong is an outcome
        return str(error) or type(error).__name__
    return ""


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho leaves it untyped


def _carried_bytes(sock: Any) -> int:
    """Bytes on the wire both ways: ``struct tcp_info`` of linux/tcp.h, 0 where it is shorter.

    At 128 bytes_received (u64), 136 segs_out and segs_in (u32 each), 200 bytes_sent (u64, with
    what was sent again).
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(info) < _TCP_INFO_BYTES:
        return 0
    received, out, into = struct.unpack_from("=QII", info, 128)
    (sent,) = struct.unpack_from("=Q", info, 200)
    return int(received + sent + IP_BYTES * (out + into))


def _pending(sock: Any) -> int:
    """Bytes that TLS has decrypted already, which a selector does not see."""
    return sock.pending() if isinstance(sock, ssl.SSLSocket) else 0


def _broker(url: str) -> tuple[bool, str, int]:
    """Whether it is TLS, host and port of a broker.

    Raises:
        ValueError: it is no mqtt:// or mqtts:// URL with a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError(f"{url!r}: not a broker; expected mqtt://HOST[:PORT] or mqtts://HOST…")
    return parts.scheme == "mqtts", parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]
