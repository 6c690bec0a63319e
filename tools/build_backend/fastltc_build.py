"""Build backend: scikit-build-core, which also asks for torch, but only where none is installed.

The extension needs torch's headers and ``libtorch_cpu``, of any version from 2.10 on. Listing torch
under ``build-system.requires`` would make every isolated build download a second one, so a torch in
the target environment is used instead, and one is asked for only when there is none.
"""

from __future__ import annotations

from scikit_build_core import build as _backend
from scikit_build_core.build import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

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
