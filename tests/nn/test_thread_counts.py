"""Another number of threads in either pass: the same gradients, whatever the tiles of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from fastltc import LTC, CfC

THREADS = (1, 2, 3, 4, 8)
T, I, N = 6, 5, 24  # noqa: E741
# Batch and time steps: [B, T] as given or expanded, or one for each neuron.
PROBLEMS = ((1, "step"), (33, None), (64, "sample"), (130, "neuron"))
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-11}


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(layer: LTC | CfC, x: Tensor, timespans: Tensor | None, given: str) -> list[Tensor]:
    batch = x.shape[0]
    lengths = (torch.arange(1, batch + 1) * T / batch).ceil().long()
    if given == "packed":
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, hn = layer(packed, None, timespans)
        output = output.data if layer.return_sequences else output
    else:
        output, hn = layer(x, None, timespans, lengths=lengths if given == "lengths" else None)
    return [output, *(hn if isinstance(hn, tuple) else (hn,))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("mixed_memory", [False, True])
@pytest.mark.parametrize("kind", ["LTC", "CfC", "CfC without wiring"])
def test_every_pair_of_thread_counts_has_the_same_gradients(
    kind: str, mixed_memory: bool, return_sequences: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    common: dict[str, Any] = {"mixed_memory": mixed_memory, "return_sequences": return_sequences}
    layer: LTC | CfC
    if kind == "LTC":
        layer = LTC(I, AutoNCP(N, 3, seed=3), **common)
    elif kind == "CfC":
        layer = CfC(I, AutoNCP(N, 3, seed=3), **common)
    else:
        layer = CfC(I, N, backbone_units=24, **common)
    layer.to(dtype)
    for (batch, steps), given in itertools.product(PROBLEMS, ("all", "lengths", "packed")):
        if dtype == torch.float32 and given != "lengths":
            continue
        timespans = {
            None: None,
            "sample": torch.rand(batch, 1, dtype=dtype).expand(batch, T),
            "step": torch.rand(batch, T, dtype=dtype),
            "neuron": torch.rand(batch, T, N, dtype=dtype),
        }[steps]
        x = torch.randn(batch, T, I, dtype=dtype, requires_grad=True)
        leaves = {n: p for n, p in layer.named_parameters() if p.requires_grad} | {"x": x}
        if timespans is not None:
            leaves["timespans"] = timespans.requires_grad_()
        expected: list[Tensor] = []
        for forward in THREADS:
            torch.set_num_threads(forward)
            outputs = run(layer, x, timespans, given)
            # The same number of threads is promised to give the same bits.
            again = run(layer, x, timespans, given)
            assert all(map(torch.equal, outputs, again))
            weights = [torch.linspace(-1, 1, o.numel(), dtype=dtype).view_as(o) for o in outputs]
            for backward in THREADS:
                torch.set_num_threads(backward)
                grads = torch.autograd.grad(outputs, list(leaves.values()), weights, True)
                results = [*(o.detach() for o in outputs), *grads]
                expected = expected or results
                for k, (value, reference) in enumerate(zip(results, expected, strict=True)):
                    error = float((value - reference).abs().max())
                    name = [*("output", "hn", "memory")[: len(outputs)], *leaves][k]
                    assert error <= TOLERANCE[dtype] * (1 + float(reference.abs().max())), (
                        *(batch, steps, given, f"{forward} threads, then {backward}"),
                        *(name, error),
                    )
