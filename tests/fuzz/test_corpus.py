"""Inputs that fuzzing kept, or that failed once, are read or refused, in bounded memory."""

from __future__ import annotations

import importlib.util
import resource
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SPEC = importlib.util.spec_from_file_location("fuzz_targets", HERE / "targets.py")
assert SPEC is not None
assert SPEC.loader is not None
targets = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(targets)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_corpus(name: str) -> None:
    files = sorted((HERE / "corpus" / name).iterdir())
    assert files
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for file in files:
        print(file)
        targets.TARGETS[name](file.read_bytes())
    if sys.platform == "linux":  # in KiB
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 256 * 1024
