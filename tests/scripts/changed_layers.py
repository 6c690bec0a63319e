"""Trains layers of ncps that were changed after they were made. Knows nothing of fastltc.

Prints a line of JSON per layer: its name and three losses.
"""

import json
import warnings

import torch
from ncps.torch import LTC, CfC
from ncps.wirings import AutoNCP
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

warnings.simplefilter("ignore")
torch.set_default_dtype(torch.float64)


class LowRank(nn.Linear):
    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features)
        self.down = nn.Parameter(torch.randn(2, linear.in_features) / 4)
        self.up = nn.Parameter(torch.randn(linear.out_features, 2) / 4)

    def forward(self, input):
        return super().forward(input) + input @ self.down.T @ self.up.T


def low_rank(cell):
    cell.time_a = LowRank(cell.time_a)


def activation(cell):
    cell.tanh = nn.Softsign()


CHANGES = {
    "as made": lambda cell: None,
    "low rank": low_rank,
    "spectral norm": lambda cell: parametrizations.spectral_norm(cell.time_a),
    "old spectral norm": lambda cell: spectral_norm(cell.time_b),
    "old spectral norm of ff1": lambda cell: spectral_norm(cell.ff1),
    "weight norm": lambda cell: parametrizations.weight_norm(cell.time_a),
    "old weight norm": lambda cell: weight_norm(cell.time_a),
    "pruned": lambda cell: prune.l1_unstructured(cell.time_b, "weight", 0.5),
    "forward hook": lambda cell: cell.sigmoid.register_forward_hook(lambda m, i, y: 0.8 * y),
    "backward hook": lambda cell: cell.time_a.register_full_backward_hook(
        lambda m, gx, gy: (gx[0] / 2,)
    ),
    "activation": activation,
}


def train(layer, x):
    optimizer = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = layer(x)[0].square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


for kind in ("CfC", "wired CfC"):
    for name, change in CHANGES.items():
        torch.manual_seed(0)
        layer = CfC(3, 8, backbone_units=6) if kind == "CfC" else CfC(3, AutoNCP(9, 2, seed=1))
        cell = layer.rnn_cell if kind == "CfC" else layer.rnn_cell.layer_1
        change(cell)
        print(json.dumps([kind, name, train(layer, torch.randn(4, 5, 3))]))

torch.manual_seed(0)
layer = LTC(3, AutoNCP(9, 2, seed=1))
layer.rnn_cell.make_positive_fn.register_forward_hook(lambda m, i, y: 2 * y)
print(json.dumps(["LTC", "hook", train(layer, torch.randn(4, 5, 3))]))

torch.set_default_dtype(torch.float32)
torch.manual_seed(0)
layer = CfC(3, 8, backbone_units=6).eval()
layer = torch.ao.quantization.quantize_dynamic(layer, {nn.Linear})
print(json.dumps(["CfC", "quantized", [layer(torch.randn(4, 5, 3))[0].sum().item()]]))
