"""What a data set is to a model: arrays in three splits, and the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .windows import Windows, chunks

SPLITS = ("train", "val", "test")

# By the number of axes of one input.
KINDS = {3: "images", 2: "series", 1: "vectors"}

# The remark on data that is whole.
WHOLE = "without splits of its own: all of it is judged"

# The label of a row that is in a sequence for its context only and is neither learned nor judged.
IGNORED = -1


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Args:
        inputs: images ``[n, C, H, W]``, uint8 or float32 in ``[0, 1]``; time series
            ``[n, T, I]`` or vectors ``[n, I]``, float32 in their own units.
        labels: ``[n]``, int64, an index into the data set's ``classes``; one for each step of a
            time series ``[n, T]``, where -1 is not judged; for several labels at once
            ``[n, classes]`` of 0 and 1. Values in place of classes are float32 in their own
            units: ``[n, K]``, for each step ``[n, T, K]``, of a forecast ``[n, H, K]``; NaN is
            neither learned nor judged.
        timespans: for time series ``[n, T]``, float32, the time since the row before, in units of
            the data set's ``time_unit``.
        names: what each input is called (a file, the place in a table); empty where nothing is.
        lengths: rows of each time series, ``[n]``, int64; what comes after is padding. None where
            all have T.
        measured: ``[n, T, I]``, bool, which inputs were measured; what was not holds the last
            value that was, or 0. None where all were.
        future: ``[n, H, F]``, float32, what is known of the steps to forecast. None for nothing.

    Arrays of a time series that would be large are `fastltc.jobs.data.windows.Windows`, which are
    indexed as arrays are and draw what is asked for.
    """

    inputs: NDArray[np.generic]
    labels: NDArray[Any]
    timespans: NDArray[np.float32] | None = None
    names: tuple[str, ...] = ()
    lengths: NDArray[np.int64] | None = None
    measured: NDArray[np.bool_] | None = None
    future: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[Any]) -> Split:
        """Some of the examples, by their places or by a truth for each."""
        names = tuple(np.array(self.names)[chosen].tolist()) if self.names else ()
        of_examples = ("inputs", "labels", "timespans", "lengths", "measured", "future")
        held = {name: getattr(self, name) for name in of_examples}
        taken: dict[str, Any] = {
            name: array.take(chosen) if isinstance(array, Windows) else array[chosen]
            for name, array in held.items()
            if array is not None
        }
        return Split(**taken, names=names)

    def drawn(self) -> Split:
        """The same, with windows that are small as arrays."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        drawn = {name: array.drawn() for name, array in held.items() if isinstance(array, Windows)}
        return replace(self, **drawn)


@dataclass(frozen=True)
class DataSet:
    """A data set with its train, validation and test splits: of classes or of values.

    Args:
        name: what ``fastltc train NAME`` calls it.
        classes: class names; the label is the index. Empty where ``targets`` are not.
        splits: ``train``, ``val`` and ``test``.
        source: where the data came from, a path or a description.
        positive: index of the class that F1 is about unless another is asked for; None where
            no class stands out.
        remarks: what a reader of the metrics must know about this data.
        features: names of the I inputs of a time series or a vector.
        time_unit: seconds that are one unit of ``timespans``; 0 without them.
        multilabel: each input may have several of the classes, or none.
        whole: the data has no splits of its own and none was made: each is all of it.
        targets: names of the K values to predict; empty for classes.
        horizon: steps to forecast, H; 0 where nothing is forecast.
        known: names of the F features that are known in advance.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    source: str
    positive: int | None = None
    remarks: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    time_unit: float = 0.0
    multilabel: bool = False
    whole: bool = False
    targets: tuple[str, ...] = ()
    horizon: int = 0
    known: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """``"classification"``, ``"regression"`` or ``"forecasting"``."""
        return task_of(self.targets, self.horizon)

    @property
    def per_step(self) -> bool:
        """Whether every row of a time series has a label of its own."""
        labels = self.splits["train"].labels
        return (
            not (self.multilabel or self.horizon)
            and self.kind == "series"
            and labels.ndim == (3 if self.targets else 2)
        )

    @property
    def kind(self) -> str:
        """``"images"``, ``"series"`` or ``"vectors"``."""
        return KINDS[len(self.input_shape)]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(C, H, W)`` of every image, ``(T, I)`` of every sequence or ``(I,)`` of a vector."""
        return tuple(int(size) for size in self.splits["train"].inputs.shape[1:])


def task_of(targets: Sequence[str], horizon: int) -> str:
    """``"classification"``, ``"regression"`` or ``"forecasting"``."""
    return "forecasting" if horizon else "regression" if targets else "classification"


def check_splits(data: DataSet) -> DataSet:
    """The same data set, once it is sure that it can be learned from and judged by.

    Raises:
        DataError: a split is empty or has one class only, a class has no training example, or a
            value to predict is not known in a split or the same in all training rows; the text
            names it.
    """
    for name in SPLITS:
        split = data.splits[name]
        if len(split) == 0:
            raise DataError(f"{data.source}: the {name} split is empty")
        # What is only judged may be of one class.
        if data.multilabel or data.whole:
            continue
        if data.targets:
            _check_values(data, name)
            continue
        found = sorted(set().union(*(np.unique(part).tolist() for _, part in chunks(split.labels))))
        found = [label for label in found if label != IGNORED]
        if len(found) < 2:
            held = data.classes[found[0]] if found else "none"
            raise DataError(
                f"{data.source}: the {name} split has one class only ({held}); "
                "nothing can be judged by it"
            )
        if name == "train":
            missing = sorted({*range(len(data.classes))} - {*found})
            if missing:
                listed = ", ".join(data.classes[place] for place in missing)
                raise DataError(f"{data.source}: no training example of class {listed}")
    return data


def _check_values(data: DataSet, name: str) -> None:
    least = np.full(len(data.targets), np.inf)
    most = -least
    for _, part in chunks(data.splits[name].labels):
        rows = part.reshape(-1, len(data.targets))
        least = np.fmin(least, np.fmin.reduce(rows, axis=0))
        most = np.fmax(most, np.fmax.reduce(rows, axis=0))
    for target, low, high in zip(data.targets, least, most, strict=True):
        if not low <= high:
            raise DataError(f"{data.source}: the {name} split has no value of {target!r}")
        if name == "train" and low == high:
            raise DataError(
                f"{data.source}: {target!r} is {low:g} in all training rows; nothing can be "
                "learned of it"
            )


def class_names(found: set[str]) -> tuple[str, ...]:
    """Classes in the order of their names; numbers in the order of their values."""
    if all(name.isdecimal() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))
