"""Time series in CSV files: rows with a time become sequences with time steps.

Nothing of the future or of another split leaks into a sequence: a file is cut into splits along
time, sequences lie within one split, and the scales are those of the training rows (the model
keeps them).
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
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
        labels: the class of each row.
        first: rows of the file before these.
    """

    name: str
    times: NDArray[np.float64]
    values: NDArray[np.float32]
    labels: tuple[str, ...]
    first: int = 0

    def part(self, start: int, stop: int) -> Recording:
        """The rows from ``start`` up to ``stop``."""
        rows = slice(start, stop)
        return Recording(
            self.name, self.times[rows], self.values[rows], self.labels[rows], self.first + start
        )


@dataclass(frozen=True)
class Recorded:
    """What a CSV file holds.

    Args:
        recording: its rows.
        features: names of the columns that are inputs: all that are neither the time nor the class
            nor the split.
        label: name of the column with the classes.
        guessed: whether that column was taken because it is the last.
        splits: ``train``, ``val`` or ``test`` for each row; None where no column says it.
    """

    recording: Recording
    features: tuple[str, ...]
    label: str
    guessed: bool
    splits: tuple[str, ...] | None


def read_recording(path: Path, options: DataOptions, *, with_splits: bool = False) -> Recorded:
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
    table = read_table(path)
    _check_distinct(table)
    time = table.need(options.time_column, TIME_NAMES, "times", "--time-column")
    split = table.find(options.split_column, SPLIT_NAMES, "--split-column")
    label = table.find(options.label_column, LABEL_NAMES, "--label-column")
    guessed = label is None
    if label is None:
        # Where the class of such files usually is; what it is called is printed.
        free = [place for place in range(len(table.columns)) if place not in (time, split)]
        if not free:
            raise DataError(f"{path}: no column with the classes; name it by --label-column")
        label = free[-1]
    inputs = [place for place in range(len(table.columns)) if place not in (time, label, split)]
    if not inputs:
        raise DataError(f"{path}: no column left to learn from but the time and the class")
    classes = table.classes(label)
    values, times = _numbers(table, inputs), _times(table, time)
    return Recorded(
        Recording(str(path), times, values, tuple(classes)),
        tuple(table.columns[place] for place in inputs),
        table.columns[label],
        guessed,
        tuple(table.splits(split)) if with_splits and split is not None else None,
    )


def _check_distinct(table: Table) -> None:
    twice = next((name for name in table.columns if table.columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{table.path}: two columns are called {twice!r}; inputs go by their names")


def read_unlabelled(path: Path, features: Sequence[str], options: DataOptions) -> Recording:
    """Reads the named columns and the time of a CSV file; the class of every row is empty.

    Raises:
        DataError: a column is missing or there twice, or a cell is not a time or a number.
    """
    table = read_table(path)
    _check_distinct(table)
    time = table.need(options.time_column, TIME_NAMES, "times", "--time-column")
    inputs = [table.need(name, (), "inputs", "an input of the model") for name in features]
    values, times = _numbers(table, inputs), _times(table, time)
    return Recording(str(path), times, values, ("",) * len(times))


def _numbers(table: Table, inputs: Sequence[int]) -> NDArray[np.float32]:
    values = np.empty((len(table.rows), len(inputs)), dtype=np.float32)
    for row, cells in enumerate(table.rows):
        for column, place in enumerate(inputs):
            try:
                values[row, column] = float(cells[place])
            except ValueError:
                text = f"expected a number, got {cells[place]!r}"
                raise table.error(row, place, text) from None
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        text = f"expected a finite number, got {values[row, column]}"
        raise table.error(row, inputs[column], text)
    return values


def _times(table: Table, place: int) -> NDArray[np.float64]:
    seconds = np.empty(len(table.rows))
    for row, cells in enumerate(table.rows):
        try:
            seconds[row] = _seconds(cells[place])
        except ValueError:
            text = (
                f"expected seconds or a date and time (2015-02-04 17:51:00), got {cells[place]!r}"
            )
            raise table.error(row, place, text) from None
    if not np.isfinite(seconds).all():
        line = table.lines[int(np.argwhere(~np.isfinite(seconds))[0, 0])]
        raise DataError(f"{table.path}, line {line}: the time is not a finite number")
    back = np.flatnonzero(np.diff(seconds) < 0)
    if len(back):
        line = table.lines[int(back[0]) + 1]
        raise DataError(
            f"{table.path}, line {line}: the time is before that of the row above; expected rows "
            "in the order of time"
        )
    return seconds


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
    features: tuple[str, ...],
    parts: dict[str, list[Recording]],
    options: DataOptions,
    remarks: tuple[str, ...],
    *,
    positive: int | None = None,
    class_labels: tuple[str, ...] | None = None,
    whole: bool = False,
) -> DataSet:
    labels = {label for part in parts.values() for recording in part for label in recording.labels}
    codes = class_names(labels)
    steps = np.concatenate([np.diff(recording.times) for recording in parts["train"]])
    if not len(steps):
        raise DataError(f"{source}: no two training rows follow one another")
    unit = float(np.median(steps)) if options.time_unit is None else options.time_unit
    if unit <= 0:
        raise DataError(f"{source}: the median time step is {unit}; give --time-unit SECONDS")
    window = options.window
    stride = options.stride or window
    if whole:
        window = min(window, len(parts["test"][0].times))
        splits = dict.fromkeys(
            SPLITS, sequences(parts["test"], codes, window, window, unit, split="test")
        )
    else:
        splits = {
            split: sequences(parts[split], codes, window, stride, unit, split=split)
            for split in SPLITS
        }
    return check_splits(
        DataSet(
            name=name,
            classes=codes if class_labels is None else class_labels,
            splits=splits,
            source=source,
            positive=positive,
            remarks=(
                *remarks,
                f"time steps are in units of {unit:g} s and go from {steps.min() / unit:g} to "
                f"{steps.max() / unit:g}{'' if whole else ' in the training rows'}",
            ),
            whole=whole,
            features=features,
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
    recording = read.recording
    parts: dict[str, list[Recording]] = {name: [] for name in SPLITS}
    whole = options.whole and read.splits is None
    if whole:
        parts = {name: [recording] for name in SPLITS}
        remark = WHOLE
    elif read.splits is None:
        rows = len(recording.times)
        first, second = round(SHARES[0] * rows), round((SHARES[0] + SHARES[1]) * rows)
        ends = ((0, first), (first, second), (second, rows))
        for name, (start, stop) in zip(SPLITS, ends, strict=True):
            parts[name].append(recording.part(start, stop))
        remark = "split along time: the first 70 % of the rows, the next 10 %, the last 20 %"
    else:
        start = 0
        for name, run in itertools.groupby(read.splits):
            stop = start + len(tuple(run))
            parts[name].append(recording.part(start, stop))
            start = stop
        missing = [name for name in SPLITS if not parts[name]]
        if missing:
            raise DataError(
                f"{path}: its splits are those of a column, which has no {missing[0]} rows; "
                "expected train, val and test"
            )
        counts = ", ".join(f"{len(runs)} {name}" for name, runs in parts.items())
        remark = f"split by a column: runs of rows of one split: {counts}"
    return _series(
        f"csv:{path}",
        str(path),
        read.features,
        parts,
        options,
        (remark, *_label_remark(read)),
        whole=whole,
    )


def _series_of_files(path: Path, options: DataOptions) -> DataSet:
    read = {name: read_recording(path / f"{name}.csv", options) for name in SPLITS}
    first = read["train"]
    for name, found in read.items():
        if (found.features, found.label) != (first.features, first.label):
            raise DataError(
                f"{path / f'{name}.csv'}: expected the columns {', '.join(first.features)} and the "
                f"class {first.label} of train.csv, got {', '.join(found.features)} and "
                f"{found.label}"
            )
    parts = {name: [found.recording] for name, found in read.items()}
    return _series(f"csv:{path}", str(path), first.features, parts, options, _label_remark(first))


def _label_remark(read: Recorded) -> tuple[str, ...]:
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
    read = {}
    for name, path in _occupancy_files(options).items():
        verify(path, f"sha256:{OCCUPANCY_FILES[name]}", OCCUPANCY_URL)
        read[name] = read_recording(path, options)
    training = read["datatraining.txt"].recording
    rows = len(training.times)
    cut = round((1 - OCCUPANCY_VALIDATION) * rows)
    return _series(
        "occupancy",
        "UCI Occupancy Detection",
        read["datatraining.txt"].features,
        {
            "train": [training.part(0, cut)],
            "val": [training.part(cut, rows)],
            "test": [read["datatest.txt"].recording, read["datatest2.txt"].recording],
        },
        options,
        (
            "the two test sets lie before and after the training span; validation is the last "
            "20 % of the training rows",
        ),
        positive=1,
        class_labels=("free", "occupied"),
    )


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
