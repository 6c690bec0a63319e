"""Time series in tables: rows with a time become sequences with time steps.

Nothing of the future or of another split leaks into a sequence: recordings are in one split, or a
file is cut along time; sequences lie within one split, and the scales are those of the training
rows (the model keeps them).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from . import cutting, overlap
from .audit import shared_groups
from .options import DataOptions
from .roles import Tables, find_roles
from .rows import Rows, read_rows
from .sets import SPLITS, DataSet, Split, check_splits
from .tables import Table, read_table

# The median step is that of so many training rows at most.
_MOST_STEPS = 1 << 24


def tables_of(path: Path) -> Tables:
    """The CSV file, or ``train.csv``, ``val.csv`` and ``test.csv`` in the folder.

    Raises:
        DataError: see `read_table`.
    """
    if not path.is_dir():
        return whole_tables([read_table(path)])
    return whole_tables([read_table(path / f"{name}.csv", name) for name in SPLITS], path)


def whole_tables(tables: Sequence[Table], source: Path | None = None) -> Tables:
    """Tables that are in memory."""
    first = tables[0]
    path = first.path if source is None else source
    return Tables(str(path), first, sum(map(len, tables)), lambda columns: tables)


def load_series(tables: Tables, name: str, options: DataOptions) -> DataSet:
    """Tables with a time column: sequences of their rows.

    Whole recordings are in one split, stratified where each has one class; without a column that
    tells recordings apart the first 70 % of the rows are for training, the next 10 % for
    validation, the last 20 % for the test. A column ``split`` decides instead where there is one:
    every run of rows of one split is then a recording of its own, which no sequence crosses. So do
    the files ``train.csv``, ``val.csv`` and ``test.csv`` of a folder.

    Raises:
        DataError: a column is missing or there twice, a cell is not what its column has, or a
            split is missing, too short or cannot be judged by; the text names what.
    """
    roles = find_roles(tables, options)
    return assemble(read_rows(tables, roles, options), name, tables.source, options)


def assemble(
    rows: Rows, name: str, source: str, options: DataOptions, remarks: Sequence[str] = ()
) -> DataSet:
    """The data set that rows are: split, cut into sequences, and checked."""
    if options.label_per == "recording":
        cutting.settle_labels_of_recordings(rows)
    parts, how = cutting.split_rows(rows, source, options)
    whole = options.whole and rows.splits is None
    window = cutting.rows_of_windows(parts, rows, options)
    if whole and not rows.roles.recording:
        window = min(window, len(rows.values))
    every = [part for own in ([parts["test"]] if whole else parts.values()) for part in own]
    timespans, unit, span = None, 0.0, ""
    if rows.roles.time:
        unit, span = _unit(rows, parts, source, options, whole=whole)
        timespans = cutting.time_steps(rows.times, every, unit)
    cut = functools.partial(cutting.cut, rows, options=options, window=window, timespans=timespans)
    leak: tuple[str, ...] = ()
    if whole:
        splits = dict.fromkeys(SPLITS, cut(parts=parts["test"], split="test"))
    elif len(parts) == 1:
        splits = cutting.by_windows(cut(parts=parts["train"], split="windows"), options)
    else:
        splits = {split: cut(parts=parts[split], split=split) for split in SPLITS}
        groups = {split: {part.group for part in parts[split]} - {""} for split in SPLITS}
        leak = (shared_groups(groups),)
    guessed = (
        f"classes are in the last column, {rows.roles.label!r} (--label-column for another)"
        if rows.roles.guessed
        else ""
    )
    data = DataSet(
        name,
        () if rows.roles.targets else rows.classes,
        splits,
        source,
        remarks=tuple(filter(None, (how, *remarks, *rows.remarks, guessed, *leak, span))),
        features=rows.features,
        time_unit=unit,
        whole=whole,
        targets=rows.roles.targets,
        horizon=options.horizon or 0,
        known=tuple(feature.name for feature in rows.roles.known),
    )
    if len(parts) == 1:
        data = replace(data, remarks=(*data.remarks, *overlap.leaks(data)))
    return check_splits(data)


def _unit(
    rows: Rows, parts: cutting.Parts, source: str, options: DataOptions, *, whole: bool
) -> tuple[float, str]:
    """Seconds that are one unit of time, and a remark on the steps."""
    count, least, most, kept = 0, np.inf, -np.inf, []
    for steps in cutting.steps_of(rows.times, parts["train"]):
        least, most = min(least, steps.min()), max(most, steps.max())
        if count < _MOST_STEPS:
            kept.append(steps)
            count += len(steps)
    if not kept and options.time_unit is not None:
        return options.time_unit, ""
    if not kept:
        raise DataError(
            f"{source}: no two training rows follow one another; give --time-unit SECONDS"
        )
    unit = float(np.median(np.concatenate(kept)))
    unit = unit if options.time_unit is None else options.time_unit
    if unit <= 0:
        raise DataError(f"{source}: the median time step is {unit:g}; give --time-unit SECONDS")
    where = "" if whole else " in the training rows"
    return unit, (
        f"time steps are in units of {unit:g} s and go from {least / unit:g} to {most / unit:g}"
        f"{where}"
    )


def read_unlabelled(path: Path, features: Sequence[str], options: DataOptions) -> Rows:
    """Reads the inputs of a model and the time of a CSV file; the class of every row is the first.

    Raises:
        DataError: a column is missing or there twice, or a cell is not a time or a number.
    """
    asked = replace(
        options, features=tuple(features), target=None, horizon=None, known=None, label_per="step"
    )
    tables = tables_of(path)
    rows = read_rows(tables, find_roles(tables, asked, labelled=False), asked)
    return replace(rows, labels=np.zeros_like(rows.labels), classes=("",))


def sequences(rows: Rows, window: int, time_unit: float) -> Split:
    """All rows as sequences of ``window`` rows, each of them judged once; see `cutting.cut`."""
    timespans = None
    if rows.roles.time:
        timespans = cutting.time_steps(rows.times, rows.recordings, time_unit)
    return cutting.cut(rows, rows.recordings, "test", DataOptions(), window, timespans)
