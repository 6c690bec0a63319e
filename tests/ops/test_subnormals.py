"""Kernels take numbers below the smallest normal one as zeros, and leave everything else alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fastltc.ops import mask_entries, masked_linear
from layers import Draw, every_equation_and_layout, run_operator, with_gradients

pytestmark = pytest.mark.kernels

SUBNORMAL = {torch.float32: 1e-40, torch.float64: 1e-310}
every_dtype = pytest.mark.parametrize("dtype", SUBNORMAL, ids=str)


@pytest.fixture(autouse=True)
def others_keep_them() -> Iterator[None]:
    """After a test torch still computes with subnormal numbers, in all of its threads."""
    yield
    for dtype, value in SUBNORMAL.items():
        many = torch.full((200_000,), value, dtype=dtype)
        assert bool(((many * 2) / 2 == many).all())
        assert bool((many != 0).all())


@every_dtype
@pytest.mark.parametrize("batch", [1, 3, 40])
@every_equation_and_layout
def test_gradients(draw: Draw, batch: int, dtype: torch.dtype) -> None:
    case = draw(batch, 5).to(dtype)
    weights = [torch.full_like(y, SUBNORMAL[dtype]) for y in run_operator(case)]
    results = with_gradients(run_operator, case, weights)
    for name in case.data:
        if case.data[name] is not None:
            assert not results[f"grad of {name}"].any(), name


@every_dtype
def test_masked_linear(dtype: torch.dtype) -> None:
    x, weight = torch.ones(200, 64, dtype=dtype), torch.ones(96, 64, dtype=dtype)
    mask = torch.ones(96, 64)
    entries = mask_entries(mask)
    y = masked_linear(x * SUBNORMAL[dtype], weight, mask, None, entries, by_entries=True)
    assert not y.any()
