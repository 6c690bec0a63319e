"""Pictures of a training: losses and scores over the epochs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .figure import BLUE, GREY, ORANGE, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_curve(
    history: Sequence[Mapping[str, Any]],
    *,
    best_epoch: int | None = None,
    title: str = "",
    of: str = "",
) -> bytes:
    """Loss, and accuracy and AUC, over the epochs.

    Args:
        history: records with ``epoch``, ``train_loss``, ``val_loss``, ``train_accuracy``,
            ``val_accuracy`` and ``val_auc`` (which may be None).
        best_epoch: marked by a line.
        title: written above.
        of: the best checkpoint, written below and into the file.

    Returns:
        A PNG file.

    Example:
        >>> record = {"epoch": 1, "train_loss": 0.7, "val_loss": 0.6, "train_accuracy": 0.5,
        ...           "val_accuracy": 0.6, "val_auc": 0.7}
        >>> training_curve([record])[1:4]
        b'PNG'
    """
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    _curve(losses, epochs, history, "train_loss", "training", GREY)
    _curve(losses, epochs, history, "val_loss", "validation", BLUE)
    losses.set_ylim(bottom=0)
    losses.set_ylabel("cross-entropy")
    _curve(scores, epochs, history, "train_accuracy", "training accuracy", GREY)
    _curve(scores, epochs, history, "val_accuracy", "validation accuracy", BLUE)
    if all(record["val_auc"] is not None for record in history):
        _curve(scores, epochs, history, "val_auc", "validation AUC", ORANGE)
    scores.set_ylim(top=1.005)
    scores.set_ylabel("score")
    for axes in (losses, scores):
        if best_epoch is not None:
            axes.axvline(
                best_epoch, color="black", lw=0.8, ls=":", label=f"best checkpoint ({best_epoch})"
            )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    if title:
        figure.suptitle(textwrap.fill(title, 100), fontsize=11)
    return to_png(figure, of)


def _curve(
    axes: Axes,
    epochs: Sequence[int],
    history: Sequence[Mapping[str, Any]],
    key: str,
    label: str,
    color: str,
) -> None:
    marker = "o" if len(epochs) <= 30 else None
    values = [record[key] for record in history]
    axes.plot(epochs, values, color=color, lw=1.8, marker=marker, ms=3, label=label)
