"""The memory cell of the layers: in one operator call, and step by step where it was changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import ncps.torch
import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import fastltc
from fastltc.nn import LSTMCell
from fastltc.nn.lstm_cell import memory_parameters

B, T, I, N = 3, 6, 4, 9  # noqa: E741

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LTC": lambda: fastltc.LTC(I, AutoNCP(N, 2), mixed_memory=True),
    "CfC, wired": lambda: fastltc.CfC(I, AutoNCP(N, 2), mixed_memory=True, proj_size=3),
    "CfC": lambda: fastltc.CfC(I, N, mixed_memory=True),
}


class Wrapped(LSTMCell):
    """Does the same, but is not known to."""

    def forward(self, *arguments: Any) -> Any:
        return super().forward(*arguments)


def keep_steps_apart(layer: Any) -> Any:
    """Make the layer call its memory cell in every step."""
    layer.lstm.__class__ = Wrapped
    return layer


def results(layer: nn.Module, *arguments: Any, **options: Any) -> list[Tensor]:
    output, hn = layer(*arguments, **options)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    loss = output.square().sum() + sum(h.square().sum() for h in hn)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return [output.detach(), *(h.detach() for h in hn), *grads]


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_one_call_does_what_the_steps_do(
    kind: str, batch_first: bool, return_sequences: bool
) -> None:
    layer: Any = LAYERS[kind]().double()
    layer.batch_first, layer.return_sequences = batch_first, return_sequences
    axes = (B, T) if batch_first else (T, B)
    x, timespans = torch.randn(*axes, I).double(), torch.rand(axes).double()
    hx = torch.randn(B, N).double(), torch.randn(B, N).double()
    lengths = torch.tensor([T, 0, 2])
    for options in ({}, {"timespans": timespans}, {"hx": hx, "lengths": lengths}):
        actual = results(layer, x, **options)
        calls: list[Any] = []
        handle = layer.lstm.register_forward_hook(lambda *_: calls.append(1))  # noqa: B023
        expected = results(layer, x, **options)
        handle.remove()
        assert len(calls) == T
        assert_same(actual, expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_memory_cell_of_another_class_is_called(kind: str) -> None:
    layer = LAYERS[kind]().double()
    x = torch.randn(B, T, I).double()
    expected = results(layer, x)
    assert_same(results(keep_steps_apart(layer), x), expected)


@pytest.mark.parametrize("part", ["input_map", "recurrent_map"])
def test_a_replaced_linear_layer_is_called(part: str) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    layer: Any = LAYERS["LTC"]().double()
    x = torch.randn(B, T, I).double()
    old = getattr(layer.lstm, part)
    new = Doubled(old.in_features, old.out_features, bias=old.bias is not None).double()
    new.load_state_dict(old.state_dict())
    setattr(layer.lstm, part, new)
    actual, _ = layer(x)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter *= 2
    new.__class__ = nn.Linear
    expected, _ = layer(x)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_pruned_and_parametrized_weights_are_followed() -> None:
    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight / 2

    layer: Any = LAYERS["LTC"]().double()
    x = torch.randn(B, T, I).double()
    linear = layer.lstm.input_map
    full = linear.weight.detach().clone()
    parametrize.register_parametrization(linear, "weight", Halved())
    actual, _ = layer(x)
    parametrize.remove_parametrizations(linear, "weight")
    torch.testing.assert_close(layer(x)[0], actual, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        linear.weight.copy_(full)
    prune.l1_unstructured(linear, "weight", 0.5)
    with torch.no_grad():
        linear.weight_orig *= 2  # the weight follows when the layer is called
    pruned, _ = layer(x)
    with torch.no_grad():
        plain: Any = LAYERS["LTC"]().double()
        state = {k.removesuffix("_orig"): v for k, v in layer.state_dict().items()}
        mask = state.pop("lstm.input_map.weight_mask")
        state["lstm.input_map.weight"] = state["lstm.input_map.weight"] * mask
        plain.load_state_dict(state)
    torch.testing.assert_close(pruned, plain(x)[0], rtol=1e-12, atol=1e-12)


def test_an_initial_state_without_a_batch() -> None:
    layer = LAYERS["LTC"]().double()
    x, h, c = torch.randn(T, I).double(), torch.randn(N).double(), torch.randn(N).double()
    output, (hn, cn) = layer(x, (h, c))
    batched, (batched_hn, batched_cn) = layer(x[None], (h[None], c[None]))
    for one, many in ((output, batched), (hn, batched_hn), (cn, batched_cn)):
        assert torch.equal(one, many[0])


@pytest.mark.parametrize("kind", ["LTC", "CfC"])
def test_accelerated_layers_run_it_in_one_call(kind: str) -> None:
    theirs = getattr(ncps.torch, kind)(I, AutoNCP(N, 2), mixed_memory=True)
    model = nn.Sequential(copy.deepcopy(theirs))
    fastltc.accelerate(model)
    assert memory_parameters(model[0].lstm) is not None
    x = torch.randn(B, T, I)
    torch.testing.assert_close(model(x)[0], theirs(x)[0], rtol=1e-4, atol=1e-5)


def test_a_patched_forward_is_called() -> None:
    layer: Any = LAYERS["LTC"]()
    calls: list[int] = []

    def forward(*arguments: Any) -> Any:
        calls.append(1)
        return LSTMCell.forward(layer.lstm, *arguments)

    layer.lstm.forward = forward
    layer(torch.randn(B, T, I))
    assert len(calls) == T


def test_states_may_be_changed_in_place() -> None:
    # As where long sequences are cut.
    for layer in (LAYERS[kind]() for kind in LAYERS):
        _, state = layer(torch.randn(B, T, I))
        for h in state:
            assert h.is_contiguous()
            h.mul_(0.5)
        output, _ = layer(torch.randn(B, T, I), tuple(h.detach_() for h in state))
        output.sum().backward()
