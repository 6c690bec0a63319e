"""``npz:FILE``: images, time series or vectors as NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..defaults import SHARES
from ..errors import DataError
from .array_files import array_of, open_folder, open_npz
from .array_series import is_series, read_series
from .options import DataOptions
from .partition import partition
from .roles import named
from .sets import SPLITS, WHOLE, DataSet, Split, check_splits
from .tables import check_classes_are_none_of_a_regression

# What the inputs and labels of a split may be called.
_LAYOUTS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"), ("X_{}", "y_{}"))
# Each class has its name, and a number in the answer for every example.
_MOST_CLASSES = 1 << 16
_WHOLE = (("images", "labels"), ("x", "y"), ("X", "y"), ("embeddings", "labels"))


def load_npz(path: Path, options: DataOptions) -> DataSet:
    """Reads inputs and labels from an ``.npz`` file, or from a folder of ``.npy`` files.

    Arrays of the splits are ``train_images`` and ``train_labels`` (as MedMNIST has them) or
    ``x_train`` and ``y_train``, likewise ``val`` and ``test``; or ``images`` and ``labels`` (or
    ``x`` and ``y``) of all, which are split 70/10/20 here. Images are ``[n, H, W]``,
    ``[n, H, W, C]`` or ``[n, C, H, W]`` of uint8, or floats in ``[0, 1]``; vectors (embeddings)
    ``[n, I]``; time series ``[n, T, I]`` with ``train_timespans``, ``train_lengths`` and so on
    beside them (see `read_series`; without the ``train_`` of all), or with the names of the I
    inputs in ``features``. Labels are integers ``[n]`` or ``[n, 1]``, of time series also
    ``[n, T]``, or values. A split made here is stratified by class, but that of time series with
    an answer for each step, which is one of whole sequences.
    Class names, all different, are in ``classes`` where there is such an array of strings.

    Of a folder the arrays stay on the disk, and sequences of float32 are read from it when they are
    used.

    Raises:
        DataError: an array is missing or does not fit; the text names it.
    """
    arrays = open_folder(path) if path.is_dir() else open_npz(path)
    whole = next((pair for pair in _WHOLE if pair[0] in arrays and pair[1] in arrays), None)
    remarks: tuple[str, ...] = ()
    read: dict[str, Split] = {}
    layout = next((pair for pair in _LAYOUTS if pair[0].format("train") in arrays), None)
    if layout is not None:
        for split in SPLITS:
            inputs, labels = (part.format(split) for part in layout)
            if split != "val" or inputs in arrays:
                read[split] = _read(path, arrays, inputs, labels, f"{split}_", options)
        if "val" not in read:
            train = read["train"]
            where, how = _partition(train.labels, (0.9, 0.1, 0.0), options.split_seed)
            read |= {split: train.take(where == split) for split in ("train", "val")}
            remarks = (f"validation: 10 % of the training examples, {how}",)
    elif whole is not None:
        everything = _read(path, arrays, whole[0], whole[1], "", options)
        if options.whole:
            read = dict.fromkeys(SPLITS, everything)
            remarks = (WHOLE,)
        else:
            where, how = _partition(everything.labels, SHARES, options.split_seed)
            read = {split: everything.take(where == split) for split in SPLITS}
            remarks = (f"split 70/10/20 here, {how}",)
    else:
        raise DataError(
            f"{path}: expected train_images and train_labels, x_train and y_train, or images and "
            f"labels; the file has: {', '.join(arrays) or 'none'}"
        )
    shapes = {name: split.inputs.shape[1:] for name, split in read.items()}
    if len(set(shapes.values())) != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(f"{path}: the splits have different shapes: {listed}")
    targets = () if options.target is None else tuple(named(options.target))
    classes: tuple[str, ...] = ()
    if not targets:
        largest = max(int(split.labels.max(initial=0)) for split in read.values())
        classes = _classes(path, arrays, largest + 1)
    future = read["train"].future
    return check_splits(
        DataSet(
            name=f"npz:{path}",
            classes=classes,
            splits={name: read[name] for name in SPLITS},
            source=str(path),
            remarks=remarks,
            whole=whole is not None and options.whole,
            time_unit=1.0 if any(part.timespans is not None for part in read.values()) else 0.0,
            features=_names(path, arrays, "features", read["train"].inputs.shape[-1]),
            targets=targets,
            horizon=(options.horizon or 0) if targets else 0,
            known=() if future is None else _names(path, arrays, "known", future.shape[-1]),
        )
    )


def _partition(
    labels: NDArray[np.int64], shares: Sequence[float], seed: int
) -> tuple[NDArray[np.str_], str]:
    """The split of each example, and how it was made."""
    if labels.ndim == 1 and labels.dtype.kind != "f":
        return np.array(partition(labels.tolist(), shares, seed)), f"stratified, seed {seed}"
    # A sequence has many classes, and its rows must stay together.
    found = partition(["sequence"] * len(labels), shares, seed)
    return np.array(found), f"whole sequences, not stratified, seed {seed}"


def _read(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    inputs: str,
    labels: str,
    prefix: str,
    options: DataOptions,
) -> Split:
    values, found = (array_of(arrays, name, path) for name in (inputs, labels))
    if np.issubdtype(found.dtype, np.floating) and options.target is None:
        check_classes_are_none_of_a_regression(
            found.ravel().tolist(), f"{path}: {labels}", "number them from 0"
        )
    if is_series(arrays, prefix) and values.ndim == 3:
        return read_series(path, arrays, inputs, labels, prefix, options)
    if options.target is not None:
        raise DataError(
            f"--target {options.target}: {path} has no time series, which has {prefix}timespans or "
            f"{prefix}lengths beside {inputs} [n, T, I]"
        )
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise DataError(
            f"{path}: {labels}: expected integers of shape (n,) or (n, 1), got {found.dtype} of "
            f"shape {arrays[labels].shape}{_hint(found, labels, f'{prefix}timespans')}"
        )
    if len(found) != len(values):
        raise DataError(f"{path}: {inputs} has {len(values)} examples, {labels} has {len(found)}")
    if found.size and not 0 <= found.min() <= found.max() < _MOST_CLASSES:
        raise DataError(
            f"{path}: {labels}: expected classes from 0 below {_MOST_CLASSES}, got {found.min()} "
            f"to {found.max()}"
        )
    return Split(_inputs(path, inputs, values), found.astype(np.int64))


def _hint(found: NDArray[Any], labels: str, timespans: str) -> str:
    """What may be meant by labels of another shape than ``(n,)``."""
    if found.ndim != 2:
        return ""
    if found.size and np.isin(found, (0, 1)).all():
        if (found.sum(axis=1) == 1).all():
            return f": one-hot labels; give the classes, {labels}.argmax(1)"
        return "; several labels of an example are read of MedMNIST sets only"
    return f"; of a time series {timespans} is missing"


def _inputs(path: Path, name: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim == 2:
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError(f"{path}: {name}: has infinite or NaN values")
        return values
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and values.shape[-1] in (1, 3) and values.shape[1] not in (1, 3):
        values = np.moveaxis(values, -1, 1)
    if values.ndim != 4 or values.shape[1] not in (1, 3):
        raise DataError(
            f"{path}: {name}: expected images [n, H, W], [n, H, W, C] or [n, C, H, W] with C of 1 "
            f"or 3, or vectors [n, I]; got shape {values.shape}"
        )
    if 0 in values.shape[1:]:
        raise DataError(f"{path}: {name}: expected pixels, got none, shape {values.shape}")
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    pixels = np.ascontiguousarray(values, dtype=np.float32)
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise DataError(
            f"{path}: {name}: expected uint8, or numbers in [0, 1], got {values.dtype} from "
            f"{values.min():g} to {values.max():g}"
        )
    return pixels


def _names(path: Path, arrays: dict[str, NDArray[Any]], kind: str, count: int) -> tuple[str, ...]:
    """The names in an array of texts; of what is known, numbers where there is no such array."""
    if kind not in arrays:
        return tuple(f"known {place}" for place in range(count)) if kind == "known" else ()
    names = tuple(str(name) for name in arrays[kind].ravel())
    if len(names) != count or len(set(names)) != count:
        raise DataError(f"{path}: {kind}: expected {count} different names, got {len(names)}")
    return names


def _classes(path: Path, arrays: dict[str, NDArray[Any]], count: int) -> tuple[str, ...]:
    if "classes" not in arrays:
        return tuple(str(index) for index in range(max(count, 2)))
    names = tuple(str(name) for name in arrays["classes"].ravel())
    if len(names) < count:
        raise DataError(f"{path}: classes: expected {count} names for the labels, got {len(names)}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: classes: expected different names, got {twice!r} twice")
    return names
