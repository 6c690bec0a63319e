"""A training that leaves a model and no files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import TrainConfig
from ..data import DataSet
from ..device import find_device
from .checks import check_task
from .epochs import Epochs
from .parallel import Group
from .task import Task, make_model


def fit(
    config: TrainConfig,
    data: DataSet,
    positive: int | None = None,
    after: Callable[[Mapping[str, Any]], None] | None = None,
) -> tuple[nn.Module, list[Mapping[str, Any]]]:
    """Trains a model as `train` does, in this process and without a folder.

    The global generator of torch is as it was before.

    Args:
        config: with a model; what it says of the data is not read.
        data: of its splits ``train`` and, to select the best epoch by, ``val`` are used; without
            it the last epoch is kept.
        positive: the class that F1 is about.
        after: called with the record of each epoch; what it raises ends the training.

    Returns:
        The model of the best epoch, in eval mode, and a record for each epoch, as in
        ``log.jsonl``.

    Raises:
        ConfigError: an option does not fit the data or this machine.
        DivergedError: the loss became infinite or NaN.
    """
    device = find_device(config.device)
    check_task(config, data)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(config.seed)
        model = make_model(config, data, positive, resume=False)
        epochs = Epochs(Task(config, data, positive, model, device, Group()), Path("fit"))
        best = None
        for number in epochs.left:
            if epochs.is_stale:
                break
            record, val = epochs.run(number, lambda count: None)
            if epochs.add(record, val) and val:
                best = copy.deepcopy(model.state_dict())
            if after is not None:
                after(record)
    if best is not None:
        model.load_state_dict(best)
    return model.eval(), [*epochs.history]
