"""Examples in the docstrings of data, models, training and pictures run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "fastltc.data.audit",
    "fastltc.data.registry",
    "fastltc.models.conv_ncp",
    "fastltc.models.dense",
    "fastltc.models.registry",
    "fastltc.plots.scores",
    "fastltc.plots.network",
    "fastltc.training.curves",
    "fastltc.training.metrics",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
