"""LTC, CfC and the masked product on a GPU: `pytest benchmarks -m cuda --benchmark-json=...`.

Training steps against ncps, eager and compiled, and against cuDNN's LSTM; forward and training step
against the special-function limit measured in the same rounds; the masked product by its entries
against the dense one. Times include waiting for the GPU once per slice of many calls.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ncps.wirings import FullyConnected
from torch import Tensor, nn

from cases import CASES, QUICK, UNFOLDS, Case, Layer, Layers
from cuda_rows import (
    LIMIT,
    Asked,
    against_compiled_ncps,
    against_lstm,
    against_ncps,
    evaluation_rate,
    gpu_row,
    over_limit,
)
from fastltc.ops import mask_entries, masked_linear
from figures import Figure, Row
from interleave import Contestant, Interleaved
from special_function_limit import SpecialFunctionLimit, synchronised

pytestmark = pytest.mark.cuda

DEVICE = "cuda"
# Sums of thousands of terms in float32, in another order and with another exponential.
TOLERANCE = 1e-4

GPU_CASES = {
    "auto_ncp_19": CASES["auto_ncp_19"],
    "fully_connected_64": replace(CASES["fully_connected_64"], time=256).shortened(),
    "fully_connected_256": Case(
        "FullyConnected(256)",
        lambda package, inputs: package.LTC(inputs, FullyConnected(256), ode_unfolds=UNFOLDS),
        256,
        64,
        256,
        128,
    ).shortened(),
    **{
        name: CASES[name]
        for name in (
            "cfc_auto_ncp_19",
            "cfc_auto_ncp_64",
            "cfc_64",
            "mixed_auto_ncp_19",
            "cfc_mixed_auto_ncp_19",
        )
    },
}
LTC_CASES = ("auto_ncp_19", "fully_connected_64", "fully_connected_256")
ASKED = {
    "auto_ncp_19": Asked(part_of_lstm=0.5, times_ncps=300),
    "fully_connected_64": Asked(part_of_lstm=1.2),
    "fully_connected_256": Asked(percent_of_limit=60),
}
NOTHING = Asked()
# What ncps keeps for the backward pass, some 5 [B, N, N] for each unfold, would take more memory
# than a GPU has.
TOO_LARGE_FOR_NCPS = ("fully_connected_256",)
# Whose cells compile within a minute or so.
COMPILED = ("auto_ncp_19", "fully_connected_64", "cfc_auto_ncp_19")
SECONDS = float(os.environ.get("FASTLTC_BENCH_SECONDS", "15"))

Record = Callable[[Row], None]
Interleave = Callable[..., Interleaved]


@functools.cache
def checked(name: str) -> tuple[Layers, float]:
    """Return the layers of a case, once output, states and all gradients agree, and by how much."""
    case = GPU_CASES[name]
    layers = Layers(case, DEVICE)
    few = Layers(replace(case, time=4), DEVICE) if name in TOO_LARGE_FOR_NCPS else layers
    return layers, few.check(TOLERANCE)


@functools.cache
def limit() -> SpecialFunctionLimit:
    return SpecialFunctionLimit(0.0001 if QUICK else 0.005)


def captured(step: Callable[[], object]) -> Callable[[], object]:
    """Return the step as a CUDA graph, as a training loop of fixed sizes would run it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def twin(layer: Layer) -> Layer:
    """Return a layer of its own parameters and gradients, with the same values."""
    own = copy(layer)
    own.module = deepcopy(layer.module)
    own.x = layer.x.detach().clone().requires_grad_()
    for module in own.module.modules():
        # cuDNN wants them side by side, which copying undoes.
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    return own


def with_compiled_cell(layer: Layer) -> Layer:
    """Return a layer of ncps whose cell is compiled.

    ncps calls the cell once for each time step. Compiling the loop too would unroll it, which takes
    a minute for every four time steps or so.
    """
    torch._dynamo.reset()
    own = twin(layer)
    cell: Any = own.module.rnn_cell
    cell.forward = torch.compile(cell.forward)
    return own


def contestant(name: str, call: Callable[[], object]) -> Contestant:
    return Contestant(name, call, 1)


@pytest.mark.parametrize("name", GPU_CASES)
def test_training_step(name: str, interleave: Interleave, record: Record) -> None:
    layers, error = checked(name)
    asked = ASKED.get(name, NOTHING)
    contestants = [
        contestant("fastltc", layers.fastltc.training_step),
        contestant("LSTM", layers.lstm.training_step),
    ]
    if name not in TOO_LARGE_FOR_NCPS:
        contestants.append(contestant("ncps", layers.ncps.training_step))
    times = interleave(contestants, seconds=SECONDS, clock=synchronised)
    figures = [against_lstm(times, layers.case.units, asked)]
    if name not in TOO_LARGE_FOR_NCPS:
        figures.insert(0, against_ncps(times, asked))
    record(gpu_row(str(layers.case), "forward + backward", times, figures, error))


@pytest.mark.parametrize("name", GPU_CASES)
def test_training_step_in_a_graph(name: str, interleave: Interleave, record: Record) -> None:
    layers, error = checked(name)
    asked = ASKED.get(name, NOTHING)
    contestants = [
        contestant("fastltc", captured(twin(layers.fastltc).training_step)),
        contestant("LSTM", captured(twin(layers.lstm).training_step)),
    ]
    if name in LTC_CASES:
        contestants.append(contestant(LIMIT, limit().call))
    times = interleave(contestants, seconds=SECONDS, clock=synchronised)
    figures = [against_lstm(times, layers.case.units, asked)]
    if name in LTC_CASES:
        evaluations = layers.evaluations, limit().evaluations
        figures.append(over_limit(times, *evaluations, asked, passes=2))
    record(gpu_row(str(layers.case), "forward + backward, CUDA graphs", times, figures, error))


@pytest.mark.parametrize("name", LTC_CASES)
def test_forward_over_the_limit(name: str, interleave: Interleave, record: Record) -> None:
    layers, error = checked(name)
    times = interleave(
        [
            contestant("fastltc", captured(layers.fastltc.forward)),
            contestant(LIMIT, limit().call),
        ],
        seconds=SECONDS,
        clock=synchronised,
    )
    evaluations = layers.evaluations, limit().evaluations
    figures = [over_limit(times, *evaluations, NOTHING, passes=1)]
    record(gpu_row(str(layers.case), "forward, CUDA graphs", times, figures, error))


@pytest.mark.parametrize("name", COMPILED)
def test_against_compiled_ncps(name: str, interleave: Interleave, record: Record) -> None:
    layers, error = checked(name)
    compiled = with_compiled_cell(layers.ncps)
    times = interleave(
        [
            contestant("fastltc", layers.fastltc.training_step),
            contestant("ncps compiled", compiled.training_step),
        ],
        seconds=SECONDS,
        clock=synchronised,
    )
    figures = [against_compiled_ncps(times)]
    record(gpu_row(str(layers.case), "forward + backward", times, figures, error))


class Products:
    """The product with a masked weight by the mask's entries and dense, forward and backward."""

    def __init__(self, batch: int, inputs: int, outputs: int, density: float) -> None:
        torch.manual_seed(0)
        self.mask = (torch.rand(outputs, inputs) < density).float().to(DEVICE)
        self.entries = mask_entries(self.mask)
        linear = nn.Linear(inputs, outputs, device=DEVICE)
        self.x = torch.randn(batch, inputs, device=DEVICE, requires_grad=True)
        self.leaves = [self.x, linear.weight, linear.bias]
        self.grad = torch.randn(batch, outputs, device=DEVICE)

    def results(self, by_entries: bool) -> list[Tensor]:
        x, weight, bias = self.leaves
        if by_entries:
            y = masked_linear(x, weight, self.mask, bias, self.entries, True)
        else:
            y = F.linear(x, weight * self.mask, bias)
        return [y, *torch.autograd.grad(y, self.leaves, self.grad)]

    def check(self) -> float:
        """Return the largest relative difference of outputs and gradients."""
        worst = 0.0
        for ours, theirs in zip(self.results(True), self.results(False), strict=True):
            error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
            assert error <= 1e-5, f"the products differ by {error:.1e}"
            worst = max(worst, error)
        return worst


@pytest.mark.parametrize("density", [0.05, 0.1, 0.25])
def test_masked_linear(density: float, interleave: Interleave, record: Record) -> None:
    products = Products(128, 1024, 1024, density)
    error = products.check()
    times = interleave(
        [
            contestant("fastltc", captured(lambda: products.results(True))),
            contestant("dense", captured(lambda: products.results(False))),
        ],
        seconds=5,
        clock=synchronised,
    )
    ratio = times.ratio("dense", "fastltc")
    figures = [Figure("other", "{} x F.linear(x, W * mask, b)", ratio)]
    case = f"masked product by entries, 1024 x 1024, {100 * density:g} %, B=128"
    record(gpu_row(case, "forward + backward, CUDA graphs", times, figures, error))


def test_special_function_limit(interleave: Interleave, record: Record) -> None:
    times = interleave([contestant(LIMIT, limit().call)], seconds=2, clock=synchronised)
    figures = [evaluation_rate(times, limit().evaluations)]
    record(gpu_row("sigmoids in registers", "special-function limit", times, figures, None))
