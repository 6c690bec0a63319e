"""Time steps: every shape that is allowed, and what the ambiguous ones mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from layers.modules import BARE_KINDS, Kind, bare_kinds, by_reference

B, T, I, N = 3, 4, 5, 19  # noqa: E741
# What the cells call it.
TIME_STEP = {"LTCCell": "elapsed_time", "WiredCfCCell": "timespans", "CfCCell": "ts"}

every_memory = pytest.mark.parametrize("mixed_memory", [True, False])
batch_first_or_not = pytest.mark.parametrize("batch_first", [True, False])


def make(kind: Kind, neurons: int = N, **options: Any) -> tuple[Any, Tensor]:
    axes = (B, T) if options.get("batch_first", True) else (T, B)
    return kind(I, neurons, **options).double(), torch.randn(*axes, I).double()


def time_step_of(layer: Any) -> str:
    return TIME_STEP[type(layer.rnn_cell).__name__]


def check(layer: Any, x: Tensor, given: Any, meaning: Tensor) -> None:
    output, hn = layer(x, timespans=given)
    if layer.batch_first:
        expected, expected_hn = by_reference(layer, x, meaning)
    else:
        expected, expected_hn = by_reference(layer, x.transpose(0, 1), meaning)
        expected = expected.transpose(0, 1)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(hn, expected_hn, rtol=0, atol=1e-12)


SHAPES = {  # given, as [B, T] or [B, T, N]
    "(B, T)": lambda t: (t[..., 0], t[..., 0]),
    "(B, T, 1)": lambda t: (t[..., :1], t[..., 0]),
    "(B, T, N)": lambda t: (t, t),
    "(1, T)": lambda t: (t[:1, :, 0], t[:1, :, 0].expand(B, T)),
    "(1, T, 1)": lambda t: (t[:1, :, :1], t[:1, :, 0].expand(B, T)),
    "(1, T, N)": lambda t: (t[:1], t[:1].expand(B, T, N)),
    "no axis": lambda t: (t[0, 0, 0], t[0, 0, 0].expand(B, T)),
    "a float": lambda t: (t[0, 0, 0].item(), t[0, 0, 0].expand(B, T)),
    "an int": lambda t: (2, torch.full((B, T), 2.0).double()),
    "a numpy number": lambda t: (np.float64(0.25), torch.full((B, T), 0.25).double()),
    "a float of one": lambda t: (1.0, torch.ones(B, T).double()),
}


@pytest.mark.parametrize("shape", SHAPES)
@batch_first_or_not
@bare_kinds
def test_shapes(kind: Kind, batch_first: bool, shape: str) -> None:
    layer, x = make(kind, batch_first=batch_first)
    given, meaning = SHAPES[shape](torch.rand(B, T, N).double() * 2)
    if not batch_first and isinstance(given, Tensor) and given.dim() > 1:
        given = given.transpose(0, 1)
    check(layer, x, given, meaning)


@batch_first_or_not
@bare_kinds
def test_shapes_for_one_sequence(kind: Kind, batch_first: bool) -> None:
    layer, _ = make(kind, batch_first=batch_first)
    x, t = torch.randn(T, I).double(), torch.rand(T, N).double()
    for given, meaning in (
        (t[:, 0], t[None, :, 0]),
        (t[:, :1], t[None, :, 0]),
        (t, t[None]),
        (t[0, 0], t[0, 0].expand(1, T)),
        (0.5, torch.full((1, T), 0.5).double()),
    ):
        output, hn = layer(x, timespans=given)
        expected, expected_hn = by_reference(layer, x[None], meaning)
        torch.testing.assert_close(output, expected[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(hn, expected_hn[0], rtol=0, atol=1e-12)


@batch_first_or_not
@bare_kinds
def test_square_time_steps_follow_the_order_of_the_input(kind: Kind, batch_first: bool) -> None:
    layer, _ = make(kind, batch_first=batch_first)
    x, square = torch.randn(T, T, I).double(), torch.rand(T, T).double()
    check(layer, x, square, square if batch_first else square.transpose(0, 1))


@bare_kinds
def test_as_many_samples_as_neurons_still_means_samples(kind: Kind) -> None:
    # ncps reads (B, T) as one time step per neuron here, without a word.
    layer, _ = make(kind, neurons=6)
    x, timespans = torch.randn(6, T, I).double(), torch.rand(6, T).double()
    check(layer, x, timespans, timespans)
    cell, h, elapsed = layer.rnn_cell, torch.randn(6, 6).double(), torch.rand(6).double()
    for given in (elapsed, elapsed[:, None]):
        _, state = cell(x[:, 0], h, given)
        alone = [cell(x[b : b + 1, 0], h[b : b + 1], elapsed[b].item())[1] for b in range(6)]
        torch.testing.assert_close(state, torch.cat(alone), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", ["(B,)", "(B, 1)", "(B, N)", "(1, N)", "(1,)", "no axis"])
@bare_kinds
def test_time_step_of_a_cell(kind: Kind, shape: str) -> None:
    layer, _ = make(kind)
    t = torch.rand(B, N).double()
    given, meaning = {
        "(B,)": (t[:, 0], t[:, :1].expand(B, N)),
        "(B, 1)": (t[:, :1], t[:, :1].expand(B, N)),
        "(B, N)": (t, t),
        "(1, N)": (t[:1], t[:1].expand(B, N)),
        "(1,)": (t[0, :1], t[:1, :1].expand(B, N)),
        "no axis": (t[0, 0], t[:1, :1].expand(B, N)),
    }[shape]
    x, h = torch.randn(B, I).double(), torch.randn(B, N).double()
    output, state = layer.rnn_cell(x, h, given)
    for actual, expected in zip((output, state), layer.rnn_cell(x, h, meaning), strict=True):
        assert torch.equal(actual, expected)
    expected, expected_state = by_reference(layer, x[:, None], meaning[:, None], h)
    torch.testing.assert_close(state, expected_state, rtol=0, atol=1e-12)
    torch.testing.assert_close(output, expected[:, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
@bare_kinds
def test_time_steps_of_another_dtype_are_converted(kind: Kind, dtype: torch.dtype) -> None:
    layer, x = make(kind)
    timespans = (torch.rand(B, T) * 4).to(dtype)
    check(layer, x, timespans, timespans.double())


@pytest.mark.parametrize("shape", SHAPES)
@bare_kinds
def test_gradients_reach_the_time_steps_that_were_given(kind: Kind, shape: str) -> None:
    layer, x = make(kind)
    leaf = (torch.rand(B, T, N).double() + 0.1).requires_grad_()
    given, meaning = SHAPES[shape](leaf)
    if not isinstance(given, Tensor):
        assert layer(x, timespans=given)[0].requires_grad
        return
    (actual,) = torch.autograd.grad(layer(x, timespans=given)[0].square().sum(), leaf)
    given, meaning = SHAPES[shape](leaf)
    (expected,) = torch.autograd.grad(by_reference(layer, x, meaning)[0].square().sum(), leaf)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)


@bare_kinds
def test_mixed_memory_takes_the_same_shapes(kind: Kind) -> None:
    layer, x = make(kind, mixed_memory=True)
    t = torch.rand(B, T, N).double()
    for shape in SHAPES.values():
        given, meaning = shape(t)
        actual, expected = layer(x, timespans=given)[0], layer(x, timespans=meaning)[0]
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


ZEROS = (0, 0.0, torch.zeros(B, T), torch.zeros(B, T, N), torch.tensor(0.0))


@every_memory
def test_a_time_step_of_zero_holds_the_state(mixed_memory: bool) -> None:
    layer, x = make(BARE_KINDS["LTC"], mixed_memory=mixed_memory)
    h0 = torch.randn(B, N).double()
    state = (h0, torch.zeros_like(h0)) if mixed_memory else h0
    for zero in ZEROS:
        output, hn = layer(x, state, zero)
        assert torch.isfinite(output).all()
        if not mixed_memory:  # the memory cell moves the state before the liquid cell holds it
            torch.testing.assert_close(hn, h0, rtol=1e-14, atol=1e-14)


@every_memory
def test_a_time_step_of_zero_of_cfc_is_that_of_ncps(mixed_memory: bool) -> None:
    layer, x = make(BARE_KINDS["CfC, wired"], mixed_memory=mixed_memory)
    outputs = [layer(x, timespans=zero)[0] for zero in ZEROS]
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    if not mixed_memory:
        check(layer, x, 0, torch.zeros(B, T).double())


BAD_SHAPES = [(T,), (B,), (B, T + 1), (T, B), (B, 1), (2, T), (B, T, 2), (B, T, N, 1), (B, N)]


@every_memory
@pytest.mark.parametrize("shape", BAD_SHAPES, ids=str)
@bare_kinds
def test_other_shapes_are_refused(kind: Kind, shape: tuple[int, ...], mixed_memory: bool) -> None:
    layer, x = make(kind, mixed_memory=mixed_memory)
    message = r"timespans: expected .* \(B, T, N\) with B = 3 \(or 1\), T = 4, N = 19, got shape"
    with pytest.raises(ValueError, match=message):
        layer(x, timespans=torch.ones(shape))


@pytest.mark.parametrize("shape", [(B, T), (1, T + 1), (T, N), ()], ids=str)
@bare_kinds
def test_other_shapes_are_refused_with_time_first(kind: Kind, shape: tuple[int, ...]) -> None:
    layer, x = make(kind, batch_first=False)
    if shape == ():
        layer(x, timespans=torch.ones(shape))
        return
    with pytest.raises(ValueError, match=r"timespans: expected .* \(T, B\)"):
        layer(x, timespans=torch.ones(shape))


@pytest.mark.parametrize("shape", [(1, T), (T + 1,), (T, 2), (1, T, 1)], ids=str)
@bare_kinds
def test_other_shapes_are_refused_for_one_sequence(kind: Kind, shape: tuple[int, ...]) -> None:
    layer, x = make(kind)
    with pytest.raises(ValueError, match=r"timespans: expected .* \(T,\), \(T, 1\) or \(T, N\)"):
        layer(x[0], timespans=torch.ones(shape))


@pytest.mark.parametrize("shape", [(B + 1,), (N,), (B, 2), (2, N), (B, 1, 1)], ids=str)
@bare_kinds
def test_other_shapes_are_refused_by_the_cell(kind: Kind, shape: tuple[int, ...]) -> None:
    layer, x = make(kind)
    message = rf"{time_step_of(layer)}: .* B = 3, N = 19, got shape"
    with pytest.raises(ValueError, match=message):
        layer.rnn_cell(x[:, 0], torch.randn(B, N).double(), torch.ones(shape))


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), -1e-30])
@every_memory
@bare_kinds
def test_bad_values_are_refused(kind: Kind, mixed_memory: bool, bad: float) -> None:
    layer, x = make(kind, mixed_memory=mixed_memory)
    one_bad = torch.ones(B, T).double()
    one_bad[1, 2] = bad
    with torch.set_grad_enabled(bool(torch.rand(()) < 0.5)):
        for timespans in (bad, torch.tensor(bad).double(), one_bad, one_bad[..., None]):
            with pytest.raises(ValueError, match=r"timespans: .*0 or more, got (-|nan|inf)"):
                layer(x, timespans=timespans)
        with pytest.raises(ValueError, match=r"got .* at \[1, 2\] \(1 of 12 are not\)"):
            layer(x, timespans=one_bad)
        message = rf"^{time_step_of(layer)}: expected .* got (-|nan|inf)"
        for step in (bad, torch.tensor(bad).double(), torch.full((B,), bad).double()):
            with pytest.raises(ValueError, match=message):
                layer.rnn_cell(x[:, 0], torch.zeros(B, N).double(), step)


@pytest.mark.parametrize("bad", ["1", [1.0], np.ones((B, T)), torch.ones(B, T) > 0, 1j])
@bare_kinds
def test_other_objects_are_refused(kind: Kind, bad: Any) -> None:
    layer, x = make(kind)
    with pytest.raises(TypeError, match="timespans: expected"):
        layer(x, timespans=bad)
    with pytest.raises(TypeError, match=f"{time_step_of(layer)}: expected"):
        layer.rnn_cell(x[:, 0], torch.zeros(B, N).double(), bad)
