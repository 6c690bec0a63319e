"""Leaks between the splits of time series: rows, or whole sequences, that are in two of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .sets import IGNORED, SPLITS, DataSet
from .windows import chunks

# Each split, and one before it.
_PAIRS = [(split, earlier) for place, split in enumerate(SPLITS) for earlier in SPLITS[:place]]


class Shared(NamedTuple):
    """Of the rows, or sequences, of ``split`` that are ``judged``, those in ``earlier``."""

    split: str
    earlier: str
    shared: int
    judged: int


@dataclass(frozen=True)
class SeriesReport:
    """What `audit_series` found.

    Args:
        sizes: sequences of each split.
        rows: rows of a split that are in sequences of an earlier one; None where the data does not
            say which rows its sequences are.
        sequences: sequences of a split whose inputs are equal to those of one in an earlier split.
    """

    sizes: dict[str, int]
    rows: tuple[Shared, ...] | None
    sequences: tuple[Shared, ...]

    @property
    def leaks(self) -> bool:
        """Whether anything is in two splits."""
        return any(one.shared for one in (*(self.rows or ()), *self.sequences))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "leaks": self.leaks,
            "checked": ["rows"] * (self.rows is not None) + ["sequences"],
            "items": self.sizes,
            "rows": [one._asdict() for one in self.rows or ()],
            "sequences": [one._asdict() for one in self.sequences],
        }

    def to_text(self) -> str:
        """The report for people."""
        counts = ", ".join(f"{count} {name}" for name, count in self.sizes.items())
        looked = "equal sequences" if self.rows is None else "shared rows, equal sequences"
        lines = [f"audited: {counts}", f"looked for: {looked}"]
        lines += [
            f"LEAK {one.split}: {one.shared:,} of {one.judged:,} rows are in sequences of "
            f"{one.earlier}"
            for one in self.rows or ()
            if one.shared
        ]
        lines += [
            f"LEAK {one.split}: {one.shared:,} of {one.judged:,} sequences are equal to one of "
            f"{one.earlier}"
            for one in self.sequences
            if one.shared
        ]
        return "\n".join(lines if self.leaks else [*lines, "no leak found"])


def audit_series(data: DataSet) -> SeriesReport:
    """Looks for rows and for sequences of a time series that are in two splits."""
    named = all(split.names for split in data.splits.values())
    digests = {name: _digests(data, name) for name in SPLITS}
    sequences = []
    for split, earlier in _PAIRS:
        known = set(digests[earlier])
        count = sum(digest in known for digest in digests[split])
        sequences.append(Shared(split, earlier, count, len(digests[split])))
    sizes = {name: len(data.splits[name]) for name in SPLITS}
    return SeriesReport(sizes, shared_rows(data) if named else None, tuple(sequences))


def _digests(data: DataSet, name: str) -> list[bytes]:
    return [
        hashlib.blake2b(np.ascontiguousarray(one).data, digest_size=16).digest()
        for _, part in chunks(data.splits[name].inputs)
        for one in part
    ]


def shared_rows(data: DataSet) -> tuple[Shared, ...]:
    """How many rows of a split are in sequences of an earlier one, for each pair of splits.

    Rows of a split are those that have a class or a value to judge by; where that is one of the
    sequence, all of the sequence. What stands before them as an input only may be seen before.
    """
    rows = {name: _rows(data, name) for name in SPLITS}
    files = {file for seen, _ in rows.values() for file in seen}
    nothing = np.empty(0, np.int64)
    found = []
    for split, earlier in _PAIRS:
        shared = count = 0
        for file in files:
            judged = np.unique(rows[split][1].get(file, nothing))
            seen = np.unique(rows[earlier][0].get(file, nothing))
            count += len(judged)
            shared += int(np.isin(judged, seen, assume_unique=True).sum())
        found.append(Shared(split, earlier, shared, count))
    return tuple(found)


def leaks(data: DataSet) -> tuple[str, ...]:
    """A sentence for each split that shares rows with an earlier one."""
    return tuple(
        f"LEAK: {one.shared:,} of {one.judged:,} rows of the {one.split} split are also in "
        f"{'training' if one.earlier == 'train' else one.earlier} sequences; scores on them are "
        "too good. See: fastltc audit"
        for one in shared_rows(data)
        if one.shared
    )


_Files = dict[str, NDArray[np.int64]]


def _rows(data: DataSet, name: str) -> tuple[_Files, _Files]:
    """The rows in the sequences of a split, and those that are judged, by file."""
    split, window = data.splits[name], data.splits[name].inputs.shape[1]
    lengths = np.full(len(split), window) if split.lengths is None else split.lengths
    files, first = zip(*(one.rsplit(":", 1) for one in split.names), strict=True)
    _, of = np.unique(np.array(files), return_inverse=True)
    ahead = np.arange(window + data.horizon)
    inside = ahead < (lengths + data.horizon)[:, None]
    judged = inside
    if data.horizon or data.per_step:
        judged = np.zeros_like(inside)
        offset = lengths if data.horizon else np.zeros_like(lengths)
        for start, part in chunks(split.labels):
            known = (~np.isnan(part)).any(axis=-1) if data.targets else part != IGNORED
            where, step = np.nonzero(known)
            judged[where + start, step + offset[where + start]] = True
    places = np.array(first, np.int64)[:, None] + ahead

    def by_file(chosen: NDArray[np.bool_]) -> _Files:
        return {
            file: places[of == number][chosen[of == number]]
            for number, file in enumerate(sorted(set(files)))
        }

    return by_file(inside), by_file(judged)
