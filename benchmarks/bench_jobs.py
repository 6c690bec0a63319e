"""Training steps of the recipes for time series, with ncps or an LSTM in the place of the layer.

Needs the data of the papers: `FASTLTC_BENCH_DATA` is the folder. A step is all of it, from taking a
batch to the optimizer's step, on the same eight batches for each, of which ncps, as slow as it is,
has the first; it reads sequences of different lengths to the end of the longest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncps.torch
import pytest
import torch
from torch import Tensor, nn

from cases import QUICK
from fastltc.jobs import TrainConfig
from fastltc.jobs.models import parts, sequence
from fastltc.jobs.recipes import read_recipe
from fastltc.jobs.training import parallel
from fastltc.jobs.training.epochs import Epochs
from fastltc.jobs.training.fitting import Gradients
from fastltc.jobs.training.task import Task, make_model, read_data
from figures import Figure
from interleave import Contestant

BATCHES = 1 if QUICK else 8
# Whether the time of the LSTM is asked for, that of NCP wirings and of CfC.
RECIPES = {
    "walker2d-cfc": True,
    "walker2d-ltc": False,
    "cheetah-ltc": False,
    "traffic-ltc": False,
    "ozone-ltc": False,
    "xor-ltc": False,
    "xor-ltc-memory": False,
    "event-mnist-ltc": False,
    "physionet2012-cfc": True,
    "physionet2012-ltc": False,
    "etth1-cfc": True,
    "occupancy-ltc": False,
}
# What an LSTM has not.
LIQUID = (
    *("wiring", "sparsity", "wiring_seed", "gain", "mixed_memory", "unfolds", "conductances"),
    *("backbone_units", "backbone_layers", "timestep", "time_input", "sigmoid_precision"),
)


class Ncps(nn.Module):
    """A layer of ncps with the call of ours."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, x: Tensor, hx: Any = None, timespans: Any = None, lengths: Any = None
    ) -> tuple[Tensor, Any]:
        # Its time steps have to be alike in a batch; they make no difference to the time.
        output, state = self.layer(x, hx)
        return output, state


def steps(
    recipe: str, changes: dict[str, Any], threads: int, count: int = BATCHES
) -> Callable[[], None]:
    """Return a function that trains on so many batches."""
    options = {k: v for k, v in read_recipe(recipe).items() if k != "about"} | changes
    options = {k: v for k, v in options.items() if v is not None}
    config = TrainConfig(**options, data_root=os.environ["FASTLTC_BENCH_DATA"], threads=threads)
    config, data, positive = read_data(config, offline=True, download=None)
    torch.manual_seed(0)
    model = make_model(config, data, positive, resume=False)
    with parallel.processes(torch.device("cpu")) as group:
        task = Task(config, data, positive, model, torch.device("cpu"), group)
    fitting = Epochs(task, Path(recipe)).fitting
    assert isinstance(fitting, Gradients)
    model.train()
    order = torch.randperm(len(task.feeds["train"]), generator=torch.Generator().manual_seed(0))
    batches = order.split(config.batch_size)[:count]

    def run() -> None:
        for batch in batches:
            fitting.step(batch)

    return run


@pytest.mark.parametrize("recipe", RECIPES)
def test_step_of_a_job(
    recipe: str,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not os.environ.get("FASTLTC_BENCH_DATA"):
        pytest.skip("FASTLTC_BENCH_DATA: expected the folder with the data of the papers")
    threads = 1
    torch.set_num_threads(threads)
    given = read_recipe(recipe)
    lstm = {**dict.fromkeys(LIQUID), "model": f"{given['model'].rpartition('-')[0]}-lstm"}
    contestants = [
        Contestant("fastltc", steps(recipe, {}, threads), threads, BATCHES),
        Contestant("lstm", steps(recipe, lstm, threads), threads, BATCHES),
    ]
    layers = {"ltc": ncps.torch.LTC, "cfc": ncps.torch.CfC}
    monkeypatch.setattr(parts, "liquid_layer", lambda cell, *a, **k: Ncps(layers[cell](*a, **k)))
    # First values make no difference to the time.
    monkeypatch.setattr(sequence, "init_by_fan_in", lambda layer: None)
    contestants.append(Contestant("ncps", steps(recipe, {}, threads, 1), threads))
    times = interleave(contestants, seconds=10)
    asked = {"at_most": 1.0} if RECIPES[recipe] else {}
    figures = [
        Figure("ncps", "{} x ncps", times.ratio("ncps", "fastltc")),
        Figure("LSTM", "{} of the LSTM's", times.ratio("fastltc", "lstm"), **asked),
    ]
    record_times(given["about"], f"a training step of {recipe}", times, figures, None)
