"""Whether the data and the options of a training go together, before anything is made."""

from __future__ import annotations

import numpy as np

from ..config import LOSSES, OPTIONS, SELECT_CLASSES, SELECT_VALUES, TrainConfig
from ..data import SPLITS, DataError, DataSet
from ..errors import ConfigError
from ..models import Goal

# Options of one kind of task alone.
_OF_CLASSES = ("class_weights", "label_smoothing", "positive", "ordered")
_OF_VALUES = ("huber_delta", "quantiles")


def check_task(config: TrainConfig, data: DataSet) -> None:
    """Makes sure that the data is for the task that is asked for, and that the options are, too.

    Raises:
        ConfigError: another ``task`` is asked for than the data is for, or an option is one of
            another task.
    """
    goal = Goal.of(data)
    if config.task is not None and config.task != goal.task:
        told = {
            "classification": f"has classes ({_listed(data.classes)})",
            "regression": f"has values to predict ({_listed(data.targets)})",
            "forecasting": f"has {data.horizon} steps of {_listed(data.targets)} to forecast",
        }
        raise ConfigError(
            f"task: expected {goal.task}, for {data.name} {told[goal.task]}; got {config.task}; "
            "the target and the horizon are options of the data"
        )
    kind, other = ("values", "classes") if goal.of_values else ("classes", "values")
    unused = _OF_CLASSES if goal.of_values else _OF_VALUES
    for name in unused:
        if getattr(config, name) != OPTIONS[name].default:
            raise ConfigError(f"{name}: no option for {kind}, which {data.name} has; leave it out")
    if config.select in (SELECT_CLASSES if goal.of_values else SELECT_VALUES):
        able = ", ".join(("loss", *(SELECT_VALUES if goal.of_values else SELECT_CLASSES), "last"))
        raise ConfigError(f"select: {config.select} is of {other}; for {kind}: {able}")
    if config.loss is not None and (config.loss == LOSSES[0]) is goal.of_values:
        able = ", ".join(LOSSES[1:] if goal.of_values else LOSSES[:1])
        raise ConfigError(f"loss: {config.loss} is of {other}; for {kind}: {able}")
    if config.huber_delta != 1 and config.loss != "huber":
        raise ConfigError("huber_delta: an option of the loss huber; add --loss huber")
    if config.ordered and data.multilabel:
        raise ConfigError(f"ordered: {data.name} has several labels at once, which have no order")
    if goal.of_values and config.select == "mase":
        _check_steps(data)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def check_values(data: DataSet) -> None:
    """Makes sure that the targets of every split can be learned and judged.

    Raises:
        DataError: a target is infinite, has no value, or is constant in training; or what is known
            in advance is not.
    """
    for name in SPLITS:
        split = data.splits[name]
        if split.future is not None and not np.isfinite(split.future).all():
            raise DataError(
                f"{data.source}: the {name} split has features known in advance that "
                "are NaN or infinite; expected numbers"
            )
        for place, target in enumerate(data.targets):
            values = split.labels[..., place]
            if np.isinf(values).any():
                raise DataError(
                    f"{data.source}: target {target!r} is infinite in the {name} split; expected "
                    "numbers, and NaN where there is none"
                )
            known = values[~np.isnan(values)]
            if not len(known):
                raise DataError(
                    f"{data.source}: target {target!r} has no value in the {name} split, which "
                    "could be neither learned nor judged"
                )
            if name == "train" and np.ptp(known) == 0:
                raise DataError(
                    f"{data.source}: target {target!r} is always {known[0]:g} in the training "
                    "split; there is nothing to learn of it, expected another column"
                )


def _check_steps(data: DataSet) -> None:
    split = data.splits["train"]
    inside = all(target in data.features for target in data.targets)
    if not (inside and split.inputs.shape[1] > 1) and split.labels.ndim != 3:
        raise ConfigError(
            f"select: no mase on {data.name}, whose training rows do not tell how much a target "
            "changes from one to the next; take mae"
        )
