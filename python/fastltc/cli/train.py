"""The commands that train: ``fastltc train`` and ``fastltc recipes``."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..jobs.files import terminated_as_interrupted
from . import completion
from .evaluate import print_metrics
from .options import (
    DATA_ROOT,
    DEVICE,
    OFFLINE,
    POSITIVE,
    THREADS,
    TRAIN_OPTIONS,
    absolute,
    echo,
    make_console,
    options,
    path_option,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from torch import nn

    from ..jobs import Progress as TrainProgress
    from ..jobs import Run, TrainConfig
    from ..jobs.data import DataSet

# As shells report a program ended by Ctrl-C.
INTERRUPTED = 130


@click.command()
@click.argument("data", required=False, shell_complete=completion.data_set)
@options(
    DATA_ROOT,
    OFFLINE,
    path_option(
        "--out",
        "RUN",
        "Run folder to make.  [default: runs/DATA, or the next free runs/DATA-2, ...]",
    ),
    click.option("--overwrite", is_flag=True, help="Replace the run that is in --out."),
    click.option(
        "--recipe",
        metavar="NAME",
        help="Start from a recipe; see: fastltc recipes",
        shell_complete=completion.recipe,
    ),
    path_option(
        "--config",
        "TOML",
        "Start from a file with options of these names (batch_size = 64).",
        "config_file",
    ),
    path_option(
        "--resume",
        "RUN",
        "Go on with an interrupted run, or with --seeds N a folder of seeds; --epochs, "
        "--threads, --device may differ.",
        shell_complete=completion.run_folder,
    ),
    click.option("--seeds", type=int, metavar="N", help="Train with N seeds; mean and deviation."),
    *TRAIN_OPTIONS,
    POSITIVE,
    THREADS,
    DEVICE,
    click.option("--quiet", "-q", is_flag=True, help="Print nothing but the result."),
)
@terminated_as_interrupted()
def train(
    data: str | None,
    out: Path | None,
    overwrite: bool,
    offline: bool,
    quiet: bool,
    recipe: str | None,
    config_file: Path | None,
    resume: Path | None,
    seeds: int | None,
    **options: Any,
) -> None:
    """Train a model on DATA into a run folder: of classes, or of values of a time series.

    DATA is digits (which needs no download), mnist, occupancy, a MedMNIST set (breastmnist, ...),
    folder:PATH (a folder per class), csv:FILE (images and classes, or a time series) or npz:FILE.
    Defaults that depend on the data are in the run's config.json.
    Ctrl-C, as SIGTERM, ends training early and leaves a run that can be evaluated, and resumed.
    """
    from dataclasses import replace

    from ..jobs import Run
    from ..jobs import train as train_run

    absolute_options(options)
    console = make_console()
    if resume is not None:
        new = {"DATA": data, "--out": out, "--recipe": recipe, "--config": config_file}
        _only_for_new(new, options)
        given = {name: value for name, value in options.items() if value is not None}
        if seeds is None and not (resume / "config.json").exists() and any(resume.glob("seed-*")):
            raise click.UsageError(f"{resume} holds runs of several seeds; add --seeds N")
        run = Run.open(resume) if seeds is None else _first_seed(resume)
        config = replace(run.config, **given)
        out = resume
    else:
        config = configuration(data, recipe, config_file, options)
    if out is None:
        out = _next_free(Path("runs") / _short_name(config.data))
    how = {"overwrite": overwrite, "resume": resume is not None, "offline": offline}
    if seeds is not None:
        _train_seeds(console, config, out, seeds, quiet, how)
        return
    done = 0 if resume is None else _epochs_done(resume)
    with _TrainView(console, config, quiet=quiet, done=done) as view:
        run = train_run(config, out, progress=view.callbacks(), **how)
    if not _is_first():
        return  # another process writes
    _print_run(console, run)
    if run.metrics["status"] == "interrupted":
        raise click.exceptions.Exit(INTERRUPTED)


def _is_first() -> bool:
    """Whether this is the one of torchrun's processes that writes."""
    return os.environ.get("RANK", "0") == "0"


def _first_seed(out: Path) -> Run:
    """The run in a folder of seeds that has the smallest."""
    from ..jobs import Run, RunError

    numbers = [path.parent.name.removeprefix("seed-") for path in out.glob("seed-*/config.json")]
    seeds = [int(number) for number in numbers if number.isdecimal()]
    if not seeds:
        raise RunError(f"{out}: has no runs of seeds to resume")
    return Run.open(out / f"seed-{min(seeds)}")


def _epochs_done(run: Path) -> int:
    from ..jobs import Run, RunError

    try:
        return int(Run.open(run).metrics.get("epochs", 0))
    except RunError:
        return 0


def _only_for_new(new: dict[str, Any], options: dict[str, Any]) -> None:
    """Refuses what is given of ``new``, and of the options those that a run keeps."""
    from ..jobs.config import OPTIONS, RESUMABLE

    new |= {OPTIONS[name].flag: value for name, value in options.items() if name not in RESUMABLE}
    given = next((name for name, value in new.items() if value is not None), None)
    if given is not None:
        raise click.UsageError(f"{given} cannot be changed in a run that is resumed")


def absolute_options(options: dict[str, Any]) -> None:
    """Makes paths among the options absolute, so that `evaluate` finds them from another folder."""
    for name in ("data_root", "weights"):
        if options[name] is not None:
            options[name] = str(Path(options[name]).expanduser().resolve())


def configuration(
    data: str | None, recipe: str | None, config_file: Path | None, options: dict[str, Any]
) -> TrainConfig:
    """The configuration: of a recipe, then a file, then the command line; the last one wins."""
    from ..jobs import TrainConfig, read_recipe, read_toml

    given = {name: value for name, value in options.items() if value is not None}
    values: dict[str, Any] = {} if recipe is None else read_recipe(recipe)
    if config_file is not None:
        values = _over(values, read_toml(config_file))
    values = _over(values, given)
    values.pop("about", None)
    named = values.pop("data", "digits")
    return TrainConfig.for_data(absolute(named if data is None else data), **values)


def _over(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``values``, and over them what is ``given``.

    Options of another model than the one given do not go with it and are left out.
    """
    model = given.get("model")
    if model is not None and model != values.get("model"):
        from ..jobs.config import GRADIENT_OPTIONS, MODEL_OPTIONS
        from ..jobs.models import MODELS

        closed_form = model in MODELS and MODELS[model].closed_form
        other = {*MODEL_OPTIONS, *(GRADIENT_OPTIONS if closed_form else ())}
        values = {name: value for name, value in values.items() if name not in other}
    return values | given


def _train_seeds(
    console: Console, config: TrainConfig, out: Path, count: int, quiet: bool, how: dict[str, bool]
) -> None:
    from ..jobs import train_seeds

    views: list[_TrainView] = []
    quiet = quiet or not _is_first()

    def progress(own: TrainConfig) -> TrainProgress:
        for view in views:
            view.bar.stop()
        done = _epochs_done(out / f"seed-{own.seed}") if how["resume"] else 0
        view = _TrainView(console, own, quiet=quiet, done=done)
        views.append(view)
        view.bar.start()
        view.say(f"seed {own.seed}")
        return view.callbacks()

    try:
        summary = train_seeds(config, out, count, progress=progress, **how)
    except KeyboardInterrupt:
        if _is_first():
            echo(
                f"interrupted: finished seeds are in {out}. Go on with: "
                f"fastltc train --resume {out} --seeds {count}"
            )
        raise click.exceptions.Exit(INTERRUPTED) from None
    finally:
        for view in views:
            view.bar.stop()
    if not _is_first():
        return
    seeds = f"seeds {summary['seeds'][0]} to {summary['seeds'][-1]}"
    echo(f"{summary['data']}, {summary['model']}, {seeds}, mean and deviation:")
    for part in ("val", "test"):
        for name, found in summary[part].items():
            low, high = min(found["values"]), max(found["values"])
            echo(
                f"  {part:4s} {name:17s} {found['mean']:.4f} +- {found['std']:.4f}  "
                f"({low:.4f} to {high:.4f})"
            )
    echo(f"written to {out}: seeds.json, training.png and a run for each seed")


@click.command()
@click.argument("name", required=False, shell_complete=completion.recipe)
def recipes(name: str | None) -> None:
    """List the recipes that come with the package, or print the one called NAME."""
    from importlib import resources

    from ..jobs import describe_recipes, read_recipe

    if name is None:
        for known, about in describe_recipes():
            echo(f"{known:36s} {about}")
        return
    read_recipe(name)
    file = resources.files("fastltc.jobs.recipes").joinpath(f"{name}.toml")
    echo(file.read_text(encoding="utf-8"), nl=False)


def _short_name(data: str) -> str:
    """A name for a run folder: of folder:photos/lesions only lesions."""
    return Path(data.partition(":")[2]).expanduser().resolve().stem if ":" in data else data


def _next_free(path: Path) -> Path:
    others = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(place for place in itertools.chain([path], others) if not place.exists())


def _make_bar(console: Console, *, disable: bool) -> Progress:
    """A line that fits the terminal: where that is narrow, what matters less is left out."""
    from rich import progress as bars
    from rich.measure import Measurement
    from rich.table import Table

    columns: dict[bars.ProgressColumn, int] = {
        bars.TextColumn("epoch {task.fields[epoch]}"): 0,
        bars.BarColumn(bar_width=16): 4,
        bars.TextColumn("{task.percentage:>3.0f} %"): 1,
        bars.TextColumn("{task.fields[rate]}"): 5,
        bars.TimeRemainingColumn(compact=True): 3,
        bars.TextColumn("{task.fields[note]}"): 2,
    }

    def width(column: bars.ProgressColumn, task: bars.Task) -> int:
        return Measurement.get(console, console.options, column(task)).maximum

    class Bar(bars.Progress):
        def make_tasks_table(self, tasks: Iterable[bars.Task]) -> Table:
            tasks = list(tasks)
            # Ctrl-C is echoed behind the line as ^C. If that wrapped it, the line would stay, and
            # be there a second time below.
            room = console.width - 2
            chosen: list[bars.ProgressColumn] = []
            for column in sorted(columns, key=columns.__getitem__):
                room -= max((width(column, task) for task in tasks), default=0) + 1
                if room < -1 and chosen:
                    break
                chosen.append(column)
            self.columns = tuple(column for column in columns if column in chosen)
            return super().make_tasks_table(tasks)

        def stop(self) -> None:
            # With older versions of rich also a bar that nobody sees ends with an empty line.
            if not self.disable:
                super().stop()

    return Bar(*columns, console=console, disable=disable)


class _TrainView:
    """What `fastltc train` shows: a bar on a terminal, else a line per epoch."""

    def __init__(
        self, console: Console, config: TrainConfig, *, quiet: bool, done: int = 0
    ) -> None:
        self.console = console
        self.config = config
        self.quiet = quiet
        self.bar = _make_bar(console, disable=quiet or not console.is_terminal)
        self.task: Any = None
        self.started = 0.0
        self.epochs = config.epochs
        self.done = done
        self.images = 0

    def __enter__(self) -> _TrainView:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def callbacks(self) -> TrainProgress:
        from ..jobs import Progress

        return Progress(
            start=self.start, batch=self.batch, epoch=self.epoch, download=self.download
        )

    def say(self, text: str) -> None:
        if self.quiet:
            return
        try:
            self.console.print(text)
        # Whoever read the lines has gone, or the disk is full: no reason to end a training.
        except OSError:
            self.quiet = True

    def start(self, data: DataSet, model: nn.Module) -> None:
        from ..jobs.models import default_model, trainable_parameters

        sizes = " / ".join(f"{len(split)} {name}" for name, split in data.splits.items())
        if data.kind == "series":
            sizes += " sequences"
        told = f"{len(data.classes)} classes"
        if data.targets:
            ahead = f"{data.horizon} steps of " if data.horizon else ""
            told = f"{data.task} of {ahead}{', '.join(data.targets)}"
        self.say(f"{data.name} ({data.source}): {sizes}, {told}")
        for remark in data.remarks:
            self.say(f"note: {remark}")
        name = self.config.model or default_model(data.kind)
        about = getattr(model, "about", "")
        self.say(f"{name}: {trainable_parameters(model):,} trainable parameters, {about}")
        self.epochs = epochs = 1 if hasattr(model, "fit") else self.config.epochs
        size = len(data.splits["train"])
        self.task = self.bar.add_task(
            "",
            total=size * epochs,
            completed=size * self.done,
            epoch=f"{min(self.done + 1, epochs)}/{epochs}",
            rate="",
            note="",
        )
        self.started = time.perf_counter()

    def batch(self, images: int) -> None:
        self.images += images
        rate = self.images / max(time.perf_counter() - self.started, 1e-9)
        self.bar.update(self.task, advance=images, rate=f"{rate:,.0f}/s")

    def epoch(self, record: dict[str, Any]) -> None:
        epoch, epochs = record["epoch"], self.epochs
        if "val_r2" in record:
            r2 = "-" if record["val_r2"] is None else f"{record['val_r2']:.4f}"
            note, scores = f"val R2 {r2[:6]}", f"MAE {record['val_mae']:.5g}, R2 {r2}"
        else:
            auc = "-" if record["val_auc"] is None else f"{record['val_auc']:.4f}"
            note = f"val acc {record['val_accuracy']:.3f} auc {auc[:5]}"
            scores = f"accuracy {record['val_accuracy']:.4f}, AUC {auc}"
        self.bar.update(self.task, epoch=f"{min(epoch + 1, epochs)}/{epochs}", note=note)
        if not self.console.is_terminal:
            self.say(
                f"epoch {epoch}/{epochs}: training loss {record['train_loss']:.4f}, "
                f"validation loss {record['val_loss']:.4f}, {scores}"
            )

    def download(self, received: int, total: int) -> None:
        if self.task is None:
            self.say("downloading ...")
            self.task = self.bar.add_task("", epoch="-", rate="", note="download")
        self.bar.update(self.task, completed=received, total=total)


def _print_run(console: Console, run: Run) -> None:
    metrics = run.metrics
    best = f"best epoch {metrics['best_epoch']}"
    if metrics["status"] != "interrupted":
        console.print(
            f"{best} of {metrics['epochs']} by {metrics['selected_by']}; "
            f"{metrics['seconds']:.1f} s on {metrics['threads']} threads"
        )
        print_metrics(console, "test", metrics["test"])
        console.print(f"written to {run.path}: {', '.join(metrics['files'])}")
    elif metrics["best_epoch"] is None:
        console.print(f"interrupted in the first epoch: {run.path} has no checkpoint")
    else:
        console.print(
            f"interrupted after epoch {metrics['epochs']}; {best} by {metrics['selected_by']}. "
            f"Try: fastltc evaluate {run.path}, or fastltc train --resume {run.path}"
        )
