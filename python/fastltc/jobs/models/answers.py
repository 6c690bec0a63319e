"""From what a readout gives to values in the units of the targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .parts import mean_and_deviation


class Answers(nn.Module):
    """``base + mean + deviation * readout`` for every target, with scales of the training split.

    The scales are part of the state dict, so a checkpoint answers in the units of its data.

    Args:
        targets: K.
        difference: answers are told as the difference to the value before; ``base`` is 0 else.

    Attributes:
        mean, deviation: ``[K]``, of the training targets, or of their differences.
        unit: ``[K]``, deviation of the training targets, in which errors are counted by the loss.
        naive: ``[K]``, mean absolute difference of one measured value to the next in the training
            rows, which MASE divides by; NaN where the rows do not tell.
    """

    mean: Tensor
    deviation: Tensor
    unit: Tensor
    naive: Tensor

    def __init__(self, targets: int, *, difference: bool = False) -> None:
        super().__init__()
        self.difference = difference
        self.register_buffer("mean", torch.zeros(targets))
        for name in ("deviation", "unit"):
            self.register_buffer(name, torch.ones(targets))
        self.register_buffer("naive", torch.full((targets,), torch.nan))

    def fit(self, labels: Tensor, base: Tensor | None = None) -> None:
        """Takes the scales of training targets ``[..., K]``, of which NaN are left out.

        Args:
            labels: the targets.
            base: of the same shape, what their differences are to; None for 0.
        """
        _, self.unit[:] = mean_and_deviation(labels)
        self.mean[:], self.deviation[:] = mean_and_deviation(
            labels if base is None else labels - base
        )

    def fit_naive(
        self, labels: Tensor, rows: Tensor, own: Sequence[int], valid: Tensor | None
    ) -> None:
        """Takes the mean step of the targets from training rows, or of labels of every row.

        Args:
            labels: the targets.
            rows: ``[n, T, I]``.
            own: places of the targets among the features, or -1.
            valid: which values count; None for all.
        """
        places = list(own)
        if -1 not in places:
            within = None if valid is None else valid[..., places]
            self.naive[:] = _mean_step(rows[..., places], within)
        elif labels.ndim == 3:
            self.naive[:] = _mean_step(labels)

    def forward(self, readout: Tensor, base: Tensor | None = None) -> Tensor:
        """Return the values of ``readout`` ``[..., K, Q]``, to ``base`` ``[..., K]``."""
        values = self.mean.unsqueeze(-1) + self.deviation.unsqueeze(-1) * readout
        return values if base is None else values + base.unsqueeze(-1)


def _mean_step(values: Tensor, measured: Tensor | None = None) -> Tensor:
    """The mean absolute difference of one row to the next: ``[n, T, K]`` to ``[K]``.

    Args:
        values: NaN where there is none.
        measured: where values count; None for all.
    """
    if measured is not None:
        values = torch.where(measured, values, torch.nan)
    steps = values.double().diff(dim=1).abs()
    return steps.reshape(-1, values.shape[-1]).nanmean(dim=0).float()
