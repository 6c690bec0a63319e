"""Examples in the docstrings of data, models, training and pictures run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "fastltc.jobs.data.audit",
    "fastltc.jobs.data.registry",
    "fastltc.jobs.models.conv_ncp",
    "fastltc.jobs.models.dense",
    "fastltc.jobs.models.registry",
    "fastltc.jobs.plots.runs",
    "fastltc.jobs.plots.scores",
    "fastltc.jobs.plots.diagram",
    "fastltc.jobs.evaluation.curves",
    "fastltc.jobs.evaluation.metrics",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
