"""Examples in docstrings run, and docs/compatibility.md names tests that exist."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MODULES = [
    "fastltc.exporting",
    "fastltc.exporting.describe",
    "fastltc.hub",
    "fastltc.nn.cfc",
    "fastltc.nn.cfc_cell",
    "fastltc.nn.lstm_cell",
    "fastltc.nn.ltc",
    "fastltc.nn.ltc_cell",
    "fastltc.nn.wired_cfc_cell",
    "fastltc.nn.bidirectional",
    "fastltc.nn.masked_linear",
    "fastltc.nn.parallel_ltc",
    "fastltc.nn.sequential",
    "fastltc.ops.cfc",
    "fastltc.ops.ltc",
    "fastltc.ops.masked_linear",
    "fastltc.ops.synapses",
    "fastltc.reference.cfc",
    "fastltc.reference.ltc",
    "fastltc.reference.memory",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    if name == "fastltc.hub":
        pytest.importorskip("huggingface_hub")
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_the_compatibility_table_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 10
    for path, function in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function in functions, f"{path} has no {function}"


def test_every_row_of_the_compatibility_table_names_a_test() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 25
    for row in rows:
        last = row.rstrip("| ").rpartition("|")[2].strip()
        assert last == "shown by" or last.startswith("`tests/"), f"no test is named in: {row}"
