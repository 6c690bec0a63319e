"""The types of the package, as a program that uses it sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
# Errors of other packages are not those of the program; ncps has no types.
CONFIGURATION = """[mypy]
[mypy-ncps.*]
ignore_missing_imports = true
"""


def check(folder: Path, program: str) -> list[str]:
    """Return the lines of mypy on a program in a folder away from the sources."""
    pytest.importorskip("mypy")
    pytest.importorskip("huggingface_hub")
    (folder / "mypy.ini").write_text(CONFIGURATION)
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-color-output", "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_typed_program_is_understood(tmp_path: Path) -> None:
    program = (HERE / "consumer.py").read_text(encoding="utf-8")
    assert check(tmp_path, program) == ["Success: no issues found in 1 source file"]
    # It is the types of fastltc that were read, and they refuse what is wrong.
    wrong = program + "layer.state_size = 3\nfastltc.export(layer, 5)\nlayer.missing_name()\n"
    lines = check(tmp_path, wrong)
    first = len(program.splitlines()) + 1
    found = [line.split(":")[1] for line in lines if "error:" in line]
    assert found == [str(first), str(first + 1), str(first + 2)], lines
