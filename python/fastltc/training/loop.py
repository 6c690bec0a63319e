"""Trains a classifier into a run folder."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import plots
from ..data import DataSet, Split, load_data, normalise
from ..data.audit import warnings as leak_warnings
from ..models import ConvNCP, build_model, trainable_parameters
from .config import TrainConfig
from .device import find_device
from .errors import ConfigError, DivergedError
from .files import write_bytes
from .interrupts import interrupts_held_back
from .metrics import classification_metrics, find_class
from .predict import probabilities
from .run import BEST, CONFUSION, CURVE, LAST, WIRING, Checkpoint, Run

# What log.jsonl and the best checkpoint keep of the validation metrics.
_LOGGED = ("loss", "accuracy", "auc", "f1_macro", "f1")


@dataclass(frozen=True)
class Progress:
    """Functions that `train` calls; each may be None.

    Args:
        start: with the data and the model, before the first step.
        batch: with the number of images, after each step of the optimizer.
        epoch: with the epoch's record (the line of ``log.jsonl``).
        download: with received and total bytes, while a data file is downloaded.
    """

    start: Callable[[DataSet, ConvNCP], None] | None = None
    batch: Callable[[int], None] | None = None
    epoch: Callable[[dict[str, Any]], None] | None = None
    download: Callable[[int, int], None] | None = None


def train(
    config: TrainConfig,
    out: Path | str,
    *,
    overwrite: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Trains a model, keeps the best checkpoint by a validation metric and tests that one.

    Adam on the cross-entropy, batches in an order drawn anew each epoch. After each epoch the
    validation split is evaluated and ``last.pt`` written; ``best.pt`` whenever the ``select``
    metric improves. The test split is evaluated once, at the end, with ``best.pt``. The same
    configuration and number of threads give the same metrics on the same machine.

    Ctrl-C ends training early: what the finished epochs left stays and can be evaluated, and
    ``metrics.json`` has the status ``interrupted``.

    Sets torch's global seed and, where ``config.threads`` is given, its number of threads.

    Args:
        config: what to train, on what, and how.
        out: the run folder; made once the data is loaded.
        overwrite: replace an earlier run in that folder.
        offline: do not download the data set.
        progress: functions to call on the way.

    Returns:
        The run; ``run.metrics["status"]`` is ``finished`` or ``interrupted``.

    Raises:
        fastltc.data.DataError: the data is unknown, missing or damaged.
        ConfigError: an option does not fit the data or this machine.
        RunError: something is in the place of the run folder.
        DivergedError: the loss became infinite or NaN.

    Example:
        >>> from fastltc.training import TrainConfig, train
        >>> run = train(TrainConfig.for_data("digits", epochs=1), "run")  # doctest: +SKIP
        >>> run.metrics["test"]["accuracy"]  # doctest: +SKIP
    """
    progress = progress or Progress()
    device = find_device(config.device)
    data = load_data(
        config.data, options=config.data_options(offline=offline, progress=progress.download)
    )
    if data.kind != "images" or data.multilabel:
        what = "several labels per image" if data.multilabel else data.kind
        raise ConfigError(f"model: {config.model} classifies images; {data.name} has {what}")
    data = replace(data, remarks=(*data.remarks, *leak_warnings(data)))
    asked = find_class(config.positive, data.classes)
    positive = data.positive if asked is None else asked
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    try:
        model = build_model(
            config.model,
            data.input_shape,
            len(data.classes),
            config.units,
            cell=config.cell,
            gain=config.gain,
            wiring_seed=config.wiring_seed,
        ).to(device)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    # Whether the model runs on the device is known before anything is written.
    probabilities(model, data.splits["val"].inputs[:1], device)
    run = Run.create(out, config, overwrite=overwrite)
    session = _Session(config, run, data, model, positive, device)
    try:
        return session.train(progress)
    except BaseException as error:
        session.status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        # A full disk is the likeliest reason to be here; its error is the one to show.
        with contextlib.suppress(OSError):
            session.write_metrics()
        raise


class _Session:
    """One call of `train`: the model, the optimizer and what is known about the epochs so far."""

    def __init__(
        self,
        config: TrainConfig,
        run: Run,
        data: DataSet,
        model: ConvNCP,
        positive: int | None,
        device: torch.device,
    ) -> None:
        self.config = config
        self.run = run
        self.data = data
        self.model = model
        self.positive = positive
        self.device = device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
        # On the CPU on every device, so that the order of the images is the same.
        self.order = torch.Generator().manual_seed(config.seed)
        self.images = torch.from_numpy(normalise(data.splits["train"].inputs)).to(device)
        self.labels = torch.from_numpy(data.splits["train"].labels).to(device)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.test: dict[str, Any] | None = None
        self.status = "running"
        self.started = time.perf_counter()

    def train(self, progress: Progress) -> Run:
        self.write_metrics()
        if progress.start:
            progress.start(self.data, self.model)
        try:
            for epoch in range(1, self.config.epochs + 1):
                record = self._epoch(epoch, progress)
                if progress.epoch:
                    progress.epoch(record)
            self.status = "finished"
        except KeyboardInterrupt:
            self.status = "interrupted"
        self._finish()
        return self.run

    def _epoch(self, epoch: int, progress: Progress) -> dict[str, Any]:
        started = time.perf_counter()
        loss, accuracy = self._optimize(epoch, progress)
        val = self._metrics(self.data.splits["val"])
        logged = {name: val[name] for name in _LOGGED}
        record = {
            "epoch": epoch,
            "train_loss": loss,
            "train_accuracy": accuracy,
            **{f"val_{name}": value for name, value in logged.items()},
            "lr": self.config.lr,
            "seconds": time.perf_counter() - started,
        }
        checkpoint = Checkpoint(
            config=self.config,
            classes=self.data.classes,
            positive=self.positive,
            image_shape=self.data.input_shape,
            epoch=epoch,
            val=logged,
            model=self.model,
        )
        # All files of an epoch or none.
        with interrupts_held_back():
            if self._is_best(val):
                self.run.save_checkpoint(BEST, checkpoint)
                self.best = {"epoch": epoch, **logged}
            self.run.save_checkpoint(LAST, checkpoint)
            self.run.append_log(record)
            self.history.append(record)
            self.write_metrics()
        return record

    def _optimize(self, epoch: int, progress: Progress) -> tuple[float, float]:
        """One pass over the training split; the mean loss and accuracy on the way."""
        self.model.train()
        count = len(self.labels)
        loss_sum, correct = 0.0, 0
        for batch in torch.randperm(count, generator=self.order).split(self.config.batch_size):
            index = batch.to(self.device)
            labels = self.labels[index]
            logits = self.model(self.images[index])
            loss = nn.functional.cross_entropy(logits, labels)
            value = loss.item()
            if not math.isfinite(value):
                raise DivergedError(
                    f"{self.run.path}: the loss became {value} in epoch {epoch}; try a smaller "
                    f"learning rate than {self.config.lr:g}"
                )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss_sum += value * len(batch)
            correct += int((logits.argmax(dim=1) == labels).sum())
            if progress.batch:
                progress.batch(len(batch))
        return loss_sum / count, correct / count

    def _metrics(self, split: Split) -> dict[str, Any]:
        scores = probabilities(self.model, split.inputs, self.device)
        return classification_metrics(split.labels, scores, self.data.classes, self.positive)

    def _is_best(self, val: dict[str, Any]) -> bool:
        """Whether ``select`` improved; on equal AUC or accuracy the smaller loss decides."""
        if self.best is None:
            return True
        if self.config.select == "loss":
            return bool(val["loss"] < self.best["loss"])
        name = self.config.select
        return bool((val[name], -val["loss"]) > (self.best[name], -self.best["loss"]))

    def _finish(self) -> None:
        # The status first: whatever happens to the pictures, it is right.
        self.write_metrics()
        path = self.run.path
        if self.best is not None:
            best = self.run.load_checkpoint(BEST, str(self.device))
            if self.status == "finished":
                self.model = best.model
                self.test = self._metrics(self.data.splits["test"])
                self.write_metrics()
                picture = plots.confusion_matrix(
                    self.test["confusion_matrix"],
                    self.data.classes,
                    title=f"{self.data.name}, test, epoch {best.epoch}",
                )
                write_bytes(path / CONFUSION, picture)
            write_bytes(
                path / CURVE,
                plots.training_curve(self.history, best_epoch=best.epoch, title=self.data.name),
            )
        write_bytes(path / WIRING, plots.wiring_diagram(self.model.wiring))

    def write_metrics(self) -> None:
        from .. import __version__

        self.run.write_metrics(
            {
                "status": self.status,
                "data": self.data.name,
                "source": self.data.source,
                "images": {name: len(split) for name, split in self.data.splits.items()},
                "remarks": list(self.data.remarks),
                "model": self.config.model,
                "trainable_parameters": trainable_parameters(self.model),
                "seed": self.config.seed,
                "threads": torch.get_num_threads(),
                "device": str(self.device),
                "epochs": len(self.history),
                "selected_by": f"validation {self.config.select}",
                "best_epoch": None if self.best is None else self.best["epoch"],
                "val": self.best,
                "test": self.test,
                "seconds": time.perf_counter() - self.started,
                "versions": {"fastltc": __version__, "torch": torch.__version__},
            }
        )
