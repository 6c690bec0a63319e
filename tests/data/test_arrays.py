from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastltc.data import DataError, load_data


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": None}, "array 'train_labels' is missing"),
        ({"test_images": None}, "array 'test_images' is missing"),
        ({"val_labels": np.zeros((10, 1))}, "val_labels: expected integers of shape"),
        ({"val_labels": np.zeros((9, 1), int)}, "val_images has 10 examples, val_labels has 9"),
        ({"val_labels": np.full((10, 1), -1)}, "val_labels: expected classes from 0, got -1"),
        ({"val_images": np.full((10, 9, 7, 3), 7.0)}, "expected uint8, or numbers in"),
        ({"val_images": np.zeros((10, 9, 7, 5), np.uint8)}, "expected images .n, H, W."),
        ({"val_images": np.zeros((10, 8, 8, 3), np.uint8)}, "the splits have different shapes"),
        ({"val_labels": np.zeros((10, 1), int)}, r"the val split has one class only \(0\)"),
        ({"classes": np.array(["only"])}, "classes: expected 3 names for the labels, got 1"),
        ({"val_labels": np.full((10, 1), None, object)}, "Object arrays cannot be loaded"),
    ],
)
def test_bad_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        load(tmp_path, **changes)
    assert "some.npz" in str(raised.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.npz: no such file"):
        load_data(f"npz:{tmp_path / 'x.npz'}")
    (tmp_path / "x.npz").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"x.npz: not a readable .npz file"):
        load_data(f"npz:{tmp_path / 'x.npz'}")
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(DataError, match=r"expected train_images.*the file has: a"):
        load_data(f"npz:{tmp_path / 'x.npz'}")
