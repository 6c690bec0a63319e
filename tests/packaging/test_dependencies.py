"""What the package imports is declared; what is compiled in has its licence in the wheel."""

from __future__ import annotations

import ast
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Where the name of a distribution is not that of its module.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "onnx_ir": "onnx-ir",
    "sb3_contrib": "sb3-contrib",
    "sklearn": "scikit-learn",
    "stable_baselines3": "stable-baselines3",
}


def table() -> dict:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def imported() -> set[str]:
    found = set()
    for path in (ROOT / "python" / "fastltc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module)
    return {name.partition(".")[0] for name in found} - {"fastltc"} - sys.stdlib_module_names


def test_every_import_is_of_a_declared_dependency() -> None:
    project = table()
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {
        line.split(">")[0].split(";")[0].split("=")[0].strip() for lines in lists for line in lines
    }
    assert {DISTRIBUTIONS.get(name, name) for name in imported()} <= declared


def test_the_licence_of_pybind11_comes_along() -> None:
    text = (ROOT / "licenses" / "pybind11.txt").read_text(encoding="utf-8")
    assert "licenses/*.txt" in table()["license-files"]
    try:
        files = metadata.files("pybind11") or []
    except metadata.PackageNotFoundError:
        pytest.skip("pybind11 is not installed")
    theirs = next(file for file in files if file.name == "LICENSE")
    assert Path(str(theirs.locate())).read_text(encoding="utf-8") == text
