"""How a data set is read where its address alone does not say."""

from __future__ import annotations

from dataclasses import dataclass

from .options import COUNT, SEED, Range, one_of, option

_CHANNELS = Range("1 (grey) or 3 (colour)", (1, 3).__contains__)
_SECONDS = Range("seconds above 0", lambda value: 0 < value < float("inf"))
LABELS_PER = ("step", "recording", "window")
SPLITS_BY = ("time", "recording", "windows")
MISSING = ("error", "hold", "mask", "skip")
ENCODINGS = ("one-hot", "codes")


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
    recording_column: str | None = option(None, "Column with the recording that a row is of.")
    """A subject, a machine, a trip: no sequence crosses from one to the next."""
    inputs: str | None = option(
        None, "Columns that are inputs.", metavar="NAME[,NAME]", usual="all others"
    )
    target: str | None = option(None, "Columns with the values to predict.", metavar="NAME[,NAME]")
    """In place of a column with classes; of a forecast, None stands for all inputs."""
    label_per: str | None = option(
        None,
        "What has a class or a value: step, recording or window.",
        one_of(LABELS_PER),
        usual="step",
    )
    """Each row; each recording, in all of its rows; or each window, in its last row. None for what
    the layout says, else for each row."""
    horizon: int | None = option(None, "Rows to forecast.", COUNT, metavar="ROWS")
    known: str | None = option(
        None, "Columns known in advance, of a forecast.", metavar="NAME[,NAME]"
    )
    categorical: str | None = option(
        None, "Inputs that are names, no numbers.", metavar="NAME[,NAME]"
    )
    encoding: str = option("one-hot", "Of names: one-hot or codes.", one_of(ENCODINGS))
    """An input of 0 and 1 for each name, or one input with the place of the name among all."""
    missing: str = option(
        "error", "Gaps in the inputs: error, hold, mask or skip.", one_of(MISSING)
    )
    """``hold`` puts the last value of the recording in their place (0 before the first), ``mask``
    tells the model besides, ``skip`` leaves the row out."""
    split_by: str | None = option(
        None,
        "Of a time series: time, recording or windows.",
        one_of(SPLITS_BY),
        usual="time; recording",
    )
    """None for recordings where a column names them, else for time. Windows that overlap leak."""
    window: int | None = option(None, "Rows of a sequence.", COUNT, metavar="ROWS", usual="32")
    """None for whole recordings where each has one class or value."""
    stride: int | None = option(
        None,
        "Rows from one training sequence to the next.",
        COUNT,
        metavar="ROWS",
        usual="window; 1 of a forecast",
    )
    time_unit: float | None = option(
        None, "One unit of time.", _SECONDS, metavar="SECONDS", usual="the median step"
    )
    """Of training data; seconds."""
    split_seed: int = option(0, "Seed of a split that is made here.", SEED, usual="0")
