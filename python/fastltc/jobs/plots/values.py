"""Pictures of predicted values: against the truth, what is left over, and the error by step."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ...inspect.figure import BLUE, GREY, INK, ORANGE, shortened, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Array = NDArray[np.float64]
# Targets that a picture has room for.
_MOST_TARGETS = 4


@dataclass(frozen=True)
class Curve:
    """Values of one target over time; NaN is a gap, which no line crosses.

    Args:
        name: written above.
        target: what the values are of.
        times: ``[m]``.
        truth: ``[m]``.
        answers: ``[m]``.
        low: ``[m]``, the lowest quantile; None without.
        high: ``[m]``, the highest.
        times_before: ``[k]``, of what was known before.
        before: ``[k]``.
    """

    name: str
    target: str
    times: _Array
    truth: _Array
    answers: _Array
    low: _Array | None = None
    high: _Array | None = None
    times_before: _Array | None = None
    before: _Array | None = None


def truth_over_time(
    curves: Sequence[Curve], *, unit: str = "time", title: str = "", of: str = ""
) -> bytes:
    """Truth and answers over time, a panel for each curve; gaps in the truth stay gaps.

    Args:
        curves: at least one.
        unit: written below.
        title: written above.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.

    Example:
        >>> values = np.arange(3.0)
        >>> truth_over_time([Curve("day", "level", values, values, values)])[1:4]
        b'PNG'
    """
    columns = min(len(curves), 2)
    rows = -(-len(curves) // columns)
    size = (6.2 if columns == 2 else 9) * columns, 2.3 * rows + 1.1
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(curves) :]:
        axes.set_axis_off()
    for axes, curve in zip(grid, curves, strict=False):
        marker = "." if len(curve.times) <= 60 else None
        if curve.times_before is not None and curve.before is not None:
            axes.plot(curve.times_before, curve.before, color=GREY, lw=1.2, label="before")
            axes.axvline(0, color=GREY, lw=0.8, ls=":")
        if curve.low is not None and curve.high is not None:
            label = "between the outer quantiles"
            axes.fill_between(
                curve.times, curve.low, curve.high, color=BLUE, alpha=0.2, lw=0, label=label
            )
        axes.plot(curve.times, curve.truth, color=INK, lw=1.4, marker=marker, label="truth")
        axes.plot(curve.times, curve.answers, color=BLUE, lw=1.3, marker=marker, label="model")
        axes.set_title(shortened(curve.name, 60), fontsize=8)
        axes.set_ylabel(shortened(curve.target, 24), fontsize=8)
        axes.set_xlabel(unit, fontsize=8)
        _tidy(axes)
    handles, labels = grid[0].get_legend_handles_labels()
    look: Any = {"loc": "outside lower center", "frameon": False, "fontsize": 8}
    figure.legend(handles, labels, ncols=4, **look)
    _head(figure, title, size[0])
    return to_png(figure, of)


def truth_and_answers(
    truth: _Array, answers: _Array, targets: Sequence[str], *, title: str = "", of: str = ""
) -> bytes:
    """Answers over truth, a point for each value and a panel for each target.

    Args:
        truth: ``[..., K]``, NaN is left out.
        answers: ``[..., K]``.
        targets: names.
        title: written above.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.
    """
    panels, figure = _panels(targets, title)
    for place, axes in enumerate(panels):
        true, given = _pairs(truth, answers, place)
        axes.plot(true, given, ".", color=BLUE, ms=4, alpha=0.5)
        ends = [min(true.min(), given.min()), max(true.max(), given.max())]
        axes.plot(ends, ends, color=GREY, lw=1, ls=":")
        axes.set_xlabel(f"true {shortened(targets[place], 24)}")
        axes.set_ylabel("model")
        _tidy(axes)
    return to_png(figure, of)


def residuals(
    truth: _Array, answers: _Array, targets: Sequence[str], *, title: str = "", of: str = ""
) -> bytes:
    """What is left over, answer - truth: over the answer, and how often.

    The arguments are those of `truth_and_answers`.

    Returns:
        A PNG file.
    """
    count = min(len(targets), _MOST_TARGETS)
    figure = Figure(figsize=(9, 2.8 * count + 0.6), layout="constrained")
    grid = figure.subplots(count, 2, squeeze=False, width_ratios=(2, 1))
    for place, (over, often) in enumerate(grid):
        true, given = _pairs(truth, answers, place)
        left = given - true
        over.plot(given, left, ".", color=BLUE, ms=3, alpha=0.4)
        over.axhline(0, color=GREY, lw=1, ls=":")
        name = shortened(targets[place], 24)
        over.set_xlabel(f"answered {name}")
        over.set_ylabel("answer - truth")
        often.hist(left, bins=40, color=BLUE, alpha=0.7)
        often.axvline(0, color=GREY, lw=1, ls=":")
        often.axvline(left.mean(), color=ORANGE, lw=1.2, label=f"mean {left.mean():.3g}")
        often.set_xlabel("answer - truth")
        often.set_ylabel("values")
        often.legend(frameon=False, fontsize=8)
        for axes in (over, often):
            _tidy(axes)
    _head(figure, title, 9)
    return to_png(figure, of)


def error_by_step(steps: Sequence[Mapping[str, Any]], *, title: str = "", of: str = "") -> bytes:
    """Errors of a forecast by how many steps ahead it looks.

    Args:
        steps: ``per_step`` of `fastltc.jobs.evaluation.values.value_metrics`.
        title: written above.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    ahead = [step["step"] for step in steps]
    for name, label, color in (
        ("mae", "mean absolute error", BLUE),
        ("rmse", "root mean square error", ORANGE),
    ):
        values = [np.nan if step[name] is None else step[name] for step in steps]
        axes.plot(ahead, values, color=color, marker="o", ms=3, label=label)
    axes.set_xlabel("steps ahead")
    axes.set_ylabel("error")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9)
    _tidy(axes)
    _head(figure, title, 6)
    return to_png(figure, of)


def wrong_series(
    rows: Sequence[_Array],
    captions: Sequence[str],
    features: Sequence[str],
    *,
    title: str = "",
    of: str = "",
) -> bytes:
    """Sequences that a classifier was most wrong about: their standardised inputs over the steps.

    Args:
        rows: ``[T, I]`` of each sequence; NaN is a gap.
        captions: written above each.
        features: names of the inputs; empty for none.
        title: written above.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.
    """
    columns = min(3, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(4 * columns, 2.3 * lines + 0.9), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[len(rows) :]:
        axes.set_axis_off()
    for axes, values, caption in zip(grid, rows, captions, strict=False):
        for place in range(min(values.shape[1], 8)):
            label = shortened(features[place], 20) if features else None
            axes.plot(values[:, place], lw=1, label=label)
        axes.set_title(caption, fontsize=7)
        _tidy(axes)
    handles, labels = grid[0].get_legend_handles_labels()
    if handles:
        look: Any = {"loc": "outside lower center", "frameon": False, "fontsize": 8}
        figure.legend(handles, labels, ncols=4, **look)
    _head(figure, title, 4 * columns)
    return to_png(figure, of)


def _pairs(truth: _Array, answers: _Array, place: int) -> tuple[_Array, _Array]:
    true, given = truth[..., place].ravel(), answers[..., place].ravel()
    there = ~np.isnan(true)
    return true[there], given[there]


def _panels(targets: Sequence[str], title: str) -> tuple[list[Axes], Figure]:
    count = min(len(targets), _MOST_TARGETS)
    figure = Figure(figsize=(4.4 * count, 4.4), layout="constrained")
    _head(figure, title, 4.4 * count)
    return list(figure.subplots(1, count, squeeze=False)[0]), figure


def _head(figure: Figure, title: str, width: float) -> None:
    if title:
        figure.suptitle(textwrap.fill(title, int(11 * width)), fontsize=10)


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
