"""Control a motor in a loop at a fixed rate, and measure how regular the loop is.

    python examples/control_loop.py                          # makes its model: some seconds
    python examples/control_loop.py --rate 1000 --seconds 10 --model MODEL.safetensors

Each period reads the observation (how far the motor's angle is from its target, and its speed),
gives it to the network with the time that really passed since the last one, in the unit that the
model was trained in, and sets the motor's torque. The motor is simulated; put your own ``read`` and
``act`` in its place.

At the end come the statistics: how far the periods were from what they should be (the jitter), how
long the network took, how many periods were missed, and how well the target was followed.

The loop needs no torch. Without ``--model`` a small network is trained first to imitate a
proportional-derivative controller, at any rate from 50 to 2000 per second, for which torch is
imported.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from pathlib import Path

import numpy as np

from fastltc.runtime import Session

FORCE = 8.0  # acceleration by the full torque, rad/s^2
FRICTION = 1.0  # 1/s
TARGET_SECONDS = 2.0  # how long the target stays


class Motor:
    """A simulated motor whose angle is to follow a target that jumps between -1 and 1."""

    def __init__(self) -> None:
        self.angle = self.speed = self.torque = self.time = 0.0

    @property
    def target(self) -> float:
        return 1.0 if self.time // TARGET_SECONDS % 2 == 0 else -1.0

    def read(self, elapsed: float, x: np.ndarray) -> None:
        """Let the motor turn for ``elapsed`` seconds, then write the observation ``[2]`` to x."""
        self.time += elapsed
        self.speed += elapsed * (FORCE * self.torque - FRICTION * self.speed)
        self.angle += elapsed * self.speed
        x[0] = self.target - self.angle
        x[1] = self.speed

    def act(self, torque: float) -> None:
        """Set the torque for the time until the next observation."""
        self.torque = min(1.0, max(-1.0, torque))


def train(path: Path, steps: int) -> None:
    """Make a model that imitates a controller, at any rate, and export it."""
    import torch

    import fastltc
    from fastltc.wirings import AutoNCP

    torch.manual_seed(0)
    layer = fastltc.CfC(2, AutoNCP(12, 1))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    print(f"training {path}: {steps} steps")
    for step in range(steps):
        # Error and speed wander as they may under control; each sequence has a rate of its own.
        x = torch.randn(64, 2, 20).cumsum(2).mul(0.15).transpose(1, 2) + torch.randn(64, 1, 2)
        period = torch.exp(torch.empty(64, 1).uniform_(math.log(1 / 2000), math.log(1 / 50)))
        timespans = period * torch.empty(64, 20).uniform_(0.7, 1.3)
        output, _ = layer(x, timespans=timespans)
        # A torque from -1 to 1.
        wanted = torch.tanh(4.0 * x[..., :1] - 1.5 * x[..., 1:])
        loss = (output - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99 or step == steps - 1:
            print(f"  step {step + 1}: mean squared error {loss.item():.4f}")
    fastltc.export(layer, path)


def sleep_until(deadline: float, spin: float) -> None:
    """Sleep, but wait the last ``spin`` seconds awake: sleeping wakes up late by some 50 us."""
    rest = deadline - time.perf_counter() - spin
    if rest > 0:
        time.sleep(rest)
    while time.perf_counter() < deadline:
        pass


def control(session: Session, rate: float, seconds: float, spin: float) -> dict[str, np.ndarray]:
    """Run the loop; return, of each period, its length, the network's time and the error."""
    period, count = 1.0 / rate, max(2, round(rate * seconds))
    motor = Motor()
    # Everything that the loop needs is made before it, so that nothing is allocated inside it.
    x, y = np.zeros(2, np.float32), np.zeros(1, np.float32)
    lengths, busy, errors = (np.zeros(count) for _ in range(3))
    session.reset()
    session.step(x, period / session.time_unit, y)  # touches the memory for the first time
    session.reset()
    clock = time.perf_counter
    collecting = gc.isenabled()
    gc.disable()
    try:
        last = clock()
        deadline = last + period
        for k in range(count):
            sleep_until(deadline, spin)
            now = clock()
            elapsed, last = now - last, now
            motor.read(elapsed, x)
            begin = clock()
            session.step(x, elapsed / session.time_unit, y)
            busy[k] = clock() - begin
            motor.act(float(y[0]))
            lengths[k], errors[k] = elapsed, x[0]
            # A period that was missed is not made up for: the next starts a whole one later.
            deadline = max(deadline + period, now + 0.5 * period)
    finally:
        if collecting:
            gc.enable()
    return {"length": lengths, "busy": busy, "error": errors}


def report(results: dict[str, np.ndarray], rate: float) -> None:
    """Print the statistics."""
    period, lengths = 1.0 / rate, results["length"]
    rows = [
        ("late or early", np.abs(lengths - period)),
        ("network", results["busy"]),
    ]
    print(f"{len(lengths)} periods of {1e6 * period:.0f} us; microseconds:")
    print(f"{'':16}{'median':>10}{'99 %':>10}{'99.9 %':>10}{'most':>10}")
    for name, values in rows:
        shown = [1e6 * v for v in np.percentile(values, [50, 99, 99.9, 100])]
        print(f"{name:16}" + "".join(f"{v:10.1f}" for v in shown))
    print(f"mean period {1e6 * lengths.mean():.1f} us, deviation {1e6 * lengths.std():.1f} us")
    missed = int((lengths > 1.5 * period).sum())
    print(f"missed: {missed} of {len(lengths)} ({100 * missed / len(lengths):.2f} %)")
    # The target jumps; what counts is where the motor is just before it does so again.
    times = lengths.cumsum()
    settled = times % TARGET_SECONDS > 0.75 * TARGET_SECONDS
    if settled.any():
        error = float(np.abs(results["error"][settled]).mean())
        print(f"distance from the target once settled: {error:.3f} rad")


def main() -> None:
    """Parse the command line, make a model if there is none, and run the loop."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model of 2 inputs and 1 output")
    parser.add_argument("--rate", type=float, default=500.0, help="periods a second (500)")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long (8)")
    parser.add_argument(
        "--spin", type=float, default=200.0, help="microseconds to wait awake, each period (200)"
    )
    parser.add_argument("--steps", type=int, default=400, help="of training, without --model (400)")
    options = parser.parse_args()
    if not (options.rate > 0 and options.seconds > 0 and options.spin >= 0):
        parser.error("expected --rate and --seconds above 0 and --spin of 0 or more")
    if options.model is None:
        options.model = Path("motor.safetensors")
        train(options.model, options.steps)
    session = Session.load(options.model)
    if (session.input_size, session.output_size) != (2, 1):
        raise SystemExit(
            f"{options.model}: expected 2 inputs and 1 output, got {session.input_size} and "
            f"{session.output_size}"
        )
    report(control(session, options.rate, options.seconds, 1e-6 * options.spin), options.rate)


if __name__ == "__main__":
    main()
