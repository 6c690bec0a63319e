"""What a classifier is judged by: AUC, accuracy, F1 of a named class, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .curves import RECALLS, score_metrics
from .errors import ConfigError
from .multilabel import multilabel_metrics


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
) -> dict[str, Any]:
    """Metrics of predicted probabilities, by scikit-learn.

    The predicted class is the most probable one. AUC is the area under the ROC curve: of two
    classes as it is (the same whichever is called positive), of more the unweighted mean over the
    classes of one against the rest.

    Args:
        labels: ``[n]``, the true classes; for several labels ``[n, classes]`` of 0 and 1, see
            `fastltc.training.multilabel.multilabel_metrics`.
        probabilities: ``[n, classes]``, rows sum to 1.
        classes: class names.
        positive: the class that ``f1`` is about, None where none stands out.
        recalls: of the positive class, at which its precision is reported.

    Returns:
        Plain values, ready for JSON: ``n``, ``loss`` (cross-entropy), ``accuracy``, ``auc`` (None
        where a class does not occur), ``f1_macro``, ``positive_class``, ``f1`` (of the positive
        class; both None without one), the values of `fastltc.training.curves.score_metrics` for
        it, ``per_class`` and ``confusion_matrix`` (rows are true).

    Example:
        >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
        >>> metrics = classification_metrics(np.array([0, 1, 1]), scores, ["a", "b"], positive=1)
        >>> metrics["auc"], round(metrics["f1"], 3)
        (1.0, 0.667)
    """
    if labels.ndim == 2:
        return multilabel_metrics(labels, probabilities, classes, positive, recalls)
    from sklearn.metrics import (
        accuracy_score,
        confusion_matrix,
        log_loss,
        precision_recall_fscore_support,
    )

    indices = list(range(len(classes)))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, count = precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0.0
    )
    auc = area_under_roc(labels, probabilities)
    return {
        "n": len(labels),
        "loss": float(log_loss(labels, probabilities, labels=indices)),
        "accuracy": float(accuracy_score(labels, predicted)),
        "auc": auc,
        "f1_macro": float(np.mean(f1)),
        "positive_class": (
            None if positive is None else {"label": positive, "name": classes[positive]}
        ),
        "f1": None if positive is None else float(f1[positive]),
        **(
            {"average_precision": None}
            if positive is None
            else score_metrics(labels == positive, probabilities[:, positive], recalls)
        ),
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
        "confusion_matrix": confusion_matrix(labels, predicted, labels=indices).tolist(),
    }


def area_under_roc(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float | None:
    """The area under the ROC curve; None where a class does not occur.

    Args:
        labels: ``[n]``.
        probabilities: ``[n, classes]``, as they are: rounded ones would make it another number.
    """
    from sklearn.metrics import roc_auc_score

    indices = list(range(probabilities.shape[1]))
    if set(labels.tolist()) != set(indices):
        return None
    scores = probabilities[:, 1] if len(indices) == 2 else probabilities
    return float(roc_auc_score(labels, scores, multi_class="ovr", labels=indices))


def quick_metrics(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], positive: int | None
) -> dict[str, float | None]:
    """AUC, accuracy, F1 and average precision, quick enough for a thousand resamples."""
    if labels.ndim == 2:
        return _quick_multilabel(labels, probabilities, positive)
    predicted = probabilities.argmax(axis=1)
    found: dict[str, float | None] = {
        "auc": _auc_by_ranks(labels, probabilities),
        "accuracy": float((predicted == labels).mean()),
    }
    if positive is not None:
        truth, taken = labels == positive, predicted == positive
        both = int((truth & taken).sum())
        found["f1"] = 2 * both / max(int(truth.sum() + taken.sum()), 1)
        if truth.any():
            found["average_precision"] = _average_precision(truth, probabilities[:, positive])
    return found


def _quick_multilabel(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], positive: int | None
) -> dict[str, float | None]:
    predicted = probabilities >= 0.5
    two = np.stack([1 - probabilities, probabilities], axis=-1)
    areas = [_auc_by_ranks(labels[:, k], two[:, k]) for k in range(labels.shape[1])]
    known = [area for area in areas if area is not None]
    found: dict[str, float | None] = {
        "auc": float(np.mean(known)) if known else None,
        "accuracy": float((predicted == labels).mean()),
    }
    if positive is not None:
        of_class = quick_metrics(labels[:, positive], two[:, positive], 1)
        found |= {name: of_class[name] for name in ("f1", "average_precision") if name in of_class}
    return found


def _auc_by_ranks(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float | None:
    """`area_under_roc`, from the ranks of all classes at once."""
    from scipy.stats import rankdata

    hot = labels[:, None] == np.arange(probabilities.shape[1])
    counts = hot.sum(axis=0)
    if not counts.all():
        return None
    ranks = rankdata(probabilities, axis=0)
    above = (ranks * hot).sum(axis=0) - counts * (counts + 1) / 2
    return float((above / (counts * (len(labels) - counts))).mean())


def _average_precision(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Scikit-learn's average precision, without its checks."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    # Examples of equal score are found together.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    precision = hits[last] / (last + 1)
    return float((np.diff(hits[last], prepend=0) * precision).sum() / hits[-1])
