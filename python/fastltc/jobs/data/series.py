"""Time series in CSV files: rows with a time become sequences with time steps.

Nothing of the future or of another split leaks into a sequence: a file is cut into splits along
time, sequences lie within one split, and the scales are those of the training rows (the model
keeps them).
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..defaults import SHARES
from ..errors import DataError
from .fetch import Published, cache_folder, obtain, verify
from .options import DataOptions
from .sets import IGNORED, SPLITS, WHOLE, DataSet, Split, check_splits, class_names
from .tables import LABEL_NAMES, SPLIT_NAMES, TIME_NAMES, Table, read_table

OCCUPANCY_URL = "https://archive.ics.uci.edu/static/public/357/occupancy+detection.zip"
OCCUPANCY_FILES = {
    "datatraining.txt": "b2c4d0ce2b9e4e453c476f7125ef31aeec2d1f5c7f5572d0e80de3df6521ab56",
    "datatest.txt": "1b92c7c1b2838963464fa891a610cf3c5db4becb7189189b29b330107a584c7f",
    "datatest2.txt": "d026d1bd5aeccd4aff4f3b3710d48e40613bd5fc370db7e61bbdcaa50d985095",
}
# Validation is the last part of the training file, as a user would have to choose: about a day.
OCCUPANCY_VALIDATION = 0.2


@dataclass(frozen=True)
class Recording:
    """Consecutive rows of one file.

    Args:
        name: of the file, for messages and predictions.
        times: ``[rows]``, float64, seconds, not decreasing.
        values: ``[rows, I]``, float32.
        labels: the class of each row; empty where it is not known.
        features: names of the columns that are inputs: all that are neither the time nor the class
            nor the split.
        label: name of the column with the classes.
        guessed: whether that column was taken because it is the last.
        splits: ``train``, ``val`` or ``test`` for each row; None where no column says it.
        first: rows of the file before these.
    """

    name: str
    times: NDArray[np.float64]
    values: NDArray[np.float32]
    labels: tuple[str, ...]
    features: tuple[str, ...]
    label: str = ""
    guessed: bool = False
    splits: tuple[str, ...] | None = None
    first: int = 0

    def part(self, start: int, stop: int) -> Recording:
        """The rows from ``start`` up to ``stop``."""
        rows = slice(start, stop)
        of_rows = {name: getattr(self, name)[rows] for name in ("times", "values", "labels")}
        return replace(self, **of_rows, splits=None, first=self.first + start)


def read_recording(path: Path, options: DataOptions, *, with_splits: bool = False) -> Recording:
    """Reads a CSV file with a time, a class and numbers in every row.

    Args:
        path: the file.
        options: ``time_column``, ``label_column`` and ``split_column``, where they have unusual
            names.
        with_splits: read the column with the splits, where there is one; else it is left out.

    Raises:
        DataError: a column is missing or there twice, or a cell is not a time, a number or a
            split; the text names the line.
    """
    table, time = _timed(path, options)
    split = table.find(options.split_column, SPLIT_NAMES, "--split-column")
    label = table.find(options.label_column, LABEL_NAMES, "--label-column")
    guessed = label is None
    inputs = [place for place in range(len(table.columns)) if place not in (time, label, split)]
    if label is None:
        # Where the class of such files usually is; what it is called is printed.
        if not inputs:
            raise DataError(f"{path}: no column with the classes; name it by --label-column")
        label = inputs.pop()
    if not inputs:
        raise DataError(f"{path}: no column left to learn from but the time and the class")
    classes = table.classes(label)
    return replace(
        _recording(table, time, inputs),
        labels=tuple(classes),
        label=table.columns[label],
        guessed=guessed,
        splits=tuple(table.splits(split)) if with_splits and split is not None else None,
    )


def read_unlabelled(path: Path, features: Sequence[str], options: DataOptions) -> Recording:
    """Reads the named columns and the time of a CSV file; the class of every row is empty.

    Raises:
        DataError: a column is missing or there twice, or a cell is not a time or a number.
    """
    table, time = _timed(path, options)
    inputs = [table.need(name, (), "inputs", "an input of the model") for name in features]
    return _recording(table, time, inputs)


def _timed(path: Path, options: DataOptions) -> tuple[Table, int]:
    """A table whose columns have different names, and the place of the time."""
    table = read_table(path)
    twice = next((name for name in table.columns if table.columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {twice!r}; inputs go by their names")
    return table, table.need(options.time_column, TIME_NAMES, "times", "--time-column")


def _recording(table: Table, time: int, inputs: Sequence[int]) -> Recording:
    values = np.stack([table.numbers(place, np.float32) for place in inputs], axis=1)
    expected = "seconds or a date and time (2015-02-04 17:51:00)"
    times = table.numbers(time, np.float64, _seconds, expected)
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        raise DataError(
            f"{table.path}, line {table.lines[int(back[0]) + 1]}: the time is before that of the "
            "row above; expected rows in the order of time"
        )
    features = tuple(table.columns[place] for place in inputs)
    return Recording(str(table.path), times, values, ("",) * len(times), features)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        # Naive times are counted on a clock that never jumps.
        return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()


def sequences(
    recordings: Sequence[Recording],
    classes: Sequence[str],
    window: int,
    stride: int,
    time_unit: float,
    *,
    split: str,
) -> Split:
    """Cuts recordings into sequences of ``window`` rows.

    The last sequence of a recording ends on its last row. Training sequences start every
    ``stride`` rows and every row of theirs is learned; elsewhere they start every ``window`` rows,
    and rows that the sequence before has already are not judged again.

    Args:
        recordings: in the order of time; no sequence crosses from one to the next.
        classes: the label is the index.
        window: rows of a sequence, T.
        stride: rows from one training sequence to the next.
        time_unit: seconds of one unit of time.
        split: of which split these recordings are.

    Returns:
        The split; the time step of the first row of a recording is 1.

    Raises:
        DataError: a recording is shorter than a sequence.
    """
    index = {name: number for number, name in enumerate(classes)}
    inputs, labels, timespans, names = [], [], [], []
    for recording in recordings:
        rows = len(recording.times)
        if rows < window:
            raise DataError(
                f"{recording.name}: from row {recording.first + 1} on its {split} part has {rows} "
                f"rows, fewer than the window of {window} (--window)"
            )
        steps = np.diff(recording.times, prepend=recording.times[0] - time_unit) / time_unit
        known = np.array([index.get(label, IGNORED) for label in recording.labels])
        step = stride if split == "train" else window
        starts = list(range(0, rows - window + 1, step))
        if starts[-1] + window < rows:
            starts.append(rows - window)
        judged = 0
        for start in starts:
            rows_of = slice(start, start + window)
            found = known[rows_of].copy()
            if split != "train":
                found[: max(judged - start, 0)] = IGNORED
            judged = start + window
            inputs.append(recording.values[rows_of])
            labels.append(found)
            timespans.append(steps[rows_of])
            names.append(f"{recording.name}:{recording.first + start + 1}")
    return Split(
        np.stack(inputs).astype(np.float32),
        np.stack(labels).astype(np.int64),
        np.stack(timespans).astype(np.float32),
        tuple(names),
    )


def _series(
    name: str,
    source: str,
    parts: dict[str, list[Recording]],
    options: DataOptions,
    remarks: tuple[str, ...],
    *,
    whole: bool = False,
) -> DataSet:
    classes = class_names(
        {label for part in parts.values() for one in part for label in one.labels}
    )
    steps = np.concatenate([np.diff(recording.times) for recording in parts["train"]])
    if not len(steps):
        raise DataError(f"{source}: no two training rows follow one another")
    unit = float(np.median(steps)) if options.time_unit is None else options.time_unit
    if unit <= 0:
        raise DataError(f"{source}: the median time step is {unit}; give --time-unit SECONDS")
    window = min(options.window, len(parts["test"][0].times)) if whole else options.window
    stride = options.stride or window

    def cut(split: str) -> Split:
        return sequences(parts[split], classes, window, stride, unit, split=split)

    splits = dict.fromkeys(SPLITS, cut("test")) if whole else {name: cut(name) for name in SPLITS}
    span = (
        f"time steps are in units of {unit:g} s and go from {steps.min() / unit:g} to "
        f"{steps.max() / unit:g}{'' if whole else ' in the training rows'}"
    )
    return check_splits(
        DataSet(
            name,
            classes,
            splits,
            source,
            remarks=(*remarks, span),
            whole=whole,
            features=parts["train"][0].features,
            time_unit=unit,
        )
    )


def load_series(path: Path, options: DataOptions) -> DataSet:
    """``csv:FILE`` with a time column: sequences of its rows, split along time.

    The first 70 % of the rows are for training, the next 10 % for validation, the last 20 % for
    the test. A column ``split`` decides instead where there is one: every run of rows of one split
    is then a recording of its own, which no sequence crosses. A folder with ``train.csv``,
    ``val.csv`` and ``test.csv`` is read as such.

    Raises:
        DataError: see `read_recording`; or a split is missing, too short or has one class only.
    """
    if path.is_dir():
        return _series_of_files(path, options)
    read = read_recording(path, options, with_splits=True)
    parts: dict[str, list[Recording]] = {name: [] for name in SPLITS}
    whole = options.whole and read.splits is None
    if whole:
        parts = {name: [read] for name in SPLITS}
        remark = WHOLE
    elif read.splits is None:
        ends = [0, *(round(share * len(read.times)) for share in itertools.accumulate(SHARES))]
        for name, rows in zip(SPLITS, itertools.pairwise(ends), strict=True):
            parts[name].append(read.part(*rows))
        remark = "split along time: the first 70 % of the rows, the next 10 %, the last 20 %"
    else:
        start = 0
        for name, run in itertools.groupby(read.splits):
            stop = start + len(tuple(run))
            parts[name].append(read.part(start, stop))
            start = stop
        missing = [name for name in SPLITS if not parts[name]]
        if missing:
            raise DataError(
                f"{path}: its splits are those of a column, which has no {missing[0]} rows; "
                "expected train, val and test"
            )
        counts = ", ".join(f"{len(runs)} {name}" for name, runs in parts.items())
        remark = f"split by a column: runs of rows of one split: {counts}"
    remarks = (remark, *_label_remark(read))
    return _series(f"csv:{path}", str(path), parts, options, remarks, whole=whole)


def _series_of_files(path: Path, options: DataOptions) -> DataSet:
    read = {name: read_recording(path / f"{name}.csv", options) for name in SPLITS}
    first = read["train"]
    for found in read.values():
        if (found.features, found.label) != (first.features, first.label):
            raise DataError(
                f"{found.name}: expected the columns {', '.join(first.features)} and the class "
                f"{first.label} of train.csv, got {', '.join(found.features)} and {found.label}"
            )
    parts = {name: [found] for name, found in read.items()}
    return _series(f"csv:{path}", str(path), parts, options, _label_remark(first))


def _label_remark(read: Recording) -> tuple[str, ...]:
    if not read.guessed:
        return ()
    return (f"classes are in the last column, {read.label!r} (--label-column for another)",)


def load_occupancy(options: DataOptions) -> DataSet:
    """Office occupancy by five sensors, one row in 59 to 61 s.

    Training rows are the first 80 % of ``datatraining.txt``, validation rows its last 20 %; the
    test split is both published test sets together: ``datatest.txt``, recorded before the training
    span, and ``datatest2.txt``, recorded after it.

    Raises:
        DataError: a file is missing or another one.

    Source: L. M. Candanedo, V. Feldheim, "Accurate occupancy detection of an office room from
    light, temperature, humidity and CO2 measurements using statistical learning models", Energy
    and Buildings 112, 2016 (UCI 357, CC BY 4.0).
    """
    read = []
    for name, path in _occupancy_files(options).items():
        verify(path, f"sha256:{OCCUPANCY_FILES[name]}", OCCUPANCY_URL)
        read.append(read_recording(path, options))
    training, *tests = read
    rows = len(training.times)
    cut = round((1 - OCCUPANCY_VALIDATION) * rows)
    parts = {"train": [training.part(0, cut)], "val": [training.part(cut, rows)], "test": tests}
    remark = (
        "the two test sets lie before and after the training span; validation is the last 20 % of "
        "the training rows"
    )
    data = _series("occupancy", "UCI Occupancy Detection", parts, options, (remark,))
    return replace(data, positive=1, classes=("free", "occupied"))


def _occupancy_files(options: DataOptions) -> dict[str, Path]:
    folders = [cache_folder() / "occupancy"]
    if options.data_root is not None:
        root = Path(options.data_root).expanduser()
        if not root.is_dir():
            raise DataError(
                f"data root {root}: expected a folder that holds {', '.join(OCCUPANCY_FILES)}"
            )
        folders = [root, root / "occupancy", *folders]
    for folder in folders:
        if all((folder / name).is_file() for name in OCCUPANCY_FILES):
            return {name: folder / name for name in OCCUPANCY_FILES}
    # UCI packs its archives anew, so the files in it are verified instead.
    archive = obtain(Published("occupancy+detection.zip", OCCUPANCY_URL, None), options)
    target = folders[-1]
    try:
        with zipfile.ZipFile(archive) as opened:
            target.mkdir(parents=True, exist_ok=True)
            for name in OCCUPANCY_FILES:
                opened.extract(name, target)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive}: not the archive of {OCCUPANCY_URL}: {error}") from None
    return {name: target / name for name in OCCUPANCY_FILES}
