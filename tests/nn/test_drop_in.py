"""LTC and LTCCell in the place of those of ncps: same arguments, names, numbers and checkpoints."""

from __future__ import annotations

import inspect
from typing import Any

import ncps.torch
import ncps.torch.lstm
import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP, FullyConnected, Wiring
from torch import Tensor, nn

import fastltc
from fastltc.nn import LSTMCell
from ncps_twins import WIRINGS, check_twins, twins


def data(batch: int = 3, time: int = 4, inputs: int = 5) -> Tensor:
    return torch.randn(batch, time, inputs, dtype=torch.float64)


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("batch", [1, 2, 33])
def test_layer(wiring: str, softplus: bool, batch: int) -> None:
    theirs, ours = twins(WIRINGS[wiring], 5, implicit_param_constraints=softplus)
    check_twins(theirs, ours, data(batch))
    check_twins(theirs, ours, data(batch), torch.randn(batch, ours.state_size).double())


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_cell(wiring: str, softplus: bool) -> None:
    theirs, ours = twins(WIRINGS[wiring], 5, "LTCCell", implicit_param_constraints=softplus)
    states = torch.randn(4, ours.state_size).double()
    for elapsed in ((), (0.3,), (torch.tensor(0.7).double(),), (torch.rand(4, 1).double() + 0.1,)):
        check_twins(theirs, ours, data(4)[:, 0], states, *elapsed)


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
# With mixed memory ncps needs float64 as the default dtype to make its initial state in.
@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("mixed_memory", [True, False])
def test_layouts(mixed_memory: bool, batch_first: bool, return_sequences: bool) -> None:
    theirs, ours = twins(
        WIRINGS["auto ncp"],
        5,
        mixed_memory=mixed_memory,
        batch_first=batch_first,
        return_sequences=return_sequences,
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
def test_one_sequence_without_a_batch_axis(mixed_memory: bool, return_sequences: bool) -> None:
    options = {"mixed_memory": mixed_memory, "return_sequences": return_sequences}
    theirs, ours = twins(WIRINGS["auto ncp"], 5, **options)
    state = torch.randn(19).double()
    if mixed_memory:
        state = state, torch.randn(19).double()
    x = data(1, 4)[0]
    check_twins(theirs, ours, x)
    check_twins(theirs, ours, x, state)
    check_twins(theirs, ours, x, state, torch.rand(4).double() + 0.1)
    # ncps returns [1, M] with batch_first=False and return_sequences=False; here the two agree.
    time_first = fastltc.LTC(5, ours._wiring, batch_first=False, **options).double()
    time_first.load_state_dict(ours.state_dict())
    for actual, expected in zip(time_first(x, state), ours(x, state), strict=True):
        if isinstance(actual, Tensor):
            assert torch.equal(actual, expected)


@pytest.mark.parametrize("unfolds", [1, 4])
@pytest.mark.parametrize("input_mapping", ["affine", "linear", None])
@pytest.mark.parametrize("output_mapping", ["affine", "linear", None])
def test_maps(input_mapping: str | None, output_mapping: str | None, unfolds: int) -> None:
    theirs, ours = twins(
        WIRINGS["ncp"],
        5,
        input_mapping=input_mapping,
        output_mapping=output_mapping,
        ode_unfolds=unfolds,
        epsilon=0.1,
    )
    check_twins(theirs, ours, data())


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_time_steps_that_ncps_gets_right(batch: int, mixed_memory: bool) -> None:
    theirs, ours = twins(WIRINGS["auto ncp"], 5, mixed_memory=mixed_memory)
    x, state = data(batch), None
    if mixed_memory:
        state = torch.randn(batch, 19).double(), torch.randn(batch, 19).double()
    per_neuron = torch.rand(batch, 4, 19).double() + 0.1
    check_twins(theirs, ours, x, state, per_neuron)
    check_twins(theirs, ours, x, state, torch.rand(1, 4).double() + 0.1)


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_float32_to_rounding(mixed_memory: bool) -> None:
    theirs, ours = twins(WIRINGS["auto ncp"], 5, mixed_memory=mixed_memory)
    x = data(20, 6)
    exact, _ = ours(x)
    theirs, ours, x = theirs.float(), ours.float(), x.float()
    their_error = (theirs(x)[0] - exact).abs().max()
    assert (ours(x)[0] - exact).abs().max() <= 4 * their_error + 1e-6


def signature(function: Any) -> list[tuple[str, Any]]:
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", ["LTC", "LTCCell"])
def test_arguments_and_defaults(name: str) -> None:
    theirs, ours = getattr(ncps.torch, name), getattr(fastltc, name)
    assert signature(ours.__init__) == signature(theirs.__init__)
    wanted = signature(theirs.forward)
    assert signature(ours.forward)[: len(wanted)] == wanted


@pytest.mark.parametrize("name", ["LTC", "LTCCell"])
def test_attributes_and_properties(name: str) -> None:
    theirs, ours = twins(WIRINGS["auto ncp"], 5, name, implicit_param_constraints=False)
    private = {"_init_ranges", "_ode_unfolds", "_epsilon", "_input_mapping", "_output_mapping"}
    for attribute in dir(theirs):
        public = not attribute.startswith("_") or attribute in private
        if not public or attribute in dir(nn.Module()) or attribute.startswith("add_"):
            continue
        value, wanted = getattr(ours, attribute), getattr(theirs, attribute)
        if attribute == "sensory_synapse_count":  # ncps counts the other matrix
            wanted = np.abs(ours._wiring.sensory_adjacency_matrix).sum()
        if isinstance(wanted, (bool, int, float, str, dict, np.integer)):
            assert value == wanted, attribute
    if name == "LTCCell":
        assert ours._params["w"] is ours.w


def test_module_attributes() -> None:
    wiring = AutoNCP(19, 2)
    layer = fastltc.LTC(5, wiring, mixed_memory=True)
    assert layer.wiring_or_units is wiring
    assert isinstance(layer.rnn_cell, fastltc.LTCCell)
    assert isinstance(layer.lstm, LSTMCell)
    assert layer.use_mixed
    assert isinstance(layer.rnn_cell.make_positive_fn, nn.Softplus)
    cell = fastltc.LTCCell(FullyConnected(3), 2)
    assert isinstance(cell.make_positive_fn, nn.Identity)


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("mixed_memory", [True, False])
def test_the_same_seed_gives_the_same_parameters(
    wiring: str, mixed_memory: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    theirs = ncps.torch.LTC(5, WIRINGS[wiring](), mixed_memory=mixed_memory)
    after = torch.rand(1)
    torch.manual_seed(seed)
    ours = fastltc.LTC(5, WIRINGS[wiring](), mixed_memory=mixed_memory)
    assert torch.equal(torch.rand(1), after), "another number of draws"
    wanted = theirs.state_dict()
    assert list(ours.state_dict()) == list(wanted)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, wanted[name]), name
        assert value.dtype == wanted[name].dtype
    grads = {name: p.requires_grad for name, p in theirs.named_parameters()}
    assert {name: p.requires_grad for name, p in ours.named_parameters()} == grads
    assert not list(ours.buffers())


def test_units_as_a_number(seed: int) -> None:
    for units in (6, np.int64(6)):
        torch.manual_seed(seed)
        theirs = ncps.torch.LTC(5, units)
        torch.manual_seed(seed)
        ours = fastltc.LTC(5, units)
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name


def test_the_default_dtype_is_followed(float64_default: None) -> None:
    theirs, ours = ncps.torch.LTC(5, AutoNCP(19, 2)), fastltc.LTC(5, AutoNCP(19, 2))
    for name, value in ours.state_dict().items():
        assert value.dtype == theirs.state_dict()[name].dtype == torch.float64
    ours.load_state_dict(theirs.state_dict())
    check_twins(theirs, ours, torch.randn(2, 3, 5))


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_checkpoints_load_both_ways(mixed_memory: bool, tmp_path: Any) -> None:
    options = {"mixed_memory": mixed_memory}
    theirs, ours = (p.LTC(5, AutoNCP(19, 2), **options) for p in (ncps.torch, fastltc))
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


def test_weight_constraints_are_those_of_ncps() -> None:
    theirs, ours = twins(WIRINGS["auto ncp"], 5, implicit_param_constraints=False)
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.requires_grad:
                parameter.sub_(0.5)
    theirs.load_state_dict(ours.state_dict())
    theirs.rnn_cell.apply_weight_constraints()
    before = {id(p) for p in ours.parameters()}
    ours.apply_weight_constraints()
    assert {id(p) for p in ours.parameters()} == before
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    cell = ours.rnn_cell
    with torch.no_grad():
        cell.w.sub_(1.0)
    cell.apply_weight_constraints()
    assert (cell.w == 0).any()
    assert (cell.w >= 0).all()


def test_weight_constraints_do_nothing_where_a_softplus_does_it() -> None:
    layer = fastltc.LTC(5, AutoNCP(19, 2))
    with torch.no_grad():
        layer.rnn_cell.w.sub_(2.0)
    layer.apply_weight_constraints()
    assert (layer.rnn_cell.w < 0).any()


def test_synapse_counts() -> None:
    wiring = AutoNCP(19, 2)
    layer = fastltc.LTC(5, wiring)
    for module in (layer, layer.rnn_cell):
        assert module.synapse_count == wiring.synapse_count
        assert module.sensory_synapse_count == wiring.sensory_synapse_count
    assert layer.synapse_count != layer.sensory_synapse_count


def test_memory_cell(seed: int) -> None:
    torch.manual_seed(seed)
    theirs = ncps.torch.lstm.LSTMCell(3, 4).double()
    torch.manual_seed(seed)
    ours = LSTMCell(3, 4).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    states = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    check_twins(theirs, ours, torch.randn(5, 3).double(), states)


def test_any_wiring() -> None:
    """A wiring of the user's own class, by hand, as ncps allows."""

    class Chain(Wiring):
        def __init__(self, units: int) -> None:
            super().__init__(units)
            self.set_output_dim(1)
            for i in range(units - 1):
                self.add_synapse(i + 1, i, -1)

        def build(self, input_dim: int) -> None:
            super().build(input_dim)
            self.add_sensory_synapse(0, self.units - 1, 1)

    theirs, ours = twins(lambda: Chain(6), 2)
    assert ours.synapse_count == 5
    assert ours.sensory_synapse_count == 1
    check_twins(theirs, ours, data(inputs=2))


def test_training_follows_that_of_ncps() -> None:
    theirs, ours = twins(WIRINGS["auto ncp"], 5, implicit_param_constraints=False)
    x, target = data(8, 5), torch.randn(8, 5, 2).double()
    losses = []
    for layer in (theirs, ours):
        optimizer = torch.optim.Adam(layer.parameters(), 0.02)
        losses.append([])
        for _ in range(5):
            optimizer.zero_grad()
            loss = (layer(x)[0] - target).square().mean()
            loss.backward()
            optimizer.step()
            getattr(layer, "apply_weight_constraints", layer.rnn_cell.apply_weight_constraints)()
            losses[-1].append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[1][-1] < losses[1][0]
