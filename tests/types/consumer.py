"""What a typed program does with the public names; test_consumer.py has mypy read it, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import fastltc
from fastltc import (
    LTC,
    Bidirectional,
    CfC,
    CfCCell,
    LTCCell,
    MaskedLinear,
    ParallelCfC,
    ParallelLTC,
    Sequential,
)
from fastltc.hub import CfC as HubCfC
from fastltc.hub import HubMixin
from fastltc.jobs import Run, TrainConfig, train
from fastltc.runtime import Session
from fastltc.runtime.model import Model
from fastltc.wirings import AutoNCP, Wiring


class Policy(nn.Module):
    def __init__(self, inputs: int, wiring: Wiring) -> None:
        super().__init__()
        self.rnn = LTC(inputs, wiring)
        self.head = nn.Linear(self.rnn.motor_size, 1)

    def forward(self, x: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, hn = self.rnn(x, hx, timespans=0.1, lengths=[3])
        return self.head(output), hn


class Saved(HubMixin, nn.Module):
    def __init__(self, units: int = 8) -> None:
        super().__init__()
        self.rnn = CfC(3, units)


x = torch.randn(1, 5, 3)
layer = LTC(3, AutoNCP(12, 2), mixed_memory=False, ode_unfolds=6)
assert_type(layer.state_size, int)
assert_type(layer.motor_size, int)
assert_type(layer.synapse_count, int)
output, hn = layer(x, timespans=torch.rand(1, 5))
assert_type(layer.forward(x), tuple[Any, Any])
assert_type(CfC(3, 8).forward(x), tuple[Any, Any])
output, hn, states = layer.forward(x, return_states=True)
assert_type(Sequential(nn.Linear(3, 4), LTC(4, 5)).forward(x), tuple[Any, list[Any]])
assert_type(Bidirectional(LTC(3, 4), CfC(3, 4)).forward(x), tuple[Any, tuple[Any, Any]])
assert_type(LTCCell(AutoNCP(12, 2), 3).forward(x[:, 0], x.new_zeros(1, 12)), tuple[Tensor, Tensor])
assert_type(CfCCell(3, 8).forward(x[:, 0], x.new_zeros(1, 8), 1.0), tuple[Tensor, Tensor])
assert_type(MaskedLinear(3, 4, torch.ones(4, 3)).forward(x), Tensor)
nets = ParallelLTC([LTC(3, 4), LTC(3, 4)])
assert_type(nets.forward(torch.randn(2, 1, 5, 3)), tuple[Tensor, Tensor])
assert_type(nets.layer(0), LTC)
ensemble = ParallelCfC([CfC(3, 4), CfC(3, 4)])
assert_type(ensemble.forward(torch.randn(2, 1, 5, 3)), tuple[Tensor, Tensor])
assert_type(ensemble.layer(0), CfC)

report = fastltc.accelerate(Policy(3, AutoNCP(12, 2)))
assert_type(report.swapped, Mapping[str, str])
with fastltc.patch_ncps() as patch:
    print(patch)

assert_type(fastltc.export(layer, "model.safetensors", time_unit=60), Model)
session = Session.load("model.safetensors", streams=2)
assert_type(session.time_unit, float)
step = session.step(np.zeros((2, 3), np.float32), dt=0.5)
step.sum()

loaded = HubCfC.from_pretrained("folder")
assert_type(loaded, HubCfC)
loaded.save_pretrained(Path("folder"))
Saved(4).push_to_hub("owner/name")

run = train(TrainConfig(data="digits", epochs=1), Path("run"))
assert_type(run, Run)
