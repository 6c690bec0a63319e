"""Every source of data, by the name that ``fastltc train NAME`` knows it by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from . import arrays, arrow, digits, image_files, medmnist, mnist, series, uea
from .options import DataOptions
from .published import ett, events, occupancy, physionet, rollouts, weather
from .sets import DataSet


@dataclass(frozen=True)
class Source:
    """A source of data.

    Args:
        name: as it is typed; ``folder:PATH`` stands for any path after the colon.
        about: one line for the user.
        load: reads it; called with what follows the colon (or the name) and the options.
        takes: the options that it takes, besides those that say where the data is.
    """

    name: str
    about: str
    load: Callable[[str, DataOptions], DataSet]
    takes: Callable[[str, DataOptions], tuple[str, ...]] = lambda place, options: ()


_SEQUENCES = ("window", "stride", "time_unit")
# What the columns of a table of time series are, and what becomes of its rows.
_COLUMNS = (
    "label_column", "time_column", "recording_column", "inputs", "target", "label_per", "horizon",
    "known", "categorical", "encoding", "missing", "split_by", "split_seed",
)  # fmt: skip
# Of sequences with one class each.
_OF_SEQUENCES = ("missing", "window", "stride", "split_seed")
_IMAGES = ("image_size", "channels", "split_seed")


def _is_series(place: str, options: DataOptions) -> bool:
    path = Path(place).expanduser()
    return image_files.is_series(path / "train.csv" if path.is_dir() else path, options)


def _csv_takes(place: str, options: DataOptions) -> tuple[str, ...]:
    # Of a folder the files are the splits.
    split = () if Path(place).expanduser().is_dir() else ("split_column",)
    if _is_series(place, options):
        group = () if options.recording_column is None else ("group_column",)
        return (*_COLUMNS, *split, *group, *_SEQUENCES)
    return ("file_column", "label_column", *split, "group_column", *_IMAGES)


def _parquet_takes(place: str, options: DataOptions) -> tuple[str, ...]:
    group = () if options.recording_column is None else ("group_column",)
    return (*_COLUMNS, "split_column", *group, *_SEQUENCES)


def _csv(place: str, options: DataOptions) -> DataSet:
    path = Path(place).expanduser()
    if _is_series(place, options):
        return series.load_series(series.tables_of(path), f"csv:{path}", options)
    listed = image_files.list_table(path, options)
    return image_files.load_listed(listed, options, f"csv:{path}")


SOURCES = {
    source.name: source
    for source in (
        Source(
            "digits",
            "1797 digits of 8x8 pixels, in scikit-learn",
            lambda name, options: digits.load_digits(),
        ),
        Source(
            "mnist",
            "70,000 digits of 28x28 pixels (idx files or mnist.npz)",
            lambda name, options: mnist.load_mnist(options),
        ),
        Source(
            "occupancy",
            "an office with five sensors, as a time series (UCI)",
            lambda name, options: occupancy.load_occupancy(options),
            lambda name, options: _SEQUENCES,
        ),
        Source(
            "walker2d",
            "400 rollouts of a walking robot, a tenth of the frames left out",
            lambda name, options: rollouts.load_walker2d(options),
        ),
        Source(
            "cheetah",
            "25 traces of a running robot",
            lambda name, options: rollouts.load_cheetah(options),
        ),
        Source(
            "traffic",
            "cars on an interstate and the weather, each hour (UCI)",
            lambda name, options: weather.load_traffic(options),
            lambda name, options: ("split_by",),
        ),
        Source(
            "ozone",
            "days with much ozone, by 72 measurements (UCI)",
            lambda name, options: weather.load_ozone(options),
            lambda name, options: ("split_by",),
        ),
        Source(
            "xor",
            "the parity of random strings, by the bits that change",
            lambda name, options: events.load_xor(options),
            lambda name, options: ("split_seed",),
        ),
        Source(
            "event-mnist",
            "MNIST, by the pixels that change",
            lambda name, options: events.load_event_mnist(options),
        ),
        Source(
            "physionet2012",
            "patients in intensive care, 41 measurements at irregular times",
            lambda name, options: physionet.load_physionet2012(options),
            lambda name, options: ("split_seed",),
        ),
        Source(
            "etth1",
            "the temperature of a transformer, to forecast, each hour",
            lambda name, options: ett.load_etth1(options),
            lambda name, options: ("window", "stride", "horizon"),
        ),
        *(
            Source(name, "UEA archive, by aeon", uea.load_shipped, lambda *given: _OF_SEQUENCES)
            for name in uea.SHIPPED
        ),
        *(Source(name, "MedMNIST v2", medmnist.load_medmnist) for name in medmnist.NAMES),
        Source(
            "folder:PATH",
            "images in a folder per class, with or without train, val and test",
            lambda place, options: image_files.load_folder(Path(place).expanduser(), options),
            lambda place, options: _IMAGES,
        ),
        Source("csv:FILE", "a list of images and classes, or a time series", _csv, _csv_takes),
        Source(
            "parquet:PATH",
            "time series in Parquet or Arrow files",
            lambda place, options: arrow.load_parquet(Path(place).expanduser(), options),
            _parquet_takes,
        ),
        Source(
            "ts:FILE",
            "sequences of the UEA and UCR archives, by aeon",
            lambda place, options: uea.load_ts(Path(place).expanduser(), options),
            lambda place, options: _OF_SEQUENCES,
        ),
        Source(
            "npz:FILE",
            "arrays of images, vectors or sequences",
            lambda place, options: arrays.load_npz(Path(place).expanduser(), options),
            lambda place, options: ("split_seed", "target", "horizon"),
        ),
    )
}


# Named data sets of time series.
SERIES = (
    "occupancy",
    "walker2d",
    "cheetah",
    "traffic",
    "ozone",
    "xor",
    "event-mnist",
    "physionet2012",
    "etth1",
    *uea.SHIPPED,
)


def data_sets() -> tuple[str, ...]:
    """Names that `load_data` knows; ``folder:PATH`` stands for any path."""
    return tuple(SOURCES)


def find_source(name: str) -> tuple[Source, str]:
    """The source of a name, and what it is to be called with.

    Raises:
        DataError: the name is unknown, or lacks the path after the colon.
    """
    prefix, colon, place = name.partition(":")
    for source in SOURCES.values():
        kind, takes_path, what = source.name.partition(":")
        if takes_path and colon and kind == prefix:
            if not place:
                raise DataError(f"{name}: expected {kind}:{what}")
            return source, place
    if name in SOURCES and not colon:
        return SOURCES[name], name
    if name in medmnist.RECORDS:
        return SOURCES[name.partition("_")[0]], name
    raise DataError(f"unknown data set {name!r}; known: {', '.join(data_sets())}")


def series_source(name: str, options: DataOptions) -> str | None:
    """The name of a data set, where it is a time series: of a file by what is in it."""
    path = Path(name).expanduser()
    if path.suffix in arrow.ENDINGS and path.exists():
        return f"parquet:{name}"
    kind, colon, place = name.partition(":")
    if colon and kind in ("parquet", "npz", "ts"):
        return name
    if (colon and kind == "csv") or path.exists():
        place = place if colon and kind == "csv" else name
        file = Path(place).expanduser()
        table = file.is_file() or (file / "train.csv").is_file()
        return f"csv:{place}" if table and _is_series(place, options) else None
    return name if name in SERIES else None


def load_data(
    name: str,
    data_root: Path | str | None = None,
    *,
    options: DataOptions | None = None,
    strict: bool = True,
    **changes: Any,
) -> DataSet:
    """Loads a data set by name.

    Args:
        name: one of `data_sets`; MedMNIST sets also as ``NAME_64``, ``NAME_128``, ``NAME_224``.
        data_root: folder (or file) to look in first.
        options: how to read it; None for the defaults.
        strict: False to leave out options that this data set does not take, such as those of the
            data that a model was trained on.
        changes: single fields of `DataOptions` that differ from ``options``.

    Returns:
        The inputs and labels of all three splits.

    Raises:
        DataError: the name is unknown, a file is missing or damaged, or an option is given that
            this data does not take.

    Example:
        >>> from fastltc.jobs.data import load_data
        >>> len(load_data("digits").splits["train"])
        1257
    """
    source, place = find_source(name)
    if data_root is not None:
        changes["data_root"] = data_root
    given = replace(options or DataOptions(), **changes)
    return source.load(place, given.only(source.takes(place, given), name, strict=strict))
