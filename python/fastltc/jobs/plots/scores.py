"""Pictures of an evaluation: confusion matrix, and of one class ROC, precision and calibration."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .figure import BLUE, GREY, to_png, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The line that says nothing.
_CHANCE: Any = {"color": GREY, "lw": 1, "ls": ":"}


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval of the bootstrap; without resamples there is none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Band:
    """Bounds of a curve at exact places: 95 % of the resamples are between, at each by itself."""

    at: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """ROC and precision-recall curve of one class against the rest: every threshold is a point.

    Args:
        false_rate: ``[k + 1]``, false positives over negatives, from 0 to 1.
        true_rate: ``[k + 1]``, true positives over positives: the recall, from 0 to 1. A straight
            line from point to point is the ROC curve: steps, and where examples of both classes
            have equal scores a slope, as the area has it (the Mann-Whitney statistic).
        precision: ``[k + 1]``, at each threshold. The precision-recall curve is made of steps:
            from one recall up to the next the precision is that of the next, as average precision
            has it. (The first is that of the second, at recall 0.)
        auc: the area under the ROC curve.
        average_precision: the area under the steps.
        share: of the positive class.
        roc_band: of the true positive rate, at false positive rates.
        precision_band: of the precision, at recalls above 0, each reached for the first time.
    """

    false_rate: NDArray[np.float64]
    true_rate: NDArray[np.float64]
    precision: NDArray[np.float64]
    auc: Interval
    average_precision: Interval
    share: float
    roc_band: Band | None = None
    precision_band: Band | None = None


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
    middle: Any = {"ha": "center", "va": "center", "fontsize": 14 if n <= 4 else 9}
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{count}", color=color, alpha=1.0 if count else 0.35, **middle)
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


def roc_curve(curves: Curves, *, title: str = "", of: str = "") -> bytes:
    """True over false positives, at every threshold, with the 95 % band of the bootstrap.

    Args:
        curves: of `fastltc.jobs.evaluation.curves.curves_of`.
        title: written above.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.
    """
    figure, axes = _square(title, "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], label="chance (AUC 0.5)", **_CHANCE)
    _band(axes, curves.roc_band, "post")
    label = f"AUC {_described(curves.auc)}"
    axes.plot(curves.false_rate, curves.true_rate, color=BLUE, lw=1.6, label=label)
    _legend(axes, "lower right")
    return to_png(figure, of)


def precision_recall(curves: Curves, *, title: str = "", of: str = "") -> bytes:
    """Precision over recall, at every threshold, with the 95 % band of the bootstrap.

    The arguments are those of `roc_curve`.

    Returns:
        A PNG file.
    """
    figure, axes = _square(title, "recall", "precision")
    label = f"chance: the share of the class, {curves.share:.3f}"
    axes.axhline(curves.share, label=label, **_CHANCE)
    _band(axes, curves.precision_band, "pre")
    label = f"average precision {_described(curves.average_precision)}"
    axes.plot(
        curves.true_rate, curves.precision, color=BLUE, lw=1.6, drawstyle="steps-pre", label=label
    )
    _legend(axes, "best")
    return to_png(figure, of)


def _described(found: Interval) -> str:
    between = "" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{between}"


def _band(axes: Axes, band: Band | None, step: Any) -> None:
    if band is None:
        return
    at, low, high = band.at, band.low, band.high
    # Up to the borders, where a step begins or ends.
    place, end = (len(at), 1.0) if step == "post" else (0, 0.0)
    at = np.insert(at, place, end)
    low, high = (np.insert(bound, place, bound[place - (place > 0)]) for bound in (low, high))
    label = "95 % of the bootstrap, at each place"
    axes.fill_between(at, low, high, step=step, color=BLUE, alpha=0.2, lw=0, label=label)


def _legend(axes: Axes, place: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    # The curve first.
    axes.legend(handles[::-1], labels[::-1], loc=place, fontsize=8, framealpha=0.85)


def calibration(measured: Mapping[str, Any], *, title: str = "", of: str = "") -> bytes:
    """How often the class is true at each level of its probability.

    Args:
        measured: ``bins`` with ``score``, ``share`` and ``n``, and ``ece``.
        title: written above.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.
    """
    figure, axes = _square(title, "mean probability", "share of the class")
    axes.plot([0, 1], [0, 1], label="calibrated", **_CHANCE)
    bins = [(entry["score"], entry["share"], entry["n"]) for entry in measured["bins"]]
    scores, shares, counts = np.array(bins, dtype=float).T
    label = f"calibration error {measured['ece']:.3f}"
    axes.plot(scores, shares, color=BLUE, lw=1.4, label=label)
    sizes = 12 + 120 * counts / counts.max()
    label = f"a tenth of the range: {counts.min():.0f} to {counts.max():.0f} examples"
    axes.scatter(scores, shares, s=sizes, color=BLUE, zorder=3, label=label)
    axes.legend(loc="best", fontsize=8, framealpha=0.85)
    return to_png(figure, of)


def _square(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(textwrap.fill(title, 52), fontsize=10)
    return figure, axes
