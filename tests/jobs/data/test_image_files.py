from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastltc.jobs.data import DataError, load_data
from job_support import real_data, write_images


def test_a_folder_of_classes_is_split_here(tmp_path: Path) -> None:
    write_images(tmp_path, {"cat": 20, "dog": 30})
    data = load_data(f"folder:{tmp_path}")
    assert data.classes == ("cat", "dog")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 35,
        "val": 5,
        "test": 10,
    }
    assert data.input_shape == (1, 8, 8)
    assert "split 70/10/20 here" in data.remarks[0]
    names = [name for split in data.splits.values() for name in split.names]
    assert len(set(names)) == 50
    for split in data.splits.values():
        for name, pixels, label in zip(split.names, split.inputs, split.labels, strict=True):
            assert Path(name).parent.name == data.classes[label]
            np.testing.assert_array_equal(pixels[0], np.asarray(Image.open(name)))


def test_splits_in_folders_are_kept(tmp_path: Path) -> None:
    write_images(tmp_path / "Train", {"a": 20, "b": 20})
    write_images(tmp_path / "valid", {"a": 3, "b": 3})
    write_images(tmp_path / "test", {"a": 4, "b": 4})
    data = load_data(f"folder:{tmp_path}")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [40, 6, 8]
    assert all("/test/" in name for name in data.splits["test"].names)


def test_without_validation_it_is_taken_from_the_training_images(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"a": 20, "b": 20})
    write_images(tmp_path / "test", {"a": 4, "b": 4})
    data = load_data(f"folder:{tmp_path}")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [36, 4, 8]
    assert "validation: 10 % of the training images" in data.remarks[0]


def test_colour_and_sizes(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 10, "b": 10})
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "a" / "red.jpg")
    red, grey = tmp_path / "a" / "red.jpg", tmp_path / "a" / "0.png"
    with pytest.raises(DataError, match=f"channels: {grey} is grey and {red} in colour"):
        load_data(f"folder:{tmp_path}")
    data = load_data(f"folder:{tmp_path}", channels=3)
    assert data.input_shape == (3, 64, 64)
    assert any("images of 2 sizes" in remark for remark in data.remarks)
    small = load_data(f"folder:{tmp_path}", image_size=12, channels=1)
    assert small.input_shape == (1, 12, 12)


def test_csv_with_splits(tmp_path: Path) -> None:
    write_images(tmp_path / "images", {"a": 9, "b": 9})
    rows = ["Filename,Target,Subset"]
    for index in range(18):
        kind = "ab"[index % 2]
        split = ("train", "train", "val", "test")[(index // 2) % 4]
        rows.append(f"images/{kind}/{index // 2}.png,{kind},{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    data = load_data(f"csv:{tmp_path / 'list.csv'}")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [10, 4, 4]
    assert data.splits["test"].names[0].endswith("images/a/3.png")


def test_csv_files_of_each_split_and_a_group_column(tmp_path: Path) -> None:
    write_images(tmp_path / "images", {"a": 60, "b": 60})
    rows = ["file;label;patient"] + [
        f"images/{kind}/{index}.png;{kind};{kind}{index // 3}"
        for kind in "ab"
        for index in range(60)
    ]
    (tmp_path / "all.csv").write_text("\n".join(rows))
    data = load_data(f"csv:{tmp_path / 'all.csv'}", group_column="patient")
    patients = {
        split: {(Path(n).parent.name, int(Path(n).stem) // 3) for n in data.splits[split].names}
        for split in data.splits
    }
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["val"]
    assert not patients["val"] & patients["test"]


def test_the_groups_of_a_split_are_used(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 60, "b": 60})
    for split, start, stop in (("train", 0, 48), ("test", 48, 60)):
        rows = [
            f"{kind}/{i}.png,{kind},{kind}{i // 4}" for kind in "ab" for i in range(start, stop)
        ]
        (tmp_path / f"{split}.csv").write_text("\n".join(["filename,label,group", *rows]))
    data = load_data(f"csv:{tmp_path}")
    groups = {
        split: {(Path(n).parent.name, int(Path(n).stem) // 4) for n in data.splits[split].names}
        for split in data.splits
    }
    assert len(groups["val"]) > 1
    assert not groups["train"] & groups["val"]
    table = tmp_path / "test.csv"
    table.write_text(table.read_text().replace("a12", "a0"))
    assert any("LEAK: group a0" in remark for remark in load_data(f"csv:{tmp_path}").remarks)


def test_an_empty_group_is_none(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 20, "b": 20})
    rows = [f"{kind}/{index}.png,{kind}," for kind in "ab" for index in range(20)]
    (tmp_path / "all.csv").write_text("\n".join(["file,label,patient", *rows]))
    data = load_data(f"csv:{tmp_path / 'all.csv'}", group_column="patient")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [28, 4, 8]


def test_options_that_a_folder_does_not_take(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 9, "b": 9})
    with pytest.raises(DataError, match=r"--group-column patient: folder:.* does not take this op"):
        load_data(f"folder:{tmp_path}", group_column="patient")
    with pytest.raises(DataError, match=r"--window 8: .*it takes: --image-size, --channels, --sp"):
        load_data(f"folder:{tmp_path}", window=8)
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("file,label\na/1.png,a\nb/1.png,b\n")
    with pytest.raises(DataError, match=r"--split-column label: csv:.* does not take this option"):
        load_data(f"csv:{tmp_path}", split_column="label")


def test_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 9, "b": 9})
    write_images(tmp_path / "a", {".thumbnails": 3, "more": 2})
    (tmp_path / "b" / "._0.png").write_bytes((tmp_path / "b" / "0.png").read_bytes())
    data = load_data(f"folder:{tmp_path}")
    names = [name for split in data.splits.values() for name in split.names]
    assert len(names) == 20
    assert not any("/." in name for name in names)


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 9, "b": 9})
    try:
        (tmp_path / "a" / "1.png").rename(tmp_path / "a" / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(
        DataError, match=r"caf.xe9.png: the name of this file is not UTF-8"
    ) as raised:
        load_data(f"folder:{tmp_path}")
    str(raised.value).encode()


def test_images_may_lie_in_the_data_root(tmp_path: Path) -> None:
    write_images(tmp_path / "images", {"a": 9, "b": 9})
    lines = [f"{kind}/{index}.png,{kind}" for kind in "ab" for index in range(9)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    assert load_data(f"csv:{tmp_path / 'list.csv'}", tmp_path / "images").classes == ("a", "b")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "expected a header and at least one row"),
        ("file,kind\na,b\n", {}, r"no column with the classes.*got file, kind; .*--label-column"),
        ("picture,label\na,b\n", {}, r"no column with the names of the images.*--file-column"),
        ("file,label\na,b\n", {"label_column": "y"}, r"no column 'y' \(--label-column\); it has"),
        ("file,label\na\n", {}, r"line 2: expected 2 cells as in the header, got 1"),
        ("file,label\na,\n", {}, r"line 2: column 'label' is empty"),
        ("file,label,split\na,b,exam\n", {}, r"line 2: column 'split': expected train.*'exam'"),
        ("file,label,split\na,b,train\n", {}, "has splits but no test images"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, options: dict[str, str], message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        load_data(f"csv:{path}", **options)
    assert str(path) in str(raised.value)


def test_a_table_of_numbers_with_fractions_is_a_regression(tmp_path: Path) -> None:
    # None of the images is there.
    rows = ["file,age", *(f"{index}.png,{index / 4}" for index in range(30))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"t\.csv: column 'age': .* 0\.25, 0\.5, 0\.75: that is a"):
        load_data(f"csv:{tmp_path / 't.csv'}", label_column="age")


def test_a_missing_and_a_corrupt_image_are_named(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 9, "b": 9})
    bad = tmp_path / "a" / "3.png"
    content = bad.read_bytes()
    bad.write_bytes(content[:40])
    with pytest.raises(DataError, match=r"a/3.png: "):
        load_data(f"folder:{tmp_path}")
    bad.write_bytes(b"text")
    with pytest.raises(DataError, match=r"a/3.png: not an image"):
        load_data(f"folder:{tmp_path}")
    (tmp_path / "list.csv").write_text("file,label\nb/1.png,b\nb/99.png,a\n")
    with pytest.raises(DataError, match=r"has 1 examples"):
        load_data(f"csv:{tmp_path / 'list.csv'}")


def test_an_empty_class_and_other_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder with a folder per class, got nothing"):
        load_data(f"folder:{tmp_path / 'absent'}")
    with pytest.raises(DataError, match="expected a folder per class, found none"):
        load_data(f"folder:{tmp_path}")
    write_images(tmp_path, {"a": 9})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="class 'b' is empty"):
        load_data(f"folder:{tmp_path}")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="holds splits and something else: a, b"):
        load_data(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="expected folder:PATH"):
        load_data("folder:")


def test_one_class_only(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"a": 12, "b": 12})
    write_images(tmp_path / "test", {"a": 4})
    with pytest.raises(DataError, match=r"the test split has one class only \(a\)"):
        load_data(f"folder:{tmp_path}")


def test_the_real_lesion_photographs() -> None:
    root = real_data("ham10000")
    data = load_data(f"folder:{root}", image_size=16)
    assert data.classes == ("Benign", "Malignant")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [216, 24, 80]
    assert data.input_shape == (3, 16, 16)
