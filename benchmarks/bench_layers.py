"""LTC and CfC: training and inference against ncps, torch.nn.LSTM and the sigmoid limit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from copy import copy
from functools import partial
from typing import Any

import pytest
import torch

from cases import QUICK, TOLERANCE_MEDIUM, Layer, Layers
from figures import Figure, Spread
from interleave import Contestant
from sigmoid_limit import SigmoidLimit

# Of each case: how much quicker than ncps, and what part of the LSTM's time, is asked.
TRAINING = {
    "auto_ncp_19": (200, 0.5),
    "auto_ncp_64": (100, 1.1),
    "fully_connected_64": (12, None),
}

CFC_TRAINING = {
    "cfc_auto_ncp_19": (60, 0.6),
    "cfc_auto_ncp_64": (30, 1.2),
    "cfc_64": (3, None),
}

MIXED_TRAINING = {"mixed_auto_ncp_19": (40, None), "cfc_mixed_auto_ncp_19": (40, None)}

# Of one sample.
ONLINE_TRAINING = {"one_sequence": (None, 0.4)}

ALL_TRAINING = TRAINING | CFC_TRAINING | MIXED_TRAINING | ONLINE_TRAINING

CheckedLayers = Callable[[str], tuple[Layers, float]]


def compiled(layer: Layer) -> Layer:
    """Return the layer with its module compiled, which happens at the first step."""
    torch._dynamo.reset()
    module: Any = torch.compile(layer.module)
    result = copy(layer)
    result.module, result.x = module, layer.x.detach().clone().requires_grad_()
    return result


def stream(layer: Layer) -> Callable[[], object]:
    """Return a call of nothing but the module, with the state of a call before."""
    return partial(layer.module, layer.x.detach(), layer.hx)


@pytest.mark.parametrize("name", ALL_TRAINING)
def test_training_step(
    name: str,
    checked_layers: CheckedLayers,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
    compiled_ncps: bool,
) -> None:
    layers, error = checked_layers(name)
    faster, part_of_lstm = ALL_TRAINING[name]
    contestants = [
        Contestant("fastltc", layers.fastltc.training_step, threads),
        Contestant("ncps", layers.ncps.training_step, threads),
        Contestant("LSTM", layers.lstm.training_step, threads),
    ]
    if compiled_ncps:
        step = compiled(layers.ncps).training_step
        contestants.append(Contestant("ncps compiled", step, threads))
    # A step of ncps takes about a second.
    times = interleave(contestants, seconds=40, slice_seconds=0.1)
    of_lstm = f"{{}} of LSTM({layers.case.units})"
    figures = [
        Figure("ncps", "{} x ncps", times.ratio("ncps", "fastltc"), at_least=faster),
        Figure("LSTM", of_lstm, times.ratio("fastltc", "LSTM"), at_most=part_of_lstm),
    ]
    if compiled_ncps:
        ratio = times.ratio("ncps compiled", "fastltc")
        figures.append(Figure("other", "{} x torch.compile of ncps", ratio))
    record_times(str(layers.case), "forward + backward", times, figures, error)


@pytest.mark.parametrize(
    ("name", "faster", "part_of_lstm"),
    [("auto_ncp_19", None, None), ("auto_ncp_64", None, 0.9), ("fully_connected_64", 1.4, None)],
)
def test_medium_sigmoids(
    name: str,
    faster: float | None,
    part_of_lstm: float | None,
    checked_layers: CheckedLayers,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    highest, _ = checked_layers(name)
    medium = Layers(highest.case)
    module: Any = medium.fastltc.module
    module.sigmoid_precision = "medium"
    error = medium.check(TOLERANCE_MEDIUM)
    times = interleave(
        [
            Contestant("fastltc", medium.fastltc.training_step, threads),
            Contestant("highest", highest.fastltc.training_step, threads),
            Contestant("LSTM", highest.lstm.training_step, threads),
        ]
    )
    of_lstm, of_highest = times.ratio("fastltc", "LSTM"), times.ratio("highest", "fastltc")
    figures = [
        Figure("LSTM", f"{{}} of LSTM({highest.case.units})", of_lstm, at_most=part_of_lstm),
        Figure("other", "{} x the highest precision", of_highest, at_least=faster),
    ]
    record_times(f"{highest.case}, medium", "forward + backward", times, figures, error)


@pytest.mark.parametrize("thread_count", [1, 2])
@pytest.mark.parametrize("name", TRAINING)
def test_forward_over_sigmoid_limit(
    name: str,
    thread_count: int,
    checked_layers: CheckedLayers,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
) -> None:
    layers, error = checked_layers(name)
    with closing(SigmoidLimit(thread_count, call_seconds=0.001 if QUICK else 0.05)) as limit:
        times = interleave(
            [
                Contestant("fastltc", layers.fastltc.forward, thread_count),
                Contestant("sigmoid limit", limit.call, thread_count),
            ],
            slice_seconds=0.1,
        )
        scale = layers.evaluations / limit.evaluations
    percent = times.ratio("sigmoid limit", "fastltc", scale=100 * scale)
    figures = [Figure("other", "{} % of the sigmoid limit", percent, at_least=70)]
    record_times(str(layers.case), "forward", times, figures, error)


@pytest.mark.parametrize("name", TRAINING)
def test_training_step_over_forward(
    name: str,
    checked_layers: CheckedLayers,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    layers, error = checked_layers(name)
    times = interleave(
        [
            Contestant("fastltc", layers.fastltc.training_step, threads),
            Contestant("forward", layers.fastltc.forward, threads),
        ]
    )
    ratio = times.ratio("fastltc", "forward")
    figures = [Figure("other", "{} x the forward's time", ratio, at_most=3.5)]
    record_times(str(layers.case), "forward + backward", times, figures, error)


@pytest.mark.parametrize(
    ("name", "microseconds"), [("one_step", 20), ("one_sequence", 80), ("cfc_one_step", 25)]
)
def test_streaming(
    name: str,
    microseconds: float,
    checked_layers: CheckedLayers,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    layers, error = checked_layers(name)
    # Around the whole loop, as a program would have it.
    with torch.no_grad():
        times = interleave(
            [
                Contestant("fastltc", stream(layers.fastltc), threads),
                Contestant("ncps", stream(layers.ncps), threads),
                Contestant("LSTM", stream(layers.lstm), threads),
            ]
        )
    time = Spread.of([1e6 * seconds for seconds in times.seconds["fastltc"]])
    of_lstm = f"{{}} of LSTM({layers.case.units})"
    figures = [
        Figure("fastltc", "{} us", time, at_most=microseconds),
        Figure("ncps", "{} x ncps", times.ratio("ncps", "fastltc")),
        Figure("LSTM", of_lstm, times.ratio("fastltc", "LSTM")),
    ]
    record_times(str(layers.case), "forward from Python, no_grad", times, figures, error)


def test_two_threads_over_one(
    checked_layers: CheckedLayers,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
) -> None:
    layers, error = checked_layers("auto_ncp_19")
    times = interleave(
        [
            Contestant("fastltc", layers.fastltc.training_step, 2),
            Contestant("one thread", layers.fastltc.training_step, 1),
        ]
    )
    ratio = times.ratio("one thread", "fastltc")
    figures = [Figure("other", "{} x one thread", ratio, at_least=1.8)]
    record_times(str(layers.case), "forward + backward", times, figures, error)
