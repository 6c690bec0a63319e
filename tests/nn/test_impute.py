"""Values for what is missing, against a loop over the steps, and in streams."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

import fastltc
from fastltc import Impute, runtime

B, T, I = 4, 9, 3  # noqa: E741
METHODS = ("forward", "mean", "decay")


def make(method: str, **options: Any) -> Any:
    module = Impute(I, method, mean=[0.5, -1.0, 2.0], **options).double()
    if method == "decay":
        with torch.no_grad():
            module.decay_rate.copy_(torch.tensor([0.3, 1.0, -0.2]))
            module.decay_offset.copy_(torch.tensor([0.1, -0.4, 0.6]))
    return module


def looped(
    module: Any,
    x: Tensor,
    seen: Tensor,
    timespans: Tensor,
    lengths: list[int],
    resets: Tensor | None = None,
) -> Tensor:
    """Do the same entry by entry."""
    rows = []
    for b in range(x.shape[0]):
        steps = []
        last: list[Any] = []
        elapsed: list[Any] = []
        for t in range(x.shape[1]):
            if t >= lengths[b]:
                steps.append(x.new_zeros(module.output_size))
                continue
            began = t == 0 or (resets is not None and bool(resets[b, t]))
            if began:
                last, elapsed = [None] * I, [timespans.new_zeros(())] * I
            values = []
            for i in range(I):
                if not began:
                    elapsed[i] = elapsed[i] + timespans[b, t]
                mean = module.mean[i]
                before = mean if last[i] is None else last[i]
                if seen[b, t, i]:
                    values.append(x[b, t, i])
                elif module.method == "mean":
                    values.append(mean)
                elif module.method == "forward":
                    values.append(before)
                else:
                    g = torch.exp(
                        -torch.relu(module.decay_rate[i] * elapsed[i] + module.decay_offset[i])
                    )
                    values.append(g * before + (1 - g) * mean)
            row = [*values]
            if module.add_mask:
                row += [seen[b, t, i].to(x.dtype) for i in range(I)]
            if module.add_elapsed:
                row += elapsed
            steps.append(torch.stack(row))
            for i in range(I):
                if seen[b, t, i]:
                    last[i], elapsed[i] = x[b, t, i], timespans.new_zeros(())
        rows.append(torch.stack(steps))
    return torch.stack(rows)


def data() -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    seen = torch.rand(B, T, I) < 0.5
    seen[0, :, 0] = False  # never observed
    seen[1] = True
    timespans = torch.rand(B, T, dtype=torch.float64)
    timespans[2, 3] = 0.0
    return x, seen, timespans.requires_grad_()


@pytest.mark.parametrize("episodes", [False, True])
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_it_does_what_a_loop_does(method: str, extra: bool, episodes: bool) -> None:
    module = make(method, learn_mean=True, add_mask=extra, add_elapsed=extra)
    x, seen, timespans = data()
    lengths = [T, 5, 0, 8]
    resets = torch.rand(B, T) < 0.3 if episodes else None
    leaves = [x, timespans, *module.parameters()]
    results = []
    given = torch.where(seen, x, torch.nan)
    behind = torch.arange(T) >= torch.tensor(lengths)[:, None]
    spans = torch.where(behind, torch.nan, timespans)
    for output in (
        module(given, timespans=spans, lengths=lengths, resets=resets),
        module(torch.where(seen, x, 7.0), seen.double(), spans, lengths, resets),
        looped(module, x, seen, timespans, lengths, resets),
    ):
        weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
        grads = torch.autograd.grad(
            (output * weights).sum(),
            leaves,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        results.append((output, *grads))
    for found in results[:2]:
        torch.testing.assert_close(found, results[2], rtol=0, atol=1e-12)
    assert results[0][0].shape == (B, T, module.output_size)


def test_layouts_and_time_steps() -> None:
    module, turned = (
        make("decay", add_elapsed=True),
        make("decay", batch_first=False, add_elapsed=True),
    )
    x, seen, timespans = (tensor.detach() for tensor in data())
    x = torch.where(seen, x, torch.nan)
    expected = module(x, timespans=timespans)
    other = turned(x.transpose(0, 1), timespans=timespans.T, lengths=[T] * B)
    torch.testing.assert_close(other.transpose(0, 1), expected)
    torch.testing.assert_close(module(x[1], timespans=timespans[1]), expected[1])
    torch.testing.assert_close(module(x, timespans=timespans[..., None]), expected)
    torch.testing.assert_close(module(x), module(x, timespans=torch.ones(B, T)))
    torch.testing.assert_close(
        module(x, timespans=0.5), module(x, timespans=torch.full((B, T), 0.5))
    )
    assert module(x[:, :0]).shape == (B, 0, 2 * I)
    assert module(x[:0]).shape == (0, T, 2 * I)


def test_nothing_flows_into_what_is_missing() -> None:
    x = torch.randn(1, 3, 1, requires_grad=True)
    mask = torch.tensor([[[1], [0], [0]]])
    Impute(1)(x, mask).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [3.0, 0.0, 0.0]


def test_time_is_summed_without_losing_small_steps() -> None:
    x = torch.zeros(1, 30_000, 1)
    x[0, 1:-1] = torch.nan
    x[0, -2] = 0.0
    elapsed = Impute(1, add_elapsed=True)(x, timespans=torch.full((1, 30_000), 0.1))[0, -1, 1]
    torch.testing.assert_close(elapsed, torch.tensor(0.1), rtol=1e-5, atol=0)


def test_a_layer_learns_the_decay() -> None:
    impute, layer = Impute(I, "decay", learn_mean=True, add_mask=True), fastltc.CfC(2 * I, 5)
    x = torch.randn(B, T, I)
    x[torch.rand_like(x) < 0.4] = torch.nan
    layer(impute(x))[0].square().sum().backward()
    for name, parameter in impute.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0, name


def test_time_steps_and_lengths_reach_it_in_a_stack() -> None:
    impute, layer = make("decay", add_elapsed=True), fastltc.CfC(2 * I, 5).double()
    x, seen, timespans = (tensor.detach() for tensor in data())
    x, lengths = torch.where(seen, x, torch.nan), [T, 5, 0, 8]
    output, (hn,) = fastltc.Sequential(impute, layer)(x, timespans=timespans, lengths=lengths)
    filled = impute(x, timespans=timespans, lengths=lengths)
    torch.testing.assert_close((output, hn), layer(filled, None, timespans, lengths))


def test_compiled_whole() -> None:
    module = make("decay", add_mask=True, add_elapsed=True)
    x, seen, timespans = (tensor.detach() for tensor in data())
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, seen, timespans), module(x, seen, timespans))


@pytest.mark.parametrize("streams", [1, B])
@pytest.mark.parametrize("method", METHODS)
def test_streams_are_filled_in_alike(method: str, streams: int) -> None:
    module = make(method, add_mask=True, add_elapsed=True).float()
    x, seen, timespans = (tensor.detach() for tensor in data())
    x = torch.where(seen, x, torch.nan).float()
    expected = module(x, timespans=timespans.float())[:streams].detach().numpy()
    settings = json.loads(json.dumps(module.settings()))
    stream = runtime.Impute(**settings, streams=streams)
    assert stream.output_size == module.output_size
    for _ in range(2):
        for t in range(T):
            readings, dt = x[:streams, t].numpy(), timespans[:streams, t].numpy()
            if streams == 1:
                found = stream(readings[0], dt[0])[None]
            elif t % 2:
                found = stream(np.nan_to_num(readings, nan=9.0), dt, seen[:streams, t].numpy())
            else:
                found = stream(readings, dt)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected[:, t], rtol=2e-6, atol=2e-6)
        stream.reset()


def test_one_stream_starts_anew() -> None:
    stream = runtime.Impute(1, streams=2, add_elapsed=True)
    stream([[1.0], [2.0]])
    stream.reset(1)
    assert stream([[np.nan], [np.nan]]).tolist() == [[1.0, 1.0], [0.0, 0.0]]


x0 = torch.zeros(2, 3, I)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 3, 4),), ValueError, r"input: .*I = 3 features, got \[2, 3, 4\]"),
        ((torch.zeros(2, 3, I, dtype=torch.int64),), TypeError, "input: .*floating.*int64"),
        ((pack_sequence([torch.zeros(2, I)]),), TypeError, "input: .*PackedSequence"),
        ((x0, torch.zeros(2, 3)), ValueError, r"mask: .*\[2, 3, 3\], got \[2, 3\]"),
        ((x0, torch.full((2, 3, I), 0.5)), ValueError, "mask: .*0 and 1"),
        ((x0, [[1]]), TypeError, "mask: expected a tensor, got list"),
        ((x0, None, torch.ones(2, 4)), ValueError, "timespans: "),
        ((x0, None, torch.full((2, 3), -1.0)), ValueError, "timespans: "),
        ((x0, None, None, [4, 1]), ValueError, "lengths: .*0 to T = 3"),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Impute(I)(*arguments)


@pytest.mark.parametrize("kind", [Impute, runtime.Impute])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features: expected 1 or more, got 0"),
        ({"method": "nearest"}, "method: expected one of forward, mean, decay, got 'nearest'"),
        ({"mean": [1.0, 2.0]}, r"mean: expected a number or shape \[I\] = \[3\], got \[2\]"),
        ({"mean": float("nan")}, "mean: expected finite"),
    ],
)
def test_bad_options(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**{"features": I, **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0] * 4,), r"x: expected shape \[3\], got \[4\]"),
        (([0.0] * 3, -1.0), "dt: "),
        (([0.0] * 3, [1.0, 2.0]), r"dt: .* got \[2\]"),
        (([0.0] * 3, 1.0, [1, 1]), "mask: "),
        (([0.0] * 3, 1.0, [1, 1, 2]), "mask: "),
    ],
)
def test_bad_readings_change_nothing(arguments: Any, message: str) -> None:
    stream = runtime.Impute(3)
    stream([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=message):
        stream(*arguments)
    assert stream([np.nan] * 3).tolist() == [1.0, 2.0, 3.0]
