"""Whatever happens to line, board and port, every siren ends as it was last told."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import siren as sirens
from gateway.events import NS
from gateway.siren import SirenDriver
from gateway.siren.lcus_relay import LcusRelay, LcusRelaySimulator
from gateway.siren.modbus_relay import ModbusRelay, ModbusRelaySimulator
from gateway.siren.patlite import Patlite, PatliteSimulator
from tests.siren.line import MS, Line, cut, whole

Board = ModbusRelaySimulator | LcusRelaySimulator | PatliteSimulator
Pair = Callable[[], tuple[SirenDriver, Board]]

ONE: dict[str, dict[str, int]] = {"main": {}}
DEEDS = st.sampled_from(["sound", "silence", "line cut", "line mended", "power cut", "replug"])
SPREAD = 250 * MS
"""A time-out, an exchange and the rounding of a pulse."""


def modbus(restarts: str, board: str) -> Pair:
    return lambda: (
        ModbusRelay({"pulse_restarts": restarts}, ONE),
        ModbusRelaySimulator({"pulse_restarts": board}),
    )


def lcus(*, feedback: bool) -> Pair:
    options = {"feedback": feedback}
    return lambda: (LcusRelay(options, ONE), LcusRelaySimulator(options))


TIMED = {
    "modbus yes-yes": modbus("yes", "yes"),
    "modbus no-no": modbus("no", "no"),
    "modbus no-yes": modbus("no", "yes"),
    "modbus unknown-yes": modbus("unknown", "yes"),
    "modbus unknown-no": modbus("unknown", "no"),
}
"""Believed of the board, and true of it."""
ALL = TIMED | {
    "modbus plain": lambda: (ModbusRelay({"pulse_s": 0.0}, ONE), ModbusRelaySimulator()),
    "lcus": lcus(feedback=False),
    "lcus with feedback": lcus(feedback=True),
    "patlite": lambda: (Patlite({}, ONE), PatliteSimulator()),
}


@pytest.mark.parametrize("name", ALL)
@given(st.lists(st.tuples(DEEDS, st.integers(0, 4000), st.integers(50, 40_000)), max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_siren_ends_as_told_and_sounds_only_while_it_may(
    name: str, deeds: list[tuple[str, int, int]]
) -> None:
    driver, board = ALL[name]()
    road = Line(driver, board).run(NS)
    asked = suffer(road, board, deeds)
    until = asked[-1][1] if asked else 0
    road.to_board = whole
    road.run(road.t + 11 * NS)
    if abs(until - road.t) > SPREAD:
        if not board.relays[-1 if name == "patlite" else 0]:
            road.run(road.t + 60 * MS)  # it may be the blink of a renewal
        assert any(board.relays) is (road.t < until)
    road.run(max(road.t, until) + 11 * NS)
    assert not any(board.relays)
    if name != "lcus":
        assert road.states()[-1] == ("main", False)
    edges = [t for t, relay, _ in board.changes() if relay == 1]
    for closed, opened in zip(edges[::2], edges[1::2], strict=True):
        within = [end for start, end in joined(asked) if start <= closed <= end + SPREAD]
        assert within
        assert name not in TIMED or opened <= within[-1] + SPREAD


@pytest.mark.parametrize("name", sirens.names())
@given(st.lists(st.binary(max_size=64), max_size=10))
@settings(max_examples=30, deadline=None)
def test_every_driver_by_name_takes_any_bytes(name: str, chunks: list[bytes]) -> None:
    driver = sirens.load(name)()
    for t, data in enumerate(chunks):
        assert isinstance(driver.feed(data, t * NS), list)
        assert isinstance(driver.tick(t * NS), list)
    assert driver.to_send() == b""


def suffer(road: Line, board: Board, deeds: list[tuple[str, int, int]]) -> list[tuple[int, int]]:
    """Do all that; the stretches that were asked for, and an empty one if silence was the last."""
    asked: list[tuple[int, int]] = []
    for deed, wait_ms, for_ms in deeds:
        road.run(road.t + wait_ms * MS)
        if deed == "sound":
            asked.append((road.t, road.t + for_ms * MS))
            road.sound("main", for_ms * MS)
        elif deed == "silence":
            asked.append((road.t, road.t))
            road.silence("main")
        elif deed == "power cut":
            board.powered(road.t)
        elif deed == "replug":
            road.reopen()
        else:
            road.to_board = cut if deed == "line cut" else whole
    return asked


def joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches that overlap as one."""
    result: list[tuple[int, int]] = []
    for start, end in stretches:
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result
