"""The masked product's CUDA kernels against those of the CPU, and streams, graphs, devices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cuda_graphs import capture, on_two_streams
from fastltc import MaskedLinear
from fastltc.ops import mask_entries, masked_linear

pytestmark = pytest.mark.cuda

TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-3}
# Batch, inputs, outputs, density: lanes for samples, for entries, and both; several to a lane.
SIZES = {
    "one of each": (1, 1, 1, 1.0),
    "a sample": (1, 100, 70, 0.2),
    "few samples": (3, 33, 31, 0.5),
    "few rows": (130, 64, 64, 0.3),
    "wide": (100, 300, 2100, 0.05),
    "many samples": (700, 130, 600, 0.1),
    "no samples": (0, 5, 4, 0.5),
    "no inputs": (3, 0, 4, 1.0),
    "an empty mask": (5, 6, 7, 0.0),
}


def problem(size: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Return x, weight with NaN off the mask, mask and bias, on the CPU."""
    batch, inputs, outputs, density = SIZES[size]
    torch.manual_seed(0)
    mask = torch.rand(outputs, inputs) < density
    weight = torch.randn(outputs, inputs, dtype=dtype).masked_fill(~mask, torch.nan)
    return torch.randn(batch, inputs, dtype=dtype), weight, mask, torch.randn(outputs, dtype=dtype)


def results(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """Return output and gradients, by name."""
    leaves = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
    entries = mask_entries(mask)
    y = masked_linear(leaves["x"], leaves["weight"], mask, leaves.get("bias"), entries, True)
    torch.manual_seed(1)
    grad = torch.randn(y.shape, dtype=torch.float64).to(y)
    grads = torch.autograd.grad(y, list(leaves.values()), grad)
    return {"output": y, **dict(zip(leaves, grads, strict=True))}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_values_of_every_plan(size: str, bias: bool, dtype: torch.dtype) -> None:
    x, weight, mask, offset = problem(size)
    expected = results(x, weight, mask, offset if bias else None)
    moved = (t.to("cuda", dtype) for t in (x, weight))
    actual = results(*moved, mask.cuda(), offset.to("cuda", dtype) if bias else None)
    for name, value in actual.items():
        torch.testing.assert_close(
            value.cpu().double(), expected[name], rtol=0, atol=TOLERANCE[dtype], msg=name
        )
    assert (actual["weight"][~mask.cuda()] == 0).all()


def test_strided_inputs() -> None:
    x, weight, mask, bias = (t.cuda() for t in problem("few samples"))
    expected = results(x, weight, mask, bias)
    rows = torch.full((6, 50), torch.nan, dtype=x.dtype, device="cuda")[::2, :33].copy_(x)
    columns = torch.full((3, 66), torch.nan, dtype=x.dtype, device="cuda")[:, ::2].copy_(x)
    for strided in (rows, columns, x.t().contiguous().t()):
        entries = mask_entries(mask)
        assert torch.equal(
            masked_linear(strided, weight, mask, bias, entries, True), expected["output"]
        )
    row = x[:1].expand(5, -1)
    assert torch.equal(
        masked_linear(row, weight, mask, bias, entries, True),
        masked_linear(row.contiguous(), weight, mask, bias, entries, True),
    )
    # The gradient of a sum has no strides.
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(
        masked_linear(leaf, weight, mask, bias, entries, True).sum(), leaf
    )
    column_sums = torch.where(mask, weight, 0).sum(0)
    torch.testing.assert_close(grad, column_sums.expand_as(grad))


def test_half_types_and_more_dimensions() -> None:
    x, weight, mask, bias = problem("few rows", torch.float32)
    expected = torch.nn.functional.linear(x, torch.where(mask, weight, 0), bias)
    for dtype, tolerance in ((torch.bfloat16, 0.1), (torch.float16, 0.02)):
        arguments = [t.to("cuda", dtype) for t in (x.view(2, 65, 64), weight, mask, bias)]
        arguments[2] = mask.cuda()
        y = masked_linear(*arguments, None, True)
        assert y.dtype == dtype
        torch.testing.assert_close(
            y.float().cpu().view(130, 64), expected, rtol=tolerance, atol=tolerance
        )


def test_the_choice_on_a_gpu_is_the_dense_product() -> None:
    x, weight, mask, bias = (t.cuda() for t in problem("few samples"))
    entries = mask_entries(mask)
    # Only the dense product sees what is off the mask.
    assert masked_linear(x, weight, mask, bias, entries).isnan().any()
    assert not masked_linear(x, weight, mask, bias, entries, True).isnan().any()
    layer = MaskedLinear(33, 31, mask, device="cuda")
    assert layer(x.float()).shape == (3, 31)


def test_gradcheck_and_opcheck() -> None:
    x, weight, mask, bias = (t.cuda() for t in problem("few samples"))
    weight = torch.where(mask, weight, 0.5)
    entries = mask_entries(mask)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda x, w, b: masked_linear(x, w, mask, b, entries, True), leaves, fast_mode=True
    )
    torch.library.opcheck(torch.ops.fastltc.masked_linear.default, (x, weight, bias, entries))


@pytest.mark.parametrize("size", ["a sample", "few rows", "wide", "many samples"])
def test_the_same_call_gives_the_same_bits(size: str) -> None:
    arguments = [t.cuda() for t in problem(size, torch.float32)]
    first = results(*arguments)
    for _ in range(5):
        for name, value in results(*arguments).items():
            assert torch.equal(value, first[name]), name


def test_nothing_waits_for_the_device_and_graphs_can_be_captured() -> None:
    x, weight, mask, bias = (t.cuda() for t in problem("few rows", torch.float32))
    entries = mask_entries(mask)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]

    def step() -> tuple[Tensor, ...]:
        y = masked_linear(x, weight, mask, bias, entries, True)
        return (y, *torch.autograd.grad(y, leaves, torch.ones_like(y)))

    graph, captured = capture(step, waiting="error")
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    for got, expected in zip(captured, step(), strict=True):
        assert torch.equal(got, expected)


def test_two_streams_at_once() -> None:
    x, weight, mask, bias = (t.cuda() for t in problem("wide", torch.float32))
    entries = mask_entries(mask)
    expected = masked_linear(x, weight, mask, bias, entries, True)
    outcomes = on_two_streams(lambda: masked_linear(x, weight, mask, bias, entries, True))
    assert all(torch.equal(outcome, expected) for outcome in outcomes)


def test_reduce_overhead() -> None:
    x, weight, mask, bias = (t.cuda() for t in problem("few rows", torch.float32))
    entries = mask_entries(mask)

    @torch.compile(mode="reduce-overhead", fullgraph=True)
    def compiled(x: Tensor) -> Tensor:
        return masked_linear(x, weight, mask, bias, entries, True)

    expected = masked_linear(x, weight, mask, bias, entries, True)
    for _ in range(3):
        assert torch.equal(compiled(x), expected)


def test_bad_arguments_and_lists() -> None:
    x, weight, mask, bias = (t.cuda() for t in problem("few samples"))
    entries = mask_entries(mask)
    call = torch.ops.fastltc.masked_linear
    with pytest.raises(RuntimeError, match=r"expected a tensor on cuda:0|same device"):
        call(x, weight, bias, entries.cpu())
    with pytest.raises(RuntimeError, match="entries: expected 66 pointers and three integers"):
        call(x, weight, bias, entries[:-1])
    # What the host does not see gives NaN, and reads nothing outside.
    entries[5] = 1 << 30
    y = call(x, weight, bias, entries)
    assert y[:, 4:6].isnan().all()
    assert not y[:, 6:].isnan().any()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_second_device() -> None:
    arguments = problem("few rows")
    expected = results(*(t.cuda() for t in arguments))
    actual = results(*(t.to("cuda:1") for t in arguments))
    assert torch.cuda.current_device() == 0
    for name, value in actual.items():
        assert torch.equal(value.cpu(), expected[name].cpu()), name
