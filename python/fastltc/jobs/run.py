"""A run folder: what training leaves behind and evaluation reads."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoint import CHECKPOINT_FORMAT, check_size, unpack
from .config import TrainConfig
from .data import SPLITS
from .data.sets import KINDS, task_of
from .errors import ConfigError, DeviceError, RunError
from .files import MOST_JSON, MOST_TEXT, read_bytes, write_all, write_bytes, write_json
from .lock import locked

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
CARD = "README.md"
# A card that the user has made his own lacks it.
CARD_MARK = (
    "# Written by fastltc train, which replaces this file; without this line it is left alone."
)
TENSORBOARD = "tensorboard"
# Beside the runs of several seeds.
SEEDS = "seeds.json"
# There while a process trains into the folder.
LOCK = ".lock"

# What `evaluate` writes of a split: a set that belongs together. The first says what it is of.
EVALUATION = (
    "evaluation-{}.json",
    "predictions-{}.csv",
    "confusion-{}.png",
    "roc-{}.png",
    "precision-recall-{}.png",
    "calibration-{}.png",
    "truth-{}.png",
    "residuals-{}.png",
    "horizon-{}.png",
    "wrong-{}.png",
)
# Those that training draws of the test.
TEST_PICTURES = (CONFUSION, "truth-test.png", "residuals-test.png", "horizon-test.png")
# The only files that overwriting a run removes.
_WRITTEN = (CONFIG, METRICS, LOG, BEST, LAST, CURVE, WIRING, GRAPH, EXAMPLES)
_WRITTEN_PATTERNS = (
    *_WRITTEN,
    *(name.format("*") for name in EVALUATION),
    f"{TENSORBOARD}/events.out.tfevents.*",
)


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
        targets: names of the values that are predicted; empty for classes.
        horizon: steps that are forecast; 0 for none.
        known: names of the features that are known of these steps.
        per_step: of a time series every row is answered.
        measured: rows come with what of them was measured.
        splits: size and digest of the data's splits, see `fastltc.jobs.unchanged`; empty in
            checkpoints of older versions.
        training: what resuming needs besides the weights; None in ``best.pt``.
        name: of the file that it was loaded from.
        digest: of that file, see `digest_of`.
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
    targets: tuple[str, ...] = ()
    horizon: int = 0
    known: tuple[str, ...] = ()
    per_step: bool = True
    measured: bool = False
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    name: str = ""
    digest: str = ""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the classes, or of the targets."""
        return self.targets or self.classes

    @property
    def task(self) -> str:
        """As of `fastltc.jobs.data.DataSet`."""
        return task_of(self.targets, self.horizon)

    @property
    def origin(self) -> str:
        """Which checkpoint this is, for files that are made of it."""
        return f"{self.name}, epoch {self.epoch}, digest {self.digest}"


# What is in its file; it gets its name and its digest there.
_KEPT = tuple(one.name for one in fields(Checkpoint) if one.name not in ("name", "digest"))
_NAMES = ("classes", "features", "targets", "known")
# What of it says what the model answers.
_GOAL = (*_NAMES, "horizon", "per_step", "measured")


def digest_of(content: bytes) -> str:
    """The first 16 digits of the SHA-256 of a checkpoint's file, as ``sha256sum`` prints it."""
    return hashlib.sha256(content).hexdigest()[:16]


def evaluation_files(folder: Path, split: str) -> list[Path]:
    """What an evaluation of a split may leave in a folder."""
    return [folder / name.format(split) for name in EVALUATION]


@dataclass(frozen=True)
class Run:
    """A run folder.

    ``config.json``, ``metrics.json`` (with ``status``: running, finished, interrupted or failed),
    ``log.jsonl`` (one line per epoch), ``best.pt``, ``last.pt``, pictures and ``README.md``.
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
        run.write_config(config)
        return run

    def check_place(self, *, overwrite: bool) -> None:
        """Makes sure that `create` can make a run here.

        Raises:
            RunError: something is there already.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: expected a folder for the run, got a file")
        if self.path.is_dir() and any(path.name != LOCK for path in self.path.iterdir()):
            if not (self.path / CONFIG).is_file():
                raise RunError(f"{self.path}: not empty and not a run folder; choose another --out")
            if not overwrite:
                raise RunError(
                    f"{self.path}: holds a run already; choose another --out, or --overwrite"
                )

    def locked(self) -> AbstractContextManager[None]:
        """Holds the folder, so that no other process trains into it; see `fastltc.jobs.lock`.

        Raises:
            RunError: another process does; the text says which.
        """
        return locked(self.path / LOCK)

    def remove(self) -> None:
        """Removes the files of the run, and its folder where nothing else is in it.

        Raises:
            RunError: another process trains into it.
        """
        with self.locked():
            self._remove_files()
        for folder in (self.path / TENSORBOARD, self.path):
            # What is not empty holds files of the user.
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _remove_files(self) -> None:
        self.remove_unfinished()
        old = [path for pattern in _WRITTEN_PATTERNS for path in self.path.glob(pattern)]
        for path in (*old, *self._card(), *self._seeds_summary()):
            path.unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """See the function of that name."""
        remove_unfinished(self.path, (*_WRITTEN_PATTERNS, CARD))

    def _card(self) -> list[Path]:
        """The card of the run, unless it has become the user's."""
        path = self.path / CARD
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if CARD_MARK in read_bytes(path, MOST_TEXT).decode().splitlines()[:2]:
                return [path]
        return []

    def write_card(self, text: str) -> bool:
        """Writes ``README.md``, unless there is one of the user's; whether it did."""
        free = bool(self._card()) or not (self.path / CARD).exists()
        if free:
            write_bytes(self.path / CARD, text.encode())
        return free

    def _seeds_summary(self) -> list[Path]:
        """``seeds.json`` and its picture in the folder above, where they tell of this run."""
        own = self.path.resolve()
        path = own.parent / SEEDS
        with contextlib.suppress(RunError):
            seeds = read_json(path).get("seeds")
            if isinstance(seeds, list) and own.name in {f"seed-{seed}" for seed in seeds}:
                return [path, own.parent / CURVE]
        return []

    def _stale(self, digests: Sequence[str]) -> list[Path]:
        """What is of none of these checkpoints: pictures, the card, other evaluations."""
        found = [self.path / name for name in (CURVE, WIRING, GRAPH)]
        found += [*self._card(), *self._seeds_summary()]
        for split in (*SPLITS, "all"):
            files = evaluation_files(self.path, split)
            if files[0].exists():
                of = None
                with contextlib.suppress(RunError):
                    of = read_json(files[0]).get("digest")
                if of not in digests:
                    found += files
            elif split == "test":
                found += [self.path / name for name in TEST_PICTURES]
        return found

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
        """The content of ``metrics.json``.

        Raises:
            RunError: it is missing or damaged, or a value has another type than training writes.
        """
        found = read_json(self.path / METRICS)
        for name, value in found.items():
            known = _METRICS.get(name, (object,))
            if not isinstance(value, known) or (isinstance(value, bool) and bool not in known):
                expected = " or ".join(one.__name__ for one in known)
                text = f"{name}: expected {expected}, got {value!r:.60}"
                raise RunError(f"{self.path / METRICS}: damaged: {text}")
        return found

    @property
    def complete(self) -> bool:
        """Whether the run came to its end, was tested, and has all its files."""
        with contextlib.suppress(RunError):
            metrics = self.metrics
            finished = metrics.get("status") == "finished" and metrics.get("test") is not None
            # Older versions did not say whether the last picture was drawn.
            return finished and metrics.get("complete") is not False
        return False

    @property
    def log(self) -> list[dict[str, Any]]:
        """The records of ``log.jsonl``, one for each epoch.

        Raises:
            RunError: it is missing or damaged.
        """
        path = self.path / LOG
        try:
            return [json.loads(line) for line in read_bytes(path, MOST_JSON).splitlines()]
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path}: damaged: {error}") from None

    def append_log(self, record: Mapping[str, Any]) -> None:
        """Adds one line to ``log.jsonl``."""
        with open(self.path / LOG, "ab") as file:
            file.write(_lines([record]))

    def write_log(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes ``log.jsonl`` anew, with these records."""
        write_bytes(self.path / LOG, _lines(records))

    def write_config(self, config: TrainConfig) -> None:
        """Writes ``config.json`` anew."""
        write_json(self.path / CONFIG, config.to_dict())

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Writes ``metrics.json`` anew."""
        write_json(self.path / METRICS, metrics)

    def save_checkpoints(
        self, checkpoints: Mapping[str, Checkpoint], kept: Sequence[str] = ()
    ) -> dict[str, str]:
        """Writes checkpoints, all of them or none, and removes what is of earlier ones.

        Args:
            checkpoints: by the names of their files.
            kept: digests of checkpoints that stay.

        Returns:
            The digest of each file.
        """
        contents = {name: _pack(checkpoint) for name, checkpoint in checkpoints.items()}
        digests = {name: digest_of(content) for name, content in contents.items()}
        write_all(
            {self.path / name: content for name, content in contents.items()},
            self._stale([*digests.values(), *kept]),
        )
        return digests

    def digest(self, name: str) -> str | None:
        """The digest of a checkpoint's file; None where there is none."""
        path = self.path / name
        return digest_of(read_bytes(path)) if path.is_file() else None

    def load_checkpoint(self, name: str = BEST, device: str | None = None) -> Checkpoint:
        """Rebuilds the model of a checkpoint.

        Args:
            name: ``best.pt`` or ``last.pt``.
            device: where the model goes; None for the device of the run.

        Raises:
            RunError: the file is missing or damaged, or does not fit the model; the text names it.
            DeviceError: there is no such device here.
        """
        from .device import find_device
        from .models import Goal, MissingTorchvisionError, build_model, default_model
        from .models.registry import least_values

        path = self.path / name
        if not path.exists():
            raise RunError(
                f"{path}: no checkpoint; training has not come to the end of its first epoch"
            )
        # Read once, so that the digest is that of what is loaded, also while training goes on.
        packed = read_bytes(path)
        content = unpack(packed, path)
        try:
            config = TrainConfig.from_dict(content["config"])
            shape = tuple(int(size) for size in content["image_shape"])
            # The weights come from the checkpoint, not from their publisher.
            options = {**config.model_options(), "pretrained": None}
            kind = config.model or default_model(KINDS[len(shape)])
            held = {key: content[key] for key in _KEPT if key in content}
            held |= {name: tuple(held.get(name, ())) for name in _NAMES}
            goal = Goal.make(
                **{name: held[name] for name in _GOAL if name in held}, quantiles=config.levels
            )
            sizes = (kind, config.model_shape(shape), goal.outputs)
            # Before it is made: to draw a large wiring takes minutes.
            check_size(content, least_values(*sizes, **options))
            model = build_model(*sizes, goal=goal, **options)
            model.load_state_dict(content["model"])
            target = find_device(config.device if device is None else device)
            held |= {"config": config, "image_shape": shape, "name": name}
            held["digest"] = digest_of(packed)
            return Checkpoint(**{**held, "model": model.to(target).eval()})
        except DeviceError:
            raise
        except MissingTorchvisionError as error:
            raise RunError(f"{path}: {error}") from None
        except (TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
            raise RunError(f"{path}: damaged checkpoint: {error}") from None


# What is read again of the metrics.
_NONE = type(None)
_METRICS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("status", "data", "model", "selected_by"), (str,)),
    **dict.fromkeys(("epochs", "seed", "trainable_parameters", "threads"), (int,)),
    **dict.fromkeys(("val", "test"), (dict, _NONE)),
    **dict.fromkeys(("images", "splits"), (dict,)),
    **dict.fromkeys(("files", "remarks"), (list,)),
    "complete": (bool,),
    "seconds": (int, float),
    "best_epoch": (int, _NONE),
    "best_digest": (str, _NONE),
}


def remove_unfinished(folder: Path, patterns: Iterable[str]) -> None:
    """Removes what a process that was killed while it wrote has left under temporary names."""
    for pattern in patterns:
        for path in folder.glob(f".{pattern}.????????"):
            path.unlink(missing_ok=True)


def _lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    """JSON, a line for each."""
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()


def _pack(checkpoint: Checkpoint) -> bytes:
    """The file of a checkpoint."""
    import torch

    kept = {name: getattr(checkpoint, name) for name in _KEPT}
    content = {
        "format": CHECKPOINT_FORMAT,
        **kept,
        **{name: list(kept[name]) for name in ("image_shape", *_NAMES)},
        "config": checkpoint.config.to_dict(),
        "model": checkpoint.model.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run; RunError where there is none."""
    try:
        content = json.loads(read_bytes(path, MOST_JSON))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    # Long integers are a ValueError as damaged JSON is.
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: damaged: expected a JSON object")
    return content
