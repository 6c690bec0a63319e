"""Pictures of a run, as PNG: training curve, scores, confusion matrix, network, images.

Figures are made without pyplot, so no backend is chosen and no window state is shared with the
program that calls.
"""

from __future__ import annotations

from ...inspect.diagram import wiring_diagram
from ...inspect.graph import wiring_graph
from ...inspect.network import Network, Synapse
from .images import Picture, contact_sheet, leak_pairs, montage, wrong_images
from .runs import comparison, search, training_curve, training_curves
from .scores import (
    Band,
    Curves,
    Interval,
    calibration,
    confusion_matrix,
    precision_recall,
    roc_curve,
)
from .values import (
    Curve,
    error_by_step,
    residuals,
    truth_and_answers,
    truth_over_time,
    wrong_series,
)

__all__ = [
    "Band",
    "Curve",
    "Curves",
    "Interval",
    "Network",
    "Picture",
    "Synapse",
    "calibration",
    "comparison",
    "confusion_matrix",
    "contact_sheet",
    "error_by_step",
    "leak_pairs",
    "montage",
    "precision_recall",
    "residuals",
    "roc_curve",
    "search",
    "training_curve",
    "training_curves",
    "truth_and_answers",
    "truth_over_time",
    "wiring_diagram",
    "wiring_graph",
    "wrong_images",
    "wrong_series",
]
