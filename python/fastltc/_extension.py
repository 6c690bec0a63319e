"""Finds and loads the compiled libraries of the package."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType

_REMEDY = "Install fastltc again (pip install fastltc, or pip install . in its source folder)."


def library_path(name: str) -> str:
    """Return the path of the compiled library ``fastltc.<name>``, or raise ImportError.

    ``_C`` has operators for torch, ``_C_cuda`` their CUDA kernels, ``_runtime`` needs no torch. It
    is looked up as a module would be, because in an editable install it does not lie beside the
    Python files.
    """
    spec = importlib.util.find_spec(f"fastltc.{name}")
    if spec is None or spec.origin is None:
        raise ImportError(
            f"fastltc.{name}: the compiled library is missing from this installation (looked in "
            f"{', '.join(importlib.import_module('fastltc').__path__)}). {_REMEDY}"
        )
    return spec.origin


def _load_into_torch(name: str) -> str:
    path = library_path(name)
    import torch

    try:
        torch.ops.load_library(path)
    except (OSError, RuntimeError) as error:
        raise ImportError(
            f"fastltc.{name}: cannot load {path} into torch {torch.__version__} (fastltc needs "
            f"torch >= 2.10): {error}. {_REMEDY}"
        ) from error
    return path


@functools.cache
def load_operators() -> str:
    """Register ``torch.ops.fastltc.*`` by loading ``_C`` once; return its path.

    Where torch is built with CUDA and this installation has the kernels for it, ``_C_cuda`` is
    loaded too. An ImportError says why ``_C`` cannot be loaded and what to do.
    """
    path = _load_into_torch("_C")
    load_cuda_operators()
    return path


@functools.cache
def load_cuda_operators() -> tuple[str | None, str]:
    """Load the CUDA kernels of the operators, once, after ``_C`` is loaded.

    Their absence is no error before a CUDA tensor comes. Returns the path of ``_C_cuda`` and an
    empty text, or None and why there are no CUDA kernels.
    """
    import torch

    if torch.version.cuda is None:
        return None, f"torch {torch.__version__} is built without CUDA"
    try:
        return _load_into_torch("_C_cuda"), ""
    except ImportError as error:
        return None, str(error)


@functools.cache
def load_runtime() -> ModuleType:
    """Import ``fastltc._runtime``, which needs no torch, or raise ImportError with what to do."""
    path = library_path("_runtime")
    try:
        return importlib.import_module("fastltc._runtime")
    except ImportError as error:
        raise ImportError(f"fastltc._runtime: cannot load {path}: {error}. {_REMEDY}") from error
