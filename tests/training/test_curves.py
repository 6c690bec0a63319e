from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from fastltc.training import curves
from fastltc.training.metrics import classification_metrics, quick_metrics


def test_precision_is_taken_where_the_recall_is_reached() -> None:
    """Public code takes the point of the curve just below the asked recall."""
    truth = np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)
    scores = np.linspace(0.9, 0.2, 8)
    # Three of four positives are found without a false one, the fourth behind one.
    precision, threshold, reached = curves.precision_at_recall(truth, scores, 0.8)
    assert (precision, reached) == (0.8, 1.0)
    assert (scores >= threshold).sum() == 5
    assert curves.precision_at_recall(truth, scores, 0.75)[0] == 1.0


@pytest.mark.parametrize("recall", [0.1, 0.5, 0.95, 0.999, 1.0])
def test_precision_at_recall_by_trying_all_thresholds(recall: float) -> None:
    rng = np.random.default_rng(int(1000 * recall))
    truth = rng.random(300) < 0.3
    scores = np.round(rng.random(300) + 0.3 * truth, 2)  # with ties
    best = 0.0
    for threshold in np.unique(scores):
        taken = scores >= threshold
        if (taken & truth).sum() / truth.sum() >= recall:
            best = max(best, (taken & truth).sum() / taken.sum())
    precision, threshold, reached = curves.precision_at_recall(truth, scores, recall)
    assert precision == pytest.approx(best)
    assert reached >= recall
    taken = scores >= threshold
    assert (taken & truth).sum() / taken.sum() == pytest.approx(best)


def test_quick_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    scores = np.round(rng.dirichlet(np.ones(3), 200) + 0.2 * np.eye(3)[labels], 1)
    scores /= scores.sum(1, keepdims=True)
    found = quick_metrics(labels, scores, 2)
    full = classification_metrics(labels, scores, "abc", 2)
    for name in ("auc", "accuracy", "f1", "average_precision"):
        assert found[name] == pytest.approx(full[name], abs=1e-12), name
    expected = average_precision_score(labels == 2, scores[:, 2])
    assert found["average_precision"] == pytest.approx(expected, abs=1e-12)


def test_auc_is_that_of_the_scores_as_they_are() -> None:
    """Public code rounds the outputs first, which makes it another number."""
    labels = np.array([0, 0, 1, 1])
    second = np.array([0.1, 0.3, 0.2, 0.4])
    scores = np.stack([1 - second, second], 1)
    assert classification_metrics(labels, scores, "ab")["auc"] == 0.75
    assert roc_auc_score(labels, second.round()) == 0.5


def test_calibration_of_honest_and_of_boastful_scores() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(40_000)
    truth = rng.random(40_000) < scores
    assert curves.calibration(truth, scores)["ece"] < 0.01
    boastful = np.where(scores > 0.5, 0.99, 0.01)
    assert curves.calibration(truth, boastful)["ece"] > 0.2
    assert sum(entry["n"] for entry in curves.calibration(truth, scores)["bins"]) == 40_000


def test_intervals_cover_what_they_say() -> None:
    """Of 60 samples of a known accuracy, about 95 % of the intervals have it in them."""
    rng = np.random.default_rng(0)
    covered = 0
    for sample in range(60):
        labels = np.arange(200) % 2
        right = rng.random(200) < 0.8
        second = np.where(right == (labels == 1), 0.9, 0.1)
        scores = np.stack([1 - second, second], 1)
        low, high = curves.bootstrap(
            labels, scores, lambda a, b: quick_metrics(a, b, None), resamples=200, seed=sample
        )["accuracy"]
        covered += low <= 0.8 <= high
    assert covered >= 51  # below which 1 in 2000 falls


def test_resamples_keep_the_classes() -> None:
    labels = np.array([0] * 5 + [1] * 95)
    for index in curves.resampled(labels, 20, 0):
        assert np.bincount(labels[index]).tolist() == [5, 95]


def test_the_curves_on_a_grid() -> None:
    truth = np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)
    points = curves.curve_points(truth, np.linspace(0.9, 0.2, 8))
    at = dict(zip(points["grid"].round(2), points["precision"], strict=True))
    assert (at[0.75], at[0.76], at[1.0]) == (1.0, 0.8, 0.8)
    assert points["tpr"][0] == 0.75
    bands = curves.curve_bands(truth.astype(int), np.stack([1 - truth, truth], 1) * 0.6 + 0.2, 1)
    assert (bands["tpr_low"] <= bands["tpr_high"]).all()


def test_a_recall_of_the_grid_is_reached_exactly() -> None:
    # Ten positives, each found after a negative more, so that every recall has its own precision.
    truth = np.tile([True, False], 10)
    points = curves.curve_points(truth, -np.arange(20.0))
    for found in range(1, 11):
        assert points["precision"][10 * found] == found / (2 * found - 1), found


def test_one_class_only_has_no_curve() -> None:
    found = curves.score_metrics(np.array([True, True]), np.array([0.2, 0.3]))
    assert found["average_precision"] is None
    assert found["precision_at_recall"] == []
