"""Forecast a day of a load curve, hour by hour, from the week before it.

    python examples/forecast.py --steps 300

The data is made here. An LTC reads the week, two hours a step; a linear layer turns its last
outputs into what is added to the day of a week ago. Compared with that day alone, on later hours.
"""

import argparse

import torch
from torch import Tensor, nn

from fastltc import LTC
from fastltc.wirings import AutoNCP

WEEK, DAY = 168, 24


def load_curve(hours: int) -> Tensor:
    """Make a curve, ``[hours]``: two cycles, noise, and a level that wanders with the weather."""
    t, level = 2 * torch.pi * torch.arange(hours), torch.zeros(hours)
    cycles = torch.sin(t / DAY) + 0.5 * torch.sin(t / WEEK)
    for hour in range(1, hours):
        level[hour] = 0.98 * level[hour - 1] + 0.1 * torch.randn(())
    return cycles + level + 0.1 * torch.randn(hours)


def forecast(layer: LTC, head: nn.Linear, x: Tensor) -> Tensor:
    """Return the day, ``[B, 24]``, after each week, ``[B, 168]``."""
    scale = x.std(1, keepdim=True)
    steps = ((x - x.mean(1, keepdim=True)) / scale).unflatten(1, (WEEK // 2, 2))
    # A new layer keeps a quarter of a state over ten steps of 0.1, of 1 a ten-thousandth.
    output, _ = layer(steps, timespans=0.1)
    return x[:, :DAY] + scale * head(output[:, -1])


def main() -> None:
    """Train, then compare errors on the last quarter of the curve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    torch.manual_seed(0)
    windows = load_curve(8000).unfold(0, WEEK + DAY, 1)
    training, test = windows[:5800], windows[6000::5]  # no window of one overlaps the other
    net = nn.ModuleList([LTC(2, AutoNCP(32, 8)), nn.Linear(8, DAY)])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(parser.parse_args().steps):
        x, y = training[torch.randint(len(training), (64,))].split([WEEK, DAY], 1)
        loss = nn.functional.mse_loss(forecast(*net, x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    x, y = test.split([WEEK, DAY], 1)
    ours, before = ((z - y).square().mean().item() for z in (forecast(*net, x), x[:, :DAY]))
    print(f"mean squared error: LTC {ours:.3f}, week before {before:.3f}")


if __name__ == "__main__":
    main()
