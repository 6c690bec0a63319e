"""A linear probe: how much of the classes can be read off an embedding by a plane."""

from __future__ import annotations

import math
import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..options import ABOVE_0, one_of
from .parts import Standardise, check_classes
from .reservoir import Batches

PROBES = ("logistic", "svm")


class Probe(nn.Module):
    """Scaled logistic regression or linear support-vector machine, by scikit-learn.

    On vectors as they come (embeddings from a file), on the pixels of images, or on the features
    of a frozen backbone. It is kept as a linear map, so the checkpoint holds tensors only.

    Args:
        input_shape: ``(I,)``, or ``(C, H, W)`` of images.
        classes: number of classes.
        probe: ``"logistic"`` or ``"svm"``. The SVM's scores are distances to its plane, not
            probabilities; they rank, and their soft-max is not calibrated.
        c: inverse strength of the penalty.
        backbone: name of a torchvision model whose features are the vectors; None for none.
        pretrained: whether the backbone has torchvision's pretrained weights.

    Returns:
        ``forward(inputs)``: logits ``[B, classes]``.

    Raises:
        ValueError: an unknown name, a number that does not fit, or ``pretrained`` without a
            backbone.
    """

    KINDS = ("vectors", "images")
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        probe: str = "logistic",
        c: float = 1.0,
        backbone: str | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        check_classes(classes)
        one_of(PROBES).check("probe", probe)
        ABOVE_0.check("c", c)
        if pretrained and backbone is None:
            raise ValueError("pretrained: a probe without a backbone has no weights to start from")
        self.probe = probe
        self.c = c
        features = math.prod(input_shape)
        self.backbone: nn.Module | None = None
        if backbone is not None:
            from .backbones import Backbone

            if len(input_shape) != 3:
                raise ValueError("backbone: expected images, got vectors")
            self.backbone = Backbone(input_shape, classes, name=backbone, pretrained=pretrained)
            features = self.backbone.requires_grad_(False).features
        self.scale = Standardise(features)
        self.register_buffer("weight", torch.zeros(classes, features))
        self.register_buffer("bias", torch.zeros(classes))
        on = f" on {backbone}" if backbone else ""
        kind = "logistic regression" if probe == "logistic" else "linear SVM"
        self.about = f"{kind}{on}, {(features + 1) * (classes if classes > 2 else 1):,} weights"

    def embed(self, inputs: Tensor) -> Tensor:
        """The vectors that the plane divides, ``[B, features]``."""
        if self.backbone is not None:
            self.backbone.eval()
            embed: Any = self.backbone.embed
            return cast(Tensor, embed(inputs))
        return inputs.flatten(1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits ``[B, classes]`` of inputs ``[B, ...]``."""
        return nn.functional.linear(self.scale(self.embed(inputs)), self.weight, self.bias)

    @torch.no_grad()
    def fit(self, train: Batches, val: Batches) -> dict[str, float]:
        """Fits scale and plane to the training split; the validation split is not used.

        Returns:
            ``iterations`` of the solver.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import LinearSVC

        pairs = [(self.embed(inputs).cpu(), labels.cpu()) for inputs, labels in train()]
        vectors = torch.cat([vector for vector, _ in pairs])
        labels = torch.cat([label for _, label in pairs]).numpy()
        self.scale.fit(vectors.to(self.weight.device))
        scaled = self.scale(vectors.to(self.weight.device)).double().cpu().numpy()
        solver = (
            LogisticRegression(C=self.c, max_iter=1000)
            if self.probe == "logistic"
            else LinearSVC(C=self.c, max_iter=10_000, dual="auto", random_state=0)
        )
        with warnings.catch_warnings():
            # Separable embeddings never converge to the last digit; `iterations` tells.
            warnings.simplefilter("ignore", ConvergenceWarning)
            solver.fit(scaled, labels)
        weight, bias = torch.from_numpy(solver.coef_), torch.from_numpy(solver.intercept_)
        if len(weight) == 1:  # two classes: one plane, whose side is the second class
            weight = torch.cat([torch.zeros_like(weight), weight])
            bias = torch.cat([torch.zeros_like(bias), bias])
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        return {"iterations": float(max(torch.as_tensor(solver.n_iter_).flatten().tolist()))}
