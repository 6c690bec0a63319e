from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastltc.jobs.data import IGNORED, DataError, DataOptions, load_data
from fastltc.jobs.data.series import read_unlabelled
from job_support import real_data


def write(
    path: Path, rows: int = 100, *, offset: float = 0.0, bad: dict[int, str] | None = None
) -> Path:
    """One row in 59, 60 or 61 s; the class follows the first input."""
    lines = ["time,light,noise,label"]
    time = offset
    for row in range(rows):
        kind = "on" if (row // 4) % 2 else "off"
        lines.append(f"{time},{row},{0.5 * row},{kind}")
        time += (59, 60, 61)[row % 3]
    for row, text in (bad or {}).items():
        lines[row + 1] = text
    path.write_text("\n".join(lines))
    return path


def test_rows_become_sequences_with_time_steps(tmp_path: Path) -> None:
    data = load_data(f"csv:{write(tmp_path / 's.csv')}", window=10)
    assert (data.kind, data.input_shape) == ("series", (10, 2))
    assert data.classes == ("off", "on")
    assert data.features == ("light", "noise")
    assert data.time_unit == 60
    train = data.splits["train"]
    assert len(train) == 7
    np.testing.assert_array_equal(train.inputs[2, :, 0], np.arange(20, 30))
    np.testing.assert_allclose(train.timespans[0, :4], [1, 59 / 60, 1, 61 / 60])
    # The step into a sequence is the one since the row before it, which another sequence has.
    np.testing.assert_allclose(train.timespans[1, 0], 59 / 60)


def test_splits_follow_time_and_share_no_row(tmp_path: Path) -> None:
    data = load_data(f"csv:{write(tmp_path / 's.csv')}", window=10, stride=3)
    rows = {name: set(split.inputs[..., 0].ravel()) for name, split in data.splits.items()}
    assert max(rows["train"]) < min(rows["val"])
    assert max(rows["val"]) < min(rows["test"])
    assert [len(rows[name]) for name in ("train", "val", "test")] == [70, 10, 20]


def test_every_row_is_judged_once(tmp_path: Path) -> None:
    data = load_data(f"csv:{write(tmp_path / 's.csv', 107)}", window=9)
    for name, rows in (("val", 11), ("test", 21)):
        split = data.splits[name]
        assert (split.labels != IGNORED).sum() == rows
        judged = split.inputs[..., 0][split.labels != IGNORED]
        assert len(set(judged)) == rows


def test_the_scale_and_unit_are_not_taken_from_the_test_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv")
    before = load_data(f"csv:{path}", window=10)
    lines = path.read_text().splitlines()
    for row in range(85, 100):
        cells = lines[row + 1].split(",")
        lines[row + 1] = f"{float(cells[0]) * 7},{cells[1]}000,{cells[2]},{cells[3]}"
    path.write_text("\n".join(lines))
    after = load_data(f"csv:{path}", window=10)
    assert after.time_unit == before.time_unit
    for field in ("inputs", "labels", "timespans"):
        for name in ("train", "val"):
            old, new = (getattr(data.splits[name], field) for data in (before, after))
            np.testing.assert_array_equal(old, new)


def with_split(path: Path, word: Callable[[int], str], rows: int = 100) -> Path:
    """The file of `write` with a column ``split``."""
    lines = write(path, rows).read_text().splitlines()
    cells = ["split", *(word(row) for row in range(rows))]
    path.write_text("\n".join(f"{line},{cell}" for line, cell in zip(lines, cells, strict=True)))
    return path


def test_a_column_decides_the_split(tmp_path: Path) -> None:
    runs = ((0, 20, "test"), (20, 50, "Training"), (50, 65, "valid"), (65, 100, "train"))
    word = {row: name for start, stop, name in runs for row in range(start, stop)}
    data = load_data(f"csv:{with_split(tmp_path / 's.csv', word.__getitem__)}", window=10)
    rows = {name: set(split.inputs[..., 0].ravel()) for name, split in data.splits.items()}
    assert rows["test"] == set(range(20))
    assert rows["train"] == {*range(20, 50), *range(65, 100)}
    assert rows["val"] == set(range(50, 65))
    assert data.features == ("light", "noise")
    assert any("runs of rows of one split: 2 train, 1 val, 1 test" in r for r in data.remarks)
    train = data.splits["train"]
    # No sequence crosses from one run to the next, and the first step of each is one unit.
    for sequence in train.inputs[..., 0]:
        assert set(sequence) <= set(range(20, 50)) or set(sequence) <= set(range(65, 100))
    starts = train.inputs[:, 0, 0].tolist()
    assert train.timespans[starts.index(65), 0] == 1
    assert train.names[starts.index(65)].endswith("s.csv:66")


def test_a_split_column_by_another_name(tmp_path: Path) -> None:
    path = with_split(
        tmp_path / "s.csv", lambda row: "test" if row < 30 else "train" if row < 80 else "val"
    )
    path.write_text(path.read_text().replace("label,split", "label,part", 1))
    data = load_data(f"csv:{path}", window=10, split_column="part")
    assert data.splits["test"].inputs[..., 0].max() == 29


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            lambda row: "train" if row < 50 else "exam",
            r"line 52: column 'split': expected train, v",
        ),
        (lambda row: "train" if row < 50 else "", r"line 52: column 'split': .*got ''"),
        (lambda row: "train" if row < 50 else "test", r"which has no val rows"),
        (
            lambda row: ("train", "val", "test")[row // 5 % 3],
            r"from row 1 on its train part has 5 rows, fewer than the window of 10",
        ),
    ],
)
def test_bad_split_columns(tmp_path: Path, word: Callable[[int], str], message: str) -> None:
    path = with_split(tmp_path / "s.csv", word)
    with pytest.raises(DataError, match=message) as raised:
        load_data(f"csv:{path}", window=10)
    assert str(path) in str(raised.value)


def test_a_guessed_class_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv")
    assert not any(
        "last column" in remark for remark in load_data(f"csv:{path}", window=10).remarks
    )
    path.write_text(path.read_text().replace("label", "state", 1))
    data = load_data(f"csv:{path}", window=10)
    assert "classes are in the last column, 'state' (--label-column for another)" in data.remarks
    # Neither the time nor the split is a class, though it be the last.
    lines = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join((*cells[1:], cells[0])) for cells in lines))
    assert load_data(f"csv:{path}", window=10).classes == ("off", "on")


@pytest.mark.parametrize("header", ["time,a,load", "load,time,a", "time,a,y"])
@pytest.mark.parametrize("decimal", ",.")
def test_a_column_of_numbers_with_fractions_is_a_regression(
    tmp_path: Path, header: str, decimal: str
) -> None:
    names = header.split(",")
    target = next(name for name in names if name not in ("time", "a"))
    rows = [";".join(names)]
    # The input is wrong too: the classes come first.
    for index in range(50):
        values = {"time": str(index), "a": "x", target: str(index * 0.5).replace(".", decimal)}
        rows.append(";".join(values[name] for name in names))
    (tmp_path / "s.csv").write_text("\n".join(rows))
    with pytest.raises(
        DataError, match=f"column '{target}': expected classes, got .* 0.5, 1.5, 2.5: that is a reg"
    ):
        load_data(f"csv:{tmp_path / 's.csv'}", label_column=None if target == "y" else target)


def test_whole_numbers_are_classes_however_they_are_written(tmp_path: Path) -> None:
    rows = ["time,a,label", *(f"{index},1,{index % 2}.0" for index in range(400))]
    (tmp_path / "s.csv").write_text("\n".join(rows))
    assert load_data(f"csv:{tmp_path / 's.csv'}").classes == ("0.0", "1.0")


def test_inputs_go_by_their_names(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv")
    path.write_text(path.read_text().replace("light,noise", "light,light", 1))
    with pytest.raises(DataError, match=r"s.csv: two columns are called 'light'"):
        load_data(f"csv:{path}", window=10)
    with pytest.raises(DataError, match=r"s.csv: two columns are called 'light'"):
        read_unlabelled(path, ["light"], DataOptions())


def test_rows_are_not_grouped(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv")
    with pytest.raises(DataError, match=r"--group-column noise: csv:.* does not take this option"):
        load_data(f"csv:{path}", window=10, group_column="noise")


def test_files_of_each_split(tmp_path: Path) -> None:
    for index, name in enumerate(("train", "val", "test")):
        write(tmp_path / f"{name}.csv", 40, offset=1e5 * index)
    data = load_data(f"csv:{tmp_path}", window=10)
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [4, 4, 4]


def test_dates_and_a_row_id_without_a_name(tmp_path: Path) -> None:
    lines = ['"date","light","Occupied"']
    for row in range(60):
        lines.append(f'"{row}","2015-02-04 17:{row:02d}:0{row % 2}",{row},{(row // 3) % 2}')
    (tmp_path / "s.csv").write_text("\n".join(lines))
    data = load_data(f"csv:{tmp_path / 's.csv'}", window=6)
    assert (data.features, data.classes) == (("light",), ("0", "1"))
    assert data.time_unit == pytest.approx(60, abs=1)
    spans = data.splits["train"].timespans * data.time_unit
    np.testing.assert_allclose(spans[0, 1:4], [61, 59, 61], rtol=1e-6)


@pytest.mark.parametrize(
    ("bad", "options", "message"),
    [
        ({5: "300,abc,1,on"}, {}, r"line 7: column 'light': expected a number, got 'abc'"),
        ({5: "300,nan,1,on"}, {}, r"line 7: column 'light': expected a finite number"),
        ({5: "1,2,1,on"}, {}, r"line 7: the time is before that of the row above"),
        ({5: "noon,2,1,on"}, {}, r"line 7: column 'time': expected seconds or a date.*'noon'"),
        ({}, {"window": 30}, r"its val part has 10 rows, fewer than the window of 30"),
        ({}, {"time_column": "when"}, r"no column 'when' \(--time-column\)"),
        ({}, {"label_column": "state"}, r"no column 'state' \(--label-column\)"),
    ],
)
def test_bad_series(
    tmp_path: Path, bad: dict[int, str], options: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "s.csv", bad=bad)
    with pytest.raises(DataError, match=message) as raised:
        load_data(f"csv:{path}", **{"window": 10, **options})
    assert str(path) in str(raised.value)


def test_a_step_of_zero_is_a_step(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", bad={5: "239.0,5,2.5,on"})
    assert load_data(f"csv:{path}", window=10).splits["train"].timespans.min() == 0


def test_occupancy_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLTC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTLTC_OFFLINE", "1")
    with pytest.raises(DataError, match=r"occupancy\+detection.zip not found. Looked for"):
        load_data("occupancy", tmp_path)
    for name in ("datatraining.txt", "datatest.txt", "datatest2.txt"):
        (tmp_path / name).write_text("other")
    with pytest.raises(DataError, match=r"datatraining.txt: damaged or another version.*sha256"):
        load_data("occupancy", tmp_path)


@pytest.mark.parametrize("attack", ["other", "bomb", "link", "torn", "lacking"])
def test_an_archive_of_occupancy_that_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    """What is in it is compared before anything of it is written."""
    monkeypatch.setenv("FASTLTC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    archive = tmp_path / "data" / "occupancy+detection.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("datatraining.txt", "datatest.txt", "datatest2.txt")[attack == "lacking" :]:
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            if attack == "link":
                member.external_attr = 0o120777 << 16
            file.writestr(member, bytes(100 << 20) if attack == "bomb" else b"text")
    if attack == "torn":
        archive.write_bytes(archive.read_bytes()[:-30])
    tracemalloc.start()
    with pytest.raises(DataError, match=r"occupancy\+detection.zip: (damaged|not the archive)"):
        load_data("occupancy", tmp_path / "data")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 << 20
    assert not (tmp_path / "cache").exists()


def test_an_archive_of_occupancy_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = real_data("occupancy")
    monkeypatch.setenv("FASTLTC_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "occupancy+detection.zip", "w") as file:
        for path in real.iterdir():
            file.write(path, path.name)
    assert load_data("occupancy", tmp_path).kind == "series"
    names = {path.name for path in (tmp_path / "cache" / "occupancy").iterdir()}
    assert names == {"datatraining.txt", "datatest.txt", "datatest2.txt"}


def test_the_real_occupancy_is_split_without_leaks() -> None:
    data = load_data("occupancy", real_data("occupancy"))
    assert data.features == ("Temperature", "Humidity", "Light", "CO2", "HumidityRatio")
    assert data.time_unit == 60
    assert data.positive == 1
    judged = {name: (split.labels != IGNORED).sum() for name, split in data.splits.items()}
    assert judged["test"] == 2665 + 9752
    assert judged["val"] == 8143 - 6514
    train = data.splits["train"]
    assert train.timespans.min() >= 59 / 60
    assert train.timespans.max() <= 61 / 60 + 1e-6
    assert {name.split(":")[0].rsplit("/", 1)[1] for name in data.splits["test"].names} == {
        "datatest.txt",
        "datatest2.txt",
    }
