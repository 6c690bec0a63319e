from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fastltc.jobs.data import DataError
from fastltc.jobs.data.partition import partition


def counts(labels: list[str], found: list[str]) -> dict[str, Counter[str]]:
    return {
        split: Counter(label for label, where in zip(labels, found, strict=True) if where == split)
        for split in ("train", "val", "test")
    }


def test_each_class_has_its_share_in_every_split() -> None:
    labels = ["a"] * 700 + ["b"] * 210 + ["c"] * 20
    found = counts(labels, partition(labels))
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        for kind, total in (("a", 700), ("b", 210), ("c", 20)):
            assert abs(found[split][kind] - share * total) <= 1


@pytest.mark.parametrize("size", [3, 4, 7, 11])
def test_small_classes_are_in_every_split(size: int) -> None:
    labels = ["many"] * 90 + ["few"] * size
    found = counts(labels, partition(labels))
    assert all(found[split]["few"] >= 1 for split in found)


def test_the_seed_decides() -> None:
    labels = ["a", "b"] * 50
    assert partition(labels, seed=1) == partition(labels, seed=1)
    assert partition(labels, seed=1) != partition(labels, seed=2)


def test_groups_stay_together_and_classes_keep_their_shares() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), rng.integers(1, 12, 300))
    kinds = rng.random(300) < 0.3
    labels = ["ill" if kinds[group] else "well" for group in groups]
    found = partition(labels, seed=3, groups=groups.tolist())
    for group in range(300):
        assert len({found[index] for index in np.flatnonzero(groups == group)}) == 1
    total = Counter(labels)
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        held = counts(labels, found)[split]
        for kind in total:
            assert held[kind] / total[kind] == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("none", ["", None])
def test_an_example_without_a_group_is_one_of_its_own(none: str | None) -> None:
    labels = ["ill", "well"] * 40
    groups = [none] * 40 + [f"p{index // 4}" for index in range(40)]
    found = partition(labels, groups=groups)
    assert Counter(found[:40]).keys() == {"train", "val", "test"}
    assert Counter(found) == pytest.approx({"train": 56, "val": 8, "test": 16}, abs=2)
    for start in range(40, 80, 4):
        assert len(set(found[start : start + 4])) == 1


def test_fixed_examples_stay_and_count() -> None:
    labels = ["a", "b"] * 100
    fixed: list[str | None] = ["test"] * 40 + [None] * 160
    found = partition(labels, fixed=fixed)
    assert found[:40] == ["test"] * 40
    assert Counter(found) == {"train": 140, "val": 20, "test": 40}


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["a"] * 9 + ["b"] * 2, {}, "class 'b' has 2 examples; at least 3"),
        (["a"] * 9 + ["b"] * 9, {"groups": [0] * 9 + [1, 2] * 4 + [1]}, "has 1 groups"),
        (["a", "b"] * 9, {"shares": (0.7, 0.2, 0.2)}, "shares: expected three numbers"),
        (["a", "b"] * 9, {"shares": (float("nan"), 0.5, 0.5)}, "shares: expected three numbers"),
        (["a", "b"] * 9, {"seed": -1}, "seed: expected a finite number from 0, got -1"),
        (["a", "b"] * 9, {"shares": (1.2, -0.2, 0.0)}, "shares: expected three numbers"),
    ],
)
def test_impossible_splits(labels: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        partition(labels, **options)
