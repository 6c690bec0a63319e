"""Finding and loading the compiled libraries, and what is said when that fails."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastltc import _extension, info


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def unloaded() -> Iterator[None]:
    """Forget, during the test, that the libraries are loaded."""
    _extension.load_operators.cache_clear()
    _extension.load_runtime.cache_clear()
    yield
    _extension.load_operators.cache_clear()
    _extension.load_runtime.cache_clear()


def replace_library(monkeypatch: pytest.MonkeyPatch, path: Path | None) -> None:
    def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
        if path is None:
            return None
        return importlib.machinery.ModuleSpec(name, None, origin=str(path))

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.parametrize(
    ("name", "load"),
    [("_C", _extension.load_operators), ("_runtime", _extension.load_runtime)],
)
def test_a_missing_library_is_named(
    name: str, load: Any, unloaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_library(monkeypatch, None)
    with pytest.raises(ImportError, match=rf"fastltc\.{name}: .*missing.*Install fastltc again"):
        load()


def test_a_damaged_library_is_named(
    unloaded: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    damaged = tmp_path / "_C.so"
    damaged.write_bytes(b"not a library")
    replace_library(monkeypatch, damaged)
    with pytest.raises(ImportError, match=r"fastltc\._C: cannot load .*_C\.so.*torch >= 2\.10"):
        _extension.load_operators()


def test_a_broken_installation_is_reported_not_raised(
    unloaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_library(monkeypatch, None)
    collected = info.collect()
    assert "missing" in collected["operators"]["error"]
    assert "missing" in collected["cpu"]["error"]
    report = info.format_report(collected)
    assert "not loaded: fastltc._C" in report
    assert "fastltc._runtime" in report


def test_without_torch_the_runtime_imports() -> None:
    result = run_python(
        "import json, sys\n"
        "sys.modules['torch'] = None\n"
        "import fastltc\n"
        "from fastltc._extension import load_runtime\n"
        "print(json.dumps([fastltc.__version__, load_runtime().cpu_info()]))\n"
        "print(fastltc.info.format_report())\n"
    )
    assert result.returncode == 0, result.stderr
    first, report = result.stdout.split("\n", 1)
    version, cpu = json.loads(first)
    assert version
    assert cpu["chosen"] in cpu["supported"]
    assert "torch                not available" in report


def test_importing_the_package_leaves_torch_alone() -> None:
    result = run_python(
        "import sys, fastltc, fastltc._runtime; raise SystemExit('torch' in sys.modules)"
    )
    assert result.returncode == 0, result.stderr


def test_unknown_attributes_are_an_error() -> None:
    import fastltc

    with pytest.raises(AttributeError, match="no_such_thing"):
        fastltc.no_such_thing  # noqa: B018


def test_every_exported_name_exists() -> None:
    import fastltc

    for name in fastltc.__all__:
        assert getattr(fastltc, name) is not None
        assert name in dir(fastltc)


def test_type_checkers_see_every_exported_name() -> None:
    import fastltc

    tree = ast.parse(Path(fastltc.__file__).read_text(encoding="utf-8"))
    declared = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fastltc")
        for alias in node.names
    }
    assert declared == fastltc._EXPORTS


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf")
@pytest.mark.parametrize("load", [_extension.load_operators, _extension.load_runtime])
def test_libraries_are_hardened(load: Any) -> None:
    load()
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    name = "_C.so" if load is _extension.load_operators else "_runtime."
    (library,) = {path for path in loaded if f"/{name}" in path}
    dynamic, symbols = (
        subprocess.run(["readelf", "-W", how, library], capture_output=True, text=True).stdout
        for how in ("--dynamic", "--dyn-syms")
    )
    assert "BIND_NOW" in dynamic
    assert "__stack_chk_fail" in symbols
