"""Every siren proves at start and once a day, in silence, that it obeys."""

from dataclasses import replace

import pytest

from gateway.core.compiled import Compiled
from gateway.core.engine import Core
from gateway.core.self_test import AGAIN_NS, ANSWER_NS, BUSY_NS, EVERY_NS, SelfTests
from gateway.events import NS, Event, Health
from gateway.siren.lcus_relay import LcusRelaySimulator
from gateway.siren.modbus_relay import ModbusRelaySimulator
from tests.core.station import gauge, relay_siren, station, virtual_siren
from tests.siren.line import MS

Board = ModbusRelaySimulator | LcusRelaySimulator


class Wired(Core):
    """A core with one port, whose end at the siren can be read."""

    def __init__(self, config: Compiled) -> None:
        self._line = bytearray()
        super().__init__(config, 0, lambda _port, data: self._line.extend(data))

    def heard(self) -> bytes:
        """What came over the line, each byte given once."""
        data = bytes(self._line)
        self._line.clear()
        return data


def of(core: Core) -> list[Health]:
    events: list[Event] = [event for event, _ in core.published()]
    return [e for e in events if isinstance(e, Health) and e.kind == "self_test"]


def result(core: Core) -> str:
    return str(core.status()["sirens"]["main"]["self_test"]["result"])


def turn(core: Wired, board: Board | None, start: int, end: int) -> None:
    """Let core and board talk from deadline to deadline."""
    t = start
    while t <= end:
        core.tick(t)
        heard = core.heard()
        if board is not None:
            board.feed(heard, t)
            board.tick(t + 4 * MS)
            if answer := board.to_send():
                core.bytes("r", answer, t + 10 * MS)
        due = core.next_deadline()
        t = max(t + 11 * MS, end + 1 if due is None else due)


def relay_core() -> Wired:
    core = Wired(station((gauge("g"),), relay_siren("r")))
    core.opened("r", 0)
    return core


def test_a_siren_that_obeys_has_passed_at_start_and_every_day() -> None:
    core, board = relay_core(), ModbusRelaySimulator()
    turn(core, board, 0, NS)
    (passed,) = of(core)
    assert (passed.component, passed.state) == ("main", "ok")
    assert passed.detail.startswith("silent, read back after 0.")
    turn(core, board, NS, EVERY_NS + 2 * NS)
    (daily,) = of(core)
    assert daily.time_ns == pytest.approx(EVERY_NS, abs=NS)
    assert not any(on for _, _, on in board.changes()), "nobody has heard anything"


def test_a_siren_that_does_not_answer_has_failed_until_it_does() -> None:
    core = relay_core()
    turn(core, None, 0, 2 * ANSWER_NS)
    (failed,) = of(core)
    assert (failed.state, result(core)) == ("failed", "failed")
    assert "board 1 does not answer; check its power" in failed.detail
    turn(core, None, 2 * ANSWER_NS, 2 * ANSWER_NS + 2 * AGAIN_NS)
    assert of(core) == [], "it is said once"
    later = 3 * AGAIN_NS
    turn(core, ModbusRelaySimulator(), later, later + 30 * NS)
    assert of(core)[-1].state == "ok"
    assert result(core) == "passed"


def test_a_siren_that_is_wanted_is_tested_when_it_rests() -> None:
    core, board = relay_core(), ModbusRelaySimulator()
    core.bytes("g", b"contact 1\n", 0)
    turn(core, board, 0, 20 * NS)
    assert board.relays[0], "the test does not silence it"
    assert result(core) == "waiting"
    turn(core, board, 20 * NS, 2 * BUSY_NS + ANSWER_NS)
    assert result(core) == "passed"
    assert {h.state for h in of(core)} == {"ok"}


def test_a_board_without_read_back_can_prove_nothing_and_says_so() -> None:
    siren = replace(
        relay_siren("r"), driver="gateway.siren.lcus_relay:LcusRelay", options={}, unit={}
    )
    core = Wired(station((gauge("g"),), siren))
    core.opened("r", 0)
    turn(core, LcusRelaySimulator(), 0, EVERY_NS // 100)
    assert of(core) == []
    assert result(core) == "unprovable"


def test_a_technician_has_it_now_unless_the_siren_is_wanted() -> None:
    core = Core(station((gauge("g"),), virtual_siren()))
    core.tick(0)
    of(core)
    core.self_test((), NS)
    core.tick(NS)
    assert [h.state for h in of(core)] == ["ok"]
    core.bytes("g", b"contact 1\n", 2 * NS)
    with pytest.raises(ValueError, match="main is busy with"):
        core.self_test((), 3 * NS)
    with pytest.raises(ValueError, match="no siren 'roof'"):
        core.self_test(("roof",), 3 * NS)


def test_a_replay_tests_nothing() -> None:
    core = Core(station(), live=False)
    core.tick(10 * NS)
    assert of(core) == []


def test_sound_that_nobody_wants_is_no_pass() -> None:
    tests = SelfTests({"main": True}, 0)
    assert not tests.heard("main", on=True, wanted=False, t=NS)
    assert not tests.heard("main", on=None, wanted=False, t=NS)
    assert tests.tick(ANSWER_NS, ()) == ([], ["main"])
    assert tests.heard("main", on=False, wanted=False, t=ANSWER_NS + NS)
    assert tests.status("main", ANSWER_NS + NS)["detail"] == "silent, read back at last"
