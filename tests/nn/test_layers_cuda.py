"""The layers on CUDA tensors: against the CPU, with mixed memory, side by side, in half types."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn

from fastltc import LTC, CfC, MaskedLinear, ParallelLTC

pytestmark = pytest.mark.cuda

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LTC": lambda: LTC(5, AutoNCP(19, 2, seed=1)),
    "LTC with memory": lambda: LTC(5, AutoNCP(19, 2, seed=1), mixed_memory=True),
    "CfC": lambda: CfC(5, 17),
    "CfC with memory": lambda: CfC(5, AutoNCP(19, 2, seed=1), mixed_memory=True),
    "MaskedLinear": lambda: MaskedLinear(5, 4, (torch.rand(4, 5) < 0.5).float()),
}
HALF = [torch.float16, torch.bfloat16]


def run(layer: nn.Module, x: Tensor) -> Tensor:
    result = layer(x)
    return result[0] if isinstance(result, tuple) else result


def step(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the output and the gradients of its sum of squares, on the CPU."""
    x = x.detach().requires_grad_()
    output = run(layer, x)
    leaves = [x, *(p for p in layer.parameters() if p.requires_grad)]
    grads = torch.autograd.grad(output.double().square().sum(), leaves, allow_unused=True)
    return [t.detach().cpu() for t in (output, *grads) if t is not None]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_what_it_gives_on_the_cpu(name: str) -> None:
    layer = LAYERS[name]().double()
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    expected = step(layer, x)
    for got, wanted in zip(step(copy.deepcopy(layer).cuda(), x.cuda()), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("name", LAYERS)
def test_half_layers_compute_in_float32(name: str, half: torch.dtype) -> None:
    layer = LAYERS[name]().cuda().to(half)
    x = torch.randn(3, 6, 5, device="cuda", dtype=half)
    output = run(layer, x)
    assert output.dtype == half
    wide = run(copy.deepcopy(layer).float(), x.float())
    assert torch.equal(output, wide.to(half))
    assert all(torch.isfinite(t).all() for t in step(layer, x))


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("narrow", [False, True], ids=["float32 x", "half x"])
@pytest.mark.parametrize("name", LAYERS)
def test_autocast_keeps_the_parameters_in_float32(
    name: str, narrow: bool, half: torch.dtype
) -> None:
    layer = LAYERS[name]().cuda()
    x = torch.randn(3, 6, 5, device="cuda")
    x = x.to(half) if narrow else x
    with torch.autocast("cuda", half):
        output = run(layer, x)
        gradients = step(layer, x)
    assert output.dtype == torch.float32
    assert torch.equal(output, run(layer, x.float()))
    assert all(torch.isfinite(t).all() for t in gradients)


@pytest.mark.parametrize("time_axes", ["number", "(B, T)", "(K, B, T)"])
def test_layers_side_by_side_give_what_they_give_one_by_one(time_axes: str) -> None:
    layers = [LTC(5, AutoNCP(19, 2, seed=k)).double().cuda() for k in range(4)]
    nets = ParallelLTC(layers)
    x = torch.randn(4, 3, 6, 5, dtype=torch.float64, device="cuda")
    shape = {"number": (), "(B, T)": (3, 6), "(K, B, T)": (4, 3, 6)}[time_axes]
    spans = torch.rand(*shape, dtype=torch.float64, device="cuda") if shape else 0.5
    output, hn = nets(x, timespans=spans)
    for k, layer in enumerate(layers):
        own = spans[k] if isinstance(spans, Tensor) and spans.dim() == 3 else spans
        wanted, wanted_hn = layer(x[k], timespans=own)
        torch.testing.assert_close(output[k], wanted, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(hn[k], wanted_hn, rtol=1e-11, atol=1e-11)
