"""The memory cell of mixed memory, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def memory_cell(
    x: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Tensor, recurrent_weight: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Run one step of the LSTM cell that mixed memory puts before a liquid cell.

    ::

        a, i, f, o = chunk(x W^T + b + h R^T)
        c' = c sigmoid(f + 1) + tanh(a) sigmoid(i)
        v  = tanh(c') sigmoid(o)

    Args:
        x: inputs of the layer, ``[B, I]``, before its input map.
        h: state that the liquid cell left, ``[B, N]``.
        c: memory, ``[B, N]``.
        weight: W, ``[4 N, I]``.
        bias: b, ``[4 N]``.
        recurrent_weight: R, ``[4 N, N]``.

    Returns:
        ``(v, c')``: the state from which the liquid cell goes on and the new memory, each
        ``[B, N]``.

    Example:
        >>> import torch
        >>> from fastltc.reference import memory_cell
        >>> v, c = memory_cell(
        ...     torch.randn(2, 3), torch.zeros(2, 4), torch.zeros(2, 4),
        ...     torch.randn(16, 3), torch.zeros(16), torch.randn(16, 4))
        >>> v.shape, c.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))

    Source: Lechner and Hasani, Learning Long-Term Dependencies in Irregularly-Sampled Time Series,
    2020 (arXiv:2006.04418).
    """
    a, i, f, o = (F.linear(x, weight, bias) + F.linear(h, recurrent_weight)).chunk(4, 1)
    c = c * torch.sigmoid(f + 1) + torch.tanh(a) * torch.sigmoid(i)
    return torch.tanh(c) * torch.sigmoid(o), c
