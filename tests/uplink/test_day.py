"""Twelve minutes of a station in fast motion, with every outage; ``make day`` is the whole day."""

from pathlib import Path

import pytest

from gateway.hub.broker import find_program
from tests.uplink import day

needed = ("mosquitto", "victoria-metrics", "openssl")


@pytest.mark.skipif(not all(map(find_program, needed)), reason=f"wanted: {', '.join(needed)}")
def test_after_every_outage_hub_database_and_archive_have_everything(tmp_path: Path) -> None:
    outcome = day.run(hours=0.2, kills=3, seed=2, folder=tmp_path)
    assert outcome.good, outcome.text()
