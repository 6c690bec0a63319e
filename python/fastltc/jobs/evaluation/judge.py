"""What comes of a model on a split, and what that is worth: of classes, or of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..config import LESS_IS_BETTER, TrainConfig
from ..data import DataSet, Split
from ..defaults import RECALLS
from ..run import Checkpoint
from .feed import Feed
from .metrics import classification_metrics
from .probabilities import feed_of, judged, outputs, probabilities
from .value_objective import ValueObjective
from .values import value_metrics


@dataclass(frozen=True)
class ClassJudge:
    """Judges classes: see `classification_metrics`."""

    classes: tuple[str, ...]
    positive: int | None = None
    multilabel: bool = False
    ordered: bool = False

    @property
    def logged(self) -> tuple[str, ...]:
        """What log.jsonl and the best checkpoint keep of the metrics."""
        names = ("loss", "accuracy", "auc", "f1_macro", "f1", "average_precision")
        return (*names, "kappa") if self.ordered else names

    def scores(self, model: nn.Module, feed: Feed) -> NDArray[np.float64]:
        """The probabilities of the classes."""
        return probabilities(model, feed, multilabel=self.multilabel)

    def metrics(
        self, labels: NDArray[Any], scores: NDArray[np.float64], recalls: Sequence[float] = RECALLS
    ) -> dict[str, Any]:
        """The metrics of scores."""
        labels, scores = judged(labels, scores)
        return classification_metrics(
            labels, scores, self.classes, self.positive, recalls, ordered=self.ordered
        )


@dataclass(frozen=True)
class ValueJudge:
    """Judges values: see `value_metrics`; ``loss`` is that of training."""

    config: TrainConfig
    targets: tuple[str, ...]
    forecast: bool
    answers: Any
    """The model's `fastltc.jobs.models.answers.Answers`."""

    logged = ("loss", "mse", "mae", "r2", "mase", "pinball")

    def scores(self, model: nn.Module, feed: Feed) -> NDArray[np.float64]:
        """The values, quantiles in rising order."""
        found: NDArray[np.float64] = outputs(model, feed).numpy()
        return np.sort(found, axis=-1) if self.config.levels else found

    @property
    def naive(self) -> list[float]:
        """Of each target, the mean absolute difference of a training value to the one before."""
        return [float(value) for value in self.answers.naive]

    def metrics(
        self, labels: NDArray[Any], scores: NDArray[np.float64], recalls: Sequence[float] = ()
    ) -> dict[str, Any]:
        """The metrics of values."""
        objective = ValueObjective.of(self.config, self.answers.unit.double().cpu())
        truth = torch.from_numpy(labels.astype(np.float64))
        loss = objective.loss(torch.from_numpy(scores), truth) / objective.divisor(truth)
        found = value_metrics(
            labels,
            scores,
            self.targets,
            quantiles=self.config.levels,
            naive=self.naive,
            forecast=self.forecast,
        )
        return {"n": found.pop("n"), "loss": float(loss), **found}


Judge = ClassJudge | ValueJudge


def judge_of(
    source: DataSet | Checkpoint, config: TrainConfig, positive: int | None, model: nn.Module
) -> Judge:
    """The judge of a data set that a model learns, or of a checkpoint."""
    if source.targets:
        return ValueJudge(config, source.targets, source.horizon > 0, model.answers)
    return ClassJudge(source.classes, positive, source.multilabel, config.ordered)


def answers_of(loaded: Checkpoint, split: Split) -> NDArray[np.float64]:
    """Probabilities or values of the model of a checkpoint on examples."""
    judge = judge_of(loaded, loaded.config, loaded.positive, loaded.model)
    return judge.scores(loaded.model, feed_of(loaded, split))


def is_better(name: str, new: dict[str, Any], best: dict[str, Any]) -> bool:
    """Whether a metric improved; on an equal one the smaller loss decides."""
    if name == "loss":
        return bool(new["loss"] < best["loss"])
    sign = -1 if name in LESS_IS_BETTER else 1

    def worth(metrics: dict[str, Any]) -> tuple[float, float]:
        # R2 and kappa may be undefined, as that of an answer that is always the same.
        value = metrics[name]
        return (-math.inf if value is None else sign * value), -metrics["loss"]

    return worth(new) > worth(best)
