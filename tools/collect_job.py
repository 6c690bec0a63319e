"""Puts what `fastltc train --seeds N` left into one JSON file, for benchmarks/results/jobs.

    python tools/collect_job.py runs/NAME benchmarks/results/jobs/NAME.json "fastltc train ..."

``--add`` keeps the seeds that the file has and the folder does not, of the same configuration.

The file holds the command, the configuration without the place of the data, mean and deviation over
the seeds, and for each seed its metrics, its log by epoch and, where `fastltc evaluate` was called,
the evaluation of the test split.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from fastltc.jobs.config import TrainConfig

# Of an epoch's record, of classes or of values; the rest is in the run folders.
LOGGED = (
    *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auc", "val_f1"),
    *("val_mse", "val_mae", "val_r2", "lr", "seconds"),
)
METRICS = ("status", "best_epoch", "epochs", "selected_by", "val", "test", "seconds", "threads")
# Of an evaluation; its curves have a point for each example.
EVALUATED = (
    *("auc", "accuracy", "f1", "positive", "average_precision", "precision_at_recall"),
    *("mse", "mae", "r2", "mase", "per_step"),
)


def read(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def seed_results(run: Path) -> dict[str, Any]:
    """The metrics, log and evaluation of one run."""
    metrics = read(run / "metrics.json")
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    found: dict[str, Any] = {"seed": metrics["seed"], **{name: metrics[name] for name in METRICS}}
    # A list for each column: an epoch is a place in it.
    found["log"] = {
        name: [record[name] and float(f"{record[name]:.6g}") for record in records]
        for name in LOGGED
        if name in records[0]
    }
    evaluation = run / "evaluation-test.json"
    if evaluation.is_file():
        whole = read(evaluation)
        found["evaluation"] = {name: whole[name] for name in EVALUATED if name in whole}
    return found


def collect(folder: Path, command: str, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """All that is kept of the runs ``seed-N`` in a folder, and of those collected earlier.

    Raises:
        SystemExit: the earlier ones are of another configuration.
    """
    runs = sorted(folder.glob("seed-*"), key=lambda run: int(run.name.removeprefix("seed-")))
    config = read(runs[0] / "config.json")
    metrics = read(runs[0] / "metrics.json")
    kind, _, place = config.pop("data").partition(":")
    del config["data_root"], config["seed"]
    seeds = {run["seed"]: run for run in map(seed_results, runs)}
    if earlier is not None:
        # Options that have come since then were as they are by default.
        defaults = {option.name: option.default for option in fields(TrainConfig)}
        other = {name: defaults[name] for name in config} | earlier["config"]
        if other != config:
            sys.exit(f"another configuration than before: {other} and {config}")
        seeds = {run["seed"]: run for run in earlier["seeds"]} | seeds
    ordered = [seeds[seed] for seed in sorted(seeds)]
    tests = [run["test"] for run in ordered]
    names = [name for name, value in tests[0].items() if isinstance(value, float)]
    return {
        "command": command,
        "data": f"{kind}:{Path(place).name}" if place else kind,
        "images": metrics["images"],
        "trainable_parameters": metrics["trainable_parameters"],
        "versions": metrics["versions"],
        "config": config,
        "test": {name: mean_and_std([test[name] for test in tests]) for name in names},
        "seeds": ordered,
    }


def mean_and_std(values: list[float]) -> dict[str, float]:
    """Mean and deviation of a sample."""
    return {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else 0.0}


def main() -> None:
    """Write the file."""
    add, arguments = "--add" in sys.argv, [part for part in sys.argv[1:] if part != "--add"]
    if len(arguments) != 3:
        sys.exit(__doc__)
    folder, out, command = arguments
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    found = collect(Path(folder), command, read(Path(out)) if add else None)
    seeds = ",\n".join(f"  {json.dumps(seed)}" for seed in found.pop("seeds"))
    lines = [f' "{name}": {json.dumps(value)}' for name, value in found.items()]
    lines.append(f' "seeds": [\n{seeds}\n ]')
    Path(out).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
