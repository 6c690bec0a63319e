"""Pictures of a liquid network: the values of all connections as matrices."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .figure import INK, SIGNED, shortened
from .network import Network, Neuron

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_matrices(network: Network, title: str) -> Figure:
    """One panel for each kind of value: from row to column, by layers."""
    order = [neuron for _, layer in network.layers for neuron in layer]
    inputs = sum(kind == "sensory" for kind, _ in order)
    rows = [index if kind == "sensory" else inputs + index for kind, index in order]
    neurons = order[inputs:]
    columns = [index for _, index in neurons]
    across = min(2, len(network.matrices))
    down = -(-len(network.matrices) // across)
    # Panels of about the shape of the matrix.
    side = float(np.clip(0.16 * len(neurons) + 2.0, 3.6, 5.5))
    tall = float(np.clip(side * len(order) / max(len(neurons), 1), 2.4, 7.5))
    size = across * (side + 1.9), down * (tall + 0.7) + 1.0
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    starts = np.cumsum([0, *(len(layer) for _, layer in network.layers)])
    for axes, matrix in zip(panels, network.matrices, strict=False):
        shown = matrix.values[np.ix_(rows, columns)]
        most = float(np.nanmax(np.abs(shown))) if np.isfinite(shown).any() else 1.0
        image = axes.imshow(
            shown,
            cmap=SIGNED if matrix.signed else "viridis",
            norm=Normalize(-most if matrix.signed else 0.0, most or 1.0),
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_facecolor("white")
        for start in starts[1:-1]:
            axes.axhline(start - 0.5, color=INK, lw=0.8)
            if start > inputs:
                axes.axvline(start - 0.5 - inputs, color=INK, lw=0.8)
        _ticks(axes, network, order, starts, inputs)
        figure.colorbar(image, ax=axes, shrink=0.85)
        axes.set_title(textwrap.fill(matrix.title, 44), fontsize=10)
    for axes in panels[len(network.matrices) :]:
        axes.set_axis_off()
    notes = "".join(f"\n{note}" for note in ("from row to column; white: none", *network.notes))
    figure.suptitle(textwrap.fill(title, 100 if across > 1 else 60) + notes, fontsize=11)
    return figure


def _ticks(
    axes: Axes, network: Network, order: Sequence[Neuron], starts: NDArray[Any], inputs: int
) -> None:
    """Names where there are any and there is room for them, else the layers."""
    kinds = [kind for kind, _ in network.layers]
    middles = [(first + last - 1) / 2 for first, last in itertools.pairwise(starts)]
    labels = dict(zip(middles, kinds, strict=True))
    for first, last in itertools.pairwise(starts):
        members = range(first, last)
        named = [place for place in members if order[place] in network.names]
        if named and len(order) <= 64:
            del labels[(first + last - 1) / 2]
            labels |= {place: shortened(network.names[order[place]], 22) for place in named}
    axes.set_yticks(list(labels), list(labels.values()), fontsize=7)
    beside = {place - inputs: text for place, text in labels.items() if place >= inputs}
    slope: Any = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    look = slope if len(beside) > 4 else {}
    axes.set_xticks(list(beside), list(beside.values()), fontsize=7, **look)
    axes.tick_params(length=0)
