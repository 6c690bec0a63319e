"""Sequences as arrays: values, lengths, what was measured; and folders that stay on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastltc.jobs.data import SPLITS, DataError, load_data

RNG = np.random.default_rng(0)


def made(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.random((30, 6, 2)),
        "y": rng.random((30, 6, 3)),
        "lengths": 1 + np.arange(30) % 6,
        "measured": rng.random((30, 6, 2)) < 0.5,
        **changes,
    }
    return {name: array for name, array in arrays.items() if array is not None}


def load(folder: Path, arrays: dict[str, Any], **options: Any) -> Any:
    np.savez(folder / "s.npz", **arrays)
    return load_data(f"npz:{folder / 's.npz'}", **options)


def test_values_of_each_step_without_times(tmp_path: Path) -> None:
    arrays = made(features=["a", "b"])
    data = load(tmp_path, arrays, target="p,q,r")
    assert (data.task, data.per_step, data.time_unit) == ("regression", True, 0)
    assert (data.features, data.targets) == (("a", "b"), ("p", "q", "r"))
    assert data.splits["test"].timespans is None
    for split in data.splits.values():
        for one, label, length, known in zip(
            split.inputs, split.labels, split.lengths, split.measured, strict=True
        ):
            place = int(np.abs(arrays["x"] - one).sum(axis=(1, 2)).argmin())
            np.testing.assert_array_equal(one, arrays["x"][place].astype(np.float32))
            np.testing.assert_array_equal(label, arrays["y"][place].astype(np.float32))
            assert length == arrays["lengths"][place]
            np.testing.assert_array_equal(known, arrays["measured"][place])


@pytest.mark.parametrize(
    ("changes", "options", "shape"),
    [
        ({"y": np.arange(30) % 3}, {}, ()),
        ({"y": np.arange(180).reshape(30, 6) % 3}, {}, (6,)),
        ({"y": np.arange(30.0)}, {"target": "v"}, (1,)),
        ({"y": RNG.random((30, 6))}, {"target": "v"}, (6, 1)),
        ({"y": RNG.random((30, 4))}, {"target": "v", "horizon": 4}, (4, 1)),
        (
            {"y": RNG.random((30, 4, 2)), "future": RNG.random((30, 4, 5))},
            {"target": "v,w", "horizon": 4},
            (4, 2),
        ),
    ],
)
def test_shapes_of_answers(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    data = load(tmp_path, made(**changes), **options)
    for part in data.splits.values():
        assert part.labels.shape[1:] == shape
    assert data.horizon == options.get("horizon", 0)
    if "future" in changes:
        assert data.splits["val"].future.shape == (3, 4, 5)
        assert data.known == tuple(f"known {place}" for place in range(5))


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"lengths": np.zeros(30)}, {"target": "p,q,r"}, r"lengths: expected 1 to 6, got 0 in pla"),
        ({"lengths": np.full(30, 7)}, {"target": "p,q,r"}, r"lengths: expected 1 to 6, got 7"),
        (
            {"lengths": np.full(30, np.nan)},
            {"target": "p,q,r"},
            r"lengths: .*, got nan",
        ),
        ({"lengths": np.ones(29)}, {"target": "p,q,r"}, r"lengths: expected the shape \(n,\) of x"),
        ({"measured": np.ones((30, 6))}, {"target": "p,q,r"}, r"measured: expected the shape"),
        ({"measured": np.full((30, 6, 2), 2)}, {"target": "p,q,r"}, r"measured: expected 0 and 1"),
        ({"y": RNG.random((30, 5, 3))}, {"target": "p,q,r"}, r"y: expected the 3 values of --targ"),
        ({}, {"target": "p"}, r"y: expected the 1 values of --target in the shape \(n, 6, 1\)"),
        ({"y": np.full((30, 6, 3), np.inf)}, {"target": "p,q,r"}, r"y: has infinite values"),
        ({"x": np.full((30, 6, 2), np.inf)}, {"target": "p,q,r"}, r"x: has infinite or NaN values"),
        ({"features": ["a", "a"]}, {"target": "p,q,r"}, r"features: expected 2 different names"),
        ({"y": np.ones((30, 6, 3))}, {"target": "p,q,r"}, r"'p' is 1 in all training rows"),
        ({}, {}, r"y: expected classes, got numbers such as .* --target NAME"),
        (
            {"lengths": None, "measured": None, "y": np.arange(30) % 2},
            {"target": "p"},
            r"--target p: .* has no time series, which has timespans or lengths beside x",
        ),
        (
            {"y": RNG.random((30, 4)), "future": np.ones((30, 5, 1))},
            {"target": "v", "horizon": 4},
            r"future: expected 4 rows \(--horizon\), got 5",
        ),
    ],
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, made(**changes), **options)


def test_a_folder_stays_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastltc.jobs.data import windows

    arrays = made(x=RNG.random((30, 6, 2)).astype(np.float32))
    whole = load(tmp_path, arrays, target="p,q,r")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    monkeypatch.setattr(windows, "IN_MEMORY", 100)
    data = load_data(f"npz:{folder}", target="p,q,r")
    for name in SPLITS:
        part = data.splits[name]
        assert isinstance(part.inputs, windows.Windows)
        assert isinstance(part.inputs.rows, np.memmap)
        np.testing.assert_array_equal(part.inputs, whole.splits[name].inputs)
        np.testing.assert_array_equal(part.measured, whole.splits[name].measured)
    with pytest.raises(DataError, match=r"folder with .npy files, found none"):
        load_data(f"npz:{tmp_path}")
