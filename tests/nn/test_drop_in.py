"""Layers and cells in the place of those of ncps: same arguments, names, numbers, checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import ncps.torch
import ncps.torch.lstm
import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP, FullyConnected, Random, Wiring
from torch import Tensor, nn

import fastltc
from fastltc.nn import LSTMCell
from fastltc.ops import CFC_MODES
from ncps_twins import WIRINGS, check_twins, twins

# Layers of 19 neurons: what they are, and their options.
LAYERS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "LTC": ("LTC", WIRINGS["auto ncp"], {}),
    "CfC, wired": ("CfC", WIRINGS["auto ncp"], {}),
    "CfC, wired, projected": ("CfC", WIRINGS["auto ncp"], {"proj_size": 3}),
    "CfC": ("CfC", 19, {}),
    "CfC, projected": ("CfC", 19, {"proj_size": 3}),
}
PLAIN_OR_WIRED = ["LTC", "CfC, wired", "CfC"]
PROJECTED = ["LTC", "CfC, wired, projected", "CfC, projected"]


def pair(layer: str, **options: Any) -> tuple[Any, Any]:
    kind, units, own = LAYERS[layer]
    return twins(units, 5, kind, **own, **options)


def data(batch: int = 3, time: int = 4, inputs: int = 5) -> Tensor:
    return torch.randn(batch, time, inputs, dtype=torch.float64)


def random_state(*shape: int, mixed_memory: bool) -> Any:
    states = torch.randn(2, *shape).double()
    return tuple(states) if mixed_memory else states[0]


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
@pytest.mark.parametrize("layer", LAYERS)
def test_layouts(layer: str, mixed_memory: bool, batch_first: bool, return_sequences: bool) -> None:
    options = {"batch_first": batch_first, "return_sequences": return_sequences}
    theirs, ours = pair(layer, mixed_memory=mixed_memory, **options)
    x = data(3, 4) if batch_first else data(4, 3)
    check_twins(theirs, ours, x)
    check_twins(theirs, ours, x, random_state(3, 19, mixed_memory=mixed_memory))
    if return_sequences:
        assert ours(x)[0].is_contiguous()


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("layer", PROJECTED)
def test_one_sequence_without_a_batch_axis(
    layer: str, mixed_memory: bool, return_sequences: bool
) -> None:
    options = {"mixed_memory": mixed_memory, "return_sequences": return_sequences}
    theirs, ours = pair(layer, **options)
    state = random_state(19, mixed_memory=mixed_memory)
    x = data(1, 4)[0]
    check_twins(theirs, ours, x)
    check_twins(theirs, ours, x, state)
    check_twins(theirs, ours, x, state, torch.rand(4).double() + 0.1)
    # ncps returns [1, M] with batch_first=False and return_sequences=False; here the two agree.
    kind, _, own = LAYERS[layer]
    make = getattr(fastltc, kind)
    time_first = make(5, ours.wiring_or_units, batch_first=False, **own, **options).double()
    time_first.load_state_dict(ours.state_dict())
    for actual, expected in zip(time_first(x, state), ours(x, state), strict=True):
        if isinstance(actual, Tensor):
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12 * (kind == "CfC"))


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


TIMED = [("LTC", {}), *((c, {"mode": mode}) for c in ("CfC, wired", "CfC") for mode in CFC_MODES)]


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("layer", "options"), TIMED, ids=str)
def test_time_steps_that_ncps_gets_right(
    layer: str, options: dict[str, Any], batch: int, mixed_memory: bool
) -> None:
    theirs, ours = pair(layer, mixed_memory=mixed_memory, **options)
    state = random_state(batch, 19, mixed_memory=mixed_memory)
    low = 0.1 if layer == "LTC" else 0.0
    if layer != "CfC, wired":  # which in ncps has no time steps per neuron
        per_neuron = torch.rand(batch, 4, 19).double() + low
        check_twins(theirs, ours, data(batch), state, per_neuron)
    check_twins(theirs, ours, data(batch), state, torch.rand(1, 4).double() + low)


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("layer", PLAIN_OR_WIRED)
def test_float32_to_rounding(layer: str, mixed_memory: bool) -> None:
    theirs, ours = pair(layer, mixed_memory=mixed_memory)
    x = data(20, 6)
    exact, _ = ours(x)
    theirs, ours, x = theirs.float(), ours.float(), x.float()
    # A sample whose trajectory amplifies rounding says nothing of who computes more closely.
    theirs_off, ours_off = (
        (layer(x)[0] - exact).abs().amax((1, 2)).median() for layer in (theirs, ours)
    )
    assert ours_off <= 4 * theirs_off + 1e-6


def signature(function: Any) -> list[tuple[str, Any]]:
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", ["LTC", "LTCCell", "CfC", "CfCCell", "WiredCfCCell"])
def test_arguments_and_defaults(name: str) -> None:
    theirs, ours = getattr(ncps.torch, name), getattr(fastltc, name)
    assert signature(ours.__init__) == signature(theirs.__init__)
    wanted = signature(theirs.forward)
    assert signature(ours.forward)[: len(wanted)] == wanted


PRIVATE = {"_init_ranges", "_ode_unfolds", "_epsilon", "_input_mapping", "_output_mapping"}
MODULES: dict[str, Callable[[Any], Any]] = {
    "LTC": lambda p: p.LTC(5, AutoNCP(19, 2), implicit_param_constraints=False),
    "LTCCell": lambda p: p.LTCCell(AutoNCP(19, 2), 5, implicit_param_constraints=False),
    "wired": lambda p: p.CfC(5, AutoNCP(19, 2), mixed_memory=True, proj_size=3),
    "plain": lambda p: p.CfC(5, 19, mode="pure"),
    "cell": lambda p: p.CfCCell(5, 7, backbone_layers=2, backbone_dropout=0.1),
    "masked cell": lambda p: p.CfCCell(5, 2, backbone_layers=0, sparsity_mask=np.eye(7, 2)),
    "wired cell": lambda p: p.WiredCfCCell(5, AutoNCP(19, 2)),
}


@pytest.mark.parametrize("name", MODULES)
def test_attributes_and_properties(name: str) -> None:
    theirs, ours = (MODULES[name](package) for package in (ncps.torch, fastltc))
    for attribute in dir(theirs):
        public = not attribute.startswith("_") or attribute in PRIVATE
        if not public or attribute in dir(nn.Module()) or attribute.startswith("add_"):
            continue
        value, wanted = getattr(ours, attribute), getattr(theirs, attribute)
        if attribute == "sensory_synapse_count":  # ncps counts the other matrix
            wanted = np.abs(ours._wiring.sensory_adjacency_matrix).sum()
        if isinstance(wanted, (bool, int, float, str, dict, list, np.number, type(None))):
            assert value == wanted, attribute
        elif isinstance(wanted, nn.Module):
            assert isinstance(value, nn.Module), attribute
            assert type(value).__name__ == type(wanted).__name__, attribute
    if name == "LTCCell":
        assert ours._params["w"] is ours.w
    if name == "wired cell":
        assert [type(layer).__name__ for layer in ours._layers] == ["CfCCell"] * 3


def test_module_attributes_of_ltc() -> None:
    wiring = AutoNCP(19, 2)
    layer = fastltc.LTC(5, wiring, mixed_memory=True)
    assert layer.wiring_or_units is wiring
    assert isinstance(layer.rnn_cell, fastltc.LTCCell)
    assert isinstance(layer.lstm, LSTMCell)
    assert layer.use_mixed
    assert isinstance(layer.rnn_cell.make_positive_fn, nn.Softplus)
    cell = fastltc.LTCCell(FullyConnected(3), 2)
    assert isinstance(cell.make_positive_fn, nn.Identity)


SEEDED: list[tuple[str, Any, dict[str, Any]]] = [
    *(("LTC", make, {}) for make in WIRINGS.values()),
    *(("LTC", units, {}) for units in (6, np.int64(6))),
    *(("CfC", make, {"mode": mode}) for make in WIRINGS.values() for mode in CFC_MODES),
    ("CfC", 7, {"mode": "pure", "backbone_layers": 3, "backbone_dropout": 0.2}),
    ("CfC", 7, {"activation": "relu", "backbone_layers": 0}),
    ("CfC", 7, {"mode": "no_gate", "backbone_units": 6, "backbone_layers": 2}),
    ("CfC", np.int64(7), {}),
]


@pytest.mark.parametrize(("kind", "units", "options"), SEEDED)
@pytest.mark.parametrize("mixed_memory", [True, False])
def test_the_same_seed_gives_the_same_parameters(
    kind: str, units: Any, options: dict[str, Any], mixed_memory: bool, seed: int
) -> None:
    def make(package: Any) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(seed)
        size = units() if callable(units) else units
        projected = kind == "CfC" and not isinstance(size, (FullyConnected, Random))
        more = {"proj_size": 3} if projected else {}
        layer = getattr(package, kind)(5, size, mixed_memory=mixed_memory, **more, **options)
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


@pytest.mark.parametrize("kind", ["LTC", "CfC"])
def test_the_default_dtype_is_followed(kind: str, float64_default: None) -> None:
    theirs, ours = (getattr(package, kind)(5, AutoNCP(19, 2)) for package in (ncps.torch, fastltc))
    for name, value in ours.state_dict().items():
        assert value.dtype == theirs.state_dict()[name].dtype
    assert all(p.dtype == torch.float64 for p in ours.parameters() if p.requires_grad)
    ours.load_state_dict(theirs.state_dict())
    check_twins(theirs, ours, torch.randn(2, 3, 5))


@pytest.mark.parametrize("layer", PROJECTED)
@pytest.mark.parametrize("mixed_memory", [True, False])
def test_checkpoints_load_both_ways(layer: str, mixed_memory: bool, tmp_path: Any) -> None:
    theirs, ours = pair(layer, mixed_memory=mixed_memory)
    x, file = data(), tmp_path / "checkpoint.pt"
    hx = random_state(3, ours.state_size, mixed_memory=mixed_memory)
    for source, target in ((theirs, ours), (ours, theirs)):
        with torch.no_grad():
            for parameter in source.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        torch.save(source.state_dict(), file)
        target.load_state_dict(torch.load(file, weights_only=True), strict=True)
        # In float64: in float32 the two may round apart by more than a fixed bound.
        torch.testing.assert_close(target(x, hx)[0], source(x, hx)[0], rtol=0, atol=1e-10)


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
    for module in (layer, layer.rnn_cell, fastltc.WiredCfCCell(5, wiring)):
        assert module.synapse_count == wiring.synapse_count
        assert module.sensory_synapse_count == wiring.sensory_synapse_count
        assert module.synapse_count != module.sensory_synapse_count


def test_memory_cell(seed: int) -> None:
    torch.manual_seed(seed)
    theirs = ncps.torch.lstm.LSTMCell(3, 4).double()
    torch.manual_seed(seed)
    ours = LSTMCell(3, 4).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    states = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    check_twins(theirs, ours, torch.randn(5, 3).double(), states)


class Chain(Wiring):
    """A wiring of the user's own class, by hand, as ncps allows."""

    def __init__(self, units: int, motors: int | None) -> None:
        super().__init__(units)
        if motors is not None:
            self.set_output_dim(motors)
        for i in range(units - 1):
            self.add_synapse(i + 1, i, -1)

    def build(self, input_dim: int) -> None:
        super().build(input_dim)
        self.add_sensory_synapse(0, self.units - 1, 1)


@pytest.mark.parametrize(("kind", "motors"), [("LTC", 1), ("CfC", None)])
def test_any_wiring(kind: str, motors: int | None) -> None:
    theirs, ours = twins(lambda: Chain(6, motors), 2, kind)
    cell = ours.rnn_cell
    assert (cell.synapse_count, cell.sensory_synapse_count) == (5, 1)
    check_twins(theirs, ours, data(inputs=2))


@pytest.mark.parametrize("layer", PROJECTED)
def test_training_follows_that_of_ncps(layer: str) -> None:
    options = {"implicit_param_constraints": False} if layer == "LTC" else {}
    theirs, ours = pair(layer, **options)
    x = data(8, 5)
    target = torch.randn_like(ours(x)[0])
    losses: list[list[float]] = []
    for module in (theirs, ours):
        optimizer = torch.optim.Adam(module.parameters(), 0.02)
        losses.append([])
        for _ in range(5):
            optimizer.zero_grad()
            loss = (module(x)[0] - target).square().mean()
            loss.backward()
            optimizer.step()
            if layer == "LTC":
                cell = module.rnn_cell
                getattr(module, "apply_weight_constraints", cell.apply_weight_constraints)()
            losses[-1].append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[1][-1] < losses[1][0]
