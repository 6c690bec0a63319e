"""The examples of a forecast and of readings at irregular times."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, steps: int) -> list[float]:
    """Run an example; return the errors that it prints."""
    command = [sys.executable, str(EXAMPLES / name), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [float(number) for number in re.findall(r"\d+\.\d+", done.stdout)]


def test_the_forecast_beats_the_week_before() -> None:
    network, week_before = run("forecast.py", 60)
    assert network < 0.9 * week_before


def test_gaps_that_are_told_help() -> None:
    told, blind = run("irregular.py", 80)
    assert told < 0.9 * blind
