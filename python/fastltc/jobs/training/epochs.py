"""The epochs of a training: what each brought, and which was the best; nothing is written here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..evaluation.judge import is_better, judge_of
from .fitting import ClosedForm, Gradients
from .task import Task


class Epochs:
    """A model that is trained epoch by epoch.

    Args:
        task: what is trained on what; without a validation split each epoch is the best so far.
        path: what errors call the training.
    """

    def __init__(self, task: Task, path: Path) -> None:
        self.task = task
        self.order = torch.Generator().manual_seed(task.config.seed)
        self.judge = judge_of(task.data, task.config, task.positive, task.model)
        self.fitting: ClosedForm | Gradients = (
            ClosedForm(task, self.metrics)
            if hasattr(task.model, "fit")
            else Gradients(task, self.order, path)
        )
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    @property
    def left(self) -> range:
        """The numbers of the epochs to come."""
        return range(len(self.history) + 1, self.fitting.epochs + 1)

    @property
    def is_stale(self) -> bool:
        """Whether the best epoch is too long ago."""
        patience = self.task.config.patience
        if patience is None or self.best is None:
            return False
        return len(self.history) - int(self.best["epoch"]) >= patience

    def run(
        self, number: int, seen: Callable[[int], None]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Trains one epoch; what it tells, for `add`, and of the validation split alone."""
        started = time.perf_counter()
        loss, accuracy = self.fitting.epoch(number, seen)
        val = self.metrics("val") if "val" in self.task.feeds else {}
        logged = {name: val.get(name) for name in self.judge.logged}
        record = {
            "epoch": number,
            "train_loss": loss,
            **({} if self.task.data.targets else {"train_accuracy": accuracy}),
            **{f"val_{name}": value for name, value in logged.items()},
            "lr": self.fitting.rate,
            "seconds": time.perf_counter() - started,
        }
        self.fitting.after_epoch(val.get("loss", loss))
        return record, val

    def add(self, record: dict[str, Any], val: dict[str, Any]) -> bool:
        """Takes an epoch into the history; whether it is the best so far."""
        self.history.append(record)
        improved = self.is_best(val)
        if improved:
            logged = {name: val.get(name) for name in self.judge.logged}
            self.best = {"epoch": record["epoch"], **logged}
        return improved

    def is_best(self, val: dict[str, Any]) -> bool:
        """Whether ``select`` improved."""
        name = self.task.config.select
        return not val or self.best is None or name == "last" or is_better(name, val, self.best)

    def metrics(self, name: str) -> dict[str, Any]:
        """The metrics of the model on a split."""
        scores = self.judge.scores(self.task.model, self.task.feeds[name])
        return self.judge.metrics(np.asarray(self.task.data.splits[name].labels), scores)

    def state(self) -> dict[str, Any]:
        """All that decides how training goes on, but for the weights."""
        return {
            "order": self.order.get_state(),
            "random": torch.get_rng_state(),
            "history": self.history,
            "best": self.best,
            "fitted": self.fitting.fitted,
            **self.fitting.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from a `state`.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: it is not such a state.
        """
        self.fitting.load(state)
        self.order.set_state(state["order"])
        torch.set_rng_state(state["random"])
        history, best = state["history"], state["best"]
        self._check(history, best)
        self.history, self.best = history, best

    def _check(self, history: Any, best: Any) -> None:
        """Makes sure that what a state says of its epochs can be logged, drawn and compared."""
        records = [(record["epoch"], record) for record in history]
        if [epoch for epoch, _ in records] != list(range(1, len(records) + 1)):
            raise ValueError("history: expected the epochs from 1 on")
        names = ("train_loss", "lr", "seconds", *(f"val_{name}" for name in self.judge.logged))
        names += () if self.task.data.targets else ("train_accuracy",)
        of_best = [] if best is None else [(best["epoch"], best)]
        for known, checked in ((names, records), (self.judge.logged, of_best)):
            for epoch, record in checked:
                if type(epoch) is not int or not 1 <= epoch <= len(records):
                    raise ValueError(f"epoch: expected one of {len(records)}, got {epoch!r}")
                for name in known:
                    if not isinstance(record[name], float | int | None):
                        raise TypeError(f"{name}: expected a number, got {record[name]!r:.60}")
