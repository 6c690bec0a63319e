"""Conductances by the fan-in: what a layer remembers, what is drawn, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastltc import LTC, CfC
from fastltc.nn import init_by_fan_in
from fastltc.wirings import FullyConnected, Random


def kept(layer: LTC) -> float:
    """The share of a difference of states that is left after ten steps."""
    x = torch.randn(16, 10, layer.input_size).double()
    start = torch.randn(16, layer.state_size).double() * 0.1
    with torch.no_grad():
        _, one = layer(x, start, timespans=0.3)
        _, other = layer(x, start + 0.1, timespans=0.3)
    return float((one - other).abs().mean() / 0.1)


def test_a_full_layer_remembers() -> None:
    layer = LTC(4, FullyConnected(64)).double()
    before = kept(layer)
    init_by_fan_in(layer)
    # Of 100 draws: 3e-12 to 3e-9, and 8e-6 to 6e-5.
    assert before < 1e-7
    assert kept(layer) > 1e-6


@pytest.mark.parametrize("constrained", [True, False])
def test_what_is_drawn(constrained: bool) -> None:
    wiring = Random(32, 32, sparsity_level=0.5)
    layer = LTC(5, wiring, implicit_param_constraints=constrained)
    cell: Any = layer.rnn_cell
    others = {name: one.clone() for name, one in layer.state_dict().items()}
    init_by_fan_in(layer, conductance=6.0, reversal=0.25)
    count = cell.sparsity_mask.sum(0) + cell.sensory_sparsity_mask.sum(0)
    for prefix in ("", "sensory_"):
        there = getattr(cell, f"{prefix}sparsity_mask") != 0
        each: Tensor = cell.make_positive_fn(getattr(cell, f"{prefix}w")) * count / 6
        assert (each[there] > 0.19).all()
        assert (each[there] < 1.81).all()
        assert getattr(cell, f"{prefix}mu")[there].abs().max() <= 0.5
        erev = getattr(cell, f"{prefix}erev")
        size = (0.25 * count.sqrt()).expand_as(erev)
        torch.testing.assert_close(erev[there].abs(), size[there])
        assert torch.equal(erev[there].sign(), others[f"rnn_cell.{prefix}erev"][there].sign())
    mean = float((cell.make_positive_fn(cell.w.detach()) * cell.sparsity_mask).sum() / 32)
    assert mean == pytest.approx(6 * float((cell.sparsity_mask.sum(0) / count).mean()), rel=0.1)
    drawn = {f"{prefix}{name}" for prefix in ("", "sensory_") for name in ("w", "mu", "erev")}
    for name, value in layer.state_dict().items():
        same = torch.equal(value, others[name])
        assert same == (name.removeprefix("rnn_cell.") not in drawn), name


def test_a_neuron_without_synapses_is_left_alone() -> None:
    layer = LTC(3, FullyConnected(6))
    cell: Any = layer.rnn_cell
    with torch.no_grad():
        cell.sparsity_mask[:, 2] = 0
        cell.sensory_sparsity_mask[:, 2] = 0
    cell.refresh_synapses()
    init_by_fan_in(layer)
    assert all(one.isfinite().all() for one in layer.state_dict().values())


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", ["conductance", "reversal"])
def test_numbers_that_do_not_fit(name: str, value: float) -> None:
    layer = LTC(3, 6)
    before = layer.rnn_cell.w.clone()
    with pytest.raises(ValueError, match=rf"{name}: expected a finite number above 0, got"):
        init_by_fan_in(layer, **{name: value})
    assert torch.equal(layer.rnn_cell.w, before)


def test_only_an_ltc_has_conductances() -> None:
    with pytest.raises(TypeError, match="layer: expected an LTC layer, got CfC"):
        init_by_fan_in(CfC(3, 6))
