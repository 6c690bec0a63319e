"""Class probabilities of a trained model."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..data import normalise
from .errors import DeviceError, DivergedError

_CHUNK = 512


@torch.no_grad()
def probabilities(
    model: nn.Module, images: NDArray[np.generic], device: torch.device
) -> NDArray[np.float64]:
    """The softmax of the model's logits, in eval mode.

    Args:
        model: maps normalised images to logits.
        images: ``[n, C, H, W]``, float32 in ``[0, 1]`` or uint8.
        device: where the model is.

    Returns:
        ``[n, classes]``, float64; each row sums to 1.

    Raises:
        DivergedError: an output is infinite or NaN.
        DeviceError: the model cannot run on the device.
    """
    model.eval()
    chunks = []
    try:
        for start in range(0, len(images), _CHUNK):
            chunk = torch.from_numpy(normalise(images[start : start + _CHUNK]))
            chunks.append(model(chunk.to(device)).double().cpu())
    # A liquid layer without kernels for that device says so and what to do.
    except NotImplementedError as error:
        raise DeviceError(f"device: {str(device)!r} cannot be used here: {error}") from None
    logits = torch.cat(chunks)
    if not logits.isfinite().all():
        raise DivergedError(
            "the model's output is infinite or NaN: training has diverged; train with a smaller "
            "learning rate"
        )
    return cast("NDArray[np.float64]", logits.softmax(dim=1).numpy())
