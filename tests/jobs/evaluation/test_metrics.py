from __future__ import annotations

import json
import math

import numpy as np
import pytest

from fastltc.jobs import ConfigError, classification_metrics
from fastltc.jobs.evaluation.metrics import find_class

BREAST = ("malignant", "normal or benign")


def test_two_classes_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    second = np.array([0.2, 0.6, 0.7, 0.4, 0.9])
    metrics = classification_metrics(labels, np.stack([1 - second, second], 1), BREAST, 1)
    # Predicted: 0 1 1 0 1. Right: first, third, fifth.
    assert metrics["n"] == 5
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    # Of the six pairs (0, 1), only (0.6, 0.4) is in the wrong order.
    assert metrics["auc"] == pytest.approx(5 / 6)
    assert metrics["confusion_matrix"] == [[1, 1], [1, 2]]
    assert metrics["positive_class"] == {"label": 1, "name": "normal or benign"}
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert [entry["f1"] for entry in metrics["per_class"]] == pytest.approx([1 / 2, 2 / 3])
    assert metrics["f1_macro"] == pytest.approx(7 / 12)
    right = [0.8, 0.4, 0.7, 0.4, 0.9]
    assert metrics["loss"] == pytest.approx(-sum(map(math.log, right)) / 5)


def test_f1_is_of_the_class_that_is_named() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    second = np.array([0.2, 0.6, 0.7, 0.4, 0.9])
    scores = np.stack([1 - second, second], 1)
    metrics = classification_metrics(labels, scores, BREAST, 0)
    assert metrics["f1"] == pytest.approx(1 / 2)
    assert metrics["auc"] == pytest.approx(5 / 6)
    assert classification_metrics(labels, scores, BREAST)["f1"] is None


def test_many_classes() -> None:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(3), size=60)
    labels = np.arange(60) % 3
    metrics = classification_metrics(labels, scores, "abc")
    pairs = [
        np.mean(scores[labels == k, k][:, None] > scores[labels != k, k][None]) for k in range(3)
    ]
    assert metrics["auc"] == pytest.approx(np.mean(pairs))
    assert metrics["accuracy"] == pytest.approx(np.mean(scores.argmax(1) == labels))
    assert np.sum(metrics["confusion_matrix"]) == 60


def test_a_class_that_does_not_occur_has_no_auc() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    metrics = classification_metrics(np.array([0, 0]), scores, BREAST, 1)
    assert metrics["auc"] is None
    assert metrics["f1"] == 0.0
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("malignant", 0),
        ("MALIGNANT", 0),
        ("normal or benign", 1),
        ("benign", 1),
        ("1", 1),
        (0, 0),
        (None, None),
    ],
)
def test_classes_are_found_by_name_number_or_word(
    name: str | int | None, expected: int | None
) -> None:
    assert find_class(name, BREAST) == expected


@pytest.mark.parametrize("name", ["2", "-1", "ben", ""])
def test_an_unknown_class_lists_the_classes(name: str) -> None:
    with pytest.raises(ConfigError, match=r"the classes are: 0 = malignant, 1 = normal or benign"):
        find_class(name, BREAST)


def test_the_name_as_it_is_written_comes_first() -> None:
    assert [find_class(name, ("A", "a")) for name in ("A", "a")] == [0, 1]
    assert [find_class(name, ("1", "2")) for name in ("1", "2", "0")] == [0, 1, 0]
    assert find_class("Benign", ("normal or benign", "benign")) == 1


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("cell", ("red cell", "white cell")),
        ("KEY", ("Key", "key")),
        ("1", ("type 1", "type 2")),  # a word of the first, the number of the second
    ],
)
def test_a_class_that_fits_in_several_ways(name: str, classes: tuple[str, ...]) -> None:
    listed = f"0 = {classes[0]}, 1 = {classes[1]}"
    with pytest.raises(ConfigError, match=f"more than one class fits '{name}'; the .*: {listed}"):
        find_class(name, classes)
