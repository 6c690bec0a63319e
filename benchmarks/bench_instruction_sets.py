"""Training steps of LTC by each instruction set, in processes that take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from cases import CASES, QUICK, Layers
from fastltc import _extension
from figures import Figure
from interleave import Contestant

WORKER = Path(__file__).with_name("worker.py")
NAME = "auto_ncp_19"
# One call is this many steps, beside which the way to the other process is nothing.
STEPS = 1 if QUICK else 10


class Worker:
    """A process that runs training steps on one thread, by one instruction set."""

    def __init__(self, instruction_set: str) -> None:
        self.instruction_set = instruction_set
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), "steps", NAME, "fastltc", "1"],
            env={**os.environ, "FASTLTC_CPU": instruction_set},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until(self, message: str) -> None:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        assert line, f"the process of FASTLTC_CPU={self.instruction_set} ended"
        assert json.loads(line) == message

    def call(self) -> None:
        """Run ``STEPS`` steps."""
        print(STEPS, file=self._process.stdin, flush=True)
        self.wait_until("done")

    def close(self) -> None:
        self._process.communicate()


def test_instruction_sets(
    checked_layers: Callable[[str], tuple[Layers, float]],
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
) -> None:
    _, error = checked_layers(NAME)
    supported = _extension.load_runtime().cpu_info()["supported"]
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker(name))) for name in reversed(supported)]
        for worker in workers:
            worker.wait_until("ready")
        times = interleave([Contestant(w.instruction_set, w.call, 1, jobs=STEPS) for w in workers])
    best, *others = (worker.instruction_set for worker in workers)
    figures = [
        Figure("other", f"{name} takes {{}} x the time", times.ratio(name, best)) for name in others
    ]
    record_times(str(CASES[NAME]), f"forward + backward by {best}", times, figures, error)
