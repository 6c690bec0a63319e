"""Samples of different lengths: ``lengths=`` and PackedSequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
)

from fastltc import LTC

B, T, I, N = 5, 6, 3, 19  # noqa: E741
LENGTHS = [4, 6, 1, 6, 2]


def make(**options: Any) -> LTC:
    return LTC(I, AutoNCP(N, 2), **options).double()


def state(layer: LTC, batch: int) -> Any:
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
def test_each_sample_ends_at_its_length(given: str, batch_first: bool, mixed_memory: bool) -> None:
    layer = make(batch_first=batch_first, mixed_memory=mixed_memory)
    last = make(batch_first=batch_first, mixed_memory=mixed_memory, return_sequences=False)
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
    for b, length in enumerate(lengths):
        alone, alone_hn = layer(x[b, :length], sample(hx, b), timespans[b, :length])
        torch.testing.assert_close(order(output)[b, :length], alone, rtol=0, atol=1e-12)
        assert (order(output)[b, length:] == 0).all()
        assert_same_state(sample(hn, b), alone_hn)
        alone, _ = last(x[b, :length], sample(hx, b), timespans[b, :length])
        torch.testing.assert_close(last_output[b], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_no_gradient_comes_from_behind_the_lengths(mixed_memory: bool) -> None:
    layer = make(mixed_memory=mixed_memory)
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


def test_length_of_one_sequence() -> None:
    layer, x = make(), torch.randn(T, I).double()
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
def test_packed_sequences(
    enforce_sorted: bool, with_state: bool, batch_first: bool, mixed_memory: bool
) -> None:
    layer = make(batch_first=batch_first, mixed_memory=mixed_memory)
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
def test_time_steps_of_packed_sequences(
    shape: str, enforce_sorted: bool, batch_first: bool
) -> None:
    layer = make(batch_first=batch_first)
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
def test_last_outputs_of_packed_sequences(mixed_memory: bool) -> None:
    layer = make(return_sequences=False, mixed_memory=mixed_memory)
    sequences = [torch.randn(length, I).double() for length in LENGTHS]
    output, _ = layer(pack_sequence(sequences, enforce_sorted=False))
    for b, sequence in enumerate(sequences):
        torch.testing.assert_close(output[b], layer(sequence)[0], rtol=0, atol=1e-12)


def test_gradients_through_packed_sequences_are_those_through_lengths() -> None:
    layer = make()
    x = torch.randn(B, T, I).double().requires_grad_()
    h0 = torch.randn(B, N).double().requires_grad_()
    timespans = torch.rand(B, T).double().requires_grad_()
    leaves = [x, h0, timespans, *(p for p in layer.parameters() if p.requires_grad)]
    weight, weight_h = torch.randn(B, T, 2).double(), torch.randn(B, N).double()

    def grads(output: Tensor, hn: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((output * weight).sum() + (hn * weight_h).sum(), leaves)

    expected = grads(*layer(x, h0, timespans, LENGTHS))
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    steps = pack_padded_sequence(timespans, LENGTHS, batch_first=True, enforce_sorted=False)
    output, hn = layer(packed, h0, steps)
    actual = grads(pad_packed_sequence(output, batch_first=True)[0], hn)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12)


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
