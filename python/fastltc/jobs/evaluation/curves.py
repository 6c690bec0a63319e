"""What a score of one class is judged by: ROC, precision and recall, calibration, intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..defaults import RECALLS, RESAMPLES

if TYPE_CHECKING:
    from ..plots import Curves

LEVEL = 0.95
_BINS = 10
_Array = NDArray[np.float64]
# Places at most at which bands of curves are computed, finer than a picture can show.
_MOST = 1000


class Ranking:
    """Examples from the largest score on; one threshold takes those of equal score together.

    Args:
        truth: ``[n]``, whether each is positive.
        scores: ``[n]``, larger is more positive.
    """

    def __init__(self, truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> None:
        self.order = np.argsort(-scores, kind="stable")
        self.truth = truth[self.order]
        # The last of each group of equal scores.
        self.last = np.append(np.flatnonzero(np.diff(scores[self.order])), len(scores) - 1)

    def curve(self, weights: NDArray[np.int64] | None = None) -> tuple[_Array, _Array, _Array]:
        """False and true positive rate and precision at each threshold, and before the first."""
        weights = np.ones(len(self.truth), np.int64) if weights is None else weights[self.order]
        true = np.cumsum(weights * self.truth)[self.last]
        false = np.cumsum(weights)[self.last] - true
        precision = true / np.maximum(true + false, 1)
        false_rate, true_rate = (
            np.append(0.0, count / np.maximum(count[-1], 1)) for count in (false, true)
        )
        return false_rate, true_rate, np.append(precision[0], precision)


def areas(false: _Array, true: _Array, precision: _Array) -> tuple[float, float]:
    """The area under the ROC curve, and the average precision, of `Ranking.curve`."""
    return (
        float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum()),
        float((np.diff(true) * precision[1:]).sum()),
    )


def truth_of(labels: NDArray[np.int64], place: int) -> NDArray[np.bool_]:
    """Which of ``labels`` ``[n]``, or ``[n, classes]`` of several, have a class: ``[n]``."""
    return labels[:, place] == 1 if labels.ndim == 2 else labels == place


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
        names = ("average_precision", "precision_at_recall", "brier", "calibration")
        return {**dict.fromkeys(names), "precision_at_recall": []}
    found = ("precision", "threshold", "reached_recall")
    return {
        "average_precision": float(average_precision_score(truth, scores)),
        "precision_at_recall": [
            {
                "recall": recall,
                **dict(zip(found, precision_at_recall(truth, scores, recall), strict=True)),
            }
            for recall in recalls
        ],
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


def resampled(labels: NDArray[np.int64], count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Indices of resamples with replacement, each with as many of every class as there are."""
    rng = np.random.default_rng(seed)
    if labels.ndim == 2:  # of several labels there are no classes to keep
        yield from (rng.integers(0, len(labels), len(labels)) for _ in range(count))
        return
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(count):
        yield np.concatenate([rng.choice(place, len(place)) for place in places])


def curves_of(
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    positive: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Curves:
    """The curves of one class, with bands and intervals by `bootstrap`'s resamples.

    Args:
        labels: ``[n]``, or ``[n, classes]`` of several labels; some are positive, and some not.
        scores: ``[n, classes]``.
        positive: the class.
        resamples: how many; 0 for neither bands nor intervals.
        seed: of the draws.
    """
    from ..plots import Band, Curves, Interval

    truth = truth_of(labels, positive)
    ranking = Ranking(truth, scores[:, positive])
    own = ranking.curve()
    auc, average = areas(*own)
    rates, recalls = _multiples(int((~truth).sum()))[:-1], _multiples(int(truth.sum()))[1:]
    drawn: list[tuple[Any, ...]] = []
    for index in resampled(labels, resamples, seed):
        weights = np.bincount(index, minlength=len(truth))
        if not 0 < weights[truth].sum() < len(index):
            continue  # of several labels, where a draw may miss one
        false, true, precision = ranking.curve(weights)
        # On a vertical step the upper end.
        at = np.interp(rates, false, true), precision[np.searchsorted(true, recalls)]
        drawn.append((*areas(false, true, precision), *at))
    if not drawn:
        return Curves(*own, Interval(auc), Interval(average), float(truth.mean()))
    tail = 50 * (1 - LEVEL)
    bounds = [
        np.percentile(np.stack(found), (tail, 100 - tail), axis=0)
        for found in zip(*drawn, strict=True)
    ]
    return Curves(
        *own,
        Interval(auc, *map(float, bounds[0])),
        Interval(average, *map(float, bounds[1])),
        float(truth.mean()),
        Band(rates, *bounds[2]),
        Band(recalls, *bounds[3]),
    )


def _multiples(count: int) -> NDArray[np.float64]:
    """The shares that ``count`` examples can have, from 0 to 1; of very many some of them."""
    return np.unique(np.linspace(0, count, min(count, _MOST) + 1).round()) / count
