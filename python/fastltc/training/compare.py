"""Several runs side by side, and one run with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import plots
from .comparable import check_same_test, positive_class
from .config import TrainConfig
from .errors import ConfigError, RunError
from .files import write_bytes, write_json
from .loop import Progress, train
from .run import Run

SEEDS = "seeds.json"
METRICS = ("auc", "accuracy", "f1", "f1_macro", "average_precision", "loss")


def train_seeds(
    config: TrainConfig,
    out: Path | str,
    count: int,
    *,
    overwrite: bool = False,
    offline: bool = False,
    progress: Callable[[TrainConfig], Progress] | None = None,
) -> dict[str, Any]:
    """Trains with ``count`` seeds, from ``config.seed`` on, into ``OUT/seed-N``.

    Args:
        config: what to train.
        out: the folder that gets the runs and ``seeds.json``.
        count: how many seeds, at least 2.
        overwrite: replace earlier runs there.
        offline: do not download the data set.
        progress: makes the functions to call on the way, for each run.

    Returns:
        What ``seeds.json`` holds: the mean and the standard deviation (of a sample, n - 1) of each
        metric on validation and test split, and the values of the seeds.

    Raises:
        ConfigError: fewer than two seeds.
        KeyboardInterrupt: training was interrupted; what is finished stays.
    """
    if count < 2:
        raise ConfigError(f"seeds: expected at least 2, got {count}")
    out = Path(out)
    runs = []
    for seed in range(config.seed, config.seed + count):
        own = replace(config, seed=seed)
        run = train(
            own,
            out / f"seed-{seed}",
            overwrite=overwrite,
            offline=offline,
            progress=None if progress is None else progress(own),
        )
        if run.metrics["status"] != "finished":
            raise KeyboardInterrupt
        runs.append(run)
    summary = summarise(runs)
    write_json(out / SEEDS, summary)
    return summary


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """Mean and standard deviation of the metrics of runs that differ in their seed."""
    metrics = [run.metrics for run in runs]
    result: dict[str, Any] = {
        "runs": [str(run.path) for run in runs],
        "seeds": [found["seed"] for found in metrics],
        "model": metrics[0]["model"],
        "data": metrics[0]["data"],
        "trainable_parameters": metrics[0]["trainable_parameters"],
        "seconds": sum(found["seconds"] for found in metrics),
    }
    for split in ("val", "test"):
        result[split] = {}
        for name in METRICS:
            values = [found[split].get(name) for found in metrics]
            if all(value is not None for value in values):
                result[split][name] = {
                    "mean": float(np.mean(values)),
                    "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
                    "values": values,
                }
    return result


def compare(paths: Sequence[Path | str], out: Path | None = None) -> list[dict[str, Any]]:
    """The test metrics of several runs, or folders of seeds, as rows of one table.

    Args:
        paths: run folders, or folders of `train_seeds`.
        out: folder for ``compare.json`` and ``compare.png``; None to write nothing.

    Returns:
        A row for each: name, model, parameters, the test metrics ``auc``, ``accuracy``, ``f1``,
        ... as ``{"mean": ..., "std": ...}``, ``positive``, the class that ``f1`` and
        ``average_precision`` are about, and ``remarks`` on what the test examples came as.

    Raises:
        RunError: a folder is no run, or is not finished; or the runs were tested on different
            data or other examples of it.
    """
    rows = []
    first: list[Run] = []
    for given in paths:
        path = Path(given)
        if (path / SEEDS).is_file():
            members = [Run.open(member) for member in sorted(path.glob("seed-*"))]
        else:
            members = [Run.open(path)]
        for member in members:
            if member.metrics.get("test") is None:
                raise RunError(f"{member.path}: has no test metrics; it is not finished")
        first = first or members[:1]
        remarks = check_same_test([*first, *members])
        rows.append(
            {
                "name": str(path),
                "n": len(members),
                **summarise(members),
                "positive": positive_class(members),
                "remarks": list(remarks),
            }
        )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "compare.json", rows)
        write_bytes(out / "compare.png", plots.comparison(rows))
    return rows
