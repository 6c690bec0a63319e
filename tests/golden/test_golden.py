"""What is computed and written stays as it was recorded: the same bits where they can be compared.

``record.py`` writes what this reads; docs/numerics.md says what bits depend on.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastltc
from fastltc import _extension

sys.path.insert(0, str(Path(__file__).parent))

import nets

RECORD = json.loads(nets.RECORD.read_text(encoding="utf-8"))
NAMES = (*nets.LAYERS, *nets.STACKS)
INSTRUCTION_SETS = _extension.load_runtime().cpu_info()["supported"]
# Of the sum of magnitudes: rounding and the few ULPs of the sigmoid, some steps deep.
BOUND = {"float32": 2e-5, "float64": 1e-12, "session": 2e-5}


@functools.cache
def computed(instruction_set: str) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, nets.__file__],
        env={**os.environ, "FASTLTC_CPU": instruction_set},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def parsed(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return header and data of a file; safetensors writes the keys of metadata in any order."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_outputs_and_gradients_are_those_recorded(instruction_set: str) -> None:
    found = computed(instruction_set)["summaries"]
    wanted = {
        f"{net}, {key}": sums for net, of in RECORD["summaries"].items() for key, sums in of.items()
    }
    assert found.keys() == wanted.keys()
    for name, (first, second, magnitude) in wanted.items():
        bound = next(b for word, b in BOUND.items() if word in name) * magnitude
        assert abs(found[name][0] - first) <= bound, name
        assert abs(found[name][1] - second) <= bound, name


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_outputs_and_gradients_have_the_bits_recorded(instruction_set: str) -> None:
    found = computed(instruction_set)
    if found["environment"] not in RECORD["bits"]:
        pytest.skip(f"no bits were recorded with {found['environment']}")
    wanted = RECORD["bits"][found["environment"]]
    changed = [name for name in wanted if found["bits"].get(name) != wanted[name]]
    assert not changed
    assert found["bits"].keys() == wanted.keys()


@pytest.mark.parametrize("name", NAMES)
def test_exports_are_those_recorded(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    assert nets.exports(name) == RECORD["exports"][name]
    path = tmp_path / "model.safetensors"
    fastltc.export(nets.model_of(name), path, time_unit=60)
    assert parsed(path) == parsed(nets.MODELS / f"{name}.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_model_file_holds_the_model_that_it_was_written_of(name: str) -> None:
    model = fastltc.exporting.describe(nets.model_of(name), time_unit=60)
    assert repr(nets.recorded_model(name)) == repr(model)
