"""Pictures of a liquid network: what it computes, as layers, as a graph or as matrices."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch, Polygon, Rectangle
from matplotlib.transforms import Affine2D, ScaledTranslation
from numpy.typing import NDArray

from .figure import BLUE, GREY, ORANGE, shortened, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from ncps.wirings import Wiring

_FILL = {
    "sensory": "#e9ecef",
    "inter": "#ffec99",
    "command": "#66d9e8",
    "motor": "#d0bfff",
}
_INK = "#343a40"
# Of a CfC, a layer and what lies before it.
_LAYER = "#dee2e6"
_GATES = "#f1f3f5"
# Between the two lie synapses whose reversal potential is near 0.
_SIGNED = LinearSegmentedColormap.from_list("signed", [ORANGE, "#f1f3f5", BLUE])
# Half of the width of the box around a layer.
_HALF = 0.62
# More lines than these run together, and so do the neurons of a longer layer.
_MOST_LINES = 500
_MOST_NEURONS = 48

# ("sensory", index) or ("neuron", index)
Neuron = tuple[str, int]


class Synapse(NamedTuple):
    """A connection that is drawn as a line.

    Args:
        source: presynaptic neuron or input.
        target: postsynaptic neuron.
        polarity: reversal potential, or only its sign; None where the connection has neither.
        weight: how strong it is, from 0; None where that is not known.
    """

    source: Neuron
    target: Neuron
    polarity: float | None
    weight: float | None = None


class Matrix(NamedTuple):
    """Values of all connections of a kind.

    Args:
        title: what they are.
        values: ``[inputs + N, N]``, from row to column, both in the order of the wiring; NaN where
            there is no connection.
        signed: whether 0 is in the middle of the scale.
    """

    title: str
    values: NDArray[np.float64]
    signed: bool


@dataclass(frozen=True)
class Network:
    """What a liquid layer computes, for a picture.

    Args:
        title: the kind and the sizes.
        layers: the kind of each layer, and its neurons; inputs (``sensory``) first.
        synapses: connections that are drawn one by one.
        matrices: all connections.
        names: of inputs and outputs, where they have any.
        notes: what a reader of the picture must know.
        all_within: every neuron of a layer is connected to every neuron of it.
        gates: what else every neuron reads of the whole layer before; empty for nothing.
    """

    title: str
    layers: tuple[tuple[str, tuple[Neuron, ...]], ...]
    synapses: tuple[Synapse, ...]
    matrices: tuple[Matrix, ...] = ()
    names: Mapping[Neuron, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    all_within: bool = False
    gates: str = ""

    @classmethod
    def of_wiring(cls, wiring: Wiring) -> Network:
        """The synapses of a built wiring with their signs, with which the training of LTC starts.

        Raises:
            ValueError: the wiring is not built.
        """
        if not wiring.is_built():
            raise ValueError("wiring: expected a built wiring; call wiring.build(input_dim) first")
        signs = np.concatenate([wiring.sensory_adjacency_matrix, wiring.adjacency_matrix]).astype(
            float
        )
        signs[signs == 0] = np.nan
        synapses = tuple(synapses_of(signs, wiring.input_dim))
        return cls(
            describe_sizes(type(wiring).__name__, wiring.units, synapses),
            layers_of(wiring),
            synapses,
            (Matrix("sign of the synapse when training starts", signs, signed=True),),
        )

    @property
    def drawable(self) -> bool:
        """Whether lines would show more than a matrix: it is neither full nor too large."""
        neurons = sum(len(layer) for kind, layer in self.layers if kind != "sensory")
        between = sum(synapse.source[0] == "neuron" for synapse in self.synapses)
        full = len(self.layers) == 2 if self.all_within else between >= max(neurons, 2) ** 2
        return not (
            full
            or len(self.synapses) > _MOST_LINES
            or max(len(layer) for _, layer in self.layers) > _MOST_NEURONS
        )


def layers_of(wiring: Wiring) -> tuple[tuple[str, tuple[Neuron, ...]], ...]:
    """The inputs of a wiring, and its neurons by their kind."""
    by_kind: dict[str, list[Neuron]] = {kind: [] for kind in _FILL}
    by_kind["sensory"] = [("sensory", index) for index in range(wiring.input_dim)]
    for index in range(wiring.units):
        kind = wiring.get_type_of_neuron(index)
        by_kind[kind if kind in _FILL else "inter"].append(("neuron", index))
    return tuple((kind, tuple(layer)) for kind, layer in by_kind.items() if layer)


def synapses_of(
    polarities: NDArray[np.float64], inputs: int, weights: NDArray[np.float64] | None = None
) -> list[Synapse]:
    """The synapses of a matrix ``[inputs + N, N]``, in which NaN is none."""
    found = []
    for row, column in np.argwhere(~np.isnan(polarities)).tolist():
        source = ("sensory", row) if row < inputs else ("neuron", row - inputs)
        weight = None if weights is None else float(weights[row, column])
        found.append(Synapse(source, ("neuron", column), float(polarities[row, column]), weight))
    return found


def describe_sizes(name: str, neurons: int, synapses: Sequence[Synapse]) -> str:
    """The title of a picture."""
    sensory = sum(synapse.source[0] == "sensory" for synapse in synapses)
    return (
        f"{name}: {neurons} neurons, {len(synapses) - sensory} synapses, {sensory} sensory synapses"
    )


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
    draw = _lines if network.drawable else _matrices
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
    places = {}
    for column, (_, layer) in enumerate(layers):
        for row, neuron in enumerate(layer):
            spread = rows / len(layer)
            places[neuron] = (gap * column, -(row + 0.5) * spread)
    # A neuron is at most a circle of 0.3 rows, in which its number stays legible.
    pitch = (height - 2.2) * 72 / rows
    size = min(0.72 * pitch, 19.0)
    columns = {neuron: column for column, (_, layer) in enumerate(layers) for neuron in layer}
    if network.all_within or network.gates:
        _blocks(axes, network, gap, rows)
    # Hundreds of lines at full strength would run together.
    strength = min(1.0, (300 / max(len(synapses), 1)) ** 0.5)
    looks = _looks(synapses)
    # Strong ones on top.
    for synapse, (color, width) in sorted(
        zip(synapses, looks, strict=True), key=lambda pair: pair[1][1]
    ):
        _synapse(
            axes,
            places[synapse.source],
            places[synapse.target],
            polarity=synapse.polarity,
            same_layer=columns[synapse.source] == columns[synapse.target],
            size=size,
            color=color,
            width=width * strength,
            strength=strength,
        )
    letters = min(0.5 * size, 8.5)
    for kind, layer in layers:
        across, down = zip(*(places[neuron] for neuron in layer), strict=True)
        fill = _FILL.get(kind, "white")
        axes.plot(across, down, "o", ms=size, mfc=fill, mec=_INK, mew=0.9, zorder=3)
        axes.text(across[0], 0.35, f"{kind}\n{len(layer)}", ha="center", va="bottom", fontsize=11)
        for neuron in layer:
            axes.text(
                *places[neuron],
                str(neuron[1]),
                ha="center",
                va="center_baseline",
                fontsize=letters,
                zorder=4,
            )
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
    axes.legend(
        handles=_legend(network),
        loc="upper center",
        bbox_to_anchor=(0.5, 0.01),
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    axes.set_title(textwrap.fill(title, 100) + notes, fontsize=11)
    return figure


def _looks(synapses: Sequence[Synapse]) -> list[tuple[Any, float]]:
    """Colour and width of each line."""
    polarities = [abs(synapse.polarity or 0.0) for synapse in synapses]
    weights = [synapse.weight or 0.0 for synapse in synapses]
    largest, heaviest = max(polarities, default=0.0), max(weights, default=0.0)
    found = []
    for synapse, weight in zip(synapses, weights, strict=True):
        color: Any = _INK
        if synapse.polarity is not None:
            # Not quite down to the middle, where a line is white.
            share = abs(synapse.polarity) / largest if largest else 0.0
            share = 0.25 + 0.75 * share
            color = _SIGNED(0.5 + 0.5 * np.copysign(share, synapse.polarity))
        width = 1.0 if synapse.weight is None else 0.3 + 2.7 * weight / (heaviest or 1.0)
        found.append((color, width))
    return found


def _blocks(axes: Axes, network: Network, gap: float, rows: int) -> None:
    """Layers with all connections within, and what is read of the whole layer before."""
    for column, (kind, _) in enumerate(network.layers):
        left = gap * (column - 1) + (_HALF if column > 1 else 0.3)
        if column and network.gates:
            corners = [
                (left, 0.1),
                (gap * column - _HALF, 0.1),
                (gap * column - _HALF, -rows - 0.1),
                (left, -rows - 0.1),
            ]
            axes.add_patch(Polygon(corners, fc=_GATES, ec="none", zorder=0))
        if kind != "sensory" and network.all_within:
            axes.add_patch(
                Rectangle(
                    (gap * column - _HALF, -rows - 0.1),
                    2 * _HALF,
                    rows + 0.2,
                    fc=_LAYER,
                    ec=GREY,
                    lw=1,
                    zorder=0.5,
                )
            )


def _legend(network: Network) -> list[Any]:
    weighted = any(synapse.weight is not None for synapse in network.synapses)
    if any(synapse.polarity is not None for synapse in network.synapses):
        above, below = ("", "")
        if weighted:
            above, below = (f" (reversal potential erev {at} 0)" for at in ("above", "below"))
        handles: list[Any] = [
            _line(BLUE, f"excitatory{above}", lw=1.6, marker=">", ms=6),
            _line(ORANGE, f"inhibitory{below}", lw=1.6, marker="|", ms=9, mew=1.6),
        ]
        if weighted:
            handles.append(_line(_INK, "wider: larger conductance w", lw=2.6))
            handles.append(_line(_SIGNED(0.62), "paler: erev nearer to 0", lw=2.6))
        return handles
    label = "masked: ff1 and ff2 (wider: larger weights); no sign"
    handles = [_line(_INK, label, lw=1.6, marker=">", ms=5)]
    if network.all_within:
        label = "within a layer, ff1 and ff2: every neuron reads every neuron"
        handles.append(Patch(fc=_LAYER, ec=GREY, label=label))
    if network.gates:
        handles.append(Patch(fc=_GATES, ec=_LAYER, label=network.gates))
    return handles


def _line(color: Any, label: str, **look: Any) -> Line2D:
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
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    polarity: float | None,
    same_layer: bool,
    size: float,
    color: Any,
    width: float,
    strength: float,
) -> None:
    inhibitory = polarity is not None and polarity < 0
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
        lw=width,
        alpha=0.75 * strength,
        zorder=2 if same_layer else 1,
    )
    # The neurons already span the layout; measuring hundreds of arrows for it takes seconds.
    arrow.set_in_layout(False)
    axes.add_patch(arrow)


def _matrices(network: Network, title: str) -> Figure:
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
    figure = Figure(
        figsize=(across * (side + 1.9), down * (tall + 0.7) + 1.0), layout="constrained"
    )
    panels = figure.subplots(down, across, squeeze=False).ravel()
    starts = np.cumsum([0, *(len(layer) for _, layer in network.layers)])
    for axes, matrix in zip(panels, network.matrices, strict=False):
        shown = matrix.values[np.ix_(rows, columns)]
        most = float(np.nanmax(np.abs(shown))) if np.isfinite(shown).any() else 1.0
        image = axes.imshow(
            shown,
            cmap=_SIGNED if matrix.signed else "viridis",
            norm=Normalize(-most if matrix.signed else 0.0, most or 1.0),
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_facecolor("white")
        for start in starts[1:-1]:
            axes.axhline(start - 0.5, color=_INK, lw=0.8)
            if start > inputs:
                axes.axvline(start - 0.5 - inputs, color=_INK, lw=0.8)
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
    long = len(beside) > 4
    axes.set_xticks(
        list(beside),
        list(beside.values()),
        fontsize=7,
        rotation=60 if long else 0,
        ha="right" if long else "center",
        rotation_mode="anchor" if long else "default",
    )
    axes.tick_params(length=0)


def wiring_graph(network: Network | Wiring, *, title: str = "", of: str = "") -> bytes:
    """The neurons of a network as a graph: connected ones close together (Kamada-Kawai).

    Command neurons are cyan; solid lines are excitatory synapses, dashed ones inhibitory, dark ones
    connections without a sign, dotted ones those within the layers of a CfC, where everything is
    connected.

    Args:
        network: see `wiring_diagram`.
        title: written above.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.

    Raises:
        ValueError: the wiring is not built.

    Source: T. Kamada, S. Kawai, "An algorithm for drawing general undirected graphs", 1989.
    """
    import networkx

    if not isinstance(network, Network):
        network = Network.of_wiring(network)
    synapses = network.synapses
    graph = networkx.DiGraph()
    kinds = {neuron: kind for kind, layer in network.layers for neuron in layer}
    graph.add_nodes_from(kinds)
    graph.add_edges_from((synapse.source, synapse.target) for synapse in synapses)
    within = [
        (one, other)
        for kind, layer in network.layers
        if network.all_within and kind != "sensory"
        for place, one in enumerate(layer)
        for other in layer[place + 1 :]
    ]
    near = networkx.compose(graph, networkx.DiGraph(within)).to_undirected()
    places = networkx.kamada_kawai_layout(near)
    figure = Figure(figsize=(8, 8.6), layout="constrained")
    axes = figure.subplots()
    size = float(np.clip(9000 / len(kinds), 30, 300))
    faint = float(np.clip((150 / max(len(synapses), 1)) ** 0.5, 0.15, 0.8))
    handles: list[Any] = []

    def edges(chosen: list[Any], label: str, style: str, widths: Any, **look: Any) -> None:
        if not chosen:
            return
        networkx.draw_networkx_edges(
            graph,
            places,
            edgelist=chosen,
            ax=axes,
            style=style,
            width=widths,
            node_size=size,
            connectionstyle="arc3,rad=0.06",
            **look,
        )
        handles.append(_line(look["edge_color"], label, ls=style, lw=1.2))

    if within:
        graph.add_edges_from(within)
        look = {"edge_color": GREY, "alpha": 0.5, "arrows": True, "arrowstyle": "-"}
        edges(within, "within a layer: all, both ways", "dotted", 0.8, **look)
    widths = [width for _, width in _looks(synapses)]
    wider = " (wider: larger w)" if any(one.weight is not None for one in synapses) else ""
    for label, style, color, holds in (
        (f"excitatory{wider}", "solid", BLUE, lambda sign: sign is not None and sign >= 0),
        (f"inhibitory{wider}", "dashed", ORANGE, lambda sign: sign is not None and sign < 0),
        ("masked: ff1 and ff2 (wider: larger weights)", "solid", _INK, lambda sign: sign is None),
    ):
        chosen = [
            (synapse[:2], width)
            for synapse, width in zip(synapses, widths, strict=True)
            if holds(synapse.polarity)
        ]
        look = {"edge_color": color, "alpha": faint, "arrowsize": 7}
        edges([edge for edge, _ in chosen], label, style, [width for _, width in chosen], **look)
    for kind, color in _FILL.items():
        own = [neuron for neuron, of_kind in kinds.items() if of_kind == kind]
        if not own:
            continue
        x, y = zip(*(places[neuron] for neuron in own), strict=True)
        axes.scatter(x, y, s=size, color=color, edgecolors=_INK, linewidths=0.8, zorder=3)
        look = {"marker": "o", "ms": 8, "ls": "none", "mec": _INK, "mew": 0.8}
        handles.append(_line(color, f"{kind} ({len(own)})", **look))
    for neuron, name in network.names.items():
        axes.annotate(
            shortened(name, 24),
            places[neuron],
            xytext=(0, 0.5 * size**0.5 + 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7.5,
            zorder=4,
            bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5},
        )
    axes.margins(0.12)
    axes.set_axis_off()
    notes = (*network.notes, *([f"not drawn: {network.gates}"] if network.gates else []))
    axes.set_title("\n".join([textwrap.fill(title, 80), *notes]), fontsize=11)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return to_png(figure, of)
