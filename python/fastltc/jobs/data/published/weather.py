"""``traffic`` and ``ozone``: weather with a number of cars each hour, or an ozone day each day."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...files import read_bytes
from .. import overlap
from ..fetch import Published, unpacked
from ..options import DataOptions
from ..sets import DataSet, Split, check_splits
from ..tables import read_table
from .windows import dealt, split_of, starts

_UCI = "https://archive.ics.uci.edu/static/public"
TRAFFIC = Published(
    "metro+interstate+traffic+volume.zip",
    f"{_UCI}/492/metro+interstate+traffic+volume.zip",
    None,
    most=1 << 24,
)
TRAFFIC_FILES = {
    "Metro_Interstate_Traffic_Volume.csv": (
        "749c90d720360a4215bb15345526073c079ba4cc95e3fa558796d083f85fce9e"
    )
}
OZONE = Published(
    "ozone+level+detection.zip", f"{_UCI}/172/ozone+level+detection.zip", None, most=1 << 24
)
OZONE_FILES = {"eighthr.data": "0c10d1e216db3249c565e3ed5474302032067f6df0ea6fd49e6f06ec061f83a9"}

WINDOW, STRIDE, SEED = 32, 4, 23489
_SHARES = (0.75, 0.85)


def load_traffic(options: DataOptions) -> DataSet:
    """The cars on an interstate in each hour, of the weather, the day and the hour.

    As it is printed, windows of 32 rows begin every 4 and are dealt out at random, 75 % to train,
    10 % to validate and 15 % to test, so that nearly every test row is a training row, too; the
    number of cars is standardised by all rows. ``options.split_by`` of ``time`` cuts the rows along
    time by the same shares and takes scales from the training rows; the windows of validation and
    test then follow one another.

    Raises:
        DataError: the file is missing or another one.

    Source: R. Hasani et al., "Liquid time-constant networks", AAAI 2021; J. Hogue, "Metro
    Interstate Traffic Volume", UCI 492, 2019 (CC BY 4.0).
    """
    path = unpacked(TRAFFIC, TRAFFIC_FILES, "traffic", options)[next(iter(TRAFFIC_FILES))]
    table = read_table(path)

    def numbers(name: str) -> NDArray[np.float32]:
        return table.numbers(table.need(name, (), name, "its header"), np.float32)

    cells = table.column(table.need("date_time", (), "times", "its header"))
    times = [datetime.strptime(cell, "%Y-%m-%d %H:%M:%S") for cell in cells]
    holiday = table.column(table.need("holiday", (), "holidays", "its header"))
    columns = {
        "no holiday": np.array([name in ("None", "") for name in holiday]),
        "temperature": numbers("temp"),
        "rain": numbers("rain_1h"),
        "snow": numbers("snow_1h"),
        "clouds": numbers("clouds_all"),
        "weekday": np.array([time.weekday() for time in times]),
        "hour": np.sin(np.array([time.hour for time in times]) * np.pi / 24),
    }
    inputs = np.stack([*columns.values()], axis=1).astype(np.float32)
    volume = numbers("traffic_volume")[:, None]
    seen = _training_rows(len(inputs), options)
    inputs[:, 1] -= inputs[seen, 1].mean()
    volume = (volume - volume[seen].mean()) / volume[seen].std()
    return _data(
        "traffic", path, inputs, volume, options, features=tuple(columns), targets=("volume",)
    )


def load_ozone(options: DataOptions) -> DataSet:
    """Days with and without much ozone in Houston, of 72 measurements; split as `load_traffic`.

    What is missing is 0; then one mean and one deviation, over all rows and columns, make the
    scale (with ``options.split_by`` of ``time``, over the training rows).

    Raises:
        DataError: the file is missing or another one.

    Source: R. Hasani et al., "Liquid time-constant networks", AAAI 2021; K. Zhang, W. Fan, X.
    Yuan, "Ozone Level Detection", UCI 172, 2008 (CC BY 4.0).
    """
    path = unpacked(OZONE, OZONE_FILES, "ozone", options)["eighthr.data"]
    rows = [row for row in csv.reader(io.StringIO(read_bytes(path).decode())) if row]
    if {len(row) for row in rows} != {74}:
        raise DataError(f"{path}: expected a date, 72 measurements and a class in every row")
    cells = [[cell.replace("?", "0") for cell in row[1:]] for row in rows]
    numbers = np.array(cells, dtype=np.float64)
    values, labels = numbers[:, :-1], numbers[:, -1].astype(np.int64)
    seen = _training_rows(len(values), options)
    values = (values - values[seen].mean()) / values[seen].std()
    return _data(
        "ozone",
        path,
        values.astype(np.float32),
        labels,
        options,
        classes=("ordinary", "ozone"),
        positive=1,
        features=tuple(f"x{place}" for place in range(72)),
    )


def _training_rows(rows: int, options: DataOptions) -> slice:
    return slice(int(_SHARES[0] * rows) if options.split_by == "time" else rows)


def _data(
    name: str,
    path: Path,
    inputs: NDArray[np.float32],
    answers: NDArray[Any],
    options: DataOptions,
    **given: Any,
) -> DataSet:
    if options.split_by == "recording":
        raise DataError(f"--split-by recording: {name} is one recording; expected windows or time")
    if options.split_by == "time":
        remark = "split along time: the first 75 % of the rows, the next 10 %, the last 15 %"
        ends = [0, *(int(share * len(inputs)) for share in _SHARES), len(inputs)]

        def cut(first: int, last: int, stride: int) -> Split:
            own = starts(last - first, WINDOW, stride)
            rows = slice(first, last)
            return split_of(str(path), own, WINDOW, inputs[rows], answers[rows], row=first)

        splits = {
            split: cut(ends[place], ends[place + 1], STRIDE if split == "train" else WINDOW)
            for place, split in enumerate(("train", "val", "test"))
        }
    else:
        remark = "windows that overlap are dealt out at random, as published; see --split-by time"
        own = starts(len(inputs), WINDOW, STRIDE)
        splits = dealt(split_of(str(path), own, WINDOW, inputs, answers), SEED)
    given = {"classes": (), **given}
    data = DataSet(name, splits=splits, source=str(path), **given)
    remarks = (remark, *overlap.leaks(data))
    return check_splits(DataSet(name, splits=splits, source=str(path), remarks=remarks, **given))
