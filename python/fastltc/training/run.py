"""A run folder: what training leaves behind and evaluation reads."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import TrainConfig
from .errors import ConfigError, DeviceError, RunError
from .files import write_bytes, write_json

# torch is imported where checkpoints are: the metrics of a run are read without.
if TYPE_CHECKING:
    from torch import nn

CONFIG = "config.json"
METRICS = "metrics.json"
LOG = "log.jsonl"
BEST = "best.pt"
LAST = "last.pt"
CURVE = "training.png"
CONFUSION = "confusion-test.png"
WIRING = "wiring.png"
GRAPH = "wiring-graph.png"
EXAMPLES = "examples.png"
TENSORBOARD = "tensorboard"

# The only files that overwriting a run removes.
_WRITTEN = (CONFIG, METRICS, LOG, BEST, LAST, CURVE, WIRING, GRAPH, EXAMPLES)
_WRITTEN_PATTERNS = (
    "confusion-*.png",
    "evaluation-*.json",
    "predictions-*.csv",
    "roc-*.png",
    "precision-recall-*.png",
    "calibration-*.png",
    f"{TENSORBOARD}/events.out.tfevents.*",
)

CHECKPOINT_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and what is needed to use it without its data.

    Args:
        config: the configuration of the run.
        classes: class names.
        positive: class that F1 is about, or None.
        image_shape: ``(C, H, W)`` of the images as they are read, ``(T, I)`` of sequences or
            ``(I,)`` of vectors.
        epoch: epochs trained.
        val: validation metrics at that epoch.
        model: the module, in eval mode.
        features: names of the inputs of a time series.
        time_unit: seconds that are one unit of its timespans.
        multilabel: each example may have several of the classes.
        splits: size and digest of the data's splits, see `fastltc.training.unchanged`; empty in
            checkpoints of older versions.
        training: what resuming needs besides the weights; None in ``best.pt``.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    positive: int | None
    image_shape: tuple[int, ...]
    epoch: int
    val: dict[str, Any]
    model: nn.Module
    features: tuple[str, ...] = ()
    time_unit: float = 0.0
    multilabel: bool = False
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: dict[str, Any] | None = None


@dataclass(frozen=True)
class Run:
    """A run folder.

    ``config.json``, ``metrics.json`` (with ``status``: running, finished, interrupted or failed),
    ``log.jsonl`` (one line per epoch), ``best.pt``, ``last.pt`` and pictures.
    """

    path: Path

    @classmethod
    def create(cls, path: Path | str, config: TrainConfig, *, overwrite: bool = False) -> Run:
        """Makes a folder for a new run and writes its configuration.

        Args:
            path: a folder that does not exist, or is empty.
            config: written as ``config.json``.
            overwrite: accept the folder of an earlier run and remove that run's files, and no
                others.

        Raises:
            RunError: something is there already.
        """
        run = cls(Path(path))
        run.check_place(overwrite=overwrite)
        run._remove_files()
        run.path.mkdir(parents=True, exist_ok=True)
        write_json(run.path / CONFIG, config.to_dict())
        return run

    def check_place(self, *, overwrite: bool) -> None:
        """Makes sure that `create` can make a run here.

        Raises:
            RunError: something is there already.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: expected a folder for the run, got a file")
        if self.path.is_dir() and any(self.path.iterdir()):
            if not (self.path / CONFIG).is_file():
                raise RunError(f"{self.path}: not empty and not a run folder; choose another --out")
            if not overwrite:
                raise RunError(
                    f"{self.path}: holds a run already; choose another --out, or --overwrite"
                )

    def remove(self) -> None:
        """Removes the files of the run, and its folder where nothing else is in it."""
        self._remove_files()
        for folder in (self.path / TENSORBOARD, self.path):
            # What is not empty holds files of the user.
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _remove_files(self) -> None:
        old = [self.path / name for name in _WRITTEN]
        for pattern in _WRITTEN_PATTERNS:
            old.extend(self.path.glob(pattern))
        for path in old:
            path.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """An existing run.

        Raises:
            RunError: there is no run at ``path``.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path}: no such run folder")
        if not (path / CONFIG).is_file():
            raise RunError(f"{path}: not a run folder ({CONFIG} is missing)")
        return cls(path)

    @property
    def config(self) -> TrainConfig:
        """The configuration, read from ``config.json``."""
        path = self.path / CONFIG
        try:
            return TrainConfig.from_dict(read_json(path))
        except ConfigError as error:
            raise RunError(f"{path}: {error}") from None

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return read_json(self.path / METRICS)

    @property
    def complete(self) -> bool:
        """Whether the run came to its end: it is finished and has been tested."""
        try:
            metrics = self.metrics
        except RunError:
            return False
        return metrics.get("status") == "finished" and metrics.get("test") is not None

    def append_log(self, record: Mapping[str, Any]) -> None:
        """Adds one line to ``log.jsonl``."""
        with open(self.path / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def write_log(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes ``log.jsonl`` anew, with these records."""
        lines = [json.dumps(record, allow_nan=False) + "\n" for record in records]
        write_bytes(self.path / LOG, "".join(lines).encode())

    def write_config(self, config: TrainConfig) -> None:
        """Writes ``config.json`` anew."""
        write_json(self.path / CONFIG, config.to_dict())

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        write_json(self.path / METRICS, metrics)

    def save_checkpoint(self, name: str, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, whole or not at all."""
        import torch

        content = {
            "format": CHECKPOINT_FORMAT,
            "config": checkpoint.config.to_dict(),
            "classes": list(checkpoint.classes),
            "positive": checkpoint.positive,
            "image_shape": list(checkpoint.image_shape),
            "epoch": checkpoint.epoch,
            "val": checkpoint.val,
            "model": checkpoint.model.state_dict(),
            "features": list(checkpoint.features),
            "time_unit": checkpoint.time_unit,
            "multilabel": checkpoint.multilabel,
            "splits": checkpoint.splits,
            "training": checkpoint.training,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_bytes(self.path / name, buffer.getvalue())

    def load_checkpoint(self, name: str = BEST, device: str | None = None) -> Checkpoint:
        """Rebuilds the model of a checkpoint.

        Args:
            name: ``best.pt`` or ``last.pt``.
            device: where the model goes; None for the device of the run.

        Raises:
            RunError: the file is missing or damaged, or does not fit the model; the text names it.
            DeviceError: there is no such device here.
        """
        import torch

        from ..models import MissingTorchvisionError, build_model, default_model
        from .device import find_device

        path = self.path / name
        if not path.is_file():
            raise RunError(
                f"{path}: no checkpoint; training has not come to the end of its first epoch"
            )
        # What torch.save writes; older pickle files are not even opened.
        if not zipfile.is_zipfile(path):
            raise RunError(f"{path}: damaged checkpoint, not a file of torch.save")
        _check_sums(path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        # torch.load raises OSError, KeyError, EOFError, RuntimeError, UnpicklingError and more.
        except Exception as error:
            # Not its text: torch's advises to load the file without the safeguard.
            raise RunError(
                f"{path}: damaged checkpoint, torch cannot load it ({type(error).__name__})"
            ) from None
        try:
            if not isinstance(content, dict):
                raise TypeError(f"expected a dictionary, got {type(content).__name__}")
            if content["format"] != CHECKPOINT_FORMAT:
                raise RunError(
                    f"{path}: checkpoint format {CHECKPOINT_FORMAT} expected, "
                    f"got {content['format']!r}"
                )
            config = TrainConfig.from_dict(content["config"])
            shape = tuple(int(size) for size in content["image_shape"])
            kind = {3: "images", 2: "series", 1: "vectors"}[len(shape)]
            # The weights come from the checkpoint, not from their publisher.
            options = {**config.model_options(), "pretrained": None}
            model = build_model(
                config.model or default_model(kind),
                config.model_shape(shape),
                len(content["classes"]),
                **options,
            )
            model.load_state_dict(content["model"])
            target = find_device(config.device if device is None else device)
            checkpoint = Checkpoint(
                config=config,
                classes=tuple(content["classes"]),
                positive=content["positive"],
                image_shape=shape,
                epoch=content["epoch"],
                val=content["val"],
                model=model.to(target).eval(),
                features=tuple(content.get("features", ())),
                time_unit=content.get("time_unit", 0.0),
                multilabel=content.get("multilabel", False),
                splits=content.get("splits", {}),
                training=content.get("training"),
            )
        except (RunError, DeviceError):
            raise
        except KeyError as error:
            raise RunError(f"{path}: damaged checkpoint: {error} is missing") from None
        except MissingTorchvisionError as error:
            raise RunError(f"{path}: {error}") from None
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise RunError(f"{path}: damaged checkpoint: {error}") from None
        return checkpoint


def _check_sums(path: Path) -> None:
    """Compares the check sums in a zip file, which torch.load ignores."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    # Damaged headers raise BadZipFile, NotImplementedError, RuntimeError and others.
    except Exception as error:
        raise RunError(f"{path}: damaged checkpoint ({type(error).__name__})") from None
    if damaged is not None:
        raise RunError(f"{path}: damaged checkpoint, {damaged} has another check sum")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run; RunError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: damaged: expected a JSON object")
    return content
