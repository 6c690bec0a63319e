"""What the columns of a table are: the time, inputs, and what is to be predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .options import DataOptions
from .sets import class_names
from .tables import LABEL_NAMES, SPLIT_NAMES, TIME_NAMES, Table, is_gap

# Each is an input of the model, or a part of the name of one.
_MOST_CATEGORIES = 256
_BETWEEN = "|"


@dataclass(frozen=True)
class Tables:
    """The tables that a data set consists of, which may come a part at a time.

    Args:
        source: the file or folder, for errors.
        header: a table with the columns that all have.
        count: rows of all.
        parts: called with the names of the columns that are needed; gives the tables in order.
    """

    source: str
    header: Table
    count: int
    parts: Callable[[Sequence[str]], Iterable[Table]]


@dataclass(frozen=True)
class Feature:
    """An input: the numbers of a column, or what they are of the names in it.

    Args:
        name: ``COLUMN``, ``COLUMN=NAME`` or ``COLUMN=NAME|NAME|...``.
        column: where it comes from.
        categories: none for numbers. Of one name the input is 1 where it stands and 0 elsewhere;
            of several the place of what stands there.
    """

    name: str
    column: str
    categories: tuple[str, ...] = ()

    def of(self, table: Table, *, gaps: bool) -> NDArray[np.float32]:
        """The input in all rows of a table; NaN in gaps."""
        place = table.columns.index(self.column)
        if not self.categories:
            return table.numbers(place, np.float32, gaps=gaps)
        cells = table.column(place)
        if len(self.categories) == 1:
            found = np.array([cell == self.categories[0] for cell in cells], np.float32)
        else:
            codes = {name: code for code, name in enumerate(self.categories)}
            found = np.array([codes.get(cell, -1) for cell in cells], np.float32)
        for row, cell in enumerate(cells):
            if cell not in self.categories and is_gap(cell):
                if not gaps:
                    raise table.error(row, place, "empty; gaps are read with --missing")
                found[row] = np.nan
            elif found[row] < 0:
                expected = ", ".join(self.categories)
                raise table.error(row, place, f"expected one of {expected}, got {cell!r}")
        return found


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are; names, empty where there is no such column.

    Args:
        time, recording, group, split, label: columns.
        guessed: whether the class was taken to be the last column.
        features: the inputs.
        targets: the values to predict.
        known: what is known in advance, of a forecast.
    """

    time: str = ""
    recording: str = ""
    group: str = ""
    split: str = ""
    label: str = ""
    guessed: bool = False
    features: tuple[Feature, ...] = ()
    targets: tuple[str, ...] = ()
    known: tuple[Feature, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All that are needed."""
        single = (self.time, self.recording, self.group, self.split, self.label)
        of_features = (feature.column for feature in (*self.features, *self.known))
        return tuple(dict.fromkeys(filter(None, (*single, *of_features, *self.targets))))


def named(text: str | None) -> list[str]:
    """The names in ``NAME,NAME``."""
    return [] if text is None else [name.strip() for name in text.split(",")]


def find_roles(tables: Tables, options: DataOptions, *, labelled: bool = True) -> Roles:
    """Which column is what, by the options and the usual names.

    Args:
        tables: of which the header, and the names in categorical columns, are read.
        options: see `fastltc.jobs.reading.ReadingOptions`; ``features`` are those of a model.
        labelled: False where classes or values are not known, and not looked for.

    Raises:
        DataError: a column is missing, there twice or two things at once.
    """
    table = tables.header
    twice = next((name for name in table.columns if table.columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{table.path}: two columns are called {twice!r}; inputs go by their names")

    def column(asked: str | None, usual: Sequence[str], option: str) -> str:
        place = table.find(asked, usual, option)
        return "" if place is None else table.columns[place]

    def columns(names: Iterable[str], option: str) -> list[str]:
        found = [column(name, (), option) for name in names]
        repeated = next((name for name in found if found.count(name) > 1), None)
        if repeated is not None:
            raise DataError(f"{option}: {repeated!r} is named twice")
        return found

    _check_asked(options)
    time = column(options.time_column, TIME_NAMES, "--time-column")
    recording = column(options.recording_column, (), "--recording-column")
    group = column(options.group_column, (), "--group-column")
    split = column(options.split_column, SPLIT_NAMES, "--split-column")
    targets = columns(named(options.target), "--target")
    known = columns(named(options.known), "--known")
    asked = columns(named(options.inputs), "--inputs")
    label, guessed = "", False
    forecast, values = options.horizon is not None, bool(targets)
    others = {time, recording, group, split, *(() if forecast else targets)}
    left = [name for name in table.columns if name not in others]
    if labelled and not (forecast or values):
        label = column(options.label_column, LABEL_NAMES, "--label-column")
        guessed = not label
        if guessed:
            # Where the class of such files usually is; what it is called is printed.
            if not left:
                text = "no column with the classes; name it by --label-column"
                raise DataError(f"{table.path}: {text}, or values to predict by --target")
            label = left[-1]
        left = [name for name in left if name != label]
    if options.features is not None:
        features = [_feature(table, name) for name in options.features]
    else:
        features = _features(tables, asked or left, options)
    for what, names in (("--inputs", asked), ("--known", known), ("--target", targets)):
        wrong = next((n for n in names if n in {time, recording, group, split, label} - {""}), None)
        if wrong is not None:
            raise DataError(
                f"{what} {wrong}: that column of {table.path} has the times, the recordings, the "
                "groups, the splits or the classes"
            )
    both = next((name for name in asked if name in targets and not forecast), None)
    if both is not None:
        raise DataError(
            f"--inputs {both}: it is what is to be predicted (--target); without "
            "--horizon the model would be given the answer"
        )
    both = next((name for name in known if name in targets), None)
    if both is not None:
        raise DataError(
            f"--known {both}: it is what is to be forecast (--target); the model would be given "
            "the answer"
        )
    if not features:
        raise DataError(f"{table.path}: no column left to learn from but the time and the class")
    if forecast and not targets:
        targets = [feature.name for feature in features if not feature.categories]
        targets = [name for name in targets if name not in known]
    if forecast and not targets:
        raise DataError(f"{table.path}: no column of numbers to forecast; name it by --target")
    return Roles(
        time, recording, group, split, label, guessed,
        tuple(features), tuple(targets), tuple(_features(tables, known, options)),
    )  # fmt: skip


def _check_asked(options: DataOptions) -> None:
    if options.label_column is not None and (options.target is not None or options.horizon):
        raise DataError(
            f"--label-column {options.label_column}: classes are predicted, or values (--target, "
            "--horizon), got both"
        )
    if options.known is not None and options.horizon is None:
        raise DataError(f"--known {options.known}: known in advance of what? Give --horizon ROWS")
    if options.horizon is not None and options.label_per in ("recording", "window"):
        raise DataError(
            f"--label-per {options.label_per}: a forecast of --horizon {options.horizon} rows has "
            "a value for each of them"
        )
    if options.label_per == "recording" and options.recording_column is None:
        raise DataError(
            "--label-per recording: name the column of the recordings by --recording-column"
        )


def _features(tables: Tables, names: Sequence[str], options: DataOptions) -> list[Feature]:
    """The inputs that columns are, with one for each name in a categorical one."""
    table, found = tables.header, []
    categorical = named(options.categorical)
    for name in categorical:
        table.find(name, (), "--categorical")
    for name in names:
        if name not in categorical:
            found.append(Feature(name, name))
            continue
        cells: set[str] = set()
        for part in tables.parts((name,)):
            cells.update(part.column(part.columns.index(name)))
            if len(cells) > _MOST_CATEGORIES:
                raise DataError(
                    f"{table.path}: column {name!r}: expected at most {_MOST_CATEGORIES} "
                    "different names (--categorical), got more"
                )
        kinds = class_names({cell for cell in cells if not is_gap(cell)})
        split = next((kind for kind in kinds if _BETWEEN in kind), None)
        if split is not None:
            text = f"names must not have {_BETWEEN!r} in them, got {split!r}"
            raise DataError(f"{table.path}: column {name!r}: {text}")
        if options.encoding == "codes" and len(kinds) > 1:
            found.append(Feature(f"{name}={_BETWEEN.join(kinds)}", name, kinds))
        else:
            found += [Feature(f"{name}={kind}", name, (kind,)) for kind in kinds]
    return found


def _feature(table: Table, name: str) -> Feature:
    """The input of a model that ``COLUMN`` or ``COLUMN=NAME`` stands for."""
    column, equals, kinds = name.partition("=")
    if name in table.columns or not equals:
        column, equals = name, ""
    place = table.need(column, (), "inputs", "an input of the model")
    categories = tuple(kinds.split(_BETWEEN)) if equals else ()
    return Feature(name, table.columns[place], categories)
