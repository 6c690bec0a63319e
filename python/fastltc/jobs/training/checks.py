"""Whether the data and the options of a training go together, before anything is made."""

from __future__ import annotations

import numpy as np

from ..config import LOSSES, OPTIONS, SELECT_CLASSES, SELECT_VALUES, TrainConfig
from ..data import SPLITS, DataError, DataSet
from ..data.windows import chunks
from ..errors import ConfigError
from ..models import Goal

# Options of one kind of task alone.
_OF_CLASSES = ("class_weights", "label_smoothing", "positive", "ordered")
_OF_VALUES = ("huber_delta", "quantiles", "error_unit")


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
    """Makes sure that no target, and nothing that is known in advance, is infinite.

    Raises:
        DataError: one is; the text names it.
    """
    for name in SPLITS:
        split = data.splits[name]
        for array, names in ((split.labels, data.targets), (split.future, data.known)):
            for _, part in () if array is None else chunks(array):
                infinite = np.isinf(part.reshape(-1, len(names))).any(axis=0)
                if infinite.any():
                    raise DataError(
                        f"{data.source}: {names[int(infinite.argmax())]!r} is infinite in the "
                        f"{name} split; expected numbers, and no value where there is none"
                    )


def _check_steps(data: DataSet) -> None:
    split = data.splits["train"]
    inside = all(target in data.features for target in data.targets)
    if not (inside and split.inputs.shape[1] > 1) and split.labels.ndim != 3:
        raise ConfigError(
            f"select: no mase on {data.name}, whose training rows do not tell how much a target "
            "changes from one to the next; take mae"
        )
