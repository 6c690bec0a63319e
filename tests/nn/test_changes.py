"""What a user puts into a layer takes part, as it does in ncps."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import ncps.torch
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import fastltc
from layers.changes import (
    CASES,
    CHANGES,
    INPUTS,
    KINDS,
    B,
    T,
    change,
    compare,
    follow,
    heads,
    pair,
    train,
    warning_free,
)

pytestmark = pytest.mark.filterwarnings(  # which have tests of their own
    "ignore:.*runs step by step through its modules",
    "ignore:.*it counts in fastltc, but would not in ncps",
)


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("way", ["fastltc", "accelerated", "made under the patch", "late"])
def test_a_changed_layer_trains_as_in_ncps(kind: str, name: str, way: str) -> None:
    theirs, ours, x = pair(kind)
    if way == "accelerated":
        ours = copy.deepcopy(theirs)
        fastltc.accelerate(ours)
    elif way == "made under the patch":
        with fastltc.patch_ncps() as patch:
            ours = KINDS[kind](ncps.torch).double()
        assert patch.swapped
        ours.load_state_dict(theirs.state_dict())
    elif way == "late":  # after a call of the layer as it was
        ours(x)
    change(theirs, name)
    change(ours, name)
    expected = train(follow(theirs), x)
    compare(train(ours, x), expected)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_layer_that_was_changed_before_is_left_alone(kind: str, name: str) -> None:
    layer, _, _ = pair(kind)
    change(layer, name)
    report = fastltc.accelerate(nn.ModuleList([layer]))
    assert "0" in report.left_alone
    assert type(layer) in (ncps.torch.CfC, ncps.torch.LTC)


@pytest.mark.parametrize("kind", ["CfC", "pure", "no gate"])
def test_a_quantized_layer(kind: str) -> None:
    theirs, ours, x = pair(kind)
    theirs, ours, x = theirs.float().eval(), ours.float().eval(), x.float()
    accelerated = copy.deepcopy(theirs)
    fastltc.accelerate(accelerated)
    quantized = [
        warning_free(torch.ao.quantization.quantize_dynamic, layer, {nn.Linear})
        for layer in (theirs, ours, accelerated)
    ]
    expected, *others = (layer(x)[0] for layer in quantized)
    for output in others:
        torch.testing.assert_close(output, expected)
    assert not torch.allclose(expected, ours(x)[0], rtol=1e-6, atol=1e-7)


def test_a_quantized_head_under_a_mask_is_refused_clearly() -> None:
    _, ours, x = pair("wired")
    quantized = warning_free(
        torch.ao.quantization.quantize_dynamic, ours.float().eval(), {nn.Linear}
    )
    with pytest.raises(TypeError, match="ff1: expected a module with a weight"):
        quantized(x.float())


@pytest.mark.parametrize("kind", ["CfC", "no gate", "wired", "wired pure"])
def test_what_a_changed_layer_takes_is_what_others_take(kind: str) -> None:
    """Lengths, packed sequences, time steps, layouts and empty inputs, against one plain layer."""
    _, plain, x = pair(kind)
    changed = copy.deepcopy(plain)
    for linear in heads(changed):  # a hook that changes nothing
        linear.register_forward_hook(lambda module, args, result: None)
    dt, lengths = torch.rand(B, T, dtype=x.dtype), torch.tensor([3, 0, T, 1])
    neurons = torch.rand(B, T, plain.state_size, dtype=x.dtype)
    packed = nn.utils.rnn.pack_padded_sequence(
        x, torch.tensor([3, 1, T, 1]), batch_first=True, enforce_sorted=False
    )
    calls: list[tuple[Any, dict[str, Any]]] = [
        (x, {}),
        (x, {"timespans": dt}),
        (x, {"timespans": neurons}),
        (x, {"timespans": 0.3, "lengths": lengths}),
        (x, {"timespans": dt, "lengths": lengths}),
        (packed, {}),
        (packed, {"timespans": dt}),
        (x[0], {"timespans": dt[0]}),
        (x[:0], {}),
        (x[:, :0], {}),
        (x[:, :1], {}),
        (x[:, :1], {"timespans": neurons[:, :1]}),
    ]
    for sequences in (True, False):
        for batch_first in (True, False):
            for input, options in calls:
                turned = not batch_first and isinstance(input, Tensor) and input.dim() == 3
                if turned:
                    input = input.transpose(0, 1)
                spans = options.get("timespans")
                if isinstance(spans, Tensor) and not batch_first and spans.dim() > 1:
                    options = {**options, "timespans": spans.transpose(0, 1)}
                results = []
                for layer in (plain, changed):
                    layer.return_sequences, layer.batch_first = sequences, batch_first
                    output, hn = layer(input, **options)
                    results.append((getattr(output, "data", output), *hn))
                torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_a_bad_time_step_or_length_is_refused() -> None:
    _, layer, x = pair("CfC")
    layer.rnn_cell.ff1.register_forward_hook(lambda module, args, result: None)
    with pytest.raises(ValueError, match="timespans: expected"):
        layer(x, timespans=-torch.ones(B, T))
    with pytest.raises(ValueError, match="lengths: expected"):
        layer(x, lengths=torch.tensor([1, 2, 3, T + 1]))
    with pytest.raises(TypeError, match=r"input: expected torch\.float64"):
        layer(x.float())


def test_the_slow_way_warns_once_and_ends_with_its_reason() -> None:
    _, layer, x = pair("wired pure")
    fast = layer(x)[0]
    handle = layer.rnn_cell.layer_0.ff1.register_forward_hook(lambda module, args, result: None)
    with pytest.warns(UserWarning, match="WiredCfCCell runs step by step .* its ff1 has a hook"):
        layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)
        handle.remove()
        assert torch.equal(layer(x)[0], fast)


def test_a_pruned_parameter_of_a_swapped_cell_warns_once() -> None:
    layer, _, x = pair("LTC")
    fastltc.accelerate(layer)
    prune.l1_unstructured(layer.rnn_cell, "w", 0.5)
    with pytest.warns(UserWarning, match="w of an LTCCell is pruned, .* would not in ncps"):
        layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)


def test_a_hook_on_all_modules_sees_those_inside_a_cell() -> None:
    _, layer, x = pair("CfC")
    layer(x)
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, result: seen.append(module)
    )
    try:
        layer(x)
    finally:
        handle.remove()
    assert seen.count(layer.rnn_cell.ff1) == T
    seen.clear()
    layer(x)
    assert not seen


def test_copies_look_for_themselves() -> None:
    _, layer, x = pair("CfC")
    expected = layer(x)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):
        assert torch.equal(other(x)[0], expected)
        handle = other.rnn_cell.ff1.register_forward_hook(lambda module, args, result: 2 * result)
        assert not torch.allclose(other(x)[0], expected)
        handle.remove()
    assert torch.equal(layer(x)[0], expected)


class Sum(nn.Module):
    """A cell of one's own."""

    def __init__(self, inputs: int, neurons: int) -> None:
        super().__init__()
        self.map = nn.Linear(inputs, neurons)

    def forward(self, input: Tensor, hx: Tensor, ts: Any) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.map(input)) * ts + 0.5 * hx
        return h[:, :2], h


@pytest.mark.parametrize("kind", ["CfC", "LTC", "LTC, mixed memory"])
def test_a_cell_of_ones_own_is_called(kind: str) -> None:
    theirs, ours, x = pair(kind)
    cell = Sum(INPUTS, theirs.state_size).double()
    for layer in (theirs, ours):
        layer.rnn_cell = copy.deepcopy(cell)
        if hasattr(layer, "fc"):
            layer.fc = nn.Identity()
    compare(train(ours, x), train(theirs, x))
    ours(x, lengths=torch.tensor([0, 1, 2, T]))
    ours.return_sequences = False
    with pytest.raises(ValueError, match="input: expected T of 1 or more"):
        ours(x[:, :0])


@pytest.mark.parametrize("kind", ["CfC", "wired", "LTC"])
def test_another_forward_of_a_cell_is_called(kind: str) -> None:
    theirs, ours, x = pair(kind)
    for layer in (theirs, ours):
        plain = layer.rnn_cell.forward

        def forward(*args: Any, plain: Any = plain) -> Any:
            output, state = plain(*args)
            return 2 * output, state

        layer.rnn_cell.forward = forward
    compare(train(ours, x), train(theirs, x))
    _, other, _ = pair(kind)
    other.load_state_dict(ours.state_dict())
    base = type(other.rnn_cell)

    class Mine(base):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any) -> Any:
            output, state = super().forward(*args)
            return 2 * output, state

    other.rnn_cell.__class__ = Mine
    torch.testing.assert_close(other(x), ours(x))


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "drop connect"])
def test_a_loaded_state_counts_after_a_change(name: str) -> None:
    """A weight that was computed once must not stay."""
    _, layer, x = pair("wired")
    change(layer, name)
    layer(x)
    layer.eval()
    before = layer(x)[0]
    state = {k: v if "mask" in k else v + 0.1 for k, v in layer.state_dict().items()}
    layer.load_state_dict(state)
    assert not torch.allclose(layer(x)[0], before)
