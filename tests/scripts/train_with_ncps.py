"""Trains liquid layers of ncps on irregularly sampled waves. Knows nothing of fastltc.

Prints a line of JSON per epoch, and at the end the seconds that training took.
"""

import argparse
import json
import time
from functools import partial

import numpy as np
import torch
from ncps.torch import LTC, CfC
from ncps.wirings import AutoNCP
from torch import nn

LAYERS = {"LTC": LTC, "LTC with memory": partial(LTC, mixed_memory=True), "CfC": CfC}


class Forecaster(nn.Module):
    """Predicts the next value of a wave."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.embedding = nn.Linear(2, 6)
        self.rnn = LAYERS[layer](6, AutoNCP(16, 3, seed=7))
        self.head = nn.Linear(3, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        features, _ = self.rnn(torch.tanh(self.embedding(values)))
        return self.head(features).squeeze(-1)


def waves(samples: int, steps: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    gaps = rng.uniform(0.1, 0.9, (samples, steps + 1))
    values = np.sin(rng.uniform(0, 6, (samples, 1)) + gaps.cumsum(1))
    inputs = np.stack([values[:, :-1], gaps[:, 1:]], -1)
    dtype = torch.get_default_dtype()
    return torch.tensor(inputs, dtype=dtype), torch.tensor(values[:, 1:], dtype=dtype)


def train(dtype: str, layer: str, epochs: int) -> float:
    torch.set_default_dtype(getattr(torch, dtype))
    torch.manual_seed(1)
    model = Forecaster(layer)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inputs, targets = waves(samples=64, steps=12, seed=2)
    started = time.perf_counter()
    for epoch in range(epochs):
        losses = []
        for batch in torch.randperm(len(inputs)).split(32):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs[batch]), targets[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        record = {"dtype": dtype, "layer": layer, "epoch": epoch, "loss": np.mean(losses)}
        print(json.dumps(record), flush=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    seconds = sum(
        train(dtype, layer, arguments.epochs)
        for dtype in ("float32", "float64")
        for layer in LAYERS
    )
    print(json.dumps({"seconds": seconds, "made": LTC(2, 3).__class__.__module__}))
