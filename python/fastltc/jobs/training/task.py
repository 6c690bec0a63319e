"""What a run trains on what: a model and the splits of its data, on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..config import TrainConfig
from ..data import DataSet, load_data
from ..data.audit import warnings as leak_warnings
from ..errors import ConfigError
from ..evaluation.feed import Feed
from ..evaluation.metrics import classification_metrics, find_class
from ..evaluation.probabilities import judged
from ..models import Goal, MissingTorchvisionError, build_model, load_weights
from .augment import make_augment
from .checks import check_task, check_values
from .parallel import Group
from .schedule import parameter_groups


class Task:
    """Everything that is settled before the first step; model and data go to the device.

    Scales of the model, of inputs and of targets, where it has any, become those of the training
    split.

    Raises:
        ConfigError: augmentation or mirror images are asked for, and there are no images.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: DataSet,
        positive: int | None,
        model: nn.Module,
        device: torch.device,
        group: Group,
    ) -> None:
        self.config, self.data, self.positive = config, data, positive
        self.device, self.group = device, group
        group.synchronise_batch_norm(model)
        self.model = model.to(device)
        self.feeds = {
            name: Feed(split, device, config.augment_crop, mirror=config.mirror)
            for name, split in data.splits.items()
        }
        self.augment = make_augment(config, data.input_shape)
        if config.mirror and data.kind != "images":
            raise ConfigError("mirror: only images can be mirrored")
        fit_scales: Any = getattr(model, "fit_scales", None)
        train = self.feeds["train"].sample() if fit_scales is not None else self.feeds["train"]
        if fit_scales is not None:
            names = ("timespans", "lengths", "measured", "future")
            beside = {name: getattr(train, name) for name in names}
            fit_scales(
                train.inputs, **{name: one for name, one in beside.items() if one is not None}
            )
        if data.targets:
            answers: Any = model
            answers.fit_answers(train.labels, train.inputs, train.lengths, train.measured)


def read_data(
    config: TrainConfig, *, offline: bool, download: Callable[[int, int], None] | None
) -> tuple[TrainConfig, DataSet, int | None]:
    """The data, the configuration with the model for it, and the class that F1 is about.

    Raises:
        fastltc.jobs.data.DataError: the data is unknown, missing or damaged.
        ConfigError: there is no such class, or none where ``select`` needs one.
    """
    data = load_data(config.data, options=config.data_options(offline=offline, progress=download))
    data = replace(data, remarks=(*data.remarks, *leak_warnings(data)))
    config = config.settled(data.kind)
    check_task(config, data)
    if data.targets:
        check_values(data)
    asked = find_class(config.positive, data.classes)
    positive = data.positive if asked is None else asked
    if config.select in ("f1", "average_precision") and positive is None:
        raise ConfigError(
            f"select: {config.select} is that of one class; name it (--positive CLASS), or take "
            "f1_macro"
        )
    return config, data, positive


def make_model(
    config: TrainConfig, data: DataSet, positive: int | None, *, resume: bool
) -> nn.Module:
    """The model as training starts, drawn from torch's global generator.

    To ``resume``, its weights will come from the checkpoint, not from where the first came from.

    Raises:
        ConfigError: an option does not fit the model or the data.
    """
    assert config.model is not None
    options = config.model_options() | ({"pretrained": None} if resume else {})
    shape = config.model_shape(data.input_shape)
    try:
        goal = Goal.of(data, config.levels)
        model = build_model(config.model, shape, goal.outputs, goal=goal, **options)
        if config.weights is not None and not resume:
            load_weights(model, config.weights)
    except (ValueError, MissingTorchvisionError) as error:
        raise ConfigError(str(error)) from None
    if hasattr(model, "fit"):
        if data.multilabel:
            raise ConfigError(f"model: {config.model} knows no several labels, as {data.name} has")
        config.check_closed_form()
    else:
        parameter_groups(model, config)
    _check_select(config.select, data, positive)
    return model


def _check_select(select: str, data: DataSet, positive: int | None) -> None:
    """Makes sure that the validation split has what the metric to select by is made of."""
    if data.targets or select not in ("auc", "f1", "average_precision"):
        return  # there whatever the classes are
    split = data.splits.get("val")
    if split is None:
        return
    shape = split.labels.shape if data.multilabel else (*split.labels.shape, len(data.classes))
    labels, scores = judged(split.labels, np.full(shape, 1 / len(data.classes)))
    if classification_metrics(labels, scores, data.classes, positive)[select] is None:
        raise ConfigError(
            f"select: no {select} on the validation split of {data.name}, which lacks a class; "
            "take another metric, such as loss, or another split"
        )
