"""The commands around a finished run: ``fastltc evaluate``, ``predict`` and ``compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._files import write_bytes
from ..jobs.defaults import RECALLS, RESAMPLES
from . import completion
from .options import (
    CHECKPOINT,
    DATA_ROOT,
    DEVICE,
    JSON,
    OFFLINE,
    POSITIVE,
    RUN,
    THREADS,
    absolute,
    echo,
    make_console,
    options,
    path_option,
    print_json,
    set_threads,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ..jobs import Checkpoint, RowPrediction


def print_metrics(console: Console, split: str, metrics: dict[str, Any]) -> None:
    """Prints the metrics of one split, with intervals where there are any."""
    if "r2" in metrics:
        _print_values(console, split, metrics)
        return
    auc = "undefined (a class is missing)" if metrics["auc"] is None else f"{metrics['auc']:.4f}"
    between = {
        name: f"  [{low:.4f}, {high:.4f}]"
        for name, (low, high) in metrics.get("intervals", {}).items()
    }
    lines = [
        f"{split}: {metrics['n']} examples"
        + ("; in brackets, 95 % intervals of the bootstrap" if between else ""),
        f"  accuracy  {metrics['accuracy']:.4f}{between.get('accuracy', '')}",
        f"  AUC       {auc}{between.get('auc', '')}",
        f"  F1 macro  {metrics['f1_macro']:.4f}",
    ]
    if metrics.get("kappa") is not None:
        lines.append(f"  kappa     {metrics['kappa']:.4f}  (quadratic weights)")
    positive = metrics["positive_class"]
    if positive is not None:
        lines.append(
            f"  F1        {metrics['f1']:.4f}{between.get('f1', '')}  "
            f"(positive class: {positive['name']}, label {positive['label']})"
        )
    if metrics["average_precision"] is not None:
        lines.append(
            f"  average precision  {metrics['average_precision']:.4f}"
            f"{between.get('average_precision', '')}"
        )
        lines += [
            f"  precision {found['precision']:.4f} at recall >= {found['recall']:g} "
            f"(reaches {found['reached_recall']:.4f} at threshold {found['threshold']:.4g})"
            for found in metrics["precision_at_recall"]
        ]
        lines.append(f"  calibration error  {metrics['calibration']['ece']:.4f}")
    console.print("\n".join(lines))


def _print_values(console: Console, split: str, metrics: dict[str, Any]) -> None:
    from rich.table import Table

    between = metrics.get("intervals", {})
    heading = f"{split}: {metrics['n']} values"
    if between:
        heading += "; in brackets, 95 % intervals of the bootstrap over sequences"
    console.print(heading)
    for name, called in _VALUE_METRICS.items():
        if metrics[name] is not None:
            low, high = between.get(name, (None, None))
            brackets = "" if low is None else f"  [{low:.5g}, {high:.5g}]"
            console.print(f"  {called:9s} {metrics[name]:.5g}{brackets}")
    if metrics["coverage"] is not None:
        console.print(f"  between the outer quantiles: {metrics['coverage']:.1%}")
    parts = [("target", metrics["per_target"], "name"), ("step", metrics.get("per_step"), "step")]
    for head, found, named in parts:
        if found is not None and len(found) > 1:
            shown = [name for name in _VALUE_METRICS if found[0].get(name) is not None]
            table = Table(head, *(_VALUE_METRICS[name] for name in shown), box=None)
            for entry in found:
                cells = ("-" if entry[name] is None else f"{entry[name]:.5g}" for name in shown)
                table.add_row(str(entry[named]), *cells)
            console.print(table)


_VALUE_METRICS = {
    "mae": "MAE",
    "rmse": "RMSE",
    "mse": "MSE",
    "r2": "R2",
    "mase": "MASE",
    "pinball": "pinball",
}


@click.command()
@RUN
@options(
    click.option(
        "--split",
        type=click.Choice(["train", "val", "test"]),
        help="Part of the data.  [default: test; all of other data without splits]",
    ),
    POSITIVE,
    CHECKPOINT,
    click.option(
        "--data",
        metavar="DATA",
        help="Other data with classes of the same names.",
        shell_complete=completion.data_set,
    ),
    DATA_ROOT,
    OFFLINE,
    click.option(
        "--recall",
        "recalls",
        type=float,
        multiple=True,
        default=RECALLS,
        show_default=True,
        help="Recall at which the precision is reported; may be given several times.",
    ),
    click.option(
        "--resamples",
        type=int,
        default=RESAMPLES,
        show_default=True,
        metavar="N",
        help="Of the bootstrap for the 95 % intervals; 0 for none.",
    ),
    THREADS,
    DEVICE,
    path_option("--out", "DIR", "Folder for JSON, CSV and pictures.  [default: RUN]"),
    JSON,
)
def evaluate(
    run: Path,
    split: str | None,
    checkpoint: str,
    threads: int | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate a RUN: AUC, accuracy, F1, precision at a recall, calibration, with intervals.

    Of values: MAE, RMSE, R2, MASE and pinball loss. Writes evaluation-SPLIT.json,
    predictions-SPLIT.csv and pictures: confusion, roc, precision-recall, calibration and the
    examples that are most wrong; of values truth, residuals and the error by step.
    """
    from ..jobs import Run
    from ..jobs import evaluate as evaluate_run

    set_threads(threads)
    if options["data"] is not None:
        options["data"] = absolute(options["data"])
    result = evaluate_run(Run.open(run), split, checkpoint=f"{checkpoint}.pt", out=out, **options)
    if as_json:
        print_json(result)
        return
    console = make_console()
    console.print(
        f"{run}, {checkpoint} checkpoint (epoch {result['epoch']}), digest {result['digest']}"
    )
    split = result["split"]
    if options["data"] is not None:
        for remark in result["remarks"]:
            console.print(f"note: {remark}")
    print_metrics(console, f"{result['data']} {split}", result)
    if "per_class" in result:
        _print_classes(console, result)
    folder = run if out is None else out
    console.print(f"written to {folder}: {', '.join(result['files'])}")


def _print_classes(console: Console, result: dict[str, Any]) -> None:
    from rich.table import Table

    names = [entry["name"] for entry in result["per_class"]]
    counts = result["confusion_matrix"]
    if counts is None:
        counts, names = [[] for _ in names], []
    table = Table("true \\ predicted", *names, "recall", "precision", "F1", box=None)
    for entry, row in zip(result["per_class"], counts, strict=True):
        scores = [f"{entry[name]:.3f}" for name in ("recall", "precision", "f1")]
        table.add_row(entry["name"], *(str(count) for count in row), *scores)
    console.print(table)


@click.command()
@RUN
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@options(
    click.option(
        "--invert", is_flag=True, help="Exchange dark and light (digits are light on dark)."
    ),
    click.option(
        "--grey-as-colour",
        is_flag=True,
        help="Give grey images to all three channels of a model of colours.",
    ),
    path_option("--rows", "DIR", "Draw there what each row of an image has added to its class."),
    CHECKPOINT,
    THREADS,
    DEVICE,
    JSON,
)
def predict(
    run: Path,
    images: tuple[Path, ...],
    rows: Path | None,
    checkpoint: str,
    threads: int | None,
    device: str | None,
    as_json: bool,
    **how: bool,
) -> None:
    """Classify IMAGE files (PNG, JPEG, ...), or all in a folder, with the model of a RUN.

    With a model of time series, answer for the rows of a CSV file, for all of them or for the
    steps to come, as it was trained; the file needs no class or target, the answer is a CSV table.

    Each image is converted to the size and the channels of the training images: the whole picture
    is resized, nothing is cropped, so another aspect ratio is squeezed; transparency becomes
    black. The output says what was done.

    With --rows there is a picture for each image, NUMBER-NAME.png: beside it, how much each of its
    rows has added to the output of the class, by integrated gradients from a black image.
    """
    from ..jobs import ConfigError, Run, draw_rows
    from ..jobs import predict as predict_images

    set_threads(threads)
    loaded = Run.open(run).load_checkpoint(f"{checkpoint}.pt", device)
    if len(loaded.image_shape) == 2:
        if rows is not None:
            raise ConfigError(f"--rows: expected a model of images, got {loaded.config.model}")
        _predict_rows(loaded, images, as_json)
        return
    predictions = predict_images(loaded, images, **how)
    if rows is not None:
        rows.mkdir(parents=True, exist_ok=True)
        pictures = draw_rows(loaded, predictions)
        for number, (prediction, picture) in enumerate(zip(predictions, pictures, strict=True), 1):
            write_bytes(rows / f"{number}-{prediction.image.path.stem}.png", picture)
    if as_json:
        records = [
            {
                "file": str(prediction.image.path),
                "label": prediction.label,
                "class": prediction.name,
                "probabilities": prediction.probabilities,
                "conversion": prediction.image.conversion,
            }
            for prediction in predictions
        ]
        print_json(records)
        return
    for prediction in predictions:
        if loaded.multilabel:
            listed = ", ".join(f"{name} {p:.3f}" for name, p in prediction.probabilities.items())
            converted = ""
        else:
            listed = f"{prediction.probabilities[prediction.name]:.3f}"
            converted = prediction.image.conversion and f"  [{prediction.image.conversion}]"
        echo(f"{prediction.image.path}: {prediction.name or 'none'} ({listed}){converted}")


def _predict_rows(loaded: Checkpoint, files: tuple[Path, ...], as_json: bool) -> None:
    import numpy as np

    from ..jobs import predict_series
    from ..jobs.data.tables import format_table

    answers = [
        (row.recording or str(path), row) for path in files for row in predict_series(loaded, path)
    ]
    if as_json:
        print_json(
            [
                {"file": file, "time": row.time}
                | ({"values": row.values} if loaded.targets else {"class": row.name})
                | ({} if loaded.targets else {"probabilities": row.probabilities})
                for file, row in answers
            ]
        )
        return
    lines = [
        # All digits that the time has, without an exponent.
        [file, np.format_float_positional(row.time, trim="-"), *_cells(row)]
        for file, row in answers
    ]
    names = ["class", *loaded.classes]
    if loaded.targets and answers:
        names = list(answers[0][1].values)
    text = format_table(["file", "time", *names], lines).decode()
    # In a file names are what they are.
    (echo if sys.stdout.isatty() else click.echo)(text, nl=False)


def _cells(row: RowPrediction) -> list[str]:
    if row.values:
        return [f"{value:.9g}" for value in row.values.values()]
    return [row.name, *(f"{p:.4f}" for p in row.probabilities.values())]


@click.command()
@click.argument(
    "runs",
    metavar="RUN...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    shell_complete=completion.run_folder,
)
@path_option("--out", "DIR", "Folder for compare.json and compare.png.")
@JSON
def compare(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """One table (and figure) of the test metrics of RUN...: runs, or folders of --seeds."""
    from rich.table import Table

    from ..jobs import compare as compare_runs

    rows = compare_runs(runs, out)
    if as_json:
        print_json(rows)
        return
    # F1 and average precision are those of a class, and of another class another metric.
    positives = list(dict.fromkeys(row["positive"] for row in rows if row["positive"] is not None))
    columns: list[tuple[str, str | None]] = [("auc", None), ("accuracy", None), ("kappa", None)]
    columns += [(name, None) for name in _VALUE_METRICS]
    columns += [(name, positive) for name in ("f1", "average_precision") for positive in positives]
    shown = [column for column in columns if any(_cell(row, *column) is not None for row in rows)]
    heads = [name if positive is None else f"{name} ({positive})" for name, positive in shown]
    table = Table("run", "model", "parameters", "runs", *heads, box=None)
    for row in rows:
        cells = [_cell(row, *column) or "-" for column in shown]
        parameters = f"{row['trainable_parameters']:,}"
        table.add_row(row["name"], row["model"], parameters, str(row["n"]), *cells)
    console = make_console()
    console.print(table)
    for row in rows:
        for remark in row["remarks"]:
            console.print(f"note: {remark}")


def _cell(row: dict[str, Any], name: str, positive: str | None) -> str | None:
    """A test metric; None where it is that of another class, or there is none."""
    found = row["test"].get(name)
    if found is None or (positive is not None and positive != row["positive"]):
        return None
    deviation = f" +- {found['std']:.4f}" if row["n"] > 1 else ""
    return f"{found['mean']:.4f}{deviation}"
