"""What the readers of published protocols share: windows and splits as those papers cut them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..fetch import cache_folder
from ..options import DataOptions
from ..sets import SPLITS, Split
from ..windows import Windows


def starts(rows: int, window: int, stride: int) -> NDArray[np.int64]:
    """First rows of windows as the papers have them: none ends on the last row."""
    return np.arange(0, rows - window, stride)


def split_of(
    name: str,
    first: NDArray[np.int64],
    window: int,
    inputs: NDArray[np.float32],
    answers: NDArray[np.float32] | NDArray[np.int64],
    timespans: NDArray[np.float32] | None = None,
    row: int = 0,
) -> Split:
    """Windows of the rows of one recording, with an answer for each row.

    Args:
        name: of the recording.
        first: the first row of each window.
        window: rows of each.
        inputs: of all rows.
        answers: of all rows.
        timespans: of all rows.
        row: the number of the first of these rows in the recording.
    """
    drawn: list[Any] = [
        None if rows is None else Windows(rows, first, window).drawn()
        for rows in (inputs, answers, timespans)
    ]
    names = tuple(f"{name}:{start + row + 1}" for start in first)
    return Split(drawn[0], drawn[1], drawn[2], names)


def joined(parts: Sequence[Split]) -> Split:
    """Windows of several recordings as one split."""
    columns = zip(*((one.inputs, one.labels, one.timespans) for one in parts), strict=True)
    held: list[Any] = [None if own[0] is None else np.concatenate(own) for own in columns]
    return Split(held[0], held[1], held[2], tuple(name for one in parts for name in one.names))


def dealt(whole: Split, seed: int) -> dict[str, Split]:
    """Windows in a random order: the first 10 % validate, the next 15 % test, the rest train."""
    order = np.random.RandomState(seed).permutation(len(whole))
    val = int(0.1 * len(whole))
    test = val + int(0.15 * len(whole))
    taken = {"train": order[test:], "val": order[:val], "test": order[val:test]}
    return {name: whole.take(taken[name]) for name in SPLITS}


def find(names: Sequence[str], options: DataOptions, remedy: str) -> Path:
    """A file or folder that cannot be downloaded, in the data root or in the cache.

    Raises:
        DataError: there is none; the text says where it was looked for, and ``remedy``.
    """
    folders = [cache_folder()]
    if options.data_root is not None:
        root = Path(options.data_root).expanduser()
        if not root.exists():
            raise DataError(f"data root {root} does not exist")
        folders.insert(0, root)
    places = [place / name for place in folders for name in names]
    if options.data_root is not None and folders[0].name in names:
        places.insert(0, folders[0])
    found = next((place for place in places if place.exists()), None)
    if found is None:
        looked = "\n".join(f"  {place}" for place in places)
        raise DataError(f"{names[0]} not found. Looked for:\n{looked}\n{remedy}")
    return found
