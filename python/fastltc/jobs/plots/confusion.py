"""Pictures of what a classifier takes for what."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .figure import to_png, wrapped


def confusion_matrix(
    matrix: Sequence[Sequence[int]] | NDArray[np.int64],
    classes: Sequence[str],
    *,
    title: str = "",
    of: str = "",
) -> bytes:
    """A confusion matrix: counts, coloured by the share of the true class.

    Args:
        matrix: ``[classes, classes]``, rows are true, columns predicted.
        classes: class names.
        title: written above, followed by the accuracy.
        of: the checkpoint that has predicted, written below and into the file.

    Returns:
        A PNG file.

    Example:
        >>> confusion_matrix([[3, 1], [0, 4]], ["a", "b"])[1:4]
        b'PNG'
    """
    counts = np.asarray(matrix)
    n = len(classes)
    if counts.shape != (n, n):
        raise ValueError(f"matrix: expected shape {(n, n)} for {n} classes, got {counts.shape}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [wrapped(name) for name in classes]
    # Side by side there is little room for a name; on a slope there is.
    sloping = max(map(len, classes)) * n > 24
    # A letter of 10 points is about a twelfth of an inch wide.
    beside = max(len(line) for name in names for line in name.split("\n")) / 12
    side = 0.6 + max(2.0, 0.5 * n)
    width = side + beside + 1.8
    figure = Figure(
        figsize=(width, side + 1.4 + (0.75 * beside if sloping else 0)), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(n):
        for column in range(n):
            axes.text(
                column,
                row,
                f"{counts[row, column]}",
                ha="center",
                va="center",
                fontsize=14 if n <= 4 else 9,
                color="white" if shares[row, column] > 0.55 else "black",
                alpha=1.0 if counts[row, column] else 0.35,
            )
    axes.set_yticks(range(n), names)
    if sloping:
        slope: Any = {"rotation": 45, "ha": "right", "va": "top", "rotation_mode": "anchor"}
        axes.set_xticks(range(n), names, **slope)
    else:
        axes.set_xticks(range(n), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    correct = int(np.trace(counts))
    total = int(counts.sum())
    accuracy = f"{correct} of {total} right" + (f" ({correct / total:.1%})" if total else "")
    title = textwrap.fill(title, int(9.5 * width))
    figure.suptitle(f"{title}\n{accuracy}" if title else accuracy, fontsize=11)
    return to_png(figure, of)
