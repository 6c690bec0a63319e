"""Pictures of a liquid network: a graph of its neurons."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from .diagram import line, looks
from .figure import BLUE, FILL, GREY, INK, ORANGE, shortened, to_png
from .network import Network

if TYPE_CHECKING:
    from ncps.wirings import Wiring


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
        given = {"ax": axes, "node_size": size, "connectionstyle": "arc3,rad=0.06", **look}
        networkx.draw_networkx_edges(
            graph, places, edgelist=chosen, style=style, width=widths, **given
        )
        handles.append(line(look["edge_color"], label, ls=style, lw=1.2))

    if within:
        graph.add_edges_from(within)
        look = {"edge_color": GREY, "alpha": 0.5, "arrows": True, "arrowstyle": "-"}
        edges(within, "within a layer: all, both ways", "dotted", 0.8, **look)
    widths = [width for _, width in looks(synapses)]
    wider = " (wider: larger w)" if any(one.weight is not None for one in synapses) else ""
    for label, style, color, holds in (
        (f"excitatory{wider}", "solid", BLUE, lambda sign: sign is not None and sign >= 0),
        (f"inhibitory{wider}", "dashed", ORANGE, lambda sign: sign is not None and sign < 0),
        ("masked: ff1 and ff2 (wider: larger weights)", "solid", INK, lambda sign: sign is None),
    ):
        chosen = [
            (synapse[:2], width)
            for synapse, width in zip(synapses, widths, strict=True)
            if holds(synapse.polarity)
        ]
        look = {"edge_color": color, "alpha": faint, "arrowsize": 7}
        edges([edge for edge, _ in chosen], label, style, [width for _, width in chosen], **look)
    for kind, color in FILL.items():
        own = [neuron for neuron, of_kind in kinds.items() if of_kind == kind]
        if not own:
            continue
        x, y = zip(*(places[neuron] for neuron in own), strict=True)
        axes.scatter(x, y, s=size, color=color, edgecolors=INK, linewidths=0.8, zorder=3)
        look = {"marker": "o", "ms": 8, "ls": "none", "mec": INK, "mew": 0.8}
        handles.append(line(color, f"{kind} ({len(own)})", **look))
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
