"""Pictures of the scores of one class: ROC, precision over recall, calibration."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .figure import BLUE, GREY, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


def roc_curve(curves: Curves, *, title: str = "", of: str = "") -> bytes:
    """True over false positives, at every threshold, with the 95 % band of the bootstrap.

    Args:
        curves: of `fastltc.jobs.evaluation.curves.curves_of`.
        title: written above.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.
    """
    figure, axes = _square(title)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":", label="chance (AUC 0.5)")
    _band(axes, curves.roc_band, "post")
    label = f"AUC {_described(curves.auc)}"
    axes.plot(curves.false_rate, curves.true_rate, color=BLUE, lw=1.6, label=label)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    _legend(axes, "lower right")
    return to_png(figure, of)


def precision_recall(curves: Curves, *, title: str = "", of: str = "") -> bytes:
    """Precision over recall, at every threshold, with the 95 % band of the bootstrap.

    Args:
        curves: of `fastltc.jobs.evaluation.curves.curves_of`.
        title: written above.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.
    """
    figure, axes = _square(title)
    axes.axhline(
        curves.share,
        color=GREY,
        lw=1,
        ls=":",
        label=f"chance: the share of the class, {curves.share:.3f}",
    )
    _band(axes, curves.precision_band, "pre")
    label = f"average precision {_described(curves.average_precision)}"
    axes.plot(
        curves.true_rate, curves.precision, color=BLUE, lw=1.6, drawstyle="steps-pre", label=label
    )
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
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
    figure, axes = _square(title)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":", label="calibrated")
    scores = [entry["score"] for entry in measured["bins"]]
    shares = [entry["share"] for entry in measured["bins"]]
    counts = np.array([entry["n"] for entry in measured["bins"]], dtype=float)
    label = f"calibration error {measured['ece']:.3f}"
    axes.plot(scores, shares, color=BLUE, lw=1.4, label=label)
    sizes = 12 + 120 * counts / counts.max()
    label = f"a tenth of the range: {counts.min():.0f} to {counts.max():.0f} examples"
    axes.scatter(scores, shares, s=sizes, color=BLUE, zorder=3, label=label)
    axes.set_xlabel("mean probability")
    axes.set_ylabel("share of the class")
    axes.legend(loc="best", fontsize=8, framealpha=0.85)
    return to_png(figure, of)


def _square(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(textwrap.fill(title, 52), fontsize=10)
    return figure, axes
