"""``occupancy``: an office with five sensors, a class for each row."""

from __future__ import annotations

from dataclasses import replace

from .. import series
from ..fetch import Published, unpacked
from ..options import DataOptions
from ..roles import find_roles
from ..rows import read_rows
from ..sets import DataSet
from ..tables import Table, read_table

URL = "https://archive.ics.uci.edu/static/public/357/occupancy+detection.zip"
FILES = {
    "datatraining.txt": "b2c4d0ce2b9e4e453c476f7125ef31aeec2d1f5c7f5572d0e80de3df6521ab56",
    "datatest.txt": "1b92c7c1b2838963464fa891a610cf3c5db4becb7189189b29b330107a584c7f",
    "datatest2.txt": "d026d1bd5aeccd4aff4f3b3710d48e40613bd5fc370db7e61bbdcaa50d985095",
}
# Of the archive, and of each file in it: the largest has 700,000.
_MOST_BYTES = 1 << 24
# Validation is the last part of the training file, as a user would have to choose: about a day.
VALIDATION = 0.2


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
    published = Published("occupancy+detection.zip", URL, None, most=_MOST_BYTES)
    training, *tests = map(read_table, unpacked(published, FILES, "occupancy", options).values())
    cut = round((1 - VALIDATION) * len(training))
    parts = [_part(training, 0, cut, "train"), _part(training, cut, len(training), "val")]
    parts += [replace(table, split="test") for table in tests]
    tables = series.whole_tables(parts)
    remark = (
        "the two test sets lie before and after the training span; validation is the last 20 % of "
        "the training rows"
    )
    options = replace(options, label_column="Occupancy")
    rows = read_rows(tables, find_roles(tables, options), options)
    data = series.assemble(rows, "occupancy", "UCI Occupancy Detection", options, [remark])
    return replace(data, positive=1, classes=("free", "occupied"))


def _part(table: Table, start: int, stop: int, split: str) -> Table:
    rows, lines = table.rows[start:stop], table.lines[start:stop]
    return replace(table, rows=rows, lines=lines, split=split, first=start)
