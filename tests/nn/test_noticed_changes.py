"""What was changed in a layer is noticed, however hard it is to see, and in copies and traces."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastltc
from fastltc._extension import load_runtime
from layers.changes import (
    INPUTS,
    B,
    pair,
)

pytestmark = pytest.mark.filterwarnings(  # which have tests of their own
    "ignore:.*runs step by step through its modules",
    "ignore:.*it counts in fastltc, but would not in ncps",
)


class Twice(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class TwiceCalled(nn.Linear):
    def __call__(self, input: Tensor) -> Tensor:
        return 2 * super().__call__(input)


def inside_an_activation(layer: Any) -> None:
    layer.rnn_cell.backbone[1].tanh = nn.Hardtanh()


def inner_forward(layer: Any) -> None:
    layer.rnn_cell.backbone[1].tanh.forward = nn.functional.softsign


def another_class(layer: Any) -> None:
    layer.rnn_cell.ff1.__class__ = Twice


def another_call(layer: Any) -> None:
    layer.rnn_cell.ff1.__class__ = TwiceCalled


def another_order(layer: Any) -> None:
    modules = layer.rnn_cell.backbone._modules
    modules["1"] = modules.pop("1")
    modules["0"] = modules.pop("0")
    modules["2"] = modules.pop("2")
    modules["3"] = modules.pop("3")


def weights_as_attributes(layer: Any) -> None:
    linear = layer.rnn_cell.ff1
    weight = 2 * linear.weight.detach()
    del linear.weight
    linear.weight = weight


def other_widths(layer: Any) -> None:
    backbone = layer.rnn_cell.backbone
    torch.manual_seed(3)
    backbone[0] = nn.Linear(backbone[0].in_features, 4).double()
    backbone[2] = nn.Linear(4, 6).double()


def forward_for_an_attribute(layer: Any) -> None:
    linear = layer.rnn_cell.ff1
    linear.tag = 1
    layer(torch.zeros(1, 1, INPUTS, dtype=linear.weight.dtype), torch.zeros(1, 8).double())
    del linear.tag
    linear.forward = lambda input: nn.functional.linear(input, linear.weight)


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(
    "apply",
    [
        inside_an_activation,
        inner_forward,
        another_class,
        another_call,
        another_order,
        weights_as_attributes,
        other_widths,
        forward_for_an_attribute,
    ],
)
def test_what_is_hard_to_see_is_seen(apply: Callable[[Any], None], warm: bool) -> None:
    theirs, ours, x = pair("CfC")
    hx = torch.zeros(B, 8, dtype=x.dtype)
    if warm:
        ours(x, hx)
    for layer in (theirs, ours):
        apply(layer)
    torch.testing.assert_close(ours(x, hx)[0], theirs(x, hx)[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["CfC", "wired"])
def test_a_hook_on_all_modules_sees_the_projection_at_each_step(kind: str) -> None:
    theirs, ours, x = pair(kind)
    n = theirs.state_size
    hx: Any = torch.zeros(B, n, dtype=x.dtype)
    state = (hx, hx) if theirs.use_mixed else hx
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, result: 2 * result if module in (theirs.fc, ours.fc) else None
    )
    try:
        torch.testing.assert_close(ours(x, state)[0], theirs(x, state)[0], rtol=1e-10, atol=1e-10)
    finally:
        handle.remove()


def test_helpers_of_ncps_that_are_replaced_after_the_swap_are_called() -> None:
    theirs, _, x = pair("LTC")
    ours = copy.deepcopy(theirs)
    fastltc.accelerate(ours)
    ours(x)
    for layer in (theirs, ours):
        cell = layer.rnn_cell
        cell._map_outputs = lambda state: 3 * state[:, :2]
    hx = torch.zeros(B, 9, dtype=x.dtype)
    torch.testing.assert_close(ours(x, hx)[0], theirs(x, hx)[0], rtol=1e-10, atol=1e-10)


def test_settings_of_a_cell_may_change() -> None:
    for kind, name, value in (
        ("wired", "mode", "no_gate"),
        ("wired", "sparsity_mask", None),
        ("LTC", "_implicit_param_constraints", False),
    ):
        theirs, ours, x = pair(kind)
        hx: Any = torch.zeros(B, 9, dtype=x.dtype)
        state = (hx, hx) if theirs.use_mixed else hx
        ours(x, state)
        for layer in (theirs, ours):
            cell = layer.rnn_cell if kind == "LTC" else layer.rnn_cell.layer_1
            setattr(cell, name, value)
        torch.testing.assert_close(
            ours(x, state)[0], theirs(x, state)[0], rtol=1e-10, atol=1e-10, msg=name
        )


def test_a_warning_is_given_once_for_each_reason() -> None:
    _, layer, x = pair("CfC")
    cell = layer.rnn_cell
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            for linear in (cell.ff1, cell.ff2):
                handle = linear.register_forward_hook(lambda module, args, result: None)
                layer(x)
                handle.remove()
    assert len(caught) == 2
    for kind in ("LTC", "LTC, mixed memory"):
        _, layer, x = pair(kind)
        if layer.use_mixed:
            layer.lstm.tanh = nn.Hardtanh()
        else:
            layer.rnn_cell.forward = layer.rnn_cell.forward
        with pytest.warns(UserWarning, match="LTC runs step by step"):
            layer(x)


def test_a_layer_can_be_copied_after_a_functional_call() -> None:
    _, layer, x = pair("wired")
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,))[0].sum()

    torch.func.grad(loss)(parameters)
    torch.testing.assert_close(copy.deepcopy(layer)(x), layer(x))


def test_a_fresh_layer_is_traced_by_make_fx() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    theirs, _, x = pair("LTC")
    fastltc.accelerate(theirs)
    with torch.no_grad():
        graph = make_fx(lambda x: theirs(x)[0])(x)
        torch.testing.assert_close(graph(x), theirs(x)[0])


@pytest.mark.parametrize(
    "seen",
    [None, (), (1,) * 8, ((), (1,), (), (), "forward", (), (), ()), ((1,), *((),) * 7)],
)
def test_the_compiled_look_refuses_what_it_cannot_read(seen: Any) -> None:
    with pytest.raises(TypeError, match="seen: expected the tuple"):
        load_runtime().unchanged(seen)
