"""Several runs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError
from ..files import format_json, write_all
from ..run import SEEDS, Run, evaluation_files, read_json
from .comparable import check_same_test, positive_class

METRICS = (
    *("auc", "accuracy", "f1", "f1_macro", "average_precision", "kappa"),
    *("r2", "mae", "rmse", "mse", "mase", "pinball"),
    "loss",
)


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """Mean and standard deviation of the metrics of runs that differ in their seed."""
    metrics = [run.metrics for run in runs]
    result: dict[str, Any] = {
        "runs": [str(run.path) for run in runs],
        "checkpoints": [
            {"epoch": found.get("best_epoch"), "digest": found.get("best_digest")}
            for found in metrics
        ],
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
            if not all(isinstance(value, float | int | None) for value in values):
                raise TypeError(f"{split} {name}: expected numbers, got {values!r:.60}")
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
        ... as ``{"mean": ..., "std": ..., "interval": ...}``, ``positive``, the class that ``f1``
        and ``average_precision`` are about, and ``remarks`` on what the test examples came as.
        ``interval`` is of 95 %: of seeds that of their mean by Student's t, of a single run that of
        its `evaluate`, by the bootstrap; None where its folder has no such evaluation.

    Raises:
        RunError: a folder is no run, or is not finished; or the runs were tested on different
            data or other examples of it.
    """
    rows = []
    first: list[Run] = []
    for given in paths:
        path = Path(given)
        members = _seed_runs(path) if (path / SEEDS).is_file() else [Run.open(path)]
        for member in members:
            if member.metrics.get("test") is None:
                raise RunError(f"{member.path}: has no test metrics; it is not finished")
        first = first or members[:1]
        # What is in the files comes from anywhere.
        try:
            remarks = check_same_test([*first, *members])
            found = summarise(members)
            _add_intervals(found, members)
            positive = positive_class(members)
        except KeyError as error:
            raise RunError(f"{path}: damaged metrics: {error} is missing") from None
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(f"{path}: damaged metrics: {error}") from None
        own = {"positive": positive, "remarks": list(remarks)}
        rows.append({"name": str(path), "n": len(members), **found, **own})
    if out is not None:
        from .. import plots

        contents = {
            out / "compare.json": format_json(rows),
            out / "compare.png": plots.comparison(rows),
        }
        out.mkdir(parents=True, exist_ok=True)
        write_all(contents)
    return rows


def _add_intervals(row: dict[str, Any], members: Sequence[Run]) -> None:
    known: dict[str, Any] = {}
    factor = 0.0
    if len(members) > 1:
        from scipy.special import stdtrit

        factor = float(stdtrit(len(members) - 1, 0.975)) / math.sqrt(len(members))
    else:
        known = _known_intervals(members[0])
    for name, found in row["test"].items():
        reach = factor * found["std"]
        between = [found["mean"] - reach, found["mean"] + reach]
        found["interval"] = between if factor else known.get(name)


def _known_intervals(run: Run) -> dict[str, Any]:
    """Those of the evaluation in a run's folder, if it is of what the run was tested with."""
    try:
        found = read_json(evaluation_files(run.path, "test")[0])
    except RunError:
        return {}
    metrics = run.metrics
    test = metrics["test"]
    # A run of an older version has no digest.
    digest = metrics.get("best_digest")
    if digest is None or (found.get("digest"), found.get("data")) != (digest, metrics["data"]):
        return {}
    for name, between in found.get("intervals", {}).items():
        low, high = between
        if not isinstance(low, float | int) or not isinstance(high, float | int):
            raise TypeError(f"interval of {name}: expected two numbers, got {between!r:.60}")
    same = found.get("positive_class") == test.get("positive_class")
    return {
        name: between
        for name, between in found.get("intervals", {}).items()
        if same or name not in ("f1", "average_precision")
    }


def _seed_runs(path: Path) -> list[Run]:
    """The runs that ``seeds.json`` is about, wherever its folder is now."""
    seeds = read_json(path / SEEDS).get("seeds")
    if not isinstance(seeds, list) or not seeds:
        raise RunError(f"{path / SEEDS}: damaged: expected a list of seeds")
    return [Run.open(path / f"seed-{seed}") for seed in seeds]
