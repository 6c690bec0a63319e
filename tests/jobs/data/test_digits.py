from __future__ import annotations

import numpy as np
import pytest

from fastltc.jobs.data import DataError, data_sets, load_data, normalise


def test_the_splits_hold_every_digit_once() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 1257,
        "val": 180,
        "test": 360,
    }
    found = np.concatenate([split.inputs for split in data.splits.values()]).reshape(-1, 64)
    embedded = load_digits().data / 16
    assert sorted(map(bytes, found)) == sorted(map(bytes, embedded.astype(np.float32)))


def test_the_splits_are_stratified() -> None:
    data = load_data("digits")
    shares = {
        name: np.bincount(split.labels, minlength=10) / len(split)
        for name, split in data.splits.items()
    }
    # Whole images: at most one off the exact share.
    assert np.abs(shares["val"] - shares["train"]).max() < 1 / 180
    assert np.abs(shares["test"] - shares["train"]).max() < 1 / 360


def test_the_split_is_the_same_each_time() -> None:
    first, second = load_data("digits"), load_data("digits")
    for name in first.splits:
        np.testing.assert_array_equal(first.splits[name].inputs, second.splits[name].inputs)


def test_shapes_and_ranges() -> None:
    data = load_data("digits")
    assert data.input_shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    assert data.positive is None
    for split in data.splits.values():
        assert split.inputs.dtype == np.float32
        assert split.labels.dtype == np.int64
        assert split.inputs.min() == 0.0
        assert split.inputs.max() == 1.0


def test_normalise_maps_to_minus_one_and_one() -> None:
    values = normalise(np.array([0.0, 0.5, 1.0], dtype=np.float32))
    assert values.tolist() == [-1.0, 0.0, 1.0]
    assert values.dtype == np.float32


def test_an_unknown_data_set_lists_the_known() -> None:
    assert {"digits", "mnist", "breastmnist", "folder:PATH"} <= set(data_sets())
    with pytest.raises(DataError, match=r"unknown data set 'digit'; known: digits, mnist, "):
        load_data("digit")
