"""Windows are indexed as the array is that they stand for, and large data stays on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastltc.jobs.data import SPLITS, DataError, Split, load_data
from fastltc.jobs.data.windows import Windows, chunks, new_array


def pair(seed: int = 0) -> tuple[Windows, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.random((50, 3))
    starts = rng.integers(0, 40, 12)
    lengths, hidden = rng.integers(1, 11, 12), rng.integers(0, 3, 12)
    whole = np.full((12, 10, 3), -1.0)
    for place, start in enumerate(starts):
        for step in range(hidden[place], lengths[place]):
            whole[place, step] = rows[start + step]
    return Windows(rows, starts, 10, lengths, hidden, -1), whole


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        np.int64(2),
        slice(2, 9, 3),
        slice(5, 5),
        [4, 4, 0],
        np.array([-1, 2]),
        np.arange(12) % 3 == 0,
        (slice(None), 2),
        (3, slice(1, 4), 0),
        (..., [2, 0]),
        (..., np.array([1])),
        (),
    ],
)
def test_windows_are_indexed_as_an_array(key: Any) -> None:
    windows, whole = pair()
    np.testing.assert_array_equal(np.asarray(windows[key]), whole[key])
    assert windows[key].shape == whole[key].shape


def test_windows_have_what_an_array_has() -> None:
    windows, whole = pair()
    assert (windows.shape, windows.ndim, windows.size, len(windows)) == ((12, 10, 3), 3, 360, 12)
    assert (windows.dtype, windows.nbytes) == (whole.dtype, whole.nbytes)
    np.testing.assert_array_equal(windows, whole)
    np.testing.assert_array_equal(np.stack(list(windows)), whole)
    np.testing.assert_array_equal(np.concatenate([part for _, part in chunks(windows, 5)]), whole)
    taken = windows.take(np.arange(12) > 6)
    np.testing.assert_array_equal(taken, whole[7:])
    np.testing.assert_array_equal(np.asarray(windows, np.float32), whole.astype(np.float32))


def test_a_window_at_the_end_of_the_rows() -> None:
    """What is beyond a window need not be there."""
    windows = Windows(np.arange(5.0), np.array([3]), 4, np.array([2]), fill=9)
    assert windows[0].tolist() == [3, 4, 9, 9]


def test_examples_of_windows_are_taken_without_drawing_them() -> None:
    windows, whole = pair()
    split = Split(windows, np.arange(12), names=tuple(map(str, range(12))))  # type: ignore[arg-type]
    taken = split.take(np.array([5, 1]))
    assert isinstance(taken.inputs, Windows)
    np.testing.assert_array_equal(taken.inputs, whole[[5, 1]])
    assert taken.names == ("5", "1")
    assert isinstance(taken.drawn().inputs, np.ndarray)


def test_a_large_array_is_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastltc.jobs.data import windows

    assert not isinstance(new_array((10,), np.int8), np.memmap)
    monkeypatch.setattr(windows, "IN_MEMORY", 8)
    array = new_array((10, 3), np.float32)
    assert isinstance(array, np.memmap)
    assert not array.any()
    array[3] = 1
    assert array.sum() == 3


def test_a_disk_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastltc.jobs.data import windows

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(windows, "IN_MEMORY", 8)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(DataError, match=r"no room for 40 bytes of rows: No space left.*TMPDIR"):
        new_array((10,), np.float32)


def test_the_same_data_where_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastltc.jobs.data import rows, windows

    lines = ["time,run,a,b,out"]
    for run in range(12):
        for row in range(20 + run):
            lines.append(f"{row},r{run},{row if row % 4 else ''},{run},{row * run}")
    path = tmp_path / "s.csv"
    path.write_text("\n".join(lines))
    for options in (
        {"window": 6},
        {"window": 6, "horizon": 3, "known": "b"},
        {"label_per": "window", "window": 5, "stride": 2},
    ):
        given = {"target": "out", "recording_column": "run", "missing": "mask", **options}
        small = load_data(f"csv:{path}", **given)
        with monkeypatch.context() as patch:
            for module in (windows, rows):
                patch.setattr(module, "IN_MEMORY", 64)
            large = load_data(f"csv:{path}", **given)
        assert isinstance(large.splits["train"].inputs, Windows)
        assert isinstance(large.splits["train"].inputs.rows, np.memmap)
        for name in SPLITS:
            for field in ("inputs", "labels", "timespans", "measured", "future", "lengths"):
                one, other = (getattr(data.splits[name], field) for data in (small, large))
                if one is None:
                    assert other is None
                else:
                    np.testing.assert_array_equal(one, other)


# Rows are written a part at a time, and the memory that is no file's is bounded from then on.
SCRIPT = """
import resource, sys
import numpy as np
from fastltc.jobs.data import load_data, rows as reading, windows
from fastltc.jobs.data.windows import chunks

windows.IN_MEMORY = reading.IN_MEMORY = 1 << 20
path, limit, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
load_data(path + "/small", target="out")
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
data = load_data(path + "/large", target="out", stride=8)
total = 0
for split in data.splits.values():
    assert isinstance(split.inputs, windows.Windows), type(split.inputs)
    for start in range(0, len(split), 64):
        inputs, labels = split.inputs[start : start + 64], split.labels[start : start + 64]
        total += int(np.isfinite(labels).sum())
        assert (inputs[..., 0] == labels[..., 0]).all()
        if total > rows:
            break
print("windows", sum(map(len, data.splits.values())))
try:
    np.asarray(data.splits["train"].inputs)
except MemoryError:
    print("all of them do not fit")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_is_bounded_where_the_rows_are_more(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows, width = 1 << 19, 64
    rng = np.random.default_rng(0)
    for name, count in (("small", 1 << 10), ("large", rows)):
        (tmp_path / name).mkdir()
        schema = pa.schema(
            [("time", pa.float64())]
            + [(f"x{place}", pa.float32()) for place in range(width)]
            + [("out", pa.float32())]
        )
        with pq.ParquetWriter(tmp_path / name / "s.parquet", schema) as writer:
            for start in range(0, count, 1 << 14):
                number = np.arange(start, min(start + (1 << 14), count))
                block = rng.random((width, len(number)), np.float32)
                block[0] = number % 1000
                columns = [number.astype(np.float64), *block, block[0]]
                writer.write_table(pa.table(columns, schema=schema))
    whole = rows * width * 4
    limit = whole // 3
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"parquet:{tmp_path}", str(limit), str(rows)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    assert "all of them do not fit" in done.stdout
