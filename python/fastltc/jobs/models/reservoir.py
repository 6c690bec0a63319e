"""An echo-state reservoir that reads image rows, with a readout in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..options import ABOVE_0, ABOVE_0_TO_1, COUNT, FROM_0
from .parts import check_classes, rows_read

# Ridge strengths that are tried on the validation split, relative to the mean feature power.
RIDGES = tuple(10.0**power for power in range(-5, 0))

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


class Reservoir(nn.Module):
    """Classifies images by a fixed random recurrent net over their rows and a linear readout.

    ``x_t = (1 - leak) x_{t-1} + leak tanh(W_in u_t + b + W x_{t-1})``, from ``x_0 = 0``, where
    ``u_t`` is row t. W is scaled to a spectral radius, which decides how long the net remembers;
    the readout sees the states at ``reads`` evenly spaced rows, the last one among them. Nothing
    is trained by gradients: the readout solves a ridge regression on the one-hot classes, with
    the ridge and the temperature of the soft-max chosen on the validation split.

    Args:
        input_shape: ``(C, H, W)``.
        classes: number of classes.
        units: neurons, N.
        spectral_radius: largest absolute eigenvalue of W.
        leak: leak rate, above 0 up to 1.
        input_scale: standard deviation of ``W_in`` and ``b``.
        reads: states that the readout sees.

    Returns:
        ``forward(images)``: logits ``[B, classes]``.

    Raises:
        ValueError: a number that does not fit.

    Source: H. Jaeger, "The echo state approach to analysing and training recurrent neural
    networks", 2001; leaky neurons: Jaeger et al., Neural Networks 20, 2007.
    """

    KINDS = ("images",)
    w_in: Tensor
    bias: Tensor
    w: Tensor
    readout: Tensor
    temperature: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        units: int = 400,
        *,
        spectral_radius: float = 0.9,
        leak: float = 0.3,
        input_scale: float = 0.3,
        reads: int = 7,
    ) -> None:
        super().__init__()
        check_classes(classes)
        channels, height, width = input_shape
        COUNT.check("units", units)
        FROM_0.check("spectral_radius", spectral_radius)
        ABOVE_0_TO_1.check("leak", leak)
        ABOVE_0.check("input_scale", input_scale)
        self.leak = leak
        self.classes = classes
        self.rows_read = rows_read(reads, height)
        recurrent = torch.randn(units, units, dtype=torch.float64)
        largest = float(torch.linalg.eigvals(recurrent).abs().max())
        self.register_buffer("w", (recurrent * (spectral_radius / largest)).float())
        self.register_buffer("w_in", input_scale * torch.randn(units, channels * width))
        self.register_buffer("bias", input_scale * torch.randn(units))
        self.register_buffer("readout", torch.zeros(units * reads + 1, classes))
        self.register_buffer("temperature", torch.ones(()))
        self.about = (
            f"{units} neurons, spectral radius {spectral_radius:g}, leak rate {leak:g}, "
            f"{(units * reads + 1) * classes:,} readout weights in closed form"
        )

    def states(self, images: Tensor) -> Tensor:
        """The states that the readout sees and a constant, ``[B, units * reads + 1]``."""
        # From [-1, 1] back to [0, 1]: empty rows then drive nothing.
        rows = (images.movedim(1, 2).flatten(2) + 1) / 2
        drive = rows @ self.w_in.T + self.bias
        state = torch.zeros_like(drive[:, 0])
        read = []
        for row in range(drive.shape[1]):
            state = torch.lerp(state, torch.tanh(drive[:, row] + state @ self.w.T), self.leak)
            if row in self.rows_read:
                read.append(state)
        return torch.cat([*read, torch.ones_like(state[:, :1])], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, classes]`` of images ``[B, C, H, W]``."""
        return self.states(images) @ self.readout / self.temperature

    @torch.no_grad()
    def fit(self, train: Batches, val: Batches) -> dict[str, float]:
        """Solves for the readout.

        Args:
            train: called once; gives batches of images and labels.
            val: the same of the validation split.

        Returns:
            ``ridge`` and ``temperature`` that were chosen.
        """
        size = len(self.readout)
        # Sums over tens of thousands of images lose too much in float32.
        gram = torch.zeros(size, size, dtype=torch.float64)
        target = torch.zeros(size, self.classes, dtype=torch.float64)
        count = 0
        for images, labels in train():
            states = self.states(images)
            gram += (states.T @ states).cpu().double()
            hot = nn.functional.one_hot(labels, self.classes).to(states.dtype)
            target += (states.T @ hot).cpu().double()
            count += len(labels)
        seen = [(self.states(images).cpu(), labels.cpu()) for images, labels in val()]
        features = torch.cat([states for states, _ in seen]).double()
        labels = torch.cat([labels for _, labels in seen])
        power = float(gram.diagonal().mean())
        best: tuple[float, float, float] | None = None
        for ridge in RIDGES:
            damped = gram + ridge * power * torch.eye(size, dtype=torch.float64)
            factor, failed = torch.linalg.cholesky_ex(damped)
            if failed:
                continue
            weights = torch.cholesky_solve(target, factor)
            temperature, loss = _best_temperature(features @ weights, labels)
            if best is None or loss < best[0]:
                best = loss, ridge, temperature
                self.readout.copy_(weights)
        if best is None:
            raise ValueError("input_scale: the states are not finite or all the same")
        self.temperature.fill_(best[2])
        return {"ridge": best[1], "temperature": best[2]}


def _best_temperature(scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """The temperature of the least cross-entropy, and that loss."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(nn.functional.cross_entropy(scores / math.exp(log_temperature), labels))

    found = minimize_scalar(loss, bounds=(-7.0, 3.0), method="bounded")
    return math.exp(found.x), float(found.fun)
