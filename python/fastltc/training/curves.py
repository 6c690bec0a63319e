"""What a score of one class is judged by: ROC, precision and recall, calibration, intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECALLS = (0.95, 0.999)
RESAMPLES = 1000
LEVEL = 0.95
_BINS = 10
# Points at which curves are resampled.
GRID = 101


def precision_at_recall(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], recall: float
) -> tuple[float, float, float]:
    """The best precision among the thresholds that do reach a recall.

    The point of the curve just *below* the recall, which interpolation or an off-by-one takes,
    would count positives as found that are not.

    Args:
        truth: ``[n]``, whether each is positive; at least one is.
        scores: ``[n]``, larger is more positive.
        recall: that has to be reached, above 0 up to 1.

    Returns:
        Precision, the threshold that gives it (``score >= threshold`` is positive), and the recall
        at that threshold.

    Example:
        >>> truth, scores = np.array([True, False, True]), np.array([0.9, 0.6, 0.4])
        >>> precision_at_recall(truth, scores, 0.5), precision_at_recall(truth, scores, 0.51)[0]
        ((1.0, 0.9, 0.5), 0.6666666666666666)
    """
    from sklearn.metrics import precision_recall_curve

    precisions, recalls, thresholds = precision_recall_curve(truth, scores)
    # The last point of the curve, (1, 0), belongs to no threshold.
    reached = np.flatnonzero(recalls[:-1] >= recall)
    best = reached[np.argmax(precisions[reached])]
    return float(precisions[best]), float(thresholds[best]), float(recalls[best])


def score_metrics(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], recalls: Sequence[float] = RECALLS
) -> dict[str, Any]:
    """Metrics of the score of one class against the rest.

    Args:
        truth: ``[n]``, whether each is of the positive class.
        scores: ``[n]``, its probability.
        recalls: at which the precision is reported.

    Returns:
        ``average_precision``, ``precision_at_recall`` (a list), ``brier`` and ``calibration`` (the
        mean of score and truth in ten bins, and ``ece``, their mean absolute difference); None
        where all or none are positive.
    """
    from sklearn.metrics import average_precision_score, brier_score_loss

    if truth.all() or not truth.any():
        return {
            "average_precision": None,
            "precision_at_recall": [],
            "brier": None,
            "calibration": None,
        }
    at = []
    for recall in recalls:
        precision, threshold, reached = precision_at_recall(truth, scores, recall)
        at.append(
            {
                "recall": recall,
                "precision": precision,
                "threshold": threshold,
                "reached_recall": reached,
            }
        )
    return {
        "average_precision": float(average_precision_score(truth, scores)),
        "precision_at_recall": at,
        "brier": float(brier_score_loss(truth, scores)),
        "calibration": calibration(truth, scores),
    }


def calibration(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> dict[str, Any]:
    """How often the class is true at each level of its probability, in bins of equal width."""
    places = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    bins = []
    error = 0.0
    for place in range(_BINS):
        inside = places == place
        count = int(inside.sum())
        if not count:
            continue
        mean, share = float(scores[inside].mean()), float(truth[inside].mean())
        error += count / len(scores) * abs(mean - share)
        bins.append({"score": mean, "share": share, "n": count})
    return {"ece": error, "bins": bins}


def bootstrap(
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    measure: Callable[[NDArray[np.int64], NDArray[np.float64]], dict[str, float | None]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Percentile intervals of metrics by resampling the examples, class by class.

    The examples are taken as independent. Those of a time series are not, nor are several of one
    patient: their intervals are too narrow.

    Args:
        labels: ``[n]``.
        scores: ``[n, classes]``.
        measure: metrics of a resample; a value of None is left out.
        resamples: how many.
        seed: of the draws.

    Returns:
        The 95 % interval ``[low, high]`` of each metric.
    """
    values: dict[str, list[float]] = {}
    for index in resampled(labels, resamples, seed):
        for name, value in measure(labels[index], scores[index]).items():
            if value is not None:
                values.setdefault(name, []).append(value)
    tail = 50 * (1 - LEVEL)
    return {
        name: [float(value) for value in np.percentile(found, (tail, 100 - tail))]
        for name, found in values.items()
    }


def resampled(labels: NDArray[np.int64], count: int, seed: int) -> list[NDArray[np.int64]]:
    """Indices of resamples with replacement, each with as many of every class as there are."""
    rng = np.random.default_rng(seed)
    if labels.ndim == 2:  # of several labels there are no classes to keep
        return [rng.integers(0, len(labels), len(labels)) for _ in range(count)]
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return [
        np.concatenate([rng.choice(place, len(place)) for place in places]) for _ in range(count)
    ]


def curve_points(
    truth: NDArray[np.bool_], scores: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """ROC and precision-recall curves on a grid: ``tpr`` over false positives, ``precision`` over
    recall (the best that still reaches the recall)."""  # noqa: D205, D209
    from sklearn.metrics import precision_recall_curve, roc_curve

    # Divided as recalls are, so that 7 of 10 reach 0.7; linspace has 0.7000000000000001.
    grid = np.arange(GRID) / (GRID - 1)
    false, true, _ = roc_curve(truth, scores)
    precisions, recalls, _ = precision_recall_curve(truth, scores)
    best = np.maximum.accumulate(precisions)  # recalls fall along the curve
    reach = np.searchsorted(-recalls, -grid, side="right") - 1
    return {
        "grid": grid,
        "tpr": np.interp(grid, false, true),
        "precision": best[reach],
    }


def curve_bands(
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    positive: int,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """`curve_points` with ``tpr_low``, ``tpr_high``, ``precision_low`` and ``precision_high``."""
    if labels.ndim == 2:
        labels, score = labels[:, positive], scores[:, positive]
        scores, positive = np.stack([1 - score, score], axis=1), 1
    points = curve_points(labels == positive, scores[:, positive])
    drawn: dict[str, list[NDArray[np.float64]]] = {"tpr": [], "precision": []}
    for index in resampled(labels, resamples, seed):
        found = curve_points(labels[index] == positive, scores[index][:, positive])
        for name, values in drawn.items():
            values.append(found[name])
    tail = 50 * (1 - LEVEL)
    for name, values in drawn.items():
        points[f"{name}_low"], points[f"{name}_high"] = np.percentile(
            np.stack(values), (tail, 100 - tail), axis=0
        )
    return points
