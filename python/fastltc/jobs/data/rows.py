"""Rows of time series: read from the columns that have a role, with gaps filled."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .options import DataOptions
from .roles import Feature, Roles, Tables
from .sets import IGNORED, SPLITS, class_names
from .tables import Table, is_gap
from .windows import CHUNK, IN_MEMORY, chunks, new_array


@dataclass(frozen=True)
class Recording:
    """Consecutive rows, from ``start`` up to ``stop``, that no sequence leaves.

    ``name`` is of the file and the recording, which begins at the row ``origin``; ``group`` what
    must not be in two splits.
    """

    name: str
    start: int
    stop: int
    origin: int
    group: str = ""

    def part(self, start: int, stop: int) -> Recording:
        """Some of these rows, counted from the first."""
        return replace(self, start=self.start + start, stop=self.start + stop)


@dataclass
class Rows:
    """The rows of all recordings, each behind the other.

    Args:
        roles: where they come from.
        times: ``[R]``, float64, seconds, not decreasing in a recording; without a column of times
            the place of the row.
        values: ``[R, I]``, float32; gaps are filled.
        measured: ``[R, I]``, bool; None where all were or it is not asked for.
        labels: ``[R]``, int64, indices into ``classes``, -1 where none is known.
        classes: names.
        wanted: ``[R, K]``, float32, values to predict; NaN where none is known.
        ahead: ``[R, F]``, float32, what is known in advance.
        splits: ``[R]``, places in `SPLITS`; None where nothing says it.
        recordings: in order.
        remarks: what was filled or left out.
        locate: the file and the place of a row in it, for errors.
    """

    roles: Roles
    times: NDArray[np.float64]
    values: NDArray[np.float32]
    measured: NDArray[np.bool_] | None
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    wanted: NDArray[np.float32]
    ahead: NDArray[np.float32]
    splits: NDArray[np.int8] | None
    recordings: list[Recording]
    remarks: tuple[str, ...]
    locate: Callable[[int], str]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(feature.name for feature in self.roles.features)


class _Numbered(dict[Any, int]):
    """Numbers for keys, in the order in which they come."""

    def of(self, keys: Iterable[Any]) -> NDArray[np.int64]:
        return np.array([self.setdefault(key, len(self)) for key in keys], np.int64)


@dataclass
class _Places:
    """Where the rows of tables come from, once some are left out and others moved."""

    starts: list[int] = field(default_factory=list)
    found: list[tuple[Table, NDArray[np.int64] | None]] = field(default_factory=list)
    order: NDArray[np.int64] | None = None

    def table(self, row: int) -> tuple[Table, int]:
        """The table that a row is of, and its place in it."""
        row = row if self.order is None else int(self.order[row])
        part = bisect.bisect_right(self.starts, row) - 1
        table, kept = self.found[part]
        place = row - self.starts[part]
        return table, place if kept is None else int(kept[place])

    def locate(self, row: int) -> str:
        table, place = self.table(row)
        return table.where(place)


def read_rows(tables: Tables, roles: Roles, options: DataOptions) -> Rows:
    """Reads the columns that have a role.

    Raises:
        DataError: a cell is not what its column has, a time is before that of the row above, a
            group changes within a recording, or a column has no value at all; the text names file,
            row and column.
    """
    gaps, skip = options.missing != "error", options.missing == "skip"
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "values": ((len(roles.features),), np.float32),
        "wanted": ((len(roles.targets),), np.float32),
        "ahead": ((len(roles.known),), np.float32),
        "labels": ((), np.int64),
        "of": ((), np.int64),
        "groups": ((), np.int64),
        "times": ((), np.float64),
    }
    held = {name: new_array((tables.count, *own), dtype) for name, (own, dtype) in shapes.items()}
    splits = new_array((tables.count,), np.int8)
    classes, recordings, groups, places = _Numbered(), _Numbered(), _Numbered(), _Places()
    rows = skipped = 0
    split_known = bool(roles.split)
    for table in tables.parts(roles.columns):
        split_known |= bool(table.split)
        # Classes first: where they are none, the inputs are not what is wrong.
        labels = _codes(table, roles, classes, gaps=gaps)
        read = {"labels": labels, **_read(table, roles, gaps=gaps)}
        names = _cells(table, roles.recording)
        read["of"] = recordings.of((table.split, table.series, name) for name in names)
        read["groups"] = groups.of(_cells(table, roles.group))
        if not roles.time:
            read["times"] = np.arange(rows, rows + len(table), dtype=np.float64)
        kept = np.flatnonzero(~np.isnan(read["values"]).any(axis=1)) if skip else None
        if kept is not None:
            skipped += len(table) - len(kept)
            read = {name: part[kept] for name, part in read.items()}
        stop = rows + len(read["of"])
        for name, part in read.items():
            held[name][rows:stop] = part
        if roles.split:
            words = table.splits(table.columns.index(roles.split))
            found = np.array([SPLITS.index(word) for word in words], np.int8)
            splits[rows:stop] = found if kept is None else found[kept]
        elif table.split:
            splits[rows:stop] = SPLITS.index(table.split)
        places.starts.append(rows)
        # Without its text.
        bare = Table(table.path, table.columns, (), table.lines, "", table.unit, table.first)
        places.found.append((bare, kept))
        rows = stop
    if not rows:
        what = "no row without a gap is left (--missing skip)" if skipped else "has no rows"
        raise DataError(f"{tables.source}: {what}")
    held = {name: array[:rows] for name, array in held.items()}
    splits = splits[:rows]
    order = _order(held["of"], tables.source)
    if order is not None:
        held = {name: array[order] for name, array in held.items()}
        splits, places.order = splits[order], order
    bounds = [0, *_changes(held["of"]).tolist(), rows]
    changed = np.setdiff1d(_changes(held["groups"]), bounds)
    if len(changed):
        text = f"column {roles.group!r}: expected one group in a recording, got another"
        raise DataError(f"{places.locate(int(changed[0]))}: {text} than in the rows before")
    keys, kinds = list(recordings), list(groups)
    parts = []
    for start, stop in itertools.pairwise(bounds):
        table, place = places.table(start)
        name, origin = str(table.path), start - table.first - place
        if roles.recording:
            name, origin = f"{name}#{keys[int(held['of'][start])][-1]}", start
        group = kinds[int(held["groups"][start])] if roles.group else ""
        parts.append(Recording(name, start, stop, origin, group))
    if roles.time:
        _check_order(held["times"], bounds, places, hint=not roles.recording)
    remarks = [f"{skipped:,} rows with gaps are left out"] if skipped else []
    measured = None
    if gaps:
        measured, filled = _fill(held["values"], bounds, roles, options, tables.source)
        remarks += filled
    ordered = class_names({*classes})
    codes = np.array([*(ordered.index(name) for name in classes), IGNORED])
    for start, part in chunks(held["labels"]):
        held["labels"][start : start + len(part)] = codes[part]
    return Rows(
        roles, held["times"], held["values"], measured, held["labels"], ordered, held["wanted"],
        held["ahead"], splits if split_known else None, parts, tuple(remarks), places.locate,
    )  # fmt: skip


def _read(table: Table, roles: Roles, *, gaps: bool) -> dict[str, NDArray[Any]]:
    """The numbers of a table; what is to be predicted may have gaps where inputs may."""

    def stacked(columns: list[NDArray[Any]]) -> NDArray[np.float32]:
        return np.stack(columns, 1) if columns else np.empty((len(table), 0), np.float32)

    # What is to be predicted is read first: where it is no number, that is what is wrong.
    wanted = [
        table.numbers(table.columns.index(name), np.float32, gaps=gaps) for name in roles.targets
    ]
    read: dict[str, NDArray[Any]] = {
        "wanted": stacked(wanted),
        # Of what is to come nothing can be held from before.
        "ahead": stacked([feature.of(table, gaps=False) for feature in roles.known]),
        "values": stacked([feature.of(table, gaps=gaps) for feature in roles.features]),
    }
    if roles.time:
        read["times"] = table.times(table.columns.index(roles.time))
    return read


def _codes(table: Table, roles: Roles, classes: _Numbered, *, gaps: bool) -> NDArray[np.int64]:
    if not roles.label:
        return np.full(len(table), IGNORED)
    place = table.columns.index(roles.label)
    cells = table.classes(place)
    if gaps:
        found = np.full(len(cells), IGNORED)
        there = np.array([not is_gap(cell) for cell in cells], dtype=bool)
        found[there] = classes.of(cell for cell, known in zip(cells, there, strict=True) if known)
        return found
    if "" in cells:
        raise table.error(cells.index(""), place, "no class; gaps are read with --missing")
    return classes.of(cells)


def _cells(table: Table, column: str) -> list[str]:
    if not column:
        return [""] * len(table)
    place = table.columns.index(column)
    cells = table.column(place)
    if "" in cells:
        raise table.error(cells.index(""), place, "expected a name, got nothing")
    return cells


def _changes(array: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places whose value is not that of the place before."""
    found = [np.empty(0, np.int64)]
    for start, part in chunks(array):
        begin = max(start - 1, 0)
        found.append(np.flatnonzero(np.diff(array[begin : start + len(part)])) + begin + 1)
    return np.concatenate(found)


def _order(of: NDArray[np.int64], source: str) -> NDArray[np.int64] | None:
    """The rows with those of each recording together; None where they are."""
    starts = np.concatenate([[0], _changes(of)])
    if len(np.unique(of[starts])) == len(starts):
        return None
    if of.nbytes > IN_MEMORY:
        raise DataError(
            f"{source}: the rows of a recording lie apart; sort a file of this size by recording "
            "and time first"
        )
    return np.argsort(of, kind="stable")


def _check_order(
    times: NDArray[np.float64], bounds: Sequence[int], places: _Places, *, hint: bool
) -> None:
    begins = np.array(bounds)
    for start, _ in chunks(times):
        part = times[max(start - 1, 0) : start + CHUNK]
        back = np.flatnonzero(np.diff(part) < 0) + max(start - 1, 0) + 1
        back = back[~np.isin(back, begins)]
        if len(back):
            several = "; where there are several recordings, name their column (--recording-column)"
            raise DataError(
                f"{places.locate(int(back[0]))}: the time is before that of the row above; "
                f"expected rows in the order of time{several * hint}"
            )


def _fill(
    values: NDArray[np.float32],
    bounds: Sequence[int],
    roles: Roles,
    options: DataOptions,
    source: str,
) -> tuple[NDArray[np.bool_] | None, list[str]]:
    """Puts the last value of the recording into gaps, and 0 before the first."""
    if options.missing == "skip":
        return None, []
    asked = options.missing == "mask"
    measured = new_array(values.shape, np.bool_) if asked else None
    begins, columns = np.array(bounds[:-1]), np.arange(values.shape[1])
    last = np.full(values.shape[1], -1)
    gaps, first = np.zeros(values.shape[1], np.int64), np.zeros(values.shape[1], np.int64)
    for start, part in chunks(values):
        at = np.arange(start, start + len(part))
        gap = np.isnan(part)
        of = np.where(gap, -1, at[:, None])
        of[0] = np.maximum(of[0], last)
        of = np.maximum.accumulate(of, axis=0)
        last = of[-1]
        there = of >= begins[np.searchsorted(begins, at, side="right") - 1][:, None]
        gaps += gap.sum(axis=0)
        first += (~there).sum(axis=0)
        if measured is not None:
            measured[start : start + len(part)] = ~gap
        filled = np.where(there, values[of, columns], np.float32(0))
        values[start : start + len(part)] = filled
    for feature, count in zip(roles.features, gaps, strict=True):
        if count == len(values):
            raise DataError(
                f"{source}: column {feature.column!r} has no value in any row; leave it out "
                "(--inputs)"
            )
    if not gaps.any():
        return measured, []
    worst = int(gaps.argmax())
    remark = (
        f"gaps hold the last value: {gaps.sum():,} of {values.size:,} inputs, most of "
        f"{roles.features[worst].name!r} ({gaps[worst] / len(values):.0%})"
    )
    before = f"; {first.sum():,} before the first value of a recording are 0" if first.any() else ""
    return measured, [remark + before]


def rows_of(
    sequences: Sequence[NDArray[Any]],
    answers: Sequence[str] | NDArray[np.float32],
    splits: Sequence[str],
    features: Sequence[str],
    source: str,
    options: DataOptions,
    targets: Sequence[str] = (),
) -> Rows:
    """The rows of sequences that are in memory, with one class or values for each.

    Args:
        sequences: ``[T, I]`` each, of any length; NaN where nothing was measured.
        answers: a class for each, or values ``[n, K]`` where there are ``targets``.
        splits: of each; none for sequences that are to be split.
        features: names of the I inputs.
        source: where they come from.
        options: ``missing``.
        targets: names of the K values.

    Raises:
        DataError: a sequence is empty, has infinite values, or gaps that are not asked for.
    """
    kept = []
    for place, one in enumerate(sequences):
        found = np.asarray(one, np.float32)
        gaps = np.isnan(found)
        if np.isinf(found).any() or (gaps.any() and options.missing == "error"):
            what = "a gap, which --missing hold, mask or skip reads" if gaps.any() else "infinity"
            raise DataError(f"{source}, sequence {place + 1}: expected finite numbers, got {what}")
        kept.append(found[~gaps.any(axis=1)] if options.missing == "skip" else found)
        if not len(kept[-1]):
            raise DataError(f"{source}, sequence {place + 1}: expected rows, got none")
    lengths = [len(one) for one in kept]
    bounds = [0, *np.cumsum(lengths).tolist()]
    values, rows = np.concatenate(kept), bounds[-1]
    inputs = tuple(Feature(name, name) for name in features)
    label = "" if targets else "the class"
    roles = Roles(recording="sequence", label=label, features=inputs, targets=tuple(targets))
    measured: NDArray[np.bool_] | None = None
    remarks: list[str] = []
    if options.missing != "error":
        measured, remarks = _fill(values, bounds, roles, options, source)
    codes, classes = np.full(len(kept), IGNORED), tuple[str, ...]()
    wanted = np.empty((len(kept), 0), np.float32)
    if targets:
        wanted = np.asarray(answers, np.float32)
    else:
        classes = class_names({str(answer) for answer in answers})
        codes = np.array([classes.index(str(answer)) for answer in answers])
    words = np.array([SPLITS.index(split) for split in splits], np.int8)
    return Rows(
        roles,
        np.arange(rows, dtype=np.float64),
        values,
        measured,
        np.repeat(codes, lengths),
        classes,
        np.repeat(wanted, lengths, axis=0),
        np.empty((rows, 0), np.float32),
        np.repeat(words, lengths) if len(words) else None,
        [
            Recording(f"{source}#{place + 1}", start, stop, start)
            for place, (start, stop) in enumerate(itertools.pairwise(bounds))
        ],
        tuple(remarks),
        lambda row: f"{source}, sequence {bisect.bisect_right(bounds, row)}",
    )
