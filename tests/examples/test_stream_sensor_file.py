"""The example that streams a file of sensor readings."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import fastltc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "stream_sensor_file.py"


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_it_makes_its_data_and_its_model(tmp_path: Path) -> None:
    done = run(tmp_path, "--steps", 50)
    assert done.returncode == 0, done.stderr
    assert "120 readings streamed" in done.stdout
    assert "line 43: skipped: x: expected finite numbers" in done.stderr
    assert "line 84: skipped: dt: expected" in done.stderr
    with open(tmp_path / "heater-result.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    assert all(0 <= float(row["heater"]) <= 1 for row in rows)
    # After 50 steps of training it is right far more often than by chance.
    share = float(done.stdout.split("as measured: ")[1].split(" %")[0])
    assert share > 80


def test_own_readings_and_model(tmp_path: Path) -> None:
    layer = fastltc.LTC(2, 5)
    fastltc.export(layer, tmp_path / "own.safetensors")
    times = np.cumsum(np.random.default_rng(0).uniform(0.1, 3, 30)).round(3)
    inputs = np.random.default_rng(1).standard_normal((30, 2)).round(4)
    with open(tmp_path / "own.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "time", "b"])
        writer.writerows([a, time, b] for time, (a, b) in zip(times, inputs, strict=True))
    options = ["--model", "own.safetensors", "--out", "out.csv"]
    done = run(tmp_path, "own.csv", *options)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "out.csv", newline="") as file:
        found = [[float(v) for v in row] for row in list(csv.reader(file))[1:]]
    with torch.no_grad():
        timespans = torch.tensor(np.diff(times, prepend=times[0] - 1), dtype=torch.float32)
        wanted, _ = layer(
            torch.tensor(inputs[None], dtype=torch.float32), timespans=timespans[None]
        )
    assert np.allclose(np.array(found)[:, 0], times)
    assert np.abs(np.array(found)[:, 1:] - wanted[0].numpy()).max() < 3e-6
    # In minutes, and with columns by their names.
    fastltc.export(layer, tmp_path / "own.safetensors", time_unit=60, input_names=["b", "a"])
    assert run(tmp_path, "own.csv", *options).returncode == 0
    with open(tmp_path / "out.csv", newline="") as file:
        found = [[float(v) for v in row] for row in list(csv.reader(file))[1:]]
    with torch.no_grad():
        swapped = torch.tensor(inputs[None, :, ::-1].copy(), dtype=torch.float32)
        timespans[1:] /= 60
        wanted, _ = layer(swapped, timespans=timespans[None])
    assert np.abs(np.array(found)[:, 1:] - wanted[0].numpy()).max() < 3e-6
    fastltc.export(layer, tmp_path / "own.safetensors", input_names=["a", "c"])
    done = run(tmp_path, "own.csv", *options)
    assert "own.csv: expected a column named c, got a, time, b" in done.stderr
    fastltc.export(layer, tmp_path / "own.safetensors")
    (tmp_path / "own.csv").write_text("a,b\n1,2\n")
    done = run(tmp_path, "own.csv", *options)
    assert done.returncode == 1
    assert "expected a column named time, got a, b" in done.stderr
