"""A short campaign of faults; ``make campaign-uplink`` is the long one."""

import pytest

from gateway.hub.broker import find_program
from tests.uplink import campaign


@pytest.mark.skipif(find_program("mosquitto") is None, reason="mosquitto is not installed")
def test_whatever_fails_the_hub_has_what_the_core_said() -> None:
    outcome = campaign.run(kills=6, others=1, seed=5)
    assert outcome.good, outcome.text()
