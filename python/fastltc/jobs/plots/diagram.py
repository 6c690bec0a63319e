"""Pictures of a liquid network: its layers with all synapses."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch, Polygon, Rectangle
from matplotlib.transforms import Affine2D, ScaledTranslation

from .figure import BLUE, FILL, GREY, INK, ORANGE, SIGNED, shortened, to_png
from .matrices import draw_matrices
from .network import Network, Neuron, Synapse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from ncps.wirings import Wiring

# Of a CfC, a layer and what lies before it.
_LAYER = "#dee2e6"
_GATES = "#f1f3f5"
# Half of the width of the box around a layer.
_HALF = 0.62


def wiring_diagram(network: Network | Wiring, *, title: str | None = None, of: str = "") -> bytes:
    """The neurons of a network in layers, and its connections: what is computed.

    Signals run from left to right: sensory, inter, command and motor neurons. Synapses with a
    reversal potential (LTC) are excitatory, which end in an arrow, or inhibitory, which end in a
    bar; paler ones have one nearer to 0, and wider ones a larger conductance. Connections of CfC
    have no sign. Synapses within a layer are bows beside it, those onto the same neuron loops; a
    layer in a box has all of them. A network that is full, or too large for lines, is drawn as
    matrices, from row to column.

    Args:
        network: see `fastltc.jobs.plots.liquid_layer.network_of`; of a built
            ``ncps.wirings.Wiring`` the signs that it has, where training starts.
        title: written above; None for a summary of the sizes.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.

    Raises:
        ValueError: the wiring is not built.

    Example:
        >>> from ncps.wirings import AutoNCP
        >>> wiring = AutoNCP(19, 2)
        >>> wiring.build(16)
        >>> wiring_diagram(wiring)[1:4]
        b'PNG'
    """
    if not isinstance(network, Network):
        network = Network.of_wiring(network)
    if title is None:
        title = network.title
    draw = _lines if network.drawable else draw_matrices
    return to_png(draw(network, title), of)


def _lines(network: Network, title: str) -> Figure:
    synapses = network.synapses
    layers = [(kind, list(layer)) for kind, layer in network.layers]
    _untangle(layers, synapses)
    rows = max(len(layer) for _, layer in layers)
    # Wide layers get closer neurons instead of an ever taller picture.
    height = float(np.clip(0.46 * rows + 2.2, 5.0, 14.0))
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots()
    gap = 3.2
    places = {
        neuron: (gap * column, -(row + 0.5) * (rows / len(layer)))
        for column, (_, layer) in enumerate(layers)
        for row, neuron in enumerate(layer)
    }
    # A neuron is at most a circle of 0.3 rows, in which its number stays legible.
    pitch = (height - 2.2) * 72 / rows
    size = min(0.72 * pitch, 19.0)
    columns = {neuron: column for column, (_, layer) in enumerate(layers) for neuron in layer}
    if network.all_within or network.gates:
        _blocks(axes, network, gap, rows)
    # Hundreds of lines at full strength would run together.
    strength = min(1.0, (300 / max(len(synapses), 1)) ** 0.5)
    # Strong ones on top.
    pairs = zip(synapses, looks(synapses), strict=True)
    for synapse, look in sorted(pairs, key=lambda pair: pair[1][1]):
        ends = places[synapse.source], places[synapse.target]
        same_layer = columns[synapse.source] == columns[synapse.target]
        _synapse(axes, synapse, ends, look, size, strength, same_layer=same_layer)
    inside: Any = {"ha": "center", "va": "center_baseline", "fontsize": min(0.5 * size, 8.5)}
    for kind, layer in layers:
        across, down = zip(*(places[neuron] for neuron in layer), strict=True)
        fill = FILL.get(kind, "white")
        axes.plot(across, down, "o", ms=size, mfc=fill, mec=INK, mew=0.9, zorder=3)
        axes.text(across[0], 0.35, f"{kind}\n{len(layer)}", ha="center", va="bottom", fontsize=11)
        for neuron in layer:
            axes.text(*places[neuron], str(neuron[1]), zorder=4, **inside)
            if neuron in network.names:
                side = -1 if kind == "sensory" else 1
                x, y = places[neuron]
                # Outside of the box around a layer.
                boxed = side > 0 and network.all_within
                axes.annotate(
                    shortened(network.names[neuron], 30),
                    (x + _HALF, y) if boxed else (x, y),
                    xytext=(side * (6 if boxed else 0.5 * size + 6), 0),
                    textcoords="offset points",
                    ha="right" if side < 0 else "left",
                    va="center",
                    fontsize=min(0.6 * size, 9.0),
                )
    axes.set_xlim(-1.0, gap * (len(layers) - 1) + 1.0)
    # 36 points for the two lines above a layer.
    axes.set_ylim(-rows - 0.3, 0.35 + 36 / pitch)
    axes.set_axis_off()
    notes = "".join(f"\n{note}" for note in network.notes)
    below: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.01), "ncols": 2}
    axes.legend(handles=_legend(network), frameon=False, fontsize=9, **below)
    axes.set_title(textwrap.fill(title, 100) + notes, fontsize=11)
    return figure


def looks(synapses: Sequence[Synapse]) -> list[tuple[Any, float]]:
    """Colour and width of each line."""
    polarities = [abs(synapse.polarity or 0.0) for synapse in synapses]
    weights = [synapse.weight or 0.0 for synapse in synapses]
    largest, heaviest = max(polarities, default=0.0), max(weights, default=0.0)
    found = []
    for synapse, weight in zip(synapses, weights, strict=True):
        color: Any = INK
        if synapse.polarity is not None:
            # Not quite down to the middle, where a line is white.
            share = abs(synapse.polarity) / largest if largest else 0.0
            share = 0.25 + 0.75 * share
            color = SIGNED(0.5 + 0.5 * np.copysign(share, synapse.polarity))
        width = 1.0 if synapse.weight is None else 0.3 + 2.7 * weight / (heaviest or 1.0)
        found.append((color, width))
    return found


def _blocks(axes: Axes, network: Network, gap: float, rows: int) -> None:
    """Layers with all connections within, and what is read of the whole layer before."""
    for column, (kind, _) in enumerate(network.layers):
        left = gap * (column - 1) + (_HALF if column > 1 else 0.3)
        right, low, high = gap * column - _HALF, -rows - 0.1, 0.1
        if column and network.gates:
            corners = [(left, high), (right, high), (right, low), (left, low)]
            axes.add_patch(Polygon(corners, fc=_GATES, ec="none", zorder=0))
        if kind != "sensory" and network.all_within:
            look: Any = {"fc": _LAYER, "ec": GREY, "lw": 1, "zorder": 0.5}
            axes.add_patch(Rectangle((right, low), 2 * _HALF, high - low, **look))


def _legend(network: Network) -> list[Any]:
    weighted = any(synapse.weight is not None for synapse in network.synapses)
    if any(synapse.polarity is not None for synapse in network.synapses):
        what = " (reversal potential erev {} 0)" if weighted else ""
        handles: list[Any] = [
            line(BLUE, f"excitatory{what.format('above')}", lw=1.6, marker=">", ms=6),
            line(ORANGE, f"inhibitory{what.format('below')}", lw=1.6, marker="|", ms=9, mew=1.6),
        ]
        if weighted:
            handles.append(line(INK, "wider: larger conductance w", lw=2.6))
            handles.append(line(SIGNED(0.62), "paler: erev nearer to 0", lw=2.6))
        return handles
    label = "masked: ff1 and ff2 (wider: larger weights); no sign"
    handles = [line(INK, label, lw=1.6, marker=">", ms=5)]
    if network.all_within:
        label = "within a layer, ff1 and ff2: every neuron reads every neuron"
        handles.append(Patch(fc=_LAYER, ec=GREY, label=label))
    if network.gates:
        handles.append(Patch(fc=_GATES, ec=_LAYER, label=network.gates))
    return handles


def line(color: Any, label: str, **look: Any) -> Line2D:
    """A line in a legend."""
    return Line2D([], [], color=color, label=label, **look)


def _untangle(layers: list[tuple[str, list[Neuron]]], synapses: Sequence[Synapse]) -> None:
    """Orders each layer by the mean height of the neurons it is connected to (barycentres)."""
    neighbours: dict[Neuron, list[Neuron]] = {}
    for source, target, *_ in synapses:
        neighbours.setdefault(source, []).append(target)
        neighbours.setdefault(target, []).append(source)
    heights = {
        neuron: (row + 0.5) / len(layer) for _, layer in layers for row, neuron in enumerate(layer)
    }
    for _ in range(12):
        for _, layer in layers:
            means = {
                neuron: float(np.mean([heights[n] for n in neighbours.get(neuron, [neuron])]))
                for neuron in layer
            }
            layer.sort(key=means.__getitem__)
            for row, neuron in enumerate(layer):
                heights[neuron] = (row + 0.5) / len(layer)


def _synapse(
    axes: Axes,
    synapse: Synapse,
    ends: tuple[tuple[float, float], tuple[float, float]],
    look: tuple[Any, float],
    size: float,
    strength: float,
    *,
    same_layer: bool,
) -> None:
    (start, end), (color, width) = ends, look
    inhibitory = synapse.polarity is not None and synapse.polarity < 0
    style = "|-|,widthA=0,widthB=3" if inhibitory else "-|>,head_width=2.2,head_length=4"
    shrink = size / 2 + (2.0 if inhibitory else 1.0)
    bow = 0.0
    transform: Any = axes.transData
    if start == end:
        # Measured in points from the neuron: out at its upper right, in at its lower right.
        figure = axes.get_figure(root=True)
        assert figure is not None
        points = figure.dpi_scale_trans
        transform = Affine2D().scale(size / 72) + points + ScaledTranslation(*start, transform)
        start, end = (0.4, 0.34), (0.4, -0.34)
        bow = -2.4
        shrink = 1.0
    elif same_layer:
        # Downward bows on the left, upward bows on the right; long ones bend no further out.
        bow = min(0.45, 1.6 / abs(start[1] - end[1]))
    arrow = FancyArrowPatch(
        start,
        end,
        transform=transform,
        arrowstyle=style,
        connectionstyle=f"arc3,rad={bow}",
        shrinkA=shrink,
        shrinkB=shrink,
        mutation_scale=strength,
        color=color,
        lw=width * strength,
        alpha=0.75 * strength,
        zorder=2 if same_layer else 1,
    )
    # The neurons already span the layout; measuring hundreds of arrows for it takes seconds.
    arrow.set_in_layout(False)
    axes.add_patch(arrow)
