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
"""

import queue
import random
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.events import NS
from gateway.uplink.config import MqttConfig

CONNECT_TIMEOUT_S = 8.0
GREETING_NS = 8 * NS
SILENT_KEEPALIVES = 1.7
PAUSE_MIN_S, PAUSE_MAX_S = 1.0, 60.0
STEADY_NS = 10 * NS
"""After this long up, the next loss is a new one and the pauses begin from the shortest."""
WINDOW = 100
"""Messages that may be on their way without the broker's acknowledgement."""
READ_PACKETS = 500
"""Packets of one turn, so that whoever stores them can do so together."""
DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_NOT_SUPPORTED = "Unsupported protocol version"
_HUNG_UP = "the broker hung up"
_KNOCK_NS = NS // 4


@dataclass(frozen=True, slots=True)
class Up:
    """Connected. ``version`` is 5 or 4 (3.1.1)."""

    url: str
    version: int


@dataclass(frozen=True, slots=True)
class Down:
    """Not connected, or no longer; why, in words."""

    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has taken a message, or refused it for a reason."""

    mid: int
    refused: str = ""


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

    ``will``, where there is one, is asked for anew at each attempt. The sockets are registered
    with ``selector``, their ``data`` being what the loop calls with the event mask and ``t``.

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
    ) -> None:
        if not config.urls:
            raise ValueError("uplink.mqtt: no broker is named")
        self._brokers = [_broker(url) for url in config.urls]
        self._config = config
        self._client_id = client_id
        self._will = will
        self._selector = selector
        self._chance = chance or random.Random()  # noqa: S311  spreads retries, keeps no secret
        self.state = State.waiting
        self._retry_at = 0
        self._pause_s = PAUSE_MIN_S
        self._broker = 0
        self._old_protocol = [config.protocol == "3.1.1"] * len(self._brokers)
        self._since = self._heard_at = 0
        self._unpublished: dict[int, int] = {}
        self._window = WINDOW
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
            self._lost(t, str(error))
            return
        self._client = client
        outcome, knock = self._outcome, self._knock_out

        def connect() -> None:
            reason = ""
            try:
                client.reconnect()
            except Exception as error:  # noqa: BLE001  whatever goes wrong is an outcome
                reason = str(error) or type(error).__name__
            outcome.put(reason)
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
        self.state, self._since = State.greeting, t
        self._watch()

    def _new_client(self) -> paho.Client:
        old = self._old_protocol[self._broker]
        secure, host, port = self._brokers[self._broker]
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
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
            context = ssl.create_default_context(cafile=config.ca_file or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if config.certificate_file:
                context.load_cert_chain(config.certificate_file, config.key_file or None)
            client.tls_set_context(context)
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
        client.connect_async(
            host,
            port,
            keepalive=config.keepalive_s,
            clean_start=paho.MQTT_CLEAN_START_FIRST_ONLY if old else False,
            properties=properties,
        )
        return client

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
            note(Up(url, version))

        def on_disconnect(
            _client: paho.Client,
            _userdata: Any,
            _flags: paho.DisconnectFlags,
            reason: ReasonCode,
            _properties: Properties | None,
        ) -> None:
            note(Down(url, _HUNG_UP if reason == "Unspecified error" else str(reason)))

        def on_publish(
            _client: paho.Client,
            _userdata: Any,
            mid: int,
            reason: ReasonCode,
            _properties: Properties,
        ) -> None:
            note(Published(mid, str(reason) if reason.is_failure else ""))

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
        for _ in range(READ_PACKETS):
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

    # --- the end of an attempt or a connection ----------------------------------------------------

    def _limit_ns(self) -> int:
        keepalive_s = self._client.keepalive if self._client else self._config.keepalive_s
        return round(SILENT_KEEPALIVES * keepalive_s * NS)

    def _lost(self, t: int, reason: str) -> None:
        """An attempt failed or the connection ended: say so, and decide when to try what next."""
        was, broker = self.state, self._broker
        self._reports.append(Down(self.url, reason))
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
        self._retry_at = t + round(self._chance.uniform(0.5, 1.0) * self._pause_s * NS)
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def _forget(self) -> None:
        """Drop the client and close its socket: without DISCONNECT, so that the will is said."""
        sock = self._socket
        self._unwatch()
        if sock is not None:
            sock.close()
        self._client = None
        self._unpublished.clear()
        self._outcome = queue.SimpleQueue()


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho leaves it untyped


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
