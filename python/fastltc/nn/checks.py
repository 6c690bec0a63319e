"""Why a module refused an input or a state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, strided

from fastltc.ops.sequence import HALF_DTYPES


def check_dense(name: str, tensor: Tensor) -> None:
    """Raise TypeError if a tensor is nested, sparse or of a library's own layout.

    The text says how to make it dense.
    """
    if tensor.layout is strided and not tensor.is_nested:
        return
    if tensor.is_nested:
        kind, way = "a nested one", f"torch.nested.to_padded_tensor({name}, 0.0) and lengths"
    else:
        kind, way = f"one of the layout {tensor.layout}", f"{name}.to_dense()"
    raise TypeError(f"{name}: expected a dense tensor, got {kind}; give {way}")


def check_state(name: str, state: Any, shape: tuple[int, ...], inputs: Tensor) -> Tensor:
    """Return a state that fits the input, or raise what is wrong with it.

    Nothing is broadcast to the shape. Half types fit float32 inputs.
    """
    if not isinstance(state, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(state).__name__}")
    if state.layout is not strided:
        check_dense(name, state)
    if state.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(state.shape)}")
    if state.device != inputs.device:
        raise TypeError(
            f"{name}: expected a tensor on {inputs.device}, where the input is, got one on "
            f"{state.device}"
        )
    dtype = inputs.dtype
    if state.dtype == dtype:
        return state
    if state.dtype in HALF_DTYPES and dtype == torch.float32:
        return state.float()
    if dtype in HALF_DTYPES and state.dtype in (torch.float32, *HALF_DTYPES):
        return state
    raise TypeError(f"{name}: expected {dtype}, the dtype of the input, got {state.dtype}")


def check_input_kind(inputs: Tensor, weight: Tensor) -> None:
    """Raise TypeError if inputs do not fit the parameters; half types and float32 mix."""
    if inputs.device != weight.device:
        raise TypeError(
            f"input: expected a tensor on {weight.device}, where the parameters are, got one on "
            f"{inputs.device}"
        )
    if not (
        inputs.dtype in (torch.float32, *HALF_DTYPES)
        and weight.dtype in (torch.float32, *HALF_DTYPES)
    ):
        raise TypeError(
            f"input: expected {weight.dtype}, the dtype of the parameters, got {inputs.dtype}"
        )
