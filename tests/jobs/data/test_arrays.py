from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastltc.jobs.data import DataError, load_data


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for split, size in (("train", 40), ("val", 10), ("test", 12)):
        made[f"{split}_images"] = rng.integers(0, 256, (size, 9, 7, 3)).astype(np.uint8)
        made[f"{split}_labels"] = (np.arange(size) % 3)[:, None]
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def load(tmp_path: Path, **options: Any) -> Any:
    np.savez(tmp_path / "some.npz", **arrays(**options))
    return load_data(f"npz:{tmp_path / 'some.npz'}")


def test_the_layout_of_medmnist(tmp_path: Path) -> None:
    data = load(tmp_path, classes=np.array(["low", "middle", "high"]))
    assert data.input_shape == (3, 9, 7)
    assert data.classes == ("low", "middle", "high")
    expected = np.moveaxis(arrays()["val_images"], -1, 1)
    np.testing.assert_array_equal(data.splits["val"].inputs, expected)


def test_the_layout_of_keras_takes_validation_from_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "k.npz",
        x_train=rng.random((100, 8, 8)),
        y_train=np.arange(100) % 2,
        x_test=rng.random((20, 8, 8)),
        y_test=np.arange(20) % 2,
    )
    data = load_data(f"npz:{tmp_path / 'k.npz'}")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [90, 10, 20]
    assert data.splits["train"].inputs.dtype == np.float32


def test_vectors_are_split_here(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", x=np.random.default_rng(0).random((50, 5)), y=np.arange(50) % 2)
    data = load_data(f"npz:{tmp_path / 'e.npz'}")
    assert (data.kind, data.input_shape) == ("vectors", (5,))


def test_sequences_with_time_steps(tmp_path: Path) -> None:
    made = {}
    for split in ("train", "val", "test"):
        made[f"x_{split}"] = np.zeros((6, 4, 2))
        made[f"y_{split}"] = np.tile(np.arange(4) % 2, (6, 1))
        made[f"{split}_timespans"] = np.ones((6, 4))
    np.savez(tmp_path / "s.npz", **made)
    data = load_data(f"npz:{tmp_path / 's.npz'}")
    assert (data.kind, data.input_shape) == ("series", (4, 2))
    assert data.splits["train"].timespans.shape == (6, 4)


def series(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made = {
        "x": rng.normal(size=(20, 4, 2)),
        "y": np.tile(np.arange(4) % 2, (20, 1)),
        "timespans": np.ones((20, 4)),
    }
    return {**made, **changes}


def test_whole_sequences_are_split_here(tmp_path: Path) -> None:
    made = series()
    np.savez(tmp_path / "s.npz", **made)
    data = load_data(f"npz:{tmp_path / 's.npz'}")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [14, 2, 4]
    assert data.remarks == ("split 70/10/20 here, whole sequences, not stratified, seed 0",)
    found = np.concatenate([split.inputs for split in data.splits.values()])
    assert set(found[:, 0, 0]) == set(made["x"].astype(np.float32)[:, 0, 0])


def test_validation_sequences_are_taken_from_training(tmp_path: Path) -> None:
    made = {f"{name}_train": series()[name] for name in "xy"}
    made |= {f"{name}_test": series()[name] for name in "xy"}
    made |= {f"{name}_timespans": series()["timespans"] for name in ("train", "test")}
    np.savez(tmp_path / "s.npz", **made)
    data = load_data(f"npz:{tmp_path / 's.npz'}")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [18, 2, 20]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (series(y=np.zeros((20, 4, 2), int)), r"y: expected integers of shape \(n, T\), a class "),
        (series(y=np.zeros((20, 3), int)), r"y: expected the shape \(n, T\) of x .*got \(20, 3\)"),
        (
            {"images": np.zeros((20, 8, 8), np.uint8), "labels": np.eye(2, dtype=int)[[0, 1] * 10]},
            r"labels: .*of shape \(20, 2\): one-hot labels; give the classes, labels.argmax\(1\)",
        ),
        (
            {"x": np.zeros((20, 5)), "y": np.eye(3, dtype=int)[[0, 1, 2, 0] * 5]},
            r"one-hot labels; give the classes, y.argmax\(1\)",
        ),
        (
            {"images": np.zeros((20, 8, 8), np.uint8), "labels": np.ones((20, 3), int)},
            "several labels of an example are read of MedMNIST sets only",
        ),
        (
            {"x": np.zeros((20, 4, 2)), "y": np.full((20, 4), 2)},
            "of a time series timespans is missing",
        ),
    ],
)
def test_labels_of_another_shape(tmp_path: Path, made: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "s.npz", **made)
    with pytest.raises(DataError, match=message):
        load_data(f"npz:{tmp_path / 's.npz'}")


def test_options_for_files_are_not_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", x=np.zeros((50, 5)), y=np.arange(50) % 2)
    name = f"npz:{tmp_path / 'e.npz'}"
    assert load_data(name, split_seed=3).remarks == ("split 70/10/20 here, stratified, seed 3",)
    for options in ({"group_column": "nope"}, {"image_size": 8}, {"window": 5}):
        flag = f"--{next(iter(options)).replace('_', '-')}"
        with pytest.raises(
            DataError,
            match=f"{flag} .*does not take.*: --split-seed, --target, --horizon$",
        ):
            load_data(name, **options)
        assert load_data(name, strict=False, **options).input_shape == (5,)


@pytest.mark.parametrize("name", ["digits", "mnist", "breastmnist", "occupancy"])
def test_options_for_files_are_not_taken_by_published_data(name: str) -> None:
    for options in ({"image_size": 8}, {"channels": 3}, {"split_seed": 1}, {"label_column": "y"}):
        flag = f"--{next(iter(options)).replace('_', '-')}"
        with pytest.raises(DataError, match=f"{flag} .*: {name} does not take this option"):
            load_data(name, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": None}, "array 'train_labels' is missing"),
        ({"test_images": None}, "array 'test_images' is missing"),
        ({"val_labels": np.zeros((10, 1))}, "val_labels: expected integers of shape"),
        ({"val_labels": np.zeros((9, 1), int)}, "val_images has 10 examples, val_labels has 9"),
        (
            {"val_labels": np.full((10, 1), -1)},
            "val_labels: expected classes from 0 .* got -1",
        ),
        ({"val_images": np.full((10, 9, 7, 3), 7.0)}, "expected uint8, or numbers in"),
        ({"val_images": np.zeros((10, 9, 7, 5), np.uint8)}, "expected images .n, H, W."),
        ({"val_images": np.zeros((10, 8, 8, 3), np.uint8)}, "the splits have different shapes"),
        ({"val_labels": np.zeros((10, 1), int)}, r"the val split has one class only \(0\)"),
        (
            {"classes": np.array(["a", "b", "a"])},
            "classes: expected different names, got 'a' twice",
        ),
        ({"classes": np.array(["only"])}, "classes: expected 3 names for the labels, got 1"),
        ({"val_labels": np.full((10, 1), None, object)}, "holds Python objects"),
    ],
)
def test_bad_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        load(tmp_path, **changes)
    assert "some.npz" in str(raised.value)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_labels_with_fractions_are_a_regression(tmp_path: Path, kind: type[np.floating]) -> None:
    labels = np.array([1, 0.5, np.nan, 2.25, 0.5, -3.75, 9.5], kind)
    # The inputs are wrong too: the labels come first.
    for shape in (labels, labels[:, None]):
        np.savez(tmp_path / "a.npz", x=np.full((1, 2), np.nan), y=shape)
        with pytest.raises(
            DataError,
            match=r"a\.npz: y: expected classes, got numbers such as 0\.5, 2\.25, -3\.75: that "
            "is a regression, of a time series by --target NAME",
        ):
            load_data(f"npz:{tmp_path / 'a.npz'}")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.npz: no such file"):
        load_data(f"npz:{tmp_path / 'x.npz'}")
    (tmp_path / "x.npz").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"x.npz: not a readable .npz file"):
        load_data(f"npz:{tmp_path / 'x.npz'}")
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(DataError, match=r"expected train_images.*the file has: a"):
        load_data(f"npz:{tmp_path / 'x.npz'}")
