"""The way from a model file to its outputs without torch, by every instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastltc
from fastltc import _extension
from runtime_cases import (
    LAYERS,
    STREAMS,
    assert_agree,
    make_layer,
    random_sequence,
    run_module,
    tolerance,
)

PROGRAM = """
import sys
sys.modules["torch"] = None  # importing it is an error
sys.modules["ncps"] = None
from pathlib import Path
import numpy as np
from fastltc.runtime import Session
for path in Path(sys.argv[1]).glob("*.safetensors"):
    case = np.load(path.with_suffix(".npz"))
    session = Session.load(path, streams=case["x"].shape[1])
    output = session.run(case["x"], case["dt"])
    np.savez(path.with_suffix(".result.npz"), output=output, state=session.get_state())
"""


@pytest.mark.parametrize("isa", _extension.load_runtime().cpu_info()["supported"])
def test_files_run_without_torch_by_every_instruction_set(isa: str, tmp_path: Path) -> None:
    expected = {}
    for index, (name, streams) in enumerate((n, s) for n in LAYERS for s in STREAMS):
        layer = make_layer(name)
        x, dt = random_sequence(15, streams, layer.input_size)
        fastltc.export(layer, tmp_path / f"{index}.safetensors")
        np.savez(tmp_path / f"{index}.npz", x=x, dt=dt)
        expected[index] = *run_module(layer, x, dt), tolerance(layer, x, dt), name
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env={**os.environ, "FASTLTC_CPU": isa},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for index, (output, state, allowed, _) in expected.items():
        actual = np.load(tmp_path / f"{index}.result.npz")
        assert_agree(actual["output"], output, allowed)
        assert_agree(actual["state"], state, allowed)
