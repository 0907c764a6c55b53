"""`gateway maintain`: what a technician says before cleaning a gauge."""

import pytest

from tests.cli.running_core import gateway, running


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rain1"], "either --for TIME or --end"),
        (["rain1", "--for", "1h", "--end"], "either --for TIME or --end"),
        (["rain1", "--for", "soon"], "expected a time such as"),
        (["rain1", "--for", "9h"], "at most 8 h"),
        ([], "SENSOR"),
    ],
)
def test_wrong_use_is_said(arguments: list[str], says: str) -> None:
    result = gateway("maintain", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_sensor_that_is_not_there_is_named_with_those_that_are() -> None:
    with running() as station:
        result = gateway("maintain", "rain1", "--for", "30m", "--run", str(station.run))
    assert result.exit_code == 1
    assert "no sensor of readings 'rain1'; there are none" in result.stderr
