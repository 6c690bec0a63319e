"""Build backend: scikit-build-core, which also asks for torch, but only where none is installed.

The extension needs torch's headers and ``libtorch_cpu``, of any version from 2.10 on. Listing torch
under ``build-system.requires`` would make every isolated build download a second one, so a torch in
the target environment is used instead, and one is asked for only when there is none.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from scikit_build_core import build as _backend
from scikit_build_core.build import (
    build_editable,
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from scikit_build_core.cmake import DIR

from find_torch import MINIMUM, find_target_torch

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ConfigSettings = dict[str, list[str] | str] | None


def _torch_requirement(config_settings: ConfigSettings) -> list[str]:
    named = (config_settings or {}).get("cmake.define.FASTLTC_TORCH_DIR")
    if named or find_target_torch() is not None:
        return []
    return ["torch>=" + ".".join(map(str, MINIMUM))]


def get_requires_for_build_wheel(config_settings: ConfigSettings = None) -> list[str]:
    """Return scikit-build-core's requirements, and torch where the target environment has none."""
    return _backend.get_requires_for_build_wheel(config_settings) + _torch_requirement(
        config_settings
    )


def get_requires_for_build_editable(config_settings: ConfigSettings = None) -> list[str]:
    """Return scikit-build-core's requirements, and torch where the target environment has none."""
    return _backend.get_requires_for_build_editable(config_settings) + _torch_requirement(
        config_settings
    )


def build_wheel(
    wheel_directory: str,
    config_settings: ConfigSettings = None,
    metadata_directory: str | None = None,
) -> str:
    """Build a wheel, on top of what an earlier isolated build has compiled.

    scikit-build-core clears a build folder that it knows from another isolated environment, since
    paths into that may be in CMake's cache. With a CMake outside of it there is but one, which
    cmake/python.cmake looks up again.
    """
    for file in Path("build").glob("*/.skbuild-info.json"):
        try:
            known = json.loads(file.read_text())
            if known["cmake_path"] != shutil.which("cmake"):
                continue
            known["skbuild_path"] = str(DIR)
        except (ValueError, TypeError, KeyError):
            continue  # cut short by a kill: the folder is cleared
        file.write_text(json.dumps(known))
    return _backend.build_wheel(wheel_directory, config_settings, metadata_directory)
