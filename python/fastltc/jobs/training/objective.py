"""What training minimises: cross-entropy of one class, or of several labels at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data import IGNORED


class Objective:
    """The loss of a batch as a sum and what it is divided by, so that parts of a batch add up.

    Args:
        labels: of the training split: ``[n]``, ``[n, T]`` with -1 for rows that do not count, or
            with ``multilabel`` ``[n, classes]`` of 0 and 1.
        classes: number of classes.
        multilabel: each example has any number of classes; the loss is the mean of the binary
            cross-entropies.
        balance: power of the inverse frequency that weighs a class: 0 for none, 1 for classes
            that count alike (of several labels, for a label's positive examples to count as much
            as the others).
        smoothing: share of the target that goes to all classes alike (C. Szegedy et al.,
            "Rethinking the Inception architecture", 2016).
    """

    def __init__(
        self,
        labels: Tensor,
        classes: int,
        *,
        multilabel: bool = False,
        balance: float = 0.0,
        smoothing: float = 0.0,
    ) -> None:
        self.multilabel = multilabel
        self.smoothing = smoothing
        self.weights: Tensor | None = None
        if balance and multilabel:
            positive = labels.sum(dim=0)
            self.weights = ((len(labels) - positive) / positive.clamp(min=1)).float() ** balance
        elif balance:
            counts = torch.bincount(labels[labels != IGNORED], minlength=classes)
            self.weights = (counts.sum() / (classes * counts.clamp(min=1))).float() ** balance

    def divisor(self, labels: Tensor) -> Tensor:
        """What the sum of the losses of a batch is divided by."""
        if self.multilabel:
            return torch.tensor(float(max(labels.numel(), 1)), device=labels.device)
        kept = labels[labels != IGNORED]
        if self.weights is None:
            return torch.tensor(float(max(len(kept), 1)), device=labels.device)
        return self.weights[kept].sum().clamp(min=1e-12)

    def count(self, labels: Tensor) -> int:
        """How many answers a batch has: its images, or the rows that count."""
        return len(labels) if self.multilabel else int((labels != IGNORED).sum())

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of the losses."""
        logits = logits.float()
        if self.multilabel:
            return nn.functional.binary_cross_entropy_with_logits(
                logits,
                labels.float() * (1 - self.smoothing) + self.smoothing / 2,
                pos_weight=self.weights,
                reduction="sum",
            )
        flat = labels.reshape(-1)
        return nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            flat,
            weight=self.weights,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.smoothing,
        )

    def right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of right answers (of labels: their share of the classes)."""
        if self.multilabel:
            return ((logits > 0) == labels.bool()).double().mean(dim=1).sum()
        flat = labels.reshape(-1)
        return (logits.reshape(-1, logits.shape[-1]).argmax(dim=1) == flat).sum().double()
