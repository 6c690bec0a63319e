"""Tell how fast something swings from readings at irregular times.

    python examples/irregular.py --steps 300

The data is made here: swings of period 2 to 8 s, read 30 times with gaps of 0.05 to 1.5 s and with
noise. A CfC is told the gaps (``timespans``), and its last output is the period. The same network
that takes all gaps as one second shows what they are worth.
"""

import argparse

import torch
from torch import Tensor, nn

from fastltc import CfC


def swings(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make readings ``[B, 30, 1]``, gaps ``[B, 30]`` in seconds and periods ``[B, 1]``."""
    gaps = 0.05 + 1.45 * torch.rand(count, 30) ** 2
    period, phase = 2 + 6 * torch.rand(count, 1), torch.rand(count, 1)
    readings = torch.sin(2 * torch.pi * (gaps.cumsum(1) / period + phase))
    return (readings + 0.1 * torch.randn_like(readings)).unsqueeze(2), gaps, period


def train(steps: int, told: bool) -> float:
    """Return the error on new swings, in seconds, of a network that was told the gaps or not."""
    torch.manual_seed(0)
    layer, head = CfC(1, 32, backbone_units=64), nn.Linear(32, 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.005)

    def period(x: Tensor, gaps: Tensor) -> Tensor:
        # Divided by the mean gap, so that a usual step is 1; it is as long in the other network.
        output, _ = layer(x, timespans=gaps / 0.53 if told else 1.0)
        return 5 + head(output[:, -1])

    for _ in range(steps):
        x, gaps, y = swings(128)
        loss = nn.functional.mse_loss(period(x, gaps), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    x, gaps, y = swings(2000)
    with torch.no_grad():
        return (period(x, gaps) - y).abs().mean().item()


def main() -> None:
    """Train both and print their errors; a guess of the middle is 1.5 s off."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    told, blind = train(steps, told=True), train(steps, told=False)
    print(f"period, mean error: gaps told {told:.2f} s, all gaps taken as alike {blind:.2f} s")


if __name__ == "__main__":
    main()
