"""The ``fastltc`` command: info, train, evaluate, predict, export, run.

Only click is imported here. torch, scikit-learn and matplotlib are imported by the commands that
need them, so that ``fastltc --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cli_data import audit, split
from .cli_export import export
from .cli_options import DATA_OPTIONS, absolute

if TYPE_CHECKING:
    from rich.console import Console

    from .data import DataSet
    from .models import ConvNCP
    from .training import Progress as TrainProgress
    from .training import Run, TrainConfig

# As shells report a program ended by Ctrl-C.
_INTERRUPTED = 130


# Errors whose text says all that a user needs, by the module that defines them.
_USER_ERRORS = {
    "fastltc.data.errors": ("DataError",),
    "fastltc.exporting.errors": ("ExportError",),
    "fastltc.runtime.model": ("ModelFileError",),
    "fastltc.training.errors": ("ConfigError", "DivergedError", "RunError"),
}


def _is_user_error(error: Exception) -> bool:
    if isinstance(error, OSError):
        return True
    # Nothing is imported here: where a module was not loaded, the error is not one of its own.
    return any(
        isinstance(error, getattr(sys.modules[module], name))
        for module, names in _USER_ERRORS.items()
        if module in sys.modules
        for name in names
    )


class _Group(click.Group):
    """Commands whose errors for a user's mistake are one message and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("traceback") or not _is_user_error(error):
                raise
            raise click.ClickException(str(error)) from error


def _options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


_DATA_ROOT = click.option(
    "--data-root",
    metavar="DIR",
    help="Folder to look for the data file in first (or the file itself).",
)
_OFFLINE = click.option("--offline", is_flag=True, help="Never download.")
_DEVICE = click.option("--device", metavar="NAME", help="Torch device, for example cpu or cuda.")
_THREADS = click.option("--threads", type=int, metavar="N", help="CPU threads.")
_POSITIVE = click.option(
    "--positive", metavar="CLASS", help="Class that F1 is about: its name or number."
)
_CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="The best epoch by validation, or the last.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fastltc")
@click.option("--traceback", is_flag=True, help="Show where in the program an error was raised.")
@click.pass_context
def main(context: click.Context, traceback: bool) -> None:
    """Liquid neural networks for PyTorch, as quick as an LSTM."""
    if context.invoked_subcommand == "run":
        return  # the script's environment is the user's
    # Read by OpenMP when torch is first imported. By default its threads spin while they wait,
    # which on a machine that is not idle takes the cores from the threads they wait for: an epoch
    # of the digits then takes several times longer than on one thread.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


main.add_command(split)
main.add_command(audit)


@main.command()
@_JSON
def info(as_json: bool) -> None:
    """Print versions, instruction sets, CUDA support and threads."""
    from . import info as report

    collected = report.collect()
    click.echo(json.dumps(collected, indent=2) if as_json else report.format_report(collected))


@main.command()
@click.argument("data", default="digits")
@_options(
    _DATA_ROOT,
    _OFFLINE,
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="RUN",
        help="Run folder to make.  [default: runs/DATA, or the next free runs/DATA-2, ...]",
    ),
    click.option("--overwrite", is_flag=True, help="Replace the run that is in --out."),
    *DATA_OPTIONS,
    click.option("--model", metavar="NAME", help="Model.  [default: conv-ncp]"),
    click.option("--cell", metavar="NAME", help="Recurrent cell.  [default: ltc]"),
    click.option("--units", type=int, metavar="N", help="Neurons of the wiring."),
    click.option("--gain", type=float, help="Factor on the motor neurons' outputs."),
    click.option("--wiring-seed", type=int, metavar="N", help="Seed of the wiring."),
    click.option("--epochs", type=int, metavar="N", help="Passes over the training images."),
    click.option("--batch-size", type=int, metavar="N", help="Images per step."),
    click.option("--lr", type=float, help="Learning rate of Adam."),
    click.option("--select", metavar="METRIC", help="What the best epoch is: loss, auc, accuracy."),
    _POSITIVE,
    click.option("--seed", type=int, metavar="N", help="Seed of parameters and image order."),
    _THREADS,
    _DEVICE,
    click.option("--quiet", "-q", is_flag=True, help="Print nothing but the result."),
)
def train(
    data: str, out: Path | None, overwrite: bool, offline: bool, quiet: bool, **options: Any
) -> None:
    """Train a classifier on DATA into a run folder.

    DATA is digits (which needs no download), mnist, occupancy, a MedMNIST set (breastmnist, ...),
    folder:PATH (a folder per class), csv:FILE (images and classes, or a time series) or npz:FILE.
    Defaults that depend on the data are in the run's config.json.
    Ctrl-C ends training early and leaves a run that can be evaluated.
    """
    from rich.console import Console

    from .training import TrainConfig
    from .training import train as train_run

    if options["data_root"] is not None:
        # So that `evaluate` finds it from another folder.
        options["data_root"] = str(Path(options["data_root"]).expanduser().resolve())
    config = TrainConfig.for_data(absolute(data), **options)
    console = Console(soft_wrap=True, highlight=False)
    out = _next_free(Path("runs") / _short_name(data)) if out is None else out
    view = _TrainView(console, config, quiet=quiet)
    with view:
        run = train_run(
            config, out, overwrite=overwrite, offline=offline, progress=view.callbacks()
        )
    _print_run(console, run)
    if run.metrics["status"] == "interrupted":
        raise click.exceptions.Exit(_INTERRUPTED)


def _short_name(data: str) -> str:
    """A name for a run folder: of folder:photos/lesions only lesions."""
    return Path(data.partition(":")[2]).expanduser().resolve().stem if ":" in data else data


def _next_free(path: Path) -> Path:
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


class _TrainView:
    """What `fastltc train` shows: a bar on a terminal, else a line per epoch."""

    def __init__(self, console: Console, config: TrainConfig, *, quiet: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = console
        self.config = config
        self.quiet = quiet
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self.task: Any = None
        self.started = 0.0
        self.images = 0

    def __enter__(self) -> _TrainView:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def callbacks(self) -> TrainProgress:
        from .training import Progress

        return Progress(
            start=self.start, batch=self.batch, epoch=self.epoch, download=self.download
        )

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, markup=False)

    def start(self, data: DataSet, model: ConvNCP) -> None:
        from .models import trainable_parameters

        sizes = " / ".join(f"{len(split)} {name}" for name, split in data.splits.items())
        self.say(f"{data.name} ({data.source}): {sizes}, {len(data.classes)} classes")
        for remark in data.remarks:
            self.say(f"note: {remark}")
        self.say(
            f"{self.config.model}: {trainable_parameters(model):,} trainable parameters, "
            f"{self.config.cell.upper()} with {self.config.units} neurons"
        )
        total = len(data.splits["train"]) * self.config.epochs
        self.task = self.bar.add_task(
            "", total=total, epoch=f"1/{self.config.epochs}", rate="", note=""
        )
        self.started = time.perf_counter()

    def batch(self, images: int) -> None:
        self.images += images
        rate = self.images / max(time.perf_counter() - self.started, 1e-9)
        self.bar.update(self.task, advance=images, rate=f"{rate:,.0f} images/s")

    def epoch(self, record: dict[str, Any]) -> None:
        epoch, epochs = record["epoch"], self.config.epochs
        auc = "-" if record["val_auc"] is None else f"{record['val_auc']:.4f}"
        # Short enough for the whole bar to fit 80 columns.
        note = f"val acc {record['val_accuracy']:.3f} auc {auc[:5]}"
        self.bar.update(self.task, epoch=f"{min(epoch + 1, epochs)}/{epochs}", note=note)
        if not self.console.is_terminal:
            self.say(
                f"epoch {epoch}/{epochs}: training loss {record['train_loss']:.4f}, "
                f"validation loss {record['val_loss']:.4f}, "
                f"accuracy {record['val_accuracy']:.4f}, AUC {auc}"
            )

    def download(self, received: int, total: int) -> None:
        if self.task is None:
            self.say("downloading ...")
            self.task = self.bar.add_task("", epoch="-", rate="", note="download")
        self.bar.update(self.task, completed=received, total=total)


def _print_run(console: Console, run: Run) -> None:
    metrics = run.metrics
    if metrics["status"] == "interrupted":
        if metrics["best_epoch"] is None:
            text = f"interrupted in the first epoch: {run.path} has no checkpoint"
        else:
            text = (
                f"interrupted after epoch {metrics['epochs']}; best epoch {metrics['best_epoch']} "
                f"by {metrics['selected_by']}. Try: fastltc evaluate {run.path}"
            )
        console.print(text, markup=False)
        return
    console.print(
        f"best epoch {metrics['best_epoch']} of {metrics['epochs']} by {metrics['selected_by']}; "
        f"{metrics['seconds']:.1f} s on {metrics['threads']} threads",
        markup=False,
    )
    _print_metrics(console, "test", metrics["test"])
    files = ", ".join(sorted(path.name for path in run.path.iterdir()))
    console.print(f"written to {run.path}: {files}", markup=False)


def _print_metrics(console: Console, split: str, metrics: dict[str, Any]) -> None:
    auc = "undefined (a class is missing)" if metrics["auc"] is None else f"{metrics['auc']:.4f}"
    lines = [
        f"{split}: {metrics['n']} images",
        f"  accuracy  {metrics['accuracy']:.4f}",
        f"  AUC       {auc}",
        f"  F1 macro  {metrics['f1_macro']:.4f}",
    ]
    positive = metrics["positive_class"]
    if positive is not None:
        lines.append(
            f"  F1        {metrics['f1']:.4f}  "
            f"(positive class: {positive['name']}, label {positive['label']})"
        )
    console.print("\n".join(lines), markup=False)


@main.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@_options(
    click.option(
        "--split",
        type=click.Choice(["train", "val", "test"]),
        default="test",
        show_default=True,
        help="Part of the data.",
    ),
    _POSITIVE,
    _CHECKPOINT,
    _DATA_ROOT,
    _OFFLINE,
    _THREADS,
    _DEVICE,
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder for the JSON and the picture.  [default: RUN]",
    ),
    _JSON,
)
def evaluate(
    run: Path,
    split: str,
    checkpoint: str,
    threads: int | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate a RUN: AUC, accuracy, F1 and the confusion matrix.

    Writes evaluation-SPLIT.json and confusion-SPLIT.png.
    """
    from rich.console import Console
    from rich.table import Table

    from .training import Run
    from .training import evaluate as evaluate_run

    _set_threads(threads)
    result = evaluate_run(Run.open(run), split, checkpoint=f"{checkpoint}.pt", out=out, **options)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{run}, {checkpoint} checkpoint (epoch {result['epoch']})", markup=False)
    _print_metrics(console, f"{result['data']} {split}", result)
    names = [entry["name"] for entry in result["per_class"]]
    table = Table("true \\ predicted", *names, "recall", "precision", "F1", box=None)
    for entry, row in zip(result["per_class"], result["confusion_matrix"], strict=True):
        scores = [f"{entry[name]:.3f}" for name in ("recall", "precision", "f1")]
        table.add_row(entry["name"], *(str(count) for count in row), *scores)
    console.print(table)
    folder = run if out is None else out
    console.print(
        f"written: {folder / f'evaluation-{split}.json'}, {folder / f'confusion-{split}.png'}",
        markup=False,
    )


@main.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@_options(
    click.option(
        "--invert", is_flag=True, help="Exchange dark and light (digits are light on dark)."
    ),
    _CHECKPOINT,
    _THREADS,
    _DEVICE,
    _JSON,
)
def predict(
    run: Path,
    images: tuple[Path, ...],
    invert: bool,
    checkpoint: str,
    threads: int | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Classify IMAGE files (PNG, JPEG, ...) with the model of a RUN.

    Each image is converted to the size and the channels of the training images: the whole picture
    is resized, nothing is cropped, so another aspect ratio is squeezed; transparency becomes
    black. The output says what was done.
    """
    from .training import Run
    from .training import predict as predict_images

    _set_threads(threads)
    loaded = Run.open(run).load_checkpoint(f"{checkpoint}.pt", device)
    predictions = predict_images(loaded, images, invert=invert)
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
        click.echo(json.dumps(records, indent=2))
        return
    for prediction in predictions:
        probability = prediction.probabilities[prediction.name]
        converted = prediction.image.conversion
        click.echo(
            f"{prediction.image.path}: {prediction.name} ({probability:.3f})"
            + (f"  [{converted}]" if converted else "")
        )


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-m", "module", is_flag=True, help="SCRIPT is the name of a module.")
@click.option("--report", is_flag=True, help="Print at the end what of ncps was swapped.")
@click.argument("script")
@click.argument("arguments", metavar="ARGS...", nargs=-1, type=click.UNPROCESSED)
def run(module: bool, report: bool, script: str, arguments: tuple[str, ...]) -> None:
    """Run SCRIPT, written for ncps, with the modules of fastltc.

    As `python SCRIPT ARGS...` or `python -m SCRIPT ARGS...` runs it; nothing is edited.
    """
    from .script import ScriptNotFoundError, run_script

    try:
        run_script(script, arguments, module=module, report=report)
    except ScriptNotFoundError as error:
        click.echo(f"Error: {error}", err=True)
        raise click.exceptions.Exit(error.status) from None


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    if threads < 1:
        raise click.BadParameter(f"expected at least 1, got {threads}", param_hint="--threads")
    import torch

    torch.set_num_threads(threads)


main.add_command(export)

if __name__ == "__main__":
    main()
