"""``walker2d`` and ``cheetah``: predict the next frame of a simulated robot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..array_files import array_of, open_npy, open_npz
from ..options import DataOptions
from ..sets import DataSet, Split, check_splits
from .windows import find, joined, split_of, starts

WALKER = "https://people.csail.mit.edu/mlechner/datasets/walker.zip"
CHEETAH = "https://github.com/raminmh/liquid_time_constant_networks"

_Traces = list[tuple[str, NDArray[np.float32]]]


def load_walker2d(options: DataOptions) -> DataSet:
    """Walker2d-v2 with frames that are missing: 400 rollouts of 17 numbers a frame.

    A tenth of the frames is dropped at random, and the time step is the number of frames since the
    last one that was kept. Windows of 64 kept frames begin every 16; each frame is followed by the
    one that it is to predict, in its own units.

    Returns:
        9,684 training, 1,272 validation and 1,937 test windows, of 300, 40 and 60 rollouts.

    Raises:
        DataError: the rollouts are missing or damaged.

    Source: M. Lechner, R. Hasani, "Learning long-term dependencies in irregularly-sampled time
    series", 2020; R. Hasani et al., "Closed-form continuous-time neural networks", Nature Machine
    Intelligence 4, 2022.
    """
    path, traces = _read("walker2d.npz", "walker", WALKER, options)
    np.random.RandomState(125487).shuffle(traces)  # type: ignore[arg-type]
    test, val = int(0.15 * len(traces)), int(0.25 * len(traces))
    parts = {"train": traces[val:], "val": traces[test:val], "test": traces[:test]}
    # One generator, over the splits in this order.
    rng = np.random.RandomState(891374)
    splits = {name: _walker_split(part, rng, name, path) for name, part in parts.items()}
    remark = "one unit of time is a frame; a tenth of the frames is left out"
    return _data("walker2d", splits, path, remark, time_unit=1.0)


def _walker_split(traces: _Traces, rng: np.random.RandomState, split: str, path: Path) -> Split:
    parts = []
    for name, frames in traces:
        kept = np.flatnonzero(rng.rand(len(frames) - 1) < 0.9)
        timespans = np.diff(kept, prepend=-1).astype(np.float32)
        first = starts(len(kept), 64, 16)
        parts.append(split_of(name, first, 64, frames[kept], frames[kept + 1], timespans))
    return _joined(parts, split, path)


def load_cheetah(options: DataOptions) -> DataSet:
    """HalfCheetah: 25 traces of 1,000 frames of 17 numbers, in windows of 32 every 10.

    Returns:
        970 training, 485 validation and 970 test windows, of 10, 5 and 10 traces; each frame is
        followed by the one that it is to predict.

    Raises:
        DataError: the traces are missing or damaged.

    Source: R. Hasani et al., "Liquid time-constant networks", AAAI 2021.
    """
    path, traces = _read("cheetah.npz", "cheetah", CHEETAH, options)
    parts = {"train": traces[15:25], "val": traces[:5], "test": traces[5:15]}
    splits = {}
    for split, own in parts.items():
        cut = [
            split_of(name, starts(len(one) - 1, 32, 10), 32, one[:-1], one[1:]) for name, one in own
        ]
        splits[split] = _joined(cut, split, path)
    return _data("cheetah", splits, path, "frames follow one another in equal steps")


def _joined(parts: list[Split], split: str, path: Path) -> Split:
    if not any(map(len, parts)):
        raise DataError(f"{path}: too few or too short recordings for the {split} split")
    return joined([part for part in parts if len(part)])


def _data(
    name: str, splits: dict[str, Split], path: Path, remark: str, time_unit: float = 0.0
) -> DataSet:
    names = tuple(f"x{place}" for place in range(splits["train"].inputs.shape[-1]))
    return check_splits(
        DataSet(
            name, (), splits, str(path), remarks=(remark,), features=names, time_unit=time_unit,
            targets=names,
        )
    )  # fmt: skip


def _read(file: str, folder: str, url: str, options: DataOptions) -> tuple[Path, _Traces]:
    """Recordings in the order of their names: a file ``.npy`` each, or an ``.npz`` of all."""
    remedy = (
        f"Get the recordings from {url} and name the folder above them as the data root "
        f"(--data-root DIR): a folder {folder} of .npy files, or {file} with arrays values [rows, "
        "numbers], lengths and names."
    )
    path = find((file, folder), options, remedy)
    if path.is_dir():
        traces = {one.name: open_npy(one).astype(np.float32) for one in path.glob("*.npy")}
    else:
        arrays = open_npz(path)
        values, lengths = (array_of(arrays, name, path) for name in ("values", "lengths"))
        names = [str(name) for name in arrays.get("names", np.empty(0)).ravel()]
        ends = np.cumsum(lengths)
        if len(names) != len(lengths) or len(ends) == 0 or ends[-1] != len(values):
            raise DataError(
                f"{path}: expected as many names as lengths, and lengths that sum to the "
                f"{len(values)} rows of values, got {len(names)} names and {len(lengths)} lengths"
            )
        traces = dict(zip(names, np.split(values.astype(np.float32), ends[:-1]), strict=True))
    widths = {one.shape[1:] for one in traces.values()}
    if len(widths) != 1 or len(next(iter(widths))) != 1:
        raise DataError(f"{path}: expected recordings [frames, numbers] of one width, got {widths}")
    for name, one in traces.items():
        if not np.isfinite(one).all():
            raise DataError(f"{path}: {name} has infinite or NaN values")
    return path, sorted(traces.items())
