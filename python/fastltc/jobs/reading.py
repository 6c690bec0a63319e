"""How a data set is read where its address alone does not say."""

from __future__ import annotations

from dataclasses import dataclass

from .options import COUNT, SEED, Range, option

_CHANNELS = Range("1 (grey) or 3 (colour)", (1, 3).__contains__)
_SECONDS = Range("seconds above 0", lambda value: 0 < value < float("inf"))


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """The options of reading data, which those of training have among them.

    None stands for what the data says itself.
    """

    image_size: int | None = option(None, "Resize images from files to NxN.", COUNT)
    """None for their own size where all have the same, else 64."""
    channels: int | None = option(None, "1 for grey, 3 for colour.", _CHANNELS)
    """Of images from files, grey ones in all three; None for what they have, which must be the same
    for all."""
    file_column: str | None = option(None, "Column of a CSV file with the images.")
    label_column: str | None = option(None, "Column with the classes.")
    split_column: str | None = option(None, "Column with train, val or test.")
    group_column: str | None = option(None, "Column of patients, lesions, ...")
    """Of what must not be in two splits; for images in CSV files. Where there is a file for each
    split, None stands for a column ``group``."""
    time_column: str | None = option(None, "Column with the time of a row.")
    window: int = option(32, "Rows of a sequence.", COUNT, metavar="ROWS", usual="32")
    stride: int | None = option(
        None,
        "Rows from one training sequence to the next.",
        COUNT,
        metavar="ROWS",
        usual="window",
    )
    time_unit: float | None = option(
        None, "One unit of time.", _SECONDS, metavar="SECONDS", usual="the median step"
    )
    """Of training data; seconds."""
    split_seed: int = option(0, "Seed of a split that is made here.", SEED, usual="0")
