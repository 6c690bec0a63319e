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


def in_lines(record: dict) -> str:
    """Return JSON with a line for each net, so that a change shows in a diff."""
    parts = (
        f'"{part}": {{\n' + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in of.items())
        for part, of in record.items()
    )
    return "{\n" + "\n},\n".join(parts) + "\n}}"


def main() -> None:
    nets.MODELS.mkdir(exist_ok=True)
    for name in (*nets.LAYERS, *nets.STACKS):
        fastltc.export(nets.model_of(name), nets.MODELS / f"{name}.safetensors", time_unit=60)
    bits = json.loads(nets.RECORD.read_text())["bits"] if nets.RECORD.exists() else {}
    for instruction_set in _extension.load_runtime().cpu_info()["supported"]:
        found = compute(instruction_set)
        bits[found["environment"]] = found["bits"]
        if instruction_set == "baseline":
            summaries = {}
            for name, sums in found["summaries"].items():
                net, _, key = name.rpartition(", ")
                summaries.setdefault(net, {})[key] = sums
    record = {
        "bits": bits,
        "exports": {name: nets.exports(name) for name in (*nets.LAYERS, *nets.STACKS)},
        "summaries": summaries,
    }
    with tempfile.NamedTemporaryFile("w", dir=nets.HERE, delete=False) as file:
        file.write(in_lines(record) + "\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, nets.RECORD)


if __name__ == "__main__":
    main()
