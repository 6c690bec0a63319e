"""A convolutional head whose features a liquid layer reads as a sequence."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from ..options import one_of
from .parts import CELLS, WIRING_SEED, check_classes, liquid_layer, make_wiring

# (channels out, kernel, stride, padding) of the four convolutions. The first row is the published
# head for 28x28; at 8x8 its strides would leave less than the pooling window, so the second keeps
# the channels and shrinks once.
_HEAD_28 = ((16, 3, 1, 0), (32, 3, 2, 2), (64, 5, 2, 2), (128, 5, 2, 2))
_HEAD_8 = ((16, 3, 1, 1), (32, 3, 1, 1), (64, 3, 2, 1), (128, 3, 1, 1))
_SMALL = 16


class ConvNCP(nn.Module):
    """Classifies images by four convolutions and a liquid layer wired as a neural circuit policy.

    ``logits = gain * liquid(head(x) read as steps of 16)[last step]``, from a zero state, with
    ``head = conv1, relu, conv2, bn2, relu, conv3, relu, conv4, bn4, relu, max-pool 2``.
    For 28x28 as for 8x8 images the head gives 512 values, so 32 steps.

    A motor neuron's potential stays between its reversal potentials, about -1 and 1 at the start
    of training. With ``gain = 1``, as published, the softmax of two classes therefore stays within
    [0.12, 0.88], and of ten within [0.015, 0.45], until the output map has grown; the gain gives
    the cross-entropy a range it can work in from the first step on. The output map of an LTC is
    trained on top of it; a CfC has none, and its motor neurons stay within -1 and 1 for good. (No
    parameter is added: the state dict is that of the published model, and its weights load.)

    Args:
        image_shape: ``(C, H, W)``; H and W from 8 to 15 take the small head, from 16 on the
            published one.
        classes: number of classes, which is the number of motor neurons.
        units: neurons of the ``AutoNCP`` wiring, at least ``classes + 3``; ``classes + 17`` by
            default, as published for two classes.
        cell: ``"ltc"`` or ``"cfc"`` (as published).
        gain: constant factor on the motor neurons' outputs.
        wiring_seed: seed of the wiring (22222 is that of ncps).

    Returns:
        ``forward(images)``: images ``[B, C, H, W]``, float32, normalised to [-1, 1]; logits
        ``[B, classes]``.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> model = ConvNCP((1, 28, 28), classes=2, units=19)
        >>> model(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 2])

    Source: the head is that of a public BreastMNIST classifier with CfC (263,048 parameters with
    19 neurons and two classes); the wiring is M. Lechner et al., "Neural circuit policies enabling
    auditable autonomy", 2020.
    """

    KINDS = ("images",)
    STEP_FEATURES = 16

    def __init__(
        self,
        image_shape: tuple[int, ...],
        classes: int,
        units: int | None = None,
        *,
        cell: str = "ltc",
        gain: float = 1.0,
        wiring_seed: int = WIRING_SEED,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        one_of(CELLS).check("cell", cell)
        check_classes(classes)
        units = classes + 17 if units is None else units
        self.wiring = make_wiring("ncp", units, classes, 0.0, wiring_seed)
        if min(height, width) < 8:
            raise ValueError(f"image_shape: expected at least 8x8 pixels, got {height}x{width}")
        self.image_shape = (channels, height, width)
        self.gain = float(gain)
        self.about = f"{CELLS[cell].__name__} with {units} neurons"
        layers = _HEAD_8 if min(height, width) < _SMALL else _HEAD_28
        convolutions = []
        for out, kernel, stride, padding in layers:
            convolutions.append(nn.Conv2d(channels, out, kernel, stride, padding))
            channels = out
            height = (height + 2 * padding - kernel) // stride + 1
            width = (width + 2 * padding - kernel) // stride + 1
        self.conv1, self.conv2, self.conv3, self.conv4 = convolutions
        self.bn2 = nn.BatchNorm2d(self.conv2.out_channels)
        self.bn4 = nn.BatchNorm2d(self.conv4.out_channels)
        # 128 channels: always a multiple of the 16 values of a step.
        self.steps = channels * (height // 2) * (width // 2) // self.STEP_FEATURES
        self.rnn = liquid_layer(cell, self.STEP_FEATURES, self.wiring, return_sequences=False)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The sequence that the liquid layer reads, ``[B, steps, 16]``."""
        x = torch.relu(self.conv1(images))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.conv3(x))
        x = torch.relu(self.bn4(self.conv4(x)))
        x = torch.max_pool2d(x, 2)
        return x.reshape(len(images), self.steps, self.STEP_FEATURES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits ``[B, classes]`` of images ``[B, C, H, W]``."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            expected = ", ".join(str(size) for size in self.image_shape)
            raise ValueError(f"images: expected [B, {expected}], got {list(images.shape)}")
        output, _ = self.rnn(self.features(images))
        return cast(torch.Tensor, self.gain * output)
