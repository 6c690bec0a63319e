"""What ``torch.onnx.export`` gets in the place of operators that it does not know.

With ``fastltc.onnx_translations()`` it is told what to write for them. A script of ncps does not
tell it, and gets what it got from ncps: plain PyTorch, step by step.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_WAY = (
    "torch.onnx.export(model, arguments, dynamic_shapes=..., "
    "custom_translation_table=fastltc.onnx_translations())"
)
_translations: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()


def expect_translations(translation: Callable[..., Any]) -> None:
    """Leave the operators where they are as long as somebody holds this translation of one."""
    _translations.add(translation)


def writes_steps(x: Tensor) -> bool:
    """Whether a traced call is to be one of plain PyTorch, whose steps an exporter writes.

    A NotImplementedError is raised where the exporter is the older one, by ``torch.jit.trace``.
    """
    if not torch.onnx.is_in_onnx_export():
        return False
    if torch._C._get_tracing_state() is not None:
        raise NotImplementedError(f"ONNX with dynamo=False is not supported: use {_WAY}")
    return not _translations and isinstance(x.shape[1], int)


def check_translations() -> None:
    """Raise NotImplementedError where an exporter has no translation of an operator."""
    if not _translations and torch.onnx.is_in_onnx_export():
        raise NotImplementedError(
            f"ONNX with any number of time steps, or of an exported program, needs {_WAY}"
        )
