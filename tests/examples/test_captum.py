"""The example for Captum explains a digit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "captum_digits.py"


def test_the_rows_add_up_and_both_ways_agree() -> None:
    pytest.importorskip("captum", reason="captum is not installed")
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--epochs", "3"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *rows, about, compared = done.stdout.splitlines()
    found = re.search(r"accuracy ([\d.]+), added up to (-?[\d.]+)", about)
    assert found, about
    accuracy, total = map(float, found.groups())
    assert accuracy > 0.5  # by chance 0.1
    added = [float(row.split()[-1]) for row in rows]
    assert len(added) == 8
    assert sum(added) == pytest.approx(total, abs=0.05)
    left, difference = map(float, re.findall(r"(?:over|by) ([\d.e+-]+)", compared))
    assert left < 0.05
    assert difference < 1e-4
