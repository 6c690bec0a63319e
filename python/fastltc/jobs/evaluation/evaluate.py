"""Metrics of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import plots
from ..data import IGNORED, SPLITS, DataError, DataOptions, DataSet, Split, load_data
from ..data.tables import format_table
from ..defaults import RECALLS, RESAMPLES
from ..errors import ConfigError, RunError
from ..files import format_json, interrupts_held_back, write_all
from ..options import ABOVE_0_TO_1, FROM_0, one_of
from ..run import BEST, Checkpoint, Run, evaluation_files
from ..unchanged import check_unchanged, fingerprints
from .answers import value_pictures, value_table
from .curves import bootstrap, curves_of, truth_of
from .judge import Judge, ValueJudge, judge_of
from .metrics import find_class, quick_metrics
from .probabilities import feed_of, judged, named
from .values import value_intervals
from .wrong import wrong_picture


def evaluate(
    run: Run,
    split: str | None = None,
    *,
    positive: str | int | None = None,
    data: str | None = None,
    data_root: str | None = None,
    offline: bool = False,
    checkpoint: str = BEST,
    device: str | None = None,
    recalls: Sequence[float] = RECALLS,
    resamples: int = RESAMPLES,
    out: Path | None = None,
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run on one split of its data.

    Args:
        run: the run.
        split: ``train``, ``val`` or ``test``; None for the test split, but for all of other data
            that has no splits of its own, which is then called ``all``. Data of the training that
            has moved is not other data.
        positive: class that F1, the curves and the precision at a recall are about; None for that
            of the run. Without one there is no F1 of a class and no precision at a recall, and of
            two classes the curves are those of the second.
        data: another data set with classes of the same names; None for that of the run. Of a time
            series columns are found by their names, and the unit of time is the checkpoint's;
            image files are converted to the size and the channels of the training images.
        data_root: where the data is now; None for where it was.
        offline: do not download the data set.
        checkpoint: ``best.pt`` or ``last.pt``.
        device: None for the device of the run.
        recalls: at which the precision is reported.
        resamples: for the 95 % intervals; 0 for none.
        out: folder for ``evaluation-SPLIT.json``, ``predictions-SPLIT.csv``, of classes
            ``confusion-SPLIT.png``, ``wrong-SPLIT.png`` and, with a positive class,
            ``roc-SPLIT.png``, ``precision-recall-SPLIT.png`` and ``calibration-SPLIT.png``, of
            values ``truth-SPLIT.png``, ``residuals-SPLIT.png`` and, of a forecast,
            ``horizon-SPLIT.png``; None for the run's.
            Those of an earlier evaluation of that split go, also where they have no successor.

    Returns:
        The metrics of `classification_metrics`, or of `value_metrics`, preceded by what was
        evaluated (``checkpoint``, its ``epoch`` and ``digest``, the data and its ``remarks``),
        ``intervals``, and ``files``, the names of what was written. All of these files say which
        checkpoint they are of.

    Raises:
        RunError: there is no usable checkpoint, its classes are not those of the data, or the
            split of the run's own data is no longer what it was in training.
        ConfigError: no such split or class, or an impossible recall.
        fastltc.jobs.data.DataError: the data is missing or damaged.

    Example:
        >>> from fastltc.jobs import Run, evaluate
        >>> metrics = evaluate(Run.open("run"), "val")
        >>> metrics["auc"] > 0.5
        True
    """
    if split is not None:
        one_of(SPLITS).check("split", split, ConfigError)
    for recall in recalls:
        ABOVE_0_TO_1.check("recall", recall, ConfigError)
    FROM_0.check("resamples", resamples, ConfigError)
    loaded = run.load_checkpoint(checkpoint, device)
    asked = find_class(positive, loaded.classes)
    name = loaded.config.data if data is None else data
    options = loaded.config.data_options(data_root, offline=offline)
    if name != loaded.config.data:
        shape = loaded.image_shape if len(loaded.image_shape) == 3 else None
        # Inputs by name: columns and categories that are new there are not the model's.
        options = replace(
            options, whole=split is None, image_shape=shape, features=loaded.features or None
        )
    if loaded.features:
        # A step of the model is what it was in training, whatever the median of this data.
        options = replace(options, time_unit=loaded.time_unit)
    # Other data may be of another kind than that of the training, with other options.
    found = load_data(name, options=options, strict=False)
    if found.whole:
        found = _own_or_whole(found, name, options, loaded)
    found = _in_the_order_of(found, loaded, run.path / checkpoint)
    _check_fits(found, loaded, run.path / checkpoint)
    taken = split or "test"
    if name == loaded.config.data:
        advice = (
            "Restore the data or train anew; examples that are new can be judged from a place of "
            "their own: --data"
        )
        check_unchanged(found, loaded.splits, run.path / checkpoint, advice, [taken])
    part = _each_row_once(_in_the_classes_of(found, loaded, taken), per_step=loaded.per_step)
    split = "all" if found.whole else taken
    chosen = loaded.positive if asked is None else asked
    judge = judge_of(loaded, loaded.config, chosen, loaded.model)
    scores = judge.scores(loaded.model, feed_of(loaded, part))
    metrics = judge.metrics(part.labels, scores, recalls)
    result = {
        "run": str(run.path),
        "checkpoint": checkpoint,
        "epoch": loaded.epoch,
        "digest": loaded.digest,
        "data": found.name,
        "split": split,
        "remarks": list(found.remarks),
        **metrics,
    }
    if resamples:
        result["intervals"] = _intervals(judge, part, scores, chosen, resamples)
    folder = run.path if out is None else out
    title = f"{found.name}, {split}"
    if loaded.targets:
        pictures = value_pictures(loaded, part, scores, metrics, title)
        table = value_table(part, scores, loaded)
    else:
        labels, rows = judged(part.labels, scores)
        pictures = _pictures(loaded, labels, rows, chosen, metrics, resamples, title)
        wrong = wrong_picture(loaded, part, scores, title)
        pictures |= {} if wrong is None else {"wrong": wrong}
        table = _predictions(part, scores, loaded)
    contents = {f"predictions-{split}.csv": table}
    contents |= {f"{kind}-{split}.png": picture for kind, picture in pictures.items()}
    whole = evaluation_files(folder, split)
    result["files"] = sorted([*contents, whole[0].name])
    # Files of these names in a folder without an evaluation are the user's.
    earlier = whole if out is None or whole[0].exists() else []
    folder.mkdir(parents=True, exist_ok=True)
    contents[whole[0].name] = format_json(result)
    with interrupts_held_back():
        write_all({folder / name: content for name, content in contents.items()}, earlier)
    return result


def _intervals(
    judge: Judge, part: Split, scores: NDArray[np.float64], positive: int | None, resamples: int
) -> dict[str, list[float]]:
    if isinstance(judge, ValueJudge):
        levels, naive = judge.config.levels, judge.naive
        return value_intervals(
            part.labels, scores, quantiles=levels, naive=naive, resamples=resamples
        )
    labels, rows = judged(part.labels, scores)
    return bootstrap(
        labels, rows, lambda drawn, of: quick_metrics(drawn, of, positive), resamples=resamples
    )


def _own_or_whole(data: DataSet, name: str, options: DataOptions, loaded: Checkpoint) -> DataSet:
    """``data``; or, where it is that of the training in another place, this with its splits.

    All of it would be mostly what the model has seen.
    """
    count = sum(part["n"] for part in loaded.splits.values())
    # Sequences of the whole are other ones than those of the splits.
    if data.kind != "series" and len(data.splits["test"]) != count:
        return data
    try:
        own = load_data(name, options=replace(options, whole=False), strict=False)
    except DataError:  # too little for splits
        return data
    if fingerprints(own)["test"] != loaded.splits.get("test"):
        return data
    return replace(own, remarks=("the data of the training, in another place", *own.remarks))


def _in_the_order_of(data: DataSet, loaded: Checkpoint, path: Path) -> DataSet:
    """The data with the columns that the model reads, in their order; others are left out."""
    if not loaded.features or not data.features or data.features == loaded.features:
        return data
    missing = [name for name in loaded.features if name not in data.features]
    if missing:
        raise RunError(
            f"{path}: trained on the columns {', '.join(loaded.features)}; {data.name} has no "
            f"{missing[0]!r}, but {', '.join(data.features)}"
        )
    places = [data.features.index(name) for name in loaded.features]
    parts = data.splits.items()
    splits = {name: replace(part, inputs=part.inputs[..., places]) for name, part in parts}
    return replace(data, splits=splits, features=loaded.features)


def _check_fits(data: DataSet, loaded: Checkpoint, path: Path) -> None:
    for name in ("task", "targets", "horizon", "known", "per_step"):
        ours, theirs = getattr(loaded, name), getattr(data, name)
        # Of images, and in older checkpoints, there are no steps.
        if ours != theirs and (name != "per_step" or data.kind == "series"):
            raise RunError(f"{path}: trained for {name} = {ours!r}; {data.name} has {theirs!r}")
    strange = [name for name in data.classes if name not in loaded.classes]
    if strange:
        raise RunError(
            f"{path}: the model does not know class {strange[0]!r} of {data.name}; it was trained "
            f"for {len(loaded.classes)} classes: {', '.join(loaded.classes)}"
        )
    if data.multilabel != loaded.multilabel or (data.multilabel and data.classes != loaded.classes):
        raise RunError(f"{path}: trained for other labels than those of {data.name}")
    # Sequences may be of any length.
    first = 1 if data.kind == "series" else 0
    ours, theirs = loaded.image_shape, data.input_shape
    if len(ours) != len(theirs) or ours[first:] != theirs[first:]:
        raise RunError(f"{path}: trained for inputs of shape {ours}; {data.name} has {theirs}")


def _in_the_classes_of(data: DataSet, loaded: Checkpoint, split: str) -> Split:
    """A split with the labels that the model uses."""
    part = data.splits[split]
    part = replace(part, labels=np.asarray(part.labels))
    if data.classes == loaded.classes:
        return part
    # One more for -1, which stays what it is.
    place = np.array([*(loaded.classes.index(name) for name in data.classes), -1])
    return replace(part, labels=place[part.labels])


def _each_row_once(part: Split, *, per_step: bool) -> Split:
    """Sequences that overlap in training, cut down to those that bring rows of their own.

    These are then, as in the other splits, the fewest that have every row, and a row that two of
    them have is judged in the first.
    """
    if part.timespans is None or not part.names or not per_step:
        return part
    nothing = np.nan if part.labels.dtype.kind == "f" else IGNORED
    length = part.labels.shape[1]
    labels = part.labels.copy()
    split = [name.rpartition(":") for name in part.names]
    if not all(first.isdecimal() for _, _, first in split):
        return part  # of data that is made elsewhere
    places = [(file, int(first)) for file, _, first in split]
    kept = []
    # Of each file, the row that is the next to be judged.
    judged_to: dict[str, int] = {}
    for index, (file, start) in enumerate(places):
        done = judged_to.get(file, start)
        next_file, next_start = places[index + 1] if index + 1 < len(places) else ("", 0)
        if next_file == file and next_start <= done:
            continue
        labels[index, : max(done - start, 0)] = nothing
        judged_to[file] = start + length
        kept.append(index)
    return replace(part, labels=labels).take(np.array(kept, dtype=np.int64))


def _pictures(
    loaded: Checkpoint,
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    positive: int | None,
    metrics: dict[str, Any],
    resamples: int,
    title: str,
) -> dict[str, bytes]:
    of = loaded.origin
    made = {}
    if metrics["confusion_matrix"] is not None:
        counts = metrics["confusion_matrix"]
        made["confusion"] = plots.confusion_matrix(counts, loaded.classes, title=title, of=of)
    if positive is None and len(loaded.classes) == 2 and not loaded.multilabel:
        positive = 1
    if positive is None:
        return made
    truth = truth_of(labels, positive)
    if truth.all() or not truth.any():
        return made
    curves = curves_of(labels, scores, positive, resamples=resamples)
    title = f"{title}: {loaded.classes[positive]}"
    made["roc"] = plots.roc_curve(curves, title=title, of=of)
    made["precision-recall"] = plots.precision_recall(curves, title=title, of=of)
    if metrics.get("calibration"):
        made["calibration"] = plots.calibration(metrics["calibration"], title=title, of=of)
    return made


def _predictions(part: Split, scores: NDArray[np.float64], loaded: Checkpoint) -> bytes:
    """One line for each example: what it is called, its class, the answer, the probabilities.

    The last column says which checkpoint has answered: a CSV file has no other place for it that
    every reader skips.
    """
    rows = []
    classes = loaded.classes

    def add(name: str, true: str, predicted: str, row: NDArray[np.float64]) -> None:
        rows.append([name, true, predicted, *(f"{value:.6g}" for value in row), loaded.origin])

    for index, (labels, answers) in enumerate(zip(part.labels, scores, strict=True)):
        name = part.names[index] if part.names else str(index)
        if loaded.multilabel:
            add(name, named(labels, classes), named(answers, classes), answers)
            continue
        steps = zip(np.atleast_1d(labels), np.atleast_2d(answers), strict=True)
        for step, (label, row) in enumerate(steps):
            if label != IGNORED:
                called = f"{name}+{step}" if np.size(labels) > 1 else name
                add(called, classes[label], classes[int(row.argmax())], row)
    return format_table(["name", "class", "predicted", *classes, "checkpoint"], rows)
