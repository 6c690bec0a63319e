from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from fastltc.jobs.data import DataError, load_data, mnist
from job_support import real_data

SHAPES = {
    "train_images": (600, 28, 28),
    "train_labels": (600,),
    "test_images": (100, 28, 28),
    "test_labels": (100,),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, np.ndarray]:
    """A small MNIST that takes the place of the published one."""
    monkeypatch.setenv("FASTLTC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTLTC_OFFLINE", "1")
    rng = np.random.default_rng(0)
    arrays, files = {}, {}
    for kind, shape in SHAPES.items():
        name, md5, _, _ = mnist._FILES[kind]
        values = rng.integers(0, 256, shape) if len(shape) == 3 else np.arange(shape[0]) % 10
        arrays[kind] = values.astype(np.uint8)
        content = mnist._idx_header(shape) + arrays[kind].tobytes()
        files[kind] = (name, md5, hashlib.sha256(content).hexdigest(), shape)
    monkeypatch.setattr(mnist, "_FILES", files)
    return arrays


def write_idx(folder: Path, arrays: dict[str, np.ndarray], packed: bool) -> None:
    for kind, values in arrays.items():
        content = mnist._idx_header(values.shape) + values.tobytes()
        name = mnist._FILES[kind][0]
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files(tmp_path: Path, small: dict[str, np.ndarray], packed: bool) -> None:
    write_idx(tmp_path, small, packed)
    data = load_data("mnist", tmp_path)
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [540, 60, 100]
    assert np.bincount(data.splits["val"].labels).tolist() == [6] * 10
    np.testing.assert_array_equal(data.splits["test"].inputs[:, 0], small["test_images"])
    both = np.concatenate([data.splits[name].inputs[:, 0] for name in ("train", "val")])
    assert sorted(map(bytes, both)) == sorted(map(bytes, small["train_images"]))


def test_an_npz_is_the_same(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    write_idx(tmp_path, small, True)
    first = load_data("mnist", tmp_path)
    path = tmp_path / "other" / "mnist.npz"
    path.parent.mkdir()
    np.savez(path, **{mnist._NPZ_KEYS[kind]: values for kind, values in small.items()})
    for root in (path, path.parent):
        second = load_data("mnist", root)
        for name in first.splits:
            np.testing.assert_array_equal(first.splits[name].inputs, second.splits[name].inputs)
            np.testing.assert_array_equal(first.splits[name].labels, second.splits[name].labels)


def test_damaged_files(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    write_idx(tmp_path, small, True)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz: unreadable or damaged"):
        load_data("mnist", tmp_path)
    path.write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match=r"damaged or another version.*t10k-labels-idx1-ubyte"):
        load_data("mnist", tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz not found. Looked for") as text:
        load_data("mnist", tmp_path)
    assert str(tmp_path / "cache") in str(text.value)


def test_a_damaged_npz(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    arrays = {mnist._NPZ_KEYS[kind]: values.copy() for kind, values in small.items()}
    arrays["x_test"][3, 4, 5] ^= 1
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(DataError, match=r"mnist.npz: damaged or another version.*t10k-images"):
        load_data("mnist", tmp_path)
    arrays["x_test"][3, 4, 5] ^= 1
    del arrays["y_test"]
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(DataError, match="array 'y_test' is missing"):
        load_data("mnist", tmp_path)


def test_the_real_files() -> None:
    data = load_data("mnist", real_data("mnist"))
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [54000, 6000, 10000]
    assert np.bincount(data.splits["test"].labels)[1] == 1135
