"""Ten networks of one shape in one call against a call of each, one sample and step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP

import fastltc
from figures import Figure, Spread
from interleave import Contestant

COUNT, INPUTS = 10, 16


@pytest.mark.parametrize(("steps", "asked"), [(1, 5), (32, None)])
def test_ten_networks(
    steps: int,
    asked: float | None,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    torch.manual_seed(0)
    layers = [fastltc.LTC(INPUTS, AutoNCP(19, 2)) for _ in range(COUNT)]
    nets = fastltc.ParallelLTC(layers)
    x, hx = torch.randn(COUNT, 1, steps, INPUTS), torch.randn(COUNT, 1, 19)
    inputs, states = list(x), list(hx)

    def one_by_one() -> list[torch.Tensor]:
        return [
            layer(sample, state)[0]
            for layer, sample, state in zip(layers, inputs, states, strict=True)
        ]

    with torch.no_grad():
        error = float((nets(x, hx)[0] - torch.stack(one_by_one())).abs().max())
        assert error <= 1e-5
        times = interleave(
            [
                Contestant("fastltc", lambda: nets(x, hx), threads),
                Contestant("ten calls", one_by_one, threads),
            ]
        )
    time = Spread.of([1e6 * seconds for seconds in times.seconds["fastltc"]])
    ratio = times.ratio("ten calls", "fastltc")
    figures = [
        Figure("fastltc", "{} us", time),
        Figure("other", "{} x ten calls", ratio, at_least=asked),
    ]
    case = f"ten AutoNCP(19, 2), I={INPUTS}, B=1, T={steps}"
    record_times(case, "forward from Python, no_grad", times, figures, error)
