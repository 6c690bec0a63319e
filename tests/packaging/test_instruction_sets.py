"""FASTLTC_CPU, and the guard against functions shared between instruction sets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastltc import _extension

CHECK = Path(__file__).resolve().parents[2] / "tools" / "check_isa_symbols.py"
LANES = {"baseline": (4, 2), "avx2": (8, 4), "avx512": (16, 8)}
SUPPORTED = _extension.load_runtime().cpu_info()["supported"]


def cpu_info(requested: str) -> subprocess.CompletedProcess[str]:
    program = (
        "import json\n"
        "from fastltc._extension import load_runtime\n"
        "print(json.dumps(load_runtime().cpu_info()))"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "FASTLTC_CPU": requested},
    )


@pytest.mark.parametrize("isa", SUPPORTED)
def test_the_environment_forces_an_instruction_set(isa: str) -> None:
    result = cpu_info(isa)
    assert result.returncode == 0, result.stderr
    cpu = json.loads(result.stdout)
    assert cpu["chosen"] == isa
    assert (cpu["lanes"]["float32"], cpu["lanes"]["float64"]) == LANES[isa]


def test_the_strongest_is_the_default() -> None:
    assert json.loads(cpu_info("").stdout)["chosen"] == SUPPORTED[-1]


@pytest.mark.parametrize("requested", ["sse9", "AVX2", "avx2 "])
def test_an_impossible_instruction_set_is_an_error_that_names_it(requested: str) -> None:
    result = cpu_info(requested)
    assert result.returncode != 0
    assert f"ValueError: FASTLTC_CPU: expected one of {', '.join(SUPPORTED)}" in result.stderr
    assert f"got '{requested}'" in result.stderr


@pytest.mark.skipif(
    shutil.which("g++") is None or shutil.which("nm") is None, reason="needs g++ and nm"
)
@pytest.mark.parametrize(
    ("function", "shared"),
    [
        ("namespace fastltc::cpu::avx2 { inline int f() { return 1; } }", False),
        ("namespace fastltc::cpu::avx512 { inline int f() { return 1; } }", True),
        ("namespace fastltc::core { inline int f() { return 1; } }", True),
        ("namespace fastltc::core { static int f() { return 1; } }", False),
    ],
)
def test_shared_functions_are_found(tmp_path: Path, function: str, shared: bool) -> None:
    namespace = function.split()[1]
    source = tmp_path / "kernel.cpp"
    source.write_text(f"{function}\nint (*pointer)() = &{namespace}::f;\n")
    subprocess.run(["g++", "-std=c++20", "-c", source.name], cwd=tmp_path, check=True)
    result = subprocess.run(
        [sys.executable, str(CHECK), "avx2", str(tmp_path / "kernel.o")],
        capture_output=True,
        text=True,
    )
    assert (result.returncode != 0) is shared, result.stderr
    assert ("could replace" in result.stderr) is shared
