"""The answer of a trained model to single files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import DataError, ImageFile, Split, read_image
from ..data.image_files import images_in
from ..data.series import read_unlabelled, sequences
from ..errors import ConfigError
from ..run import Checkpoint
from .probabilities import judged, named, scores_of


@dataclass(frozen=True)
class Prediction:
    """The class of one image.

    Args:
        image: the file and how it was converted.
        label: index of the most probable class.
        name: its name; of several labels all from a probability of 0.5 on, which may be none.
        probabilities: by class name.
    """

    image: ImageFile
    label: int
    name: str
    probabilities: dict[str, float]


def find_images(paths: Sequence[Path | str]) -> list[Path]:
    """Files as they are, and of folders all images in them, in the order of their names.

    Raises:
        fastltc.jobs.data.DataError: a folder has no image in it.
    """
    found: list[Path] = []
    for given in paths:
        path = Path(given)
        if not path.is_dir():
            found.append(path)
            continue
        inside = images_in(path)
        if not inside:
            raise DataError(f"{path}: no image of a known type in this folder")
        found += inside
    return found


def predict(
    checkpoint: Checkpoint,
    paths: Sequence[Path | str],
    *,
    invert: bool = False,
    grey_as_colour: bool = False,
) -> list[Prediction]:
    """Classifies image files.

    Args:
        checkpoint: from `Run.load_checkpoint`.
        paths: image files, and folders of them; see `fastltc.jobs.data.read_image` for how each is
            converted.
        invert: exchange dark and light first.
        grey_as_colour: give grey images to all three channels of a model of colours, as it is done
            without asking where the model was trained so (``channels = 3``); else they are an
            error.

    Returns:
        One prediction per file, in order.

    Raises:
        fastltc.jobs.data.DataError: a file is not a readable image; the text names it.
        ConfigError: the model does not classify images.

    Example:
        >>> from fastltc.jobs import Run, predict
        >>> checkpoint = Run.open("run").load_checkpoint()
        >>> answer = predict(checkpoint, ["scan.png"])[0]
        >>> answer.name in checkpoint.classes
        True
    """
    if len(checkpoint.image_shape) != 3:
        raise ConfigError(
            f"{checkpoint.config.model} does not classify images; for other data: "
            "fastltc evaluate RUN --data csv:FILE"
        )
    grey_as_colour = grey_as_colour or checkpoint.config.channels == 3
    images = [
        read_image(path, checkpoint.image_shape, invert=invert, grey_as_colour=grey_as_colour)
        for path in find_images(paths)
    ]
    if not images:
        return []
    pixels = np.stack([image.pixels for image in images])
    scores = scores_of(checkpoint, Split(pixels, np.zeros(len(pixels), dtype=np.int64)))
    return [
        Prediction(
            image=image,
            label=int(row.argmax()),
            name=named(row, checkpoint.classes, multilabel=checkpoint.multilabel),
            probabilities=dict(zip(checkpoint.classes, row.tolist(), strict=True)),
        )
        for image, row in zip(images, scores, strict=True)
    ]


@dataclass(frozen=True)
class RowPrediction:
    """The class of one row of a time series.

    Args:
        time: seconds since the first row.
        name: the most probable class.
        probabilities: by class name.
    """

    time: float
    name: str
    probabilities: dict[str, float]


def predict_series(checkpoint: Checkpoint, path: Path | str) -> list[RowPrediction]:
    """Classifies every row of a CSV file with a time column, from it and the rows before it.

    The file is cut into sequences as in evaluation; scales and the unit of time are those of the
    checkpoint. Of a file shorter than a sequence all rows are one.

    Args:
        checkpoint: from `Run.load_checkpoint`, of a model for time series.
        path: the file; it needs the columns of the training file but for the class.

    Raises:
        fastltc.jobs.data.DataError: a column is missing or a cell is no number; the text names it.
        ConfigError: the model does not classify time series.
    """
    if len(checkpoint.image_shape) != 2 or not checkpoint.features:
        raise ConfigError(f"{checkpoint.config.model} does not classify the rows of CSV files")
    path = Path(path)
    recording = read_unlabelled(path, checkpoint.features, checkpoint.config.data_options())
    rows = len(recording.times)
    window = min(checkpoint.image_shape[0], rows)
    # The class of a row is unknown: one that the sequences keep where a row is judged.
    split = sequences(recording, window, checkpoint.time_unit)
    _, scores = judged(split.labels, scores_of(checkpoint, split))
    return [
        RowPrediction(
            # Differences of decimal numbers have digits that nobody wrote.
            time=round(float(time - recording.times[0]), 6),
            name=named(row, checkpoint.classes, multilabel=False),
            probabilities=dict(zip(checkpoint.classes, row.tolist(), strict=True)),
        )
        for time, row in zip(recording.times, scores, strict=True)
    ]
