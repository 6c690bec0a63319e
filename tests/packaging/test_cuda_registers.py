"""The list of the CUDA kernels' registers and spills, and the tool that compares with it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from loose_modules import load_module

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_module(ROOT / "tools" / "cuda_registers.py")


LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{symbol}' for 'sm_90'
ptxas info    : Function properties for {symbol}
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 107 registers, used 1 barriers, 64 bytes smem
""".format(
    symbol="_ZN7fastltc4cuda30ltc_persistent_backward_kernelIfLi4ELi32EEEvNS0_18PersistentBackwardIT_EE"
)


def test_the_output_of_ptxas_is_read(tool: ModuleType) -> None:
    expected = {"registers": 107, "spill_bytes": 12, "stack_bytes": 16}
    assert tool.parse(LOG) == {"ltc_persistent_backward_kernel<float, 4, 32>": expected}


def test_spills_of_a_hot_kernel_are_a_problem_even_when_listed(tool: ModuleType) -> None:
    figures = {"90": tool.parse(LOG)}
    assert len(tool.problems(figures, figures)) == 1
    assert "spills 12 bytes, limit 0" in tool.problems(figures, figures)[0]


def test_a_larger_stack_is_a_problem(tool: ModuleType) -> None:
    listed = {"90": {"other_kernel": {"registers": 9, "spill_bytes": 0, "stack_bytes": 16}}}
    measured = {"90": {"other_kernel": {"registers": 9, "spill_bytes": 0, "stack_bytes": 400}}}
    assert tool.problems(listed, listed) == []
    assert "stack of 400 bytes, listed 16" in tool.problems(measured, listed)[0]


def test_what_is_not_listed_is_a_problem(tool: ModuleType) -> None:
    figures = {"90": {"other_kernel<float>": {"registers": 9, "spill_bytes": 0, "stack_bytes": 0}}}
    assert tool.problems(figures, figures) == []
    assert "not in registers.json" in tool.problems(figures, {})[0]
    assert "no kernel found" in tool.problems({"90": {}}, figures)[0]


def test_the_committed_list_is_complete_and_in_order(tool: ModuleType) -> None:
    _, listed = tool.read_list()
    assert sorted(listed) == sorted(tool.ARCHITECTURES)
    assert tool.problems(listed, listed) == []
    names = {name for kernels in listed.values() for name in kernels}
    for dtype in ("float", "double"):
        assert f"ltc_tiled_forward_kernel<{dtype}>" in names
    for samples in (4, 8, 16):
        assert f"ltc_cluster_backward_kernel<{samples}>" in names
    assert all(names == set(kernels) for kernels in listed.values())


def test_what_the_figures_depend_on_changes_the_hash(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "nvcc"
    compiler.write_text("#!/bin/sh\necho release 1\n")
    compiler.chmod(0o755)
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    monkeypatch.setenv("CUDACXX", str(compiler))
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    before = {tool.digest()}
    for name in ("csrc/cuda/ltc.cu", "csrc/cuda/frame/scratch.h", "csrc/core/sequence.h"):
        with (tmp_path / name).open("a") as file:
            file.write("\n")
        before.add(tool.digest())
    compiler.write_text("#!/bin/sh\necho release 2\n")
    before.add(tool.digest())
    assert len(before) == 5
    (tmp_path / "csrc/cpu/sigmoid.h").write_text("\n")
    (tmp_path / "csrc/cuda/registers.json").write_text("{}\n")
    assert tool.digest() in before


def test_the_sources_include_none_that_the_hash_leaves_out(tool: ModuleType) -> None:
    files = [path for name in ("core", "cuda") for path in (ROOT / "csrc" / name).rglob("*.*")]
    included = {
        name for path in files for name in re.findall(r'^#include "(.+)"', path.read_text(), re.M)
    }
    assert included
    assert {name.split("/")[0] for name in included} == {"core", "cuda"}
