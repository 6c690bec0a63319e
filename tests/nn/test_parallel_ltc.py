"""Layers side by side in one call, held against the same layers one after another."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP, FullyConnected, Random
from torch import Tensor

import fastltc
from fastltc import LTC, ParallelLTC

I, N, M = 4, 9, 2  # noqa: E741


def wiring(seed: int) -> Any:
    kinds = (
        AutoNCP(N, M, seed=seed),
        Random(N, M, sparsity_level=0.6, random_seed=seed),
        FullyConnected(N, M),
    )
    return kinds[seed % 3]


def make(count: int, **options: Any) -> list[LTC]:
    layers = [LTC(I, wiring(k), **options).double() for k in range(count)]
    for layer in layers:
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.rand_like(parameter)
    return layers


def apart(layers: list[LTC], x: Tensor, hx: Any = None, **options: Any) -> tuple[Tensor, Tensor]:
    """Run the layers one after another; ``timespans`` is ``[K, ...]``."""
    spans = options.pop("timespans", [None] * len(layers))
    results = [
        layer(x[k], None if hx is None else hx[k], timespans=spans[k], **options)
        for k, layer in enumerate(layers)
    ]
    return torch.stack([y for y, _ in results]), torch.stack([h for _, h in results])


def assert_same(actual: Any, expected: Any) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("batch", [0, 1, 3, 17])
@pytest.mark.parametrize("time", [0, 1, 6])
@pytest.mark.parametrize("options", [{}, {"return_sequences": False, "input_mapping": None}])
def test_values_and_gradients(count: int, batch: int, time: int, options: dict[str, Any]) -> None:
    layers = make(count, **options)
    nets = ParallelLTC(layers)
    x = torch.randn(count, batch, time, I).double().requires_grad_()
    hx = torch.randn(count, batch, N).double().requires_grad_()
    with torch.no_grad():
        assert_same(nets(x, hx), apart(layers, x, hx))
        assert_same(nets(x), apart(layers, x))
    actual, expected = nets(x, hx), apart(layers, x, hx)
    assert_same(actual, expected)
    weights = [torch.randn_like(t) for t in expected]
    names = [n for n, p in nets.named_parameters() if p.requires_grad]
    ours = [p for p in nets.parameters() if p.requires_grad]
    got = torch.autograd.grad(
        actual, [x, hx, *ours], weights, allow_unused=True, materialize_grads=True
    )
    theirs = [getattr(layer.rnn_cell, name) for name in names for layer in layers]
    flat = torch.autograd.grad(
        expected, [x, hx, *theirs], weights, allow_unused=True, materialize_grads=True
    )
    stacked = [torch.stack(flat[2 + k : 2 + k + count]) for k in range(0, len(theirs), count)]
    assert_same(got, [*flat[:2], *stacked])


def test_time_steps_of_every_shape_and_lengths() -> None:
    layers = make(3)
    nets = ParallelLTC(layers)
    batch, time = 5, 4
    x = torch.randn(3, batch, time, I).double()
    lengths = [0, 4, 2, 1, 3]
    each = torch.rand(3, batch, time).double()
    for given, spans in (
        (0.3, [0.3] * 3),
        (1, [1] * 3),
        (each[0], [each[0]] * 3),
        (each, list(each)),
        (each[:, :1], [e[:1].expand(batch, time) for e in each]),
        (each[:, :, :, None] * torch.rand(N), None),
        (each.float(), [e.float().double() for e in each]),
    ):
        spans = list(given) if spans is None else spans
        actual = nets(x, timespans=given, lengths=lengths)
        assert_same(actual, apart(layers, x, timespans=spans, lengths=lengths))
    spans = each.clone().requires_grad_()
    (grad,) = torch.autograd.grad(nets(x, timespans=spans)[0].sum(), spans)
    expected = apart(layers, x, timespans=list(spans))[0].sum()
    assert_same([grad], torch.autograd.grad(expected, spans))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("output_mapping", ["affine", None])
def test_states_of_all_neurons(whole: bool, output_mapping: str | None) -> None:
    layers = make(3, return_sequences=whole, output_mapping=output_mapping)
    nets = ParallelLTC(layers)
    for batch, time in ((2, 5), (1, 1), (1, 4)):
        x = torch.randn(3, batch, time, I).double().requires_grad_()
        hx, lengths = torch.randn(3, batch, N).double(), [time - 1, time][:batch]
        options = {"lengths": lengths, "return_states": True}
        got = nets(x, hx, **options)
        each = [layer(x[k], hx[k], **options) for k, layer in enumerate(layers)]
        expected = [torch.stack(parts) for parts in zip(*each, strict=True)]
        assert_same(got, expected)
        weights = [torch.randn_like(t) for t in expected]
        grads = [torch.autograd.grad(results, x, weights) for results in (got, expected)]
        assert_same(*grads)
    half = ParallelLTC(layers).to(torch.bfloat16)
    results = half(x.bfloat16(), return_states=True)
    assert all(t.dtype == torch.bfloat16 for t in results)
    assert_same([t.float() for t in results[:2]], [t.float() for t in half(x.bfloat16())])


def test_streaming_carries_the_state() -> None:
    layers = make(4)
    nets = ParallelLTC(layers)
    x = torch.randn(4, 1, 7, I).double()
    with torch.no_grad():
        expected, last = nets(x)
        hx, outputs = None, []
        for t in range(7):
            output, hx = nets(x[:, :, t : t + 1], hx)
            outputs.append(output)
    assert_same([torch.cat(outputs, 2), hx], [expected, last])


def test_layers_are_taken_out_and_put_in() -> None:
    layers = make(3)
    nets = ParallelLTC(layers)
    x = torch.randn(2, 4, I).double()
    assert len(nets) == nets.count == 3
    before = torch.random.get_rng_state()
    for k in range(3):
        taken = nets.layer(k)
        mask = torch.as_tensor(abs(taken._wiring.adjacency_matrix))
        assert torch.equal(taken.rnn_cell.sparsity_mask, mask.double())
    assert torch.equal(torch.random.get_rng_state(), before)
    nets.requires_grad_(False)
    assert not any(p.requires_grad for p in nets.layer(1).parameters())
    nets.requires_grad_(True)
    for k in (0, 2, -1):
        assert_same(nets.layer(k)(x), layers[k](x))
    (other,) = make(1)
    nets.load_layer(1, other)
    assert_same(nets.layer(1)(x), other(x))
    output, _ = nets(x.expand(3, 2, 4, I))
    assert_same([output[1], output[0]], [other(x)[0], layers[0](x)[0]])
    with pytest.raises(IndexError):
        nets.layer(3)


def test_state_dicts_copies_and_dtypes() -> None:
    layers = make(3)
    nets, other = ParallelLTC(layers), ParallelLTC(make(3)[::-1])
    x = torch.randn(3, 2, 4, I).double()
    other.load_state_dict(nets.state_dict())
    assert_same(other(x), nets(x))
    twin = copy.deepcopy(nets)
    with torch.no_grad():
        twin.w += 1
    assert not torch.equal(twin(x)[0], nets(x)[0])
    narrow = copy.deepcopy(nets).to(torch.bfloat16)
    assert narrow(x.to(torch.bfloat16))[0].dtype == torch.bfloat16
    assert copy.deepcopy(nets).float()(x.float())[0].dtype == torch.float32


def test_compiled_for_any_batch_and_length() -> None:
    nets = ParallelLTC(make(3))
    compiled = torch.compile(nets, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, time in ((2, 3), (4, 6)):
        x, hx = torch.randn(3, batch, time, I).double(), torch.randn(3, batch, N).double()
        spans = torch.rand(3, batch, time).double()
        assert_same(compiled(x, hx, spans), nets(x, hx, spans))


def test_weight_constraints() -> None:
    nets = ParallelLTC(make(2, implicit_param_constraints=False))
    with torch.no_grad():
        nets.w -= 5
    nets.apply_weight_constraints()
    assert (nets.w == 0).all()


def test_what_does_not_fit_is_named() -> None:
    first, second = make(2)
    for layers, error, text in (
        ([], ValueError, "layers: expected at least one, got none"),
        ([first, torch.nn.Linear(2, 2)], TypeError, "layers[1]: expected a fastltc.LTC, got Lin"),
        ([LTC(I, N, mixed_memory=True)], ValueError, "layers[0]: expected mixed_memory=False"),
        ([first, LTC(I + 1, wiring(0)).double()], ValueError, "layers[1]: expected inputs of 4"),
        ([first, LTC(I, wiring(0))], ValueError, "expected dtype of torch.float64, as layers[0]"),
        ([first, LTC(I, wiring(1), ode_unfolds=3).double()], ValueError, "ode_unfolds of 6"),
        ([first, LTC(I, wiring(1), output_mapping=None).double()], ValueError, "expected maps of"),
    ):
        with pytest.raises(error, match=re.escape(text)):
            ParallelLTC(layers)
    (frozen,) = make(1)
    frozen.rnn_cell.gleak.requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"layers\[1\].rnn_cell.gleak: expected requires_grad=True"
    ):
        ParallelLTC([first, frozen])
    nets = ParallelLTC([first, second])
    x = torch.zeros(2, 3, 4, I).double()
    for arguments, error, text in (
        ((x[:1],), ValueError, "[K, B, T, I] with K = 2 layers and I = 4 features, got [1, 3"),
        ((x[0],), ValueError, "input: expected shape [K, B, T, I]"),
        ((x.float(),), TypeError, "input: expected torch.float64"),
        ((x, torch.zeros(2, 3, 1).double()), ValueError, "hx: expected shape [2, 3, 9], got"),
        ((x, None, "a"), TypeError, "timespans: expected a number or a tensor, got str"),
        ((x, None, torch.zeros(2, 3, 4) == 0), TypeError, "timespans: expected a real dtype"),
        ((x, None, torch.zeros(5)), ValueError, "timespans: expected a number or shape (B, T)"),
        ((x, None, torch.zeros(2, 3, 3)), ValueError, "(K, B, T, N) = [2, 3, 4, 9], got [2, 3, 3"),
        ((x, None, -torch.ones(2, 3, 4)), ValueError, "timespans: expected finite time steps of 0"),
        ((x, None, None, [1, 2, 9]), ValueError, "lengths: expected"),
    ):
        with pytest.raises(error, match=re.escape(text)):
            nets(*arguments)


def test_stacked_parameters_that_do_not_fit() -> None:
    nets = ParallelLTC(make(2))
    arguments = {
        "x": torch.zeros(1, 1, 2 * I).double(),
        "parameters": [nets._parameters[name] for name in fastltc.ops.LTC_PARAMETERS],
    }
    lists = nets._synapse_lists()

    def call(**changed: Any) -> Any:
        a = {**arguments, **changed}
        return fastltc.ops.ltc(a["x"], None, None, None, a["parameters"], *lists, M)

    call()
    with pytest.raises(ValueError, match=r"sensory_sigma: .* \[2, 2, 9\], got \[2, 4, 9\]"):
        call(x=torch.zeros(1, 1, I).double())
    with pytest.raises(ValueError, match="x: expected a multiple of 2 features, as many as there"):
        call(x=torch.zeros(1, 1, I + 1).double())
    short = list(arguments["parameters"])
    short[5] = short[5][:1]
    with pytest.raises(
        ValueError, match=r"w: expected shape \[K, N, N\] = \[2, 9, 9\], got \[1, 9"
    ):
        call(parameters=short)


def test_edited_masks_count() -> None:
    nets = ParallelLTC(make(2))
    x = torch.randn(2, 1, 3, I).double()
    nets(x)
    nets.sparsity_mask.mul_(0)
    assert_same(nets(x)[0], [nets.layer(k)(x[k])[0] for k in range(2)])
    nets.sensory_sparsity_mask.data[0] = 0
    nets.refresh_synapses()
    assert_same(nets(x)[0], [nets.layer(k)(x[k])[0] for k in range(2)])
