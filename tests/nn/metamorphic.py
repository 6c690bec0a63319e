"""Runs layers in ways that may not matter, in one instruction set, and saves what they give.

``FASTLTC_CPU=... metamorphic.py FILE``: outputs and gradients of every case in every way; the test
compares them. Names are ``case dtype threads-forward threads-backward way result``.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import numpy as np
import torch
from ncps.wirings import AutoNCP
from torch import Tensor

import fastltc
from fastltc.ops import mask_entries, masked_linear

B, T, I = 37, 5, 6  # noqa: E741
THREADS = ((1, 1), (1, 3), (3, 1), (2, 4), (3, 3))
WAYS = ("as it is", "again", "order", "padding", "strides", "expanded")

CASES = {
    "ltc": lambda: fastltc.LTC(I, AutoNCP(19, 3)),
    "ltc memory": lambda: fastltc.LTC(I, AutoNCP(12, 3), mixed_memory=True),
    "cfc": lambda: fastltc.CfC(I, 13, backbone_units=11),
    "wired cfc": lambda: fastltc.CfC(I, AutoNCP(19, 3)),
    "masked": lambda: None,
}


def layer_results(layer: torch.nn.Module, way: str, threads: tuple[int, int]) -> Iterator[Tensor]:
    dtype = next(layer.parameters()).dtype
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(B, T, I, generator=generator, dtype=torch.float64).to(dtype)
    dt = torch.rand(B, T, generator=generator, dtype=torch.float64).to(dtype) + 0.1
    wanted = torch.randn(B, T, layer.output_size, generator=generator, dtype=torch.float64)
    wanted, lengths = wanted.to(dtype), torch.arange(B) % (T + 1)
    if way == "expanded":  # the same sample many times, once in memory
        x, dt, wanted = (t[:1].expand_as(t) for t in (x, dt, wanted))
        lengths = lengths[3:4].expand(B)
    back = torch.arange(B)
    if way == "order":
        order = torch.randperm(B, generator=generator)
        x, dt, wanted, lengths = x[order], dt[order], wanted[order], lengths[order]
        back = order.argsort()
    if way == "padding":
        rest = torch.full((B, 3, I), torch.nan, dtype=dtype)
        x, dt = torch.cat([x, rest], 1), torch.cat([dt, rest[..., 0]], 1)
        wanted = torch.cat([wanted, wanted[:, :3]], 1)
    if way == "strides":
        x = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        dt = torch.stack([dt, dt], -1)[..., 0]
        wanted = wanted.transpose(0, 1).contiguous().transpose(0, 1)
    x = x.detach().requires_grad_()
    torch.set_num_threads(threads[0])
    output, hn = layer(x, timespans=dt, lengths=lengths)
    torch.set_num_threads(threads[1])
    gradients = torch.autograd.grad(
        [output, *(hn if isinstance(hn, tuple) else (hn,))],
        [x, *(p for p in layer.parameters() if p.requires_grad)],
        [wanted, *(torch.ones_like(h) for h in (hn if isinstance(hn, tuple) else (hn,)))],
    )
    yield output.detach()[back][:, :T]
    yield gradients[0][back][:, :T]
    yield from gradients[1:]


def masked_results(dtype: torch.dtype, way: str, threads: tuple[int, int]) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(2)
    x, weight = torch.randn(B, 40, generator=generator), torch.randn(50, 40, generator=generator)
    wanted, mask = torch.randn(B, 50, generator=generator), torch.rand(50, 40, generator=generator)
    x, weight, wanted, mask = (t.to(dtype) for t in (x, weight, wanted, mask < 0.2))
    if way == "expanded":
        x, wanted = x[:1].expand_as(x), wanted[:1].expand_as(wanted)
    order = torch.arange(B)
    if way == "order":
        order = torch.randperm(B, generator=generator)
    x, wanted = (x, wanted) if way == "expanded" else (x[order], wanted[order])
    if way == "strides":
        x, wanted = x.t().contiguous().t(), wanted.t().contiguous().t()
    x, weight = x.detach().requires_grad_(), weight.requires_grad_()
    torch.set_num_threads(threads[0])
    y = masked_linear(x, weight, mask, None, mask_entries(mask), by_entries=True)
    torch.set_num_threads(threads[1])
    grad_x, grad_weight = torch.autograd.grad(y, [x, weight], wanted)
    back = order.argsort()
    yield y.detach()[back]
    yield grad_x[back]
    yield grad_weight


def main() -> None:
    found = {}
    for name, dtype in itertools.product(CASES, (torch.float32, torch.float64)):
        torch.manual_seed(0)
        layer = CASES[name]()
        if layer is not None:
            layer = layer.to(dtype)
        for threads, way in itertools.product(THREADS, WAYS):
            if layer is not None:
                results = layer_results(layer, way, threads)
            else:
                results = masked_results(dtype, way, threads)
            for number, result in enumerate(results):
                key = f"{name},{str(dtype)[6:]},{threads[0]},{threads[1]},{way},{number}"
                found[key] = result.numpy()
    np.savez(sys.argv[1], **found)


if __name__ == "__main__":
    main()
