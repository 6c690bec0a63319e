"""Sequences of several lengths in one batch: the rows that count."""

from __future__ import annotations

import torch
from torch import Tensor


def last_rows(rows: Tensor, lengths: Tensor | None) -> Tensor:
    """The last row of each sequence ``[B, T, .]``."""
    if lengths is None:
        return rows[:, -1]
    return rows[torch.arange(len(rows), device=rows.device), (lengths - 1).clamp(min=0)]


def valid_values(inputs: Tensor, lengths: Tensor | None, measured: Tensor | None) -> Tensor | None:
    """Which values of rows ``[n, T, I]`` count; None for all."""
    if lengths is None:
        return measured
    within = inside(inputs, lengths)
    return within if measured is None else measured & within


def mean_over_rows(rows: Tensor, lengths: Tensor | None) -> Tensor:
    """The mean over the rows of each sequence ``[B, T, .]``."""
    if lengths is None:
        return rows.mean(dim=1)
    within = torch.where(inside(rows, lengths), rows, 0)
    return within.sum(dim=1) / lengths.clamp(min=1).unsqueeze(1)


def inside(rows: Tensor, lengths: Tensor) -> Tensor:
    """Which values of rows ``[n, T, I]`` are no padding."""
    steps = torch.arange(rows.shape[1], device=rows.device)
    return (steps < lengths.unsqueeze(1)).unsqueeze(-1).expand(rows.shape)
