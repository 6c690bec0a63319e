"""The shapes in which resets may be given, brought into the one the operators take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from fastltc.nn.timespans import check_packed


def layer_resets(
    resets: Any, batch: int, time: int, batch_first: bool, batched: bool, device: torch.device
) -> Tensor:
    """Bring the resets of a layer, whose axes stand as in its input, into ``[B, T]``.

    Raises:
        TypeError: if they are no tensor, not bool, or on another device.
        ValueError: if the shape is another.
    """
    if not isinstance(resets, Tensor):
        raise TypeError(f"resets: expected a bool tensor, got {type(resets).__name__}")
    if resets.dtype != torch.bool:
        raise TypeError(f"resets: expected torch.bool, got {resets.dtype}")
    if resets.device != device:
        raise TypeError(
            f"resets: expected a tensor on {device}, where the input is, got one on {resets.device}"
        )
    shape = ((batch, time) if batch_first else (time, batch)) if batched else (time,)
    if resets.shape != shape:
        axes = ("[B, T]" if batch_first else "[T, B]") if batched else "[T]"
        raise ValueError(f"resets: expected shape {axes} = {list(shape)}, got {list(resets.shape)}")
    if not batched:
        return resets.unsqueeze(0)
    return resets if batch_first else resets.transpose(0, 1)


def check_packed_resets(resets: PackedSequence, packed: PackedSequence) -> None:
    """Raise ValueError if resets are not packed as the input is, one for each step."""
    if resets.data.dim() != 1:
        raise ValueError(
            f"resets: expected packed data of one axis, got shape {list(resets.data.shape)}"
        )
    check_packed("resets", resets, packed)
