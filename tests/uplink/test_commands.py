"""A command is obeyed only if the hub signed it, for us, in time, and once."""

import json
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from gateway.core.commands import (
    Action,
    Clock,
    Command,
    Ledger,
    Reason,
    Refusal,
    read_keys,
    sign,
    verify,
)
from gateway.events import NS

KEY = SigningKey(bytes(range(32)))
KEYS = read_keys({"hub": KEY.verify_key.encode().hex()})
NOW = 1_800_000_000 * NS
SURE = Clock(NOW, NS // 100)
LOUD = [Action.siren_on, Action.siren_test, Action.disarm, Action.warning]
QUIET = [Action.siren_off, Action.arm, Action.cancel]


def command(action: Action = Action.siren_on, **changes: Any) -> Command:
    made = Command(
        id="c-1",
        key="hub",
        counter=NOW // 1_000_000,
        until_ns=NOW + 30 * NS,
        action=action,
        target={"station": "cn-demo-001"},
        arguments={"pattern": "disaster"},
    )
    return replace(made, **changes)


def judge(envelope: bytes | dict[str, Any], clock: Clock = SURE) -> Command | Refusal:
    return verify(envelope, KEYS, clock=clock, station="cn-demo-001", groups=("demo", "schools"))


def reason(found: Command | Refusal) -> Reason | None:
    return found.reason if isinstance(found, Refusal) else None


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("target", [{"station": "cn-demo-001"}, {"group": "schools"}])
def test_what_the_hub_signed_is_what_is_obeyed(action: Action, target: dict[str, str]) -> None:
    made = command(action, target=target)
    assert judge(sign(made, KEY)) == made
    assert judge(json.loads(sign(made, KEY))) == made


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target": {"station": "cn-demo-002"}}, Reason.not_for_us),
        ({"target": {"group": "hospitals"}}, Reason.not_for_us),
        ({"until_ns": NOW - 1000}, Reason.expired),
        ({"until_ns": NOW + 61 * NS}, Reason.valid_too_long),
        ({"counter": (NOW - 3600 * NS) // 1_000_000}, Reason.valid_too_long),
        ({"counter": (NOW + 6 * NS) // 1_000_000}, Reason.from_the_future),
    ],
)
def test_what_is_not_for_here_and_now_is_refused(changes: dict[str, Any], expected: Reason) -> None:
    found = judge(sign(command(**changes), KEY))
    assert reason(found) is expected
    assert isinstance(found, Refusal)
    assert found.id == "c-1"


@pytest.mark.parametrize("clock", [Clock(NOW, None), Clock(NOW, 6 * NS), Clock(0, None)])
def test_without_a_sure_clock_only_what_makes_quieter_or_safer_is_obeyed(clock: Clock) -> None:
    for action in LOUD:
        assert reason(judge(sign(command(action), KEY), clock)) is Reason.clock_unsure
    for action in QUIET:
        assert judge(sign(command(action), KEY), clock) == command(action)


def test_an_off_of_yesterday_is_refused_where_the_time_is_known() -> None:
    yesterday = NOW - 86_400 * NS
    old = command(Action.siren_off, counter=yesterday // 1_000_000, until_ns=yesterday + 3600 * NS)
    assert reason(judge(sign(old, KEY))) is Reason.expired


def test_another_hand_is_refused() -> None:
    stranger = SigningKey(b"s" * 32)
    assert reason(judge(sign(command(), stranger))) is Reason.bad_signature
    assert reason(judge(sign(command(key="nobody"), KEY))) is Reason.unknown_key


def test_a_signature_counts_under_its_own_name_only() -> None:
    """One key configured under two names: a captured envelope can't be renamed."""
    envelope = json.loads(sign(command(), KEY)) | {"key": "other"}
    found = verify(envelope, KEYS | {"other": KEY.verify_key}, clock=SURE, station="cn-demo-001")
    assert reason(found) is Reason.malformed


def signed(payload: bytes) -> dict[str, str]:
    return {
        "key": "hub",
        "payload": b64encode(payload).decode(),
        "signature": b64encode(KEY.sign(payload).signature).decode(),
    }


def payload_with(**changes: Any) -> bytes:
    payload = json.loads(b64decode(json.loads(sign(command(), KEY))["payload"]))
    return json.dumps(payload | changes).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"[" * 2000,
        b'{"type":"eew.command.v1","counter":NaN}',
        payload_with(type="eew.something.v1"),
        payload_with(counter=True),
        payload_with(counter=1e15),
        payload_with(counter=-1),
        payload_with(counter=2**60),
        payload_with(until="soon"),
        payload_with(until="9999-12-31T23:59:59+99:99"),
        payload_with(action="launch"),
        payload_with(target={}),
        payload_with(target={"station": 7}),
        payload_with(target="cn-demo-001"),
        payload_with(status="Real"),
        payload_with(arguments=[]),
        payload_with(id=""),
        payload_with(id="x" * 200),
    ],
)
def test_even_a_genuine_payload_must_be_a_command(payload: bytes) -> None:
    assert reason(judge(signed(payload))) is Reason.malformed


def test_an_envelope_has_at_most_four_kibibytes() -> None:
    big = command(arguments={"text": "预" * 1500})
    with pytest.raises(ValueError, match="at most 4096"):
        sign(big, KEY)
    assert reason(judge(signed(b"x" * 4000))) is Reason.too_large


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    assert isinstance(judge(data), Refusal)
    assert isinstance(judge(b'{"key":"hub","payload":"%b","signature":""}' % data), Refusal)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_altered_byte_goes_unnoticed(place: int, change: int) -> None:
    envelope = bytearray(sign(command(), KEY))
    envelope[place % len(envelope)] ^= change
    found = judge(bytes(envelope))
    assert isinstance(found, Refusal) or found == command()


# --- once -----------------------------------------------------------------------------------------


def test_a_counter_counts_once_and_only_upwards() -> None:
    ledger = Ledger()
    assert ledger.admit(command(id="a", counter=10)) is None
    assert reason_of(ledger.admit(command(id="b", counter=10))) is Reason.late
    assert reason_of(ledger.admit(command(id="c", counter=9))) is Reason.late
    assert ledger.admit(command(id="d", counter=11)) is None


def reason_of(refusal: Refusal | None) -> Reason | None:
    return refusal.reason if refusal else None


def test_each_key_counts_for_itself() -> None:
    ledger = Ledger()
    ledger.admit(command(counter=10))
    assert ledger.admit(command(key="other", counter=5)) is None


def test_a_repeat_gets_the_first_outcome_and_that_outlives_a_restart() -> None:
    ledger = Ledger()
    ledger.admit(command())
    ledger.settle(command(), {"outcome": "fired"})
    again = Ledger(json.loads(json.dumps(ledger.state())))
    assert again.first_outcome(command()) == {"outcome": "fired"}
    assert again.first_outcome(command(id="another")) is None
    assert reason_of(again.admit(command(id="another"))) is Reason.late


def test_what_is_remembered_is_bounded_and_the_forgotten_is_late() -> None:
    ledger = Ledger(remembered=4)
    for n in range(1, 11):
        each = command(id=f"c{n}", counter=n)
        ledger.admit(each)
        ledger.settle(each, "done")
    assert ledger.first_outcome(command(id="c1")) is None
    assert reason_of(ledger.admit(command(id="c1", counter=1))) is Reason.late
    assert len(ledger.state()["outcomes"]["hub"]) == 4


@pytest.mark.parametrize("text", ["", "zz" * 32, "00" * 31, "00" * 33])
def test_a_key_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"commands\.keys\.hub"):
        read_keys({"hub": text})
