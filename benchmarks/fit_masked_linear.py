"""Fits what `fastltc.ops.masked_linear.prefers_entries` estimates to this processor.

    python benchmarks/fit_masked_linear.py [times.json]

Times both ways of the masked product on one thread, interleaved, prints the constants for
`_COSTS` and how far off a choice by them is, and leaves the times in a file.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

from fastltc.ops import mask_entries, masked_linear
from fastltc.ops.masked_linear import MARGIN, dense_amounts, entries_amounts

SIZES = (32, 64, 128, 256, 512, 1024)
BATCHES = (1, 16, 128, 512)
DENSITIES = (0.02, 0.05, 0.1, 0.15, 0.25, 0.4)
ROUNDS = 7
SLICE = 2e-3  # seconds of a contestant in a round, one call at least


def product(size: int, batch: int, density: float, training: bool) -> dict[str, float]:
    """Return the seconds of a call each way."""
    mask = (torch.rand(size, size) < density).float()
    entries = mask_entries(mask)
    weight, bias = torch.randn(size, size), torch.randn(size)
    x, grad = torch.randn(batch, size), torch.randn(batch, size)
    wanted = [tensor.requires_grad_(training) for tensor in (x, weight, bias)]

    def call(by_entries: bool) -> Callable[[], None]:
        def run() -> None:
            y = masked_linear(x, weight, mask, bias, entries, by_entries)
            if training:
                torch.autograd.grad(y, wanted, grad)

        return run

    ways = {"dense": call(False), "entries": call(True)}
    counts = {name: max(1, int(SLICE / timed(way, 2))) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            way()
            times[name].append(timed(way, counts[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def timed(call: Callable[[], None], count: int) -> float:
    """Return the seconds of a call among so many."""
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count


def fitted(amounts: list[tuple[float, ...]], seconds: list[float]) -> list[float]:
    """Return the nanoseconds that each amount takes, by the least squares of relative errors."""
    nanoseconds = np.array(seconds) * 1e9
    costs, _ = nnls(np.array(amounts) / nanoseconds[:, None], np.ones(len(seconds)))
    return [float(f"{cost:.3g}") for cost in costs]


def main() -> None:
    torch.set_num_threads(1)
    problems = [*itertools.product(SIZES, BATCHES, DENSITIES)]
    found = {}
    for training in (False, True):
        name = "training" if training else "inference"
        times = [product(*problem, training) for problem in problems]
        found[name] = [[*p, t["dense"], t["entries"]] for p, t in zip(problems, times, strict=True)]
        ones = [round(density * size * size) for size, _, density in problems]
        dense = [dense_amounts(batch, size, size) for size, batch, _ in problems]
        by_entries = [
            entries_amounts(batch, count, size, size)
            for (size, batch, _), count in zip(problems, ones, strict=True)
        ]
        costs = {
            "dense": fitted(dense, [t["dense"] for t in times]),
            "entries": fitted(by_entries, [t["entries"] for t in times]),
        }
        print(name, costs)
        slower, lost = [], []
        for problem, t, *amounts in zip(problems, times, dense, by_entries, strict=True):
            estimate = [
                np.dot(a, costs[way]) for a, way in zip(amounts, ("dense", "entries"), strict=True)
            ]
            chosen = t["entries" if estimate[1] * MARGIN < estimate[0] else "dense"]
            slower.append((chosen / t["dense"], problem))
            lost.append((chosen / min(t.values()), problem))
        print("  of the dense product's time, at most", sorted(slower)[-3:])
        print("  of the quicker way's time, at most", sorted(lost)[-5:])
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
