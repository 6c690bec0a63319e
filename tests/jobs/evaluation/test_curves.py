from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from fastltc.jobs.evaluation import curves
from fastltc.jobs.evaluation.metrics import classification_metrics, quick_metrics


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


def drawn(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(60) < 0.4).astype(np.int64)
    second = 0.5 + 0.1 * labels + 0.15 * rng.normal(size=60)
    second = np.clip(np.round(second, 1) if ties else second, 0, 1)
    return labels, np.stack([1 - second, second], axis=1)


@pytest.mark.parametrize("ties", [False, True])
def test_curves_have_every_threshold_and_the_areas_that_go_with_them(ties: bool) -> None:
    for seed in range(20):
        labels, scores = drawn(seed, ties)
        found = curves.curves_of(labels, scores, 1, resamples=0)
        false, true, _ = roc_curve(labels, scores[:, 1], drop_intermediate=False)
        np.testing.assert_array_equal(found.false_rate, false)
        np.testing.assert_array_equal(found.true_rate, true)
        precision, _, _ = precision_recall_curve(labels, scores[:, 1])
        np.testing.assert_array_equal(found.precision[:0:-1], precision[:-1])
        # What is drawn: lines from point to point, and steps back from each recall.
        area = auc(found.false_rate, found.true_rate)
        assert found.auc.value == pytest.approx(area, abs=1e-12)
        assert found.auc.value == pytest.approx(roc_auc_score(labels, scores[:, 1]), abs=1e-12)
        steps = (np.diff(found.true_rate) * found.precision[1:]).sum()
        assert found.average_precision.value == pytest.approx(steps, abs=1e-12)
        expected = average_precision_score(labels, scores[:, 1])
        assert found.average_precision.value == pytest.approx(expected, abs=1e-12)
        assert (found.auc.low, found.roc_band, found.share) == (None, None, labels.mean())


def test_without_ties_a_roc_curve_has_no_slope() -> None:
    found = curves.curves_of(*drawn(0, False), 1, resamples=0)
    assert ((np.diff(found.false_rate) == 0) ^ (np.diff(found.true_rate) == 0)).all()


def test_bands_are_those_of_the_resamples_at_the_rates_that_there_are() -> None:
    labels, scores = drawn(3, False)
    found = curves.curves_of(labels, scores, 1, resamples=50, seed=7)
    assert found.roc_band is not None
    assert found.precision_band is not None
    negative, positive = (labels == 0).sum(), (labels == 1).sum()
    np.testing.assert_array_equal(found.roc_band.at, np.arange(negative) / negative)
    np.testing.assert_array_equal(found.precision_band.at, np.arange(1, positive + 1) / positive)
    highest = np.empty((50, negative))
    reached = np.empty((50, positive))
    for number, index in enumerate(curves.resampled(labels, 50, 7)):
        truth, score = labels[index] == 1, scores[index, 1]
        taken = [score >= threshold for threshold in np.unique(score)[::-1]]
        false = np.array([0, *((chosen & ~truth).sum() for chosen in taken)])
        true = np.array([0, *((chosen & truth).sum() for chosen in taken)])
        for place in range(negative):
            highest[number, place] = true[false <= place].max() / positive
        for place in range(positive):
            first = np.flatnonzero(true > place)[0]
            reached[number, place] = true[first] / (true[first] + false[first])
    for band, values in ((found.roc_band, highest), (found.precision_band, reached)):
        low, high = np.percentile(values, (2.5, 97.5), axis=0)
        np.testing.assert_allclose(band.low, low, atol=1e-12)
        np.testing.assert_allclose(band.high, high, atol=1e-12)


@pytest.mark.parametrize("several", [False, True])
def test_intervals_of_the_areas_are_those_of_the_metrics(several: bool) -> None:
    labels, scores = drawn(1, True)
    if several:
        labels = np.stack([labels, labels], axis=1)
    # Of two labels AUC is the mean of both.
    same = scores[:, 1:].repeat(2, axis=1) if several else scores
    known = curves.bootstrap(labels, same, lambda a, b: quick_metrics(a, b, 1), resamples=100)
    found = curves.curves_of(labels, same, 1, resamples=100)
    for name in ("auc", "average_precision"):
        interval = getattr(found, name)
        assert [interval.low, interval.high] == pytest.approx(known[name], abs=1e-12)


def test_bands_of_many_examples_stay_small() -> None:
    rng = np.random.default_rng(0)
    labels, score = np.arange(40_001) % 2, rng.random(40_001)
    found = curves.curves_of(labels, np.stack([1 - score, score], 1), 1, resamples=2)
    assert found.roc_band is not None
    assert 500 < len(found.roc_band.at) <= 1000
    counts = found.roc_band.at * 20_001
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-6)


def test_one_class_only_has_no_curve() -> None:
    found = curves.score_metrics(np.array([True, True]), np.array([0.2, 0.3]))
    assert found["average_precision"] is None
    assert found["precision_at_recall"] == []
