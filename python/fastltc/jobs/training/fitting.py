"""How the parameters of a model are found: by gradients, or in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import CLASS_WEIGHTS
from ..errors import ConfigError, DivergedError
from ..evaluation.feed import Feed
from ..evaluation.value_objective import ValueObjective
from ..models import Ensemble
from .objective import Objective
from .schedule import Schedule, parameter_groups
from .task import Task

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "nadam": torch.optim.NAdam}
_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}

# Called with the number of examples of a batch that is done.
Seen = Callable[[int], None]


class Gradients:
    """The loss by an optimizer, in batches of an order that is drawn anew each epoch."""

    fitted: dict[str, float] | None = None

    def __init__(self, task: Task, order: torch.Generator, path: Path) -> None:
        self.task = task
        self.order = order
        self.path = path
        config = task.config
        assert config.lr is not None
        self.epochs = config.epochs
        # One pass over all parameters; the models are small, and a call for each takes longer than
        # its arithmetic. NAdam has none.
        fused = {} if config.optimizer == "nadam" else {"fused": True}
        self.optimizer: torch.optim.Optimizer = _OPTIMIZERS[config.optimizer](
            parameter_groups(task.model, config),
            lr=config.lr,
            weight_decay=config.weight_decay,
            **fused,
        )
        feed = task.feeds["train"]
        self.durations = _durations(feed) if config.rising else torch.zeros(len(feed))
        self.schedule = Schedule(config, self.optimizer, -(-len(feed) // config.batch_size))
        self.scaler = torch.amp.GradScaler(task.device.type, enabled=config.amp == "fp16")
        self.objective: Objective | ValueObjective
        if task.data.targets:
            answers: Any = task.model.answers
            self.objective = ValueObjective.of(config, answers.unit)
        else:
            self.objective = Objective(
                feed.sample().labels if config.class_weights != "none" else feed.labels,
                len(task.data.classes),
                multilabel=task.data.multilabel,
                balance=CLASS_WEIGHTS[config.class_weights],
                smoothing=config.label_smoothing,
            )

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on from here."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from a `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])

    def after_epoch(self, val_loss: float) -> None:
        """Tells the schedule what came of an epoch."""
        self.schedule.after_epoch(val_loss)

    def epoch(self, number: int, seen: Seen) -> tuple[float, float]:
        """One pass over the training split; the mean loss and accuracy on the way.

        Raises:
            DivergedError: the loss became infinite or NaN.
        """
        config, group = self.task.config, self.task.group
        self.task.model.train()
        group.seed(config.seed, number)
        loss_sum, correct, count = 0.0, 0.0, 0
        # Drawn on the CPU on every device, so that the order of the examples is the same.
        order = torch.randperm(len(self.task.feeds["train"]), generator=self.order)
        all_of_them = len(order)
        if number <= config.rising:
            order = order[(self.durations <= self._longest(number))[order]]
        batches = order.split(config.batch_size)
        for batch in batches:
            self.schedule.before_step(len(batches))
            value, right, rows = self.step(batch)
            if not math.isfinite(value):
                raise DivergedError(
                    f"{self.path}: the loss became {value} in epoch {number}; try a smaller "
                    f"learning rate than {self.schedule.lr:g}"
                )
            loss_sum += value * rows
            correct += right
            count += rows
            seen(len(batch))
        if len(order) < all_of_them:
            seen(all_of_them - len(order))
        return loss_sum / max(count, 1), correct / max(count, 1)

    def _longest(self, number: int) -> float:
        """The elapsed time that a sequence of an epoch has at most: a quarter of all, then more."""
        share = min(0.25 + 0.75 * (number - 1) / self.task.config.rising, 1.0)
        # Of short ones only, those that are there.
        return max(share * float(self.durations.max()), float(self.durations.min()))

    def step(self, batch: Tensor) -> tuple[float, float, int]:
        """One step of the optimizer: the batch's mean loss, right answers and judged rows."""
        config, device, group = self.task.config, self.task.device, self.task.group
        model, feed = self.task.model, self.task.feeds["train"]
        batch = batch.to(device)
        total = self.objective.divisor(feed.labels[batch])
        self.optimizer.zero_grad()
        loss_sum = torch.zeros((), device=device)
        right = torch.zeros((), dtype=torch.float64, device=device)
        # No more parts than any process has examples for; a process without some takes part in the
        # sums all the same.
        largest = -(-len(batch) // group.size)
        for part in group.share(batch).tensor_split(min(config.accumulate, largest)):
            inputs, labels = feed.take(part, self.task.augment), feed.labels[part]
            if feed.lengths is not None:
                inputs, labels = _trimmed(inputs, labels, per_step=self.task.data.per_step)
            with torch.autocast(device.type, _AMP.get(config.amp), enabled=config.amp != "none"):
                logits = model.each(*inputs) if isinstance(model, Ensemble) else [model(*inputs)]
            # Each member of an ensemble has a loss of its own; a single model is an only member.
            loss = torch.stack([self.objective.loss(own, labels) for own in logits]).sum() / total
            self.scaler.scale(loss).backward()
            loss_sum += loss.detach() / len(logits)
            right += self.objective.right(torch.stack(logits).detach().mean(dim=0), labels)
        loss_value, right_count = group.sums(loss_sum, right)
        if math.isfinite(loss_value):
            group.sum_gradients(model)
            if config.clip_norm is not None:
                self.scaler.unscale_(self.optimizer)
                # Of an ensemble each by itself, as if it were alone.
                for member in model.members if isinstance(model, Ensemble) else [model]:
                    nn.utils.clip_grad_norm_(member.parameters(), config.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss_value, right_count, self.objective.count(feed.labels[batch])


def _trimmed(
    inputs: tuple[Any, ...], labels: Tensor, *, per_step: bool
) -> tuple[tuple[Any, ...], Tensor]:
    """A batch of sequences without the rows that are padding in all of them."""
    rows, timespans, lengths, *beside = inputs
    longest = max(int(lengths.max()), 1) if len(lengths) else 1
    timespans = None if timespans is None else timespans[:, :longest]
    if beside and beside[0] is not None:
        beside[0] = beside[0][:, :longest]
    return (rows[:, :longest], timespans, lengths, *beside), (
        labels[:, :longest] if per_step else labels
    )


def _durations(feed: Feed) -> Tensor:
    """The elapsed time of each sequence, in units of the data set, or its rows; on the CPU.

    Raises:
        ConfigError: there are no sequences, or all are as long.
    """
    found = []
    for (inputs, *beside), _ in feed.chunks():
        if inputs.ndim != 3:
            break
        timespans, lengths, *_ = (*beside, None, None)
        spans = inputs.new_ones(inputs.shape[:2]) if timespans is None else timespans
        if lengths is not None:
            steps = torch.arange(spans.shape[1], device=spans.device)
            spans = torch.where(steps < lengths.unsqueeze(1), spans, 0)
        found.append(spans.sum(dim=1).cpu())
    durations = torch.cat(found) if found else torch.zeros(1)
    if durations.min() == durations.max():
        raise ConfigError(
            "rising: expected sequences of different lengths, got "
            + ("sequences that are all as long" if found else "no sequences")
        )
    return durations


class ClosedForm:
    """A model that is fitted at once, which counts as one epoch."""

    epochs = 1
    rate = 0.0

    def __init__(self, task: Task, judge: Callable[[str], dict[str, Any]]) -> None:
        self.task = task
        self.judge = judge
        # What the model chose.
        self.fitted: dict[str, float] | None = None

    def state(self) -> dict[str, Any]:
        """Nothing: what was fitted is in the model."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Takes up what the model chose."""
        self.fitted = state.get("fitted")

    def after_epoch(self, val_loss: float) -> None:
        """Nothing is to come."""

    def epoch(self, number: int, seen: Seen) -> tuple[float, float]:
        """Fits the model; its loss and accuracy on the training split.

        Raises:
            ConfigError: it cannot be fitted with these options.
        """

        def batches(name: str) -> Iterator[tuple[Tensor, Tensor]]:
            for inputs, labels in self.task.feeds[name].chunks():
                yield inputs[0], labels
                if name == "train":
                    seen(len(labels))

        fit: Any = self.task.model.fit
        try:
            self.fitted = fit(lambda: batches("train"), lambda: batches("val"))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        train = self.judge("train")
        return train["loss"], train["accuracy"]
