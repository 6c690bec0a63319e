"""The masked product against ``torch.nn.functional.linear`` with the weight times the mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastltc
from cases import QUICK
from figures import Figure
from interleave import Contestant

# batch, inputs, outputs, density: how many times quicker is asked. All others must not be slower
# than 1.1 times the dense product.
ASKED = {
    (128, 1024, 1024, 0.05): 8,
    (128, 1024, 1024, 0.1): 4,
    (128, 1024, 1024, 0.25): 1.8,
}
OTHERS = [
    *((128, 1024, 1024, density) for density in (0.5, 1.0)),
    *((1, 1024, 1024, density) for density in (0.05, 0.5)),
    *((16, 512, 512, density) for density in (0.05, 0.25, 1.0)),
    *((512, 128, 128, density) for density in (0.1, 0.5)),
    *((128, 64, 64, density) for density in (0.1, 0.5)),
]
SIZES = [*ASKED, *OTHERS]


class Products:
    """Both products of one weight, with a forward and a backward pass of each."""

    def __init__(self, batch: int, inputs: int, outputs: int, density: float) -> None:
        torch.manual_seed(0)
        mask = (torch.rand(outputs, inputs) < density).float()
        self.layer = fastltc.MaskedLinear(inputs, outputs, mask)
        self.x = torch.randn(batch, inputs, requires_grad=True)
        self.grad = torch.randn(batch, outputs)

    def dense(self) -> Tensor:
        return F.linear(self.x, self.layer.weight * self.layer.mask, self.layer.bias)

    def step(self, product: Callable[[], Tensor]) -> None:
        self.x.grad = None
        self.layer.zero_grad(set_to_none=True)
        product().backward(self.grad)

    def masked_step(self) -> None:
        self.step(lambda: self.layer(self.x))

    def dense_step(self) -> None:
        self.step(self.dense)

    def check(self) -> float:
        """Return the largest relative difference of outputs and gradients."""
        wanted = [self.x, *self.layer.parameters()]
        worst = 0.0
        results = []
        for y in (self.layer(self.x), self.dense()):
            results.append([y, *torch.autograd.grad(y, wanted, self.grad)])
        for ours, theirs in zip(*results, strict=True):
            error = float((ours - theirs).abs().max() / theirs.abs().max())
            assert error <= 1e-5, f"the products differ by {error:.1e}"
            worst = max(worst, error)
        return worst


@pytest.mark.parametrize("size", SIZES[:4] if QUICK else SIZES, ids=str)
def test_masked_linear(
    size: tuple[int, int, int, float],
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    batch, inputs, outputs, density = size
    products = Products(*size)
    error = products.check()
    times = interleave(
        [
            Contestant("fastltc", products.masked_step, threads),
            Contestant("dense", products.dense_step, threads),
        ],
        seconds=5,
    )
    ratio = times.ratio("dense", "fastltc")
    asked = ASKED.get(size, 1 / 1.1)
    figures = [Figure("other", "{} x F.linear(x, W * mask, b)", ratio, at_least=asked)]
    case = f"MaskedLinear({inputs}, {outputs}), {100 * density:g} %, B={batch}"
    record_times(case, "forward + backward", times, figures, error)
