"""What the rows of the benchmarks call of fastltc, by name, for processes that run nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from bench_layers import CFC_TRAINING, MIXED_TRAINING, TRAINING, stream
from bench_masked_linear import SIZES, Products
from bench_parallel import Networks
from bench_resets import KINDS, Rollout
from bench_runtime import STEP, STREAMS, Streaming
from cases import CASES, Layers

Call = Callable[[], object]


def _training(name: str) -> Call:
    return Layers(CASES[name]).fastltc.training_step


def _forward(name: str) -> Call:
    return Layers(CASES[name]).fastltc.forward


def _stream(name: str) -> Call:
    return torch.no_grad()(stream(Layers(CASES[name]).fastltc))


def _step(name: str) -> Call:
    return Streaming(Layers(CASES[name])).step()


def _steps(name: str) -> Call:
    return Streaming(Layers(CASES[name])).steps()


def _masked(size: tuple[int, int, int, float]) -> Call:
    return Products(*size).masked_step


def _rollout(kind: str, way: str) -> Call:
    return Rollout(kind).ways()[way]


def _parallel(steps: int) -> Call:
    return torch.no_grad()(Networks(steps).together)


CALLS: dict[str, Callable[[], Call]] = {
    **{f"training, {n}": partial(_training, n) for n in TRAINING | CFC_TRAINING | MIXED_TRAINING},
    **{f"forward, {n}": partial(_forward, n) for n in TRAINING | CFC_TRAINING | MIXED_TRAINING},
    **{f"one call, {n}": partial(_stream, n) for n in ("one_step", "one_sequence", "cfc_one_step")},
    **{f"session, {n}": partial(_step, n) for n in (*STEP, *STREAMS)},
    **{f"session's kernel, {n}": partial(_steps, n) for n in STEP},
    **{f"masked, {size}": partial(_masked, size) for size in SIZES},
    **{f"rollout, {n}": partial(_rollout, n, "fastltc") for n in KINDS},
    **{f"rollout without resets, {n}": partial(_rollout, n, "without") for n in KINDS},
    **{f"ten networks, T={steps}": partial(_parallel, steps) for steps in (1, 32)},
}
"""Name -> what makes the call."""
