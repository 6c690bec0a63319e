"""``parquet:PATH``: time series in Parquet and Arrow files, those of Hugging Face's datasets too.

A row is a row of a series; or, where columns are lists, a recording, and what is no list holds for
all of it. A list of lists has the rows of several columns.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import open_regular
from . import series
from .array_files import check_unpacked
from .options import DataOptions
from .roles import Tables, named
from .sets import DataSet
from .tables import LABEL_NAMES, Table, split_word

ENDINGS = (".parquet", ".arrow")
# The column that is made of the number of the row where each row is a recording.
ROW = "(row)"
# Rows that are decoded at once; where each has lists.
_BATCH, _BATCH_OF_LISTS = 1 << 14, 1 << 8


@dataclass(frozen=True)
class ArrowTable(Table):
    """Some rows of a file.

    Args:
        data: an Arrow array for each column.
        whole: what the rows are a series of.
        names: what the whole numbers in a column stand for.
    """

    data: dict[str, Any] = field(default_factory=dict)
    whole: str = ""
    names: dict[str, list[str]] = field(default_factory=dict)

    @property
    def series(self) -> str:
        """See `Table`; files of a folder go on where the one before ends."""
        return self.whole

    def column(self, place: int) -> list[str]:
        """See `Table`; whole numbers that stand for classes as their names."""
        name = self.columns[place]
        found, names = self.data[name].to_pylist(), self.names.get(name)
        for row, value in enumerate(found):
            if value is not None and not isinstance(value, (str, int, float)):
                kind = self.data[name].type
                raise self.error(row, place, f"expected text or numbers, got {kind}")
            if names is not None and value is not None:
                if not (isinstance(value, int) and -1 <= value < len(names)):
                    text = f"expected a class below {len(names)} or -1 for none, got {value!r}"
                    raise self.error(row, place, text)
                found[row] = names[value] if value >= 0 else None
        return ["" if value is None else str(value) for value in found]

    def numbers(
        self, place: int, dtype: type[np.floating[Any]] = np.float32, *, gaps: bool = False
    ) -> NDArray[Any]:
        """See `Table`; nothing is a gap."""
        import pyarrow as pa

        array = self.data[self.columns[place]]
        kinds = pa.types
        if kinds.is_string(array.type) or kinds.is_large_string(array.type):
            return super().numbers(place, dtype, gaps=gaps)
        if kinds.is_null(array.type):
            array = array.cast(pa.float64())
        if not (
            kinds.is_integer(array.type)
            or kinds.is_floating(array.type)
            or kinds.is_boolean(array.type)
            or kinds.is_decimal(array.type)
        ):
            raise self.error(0, place, f"expected numbers, got {array.type}")
        if kinds.is_boolean(array.type):
            array = array.cast(pa.int8())
        # Numbers beyond the largest of the type are infinite, which is what is said of them.
        with np.errstate(over="ignore"):
            found = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            found = found.astype(dtype)
        self._check_finite(place, found, gaps=gaps)
        return found

    def times(self, place: int) -> NDArray[np.float64]:
        """See `Table`."""
        import pyarrow as pa

        array = self.data[self.columns[place]]
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            return super().times(place)
        if pa.types.is_date(array.type):
            array = array.cast(pa.timestamp("ms"))
        if not pa.types.is_timestamp(array.type):
            return self.numbers(place, np.float64)
        if array.null_count:
            row = int(array.is_null().to_numpy(zero_copy_only=False).argmax())
            raise self.error(row, place, "expected a time, got nothing")
        scale = {"s": 1e0, "ms": 1e3, "us": 1e6, "ns": 1e9}[array.type.unit]
        return array.cast(pa.int64()).to_numpy() / scale


def load_parquet(path: Path, options: DataOptions) -> DataSet:
    """``parquet:PATH``; see `tables_of` and `series.load_series`.

    Raises:
        DataError: see there; or pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError:
        raise DataError(
            f"{path}: pyarrow reads such files: pip install 'fastltc[parquet]'"
        ) from None
    try:
        return _load(path, options)
    # What is damaged inside of columns.
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    text = " ".join(str(error).split())
    return DataError(f"{path}: not a readable Parquet or Arrow file: {text:.300}")


def _load(path: Path, options: DataOptions) -> DataSet:
    tables, nested = tables_of(path, numbered=options.recording_column is None)
    if nested:
        header = tables.header
        options = replace(options, recording_column=options.recording_column or ROW)
        place = header.find(options.label_column, LABEL_NAMES, "--label-column")
        answers = named(options.target) or ([] if place is None else [header.columns[place]])
        lists = {part for name, count in nested.items() for part in _flat_names(name, count)}
        # What is no list is one for all of its recording.
        if options.label_per is None and options.horizon is None and answers:
            options = replace(options, label_per=None if {*answers} & lists else "recording")
    return series.load_series(tables, f"parquet:{path}", options)


@dataclass(frozen=True)
class _File:
    path: Path
    split: str
    whole: str


# Of columns that are lists, how many numbers each entry of a list has; 0 where it is one.
_Nested = dict[str, int]


def tables_of(path: Path, *, numbered: bool = True) -> tuple[Tables, _Nested]:
    """The rows of a file, or of all such files in a folder; and which columns are lists.

    Files are of a split by their names, or those of their folders (``train-00000.parquet``,
    ``data/test/0.parquet``), where all are.

    Raises:
        DataError: there is none, one is damaged or has other columns than the first.
    """
    files = _files(path)
    first = files[0]
    names = _class_names(first)
    header, nested = _header(first, names, numbered=numbered)
    count = sum(_count(file, header, nested) for file in files)

    def parts(columns: Sequence[str]) -> Iterator[Table]:
        left = count
        for file in files:
            for table in _read(file, header, nested, names, columns):
                left -= len(table)
                if left < 0:
                    raise DataError(f"{file.path}: has more rows than it says; it is damaged")
                yield table

    return Tables(str(path), header, count, parts), nested


def _files(path: Path) -> list[_File]:
    if not path.is_dir():
        return [_File(path, "", str(path))]
    inside = [
        one
        for one in sorted(path.rglob("*"))
        if one.suffix in ENDINGS
        and not any(part.startswith((".", "cache-")) for part in one.relative_to(path).parts)
    ]
    if not inside:
        raise DataError(f"{path}: no file in it that ends with {' or '.join(ENDINGS)}")
    words = [_split_of(one.relative_to(path)) for one in inside]
    if any(words) and not all(words):
        lost = inside[words.index("")]
        raise DataError(
            f"{lost}: other files in {path} are of a split by their names, this one of none; "
            "expected train, val or test in the name of each"
        )
    return [
        _File(one, word, f"{path}/{word}" if word else str(path))
        for one, word in zip(inside, words, strict=True)
    ]


def _split_of(path: Path) -> str:
    names = (path.stem, *reversed(path.parent.parts))
    found = (split_word(name.replace("_", "-").partition("-")[0]) for name in names)
    return next((word for word in found if word), "")


class _Opened:
    """Batches of columns of a file; closes it."""

    def __init__(self, file: _File) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = file.path
        try:
            with open_regular(file.path) as opened:
                start = opened.read(6)
            if start[:4] == b"PAR1":
                self.parquet = pq.ParquetFile(file.path, memory_map=True)
                self.schema = self.parquet.schema_arrow
                self.rows = self.parquet.metadata.num_rows
                return
            mapped = pa.memory_map(str(file.path))
            self.parquet = None
            if start == b"ARROW1":
                reader = pa.ipc.open_file(mapped)
                self.batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            else:
                # As Hugging Face's datasets writes it; nothing is copied from the mapped file.
                reader = pa.ipc.open_stream(mapped)
                self.batches = list(reader)
            self.schema = reader.schema
            self.rows = sum(batch.num_rows for batch in self.batches)
        except FileNotFoundError:
            raise DataError(f"{file.path}: no such file") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged(self.path, error) from None

    @staticmethod
    def _checked(batch: Any, columns: Sequence[str]) -> Any:
        """Some columns, once it is sure that their offsets lie in their buffers."""
        chosen = batch.select(columns)
        chosen.validate(full=True)
        return chosen

    def read(self, columns: Sequence[str], size: int) -> Iterator[Any]:
        """Some rows at a time, ``size`` at most.

        Raises:
            DataError: the file is damaged.
        """
        import pyarrow as pa

        try:
            if self.parquet is not None:
                # One group of rows after the other: all at once, pages of later ones are decoded
                # ahead, in as much memory as there is.
                batches: Iterator[Any] = (
                    batch
                    for group in range(self.parquet.num_row_groups)
                    for batch in self.parquet.iter_batches(
                        size, row_groups=[group], columns=list(columns), use_threads=False
                    )
                )
            else:
                batches = (
                    batch.slice(start, size)
                    for batch in map(self._checked, self.batches, itertools.repeat(columns))
                    for start in range(0, batch.num_rows, size)
                )
            yield from batches
        except (pa.ArrowException, OSError, KeyError) as error:
            raise _damaged(self.path, error) from None


def _is_list(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def _header(
    file: _File, names: dict[str, list[str]], *, numbered: bool
) -> tuple[ArrowTable, _Nested]:
    opened = _Opened(file)
    lists = {one.name: one.type for one in opened.schema if _is_list(one.type)}
    nested: _Nested = {}
    for name, kind in lists.items():
        nested[name] = 0
        if _is_list(kind.value_type):
            entries = (one.column(0).flatten() for one in opened.read([name], 1))
            first = next((one for one in entries if len(one)), [None])[0]
            inner = [] if first is None else first.as_py()
            if not inner or _is_list(kind.value_type.value_type):
                raise DataError(
                    f"{file.path}: column {name!r}: expected lists of numbers, or of lists with "
                    f"the numbers of a row, got {kind}"
                )
            nested[name] = len(inner)
    columns = [
        part for name in opened.schema.names for part in _flat_names(name, nested.get(name, 0))
    ]
    if nested and numbered:
        columns.append(ROW)
    table = ArrowTable(file.path, tuple(columns), (), (), unit="row", names=names)
    return table, nested


def _flat_names(name: str, count: int) -> list[str]:
    return [f"{name}[{place}]" for place in range(count)] or [name]


def _count(file: _File, header: ArrowTable, nested: _Nested) -> int:
    """The rows of all series in a file, once it is sure that they can be what is in it."""
    opened = _Opened(file)
    rows = opened.rows
    if nested:
        name = next(iter(nested))
        _check_columns(file, opened, [name])
        batches = opened.read([name], _BATCH_OF_LISTS)
        rows = sum(len(batch.column(0).flatten()) for batch in batches)
    try:
        check_unpacked(rows * len(header.columns) * 4, file.path.stat().st_size)
    except ValueError as error:
        raise DataError(f"{file.path}: {error}") from None
    return rows


def _check_columns(file: _File, opened: _Opened, names: Sequence[str]) -> None:
    missing = next((name for name in names if name not in opened.schema.names), None)
    if missing is not None:
        held = ", ".join(opened.schema.names)
        raise DataError(f"{file.path}: no column {missing!r} as in the first file; it has: {held}")


def _read(
    file: _File,
    header: ArrowTable,
    nested: _Nested,
    names: dict[str, list[str]],
    columns: Sequence[str],
) -> Iterator[Table]:
    opened = _Opened(file)
    flat = {part: name for name, count in nested.items() for part in _flat_names(name, count)}
    wanted = list(dict.fromkeys(flat.get(name, name) for name in columns if name != ROW))
    if nested and not any(name in nested for name in wanted):
        # The lengths of recordings.
        wanted.append(next(iter(nested)))
    _check_columns(file, opened, wanted)
    first = 0
    for batch in opened.read(wanted, _BATCH_OF_LISTS if nested else _BATCH):
        count = batch.num_rows
        table = replace(header, path=file.path, split=file.split, whole=file.whole)
        held = {name: _plain(batch.column(name)) for name in wanted}
        lines: Any = range(first + 1, first + count + 1)
        if nested:
            held, lines = _exploded(table, held, nested, first)
        shown = tuple(name for name in header.columns if name in held)
        yield replace(table, columns=shown, lines=lines, first=first, data=held)
        first += count


def _plain(array: Any) -> Any:
    """A column without dictionaries and types of other libraries."""
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _exploded(
    table: ArrowTable, held: dict[str, Any], nested: _Nested, first: int
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """A row for each entry of the lists, and the number of the row that it comes from."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = {name: array for name, array in held.items() if name in nested}
    lengths: Any = None
    of = ""
    for name, array in lists.items():
        own = pc.list_value_length(array)
        if own.null_count:
            row = int(own.is_null().to_numpy(zero_copy_only=False).argmax())
            raise DataError(
                f"{table.path}, row {first + row + 1}: column {name!r}: expected a list, got none"
            )
        own = own.to_numpy(zero_copy_only=False)
        if lengths is None:
            lengths, of = own, name
        if (own != lengths).any():
            row = int((own != lengths).argmax())
            raise DataError(
                f"{table.path}, row {first + row + 1}: column {name!r} has {own[row]} entries and "
                f"column {of!r} {lengths[row]}; expected as many, one for each row of a series"
            )
    rows = np.repeat(np.arange(len(lengths)), lengths)
    found = {}
    for name, array in held.items():
        if name not in nested:
            found[name] = array.take(pa.array(rows))
            continue
        flat = _plain(array.flatten())
        if not nested[name]:
            found[name] = flat
            continue
        wide = pc.list_value_length(flat).fill_null(-1).to_numpy(zero_copy_only=False)
        if (wide != nested[name]).any():
            row = int(rows[int((wide != nested[name]).argmax())])
            raise DataError(
                f"{table.path}, row {first + row + 1}: column {name!r}: expected lists of "
                f"{nested[name]} numbers as in the first row, got another length; a list of lists "
                "has the rows of a series"
            )
        for place, part in enumerate(_flat_names(name, nested[name])):
            found[part] = pc.list_element(flat, place)
    found[ROW] = pa.array(first + rows + 1)
    return found, first + rows + 1


def _class_names(file: _File) -> dict[str, list[str]]:
    """The names of classes, where Hugging Face's datasets has them in the file."""
    metadata = _Opened(file).schema.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        pairs = {name: one["names"] for name, one in features.items() if "names" in one}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    return {
        name: names
        for name, names in pairs.items()
        if isinstance(names, list) and names and all(isinstance(one, str) for one in names)
    }
