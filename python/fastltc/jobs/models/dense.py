"""A dense network: the baseline that a liquid one is compared with."""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn

from .parts import check_classes


class Dense(nn.Module):
    """``inputs - 1024 - 128 - classes`` with ReLU between: 935,298 parameters for 28x28 and two.

    Args:
        input_shape: of an image ``(C, H, W)`` or a vector ``(I,)``.
        classes: number of classes.

    Returns:
        ``forward(inputs)``: logits ``[B, classes]``.

    Example:
        >>> import torch
        >>> Dense((1, 28, 28), 2)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 2])
    """

    KINDS = ("images", "vectors")

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        check_classes(classes)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(input_shape), 1024),
            nn.ReLU(),
            nn.Linear(1024, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )
        self.about = "three dense layers"

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits ``[B, classes]`` of inputs ``[B, ...]``."""
        return cast(Tensor, self.layers(inputs))
