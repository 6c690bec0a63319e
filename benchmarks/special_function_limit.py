"""The limit of the GPU: the CUDA kernels' sigmoid on data that never leaves the registers."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

# As csrc/cuda/special_function_limit.h has it.
EVALUATIONS_PER_REPEAT = 8
# As many as a device of 132 multiprocessors has resident, some times over.
THREADS = 1 << 20


def synchronised() -> float:
    """Return seconds, once the GPU has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def run_on_gpu(threads: int, repeats: int) -> Tensor:
    """Run the micro-benchmark of the CUDA kernels; see csrc/cuda/special_function_limit.h."""
    like = torch.empty(0, device="cuda")
    sums: Tensor = torch.ops.fastltc.special_function_limit(like, threads, repeats)
    return sums


class SpecialFunctionLimit:
    """The micro-benchmark, long enough that its launch does not count.

    Args:
        call_seconds: how long a call takes, at least.
        run: called with the numbers of threads and of repetitions.
        clock: returns seconds, when what was started has ended.
    """

    def __init__(
        self,
        call_seconds: float,
        run: Callable[[int, int], object] = run_on_gpu,
        clock: Callable[[], float] = synchronised,
    ) -> None:
        self._run = run
        self._repeats = 8
        self.call()
        elapsed = 0.0
        while elapsed < call_seconds:
            self._repeats *= 2
            start = clock()
            self.call()
            elapsed = clock() - start
        self.evaluations = THREADS * EVALUATIONS_PER_REPEAT * self._repeats

    def call(self) -> None:
        """Do ``evaluations`` evaluations."""
        self._run(THREADS, self._repeats)
