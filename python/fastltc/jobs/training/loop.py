"""Trains a model into a run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..config import TrainConfig
from ..data import DataSet
from ..device import find_device
from ..errors import RunError
from ..evaluation.feed import Feed
from ..evaluation.judge import judge_of
from ..files import interrupts_held_back
from ..run import CONFIG, LAST, Checkpoint, Run
from ..unchanged import check_unchanged
from . import parallel
from .epochs import Epochs
from .fitting import ClosedForm
from .log import RunLog, summary_writer
from .task import Task, make_model, read_data


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

    Cross-entropy of classes, or errors of values, in batches of an order drawn anew each epoch.
    After each epoch the validation split is evaluated and ``last.pt`` written; ``best.pt`` whenever
    the ``select`` metric improves. The
    test split is evaluated once, at the end, with ``best.pt``. The same configuration and number
    of threads give the same metrics on the same machine. Models with a closed form (a reservoir's
    readout, a probe) are fitted once, which counts as one epoch.

    One process at a time trains into a folder, as long as its system has ``flock``; another gets a
    RunError that names it.

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
        RunError: something is in the place of the run folder, another process trains into it,
            there is nothing to resume, or the data or ``config.json`` has changed since.
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
    with parallel.processes(device) as group, contextlib.ExitStack() as stack:
        task = Task(config, data, positive, model, device, group)
        session = _Session(task, Path(out))
        # Whether the model runs on the device is known before anything is written.
        one = data.splits["val"].take(np.arange(1))
        one_of = Feed(one, device, config.augment_crop, mirror=config.mirror)
        session.epochs.judge.scores(model, one_of)
        if group.first:
            stack.enter_context(session.folder(overwrite=overwrite, resume=resume))
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
    """One call of `train`: the epochs, and the folder that tells of them."""

    def __init__(self, task: Task, out: Path) -> None:
        self.task = task
        self.epochs = Epochs(task, out)
        self.log = RunLog(self.epochs, out)

    def folder(self, *, overwrite: bool, resume: bool) -> AbstractContextManager[None]:
        """The folder for this process alone; it is made where there is none."""
        run = self.log.run
        if resume:
            Run.open(run.path)
        else:
            # Before anything is in a folder that is not one of a run.
            run.check_place(overwrite=overwrite)
            run.path.mkdir(parents=True, exist_ok=True)
        return run.locked()

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
        changes = checkpoint.config.changes(self.task.config)
        if changes:
            raise RunError(
                f"{run.path / LAST}: trained with {'; '.join(changes)}; restore {CONFIG} to "
                "resume, or train anew"
            )
        more = self.epochs.fitting.epochs - checkpoint.epoch
        # One that was interrupted after its last epoch still has its end to come.
        if more < 0 or (more == 0 and run.complete):
            if isinstance(self.epochs.fitting, ClosedForm):
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
            self.task.model.load_state_dict(checkpoint.model.state_dict())
            self.epochs.load(state)
            self.log.take_up(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{run.path / LAST}: damaged checkpoint: {error}") from None

    def train(self, progress: Progress) -> Run:
        """Trains the epochs that are left, and tests."""
        log, first = self.log, self.task.group.first
        if not first:
            progress = Progress()
        log.write_metrics()
        try:
            if progress.start:
                progress.start(self.task.data, self.task.model)
            for epoch in self.epochs.left:
                # First, so that a run that this ended is not made longer by resuming it.
                if self.epochs.is_stale:
                    break
                record, val = self.epochs.run(epoch, progress.batch or (lambda count: None))
                # All files of an epoch or none.
                with interrupts_held_back():
                    log.add(record, val, kept=not self.epochs.add(record, val))
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

    def _finish(self) -> None:
        log = self.log
        # The status first: whatever happens to the pictures, it is right.
        log.write_metrics()
        if log.board is not None:
            log.board.close()
        if self.epochs.best is not None:
            best = log.run.load_checkpoint(device=str(self.task.device))
            if log.status == "finished":
                scores = self._test(best)
                log.write_metrics()
                log.draw_test(best, scores)
            log.draw(best)
            log.write_card(best)
        log.draw_examples()
        # Now with all files that were written, and as the sign that they are.
        log.complete = True
        log.write_metrics()

    def _test(self, best: Checkpoint) -> NDArray[np.float64]:
        """Judges the test split by the best checkpoint; its scores."""
        judge = judge_of(best, best.config, self.task.positive, best.model)
        scores = judge.scores(best.model, self.task.feeds["test"])
        self.log.test = judge.metrics(np.asarray(self.task.data.splits["test"].labels), scores)
        return scores
