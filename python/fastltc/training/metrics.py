"""What a classifier is judged by: AUC, accuracy, F1 of a named class, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError


def find_class(name: str | int | None, classes: Sequence[str]) -> int | None:
    """The index of a class given by its name, its number, or a word of its name.

    Args:
        name: ``"malignant"``, ``0``, ``"0"`` or ``"benign"`` (of ``"normal or benign"``), in any
            case; None stays None.
        classes: class names.

    Raises:
        ConfigError: no class, or more than one, fits; the text lists them.
    """
    if name is None:
        return None
    wanted = str(name).strip().lower()
    lowered = [known.lower() for known in classes]
    if wanted in lowered:
        return lowered.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(classes):
        return int(wanted)
    by_word = [index for index, known in enumerate(lowered) if wanted in known.split()]
    if len(by_word) == 1:
        return by_word[0]
    listed = ", ".join(f"{index} = {known}" for index, known in enumerate(classes))
    raise ConfigError(f"positive: no class {name!r}; the classes are: {listed}")


def classification_metrics(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    positive: int | None = None,
) -> dict[str, Any]:
    """Metrics of predicted probabilities, by scikit-learn.

    The predicted class is the most probable one. AUC is the area under the ROC curve: of two
    classes as it is (the same whichever is called positive), of more the unweighted mean over the
    classes of one against the rest.

    Args:
        labels: ``[n]``, the true classes.
        probabilities: ``[n, classes]``, rows sum to 1.
        classes: class names.
        positive: the class that ``f1`` is about, None where none stands out.

    Returns:
        Plain values, ready for JSON: ``n``, ``loss`` (cross-entropy), ``accuracy``, ``auc`` (None
        where a class does not occur), ``f1_macro``, ``positive_class``, ``f1`` (of the positive
        class; both None without one), ``per_class`` and ``confusion_matrix`` (rows are true).

    Example:
        >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
        >>> metrics = classification_metrics(np.array([0, 1, 1]), scores, ["a", "b"], positive=1)
        >>> metrics["auc"], round(metrics["f1"], 3)
        (1.0, 0.667)
    """
    from sklearn.metrics import (
        accuracy_score,
        confusion_matrix,
        log_loss,
        precision_recall_fscore_support,
        roc_auc_score,
    )

    indices = list(range(len(classes)))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, count = precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0.0
    )
    auc = None
    if set(labels.tolist()) == set(indices):
        scores = probabilities[:, 1] if len(classes) == 2 else probabilities
        auc = float(roc_auc_score(labels, scores, multi_class="ovr", labels=indices))
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
