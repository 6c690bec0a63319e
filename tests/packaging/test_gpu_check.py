"""The check of a machine with a GPU, against programs that stand in for one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from loose_modules import load_module

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="its programs are shell scripts")

# In the place of Python, of whose steps one may fail, hang or write nothing. FAKE is `what:how`.
PYTHON = """#!/bin/bash
how() { [[ $FAKE == "$1":* ]] && echo "${FAKE#*:}"; }
end() {
  case $(how "$1") in
    fail) echo "broken"; exit 1 ;;
    hang) sleep 600 & sleep 600 ;;
    silent) exit 0 ;;
    crash) kill -SEGV $$ ;;
  esac
}
case "$*" in
  *collect-only*)
    end collect
    for n in 1 2 3 4 5 6; do echo "tests/ops/test_a.py::test_$n"; done ;;
  *"pytest -v"*)
    for word in "$@"; do
      [[ $word == tests/* ]] || continue
      if [[ $word == *test_3 ]]; then end test; fi
      echo "$word PASSED [ 10%]"
    done ;;
  *--benchmark-json=*)
    end benchmark
    for word in "$@"; do
      [[ $word == --benchmark-json=* ]] || continue
      echo '{"machine_info": {}, "benchmarks": [{"name": "a"}]}' > "${word#*=}"
    done ;;
  *gpu_smoke.py*)
    end smoke
    echo '{"case": "'"$2"'", "error": 1e-7, "bits": "same bits", "ms": 0.2, "nodes": 8}' ;;
  *report.py*) echo "| a row |" ;;
  *"pip install"*) end install ;;
  *get_device_capability*) echo 90 ;;
  *) ;;
esac
"""
SANITIZER = """#!/bin/bash
if [[ $FAKE == sanitizer:hang ]]; then sleep 600; fi
echo "========= ERROR SUMMARY: 0 errors"
[[ $FAKE != sanitizer:fail ]]
"""


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    path = ROOT / "tools" / "gpu_check.py"
    module = load_module(path)
    for name, text in {
        "python": PYTHON,
        "compute-sanitizer": SANITIZER,
        "nvidia-smi": "#!/bin/bash\necho 'NVIDIA H200, 580.1'\n",
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return module


def run(tool: ModuleType, folder: Path, seconds: float = 60) -> tuple[bool, str]:
    """Return whether a check passed, and its table."""
    check = tool.Check("h200", seconds, folder, None)
    check.workers = 2
    good = check.all(list(tool.LIMITS))
    assert len(list(folder.iterdir())) <= 7
    return good, (folder / "h200-summary.txt").read_text(encoding="utf-8")


def outcomes(table: str) -> dict[str, str]:
    """Return the outcome of each step of a table."""
    return {
        words[0]: words[1]
        for line in table.splitlines()
        if not line.startswith(" ") and len(words := line.split()) > 2 and words[-1] == "s"
    }


def test_a_machine_on_which_all_is_well(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "")
    good, table = run(tool, tmp_path / "results")
    assert good
    assert outcomes(table) == dict.fromkeys(tool.LIMITS, "passed")
    assert table.startswith("NVIDIA H200, 580.1\n")
    assert "6 of 6 passed" in table
    rows = json.loads((tmp_path / "results" / "h200-benchmarks.json").read_text(encoding="utf-8"))
    assert len(rows["benchmarks"]) == len(tool.BENCHMARKS)
    learnt = json.loads((tmp_path / "results" / "h200-smoke.json").read_text(encoding="utf-8"))
    assert [case["case"] for case in learnt] == list(tool.SMOKE_CASES)


@pytest.mark.parametrize(
    ("fake", "step", "outcome"),
    [
        ("smoke:fail", "smoke", "FAILED"),
        ("smoke:silent", "smoke", "FAILED"),
        ("collect:fail", "tests", "FAILED"),
        ("test:fail", "tests", "FAILED"),
        ("test:crash", "tests", "FAILED"),
        ("benchmark:fail", "benchmarks", "FAILED"),
        ("sanitizer:fail", "memcheck", "FAILED"),
    ],
)
def test_a_step_that_fails_leaves_the_others(
    tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fake: str,
    step: str,
    outcome: str,
) -> None:
    monkeypatch.setenv("FAKE", fake)
    good, table = run(tool, tmp_path / "results")
    assert not good
    found = outcomes(table)
    assert found[step] == outcome
    others = set(tool.LIMITS) - {step, "memcheck", "racecheck"}
    assert {found[other] for other in others} == {"passed"}
    if fake in ("test:fail", "test:crash"):
        assert "5 of 6 passed" in table
        assert "FAILED tests/ops/test_a.py::test_3" in table


@pytest.mark.parametrize("what", ["smoke", "test", "benchmark", "sanitizer"])
def test_what_hangs_is_ended_with_all_it_started(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("FAKE", f"{what}:hang")
    monkeypatch.setattr(tool, "LIMITS", dict.fromkeys(tool.LIMITS, 6))
    start = time.monotonic()
    good, table = run(tool, tmp_path / "results")
    assert not good
    assert "TIMEOUT" in table
    assert outcomes(table)["install"] == "passed"
    assert time.monotonic() - start < 60
    ours = subprocess.run(["ps", "-eo", "pgid,args"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in ours


def test_no_step_begins_after_the_end(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "smoke:hang")
    good, table = run(tool, tmp_path / "results", seconds=8)
    assert not good
    assert "NO TIME" in table


def test_a_failed_installation_ends_it(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "install:fail")
    good, table = run(tool, tmp_path / "results")
    assert not good
    assert outcomes(table) == {"install": "FAILED"}


def test_a_missing_sanitizer_is_named(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "")
    (tmp_path / "compute-sanitizer").unlink()
    good, table = run(tool, tmp_path / "results")
    assert not good
    assert outcomes(table)["memcheck"] == "MISSING"
    assert outcomes(table)["tests"] == "passed"


def test_wrong_arguments_have_a_status_of_their_own() -> None:
    for arguments in (["h200", "nothing"], ["a/b"], ["h200", "--wheel", "/nowhere.whl"]):
        command = ["bash", str(ROOT / "tools" / "gpu_check.sh"), *arguments]
        environment = {**os.environ, "PYTHON": sys.executable}
        assert subprocess.run(command, capture_output=True, env=environment).returncode == 2
