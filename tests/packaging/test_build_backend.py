"""The in-tree build backend: which torch a build is made against, and when one is asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BACKEND = Path(__file__).resolve().parents[2] / "tools" / "build_backend"


def make_torch(site_packages: Path, version: str) -> Path:
    directory = site_packages / "torch"
    header = directory / "include" / "torch" / "csrc" / "stable" / "library.h"
    header.parent.mkdir(parents=True)
    header.touch()
    (directory / "lib").mkdir()
    (directory / "lib" / "libtorch_cpu.so").touch()
    (directory / "version.py").write_text(f"__version__ = '{version}'\ncuda = None\n")
    return directory


@pytest.fixture
def find_torch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BACKEND)
    return importlib.import_module("find_torch")


@pytest.fixture
def target(find_torch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty site-packages that stands for the target environment."""
    directory = tmp_path / "target"
    directory.mkdir()
    monkeypatch.setattr(find_torch, "target_directories", lambda: [directory])
    return directory


@pytest.mark.parametrize(
    ("version", "usable"),
    [("2.9.1+cpu", False), ("2.10.0", True), ("2.13.0+cu126", True), ("3.0.0a0+git1", True)],
)
def test_torch_is_used_from_2_10_on(
    find_torch: ModuleType, tmp_path: Path, version: str, usable: bool
) -> None:
    torch = find_torch.read_torch(make_torch(tmp_path, version))
    assert torch.version == version
    assert torch.usable is usable


@pytest.mark.parametrize("missing", ["version.py", "lib/libtorch_cpu.so"])
def test_an_incomplete_torch_is_none(find_torch: ModuleType, tmp_path: Path, missing: str) -> None:
    directory = make_torch(tmp_path, "2.13.0")
    (directory / missing).unlink()
    assert find_torch.read_torch(directory) is None


def test_the_target_environment_goes_first(
    find_torch: ModuleType, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_torch(tmp_path / "other", "2.14.0")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "other")])
    assert find_torch.find_torch().directory == other
    own = make_torch(target, "2.11.0")
    assert find_torch.find_torch().directory == own


def test_a_torch_that_is_too_old_is_passed_over(
    find_torch: ModuleType, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_torch(target, "2.9.0")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "other")])
    with pytest.raises(FileNotFoundError, match=r"no torch >= 2\.10 found.*other"):
        find_torch.find_torch()
    assert find_torch.find_target_torch() is None


def test_a_named_torch_must_be_one(find_torch: ModuleType, target: Path, tmp_path: Path) -> None:
    named = make_torch(tmp_path / "named", "2.12.0")
    make_torch(target, "2.13.0")
    assert find_torch.find_torch(str(named)).version == "2.12.0"
    with pytest.raises(FileNotFoundError, match=r"FASTLTC_TORCH_DIR.*nowhere"):
        find_torch.find_torch(str(tmp_path / "nowhere"))


def test_target_directories_include_system_packages_only_when_asked(
    find_torch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    config = tmp_path / "pyvenv.cfg"
    config.write_text("include-system-site-packages = false\n")
    without = find_torch.target_directories()
    config.write_text("include-system-site-packages = true\n")
    with_system = find_torch.target_directories()
    assert set(without) < set(with_system)


def test_the_program_prints_a_list_for_cmake(tmp_path: Path) -> None:
    directory = make_torch(tmp_path, "2.13.0")
    command = [sys.executable, str(BACKEND / "find_torch.py")]
    found = subprocess.run([*command, str(directory)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == f"{directory};2.13.0"
    failed = subprocess.run([*command, "nowhere"], capture_output=True, text=True)
    assert failed.returncode != 0
    assert "FASTLTC_TORCH_DIR" in failed.stderr


def test_torch_is_required_only_where_there_is_none(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scikit_build_core")
    sys.modules.pop("fastltc_build", None)
    backend = importlib.import_module("fastltc_build")
    monkeypatch.setattr(backend._backend, "get_requires_for_build_wheel", lambda settings: ["w"])
    monkeypatch.setattr(backend._backend, "get_requires_for_build_editable", lambda settings: ["e"])
    assert backend.get_requires_for_build_wheel() == ["w", "torch>=2.10"]
    assert backend.get_requires_for_build_editable({}) == ["e", "torch>=2.10"]
    named = {"cmake.define.FASTLTC_TORCH_DIR": "somewhere"}
    assert backend.get_requires_for_build_wheel(named) == ["w"]
    make_torch(target, "2.10.0")
    assert backend.get_requires_for_build_wheel() == ["w"]
    assert backend.get_requires_for_build_editable() == ["e"]
