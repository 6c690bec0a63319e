"""CfC layers side by side in one call, held against the same layers one after another."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor

import fastltc
from fastltc import CfC, ParallelCfC

I, N, M = 4, 9, 2  # noqa: E741

KINDS: dict[str, dict[str, Any]] = {
    "backbone": {"units": N, "backbone_units": 5},
    "two backbone layers, projection": {
        "units": N,
        "backbone_units": 5,
        "backbone_layers": 2,
        "activation": "silu",
        "proj_size": 3,
    },
    "no backbone, pure": {"units": N, "backbone_layers": 0, "mode": "pure"},
    "wired": {"units": AutoNCP(N, M, seed=1), "mode": "no_gate"},
    "wired, projection": {"units": AutoNCP(N, M, seed=1), "proj_size": 3},
}


def make(count: int, **options: Any) -> list[CfC]:
    units = options.pop("units", N)
    layers = [CfC(I, units, **options).double() for _ in range(count)]
    for layer in layers:
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.rand_like(parameter)
    return layers


def apart(layers: list[CfC], x: Tensor, hx: Any = None, **options: Any) -> list[Tensor]:
    """Run the layers one after another; ``timespans`` is ``[K, ...]``."""
    spans = options.pop("timespans", [None] * len(layers))
    results = [
        layer(x[k], None if hx is None else hx[k], timespans=spans[k], **options)
        for k, layer in enumerate(layers)
    ]
    return [torch.stack(parts) for parts in zip(*results, strict=True)]


def assert_same(actual: Any, expected: Any) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("count", "batch", "time"), [(1, 3, 6), (3, 0, 2), (3, 1, 1), (3, 2, 0), (5, 3, 6), (2, 17, 3)]
)
@pytest.mark.parametrize("whole", [True, False])
def test_values_and_gradients(kind: str, count: int, batch: int, time: int, whole: bool) -> None:
    layers = make(count, return_sequences=whole, **KINDS[kind])
    nets = ParallelCfC(layers)
    x = torch.randn(count, batch, time, I).double().requires_grad_()
    hx = torch.randn(count, batch, N).double().requires_grad_()
    spans = torch.rand(count, batch, time).double().requires_grad_()
    lengths = [max(time - b % 3, 0) for b in range(batch)]
    resets = torch.rand(batch, time) < 0.3
    options = {"lengths": lengths, "resets": resets}
    with torch.no_grad():
        assert_same(nets(x), apart(layers, x))
    actual = nets(x, hx, spans, return_states=True, **options)
    expected = apart(layers, x, hx, timespans=spans, return_states=True, **options)
    assert_same(actual, expected)
    assert_same(nets(x, hx, spans, **options), expected[:2])

    weights = [torch.randn_like(t) for t in expected]
    names = [n for n, p in nets.named_parameters() if p.requires_grad]
    ours = [p for p in nets.parameters() if p.requires_grad]
    of_layers = [dict(layer.named_parameters()) for layer in layers]
    theirs = [own[name] for name in names for own in of_layers]
    assert len(theirs) == sum(p.requires_grad for layer in layers for p in layer.parameters())
    for results in (3, 2):  # with the states of all neurons, and without
        got = nets(x, hx, spans, return_states=results == 3, **options)
        options_ = {"allow_unused": True, "materialize_grads": True}
        found = torch.autograd.grad(got, [x, hx, spans, *ours], weights[:results], **options_)
        wanted = torch.autograd.grad(
            expected[:results],
            [x, hx, spans, *theirs],
            weights[:results],
            retain_graph=True,
            **options_,
        )
        stacks = [torch.stack(wanted[3 + k : 3 + k + count]) for k in range(0, len(theirs), count)]
        assert_same(found, [*wanted[:3], *stacks])


def test_time_steps_of_every_shape() -> None:
    layers = make(3)
    nets = ParallelCfC(layers)
    x = torch.randn(3, 2, 4, I).double()
    each = torch.rand(3, 2, 4).double()
    per_neuron = torch.rand(3, 2, 4, N).double()
    for given, spans in (
        (0.3, [0.3] * 3),
        (each[0], [each[0]] * 3),
        (each, list(each)),
        (per_neuron, list(per_neuron)),
    ):
        assert_same(nets(x, timespans=given), apart(layers, x, timespans=spans))


def test_dropout_is_of_each_layer_and_only_in_training() -> None:
    layers = make(3, backbone_units=5, backbone_layers=2, backbone_dropout=0.5)
    nets = ParallelCfC(layers)
    x = torch.randn(1, 2, 4, I).double().expand(3, -1, -1, -1)
    once, again = nets(x)[0], nets(x)[0]
    assert not torch.equal(once, again)
    same = ParallelCfC([layers[0]] * 3)
    first, second, _ = same(x)[0]
    assert not torch.equal(first, second)
    nets.eval()
    for layer in layers:
        layer.eval()
    assert_same(nets(x), apart(layers, x))


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_taken_out_and_put_in(kind: str) -> None:
    layers = make(3, **KINDS[kind])
    nets = ParallelCfC(layers)
    x = torch.randn(2, 4, I).double()
    assert len(nets) == nets.count == 3
    for k in (0, 2, -1):
        assert_same(nets.layer(k)(x), layers[k](x))
    (other,) = make(1, **KINDS[kind])
    nets.load_layer(1, other)
    assert_same(nets.layer(1)(x), other(x))
    output, _ = nets(x.expand(3, 2, 4, I))
    assert_same([output[1], output[0]], [other(x)[0], layers[0](x)[0]])
    with pytest.raises(IndexError):
        nets.layer(3)
    nets.requires_grad_(False)
    assert not any(p.requires_grad for p in nets.layer(1).parameters())
    twin = ParallelCfC(make(3, **KINDS[kind]))
    twin.load_state_dict(nets.state_dict())
    assert_same(twin(x.expand(3, 2, 4, I)), nets(x.expand(3, 2, 4, I)))
    narrow = copy.deepcopy(nets).to(torch.bfloat16)
    assert {t.dtype for t in narrow(x.bfloat16().expand(3, 2, 4, I))} == {torch.bfloat16}


def test_compiled_for_any_batch_and_length() -> None:
    nets = ParallelCfC(make(3, **KINDS["wired, projection"]))
    compiled = torch.compile(nets, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, time in ((2, 3), (4, 6)):
        x, hx = torch.randn(3, batch, time, I).double(), torch.randn(3, batch, N).double()
        spans = torch.rand(3, batch, time).double()
        assert_same(compiled(x, hx, spans), nets(x, hx, spans))


def test_what_does_not_fit_is_named() -> None:
    first, second = make(2)
    wired, other = (CfC(I, AutoNCP(N, M, seed=seed)).double() for seed in (1, 2))
    (hooked,) = make(1)
    hooked.rnn_cell.ff1.register_forward_hook(lambda *_: None)
    (frozen,) = make(1)
    frozen.rnn_cell.ff1.weight.requires_grad_(False)
    for layers, error, text in (
        ([], ValueError, "layers: expected at least one, got none"),
        ([first, fastltc.LTC(I, N)], TypeError, "layers[1]: expected a fastltc.CfC, got LTC"),
        ([CfC(I, N, mixed_memory=True)], ValueError, "layers[0]: expected mixed_memory=False"),
        ([first, CfC(I + 1, N).double()], ValueError, "layers[1]: expected inputs of 4"),
        ([first, CfC(I, N)], ValueError, "expected dtype of torch.float64, as layers[0]"),
        ([first, CfC(I, N, mode="pure").double()], ValueError, "expected modes of ['default']"),
        ([first, CfC(I, N, backbone_units=3).double()], ValueError, "expected shapes of"),
        ([first, CfC(I, N, activation="silu").double()], ValueError, "activation of lecun_tanh"),
        ([first, CfC(I, N, proj_size=2).double()], ValueError, "proj_size of None"),
        ([first, frozen], ValueError, "layers[1]: expected requires_grad of"),
        ([wired, other], ValueError, "layers[1]: expected the wiring of layers[0]"),
        ([first, hooked], ValueError, "layers[1].rnn_cell: expected it as it is made, but its ff1"),
    ):
        with pytest.raises(error, match=re.escape(text)):
            ParallelCfC(layers)
    nets = ParallelCfC([first, second])
    x = torch.zeros(2, 3, 4, I).double()
    for arguments, error, text in (
        ((x[:1],), ValueError, "[K, B, T, I] with K = 2 layers and I = 4 features, got [1, 3"),
        ((x.float(),), TypeError, "input: expected torch.float64"),
        ((x, torch.zeros(2, 3, 1).double()), ValueError, "hx: expected shape [2, 3, 9], got"),
        ((x, None, -torch.ones(2, 3, 4)), ValueError, "timespans: expected finite time steps of 0"),
    ):
        with pytest.raises(error, match=re.escape(text)):
            nets(*arguments)
    nets.rnn_cell.ff1.register_forward_hook(lambda *_: None)
    with (
        pytest.warns(UserWarning, match="has a hook"),
        pytest.raises(ValueError, match="rnn_cell: expected it as it was made"),
    ):
        nets(x)
