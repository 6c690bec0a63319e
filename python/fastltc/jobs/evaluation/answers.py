"""What an evaluation of values leaves: pictures, and a table with a line for each value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import plots
from ..data import Split
from ..data.tables import format_table
from ..run import Checkpoint
from .values import middle_answers

# Panels of a picture.
_MOST = 6


def value_pictures(
    loaded: Checkpoint,
    part: Split,
    answers: NDArray[np.float64],
    metrics: dict[str, Any],
    title: str,
) -> dict[str, bytes]:
    """``truth``, ``residuals`` and, of a forecast, ``horizon``."""
    part = replace(part, labels=np.asarray(part.labels))
    look: dict[str, Any] = {"title": title, "of": loaded.origin}
    middle = middle_answers(answers, loaded.config.levels)
    made = {"residuals": plots.residuals(part.labels, middle, loaded.targets, **look)}
    if loaded.horizon or loaded.per_step:
        unit = "steps after the last row"
        if not loaded.horizon:
            unit = "time in s" if loaded.time_unit else "steps"
        curves = _curves(part, answers, loaded)
        made["truth"] = plots.truth_over_time(curves, unit=unit, **look)
    else:
        made["truth"] = plots.truth_and_answers(part.labels, middle, loaded.targets, **look)
    if loaded.horizon:
        made["horizon"] = plots.error_by_step(metrics["per_step"], **look)
    return made


def _curves(part: Split, answers: NDArray[np.float64], loaded: Checkpoint) -> list[plots.Curve]:
    """Of a few examples, evenly spaced, or recordings, the longest, a curve for each target."""
    levels, targets = loaded.config.levels, loaded.targets[:_MOST]
    middle = middle_answers(answers, levels)
    most = max(_MOST // len(targets), 1)
    chosen: list[tuple[str, NDArray[np.float64], Any]]
    if loaded.horizon:
        places = np.unique(np.linspace(0, len(part) - 1, min(most, len(part))).astype(int))
        ahead = np.arange(1.0, loaded.horizon + 1, dtype=np.float64)
        chosen = [(_name(part, place), ahead, place) for place in places]
    else:
        chosen = _recordings(part, loaded.time_unit or 1.0)[:most]

    def curve(name: str, times: NDArray[np.float64], at: Any, target: int) -> plots.Curve:
        band = {}
        if len(levels) > 1:
            band = {"low": answers[..., target, 0][at], "high": answers[..., target, -1][at]}
        if loaded.horizon and targets[target] in loaded.features:
            rows = part.inputs[at][:, loaded.features.index(targets[target])]
            length = len(rows) if part.lengths is None else int(part.lengths[at])
            band["before"] = rows[:length].astype(np.float64)
            band["times_before"] = np.arange(1.0 - length, 1.0)
        truth = part.labels[..., target][at]
        return plots.Curve(name, targets[target], times, truth, middle[..., target][at], **band)

    return [curve(*one, target) for target in range(len(targets)) for one in chosen]


def _name(part: Split, place: int) -> str:
    return part.names[place] if part.names else str(place)


def _recordings(part: Split, unit: float) -> list[tuple[str, NDArray[np.float64], Any]]:
    """Sequences that follow one another in a recording as one, the longest first.

    Returns:
        What each is called, when its rows are, in units of time, and their places in ``[n, T]``.
    """
    length = part.inputs.shape[1]
    steps = np.ones((len(part), length)) if part.timespans is None else part.timespans
    found: dict[str, list[tuple[NDArray[np.float64], tuple[Any, Any]]]] = {}
    end: dict[str, tuple[int, float]] = {}
    for place in range(len(part)):
        file, colon, start = _name(part, place).rpartition(":")
        key, first = (file, int(start)) if colon and start.isdecimal() else (f"{place}", 0)
        rows = length if part.lengths is None else int(part.lengths[place])
        after, last = end.get(key, (first, 0.0))
        # Rows that the sequence before has already are left out; those in between are a gap.
        done = min(max(after - first, 0), rows)
        spans = steps[place][done:rows].astype(np.float64)
        if not len(spans):
            continue
        if key not in end:
            spans[0] = 0.0
        times = last + np.cumsum(spans)
        end[key] = first + rows, float(times[-1])
        at = (np.full(rows - done, place), np.arange(done, rows))
        found.setdefault(key, []).append((times, at))
    whole = [
        (
            name,
            unit * np.concatenate([times for times, _ in parts]),
            tuple(np.concatenate(axis) for axis in zip(*(at for _, at in parts), strict=True)),
        )
        for name, parts in found.items()
    ]
    return sorted(whole, key=lambda one: -len(one[1]))


def value_table(part: Split, answers: NDArray[np.float64], loaded: Checkpoint) -> bytes:
    """One line for each step of an example: what it is called, truth and answer of each target.

    Of quantiles a column each. Cells of a truth that is not known are empty, and so is a step
    without any of them left out. The last column says which checkpoint has answered.
    """
    targets, levels = loaded.targets, loaded.config.levels
    names = column_names(targets, levels)
    heads = names if levels else [f"predicted {name}" for name in names]
    rows = []
    for index, (labels, given) in enumerate(zip(part.labels, answers, strict=True)):
        name = part.names[index] if part.names else str(index)
        steps = zip(labels.reshape(-1, len(targets)), given.reshape(-1, len(names)), strict=True)
        for step, (truth, row) in enumerate(steps):
            if np.isnan(truth).all():
                continue
            called = f"{name}+{step + (loaded.horizon > 0)}" if labels.ndim > 1 else name
            cells = ["" if np.isnan(value) else f"{value:.9g}" for value in truth]
            rows.append([called, *cells, *(f"{value:.9g}" for value in row), loaded.origin])
    return format_table(["name", *targets, *heads, "checkpoint"], rows)


def column_names(targets: Sequence[str], quantiles: Sequence[float]) -> list[str]:
    """What the values that are answered to a row are called, in their order."""
    if not quantiles:
        return list(targets)
    return [f"quantile {share:g} of {name}" for name in targets for share in quantiles]
