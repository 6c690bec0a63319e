"""Networks of one shape in one call against a call of each, on few samples and step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn

import fastltc
from cases import QUICK, TOLERANCE
from figures import Figure, Spread
from interleave import Contestant

INPUTS = 16


class Networks:
    """Networks with an input and a state of one sample each, and both ways of calling them."""

    def __init__(self, layers: list[nn.Module], parallel: nn.Module, steps: int) -> None:
        self.layers, self.parallel = layers, parallel
        count = len(layers)
        self.x, self.hx = torch.randn(count, 1, steps, INPUTS), torch.randn(count, 1, 19)
        self.inputs, self.states = list(self.x), list(self.hx)

    def together(self) -> Tensor:
        output: Tensor = self.parallel(self.x, self.hx)[0]
        return output

    def one_by_one(self) -> list[Tensor]:
        return [
            layer(sample, state)[0]
            for layer, sample, state in zip(self.layers, self.inputs, self.states, strict=True)
        ]


def ten_ltc(steps: int) -> Networks:
    layers = [fastltc.LTC(INPUTS, AutoNCP(19, 2)) for _ in range(10)]
    return Networks([*layers], fastltc.ParallelLTC(layers), steps)


def sixteen_cfc(steps: int) -> Networks:
    layers = [fastltc.CfC(INPUTS, AutoNCP(19, 2)) for _ in range(16)]
    return Networks([*layers], fastltc.ParallelCfC(layers), steps)


@pytest.mark.parametrize(
    ("name", "make", "steps", "asked"),
    [
        ("ten AutoNCP(19, 2)", ten_ltc, 1, 5),
        ("ten AutoNCP(19, 2)", ten_ltc, 32, None),
        ("sixteen CfC, AutoNCP(19, 2)", sixteen_cfc, 1, 5),
        ("sixteen CfC, AutoNCP(19, 2)", sixteen_cfc, 32, 5),
    ],
    ids=["ltc-1", "ltc-32", "cfc-1", "cfc-32"],
)
def test_networks_beside_each_other(
    name: str,
    make: Callable[[int], Networks],
    steps: int,
    asked: float | None,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    torch.manual_seed(0)
    networks = make(steps)
    calls = f"{name.split()[0]} calls"
    with torch.no_grad():
        error = float((networks.together() - torch.stack(networks.one_by_one())).abs().max())
        assert error <= 1e-5
        times = interleave(
            [
                Contestant("fastltc", networks.together, threads),
                Contestant(calls, networks.one_by_one, threads),
            ]
        )
    time = Spread.of([1e6 * seconds for seconds in times.seconds["fastltc"]])
    figures = [
        Figure("fastltc", "{} us", time),
        Figure("other", f"{{}} x {calls}", times.ratio(calls, "fastltc"), at_least=asked),
    ]
    case = f"{name}, I={INPUTS}, B=1, T={steps}"
    record_times(case, "forward from Python, no_grad", times, figures, error)


ENSEMBLE: dict[str, Callable[[], nn.Module]] = {
    "CfC, AutoNCP(19, 2)": lambda: fastltc.CfC(INPUTS, AutoNCP(19, 2)),
    "CfC, 32 units, no backbone": lambda: fastltc.CfC(INPUTS, 32, backbone_layers=0),
    "CfC, 64 units, backbone of 128": lambda: fastltc.CfC(INPUTS, 64),
    "LTC, AutoNCP(19, 2)": lambda: fastltc.LTC(INPUTS, AutoNCP(19, 2)),
}


# A call, and what it trains.
Call = tuple[Callable[[], Tensor], list[Tensor]]


class Ways:
    """Two ways to the same outputs, in one call and otherwise, each of so many calls."""

    def __init__(self, together: list[Call], apart: list[Call]) -> None:
        self.together, self.apart = together, apart

    def check(self) -> float:
        with torch.no_grad():
            got, wanted = (
                torch.cat([run().flatten() for run, _ in way])
                for way in (self.together, self.apart)
            )
        error = float((got - wanted).abs().max() / wanted.abs().max())
        assert error <= TOLERANCE
        return error

    def contestants(self, others: str, training: bool, threads: int) -> list[Contestant]:
        def train(way: list[Call]) -> None:
            outputs = [run() for run, _ in way]
            for output, (_, leaves) in zip(outputs, way, strict=True):
                torch.autograd.grad(output.sum(), leaves, allow_unused=True)

        @torch.no_grad()
        def forward(way: list[Call]) -> None:
            for run, _ in way:
                run()

        step = train if training else forward
        return [
            Contestant("fastltc", functools.partial(step, self.together), threads),
            Contestant(others, functools.partial(step, self.apart), threads),
        ]


def trained(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [p for p in parameters if p.requires_grad]


def ensemble(make: Callable[[], nn.Module], batch: int, steps: int) -> Ways:
    """Sixteen layers of one shape, an input of each: ``torch.func.vmap`` over their parameters."""
    layers = [make() for _ in range(16)]
    parameters, buffers = torch.func.stack_module_state(layers)
    x = torch.randn(16, batch, steps, INPUTS)

    def run(parameters: Any, buffers: Any, x: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(layers[0], (parameters, buffers), x)[0]
        return output

    def together() -> Tensor:
        return torch.func.vmap(run)(parameters, buffers, x)

    return Ways(
        [(together, trained(parameters.values()))],
        [
            (lambda layer=layer, own=own: layer(own)[0], trained(layer.parameters()))
            for layer, own in zip(layers, list(x), strict=True)
        ],
    )


def folded(make: Callable[[], nn.Module], batch: int, steps: int) -> Ways:
    """A layer on sixteen batches: ``torch.func.vmap`` over them, and one batch of all."""
    layer, x = make(), torch.randn(16, batch, steps, INPUTS)
    everything, leaves = x.flatten(0, 1), trained(layer.parameters())
    return Ways(
        [(lambda: torch.func.vmap(lambda x: layer(x)[0])(x), leaves)],
        [(lambda: layer(everything)[0], leaves)],
    )


@pytest.fixture
def compare(
    interleave: Callable[..., Any], record_times: Callable[..., None], threads: int
) -> Callable[[Ways, str, bool, str, Callable[[Any], Figure]], None]:
    """A function that records both ways: what the other is called, training, case, their ratio."""

    def run(
        ways: Ways, others: str, training: bool, case: str, ratio: Callable[[Any], Figure]
    ) -> None:
        error = ways.check()
        times = interleave(ways.contestants(others, training, threads), seconds=4.0)
        time = Spread.of([1e3 * seconds for seconds in times.seconds["fastltc"]])
        what = "forward + backward" if training else "forward, no_grad"
        record_times(case, what, times, [Figure("fastltc", "{} ms", time), ratio(times)], error)

    return run


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 32), (1, 128), (8, 32), (32, 32)])
@pytest.mark.parametrize("name", ENSEMBLE)
def test_an_ensemble_by_vmap(
    name: str, batch: int, steps: int, training: bool, compare: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    steps = min(steps, 4) if QUICK else steps
    asked = 5.0 if batch == 1 and name.startswith("CfC") else None
    compare(
        ensemble(ENSEMBLE[name], batch, steps),
        "sixteen calls",
        training,
        f"sixteen {name} by vmap, I={INPUTS}, B={batch}, T={steps}",
        lambda times: Figure(
            "other", "{} x sixteen calls", times.ratio("sixteen calls", "fastltc"), at_least=asked
        ),
    )


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize(("batch", "steps"), [(1, 32), (8, 32), (32, 32)])
@pytest.mark.parametrize("name", [name for name in ENSEMBLE if "32 units" not in name])
def test_vmap_over_inputs(
    name: str, batch: int, steps: int, training: bool, compare: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    steps = min(steps, 4) if QUICK else steps
    compare(
        folded(ENSEMBLE[name], batch, steps),
        "one call",
        training,
        f"{name} by vmap over sixteen inputs, I={INPUTS}, B={batch} each, T={steps}",
        lambda times: Figure(
            "other", "{} of one call", times.ratio("fastltc", "one call"), at_most=1.3
        ),
    )
