"""``etth1``: the temperature of a transformer and six loads, forecast for the next hours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .. import cutting
from ..fetch import Published, obtain, verify
from ..options import DataOptions
from ..roles import find_roles
from ..rows import read_rows
from ..series import tables_of
from ..sets import DataSet, check_splits

URL = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv"
CHECKSUM = "sha256:f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"
# Twelve months of thirty days, and four and four.
ENDS = (0, 8640, 11520, 14400)


def load_etth1(options: DataOptions) -> DataSet:
    """Electricity transformer temperature, hourly: all seven columns, ``horizon`` hours ahead.

    The first 8,640 hours train, the next 2,880 validate, the next 2,880 test; the rest is not used.
    Columns are standardised by the training hours, and errors are those of the standardised
    columns. Windows (``options.window``, 96 hours unless asked for) begin every hour; those of
    validation and test may begin in the split before, since it is the hours after them that are
    forecast (``options.horizon``, 96).

    Raises:
        DataError: the file is missing or another one.

    Source: H. Zhou et al., "Informer: beyond efficient transformer for long sequence time-series
    forecasting", AAAI 2021 (CC BY-ND 4.0).
    """
    path = obtain(Published("ETTh1.csv", URL, CHECKSUM), options, (".csv",))
    verify(path, CHECKSUM, URL)
    asked = replace(options, horizon=options.horizon or 96, window=options.window or 96)
    tables = tables_of(path)
    rows = read_rows(tables, find_roles(tables, asked), asked)
    known = rows.values[: ENDS[1]].astype(np.float64)
    scaled = ((rows.values - known.mean(axis=0)) / known.std(axis=0)).astype(np.float32)
    rows.values, rows.wanted = scaled, scaled
    [whole] = rows.recordings
    assert asked.window is not None
    splits = {}
    for place, name in enumerate(("train", "val", "test")):
        # Hours before a split are inputs only.
        first = max(ENDS[place] - asked.window, 0)
        part = whole.part(first, ENDS[place + 1])
        stride = asked.stride if name == "train" else 1
        every = replace(asked, stride=stride)
        splits[name] = cutting.cut(rows, [part], "train", every, asked.window, None)
    remark = "split along time: 12, 4 and 4 months; standardised by the training months"
    return check_splits(
        DataSet(
            "etth1",
            (),
            splits,
            str(path),
            remarks=(remark,),
            features=rows.features,
            targets=rows.roles.targets,
            horizon=asked.horizon or 0,
        )
    )
