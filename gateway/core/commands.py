"""Signed commands from the hub: their form, their signature, and what makes one late or a repeat.

The uplink verifies an envelope before it forwards it, and the core verifies it again. Both use
:func:`verify`; only the core keeps a :class:`Ledger`, saved before anything that it lets through
takes effect.

An envelope is a JSON object of at most 4 KiB:

=============  ==================================================================================
key            which key signed it, as named under ``[commands.keys]``
payload        base64 of the payload's bytes; just these bytes are signed, so there is no
               canonical form to disagree about
signature      base64 of the Ed25519 signature (RFC 8032), 64 bytes
=============  ==================================================================================

The payload is a JSON object. Keys beyond these are ignored:

=============  ==================================================================================
type           ``eew.command.v1``, so that a signature made for something else is worth nothing
id             unique; the same id again is answered with the first outcome
key            the same as the envelope's
counter        Unix milliseconds at the signer, strictly rising for each key over all stations
until          UTC; not obeyed later. At most 60 s after ``counter`` for what sounds or disarms,
               at most an hour for the rest
action         one of :class:`Action`
target         ``{"station": id}`` or ``{"group": name}``
status         ``Actual``, ``Exercise`` or ``Test`` as in CAP 1.2
arguments      what the action needs, see docs/uplink.md
=============  ==================================================================================

What may happen without knowing the time: "off", "cancel" and "arm" make a site quieter or safer,
so they are accepted with any clock; everything else is refused unless the clock has been
synchronised since boot and is certain to 5 s.
"""

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gateway.events import NS, Status, iso, parse_iso

if TYPE_CHECKING:
    # At run time only where keys are configured: it is a third of the core's start.
    from nacl.signing import SigningKey, VerifyKey

MAX_ENVELOPE_BYTES = 4096
MAX_CLOCK_UNCERTAINTY_NS = 5 * NS
MAX_ID_LENGTH = 128
_TYPE = "eew.command.v1"
_MS = 1_000_000
_MAX_COUNTER = 2**53


class Action(StrEnum):
    """What a command asks for."""

    siren_on = "siren_on"
    siren_off = "siren_off"
    siren_test = "siren_test"
    arm = "arm"
    disarm = "disarm"
    cancel = "cancel"
    warning = "warning"

    @property
    def needs_time(self) -> bool:
        """Whether it may sound or disarm, so that a wrong clock must not let it through."""
        return self not in (Action.siren_off, Action.arm, Action.cancel)

    @property
    def max_validity_ns(self) -> int:
        return (60 if self.needs_time else 3600) * NS


class Reason(StrEnum):
    """Why a command is refused."""

    malformed = "malformed"
    too_large = "too_large"
    unknown_key = "unknown_key"
    bad_signature = "bad_signature"
    not_for_us = "not_for_us"
    clock_unsure = "clock_unsure"
    expired = "expired"
    from_the_future = "from_the_future"
    valid_too_long = "valid_too_long"
    late = "late"
    retained = "retained"
    not_stored = "not_stored"


@dataclass(frozen=True, slots=True)
class Clock:
    """What is known of UTC. ``uncertainty_ns`` is None as long as it was never synchronised."""

    utc_ns: int
    uncertainty_ns: int | None

    @property
    def sure(self) -> bool:
        known = self.uncertainty_ns
        return known is not None and known <= MAX_CLOCK_UNCERTAINTY_NS


@dataclass(frozen=True, slots=True)
class Command:
    """A command; one that :func:`verify` returned is genuine, for us and in time."""

    id: str
    key: str
    counter: int
    until_ns: int
    action: Action
    target: Mapping[str, str]
    status: Status = Status.actual
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command that is not obeyed. ``id`` and ``action`` are empty where it can't be trusted."""

    reason: Reason
    detail: str
    id: str = ""
    action: str = ""


def sign(command: Command, key: "SigningKey") -> bytes:
    """The envelope of a command, for the hub and for tests.

    Raises:
        ValueError: the envelope would be longer than 4 KiB.
    """
    payload = json.dumps(
        {
            "type": _TYPE,
            "id": command.id,
            "key": command.key,
            "counter": command.counter,
            "until": iso(command.until_ns),
            "action": command.action,
            "target": dict(command.target),
            "status": command.status,
            "arguments": dict(command.arguments),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
    envelope = {
        "key": command.key,
        "payload": b2a_base64(payload, newline=False).decode(),
        "signature": b2a_base64(key.sign(payload).signature, newline=False).decode(),
    }
    text = json.dumps(envelope, separators=(",", ":")).encode()
    if len(text) > MAX_ENVELOPE_BYTES:
        raise ValueError(f"envelope of {len(text)} bytes; at most {MAX_ENVELOPE_BYTES}")
    return text


def read_keys(hexadecimal: Mapping[str, str]) -> dict[str, "VerifyKey"]:
    """Public keys from their 64 hexadecimal digits.

    Raises:
        ValueError: one is not 32 bytes in hexadecimal; says which.
    """
    if not hexadecimal:
        return {}
    from nacl.signing import VerifyKey  # noqa: PLC0415  see the top

    keys = {}
    for name, text in hexadecimal.items():
        try:
            keys[name] = VerifyKey(bytes.fromhex(text))
        except Exception as error:  # PyNaCl raises types of its own for a wrong length
            raise ValueError(
                f"commands.keys.{name}: not an Ed25519 public key of 64 hexadecimal digits"
            ) from error
    return keys


class _MalformedError(ValueError):
    """The payload, though genuine, is not a command."""


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _MalformedError("not JSON") from error
    if not isinstance(found, dict):
        raise _MalformedError("not a JSON object")
    return found


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ENVELOPE_BYTES:
        raise _MalformedError(f"{key}: {value!r} is no text")
    return value


def _base64(found: Mapping[str, Any], key: str) -> bytes:
    try:
        return a2b_base64(_text(found, key), strict_mode=True)
    except ValueError as error:
        raise _MalformedError(f"{key}: not base64") from error


def _command(payload: bytes) -> Command:
    found = _object(payload)
    if found.get("type") != _TYPE:
        raise _MalformedError(f"type: {found.get('type')!r} is not {_TYPE}")
    counter, target = found.get("counter"), found.get("target")
    arguments = found.get("arguments", {})
    if type(counter) is not int or not 0 < counter < _MAX_COUNTER:
        raise _MalformedError(f"counter: {counter!r} is no number of milliseconds")
    if not isinstance(target, dict) or not any(
        isinstance(target.get(k), str) for k in ("station", "group")
    ):
        raise _MalformedError(f"target: {target!r} names no station and no group")
    if not isinstance(arguments, dict):
        raise _MalformedError(f"arguments: {arguments!r} is no object")
    identity = _text(found, "id")
    if len(identity) > MAX_ID_LENGTH:
        raise _MalformedError(f"id: longer than {MAX_ID_LENGTH} characters")
    try:
        return Command(
            id=identity,
            key=_text(found, "key"),
            counter=counter,
            until_ns=parse_iso(_text(found, "until")),
            action=Action(_text(found, "action")),
            target={k: v for k, v in target.items() if isinstance(v, str)},
            status=Status(found.get("status", Status.actual)),
            arguments=arguments,
        )
    except (ValueError, OverflowError) as error:
        raise _MalformedError(str(error)) from error


def verify(
    envelope: bytes | Mapping[str, Any],
    keys: Mapping[str, "VerifyKey"],
    *,
    clock: Clock,
    station: str,
    groups: Collection[str] = (),
) -> Command | Refusal:
    """The command in an envelope, or why it is refused. Never raises, whatever the bytes."""
    try:
        if isinstance(envelope, Mapping):
            envelope = json.dumps(envelope, separators=(",", ":")).encode()
        if len(envelope) > MAX_ENVELOPE_BYTES:
            detail = f"{len(envelope)} bytes; at most {MAX_ENVELOPE_BYTES}"
            return Refusal(Reason.too_large, detail)
        found = _object(envelope)
        name, payload, signature = _text(found, "key"), *_both(found)
        if name not in keys:
            return Refusal(Reason.unknown_key, f"no key {name!r} under [commands.keys]")
        if not _signed(keys[name], payload, signature):
            return Refusal(Reason.bad_signature, f"not signed by key {name!r}")
        command = _command(payload)
    except (ValueError, TypeError, RecursionError) as error:
        return Refusal(Reason.malformed, str(error))
    if command.key != name:
        detail = f"payload names key {command.key!r}, envelope {name!r}"
        return Refusal(Reason.malformed, detail, command.id, command.action)
    return _refused(command, clock, station, groups) or command


def _signed(key: "VerifyKey", payload: bytes, signature: bytes) -> bool:
    from nacl.exceptions import BadSignatureError  # noqa: PLC0415  loaded with the keys

    try:
        key.verify(payload, signature)
    except BadSignatureError:
        return False
    return True


def _both(found: Mapping[str, Any]) -> tuple[bytes, bytes]:
    payload, signature = _base64(found, "payload"), _base64(found, "signature")
    if len(signature) != 64:
        raise _MalformedError(f"signature: {len(signature)} bytes, not 64")
    return payload, signature


def _refused(
    command: Command, clock: Clock, station: str, groups: Collection[str]
) -> Refusal | None:
    action, issued_ns = command.action, command.counter * _MS
    ahead_ns = issued_ns - clock.utc_ns
    target = command.target
    reason = detail = None
    if target.get("station") != station and target.get("group") not in groups:
        reason, detail = Reason.not_for_us, f"target {dict(target)}, this is {station!r}"
    elif command.until_ns - issued_ns > action.max_validity_ns:
        limit_s = action.max_validity_ns // NS
        reason, detail = Reason.valid_too_long, f"{action}: valid for more than {limit_s} s"
    elif not clock.sure:
        if action.needs_time:
            reason, detail = Reason.clock_unsure, f"{action}: the time here is not certain"
    elif clock.utc_ns > command.until_ns:
        reason, detail = Reason.expired, f"valid until {iso(command.until_ns)}"
    elif action.needs_time and ahead_ns > MAX_CLOCK_UNCERTAINTY_NS:
        reason = Reason.from_the_future
        detail = f"signed {ahead_ns / NS:.1f} s ahead of the time here"
    return Refusal(reason, detail, command.id, action) if reason and detail else None


class Ledger:
    """Counters already used and outcomes already given, by key.

    ``state()`` is plain JSON for the journal, and what the constructor takes back. Of each key the
    last ``remembered`` outcomes are kept; an older id is refused as late by its counter.
    """

    def __init__(self, state: Mapping[str, Any] | None = None, remembered: int = 64) -> None:
        state = state or {}
        self._remembered = remembered
        self._counters: dict[str, int] = dict(state.get("counters", {}))
        self._outcomes: dict[str, dict[str, Any]] = {
            key: dict(outcomes) for key, outcomes in state.get("outcomes", {}).items()
        }

    def first_outcome(self, command: Command) -> Any:
        """What the same id was answered with before, or None if it is new."""
        return self._outcomes.get(command.key, {}).get(command.id)

    def admit(self, command: Command) -> Refusal | None:
        """Use up the command's counter, or say that it is late."""
        last = self._counters.get(command.key, 0)
        if command.counter <= last:
            detail = f"counter {command.counter} is not above {last} of key {command.key!r}"
            return Refusal(Reason.late, detail, command.id, command.action)
        self._counters[command.key] = command.counter
        return None

    def settle(self, command: Command, outcome: Any) -> None:
        """Keep the outcome (plain JSON) that a repeat of this id is to be answered with."""
        outcomes = self._outcomes.setdefault(command.key, {})
        outcomes[command.id] = outcome
        while len(outcomes) > self._remembered:
            del outcomes[next(iter(outcomes))]

    def state(self) -> dict[str, Any]:
        return {
            "counters": dict(self._counters),
            "outcomes": {key: dict(outcomes) for key, outcomes in self._outcomes.items()},
        }
