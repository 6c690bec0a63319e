"""The example of reinforcement learning trains both of its policies."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "cartpole.py"


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["liquid", "lstm"])
def test_it_trains(policy: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--policy", policy, "--steps", "4100"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *way, after = done.stdout.splitlines()
    steps = [int(line.split()[0]) for line in way]
    assert steps == [4096, 5120]  # whole rollouts
    found = re.fullmatch(r"after training: mean return (\d+) over 50 episodes", after)
    assert found, done.stdout
    # One that always pushes to the same side drops the pole after 8 to 10 steps.
    assert 8 <= int(found[1]) <= 500
    assert not list(tmp_path.iterdir())
