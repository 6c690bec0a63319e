"""Trains a classifier into a run folder."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import plots
from ..config import CLASS_WEIGHTS, TrainConfig
from ..data import DataSet, Split, load_data
from ..data.audit import warnings as leak_warnings
from ..device import find_device
from ..errors import ConfigError, DivergedError, RunError
from ..evaluation.feed import Feed
from ..evaluation.metrics import classification_metrics, find_class
from ..evaluation.probabilities import judged, probabilities
from ..files import write_all
from ..interrupts import interrupts_held_back
from ..models import (
    Ensemble,
    MissingTorchvisionError,
    build_model,
    default_model,
    load_weights,
    trainable_parameters,
)
from ..plots.liquid_layer import network_of
from ..run import (
    BEST,
    CONFIG,
    CONFUSION,
    CURVE,
    EXAMPLES,
    GRAPH,
    LAST,
    LOG,
    METRICS,
    TENSORBOARD,
    WIRING,
    Checkpoint,
    Run,
    evaluation_files,
)
from ..unchanged import check_unchanged, fingerprints
from . import parallel
from .augment import make_augment
from .objective import Objective
from .schedule import Schedule

# What log.jsonl and the best checkpoint keep of the validation metrics.
_LOGGED = ("loss", "accuracy", "auc", "f1_macro", "f1", "average_precision")
_OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
}
_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
        >>> run = train(TrainConfig.for_data("digits", epochs=1), "run")  # doctest: +SKIP
        >>> run.metrics["test"]["accuracy"]  # doctest: +SKIP
    """
    progress = progress or Progress()
    device = find_device(config.device)
    data = load_data(
        config.data, options=config.data_options(offline=offline, progress=progress.download)
    )
    data = replace(data, remarks=(*data.remarks, *leak_warnings(data)))
    if config.model is None:
        config = replace(config, model=default_model(data.kind))
    asked = find_class(config.positive, data.classes)
    positive = data.positive if asked is None else asked
    if config.select in ("f1", "average_precision") and positive is None:
        raise ConfigError(
            f"select: {config.select} is that of one class; name it (--positive CLASS), or take "
            "f1_macro"
        )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    shape = config.model_shape(data.input_shape)
    try:
        assert config.model is not None
        model_options = config.model_options()
        if resume:
            # The weights come from the checkpoint, not from where the run had its first from.
            model_options["pretrained"] = None
        model = build_model(config.model, shape, len(data.classes), **model_options)
        if config.weights is not None and not resume:
            load_weights(model, config.weights)
    except (ValueError, MissingTorchvisionError) as error:
        raise ConfigError(str(error)) from None
    if hasattr(model, "fit"):
        if data.multilabel:
            raise ConfigError(
                f"model: {config.model} knows no several labels; {data.name} has them"
            )
        config.check_closed_form()
    _check_select(config.select, data, positive)
    with parallel.processes(device) as group:
        group.synchronise_batch_norm(model)
        session = _Session(config, Path(out), data, model.to(device), positive, device, group)
        # Whether the model runs on the device is known before anything is written.
        probabilities(model, session.feeds["val"].head(1))
        session.open(overwrite=overwrite, resume=resume)
        try:
            return session.train(progress)
        except BaseException as error:
            session.status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            # A full disk is the likeliest reason to be here; its error is the one to show.
            with contextlib.suppress(OSError):
                session.write_metrics()
            raise


def _check_select(select: str, data: DataSet, positive: int | None) -> None:
    """Makes sure that the validation split has what the metric to select by is made of."""
    if select not in ("auc", "f1", "average_precision"):
        return  # there whatever the classes are
    split = data.splits["val"]
    shape = split.labels.shape if data.multilabel else (*split.labels.shape, len(data.classes))
    labels, scores = judged(split.labels, np.full(shape, 1 / len(data.classes)))
    if classification_metrics(labels, scores, data.classes, positive)[select] is None:
        raise ConfigError(
            f"select: no {select} on the validation split of {data.name}, which lacks a class; "
            "take another metric, such as loss, or another split"
        )


class _Session:
    """One call of `train`: the model, the optimizer and what is known about the epochs so far."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        data: DataSet,
        model: nn.Module,
        positive: int | None,
        device: torch.device,
        group: parallel.Group,
    ) -> None:
        self.config = config
        self.run = Run(out)
        self.data = data
        self.model = model
        self.positive = positive
        self.device = device
        self.group = group
        self.closed_form = hasattr(model, "fit")
        self.feeds = {
            name: Feed(split, device, config.augment_crop, mirror=config.mirror)
            for name, split in data.splits.items()
        }
        self.fingerprints = fingerprints(data)
        self.augment = make_augment(config, data.input_shape)
        if config.mirror and data.kind != "images":
            raise ConfigError("mirror: only images can be mirrored")
        fit_scales: Any = getattr(model, "fit_scales", None)
        if fit_scales is not None:
            fit_scales(self.feeds["train"].inputs)
        self.order = torch.Generator().manual_seed(config.seed)
        if not self.closed_form:
            self._prepare_optimizer()
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.best_digest: str | None = None
        # Names of the files that this call has written.
        self.written: set[str] = set()
        self.test: dict[str, Any] | None = None
        self.fitted: dict[str, float] | None = None
        self.status = "running"
        self.seconds_before = 0.0
        self.started = time.perf_counter()
        self.board: Any = None

    def _prepare_optimizer(self) -> None:
        config = self.config
        # Frozen parameters, such as a wiring's mask, have nothing to learn.
        trained = [p for p in self.model.parameters() if p.requires_grad]
        # One pass over all parameters; the models are small, and a call for each takes longer than
        # its arithmetic. NAdam has none.
        fused = {} if config.optimizer == "nadam" else {"fused": True}
        self.optimizer: torch.optim.Optimizer = _OPTIMIZERS[config.optimizer](
            trained, lr=config.lr, weight_decay=config.weight_decay, **fused
        )
        steps = -(-len(self.feeds["train"]) // config.batch_size)
        self.schedule = Schedule(config, self.optimizer, steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.objective = Objective(
            self.feeds["train"].labels,
            len(self.data.classes),
            multilabel=self.data.multilabel,
            balance=CLASS_WEIGHTS[config.class_weights],
            smoothing=config.label_smoothing,
        )

    def open(self, *, overwrite: bool, resume: bool) -> None:
        """Makes the run folder, or takes up the run that is in it."""
        writer = None
        if self.config.tensorboard and self.group.first:
            # Before an old run is removed.
            writer = _summary_writer()
        if resume:
            self._take_up(Run.open(self.run.path))
        elif self.group.first:
            self.run = Run.create(self.run.path, self.config, overwrite=overwrite)
            self.written.add(CONFIG)
        if writer is not None:
            self.written.add(f"{TENSORBOARD}/")
            self.board = writer(str(self.run.path / TENSORBOARD))

    def _take_up(self, run: Run) -> None:
        checkpoint = run.load_checkpoint(LAST, str(self.device))
        more = self._epochs() - checkpoint.epoch
        # One that was interrupted after its last epoch still has its end to come.
        if more < 0 or (more == 0 and run.complete):
            if self.closed_form:
                raise RunError(f"{run.path}: a {self.config.model} is fitted at once, not resumed")
            raise RunError(
                f"{run.path}: has {checkpoint.epoch} epochs already; give --epochs with more"
            )
        if checkpoint.training is None:
            raise RunError(f"{run.path / LAST}: has no state to resume from")
        check_unchanged(
            self.data,
            checkpoint.splits,
            run.path / LAST,
            "Restore the data to resume, or train anew",
        )
        state = checkpoint.training
        try:
            self.model.load_state_dict(checkpoint.model.state_dict())
            if not self.closed_form:
                self.optimizer.load_state_dict(state["optimizer"])
                self.schedule.load(state["schedule"])
                self.scaler.load_state_dict(state["scaler"])
            self.order.set_state(state["order"])
            torch.set_rng_state(state["random"])
            self.history = state["history"]
            self.best = state["best"]
            self.best_digest = run.digest(BEST)
            self.fitted = state.get("fitted")
            self.seconds_before = state["seconds"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{run.path / LAST}: damaged checkpoint: {error}") from None
        if self.group.first:
            run.remove_unfinished()
            run.write_config(self.config)
            run.write_log(self.history)
            self.written |= {CONFIG, LOG}

    def train(self, progress: Progress) -> Run:
        self.write_metrics()
        try:
            if progress.start and self.group.first:
                progress.start(self.data, self.model)
            for epoch in range(len(self.history) + 1, self._epochs() + 1):
                # First, so that a run that this ended is not made longer by resuming it.
                if self._is_stale():
                    break
                record = self._epoch(epoch, progress)
                if progress.epoch and self.group.first:
                    progress.epoch(record)
            self.status = "finished"
        except KeyboardInterrupt:
            self.status = "interrupted"
        if self.group.first:
            try:
                self._finish()
            except KeyboardInterrupt:
                self.status = "interrupted"
                self.write_metrics()
        if self.status == "finished":
            # The others return when all files are there.
            self.group.wait()
        return self.run

    def _epochs(self) -> int:
        return 1 if self.closed_form else self.config.epochs

    def _is_stale(self) -> bool:
        """Whether the best epoch is too long ago."""
        patience = self.config.patience
        if patience is None or self.best is None:
            return False
        return len(self.history) - int(self.best["epoch"]) >= patience

    def _epoch(self, epoch: int, progress: Progress) -> dict[str, Any]:
        started = time.perf_counter()
        if self.closed_form:
            loss, accuracy = self._fit(progress)
        else:
            loss, accuracy = self._optimize(epoch, progress)
        val = self._metrics("val")
        logged = {name: val[name] for name in _LOGGED}
        record = {
            "epoch": epoch,
            "train_loss": loss,
            "train_accuracy": accuracy,
            **{f"val_{name}": value for name, value in logged.items()},
            "lr": 0.0 if self.closed_form else self.optimizer.param_groups[0]["lr"],
            "seconds": time.perf_counter() - started,
        }
        if not self.closed_form:
            self.schedule.after_epoch(val["loss"])
        # All files of an epoch or none.
        with interrupts_held_back():
            self.history.append(record)
            improved = self._is_best(val)
            if improved:
                self.best = {"epoch": epoch, **logged}
            if self.group.first:
                self._save(epoch, logged, improved=improved)
                self.run.append_log(record)
                self.written.add(LOG)
                self.write_metrics()
                self._write_board(record)
        return record

    def _save(self, epoch: int, logged: dict[str, Any], *, improved: bool) -> None:
        checkpoint = Checkpoint(
            config=self.config,
            classes=self.data.classes,
            positive=self.positive,
            image_shape=self.data.input_shape,
            epoch=epoch,
            val=logged,
            model=self.model,
            features=self.data.features,
            time_unit=self.data.time_unit,
            multilabel=self.data.multilabel,
            splits=self.fingerprints,
        )
        made = {BEST: checkpoint} if improved else {}
        made[LAST] = replace(checkpoint, training=self._state())
        kept = [] if improved or self.best_digest is None else [self.best_digest]
        digests = self.run.save_checkpoints(made, kept)
        self.best_digest = digests.get(BEST, self.best_digest)
        self.written.update(made)

    def _state(self) -> dict[str, Any]:
        """All that decides how training goes on, but for the weights."""
        state = {
            "order": self.order.get_state(),
            "random": torch.get_rng_state(),
            "history": self.history,
            "best": self.best,
            "fitted": self.fitted,
            "seconds": self._seconds(),
        }
        if not self.closed_form:
            state |= {
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state(),
                "scaler": self.scaler.state_dict(),
            }
        return state

    def _fit(self, progress: Progress) -> tuple[float, float]:
        """Fits a model in closed form; its loss and accuracy on the training split."""

        def batches(name: str) -> Iterator[tuple[Tensor, Tensor]]:
            for inputs, labels in self.feeds[name].chunks():
                yield inputs[0], labels
                if progress.batch and name == "train" and self.group.first:
                    progress.batch(len(labels))

        fit: Any = self.model.fit
        try:
            self.fitted = fit(lambda: batches("train"), lambda: batches("val"))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        train = self._metrics("train")
        return train["loss"], train["accuracy"]

    def _optimize(self, epoch: int, progress: Progress) -> tuple[float, float]:
        """One pass over the training split; the mean loss and accuracy on the way."""
        self.model.train()
        self.group.seed(self.config.seed, epoch)
        feed = self.feeds["train"]
        loss_sum, correct, count = 0.0, 0.0, 0
        # Drawn on the CPU on every device, so that the order of the examples is the same.
        order = torch.randperm(len(feed), generator=self.order)
        for batch in order.split(self.config.batch_size):
            self.schedule.before_step()
            value, right, rows = self._step(feed, batch)
            if not math.isfinite(value):
                raise DivergedError(
                    f"{self.run.path}: the loss became {value} in epoch {epoch}; try a smaller "
                    f"learning rate than {self.config.lr:g}"
                )
            loss_sum += value * rows
            correct += right
            count += rows
            if progress.batch and self.group.first:
                progress.batch(len(batch))
        return loss_sum / count, correct / count

    def _step(self, feed: Feed, batch: Tensor) -> tuple[float, float, int]:
        """One step of the optimizer: the batch's mean loss, right answers and judged rows."""
        config = self.config
        batch = batch.to(self.device)
        total = self.objective.divisor(feed.labels[batch])
        self.optimizer.zero_grad()
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), dtype=torch.float64, device=self.device)
        # No more parts than any process has examples for; a process without some takes part in the
        # sums all the same.
        largest = -(-len(batch) // self.group.size)
        for part in self.group.share(batch).tensor_split(min(config.accumulate, largest)):
            inputs, labels = feed.take(part, self.augment), feed.labels[part]
            with torch.autocast(
                self.device.type, _AMP.get(config.amp), enabled=config.amp != "none"
            ):
                logits = self._logits(inputs)
            # Each member of an ensemble has a loss of its own; a single model is an only member.
            loss = torch.stack([self.objective.loss(own, labels) for own in logits]).sum() / total
            self.scaler.scale(loss).backward()
            loss_sum += loss.detach() / len(logits)
            right += self.objective.right(torch.stack(logits).detach().mean(dim=0), labels)
        loss_value, right_count = self.group.sums(loss_sum, right)
        if math.isfinite(loss_value):
            self.group.sum_gradients(self.model)
            if config.clip_norm is not None:
                self.scaler.unscale_(self.optimizer)
                # Of an ensemble each by itself, as if it were alone.
                members = self.model.members if isinstance(self.model, Ensemble) else [self.model]
                for member in members:
                    nn.utils.clip_grad_norm_(member.parameters(), config.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss_value, right_count, self.objective.count(feed.labels[batch])

    def _logits(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        if isinstance(self.model, Ensemble):
            return self.model.each(*inputs)
        return [self.model(*inputs)]

    def _metrics(self, name: str) -> dict[str, Any]:
        split: Split = self.data.splits[name]
        scores = probabilities(self.model, self.feeds[name], multilabel=self.data.multilabel)
        labels, scores = judged(split.labels, scores)
        return classification_metrics(labels, scores, self.data.classes, self.positive)

    def _is_best(self, val: dict[str, Any]) -> bool:
        """Whether ``select`` improved; on an equal score the smaller loss decides."""
        if self.best is None or self.config.select == "last":
            return True
        if self.config.select == "loss":
            return bool(val["loss"] < self.best["loss"])
        name = self.config.select
        return bool((val[name], -val["loss"]) > (self.best[name], -self.best["loss"]))

    def _finish(self) -> None:
        # The status first: whatever happens to the pictures, it is right.
        self.write_metrics()
        if self.board is not None:
            self.board.close()
        if self.best is not None:
            best = self.run.load_checkpoint(BEST, str(self.device))
            self.model = best.model
            if self.status == "finished":
                self.test = self._metrics("test")
                self.write_metrics()
                self._write_confusion(best)
            self._write_picture(
                CURVE,
                plots.training_curve(
                    self.history, best_epoch=best.epoch, title=self.data.name, of=best.origin
                ),
            )
            network = network_of(best.model, best.classes, best.features)
            if network is not None:
                self._write_picture(WIRING, plots.wiring_diagram(network, of=best.origin))
            if network is not None and network.drawable:
                graph = plots.wiring_graph(network, title=network.title, of=best.origin)
                self._write_picture(GRAPH, graph)
        if self.data.kind == "images" and not self.data.multilabel:
            train = self.data.splits["train"]
            picture = plots.montage(
                train.inputs, train.labels, self.data.classes, title=self.data.name
            )
            self._write_picture(EXAMPLES, picture)
        # Now with all files that were written.
        self.write_metrics()

    def _write_confusion(self, best: Checkpoint) -> None:
        assert self.test is not None
        if self.test["confusion_matrix"] is None:
            return
        picture = plots.confusion_matrix(
            self.test["confusion_matrix"],
            self.data.classes,
            title=f"{self.data.name}, test",
            of=best.origin,
        )
        # One that `evaluate` has left may be of other data or of the last checkpoint.
        self._write_picture(CONFUSION, picture, evaluation_files(self.run.path, "test"))

    def _write_picture(self, name: str, picture: bytes, stale: Iterable[Path] = ()) -> None:
        write_all({self.run.path / name: picture}, stale)
        self.written.add(name)

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def _write_board(self, record: dict[str, Any]) -> None:
        if self.board is None:
            return
        for name, value in record.items():
            if name != "epoch" and value is not None:
                self.board.add_scalar(name, value, record["epoch"])
        self.board.flush()

    def write_metrics(self) -> None:
        from ... import __version__

        if not self.group.first:
            return
        self.written.add(METRICS)
        self.run.write_metrics(
            {
                "status": self.status,
                "data": self.data.name,
                "source": self.data.source,
                "images": {name: len(split) for name, split in self.data.splits.items()},
                "splits": self.fingerprints,
                "remarks": list(self.data.remarks),
                "model": self.config.model,
                "trainable_parameters": trainable_parameters(self.model),
                "seed": self.config.seed,
                "threads": torch.get_num_threads(),
                "processes": self.group.size,
                "device": str(self.device),
                "epochs": len(self.history),
                "selected_by": (
                    "being the last"
                    if self.config.select == "last"
                    else f"validation {self.config.select}"
                ),
                "best_epoch": None if self.best is None else self.best["epoch"],
                "best_digest": self.best_digest,
                "fitted": self.fitted,
                "val": self.best,
                "test": self.test,
                "seconds": self._seconds(),
                "files": sorted(self.written),
                "versions": {"fastltc": __version__, "torch": torch.__version__},
            }
        )


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except (ImportError, RuntimeError, AttributeError) as error:
        raise ConfigError(
            f"tensorboard: cannot be imported ({error}): pip install 'fastltc[tensorboard]'"
        ) from None
    return SummaryWriter
