"""What training minimises of values: their errors, in deviations of the target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import TrainConfig


class ValueObjective:
    """The loss of values, with the methods of `Objective`; NaN targets do not count.

    Errors are in deviations of the target, so that targets in several units count alike, and a
    learning rate is as good for one as for another: ``e = (answer - target) / unit``. With
    ``error_unit="common"`` the unit is the same for all targets, the square root of their mean
    variance, so that the mean of ``e**2`` goes with the mean squared error ::

        mse e**2    mae |e|    huber e**2 / 2 up to delta, then delta (|e| - delta / 2)
        pinball  the mean over the quantiles q of 2 max(q d, (q - 1) d), d = -e

    Twice the pinball loss, so that it is ``mae`` at the median.

    Args:
        unit: ``[K]``.
        loss: ``"mse"``, ``"mae"``, ``"huber"`` or ``"pinball"``.
        delta: of ``huber``, in deviations.
        quantiles: of ``pinball``; answers have one more axis for them.

    Source: R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46, 1978.
    """

    def __init__(
        self, unit: Tensor, loss: str, delta: float = 1.0, quantiles: tuple[float, ...] = ()
    ) -> None:
        self.unit = unit
        self.kind = loss
        self.delta = delta
        self.quantiles = quantiles

    @classmethod
    def of(cls, config: TrainConfig, unit: Tensor) -> ValueObjective:
        """That of a configuration."""
        kind = config.loss or ("pinball" if config.levels else "mse")
        if config.error_unit == "common":
            unit = unit.square().mean().sqrt().expand_as(unit)
        return cls(unit, kind, config.huber_delta, config.levels)

    def divisor(self, labels: Tensor) -> Tensor:
        """How many values there are, at least 1."""
        return (~labels.isnan()).sum().float().clamp(min=1)

    def count(self, labels: Tensor) -> int:
        """How many values a batch has."""
        return int((~labels.isnan()).sum())

    def loss(self, answers: Tensor, labels: Tensor) -> Tensor:
        """The sum of the losses."""
        answers = answers if answers.dtype == torch.float64 else answers.float()
        there = ~labels.isnan()
        target = torch.where(there, labels, 0)
        if self.kind == "pinball":
            share = answers.new_tensor(self.quantiles)
            below = (target.unsqueeze(-1) - answers) / self.unit.unsqueeze(-1)
            each = 2 * torch.maximum(share * below, (share - 1) * below).mean(dim=-1)
        else:
            error = (answers - target) / self.unit
            if self.kind == "mse":
                each = error.square()
            elif self.kind == "mae":
                each = error.abs()
            else:
                each = nn.functional.huber_loss(
                    error, torch.zeros_like(error), reduction="none", delta=self.delta
                )
        return torch.where(there, each, 0).sum()

    def right(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Nothing: a value is not right or wrong."""
        return torch.zeros((), dtype=torch.float64, device=labels.device)
