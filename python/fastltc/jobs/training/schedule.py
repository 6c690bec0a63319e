"""The learning rate over the steps of a run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..errors import ConfigError

# Parameters of LTC with a learning rate of their own, see `TrainConfig`.
_FACTORS = ("erev", "sigma", "mu")


class Schedule:
    """Sets the rate before each step: warm-up, then constant, cosine, or less on a plateau.

    An epoch has ``steps`` of them.
    """

    def __init__(self, config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> None:
        assert config.lr is not None
        self.config = config
        self.lr = config.lr
        self.optimizer = optimizer
        self.steps = steps
        self.step_count = 0.0
        self.factor = 1.0
        self.least: float | None = None
        self.waited = 0

    def rate(self, step: float) -> float:
        """The learning rate of a step, counted from 0."""
        config = self.config
        warmup = config.warmup * self.steps
        if step < warmup:
            return self.lr * self.factor * (step + 1) / (math.ceil(warmup) + 1)
        if config.schedule != "cosine":
            return self.lr * self.factor
        rest = max(config.epochs * self.steps - warmup, 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min((step - warmup) / rest, 1.0)))

    def before_step(self, steps: int) -> None:
        """Sets the rate of the step that comes, one of so many in its epoch."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step_count) * group.get("factor", 1.0)
        self.step_count += self.steps / steps

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


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """The parameters that are trained, in groups with a factor on the learning rate.

    Frozen parameters, such as a wiring's mask, have nothing to learn.

    Raises:
        ConfigError: a factor is given for parameters that the model does not have.
    """
    factors = {name: getattr(config, f"lr_{name}") for name in _FACTORS}
    factors = {name: factor for name, factor in factors.items() if factor != 1}
    groups: dict[str, list[Tensor]] = {"": [], **{name: [] for name in factors}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            last = name.rpartition(".")[2].removeprefix("sensory_")
            groups[last if last in factors else ""].append(parameter)
    for name in factors:
        if not groups[name]:
            raise ConfigError(
                f"lr_{name}: the model {config.model} has no parameters {name}, which LTC "
                "has; leave the option out"
            )
    return [
        {"params": parameters, "factor": factors.get(name, 1.0)}
        for name, parameters in groups.items()
    ]
