"""Outputs of a trained model, and the probabilities of classes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data import IGNORED, Split
from ..errors import DeviceError, DivergedError
from ..run import Checkpoint
from .feed import Feed


@torch.no_grad()
def outputs(model: nn.Module, feed: Feed) -> Tensor:
    """The model's logits, or values, in eval mode: float64, on the CPU.

    Where the feed asks for it, logits are the mean over an image and its mirror image.

    Args:
        model: maps inputs to logits or values.
        feed: the examples, on the device of the model.

    Raises:
        DivergedError: an output is infinite or NaN.
        DeviceError: the model cannot run on the device.
    """
    model.eval()
    chunks = []
    try:
        for inputs, _ in feed.chunks():
            logits = model(*inputs)
            if feed.mirror:
                logits = (logits + model(inputs[0].flip(-1), *inputs[1:])) / 2
            chunks.append(logits.double().cpu())
    # A liquid layer without kernels for that device says so and what to do.
    except NotImplementedError as error:
        device = str(feed.device)
        raise DeviceError(f"device: {device!r} cannot be used here: {error}") from None
    logits = torch.cat(chunks)
    if not logits.isfinite().all():
        raise DivergedError(
            "the model's output is infinite or NaN: training has diverged; train with a smaller "
            "learning rate"
        )
    return logits


def probabilities(model: nn.Module, feed: Feed, *, multilabel: bool = False) -> NDArray[np.float64]:
    """The softmax of the model's logits (of labels: the sigmoid of each); see `outputs`.

    Args:
        model: maps inputs to logits.
        feed: the examples, on the device of the model.
        multilabel: each example may have several labels.

    Returns:
        ``[n, classes]``, or for every row of time series ``[n, T, classes]``, float64; the last
        axis sums to 1 but for several labels.
    """
    logits = outputs(model, feed)
    scores = logits.sigmoid() if multilabel else logits.softmax(dim=-1)
    return cast("NDArray[np.float64]", scores.numpy())


def judged(
    labels: NDArray[np.int64], scores: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels ``[m]`` and scores ``[m, classes]`` of what is judged: each image, or each row.

    Args:
        labels: ``[n]``, ``[n, T]``, where -1 is not judged, or ``[n, classes]`` of several labels.
        scores: of `probabilities`.
    """
    if scores.ndim == 2 and labels.ndim == 2:
        return labels, scores
    flat = labels.reshape(-1)
    kept = flat != IGNORED
    return flat[kept], scores.reshape(len(flat), -1)[kept]


def feed_of(checkpoint: Checkpoint, split: Split) -> Feed:
    """Examples as the model of a checkpoint takes them, where it is."""
    model, config = checkpoint.model, checkpoint.config
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    return Feed(split, device, config.augment_crop, mirror=config.mirror)


def scores_of(checkpoint: Checkpoint, split: Split) -> NDArray[np.float64]:
    """`probabilities` of the model of a checkpoint on examples."""
    feed = feed_of(checkpoint, split)
    return probabilities(checkpoint.model, feed, multilabel=checkpoint.multilabel)


def named(row: NDArray[Any], classes: Sequence[str], *, multilabel: bool = True) -> str:
    """The most probable class; of several labels those of a probability of 0.5 and more."""
    if not multilabel:
        return classes[int(row.argmax())]
    return "; ".join(name for name, value in zip(classes, row, strict=True) if value >= 0.5)
