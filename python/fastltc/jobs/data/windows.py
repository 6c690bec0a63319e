"""Windows of rows that are drawn when they are asked for, and arrays that may lie on the disk."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

# Arrays of more bytes lie in a file, and windows of more bytes are drawn when they are asked for.
IN_MEMORY = 1 << 27
# Rows, or windows, that are worked on at once where all of them may be many, and their bytes.
CHUNK, CHUNK_BYTES = 1 << 14, 1 << 22


class Windows:
    """Windows of the rows of an array: to whoever indexes it, an array ``[n, window, ...]``.

    Only what is asked for is copied, so the rows may lie in a mapped file that is larger than the
    memory. The first axis is indexed by a number, a slice, numbers or a truth for each; the answer
    is a NumPy array. ``windows[..., places]`` are windows with some of the last axis, and `take`
    some of the windows; neither copies. ``np.asarray`` draws all.

    Args:
        rows: ``[R, ...]``.
        starts: the first row of each window, ``[n]``.
        window: rows of a window.
        lengths: rows that each window has, ``[n]``; ``fill`` comes after them. None for all.
        hidden: first rows of each window that are ``fill`` as well, ``[n]``. None for none.
        fill: what stands where no row is.
        places: those of the last axis that are taken; None for all.

    Example:
        >>> import numpy as np
        >>> Windows(np.arange(6), np.array([0, 3]), 2)[1]
        array([3, 4])
    """

    def __init__(
        self,
        rows: NDArray[Any],
        starts: NDArray[np.int64],
        window: int,
        lengths: NDArray[np.int64] | None = None,
        hidden: NDArray[np.int64] | None = None,
        fill: float = 0,
        places: NDArray[np.int64] | None = None,
    ) -> None:
        self.rows, self.starts, self.window, self.fill = rows, starts, window, fill
        self.lengths = np.full(len(starts), window, np.int64) if lengths is None else lengths
        self.hidden = np.zeros(len(starts), np.int64) if hidden is None else hidden
        self.places = places
        inner = rows.shape[1:] if places is None else (*rows.shape[1:-1], len(places))
        self.shape: tuple[int, ...] = (len(starts), window, *inner)
        self.dtype: np.dtype[Any] = rows.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all windows, once they are drawn."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, chosen: Any) -> Windows:
        """Some of the windows, by their places or by a truth for each."""
        picked = (part[chosen] for part in (self.starts, self.lengths, self.hidden))
        starts, lengths, hidden = picked
        return Windows(self.rows, starts, self.window, lengths, hidden, self.fill, self.places)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and len(key) == 2 and key[0] is Ellipsis:
            places = np.arange(self.shape[-1]) if self.places is None else self.places
            places = places[np.asarray(key[1])]
            parts = (self.starts, self.window, self.lengths, self.hidden, self.fill)
            return Windows(self.rows, *parts, places)
        if isinstance(key, tuple):
            if not key:
                return self
            one = isinstance(key[0], (int, np.integer))
            return self[key[0]][key[1:] if one else (slice(None), *key[1:])]
        if isinstance(key, (int, np.integer)):
            return self[np.array([key])][0]
        part = self.take(key)
        step = np.arange(self.window)
        at = part.starts[:, None] + step
        outside = (step >= part.lengths[:, None]) | (step < part.hidden[:, None])
        # What is outside of a window need not be a row at all.
        at[outside] = 0
        drawn = np.asarray(self.rows[at])
        if self.places is not None:
            drawn = drawn[..., self.places]
        drawn[outside] = self.fill
        return drawn

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for start, part in chunks(self):
            found[start : start + len(part)] = part
        return found

    def drawn(self) -> Any:
        """All of them as an array where that is small, else these windows."""
        return self if self.nbytes > IN_MEMORY else np.asarray(self)


def chunks(array: Any, size: int = CHUNK) -> Iterator[tuple[int, NDArray[Any]]]:
    """An array, or windows, a part at a time: the place of each part and what is there."""
    if len(array):
        size = max(1, min(size, CHUNK_BYTES * len(array) // max(array.nbytes, 1)))
    for start in range(0, len(array), size):
        yield start, array[start : start + size]


def new_array(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array of zeros, which lies in a file without a name where it is large.

    The file is in the folder of temporary files (``TMPDIR``) and goes with the array.

    Raises:
        DataError: the disk has no room for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            # Else the process would end where a page that is written to finds no room.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            raise DataError(
                f"{tempfile.gettempdir()}: no room for {size:,} bytes of rows: {error.strerror}; "
                "another folder is named by TMPDIR"
            ) from None
        return np.memmap(file, dtype, "r+", shape=shape)
