"""Metrics of a finished run, and its answer to single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import plots
from ..data import SPLITS, ImageFile, load_data, read_image
from .errors import ConfigError, RunError
from .files import write_bytes, write_json
from .metrics import classification_metrics, find_class
from .predict import probabilities
from .run import BEST, Checkpoint, Run


def evaluate(
    run: Run,
    split: str = "test",
    *,
    positive: str | int | None = None,
    data_root: str | None = None,
    offline: bool = False,
    checkpoint: str = BEST,
    device: str | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run on one split of its data.

    Args:
        run: the run.
        split: ``train``, ``val`` or ``test``.
        positive: class that F1 is about; None for that of the run.
        data_root: where the data is now; None for where it was.
        offline: do not download the data set.
        checkpoint: ``best.pt`` or ``last.pt``.
        device: None for the device of the run.
        out: folder for ``evaluation-SPLIT.json`` and ``confusion-SPLIT.png``; None for the run's.

    Returns:
        The metrics of `classification_metrics`, preceded by what was evaluated.

    Raises:
        RunError: there is no usable checkpoint, or its classes are not those of the data.
        ConfigError: no such split or class.
        fastltc.data.DataError: the data is missing or damaged.

    Example:
        >>> from fastltc.training import Run, evaluate
        >>> evaluate(Run.open("run"), "val")["auc"]  # doctest: +SKIP
    """
    if split not in SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    loaded = run.load_checkpoint(checkpoint, device)
    asked = find_class(positive, loaded.classes)
    data = load_data(
        loaded.config.data, options=loaded.config.data_options(data_root, offline=offline)
    )
    if data.classes != loaded.classes or data.input_shape != loaded.image_shape:
        raise RunError(
            f"{run.path / checkpoint}: trained for {len(loaded.classes)} classes of images "
            f"{loaded.image_shape}; {data.name} has {len(data.classes)} of {data.input_shape}"
        )
    part = data.splits[split]
    metrics = classification_metrics(
        part.labels,
        _scores(loaded, part.inputs),
        loaded.classes,
        loaded.positive if asked is None else asked,
    )
    result = {
        "run": str(run.path),
        "checkpoint": checkpoint,
        "epoch": loaded.epoch,
        "data": data.name,
        "split": split,
        **metrics,
    }
    folder = run.path if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"evaluation-{split}.json", result)
    picture = plots.confusion_matrix(
        metrics["confusion_matrix"],
        loaded.classes,
        title=f"{data.name}, {split}, epoch {loaded.epoch}",
    )
    write_bytes(folder / f"confusion-{split}.png", picture)
    return result


@dataclass(frozen=True)
class Prediction:
    """The class of one image.

    Args:
        image: the file and how it was converted.
        label: index of the most probable class.
        name: its name.
        probabilities: by class name.
    """

    image: ImageFile
    label: int
    name: str
    probabilities: dict[str, float]


def predict(
    checkpoint: Checkpoint, paths: Sequence[Path | str], *, invert: bool = False
) -> list[Prediction]:
    """Classifies image files.

    Args:
        checkpoint: from `Run.load_checkpoint`.
        paths: image files; see `fastltc.data.read_image` for how each is converted.
        invert: exchange dark and light first.

    Returns:
        One prediction per file, in order.

    Raises:
        fastltc.data.DataError: a file is not a readable image; the text names it.

    Example:
        >>> from fastltc.training import Run, predict
        >>> checkpoint = Run.open("run").load_checkpoint()  # doctest: +SKIP
        >>> predict(checkpoint, ["seven.png"])[0].name  # doctest: +SKIP
        '7'
    """
    images = [read_image(path, checkpoint.image_shape, invert=invert) for path in paths]
    if not images:
        return []
    scores = _scores(checkpoint, np.stack([image.pixels for image in images]))
    return [
        Prediction(
            image=image,
            label=int(row.argmax()),
            name=checkpoint.classes[int(row.argmax())],
            probabilities={
                name: float(value) for name, value in zip(checkpoint.classes, row, strict=True)
            },
        )
        for image, row in zip(images, scores, strict=True)
    ]


def _scores(checkpoint: Checkpoint, images: Any) -> Any:
    device = next(checkpoint.model.parameters()).device
    return probabilities(checkpoint.model, images, device)
