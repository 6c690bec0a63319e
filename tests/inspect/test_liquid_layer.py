"""The picture of a liquid layer shows what the layer computes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from ncps.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring
from torch import nn

from fastltc import LTC, CfC
from fastltc import inspect as plots
from fastltc.inspect import Network, network_of
from fastltc.jobs.models import build_model

WIRINGS = {
    "auto": lambda: AutoNCP(14, 3),
    "ncp": lambda: NCP(5, 4, 3, 3, 2, 2, 2),
    "random": lambda: Random(9, 2, sparsity_level=0.6),
    "full": lambda: FullyConnected(6, 2),
}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    kept: list[Figure] = []
    real = plots.figure.to_png

    def keep(figure: Figure, *arguments: str, **options: str) -> bytes:
        kept.append(figure)
        return real(figure, *arguments, **options)

    for module in (plots.diagram, plots.graph):
        monkeypatch.setattr(module, "to_png", keep)
    return kept


def trained(layer: nn.Module) -> Any:
    """A layer with parameters far from those it starts with."""
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    return layer


def moved(layer: Any, inputs: int, units: int) -> np.ndarray:
    """``[inputs + N, N]``, which neuron's next state depends on what, by the layer itself."""
    x = torch.randn(1, 1, inputs)
    h = torch.randn(1, units)

    def run(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return layer(x, h)[1][0]

    of_x, of_h = torch.autograd.functional.jacobian(run, (x, h))
    return torch.cat([of_x.reshape(units, inputs), of_h.reshape(units, units)], 1).T.numpy() != 0


@pytest.mark.parametrize("kind", WIRINGS)
@pytest.mark.parametrize("mode", ["default", "pure", "no_gate"])
def test_what_is_shown_of_a_cfc_is_what_its_states_depend_on(
    float64_default: None, kind: str, mode: str
) -> None:
    layer = trained(CfC(4, WIRINGS[kind](), mode=mode))
    network = network_of(layer)
    assert network is not None
    shown = np.zeros((4 + network_units(network), network_units(network)), dtype=bool)
    for matrix in network.matrices:
        shown |= ~np.isnan(matrix.values)
    # A layer reads the new state of the one before it: what depends on that in turn does, too.
    size, inputs = layer.state_size, 4
    direct = shown.copy()
    layers = [
        [index for _, index in neurons] for kind, neurons in network.layers if kind != "sensory"
    ]
    for before, own in itertools.pairwise(layers):
        reads_new = direct[inputs:][np.ix_(before, own)]
        # Not the old state of the layer before.
        shown[np.ix_([inputs + index for index in before], own)] = False
        shown[:, own] |= (shown[:, before].astype(int) @ reads_new.astype(int)) > 0
    # The state is in the order of the layers, a wiring counts motor neurons first.
    order = [index for own in layers for index in own]
    rows = [*range(inputs), *(inputs + index for index in order)]
    np.testing.assert_array_equal(shown[np.ix_(rows, order)], moved(layer, inputs, size))
    assert all(synapse.polarity is None for synapse in network.synapses)
    masked, *rest = [~np.isnan(matrix.values) for matrix in network.matrices]
    if mode != "pure":
        np.testing.assert_array_equal(masked, rest[0])
        full = rest[1] | rest[2]
        assert (full >= masked).all()
        assert bool(network.gates)
    else:
        assert (rest, network.gates) == ([], "")


def network_units(network: Network) -> int:
    return sum(len(layer) for kind, layer in network.layers if kind != "sensory")


@pytest.mark.parametrize("kind", WIRINGS)
def test_what_is_shown_of_an_ltc_is_what_its_parameters_do(
    float64_default: None, kind: str
) -> None:
    layer = trained(LTC(4, WIRINGS[kind]()))
    cell = layer.rnn_cell
    with torch.no_grad():  # a checkpoint may bring another mask
        one = torch.nonzero(cell.sparsity_mask)[0]
        cell.sparsity_mask[tuple(one)] = 0
    network = network_of(layer)
    assert network is not None
    found = {(synapse.source, synapse.target): synapse for synapse in network.synapses}
    for prefix, source in (("sensory_", "sensory"), ("", "neuron")):
        mask = getattr(cell, f"{prefix}sparsity_mask")
        erev = getattr(cell, f"{prefix}erev").detach()
        weight = nn.functional.softplus(getattr(cell, f"{prefix}w").detach())
        for row, column in np.ndindex(*mask.shape):
            synapse = found.pop(((source, row), ("neuron", column)), None)
            if not mask[row, column]:
                assert synapse is None
                continue
            assert synapse.polarity == pytest.approx(float(erev[row, column]))
            assert synapse.weight == pytest.approx(float(weight[row, column]))
    assert not found


def hue(arrow: FancyArrowPatch) -> tuple[float, ...]:
    return tuple(np.round(arrow.get_edgecolor()[:3], 3))


def test_colour_and_width_of_a_synapse_follow_training(figures: list[Figure]) -> None:
    wiring = Wiring(3)
    wiring.set_output_dim(1)
    wiring.build(1)
    wiring.add_sensory_synapse(0, 2, 1)
    wiring.add_synapse(2, 0, 1)
    wiring.add_synapse(2, 1, 1)
    layer = LTC(1, wiring)
    with torch.no_grad():
        layer.rnn_cell.erev[2, 0] = -1.0
        layer.rnn_cell.erev[2, 1] = 0.05
        layer.rnn_cell.w[2, 0] = 5.0
        layer.rnn_cell.w[2, 1] = -5.0
    plots.wiring_diagram(network_of(layer))
    (axes,) = figures[0].axes
    arrows = sorted(
        (patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)),
        key=lambda arrow: arrow.get_linewidth(),
    )
    pale, blue, orange = (hue(arrow) for arrow in arrows)
    assert orange == tuple(np.round(to_rgb(plots.figure.ORANGE), 3))
    assert blue == tuple(np.round(to_rgb(plots.figure.BLUE), 3))
    assert min(pale) > 0.6
    assert pale[2] > pale[0]  # bluish
    assert arrows[2].get_linewidth() > 2 * arrows[1].get_linewidth()


def test_the_picture_of_a_cfc_has_no_signs_and_boxes_around_what_is_full(
    figures: list[Figure],
) -> None:
    layer = CfC(4, AutoNCP(14, 3))
    plots.wiring_diagram(network_of(layer))
    (axes,) = figures[0].axes
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len({hue(arrow) for arrow in arrows}) == 1
    assert len([patch for patch in axes.patches if isinstance(patch, Rectangle)]) == 3
    masks = [cell.sparsity_mask.T for cell in layer.rnn_cell._layers]
    assert len(arrows) == sum(int(mask[: len(mask) - len(mask.T)].sum()) for mask in masks)
    legend = " ".join(text.get_text() for text in axes.get_legend().get_texts())
    for word in ("masked", "no sign", "within a layer", "time gates (time_a, time_b)"):
        assert word in legend
    assert "excitatory" not in legend


def test_a_cfc_with_a_mask_within_a_layer_is_not_drawn_as_full() -> None:
    layer = CfC(4, AutoNCP(14, 3))
    mask = layer.rnn_cell.layer_2.sparsity_mask
    with torch.no_grad():
        mask[0, -1] = 0  # of a motor neuron on another
    network = network_of(layer)
    assert network is not None
    assert not network.all_within
    pairs = {(synapse.source[1], synapse.target[1]) for synapse in network.synapses}
    assert (2, 0) not in pairs
    assert {(2, 1), (0, 2), (2, 2)} <= pairs


@pytest.mark.parametrize(
    ("layer", "panels"),
    [
        (lambda: LTC(3, FullyConnected(5, 2)), ["reversal potential", "conductance"]),
        (lambda: LTC(3, AutoNCP(90, 5)), ["reversal potential", "conductance"]),
        (lambda: CfC(3, FullyConnected(5, 2)), ["ff1", "ff2", "time_a", "time_b"]),
        (lambda: CfC(3, AutoNCP(90, 5), mode="pure"), ["ff1"]),
    ],
)
def test_what_is_full_or_large_is_a_matrix(
    figures: list[Figure], layer: Any, panels: list[str]
) -> None:
    network = network_of(layer())
    assert network is not None
    assert not network.drawable
    plots.wiring_diagram(network)
    shown = [axes for axes in figures[0].axes if axes.get_images()]
    assert len(shown) == len(panels)
    for axes, panel, matrix in zip(shown, panels, network.matrices, strict=True):
        assert axes.get_title().startswith(panel)
        (image,) = axes.get_images()
        drawn, known = np.ma.filled(image.get_array(), np.nan), matrix.values
        assert drawn.shape == known.shape
        np.testing.assert_allclose(np.sort(drawn, axis=None), np.sort(known, axis=None))


def test_names_of_classes_and_features(figures: list[Figure]) -> None:
    classes, features = ["a class with a very long name indeed, really", "b"], ["x", "y", "z"]
    model = build_model("series-ltc", (8, 3), 2, 8, wiring="ncp")
    network = network_of(model, classes, features)
    assert network is not None
    assert network.names == {
        ("neuron", 0): classes[0],
        ("neuron", 1): "b",
        **{("sensory", index): name for index, name in enumerate(features)},
    }
    plots.wiring_diagram(network)
    plots.wiring_graph(network)
    for figure in figures:
        words = {text.get_text() for text in figure.axes[0].texts}
        assert {"b", "x", "y", "z"} <= words
        assert any(word.startswith("a class") and "..." in word for word in words)
        figure.draw_without_rendering()
        width = figure.bbox.width
        for text in figure.axes[0].texts:
            box = text.get_window_extent()
            assert -1 <= box.x0 <= box.x1 <= width + 1, text
    # A readout behind the neurons, or features in front of the layer: they are not the classes.
    full = network_of(build_model("series-ltc", (8, 3), 2, 8, wiring="full"), classes, features)
    assert full is not None
    assert ("neuron", 0) not in full.names
    rows = network_of(build_model("rows-ltc", (1, 8, 8), 2, 8, wiring="ncp"), classes, ())
    assert rows is not None
    assert set(rows.names) == {("neuron", 0), ("neuron", 1)}


def test_models_without_a_wired_layer_have_no_network() -> None:
    assert network_of(build_model("dense", (1, 8, 8), 2)) is None
    assert network_of(CfC(3, 5)) is None


def test_what_is_not_drawn_is_said() -> None:
    mixed = network_of(LTC(3, AutoNCP(8, 2), mixed_memory=True))
    several = network_of(build_model("conv-ncp", (1, 8, 8), 2, 8, members=3))
    assert mixed is not None
    assert several is not None
    assert "LSTM cell" in mixed.notes[0]
    assert several.notes == ("the first of 3 members",)
