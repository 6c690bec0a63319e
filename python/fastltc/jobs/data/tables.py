"""CSV files, with the line of every mistake in them."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

FILE_NAMES = ("filename", "file", "path", "image", "image_path", "name")
LABEL_NAMES = ("label", "target", "class", "y", "diagnosis")
SPLIT_NAMES = ("split", "set", "subset", "partition")
# As `fastltc split` writes it beside its splits.
GROUP_NAMES = ("group",)
TIME_NAMES = ("date", "time", "timestamp", "datetime", "t")

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_word(text: str) -> str | None:
    """``train``, ``val`` or ``test`` for the usual words for them, else None."""
    return _SPLIT_WORDS.get(text.strip().lower())


@dataclass(frozen=True)
class Table:
    """The rows of a CSV file, all as long as its header.

    Args:
        path: the file.
        columns: names in the header.
        rows: cells as text, without surrounding blanks.
        lines: the line of the file that each row ends on.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

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
        return DataError(
            f"{self.path}, line {self.lines[row]}: column {self.columns[place]!r}: {text}"
        )

    def column(self, place: int) -> list[str]:
        """All cells of a column."""
        return [row[place] for row in self.rows]

    def numbers(
        self,
        place: int,
        dtype: type[np.floating[Any]],
        parse: Callable[[str], float] = float,
        expected: str = "a number",
    ) -> NDArray[Any]:
        """All cells of a column as finite numbers.

        Raises:
            DataError: a cell is none; the text names the line.
        """
        found = np.empty(len(self.rows), dtype)
        for row, text in enumerate(self.column(place)):
            try:
                found[row] = parse(text)
            except ValueError:
                raise self.error(row, place, f"expected {expected}, got {text!r}") from None
            if not np.isfinite(found[row]):
                raise self.error(row, place, f"expected a finite number, got {found[row]}")
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
            f"regression, which is not supported. If they are classes, {remedy}"
        )


def read_table(path: Path) -> Table:
    """Reads a CSV file with a header; commas, semicolons or tabs.

    Where every row has one cell more than the header, the first is a row id, as R writes it, and
    is left out.

    Raises:
        DataError: the file is missing, is no text, has no rows, or a row has another length.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
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
    columns = tuple(name.strip() for name in read[0][1])
    first = 1 if all(len(row) == len(columns) + 1 for _, row in read[1:]) else 0
    rows = []
    for line, row in read[1:]:
        cells = tuple(cell.strip() for cell in row[first:])
        if len(cells) != len(columns):
            raise DataError(
                f"{path}, line {line}: expected {len(columns)} cells as in the header, "
                f"got {len(cells)}"
            )
        rows.append(cells)
    return Table(path, columns, tuple(rows), tuple(line for line, _ in read[1:]))


def format_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A CSV file with a header, UTF-8, lines ended by a line feed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()
