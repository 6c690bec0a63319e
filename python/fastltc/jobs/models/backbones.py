"""Convolutional backbones of torchvision, alone or with a liquid head."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..options import one_of
from .parts import CELLS, WIRING_SEED, check_classes, liquid_layer, make_wiring

NAMES = ("resnet18", "resnext50_32x4d", "efficientnet_v2_s")
HEADS = ("linear", *CELLS)

# Of the images that torchvision's pretrained weights have seen.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_DROPOUT = 0.2


class MissingTorchvisionError(RuntimeError):
    """torchvision is not installed, or does not work with the torch that is."""


def _torchvision() -> Any:
    try:
        import torchvision.models
    except ImportError as error:
        raise MissingTorchvisionError(
            f"torchvision is needed for {', '.join(NAMES)} and cannot be imported ({error}): "
            "pip install 'fastltc[vision]'"
        ) from None
    # A build for another torch fails on its operators.
    except RuntimeError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise MissingTorchvisionError(
            f"torchvision is installed and does not work with torch {torch.__version__} "
            f"({reason}): install the torchvision that is made for it"
        ) from None
    return torchvision.models


class Backbone(nn.Module):
    """A torchvision classifier with a new last layer, or a liquid layer in its place.

    With ``head="linear"`` the pooled features go through one linear layer (Xavier; behind dropout
    and SELU for EfficientNet); two classes have one logit z, returned as ``(0, z)``, so that
    cross-entropy is the binary one. With ``head="ltc"`` or ``"cfc"`` the places of the last
    feature map are the steps of a sequence, from the upper left, that an NCP reads.

    Args:
        input_shape: ``(C, H, W)``; a grey image is given to all three channels.
        classes: number of classes.
        name: one of `NAMES`.
        pretrained: take torchvision's weights, which it downloads.
        head: one of `HEADS`.
        units: neurons of a liquid head; ``classes + 17`` by default.
        gain: factor on its motor neurons.
        wiring_seed: seed of its wiring.

    Returns:
        ``forward(images)``: images ``[B, C, H, W]`` in ``[-1, 1]``; logits ``[B, classes]``.

    Raises:
        MissingTorchvisionError: torchvision does not work here.
        ValueError: an unknown name, or sizes that do not fit.
    """

    KINDS = ("images",)
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        name: str = "resnet18",
        pretrained: bool = False,
        head: str = "linear",
        units: int | None = None,
        gain: float = 5.0,
        wiring_seed: int = WIRING_SEED,
    ) -> None:
        super().__init__()
        check_classes(classes)
        one_of(NAMES).check("backbone", name)
        one_of(HEADS).check("head", head)
        if min(input_shape[1:]) < 32:
            raise ValueError(
                f"image_size: {name} takes images from 32x32, got {input_shape[1]}x{input_shape[2]}"
            )
        models = _torchvision()
        self.net = models.get_model(name, weights="DEFAULT" if pretrained else None)
        self.residual = name.startswith("res")
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(3, 1, 1), persistent=False)
        last = self.net.fc if self.residual else self.net.classifier[1]
        self.features = last.in_features
        logits = 1 if classes == 2 else classes
        self.gain = float(gain)
        self.rnn: nn.Module | None = None
        if head == "linear":
            linear = nn.Linear(self.features, logits)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
            new: nn.Module = (
                linear if self.residual else nn.Sequential(nn.Dropout(_DROPOUT), nn.SELU(), linear)
            )
            self.about = "linear head"
        else:
            units = classes + 17 if units is None else units
            self.wiring = make_wiring("ncp", units, classes, 0.0, wiring_seed)
            self.rnn = liquid_layer(head, self.features, self.wiring, return_sequences=False)
            new = nn.Identity()
            self.about = f"{CELLS[head].__name__} head with {units} neurons"
        setattr(self.net, "fc" if self.residual else "classifier", new)

    def _maps(self, images: Tensor) -> Tensor:
        """The last feature map, ``[B, features, h, w]``."""
        x = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        x = ((x + 1) / 2 - self.mean) / self.deviation
        net = self.net
        if not self.residual:
            return cast(Tensor, net.features(x))
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        return cast(Tensor, net.layer4(net.layer3(net.layer2(net.layer1(x)))))

    def embed(self, images: Tensor) -> Tensor:
        """The pooled features, ``[B, features]``."""
        return self._maps(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, classes]`` of images ``[B, C, H, W]``."""
        if self.rnn is not None:
            output, _ = self.rnn(self._maps(images).flatten(2).transpose(1, 2))
            return cast(Tensor, self.gain * output)
        last = self.net.fc if self.residual else self.net.classifier
        logits = last(self.embed(images))
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return cast(Tensor, logits)
