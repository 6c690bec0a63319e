"""Whether the splits of a data set still are those that a run was trained with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .data import SPLITS, DataSet, Split
from .data.windows import chunks
from .errors import RunError


def fingerprints(data: DataSet) -> dict[str, dict[str, Any]]:
    """The size ``n`` of each split and a ``digest`` of its content, for a checkpoint."""
    return {
        name: {"n": len(split), "digest": _digest(split)} for name, split in data.splits.items()
    }


def _digest(split: Split) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    of_series = (split.timespans, split.lengths, split.measured, split.future)
    for array in (split.inputs, split.labels, *of_series):
        if array is None:
            continue
        hashed.update(f"{array.dtype.str} {array.shape} ".encode())
        for _, part in chunks(array):
            hashed.update(np.ascontiguousarray(part).data)
    return hashed.hexdigest()


def check_unchanged(
    data: DataSet,
    known: Mapping[str, Mapping[str, Any]],
    path: Path,
    advice: str,
    names: Iterable[str] = SPLITS,
) -> None:
    """Makes sure that splits hold what they held when a checkpoint was written.

    Splits that are made here are made anew of the files that are there. With a few files more,
    test examples would be some that the model was trained on. ``known`` are the `fingerprints` of
    the checkpoint at ``path``; those of older ones are empty, which checks nothing.

    Raises:
        RunError: a split has changed; the text names the first, and the sizes then and now.
    """
    for name in names:
        split = data.splits[name]
        then = known.get(name)
        if then is None or then["digest"] == _digest(split):
            continue
        sizes = (f"{known[one]['n']} {one}, now {len(data.splits[one])}" for one in SPLITS)
        raise RunError(
            f"{path}: the {name} split of {data.name} is not the one of the training; examples "
            f"then and now: {'; '.join(sizes)}. {advice}"
        )
