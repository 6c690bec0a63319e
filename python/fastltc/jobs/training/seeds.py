"""One run with several seeds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from .. import plots
from ..config import TrainConfig
from ..data import DataSet
from ..device import find_device
from ..errors import ConfigError, RunError
from ..evaluation.comparison import summarise
from ..files import format_json, write_all
from ..lock import locked
from ..options import AT_LEAST_2
from ..run import CONFIG, CURVE, LAST, LOCK, SEEDS, Run, remove_unfinished
from . import parallel
from .loop import Progress, train


def train_seeds(
    config: TrainConfig,
    out: Path | str,
    count: int,
    *,
    overwrite: bool = False,
    resume: bool = False,
    offline: bool = False,
    progress: Callable[[TrainConfig], Progress] | None = None,
) -> dict[str, Any]:
    """Trains with ``count`` seeds, from ``config.seed`` on, into ``OUT/seed-N``.

    Started by ``torchrun``, all processes train each seed together, and only the first writes.

    Args:
        config: what to train.
        out: the folder that gets the runs and ``seeds.json``.
        count: how many seeds, at least 2.
        overwrite: replace earlier runs there, those of other seeds too.
        resume: keep the finished seeds that are there, go on with an interrupted one and train
            those that are missing.
        offline: do not download the data set.
        progress: makes the functions to call on the way, for each run.

    Returns:
        What ``seeds.json`` holds: the mean and the standard deviation (of a sample, n - 1) of each
        metric on validation and test split, and the values of the seeds. ``training.png`` beside it
        has the epochs of all.

    Raises:
        ConfigError: fewer than two seeds.
        RunError: something is in the place of one of the run folders, or ``resume`` finds a run
            of another configuration; nothing has been trained then.
        KeyboardInterrupt: training was interrupted; what is finished stays.
    """
    AT_LEAST_2.check("seeds", count, ConfigError)
    out = Path(out)
    seeds = [replace(config, seed=config.seed + number) for number in range(count)]
    runs = [Run(out / f"seed-{own.seed}") for own in seeds]
    # Every process looks before the first one changes anything.
    pairs = zip(seeds, runs, strict=True)
    steps = [_step(own, run, overwrite=overwrite, resume=resume) for own, run in pairs]
    found = out.glob(f"seed-*/{CONFIG}") if overwrite and not resume else ()
    others = [path.parent for path in found if Run(path.parent) not in runs]

    def watch(own: TrainConfig) -> Progress:
        """The functions to call; the first, when a run has its data and its folder, tidies up."""
        given = Progress() if progress is None else progress(own)

        def start(data: DataSet, model: nn.Module) -> None:
            # What would not belong to the new runs.
            for name in (SEEDS, CURVE):
                (out / name).unlink(missing_ok=True)
            while others:
                Run(others.pop()).remove()
            if given.start is not None:
                given.start(data, model)

        return replace(given, start=start)

    with parallel.processes(find_device(config.device)) as group, ExitStack() as stack:
        group.wait()
        if group.first:
            out.mkdir(parents=True, exist_ok=True)
            # Where nothing came of it.
            stack.callback(_remove_empty, out)
            stack.enter_context(locked(out / LOCK))
            remove_unfinished(out, [SEEDS, CURVE])
        for own, run, step in zip(seeds, runs, steps, strict=True):
            if step == _KEEP:
                continue
            train(
                own,
                run.path,
                overwrite=step == _ANEW,
                resume=step == _RESUME,
                offline=offline,
                progress=watch(own),
            )
            if run.metrics["status"] != "finished":
                raise KeyboardInterrupt
        summary = summarise(runs)
        if group.first:
            histories = {f"seed {own.seed}": run.log for own, run in zip(seeds, runs, strict=True)}
            title = f"{summary['model']} on {summary['data']}"
            picture = plots.training_curves(histories, title=title)
            write_all({out / SEEDS: format_json(summary), out / CURVE: picture})
        group.wait()
    return summary


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


# What is to be done for a seed.
_KEEP, _RESUME, _NEW, _ANEW = "keep", "resume", "new", "anew"


def _step(config: TrainConfig, run: Run, *, overwrite: bool, resume: bool) -> str:
    if not resume or not (run.path / CONFIG).is_file():
        run.check_place(overwrite=overwrite)
        return _ANEW if overwrite else _NEW
    known = run.config
    # The default model is written into the configuration of a run.
    asked = config if config.model is not None else replace(config, model=known.model)
    changes = known.changes(asked)
    if changes:
        raise RunError(f"{run.path}: has {'; '.join(changes)}; cannot be resumed")
    if run.complete and known.epochs == config.epochs:
        return _KEEP
    # Without a finished epoch there is nothing to go on from.
    return _RESUME if (run.path / LAST).is_file() else _ANEW
