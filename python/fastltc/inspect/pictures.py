"""Pictures of a trace and of an attribution, as PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from fastltc.inspect.figure import BLUE, GREY, ORANGE, SIGNED, shortened, to_png
from fastltc.inspect.trace import Trace

# More names run together.
_MOST_NAMES = 48


def draw_states(
    trace: Trace, *, sample: int = 0, title: str = "states", unit: str = "", of: str = ""
) -> bytes:
    """The states of all neurons over time, a row for each.

    Args:
        trace: of :func:`fastltc.inspect.trace`.
        sample: which of the batch.
        title: written above.
        unit: of the time steps, written below.
        of: the checkpoint that it shows, written below and into the file.

    Returns:
        A PNG file.

    Raises:
        IndexError: if there is no such sample.

    Example:
        >>> import torch
        >>> from fastltc import LTC
        >>> from fastltc.inspect import draw_states, trace
        >>> draw_states(trace(LTC(2, 5), torch.randn(30, 2)))[1:4]
        b'PNG'
    """
    times, values = _sample(trace, trace.states, sample)
    most = float(np.abs(values).max(initial=0.0)) or 1.0
    return _heatmap(trace, times, values, Normalize(-most, most), SIGNED, title, "state", unit, of)


def draw_time_constants(
    trace: Trace, *, sample: int = 0, title: str = "time constants", unit: str = "", of: str = ""
) -> bytes:
    """The effective time constants of all neurons over time, a row for each, on a log scale.

    Arguments, result and errors are those of :func:`draw_states`.
    """
    times, values = _sample(trace, trace.time_constants, sample)
    positive = values[np.isfinite(values) & (values > 0)]
    # A gate that stands still for a moment would stretch the scale to infinity.
    low, high = np.percentile(positive, [1, 99]) if positive.size else (1.0, 1.0)
    if not high > low:
        low, high = low / 2, high * 2
    label = f"time constant{f' in {unit}' if unit else ''}"
    norm = LogNorm(low, high, clip=True)
    return _heatmap(trace, times, values, norm, "viridis", title, label, unit, of)


def draw_attribution(
    input: Tensor,
    attribution: Tensor,
    *,
    title: str = "",
    rows: str = "row",
    of: str = "",
) -> bytes:
    """An image, or another matrix of inputs, and beside it how much each row of it has added.

    Args:
        input: ``[H, W]``, or ``[C, H, W]``, whose mean over C is drawn.
        attribution: of :func:`fastltc.inspect.attribute` with its ``axis``: ``[H]``.
        title: written above.
        rows: what a row is.
        of: the checkpoint that it shows, written below and into the file.

    Returns:
        A PNG file.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if input.dim() not in (2, 3) or attribution.shape != input.shape[-2:-1]:
        raise ValueError(
            f"attribution: expected shape [H] for an input [H, W] or [C, H, W], got "
            f"{list(attribution.shape)} for {list(input.shape)}"
        )
    image = _array(input if input.dim() == 2 else input.mean(0))
    added = _array(attribution)
    height, width = image.shape
    figure = Figure(figsize=(8.0, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.2, 1.0))
    left.imshow(
        image,
        cmap="gray",
        aspect="equal" if height < 4 * width else "auto",
        interpolation="nearest",
    )
    left.set_ylabel(rows)
    left.set_xticks([])
    places = np.arange(height)
    right.barh(places, added, height=0.8, color=[BLUE if a >= 0 else ORANGE for a in added])
    right.axvline(0, color=GREY, lw=0.8)
    right.xaxis.set_major_locator(MaxNLocator(4))
    right.set_xlabel("added to the output")
    for side in ("top", "right"):
        right.spines[side].set_visible(False)
    figure.suptitle(title, fontsize=11)
    return to_png(figure, of)


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().double().numpy(), dtype=np.float64)


def _sample(
    trace: Trace, values: Tensor, sample: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the times ``[T]`` and the values ``[T, N]`` of the valid steps of a sample."""
    batch, time, _ = values.shape
    if not -batch <= sample < batch:
        raise IndexError(f"sample: expected one of {batch}, got {sample}")
    steps = time if trace.lengths is None else int(trace.lengths[sample])
    return _array(trace.times[sample, :steps]), _array(values[sample, :steps])


def _heatmap(
    trace: Trace,
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    norm: Any,
    colors: Any,
    title: str,
    label: str,
    unit: str,
    of: str,
) -> bytes:
    order, names = _by_kind(trace.neurons)
    height = float(np.clip(0.2 * len(names) + 1.6, 3.0, 11.0))
    figure = Figure(figsize=(9.0, height), layout="constrained")
    axes = figure.subplots()
    if len(times):
        # A step is drawn from the time of the one before to its own.
        edges = np.concatenate(
            [[2 * times[0] - times[1] if len(times) > 1 else times[0] - 1], times]
        )
        image = axes.pcolormesh(
            edges, np.arange(len(names) + 1) - 0.5, values[:, order].T, norm=norm, cmap=colors
        )
        bar = figure.colorbar(image, ax=axes, label=label, pad=0.01)
        if isinstance(norm, LogNorm):
            # Powers as formulas would be written as such, see to_png.
            ticks = _ticks(float(norm.vmin or 0), float(norm.vmax or 0))
            bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
            bar.minorticks_off()
    axes.set_ylim(len(names) - 0.5, -0.5)
    if len(names) <= _MOST_NAMES:
        axes.set_yticks(range(len(names)), [shortened(name, 20) for name in names], fontsize=7)
    else:
        axes.set_ylabel("neurons, by kind")
    axes.tick_params(length=0)
    axes.set_xlabel(f"time{f' in {unit}' if unit else ''}")
    axes.set_title(title, fontsize=11)
    return to_png(figure, of)


def _by_kind(neurons: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the neurons in the order in which signals pass them, and their names."""
    kinds = ("inter", "command", "motor")

    def place(k: int) -> int:
        kind = neurons[k].split()[0]
        return kinds.index(kind) if kind in kinds else 0

    order = sorted(range(len(neurons)), key=place)
    return order, [neurons[k] for k in order]


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers on a logarithmic scale."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [k * 10.0**d for d in decades for k in steps if low <= k * 10.0**d <= high]
        if len(found) >= 4:
            return found
    return list(np.geomspace(low, high, 4))
