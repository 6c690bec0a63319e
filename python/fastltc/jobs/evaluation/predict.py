"""The answer of a trained model to single files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...inspect import attribute, draw_attribution
from ...inspect.figure import shortened
from ..data import IGNORED, DataError, ImageFile, Split, read_image
from ..data.cutting import time_steps
from ..data.image_files import images_in
from ..data.rows import Recording, Rows
from ..data.series import read_unlabelled, sequences
from ..errors import ConfigError
from ..run import Checkpoint
from .answers import column_names
from .judge import answers_of
from .probabilities import feed_of, named, scores_of


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


def draw_rows(checkpoint: Checkpoint, predictions: Sequence[Prediction]) -> list[bytes]:
    """Draws images, and how much each of their rows has added to the logit of the class found.

    By integrated gradients from a black image, see `fastltc.inspect.attribute`. An image is drawn
    as the model is given it.

    Args:
        checkpoint: from `Run.load_checkpoint`, of a model that classifies images.
        predictions: what `predict` answered; of several labels the most probable counts.

    Returns:
        A PNG file for each.
    """
    if not predictions:
        return []
    labels = np.array([prediction.label for prediction in predictions], dtype=np.int64)
    pixels = np.stack([prediction.image.pixels for prediction in predictions])
    feed = feed_of(checkpoint, Split(pixels, labels))
    model = checkpoint.model.eval()

    def logits(images: Tensor) -> Tensor:
        found: Tensor = model(images)
        return (found + model(images.flip(-1))) / 2 if feed.mirror else found

    pictures = []
    for (images,), targets in feed.chunks():
        added = attribute(logits, images, targets, axis=2)
        for image, rows, label in zip(images, added, targets.tolist(), strict=True):
            title = f"added to the output of {shortened(checkpoint.classes[label], 40)}"
            pictures.append(draw_attribution(image, rows, title=title, of=checkpoint.origin))
    return pictures


@dataclass(frozen=True)
class RowPrediction:
    """The answer to one row of a time series, to all of it, or for a step to come.

    Args:
        time: seconds since the first row.
        name: the most probable class; empty for values.
        probabilities: by class name; empty for values.
        values: by the names of the targets (of quantiles, ``quantile 0.1 of TARGET``).
        recording: what the recording is called, where a column tells them apart.
    """

    time: float
    name: str
    probabilities: dict[str, float]
    values: dict[str, float] = field(default_factory=dict)
    recording: str = ""


def predict_series(checkpoint: Checkpoint, path: Path | str) -> list[RowPrediction]:
    """Answers for a file of a time series: its rows, each recording, or what comes after it.

    Where every row is answered, from it and the rows before it, the file is cut into sequences as
    in evaluation (of a file shorter than a sequence all rows are one). Where a sequence has one
    answer, that is of the last window of each recording, or of all of it where the model was
    trained so; a forecast begins behind the last row, its steps one unit of time apart. Scales and
    the unit of time are those of the checkpoint.

    Args:
        checkpoint: from `Run.load_checkpoint`, of a model for time series.
        path: the file; it needs the columns of the training file but for class and targets.

    Raises:
        fastltc.jobs.data.DataError: a column is missing or a cell is no number; the text names it.
        ConfigError: the model is not one of time series, or forecasts with what is known in
            advance.
    """
    if len(checkpoint.image_shape) != 2 or not checkpoint.features:
        raise ConfigError(f"{checkpoint.config.model} does not classify the rows of CSV files")
    if checkpoint.known:
        raise ConfigError(
            f"{path}: the model is given {', '.join(checkpoint.known)} of the steps to come, which "
            "a file of the past does not have; ask it by: fastltc evaluate RUN --data csv:FILE"
        )
    path = Path(path)
    rows = read_unlabelled(path, checkpoint.features, checkpoint.config.data_options())
    if not checkpoint.per_step:
        return [one for part in rows.recordings for one in _of_recording(checkpoint, rows, part)]
    window = min(checkpoint.image_shape[0], len(rows.times))
    split = sequences(rows, window, checkpoint.time_unit)
    # The class of a row is unknown: one that the sequences keep where a row is judged.
    scores = answers_of(checkpoint, split)[np.asarray(split.labels) != IGNORED]
    places = ((part, row) for part in rows.recordings for row in range(part.start, part.stop))
    return [
        _answer(checkpoint, rows, part, rows.times[row], scores[place])
        for place, (part, row) in enumerate(places)
    ]


def _of_recording(checkpoint: Checkpoint, rows: Rows, part: Recording) -> list[RowPrediction]:
    """What is answered to one recording: one row, or one for each step ahead."""
    count = part.stop - part.start
    if checkpoint.config.label_per != "recording" or checkpoint.config.window is not None:
        count = min(count, checkpoint.image_shape[0])
    taken = slice(part.stop - count, part.stop)
    unit = checkpoint.time_unit or 1.0
    spans = None
    if rows.roles.time:
        spans = time_steps(rows.times, rows.recordings, unit)[None, taken]
    measured = None if rows.measured is None else rows.measured[None, taken]
    inputs = np.asarray(rows.values[None, taken])
    found = answers_of(checkpoint, Split(inputs, np.zeros(1, np.int64), spans, measured=measured))[
        0
    ]
    last = rows.times[part.stop - 1]
    if not checkpoint.horizon:
        return [_answer(checkpoint, rows, part, last, found)]
    return [
        _answer(checkpoint, rows, part, last + unit * (step + 1), answer)
        for step, answer in enumerate(found)
    ]


def _answer(
    checkpoint: Checkpoint, rows: Rows, part: Recording, time: float, row: NDArray[np.float64]
) -> RowPrediction:
    # Differences of decimal numbers have digits that nobody wrote.
    since = round(float(time - rows.times[part.start]), 6)
    called = part.name if rows.roles.recording else ""
    answers, classes = row.reshape(-1).tolist(), checkpoint.classes
    if checkpoint.targets:
        names = column_names(checkpoint.targets, checkpoint.config.levels)
        return RowPrediction(since, "", {}, dict(zip(names, answers, strict=True)), called)
    name = named(row, classes, multilabel=checkpoint.multilabel)
    return RowPrediction(since, name, dict(zip(classes, answers, strict=True)), recording=called)
