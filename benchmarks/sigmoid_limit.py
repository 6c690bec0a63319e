"""The limit of the processor: the kernels' sigmoid on data that never leaves the registers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from fastltc import _extension


class SigmoidLimit:
    """The micro-benchmark of the extension, on one or more threads at once.

    Args:
        threads: each does the same number of evaluations.
        call_seconds: how long a call takes, at least; long beside the start of a thread.
    """

    def __init__(self, threads: int, call_seconds: float) -> None:
        self._run = _extension.load_runtime().sigmoid_limit
        self._pool = ThreadPoolExecutor(threads)
        self._threads = threads
        self._repeats = 1
        elapsed = 0.0
        while elapsed < call_seconds:
            self._repeats *= 2
            start = time.perf_counter()
            self.call()
            elapsed = time.perf_counter() - start
        self.evaluations: int = threads * self._run(self._repeats)

    def call(self) -> None:
        """Do ``evaluations`` evaluations."""
        if self._threads == 1:
            self._run(self._repeats)
            return
        jobs = [self._pool.submit(self._run, self._repeats) for _ in range(self._threads)]
        for job in jobs:
            job.result()

    def close(self) -> None:
        self._pool.shutdown()
