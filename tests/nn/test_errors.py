"""Bad input to the modules: each error names the argument, what was expected and what came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP

from fastltc import LTC, LTCCell

B, T, I, N = 2, 3, 4, 19  # noqa: E741


def make(**options: Any) -> LTC:
    return LTC(I, AutoNCP(N, 2), **options)


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize(
    "shape", [(B, T, 1), (B, T, I + 1), (T, 1), (I,), (), (1, B, T, I)], ids=str
)
def test_shape_of_the_input(shape: tuple[int, ...], mixed_memory: bool) -> None:
    # ncps broadcasts one feature silently.
    layer = make(mixed_memory=mixed_memory)
    with pytest.raises(
        ValueError, match=rf"input: .* I = 4 features, got \[{str(shape)[1:-1].rstrip(',')}\]"
    ):
        layer(torch.randn(shape))


@pytest.mark.parametrize("shape", [(B, 1), (B, I + 1), (I,), (B, 1, I)], ids=str)
def test_shape_of_the_inputs_of_a_cell(shape: tuple[int, ...]) -> None:
    cell = LTCCell(AutoNCP(N, 2), I)
    with pytest.raises(ValueError, match=r"inputs: expected shape \[B, I\] with I = 4, got"):
        cell(torch.randn(shape), torch.zeros(B, N))


@pytest.mark.parametrize(
    "shape", [(1, N), (N,), (B, N + 1), (B, 1), (1, B, N), (B + 1, N)], ids=str
)
def test_shape_of_the_state_is_not_broadcast(shape: tuple[int, ...]) -> None:
    x, bad, good = torch.randn(B, T, I), torch.zeros(shape), torch.zeros(B, N)
    with pytest.raises(ValueError, match=r"hx: expected shape \[2, 19\], got \["):
        make()(x, bad)
    with pytest.raises(ValueError, match=r"states: expected shape \[2, 19\], got \["):
        LTCCell(AutoNCP(N, 2), I)(x[:, 0], bad)
    mixed = make(mixed_memory=True)
    with pytest.raises(ValueError, match=r"hx\[0\]: expected shape \[2, 19\], got \["):
        mixed(x, (bad, good))
    with pytest.raises(ValueError, match=r"hx\[1\]: expected shape \[2, 19\], got \["):
        mixed(x, (good, bad))


def test_shape_of_the_state_of_one_sequence() -> None:
    for shape in ((1, N), (N + 1,), ()):
        with pytest.raises(ValueError, match=r"hx: expected shape \[19\], got \["):
            make()(torch.randn(T, I), torch.zeros(shape))


def test_kind_of_the_state() -> None:
    x, h = torch.randn(B, T, I), torch.zeros(B, N)
    with pytest.raises(TypeError, match=r"hx: expected a pair of tensors .*, got one tensor"):
        make(mixed_memory=True)(x, h)
    with pytest.raises(TypeError, match=r"hx: expected a pair of tensors .*, got 3"):
        make(mixed_memory=True)(x, (h, h, h))
    with pytest.raises(TypeError, match=r"hx: expected a tensor, got tuple"):
        make()(x, (h, h))
    with pytest.raises(TypeError, match=r"hx: expected a tensor, got ndarray"):
        make()(x, h.numpy())
    with pytest.raises(TypeError, match=r"states: expected a tensor, got NoneType"):
        LTCCell(AutoNCP(N, 2), I)(x[:, 0], None)


def test_kind_of_the_input() -> None:
    with pytest.raises(TypeError, match=r"input: expected a tensor or PackedSequence, got ndarray"):
        make()(np.zeros((B, T, I)))
    with pytest.raises(TypeError, match=r"inputs: expected a tensor, got list"):
        LTCCell(AutoNCP(N, 2), I)([1.0], torch.zeros(B, N))


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_dtype_of_the_input(mixed_memory: bool) -> None:
    layer, x = make(mixed_memory=mixed_memory), torch.randn(B, T, I)
    message = "input: expected {}, the dtype of the parameters, got {}"
    for dtype in (torch.float64, torch.int64, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=message.format("torch.float32", dtype)):
            layer(x.to(dtype))
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(TypeError, match=message.format("torch.float64", dtype)):
            layer.double()(x.to(dtype))


def test_dtype_of_the_state() -> None:
    x = torch.randn(B, T, I)
    message = "expected torch.float32, the dtype of the input, got torch.float64"
    with pytest.raises(TypeError, match=f"hx: {message}"):
        make()(x, torch.zeros(B, N).double())
    with pytest.raises(TypeError, match=f"states: {message}"):
        LTCCell(AutoNCP(N, 2), I)(x[:, 0], torch.zeros(B, N).double())


def test_devices() -> None:
    x, h = torch.randn(B, T, I), torch.zeros(B, N)
    with pytest.raises(TypeError, match=r"input: expected a tensor on cpu, .* got one on meta"):
        make()(x.to("meta"))
    with pytest.raises(TypeError, match=r"hx: expected a tensor on cpu, .* got one on meta"):
        make()(x, h.to("meta"))
    with pytest.raises(TypeError, match=r"timespans: expected a tensor on cpu, .* got one on meta"):
        make()(x, timespans=torch.ones(B, T, device="meta"))


def test_parameters_of_another_shape_or_dtype_are_named() -> None:
    layer = make()
    layer.rnn_cell.w = torch.nn.Parameter(torch.zeros(N, N + 1))
    with pytest.raises(
        ValueError, match=r"w: expected shape \[N, N\] = \[19, 19\], got \[19, 20\]"
    ):
        layer(torch.randn(B, T, I))
    layer.rnn_cell.w = torch.nn.Parameter(torch.zeros(N, N).double())
    with pytest.raises(TypeError, match=r"w: expected torch.float32, .* got torch.float64"):
        layer(torch.randn(B, T, I))


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("batch", "time"), [(0, T), (B, 0), (0, 0)])
def test_an_empty_batch_and_an_empty_sequence(
    batch: int, time: int, batch_first: bool, return_sequences: bool, mixed_memory: bool
) -> None:
    layer = make(
        batch_first=batch_first, return_sequences=return_sequences, mixed_memory=mixed_memory
    )
    axes = (batch, time) if batch_first else (time, batch)
    x = torch.randn(*axes, I, requires_grad=True)
    h = torch.randn(batch, N)
    hx: Any = (h, h) if mixed_memory else h
    for timespans in (None, 0.5, torch.rand(axes)):
        output, hn = layer(x, hx, timespans, lengths=[time] * batch)
        assert output.shape == ((*axes, 2) if return_sequences else (batch, 2))
        hn = hn[0] if mixed_memory else hn
        assert torch.equal(hn, h)
        (output.sum() + hn.sum()).backward()
        assert x.grad.shape == x.shape
    if not return_sequences:
        torch.testing.assert_close(output, h[:, :2])


def test_strided_input() -> None:
    layer = make()
    x = torch.randn(B, T, I)
    expected = layer(x)[0]
    for strided in (
        x.transpose(0, 1).contiguous().transpose(0, 1),
        x.movedim(2, 0).contiguous().movedim(0, 2),
        torch.stack([x, x], 3)[..., 0],
    ):
        assert not strided.is_contiguous()
        assert torch.equal(layer(strided)[0], expected)
    wide = x[:1, :1].expand(B, T, I)
    assert torch.equal(layer(wide)[0], layer(wide.contiguous())[0])
