"""How a data set is read where its address alone does not say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from .errors import DataError

# Those that say where data comes from, and those of evaluation: for every source.
_EVERYWHERE = ("data_root", "offline", "progress", "whole", "image_shape")

# Called with (received, total) bytes.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DataOptions:
    """Options of `load_data`; one that a data set does not take is an error there.

    Args:
        data_root: folder to look for files in first, or the file itself.
        offline: never download.
        progress: called with received and total bytes while a file is downloaded.
        image_size: side of the square that images from files are resized to; None for their own
            size where all have the same, else 64.
        channels: 1 (grey) or 3 (RGB, grey images in all three) for images from files; None for
            what they have, which must be the same for all.
        file_column: column of a CSV file with the names of the images; None to look for one.
        label_column: column with the classes; None to look for one.
        split_column: column with ``train``, ``val`` or ``test``; None to look for one.
        group_column: column of what must not be in two splits (a patient, a lesion); for images in
            CSV files. Where there is a file for each split, None stands for a column ``group``.
        time_column: column with the time of a row; None to look for one.
        window: rows of a sequence, T, for time series.
        stride: rows from the start of one training sequence to the next; None for ``window``.
        time_unit: seconds that are one unit of ``timespans``; None for the median training step.
        split_seed: seed of a split that is made here, because the data has none.
        whole: make no split where the data has none; each of its splits is then all of it.
        image_shape: ``(C, H, W)`` that images from files are converted to, as those of a trained
            model; it wins over ``image_size`` and ``channels``.
    """

    data_root: Path | str | None = None
    offline: bool = False
    progress: Progress | None = None
    image_size: int | None = None
    channels: int | None = None
    file_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    time_column: str | None = None
    window: int = 32
    stride: int | None = None
    time_unit: float | None = None
    split_seed: int = 0
    whole: bool = False
    image_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("image_size", "window", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name}: expected at least 1, got {value}")
        if self.channels not in (None, 1, 3):
            raise DataError(f"channels: expected 1 (grey) or 3 (colour), got {self.channels}")
        if self.time_unit is not None and not 0 < self.time_unit < float("inf"):
            raise DataError(f"time_unit: expected seconds above 0, got {self.time_unit}")

    def only(self, taken: Sequence[str], source: str, *, strict: bool = True) -> DataOptions:
        """These options, once it is sure that ``source`` takes all that differ from the default.

        Args:
            taken: names of those that it takes.
            source: what it is called in the error.
            strict: False to leave out the others.

        Raises:
            DataError: an option was given that the source does not take; the text names it.
        """
        others: dict[str, Any] = {
            field.name: field.default
            for field in fields(self)
            if field.name not in (*_EVERYWHERE, *taken)
            and getattr(self, field.name) != field.default
        }
        if others and strict:
            name = next(iter(others))
            takes = ", ".join(_flag(other) for other in taken) or "none"
            raise DataError(
                f"{_flag(name)} {getattr(self, name)}: {source} does not take this option; it "
                f"takes: {takes}"
            )
        return replace(self, **others)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
