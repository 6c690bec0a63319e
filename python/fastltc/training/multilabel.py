"""Metrics of several labels per example, as MedMNIST counts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .curves import RECALLS, score_metrics


def multilabel_metrics(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    positive: int | None = None,
    recalls: Sequence[float] = RECALLS,
) -> dict[str, Any]:
    """Metrics of predicted probabilities of each label; a label is predicted from 0.5 on.

    Args:
        labels: ``[n, classes]`` of 0 and 1.
        probabilities: ``[n, classes]``, each in ``[0, 1]``.
        classes: class names.
        positive: the class that ``f1`` and the precision at a recall are about, or None.
        recalls: at which that precision is reported.

    Returns:
        As `classification_metrics`: ``loss`` is the mean binary cross-entropy, ``accuracy`` the
        share of right decisions, ``auc`` the mean over the labels that are neither always nor
        never there (None without any), ``confusion_matrix`` None.
    """
    from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

    predicted = (probabilities >= 0.5).astype(np.int64)
    precision, recall, f1, count = precision_recall_fscore_support(
        labels, predicted, average=None, zero_division=0.0
    )
    areas = [
        float(roc_auc_score(labels[:, index], probabilities[:, index]))
        for index in range(len(classes))
        if 0 < labels[:, index].sum() < len(labels)
    ]
    clipped = np.clip(probabilities, 1e-15, 1 - 1e-15)
    losses = np.where(labels == 1, -np.log(clipped), -np.log1p(-clipped))
    return {
        "n": len(labels),
        "loss": float(losses.mean()),
        "accuracy": float((predicted == labels).mean()),
        "auc": float(np.mean(areas)) if areas else None,
        "f1_macro": float(np.mean(f1)),
        "positive_class": (
            None if positive is None else {"label": positive, "name": classes[positive]}
        ),
        "f1": None if positive is None else float(f1[positive]),
        **(
            {"average_precision": None}
            if positive is None
            else score_metrics(labels[:, positive] == 1, probabilities[:, positive], recalls)
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
            for index in range(len(classes))
        ],
        "confusion_matrix": None,
    }
