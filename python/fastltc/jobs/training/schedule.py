"""The learning rate over the steps of a run."""

from __future__ import annotations

import math

import torch

from ..config import TrainConfig


class Schedule:
    """Sets the rate before each step: warm-up, then constant, cosine, or less on a plateau.

    An epoch has ``steps`` of them.
    """

    def __init__(self, config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self.config = config
        self.optimizer = optimizer
        self.steps = steps
        self.step_count = 0
        self.factor = 1.0
        self.least: float | None = None
        self.waited = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        config = self.config
        warmup = config.warmup * self.steps
        if step < warmup:
            return config.lr * self.factor * (step + 1) / (math.ceil(warmup) + 1)
        if config.schedule != "cosine":
            return config.lr * self.factor
        rest = max(config.epochs * self.steps - warmup, 1)
        return config.lr * 0.5 * (1 + math.cos(math.pi * min((step - warmup) / rest, 1.0)))

    def before_step(self) -> None:
        """Sets the rate of the step that comes."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step_count) * group.get("factor", 1.0)
        self.step_count += 1

    def after_epoch(self, loss: float) -> None:
        """Lowers the rate where the validation loss has not fallen for long enough."""
        if self.config.schedule != "plateau":
            return
        if self.least is None or loss < self.least:
            self.least, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited >= self.config.plateau_patience:
            self.factor *= self.config.plateau_factor
            self.waited = 0

    def state(self) -> dict[str, float | int | None]:
        """What `load` needs to go on from here."""
        return {name: getattr(self, name) for name in ("step_count", "factor", "least", "waited")}

    def load(self, state: dict[str, float | int | None]) -> None:
        """Goes on from a `state`."""
        for name in self.state():
            setattr(self, name, state[name])
