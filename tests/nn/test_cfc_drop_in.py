"""What only CfC has, in the place of ncps: wired and plain cells, backbones, dropout, masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ncps.wirings import AutoNCP, FullyConnected, Random
from torch import Tensor, nn

import fastltc
from fastltc.nn import LSTMCell
from fastltc.ops import CFC_ACTIVATIONS, CFC_MODES
from ncps_twins import WIRINGS, check_twins, twins

pytestmark = pytest.mark.kernels


def data(batch: int = 3, time: int = 4, inputs: int = 5) -> Tensor:
    return torch.randn(batch, time, inputs, dtype=torch.float64)


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("batch", [1, 17])
def test_wired_layer(wiring: str, mode: str, batch: int) -> None:
    theirs, ours = twins(WIRINGS[wiring], 5, "CfC", mode=mode)
    check_twins(theirs, ours, data(batch))
    check_twins(theirs, ours, data(batch), torch.randn(batch, ours.state_size).double())


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("activation", CFC_ACTIVATIONS)
@pytest.mark.parametrize("layers", [None, 0, 2])
def test_plain_layer(layers: int | None, activation: str, mode: str) -> None:
    options = {"mode": mode, "activation": activation, "backbone_layers": layers}
    theirs, ours = twins(7, 5, "CfC", **options, backbone_units=9)
    check_twins(theirs, ours, data())
    check_twins(theirs, ours, data(), torch.randn(3, 7).double())


def test_default_backbone() -> None:
    theirs, ours = twins(7, 5, "CfC")
    assert ours.rnn_cell.backbone[0].weight.shape == (128, 12)
    check_twins(theirs, ours, data())


@pytest.mark.parametrize("mode", CFC_MODES)
def test_cells(mode: str) -> None:
    pairs = [
        twins(7, 5, "CfCCell", mode=mode),
        twins(7, 5, "CfCCell", mode=mode, backbone_layers=0),
        twins(WIRINGS["auto ncp"], 5, "WiredCfCCell", mode=mode),
    ]
    for theirs, ours in pairs:
        neurons = getattr(ours, "state_size", 7)
        x, hx = data(4)[:, 0], torch.randn(4, neurons).double()
        for ts in (1.0, 0.3, torch.tensor(0.7).double(), torch.rand(4, 1).double(), 0.0):
            check_twins(theirs, ours, x, hx, ts)
    theirs, ours = pairs[0]
    check_twins(theirs, ours, x, torch.randn(4, 7).double(), torch.rand(4, 7).double())


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("layers", [0, 2])
def test_a_cell_with_a_mask_of_its_own(layers: int, mode: str) -> None:
    inputs = 6 if layers else 12
    mask = np.random.default_rng().integers(-1, 2, (inputs, 7))
    options = {"backbone_units": 6, "backbone_layers": layers, "sparsity_mask": mask}
    theirs, ours = twins(7, 5, "CfCCell", mode=mode, **options)
    check_twins(theirs, ours, data()[:, 0], torch.randn(3, 7).double(), 0.7)
    exists = ours.sparsity_mask
    assert torch.equal(exists, torch.from_numpy(np.abs(mask.T)).double())
    ours(data()[:, 0], torch.randn(3, 7).double(), 0.7)[0].sum().backward()
    assert (ours.ff1.weight.grad[exists == 0] == 0).all()


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("mode", CFC_MODES)
def test_dropout(mode: str, mixed_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = twins(
        7,
        5,
        "CfC",
        mode=mode,
        mixed_memory=mixed_memory,
        backbone_layers=3,
        backbone_units=6,
        backbone_dropout=0.4,
    )
    batch, time = 3, 4
    factors = (torch.rand(2, batch, time, 6) > 0.4).double() / 0.6
    calls: list[tuple[int, ...]] = []

    def drop(x: Tensor, p: float, *_: Any) -> Tensor:
        assert p == 0.4
        ours_before = sum(shape[2] for shape in calls if len(shape) == 4)
        step, layer = divmod(sum(len(shape) == 2 for shape in calls), 2)
        calls.append(tuple(x.shape))
        if x.dim() == 4:  # all layers of the steps of a call
            return x * factors[:, :, ours_before : ours_before + x.shape[2]]
        return x * factors[layer, :, step]

    monkeypatch.setattr(torch.nn.functional, "dropout", drop)
    check_twins(theirs, ours, data(batch, time))
    assert calls.count((batch, 6)) == 2 * time
    assert sum(shape[2] for shape in calls if len(shape) == 4) == time


def test_module_attributes() -> None:
    wiring = AutoNCP(19, 2)
    layer = fastltc.CfC(5, wiring, mixed_memory=True)
    assert layer.wiring_or_units is layer.wiring is wiring
    assert isinstance(layer.rnn_cell, fastltc.WiredCfCCell)
    assert isinstance(layer.rnn_cell.layer_1, fastltc.CfCCell)
    assert isinstance(layer.lstm, LSTMCell)
    assert layer.use_mixed
    assert (layer.state_size, layer.output_size) == (19, 2)
    plain = fastltc.CfC(5, 7, proj_size=3)
    assert isinstance(plain.rnn_cell, fastltc.CfCCell)
    assert plain.fc.out_features == 3
    assert (plain.state_size, plain.output_size, plain.use_mixed) == (7, 7, False)


@pytest.mark.parametrize("assign", [True, False])
def test_a_checkpoint_of_another_wiring_brings_its_masks(assign: bool) -> None:
    def wiring(seed: int) -> Any:
        return lambda: Random(9, 9, sparsity_level=0.6, random_seed=seed)

    _, ours = twins(wiring(1), 5, "CfC")
    theirs, _ = twins(wiring(2), 5, "CfC")
    before = ours.rnn_cell.layer_0.sparsity_mask.clone()
    x = data()
    ours(x)
    ours.load_state_dict(theirs.state_dict(), assign=assign)
    assert not torch.equal(ours.rnn_cell.layer_0.sparsity_mask, before)
    check_twins(theirs, ours, x)
    with torch.no_grad():
        for layer in (ours, theirs):
            layer.rnn_cell.layer_0.sparsity_mask[:, :3] = 0
    check_twins(theirs, ours, x)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_wiring_for_two_layers_stays_as_it_is(wiring: str) -> None:
    built = WIRINGS[wiring]()
    first = fastltc.CfC(5, built)
    adjacency, sensory = built.adjacency_matrix.copy(), built.sensory_adjacency_matrix.copy()
    second, third = fastltc.CfC(5, built), fastltc.CfC(None, built)
    assert np.array_equal(built.adjacency_matrix, adjacency)
    assert np.array_equal(built.sensory_adjacency_matrix, sensory)
    for other in (second, third):
        for name, value in first.state_dict().items():
            if name.endswith("mask"):
                assert torch.equal(other.state_dict()[name], value)


@st.composite
def pairs(draw: Any) -> tuple[nn.Module, nn.Module, int]:
    inputs = draw(st.integers(1, 6))
    options = {"mode": draw(st.sampled_from(CFC_MODES))}
    units: Any
    if draw(st.booleans()):
        neurons = draw(st.integers(5, 24))
        outputs, seed = draw(st.integers(1, neurons - 4)), draw(st.integers(0, 999))
        level = draw(st.sampled_from([0.1, 0.5, 0.9]))
        units = draw(
            st.sampled_from(
                [
                    lambda: AutoNCP(neurons, min(outputs, neurons - 3), level, seed),
                    lambda: Random(neurons, outputs, level, seed),
                    lambda: FullyConnected(neurons, outputs),
                ]
            )
        )
    else:
        units = draw(st.integers(1, 24))
        options["backbone_layers"] = draw(st.integers(0, 3))
        options["backbone_units"] = draw(st.integers(1, 24))
        options["activation"] = draw(st.sampled_from(CFC_ACTIVATIONS))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    return *twins(units, inputs, "CfC", **options), inputs


@settings(max_examples=30, deadline=None)
@given(pairs(), st.integers(1, 20), st.integers(1, 4), st.booleans())
def test_any_layer_agrees_with_ncps(
    pair: tuple[nn.Module, nn.Module, int], batch: int, time: int, timed: bool
) -> None:
    theirs, ours, inputs = pair
    state = torch.randn(batch, ours.state_size).double()
    arguments = (torch.rand(1, time).double(),) if timed else ()
    check_twins(theirs, ours, data(batch, time, inputs), state, *arguments)
