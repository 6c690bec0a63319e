"""Synapses come and go between epochs, and the optimizer goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP, FullyConnected

from fastltc import LTC, CfC
from fastltc.nn import prune_synapses, regrow_synapses
from layers.modules import masked_parameters

B, T, I = 3, 4, 5  # noqa: E741


def trained(layer: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], 0.01)
    step(layer, optimizer)
    return optimizer


def step(layer: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    layer(torch.randn(B, T, I))[0].square().sum().backward()
    optimizer.step()


def masks(layer: Any) -> list[torch.Tensor]:
    return [value for name, value in layer.state_dict().items() if name.endswith("sparsity_mask")]


def count(layer: Any) -> int:
    return int(sum(mask.sum() for mask in masks(layer)))


LAYERS = {
    "LTC": lambda: LTC(I, FullyConnected(9, 2)),
    "CfC": lambda: CfC(I, AutoNCP(12, 2)),
    "CfC, pure": lambda: CfC(I, AutoNCP(12, 2), mode="pure"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_weakest_go_and_others_grow(name: str) -> None:
    layer = LAYERS[name]()
    optimizer = trained(layer)
    before, total = [mask.clone() for mask in masks(layer)], count(layer)
    gone = prune_synapses(layer, 0.3)
    assert gone == round(0.3 * total)
    assert count(layer) == total - gone
    kept = [mask.clone() for mask in masks(layer)]
    assert all((after <= mask).all() for after, mask in zip(kept, before, strict=True))
    moments = {
        id(p): {k: v.clone() for k, v in optimizer.state[p].items()}
        for p in layer.parameters()
        if p.requires_grad
    }
    values = {id(p): p.detach().clone() for p in layer.parameters()}
    assert regrow_synapses(layer, 7, optimizer) == 7
    assert count(layer) == total - gone + 7
    grown = [after - mask for after, mask in zip(masks(layer), kept, strict=True)]
    assert all((new >= 0).all() for new in grown)
    for parameter, mask in masked_parameters(layer):
        pairs = zip(masks(layer), kept, strict=True)
        pairs = zip(masks(layer), kept, strict=True)
        old = next(k for m, k in pairs if m.data_ptr() == mask.data_ptr())
        new = (mask == 1) & (old == 0)
        state = optimizer.state[parameter]
        assert torch.equal(parameter[~new], values[id(parameter)][~new])
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(state[moment][~new], moments[id(parameter)][moment][~new])
            assert (state[moment][new] == 0).all()
        assert torch.equal(state["step"], moments[id(parameter)]["step"])
    step(layer, optimizer)
    assert all(p.isfinite().all() for p in layer.parameters())
    for parameter, mask in masked_parameters(layer):
        assert (parameter.grad[mask == 0] == 0).all()


def test_the_strength_is_the_conductance() -> None:
    layer = LTC(I, FullyConnected(4, 2))
    with torch.no_grad():
        layer.rnn_cell.w.copy_(torch.arange(16.0).reshape(4, 4) - 40)
        layer.rnn_cell.sensory_w.fill_(3.0)
    prune_synapses(layer, 5 / (16 + 4 * I))
    assert layer.rnn_cell.sparsity_mask.flatten().tolist() == [0] * 5 + [1] * 11
    assert layer.synapse_count == 11


def test_new_parameters_are_those_of_a_new_layer() -> None:
    layer = LTC(I, FullyConnected(20, 2))
    assert prune_synapses(layer, 1.0) == count(LTC(I, FullyConnected(20, 2)))
    # Nothing of the inputs comes through.
    assert torch.equal(layer(torch.randn(B, T, I))[0], layer(torch.randn(B, T, I))[0])
    with torch.no_grad():
        for name in ("w", "erev", "sigma", "mu"):
            getattr(layer.rnn_cell, name).fill_(99.0)
    regrow_synapses(layer, 400 + 20 * I)
    cell = layer.rnn_cell
    assert set(cell.erev.flatten().tolist()) == {-1.0, 1.0}
    for name, low, high in (("w", 0.001, 1.0), ("sigma", 3.0, 8.0), ("mu", 0.3, 0.8)):
        values = getattr(cell, name)
        assert low <= values.min() < values.max() <= high
    generator = torch.Generator().manual_seed(3)
    for _ in range(2):
        prune_synapses(layer, 1.0)
        regrow_synapses(layer, 50, generator=generator.manual_seed(3))
        chosen = cell.sparsity_mask.clone()
    assert torch.equal(chosen, cell.sparsity_mask)


def test_bad_arguments() -> None:
    layer = CfC(I, AutoNCP(12, 2))
    places = int(sum((mask == 0).sum() for mask in masks(layer)))
    with pytest.raises(ValueError, match=r"fraction: expected 0 to 1, got 1\.5"):
        prune_synapses(layer, 1.5)
    with pytest.raises(ValueError, match=f"count: expected 0 to {places} places"):
        regrow_synapses(layer, places + 1)
    with pytest.raises(ValueError, match="layer: expected a CfC with a wiring"):
        prune_synapses(CfC(I, 4), 0.5)
    with pytest.raises(TypeError, match="layer: expected an LTC or CfC layer, got Linear"):
        regrow_synapses(torch.nn.Linear(2, 2), 1)
