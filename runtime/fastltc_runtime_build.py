"""Build backend of fastltc-runtime: puts its sources together, and lets scikit-build-core build.

    python runtime/fastltc_runtime_build.py FOLDER      # only puts them together

The tree is what the source distribution holds: what runs a model of fastltc's package and of
csrc, and a pyproject.toml that knows its version and needs this file no longer.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# Of python/fastltc.
PACKAGE = (
    "__init__.py",
    "__main__.py",
    "_extension.py",
    "_files.py",
    "_lazy.py",
    "_parameters.py",
    "_runtime.pyi",
    "_version.py",
    "command.py",
    "info.py",
    "py.typed",
    "exporting/__init__.py",
    "exporting/errors.py",
    "exporting/prepared.py",
    "exporting/c_*.py",
    "exporting/int_*.py",
    "runtime/*.py",
)
# Of the project.
SOURCES = (
    "CMakeLists.txt",
    "LICENSE",
    "licenses/pybind11.txt",
    "cmake/cpu.cmake",
    "cmake/cuda.cmake",
    "cmake/model.cmake",
    "cmake/python.cmake",
    "csrc/core/*",
    "csrc/cpu/**/*",
    "csrc/model/*",
    "csrc/runtime/*",
    "runtime/fastltc_runtime.pth",
)


def assemble(folder: Path) -> Path:
    """Put the sources together in a folder, and return it."""
    files = {name: name for pattern in SOURCES for name in _matching(ROOT, pattern)}
    package = ROOT / "python" / "fastltc"
    for pattern in PACKAGE:
        for name in _matching(package, pattern):
            files[f"python/fastltc/{name}"] = f"python/fastltc_runtime/fastltc/{name}"
    files["runtime/fastltc_runtime/__init__.py"] = "python/fastltc_runtime/__init__.py"
    files["runtime/README.md"] = "README.md"
    for source, target in files.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, folder / target)
    (folder / "pyproject.toml").write_text(_pyproject(), encoding="utf-8")
    return folder


def _matching(folder: Path, pattern: str) -> list[str]:
    names = [p.relative_to(folder).as_posix() for p in folder.glob(pattern) if p.is_file()]
    if not names:
        raise FileNotFoundError(f"{folder / pattern}: not there")
    return sorted(names)


def _pyproject() -> str:
    whole = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"', whole, re.MULTILINE)
    assert found is not None
    text = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    for old, new in (
        (r"^#.*\n#.*\n", ""),
        (r'"fastltc_runtime_build"\nbackend-path = .*', '"scikit_build_core.build"'),
        (r'^dynamic = \["version"\]', f'version = "{found[1]}"'),
    ):
        text, count = re.subn(old, new, text, count=1, flags=re.MULTILINE)
        assert count == 1, old
    return text


@contextlib.contextmanager
def _assembled() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="fastltc-runtime-") as folder:
        os.chdir(assemble(Path(folder)))
        try:
            yield
        finally:
            os.chdir(before)


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """Build a wheel of the assembled tree; see PEP 517."""
    from scikit_build_core import build

    with _assembled():
        return build.build_wheel(wheel_directory, config_settings)


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    """Write the metadata of a wheel, without building one; see PEP 517."""
    from scikit_build_core import build

    with _assembled():
        return build.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Build a source distribution of the assembled tree; see PEP 517."""
    from scikit_build_core import build

    with _assembled():
        return build.build_sdist(sdist_directory, config_settings)


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return what scikit-build-core needs; see PEP 517."""
    from scikit_build_core import build

    with _assembled():
        return list(build.get_requires_for_build_wheel(config_settings))


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
