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


class Networks:
    """Ten networks with an input and a state of one sample each, and both ways of calling them."""

    def __init__(self, steps: int) -> None:
        torch.manual_seed(0)
        self.layers = [fastltc.LTC(INPUTS, AutoNCP(19, 2)) for _ in range(COUNT)]
        self.parallel = fastltc.ParallelLTC(self.layers)
        self.x, self.hx = torch.randn(COUNT, 1, steps, INPUTS), torch.randn(COUNT, 1, 19)
        self.inputs, self.states = list(self.x), list(self.hx)

    def together(self) -> torch.Tensor:
        return self.parallel(self.x, self.hx)[0]

    def one_by_one(self) -> list[torch.Tensor]:
        return [
            layer(sample, state)[0]
            for layer, sample, state in zip(self.layers, self.inputs, self.states, strict=True)
        ]


@pytest.mark.parametrize(("steps", "asked"), [(1, 5), (32, None)])
def test_ten_networks(
    steps: int,
    asked: float | None,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    networks = Networks(steps)
    with torch.no_grad():
        error = float((networks.together() - torch.stack(networks.one_by_one())).abs().max())
        assert error <= 1e-5
        times = interleave(
            [
                Contestant("fastltc", networks.together, threads),
                Contestant("ten calls", networks.one_by_one, threads),
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
