"""Who may include and import whom (the layers of the project)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "fastltc"
CXX_SUFFIXES = {".h", ".hpp", ".cpp", ".cu", ".cuh", ".in"}

# A folder of csrc -> the folders of csrc that it may include.
CXX_LAYERS = {
    "core": {"core"},
    "cpu": {"core", "cpu"},
    "model": {"core", "model"},
    "cuda": {"core", "cuda"},
    "library": {"core", "cpu", "model", "library"},
    "runtime": {"core", "cpu", "cuda", "model", "runtime"},
    "torch": {"core", "cpu", "cuda", "torch"},
}
# The modules of a package in levels, lowest first: each imports of lower levels only.
PYTHON_LAYERS = {
    "fastltc": [
        {"_C", "_extension", "_files", "_lazy", "_parameters", "_runtime", "_version"}
        | {"__version__", "reference", "wirings"},
        {"info", "ops", "runtime"},
        {"nn"},
        {"dropin"},
        {"inspect"},
        {"exporting", "hub", "rl"},
        {"jobs"},
        {"cli", "command", "sklearn"},
        {"__init__", "__main__"},
    ],
    "fastltc.dropin": [
        {"verified"},
        {"conversions"},
        {"accelerate", "patch"},
        {"script"},
        {"__init__"},
    ],
    "fastltc.inspect": [
        {"figure", "membrane", "attribution"},
        {"network", "trace"},
        {"ablation", "liquid_layer", "matrices", "pictures", "synapses"},
        {"diagram"},
        {"graph"},
        {"__init__"},
    ],
    "fastltc.jobs": [
        {"defaults", "errors", "files", "options"},
        {"device", "lock", "reading"},
        {"data"},
        {"models"},
        {"checkpoint", "config", "plots", "unchanged"},
        {"recipes", "run"},
        {"evaluation"},
        {"training"},
        {"export", "tuning"},
        {"__init__"},
    ],
    "fastltc.cli": [
        {"completion"},
        {"options"},
        {"data", "evaluate", "export"},
        {"train"},
        {"tune"},
        {"main"},
        {"__init__", "__main__"},
    ],
}
RANKS = {
    package: {name: level for level, names in enumerate(levels) for name in names}
    for package, levels in PYTHON_LAYERS.items()
}


def included(text: str) -> list[str]:
    return re.findall(r"^\s*#\s*include\s*[<\"]([^>\"]+)[>\"]", text, re.MULTILINE)


def is_torch_header(header: str) -> bool:
    return (
        header.split("/")[0] in {"torch", "ATen", "c10", "caffe2"}
        and not (ROOT / "csrc" / header).exists()
    )


def cxx_files(folder: str) -> list[Path]:
    return sorted(
        path for path in (ROOT / "csrc" / folder).rglob("*") if path.suffix in CXX_SUFFIXES
    )


def cxx_folder(header: str, path: Path) -> str | None:
    """Return the folder of csrc that a header is in which a file includes, however it is named."""
    for place in (ROOT / "csrc" / header, path.parent / header):
        if place.exists() and place.resolve().is_relative_to(ROOT / "csrc"):
            return place.resolve().relative_to(ROOT / "csrc").parts[0]
    return None


def includes_outside_the_layers(path: Path, folder: str, text: str) -> set[str]:
    return {
        f"{path.name}: {header}"
        for header in included(text)
        if (cxx_folder(header, path) or folder) not in CXX_LAYERS[folder]
    }


def imported(path: Path, package: Path = PACKAGE) -> set[str]:
    """Return the full names of the modules that a file of fastltc imports."""
    parts = ("fastltc", *path.relative_to(package).with_suffix("").parts)
    parent = parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parent[: len(parent) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def python_layer(name: str, package: str = "fastltc") -> str | None:
    """Return the module of a package that a name is in; None where it is of another package."""
    if name == package:
        return "__init__"
    return name[len(package) + 1 :].split(".")[0] if name.startswith(f"{package}.") else None


def folder_of(package: str, root: Path = PACKAGE) -> Path:
    return root.joinpath(*package.split(".")[1:])


def imports_against_the_layers(
    path: Path, root: Path = PACKAGE, package: str = "fastltc"
) -> set[str]:
    """Return what a file of a package imports that is of this package, but not below the file."""
    own = path.relative_to(folder_of(package, root)).with_suffix("").parts[0]
    rank = RANKS[package]
    layers = {name: python_layer(name, package) for name in imported(path, root)}
    # What has no rank, or is a name that the package itself exports, is above everything.
    return {
        name
        for name, layer in layers.items()
        if layer not in (None, own) and rank.get(layer, len(rank)) >= rank[own]
    }


def test_torch_headers_are_recognised() -> None:
    headers = [header for path in cxx_files("torch") for header in included(path.read_text())]
    assert any(is_torch_header(header) for header in headers)
    assert is_torch_header("ATen/ATen.h")
    assert not is_torch_header("vector")


@pytest.mark.parametrize("folder", ["core", "cpu", "cuda", "library", "model", "runtime"])
def test_no_torch_header_below_the_bindings(folder: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}: {header}"
        for path in cxx_files(folder)
        for header in included(path.read_text(encoding="utf-8"))
        if is_torch_header(header)
    }
    assert not found


@pytest.mark.parametrize("folder", sorted(CXX_LAYERS))
def test_cxx_includes_follow_the_layers(folder: str) -> None:
    found = {
        name
        for path in cxx_files(folder)
        for name in includes_outside_the_layers(path, folder, path.read_text(encoding="utf-8"))
    }
    assert not found


@pytest.mark.parametrize("header", ["torch/checks.h", "../torch/checks.h"])
def test_an_include_of_a_layer_above_is_found(header: str) -> None:
    path = ROOT / "csrc" / "cpu" / "ltc.h"
    assert includes_outside_the_layers(path, "cpu", f'#include "{header}"\n')
    assert not includes_outside_the_layers(
        path, "cpu", '#include "cells/memory.h"\n#include "cpu/frame/simd.h"'
    )


def test_every_folder_of_csrc_is_in_a_layer() -> None:
    files = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in CXX_SUFFIXES]
    assert {path.relative_to(ROOT / "csrc").parts[0] for path in files} == CXX_LAYERS.keys()


def test_imports_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "reference" / "ltc.py"
    path.parent.mkdir()
    path.write_text(
        "import fastltc.ops\n"
        "from . import common\n"
        "from ..ops.ltc import ltc\n"
        "from .. import _extension\n"
        "def late():\n    from fastltc import nn\n"
    )
    assert imported(path, tmp_path) == {
        "fastltc.ops",
        "fastltc.reference.common",
        "fastltc.ops.ltc.ltc",
        "fastltc._extension",
        "fastltc.nn",
    }


def test_the_reference_does_not_use_the_extension() -> None:
    for path in sorted((PACKAGE / "reference").rglob("*.py")):
        own = {name for name in imported(path) if name.startswith("fastltc")}
        foreign = {name for name in own if python_layer(name) != "reference"}
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"
        text = path.read_text(encoding="utf-8")
        assert "torch.ops" not in text, f"{path.relative_to(ROOT)} calls torch.ops"


@pytest.mark.parametrize("package", PYTHON_LAYERS)
def test_every_module_is_in_a_layer(package: str) -> None:
    folder = folder_of(package)
    modules = {path.relative_to(folder).with_suffix("").parts[0] for path in folder.rglob("*.py")}
    assert not modules - RANKS[package].keys()


@pytest.mark.parametrize("package", PYTHON_LAYERS)
def test_python_imports_follow_the_layers(package: str) -> None:
    for path in sorted(folder_of(package).rglob("*.py")):
        above = imports_against_the_layers(path, package=package)
        assert not above, f"{path.relative_to(ROOT)} imports {above}"


@pytest.mark.parametrize(
    ("own", "text"),
    [
        ("nn", "def late():\n    from ..jobs import plots\n"),
        ("nn", "from fastltc.unranked import x\n"),
        ("nn", "from fastltc import LTC\n"),
        ("nn", "import fastltc\n"),
        ("exporting", "from ..jobs.run import Run\n"),
        ("jobs", "from ..cli.options import JSON\n"),
        ("runtime", "from fastltc.ops import ltc\n"),
    ],
)
def test_an_import_of_a_layer_above_is_found(own: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / own / "module.py"
    path.parent.mkdir()
    path.write_text(text)
    assert imports_against_the_layers(path, tmp_path)


def test_an_import_against_the_layers_of_a_folder_is_found(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "plots" / "module.py"
    path.parent.mkdir(parents=True)
    path.write_text("from ..training.loop import train\nfrom .figure import to_png\n")
    found = imports_against_the_layers(path, tmp_path, "fastltc.jobs")
    assert found == {"fastltc.jobs.training.loop.train"}


def test_the_runtime_needs_no_torch() -> None:
    """Nor anything else of the package but what finds its libraries and writes its files."""
    own_files = (
        PACKAGE / f"{name}.py" for name in ("_extension", "_files", "_parameters", "_version")
    )
    for path in (*(PACKAGE / "runtime").rglob("*.py"), *own_files):
        names = imported(path)
        if path.name != "_extension.py":  # which loads the operators too, when asked to
            assert not {name.split(".")[0] for name in names} & {"torch", "ncps"}, path
        own = {python_layer(name) for name in names} - {None, "_parameters", "_version"}
        assert own <= {"_extension", "_files", "_runtime", "runtime"}, f"{path} imports {own}"
