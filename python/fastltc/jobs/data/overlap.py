"""Rows of time series that are in two splits, as where windows that overlap are dealt out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .sets import IGNORED, SPLITS, DataSet
from .windows import chunks


class Shared(NamedTuple):
    """Of the rows that are ``judged`` in ``split``, those in sequences of ``earlier``."""

    split: str
    earlier: str
    shared: int
    judged: int


def shared_rows(data: DataSet) -> tuple[Shared, ...]:
    """How many rows of a split are in sequences of an earlier one, for each pair of splits.

    Rows of a split are those that have a class or a value to judge by; where that is one of the
    sequence, all of the sequence. What stands before them as an input only may be seen before.

    Raises:
        DataError: this is no time series, or does not say which rows its sequences are.
    """
    if data.kind != "series" or not all(split.names for split in data.splits.values()):
        raise DataError(
            f"{data.name}: rows are compared by their places in files, which it does not say"
        )
    rows = {name: _rows(data, name) for name in SPLITS}
    files = {file for seen, _ in rows.values() for file in seen}
    found = []
    for place, name in enumerate(SPLITS):
        for earlier in SPLITS[:place]:
            count = of = 0
            for file in files:
                judged = np.unique(rows[name][1].get(file, np.empty(0, np.int64)))
                seen = np.unique(rows[earlier][0].get(file, np.empty(0, np.int64)))
                of += len(judged)
                count += int(np.isin(judged, seen, assume_unique=True).sum())
            found.append(Shared(name, earlier, count, of))
    return tuple(found)


def leaks(data: DataSet) -> tuple[str, ...]:
    """A sentence for each split that shares rows with an earlier one."""
    return tuple(
        f"LEAK: {one.shared:,} of {one.judged:,} rows of the {one.split} split are also in "
        f"{'training' if one.earlier == 'train' else one.earlier} sequences; scores on them are "
        "too good. See: fastltc audit"
        for one in shared_rows(data)
        if one.shared
    )


Files = dict[str, NDArray[np.int64]]


def _rows(data: DataSet, name: str) -> tuple[Files, Files]:
    """The rows in the sequences of a split, and those that are judged, by file."""
    split, window = data.splits[name], data.input_shape[0]
    lengths = np.full(len(split), window) if split.lengths is None else split.lengths
    files, first = zip(*(one.rsplit(":", 1) for one in split.names), strict=True)
    starts = np.array(first, np.int64)
    of = np.array(files)
    ahead = np.arange(window + data.horizon)
    inside = ahead < (lengths + data.horizon)[:, None]
    judged = inside.copy()
    if data.horizon or data.per_step:
        judged[:] = False
        offset = lengths if data.horizon else np.zeros_like(lengths)
        for start, part in chunks(split.labels):
            known: NDArray[Any] = part != IGNORED
            if data.targets:
                known = (~np.isnan(part)).any(axis=-1)
            where, step = np.nonzero(known)
            judged[where + start, step + offset[where + start]] = True
    places = starts[:, None] + ahead

    def by_file(chosen: NDArray[np.bool_]) -> Files:
        return {file: places[of == file][chosen[of == file]] for file in set(files)}

    return by_file(inside), by_file(judged)
