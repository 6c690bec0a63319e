"""LTC on a GPU: training steps against ncps and cuDNN's LSTM; `pytest benchmarks -m cuda`.

Times are of the device (CUDA events), medians of interleaved rounds, after a check that fastltc and
ncps compute the same. FASTLTC_CUDA_RESULTS names a JSON file for them.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ncps.torch import LTC as NcpsLTC
from ncps.wirings import AutoNCP, FullyConnected
from torch import Tensor, nn

import fastltc
from cases import QUICK

pytestmark = pytest.mark.cuda

# Wiring, inputs, batch, steps; the most of the LSTM's time and the least times ncps that are asked.
CASES = {
    "AutoNCP(19, 2)": (lambda: AutoNCP(19, 2, seed=1), 16, 128, 32, 0.5, 300),
    "FullyConnected(64)": (lambda: FullyConnected(64), 32, 64, 256, 1.2, None),
    "FullyConnected(256)": (lambda: FullyConnected(256), 64, 256, 128, None, None),
}
ROUNDS = 3 if QUICK else 30
# A step of ncps takes seconds.
NCPS_ROUNDS = 1 if QUICK else 5


def training_step(module: nn.Module, x: Tensor) -> Callable[[], None]:
    parameters = [p for p in module.parameters() if p.requires_grad]

    def step() -> None:
        for leaf in (x, *parameters):
            leaf.grad = None
        output, _ = module(x)
        output.square().sum().backward()

    return step


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return the step as a CUDA graph, as a training loop of fixed sizes would run it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def milliseconds(step: Callable[[], None]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def check(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    """Return by how much the outputs differ; few steps, because ncps is slow."""
    short = x.detach()[:, :4]
    with torch.no_grad():
        expected, actual = theirs(short)[0], ours(short)[0]
    error = float((actual - expected).abs().max() / expected.abs().max())
    assert error <= 1e-4, f"fastltc and ncps differ by {error}"
    return error


def record(row: dict[str, object]) -> None:
    place = os.environ.get("FASTLTC_CUDA_RESULTS")
    if not place:
        return
    path = Path(place)
    rows = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*rows, row], indent=1) + "\n")


@pytest.mark.parametrize("name", CASES)
def test_training_step_on_a_gpu(name: str) -> None:
    wiring, inputs, batch, time, part_of_lstm, times_ncps = CASES[name]
    time = min(time, 4) if QUICK else time
    torch.manual_seed(0)
    ours = fastltc.LTC(inputs, wiring()).cuda()
    theirs = NcpsLTC(inputs, wiring()).cuda()
    ours.load_state_dict(theirs.state_dict())
    lstm = nn.LSTM(inputs, ours.state_size, batch_first=True).cuda()
    x = torch.randn(batch, time, inputs, device="cuda", requires_grad=True)
    error = check(ours, theirs, x)
    steps = {
        "fastltc": training_step(ours, x),
        "fastltc graph": captured(training_step(ours, x)),
        "LSTM": training_step(lstm, x),
        "LSTM graph": captured(training_step(lstm, x)),
    }
    times: dict[str, list[float]] = {key: [] for key in (*steps, "ncps")}
    for step in steps.values():
        step()
    for _ in range(ROUNDS):
        for key, step in steps.items():
            times[key].append(milliseconds(step))
    for _ in range(NCPS_ROUNDS):
        times["ncps"].append(milliseconds(training_step(theirs, x)))
    median = {key: statistics.median(values) for key, values in times.items()}
    lstm_part = median["fastltc graph"] / median["LSTM graph"]
    ncps_times = median["ncps"] / median["fastltc"]
    print(
        f"\n{name} I={inputs} B={batch} T={time}: "
        + ", ".join(f"{key} {value:.3f} ms" for key, value in median.items())
        + f"; {lstm_part:.2f} of LSTM (graphs), {ncps_times:.0f} x ncps (eager)"
    )
    record(
        {
            "case": f"{name} I={inputs} B={batch} T={time}",
            "device": torch.cuda.get_device_name(),
            "torch": str(torch.__version__),
            "cuda": torch.version.cuda,
            "rounds": {key: len(values) for key, values in times.items()},
            "milliseconds": median,
            "part_of_lstm": lstm_part,
            "part_of_lstm_asked": part_of_lstm,
            "times_ncps": ncps_times,
            "times_ncps_asked": times_ncps,
            "relative_error": error,
        }
    )
