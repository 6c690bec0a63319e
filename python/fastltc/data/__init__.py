"""Data sets for the classifier jobs, and image files for prediction."""

from __future__ import annotations

from pathlib import Path

from .digits import load_digits
from .errors import DataError
from .images import SPLITS, ImageData, ImageFile, Split, normalise, read_image
from .medmnist import RECORDS, Progress, load_medmnist

__all__ = [
    "SPLITS",
    "DataError",
    "ImageData",
    "ImageFile",
    "Split",
    "data_sets",
    "load_data",
    "normalise",
    "read_image",
]


def data_sets() -> tuple[str, ...]:
    """Names that `load_data` knows."""
    return ("digits", *sorted(RECORDS))


def load_data(
    name: str,
    data_root: Path | str | None = None,
    *,
    offline: bool = False,
    progress: Progress | None = None,
) -> ImageData:
    """Loads a data set by name.

    Args:
        name: one of `data_sets`.
        data_root: folder (or file) to look in first; ``digits`` needs none.
        offline: never download.
        progress: called with received and total bytes while a file is downloaded.

    Returns:
        The images and labels of all three splits.

    Raises:
        DataError: the name is unknown, or the file is missing or damaged.

    Example:
        >>> from fastltc.data import load_data
        >>> len(load_data("digits").splits["train"])
        1257
    """
    if name == "digits":
        return load_digits()
    if name in RECORDS:
        return load_medmnist(name, data_root, offline=offline, progress=progress)
    raise DataError(f"unknown data set {name!r}; known: {', '.join(data_sets())}")
