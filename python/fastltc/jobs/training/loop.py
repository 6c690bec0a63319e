"""Trains a classifier into a run folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..config import TrainConfig
from ..data import DataSet
from ..device import find_device
from ..errors import RunError
from ..evaluation.feed import Feed
from ..evaluation.metrics import classification_metrics
from ..evaluation.probabilities import judged, probabilities
from ..files import interrupts_held_back
from ..run import LAST, Run
from ..unchanged import check_unchanged
from . import parallel
from .fitting import ClosedForm, Gradients
from .log import RunLog, summary_writer
from .task import Task, make_model, read_data

# What log.jsonl and the best checkpoint keep of the validation metrics.
_LOGGED = ("loss", "accuracy", "auc", "f1_macro", "f1", "average_precision")


@dataclass(frozen=True)
class Progress:
    """Functions that `train` calls; each may be None.

    Args:
        start: with the data and the model, before the first step.
        batch: with the number of examples, after each step of the optimizer.
        epoch: with the epoch's record (the line of ``log.jsonl``).
        download: with received and total bytes, while a data file is downloaded.
    """

    start: Callable[[DataSet, nn.Module], None] | None = None
    batch: Callable[[int], None] | None = None
    epoch: Callable[[dict[str, Any]], None] | None = None
    download: Callable[[int, int], None] | None = None


def train(
    config: TrainConfig,
    out: Path | str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Trains a model, keeps the best checkpoint by a validation metric and tests that one.

    Cross-entropy, batches in an order drawn anew each epoch. After each epoch the validation split
    is evaluated and ``last.pt`` written; ``best.pt`` whenever the ``select`` metric improves. The
    test split is evaluated once, at the end, with ``best.pt``. The same configuration and number
    of threads give the same metrics on the same machine. Models with a closed form (a reservoir's
    readout, a probe) are fitted once, which counts as one epoch.

    Ctrl-C ends training early: what the finished epochs left stays and can be evaluated, and
    ``metrics.json`` has the status ``interrupted``. ``resume`` goes on from there; on the CPU with
    the same number of threads it ends on the same bits as a run without the interruption. A run
    that has all its epochs, or that ``patience`` ended, goes on with what comes after the last.

    Started by ``torchrun``, each process computes its share of every batch, and only the first
    writes.

    Sets torch's global seed and, where ``config.threads`` is given, its number of threads.

    Args:
        config: what to train, on what, and how.
        out: the run folder; made once the data is loaded.
        overwrite: replace an earlier run in that folder.
        resume: go on with the run in that folder, which has this configuration (``epochs``,
            ``data_root``, ``threads`` and ``device`` may differ).
        offline: do not download the data set.
        progress: functions to call on the way.

    Returns:
        The run; ``run.metrics["status"]`` is ``finished`` or ``interrupted``.

    Raises:
        fastltc.jobs.data.DataError: the data is unknown, missing or damaged.
        ConfigError: an option does not fit the data or this machine.
        RunError: something is in the place of the run folder, there is nothing to resume, or the
            data has changed since.
        DivergedError: the loss became infinite or NaN.

    Example:
        >>> from fastltc.jobs import TrainConfig, train
        >>> run = train(TrainConfig.for_data("digits", epochs=1), "one-epoch")
        >>> run.metrics["status"]
        'finished'
    """
    progress = progress or Progress()
    device = find_device(config.device)
    config, data, positive = read_data(config, offline=offline, download=progress.download)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model = make_model(config, data, positive, resume=resume)
    with parallel.processes(device) as group:
        task = Task(config, data, positive, model, device, group)
        session = _Session(task, Path(out))
        # Whether the model runs on the device is known before anything is written.
        one = data.splits["val"].take(np.arange(1))
        probabilities(model, Feed(one, device, config.augment_crop, mirror=config.mirror))
        session.open(overwrite=overwrite, resume=resume)
        try:
            return session.train(progress)
        except BaseException as error:
            session.log.status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            # A full disk is the likeliest reason to be here; its error is the one to show.
            with contextlib.suppress(OSError):
                session.log.write_metrics()
            raise


class _Session:
    """One call of `train`: what is trained, how, and what is known about the epochs so far."""

    def __init__(self, task: Task, out: Path) -> None:
        self.task = task
        self.model = task.model
        self.order = torch.Generator().manual_seed(task.config.seed)
        self.fitting: ClosedForm | Gradients = (
            ClosedForm(task, self._metrics)
            if hasattr(task.model, "fit")
            else Gradients(task, self.order, out)
        )
        self.log = RunLog(task, out)

    def open(self, *, overwrite: bool, resume: bool) -> None:
        """Makes the run folder, or takes up the run that is in it."""
        # Before an old run is removed.
        wanted = self.task.config.tensorboard and self.task.group.first
        writer = summary_writer() if wanted else None
        if resume:
            self._take_up(Run.open(self.log.run.path))
        else:
            self.log.create(overwrite=overwrite)
        if writer is not None:
            self.log.open_board(writer)

    def _take_up(self, run: Run) -> None:
        checkpoint = run.load_checkpoint(LAST, str(self.task.device))
        more = self.fitting.epochs - checkpoint.epoch
        # One that was interrupted after its last epoch still has its end to come.
        if more < 0 or (more == 0 and run.complete):
            if isinstance(self.fitting, ClosedForm):
                name = self.task.config.model
                raise RunError(f"{run.path}: a {name} is fitted at once, not resumed")
            raise RunError(
                f"{run.path}: has {checkpoint.epoch} epochs already; give --epochs with more"
            )
        state = checkpoint.training
        if state is None:
            raise RunError(f"{run.path / LAST}: has no state to resume from")
        advice = "Restore the data to resume, or train anew"
        check_unchanged(self.task.data, checkpoint.splits, run.path / LAST, advice)
        try:
            self.model.load_state_dict(checkpoint.model.state_dict())
            self.fitting.load(state)
            self.order.set_state(state["order"])
            torch.set_rng_state(state["random"])
            self.log.take_up(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{run.path / LAST}: damaged checkpoint: {error}") from None

    def _state(self) -> dict[str, Any]:
        """All that decides how training goes on, but for the weights."""
        return {
            "order": self.order.get_state(),
            "random": torch.get_rng_state(),
            "history": self.log.history,
            "best": self.log.best,
            "fitted": self.fitting.fitted,
            "seconds": self.log.seconds,
            **self.fitting.state(),
        }

    def train(self, progress: Progress) -> Run:
        """Trains the epochs that are left, and tests."""
        log, first = self.log, self.task.group.first
        if not first:
            progress = Progress()
        log.write_metrics()
        try:
            if progress.start:
                progress.start(self.task.data, self.model)
            for epoch in range(len(log.history) + 1, self.fitting.epochs + 1):
                # First, so that a run that this ended is not made longer by resuming it.
                if self._is_stale():
                    break
                record = self._epoch(epoch, progress.batch or (lambda count: None))
                if progress.epoch:
                    progress.epoch(record)
            log.status = "finished"
        except KeyboardInterrupt:
            log.status = "interrupted"
        if first:
            try:
                self._finish()
            except KeyboardInterrupt:
                log.status = "interrupted"
                log.write_metrics()
        if log.status == "finished":
            # The others return when all files are there.
            self.task.group.wait()
        return log.run

    def _is_stale(self) -> bool:
        """Whether the best epoch is too long ago."""
        patience, best = self.task.config.patience, self.log.best
        if patience is None or best is None:
            return False
        return len(self.log.history) - int(best["epoch"]) >= patience

    def _epoch(self, epoch: int, seen: Callable[[int], None]) -> dict[str, Any]:
        started = time.perf_counter()
        loss, accuracy = self.fitting.epoch(epoch, seen)
        val = self._metrics("val")
        logged = {name: val[name] for name in _LOGGED}
        record = {
            "epoch": epoch,
            "train_loss": loss,
            "train_accuracy": accuracy,
            **{f"val_{name}": value for name, value in logged.items()},
            "lr": self.fitting.rate,
            "seconds": time.perf_counter() - started,
        }
        self.fitting.after_epoch(val["loss"])
        # All files of an epoch or none.
        with interrupts_held_back():
            self.log.history.append(record)
            self.log.fitted = self.fitting.fitted
            improved = self._is_best(val)
            if improved:
                self.log.best = {"epoch": epoch, **logged}
            self.log.add(record, logged, self._state(), kept=not improved)
        return record

    def _metrics(self, name: str) -> dict[str, Any]:
        """The metrics of the model on a split."""
        data = self.task.data
        scores = probabilities(self.model, self.task.feeds[name], multilabel=data.multilabel)
        labels, scores = judged(data.splits[name].labels, scores)
        return classification_metrics(labels, scores, data.classes, self.task.positive)

    def _is_best(self, val: dict[str, Any]) -> bool:
        """Whether ``select`` improved; on an equal score the smaller loss decides."""
        name, best = self.task.config.select, self.log.best
        if best is None or name == "last":
            return True
        if name == "loss":
            return bool(val["loss"] < best["loss"])
        return bool((val[name], -val["loss"]) > (best[name], -best["loss"]))

    def _finish(self) -> None:
        log = self.log
        # The status first: whatever happens to the pictures, it is right.
        log.write_metrics()
        if log.board is not None:
            log.board.close()
        if log.best is not None:
            best = log.run.load_checkpoint(device=str(self.task.device))
            self.model = best.model
            if log.status == "finished":
                log.test = self._metrics("test")
                log.write_metrics()
                log.draw_confusion(best)
            log.draw(best)
            log.write_card(best)
        log.draw_examples()
        # Now with all files that were written.
        log.write_metrics()
