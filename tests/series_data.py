"""Small data sets of time series for every task, made in memory, under names that jobs know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastltc.jobs.data import SPLITS, DataSet, Split
from fastltc.jobs.data.registry import SOURCES, Source
from fastltc.jobs.data.sets import check_splits

SIZES = {"train": 24, "val": 8, "test": 8}
# Small and quick, but a full run.
QUICK: dict[str, Any] = {"epochs": 2, "units": 8, "batch_size": 8, "threads": 1}


def made(
    task: str = "regression",
    *,
    per_step: bool = True,
    steps: int = 12,
    targets: tuple[str, ...] = ("level",),
    horizon: int = 3,
    known: bool = False,
    masked: bool = False,
    ragged: bool = False,
    extra: bool = True,
    seed: int = 0,
) -> DataSet:
    """Sums of a random walk and a wave, which a small model learns a little of.

    Args:
        task: as of `DataSet`.
        per_step: a class or a value for every row.
        steps: rows of a sequence.
        targets: names; the first is the level of the walk, the second ten times its slope.
        horizon: of a forecast.
        known: the wave is known in advance.
        masked: a third of the inputs was not measured.
        ragged: sequences of several lengths.
        extra: an input that is neither a target nor known.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    features = ("level", "wave", *(("noise",) if extra else ()))
    splits = {}
    for name, count in SIZES.items():
        ahead = horizon if task == "forecasting" else 0
        total = steps + ahead + 1
        wave = np.sin(0.7 * np.arange(total) + rng.uniform(0, 6, (count, 1)))
        level = 100 + np.cumsum(rng.normal(size=(count, total)) * 0.2 + wave, axis=1)
        noise = rng.normal(size=(count, total))
        rows = np.stack([level, wave, noise][: len(features)], axis=-1).astype(np.float32)
        lengths = None
        if ragged:
            lengths = rng.integers(4, steps + 1, count)
            lengths[0] = steps
        last = np.full(count, steps) if lengths is None else lengths
        at = np.arange(count)
        values = np.stack([level, 10 * wave][: len(targets)], axis=-1).astype(np.float32)
        labels: np.ndarray
        future = None
        if task == "forecasting":
            places = last[:, None] + np.arange(horizon)
            labels = values[at[:, None], places]
            future = rows[at[:, None], places][..., 1:2] if known else None
        elif per_step:
            # What comes next, so that there is something to learn.
            labels = values[:, 1 : steps + 1]
        else:
            labels = values[at, last]
        if task == "classification":
            labels = (labels[..., 0] > 100).astype(np.int64)
            labels.reshape(-1)[:2] = (0, 1)
        inputs = rows[:, :steps].copy()
        measured = None
        if masked:
            measured = rng.random(inputs.shape) > 0.3
            measured[:, 0] = True
            for step in range(1, steps):
                inputs[:, step] = np.where(measured[:, step], inputs[:, step], inputs[:, step - 1])
        if lengths is not None:
            behind = np.arange(steps) >= lengths[:, None]
            inputs[behind] = 0
            if per_step and task != "forecasting":
                labels[behind] = -1 if labels.dtype == np.int64 else np.nan
        splits[name] = Split(
            inputs,
            labels,
            rng.uniform(0.5, 1.5, (count, steps)).astype(np.float32),
            tuple(f"{name}-{place}" for place in range(count)),
            lengths,
            measured,
            future,
        )
    of_classes = task == "classification"
    return DataSet(
        "made",
        ("low", "high") if of_classes else (),
        splits,
        "made.csv",
        features=features,
        time_unit=60.0,
        targets=() if of_classes else targets,
        horizon=horizon if task == "forecasting" else 0,
        known=("wave",) if known else (),
    )


def with_labels(data: DataSet, change: Callable[[np.ndarray], np.ndarray], *names: str) -> DataSet:
    """The data set with the labels of some splits changed, of all by default."""
    splits = dict(data.splits)
    for name in names or SPLITS:
        splits[name] = replace(splits[name], labels=change(splits[name].labels.copy()))
    return replace(data, splits=splits)


def known_as(monkeypatch: pytest.MonkeyPatch, data: DataSet) -> str:
    """Makes a data set one that `load_data` finds; its name."""
    source = Source(data.name, "made for a test", lambda name, options: check_splits(data))
    monkeypatch.setitem(SOURCES, data.name, source)
    return data.name
