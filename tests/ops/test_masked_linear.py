"""The sparse masked product against ``torch.nn.functional.linear`` with the masked weight."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastltc.nn import synapse_list
from fastltc.ops.masked_linear import masked_linear


def problem(batch, inputs, outputs, density, dtype=torch.float64, bias=True):
    """Return x, weight with NaN off the mask, the mask, bias; all but the mask want gradients."""
    mask = torch.rand(outputs, inputs) < density
    weight = torch.randn(outputs, inputs, dtype=dtype).masked_fill(~mask, torch.nan)
    x = torch.randn(*batch, inputs, dtype=dtype, requires_grad=True)
    offset = torch.randn(outputs, dtype=dtype, requires_grad=True) if bias else None
    return x, weight.requires_grad_(), mask, offset


def dense(x, weight, mask, bias):
    return F.linear(x, torch.where(mask, weight, 0), bias)


@pytest.mark.parametrize("batch", [(0,), (1,), (7,), (16,), (33,), (130,), (2, 3, 5), ()])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("sizes", [(1, 1), (5, 33), (64, 31)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients(batch, density, sizes, bias):
    x, weight, mask, offset = problem(batch, *sizes, density, bias=bias)
    wanted = [t for t in (x, weight, offset) if t is not None]
    y = masked_linear(x, weight, synapse_list(mask.t()), offset)
    expected = dense(x, weight, mask, offset)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    grad = torch.randn_like(y)
    got = torch.autograd.grad(y, wanted, grad)
    for g, e in zip(got, torch.autograd.grad(expected, wanted, grad), strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=1e-11)
    assert (got[1][~mask] == 0).all()


def test_float32_and_half():
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.02)):
        x, weight, mask, bias = problem((20,), 40, 30, 0.3, torch.float32)
        y = masked_linear(x.to(dtype), weight.to(dtype), synapse_list(mask.t()), bias.to(dtype))
        assert y.dtype == dtype
        expected = dense(x, weight, mask, bias)
        torch.testing.assert_close(y.float(), expected, rtol=tolerance, atol=tolerance)


def test_any_strides():
    x, weight, mask, bias = problem((6,), 9, 4, 0.5)
    synapses = synapse_list(mask.t())
    expected = dense(x, weight, mask, bias)
    spread = torch.empty(12, 18, dtype=x.dtype)[::2, ::2].copy_(x.detach())
    assert torch.equal(
        masked_linear(spread, weight, synapses, bias), masked_linear(x, weight, synapses, bias)
    )
    turned = weight.detach().t().contiguous().t()
    torch.testing.assert_close(masked_linear(x, turned, synapses, bias), expected)
    row = x.detach()[:1].expand(5, -1)
    torch.testing.assert_close(
        masked_linear(row, weight, synapses, bias), dense(row, weight, mask, bias)
    )
    y = masked_linear(x, weight, synapses, bias)
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), x)[0])


def test_threads_do_not_change_the_bits():
    x, weight, mask, bias = problem((200,), 300, 200, 0.4, torch.float32)
    synapses = synapse_list(mask.t())
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            y = masked_linear(x, weight, synapses, bias)
            results.append((y, *torch.autograd.grad(y.square().sum(), (x, weight, bias))))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_subsystems():
    x, weight, mask, bias = problem((4,), 6, 5, 0.5)
    weight = torch.where(mask, weight, 0.5).detach().requires_grad_()
    synapses = synapse_list(mask.t())
    # Off the mask the weight has no influence and the analytic gradient is exactly 0.
    assert torch.autograd.gradcheck(
        lambda x, w, b: masked_linear(x, w, synapses, b), (x, weight, bias)
    )
    torch.library.opcheck(torch.ops.fastltc.masked_linear.default, (x, weight, bias, synapses))
    y = masked_linear(x, weight, synapses, bias)
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        grad.sum().backward()
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: masked_linear(x, weight, synapses), (x,), (torch.ones_like(x),))


def test_no_features():
    weight, bias = torch.randn(4, 0), torch.randn(4)
    y = masked_linear(torch.randn(2, 3, 0), weight, synapse_list(torch.ones(0, 4)), bias)
    assert torch.equal(y, bias.expand(2, 3, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(x=torch.zeros(3, 7)), r"weight: expected shape \[5, 7\], got \[5, 6\]"),
        (lambda a: a.update(x=torch.zeros(3, 6, dtype=torch.int64)), "x: expected dtype float32"),
        (lambda a: a.update(weight=torch.zeros(5, 6).double()), "weight: expected dtype float32"),
        (lambda a: a.update(bias=torch.zeros(4)), r"bias: expected shape \[5\], got \[4\]"),
        (lambda a: a.update(synapses=a["synapses"].long()), "synapses: expected dtype int32"),
        (lambda a: a.update(synapses=a["synapses"][:4]), "synapses: expected at least 6 integers"),
        (lambda a: a["synapses"].__setitem__(-1, 6), r"presynaptic indices in \[0, 6\), got 6"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {
        "x": torch.zeros(3, 6),
        "weight": torch.zeros(5, 6),
        "synapses": synapse_list(torch.ones(6, 5)),
        "bias": torch.zeros(5),
    }
    change(arguments)
    with pytest.raises(RuntimeError, match=message):
        masked_linear(**arguments)


def test_devices_are_not_mixed():
    x, weight, synapses = torch.zeros(3, 6), torch.zeros(5, 6), synapse_list(torch.ones(6, 5))
    # Some tensors on the meta device: the fake kernel answers.
    with pytest.raises(
        RuntimeError, match="expected all tensors on cpu, where x is, got one on meta"
    ):
        masked_linear(x, weight.to("meta"), synapses)
