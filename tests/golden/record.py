"""Writes tests/golden/record.json and models/ with the fastltc that is installed.

    python tests/golden/record.py

Only where results are meant to change: the change then says so and why. Bits are added to those of
other environments; everything else is written anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import nets

import fastltc
from fastltc import _extension


def compute(instruction_set: str) -> dict:
    result = subprocess.run(
        [sys.executable, nets.__file__],
        env={**os.environ, "FASTLTC_CPU": instruction_set},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(result.stdout)


def main() -> None:
    nets.MODELS.mkdir(exist_ok=True)
    for name in (*nets.LAYERS, *nets.STACKS):
        fastltc.export(nets.model_of(name), nets.MODELS / f"{name}.safetensors", time_unit=60)
    bits = json.loads(nets.RECORD.read_text())["bits"] if nets.RECORD.exists() else {}
    for instruction_set in _extension.load_runtime().cpu_info()["supported"]:
        found = compute(instruction_set)
        bits[found["environment"]] = found["bits"]
        if instruction_set == "baseline":
            summaries = found["summaries"]
    record = {
        "bits": bits,
        "exports": {name: nets.exports(name) for name in (*nets.LAYERS, *nets.STACKS)},
        "summaries": summaries,
    }
    with tempfile.NamedTemporaryFile("w", dir=nets.HERE, delete=False) as file:
        json.dump(record, file, indent=1)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, nets.RECORD)


if __name__ == "__main__":
    main()
