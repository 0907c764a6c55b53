"""Before the core says that it is ready it has led alerts through to its siren drivers."""

from dataclasses import replace

import pytest

from gateway.core.compiled import Compiled, Port, Siren, Station
from gateway.core.rehearsal import rehearse

RELAY = Siren("main", Port("/dev/relay"), "gateway.siren.modbus_relay:ModbusRelay")
LIGHT = Siren("light", Port("/dev/light"), "gateway.siren.patlite:Patlite")
VIRTUAL = Siren("virtual", None, "gateway.siren.virtual:Virtual")


def station(*sirens: Siren) -> Compiled:
    return Compiled(Station("s", "s", "s"), sirens=sirens)


@pytest.mark.parametrize("sirens", [(), (RELAY,), (RELAY, LIGHT), (VIRTUAL,), (RELAY, VIRTUAL)])
def test_made_up_alerts_reach_every_driver_with_a_port(sirens: tuple[Siren, ...]) -> None:
    assert rehearse(station(*sirens))


def test_two_relays_of_one_board_rehearse_together() -> None:
    relays = [replace(RELAY, name=f"r{n}", unit={"relay": n}) for n in (1, 2)]
    assert rehearse(station(*relays))


def test_a_siren_without_a_port_is_not_even_made() -> None:
    assert rehearse(station(Siren("gpio", None, "nowhere:Gpio")))
