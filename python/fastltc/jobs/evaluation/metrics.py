"""What a classifier is judged by: AUC, accuracy, F1 of a named class, confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..defaults import RECALLS
from ..errors import ConfigError
from .curves import Ranking, areas, score_metrics, truth_of


def find_class(name: str | int | None, classes: Sequence[str]) -> int | None:
    """The index of a class given by its name, its number, or a word of its name.

    The name as it is written comes first, then the name in another case, then number and word.

    Args:
        name: ``"malignant"``, ``0``, ``"0"`` or ``"benign"`` (of ``"normal or benign"``), in any
            case; None stays None.
        classes: class names.

    Raises:
        ConfigError: no class, or more than one, fits; the text lists them.
    """
    if name is None:
        return None
    asked = str(name).strip()
    if asked in classes:
        return list(classes).index(asked)
    wanted = asked.lower()
    lowered = [known.lower() for known in classes]
    found = {index for index, known in enumerate(lowered) if known == wanted}
    if not found:
        found = {index for index, known in enumerate(lowered) if wanted in known.split()}
        if wanted.isdecimal() and int(wanted) < len(classes):
            found.add(int(wanted))
    if len(found) == 1:
        return found.pop()
    what = "more than one class fits" if found else "no class"
    listed = ", ".join(f"{index} = {known}" for index, known in enumerate(classes))
    raise ConfigError(f"positive: {what} {name!r}; the classes are: {listed}")


def classification_metrics(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    positive: int | None = None,
    recalls: Sequence[float] = RECALLS,
    *,
    ordered: bool = False,
) -> dict[str, Any]:
    """Metrics of predicted probabilities, by scikit-learn.

    The predicted class is the most probable one. AUC is the area under the ROC curve: of two
    classes as it is (the same whichever is called positive), of more the unweighted mean over the
    classes of one against the rest.

    Several labels per example are judged as MedMNIST counts them: a label is predicted from 0.5
    on, ``loss`` is the mean binary cross-entropy, ``accuracy`` the share of right decisions and
    ``auc`` the mean over the labels that are neither always nor never there.

    Args:
        labels: ``[n]``, the true classes; for several labels ``[n, classes]`` of 0 and 1.
        probabilities: ``[n, classes]``, rows sum to 1 but for several labels.
        classes: class names.
        positive: the class that ``f1`` is about, None where none stands out.
        recalls: of the positive class, at which its precision is reported.
        ordered: the classes are in order, so that a mistake is the worse the further it is off.

    Returns:
        Plain values, ready for JSON: ``n``, ``loss`` (cross-entropy), ``accuracy``, ``auc`` (None
        where a class does not occur), ``f1_macro``, ``positive_class``, ``f1`` (of the positive
        class; both None without one), the values of
        `fastltc.jobs.evaluation.curves.score_metrics` for it, ``kappa`` of ordered classes
        (Cohen's, with quadratic weights), ``per_class`` and ``confusion_matrix`` (rows are true;
        None for several labels).

    Example:
        >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
        >>> metrics = classification_metrics(np.array([0, 1, 1]), scores, ["a", "b"], positive=1)
        >>> metrics["auc"], round(metrics["f1"], 3)
        (1.0, 0.667)
    """
    from sklearn.metrics import (
        cohen_kappa_score,
        confusion_matrix,
        log_loss,
        precision_recall_fscore_support,
    )

    several = labels.ndim == 2
    indices = list(range(len(classes)))
    predicted = _predicted(probabilities, several=several)
    precision, recall, f1, count = precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0.0
    )
    named: dict[str, Any] = {"positive_class": None, "f1": None, "average_precision": None}
    if positive is not None:
        truth = truth_of(labels, positive)
        named = {
            "positive_class": {"label": positive, "name": classes[positive]},
            "f1": float(f1[positive]),
            **score_metrics(truth, probabilities[:, positive], recalls),
        }
    if ordered:
        kappa = cohen_kappa_score(labels, predicted, labels=indices, weights="quadratic")
        named["kappa"] = float(kappa) if np.isfinite(kappa) else None
    return {
        "n": len(labels),
        "loss": (
            _binary_cross_entropy(labels, probabilities)
            if several
            else float(log_loss(labels, probabilities, labels=indices))
        ),
        "accuracy": float((predicted == labels).mean()),
        "auc": area_under_roc(labels, probabilities),
        "f1_macro": float(np.mean(f1)),
        **named,
        "per_class": [
            {
                "label": index,
                "name": classes[index],
                "n": int(count[index]),
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
            }
            for index in indices
        ],
        "confusion_matrix": (
            None if several else confusion_matrix(labels, predicted, labels=indices).tolist()
        ),
    }


def _predicted(probabilities: NDArray[np.float64], *, several: bool) -> NDArray[np.int64]:
    return (probabilities >= 0.5).astype(np.int64) if several else probabilities.argmax(axis=1)


def _binary_cross_entropy(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    clipped = np.clip(probabilities, 1e-15, 1 - 1e-15)
    return float(np.where(labels == 1, -np.log(clipped), -np.log1p(-clipped)).mean())


def area_under_roc(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float | None:
    """The area under the ROC curve; None where a class does not occur.

    Args:
        labels: ``[n]``, or ``[n, classes]`` for several labels.
        probabilities: ``[n, classes]``, as they are: rounded ones would make it another number.
    """
    from sklearn.metrics import roc_auc_score

    return _mean_area(labels, probabilities, roc_auc_score)


def _mean_area(
    labels: NDArray[np.int64], scores: NDArray[np.float64], area: Callable[..., float]
) -> float | None:
    several, count = labels.ndim == 2, scores.shape[1]
    truths = [truth_of(labels, place) for place in range(count)]
    known = [place for place, truth in enumerate(truths) if 0 < truth.sum() < len(truth)]
    if not known or (len(known) < count and not several):
        return None
    # Of two classes both have the same.
    known = [1] if count == 2 and not several else known
    return float(np.mean([area(truths[place], scores[:, place]) for place in known]))


def quick_metrics(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], positive: int | None
) -> dict[str, float | None]:
    """AUC, accuracy, F1 and average precision, quick enough for a thousand resamples."""
    predicted = _predicted(probabilities, several=labels.ndim == 2)
    found: dict[str, float | None] = {
        "auc": _mean_area(labels, probabilities, lambda *of: areas(*Ranking(*of).curve())[0]),
        "accuracy": float((predicted == labels).mean()),
    }
    if positive is not None:
        truth, taken = truth_of(labels, positive), truth_of(predicted, positive)
        both = int((truth & taken).sum())
        found["f1"] = 2 * both / max(int(truth.sum() + taken.sum()), 1)
        if truth.any():
            curve = Ranking(truth, probabilities[:, positive]).curve()
            found["average_precision"] = areas(*curve)[1]
    return found
