"""The list of what the CUDA kernels ask of a device, and the estimates that are made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from loose_modules import load_module

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> ModuleType:
    return load_module(ROOT / "tools" / "cuda_model.py")


def test_what_bounds_a_kernel_makes_its_time(model: ModuleType) -> None:
    case = next(case for case in model.CASES if case.counts == "LTC FullyConnected(64)")
    rows = json.loads(model.LIST.read_text(encoding="utf-8"))
    row = rows["LTC FullyConnected(64) backward"]
    before = model.estimate(case, row, True)
    conflicts = {**row, "wavefronts": 10000}
    after = model.estimate(case, conflicts, True)
    assert after.bound == "shared memory"
    unfolds = case.steps * case.unfolds
    launches = row["nodes"] * model.LAUNCH_US
    assert after.us == pytest.approx(unfolds * 10000 / model.CLOCKS_PER_US + launches)
    assert after.us > before.us > launches
    more = model.estimate(case, {**row, "nodes": row["nodes"] + 10}, True)
    assert more.us == pytest.approx(before.us + 10 * model.LAUNCH_US)


def test_estimates_are_called_so(model: ModuleType) -> None:
    command = [sys.executable, str(ROOT / "tools" / "cuda_model.py")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.startswith("Lower estimates from counts, not measured")
    for case in model.CASES:
        assert f"{case.counts}, B={case.batch}" in output


def test_a_step_takes_few_launches(model: ModuleType) -> None:
    rows = json.loads(model.LIST.read_text(encoding="utf-8"))
    for name in ("LTC AutoNCP(19, 2)", "LTC FullyConnected(64)", "CfC AutoNCP(19, 2)"):
        nodes = sum(rows[f"{name} {which}"]["nodes"] for which in ("forward", "backward"))
        assert nodes <= 10
