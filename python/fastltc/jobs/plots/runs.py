"""Pictures of runs: the epochs of one, and several side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ...inspect.figure import BLUE, GREY, ORANGE, shortened, to_png

_CALLED = {"auc": "AUC", "f1": "F1", "r2": "R2", "mae": "MAE", "rmse": "RMSE", "mase": "MASE"}
# Least and most of a metric that is no share.
_POSSIBLE = {"r2": (-np.inf, 1), **dict.fromkeys(("mae", "rmse", "mase"), (0, np.inf))}


def training_curve(
    history: Sequence[Mapping[str, Any]],
    *,
    best_epoch: int | None = None,
    title: str = "",
    of: str = "",
) -> bytes:
    """Loss, and accuracy and AUC, or of values error and R2, over the epochs.

    Args:
        history: records with ``epoch``, ``train_loss``, ``val_loss``, and of classes
            ``train_accuracy``, ``val_accuracy`` and ``val_auc``, of values ``val_mae``,
            ``val_mase`` and ``val_r2``; each may be None.
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
    look: Any = {"lw": 1.8, "marker": "o" if len(epochs) <= 30 else None, "ms": 3}
    for axes, name, label, color in (
        (losses, "train_loss", "training", GREY),
        (losses, "val_loss", "validation", BLUE),
        (scores, "train_accuracy", "training accuracy", GREY),
        (scores, "val_accuracy", "validation accuracy", BLUE),
        (scores, "val_auc", "validation AUC", ORANGE),
        (scores, "val_r2", "validation R2", BLUE),
        (scores, "val_mase", "validation MASE", ORANGE),
    ):
        values = [record.get(name) for record in history]
        if None not in values:
            axes.plot(epochs, values, color=color, label=label, **look)
    of_values = any("val_r2" in record for record in history)
    losses.set_ylim(bottom=0)
    losses.set_ylabel("loss" if of_values else "cross-entropy")
    if of_values:
        # An untrained model may be as far below 0 as it likes.
        scores.set_ylim(bottom=max(scores.get_ylim()[0], -1))
    else:
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


def training_curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str = ""
) -> bytes:
    """The validation loss of several runs over the epochs, and a metric, in one picture.

    Args:
        histories: the records of `training_curve`, by what the runs are called.
        title: written above.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    first = next(iter(histories.values()))
    metric = "val_r2" if "val_r2" in first[0] else "val_accuracy"
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(histories)))
    for axes, name in zip(panels, ("val_loss", metric), strict=True):
        for (run, history), colour in zip(histories.items(), colours, strict=True):
            values = [np.nan if one[name] is None else one[name] for one in history]
            epochs = [one["epoch"] for one in history]
            axes.plot(epochs, values, color=colour, lw=1.5, label=run)
            axes.plot(epochs[-1:], values[-1:], "o", color=colour, ms=4)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"validation {name.removeprefix('val_').replace('r2', 'R2')}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(textwrap.fill(title, 100), fontsize=11)
    return to_png(figure)


def search(
    trials: Sequence[Mapping[str, Any]],
    importance: Mapping[str, float],
    metric: str,
    *,
    less: bool,
    title: str = "",
) -> bytes:
    """The trials of a search, the best so far, and how much each option mattered.

    Args:
        trials: of `fastltc.jobs.tune`.
        importance: of each option, the shares of 1; empty where it is not known.
        metric: that the trials are judged by.
        less: whether less is better.
        title: written above.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    history, bars = figure.subplots(1, 2)
    for state, color, label in (("complete", BLUE, "trial"), ("pruned", GREY, "ended early")):
        points = [(one["number"], one["value"]) for one in trials if one["state"] == state]
        points = [point for point in points if point[1] is not None]
        if points:
            history.plot(*zip(*points, strict=True), ".", color=color, label=label)
    whole = [one for one in trials if one["state"] == "complete" and one["value"] is not None]
    values = [one["value"] for one in whole]
    so_far = np.minimum.accumulate(values) if less else np.maximum.accumulate(values)
    numbers = [one["number"] for one in whole]
    history.plot(numbers, so_far, color=ORANGE, drawstyle="steps-post", label="best so far")
    history.set_xlabel("trial")
    history.set_ylabel(f"validation {metric}")
    history.xaxis.set_major_locator(MaxNLocator(integer=True))
    history.legend(frameon=False, fontsize=8)
    names = list(importance)[::-1]
    bars.barh(names, [importance[name] for name in names], color=BLUE)
    bars.set_xlabel("importance" if names else "importance: not known of so few trials")
    for axes in (history, bars):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(textwrap.fill(title, 100), fontsize=11)
    return to_png(figure)


def comparison(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Test metrics of several runs as points with 95 % intervals, and their parameters.

    Args:
        rows: of `fastltc.jobs.compare`.

    Returns:
        A PNG file.
    """
    names = ("auc", "accuracy", "r2", "mae", "rmse", "mase", "f1", "average_precision")
    of_class = names[-2:]
    # Those of one class go side by side where it is the same class.
    same = len({row["positive"] for row in rows}) == 1
    named = names if same else names[:-2]
    shown = [name for name in named if all(name in row["test"] for row in rows)]
    size = 3.2 + 2.4 * (len(shown) + 1), 1.7 + 0.52 * len(rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(shown) + 1, sharey=True)
    handles: dict[str, Line2D] = {}
    for axes, name in zip(panels, shown, strict=False):
        for place, row in enumerate(rows):
            found = row["test"][name]
            several = row["n"] > 1
            label = "mean of seeds" if several else "single run"
            if several:
                (seeds,) = axes.plot(
                    found["values"], [place] * row["n"], "|", color=GREY, ms=9, mew=1
                )
                handles["a seed"] = seeds
            between = found.get("interval")
            if between is None:
                label += ", no interval known"
            else:
                # What an interval has beyond what a metric can be is not possible.
                low, high = np.clip(between, *_POSSIBLE.get(name, (0, 1)))
                axes.plot([low, high], [place, place], color=BLUE, lw=1.4, marker="|", ms=6)
                label += ", 95 % t interval" if several else ", 95 % bootstrap interval"
            filled = BLUE if between is not None else "white"
            kind = "o" if several else "s"
            (handles[label],) = axes.plot(
                [found["mean"]], [place], kind, color=BLUE, mfc=filled, ms=6, zorder=3
            )
        title = _CALLED.get(name, name.replace("_", " "))
        if name in of_class:
            title = f"{title} ({rows[0]['positive']})"
        axes.set_title(textwrap.fill(title, 26), fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    sizes = [row["trainable_parameters"] for row in rows]
    panels[-1].plot(sizes, range(len(rows)), "D", color=ORANGE, ms=5)
    above: Any = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": 7}
    for place, size in enumerate(sizes):
        panels[-1].annotate(f"{size:,}", (size, place), **above)
    panels[-1].set_title("trainable parameters\n(log scale)", fontsize=10)
    # Down to 0, which a model in closed form has.
    panels[-1].set_xscale("symlog", linthresh=1)
    panels[-1].set_xlim(min(sizes) / 4 if min(sizes) else -0.5, 4 * max(*sizes, 1))
    panels[-1].set_xticks([])
    panels[-1].set_xticks([], minor=True)
    labels = [
        f"{shortened(row['name'], 36)}\n{row['model']}"
        + (f", {row['n']} seeds" if row["n"] > 1 else "")
        for row in rows
    ]
    panels[0].set_yticks(range(len(rows)), labels, fontsize=8)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    if handles:
        look: Any = {"loc": "outside lower center", "frameon": False, "fontsize": 8}
        figure.legend(handles.values(), handles.keys(), ncols=3, **look)
    about = "; ".join(
        f"{run}: epoch {of['epoch']}, digest {of['digest']}"
        for row in rows
        for run, of in zip(row.get("runs", ()), row.get("checkpoints", ()), strict=False)
    )
    return to_png(figure, about=about)
