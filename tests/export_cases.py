"""Models that can be exported, with random parameters, and what torch computes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import ncps.torch
import numpy as np
import torch
from ncps.wirings import NCP, AutoNCP, FullyConnected, Random
from torch import Tensor, nn

import fastltc
from fastltc.nn.cfc_cell import LeCun
from fastltc.nn.sequence_layer import SequenceLayer

# Reads time steps and inputs of steps, and writes outputs; in the end the state, where asked to.
DRIVER = """
#include <stdio.h>
#include "model.h"
int main(void)
{
    static model_state state;
    float input[MODEL_INPUT_SIZE + 1], output[MODEL_OUTPUT_SIZE];
    model_reset(&state);
    while (fread(input, sizeof input, 1, stdin) == 1) {
        if (model_step(&state, input + 1, input[0], output) != MODEL_OK) {
            return 1;
        }
        fwrite(output, sizeof output, 1, stdout);
    }
#ifdef WRITES_STATE
    fwrite(&state, sizeof state, 1, stdout);
#endif
    return 0;
}
"""


def _policy() -> list[nn.Module]:
    return [
        nn.Linear(3, 6),
        LeCun(),
        fastltc.LTC(6, AutoNCP(12, 4)),
        nn.Dropout(0.5),
        nn.GELU(),
        nn.Linear(4, 5, bias=False),
        nn.Softplus(),
        ncps.torch.CfC(5, 7, mixed_memory=True, backbone_units=9, backbone_layers=2),
        nn.SiLU(),
        nn.Linear(7, 3),
        nn.Softmax(dim=-1),
    ]


MODELS: dict[str, Callable[[], Any]] = {
    "ltc": lambda: fastltc.LTC(16, AutoNCP(19, 2)),
    "ltc, mixed memory": lambda: fastltc.LTC(4, AutoNCP(9, 2), mixed_memory=True),
    "ltc, no maps": lambda: fastltc.LTC(3, FullyConnected(5), input_mapping=None,
                                        output_mapping=None, ode_unfolds=3, epsilon=1e-3),
    "ltc, linear maps": lambda: fastltc.LTC(3, Random(9, 4, sparsity_level=0.7),
                                            input_mapping="linear", output_mapping="linear"),
    "ltc, no softplus": lambda: fastltc.LTC(3, NCP(5, 4, 2, 2, 2, 3, 2),
                                            implicit_param_constraints=False),
    "ltc of ncps": lambda: ncps.torch.LTC(5, AutoNCP(10, 3), mixed_memory=True),
    "ltc, one neuron": lambda: fastltc.LTC(1, FullyConnected(1)),
    "wired cfc": lambda: fastltc.CfC(16, AutoNCP(19, 2)),
    "wired cfc, pure": lambda: fastltc.CfC(3, AutoNCP(9, 2), mode="pure"),
    "wired cfc of ncps": lambda: ncps.torch.CfC(3, AutoNCP(9, 2), mode="no_gate",
                                                mixed_memory=True),
    "wired cfc, proj": lambda: fastltc.CfC(3, AutoNCP(9, 2), proj_size=5, mixed_memory=True),
    "cfc": lambda: fastltc.CfC(4, 11),
    "cfc, pure, no backbone": lambda: fastltc.CfC(4, 6, mode="pure", backbone_layers=0),
    "cfc, deep": lambda: fastltc.CfC(4, 6, proj_size=3, mode="no_gate", activation="gelu",
                                     backbone_units=7, backbone_layers=3, backbone_dropout=0.4),
    "cfc of ncps": lambda: ncps.torch.CfC(4, 6, proj_size=3, activation="silu",
                                          backbone_layers=2, backbone_units=8,
                                          backbone_dropout=0.3, mixed_memory=True),
    "cfc, relu": lambda: fastltc.CfC(4, 6, activation="relu", backbone_units=5),
    "cfc, tanh": lambda: fastltc.CfC(4, 6, activation="tanh", mode="pure"),
    "stack": _policy,
    "activations around": lambda: [nn.Tanh(), fastltc.CfC(3, 8), nn.Sigmoid(), nn.ReLU()],
    "sequential": lambda: nn.Sequential(fastltc.LTC(2, FullyConnected(4, 3)), nn.Linear(3, 2)),
}  # fmt: skip


def make(name: str) -> Any:
    """Make a model whose parameters are not those that it starts with."""
    module = MODELS[name]()
    layers = module if isinstance(module, list) else [module]
    with torch.no_grad():
        for layer in layers:
            for key, parameter in layer.named_parameters():
                if "sparsity_mask" in key:
                    continue
                if key.rpartition(".")[2] in ("w", "sensory_w", "cm", "gleak"):
                    parameter.mul_(torch.exp(0.3 * torch.randn_like(parameter)))
                else:
                    # So small that a rounding error does not grow from step to step.
                    inputs = parameter.shape[1] if key.endswith(".weight") else 1
                    parameter.add_(0.2 * torch.randn_like(parameter) / inputs**0.5)
            layer.eval()
    return module


def inputs_of(module: Any) -> int:
    first = next(m for m in _layers(module) if isinstance(m, (nn.Linear, *_SEQUENCES)))
    return first.in_features if isinstance(first, nn.Linear) else first.input_size


_SEQUENCES = (SequenceLayer, ncps.torch.LTC, ncps.torch.CfC)


def _layers(module: Any) -> list[nn.Module]:
    return list(module) if isinstance(module, (list, nn.Sequential)) else [module]


def run(module: Any, x: Tensor, timespans: Tensor) -> tuple[Tensor, Tensor]:
    """Run the layers one after the other; return output and the flat state, in their dtype.

    ncps gets time steps of batches wrong: it is given one sample at a time.
    """
    states = []
    with torch.no_grad():
        for layer in _layers(module):
            if not isinstance(layer, _SEQUENCES):
                x = layer(x)
                continue
            results = [layer(x[i : i + 1], timespans=timespans[i : i + 1]) for i in range(len(x))]
            x = torch.cat([output for output, _ in results])
            state = [hn if isinstance(hn, tuple) else (hn,) for _, hn in results]
            states += [torch.cat(part) for part in zip(*state, strict=True)]
    return x, torch.cat(states, 1)


def run_exactly(module: Any, x: Tensor, timespans: Tensor) -> tuple[Tensor, Tensor, float]:
    """Run in float64; return output, state and what a float32 implementation may differ by.

    That is 1e-6 and twice what the modules themselves differ by in float32.
    """
    twins = copy.deepcopy(_layers(module))
    stack = nn.ModuleList(twins)
    fastltc.accelerate(stack)  # ncps makes states of the default dtype
    single = run(twins, x, timespans)
    output, state = run([layer.double() for layer in stack], x.double(), timespans.double())
    rounding = max(float((s - d).abs().max()) for s, d in zip(single, (output, state), strict=True))
    return output, state, 1e-6 + 2 * rounding


def random_sequence(inputs: int, batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """Draw observations and time steps, none of them 0, for which ncps has no numbers."""
    return torch.randn(batch, steps, inputs), torch.rand(batch, steps) * 2 + 0.01


def difference(actual: np.ndarray, wanted: Tensor) -> float:
    """Return the largest absolute difference."""
    return float(np.abs(actual - wanted.numpy()).max(initial=0))
