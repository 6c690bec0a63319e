"""The model card of a run: a ``README.md`` with the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import OPTIONS
from ..models import CELLS
from ..run import CARD_MARK, Checkpoint

# A name in metrics.json, what the card calls it, and the Hub's name of that metric, if it has one.
_METRICS = (
    ("accuracy", "accuracy", "accuracy"),
    ("auc", "AUC", "roc_auc"),
    ("f1_macro", "F1, mean over the classes", None),
    ("f1", "F1 of {}", "f1"),
    ("average_precision", "average precision of {}", None),
    ("kappa", "quadratic kappa", None),
    ("r2", "R2", "r_squared"),
    ("mae", "mean absolute error", "mae"),
    ("rmse", "root mean square error", "rmse"),
    ("mse", "mean square error", "mse"),
    ("mase", "mean absolute scaled error", "mase"),
    ("pinball", "pinball loss", None),
    ("loss", "loss", None),
)
_TASKS = {3: "image-classification", 2: "tabular-classification", 1: "tabular-classification"}
_VALUE_TASKS = {"regression": "tabular-regression", "forecasting": "time-series-forecasting"}
_USE = {
    3: (
        "from fastltc.jobs import Run, predict",
        'answers = predict(checkpoint, ["image.png"])',
        "answers[0].name, answers[0].probabilities",
    ),
    2: (
        "from fastltc.jobs import Run, predict_series",
        'rows = predict_series(checkpoint, "rows.csv")',
        "rows[-1].name, rows[-1].probabilities",
    ),
    1: (
        "import torch\n\nfrom fastltc.jobs import Run",
        "logits = checkpoint.model(torch.zeros(1, {}))",
        "checkpoint.classes[int(logits.argmax())]",
    ),
}
# They say where a file was on the machine that trained.
_LEFT_OUT = ("data_root", "weights", "data")


_CALIBRATED = """ Probabilities
are those of the model; `fastltc evaluate` measures how well they are calibrated."""


def model_card(metrics: Mapping[str, Any], best: Checkpoint) -> str:
    """The text of the card, in Markdown.

    Args:
        metrics: what ``metrics.json`` holds.
        best: the checkpoint that they are of.

    Returns:
        Metadata (the licence is left to the user), results, data, configuration, use and limits.
        Of a path of the user's only the last part is in it.
    """
    data, model = _public_name(metrics["data"]), best.config.model
    sizes = metrics["images"]
    kind = len(best.image_shape)
    positive = None if best.positive is None else best.classes[best.positive]
    first, then, last = (line.format(*best.image_shape) for line in _USE[kind])
    calibrated = "" if best.targets else _CALIBRATED
    counted = ", ".join(f"{count:,} {split}" for split, count in sizes.items())
    remarks = "".join(f"- {remark}\n" for remark in metrics["remarks"])
    tested = (
        "The test split was judged once, and decided nothing."
        if metrics["test"] is not None
        else "Training was interrupted: the test split was not judged."
    )
    answers = f"tells these\nclasses apart: {', '.join(best.classes)}"
    if best.targets:
        ahead = f"the next {best.horizon} steps of " if best.horizon else ""
        answers = f"predicts\n{ahead}{', '.join(best.targets)}"
        last = last.replace("probabilities", "values")
    several = " An example may have several of them, or none." if best.multilabel else ""
    return f"""\
---
{CARD_MARK}
# license: yours to choose; that of the data may bind you
{_metadata(metrics, data, best)}---

# {model} on {data}

A model of fastltc with {metrics["trainable_parameters"]:,} trainable parameters, which \
{answers}.{several}

## Results

Of `best.pt` (epoch {metrics["best_epoch"]} of {metrics["epochs"]}, chosen by \
{metrics["selected_by"]}; digest {metrics["best_digest"]}). {tested}

{_results(metrics, positive)}
## Data

`{data}`: {counted} examples, each of shape {best.image_shape}.

{remarks}
## Training

Seed {metrics["seed"]}; {metrics["seconds"]:.0f} s on {metrics["device"]}, threads: \
{metrics["threads"]}; fastltc {metrics["versions"]["fastltc"]}, torch \
{metrics["versions"]["torch"]}. Options that are not at their default (`config.json` has all):

```toml
{_options(best)}```

## Use

```python
{first}

checkpoint = Run.open("FOLDER").load_checkpoint()  # the folder of this file
{then}
print({last})
```

## Intended use and limits

For research and teaching. The results hold for the data above: what comes from other devices,
places or people has not been measured. Every input gets an answer, whatever it shows.{calibrated}

This is not a medical device. Where the data is medical, no diagnosis and no treatment may rest on
the model.
"""


def _public_name(data: str) -> str:
    kind, colon, place = data.partition(":")
    return f"{kind}:{Path(place).name}" if colon else data


def _metadata(metrics: Mapping[str, Any], data: str, best: Checkpoint) -> str:
    model = best.config.model
    task = _VALUE_TASKS.get(best.task, _TASKS[len(best.image_shape)])
    modules = list(best.model.modules())
    cells = [name for name, cell in CELLS.items() if any(isinstance(one, cell) for one in modules)]
    split = "val" if metrics["test"] is None else "test"
    measured = [
        {"type": hub, "value": round(metrics[split][name], 4)}
        for name, _, hub in _METRICS
        if hub is not None and metrics[split].get(name) is not None
    ]
    described = {"name": data, "type": data, "split": split}
    results = {"task": {"type": task}, "dataset": described, "metrics": measured}
    fields = {
        "library_name": "fastltc",
        "pipeline_tag": task,
        "tags": ["fastltc", model, *(["liquid-neural-networks", *cells] if cells else [])],
        # What has a path is no data set that others could find.
        **({} if ":" in data else {"datasets": [data]}),
        "metrics": [metric["type"] for metric in measured],
        "model-index": [{"name": f"{model} on {data}", "results": [results]}],
    }
    # JSON is YAML, and needs no rules for quotes.
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items())


def _results(metrics: Mapping[str, Any], positive: str | None) -> str:
    parts = [metrics[split] for split in ("val", "test") if metrics[split] is not None]
    lines = ["| | validation | test |", "|---|---|---|"]
    for name, called, _ in _METRICS:
        values = [part.get(name) for part in parts]
        if any(value is not None for value in values):
            cells = ["" if value is None else f"{value:.4f}" for value in values]
            # A bar would end the cell.
            named = called.format(positive).replace("|", "\\|")
            lines.append(f"| {named} | {' | '.join([*cells, ''][:2])} |")
    return "".join(f"{line}\n" for line in lines)


def _options(best: Checkpoint) -> str:
    config = best.config.to_dict()
    changed = {
        name: value
        for name, value in config.items()
        if name not in _LEFT_OUT and value is not None and value != OPTIONS[name].default
    }
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in changed.items())
