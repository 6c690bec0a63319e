"""The example that runs a control loop at a fixed rate."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastltc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "control_loop.py"
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None
runpy.run_path({!r}, run_name="__main__")
"""


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *(str(word) for word in command)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def test_it_makes_its_model_and_controls_the_motor(tmp_path: Path) -> None:
    done = run(tmp_path, EXAMPLE, "--rate", 200, "--seconds", 4, "--steps", 200)
    assert done.returncode == 0, done.stderr
    assert "800 periods of 5000 us" in done.stdout
    for row in ("late or early", "network"):
        numbers = re.search(rf"^{row} +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", done.stdout, re.M)
        assert numbers is not None
        values = [float(number) for number in numbers.groups()]
        assert values == sorted(values)
    assert 0 < values[0] < 1000
    mean = re.search(r"mean period ([\d.]+) us", done.stdout)
    assert mean is not None
    assert float(mean[1]) > 4900
    # The target is 1 or -1; a motor that does nothing stays 1 away from it.
    distance = re.search(r"once settled: ([\d.]+) rad", done.stdout)
    assert distance is not None
    assert float(distance[1]) < 0.3


def test_the_loop_needs_no_torch(tmp_path: Path) -> None:
    fastltc.export(fastltc.LTC(2, 3), tmp_path / "wide.safetensors")
    fastltc.export([fastltc.LTC(2, 3), fastltc.CfC(3, 1)], tmp_path / "own.safetensors")
    program = WITHOUT_TORCH.format(str(EXAMPLE))
    options = ["--rate", 1000, "--seconds", 0.2, "--spin", 0]
    done = run(tmp_path, "-c", program, "--model", "own.safetensors", *options)
    assert done.returncode == 0, done.stderr
    assert "200 periods of 1000 us" in done.stdout
    done = run(tmp_path, "-c", program, "--model", "wide.safetensors", *options)
    assert done.returncode != 0
    assert "expected 2 inputs and 1 output, got 2 and 3" in done.stderr


@pytest.mark.parametrize("option", ["--rate", "--seconds"])
def test_impossible_options(tmp_path: Path, option: str) -> None:
    done = run(tmp_path, EXAMPLE, option, 0)
    assert done.returncode == 2
    assert "above 0" in done.stderr
