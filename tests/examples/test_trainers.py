"""The examples for Lightning and the Trainer of transformers train."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "packages"),
    [
        ("lightning_digits.py", ["lightning"]),
        ("trainer_digits.py", ["transformers", "accelerate"]),
    ],
)
def test_the_loss_falls(script: str, packages: list[str], tmp_path: Path) -> None:
    for package in packages:
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), "--epochs", "8"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"loss ([\d.]+) -> ([\d.]+), accuracy ([\d.]+)", done.stdout)
    assert found, done.stdout
    before, after, accuracy = map(float, found.groups())
    # Chance is ln 10 = 2.3 and 0.1.
    assert before > 2
    assert after < 0.8
    assert accuracy > 0.75
    assert not list(tmp_path.iterdir())
