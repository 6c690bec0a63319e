"""Stream a file of sensor readings through a trained network, with the time steps as measured.

    python examples/stream_sensor_file.py                     # makes its data and its model
    python examples/stream_sensor_file.py READINGS.csv --model MODEL.safetensors --out RESULT.csv

READINGS.csv has a column ``time`` (seconds, not decreasing, at any intervals) and a column for each
input of the model, found by its name where the model has names. Each row goes through a session as
it would on a device: one observation, the time since the last one in the unit that the model was
trained in, the state carried. Rows that cannot be used (a missing value, a clock
that went back) are reported and skipped, and the session goes on.

Reading, streaming and writing need no torch. Without arguments a small model is trained first, for
which torch is imported. Its task: a thermometer in a room is read at irregular times, and the
network tells whether the heater is on. That takes the rate at which the temperature changes, so the
last lines compare it with the same network when it is told that all readings are one second apart.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastltc.runtime import Session

# The first reading has none before it; the model is trained with one unit of time for it.
FIRST_DT = 1.0


def readings(path: Path, names: list[str] | None = None) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yield line number, time and inputs ``[I]`` of each row; NaN for what is missing."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        columns = list(rows.fieldnames or [])
        if "time" not in columns:
            raise SystemExit(f"{path}: expected a column named time, got {', '.join(columns)}")
        names = [name for name in columns if name != "time"] if names is None else names
        for name in names:
            if name not in columns:
                raise SystemExit(
                    f"{path}: expected a column named {name}, got {', '.join(columns)}"
                )

        def number(text: str | None) -> float:
            try:
                return float(text or "nan")
            except ValueError:
                return math.nan

        for row in rows:
            inputs = np.array([number(row[name]) for name in names], dtype=np.float32)
            yield rows.line_num, number(row["time"]), inputs


def stream(
    session: Session, path: Path, *, measured: bool = True, names: list[str] | None = None
) -> list[tuple[float, np.ndarray]]:
    """Step through a file; return time and outputs ``[M]`` of each row that could be used.

    Args:
        session: a session with one stream.
        path: the file.
        measured: use the time steps of the file, else 1 for all that are valid.
        names: columns that are the inputs; by default those that the model names, or all but
            ``time``.
    """
    names = names or list(session.input_names) or None
    last: float | None = None
    results = []
    for line, time, inputs in readings(path, names):
        dt = FIRST_DT if last is None else (time - last) / session.time_unit
        try:
            outputs = session.step(inputs, dt if measured or not dt >= 0 else 1.0)
        except ValueError as error:  # the session is as it was before
            if measured:
                print(f"{path}, line {line}: skipped: {error}", file=sys.stderr)
            continue
        last = time
        results.append((time, np.array(outputs)))
    return results


def simulate(seed: int, count: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A room: times [count] in seconds, readings [count] in degrees / 10, heater on or off."""
    random = np.random.default_rng(seed)
    long, short = random.uniform(2, 4, count), random.uniform(0.2, 1, count)
    times = np.cumsum(np.where(random.random(count) < 0.2, long, short))
    temperatures, heater = np.empty(count), np.empty(count)
    clock, switch, temperature, on = 0.0, 0.0, 0.0, bool(random.integers(2))
    for row, time in enumerate(times):
        while clock < time:
            if clock >= switch:
                on, switch = not on, clock + random.uniform(4, 12)
            temperature += 0.02 * ((1.0 if on else -1.0) - temperature) / 5.0
            clock += 0.02
        temperatures[row], heater[row] = temperature, on
    return times, temperatures + random.normal(0, 0.02, count), heater


def write_readings(path: Path, seed: int) -> np.ndarray:
    """Write a simulated file with two bad rows in it; return the heater at the good ones."""
    times, temperatures, heater = simulate(seed)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "temperature"])
        for row, (time, temperature) in enumerate(zip(times, temperatures, strict=True)):
            writer.writerow([f"{time:.3f}", f"{temperature:.4f}"])
            if row == 40:
                writer.writerow([f"{time + 0.1:.3f}", ""])  # the sensor did not answer
            if row == 80:
                writer.writerow([f"{time - 5:.3f}", "0.0"])  # the clock was set back
    return heater


def train(path: Path, steps: int = 300) -> None:
    """Train a small network on simulated rooms and export it."""
    import torch

    import fastltc
    from fastltc.wirings import AutoNCP

    torch.manual_seed(0)
    times, temperatures, heater = (
        torch.tensor(np.array(values), dtype=torch.float32)
        for values in zip(*(simulate(1000 + seed) for seed in range(128)), strict=True)
    )
    timespans = torch.diff(times, prepend=times[:, :1] - FIRST_DT)
    layer, head = fastltc.CfC(1, AutoNCP(24, 4)), torch.nn.Linear(4, 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam([p for p in parameters if p.requires_grad], lr=0.02)
    for step in range(steps):
        logits = head(layer(temperatures.unsqueeze(2), timespans=timespans)[0]).squeeze(2)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, heater)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            print(f"training step {step + 1}: loss {loss.item():.3f}")
    # The sigmoid is part of the file, so that the device gets probabilities.
    stack = [layer, head, torch.nn.Sigmoid()]
    fastltc.export(stack, path, input_names=["temperature"], output_names=["heater"])
    print(f"written: {path}")


def main() -> None:
    """Parse the command line and stream one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("readings", nargs="?", type=Path, help="CSV file; simulated by default")
    parser.add_argument("--model", type=Path, default=Path("heater.safetensors"))
    parser.add_argument("--out", type=Path, default=Path("heater-result.csv"))
    parser.add_argument("--steps", type=int, default=300, help="of training, if there is no model")
    options = parser.parse_args()

    heater = None
    if options.readings is None:
        options.readings = Path("heater-readings.csv")
        heater = write_readings(options.readings, seed=7)
        if not options.model.exists():
            train(options.model, options.steps)

    session = Session.load(options.model)
    results = stream(session, options.readings)
    with open(options.out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        outputs = session.output_names or [f"output{i}" for i in range(session.output_size)]
        writer.writerow(["time", *outputs])
        writer.writerows([f"{time:.3f}", *(f"{y:.6f}" for y in ys)] for time, ys in results)
    print(f"{len(results)} readings streamed, written: {options.out}")

    if heater is not None:
        session.reset()
        blind = stream(session, options.readings, measured=False)
        for what, rows in (("as measured", results), ("all taken as 1 s", blind)):
            told = np.array([ys[0] > 0.5 for _, ys in rows])
            right = 100 * np.mean(told == heater)
            print(f"heater told right with time steps {what}: {right:.1f} % of readings")


if __name__ == "__main__":
    main()
