"""That the loop of the special-function limit has its operations in machine code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from fastltc import _extension, info

KERNEL = "_ZN7fastltc4cuda29special_function_limit_kernelEPfll"


def cuobjdump() -> str | None:
    """Return the path of the disassembler, which not every CUDA toolkit brings."""
    return os.environ.get("CUOBJDUMP") or shutil.which("cuobjdump")


def loops(code: list[tuple[int, str]]) -> list[list[str]]:
    """Return the instructions of each loop: from the target of a branch back to the branch."""
    found = []
    for address, instruction in code:
        branch = re.search(r"\bBRA (?:P\d, )?0x([0-9a-f]+)", instruction)
        if branch is not None and int(branch[1], 16) < address:
            start = int(branch[1], 16)
            found.append([text for place, text in code if start <= place <= address])
    return found


def count(loop: list[str], operation: str) -> int:
    return sum(re.search(rf"\b{re.escape(operation)}\b", text) is not None for text in loop)


@pytest.mark.skipif(
    not info.collect()["build"].get("cuda"), reason="this build has no CUDA kernels"
)
@pytest.mark.skipif(cuobjdump() is None, reason="no cuobjdump on the PATH or in CUOBJDUMP")
def test_nothing_is_moved_out_of_the_loop() -> None:
    # Other architectures have other instructions for the same: sm_100 adds two floats by one.
    command = [str(cuobjdump()), "-sass", "-arch", "sm_90", "-fun", KERNEL]
    command.append(_extension.library_path("_C_cuda"))
    output = subprocess.run(command, capture_output=True, text=True).stdout
    kernels = re.split(r"Function : ", output)[1:]
    if not kernels:
        pytest.skip("this build has no kernels for compute capability 9.0")
    for kernel in kernels:
        lines = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", kernel, re.MULTILINE)
        code = [(int(address, 16), instruction) for address, instruction in lines]
        (loop,) = [one for one in loops(code) if count(one, "MUFU.EX2")]
        evaluations = count(loop, "MUFU.EX2")
        assert evaluations % 8 == 0
        assert count(loop, "MUFU.RCP") == evaluations
        assert count(loop, "FFMA") == 3 * evaluations
        assert count(loop, "FADD") == evaluations
        # The loop itself.
        assert len(loop) <= 6 * evaluations + 16


def test_loops_are_found() -> None:
    code = [
        (0, "MOV R1"),
        (16, "MUFU.EX2 R2"),
        (32, "@P0 BRA 0x10"),
        (48, "BRA 0x60"),
        (64, "EXIT"),
    ]
    assert loops(code) == [["MUFU.EX2 R2", "@P0 BRA 0x10"]]
    assert count(loops(code)[0], "MUFU.EX2") == 1
