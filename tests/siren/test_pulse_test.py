"""The bench finds out what a relay board does with a timed pulse that is sent again."""

from collections.abc import Mapping
from typing import Any, cast

import pytest

from gateway.events import NS
from gateway.siren import SirenDriver
from gateway.siren.modbus_relay import ModbusRelaySimulator
from gateway.siren.pulse_test import Finding, PulseTest
from tests.siren.line import MS, Line, cut


class Adding(ModbusRelaySimulator):
    """A pulse that is sent again adds its whole length to what is left."""

    def _write_coil(self, data: bytes, t: int) -> bytes | int:
        before = dict(self._timers)
        answer = super()._write_coil(data, t)
        for coil, (due, closed) in before.items():
            if coil in self._timers and data[0] == 2:
                self._timers[coil] = (due + 2 * 3 * NS, closed)
        return answer


class Plain(ModbusRelaySimulator):
    """A board without flash-on."""

    def _write_coil(self, data: bytes, t: int) -> bytes | int:
        return 2 if data[0] else super()._write_coil(data, t)


class Deaf(ModbusRelaySimulator):
    """A board that echoes a flash-on and does nothing."""

    def _write_coil(self, data: bytes, t: int) -> bytes | int:
        return data if data[0] else super()._write_coil(data, t)


def bench(board: ModbusRelaySimulator, options: Mapping[str, Any] = {}) -> tuple[Finding, Line]:
    test = PulseTest(options, {"relay": 1})
    road = Line(cast("SirenDriver", test), board)
    while not test.over:
        road.run(road.t + 100 * MS)
        assert road.t < 30 * NS
    assert test.finding is not None
    return test.finding, road


@pytest.mark.parametrize("pulse_s", [3.0, 2.0])
@pytest.mark.parametrize("restarts", ["yes", "no"])
def test_both_behaviours_are_told_apart(restarts: str, pulse_s: float) -> None:
    board = ModbusRelaySimulator({"pulse_restarts": restarts})
    finding, _ = bench(board, {"pulse_s": pulse_s})
    assert finding.settings == f'pulse_restarts = "{restarts}"'
    changes = [t for t, _, _ in board.changes()]
    closed_s = (changes[1] - changes[0]) / NS
    assert closed_s == pytest.approx(pulse_s * (5 / 3 if restarts == "yes" else 1), abs=0.15)
    assert float(finding.text.split()[2]) == pytest.approx(closed_s, abs=0.1)
    assert not any(board.relays)


@pytest.mark.parametrize("board", [Plain(), Deaf()])
def test_a_board_without_timed_pulses_is_to_be_switched_plainly(
    board: ModbusRelaySimulator,
) -> None:
    assert bench(board)[0].settings == "pulse_s = 0"
    assert not any(board.relays)


def test_what_is_neither_is_not_guessed_and_the_relay_is_opened() -> None:
    finding, _ = bench(board := Adding())
    assert not finding.known
    assert "stays closed for more than 7" in finding.text
    assert not any(board.relays)


@pytest.mark.parametrize("dies_ms", [0, 500, 2500])
def test_a_board_that_falls_silent_is_said_to(dies_ms: int) -> None:
    test = PulseTest({}, {})
    road = Line(cast("SirenDriver", test), ModbusRelaySimulator())
    road.run(dies_ms * MS)
    road.to_board = cut
    road.run(20 * NS)
    assert test.over
    assert test.finding is not None
    assert not test.finding.known
    assert "does not answer" in test.finding.text


def test_a_lost_answer_changes_nothing() -> None:
    test = PulseTest({}, {})
    road = Line(cast("SirenDriver", test), ModbusRelaySimulator({"pulse_restarts": "yes"}))
    road.to_host = lambda data, t: b"" if 900 * MS < t < 1100 * MS else data
    road.run(20 * NS)
    assert test.finding is not None
    assert test.finding.settings == 'pulse_restarts = "yes"'
