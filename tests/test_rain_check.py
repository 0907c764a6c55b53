"""The scripted check of rain levels, on the series of the tree; `make rain-check` runs them all."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_level_times_of_a_replay_are_those_of_exact_arithmetic() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "rain_check.py", ROOT / "tests" / "data" / "rain"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 differ")
