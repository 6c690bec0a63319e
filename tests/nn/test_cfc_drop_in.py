"""CfC and its cells in the place of those of ncps: same arguments, names, numbers, checkpoints."""

from __future__ import annotations

import inspect
from typing import Any

import ncps.torch
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ncps.wirings import AutoNCP, FullyConnected, Random, Wiring
from torch import Tensor, nn

import fastltc
from cfc_cases import cfc_twins
from fastltc.nn import LSTMCell
from fastltc.ops import CFC_ACTIVATIONS, CFC_MODES
from ncps_twins import WIRINGS, check_twins


def data(batch: int = 3, time: int = 4, inputs: int = 5) -> Tensor:
    return torch.randn(batch, time, inputs, dtype=torch.float64)


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("batch", [1, 17])
def test_wired_layer(wiring: str, mode: str, batch: int) -> None:
    theirs, ours = cfc_twins(5, WIRINGS[wiring], mode=mode)
    check_twins(theirs, ours, data(batch))
    check_twins(theirs, ours, data(batch), torch.randn(batch, ours.state_size).double())


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("activation", CFC_ACTIVATIONS)
@pytest.mark.parametrize("layers", [None, 0, 2])
def test_plain_layer(layers: int | None, activation: str, mode: str) -> None:
    options = {"mode": mode, "activation": activation, "backbone_layers": layers}
    theirs, ours = cfc_twins(5, 7, **options, backbone_units=9)
    check_twins(theirs, ours, data())
    check_twins(theirs, ours, data(), torch.randn(3, 7).double())


def test_default_backbone() -> None:
    theirs, ours = cfc_twins(5, 7)
    assert ours.rnn_cell.backbone[0].weight.shape == (128, 12)
    check_twins(theirs, ours, data())


@pytest.mark.parametrize("mode", CFC_MODES)
def test_cells(mode: str) -> None:
    pairs = [
        cfc_twins(5, 7, "CfCCell", mode=mode),
        cfc_twins(5, 7, "CfCCell", mode=mode, backbone_layers=0),
        cfc_twins(5, WIRINGS["auto ncp"], "WiredCfCCell", mode=mode),
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
    theirs, ours = cfc_twins(5, 7, "CfCCell", mode=mode, **options)
    check_twins(theirs, ours, data()[:, 0], torch.randn(3, 7).double(), 0.7)
    exists = ours.sparsity_mask
    assert torch.equal(exists, torch.from_numpy(np.abs(mask.T)).double())
    ours(data()[:, 0], torch.randn(3, 7).double(), 0.7)[0].sum().backward()
    assert (ours.ff1.weight.grad[exists == 0] == 0).all()


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
# ncps makes its initial state in the default dtype.
@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("proj_size", [None, 3])
@pytest.mark.parametrize("units", ["auto ncp", 19])
def test_layouts(
    units: str | int,
    proj_size: int | None,
    mixed_memory: bool,
    batch_first: bool,
    return_sequences: bool,
) -> None:
    theirs, ours = cfc_twins(
        5,
        WIRINGS[units] if isinstance(units, str) else units,
        mixed_memory=mixed_memory,
        batch_first=batch_first,
        return_sequences=return_sequences,
        proj_size=proj_size,
    )
    x = data(3, 4) if batch_first else data(4, 3)
    state = torch.randn(3, 19).double()
    if mixed_memory:
        state = state, torch.randn(3, 19).double()
    check_twins(theirs, ours, x)
    check_twins(theirs, ours, x, state)
    if return_sequences:
        assert ours(x)[0].is_contiguous()


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("units", ["auto ncp", 19])
def test_one_sequence_without_a_batch_axis(
    units: str | int, mixed_memory: bool, return_sequences: bool
) -> None:
    options = {"mixed_memory": mixed_memory, "return_sequences": return_sequences, "proj_size": 3}
    size = WIRINGS[units] if isinstance(units, str) else units
    theirs, ours = cfc_twins(5, size, **options)
    state = torch.randn(19).double()
    if mixed_memory:
        state = state, torch.randn(19).double()
    x = data(1, 4)[0]
    check_twins(theirs, ours, x)
    check_twins(theirs, ours, x, state)
    check_twins(theirs, ours, x, state, torch.rand(4).double())
    # ncps returns [1, M] with batch_first=False and return_sequences=False; here the two agree.
    time_first = fastltc.CfC(5, ours.wiring_or_units, batch_first=False, **options).double()
    time_first.load_state_dict(ours.state_dict())
    for actual, expected in zip(time_first(x, state), ours(x, state), strict=True):
        if isinstance(actual, Tensor):
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("mode", CFC_MODES)
def test_dropout(mode: str, mixed_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = cfc_twins(
        5,
        7,
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


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("mode", CFC_MODES)
def test_time_steps_that_ncps_gets_right(mode: str, mixed_memory: bool) -> None:
    theirs, ours = cfc_twins(5, 7, mixed_memory=mixed_memory, mode=mode)
    wired = cfc_twins(5, WIRINGS["auto ncp"], mixed_memory=mixed_memory, mode=mode)
    for batch in (1, 3):

        def state(neurons: int, batch: int = batch) -> Any:
            pair = torch.randn(2, batch, neurons).double()
            return tuple(pair) if mixed_memory else pair[0]

        check_twins(theirs, ours, data(batch), state(7), torch.rand(batch, 4, 7).double())
        check_twins(theirs, ours, data(batch), state(7), torch.rand(1, 4).double())
        check_twins(*wired, data(batch), state(19), torch.rand(1, 4).double())


@pytest.mark.parametrize("units", ["auto ncp", 19])
def test_float32_to_rounding(units: str | int) -> None:
    size = WIRINGS[units] if isinstance(units, str) else units
    theirs, ours = cfc_twins(5, size)
    x = data(20, 6)
    exact, _ = ours(x)
    theirs, ours, x = theirs.float(), ours.float(), x.float()
    their_error = (theirs(x)[0] - exact).abs().max()
    assert (ours(x)[0] - exact).abs().max() <= 4 * their_error + 1e-6


def signature(function: Any) -> list[tuple[str, Any]]:
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", ["CfC", "CfCCell", "WiredCfCCell"])
def test_arguments_and_defaults(name: str) -> None:
    theirs, ours = getattr(ncps.torch, name), getattr(fastltc, name)
    assert signature(ours.__init__) == signature(theirs.__init__)
    wanted = signature(theirs.forward)
    assert signature(ours.forward)[: len(wanted)] == wanted


def kinds() -> dict[str, Any]:
    return {
        "wired": lambda package: package.CfC(5, AutoNCP(19, 2), mixed_memory=True, proj_size=3),
        "plain": lambda package: package.CfC(5, 19, mode="pure"),
        "cell": lambda package: package.CfCCell(5, 7, backbone_layers=2, backbone_dropout=0.1),
        "masked cell": lambda package: package.CfCCell(
            5, 2, backbone_layers=0, sparsity_mask=np.eye(7, 2)
        ),
        "wired cell": lambda package: package.WiredCfCCell(5, AutoNCP(19, 2)),
    }


@pytest.mark.parametrize("name", kinds())
def test_attributes_and_properties(name: str) -> None:
    theirs, ours = (kinds()[name](package) for package in (ncps.torch, fastltc))
    for attribute in dir(theirs):
        if attribute.startswith("_") or attribute in dir(nn.Module()):
            continue
        value, wanted = getattr(ours, attribute), getattr(theirs, attribute)
        if attribute == "sensory_synapse_count":  # ncps counts the other matrix
            wanted = np.abs(ours._wiring.sensory_adjacency_matrix).sum()
        if isinstance(wanted, (bool, int, float, str, list, np.number, type(None))):
            assert value == wanted, attribute
        elif isinstance(wanted, nn.Module):
            assert isinstance(value, nn.Module), attribute
            assert type(value).__name__ == type(wanted).__name__, attribute
    if name == "wired cell":
        assert [type(layer).__name__ for layer in ours._layers] == ["CfCCell"] * 3


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


def layer_options() -> list[dict[str, Any]]:
    wired = [{"units": make, "mode": mode} for make in WIRINGS.values() for mode in CFC_MODES]
    plain = [
        {"units": 7, "mode": "pure", "backbone_layers": 3, "backbone_dropout": 0.2},
        {"units": 7, "activation": "relu", "backbone_layers": 0},
        {"units": 7, "mode": "no_gate", "backbone_units": 6, "backbone_layers": 2},
        {"units": np.int64(7)},
    ]
    return wired + plain


@pytest.mark.parametrize("options", layer_options())
@pytest.mark.parametrize("mixed_memory", [True, False])
def test_the_same_seed_gives_the_same_parameters(
    options: dict[str, Any], mixed_memory: bool, seed: int
) -> None:
    options = dict(options)
    units = options.pop("units")

    def make(package: Any) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(seed)
        size = units() if callable(units) else units
        proj_size = None if isinstance(size, (FullyConnected, Random)) else 3
        layer = package.CfC(5, size, proj_size, mixed_memory=mixed_memory, **options)
        return layer, torch.rand(1)

    (theirs, after), (ours, our_after) = make(ncps.torch), make(fastltc)
    assert torch.equal(our_after, after), "another number of draws"
    wanted = theirs.state_dict()
    assert list(ours.state_dict()) == list(wanted)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, wanted[name]), name
        assert value.dtype == wanted[name].dtype
    grads = {name: p.requires_grad for name, p in theirs.named_parameters()}
    assert {name: p.requires_grad for name, p in ours.named_parameters()} == grads
    assert not list(ours.buffers())


def test_the_default_dtype_is_followed(float64_default: None) -> None:
    theirs, ours = ncps.torch.CfC(5, AutoNCP(19, 2)), fastltc.CfC(5, AutoNCP(19, 2))
    for name, value in ours.state_dict().items():
        assert value.dtype == theirs.state_dict()[name].dtype
    ours.load_state_dict(theirs.state_dict())
    check_twins(theirs, ours, torch.randn(2, 3, 5))


@pytest.mark.parametrize("units", ["auto ncp", 19])
@pytest.mark.parametrize("mixed_memory", [True, False])
def test_checkpoints_load_both_ways(units: str | int, mixed_memory: bool, tmp_path: Any) -> None:
    def make(package: Any) -> nn.Module:
        size = WIRINGS[units]() if isinstance(units, str) else units
        return package.CfC(5, size, mixed_memory=mixed_memory, proj_size=3)

    theirs, ours = make(ncps.torch), make(fastltc)
    x = torch.randn(3, 4, 5)
    for source, target in ((theirs, ours), (ours, theirs)):
        with torch.no_grad():
            for parameter in source.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        file = tmp_path / "checkpoint.pt"
        torch.save(source.state_dict(), file)
        target.load_state_dict(torch.load(file, weights_only=True), strict=True)
        torch.testing.assert_close(target(x)[0], source(x)[0])


@pytest.mark.parametrize("assign", [True, False])
def test_a_checkpoint_of_another_wiring_brings_its_masks(assign: bool) -> None:
    def wiring(seed: int) -> Any:
        return lambda: Random(9, 9, sparsity_level=0.6, random_seed=seed)

    _, ours = cfc_twins(5, wiring(1))
    theirs, _ = cfc_twins(5, wiring(2))
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


def test_synapse_counts() -> None:
    wiring = AutoNCP(19, 2)
    cell = fastltc.WiredCfCCell(5, wiring)
    assert cell.synapse_count == wiring.synapse_count
    assert cell.sensory_synapse_count == wiring.sensory_synapse_count
    assert cell.synapse_count != cell.sensory_synapse_count


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


def test_any_wiring() -> None:
    """A wiring of the user's own class, without motor neurons, as ncps allows."""

    class Chain(Wiring):
        def __init__(self, units: int) -> None:
            super().__init__(units)
            for i in range(units - 1):
                self.add_synapse(i + 1, i, -1)

        def build(self, input_dim: int) -> None:
            super().build(input_dim)
            self.add_sensory_synapse(0, self.units - 1, 1)

    theirs, ours = cfc_twins(2, lambda: Chain(6))
    assert ours.rnn_cell.synapse_count == 5
    check_twins(theirs, ours, data(inputs=2))


def test_training_follows_that_of_ncps() -> None:
    for units in (WIRINGS["auto ncp"], 19):
        theirs, ours = cfc_twins(5, units, proj_size=2)
        x, target = data(8, 5), torch.randn(8, 5, 2).double()
        losses: list[list[float]] = []
        for layer in (theirs, ours):
            optimizer = torch.optim.Adam(layer.parameters(), 0.02)
            losses.append([])
            for _ in range(5):
                optimizer.zero_grad()
                loss = (layer(x)[0] - target).square().mean()
                loss.backward()
                optimizer.step()
                losses[-1].append(loss.item())
        assert losses[1] == pytest.approx(losses[0], rel=1e-9)
        assert losses[1][-1] < losses[1][0]


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
    return *cfc_twins(inputs, units, **options), inputs


@settings(max_examples=30, deadline=None)
@given(pairs(), st.integers(1, 20), st.integers(1, 4), st.booleans())
def test_any_layer_agrees_with_ncps(
    pair: tuple[nn.Module, nn.Module, int], batch: int, time: int, timed: bool
) -> None:
    theirs, ours, inputs = pair
    state = torch.randn(batch, ours.state_size).double()
    arguments = (torch.rand(1, time).double(),) if timed else ()
    check_twins(theirs, ours, data(batch, time, inputs), state, *arguments)
