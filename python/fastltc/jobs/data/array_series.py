"""Time series as arrays ``[n, T, I]``, in ``npz:FILE`` or a folder of ``.npy`` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .array_files import array_of
from .options import DataOptions
from .roles import named
from .sets import Split
from .windows import Windows, chunks

Arrays = Mapping[str, NDArray[Any]]

# What makes arrays a time series, beside the time steps.
MARKS = ("timespans", "lengths", "measured", "future")
_MOST_CLASSES = 1 << 16


def is_series(arrays: Arrays, prefix: str) -> bool:
    """Whether arrays ``[n, T, I]`` of a split are sequences: something says so beside them."""
    return "features" in arrays or any(f"{prefix}{mark}" in arrays for mark in MARKS)


def read_series(
    path: Path, arrays: Arrays, inputs: str, labels: str, prefix: str, options: DataOptions
) -> Split:
    """Sequences with what lies beside them.

    ``{prefix}timespans [n, T]`` from 0, ``{prefix}lengths [n]`` from 1 to T, ``{prefix}measured
    [n, T, I]`` of 0 and 1 and ``{prefix}future [n, H, F]``, where they are there.

    Args:
        path: of the file, for errors.
        arrays: all that it has.
        inputs: name of the array ``[n, T, I]``.
        labels: name of the array of classes ``[n, T]`` or ``[n]``; with ``options.target`` of
            values ``[n, T, K]``, ``[n, K]`` or, of a forecast, ``[n, H, K]``. For one value the
            last axis may be left out.
        prefix: ``train_``, or nothing where the file has no splits.
        options: ``target`` and ``horizon``.

    Raises:
        DataError: an array does not fit; the text names it.
    """
    values, answers = array_of(arrays, inputs, path), array_of(arrays, labels, path)
    if values.ndim != 3 or 0 in values.shape[1:]:
        raise DataError(f"{path}: {inputs}: expected sequences [n, T, I], got {values.shape}")
    count, rows, width = values.shape
    if len(answers) != count:
        raise DataError(f"{path}: {inputs} has {count} examples, {labels} has {len(answers)}")
    _check_finite(path, inputs, values)

    def beside(mark: str, shape: tuple[int, ...], expected: str) -> NDArray[Any] | None:
        name = f"{prefix}{mark}"
        if name not in arrays:
            return None
        found = array_of(arrays, name, path)
        if len(shape) != found.ndim or any(
            w not in (-1, s) for w, s in zip(shape, found.shape, strict=True)
        ):
            raise DataError(
                f"{path}: {name}: expected the shape {expected} of {inputs} {values.shape}, got "
                f"{found.shape}"
            )
        return found

    timespans = beside("timespans", (count, rows), "(n, T)")
    lengths = beside("lengths", (count,), "(n,)")
    measured = beside("measured", (count, rows, width), "(n, T, I)")
    future = beside("future", (count, -1, -1), "(n, H, F)")
    for mark, found in (("timespans", timespans), ("future", future)):
        for _, part in () if found is None else chunks(found):
            if not np.isfinite(part).all() or (mark == "timespans" and part.min(initial=0) < 0):
                raise DataError(f"{path}: {prefix}{mark}: expected numbers from 0, got others")
    if lengths is not None:
        wrong = np.flatnonzero(~((lengths >= 1) & (lengths <= rows) & (lengths % 1 == 0)))
        if len(wrong):
            raise DataError(
                f"{path}: {prefix}lengths: expected 1 to {rows}, got {lengths[wrong[0]]:g} in "
                f"place {wrong[0]}"
            )
        lengths = lengths.astype(np.int64)
    if measured is not None and not np.isin(measured, (0, 1)).all():
        raise DataError(f"{path}: {prefix}measured: expected 0 and 1, got other numbers")
    if options.target is not None:
        answers = _values(path, labels, answers, rows, options)
        if options.horizon and future is not None and future.shape[1] != options.horizon:
            expected = f"{options.horizon} rows (--horizon)"
            raise DataError(f"{path}: {prefix}future: expected {expected}, got {future.shape[1]}")
    else:
        answers = _classes(path, labels, answers, inputs, values)
    return Split(
        _lazy(values, np.float32),
        answers,
        None if timespans is None else _lazy(timespans, np.float32),
        (),
        lengths,
        None if measured is None else _lazy(measured, np.bool_),
        None if future is None else _lazy(future, np.float32),
    )


def _check_finite(path: Path, name: str, values: NDArray[Any]) -> None:
    for _, part in chunks(values):
        if not np.isfinite(part).all():
            raise DataError(f"{path}: {name}: has infinite or NaN values")


def _lazy(array: NDArray[Any], dtype: Any) -> Any:
    """The array in its type; where it is mapped and large, what draws from it."""
    if array.dtype != dtype or not isinstance(array, np.memmap) or not array.flags.c_contiguous:
        return np.asarray(array, dtype)
    flat = array.reshape(-1, *array.shape[2:])
    return Windows(flat, np.arange(len(array)) * array.shape[1], array.shape[1]).drawn()


def _classes(
    path: Path, name: str, found: NDArray[Any], inputs: str, values: NDArray[Any]
) -> NDArray[np.int64]:
    if found.ndim == 2 and found.shape[1] == 1 and values.shape[1] != 1:
        found = found[:, 0]
    if found.ndim not in (1, 2) or not np.issubdtype(found.dtype, np.integer):
        raise DataError(
            f"{path}: {name}: expected integers of shape (n, T), a class for each step, or (n,), "
            f"got {found.dtype} of shape {found.shape}; values are named by --target NAME"
        )
    if found.ndim == 2 and found.shape != values.shape[:2]:
        raise DataError(
            f"{path}: {name}: expected the shape (n, T) of {inputs} {values.shape}, got "
            f"{found.shape}"
        )
    if found.size and not 0 <= found.min() <= found.max() < _MOST_CLASSES:
        raise DataError(
            f"{path}: {name}: expected classes from 0 below {_MOST_CLASSES}, got {found.min()} "
            f"to {found.max()}"
        )
    return found.astype(np.int64)


def _values(
    path: Path, name: str, found: NDArray[Any], rows: int, options: DataOptions
) -> NDArray[np.float32]:
    targets, horizon = named(options.target), options.horizon
    steps = horizon or rows
    shape = found.shape
    if len(targets) == 1 and found.shape[1:] in ((), (steps,)):
        found = found[..., None]
    fits = found.shape[1:] == (steps, len(targets)) or (
        horizon is None and found.shape[1:] == (len(targets),)
    )
    if not fits:
        axes = f"(n, {steps}, {len(targets)})"
        other = "" if horizon else f" or (n, {len(targets)})"
        raise DataError(
            f"{path}: {name}: expected the {len(targets)} values of --target in the shape {axes}"
            f"{other}, got {shape}"
        )
    if np.isinf(found).any():
        raise DataError(f"{path}: {name}: has infinite values")
    return found.astype(np.float32)
