"""Samples of different lengths: ``lengths=`` and PackedSequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
)

from layers.modules import BARE_KINDS, Kind, bare_kinds, with_projections

B, T, I, N = 5, 6, 3, 19  # noqa: E741
LENGTHS = [4, 6, 1, 6, 2]


def make(kind: Kind = BARE_KINDS["LTC"], **options: Any) -> Any:
    return kind(I, N, **options).double()


def state(layer: Any, batch: int) -> Any:
    h = torch.randn(batch, N).double()
    return (h, torch.randn(batch, N).double()) if layer.use_mixed else h


def sample(hx: Any, b: int) -> Any:
    return tuple(h[b] for h in hx) if isinstance(hx, tuple) else hx[b]


def assert_same_state(actual: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        assert isinstance(actual, tuple)
        for a, e in zip(actual, expected, strict=True):
            assert_same_state(a, e)
    else:
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("given", ["list", "tensor", "int32 tensor"])
@with_projections
def test_each_sample_ends_at_its_length(
    kind: Kind, given: str, batch_first: bool, mixed_memory: bool
) -> None:
    options = {"batch_first": batch_first, "mixed_memory": mixed_memory}
    layer, last = make(kind, **options), make(kind, return_sequences=False, **options)
    last.load_state_dict(layer.state_dict())
    lengths = [0, *LENGTHS[1:]]
    x, timespans, hx = torch.randn(B, T, I).double(), torch.rand(B, T).double(), state(layer, B)
    for b, length in enumerate(lengths):
        x[b, length:] = torch.nan
        timespans[b, length:] = torch.nan
    argument: Any = {
        "list": lengths,
        "tensor": torch.tensor(lengths),
        "int32 tensor": torch.tensor(lengths, dtype=torch.int32),
    }[given]
    order = (lambda t: t) if batch_first else (lambda t: t.transpose(0, 1))
    output, hn = layer(order(x), hx, order(timespans), lengths=argument)
    last_output, last_hn = last(order(x), hx, order(timespans), argument)
    assert_same_state(last_hn, hn)
    (output.sum() + last_output.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.requires_grad)
    for b, length in enumerate(lengths):
        alone, alone_hn = layer(x[b, :length], sample(hx, b), timespans[b, :length])
        torch.testing.assert_close(order(output)[b, :length], alone, rtol=0, atol=1e-12)
        assert (order(output)[b, length:] == 0).all()
        assert_same_state(sample(hn, b), alone_hn)
        alone, _ = last(x[b, :length], sample(hx, b), timespans[b, :length])
        torch.testing.assert_close(last_output[b], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mixed_memory", [True, False])
@bare_kinds
def test_no_gradient_comes_from_behind_the_lengths(kind: Kind, mixed_memory: bool) -> None:
    layer = make(kind, mixed_memory=mixed_memory)
    x = torch.randn(B, T, I).double()
    behind = torch.arange(T) >= torch.tensor(LENGTHS)[:, None]
    x[behind] = torch.nan
    timespans = torch.rand(B, T).double().masked_fill(behind, torch.nan)
    x.requires_grad_()
    timespans.requires_grad_()
    output, hn = layer(x, None, timespans, LENGTHS)
    (output.square().sum() + (hn[1] if mixed_memory else hn).sum()).backward()
    for leaf in (x, timespans):
        assert (leaf.grad[behind] == 0).all()
        assert torch.isfinite(leaf.grad).all()
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all(), name


@bare_kinds
def test_length_of_one_sequence(kind: Kind) -> None:
    layer, x = make(kind), torch.randn(T, I).double()
    output, hn = layer(x, lengths=4)
    alone, alone_hn = layer(x[:4])
    assert torch.equal(output[:4], alone)
    assert (output[4:] == 0).all()
    assert torch.equal(hn, alone_hn)
    assert torch.equal(layer(x, lengths=torch.tensor(4))[1], hn)


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([4, 7, 1, 6, 2], ValueError, "lengths: expected values of 0 to T = 6, got 1 to 7"),
        ([4, -1, 1, 6, 2], ValueError, "lengths: expected values of 0 to T = 6, got -1 to 6"),
        ([4, 6, 1, 6], ValueError, r"lengths: expected shape \(5,\), .* got \(4,\)"),
        (4, ValueError, r"lengths: expected shape \(5,\), .* got \(\)"),
        ([4.0, 6, 1, 6, 2], TypeError, "lengths: expected integers, got torch.float32"),
        (torch.ones(5, dtype=torch.bool), TypeError, "lengths: expected integers, got .*bool"),
        ("12345", TypeError, "lengths: expected a tensor or list of integers, got str"),
    ],
)
def test_bad_lengths(
    lengths: Any, error: type[Exception], message: str, mixed_memory: bool
) -> None:
    layer = make(mixed_memory=mixed_memory)
    with pytest.raises(error, match=message):
        layer(torch.randn(B, T, I).double(), lengths=lengths)


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("with_state", [True, False])
@with_projections
def test_packed_sequences(
    kind: Kind, with_state: bool, enforce_sorted: bool, batch_first: bool, mixed_memory: bool
) -> None:
    layer = make(kind, batch_first=batch_first, mixed_memory=mixed_memory)
    lengths = sorted(LENGTHS, reverse=True) if enforce_sorted else LENGTHS
    sequences = [torch.randn(length, I).double() for length in lengths]
    packed = pack_sequence(sequences, enforce_sorted=enforce_sorted)
    hx = state(layer, B) if with_state else None
    output, hn = layer(packed, hx)

    assert isinstance(output, PackedSequence)
    expected = torch.nn.LSTM(I, 2).double()(packed)[0]
    assert torch.equal(output.batch_sizes, expected.batch_sizes)
    for ours, theirs in zip(output[2:], expected[2:], strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    unpacked, out_lengths = pad_packed_sequence(output, batch_first=True)
    assert out_lengths.tolist() == lengths
    for b, sequence in enumerate(sequences):
        alone, alone_hn = layer(sequence, None if hx is None else sample(hx, b))
        torch.testing.assert_close(unpacked[b, : lengths[b]], alone, rtol=0, atol=1e-12)
        assert_same_state(sample(hn, b), alone_hn)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("shape", ["packed", "packed (., 1)", "packed (., N)", "(B, T)", "(1, T)"])
@pytest.mark.parametrize("batch_first", [True, False])
@bare_kinds
def test_time_steps_of_packed_sequences(
    kind: Kind, batch_first: bool, shape: str, enforce_sorted: bool
) -> None:
    layer = make(kind, batch_first=batch_first)
    lengths = sorted(LENGTHS, reverse=True) if enforce_sorted else LENGTHS
    sequences = [torch.randn(length, I).double() for length in lengths]
    shared = torch.rand(T).double()
    steps = [torch.rand(length, N).double() for length in lengths]
    if shape != "packed (., N)":
        steps = [step[:, :1] for step in steps]
    if shape == "(1, T)":
        steps = [shared[:length, None] for length in lengths]
    flat = steps if shape in ("packed (., 1)", "packed (., N)") else [s[:, 0] for s in steps]
    given: Any
    if shape == "(B, T)":
        given = pad_sequence(flat, batch_first, padding_value=torch.nan)
    elif shape == "(1, T)":
        given = shared[None] if batch_first else shared[:, None]
    else:
        given = pack_sequence(flat, enforce_sorted=enforce_sorted)
    output, hn = layer(pack_sequence(sequences, enforce_sorted=enforce_sorted), None, given)
    unpacked, _ = pad_packed_sequence(output, batch_first=True)
    for b, (sequence, step) in enumerate(zip(sequences, steps, strict=True)):
        alone, alone_hn = layer(sequence, timespans=step)
        torch.testing.assert_close(unpacked[b, : lengths[b]], alone, rtol=0, atol=1e-12)
        torch.testing.assert_close(hn[b], alone_hn, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mixed_memory", [True, False])
@bare_kinds
def test_last_outputs_of_packed_sequences(kind: Kind, mixed_memory: bool) -> None:
    layer = make(kind, return_sequences=False, mixed_memory=mixed_memory)
    sequences = [torch.randn(length, I).double() for length in LENGTHS]
    output, _ = layer(pack_sequence(sequences, enforce_sorted=False))
    for b, sequence in enumerate(sequences):
        torch.testing.assert_close(output[b], layer(sequence)[0], rtol=0, atol=1e-12)


@with_projections
def test_gradients_through_packed_sequences_are_those_through_lengths(kind: Kind) -> None:
    layer = make(kind)
    x = torch.randn(B, T, I).double().requires_grad_()
    h0 = torch.randn(B, N).double().requires_grad_()
    timespans = torch.rand(B, T).double().requires_grad_()
    leaves = [x, h0, timespans, *(p for p in layer.parameters() if p.requires_grad)]
    weight_h = torch.randn(B, N).double()
    valid = (torch.arange(T) < torch.tensor(LENGTHS)[:, None])[..., None]
    weight = torch.randn_like(layer(x)[0]) * valid  # a projection has a bias behind them

    def grads(output: Tensor, hn: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((output * weight).sum() + (hn * weight_h).sum(), leaves)

    expected = grads(*layer(x, h0, timespans, LENGTHS))
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    steps = pack_padded_sequence(timespans, LENGTHS, batch_first=True, enforce_sorted=False)
    output, hn = layer(packed, h0, steps)
    actual = grads(pad_packed_sequence(output, batch_first=True)[0], hn)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize(("batch", "time"), [(0, T), (B, 0), (0, 0)])
@with_projections
def test_an_empty_batch_and_an_empty_sequence(
    kind: Kind, batch: int, time: int, return_sequences: bool, mixed_memory: bool
) -> None:
    layer = make(kind, return_sequences=return_sequences, mixed_memory=mixed_memory)
    outputs = kind.options.get("proj_size", 2 if kind.wired else N)
    x = torch.randn(batch, time, I).double().requires_grad_()
    hx = state(layer, batch)
    h = hx[0] if mixed_memory else hx
    for timespans in (None, 0.5, torch.rand(batch, time)):
        output, hn = layer(x, hx, timespans, lengths=[time] * batch)
        assert output.shape == ((batch, time, outputs) if return_sequences else (batch, outputs))
        hn = hn[0] if mixed_memory else hn
        assert torch.equal(hn, h)
        (output.sum() + hn.sum()).backward()
        assert x.grad.shape == x.shape
    if not return_sequences and "proj_size" not in kind.options and kind.cell == "CfC":
        assert torch.equal(output, h[:, -outputs:])


def test_bad_packed_sequences() -> None:
    layer = make()
    sequences = [torch.randn(length, I).double() for length in LENGTHS]
    packed = pack_sequence(sequences, enforce_sorted=False)
    with pytest.raises(ValueError, match=r"lengths: expected None with a PackedSequence"):
        layer(packed, lengths=LENGTHS)
    with pytest.raises(ValueError, match=r"input: expected a PackedSequence of I = 3 features"):
        layer(pack_sequence([torch.randn(2, 4).double()]))
    with pytest.raises(ValueError, match=r"timespans: expected the batch sizes of the input"):
        layer(packed, timespans=pack_sequence([torch.ones(6)] * 5))
    with pytest.raises(ValueError, match=r"hx: expected shape \[5, 19\], got \[4, 19\]"):
        layer(packed, torch.zeros(4, N).double())
    with pytest.raises(ValueError, match=r"timespans: .* got -1.0"):
        layer(packed, timespans=torch.full((B, T), -1.0))
    with pytest.raises(TypeError, match=r"timespans: expected a tensor with a tensor as input"):
        layer(torch.randn(B, T, I).double(), timespans=packed)
