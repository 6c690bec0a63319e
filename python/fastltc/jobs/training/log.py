"""What a run has to tell so far, and the files that it leaves."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...inspect.liquid_layer import network_of
from .. import plots
from .. import run as files
from ..errors import ConfigError
from ..evaluation.answers import value_pictures
from ..files import write_all
from ..models import trainable_parameters
from ..run import Checkpoint, Run
from ..unchanged import fingerprints
from .card import model_card
from .epochs import Epochs


class RunLog:
    """The epochs of a run so far. Of several processes, only the first writes them."""

    def __init__(self, epochs: Epochs, path: Path) -> None:
        self.epochs = epochs
        self.task = task = epochs.task
        self.run = Run(path)
        self.fingerprints = fingerprints(task.data)
        self.status = "running"
        self.complete = False
        self.best_digest: str | None = None
        self.test: dict[str, Any] | None = None
        # Names of the files that this call has written.
        self.written: set[str] = set()
        self.seconds_before = 0.0
        self.started = time.perf_counter()
        self.board: Any = None

    @property
    def seconds(self) -> float:
        """How long the run took, with what was before an interruption."""
        return self.seconds_before + time.perf_counter() - self.started

    def create(self, *, overwrite: bool) -> None:
        """Makes the run folder."""
        if self.task.group.first:
            self.run = Run.create(self.run.path, self.task.config, overwrite=overwrite)
            self.written.add(files.CONFIG)

    def take_up(self, state: dict[str, Any]) -> None:
        """Goes on, and brings the files to where the state of a checkpoint is.

        Raises:
            KeyError, TypeError, ValueError: it is not such a state.
        """
        self.best_digest = self.run.digest(files.BEST)
        self.seconds_before = float(state["seconds"])
        if self.task.group.first:
            self.run.remove_unfinished()
            self.run.write_config(self.task.config)
            self.run.write_log(self.epochs.history)
            self.written |= {files.CONFIG, files.LOG}

    def open_board(self, writer: Any) -> None:
        """Begins a TensorBoard log."""
        self.written.add(f"{files.TENSORBOARD}/")
        self.board = writer(str(self.run.path / files.TENSORBOARD))

    def add(self, record: dict[str, Any], val: dict[str, Any], *, kept: bool) -> None:
        """Writes the files of an epoch; ``kept`` where the best checkpoint is an earlier one."""
        if not self.task.group.first:
            return
        data = self.task.data
        training = {**self.epochs.state(), "seconds": self.seconds}
        checkpoint = Checkpoint(
            config=self.task.config,
            classes=data.classes,
            positive=self.task.positive,
            image_shape=data.input_shape,
            epoch=record["epoch"],
            val={name: val[name] for name in self.epochs.judge.logged},
            model=self.task.model,
            features=data.features,
            time_unit=data.time_unit,
            multilabel=data.multilabel,
            splits=self.fingerprints,
            targets=data.targets,
            horizon=data.horizon,
            known=data.known,
            per_step=data.per_step,
            measured=data.splits["train"].measured is not None,
        )
        made = {} if kept else {files.BEST: checkpoint}
        made[files.LAST] = replace(checkpoint, training=training)
        stay = [self.best_digest] if kept and self.best_digest is not None else []
        digests = self.run.save_checkpoints(made, stay)
        self.best_digest = digests.get(files.BEST, self.best_digest)
        self.written.update(made)
        self.run.append_log(record)
        self.written.add(files.LOG)
        self.write_metrics()
        if self.board is not None:
            for name, value in record.items():
                if name != "epoch" and value is not None:
                    self.board.add_scalar(name, value, record["epoch"])
            self.board.flush()

    def draw(self, best: Checkpoint) -> None:
        """Draws the training and the network of the best checkpoint."""
        title, of = self.task.data.name, best.origin
        curve = plots.training_curve(self.epochs.history, best_epoch=best.epoch, title=title, of=of)
        self._write_picture(files.CURVE, curve)
        network = network_of(best.model, best.outputs, best.features)
        if network is not None:
            self._write_picture(files.WIRING, plots.wiring_diagram(network, of=of))
        if network is not None and network.drawable:
            graph = plots.wiring_graph(network, title=network.title, of=of)
            self._write_picture(files.GRAPH, graph)

    def draw_test(self, best: Checkpoint, scores: NDArray[np.float64]) -> None:
        """Draws what came of the test: the confusion matrix, where there is one, or the values."""
        assert self.test is not None
        data, title = self.task.data, f"{self.task.data.name}, test"
        made = {}
        if data.targets:
            made = value_pictures(best, data.splits["test"], scores, self.test, title)
        elif self.test["confusion_matrix"] is not None:
            matrix = self.test["confusion_matrix"]
            picture = plots.confusion_matrix(matrix, data.classes, title=title, of=best.origin)
            made = {"confusion": picture}
        # Those that `evaluate` has left may be of other data or of the last checkpoint.
        stale = files.evaluation_files(self.run.path, "test")
        for kind, picture in made.items():
            self._write_picture(f"{kind}-test.png", picture, stale)
            stale = []

    def draw_examples(self) -> None:
        """Draws images of every class, where there are any."""
        data = self.task.data
        if data.kind == "images" and data.classes and not data.multilabel:
            train = data.splits["train"]
            picture = plots.montage(train.inputs, train.labels, data.classes, title=data.name)
            self._write_picture(files.EXAMPLES, picture)

    def write_card(self, best: Checkpoint) -> None:
        """Writes the model card of the best checkpoint."""
        if self.run.write_card(model_card(self.metrics, best)):
            self.written.add(files.CARD)

    def _write_picture(self, name: str, picture: bytes, stale: Iterable[Path] = ()) -> None:
        write_all({self.run.path / name: picture}, stale)
        self.written.add(name)

    @property
    def metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` holds."""
        from ... import __version__

        config, data, best = self.task.config, self.task.data, self.epochs.best
        return {
            "status": self.status,
            "complete": self.complete,
            "data": data.name,
            "source": data.source,
            "images": {name: len(split) for name, split in data.splits.items()},
            "splits": self.fingerprints,
            "remarks": list(data.remarks),
            "model": config.model,
            "trainable_parameters": trainable_parameters(self.task.model),
            "seed": config.seed,
            "threads": torch.get_num_threads(),
            "processes": self.task.group.size,
            "device": str(self.task.device),
            "epochs": len(self.epochs.history),
            "selected_by": (
                "being the last" if config.select == "last" else f"validation {config.select}"
            ),
            "best_epoch": None if best is None else best["epoch"],
            "best_digest": self.best_digest,
            "fitted": self.epochs.fitting.fitted,
            "val": best,
            "test": self.test,
            "seconds": self.seconds,
            "files": sorted(self.written),
            "versions": {"fastltc": __version__, "torch": torch.__version__},
        }

    def write_metrics(self) -> None:
        """Writes ``metrics.json``."""
        if self.task.group.first:
            self.written.add(files.METRICS)
            self.run.write_metrics(self.metrics)


def summary_writer() -> Any:
    """TensorBoard's writer of logs.

    Raises:
        ConfigError: it is not installed, or broken.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except (ImportError, RuntimeError, AttributeError) as error:
        raise ConfigError(
            f"tensorboard: cannot be imported ({error}): pip install 'fastltc[tensorboard]'"
        ) from None
    return SummaryWriter
