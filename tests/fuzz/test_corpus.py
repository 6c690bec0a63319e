"""Inputs that fuzzing kept, or that failed once, are read or refused, in bounded memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

from loose_modules import load_module

HERE = Path(__file__).parent
targets = load_module(HERE / "targets.py")


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
