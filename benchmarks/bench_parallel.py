"""Networks of one shape in one call against a call of each, on few samples and step by step."""

from __future__ import annotations

from collections.abc import Callable
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


class Ensemble:
    """Sixteen layers of one shape, an input of each, and both ways of running all of them.

    Together they are ``torch.func.vmap`` over stacked parameters.
    """

    count = 16

    def __init__(self, make: Callable[[], nn.Module], batch: int, steps: int) -> None:
        torch.manual_seed(0)
        self.layers = [make() for _ in range(self.count)]
        parameters, buffers = torch.func.stack_module_state(self.layers)
        self.parameters, self.buffers = dict(parameters), dict(buffers)
        self.x = torch.randn(self.count, batch, steps, INPUTS)
        self.inputs = list(self.x)
        self.leaves = [p for p in self.parameters.values() if p.requires_grad]

    def together(self) -> Tensor:
        def run(parameters: Any, buffers: Any, x: Tensor) -> Tensor:
            output: Tensor = torch.func.functional_call(self.layers[0], (parameters, buffers), x)[0]
            return output

        return torch.func.vmap(run)(self.parameters, self.buffers, self.x)

    def one_by_one(self) -> list[Tensor]:
        return [layer(x)[0] for layer, x in zip(self.layers, self.inputs, strict=True)]

    def train_together(self) -> None:
        torch.autograd.grad(self.together().sum(), self.leaves, allow_unused=True)

    def train_one_by_one(self) -> None:
        for layer, output in zip(self.layers, self.one_by_one(), strict=True):
            own = [p for p in layer.parameters() if p.requires_grad]
            torch.autograd.grad(output.sum(), own, allow_unused=True)

    def pair(self, training: bool) -> list[Callable[[], object]]:
        if training:
            return [self.train_together, self.train_one_by_one]
        return [torch.no_grad()(self.together), torch.no_grad()(self.one_by_one)]

    def check(self) -> float:
        with torch.no_grad():
            got, wanted = self.together(), torch.stack(self.one_by_one())
        error = float((got - wanted).abs().max() / wanted.abs().max())
        assert error <= TOLERANCE
        return error


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 32), (1, 128), (8, 32), (32, 32)])
@pytest.mark.parametrize("name", ENSEMBLE)
def test_an_ensemble_by_vmap(
    name: str,
    batch: int,
    steps: int,
    training: bool,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    steps = min(steps, 4) if QUICK else steps
    ensemble = Ensemble(ENSEMBLE[name], batch, steps)
    error = ensemble.check()
    together, apart = ensemble.pair(training)
    times = interleave(
        [
            Contestant("fastltc", together, threads),
            Contestant("sixteen calls", apart, threads),
        ],
        seconds=4.0,
    )
    asked = 5.0 if batch == 1 and name.startswith("CfC") else None
    figures = [
        Figure("fastltc", "{} ms", Spread.of([1e3 * s for s in times.seconds["fastltc"]])),
        Figure(
            "other", "{} x sixteen calls", times.ratio("sixteen calls", "fastltc"), at_least=asked
        ),
    ]
    what = "forward + backward" if training else "forward, no_grad"
    case = f"sixteen {name} by vmap, I={INPUTS}, B={batch}, T={steps}"
    record_times(case, what, times, figures, error)


class Folded:
    """A layer on sixteen batches: by ``torch.func.vmap`` over them, and as one batch."""

    def __init__(self, layer: nn.Module, batch: int, steps: int) -> None:
        self.layer, self.x = layer, torch.randn(16, batch, steps, INPUTS)
        self.all = self.x.flatten(0, 1)
        self.leaves = [p for p in layer.parameters() if p.requires_grad]

    def by_vmap(self) -> Tensor:
        return torch.func.vmap(lambda x: self.layer(x)[0])(self.x)

    def as_one(self) -> Tensor:
        output: Tensor = self.layer(self.all)[0]
        return output

    def check(self) -> float:
        with torch.no_grad():
            got, wanted = self.by_vmap().flatten(0, 1), self.as_one()
        error = float((got - wanted).abs().max() / wanted.abs().max())
        assert error <= TOLERANCE
        return error


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize(("batch", "steps"), [(1, 32), (8, 32), (32, 32)])
@pytest.mark.parametrize("name", [name for name in ENSEMBLE if "32 units" not in name])
def test_vmap_over_inputs(
    name: str,
    batch: int,
    steps: int,
    training: bool,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    steps = min(steps, 4) if QUICK else steps
    torch.manual_seed(0)
    folded = Folded(ENSEMBLE[name](), batch, steps)
    error = folded.check()

    def trained(run: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(run().sum(), folded.leaves, allow_unused=True)

    wrap = trained if training else torch.no_grad()
    times = interleave(
        [
            Contestant("fastltc", wrap(folded.by_vmap), threads),
            Contestant("one call", wrap(folded.as_one), threads),
        ],
        seconds=4.0,
    )
    figures = [
        Figure("fastltc", "{} us", Spread.of([1e6 * s for s in times.seconds["fastltc"]])),
        Figure("other", "{} of one call", times.ratio("fastltc", "one call"), at_most=1.3),
    ]
    what = "forward + backward" if training else "forward, no_grad"
    case = f"{name} by vmap over sixteen inputs, I={INPUTS}, B={batch} each, T={steps}"
    record_times(case, what, times, figures, error)
