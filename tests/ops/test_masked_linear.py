"""The sparse masked product against ``torch.nn.functional.linear`` with the masked weight."""

from __future__ import annotations

import sys
import types

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fastltc.ops import mask_entries, masked_linear
from fastltc.ops.errors import check_has_kernels
from fastltc.ops.masked_linear import prefers_entries

ON_CUDA = types.SimpleNamespace(device=torch.device("cuda:0"))


@pytest.fixture(autouse=True, params=["entries", "dense"])
def way(request, monkeypatch):
    """Take one way and the other, whatever the sizes."""
    for name in ("prefers_entries", "_remembered"):
        module = sys.modules["fastltc.ops.masked_linear"]
        monkeypatch.setattr(module, name, lambda *_: request.param == "entries")
    return request.param


def problem(batch, inputs, outputs, density, dtype=torch.float64, bias=True, poison=100.0):
    """Return x, weight with ``poison`` off the mask, the mask, and bias; all but the mask train."""
    mask = torch.rand(outputs, inputs) < density
    weight = torch.randn(outputs, inputs, dtype=dtype).masked_fill(~mask, poison)
    x = torch.randn(*batch, inputs, dtype=dtype, requires_grad=True)
    offset = torch.randn(outputs, dtype=dtype, requires_grad=True) if bias else None
    return x, weight.requires_grad_(), mask, offset


def dense(x, weight, mask, bias):
    return F.linear(x, torch.where(mask, weight, 0), bias)


@pytest.mark.parametrize("batch", [(0,), (1,), (7,), (16,), (33,), (130,), (2, 3, 5), ()])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("sizes", [(1, 1), (5, 33), (64, 31)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients(batch, density, sizes, bias, way):
    # The dense product reads what is off the mask.
    poison = torch.nan if way == "entries" else 100.0
    x, weight, mask, offset = problem(batch, *sizes, density, bias=bias, poison=poison)
    wanted = [t for t in (x, weight, offset) if t is not None]
    y = masked_linear(x, weight, mask, offset, mask_entries(mask))
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
        y = masked_linear(x.to(dtype), weight.to(dtype), mask, bias.to(dtype))
        assert y.dtype == dtype
        expected = dense(x, weight, mask, bias)
        torch.testing.assert_close(y.float(), expected, rtol=tolerance, atol=tolerance)


def test_any_strides():
    x, weight, mask, bias = problem((6,), 9, 4, 0.5)
    entries = mask_entries(mask)
    expected = dense(x, weight, mask, bias)
    spread = torch.empty(12, 18, dtype=x.dtype)[::2, ::2].copy_(x.detach())
    assert torch.equal(
        masked_linear(spread, weight, mask, bias, entries),
        masked_linear(x, weight, mask, bias, entries),
    )
    turned = weight.detach().t().contiguous().t()
    torch.testing.assert_close(masked_linear(x, turned, mask, bias, entries), expected)
    row = x.detach()[:1].expand(5, -1)
    torch.testing.assert_close(
        masked_linear(row, weight, mask, bias, entries), dense(row, weight, mask, bias)
    )
    y = masked_linear(x, weight, mask, bias, entries)
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), x)[0])


def test_threads_do_not_change_the_bits(way):
    if way == "dense":
        pytest.skip("PyTorch's product makes no such promise")
    x, weight, mask, bias = problem((200,), 300, 200, 0.4, torch.float32)
    entries = mask_entries(mask)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            y = masked_linear(x, weight, mask, bias, entries)
            results.append((y, *torch.autograd.grad(y.square().sum(), (x, weight, bias))))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_subsystems(way):
    x, weight, mask, bias = problem((4,), 6, 5, 0.5)
    weight = torch.where(mask, weight, 0.5).detach().requires_grad_()
    entries = mask_entries(mask)
    # Off the mask the weight has no influence and the analytic gradient is exactly 0.
    assert torch.autograd.gradcheck(
        lambda x, w, b: masked_linear(x, w, mask, b, entries), (x, weight, bias)
    )
    torch.library.opcheck(torch.ops.fastltc.masked_linear.default, (x, weight, bias, entries))
    compiled = torch.compile(masked_linear, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (x, torch.cat([x, x])):
        torch.testing.assert_close(
            compiled(rows, weight, mask, bias, entries), dense(rows, weight, mask, bias)
        )
    assert torch.autograd.gradgradcheck(
        lambda x, w, b: masked_linear(x, w, mask, b, entries), (x, weight, bias)
    )


def test_no_features():
    weight, bias = torch.randn(4, 0), torch.randn(4)
    y = masked_linear(torch.randn(2, 3, 0), weight, torch.ones(4, 0), bias)
    assert torch.equal(y, bias.expand(2, 3, 4))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(3, 7)}, ValueError, r"x: expected shape \[..., I\] with I = 6, got"),
        ({"x": torch.zeros(())}, ValueError, r"x: expected shape \[..., I\] with I = 6, got \[\]"),
        ({"x": torch.zeros(3, 6, dtype=torch.int64)}, TypeError, "weight: expected torch.int64"),
        ({"weight": torch.zeros(5, 6).double()}, TypeError, "weight: expected torch.float32"),
        ({"weight": torch.zeros(6)}, ValueError, r"weight: expected shape \[O, I\], got \[6\]"),
        ({"weight": torch.zeros(5, 6, device="meta")}, TypeError, "weight: .* on cpu, where x is"),
        ({"mask": torch.ones(6, 5)}, ValueError, r"mask: expected shape .* = \[5, 6\], got \[6, 5"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias: expected shape \[O\] = \[5\], got \[4\]"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    arguments = {
        "x": torch.zeros(3, 6),
        "weight": torch.zeros(5, 6),
        "mask": torch.ones(5, 6),
        "bias": torch.zeros(5),
    }
    arguments.update(change)
    with pytest.raises(error, match=message):
        masked_linear(**arguments)


def test_bad_masks_and_lists_are_named():
    x, weight = torch.zeros(3, 6), torch.zeros(5, 6)
    with pytest.raises(ValueError, match=r"mask: expected 0 or 1 everywhere, got 0.5"):
        mask_entries(torch.full((5, 6), 0.5))
    good = mask_entries(torch.ones(5, 6))
    call = torch.ops.fastltc.masked_linear
    with pytest.raises(RuntimeError, match="entries: expected the int32 list"):
        call(x, weight, None, good.long())
    with pytest.raises(RuntimeError, match="entries: expected 13 pointers and three integers"):
        call(x, weight, None, good[:-1])
    bad = good.clone()
    bad[-1] = 30
    with pytest.raises(RuntimeError, match=r"place of output 4 and input 5 in .*, got 30"):
        call(x, weight, None, bad)


def test_places_that_are_no_permutation_are_refused():
    entries = mask_entries(torch.ones(2, 3))
    twice, swapped = entries.clone(), entries.clone()
    twice[-1] = twice[-2]
    swapped[-2:] = entries[-2:].flip(0)
    x, weight = torch.zeros(4, 3), torch.zeros(2, 3)
    torch.ops.fastltc.masked_linear_backward(torch.zeros(4, 2), x, weight, entries, False)
    for bad in (twice, swapped):
        with pytest.raises(RuntimeError, match=r"entries: expected the place of output \d"):
            torch.ops.fastltc.masked_linear_backward(torch.zeros(4, 2), x, weight, bad, False)


def test_the_list_of_another_mask_is_refused():
    x, weight, mask, _ = problem((3,), 6, 5, 0.5)
    entries = mask_entries(mask)
    shifted = mask.roll(1, 1)
    message = r"entries: expected mask_entries\(mask\) of this \[5, 6\] mask, got another"
    for _ in range(2):
        y = masked_linear(x, weight, mask, None, entries)
        for other in (shifted, torch.zeros(5, 6, dtype=torch.bool)):
            with pytest.raises(ValueError, match=message):
                masked_linear(x, weight, other, None, entries)
        for other_list in (entries.long(), entries[:-1], mask_entries(shifted)):
            with pytest.raises(ValueError, match=message):
                masked_linear(x, weight, mask, None, other_list)
    # An equal mask, another list of the same one, and a mask that has changed since.
    assert torch.equal(masked_linear(x, weight, mask.clone(), None, entries.clone()), y)
    mask.copy_(shifted)
    with pytest.raises(ValueError, match=message):
        masked_linear(x, weight, mask, None, entries)
    with torch.inference_mode():
        made = torch.ones(5, 6)
        masked_linear(x, weight, made.double(), None, mask_entries(made))


@given(
    batch=st.integers(0, 600),
    outputs=st.integers(1, 1500),
    inputs=st.integers(1, 1500),
    itemsize=st.sampled_from([4, 8]),
    training=st.booleans(),
)
def test_the_fewer_ones_the_rather_are_they_gone_by(batch, outputs, inputs, itemsize, training):
    chosen = [
        prefers_entries(batch, ones, outputs, inputs, itemsize, training)
        for ones in range(0, outputs * inputs + 1, max(1, outputs * inputs // 20))
    ]
    assert chosen == sorted(chosen, reverse=True)


def test_the_way_can_be_asked_for(way):
    x, weight, mask, bias = problem((4,), 6, 5, 0.5)
    entries = mask_entries(mask)
    other = weight.detach().masked_fill(~mask, torch.nan)
    # Only the dense product sees what is off the mask.
    for by_entries in (True, False, None):
        y = masked_linear(x, other, mask, bias, entries, by_entries)
        seen = way == "dense" if by_entries is None else not by_entries
        assert bool(y.isnan().any()) == seen
    y = masked_linear(x.bfloat16(), other.bfloat16(), mask, bias.bfloat16(), entries, True)
    assert not y.isnan().any()


def test_the_way_asked_for_is_compiled():
    x, weight, mask, bias = problem((4,), 6, 5, 0.5)
    entries = mask_entries(mask)
    other = weight.detach().masked_fill(~mask, torch.nan)
    compiled = torch.compile(masked_linear, fullgraph=True, backend="aot_eager")
    y = compiled(x, other, mask, bias, entries, True)
    torch.testing.assert_close(y, dense(x, weight, mask, bias))


def test_going_by_entries_where_there_is_no_kernel_says_so(monkeypatch):
    monkeypatch.setattr("fastltc.ops.errors.load_cuda_operators", lambda: (None, "not built"))
    x, weight = torch.zeros(3, 6), torch.zeros(5, 6)
    module = sys.modules["fastltc.ops.masked_linear"]

    def without_kernels(*_):
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(module, "_by_entries", without_kernels)
    monkeypatch.setattr(module, "_refuse", lambda *_: None)
    monkeypatch.setattr(
        module, "check_has_kernels", lambda name, _: check_has_kernels(name, ON_CUDA)
    )
    with pytest.raises(RuntimeError, match=r"masked_linear: x is on cuda:0, .*not built"):
        masked_linear(x, weight, torch.ones(5, 6), None, None, True)


def test_where_which_way_is_taken():
    for training in (True, False):
        assert prefers_entries(128, 52_000, 1024, 1024, training=training)
        assert not prefers_entries(128, 1024**2, 1024, 1024, training=training)
        assert not prefers_entries(1, 32, 16, 16, training=training)
