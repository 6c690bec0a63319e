"""Time series in Parquet and Arrow files, a row for each row or a row for each recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastltc.jobs.data import SPLITS, DataError, load_data

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def flat(rows: int = 200, **changes: Any) -> Any:
    """A row for each hour; the output is the load, twice."""
    hours = np.arange(rows)
    columns = {
        "time": pa.array(hours * 3600, pa.timestamp("s", tz="UTC")),
        "load": pa.array(hours.astype(np.int32)),
        "sky": pa.array(np.array(["sun", "rain"])[hours // 5 % 2]).dictionary_encode(),
        "open": pa.array(hours % 2 == 0),
        "out": pa.array(2.0 * hours),
    }
    return pa.table({**columns, **changes})


def test_a_row_for_each_row(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    pq.write_table(flat(), path, row_group_size=37)
    options = {"target": "out", "categorical": "sky", "window": 10}
    data = load_data(f"parquet:{path}", **options)
    assert data.features == ("load", "sky=rain", "sky=sun", "open")
    assert (data.time_unit, data.targets) == (3600, ("out",))
    train = data.splits["train"]
    assert train.inputs[0, :7].tolist() == [
        [row, row >= 5, row < 5, row % 2 == 0] for row in range(7)
    ]
    np.testing.assert_array_equal(train.labels[..., 0], 2 * train.inputs[..., 0])
    # The same as the same rows in a CSV file.
    lines = ["time,load,sky,open,out"]
    for row in flat().to_pylist():
        moment = row["time"].strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"{moment},{row['load']},{row['sky']},{int(row['open'])},{row['out']}")
    (tmp_path / "s.csv").write_text("\n".join(lines))
    other = load_data(f"csv:{tmp_path / 's.csv'}", **options)
    for name in SPLITS:
        for field in ("inputs", "labels", "timespans"):
            one, two = (getattr(data.splits[name], field) for data in (data, other))
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype


def test_nothing_is_a_gap(tmp_path: Path) -> None:
    values = [None if row % 3 == 1 else float(row) for row in range(200)]
    pq.write_table(flat(load=pa.array(values)), tmp_path / "s.parquet")
    source, options = (
        f"parquet:{tmp_path / 's.parquet'}",
        {"target": "out", "inputs": "load", "window": 9},
    )
    with pytest.raises(DataError, match=r"s.parquet, row 2: column 'load': expected a finite num"):
        load_data(source, **options)
    data = load_data(source, **options, missing="mask")
    part = data.splits["train"]
    assert part.measured is not None
    np.testing.assert_array_equal(part.inputs[0, :6, 0], [0, 0, 2, 3, 3, 5])
    np.testing.assert_array_equal(part.measured[0, :6, 0], [1, 0, 1, 1, 0, 1])


def test_shards_are_one_series_and_folders_are_splits(tmp_path: Path) -> None:
    table = flat()
    for place, start in enumerate(range(0, 200, 64)):
        pq.write_table(table.slice(start, 64), tmp_path / f"part-{place}.parquet")
    whole = tmp_path / "whole.pq"
    pq.write_table(table, whole)
    options = {"target": "out", "inputs": "load", "window": 10}
    data = load_data(f"parquet:{tmp_path}", **options)
    np.testing.assert_array_equal(
        data.splits["train"].inputs, load_data(f"parquet:{whole}", **options).splits["train"].inputs
    )
    splits = tmp_path / "splits"
    for name, start in (("train", 0), ("validation", 100), ("test", 150)):
        (splits / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(start, 50), splits / "data" / f"{name}-00000-of-00001.parquet")
    data = load_data(f"parquet:{splits}", **options)
    assert [len(data.splits[name]) for name in SPLITS] == [5, 5, 5]
    assert data.splits["val"].inputs[0, 0, 0] == 100
    pq.write_table(table, splits / "data" / "more.parquet")
    with pytest.raises(DataError, match=r"more.parquet: other files in .* expected train, val or"):
        load_data(f"parquet:{splits}", **options)


def lists(count: int = 30, **changes: Any) -> Any:
    """A row for each recording, of 4 to 6 rows of two numbers."""
    lengths = [4 + place % 3 for place in range(count)]
    columns = {
        "values": [[[place, row] for row in range(n)] for place, n in enumerate(lengths)],
        "time": [[0.5 * row for row in range(n)] for n in lengths],
        "label": [place % 2 for place in range(count)],
    }
    return pa.table({**columns, **changes})


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_row_for_each_recording(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"s.{ending}"
    features = {"label": {"names": ["idle", "busy"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = lists().replace_schema_metadata(metadata)
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    data = load_data(f"parquet:{path}")
    assert data.classes == ("busy", "idle")
    assert (data.features, data.per_step) == (("values[0]", "values[1]"), False)
    assert (data.input_shape, data.time_unit) == ((6, 2), 0.5)
    assert [len(data.splits[name]) for name in SPLITS] == [22, 2, 6]
    for part in data.splits.values():
        lengths = np.full(len(part), 6) if part.lengths is None else part.lengths
        for one, length, label in zip(part.inputs, lengths, part.labels, strict=True):
            place = int(one[0, 0])
            assert length == 4 + place % 3
            assert data.classes[label] == ("idle", "busy")[place % 2]
            assert one[:length].tolist() == [[place, row] for row in range(length)]


def test_a_folder_of_datasets_without_validation(tmp_path: Path) -> None:
    for name, start, count in (("train", 0, 20), ("test", 20, 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{}")
        table = lists().slice(start, count)
        with pa.ipc.new_stream(tmp_path / name / "data-00000-of-00001.arrow", table.schema) as file:
            file.write_table(table)
    data = load_data(f"parquet:{tmp_path}")
    assert [len(data.splits[name]) for name in SPLITS] == [18, 2, 10]
    assert any("validation: 10 % of the training recordings" in one for one in data.remarks)
    assert set(data.splits["test"].inputs[:, 0, 0]) == set(range(20, 30))


def test_a_class_of_each_entry(tmp_path: Path) -> None:
    table = lists(
        20, label=[["ab"[row % 2] for row in range(4 + place % 3)] for place in range(20)]
    )
    pq.write_table(table, tmp_path / "s.parquet")
    data = load_data(f"parquet:{tmp_path / 's.parquet'}", window=4)
    assert data.per_step
    part = data.splits["test"]
    judged = part.labels >= 0
    np.testing.assert_array_equal(part.labels[judged], part.inputs[..., 1][judged] % 2)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {"load": [["a"]] * 200},
            {},
            r"s.parquet, row 1: column 'load': expected a number, got 'a'",
        ),
        ({"load": pa.array([b"a"] * 200)}, {}, r"row 1: column 'load': expected numbers, got bin"),
        ({"load": ["a"] * 200}, {}, r"row 1: column 'load': expected a number, got 'a'"),
        ({"load": [{"a": 1}] * 200}, {}, r"row 1: column 'load': expected numbers, got struct"),
        ({"load": [1e300] * 200}, {}, r"row 1: column 'load': expected a finite number, got inf"),
        (
            {"time": pa.array([None] * 200, pa.timestamp("s"))},
            {},
            r"row 1: column 'time': expected a",
        ),
        ({"time": ["x"] * 200}, {}, r"row 1: column 'time': expected seconds or a date"),
        ({"out": [{"a": 1}] * 200}, {}, r"row 1: column 'out': expected numbers, got struct"),
        ({}, {"target": "gone"}, r"no column 'gone' \(--target\); it has: time, load"),
    ],
)
def test_columns_of_other_types(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    pq.write_table(flat(**changes), tmp_path / "s.parquet")
    with pytest.raises(DataError, match=message):
        load_data(f"parquet:{tmp_path / 's.parquet'}",
                  **{"target": "out", "inputs": "load", **options})  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": [[0.0]] * 30}, r"row 1: column 'values' has 4 entries and column 'time' 1"),
        (
            {"time": pa.array([None] * 30, pa.list_(pa.float64()))},
            r"row 1: column 'time': expected a",
        ),
        ({"values": [[[1, 2]] * 4, [[1]] * 5, [[1, 2]] * 6] * 10}, r"row 2: .* lists of 2 numbers"),
        ({"values": [[]] * 30}, r"row 1: column 'values' has 0 entries and column 'time' 4"),
        ({"values": [[[[1]]]] * 30}, r"column 'values': expected lists of numbers, or of lists"),
        (
            {"values": [[{"a": 1}] * (4 + row % 3) for row in range(30)]},
            r"expected numbers, got st",
        ),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    pq.write_table(lists(**changes), tmp_path / "s.parquet")
    with pytest.raises(DataError, match=message):
        load_data(f"parquet:{tmp_path / 's.parquet'}")


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("harm", ["none", "text", "torn", "flipped", "folder"])
def test_damaged_files(tmp_path: Path, ending: str, harm: str) -> None:
    path = tmp_path / f"s.{ending}"
    if ending == "parquet":
        pq.write_table(flat(5000, load=np.random.default_rng(0).random(5000)), path)
    else:
        table = flat(5000)
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    content = bytearray(path.read_bytes())
    if harm == "none":
        path.unlink()
    elif harm == "text":
        path.write_text("time,a\n" * 50)
    elif harm == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "folder":
        path.unlink()
        path.mkdir()
    else:
        middle = len(content) // 2
        content[16:middle] = bytes(middle - 16)
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"s.{ending}"):
        load_data(f"parquet:{path}", target="out", inputs="load")


def test_more_rows_than_a_file_of_its_size_has(tmp_path: Path) -> None:
    """Every row is the same: a small file, and as many rows as one likes."""
    path = tmp_path / "s.parquet"
    table = pa.table({"time": np.zeros(1 << 20), "a": np.zeros(1 << 20), "out": np.zeros(1 << 20)})
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(100):
            writer.write_table(table)
    with pytest.raises(DataError, match=r"s.parquet: [\d,]+ bytes that unpack to 1,258,291,200"):
        load_data(f"parquet:{path}", target="out")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'fastltc\[parquet\]'"):
        load_data(f"parquet:{tmp_path / 's.parquet'}")


def test_no_rows(tmp_path: Path) -> None:
    pq.write_table(flat(0), tmp_path / "s.parquet")
    with pytest.raises(DataError, match=r"s.parquet: has no rows"):
        load_data(f"parquet:{tmp_path / 's.parquet'}", target="out", inputs="load")


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("shape", ["flat", "lists"])
def test_bytes_that_are_others(tmp_path: Path, ending: str, shape: str) -> None:
    """It is read, or refused in one line; nothing else."""
    path, table = tmp_path / f"s.{ending}", flat(60) if shape == "flat" else lists(12)
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    whole, refused = path.read_bytes(), []
    rng = np.random.default_rng(0)
    options = {"target": "out", "inputs": "load", "window": 4} if shape == "flat" else {}
    for _ in range(40):
        content = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(content), rng.integers(1, 10))
        content[places] = rng.choice([0, 1, 128, 255], len(places))
        path.write_bytes(content.tobytes())
        try:
            load_data(f"parquet:{path}", **options)
        except DataError as error:
            refused.append(str(error))
    assert refused
    assert all(str(path) in text for text in refused)
