"""Wirings and masks: what decides which synapses are computed, also after it changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import ncps.torch
import numpy as np
import pytest
import torch
from ncps.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring
from torch import Tensor

import fastltc
from fastltc import LTC, LTCCell, reference, wirings
from fastltc.nn import synapse_list
from fastltc.ops import LTC_PARAMETERS

I, N = 3, 9  # noqa: E741


def layer_and_input(neurons: int = N, time: int = 4) -> tuple[LTC, Tensor]:
    layer = LTC(I, Random(neurons, 2, sparsity_level=0.5)).double()
    return layer, torch.randn(2, time, I).double()


def expected(layer: LTC, x: Tensor) -> Tensor:
    """Return what the masks say, by the reference."""
    cell = layer.rnn_cell
    output, _ = reference.ltc(
        x,
        mask=cell.sparsity_mask,
        sensory_mask=cell.sensory_sparsity_mask,
        output_size=layer.motor_size,
        **{name: getattr(cell, name) for name in LTC_PARAMETERS},
    )
    return output


def check(layer: LTC, x: Tensor) -> None:
    torch.testing.assert_close(layer(x)[0], expected(layer, x), rtol=0, atol=1e-12)


def random_mask(mask: Tensor) -> Tensor:
    return (torch.rand_like(mask) < 0.5).to(mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool])
def test_synapse_list(dtype: torch.dtype) -> None:
    mask = torch.rand(5, 8) < 0.4
    pointers, rows = synapse_list(mask.to(dtype))[:9].tolist(), synapse_list(mask)[9:].tolist()
    assert pointers[0] == 0
    assert pointers[-1] == len(rows) == int(mask.sum())
    for post in range(8):
        found = rows[pointers[post] : pointers[post + 1]]
        assert found == mask[:, post].nonzero().flatten().tolist()
    assert synapse_list(mask).dtype == torch.int32
    assert torch.equal(synapse_list(mask.numpy()), synapse_list(mask))
    assert torch.equal(synapse_list(mask.t().contiguous().t()), synapse_list(mask))


def test_synapse_list_of_no_synapses() -> None:
    assert synapse_list(torch.zeros(4, 2)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [0.5, -1.0, 2.0, float("nan")])
def test_masks_that_are_neither_0_nor_1_are_refused(bad: float) -> None:
    mask = torch.ones(N, N)
    mask[2, 3] = bad
    with pytest.raises(
        ValueError, match=rf"mask: expected 0 or 1 everywhere, got {bad} at \[2, 3\]"
    ):
        synapse_list(mask)
    layer, x = layer_and_input()
    with torch.no_grad():
        layer.rnn_cell.sparsity_mask.copy_(mask)
    with pytest.raises(ValueError, match=r"sparsity_mask: expected 0 or 1"):
        layer(x)
    with pytest.raises(ValueError, match=r"sparsity_mask: expected 0 or 1"):
        layer(x)  # and not only once


def averaged(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    share = 1 / len(states)
    return {key: sum(share * state[key] for state in states) for key in states[0]}  # type: ignore[misc]


def moved(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """An exponential moving average of thousands of steps, as in self-supervised training."""
    mean = {key: value.clone() for key, value in states[0].items()}
    for step in range(3000):
        for key, value in states[step % len(states)].items():
            mean[key].mul_(0.999).add_(value, alpha=0.001)
    return mean


def weighted(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    shares = torch.rand(len(states))
    shares /= shares.sum()
    return {
        key: sum(share * state[key] for share, state in zip(shares, states, strict=True))
        for key in states[0]
    }  # type: ignore[misc]


@pytest.mark.parametrize("average", [averaged, moved, weighted])
@pytest.mark.parametrize("stored", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["LTC", "CfC", "MaskedLinear"])
def test_masks_of_averaged_checkpoints_are_those_of_the_checkpoints(
    average: Callable[[list[dict[str, Tensor]]], dict[str, Tensor]],
    stored: torch.dtype,
    kind: str,
) -> None:
    if average is moved and stored in (torch.float16, torch.bfloat16):
        pytest.skip("steps of a thousandth are lost in a half type, in all weights")
    mask = torch.rand(9, I) < 0.5
    layers: list[Any] = [
        fastltc.MaskedLinear(I, 9, mask)
        if kind == "MaskedLinear"
        else getattr(fastltc, kind)(I, AutoNCP(9, 2, seed=4))
        for _ in range(10)
    ]
    states = [{k: v.to(stored) for k, v in layer.state_dict().items()} for layer in layers]
    state = average(states)
    exact = {k: v.round().to(v) if "mask" in k else v for k, v in state.items()}
    x = torch.randn(3, 5, I)
    layers[0].load_state_dict(state)
    layers[1].load_state_dict(exact)
    first, second = (layer(x) for layer in layers[:2])
    if kind == "MaskedLinear":
        first, second = (first,), (second,)
    assert torch.equal(first[0], second[0])
    for output in (first[0], second[0]):
        output.sum().backward()
    for (name, p), q in zip(layers[0].named_parameters(), layers[1].parameters(), strict=True):
        assert p.grad is None or torch.equal(p.grad, q.grad), name


def test_a_mask_that_is_zero_up_to_rounding_has_no_synapse_there() -> None:
    layer = fastltc.CfC(I, AutoNCP(9, 2, seed=4))
    x = torch.randn(3, 5, I)
    expected = layer(x)[0]
    with torch.no_grad():
        for cell in layer.rnn_cell._layers:
            cell.sparsity_mask.add_(1e-7)
    assert torch.equal(layer(x)[0], expected)


@pytest.mark.parametrize("share", [0.01, 0.99, 0.5])
def test_an_average_of_several_wirings_is_refused(share: float) -> None:
    """One of a hundred checkpoints has another wiring."""
    for dtype in (torch.float32, torch.float64):
        mask = torch.tensor([[1.0, 0.0], [share, 1.0]], dtype=dtype)
        with pytest.raises(ValueError, match=r"mask: expected 0 or 1 everywhere"):
            synapse_list(mask)


def test_a_mask_must_be_a_matrix() -> None:
    with pytest.raises(ValueError, match=r"mask: expected shape \[pre, post\], got \[4\]"):
        synapse_list(torch.ones(4))


CHANGES: dict[str, Callable[[torch.nn.Parameter, Tensor], None]] = {
    "copy_ under no_grad": lambda mask, new: mask.copy_(new),
    "data.copy_": lambda mask, new: mask.data.copy_(new),
    "data = ": lambda mask, new: setattr(mask, "data", new.clone()),
    "data of another dtype and back": lambda mask, new: (
        setattr(mask, "data", new.float()),
        setattr(mask, "data", mask.data.double()),
    ),
    "one entry of data": lambda mask, new: mask.data.__setitem__(
        (1, 2), 1 - mask.data[1, 2].item()
    ),
    "numpy": lambda mask, new: np.copyto(mask.detach().numpy(), new.numpy()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("which", ["sparsity_mask", "sensory_sparsity_mask"])
@pytest.mark.parametrize("time", [1, 40])
def test_edits_of_a_mask_are_noticed(change: str, which: str, time: int) -> None:
    layer, x = layer_and_input(time=time)
    check(layer, x)
    for _ in range(2):
        mask = getattr(layer.rnn_cell, which)
        with torch.no_grad():
            CHANGES[change](mask, random_mask(mask))
        check(layer, x)


def test_hidden_edits_of_a_large_mask_are_noticed_where_it_costs_little() -> None:
    layer, x = layer_and_input(neurons=70, time=16)
    assert layer.rnn_cell.sparsity_mask.numel() > 4096
    check(layer, x)
    mask = layer.rnn_cell.sparsity_mask
    mask.data.copy_(random_mask(mask))
    check(layer, x)  # 32 steps
    mask.data.copy_(random_mask(mask))
    layer.rnn_cell.refresh_synapses()
    check(layer, x[:, :1])
    with torch.no_grad():
        mask.copy_(random_mask(mask))
    check(layer, x[:, :1])  # an edit that PyTorch counts is always noticed


def test_a_new_parameter_in_the_place_of_a_mask() -> None:
    layer, x = layer_and_input()
    check(layer, x)
    new = random_mask(layer.rnn_cell.sparsity_mask)
    layer.rnn_cell.sparsity_mask = torch.nn.Parameter(new, requires_grad=False)
    check(layer, x)
    noncontiguous = random_mask(new).t()
    layer.rnn_cell.sparsity_mask = torch.nn.Parameter(noncontiguous, requires_grad=False)
    check(layer, x)
    noncontiguous.copy_(random_mask(new))
    check(layer, x)


def test_edits_in_inference_mode_are_noticed() -> None:
    with torch.inference_mode():
        layer, x = layer_and_input()
        check(layer, x)
        mask = layer.rnn_cell.sparsity_mask
        mask.copy_(random_mask(mask))
        check(layer, x)


@pytest.mark.parametrize("assign", [True, False])
def test_a_checkpoint_of_another_wiring_brings_its_masks(assign: bool) -> None:
    layer, x = layer_and_input()
    before = layer(x)[0]
    other = ncps.torch.LTC(I, Random(N, 2, sparsity_level=0.5, random_seed=7)).double()
    assert not torch.equal(other.rnn_cell.sparsity_mask, layer.rnn_cell.sparsity_mask)
    layer.load_state_dict(other.state_dict(), assign=assign)
    check(layer, x)
    torch.testing.assert_close(layer(x)[0], other(x)[0], rtol=0, atol=1e-12)
    assert not torch.allclose(layer(x)[0], before)
    assert layer.synapse_count == int(other.rnn_cell.sparsity_mask.sum())
    assert layer.sensory_synapse_count == int(other.rnn_cell.sensory_sparsity_mask.sum())


def test_a_checkpoint_of_another_size_is_refused_as_usual() -> None:
    layer, _ = layer_and_input()
    for other in (LTC(I, FullyConnected(N + 1, 2)), LTC(I + 1, FullyConnected(N, 2))):
        with pytest.raises(RuntimeError, match=r"size mismatch for rnn_cell.sensory_sigma"):
            layer.load_state_dict(other.state_dict())


def test_a_checkpoint_with_strange_masks_is_refused() -> None:
    layer, _ = layer_and_input()
    state = copy.deepcopy(layer.state_dict())
    state["rnn_cell.sparsity_mask"][0, 0] = 0.25
    with pytest.raises(ValueError, match=r"sparsity_mask: .* got 0.25 at \[0, 0\]"):
        layer.load_state_dict(state)


WIRINGS: list[Callable[[], Wiring]] = [
    lambda: FullyConnected(6, 2),
    lambda: Random(8, 2, sparsity_level=0.6),
    lambda: NCP(5, 4, 2, 3, 2, 3, 2),
    lambda: AutoNCP(12, 2),
]


@pytest.mark.parametrize("make", WIRINGS)
def test_a_wiring_for_two_layers_stays_as_it_is(make: Callable[[], Wiring]) -> None:
    wiring = make()
    first = LTC(I, wiring)
    adjacency, sensory = wiring.adjacency_matrix.copy(), wiring.sensory_adjacency_matrix.copy()
    second, third = LTC(I, wiring), LTCCell(wiring)
    assert np.array_equal(wiring.adjacency_matrix, adjacency)
    assert np.array_equal(wiring.sensory_adjacency_matrix, sensory)
    for other in (second.rnn_cell, third):
        for name in ("sparsity_mask", "sensory_sparsity_mask", "erev", "sensory_erev"):
            assert torch.equal(getattr(other, name), getattr(first.rnn_cell, name))


def test_wirings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wiring: expected a wiring that is built, or"):
        LTCCell(AutoNCP(12, 2))
    wiring = AutoNCP(12, 2)
    wiring.build(I)
    with pytest.raises(ValueError, match=r"in_features: expected 3, .* got 4"):
        LTC(4, wiring)
    with pytest.raises(ValueError, match=r"wiring: expected one with motor neurons"):
        LTC(4, Wiring(5))
    for inputs in (0, -1):
        with pytest.raises(ValueError, match=r"in_features: expected 1 or more"):
            LTC(inputs, AutoNCP(12, 2))
    for units in ("12", None, 1.5):
        with pytest.raises(TypeError, match=r"units: expected an ncps.wirings.Wiring or a number"):
            LTC(I, units)
    with pytest.raises(TypeError, match=r"wiring: expected an ncps.wirings.Wiring, got int"):
        LTCCell(12, I)
    for argument in ("input_mapping", "output_mapping"):
        with pytest.raises(ValueError, match=f"{argument}: expected 'affine', 'linear' or None"):
            LTC(I, AutoNCP(12, 2), **{argument: "afine"})
    with pytest.raises(ValueError, match=r"ode_unfolds: expected 1 or more, got 0"):
        LTC(I, AutoNCP(12, 2), ode_unfolds=0)


def test_wirings_are_those_of_ncps() -> None:
    assert wirings.AutoNCP is AutoNCP
    assert set(wirings.__all__) >= {"NCP", "AutoNCP", "FullyConnected", "Random", "Wiring"}
