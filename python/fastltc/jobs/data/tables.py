"""CSV files, with the line of every mistake in them."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import open_regular

FILE_NAMES = ("filename", "file", "path", "image", "image_path", "name")
LABEL_NAMES = ("label", "target", "class", "y", "diagnosis")
SPLIT_NAMES = ("split", "set", "subset", "partition")
# As `fastltc split` writes it beside its splits.
GROUP_NAMES = ("group",)
TIME_NAMES = ("date", "time", "timestamp", "datetime", "t")

# What stands where nothing was measured.
_GAPS = frozenset(("", "nan", "na", "n/a", "null", "none", "?", "-"))

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_word(text: str) -> str | None:
    """``train``, ``val`` or ``test`` for the usual words for them, else None."""
    return _SPLIT_WORDS.get(text.strip().lower())


def is_gap(text: str) -> bool:
    """Whether a cell says that nothing was measured."""
    return text.lower() in _GAPS


def _no_number(text: str) -> str:
    if is_gap(text):
        return f"expected a number, got {text!r}; gaps are read with --missing hold, mask or skip"
    return f"expected a number, got {text!r}; names are inputs by --categorical"


def _seconds(text: str) -> tuple[float, str]:
    """Seconds, and what kind of time it is."""
    try:
        return float(text), "seconds"
    except ValueError:
        # Python 3.10 does not know the Z.
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in "Zz" else text)
    if moment.tzinfo is not None:
        return moment.timestamp(), "a time with an offset from UTC"
    # Counted on a clock that never jumps.
    return moment.replace(tzinfo=timezone.utc).timestamp(), "a time without an offset from UTC"


@dataclass(frozen=True)
class Table:
    """The rows of a CSV file, all as long as its header.

    Args:
        path: the file.
        columns: names in the header.
        rows: cells as text, without surrounding blanks.
        lines: the line of the file that each row ends on.
        split: the split that all rows are in, where the file is one.
        unit: what ``lines`` count.
        first: rows of the file before these, where they are a part of it.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: Sequence[int]
    split: str = ""
    unit: str = "line"
    first: int = 0

    @property
    def series(self) -> str:
        """What the rows are a series of, where no column tells recordings apart."""
        return str(self.path)

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """The file and the place of a row in it, for errors."""
        return f"{self.path}, {self.unit} {self.lines[row]}"

    def find(self, asked: str | None, usual: Sequence[str], option: str) -> int | None:
        """The place of a column: the one asked for, else the first with a usual name.

        Raises:
            DataError: the column asked for is missing; the text lists the columns.
        """
        lowered = [name.lower() for name in self.columns]
        if asked is not None:
            if asked in self.columns:
                return self.columns.index(asked)
            if asked.lower() in lowered:
                return lowered.index(asked.lower())
            raise DataError(
                f"{self.path}: no column {asked!r} ({option}); it has: {self._listed()}"
            )
        return next((lowered.index(name) for name in usual if name in lowered), None)

    def need(self, asked: str | None, usual: Sequence[str], what: str, option: str) -> int:
        """`find`, where the column must be there.

        Raises:
            DataError: there is none; the text lists the columns and names the option.
        """
        place = self.find(asked, usual, option)
        if place is None:
            raise DataError(
                f"{self.path}: no column with the {what}: expected one of {', '.join(usual)}, "
                f"got {self._listed()}; name it by {option}"
            )
        return place

    def _listed(self) -> str:
        return ", ".join(name or "(no name)" for name in self.columns)

    def error(self, row: int, place: int, text: str) -> DataError:
        """What is wrong with a cell, with its line and its column."""
        return DataError(f"{self.where(row)}: column {self.columns[place]!r}: {text}")

    def column(self, place: int) -> list[str]:
        """All cells of a column; empty where nothing is."""
        return [row[place] for row in self.rows]

    def numbers(
        self, place: int, dtype: type[np.floating[Any]] = np.float32, *, gaps: bool = False
    ) -> NDArray[Any]:
        """All cells of a column as finite numbers.

        With ``gaps`` those that are empty, or say that nothing was measured, are NaN.

        Raises:
            DataError: a cell is none; the text names the line.
        """
        found = np.empty(len(self), dtype)
        for row, text in enumerate(self.column(place)):
            try:
                found[row] = float(text)
            except ValueError:
                if not (gaps and is_gap(text)):
                    raise self.error(row, place, _no_number(text)) from None
                found[row] = np.nan
        self._check_finite(place, found, gaps=gaps)
        return found

    def _check_finite(self, place: int, found: NDArray[Any], *, gaps: bool) -> None:
        wrong = np.isinf(found) if gaps else ~np.isfinite(found)
        if wrong.any():
            row = int(wrong.argmax())
            hint = "; gaps are read with --missing hold, mask or skip" * bool(np.isnan(found[row]))
            raise self.error(row, place, f"expected a finite number, got {found[row]}{hint}")

    def times(self, place: int) -> NDArray[np.float64]:
        """All cells of a column as seconds; dates and times are counted from 1970.

        Raises:
            DataError: a cell is no time, or not of the same kind as the first: a number, a date
                and time with an offset from UTC, or one without.
        """
        found, kinds = np.empty(len(self)), []
        for row, text in enumerate(self.column(place)):
            try:
                found[row], kind = _seconds(text)
            except (ValueError, OverflowError):
                expected = "seconds or a date and time (2015-02-04 17:51:00)"
                raise self.error(row, place, f"expected {expected}, got {text!r}") from None
            if kind not in kinds:
                kinds.append(kind)
                if len(kinds) > 1:
                    text = f"expected {kinds[0]} as in the rows above, got {kind}: {text!r}"
                    raise self.error(row, place, text)
        self._check_finite(place, found, gaps=False)
        return found

    def classes(self, place: int) -> list[str]:
        """All cells of a column of classes.

        Raises:
            DataError: the cells are numbers with a fraction, and so what a regression predicts.
        """
        cells = self.column(place)
        try:
            # Decimal commas are what a table with semicolons has.
            numbers = [float(cell.replace(",", ".")) for cell in cells if cell]
        except ValueError:
            return cells
        check_classes_are_none_of_a_regression(
            numbers, f"{self.path}: column {self.columns[place]!r}", "give each class a name"
        )
        return cells

    def splits(self, place: int) -> list[str]:
        """``train``, ``val`` or ``test`` for every row, by a column.

        Raises:
            DataError: a cell is no word for a split; the text names the line.
        """
        words = []
        for row, text in enumerate(self.column(place)):
            word = split_word(text)
            if word is None:
                raise self.error(row, place, f"expected train, val or test, got {text!r}")
            words.append(word)
        return words


def check_classes_are_none_of_a_regression(
    numbers: Iterable[float], where: str, remedy: str
) -> None:
    """Makes sure that classes given as numbers are whole numbers.

    Args:
        numbers: what is in the place of the classes; NaN and infinity say nothing.
        where: what they are in, for the error.
        remedy: what to do where they are classes all the same.

    Raises:
        DataError: one has a fraction; the text has some of them.
    """
    fractions = (f"{number:g}" for number in numbers if number % 1 > 0)
    shown = list(itertools.islice(dict.fromkeys(itertools.islice(fractions, 1000)), 3))
    if shown:
        raise DataError(
            f"{where}: expected classes, got numbers such as {', '.join(shown)}: that is a "
            f"regression, of a time series by --target NAME. If they are classes, {remedy}"
        )


def read_table(path: Path, split: str = "") -> Table:
    """Reads a CSV file with a header; commas, semicolons or tabs. ``split`` is that of all rows.

    Where every row has one cell more than the header, the first is a row id, as R writes it, and
    is left out. The apostrophe of `format_table` before a formula is taken away.

    Raises:
        DataError: the file is missing, is no text, has no rows, or a row has another length.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            sample = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=sample.count)
            reader = csv.reader(file, delimiter=delimiter)
            read = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file: {error}") from None
    if len(read) < 2:
        raise DataError(f"{path}: expected a header and at least one row")
    columns = tuple(_bare(name.strip()) for name in read[0][1])
    first = 1 if all(len(row) == len(columns) + 1 for _, row in read[1:]) else 0
    rows = []
    for line, row in read[1:]:
        cells = tuple(_bare(cell.strip()) for cell in row[first:])
        if len(cells) != len(columns):
            raise DataError(
                f"{path}, line {line}: expected {len(columns)} cells as in the header, "
                f"got {len(cells)}"
            )
        rows.append(cells)
    return Table(path, columns, tuple(rows), tuple(line for line, _ in read[1:]), split)


def format_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A CSV file with a header, UTF-8, lines ended by a line feed.

    A text that a spreadsheet would run, as ``=HYPERLINK(...)``, gets an apostrophe before it, which
    `read_table` takes away.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_guarded(cell) for cell in row] for row in [columns, *rows])
    return text.getvalue().encode()


# What formulas begin with; the wide ones do in Japanese spreadsheets.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001


def _is_formula(text: str) -> bool:
    if not text.startswith(_FORMULA):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def _guarded(cell: object) -> object:
    # Apostrophes of one's own get another one, so that one is always taken away.
    if isinstance(cell, str) and _is_formula(cell.lstrip("'")):
        return f"'{cell}"
    return cell


def _bare(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _is_formula(cell.lstrip("'")) else cell
