"""Windows that are drawn as they are asked for train as those in memory do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastltc.jobs import TrainConfig, evaluate, train
from fastltc.jobs.data import SPLITS, Split
from fastltc.jobs.data import windows as windows_of_rows
from fastltc.jobs.data.windows import Windows
from fastltc.jobs.evaluation.feed import Feed
from fastltc.jobs.unchanged import fingerprints
from series_data import QUICK, known_as, made


def drawn(split: Split) -> Split:
    """The same split, its arrays as windows of the rows of all sequences."""
    count, steps = split.inputs.shape[:2]
    starts = np.arange(count) * steps

    def of(array: np.ndarray) -> Windows:
        return Windows(array.reshape(count * steps, *array.shape[2:]), starts, steps)

    assert split.timespans is not None
    parts = {"inputs": of(split.inputs), "labels": of(split.labels)}
    return replace(split, **parts, timespans=of(split.timespans))  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_pictures")
def test_windows_that_do_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made()
    data = replace(whole, splits={name: drawn(whole.splits[name]) for name in SPLITS})
    assert fingerprints(data) == fingerprints(whole)
    monkeypatch.setattr(windows_of_rows, "IN_MEMORY", 1500)
    device = torch.device("cpu")
    feeds = [Feed(one.splits["train"], device) for one in (data, whole)]
    index = torch.tensor([5, 0, 3])
    for part, expected in zip(feeds[0].take(index), feeds[1].take(index), strict=True):
        assert torch.equal(part, expected)
    # Evenly spaced, both ends among them, and no more than there is room for.
    few = feeds[0].sample()
    assert few.inputs.nbytes <= 1500
    assert torch.equal(few.inputs[-1], feeds[1].inputs[-1])
    config = TrainConfig.for_data(known_as(monkeypatch, data), **QUICK)
    run = train(config, tmp_path / "run")
    assert run.metrics["test"]["n"] == 8 * 12
    assert evaluate(run, resamples=0)["mae"] == run.metrics["test"]["mae"]
