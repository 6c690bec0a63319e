"""Options of `load_data`: how a data set is read, and from where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DataError
from ..options import check_options, options_of
from ..reading import ReadingOptions

# Called with (received, total) bytes.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class DataOptions(ReadingOptions):
    """Options of `load_data`; one that a data set does not take is an error there.

    The options from ``image_size`` to ``split_seed`` are those of
    `fastltc.jobs.reading.ReadingOptions`.

    Args:
        data_root: folder to look for files in first, or the file itself.
        offline: never download.
        progress: called with received and total bytes while a file is downloaded.
        whole: make no split where the data has none; each of its splits is then all of it.
        image_shape: ``(C, H, W)`` that images from files are converted to, as those of a trained
            model; it wins over ``image_size`` and ``channels``.
        features: the inputs of a trained model, which of a time series are found by these names.
    """

    data_root: Path | str | None = None
    offline: bool = False
    progress: Progress | None = None
    whole: bool = False
    image_shape: tuple[int, int, int] | None = None
    features: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_options(self, DataError)

    def only(self, taken: Sequence[str], source: str, *, strict: bool = True) -> DataOptions:
        """These options, once it is sure that ``source`` takes all that differ from the default.

        Where that is not ``strict``, those that are not among the ``taken`` are left out.

        Raises:
            DataError: an option was given that the source does not take; the text names it.
        """
        known = options_of(self)
        others = {
            name: one.default
            for name, one in known.items()
            if name not in taken and getattr(self, name) != one.default
        }
        if others and strict:
            name = next(iter(others))
            takes = ", ".join(known[other].flag for other in taken) or "none"
            raise DataError(
                f"{known[name].flag} {getattr(self, name)}: {source} does not take this option; it "
                f"takes: {takes}"
            )
        return replace(self, **others)
