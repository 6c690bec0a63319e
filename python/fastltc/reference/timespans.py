"""Time steps near the largest number."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bounded"]


def bounded(timespans: Tensor) -> Tensor:
    """Return time steps of at most the root of the largest number, which is the limit to rounding.

    Their products with what a layer computes stay finite.

    Args:
        timespans: any shape, floating point.

    Example:
        >>> import torch
        >>> bounded(torch.tensor([1.0, 3e38]))
        tensor([1.0000e+00, 1.8447e+19])
    """
    # float16 has no room above it, and is not squared.
    return timespans.clamp(max=max(65504.0, torch.finfo(timespans.dtype).max ** 0.5))
