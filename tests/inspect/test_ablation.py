"""Layers without some of their neurons and synapses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils import parametrizations

import fastltc
from fastltc.inspect import ablate, trace
from layers.modules import KINDS, Kind, over_kinds

B, T, I, N = 3, 5, 4, 13  # noqa: E741


def make(kind: Kind, **options: Any) -> Any:
    return kind.moved(I, N, **options)


@over_kinds()
def test_an_ablated_neuron_is_silent(kind: Kind) -> None:
    layer = make(kind)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    x, neuron = torch.randn(B, T, I).double(), 5
    whole = layer(x)[0]
    with torch.no_grad(), ablate(layer, [neuron]):
        states = layer(x, return_states=True)[2]
        assert (states[:, :, neuron] == 0).all()
    after = layer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    torch.testing.assert_close(layer(x)[0], whole, rtol=0, atol=0)


def test_the_others_are_those_of_a_layer_that_never_had_it() -> None:
    layer = make(KINDS["LTC"])
    x, neuron = torch.randn(B, T, I).double(), 4
    cell = layer.rnn_cell
    kept = torch.tensor([k for k in range(N) if k != neuron])
    wiring = fastltc.wirings.from_adjacency(
        layer._wiring.adjacency_matrix[kept][:, kept],
        layer._wiring.sensory_adjacency_matrix[:, kept],
        2,
    )
    smaller = fastltc.LTC(I, wiring).double()
    with torch.no_grad():
        for name, value in cell.named_parameters():
            if "put_" not in name:
                value = value[..., kept]
            if value.dim() == 2 and not name.startswith("sensory"):
                value = value[kept]
            getattr(smaller.rnn_cell, name).copy_(value)
    smaller.rnn_cell.refresh_synapses()
    with torch.no_grad(), ablate(layer, [neuron]):
        without = layer(x)[0]
    torch.testing.assert_close(without, smaller(x)[0], rtol=0, atol=1e-12)


@over_kinds("LTC", "CfC, wired")
def test_names_are_those_of_a_trace(kind: Kind) -> None:
    layer, x = make(kind), torch.randn(B, T, I).double()
    names = trace(layer, x).neurons
    place = names.index("motor 1")
    with torch.no_grad():
        with ablate(layer, ["motor 1"]):
            by_name = layer(x, return_states=True)[2]
        with ablate(layer, [place]):
            torch.testing.assert_close(layer(x, return_states=True)[2], by_name)
    assert (by_name[:, :, place] == 0).all()


def test_one_synapse_of_an_ltc() -> None:
    layer, x = make(KINDS["LTC"]), torch.randn(B, T, I).double()
    cell = layer.rnn_cell
    pre, post = torch.nonzero(cell.sparsity_mask)[2].tolist()
    k, onto = torch.nonzero(cell.sensory_sparsity_mask)[1].tolist()
    with torch.no_grad(), ablate(layer, synapses=[(pre, post)], sensory_synapses=[(k, onto)]):
        assert layer.synapse_count == layer._wiring.synapse_count - 1
        without = layer(x)[0]
    other = make(KINDS["LTC"])
    other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        other.rnn_cell.sparsity_mask[pre, post] = 0
        other.rnn_cell.sensory_sparsity_mask[k, onto] = 0
    torch.testing.assert_close(without, other(x)[0], rtol=0, atol=0)
    pre, post = torch.nonzero(cell.sparsity_mask == 0)[0].tolist()
    with pytest.raises(ValueError, match=r"synapses: expected synapses that there are, got \[\("):
        ablate(layer, synapses=[(pre, post)]).__enter__()


@pytest.mark.parametrize("kind", [Kind("CfC"), Kind("CfC", False, {"backbone_layers": 0})])
def test_no_signal_passes_an_ablated_synapse_of_a_cfc(kind: Kind) -> None:
    layer = make(kind)
    sizes = layer.rnn_cell.layer_sizes if layer.wired_mode else [N]
    first = sizes[0] if layer.wired_mode else 0
    pre, post = (sizes[0] - 1, first) if layer.wired_mode else (2, 7)
    x = torch.randn(1, 1, I).double()

    def slope(column: int) -> float:
        jacobian = torch.autograd.functional.jacobian(
            lambda h: layer(x, h, return_states=True)[2][0, 0, post],
            torch.zeros(1, N, dtype=torch.float64),
        )
        return float(jacobian[0, column])

    own = (post + 1, post) if layer.wired_mode else (pre, post)
    assert slope(own[0]) != 0
    with ablate(layer, synapses=[own]):
        assert slope(own[0]) == 0
    if layer.wired_mode:
        weight = layer.rnn_cell._layers[1].time_a.weight
        with ablate(layer, synapses=[(pre, post)]):
            assert weight[0, pre] == 0
        assert weight[0, pre] != 0
        with pytest.raises(ValueError, match="synapses: expected synapses from a layer"):
            ablate(layer, synapses=[(N - 1, 0)]).__enter__()
        with pytest.raises(ValueError, match="sensory_synapses: expected synapses from a layer"):
            ablate(layer, sensory_synapses=[(0, N - 1)]).__enter__()


def test_everything_comes_back_after_an_error() -> None:
    layer = make(KINDS["LTC, mixed"])
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(RuntimeError, match="inside"), ablate(layer, [0, 3]):
        raise RuntimeError("inside")
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in before.items())


def test_bad_arguments() -> None:
    layer = make(KINDS["LTC"])
    for arguments, error, message in (
        ((torch.nn.Linear(1, 1),), TypeError, "layer: expected an LTC or CfC layer, got Linear"),
        ((layer, [N]), IndexError, "neuron: expected 0 to 12, got 13"),
        ((layer, ["motor 9"]), IndexError, "neuron: expected one of motor 0, .*got 'motor 9'"),
        ((layer, [], [], [(9, 0)]), IndexError, "input: expected 0 to 3, got 9"),
        ((make(KINDS["CfC, plain"]), [], [(0, 1)]), ValueError, "synapses: .*no backbone"),
    ):
        with pytest.raises(error, match=message):
            ablate(*arguments).__enter__()
    parametrized = make(KINDS["CfC, wired"])
    parametrizations.weight_norm(parametrized.rnn_cell._layers[0].ff1)
    with pytest.raises(TypeError, match="weight: expected a parameter of the layer"):
        ablate(parametrized, [0]).__enter__()
